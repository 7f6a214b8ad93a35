"""DP-SGD by Opacus on our network: the same function, the budget kept, and learning where the budget is large."""

import sys

import pytest
import torch
from toy_sets import net, toy

from hoptm.config import generator
from hoptm.data import Standardisation
from hoptm.dp_training import DpTraining, matched, module_of, train_dp
from hoptm.errors import ConfigError

PUBLIC = Standardisation((0.5,), (0.25,))
SHORT = DpTraining(8.0, steps=8, batch=40, lr=0.5)


def test_the_module_is_the_network() -> None:
    theta, images = net().initial(generator(0)), torch.randn(5, 1, 8, 8, generator=generator(1))
    torch.testing.assert_close(module_of(net(), theta)(images), net()(theta, images), rtol=1e-5, atol=1e-6)


def test_the_budget_is_kept_and_the_run_can_be_repeated() -> None:
    splits = toy()
    one, other = (train_dp(net(), splits.train, PUBLIC, SHORT, generator(0, "dp")) for _ in range(2))
    assert torch.equal(one.theta, other.theta) and 0.5 * 8 < one.epsilon <= 8
    small = train_dp(net(), splits.train, PUBLIC, DpTraining(1.0, steps=8, batch=40), generator(0, "dp"))
    assert small.epsilon <= 1 and small.noise > 2 * one.noise
    assert small.statement.startswith(f"({small.epsilon:.3g}, 1e-05)") and "adding or removing one image" in small.statement


def test_it_learns_with_much_budget() -> None:
    splits = toy()
    done = train_dp(net(), splits.train, PUBLIC, DpTraining(50.0, steps=60, batch=40, lr=0.5), generator(0, "dp"))
    right = (net()(done.theta, PUBLIC.apply(splits.test.images)).argmax(dim=1) == splits.test.labels).float().mean()
    assert float(right) > 0.9


def test_an_empty_batch_is_a_step_of_noise() -> None:
    settings, chance = DpTraining(8.0, steps=1, batch=1, lr=0.5), generator(3, "rare")
    done = train_dp(net(), toy().train, PUBLIC, settings, generator(3, "rare"))
    began = net().initial(chance)
    assert not bool((torch.rand(80, generator=chance) < 1 / 80).any())  # the seed whose only batch is empty
    moved = done.theta - began
    wanted = settings.lr * done.noise * settings.clip / settings.batch
    assert float(moved.std()) == pytest.approx(wanted, rel=0.1) and abs(float(moved.mean())) < 0.2 * wanted


def test_matching_takes_the_smallest_epsilon_that_is_good_enough() -> None:
    assert matched([(4.0, 0.8), (1.0, 0.7), (10.0, 0.9)], 0.75) == 4.0
    assert matched([(1.0, 0.7), (10.0, 0.74)], 0.75) == 10.0
    with pytest.raises(ConfigError):
        matched([], 0.5)


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Poisson batch"):
        train_dp(net(), toy().train, PUBLIC, DpTraining(8.0, batch=80), generator(0))
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"pip install 'hoptm\[audit\]'"):
        train_dp(net(), toy().train, PUBLIC, SHORT, generator(0))
