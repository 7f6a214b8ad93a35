"""The shape of a path: angles of the triangle that three points of parameter space span.

Two paths may end at the same place and differ on the way. Three waypoints make a triangle, its three angles are
its shape: they do not change when the triangle is moved, turned or scaled. The published shape potential compares
these angles. The same angles serve latent codes: those among a class's synthetic codes are asked to be distributed as those
among its encoded training images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm.errors import DataError

PUBLISHED_ENTRIES = 27
"""The published loss averages over i, j, k in {0, 1, 2}; 6 of its 27 entries carry information, each angle twice."""


def three_point_cosines(points: Float[Tensor, "3 p"]) -> Float[Tensor, "3"]:
    """Cosines of the angles at the three corners of a triangle.

    Entry i is the cosine at point i between the directions to the two others. Directions are unit vectors with
    the length floored at 1e-12, so two points in one place give 0 and not NaN. Range -1 to 1.
    """
    cosines = []
    for corner in range(3):
        first, second = (points[other] - points[corner] for other in range(3) if other != corner)
        cosines.append(F.normalize(first, dim=0, eps=1e-12) @ F.normalize(second, dim=0, eps=1e-12))
    return torch.stack(cosines)


def shape_potential(student: Float[Tensor, "3 p"], expert: Float[Tensor, "3 p"]) -> Float[Tensor, ""]:
    """The published shape potential, before its weight lambda.

    The mean over 27 entries of SmoothL1 of the difference of cosines (angle loss of relational knowledge
    distillation, Park et al. 2019, on start, middle and end; Dong et al. 2025). The 21 entries that vanish for
    every path are not computed. It is 0 for similar triangles and at most 2/9.
    """
    difference = three_point_cosines(student) - three_point_cosines(expert)
    total = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")
    return 2.0 * total / PUBLISHED_ENTRIES


@dataclass(frozen=True)
class Triplets:
    """Corners of triangles of k classes, as rows of the synthetic codes with the real codes below them."""

    synthetic: Int64[Tensor, "k t 3"]
    real: Int64[Tensor, "k t 3"]


def draw_triplets(labels: Int64[Tensor, "n"], real_labels: Int64[Tensor, "m"], count: int, generator: torch.Generator) -> Triplets:
    """`count` random triangles of each class in `labels`: of its synthetic codes, and of its encoded training images.

    Corners of a triangle differ and are drawn uniformly. A class of fewer than three synthetic codes has no triangle of its own:
    there, one corner is a synthetic code and the two others are encoded training images of the class, so that the
    angles also say where the code lies among them.

    Raises DataError for a class of fewer than three encoded training images.
    """
    synthetic, real = [], []
    for label in torch.unique(labels).tolist():
        made = torch.nonzero(labels == label).flatten()
        known = torch.nonzero(real_labels == label).flatten() + len(labels)
        if len(known) < 3:
            raise DataError(f"class {label} has {len(known)} encoded training images; angles need three. Leave this regulariser out.")
        real.append(known[_three_of(len(known), count, generator)])
        if len(made) >= 3:
            synthetic.append(made[_three_of(len(made), count, generator)])
        else:
            others = known[_three_of(len(known), count, generator)]
            others[:, 0] = made[torch.randint(len(made), (count,), generator=generator)]
            synthetic.append(others)
    return Triplets(torch.stack(synthetic), torch.stack(real))


def _three_of(size: int, count: int, generator: torch.Generator) -> Int64[Tensor, "t 3"]:
    """Three different numbers below `size` in each row: a draw among those left, moved past those taken."""
    first, second, third = (torch.randint(size - taken, (count,), generator=generator) for taken in range(3))
    second = second + (second >= first)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    third = third + (third >= low)
    return torch.stack([first, second, third + (third >= high)], dim=1)


def code_shape(codes: Float[Tensor, "n d"], real: Float[Tensor, "m d"], drawn: Triplets) -> Float[Tensor, ""]:
    """How far the angles among a class's synthetic codes are from those among its encoded training images.

    In each class the three cosines of all its triangles are put in order, those of the synthetic codes beside those of the
    real ones, rank by rank, and the mean SmoothL1 of the differences is taken over ranks and classes: a distance of the two
    distributions of angles, since the codes of a class have no partners one by one. It is 0 when they are equal, at most 3/2, and does
    not change when all codes are moved, turned or scaled together; for classes of three codes and more the synthetic codes
    may be so alone. It is differentiable in both kinds of codes. The angle is the published shape potential's.
    """
    pool = torch.cat([codes, real])
    ours, theirs = (_sorted_cosines(pool[corners]) for corners in (drawn.synthetic, drawn.real))
    return F.smooth_l1_loss(ours, theirs)


def _sorted_cosines(triangles: Float[Tensor, "k t 3 d"]) -> Float[Tensor, "k s"]:
    cosines: Tensor = torch.func.vmap(torch.func.vmap(three_point_cosines))(triangles)
    return cosines.flatten(1).sort(dim=1).values
