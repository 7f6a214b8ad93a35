"""The same gradient, the textbook way: one graph through every inner step.

Autograd records all T steps and walks back through them. It is short, it is what the adjoint engine must equal, and
its memory grows with T: every step's activations stay until the end.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.inner import Gradients, InnerLoss, Plan, Predict, check_waypoints, inner_gradient, step_sizes, waypoints_on
from hoptm.path_losses import PathLoss


def path_gradient(
    predict: Predict,
    path_loss: PathLoss,
    expert: Float[Tensor, "k p"],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, "*steps"],
    plan: Plan,
    waypoints: Sequence[int | Fraction] | Callable[[Tensor], Sequence[int | Fraction]],
    inner_loss: InnerLoss = F.cross_entropy,
    *,
    momentum: float = 0.0,
    scale: Float[Tensor, "p"] | None = None,
) -> Gradients:
    """As `adjoint.path_gradient`, by plain autograd through the unrolled loop; memory grows with T."""
    soft = targets.is_floating_point()
    images = images.detach().clone().requires_grad_()
    targets = targets.detach().clone().requires_grad_(soft)
    lr = lr.detach().clone().requires_grad_()

    path = [expert[0].detach().clone().requires_grad_()]
    velocity = torch.zeros_like(path[0])
    for batch, drawn, rate in zip(plan.batches, plan.draws, step_sizes(lr, plan.steps), strict=True):
        gradient = inner_gradient(predict, inner_loss, path[-1], images[batch], targets[batch], drawn, graph=True)
        velocity = momentum * velocity + (gradient if scale is None else scale * gradient)
        path.append(path[-1] - rate * velocity)

    steps = waypoints(torch.stack(path).detach()) if callable(waypoints) else waypoints
    check_waypoints(steps, plan.steps, len(expert))
    student = waypoints_on(path, steps)
    loss = path_loss(student, expert)
    inputs = (images, lr, targets) if soft else (images, lr)
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return Gradients(loss.detach(), gradients[0], gradients[2] if soft else None, gradients[1], student.detach())
