"""The estimate before the work: its parts follow the settings, and its time is of the right size."""

import time

import pytest
import torch

from hoptm import cost
from hoptm.arms import arm
from hoptm.config import configure
from hoptm.cost import Cost, arm_seconds, estimate, evaluation_seconds
from hoptm.data import load
from hoptm.distill import distill
from hoptm.errors import ConfigError
from hoptm.evaluate import evaluate
from hoptm.experts import experts
from hoptm.networks import network


@pytest.fixture(scope="module")
def splits():
    return load("phantom:450")


def test_time_is_within_a_factor_of_six_of_the_run(splits, tmp_path):
    config = configure("phantom:450", method="published", ipc=2, seed=0, profile="smoke", match={"iterations": 60, "validate_every": 60})
    paths = experts(config, splits, cache=tmp_path, progress=False, processes=1)
    predicted = estimate(config, splits)
    began = time.perf_counter()
    distill(config, splits, paths, progress=False)
    taken = time.perf_counter() - began
    assert taken / 6 < predicted.distil_seconds + predicted.look_seconds < taken * 6


def test_twice_the_work_costs_twice_the_disk_and_more_memory(splits):
    small = configure("phantom:450", method="endpoint", ipc=2, seed=0, profile="smoke")
    one, experts_twice = estimate(small, splits), estimate(small.changed(experts={"count": 4}), splits)
    sets = 16 * 18 * 3 * 28 * 28
    assert experts_twice.disk_bytes - sets == 2 * (one.disk_bytes - sets)
    assert estimate(small.changed(network={"width": 64}), splits).memory_bytes > one.memory_bytes


@pytest.mark.parametrize(("seconds", "words"), [(5.0, "5 s"), (600.0, "10.0 min"), (36_000.0, "10.0 h"), (864_000.0, "10.0 d")])
def test_words_have_units(seconds, words):
    said = str(Cost(0.0, seconds, 0.0, 2_000_000_000, 3_000_000))
    assert f"about {words}" in said and "2.0 GB of memory" in said and "3 MB of disk" in said


@pytest.mark.parametrize("name", ["random", "herding", "dm"])
def test_an_arm_costs_about_what_was_said(splits, name, monkeypatch):
    from hoptm import cost, matching_baselines

    short = matching_baselines.dataclasses.replace(matching_baselines.DM_FAST, iterations=20)
    monkeypatch.setattr(matching_baselines, "DM_FAST", short)
    monkeypatch.setattr(cost, "DM_FAST", short)

    config = configure("phantom:450", method="endpoint", ipc=2, seed=0, profile="smoke", evaluation={"steps": 60})
    net = network(config.network, channels=3, classes=9, size=28)
    predicted = arm_seconds(name, config, splits)
    began = time.process_time()
    evaluate(net, arm(name, config, splits), splits.val, splits.test, config.evaluation, 0)
    assert predicted / 8 < time.process_time() - began < predicted * 8


def test_judging_grows_with_what_is_trained(splits):
    config = configure("phantom:450", method="endpoint", ipc=2, seed=0, profile="smoke")
    net = network(config.network, channels=3, classes=9, size=28)
    few, many = (evaluation_seconds(net, 18, config.changed(evaluation={"steps": steps}).evaluation, 3) for steps in (100, 10_000))
    assert many > 10 * few
    with pytest.raises(ConfigError, match="no arm"):
        arm_seconds("best", config, splits)


def test_a_cost_is_that_of_a_processor(monkeypatch, capsys):
    assert cost.is_known_here() == (not torch.cuda.is_available())
    monkeypatch.setattr(cost, "best_device", lambda: "cuda")
    assert not cost.is_known_here() and "no estimate" in capsys.readouterr().out
