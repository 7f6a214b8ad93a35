"""The attack on planted signals of known size, on pure noise, and its numbers against brute force and scipy."""

import math

import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from hoptm.config import generator
from hoptm.errors import ConfigError
from hoptm.membership import Roc, attack, auc, clopper_pearson, confidence, holm, likelihood_ratios, null_areas, power, rate_at, roc, toss


def planted(shift: float, shadows: int = 16, samples: int = 300, name: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    chance = generator(7, "planted", name, str(shift))
    member = toss(shadows, samples, chance)
    offsets = 5 * torch.randn(samples, generator=chance)  # some images are easier than others: what a global threshold stumbles over
    return torch.randn(shadows, samples, generator=chance) + shift * member + offsets, member


def test_confidence_is_the_logit_of_the_probability() -> None:
    logits = torch.randn(50, 4, generator=generator(0))
    labels = torch.arange(50) % 4
    p = logits.double().softmax(dim=1)[torch.arange(50), labels]
    torch.testing.assert_close(confidence(logits, labels), (p / (1 - p)).log())
    assert confidence(torch.tensor([[300.0, 0.0]]), torch.tensor([0])).item() == 300.0  # the probability itself rounds to 1


@pytest.mark.parametrize("pooled", [True, False])
def test_ratios_are_those_of_brute_force(pooled: bool) -> None:
    scores, member = planted(1.0, shadows=12, samples=9)
    scores = scores.double()
    found = likelihood_ratios(scores, member, pooled_below=64 if pooled else 0)
    for target in range(12):
        rest = [row for row in range(12) if row != target]
        groups = [[scores[rest, image][held[rest, image]] for image in range(9)] for held in (member, ~member)]
        for image in range(9):
            logs = []
            for group in groups:
                own = [group[image]] if not pooled else group
                variance = sum(float((one - one.mean()).square().sum()) for one in own if len(one)) / sum(max(0, len(one) - 1) for one in own)
                here = group[image]
                logs.append(stats.norm.logpdf(float(scores[target, image]), float(here.mean()), math.sqrt(variance * (1 + 1 / len(here)))))
            assert found[target, image].item() == pytest.approx(logs[0] - logs[1], rel=1e-8, abs=1e-8)


def test_a_target_never_helps_to_attack_itself() -> None:
    scores, member = planted(0.0)
    before = likelihood_ratios(scores, member)
    turned = member.clone()
    turned[3] = ~turned[3]
    torch.testing.assert_close(likelihood_ratios(scores, turned)[3], before[3])
    assert not torch.allclose(likelihood_ratios(scores, turned)[4], before[4])


def test_an_image_that_all_others_hold_gets_no_answer() -> None:
    scores, member = planted(2.0)
    member[:, 0] = True
    member[1:, 1] = False
    member[0, 1] = True
    found = likelihood_ratios(scores, member)
    assert bool((found[:, 0] == 0).all()) and found[0, 1] == 0 and found[1, 1] != 0
    assert bool((likelihood_ratios(torch.ones(16, 300), member) == 0).all())


def test_planted_signals_are_found_at_their_size() -> None:
    for shift, size in ((0.5, 0.02), (1.0, 0.02), (2.0, 0.02)):
        scores, member = planted(shift, shadows=64, samples=400)
        best = stats.norm.cdf(shift / math.sqrt(2))  # of an attacker who knows both Gaussians
        answers = likelihood_ratios(scores, member, pooled_below=65)
        assert best - 0.03 < auc(answers, member) < best + size
    found = attack(*planted(1.0), generator(0, "attack"), coins=39, resamples=200)
    assert found.detected and found.low > 0.6 and found.low < found.auc < found.high


def test_the_attack_beats_a_global_threshold() -> None:
    scores, member = planted(1.0)
    assert auc(likelihood_ratios(scores, member), member) > auc(scores, member) + 0.1


def test_noise_stays_at_chance() -> None:
    verdicts = [attack(*planted(0.0, name=str(turn)), generator(turn, "attack"), coins=39, resamples=200) for turn in range(20)]
    assert sum(one.low <= 0.5 <= one.high for one in verdicts) >= 16
    assert abs(sum(one.auc for one in verdicts) / 20 - 0.5) < 0.008
    assert sum(one.detected for one in verdicts) <= 4


def test_rows_that_hang_together_do_not_fool_the_test() -> None:
    detected = 0
    for turn in range(20):
        chance = generator(turn, "common")
        member = toss(16, 100, chance)
        common = 3 * torch.randn(16, 1, generator=chance) + torch.randn(16, 100, generator=chance)
        detected += attack(common, member, chance, coins=39, resamples=20).detected
    assert detected <= 4


def test_exact_halves_would_tilt_the_attack_and_coins_do_not() -> None:
    def mean_area(fair: bool) -> float:
        areas = []
        for turn in range(60):
            chance = generator(turn, "halves", str(fair))
            member = toss(4, 300, chance) if fair else torch.rand(4, 300, generator=chance).argsort(dim=0) < 2
            scores = torch.randn(4, 300, generator=chance)
            areas.append(auc(likelihood_ratios(scores, member), member))
        return sum(areas) / len(areas)

    assert mean_area(False) < 0.48 and abs(mean_area(True) - 0.5) < 0.01


def test_the_curve_and_its_area() -> None:
    scores, member = planted(1.0)
    answers = likelihood_ratios(scores, member).mul(4).round()  # with ties
    curve = roc(answers, member)
    assert isinstance(curve, Roc) and curve.fpr[0] == curve.tpr[0] == 0 and curve.fpr[-1] == curve.tpr[-1] == 1
    expected = roc_auc_score(member.flatten(), answers.flatten())
    assert auc(answers, member) == pytest.approx(expected, abs=1e-12)
    assert float(torch.trapezoid(curve.tpr, curve.fpr)) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ConfigError, match="missing"):
        auc(answers, torch.ones_like(member))


def test_rates_are_resolved_only_with_enough_behind_them() -> None:
    answers = torch.cat([torch.arange(1000.0), torch.arange(500.0, 1500.0)])
    member = torch.arange(2000) >= 1000
    found = rate_at(answers, member, 0.01)  # the ten highest non-members begin at 990
    assert found.tpr == pytest.approx(0.51, abs=0.0011) and found.nonmembers == 1000
    assert found.low is not None and found.low < 0.51 < (found.high or 0)
    assert rate_at(answers, member, 0.0099).tpr is None and "not resolvable" in str(rate_at(answers, member, 0.001))


def test_chance_stands_beside_a_rate() -> None:
    """Scores that hang together within a shadow: coins allow for it, an interval of independent scores does not."""
    inside = 0
    for turn in range(10):
        common, own = (torch.randn(16, many, generator=generator(turn, "scores", many)) for many in (1, 300))
        rates = attack(common + 0.3 * own, toss(16, 300, generator(turn, "coins")), generator(turn, "attack"), coins=99, resamples=20).rates
        assert rates[0].tpr is None and rates[0].chance is None and "not resolvable" in str(rates[0])
        last = rates[-1]
        assert last.tpr is not None and last.low is not None and last.high is not None and last.chance is not None
        assert f"by chance {last.chance[0]:.3f} to {last.chance[1]:.3f}" in str(last)
        assert last.chance[1] - last.chance[0] > last.high - last.low
        inside += last.chance[0] <= last.tpr <= last.chance[1]
    assert inside >= 8
    found = attack(*planted(1.0), generator(6), coins=49).rates[-1]
    assert found.tpr is not None and found.chance is not None and found.tpr > found.chance[1]


def test_clopper_pearson_are_the_beta_quantiles() -> None:
    assert clopper_pearson(0, 20)[0] == 0 and clopper_pearson(0, 20)[1] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert clopper_pearson(7, 50) == pytest.approx((stats.beta.ppf(0.025, 7, 44), stats.beta.ppf(0.975, 8, 43)))


def test_size_and_power() -> None:
    assert power(16, 60, 0.0, generator(1), repeats=200) < 0.11
    assert power(16, 60, 0.2, generator(1)) < power(16, 60, 0.5, generator(1))
    assert power(16, 60, 0.8, generator(1)) > 0.95
    assert power(16, 20, 0.5, generator(1), tests=48) < power(16, 20, 0.5, generator(1)) - 0.2
    assert len(null_areas(torch.randn(8, 3, generator=generator(2)), 10, generator(2))) == 10


def test_holm_is_that_of_the_book() -> None:
    zs = [stats.norm.isf(p) for p in (0.01, 0.04, 0.03, 0.005)]
    assert holm(zs) == [True, False, False, True]  # 0.005 <= 0.05 / 4, 0.01 <= 0.05 / 3, 0.03 > 0.05 / 2
    assert holm([]) == [] and holm([9.0, 0.0]) == [True, False]
    alarms = 0
    for turn in range(200):
        alarms += any(holm(torch.randn(40, generator=generator(turn, "holm")).tolist()))
    assert alarms <= 20  # ten are expected


def test_odd_scores_are_refused() -> None:
    scores, member = planted(0.0)
    with pytest.raises(ConfigError, match="4 shadows"):
        likelihood_ratios(scores[:3], member[:3])
    with pytest.raises(ConfigError, match="diverged"):
        likelihood_ratios(scores / 0, member)
