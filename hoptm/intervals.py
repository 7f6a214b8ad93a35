"""Intervals, each said to be over seeds, over networks of one set or over test images and never a mixture; and verdicts on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.special import stdtrit
from torch import Tensor

from hoptm.errors import ConfigError

WIDE = 3
"""The largest n whose interval is called wide: its ends say little more than that n is small."""
RING = "°"
"""Beside an n of three or less, in tables."""
RING_WORDS = f"{RING} three seeds or fewer, so a wide interval: Student's t of n - 1 degrees of freedom"
"""What stands below a table that has a ring."""


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval, the n it rests on, and of which kind it is. Kinds are never mixed."""

    mean: float
    low: float
    high: float
    n: int
    df: int | None
    """Degrees of freedom; None where the kind has none."""
    kind: str

    @property
    def wide(self) -> bool:
        """Whether n is `WIDE` or less."""
        return self.n <= WIDE

    def __str__(self) -> str:
        freedom = "" if self.df is None else f", df={self.df}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}{freedom}, {self.kind}{', wide' if self.wide else ''}"


@dataclass(frozen=True)
class Randomised:
    """What a test says that deals the data anew by chance: p, and how small p can be at all."""

    p: float
    """Chance of as much or more where there is nothing to find."""
    least: float
    """The smallest p that the test could have with so many images; large where they are few."""

    def tells(self, level: float) -> bool:
        """Whether the test can reach the level at all with so many images."""
        return self.least <= level


def ringed(n: int) -> str:
    """A number of seeds as tables print it: with a ring where an interval over them is wide, without one where there is none."""
    return f"{n}{RING if 1 < n <= WIDE else ''}"


def noted(lines: Sequence[str]) -> str:
    """Lines of a table as one text, and below it what a ring means, where one is in them."""
    return "\n".join([*lines, *([RING_WORDS] if any(RING in line for line in lines) else [])])


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of a mean over seeds: one value each. Raises ConfigError for fewer than two or one not finite."""
    return _student(values, level, "over seeds by Student's t")


def network_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of a mean over fresh networks that were trained on one set: one value each.

    It says how far the score of this set would move with other networks; other seeds of its making are not in it. Raises as `interval`.
    """
    return _student(values, level, "over networks of one set by Student's t")


def paired_interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean of `first - second`, matched seed by seed.

    Raises ConfigError for sequences of unequal length, fewer than two pairs, or a value that is not finite.
    """
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} values cannot be paired with {len(second)}. Run both arms with the same seeds.")
    return _student([one - other for one, other in zip(first, second, strict=True)], level, "paired over seeds by Student's t")


def _student(values: Sequence[float], level: float, kind: str) -> Interval:
    count = len(values)
    if count < 2:
        raise ConfigError(f"an interval {kind} needs two values or more, not {count}. Run more seeds or networks.")
    _check_level(values, level)
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, (1 + level) / 2)) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count, count - 1, kind)


def bootstrap_interval(correct: Bool[Tensor, "n"] | Float[Tensor, "n"], generator: torch.Generator, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of a mean over test images: `correct` holds one value an image, such as hit or miss.

    It says how far the score would move with other test images for one trained network; it says nothing about seeds. For hundreds of images: with a
    handful its ends are little more than the smallest and the largest value and miss the truth far too often, so no verdict can rest on it there.
    Raises ConfigError for fewer than two images, fewer than 100 resamples, or a value that is not finite.
    """
    values = correct.detach().cpu().double()
    if len(values) < 2 or resamples < 100:
        raise ConfigError(f"a bootstrap needs two images and 100 resamples or more, not {len(values)} and {resamples}.")
    _check_level(values.tolist(), level)
    means = torch.stack([values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(resamples)])
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)).tolist()
    return Interval(float(values.mean()), low, high, len(values), None, "bootstrap over test images")


def _check_level(values: Sequence[float], level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"the level is {level}; it must lie between 0 and 1, such as 0.95.")
    if not all(math.isfinite(value) for value in values):
        raise ConfigError("an interval was asked of values that are not all finite. Leave the diverged runs out and say so.")


def compare(name: str, value: float, low: float, high: float) -> tuple[str, str]:
    """A trained score for print: the rounded number, which moves with the machine, and a verdict that should not.

    `low` and `high` are the ends of the stored record's interval; they count as inside. Gives for example
    `("0.853", "accuracy: inside the stored interval")`. Raises ConfigError for a number that is not finite or low > high.
    """
    if not all(math.isfinite(number) for number in (value, low, high)) or low > high:
        raise ConfigError(f"{name} {value} cannot be placed in the interval {low} .. {high}.")
    where = "below" if value < low else "above" if value > high else "inside"
    return f"{value:.3f}", f"{name}: {where} the stored interval"
