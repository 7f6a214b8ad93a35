"""The price of the two grids: experts count once for all that share them, and the stored price covers every run."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from hoptm.config import configure
from hoptm.cost import Shape, estimate, judgement_seconds
from hoptm.errors import ConfigError
from hoptm.records import Record
from hoptm.results import stored
from hoptm.tables import GRIDS, runs_of_grid

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "price_of_grids.py"))
over_price, estimated = SCRIPT["over_price"], SCRIPT["estimated"]
SHAPE = Shape(1, 2, 28, 200)


def price(records, shapes):
    return sum(sum(hours.values()) for hours in SCRIPT["parts"](records, shapes).values())


def record(method, seed=0, **changes):
    settings = {"network": {"width": 8}, "match": {"iterations": 3, "steps": 2, "validate_every": 3}, "evaluation": {"steps": 5, "networks": 1}}
    config = configure("phantom", method="endpoint" if method == "random" else method, ipc=1, seed=seed, profile="fast", **{**settings, **changes})
    return Record({"name": "phantom", "checksum": "md5:0"}, method, 1, seed, config.as_dict(), {"scores": []}, 1.0, 1, "abc", {}, "cpu"), config


def test_experts_count_once_for_runs_that_share_them():
    (first, config), (second, _), (other, _) = record("endpoint"), record("published"), record("endpoint", seed=1)
    cost, judging = estimate(config, SHAPE), judgement_seconds(config, SHAPE)
    apart = cost.distil_seconds + cost.look_seconds + judging
    assert price([first], {"phantom": SHAPE}) * 3600 == pytest.approx(apart + cost.expert_seconds)
    assert price([first, second], {"phantom": SHAPE}) * 3600 == pytest.approx(2 * apart + cost.expert_seconds)
    assert price([first, other], {"phantom": SHAPE}) * 3600 == pytest.approx(2 * (apart + cost.expert_seconds))
    assert price([record("random")[0]], {"phantom": SHAPE}) * 3600 == pytest.approx(judging), "random images have neither experts nor matching"


def test_what_runs_took_over_their_price_leaves_out_arms_codes_and_runs_without_a_note():
    (one, config), (codes, _), (arm, _) = record("endpoint"), record("latent"), record("random")
    cost = estimate(config, SHAPE)
    own = cost.distil_seconds + cost.look_seconds + judgement_seconds(config, SHAPE)

    def noted(run, seconds, of_experts=0.0):
        return dataclasses.replace(run, extra={"processor_seconds": seconds, "expert_seconds": of_experts})

    runs = [noted(one, 3 * own), noted(one, 2 * own), noted(one, 9 * own, of_experts=8 * own + 60), noted(codes, own), noted(arm, own)]
    runs += [one, dataclasses.replace(one, extra={"expert_seconds": 0.0, "resumed": True})]
    (found,) = over_price(runs, {"phantom": SHAPE}).values()
    assert found == pytest.approx([2.0, 3.0]) and over_price(runs, {}) == {}


def test_an_estimate_takes_each_sets_own_ratios_and_experts_at_their_price():
    hours = {"a": {"own": 2.0, "experts": 0.5}, "b": {"own": 1.0, "experts": 0.0}}
    alone = estimated(hours, {"a": [1.0, 2.0, 3.0]})
    half = 4.302652729749464 / 3**0.5  # Student's t with two degrees of freedom, over the root of three ratios that are one apart
    assert alone == pytest.approx({"mean": 6.5, "low": 6.5 - 3 * half, "high": 6.5 + 3 * half}), "a set without a run takes the ratios of all"
    both = estimated(hours, {"a": [1.0, 2.0, 3.0], "b": [1.5, 1.5]})
    assert both == pytest.approx({"mean": 6.0, "low": 6.0 - 2 * half, "high": 6.0 + 2 * half})
    with pytest.raises(ConfigError, match="two values or more"):
        estimated(hours, {"a": [1.0]})


def test_other_arms_have_no_price():
    with pytest.raises(ConfigError, match="no such arm"):
        price([dataclasses.replace(record("random")[0], method="dc")], {"phantom": SHAPE})


def test_the_stored_price_is_of_both_grids_and_of_a_clean_tree():
    found = json.loads((stored("bench") / "price_of_grids.json").read_text(encoding="utf-8"))
    assert all(hours > 0 for hours in found["hours"].values()) and not found["commit"].endswith("+")
    assert found["runs"] == {name: len(runs_of_grid(name)) for name in GRIDS} and set(found["hours"]) == set(GRIDS)
    guess = found["estimated"]
    assert set(found["over_price"]) >= {"pneumoniamnist", "pbc-28"} and guess["low"] < guess["mean"] < guess["high"]
    assert sum(found["hours"].values()) < guess["low"], "the price is a lower bound"
