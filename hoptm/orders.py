"""Higher orders: losses that compare how two paths move, turn and twist, and not only where they end.

K waypoints p_0 .. p_{K-1}, evenly spaced in time, have chords d_k = p_{k+1} - p_k (order 1, velocity), differences of chords
(order 2, curvature), differences of those (order 3, torsion), and so on. For plain gradient steps a chord is the mean gradient
of a stretch, and the second difference over two steps is -a (g_{t+1} - g_t), about a^2 H g: curvature of the path is
curvature of the loss along it.

Every loss here is zero on equal paths, does not change when both paths are shifted or turned alike or scaled alike, and is
`loss(student (K, P), expert (K, P)) -> scalar`.
"""

import math
from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import ConfigError
from hoptm.path_losses import PathLoss

NAMES = ("velocity", "curvature", "torsion")
EPS = 1e-12
"""Shortest length that a direction is divided by, as in the published shape potential."""
STILL = 1e-3
"""Share of the expert's mean chord below which a student's chord is no direction."""


def order_name(order: int) -> str:
    """`velocity`, `curvature`, `torsion`, then `order_4` and up."""
    return NAMES[order - 1] if order <= len(NAMES) else f"order_{order}"


def of_order(order: int) -> PathLoss:
    """The path loss of an order: 1 compares directions, 2 and up compare divided differences.

    Raises ConfigError for an order below 1.
    """
    if order < 1:
        raise ConfigError(f"order {order} of a path loss; orders start at 1 (0 is the position, which the end point compares).")
    return velocity if order == 1 else partial(difference, order=order)


def velocity(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"]) -> Float[Tensor, ""]:
    """1 - the cosine between the k-th chords of student and expert, the mean over those along which the expert moves; 0 to 2.

    A chord is minus the mean gradient of its stretch times its length in steps, so this compares directions of mean gradients.
    A student's chord below `STILL` of the expert's mean chord counts by its length as well, so that one that hardly moves has a bounded gradient: a
    student that does not move scores 1. Where the expert stands still there is no direction to compare; if it does so everywhere the loss is 0.
    Raises ConfigError for K < 2.
    """
    _enough(student, 1)
    ours, theirs = torch.diff(student, dim=0), torch.diff(expert, dim=0)
    floor = (STILL * torch.linalg.vector_norm(theirs, dim=1).mean()).clamp_min(EPS).detach()
    ours = ours / torch.maximum(ours.norm(dim=1, keepdim=True), floor)
    theirs = F.normalize(theirs, dim=1, eps=EPS)
    cosines, moving = (ours * theirs).sum(dim=1), (theirs != 0).any(dim=1)
    return 1.0 - cosines[moving].mean() if bool(moving.any()) else cosines.sum() * 0.0


def difference(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"], order: int) -> Float[Tensor, ""]:
    """Squared error of the differences of an order, relative to the expert's chords, so that one weight means the same at every order.

    mean_k |D^m s_k - D^m e_k|^2 / (c_m mean_k |d_k|^2), with D^m the m-th forward difference, d the expert's chords and
    c_m = (2m choose m) / 2, the growth of independent errors under m differences against one. Order 1 is the squared error of chords.
    The student's vector is compared, not only its angle: a student that does not move scores the expert's own share.
    An expert that does not move has nothing to compare: the loss is then 0. Raises ConfigError for K <= order.
    """
    _enough(student, order)
    chords = torch.diff(expert, dim=0).square().sum(dim=1).mean().detach()
    errors = torch.diff(student - expert, n=order, dim=0).square().sum(dim=1).mean()
    if not chords > 0:
        return errors * 0.0
    return errors / (0.5 * math.comb(2 * order, order) * chords)


def between(student: Float[Tensor, "k p"], expert: Float[Tensor, "k p"]) -> Float[Tensor, ""]:
    """Order 0 on the way: the squared distance of each inner waypoint, relative to how far the expert is from its start there.

    The mean over waypoints 1 .. K - 2 of |s_k - e_k|^2 / |e_k - e_0|^2; the ends are the end-point loss's. A waypoint at which the
    expert has not moved counts as 0. Raises ConfigError for K < 3.
    """
    _enough(student, 2)
    moved = (expert[1:-1] - expert[0]).square().sum(dim=1).detach()
    errors = (student[1:-1] - expert[1:-1]).square().sum(dim=1)
    return torch.where(moved > 0, errors / moved.clamp_min(torch.finfo(moved.dtype).tiny), errors * 0.0).mean()


def twist(student: Float[Tensor, "4 p"], expert: Float[Tensor, "4 p"]) -> Float[Tensor, ""]:
    """Torsion as an angle: how much of each path's third chord leaves the plane of its first two, compared; 0 to 1.

    The squared difference of the sines of the two angles between third chord and plane (Gram and Schmidt). In a space of P
    dimensions a dihedral angle has no sign, so this is all of it. First two chords on one line span no plane: then what leaves the line counts.
    """
    ours, theirs = (_leaving(torch.diff(path, dim=0)) for path in (student, expert))
    return (ours - theirs).square()


def _leaving(chords: Tensor) -> Tensor:
    first = F.normalize(chords[0], dim=0, eps=EPS)
    second = F.normalize(chords[1] - (chords[1] @ first) * first, dim=0, eps=EPS)
    third = F.normalize(chords[2], dim=0, eps=EPS)
    out = third - (third @ first) * first - (third @ second) * second
    return (out.square().sum() + EPS).sqrt()


def rising(progress: float, share: float) -> float:
    """Weight of the orders when `progress` (0 to 1) of a run is done: from 0 to 1 over the first `share` of it; 1 when `share` is 0."""
    return 1.0 if share <= 0 else min(1.0, progress / share)


def even_steps(steps: int, waypoints: int) -> tuple[int | Fraction, ...]:
    """K inner steps 0 .. `steps`, evenly spaced; where `steps` is no multiple of K - 1 some lie between two steps.

    Raises ConfigError when there are fewer steps than stretches.
    """
    if waypoints < 2 or steps < waypoints - 1:
        raise ConfigError(f"{waypoints} waypoints on a path of {steps} steps; there must be 2 or more, and a step between any two.")
    return tuple(int(step) if step.denominator == 1 else step for step in (Fraction(steps * index, waypoints - 1) for index in range(waypoints)))


def nearest_end(path: Float[Tensor, "t p"], target: Float[Tensor, "p"], first: int) -> int:
    """The adaptive end: the inner step, not before `first`, at which the student is nearest to the target; the earlier of equals.

    The idea of automatic training trajectories (Liu et al. 2024, ATT): a student that passes its target need not be pulled back.
    """
    return first + int((path[first:] - target).square().sum(dim=1).argmin())


def _enough(path: Tensor, order: int) -> None:
    if len(path) < order + 1:
        raise ConfigError(f"order {order} needs {order + 1} waypoints, the path has {len(path)}: raise match.waypoints.")
