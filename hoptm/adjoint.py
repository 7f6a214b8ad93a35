"""The engine: the exact gradient of any path loss, at the memory of one training step.

Forward, the student takes T steps on synthetic images and only the T + 1 flat parameter vectors are kept. Backward,
the graph of one step at a time is rebuilt and an adjoint vector lambda is carried from the last waypoint to the
start. With g_t the gradient of the inner loss, b_t the gradient of the path loss with respect to waypoint t, and
s_t(theta, x, y, a) = < g_t(theta, x, y), lambda_{t+1} >:

    dL/dx_t += -a ds_t/dx      dL/dy_t += -a ds_t/dy      dL/da += -s_t      lambda_t = lambda_{t+1} + b_t - a ds_t/dtheta

With momentum m the velocity v_{t+1} = m v_t + g_t has an adjoint of its own, nu_t = m w_t with w_t = nu_{t+1} - a lambda_{t+1}:
w_t takes the place of -a lambda_{t+1} above, and dL/da = -< v_{t+1}, lambda_{t+1} >.

The graph of a step may also be kept from the forward sweep, for as many steps as memory allows. None of this is an
approximation: it is the gradient of the fully unrolled graph, reordered; `unroll` computes the same by plain autograd and
the tests compare the two.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import ConfigError, DivergedError
from hoptm.inner import Eager, Gradients, InnerLoss, Kept, Plan, Predict, Step, check_waypoints, split, step_sizes, waypoints_on
from hoptm.path_losses import PathLoss


def forward(
    predict: Predict,
    start: Float[Tensor, "p"],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, "*steps"],
    plan: Plan,
    inner_loss: InnerLoss = F.cross_entropy,
    *,
    momentum: float = 0.0,
    step: Step | None = None,
    kept: Kept | None = None,
    scale: Float[Tensor, "p"] | None = None,
) -> Float[Tensor, "t p"]:
    """The student's path theta_0 .. theta_T: v_{t+1} = momentum v_t + g_t, theta_{t+1} = theta_t - lr_t v_{t+1}, v_0 = 0.

    `lr` is one step size, or one a step (T,). `step` does the work of one step: None is `inner.Eager(predict, inner_loss)`,
    `kernels.fastest` gives a faster one. `kept` is filled with its first steps, for `backward`. `scale` multiplies each g_t.

    Raises DivergedError with the first step at which a parameter is not finite, ConfigError for step sizes that do not fit.
    """
    step, images, targets = step or Eager(predict, inner_loss), images.detach(), targets.detach()
    rates = _rates(lr, plan, momentum)
    path = torch.empty(plan.steps + 1, start.numel(), dtype=start.dtype, device=start.device)
    path[0] = start.detach()
    velocity: Tensor | None = None
    for number, (batch, drawn) in enumerate(zip(plan.batches, plan.draws, strict=True)):
        keep = kept is not None and number < kept.limit
        gradient, memory = step.first(path[number], images[batch], targets[batch], drawn, keep=keep)
        if keep and kept is not None:
            kept.steps[number] = memory
        if scale is not None:
            gradient = scale * gradient
        if momentum:
            gradient = velocity = gradient.clone() if velocity is None else momentum * velocity + gradient
        torch.sub(path[number], rates[number] * gradient, out=path[number + 1])
    _check_finite(path, rates)
    return path


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
    momentum: float = 0.0,
    step: Step | None = None,
    kept: Kept | None = None,
    scale: Float[Tensor, "p"] | None = None,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"] | None, Float[Tensor, "*steps"]]:
    """The adjoint sweep: gradients for the images, the targets (None for class indices) and the step size, shaped as `lr`.

    `at_waypoints` maps a step t to b_t, the gradient of the path loss with respect to the student there. The sweep
    starts at the last of them, so an early end costs less. Give what `forward` was given; what it reads of `kept` is dropped.
    """
    step, images, targets = step or Eager(predict, inner_loss), images.detach(), targets.detach()
    rates = _rates(lr, plan, momentum)
    for_images, for_rates = torch.zeros_like(images), torch.zeros_like(lr.detach()).expand(plan.steps).clone()
    for_targets = torch.zeros_like(targets) if targets.is_floating_point() else None
    numbers = rates.tolist()  # at once: on a GPU each look at a number waits for it
    adjoint = at_waypoints[max(at_waypoints)].detach().clone()
    behind: Tensor | None = None  # nu, the adjoint of the velocity
    for number in reversed(range(max(at_waypoints))):
        batch, rate = plan.batches[number], numbers[number]
        along = adjoint if behind is None else torch.add(adjoint, behind, alpha=-1 / rate)  # w = -a along
        behind = -momentum * rate * along if momentum else None
        memory = None if kept is None else kept.steps.pop(number, None)
        found = step.second(path[number], images[batch], targets[batch], plan.draws[number], along if scale is None else scale * along, memory)
        for_rates[number] = (path[number + 1] - path[number]) @ adjoint / rate if momentum else -found.product
        for_images.index_add_(0, batch, found.images, alpha=-rate)
        if for_targets is not None and found.targets is not None:
            for_targets.index_add_(0, batch, found.targets, alpha=-rate)
        adjoint.sub_(found.theta, alpha=rate)
        if number in at_waypoints:
            adjoint += at_waypoints[number]
    return for_images, for_targets, for_rates if lr.dim() else _summed(for_rates)


def _summed(values: Tensor) -> Tensor:
    """From the last to the first, one after the other, so that the bits do not depend on how a sum is split."""
    total = torch.zeros_like(values[0])
    for value in reversed(values.unbind()):
        total += value
    return total


def _check_finite(path: Tensor, rates: Tensor) -> None:
    if not torch.isfinite(path[-1]).all():
        first = int((~torch.isfinite(path).all(dim=1)).nonzero()[0])
        words = f"Lower its step size (now {float(rates.max()):.3g}) or the number of steps."
        raise DivergedError(f"the student left the finite numbers at inner step {first} of {len(rates)}. {words}")


def _rates(lr: Tensor, plan: Plan, momentum: float) -> Tensor:
    rates = step_sizes(lr.detach(), plan.steps)
    if not 0 <= momentum < 1:
        raise ConfigError(f"the student's momentum is {momentum}; it must lie in 0 .. 1.")
    if momentum and not rates.all():
        raise ConfigError("a student with momentum needs step sizes other than 0.")
    return rates


def steps_within(budget: int | float, step: Step, start: Float[Tensor, "p"], images: Float[Tensor, "n c h w"], targets: Tensor, plan: Plan) -> int:
    """How many steps (0 .. T) can be kept when the path and what is kept may take `budget` bytes together; 0 for a step that keeps nothing."""
    path = (plan.steps + 1) * start.numel() * start.element_size()
    batch = max(plan.batches, key=len)
    drawn = plan.draws[[len(other) for other in plan.batches].index(len(batch))]
    each = step.kept_bytes(start, images[batch].detach(), targets[batch].detach(), drawn)
    return int(min(max((budget - path) // each, 0), plan.steps)) if each else 0


def waypoint_gradients(
    path_loss: PathLoss, student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"], steps: Sequence[int | Fraction]
) -> tuple[Float[Tensor, ""], dict[int, Float[Tensor, "p"]]]:
    """The path loss, and b_t for each step t at which it looks; a step that is named twice gets the sum, a waypoint between two steps gives each its share."""
    leaf = student.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = path_loss(leaf, expert)
    (gradient,) = torch.autograd.grad(loss, leaf)
    at_waypoints: dict[int, Tensor] = {}
    for (before, share), row in zip(map(split, steps), gradient, strict=True):
        for step, part in ((before, 1 - share), (before + 1, share)):
            if part:
                own = row if part == 1 else part * row
                at_waypoints[step] = at_waypoints[step] + own if step in at_waypoints else own
    return loss.detach(), at_waypoints


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
    step: Step | None = None,
    keep: int = 0,
    scale: Float[Tensor, "p"] | None = None,
) -> Gradients:
    """Loss and gradients of a path loss, the student starting at `expert[0]`.

    `waypoints` are the K inner steps (0 .. T) at which the loss looks at the student, a `Fraction` for a place between two steps, or a function that
    chooses them from the whole path (T + 1, P) after the forward sweep. `keep` (0 .. T) steps leave what they made for the backward
    sweep: memory for time, `steps_within` chooses it from a budget. The rest is as in `forward`.

    Raises ConfigError for waypoints outside the path or not as many as the expert's, DivergedError as `forward` does.
    """
    kept = Kept(keep)
    path = forward(predict, expert[0], images, targets, lr, plan, inner_loss, momentum=momentum, step=step, kept=kept, scale=scale)
    steps = waypoints(path) if callable(waypoints) else waypoints
    check_waypoints(steps, plan.steps, len(expert))
    student = waypoints_on(path, steps)
    loss, at_waypoints = waypoint_gradients(path_loss, student, expert, steps)
    found = backward(predict, path, at_waypoints, images, targets, lr, plan, inner_loss, momentum=momentum, step=step, kept=kept, scale=scale)
    return Gradients(loss, *found, student)
