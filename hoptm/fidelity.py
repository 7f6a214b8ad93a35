"""What synthetic images look like to others: a network of real data, the nearest training images, and the disk.

Nearness is a description and no privacy test: a set whose images lie far from train can still leak, see the audit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from hoptm.data import Standardisation, Train, Validation
from hoptm.errors import DataError
from hoptm.networks import Network
from hoptm.synthetic import SyntheticSet

_CHUNK = 2048
"""Training images that distances are computed to at a time."""


@dataclass(frozen=True)
class Nearness:
    """Distances to the nearest training image, of each synthetic and of each held-out real image; root mean square over pixels, 0 .. 1.

    A smooth image lies nearer to all real ones, those of train and others, so that alone shows no copying. Hence the distances to the nearest
    held-out image too, and the share `closer`.
    """

    synthetic: tuple[float, ...]
    held_out: tuple[float, ...]
    """The null: what is usual for an image that train does not hold."""
    synthetic_to_held_out: tuple[float, ...]
    held_out_to_others: tuple[float, ...]
    """From each held-out image to the nearest other one."""

    @property
    def nearer(self) -> float:
        """Chance that a synthetic image lies nearer to train than a held-out one, ties half (Mann-Whitney): 0.5 is the null, 1 all nearer."""
        return float(_shares_below(torch.tensor(self.synthetic), torch.tensor(self.held_out)).mean())

    @property
    def closer_each(self) -> Float64[Tensor, "n"]:
        """For each synthetic image the share of held-out images whose distance to train, over that to (other) held-out images, is larger; ties half."""
        ours, null = (
            torch.tensor(one, dtype=torch.float64).clamp_min(1e-12) / torch.tensor(other, dtype=torch.float64).clamp_min(1e-12)
            for one, other in ((self.synthetic, self.synthetic_to_held_out), (self.held_out, self.held_out_to_others))
        )
        return _shares_below(ours, null)

    @property
    def closer(self) -> float:
        """Chance that a synthetic image prefers train to held-out images more than a held-out image does; 0.5 is chance, and a smooth image lies below."""
        return float(self.closer_each.mean())

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
    null, own = held_out.images[::every].float() / 255, range(0, len(held_out.images), every)
    found = [nearest_distance(one, train.images) for one in (ours, null)]
    others = [nearest_distance(ours, held_out.images), nearest_distance(null, held_out.images, own)]
    return Nearness(*map(tuple, (*found, *others)))


def nearest_distance(images: Float[Tensor, "n c h w"], train: UInt8[Tensor, "m c h w"], own: Sequence[int] | None = None) -> list[float]:
    """For each image (0 .. 1) the distance to the nearest training image, root mean square over pixels; a copy has 0.

    With `own`, the place of each image in `train`, an image is not compared with itself; alone, it has no neighbour, at infinity.
    The nearest is found by a quick formula and its distance then computed exactly, so that rounding cannot hide a copy.
    """
    rows, first = images.flatten(1).float(), 0
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for part in train.split(_CHUNK):
        real = part.flatten(1).float() / 255
        apart = real.square().sum(dim=1)[None, :] - 2 * rows @ real.T
        for row, place in enumerate(own or ()):
            if first <= place < first + len(real):
                apart[row, place - first] = torch.inf
        least, near = apart.min(dim=1)
        exact = (rows - real[near]).double().square().mean(dim=1).sqrt()
        best, first = torch.minimum(best, torch.where(least < torch.inf, exact, torch.inf)), first + len(real)
    return [float(value) for value in best]


def _shares_below(ours: Tensor, null: Tensor) -> Float64[Tensor, "n"]:
    """For each of ours the share of the null above it, ties half."""
    one, other = ours[:, None], null[None, :]
    return ((one < other).double() + 0.5 * (one == other).double()).mean(dim=1)


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
