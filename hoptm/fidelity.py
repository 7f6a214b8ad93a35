"""What synthetic images look like to others: a network of real data, the nearest training images, and the disk.

Nearness is a description. `preference` is a test with a level: whether the images prefer train to held-out images, whatever they look like. Neither
shows that nothing leaks: a set whose images lie far from train still can, see the audit.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from scipy import stats
from scipy.special import gammaln
from torch import Tensor

from hoptm.data import Standardisation, Train, Validation
from hoptm.errors import ConfigError, DataError
from hoptm.intervals import Randomised
from hoptm.networks import Network
from hoptm.synthetic import SyntheticSet

COPY = 0.5 / 255
"""Half a grey level, as a root mean square: an image as near as that to a training image shows the same picture."""
_CHUNK = 2048
"""Training images that distances are computed to at a time."""


@dataclass(frozen=True)
class Nearness:
    """Distances to the nearest training image, of each synthetic and of each held-out real image; root mean square over pixels, 0 .. 1.

    A smooth image lies nearer to all real ones, those of train and others, so that alone shows no copying. Hence the distances to the nearest
    held-out image too, and the share `closer`. It describes, and decides nothing: images that train never held are usual at 0.5 where they look
    like real ones, and lie below it or above it where they are smooth or noisy. What decides is `preference`.
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
        """Chance that a synthetic image prefers train to held-out images more than a held-out image does; about 0.5 for unseen real images, and
        on either side of it for unseen smooth or noisy ones."""
        return float(self.closer_each.mean())

    @property
    def copies(self) -> tuple[int, int]:
        """How many synthetic and how many held-out images lie within `COPY` of a training image. Sources repeat pictures, so the second need not be 0."""
        ours, usual = (sum(value <= COPY for value in values) for values in (self.synthetic, self.held_out))
        return ours, usual

    @property
    def copies_p(self) -> float:
        """Chance of as many synthetic copies or more if synthetic and held-out images were of one kind: Fisher's exact test, one-sided.

        Its level holds for smooth or noisy images that train never held, too: these are within half a grey level of a real one more rarely yet.
        """
        (ours, usual), n, m = self.copies, len(self.synthetic), len(self.held_out)
        return float(stats.fisher_exact([[ours, n - ours], [usual, m - usual]], alternative="greater").pvalue)

    @property
    def medians(self) -> tuple[float, float]:
        """The median distance of the synthetic and of the held-out images (the mean of the middle two)."""
        first, second = (float(torch.quantile(torch.tensor(values, dtype=torch.float64), 0.5)) for values in (self.synthetic, self.held_out))
        return first, second


@dataclass(frozen=True)
class Preference(Randomised):
    """Whether synthetic images have their nearest real image in train more often than chance gives train such images. p is exact."""

    hits: int
    """Synthetic images whose nearest image, of train and held-out images together, is one of train; a tie counts for held-out."""
    count: int
    expected: float
    """Hits on average where train and held-out images are the same to the set."""


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


def preference(synthetic: SyntheticSet, train: Train, held_out: Validation) -> Preference:
    """Are the nearest real images of a set more often training images than chance makes them?

    A randomisation test. Where the set was made without the images of train, nothing about it says which of the real images are in train and which are
    held out: given the real images and how many of each class are in train, all ways to part them are equally likely. The test counts the synthetic
    images whose nearest real image is in train, and takes the chance of as many over all those ways, class by class of the real images, exactly.
    A real image that is the nearest of several synthetic ones counts as often, and moves as one. So the level holds for smooth, noisy and equal
    images alike. It needs splits that were drawn image by image, and nothing of how synthetic images look (a comparison with held-out images does).
    Where whole patients are held out their images move together, and p is too small as far as several images of one patient are nearest.
    Raises DataError for images of different shapes or a multi-label split.
    """
    ours = synthetic.standardisation.invert(synthetic.images)
    if not ours.shape[1:] == train.images.shape[1:] == held_out.images.shape[1:] or train.labels.ndim != 1:
        raise DataError(f"images {tuple(ours.shape[1:])} cannot be compared with train {tuple(train.images.shape[1:])}, one class an image. Name its own data.")
    to_train, to_others = (_nearest(ours, part.images) for part in (train, held_out))
    return preferred(to_train, to_others, train, held_out)


def preferred(to_train: tuple[Tensor, Tensor], to_others: tuple[Tensor, Tensor], train: Train, held_out: Validation) -> Preference:
    """`preference` from the distance to the nearest image of each split, and its place there (two tensors (n,) a split), however they are measured."""
    (near, first), (other, second) = to_train, to_others
    hit = near < other
    classes = torch.where(hit, train.labels[first], held_out.labels[second]).tolist()
    weights: dict[int, Counter[int]] = {}
    for label, place in zip(classes, torch.where(hit, first, -1 - second).tolist(), strict=True):
        weights.setdefault(label, Counter())[place] += 1
    missed, expected = np.ones(1), 0.0
    for label, found in weights.items():
        inside, outside = (int((part.labels == label).sum()) for part in (train, held_out))
        missed = np.convolve(missed, held_out_counts(list(found.values()), inside, outside))
        expected += found.total() * inside / (inside + outside)
    hits = int(hit.sum())
    p = min(1.0, float(missed[: len(near) - hits + 1].sum()))
    return Preference(p, float(missed[0]), hits, len(near), expected)  # least: every image has its nearest in train


def held_out_counts(weights: Sequence[int], inside: int, outside: int) -> Float64[np.ndarray, "s"]:
    """Chances that the weights of those of some images that are held out add up to 0, 1, 2 .. their sum, when `inside + outside` images, these among
    them, are parted at random into train and held-out ones. With weights of 1 that is the hypergeometric distribution.

    Raises ConfigError for more images than there are.
    """
    count, total = len(weights), sum(weights)
    if count > inside + outside:
        raise ConfigError(f"{count} images cannot be among {inside} and {outside}.")
    ways = np.zeros((count + 1, total + 1))  # of the images so far: how many are held out, and their weights' sum; as shares of all subsets of that size
    ways[0, 0] = 1.0
    for seen, weight in enumerate(weights, 1):
        share = np.arange(1, seen + 1)[:, None] / seen
        moved = np.zeros_like(ways[:seen])
        moved[:, weight:] = ways[:seen, : total + 1 - weight]
        ways[:seen] *= 1 - np.arange(seen)[:, None] / seen
        ways[1 : seen + 1] += share * moved
    chances = [_hypergeometric(held, count, outside, inside) for held in range(count + 1)]
    found: np.ndarray = np.asarray(chances) @ ways
    return found


def _hypergeometric(held: int, count: int, outside: int, inside: int) -> float:
    """Chance that `held` of `count` images are among the `outside` ones of all."""
    if held > outside or count - held > inside:
        return 0.0
    logs = [gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) for n, k in ((outside, held), (inside, count - held), (inside + outside, count))]
    return math.exp(float(logs[0] + logs[1] - logs[2]))


def nearest_distance(images: Float[Tensor, "n c h w"], train: UInt8[Tensor, "m c h w"], own: Sequence[int] | None = None) -> list[float]:
    """For each image (0 .. 1) the distance to the nearest training image, root mean square over pixels; a copy has 0.

    With `own`, the place of each image in `train`, an image is not compared with itself; alone, it has no neighbour, at infinity.
    The nearest is found by a quick formula and its distance then computed exactly, so that rounding cannot hide a copy.
    """
    return [float(value) for value in _nearest(images, train, own)[0]]


def _nearest(
    images: Float[Tensor, "n c h w"], train: UInt8[Tensor, "m c h w"], own: Sequence[int] | None = None
) -> tuple[Float64[Tensor, "n"], Int64[Tensor, "n"]]:
    rows, first = images.flatten(1).float(), 0
    best, place_of = torch.full((len(rows),), torch.inf, dtype=torch.float64), torch.zeros(len(rows), dtype=torch.int64)
    for part in train.split(_CHUNK):
        real = part.flatten(1).float() / 255
        apart = real.square().sum(dim=1)[None, :] - 2 * rows @ real.T
        for row, place in enumerate(own or ()):
            if first <= place < first + len(real):
                apart[row, place - first] = torch.inf
        least, near = apart.min(dim=1)
        exact = (rows - real[near]).double().square().mean(dim=1).sqrt()
        exact = torch.where(least < torch.inf, exact, torch.inf)
        best, place_of, first = torch.minimum(best, exact), torch.where(exact < best, near + first, place_of), first + len(real)
    return best, place_of


def _shares_below(ours: Tensor, null: Tensor) -> Float64[Tensor, "n"]:
    """For each of ours the share of the null above it, ties half."""
    one, other = ours[:, None], null[None, :]
    return ((one < other).double() + 0.5 * (one == other).double()).mean(dim=1)


def compactness(synthetic: SyntheticSet, train: Train, *, other_bytes: int = 0) -> Compactness:
    """Bytes of what the set's file holds and of train, nothing compressed: images, or codes with their decoder in the precision stored; labels, and soft ones.

    `other_bytes` is what else the set needs.
    """
    soft = 0 if synthetic.soft is None else _bytes(synthetic.soft)
    return Compactness(other_bytes + synthetic.payload + _bytes(synthetic.labels) + soft, sum(map(_bytes, (train.images, train.labels))))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _columns(one: Standardisation, images: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, dtype=images.dtype)[:, None, None] for values in (one.mean, one.std))
    return mean, std
