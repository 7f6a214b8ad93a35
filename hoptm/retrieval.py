"""Which real images stand behind a synthetic one: its nearest neighbours, and whether the image it started from can be found again.

A direct attack on the images themselves: no network is trained. Distances are root mean squares over pixels, 0 .. 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from scipy import stats
from torch import Tensor

from hoptm.errors import DataError
from hoptm.intervals import Randomised
from hoptm.membership import clopper_pearson

DRAWS = 1_999
"""Random exchanges of initialisers in `exchanged`."""


@dataclass(frozen=True)
class Retrieval:
    """How far down the list of all real images, nearest first, the true initialiser of each synthetic image stands."""

    ranks: tuple[int, ...]
    """0: the true one is the nearest of all. Of equal distances the later place counts."""
    candidates: int

    @property
    def hits(self) -> int:
        """Synthetic images whose initialiser is found at once."""
        return sum(rank == 0 for rank in self.ranks)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share of hits, Clopper-Pearson, 95 %."""
        return clopper_pearson(self.hits, len(self.ranks))

    @property
    def p(self) -> float:
        """Chance of as many hits by guessing, each with chance 1 / candidates."""
        return float(stats.binomtest(self.hits, len(self.ranks), 1 / self.candidates, alternative="greater").pvalue)

    @property
    def typical(self) -> float:
        """Median of (rank + 1/2) / candidates: 1/2 by guessing, near 0 when initialisers show through."""
        return float(torch.tensor(self.ranks, dtype=torch.float64).add(0.5).quantile(0.5)) / self.candidates


def distances(images: Float[Tensor, "n ..."], real: Float[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
    """Root mean square difference of each pair, float64; exact for copies. Raises DataError for images of different shapes."""
    if images.shape[1:] != real.shape[1:]:
        raise DataError(f"images {tuple(images.shape[1:])} cannot be compared with {tuple(real.shape[1:])}. Name the data of the set.")
    rows, others = images.flatten(1).double(), real.flatten(1).double()
    found: Tensor = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist") / rows.shape[1] ** 0.5
    return found


def nearest(images: Float[Tensor, "n ..."], real: Float[Tensor, "m ..."], count: int) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """The distances and the indices of the `count` nearest real images of each image, nearest first. Raises as `distances`."""
    found = distances(images, real).topk(min(count, len(real)), largest=False)
    return found.values, found.indices


def _one_each(images: Float[Tensor, "n ..."], started: Sequence[int] | Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """The initialisers as a tensor. Raises DataError when there is not one for each image."""
    truth = torch.as_tensor(started)
    if len(truth) != len(images):
        raise DataError(f"{len(images)} images and {len(truth)} initialisers were given; each image has one.")
    return truth


def retrieval(images: Float[Tensor, "n ..."], real: Float[Tensor, "m ..."], started: Sequence[int] | Int64[Tensor, "n"]) -> Retrieval:
    """The rank of each image's true initialiser, an index into `real`. Raises DataError when there is not one for each image, else as `distances`."""
    return ranked(distances(images, real), _one_each(images, started))


def ranked(found: Float[Tensor, "n m"], truth: Int64[Tensor, "n"]) -> Retrieval:
    """`retrieval` from the distances of each image to all real ones, however they are measured."""
    own = found.gather(1, truth[:, None])
    ranks = (found <= own).sum(dim=1) - 1
    return Retrieval(tuple(int(rank) for rank in ranks), found.shape[1])


def against_held_out(
    images: Float[Tensor, "n ..."],
    real: Float[Tensor, "m ..."],
    started: Sequence[int] | Int64[Tensor, "n"],
    labels: Int64[Tensor, "m"],
    held_out: Float[Tensor, "h ..."],
    held_labels: Int64[Tensor, "h"],
) -> tuple[float, ...]:
    """For each image the share of held-out images of its initialiser's class that lie as near as the initialiser does, or nearer; 0 to 1.

    Images of one class look alike, so an initialiser ranks above chance among images of all classes even where nothing of it is left. Among
    held-out images of its own class its place is uniform then, and the mean share is 1/2 (half a place is added, as in `Retrieval.typical`).
    Raises DataError for a class without held-out images, else as `retrieval`.
    """
    truth = _one_each(images, started)
    own = torch.stack([distances(image[None], real[index][None])[0, 0] for image, index in zip(images, truth, strict=True)])
    others, shares = distances(images, held_out), []
    for row, mine, label in zip(others, own, labels[truth], strict=True):
        alike = row[held_labels == label]
        if not len(alike):
            raise DataError(f"no held-out image has class {int(label)}, so there is nothing to compare its initialisers with.")
        shares.append((int((alike <= mine).sum()) + 0.5) / (len(alike) + 1))
    return tuple(shares)


def exchanged(
    images: Float[Tensor, "n ..."],
    real: Float[Tensor, "m ..."],
    started: Sequence[int] | Int64[Tensor, "n"],
    labels: Int64[Tensor, "m"],
    held_out: Float[Tensor, "h ..."],
    held_labels: Int64[Tensor, "h"],
    chance: torch.Generator,
) -> Randomised:
    """A randomisation test, class by class: do images lie nearer to their own initialisers than if others had been drawn in their place?

    Initialisers that are drawn at random from train, and held-out images of their class, are the same to a set that kept nothing of its
    initialisers. So the true ones are exchanged for images drawn from both together, without replacement, and the ranks of their distances added
    up. p is the share of exchanges, the true choice counted in, in which the stand-ins lie as near on the whole. The level holds whatever the
    images look like, alike or not. Where the initialisers were not drawn but chosen, give no held-out images (`held_out[:0]`): they are then
    exchanged among themselves, which asks whether an image knows its own from the others of its class.
    Raises DataError when there is not one initialiser for each image, else as `distances`.
    """
    truth = _one_each(images, started)
    own, others = (distances(images, stack) for stack in (real[truth], held_out))
    return exchanged_in(own, others, labels[truth], held_labels, chance)


def exchanged_in(
    own: Float[Tensor, "n n"],
    others: Float[Tensor, "n h"],
    classes: Int64[Tensor, "n"],
    held_classes: Int64[Tensor, "h"],
    chance: torch.Generator,
) -> Randomised:
    """`exchanged` from distances, however they are measured: of each image to all initialisers, its own on the diagonal, and to held-out images."""
    seen, drawn, ways = 0.0, torch.zeros(DRAWS, dtype=torch.float64), 0.0
    for label in classes.unique():
        of_class = torch.nonzero(classes == label).flatten()
        near = torch.cat([own[of_class][:, of_class], others[of_class][:, held_classes == label]], dim=1)
        ranks = torch.stack([(near < one[:, None]).sum(1) + 0.5 * (near == one[:, None]).sum(1) for one in near.T], dim=1).double()
        count, size = ranks.shape
        seen += float(ranks.diagonal().sum())
        instead = torch.rand(DRAWS, size, generator=chance).argsort(dim=1)[:, :count]
        drawn += ranks[torch.arange(count), instead].sum(dim=1)
        ways += math.lgamma(size + 1) - math.lgamma(size - count + 1)
    return Randomised((1 + int((drawn <= seen + 1e-9).sum())) / (DRAWS + 1), max(1 / (DRAWS + 1), math.exp(-ways)))
