"""Losses that look at a path of training only at a few waypoints.

Every loss has one form: `loss(student, expert) -> scalar`, both of shape (K, P), the K waypoints of the student's
and of the expert's path, the first being the common start. Anything of this form can be handed to the engine;
`weighted_sum` combines several.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from hoptm.shape import shape_potential

PathLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""loss(student (K, P), expert (K, P)) -> scalar; differentiable in the student."""


def squared_errors(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"]) -> Float[Tensor, "p"]:
    """Squared distance of each parameter from the expert's at the end point."""
    return (student[-1] - expert[-1]).square()


def end_point(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"], weight: Float[Tensor, "p"] | None = None) -> Float[Tensor, ""]:
    """How far the student's end lies from the expert's, relative to how far the expert went.

    sum_i v_i (s_i - e_i)^2 / sum_i v_i (start_i - e_i)^2, v = 1 without `weight` (Cazenavette et al. 2022, eq. 2;
    with the easy-to-complex mask v as in Dong et al. 2025: it weighs numerator and denominator, and no gradient
    flows through it). 0 at the expert's end, 1 for a student that did not move. A mask that is empty, or that
    holds only parameters which the expert did not move, has nothing to compare: the loss is then 0, not NaN.
    """
    errors = squared_errors(student, expert)
    moved = (expert[0] - expert[-1]).square()
    if weight is not None:
        errors, moved = weight * errors, weight * moved
    travelled = moved.sum().detach()
    if not travelled > 0:
        return errors.sum() * 0.0
    return errors.sum() / travelled


def shape(student: Float[Tensor, "3 p"], expert: Float[Tensor, "3 p"]) -> Float[Tensor, ""]:
    """The published shape potential as a path loss on start, middle and end."""
    return shape_potential(student, expert)


def weighted_sum(terms: Sequence[tuple[float, PathLoss]]) -> PathLoss:
    """The path loss sum_j w_j * loss_j. Terms of weight 0 are not computed."""
    used = [(weight, loss) for weight, loss in terms if weight != 0]

    def total(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"]) -> Float[Tensor, ""]:
        if not used:
            return student.sum() * 0.0
        return torch.stack([weight * loss(student, expert) for weight, loss in used]).sum()

    return total
