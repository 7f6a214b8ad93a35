"""How much of an expert's path a small set can represent at all, whatever loss is used to match it.

A step on n images moves the parameters along a mix of n gradients. What the expert's displacement has outside the span of these
gradients, no labels, weights or step size on these images can give in one step from that place. (Nganjimi et al. 2026, arXiv:2604.21638, ask the same
of whole trajectories and call it a conditional representability bottleneck; the measure here is our own and is for one step.)
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hoptm import augment, inner
from hoptm.inner import InnerLoss, Predict


def image_gradients(
    predict: Predict,
    theta: Float[Tensor, "p"],
    images: Float[Tensor, "n c h w"],
    targets: Tensor,
    inner_loss: InnerLoss = torch.nn.functional.cross_entropy,
) -> Float[Tensor, "n p"]:
    """The gradient of the inner loss of each image alone, at one place, without augmentation: the directions that a step can mix."""
    step, still = inner.Eager(predict, inner_loss), augment.draw("none", 1, images.shape[-1], torch.Generator())
    return torch.stack([step.first(theta, images[index, None], targets[index, None], still, keep=False)[0] for index in range(len(images))])


def shares_in_span(displacement: Float[Tensor, "p"], directions: Float[Tensor, "n p"]) -> Float64[Tensor, "n"]:
    """For the first 1, 2, .. n directions: the share of |displacement|^2 that lies in their span, in 0 .. 1, never falling.

    Computed in float64 by modified Gram and Schmidt with a second pass; a direction that adds nothing new beyond rounding is left out. For a
    displacement of length 0 every share is 0.
    """
    rest = displacement.double().clone()
    whole = float(rest.square().sum())
    basis: list[Tensor] = []
    shares: list[float] = []
    for direction in directions.double():
        new = direction.clone()
        for _ in range(2):
            for known in basis:
                new -= (new @ known) * known
        if new.norm() > 1e-9 * direction.norm():
            basis.append(new / new.norm())
            rest -= (rest @ basis[-1]) * basis[-1]
        shares.append(1 - float(rest.square().sum()) / whole if whole > 0 else 0.0)
    return torch.tensor(shares, dtype=torch.float64).clamp(0, 1)
