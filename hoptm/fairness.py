"""Does a set help by itself, or does its recipe? HLR, IOR, LRS and ARS, from accuracies as fractions; and what looking at test is worth.

The formulas are DD-Ranking's as documented (version 0.2.0). Its code differs from its document: accuracies arrive there in
percent, so that the exponentials leave 0 .. 1 (a difference of -10 points gives -0.157, one of +5 gives 63); step size and
epoch are chosen as the best on the test split; and only the random images get that search when the synthetic set brings a
step size. Here a number outside 0 .. 1 is refused, and what comes in is expected from `evaluate`, which chooses the
recipe of every arm on validation.

The scores map the difference alpha (or beta) to (e^x - 1/e) / (e - 1/e). "Nothing gained, nothing lost" is therefore
0.269 and not 0, and the map is convex, so equal gains count more at the top. Print alpha and beta beside the scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hoptm.errors import ConfigError


@dataclass(frozen=True)
class LabelRobustness:
    """LRS with all that it is made of; `weight` is the share of IOR."""

    score: float
    """0 .. 1; 0.269 at alpha 0."""
    alpha: float
    """weight * ior - (1 - weight) * hlr, -1 .. 1."""
    hlr: float
    ior: float
    weight: float

    def __str__(self) -> str:
        return f"LRS {self.score:.3f} (alpha {self.alpha:+.3f}, HLR {self.hlr:+.3f}, IOR {self.ior:+.3f}, weight {self.weight:g}; no gain, no loss is 0.269)"


@dataclass(frozen=True)
class AugmentationRobustness:
    """ARS with all that it is made of; `gamma` is the share of the gain under augmentation."""

    score: float
    """0 .. 1; 0.269 at beta 0."""
    beta: float
    """gamma * gain_augmented + (1 - gamma) * gain_plain, -1 .. 1."""
    gain_augmented: float
    gain_plain: float
    gamma: float

    def __str__(self) -> str:
        gains = f"gain {self.gain_augmented:+.3f} with and {self.gain_plain:+.3f} without augmentation"
        return f"ARS {self.score:.3f} (beta {self.beta:+.3f}, {gains}, gamma {self.gamma:g}; no gain is 0.269)"


def hlr(real_hard: float, synthetic_hard: float) -> float:
    """Hard-label recovery: accuracy of all real images minus that of the synthetic set, both with hard labels; -1 .. 1, lower is better.

    A weak full-data model makes it small: train it for as many steps at least (`evaluate.full_data`).
    Raises ConfigError for an accuracy that is no fraction.
    """
    return _fraction(real_hard) - _fraction(synthetic_hard)


def ior(synthetic: float, random: float) -> float:
    """Improvement over random: accuracy of the synthetic set minus that of as many random real images, under the same labels and kind of recipe; -1 .. 1.

    Known defects: how random images get their soft labels is left open, and one draw of them moves it (use several
    seeds, paired). Raises ConfigError for an accuracy that is no fraction.
    """
    return _fraction(synthetic) - _fraction(random)


def lrs(*, real_hard: float, synthetic_hard: float, synthetic: float, random: float, weight: float = 0.5) -> LabelRobustness:
    """Label-robust score: alpha = weight * IOR - (1 - weight) * HLR, mapped as the module says.

    `synthetic` and `random` are accuracies under the set's own labels, soft or hard. Raises ConfigError for an accuracy
    or a weight that is no fraction.
    """
    share, loss, gain = _fraction(weight), hlr(real_hard, synthetic_hard), ior(synthetic, random)
    alpha = share * gain - (1 - share) * loss
    return LabelRobustness(_mapped(alpha), alpha, loss, gain, share)


def lrs_by_seed(
    *, real_hard: Mapping[int, float], synthetic_hard: Mapping[int, float], synthetic: Mapping[int, float], random: Mapping[int, float], weight: float = 0.5
) -> dict[int, LabelRobustness]:  # fmt: skip
    """`lrs` for each seed that all four accuracies share; with hard labels `synthetic_hard` and `synthetic` are the same. Raises as `lrs`."""
    shared = sorted(set(real_hard) & set(synthetic_hard) & set(synthetic) & set(random))
    return {
        seed: lrs(real_hard=real_hard[seed], synthetic_hard=synthetic_hard[seed], synthetic=synthetic[seed], random=random[seed], weight=weight)
        for seed in shared
    }  # fmt: skip


def ars(*, synthetic_augmented: float, random_augmented: float, synthetic_plain: float, random_plain: float, gamma: float = 0.5) -> AugmentationRobustness:
    """Augmentation-robust score: beta = gamma * (gain with augmentation) + (1 - gamma) * (gain without), mapped as the module says.

    A gain is the accuracy of the synthetic set minus that of as many random real images. Raises ConfigError for an
    accuracy or a gamma that is no fraction.
    """
    share = _fraction(gamma)
    augmented, plain = ior(synthetic_augmented, random_augmented), ior(synthetic_plain, random_plain)
    beta = share * augmented + (1 - share) * plain
    return AugmentationRobustness(_mapped(beta), beta, augmented, plain, share)


def best_of(shown: Sequence[float], judged_by: Sequence[float], looks: int) -> float:
    """What is shown, on average, when the best of `looks` candidates by `judged_by` is kept, over all ways to draw so many of them.

    With `shown` the test scores, `judged_by` themselves gives what a report shows that looks at test, and `judged_by` the validation scores what one
    shows that does not. Exact: the candidate of rank r (1 the worst, the earlier of equals is better) is the best of a draw in C(r - 1, looks - 1)
    of C(n, looks) draws. Raises ConfigError for sequences of unequal length or fewer candidates than looks.
    """
    if len(shown) != len(judged_by) or not 1 <= looks <= len(shown):
        raise ConfigError(f"{looks} looks at {len(shown)} scores, judged by {len(judged_by)}: give one judgement a score, and 1 to {len(shown)} looks.")
    order = sorted(range(len(shown)), key=lambda place: (judged_by[place], -place))
    ways = math.comb(len(shown), looks)
    return sum(math.comb(rank, looks - 1) / ways * shown[place] for rank, place in enumerate(order))


def _mapped(difference: float) -> float:
    return (math.exp(difference) - math.exp(-1)) / (math.e - math.exp(-1))


def _fraction(value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ConfigError(f"{value} is no fraction of 0 .. 1. Give accuracies and weights as fractions, not in percent.")
    return float(value)
