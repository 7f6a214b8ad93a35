"""The formulas of DD-Ranking on worked examples."""

import itertools
import math

import pytest

from hoptm import fairness
from hoptm.errors import ConfigError
from hoptm.fairness import ars, best_of, hlr, ior, lrs, lrs_by_seed

WORKED = {0.0: 0.2689, 0.1: 0.3137, -0.1: 0.2285, -0.3: 0.1587, 1.0: 1.0, -1.0: 0.0}
"""alpha or beta, and the score to four digits."""


@pytest.mark.parametrize(("alpha", "expected"), WORKED.items())
def test_the_map_on_worked_examples(alpha: float, expected: float) -> None:
    up, down = max(alpha, 0.0), max(-alpha, 0.0)
    only_gain = lrs(real_hard=0.5, synthetic_hard=0.5, synthetic=up, random=down, weight=1.0)
    only_loss = lrs(real_hard=down, synthetic_hard=up, synthetic=0.5, random=0.5, weight=0.0)
    augmented = ars(synthetic_augmented=up, random_augmented=down, synthetic_plain=0.3, random_plain=0.3, gamma=1.0)
    for found, inner in ((only_gain, only_gain.alpha), (only_loss, only_loss.alpha), (augmented, augmented.beta)):
        assert inner == pytest.approx(alpha) and found.score == pytest.approx(expected, abs=5e-5)


def test_lrs_by_hand() -> None:
    """Real .90, set .70 with hard and .80 with its own labels, random .65: HLR .20, IOR .15, alpha -.025."""
    found = lrs(real_hard=0.90, synthetic_hard=0.70, synthetic=0.80, random=0.65)
    assert (found.hlr, found.ior, found.alpha, found.weight) == pytest.approx((0.20, 0.15, -0.025, 0.5))
    assert found.score == pytest.approx((math.exp(-0.025) - math.exp(-1)) / (math.exp(1) - math.exp(-1)))
    assert lrs(real_hard=0.90, synthetic_hard=0.70, synthetic=0.80, random=0.65, weight=0.25).alpha == pytest.approx(0.25 * 0.15 - 0.75 * 0.2)
    assert str(found) == "LRS 0.258 (alpha -0.025, HLR +0.200, IOR +0.150, weight 0.5; no gain, no loss is 0.269)"


def test_lrs_of_each_seed_that_all_share() -> None:
    hard = {0: 0.7, 1: 0.6, 2: 0.5}
    found = lrs_by_seed(real_hard={0: 0.9, 1: 0.9}, synthetic_hard=hard, synthetic=hard, random={1: 0.5, 0: 0.65, 3: 0.1}, weight=0.25)
    assert list(found) == [0, 1]
    assert found[1] == lrs(real_hard=0.9, synthetic_hard=0.6, synthetic=0.6, random=0.5, weight=0.25)
    assert lrs_by_seed(real_hard={}, synthetic_hard=hard, synthetic=hard, random=hard) == {}


def test_ars_by_hand() -> None:
    found = ars(synthetic_augmented=0.8, random_augmented=0.7, synthetic_plain=0.6, random_plain=0.65)
    assert (found.gain_augmented, found.gain_plain, found.beta, found.gamma) == pytest.approx((0.1, -0.05, 0.025, 0.5))
    assert found.score == pytest.approx((math.exp(0.025) - math.exp(-1)) / (math.e - math.exp(-1)))
    assert ars(synthetic_augmented=0.8, random_augmented=0.7, synthetic_plain=0.6, random_plain=0.65, gamma=0.2).beta == pytest.approx(0.02 - 0.04)
    assert "beta +0.025" in str(found) and "0.269" in str(found)


def test_differences_have_their_signs() -> None:
    assert hlr(0.9, 0.7) == pytest.approx(0.2) and ior(0.7, 0.9) == pytest.approx(-0.2)


@pytest.mark.parametrize("value", [56.5, -0.01, 1.01, math.nan, math.inf])
def test_percent_is_refused(value: float) -> None:
    for call in (lambda: hlr(value, 0.5), lambda: hlr(0.5, value), lambda: ior(value, 0.5), lambda: ior(0.5, value)):
        with pytest.raises(ConfigError, match="fraction"):
            call()
    with pytest.raises(ConfigError, match="fraction"):
        lrs(real_hard=0.9, synthetic_hard=0.7, synthetic=0.8, random=0.6, weight=value)
    with pytest.raises(ConfigError, match="fraction"):
        ars(synthetic_augmented=0.9, random_augmented=0.7, synthetic_plain=0.8, random_plain=0.6, gamma=value)


@pytest.mark.parametrize("looks", [1, 2, 3, 5])
def test_the_best_of_so_many_looks_is_that_of_every_draw(looks: int) -> None:
    test, validation = [0.7, 0.9, 0.8, 0.6, 0.85], [0.5, 0.5, 0.4, 0.9, 0.1]
    for judged_by in (test, validation):
        draws = list(itertools.combinations(range(5), looks))
        kept = [max(draw, key=lambda place, by=judged_by: (by[place], -place)) for draw in draws]  # type: ignore[misc]
        assert best_of(test, judged_by, looks) == pytest.approx(sum(test[place] for place in kept) / len(draws))
    assert best_of(test, test, 5) == 0.9 and best_of(test, validation, 5) == 0.6


def test_looks_that_cannot_be_taken_are_refused() -> None:
    for shown, judged_by, looks in (([0.5], [0.5], 2), ([0.5], [0.5], 0), ([0.5, 0.6], [0.5], 1)):
        with pytest.raises(ConfigError, match="looks"):
            best_of(shown, judged_by, looks)


def test_the_exponential_leaves_its_range_when_fed_percent() -> None:
    """What the peer's code does with accuracies in percent: the documented map, which is ours, gives numbers outside 0 .. 1."""
    assert [fairness._mapped(x) for x in (-10.0, 5.0)] == pytest.approx([-0.1565, 62.99], abs=5e-3)
    assert [fairness._mapped(x) for x in (-1.0, 0.0, 1.0)] == pytest.approx([0.0, 1 / (1 + math.e), 1.0])
