"""The engine: the exact gradient of any path loss, at the memory of one training step.

Forward, the student takes T steps on synthetic images and only the T + 1 flat parameter vectors are kept. Backward,
the graph of one step at a time is rebuilt and an adjoint vector lambda is carried from the last waypoint to the
start. With g_t the gradient of the inner loss, b_t the gradient of the path loss with respect to waypoint t, and
s_t(theta, x, y, a) = < g_t(theta, x, y), lambda_{t+1} >:

    dL/dx_t += -a ds_t/dx      dL/dy_t += -a ds_t/dy      dL/da += -s_t      lambda_t = lambda_{t+1} + b_t - a ds_t/dtheta

This is the gradient of the fully unrolled graph, reordered, and not an approximation of it; `unroll` computes the
same by plain autograd and the tests compare the two.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import DivergedError
from hoptm.inner import Gradients, InnerLoss, Plan, Predict, check_waypoints, inner_gradient
from hoptm.path_losses import PathLoss


def forward(
    predict: Predict,
    start: Float[Tensor, "p"],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, ""],
    plan: Plan,
    inner_loss: InnerLoss = F.cross_entropy,
) -> Float[Tensor, "t p"]:
    """The student's path theta_0 .. theta_T: plain gradient steps of size `lr`, no graph kept.

    Raises DivergedError with the first step at which a parameter is not finite.
    """
    images, targets, lr = images.detach(), targets.detach(), lr.detach()
    path = torch.empty(plan.steps + 1, start.numel(), dtype=start.dtype, device=start.device)
    path[0] = start.detach()
    for step, (batch, drawn) in enumerate(zip(plan.batches, plan.draws, strict=True)):
        theta = path[step].clone().requires_grad_()
        gradient = inner_gradient(predict, inner_loss, theta, images[batch], targets[batch], drawn, graph=False)
        torch.sub(path[step], lr * gradient, out=path[step + 1])
    if not torch.isfinite(path[-1]).all():
        first = int((~torch.isfinite(path).all(dim=1)).nonzero()[0])
        raise DivergedError(
            f"the student left the finite numbers at inner step {first} of {plan.steps}. Lower its step size (now {float(lr):.3g}) or the number of steps."
        )
    return path


def backward(
    predict: Predict,
    path: Float[Tensor, "t p"],
    at_waypoints: dict[int, Float[Tensor, "p"]],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, ""],
    plan: Plan,
    inner_loss: InnerLoss = F.cross_entropy,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"] | None, Float[Tensor, ""]]:
    """The adjoint sweep: gradients for the images, the targets (None for class indices) and the step size.

    `at_waypoints` maps a step t to b_t, the gradient of the path loss with respect to the student there. The sweep
    starts at the last of them, so an early end costs less.
    """
    images, targets, lr = images.detach(), targets.detach(), lr.detach()
    soft = targets.is_floating_point()
    for_images = torch.zeros_like(images)
    for_targets = torch.zeros_like(targets) if soft else None
    for_lr = torch.zeros_like(lr)
    last = max(at_waypoints)
    adjoint = at_waypoints[last].detach().clone()
    for step in reversed(range(last)):
        batch, drawn = plan.batches[step], plan.draws[step]
        theta = path[step].clone().requires_grad_()
        shown = images[batch].requires_grad_()
        wanted = targets[batch].requires_grad_(soft)
        gradient = inner_gradient(predict, inner_loss, theta, shown, wanted, drawn, graph=True)
        with torch.enable_grad():
            product = gradient @ adjoint
        inputs = (theta, shown, wanted) if soft else (theta, shown)
        parts = torch.autograd.grad(product, inputs, allow_unused=True, materialize_grads=True)
        for_images.index_add_(0, batch, parts[1], alpha=-float(lr))
        if for_targets is not None:
            for_targets.index_add_(0, batch, parts[2], alpha=-float(lr))
        for_lr -= product.detach()
        adjoint.sub_(parts[0], alpha=float(lr))
        if step in at_waypoints:
            adjoint += at_waypoints[step]
    return for_images, for_targets, for_lr


def waypoint_gradients(
    path_loss: PathLoss, student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"], steps: Sequence[int]
) -> tuple[Float[Tensor, ""], dict[int, Float[Tensor, "p"]]]:
    """The path loss, and b_t for each step t at which it looks; a step that is named twice gets the sum."""
    leaf = student.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = path_loss(leaf, expert)
    (gradient,) = torch.autograd.grad(loss, leaf)
    at_waypoints: dict[int, Tensor] = {}
    for step, row in zip(steps, gradient, strict=True):
        at_waypoints[step] = at_waypoints[step] + row if step in at_waypoints else row
    return loss.detach(), at_waypoints


def path_gradient(
    predict: Predict,
    path_loss: PathLoss,
    expert: Float[Tensor, "k p"],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    lr: Float[Tensor, ""],
    plan: Plan,
    waypoints: Sequence[int] | Callable[[Tensor], Sequence[int]],
    inner_loss: InnerLoss = F.cross_entropy,
) -> Gradients:
    """Loss and gradients of a path loss, the student starting at `expert[0]`.

    `waypoints` are the K inner steps (0 .. T) at which the loss looks at the student, or a function that chooses them
    from the whole path (T + 1, P) after the forward sweep.

    Raises ConfigError for waypoints outside the path or not as many as the expert's, DivergedError as `forward` does.
    """
    path = forward(predict, expert[0], images, targets, lr, plan, inner_loss)
    steps = waypoints(path) if callable(waypoints) else waypoints
    check_waypoints(steps, plan.steps, len(expert))
    student = path[list(steps)]
    loss, at_waypoints = waypoint_gradients(path_loss, student, expert, steps)
    for_images, for_targets, for_lr = backward(predict, path, at_waypoints, images, targets, lr, plan, inner_loss)
    return Gradients(loss, for_images, for_targets, for_lr, student)
