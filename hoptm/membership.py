"""Was this image in the training data? The likelihood-ratio attack on scores of shadow pipelines, and how sure its answer is.

Carlini et al. 2022 (LiRA), online: train the same pipeline on many random subsets and note the score of every image each time. For
one image the scores with and without it in the subset are two Gaussians; the attack's answer is the logarithm of their ratio at the score
of the pipeline that is attacked. Here every shadow is the target once, and the others are its shadows.

A shadow holds each image by the toss of a fair coin of its own, not exactly half of them: with exact halves the other shadows' counts
give the target's membership away. So, if a score does not depend on membership, new coins are as good as the old
ones, which gives a test of exact size however the scores of one shadow hang together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from hoptm.errors import ConfigError

POOLED_BELOW = 64
"""Shadows below which one variance is shared by all images: an image's own would rest on a handful of scores."""
BEHIND = 10
"""A true positive rate at some false positive rate needs this many expected false positives behind it."""


@dataclass(frozen=True)
class Roc:
    """The curve of an attack, from (0, 0) to (1, 1): both rates ascending, one point a distinct answer."""

    fpr: Float[Tensor, "t"]
    tpr: Float[Tensor, "t"]


@dataclass(frozen=True)
class Rate:
    """A true positive rate at a bound of the false positive rate, with its Clopper-Pearson interval; None for all three: not resolvable."""

    at: float
    tpr: float | None
    low: float | None
    high: float | None
    nonmembers: int
    chance: tuple[float, float] | None = None
    """Where the rate lies in 95 % of fresh tosses of all coins, if that was asked."""

    def __str__(self) -> str:
        if self.tpr is None:
            return f"TPR at FPR {self.at:g}: not resolvable ({self.nonmembers} non-member scores, {math.ceil(BEHIND / self.at)} needed)"
        by_chance = f", by chance {self.chance[0]:.3f} to {self.chance[1]:.3f}" if self.chance else ""
        return f"TPR at FPR {self.at:g}: {self.tpr:.3f} [{self.low:.3f}, {self.high:.3f}]{by_chance}"


@dataclass(frozen=True)
class Verdict:
    """What an attack on one group of images achieved."""

    auc: float
    """Chance that a member's answer is above a non-member's, ties half; 0.5 is guessing."""
    low: float
    high: float
    """Bootstrap over shadows as targets, 95 %. The others stay what they are, so it is too narrow where shadows are few."""
    chance_low: float
    chance_high: float
    """Where the AUC lies in 95 % of fresh tosses of all coins: what chance looks like for these very scores."""
    p: float
    """Of the randomisation test: the share of new coins, the true ones counted in, under which the AUC is as high."""
    z: float
    """How many standard deviations of those AUCs it lies above their mean."""
    rates: tuple[Rate, ...]
    members: int
    nonmembers: int
    shadows: int

    @property
    def detected(self) -> bool:
        """Whether this test alone, at the 5 % level, finds a leak. False says that this attack found none, not that there is none."""
        return self.p <= 0.05


def confidence(logits: Float[Tensor, "n k"], labels: Tensor) -> Float[Tensor, "n"]:
    """The logit-scaled confidence log(p / (1 - p)) of each image's label, float64, computed without rounding p to 0 or 1."""
    wide = logits.double()
    own = wide.gather(1, labels[:, None]).squeeze(1)
    others = wide.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
    return own - others


def levelled(scores: Float[Tensor, "s n"]) -> Float[Tensor, "s n"]:
    """Each shadow's scores less their median, over their interquartile range (where there is one), float64.

    Some models are surer of everything than others. The attacker asks the target about many images and can take that away; no membership is read.
    """
    wide = scores.double()
    low, middle, high = torch.quantile(wide, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=1).unsqueeze(2)
    level: Tensor = (wide - middle) / torch.where(high > low, high - low, 1.0)
    return level


def toss(shadows: int, samples: int, generator: torch.Generator) -> Bool[Tensor, "s n"]:
    """Which shadow holds which image: a fair coin each, all independent."""
    return torch.rand(shadows, samples, generator=generator) < 0.5


def likelihood_ratios(scores: Float[Tensor, "s n"], member: Bool[Tensor, "s n"], pooled_below: int = POOLED_BELOW) -> Float[Tensor, "s n"]:
    """The answers log N(score | in) - log N(score | out) for every shadow and image, each shadow attacked with the Gaussians of the others.

    Means are of the other shadows with, and without, the image. Below `pooled_below` shadows the two variances are shared by all
    images, else each image has its own. A mean of m scores adds v / m to the variance v of a new one. Where no other shadow holds the image,
    or all do, the answer is 0, and so it is where scores are all the same.
    Raises ConfigError for fewer than four shadows, other shapes or scores that are not finite.
    """
    if scores.shape != member.shape or len(scores) < 4:
        raise ConfigError(f"scores {tuple(scores.shape)} and membership {tuple(member.shape)} must be of one shape (shadows, images), with 4 shadows or more.")
    if not torch.isfinite(scores).all():
        raise ConfigError("some scores are not finite: a shadow's model diverged. Take a smaller step size.")
    values = scores.double() - scores.double().mean(dim=0)
    logs, counts = [], []
    for held in (member, ~member):
        mean, variance, count = _others(values, held.double(), len(scores) < pooled_below)
        spread = (variance * (1 + 1 / count.clamp_min(1))).clamp_min(1e-300)
        logs.append(-0.5 * ((values - mean).square() / spread + spread.log()))
        counts.append(torch.where(variance > 1e-24, count, 0.0))
    known = torch.minimum(*counts) >= 1
    return torch.where(known, logs[0] - logs[1], 0.0)


def _others(values: Tensor, held: Tensor, pooled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """For each shadow and image: mean, variance and number of the other shadows' scores that `held` marks, each (s, n)."""
    own = values * held
    count = held.sum(dim=0) - held
    total = own.sum(dim=0) - own
    mean = total / count.clamp_min(1)
    squares = (own * values).sum(dim=0) - own * values
    about = (squares - count * mean.square()).clamp_min(0)
    freedom = (count - 1).clamp_min(0)
    if pooled:
        about, freedom = about.sum(dim=1, keepdim=True), freedom.sum(dim=1, keepdim=True)
    return mean, (about / freedom.clamp_min(1)).expand_as(values), count


def roc(answers: Float[Tensor, "..."], member: Bool[Tensor, "..."]) -> Roc:
    """The curve over all thresholds; equal answers stand or fall together. Raises ConfigError without both members and non-members."""
    answers, member = answers.flatten(), member.flatten()
    _check_both(member)
    order = answers.argsort(descending=True)
    sorted_answers, hit = answers[order], member[order]
    last = torch.cat([sorted_answers[1:] != sorted_answers[:-1], torch.ones(1, dtype=torch.bool)])
    ends = [torch.cat([torch.zeros(1, dtype=torch.float64), kind.double().cumsum(0)[last] / kind.sum()]) for kind in (~hit, hit)]
    return Roc(*ends)


def auc(answers: Float[Tensor, "..."], member: Bool[Tensor, "..."]) -> float:
    """The area under the curve by ranks (Mann-Whitney), ties half; raises as `roc`."""
    answers, member = answers.flatten(), member.flatten()
    _check_both(member)
    ascending, where = answers.sort()
    _, group, sizes = torch.unique_consecutive(ascending, return_inverse=True, return_counts=True)
    ranks = (sizes.cumsum(0).double() - (sizes - 1).double() / 2)[group]
    inside = int(member.sum())
    return float((ranks[member[where]].sum() - inside * (inside + 1) / 2) / (inside * (len(member) - inside)))


def _check_both(member: Tensor) -> None:
    if not 0 < int(member.sum()) < member.numel():
        raise ConfigError("an attack is judged on members and non-members; one of the two is missing. Audit more images.")


def rate_at(answers: Float[Tensor, "..."], member: Bool[Tensor, "..."], at: float, level: float = 0.95) -> Rate:
    """The highest true positive rate whose false positive rate is at most `at`, with its exact binomial (Clopper-Pearson) interval.

    Not resolvable unless `BEHIND / at` non-member scores stand behind it. The interval counts each score as independent and the threshold as
    known, and neither is true: it is too narrow, and one that leaves out `at` is no finding. What fresh coins give does not rest on that. Raises as `roc`.
    """
    outside, inside = int((~member).sum()), int(member.sum())
    if outside < BEHIND / at:
        return Rate(at, None, None, None, outside)
    tpr = _tpr(answers, member, at)
    low, high = clopper_pearson(round(tpr * inside), inside, level)
    return Rate(at, tpr, low, high, outside)


def _tpr(answers: Tensor, member: Tensor, at: float) -> float:
    curve = roc(answers, member)
    return float(curve.tpr[curve.fpr <= at].max())


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval of a share (Clopper and Pearson, 1934)."""
    found = stats.binomtest(hits, count).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def attack(
    scores: Float[Tensor, "s n"],
    member: Bool[Tensor, "s n"],
    generator: torch.Generator,
    *,
    rates: tuple[float, ...] = (0.001, 0.01, 0.1),
    resamples: int = 200,
    coins: int = 199,
) -> Verdict:
    """The whole attack on one group of images: answers, their AUC and rates, a bootstrap over shadows, a randomisation test.

    The bootstrap draws whole shadows, as targets, with the answers they have; it never lets a shadow stand among its own shadows.
    The test tosses all coins anew `coins` times and repeats the attack; its size is exact where the true coins were tossed alike.
    Raises as `likelihood_ratios` and `roc`.
    """
    answers = likelihood_ratios(scores, member)
    found = auc(answers, member)
    drawn = torch.randint(len(scores), (resamples, len(scores)), generator=generator)
    again = torch.tensor([auc(answers[rows], member[rows]) for rows in drawn if 0 < int(member[rows].sum()) < member[rows].numel()], dtype=torch.float64)
    low, high = _central(again)
    tprs = [rate_at(answers, member, at) for at in rates]
    resolved = [rate.at for rate in tprs if rate.tpr is not None]
    tossed = [(auc(other, fresh), *(_tpr(other, fresh, at) for at in resolved)) for other, fresh in _fresh(scores, coins, generator)]
    null, *by_chance = torch.tensor(tossed, dtype=torch.float64).T
    below, above = _central(null)
    p = (1 + int((null >= found).sum())) / (coins + 1)
    ranges = dict(zip(resolved, map(_central, by_chance), strict=True))
    tprs = [replace(rate, chance=ranges.get(rate.at)) for rate in tprs]
    z = (found - float(null.mean())) / max(float(null.std()), 1e-12)
    return Verdict(found, low, high, below, above, p, z, tuple(tprs), int(member.sum()), int((~member).sum()), len(scores))


def null_areas(scores: Float[Tensor, "s n"], coins: int, generator: torch.Generator) -> list[float]:
    """AUCs of the same attack on the same scores under coins that have nothing to do with them."""
    return [auc(answers, fresh) for answers, fresh in _fresh(scores, coins, generator)]


def _fresh(scores: Tensor, coins: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """The answers of the attack under new coins, and these coins."""
    for _ in range(coins):
        fresh = _both_sides(scores.shape[0], scores.shape[1], generator)
        yield likelihood_ratios(scores, fresh), fresh


def _central(values: Tensor) -> tuple[float, float]:
    """The middle 95 % of draws."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _both_sides(shadows: int, samples: int, generator: torch.Generator) -> Bool[Tensor, "s n"]:
    """Coins of which at least one fell on each side, tossed until they did."""
    while True:
        fresh = toss(shadows, samples, generator)
        if 0 < int(fresh.sum()) < fresh.numel():
            return fresh


def holm(zs: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of many tests find something, so that the chance of even one false alarm among all is at most `level` (Holm, 1979).

    Takes each one's `z` to its tail of the normal law, since a few hundred coins cannot tell how small a small chance is. So the level holds
    as far as AUCs under new coins are normal, which they are the less the fewer the images.
    """
    tails = stats.norm.sf(list(zs))
    order, found = sorted(range(len(tails)), key=lambda index: tails[index]), [False] * len(tails)
    for place, index in enumerate(order):
        if tails[index] > level / (len(tails) - place):
            break
        found[index] = True
    return found


def power(shadows: int, samples: int, shift: float, generator: torch.Generator, *, repeats: int = 100, level: float = 0.05, tests: int = 1) -> float:
    """How often the test finds a planted leak: members' scores are higher by `shift` standard deviations of an image's score.

    Simulated with independent Gaussian scores, decided as in `holm`: by the tail of the normal law over new coins, at `level / tests`, which is what the
    first of `tests` has to pass. With `shift` 0 and one test it is the size of the test.
    """
    null = torch.tensor(null_areas(torch.randn(shadows, samples, generator=generator), 199, generator))
    critical, found = float(null.mean() + stats.norm.isf(level / tests) * null.std()), 0
    for _ in range(repeats):
        member = _both_sides(shadows, samples, generator)
        scores = torch.randn(shadows, samples, generator=generator) + shift * member
        found += auc(likelihood_ratios(scores, member), member) > critical
    return found / repeats
