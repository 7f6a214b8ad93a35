"""What synthetic images look like to others: a network of real data, the nearest training images, and the disk.

Nearness is a description and no privacy test: a set whose images lie far from train can still leak, see the audit.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hoptm.data import Standardisation, Train, Validation
from hoptm.errors import DataError
from hoptm.networks import Network
from hoptm.synthetic import SyntheticSet

_CHUNK = 2048
"""Training images that distances are computed to at a time."""


@dataclass(frozen=True)
class Nearness:
    """Distances to the nearest training image, of each synthetic and of each held-out real image; root mean square over pixels, 0 .. 1."""

    synthetic: tuple[float, ...]
    held_out: tuple[float, ...]
    """The null: what is usual for an image that train does not hold."""

    @property
    def nearer(self) -> float:
        """Chance that a synthetic image lies nearer to train than a held-out one, ties half (Mann-Whitney): 0.5 is the null, 1 all nearer."""
        ours, null = torch.tensor(self.synthetic)[:, None], torch.tensor(self.held_out)[None, :]
        return float(((ours < null).double() + 0.5 * (ours == null).double()).mean())

    @property
    def medians(self) -> tuple[float, float]:
        """The median distance of the synthetic and of the held-out images (the mean of the middle two)."""
        first, second = (float(torch.quantile(torch.tensor(values, dtype=torch.float64), 0.5)) for values in (self.synthetic, self.held_out))
        return first, second


@dataclass(frozen=True)
class Compactness:
    """Bytes of a set against bytes of train."""

    set_bytes: int
    """Pixels as float32, labels as int64, and what else is needed to use the set."""
    train_bytes: int
    """Pixels as bytes and labels as int64, not compressed."""

    @property
    def share(self) -> float:
        """The set's bytes over train's; each synthetic image counts four times a real one, because its pixels are floats."""
        return self.set_bytes / self.train_bytes


def recognised(network: Network, theta: Float[Tensor, "p"], standardisation: Standardisation, synthetic: SyntheticSet) -> float:
    """Accuracy, 0 .. 1, with which a network of real data names the classes of the synthetic images.

    `standardisation` is that of the network's training; images that were standardised otherwise are converted, not clipped.
    Low accuracy says that the set teaches by other means than looking like its class. Raises DataError for other shapes.
    """
    expected = (network.channels, network.size, network.size)
    if tuple(synthetic.images.shape[1:]) != expected or synthetic.classes != network.classes:
        raise DataError(f"images {tuple(synthetic.images.shape[1:])} of {synthetic.classes} classes were given to a network for {expected}. Name its own data.")
    images = synthetic.images
    if standardisation != synthetic.standardisation:
        (mean, std), (own_mean, own_std) = (_columns(one, images) for one in (standardisation, synthetic.standardisation))
        images = (images * own_std + own_mean - mean) / std
    with torch.no_grad():
        guess = torch.cat([network(theta, part.to(theta)).argmax(dim=1).cpu() for part in images.split(512)])
    return float((guess == synthetic.labels).double().mean())


def nearness(synthetic: SyntheticSet, train: Train, held_out: Validation, *, most: int = 1000) -> Nearness:
    """How near the synthetic images lie to train, beside how near held-out real images lie.

    Images are compared as they are looked at, 0 .. 1 and clipped there, which can only bring them nearer to real ones.
    The null takes at most `most` held-out images, evenly spaced through the split. Duplicates between the splits are
    part of the null: it is no clean one where the source holds several images of a patient.
    Raises DataError for images of different shapes.
    """
    ours = synthetic.standardisation.invert(synthetic.images)
    if not ours.shape[1:] == train.images.shape[1:] == held_out.images.shape[1:]:
        raise DataError(f"images {tuple(ours.shape[1:])} cannot be compared with train {tuple(train.images.shape[1:])}. Name the data of the set.")
    every = max(1, -(-len(held_out.images) // most))
    null = held_out.images[::every].float() / 255
    return Nearness(tuple(nearest_distance(ours, train.images)), tuple(nearest_distance(null, train.images)))


def nearest_distance(images: Float[Tensor, "n c h w"], train: UInt8[Tensor, "m c h w"]) -> list[float]:
    """For each image (0 .. 1) the distance to the nearest training image, root mean square over pixels; a copy has 0.

    The nearest is found by a quick formula and its distance then computed exactly, so that rounding cannot hide a copy.
    """
    rows = images.flatten(1).float()
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for part in train.split(_CHUNK):
        real = part.flatten(1).float() / 255
        near = (real.square().sum(dim=1)[None, :] - 2 * rows @ real.T).argmin(dim=1)
        best = torch.minimum(best, (rows - real[near]).double().square().mean(dim=1).sqrt())
    return [float(value) for value in best]


def compactness(synthetic: SyntheticSet, train: Train, *, other_bytes: int = 0) -> Compactness:
    """Bytes of the set and of train, nothing compressed. `other_bytes` is what else the set needs, such as a decoder's weights."""
    ours = [synthetic.images, synthetic.labels]
    real = [train.images, train.labels]
    return Compactness(other_bytes + sum(map(_bytes, ours)), sum(map(_bytes, real)))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _columns(one: Standardisation, images: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, dtype=images.dtype)[:, None, None] for values in (one.mean, one.std))
    return mean, std
