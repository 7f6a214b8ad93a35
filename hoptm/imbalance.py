"""A training set made rarer class by class, and budgets that answer it.

Train is thinned so that the class sizes fall along a geometric series from the most to the least frequent class, as in the long-tailed benchmarks
(Cui et al., CVPR 2019); validation and test stay as they are. Budgets share a fixed number of images among the classes by a power of their frequency.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from hoptm.data import Known, Train, single_label
from hoptm.errors import ConfigError, DataError

NAMES = {
    "random": "random real images",
    "random-budgets": "random, more of rare classes",
    "endpoint": "end point",
    "prior": "end point, prior-weighted loss",
    "balanced_softmax": "end point, balanced softmax",
    "budgets": "end point, more of rare classes",
    "aware": "balanced softmax, more of rare classes",
}
"""Arms of a comparison under imbalance, in words."""


def tail_counts(counts: Int64[Tensor, "k"], factor: float) -> Int64[Tensor, "k"]:
    """Sizes (k,) that fall from the most frequent class to the rarest by `factor` in all, in equal ratios; none above `counts`.

    The class of rank r, 0 the most frequent, keeps h factor^(-r / (k - 1)) images, rounded, with h the largest that every class can supply; of
    equal counts the lower label ranks higher. Factor 1 makes all classes as large as the smallest.
    Raises ConfigError for a factor below 1, DataError for fewer than two classes or a class that would be left without images.
    """
    if not 1 <= factor < float("inf"):
        raise ConfigError(f"the imbalance factor is {factor}; it must be 1 or more, and finite.")
    if len(counts) < 2:
        raise DataError("imbalance needs two classes or more.")
    order = torch.argsort(counts, descending=True, stable=True)
    ratio = factor ** (-torch.arange(len(counts), dtype=torch.float64) / (len(counts) - 1))
    head = float((counts[order] / ratio).min())
    kept = torch.zeros_like(counts)
    kept[order] = (head * ratio + 1e-9).round().long()
    if int(kept.min()) < 1:
        raise DataError(f"at factor {factor:g} class {int(kept.argmin())} would be left without images. Take a smaller factor.")
    return kept


def thinned(splits: Known, factor: float, generator: torch.Generator) -> Known:
    """The same splits with `tail_counts` images of each class left in train, drawn uniformly; their order is kept, and the note says what was done.

    The checksum stays that of the source. Raises as `tail_counts`, and DataError for a multi-label set.
    """
    train = single_label(splits).train
    counts = torch.bincount(train.labels, minlength=splits.classes)
    kept = []
    for label, count in enumerate(tail_counts(counts, factor).tolist()):
        members = torch.nonzero(train.labels == label).flatten()
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = torch.cat(kept).sort().values
    words = f"train thinned to an imbalance factor of {factor:g}, {len(chosen)} images left"
    note = "; ".join(part for part in (splits.info.note, words) if part)
    return replace(splits, train=Train(train.images[chosen], train.labels[chosen]), info=replace(splits.info, note=note))


def shared_out(counts: Sequence[int], total: int, power: float) -> tuple[int, ...]:
    """`total` images shared among classes in proportion to `counts` to the power `power`; at least one each, and at most what a class has.

    Power 0 shares equally, 1 as nature does, below 0 rare classes get more. Whole numbers by Webster's divisors: the next image goes to the class with the
    largest share over 2 n + 1, n being what it has. Raises ConfigError for fewer images than classes or more than there are.
    """
    if min(counts) < 1 or not len(counts) <= total <= sum(counts):
        raise ConfigError(f"{total} images cannot be shared among classes of {', '.join(map(str, counts))}: one each at least, and no more than there are.")
    share, found = [count**power for count in counts], [1] * len(counts)
    while sum(found) < total:
        claims = [part / (2 * have + 1) if have < count else -1.0 for part, have, count in zip(share, found, counts, strict=True)]
        found[claims.index(max(claims))] += 1
    return tuple(found)
