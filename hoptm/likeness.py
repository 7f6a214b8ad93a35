"""Other ways to say how alike two pictures are than their pixels: structural similarity, and the features of a network.

An attacker takes whichever way finds most. Each is a function of two stacks of images, pixels 0 .. 1, to a matrix of distances: 0 for a copy.
The tests of `fidelity` and `retrieval` exchange images of train for held-out ones, so a likeness must treat both alike: no network of train alone.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from hoptm.config import EvaluationConfig, NetworkConfig, generator
from hoptm.data import Selectable, Standardisation, Train, standardisation
from hoptm.embeddings import Features, trained_features
from hoptm.errors import DataError
from hoptm.evaluate import Recipe
from hoptm.networks import network
from hoptm.retrieval import distances

Likeness: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(n, c, h, w) and (m, c, h, w) to (n, m): smaller is more alike."""
WINDOW = 7
"""Edge of the windows of `structural`, in pixels; images that are smaller are one window."""
_CHUNK = 1024
"""Real images that are compared at a time."""
_WIDTH, _STEPS, _BATCH = 16, 200, 64
"""Of the network that a card looks through: small, since the card of every set that is made takes one."""


def structural(images: Float[Tensor, "n c h w"], real: Float[Tensor, "m _ _ _"]) -> Float[Tensor, "n m"]:
    """1 - SSIM of each pair [Wang et al. 2004, IEEE TIP 13:4], 0 .. 2: the mean over channels and over all windows that lie inside.

    Flat windows of `WINDOW` pixels and sample covariances, constants (0.01)^2 and (0.03)^2 for pixels 0 .. 1: the definition that scikit-image
    has as its default, for all pairs at once. Float32. Raises DataError for images of different shapes.
    """
    if images.shape[1:] != real.shape[1:]:
        raise DataError(f"images {tuple(images.shape[1:])} cannot be compared with {tuple(real.shape[1:])}. Name the data of the set.")
    edge = min(WINDOW, *images.shape[2:])
    sample = edge**2 / max(1, edge**2 - 1)

    def averaged(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, edge, 1)

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        mean = averaged(values)
        return mean, sample * (averaged(values.square()) - mean.square())

    ours, theirs = images.float(), real.float()
    (mean, spread), (other, their_spread) = moments(ours), moments(theirs)
    rows = []
    for image, one, own in zip(ours, mean, spread, strict=True):
        together = sample * (averaged(image * theirs) - one * other)
        alike = (2 * one * other + 0.01**2) * (2 * together + 0.03**2)
        rows.append((1 - alike / ((one.square() + other.square() + 0.01**2) * (own + their_spread + 0.03**2))).flatten(1).mean(dim=1))
    return torch.stack(rows)


def in_features(features: Features, measured: Standardisation) -> Likeness:
    """Root mean square differences of features; `measured` standardises images for them."""

    def apart(images: Tensor, real: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (measured.mean, measured.std))
        ours, theirs = (torch.cat([features.embed((part - mean) / std) for part in stack.split(_CHUNK)]) for stack in (images.float(), real.float()))
        return distances(ours, theirs)

    return apart


def trained_on_both(splits: Selectable) -> Likeness:
    """`in_features` of a small ConvNet that is trained here on train and validation together, with the augmentation that fits the images.

    Together, because a network of train alone knows which images it has seen: it sets them apart from all others, an unseen image then lies near to
    other unseen ones, and a set that copies looks like one that does not. Nothing of a set is chosen by this network. Seconds for images of 28 pixels.
    Raises as `embeddings.trained_features`.
    """
    both = Train(torch.cat([splits.train.images, splits.val.images]), torch.cat([splits.train.labels, splits.val.labels]))
    net = network(NetworkConfig(width=_WIDTH), channels=splits.channels, classes=splits.classes, size=splits.size)
    recipe = Recipe("adamw", 2e-3, splits.info.augmentations[-1], _STEPS)
    features = trained_features(net, both, recipe, EvaluationConfig(batch=_BATCH), generator(0, "features of a card"))
    return in_features(features, standardisation(both))


def to_all(apart: Likeness, images: Float[Tensor, "n c h w"], real: UInt8[Tensor, "m c h w"]) -> Float[Tensor, "n m"]:
    """The distances to all images of a split, a chunk of it at a time. Raises as `apart`."""
    return torch.cat([apart(images, part.float() / 255) for part in real.split(_CHUNK)], dim=1)
