"""The truncated gradient of TESLA (Cui et al. 2023), a control of what is computed: it is not the gradient.

The exact sweep carries the adjoint back through every step. Here it stays what it was at the end point, so each inner step is treated
as if later weights did not depend on it: dL/dx_t = -a d< g_t, b_T >/dx. It is exact for the last step and for a
loss that is linear along the path, and drops every path through later weights otherwise. It could spare one product with the
Hessian a step; as it shares the steps of the exact sweep, which return that product too, its time says nothing of TESLA's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import ConfigError
from hoptm.inner import Eager, InnerLoss, Plan, Predict, Step, step_sizes


def backward(
    predict: Predict,
    path: Float[Tensor, "t p"],
    at_waypoints: dict[int, Float[Tensor, "p"]],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, "*steps"],
    plan: Plan,
    inner_loss: InnerLoss = F.cross_entropy,
    *,
    step: Step | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"] | None, Float[Tensor, "*steps"]]:
    """As `adjoint.backward`, truncated. Its gradient for one step size is exact for what it keeps: the sum of -< g_t, b_T >.

    Raises ConfigError when the loss looks at more than the end (the start has no gradient and may be looked at).
    """
    inside = [at for at in at_waypoints if at not in (0, max(at_waypoints))]
    if inside:
        raise ConfigError(f"the truncated gradient knows one waypoint, the end; the loss also looks at step {inside[0]}.")
    step, images, targets = step or Eager(predict, inner_loss), images.detach(), targets.detach()
    rates, last = step_sizes(lr.detach(), plan.steps), max(at_waypoints)
    for_images, for_rates = torch.zeros_like(images), torch.zeros(plan.steps, dtype=images.dtype, device=images.device)
    for_targets = torch.zeros_like(targets) if targets.is_floating_point() else None
    end = at_waypoints[last].detach()
    for number in reversed(range(last)):
        batch = plan.batches[number]
        found = step.second(path[number], images[batch], targets[batch], plan.draws[number], end, None)
        for_rates[number] = -found.product
        for_images.index_add_(0, batch, found.images, alpha=-float(rates[number]))
        if for_targets is not None and found.targets is not None:
            for_targets.index_add_(0, batch, found.targets, alpha=-float(rates[number]))
    return for_images, for_targets, for_rates if lr.dim() else for_rates.sum()
