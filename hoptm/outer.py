"""One outer iteration: a student's path on the synthetic images, compared with an expert's, and one step down the gradient.

What is compared is a `Matching`: waypoints on both paths and named losses. An iteration is a function of the state, the
expert's waypoints and a recorded plan; it draws nothing itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hoptm import adjoint, augment, inner, path_losses, progressive
from hoptm.config import MatchConfig
from hoptm.errors import DivergedError

Terms: TypeAlias = Mapping[str, tuple[float, path_losses.PathLoss]]


@dataclass(frozen=True)
class Matching:
    """What is compared: where on the student's path, where on the expert's, and by which losses.

    Give your own to `distill` to try another loss of a path.
    """

    student_steps: tuple[int, ...]
    """Waypoints of the student, as inner steps 0 .. N."""
    expert_epochs: Callable[[int], tuple[int, ...]]
    """From a start epoch to the epochs of the expert's waypoints, as many as the student's."""
    terms: Callable[[Tensor | None], Terms]
    """From the mask (P,) or None to named losses, each with its weight."""


def matching(match: MatchConfig) -> Matching:
    """The end point alone, or with the published shape potential when `shape_weight` is not 0.

    The published middle is inner step N // 2 of the student and epoch (2 t + M) // 2 of the expert, which for odd M
    is not the same share of the way; kept as published.
    """
    length = match.expert_epochs
    if match.shape_weight == 0:
        return Matching((0, match.steps), lambda start: (start, start + length), lambda mask: {"end_point": (1.0, _masked(mask))})
    return Matching(
        (0, match.steps // 2, match.steps),
        lambda start: (start, (2 * start + length) // 2, start + length),
        lambda mask: {"end_point": (1.0, _masked(mask)), "shape": (match.shape_weight, path_losses.shape)},
    )


def _masked(mask: Tensor | None) -> path_losses.PathLoss:
    return path_losses.end_point if mask is None else partial(path_losses.end_point, weight=mask)


@dataclass(frozen=True)
class State:
    """All that one outer iteration hands to the next."""

    iteration: int
    images: Float[Tensor, "n c h w"]
    lr: Float[Tensor, ""]
    images_velocity: Float[Tensor, "n c h w"]
    lr_velocity: Float[Tensor, ""]
    mask: Bool[Tensor, "p"] | None = None

    @staticmethod
    def first(images: Float[Tensor, "n c h w"], lr: float) -> "State":
        """The state before iteration 0."""
        step_size = torch.tensor(lr, dtype=images.dtype, device=images.device)
        return State(0, images, step_size, torch.zeros_like(images), torch.zeros_like(step_size))


@dataclass(frozen=True)
class Look:
    """What was seen in one outer iteration: the total, each term without its weight, the mask's share, the step size."""

    iteration: int
    start_epoch: int
    total: float
    terms: dict[str, float]
    utilisation: float
    lr: float


def outer_step(
    state: State,
    predict: inner.Predict,
    expert: Float[Tensor, "k p"],
    labels: Tensor,
    plan: inner.Plan,
    match: MatchConfig,
    compare: Matching,
    start_epoch: int = 0,
) -> tuple[State, Look, inner.Gradients]:
    """One outer iteration: forward sweep, mask, path loss, adjoint sweep, SGD with momentum on images and step size.

    Raises DivergedError when the student leaves the finite numbers, or when the learned step size would become
    negative (the published method learns it as it is; lower `lr_lr` or `iterations`).
    """
    path = adjoint.forward(predict, expert[0], state.images, labels, state.lr, plan)
    inner.check_waypoints(compare.student_steps, plan.steps, len(expert))
    student = path[list(compare.student_steps)]
    mask = None
    if match.threshold is not None:
        limit = progressive.threshold(state.iteration, match.threshold, match.threshold_growth, match.threshold_every)
        mask = progressive.sticky(state.mask, path_losses.squared_errors(student, expert), limit)
    terms = compare.terms(None if mask is None else mask.to(path.dtype))
    total, at_waypoints = adjoint.waypoint_gradients(path_losses.weighted_sum(list(terms.values())), student, expert, compare.student_steps)
    for_images, _, for_lr = adjoint.backward(predict, path, at_waypoints, state.images, labels, state.lr, plan)

    images_velocity = match.momentum * state.images_velocity + for_images
    lr_velocity = match.momentum * state.lr_velocity + for_lr
    images, lr = state.images - match.lr_images * images_velocity, state.lr - match.step_sizes[1] * lr_velocity
    _check_step(state.iteration, images, lr, match)
    look = Look(
        iteration=state.iteration,
        start_epoch=start_epoch,
        total=float(total),
        terms={name: float(loss(student, expert)) for name, (_, loss) in terms.items()},
        utilisation=1.0 if mask is None else progressive.utilisation(mask),
        lr=float(state.lr),
    )
    new = State(state.iteration + 1, images, lr, images_velocity, lr_velocity, mask)
    return new, look, inner.Gradients(total, for_images, None, for_lr, student)


def _check_step(iteration: int, images: Tensor, lr: Tensor, match: MatchConfig) -> None:
    first, lr_lr = match.step_sizes
    if not (torch.isfinite(images).all() and torch.isfinite(lr)):
        words = f"Lower match.lr_images (now {match.lr_images:g}) or match.lr (now {first:g})."
        raise DivergedError(f"the images left the finite numbers at outer iteration {iteration}. {words}")
    if lr <= 0:
        words = f"Lower match.lr_lr (now {lr_lr:g}) or match.iterations."
        raise DivergedError(f"the learned step size would become {float(lr):.3g} at outer iteration {iteration}. {words}")


def draw_plan(count: int, size: int, match: MatchConfig, chance: torch.Generator) -> inner.Plan:
    """Batches and augmentation of the N inner steps: passes through a fresh permutation of the `count` images.

    A set no larger than a batch is shown whole at each step; the last batch of a pass may be short.
    """
    batches: list[Tensor] = []
    while len(batches) < match.steps:
        order = torch.arange(count) if count <= match.batch else torch.randperm(count, generator=chance)
        batches.extend(order.split(match.batch))
    batches = batches[: match.steps]
    return inner.Plan(tuple(batches), tuple(augment.draw(match.augmentation, len(batch), size, chance) for batch in batches))
