"""Small generated splits for tests: two classes that a network separates in a moment."""

from dataclasses import replace
from typing import Any

import torch

from hoptm import data
from hoptm.config import NetworkConfig
from hoptm.data import Info, Splits, Train, Validation
from hoptm.networks import Network, network

INFO = Info("halves", "Bright halves", ("up", "down"), "binary-class", "CC0", "made here", "sha256:00", "", ("none", "dsa"))


def bright_halves(count: int, seed: int, margin: int = 80, rare: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise whose upper half (class 0) or lower half (class 1) is brighter; one image in `rare` is of class 1."""
    labels = (torch.arange(count) % rare == rare - 1).long()
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    for index, label in enumerate(labels.tolist()):
        images[index, :, 4 * label : 4 * label + 4] += margin
    return images.to(torch.uint8), labels


def toy(test: type[data.Test] = data.Test, rare: int = 2) -> Splits:
    train, val = bright_halves(80, 1, rare=rare), bright_halves(40, 2, rare=rare)
    return Splits(Train(*train), Validation(*val), test(*bright_halves(60, 3, rare=rare)), INFO)


def net(**changes: Any) -> Network:
    return network(NetworkConfig(**{"depth": 1, "width": 8, **changes}), channels=1, classes=2, size=8)


def sealed(splits: Splits, *names: str) -> Splits:
    """A copy of `splits` in which any look at the named splits is an error, also in what `without_test` makes of it."""

    def closed(kind: type[data.Split]) -> Any:
        class Sealed(kind):  # type: ignore[misc, valid-type]
            def __getattribute__(self, name: str) -> Any:
                if name == "__class__":
                    return kind
                raise AssertionError(f"a sealed split was read ({name})")

        return object.__new__(Sealed)

    return replace(splits, **{name: closed(type(getattr(splits, name))) for name in names})
