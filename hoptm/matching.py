"""What is compared in an outer iteration: where on the two paths to look, and by which losses.

A `Matching` is built from the settings by `matching`, or by hand: give your own to `distill` to try another loss of a path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from hoptm import orders, path_losses
from hoptm.config import MatchConfig
from hoptm.errors import ConfigError
from hoptm.inner import Predict

Terms: TypeAlias = Mapping[str, tuple[float, path_losses.PathLoss]]
"""Losses by name, each with its weight."""
Steps: TypeAlias = Sequence[int | Fraction]
"""Inner steps 0 .. N; a fraction is a place between two steps."""
Choose: TypeAlias = Callable[[Tensor, Tensor], Steps]
"""From the student's whole path (T + 1, P) and the expert's waypoints (K, P) to K inner steps."""


def constant(progress: float, name: str) -> float:
    """The schedule that changes nothing."""
    return 1.0


@dataclass(frozen=True)
class Matching:
    """What is compared: where on the student's path, where on the expert's, and by which losses."""

    student_steps: tuple[int | Fraction, ...] | Choose
    """Waypoints of the student, as inner steps 0 .. N (a fraction lies between two), or a function that chooses them after the forward sweep."""
    expert_epochs: Callable[[int], Sequence[int | Fraction]]
    """From a start epoch to the epochs of the expert's waypoints, as many as the student's."""
    terms: Callable[[Tensor | None], Terms]
    """From the mask (P,) or None to named losses, each with its weight."""
    schedule: Callable[[float, str], float] = constant
    """From progress (0 to 1) and a term's name to a factor on its weight."""

    def steps(self, path: Tensor, expert: Tensor) -> tuple[int | Fraction, ...]:
        """The student's waypoints on this path."""
        return tuple(self.student_steps(path, expert)) if callable(self.student_steps) else self.student_steps

    def weighed(self, mask: Tensor | None, progress: float) -> Terms:
        """The terms with their weights at this moment of the run."""
        return {name: (weight * self.schedule(progress, name), loss) for name, (weight, loss) in self.terms(mask).items()}


def matching(match: MatchConfig) -> Matching:
    """The matching that the settings describe.

    Waypoints are evenly spaced in time on both paths; where `steps` is no multiple of K - 1, the student's lie on the straight line between two of its
    steps, and the expert's are at its nearest optimiser step. So a student that keeps pace with its expert has a loss of 0, up to what a straight line
    cuts off and half a step of the expert. Only the three of the published method, the
    shape potential with its mask, are out of time by themselves: their middle is inner step N // 2 and epoch (2 t + M) // 2, which for odd M is not the
    same share of the way.
    """
    count, length, published = match.waypoint_count, match.expert_epochs, match.published_middle

    def epochs(start: int) -> Sequence[int | Fraction]:
        if match.own_start:
            return (start,)
        if published:
            return (start, (2 * start + length) // 2, start + length)
        return tuple(start + Fraction(length * index, count - 1) for index in range(count))

    fixed = (match.steps,) if match.own_start else (0, match.steps // 2, match.steps) if published else orders.even_steps(match.steps, count)
    steps = partial(_adaptive, fixed=fixed, first=max(count - 1, match.steps // 4)) if match.end == "adaptive" else fixed
    schedule = partial(_rising, share=match.orders_rise) if match.orders_rise > 0 else constant
    return Matching(steps, epochs, partial(_terms, match), schedule)


def side_by_side(compare: Matching, count: int) -> Matching:
    """The same comparison for `count` students whose parameters follow each other (K, B P): each loss is the mean over the students.

    Waypoints are those of one student, so they must be chosen beforehand. Raises ConfigError where they are not.
    """
    if callable(compare.student_steps):
        raise ConfigError("students side by side look at the same inner steps, and this matching chooses them on each path: match.end must be fixed.")

    def terms(mask: Tensor | None) -> Terms:
        return {name: (weight, apart(loss, count)) for name, (weight, loss) in compare.terms(mask).items()}

    return Matching(compare.student_steps, compare.expert_epochs, terms, compare.schedule)


def apart(loss: path_losses.PathLoss, count: int) -> path_losses.PathLoss:
    """The mean of a loss over `count` students side by side."""

    def mean(student: Tensor, expert: Tensor) -> Tensor:
        pairs = zip(student.chunk(count, dim=1), expert.chunk(count, dim=1), strict=True)
        return torch.stack([loss(ours, theirs) for ours, theirs in pairs]).mean()

    return mean


def outcome(predict: Predict, images: Tensor, labels: Tensor) -> path_losses.PathLoss:
    """The cross-entropy of the student's end on real training images: what the path leads to, whatever the expert did.

    The bilevel objective of data set distillation (Wang et al. 2018), as a path loss with one waypoint; the expert is not read.
    """

    def loss(student: Tensor, expert: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(predict(student[-1], images), labels)

    return loss


def _adaptive(path: Tensor, expert: Tensor, fixed: tuple[int | Fraction, ...], first: int) -> tuple[int | Fraction, ...]:
    """Waypoints up to the step, not before `first`, that is nearest to the expert's end; evenly spaced, so that both keep time."""
    end = orders.nearest_end(path, expert[-1], first)
    return fixed if end == fixed[-1] else orders.even_steps(end, len(fixed))


def _rising(progress: float, name: str, share: float) -> float:
    return 1.0 if name in ("end_point", "outcome") else orders.rising(progress, share)


def _terms(match: MatchConfig, mask: Tensor | None) -> Terms:
    end = path_losses.end_point if mask is None else partial(path_losses.end_point, weight=mask)
    found: dict[str, tuple[float, path_losses.PathLoss]] = {"end_point": (match.position_weight, end)}
    if match.shape_weight:
        found["shape"] = (match.shape_weight, _three_points)
    if match.between_weight:
        found["between"] = (match.between_weight, orders.between)
    for order, weight in enumerate(match.orders, 1):
        if weight:
            found[orders.order_name(order)] = (weight, orders.of_order(order))
    return {name: term for name, term in found.items() if term[0] != 0}


def _three_points(student: Tensor, expert: Tensor) -> Tensor:
    """The published shape potential on the first, middle and last of K waypoints."""
    middle = len(student) // 2
    chosen = [0, middle, -1]
    return path_losses.shape(student[chosen], expert[chosen])
