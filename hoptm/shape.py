"""The shape of a path: angles of the triangle that three points of parameter space span.

Two paths may end at the same place and differ on the way. Three waypoints make a triangle, its three angles are
its shape: they do not change when the triangle is moved, turned or scaled. The published shape potential compares
these angles; the same function serves latent codes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
