"""One outer iteration: a student's path on the synthetic images, compared with an expert's, and one step down the gradient.

An iteration is a function of the state, the expert's waypoints and a recorded plan; it draws nothing itself. What is
compared is a `Matching`; what is learned is a leaf (pixels or codes) that a rendering turns into images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hoptm import adjoint, augment, inner, path_losses, progressive, truncated
from hoptm.config import MatchConfig
from hoptm.descent import OPTIMISERS, Moments, adam
from hoptm.errors import DivergedError
from hoptm.matching import Matching, Terms, matching
from hoptm.networks import Network
from hoptm.parameters import Layout
from hoptm.side_by_side import Several

__all__ = ["Look", "Matching", "Problem", "State", "draw_plan", "matching", "outer_step"]

Render: TypeAlias = Callable[[Tensor], Tensor]
"""From the leaf (n, ...) to standardised images (n, c, h, w), differentiable."""


SWEEPS = {"exact": adjoint.backward, "truncated": truncated.backward}


def as_it_is(leaf: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The rendering of pixels."""
    return leaf


@dataclass(frozen=True)
class Problem:
    """What stays the same through a run."""

    predict: Network | Several
    labels: Tensor
    """Classes (n,) or soft labels (n, k) of the synthetic images."""
    match: MatchConfig
    compare: Matching
    render: Render = as_it_is
    penalty: Callable[[Tensor], Tensor] | None = None
    """A loss of the leaf itself, added to the path loss."""
    inner_loss: inner.InnerLoss = F.cross_entropy
    alive: Bool[Tensor, "p"] | None = None
    """Parameters that the network answers to; None: all."""
    layout: Layout | None = None
    """Which parameters are one tensor, for masks over whole layers."""
    step: inner.Step | None = None
    """What does the work of one inner step; None: plain autograd. `kernels.fastest` gives a quicker one, equal within rounding."""


@dataclass(frozen=True)
class State:
    """All that one outer iteration hands to the next."""

    iteration: int
    leaf: Float[Tensor, "n ..."]
    """What is learned: standardised pixels, or codes."""
    lr: Float[Tensor, "*steps"]
    """The student's step size: one, or one an inner step (N,)."""
    moments: Moments
    mask: Bool[Tensor, "p"] | None = None
    logits: Float[Tensor, "n k"] | None = None
    """Logarithms of learned labels; None: the problem's labels stay."""
    label_moments: Moments | None = None

    @staticmethod
    def first(leaf: Float[Tensor, "n ..."], lr: float, logits: Float[Tensor, "n k"] | None = None, *, each: int = 0) -> "State":
        """The state before iteration 0; with `each` above 0 that many step sizes, all `lr`."""
        step_size = torch.full((each,) if each else (), lr, dtype=leaf.dtype, device=leaf.device)
        return State(0, leaf, step_size, Moments.none(leaf, step_size), None, logits, None if logits is None else Moments.none(logits, step_size))


@dataclass(frozen=True)
class Look:
    """What was seen in one outer iteration: the total, each term without its weight, the mask's share, the step size (or their mean)."""

    iteration: int
    start_epoch: int
    total: float
    terms: dict[str, float]
    utilisation: float
    lr: float
    end: int = -1
    """The inner step that counted as the student's end."""


def outer_step(
    state: State, problem: Problem, expert: Float[Tensor, "k p"], plan: inner.Plan, start_epoch: int = 0, extra: Terms | None = None
) -> tuple[State, Look, inner.Gradients]:
    """One outer iteration: render, forward sweep, mask, path loss, adjoint sweep, one step of the optimiser.

    `expert` holds the expert's waypoints, the first being where the student starts; `extra` are terms of this iteration alone.
    The gradients that are returned are those for the images. Raises DivergedError when the student leaves the finite numbers, or when the
    learned step size would become negative (the published optimiser learns it as it is).
    """
    match, compare = problem.match, problem.compare
    leaf = state.leaf.detach().requires_grad_()
    with torch.enable_grad():
        images = problem.render(leaf)
    shown, progress = images.detach(), state.iteration / max(1, match.iterations - 1)
    engine: dict[str, Any] = {"momentum": match.student_momentum, "step": problem.step, "kept": inner.Kept(match.keep)}
    targets = problem.labels if state.logits is None else state.logits.softmax(dim=1)
    path = adjoint.forward(problem.predict, expert[0], shown, targets, state.lr, plan, problem.inner_loss, **engine)
    steps = compare.steps(path, expert)
    inner.check_waypoints(steps, plan.steps, len(expert))
    student = inner.waypoints_on(path, steps)
    mask = _mask(state, student, expert, problem, progress)
    terms = {**compare.weighed(None if mask is None else mask.to(path.dtype), progress), **(extra or {})}
    total, at_waypoints = adjoint.waypoint_gradients(path_losses.weighted_sum(list(terms.values())), student, expert, steps)
    rest = (shown, targets, state.lr, plan, problem.inner_loss)
    for_images, for_targets, for_lr = SWEEPS[match.gradient](problem.predict, path, at_waypoints, *rest, **engine)
    for_leaf = _through(images, leaf, for_images, problem.penalty)
    new_leaf, lr, moments = OPTIMISERS[match.optimiser](state.leaf, state.lr, for_leaf, for_lr, state.moments, match, state.iteration)
    _check_step(state.iteration, new_leaf, lr, match)
    logits, label_moments = _new_labels(state, targets, for_targets, match)
    alive = None if match.mask == "sticky" else problem.alive
    with torch.no_grad():
        look = Look(
            iteration=state.iteration,
            start_epoch=start_epoch,
            total=float(total),
            terms={name: float(loss(student, expert)) for name, (_, loss) in terms.items()},
            utilisation=1.0 if mask is None else progressive.utilisation(mask, alive),
            lr=float(state.lr.mean()),
            end=int(steps[-1]),
        )
    found = inner.Gradients(total, for_images, for_targets, for_lr, student)
    return State(state.iteration + 1, new_leaf, lr, moments, mask, logits, label_moments), look, found


def _new_labels(state: State, targets: Tensor, for_targets: Tensor | None, match: MatchConfig) -> tuple[Tensor | None, Moments | None]:
    """One step on the logarithms of learned labels, about `lr_labels` an entry: by Adam whatever moves the images, since the scale of their gradient
    says nothing of that of the labels'."""
    if state.logits is None or state.label_moments is None or for_targets is None:
        return state.logits, state.label_moments
    for_logits = targets * (for_targets - (targets * for_targets).sum(dim=1, keepdim=True))  # through the softmax
    still, own = torch.zeros_like(state.lr), replace(match, lr_images=match.lr_labels)
    logits, _, moments = adam(state.logits, still, for_logits, still, state.label_moments, own, state.iteration)
    return logits, moments


def _through(images: Tensor, leaf: Tensor, for_images: Tensor, penalty: Callable[[Tensor], Tensor] | None) -> Tensor:
    """The gradient for the leaf: that of the images through the rendering, and the penalty's."""
    found = for_images if images is leaf else torch.autograd.grad(images, leaf, for_images)[0]
    if penalty is None:
        return found
    with torch.enable_grad():
        return found + torch.autograd.grad(penalty(leaf), leaf)[0]


def _mask(state: State, student: Tensor, expert: Tensor, problem: Problem, progress: float) -> Tensor | None:
    """The easy-to-complex mask of this iteration, None when every parameter counts."""
    match = problem.match
    errors = path_losses.squared_errors(student, expert)
    alive = torch.ones_like(errors, dtype=torch.bool) if problem.alive is None else problem.alive
    if match.mask in ("sticky", "fresh") and match.threshold is not None:
        limit = progressive.threshold(state.iteration, match.threshold, match.threshold_growth, match.threshold_every)
        return progressive.sticky(state.mask, errors, limit) if match.mask == "sticky" else progressive.fresh(errors, limit) & alive
    if match.mask in ("quantile", "layers") and match.quantile is not None:
        part = progressive.share(progress, *match.quantile)
        if match.mask == "quantile":
            return progressive.quantile(errors, part, alive)
        moved = (expert[0] - expert[-1]).square()
        layout = problem.layout or Layout(("all",), (tuple(errors.shape),))
        return progressive.layers(errors, moved, part, alive, layout)
    return None


def _check_step(iteration: int, leaf: Tensor, lr: Tensor, match: MatchConfig) -> None:
    first, lr_lr = match.step_sizes
    if not (torch.isfinite(leaf).all() and torch.isfinite(lr).all()):
        words = f"Lower match.lr_images (now {match.lr_images:g}) or match.lr (now {first:g})."
        raise DivergedError(f"the images left the finite numbers at outer iteration {iteration}. {words}")
    if (lr <= 0).any():
        words = f"Lower match.lr_lr (now {lr_lr:g}) or match.iterations, or take match.optimiser adam, which learns its logarithm."
        raise DivergedError(f"the learned step size would become {float(lr.min()):.3g} at outer iteration {iteration}. {words}")


def draw_plan(count: int, size: int, match: MatchConfig, chance: torch.Generator, steps: int | None = None) -> inner.Plan:
    """Batches and augmentation of the N inner steps (or of `steps`): passes through a fresh permutation of the `count` images.

    A set no larger than a batch is shown whole at each step; the last batch of a pass may be short.
    """
    wanted = match.steps if steps is None else steps
    batches: list[Tensor] = []
    while len(batches) < wanted:
        order = torch.arange(count) if count <= match.batch else torch.randperm(count, generator=chance)
        batches.extend(order.split(match.batch))
    batches = batches[:wanted]
    return inner.Plan(tuple(batches), tuple(augment.draw(match.augmentation, len(batch), size, chance) for batch in batches))


def draw_plan_of_several(count: int, size: int, match: MatchConfig, chance: torch.Generator) -> inner.Plan:
    """A plan for `match.segments` students side by side: batches of their own; a step's kind of augmentation is shared, its values are each image's."""
    plain = replace(match, augmentation="none")
    each = [draw_plan(count, size, plain, chance).batches for _ in range(match.segments)]
    batches = tuple(torch.cat(parts) for parts in zip(*each, strict=True))
    return inner.Plan(batches, tuple(augment.draw(match.augmentation, len(batch), size, chance) for batch in batches))
