"""Small sets that cost nothing to make: what a distilled set has to beat."""

import torch

from hoptm.data import Splits, single_label
from hoptm.synthetic import SyntheticSet, from_real, initialise, provenance


def random_subset(splits: Splits, ipc: int, generator: torch.Generator, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """`ipc` real training images of each class, drawn uniformly without replacement and standardised as train is.

    `seed` is only written into the description; the draw comes from `generator`. The step size `lr` is what a
    reader may start from; the evaluation chooses its own on validation.

    Raises DataError for a multi-label set, or a class with fewer than `ipc` images.
    """
    chosen = initialise(single_label(splits).train, splits.classes, ipc, generator)
    return from_real(splits, chosen, provenance(splits, method="random", ipc=ipc, seed=seed), lr=lr)
