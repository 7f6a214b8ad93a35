"""Comparisons measured on records of known outcome."""

import dataclasses
import json
import math
from typing import Any

import pytest
from known_findings import arm, record

from hoptm import claims
from hoptm import comparisons as module
from hoptm.comparisons import Engine, Gain, Gap, GapBelow, Leaks, Nothing, OnGpu, Reach, Replayed, Within, gather
from hoptm.config import configure
from hoptm.errors import FileError
from hoptm.timed_runs import TimedRun
from hoptm.verdicts import NO_DIFFERENCE, NOT_REPRODUCED, REPRODUCED, UNTESTED, Evidence

SMALL = (("pneumoniamnist", 4), ("pbc-28", 3))


def test_a_gain_is_paired_and_needs_seeds_of_both() -> None:
    made = Evidence(arm("extended", [0.8, 0.7, 0.9, 0.6]) + arm("random", [0.7, 0.61, 0.79]))
    found = Gain("extended", "random", "pneumoniamnist", 4).measure(made)
    assert found.values == pytest.approx((0.1, 0.09, 0.11)) and found.verdict == REPRODUCED and found.name == "accuracy"
    assert Gain("random", "extended", "pneumoniamnist", 4).measure(made).verdict == NOT_REPRODUCED
    assert Gain("extended", "random", "pneumoniamnist", 4, score="auc").measure(made).name == "AUC"
    assert Gain("extended", "random", "pneumoniamnist", 4, needs=4).measure(made).verdict == UNTESTED
    absent = Gain("extended", "endpoint", "pneumoniamnist", 4).measure(made)
    assert absent.verdict == UNTESTED and absent.missing == "no records of end point"
    assert Gain("extended", "random", "pneumoniamnist", 4, profile="fast").measure(made).missing == "no records of extended, fresh random real images"
    apart = Evidence([record("extended", 0, 0.8), record("random", 1, 0.7)])
    assert Gain("extended", "random", "pneumoniamnist", 4).measure(apart).missing == "no seed shared"


def headline(distilled: tuple[list[float], list[float]], random: tuple[list[float], list[float]] = ([0.7, 0.71, 0.7], [0.6, 0.61, 0.6])) -> Evidence:
    records = arm("full", [0.90, 0.91, 0.92], ipc=0, profile="fast") + arm("full", [0.80, 0.81, 0.82], ipc=0, dataset="pbc-28")
    for method, (first, second) in (("extended", distilled), ("random", random)):
        records += arm(method, first) + arm(method, second, dataset="pbc-28", ipc=3)
    return Evidence(records)


def test_the_headline_counts_a_negative_gap_as_nothing() -> None:
    """The first set lies 2 points above all images, the second 1 point below: the mean gap is 0.5 points and not -0.5."""
    made = headline(([0.92, 0.93, 0.94], [0.79, 0.80, 0.81]))
    found = Gap("extended", SMALL, 0.8).measure(made)
    assert found.values == pytest.approx((0.5, 0.5, 0.5)) and found.verdict == REPRODUCED
    assert Gap("extended", SMALL, 0.4).measure(made).verdict == NOT_REPRODUCED
    less = GapBelow("extended", "random", SMALL).measure(made)
    assert less.values == pytest.approx((0.5 - 20, 0.5 - 20, 0.5 - 22)) and less.verdict == REPRODUCED
    assert GapBelow("random", "extended", SMALL).measure(made).verdict == NOT_REPRODUCED


def test_the_headline_says_which_of_its_runs_lack_a_like_partner() -> None:
    made = headline(([0.92, 0.93, 0.94], [0.79, 0.80, 0.81]))
    gpu = [dataclasses.replace(one, device="cuda, a card") if (one.method, one.seed) == ("random", 1) else one for one in made.records]
    made = dataclasses.replace(made, records=gpu, diverged=["pbc-28-tuned-extended-ipc3-seed7"])
    assert Gap("extended", SMALL, 0.8).measure(made).aside == "PBC-28 seed 7 of extended diverged"
    assert (
        GapBelow("extended", "random", SMALL)
        .measure(made)
        .aside.startswith("PneumoniaMNIST seed 1 on two devices; PBC-28 seed 1 on two devices; PBC-28 seed 7")
    )


def test_the_headline_wavers_when_its_interval_holds_the_bound() -> None:
    made = headline(([0.92, 0.93, 0.94], [0.80, 0.80, 0.80]))
    found = Gap("extended", SMALL, 0.8).measure(made)
    assert found.interval and found.interval.mean < found.bound < found.interval.high and found.verdict == NO_DIFFERENCE


def test_the_headline_needs_every_set_and_all_images_as_judged() -> None:
    made = headline(([0.92, 0.93, 0.94], [0.79, 0.80, 0.81]))
    lacking = Evidence([one for one in made.records if (one.dataset["name"], one.method) != ("pbc-28", "extended")])
    assert Gap("extended", SMALL, 0.8).measure(lacking).verdict == UNTESTED
    assert Gap("extended", SMALL, 0.8).measure(lacking).missing == "no seed with both extended and all real images: PBC-28"
    assert GapBelow("extended", "random", SMALL).measure(lacking).missing == "no seed with both extended and all real images: PBC-28"
    other = {"network": {"width": 1}}
    strange = [one for one in made.records if one.method != "full"] + arm("full", [0.9, 0.9, 0.9], ipc=0, **other)
    assert "PneumoniaMNIST" in Gap("extended", SMALL, 0.8).measure(Evidence(strange)).missing, "all images on another network are no reference"


def test_a_printed_mean_is_reached_above_it_less_a_deviation() -> None:
    made = Evidence(arm("published", [0.770, 0.772, 0.771], dataset="pathmnist", ipc=10, profile="paper"))
    assert Reach("published", "pathmnist", 10, 77.23, 0.65).measure(made).verdict == REPRODUCED
    assert Reach("published", "pathmnist", 10, 78.50, 0.65).measure(made).verdict == NOT_REPRODUCED
    assert Reach("published", "pathmnist", 5, 77.23, 0.65).measure(made).verdict == UNTESTED


def test_the_benchmark_is_read_by_setting_and_arm() -> None:
    arms = {"compiled": {"pairs": [0.4, 0.41, 0.42, 0.4, 0.39], "memory_ratio": 0.2}}
    made = Evidence(engine={"settings": [{"setting": {"steps": 20, "width": 32}, "arms": arms}]})
    assert Engine(20, 32, "compiled", "pairs", 0.5).measure(made).verdict == REPRODUCED
    assert Engine(20, 32, "compiled", "pairs", 0.405).measure(made).verdict == NO_DIFFERENCE
    assert Engine(20, 32, "compiled", "memory_ratio", 0.125).measure(made).verdict == NOT_REPRODUCED
    for lacking in (Engine(20, 32, "eager", "pairs", 0.5), Engine(80, 32, "compiled", "pairs", 0.5)):
        assert lacking.measure(made).verdict == UNTESTED and lacking.measure(made).missing == "not in the stored benchmark"


def test_a_rival_of_short_runs_is_said_to_be_one() -> None:
    made = Evidence(arm("published", [0.8, 0.7, 0.9]) + arm("dm", [0.7, 0.61, 0.79]))
    assert Gain("published", "dm", "pneumoniamnist", 4).measure(made).aside == "distribution matching: short runs, nothing searched"
    own = [finding for finding in claims.paper() if "DM, IPC" in finding.where]
    assert own and all(isinstance(finding.comparisons[0], Nothing) for finding in own), "the paper's own rows are not decided by short runs"


def test_a_run_on_a_gpu_is_read_by_setting() -> None:
    made = Evidence(gpu={"settings": [{"setting": {"steps": 80, "width": 128}, "arms": {"adjoint, recorded": {"time_ratio": 0.18}}}]})
    assert OnGpu(80, 128, 0.2).measure(made).verdict == REPRODUCED and OnGpu(80, 128, 0.15).measure(made).verdict == NOT_REPRODUCED
    assert OnGpu(20, 32, 0.2).measure(made).verdict == UNTESTED and OnGpu(20, 32, 0.2).measure(Evidence()).missing


def test_a_curve_is_read_at_its_last_point_on_the_clock() -> None:
    curve = TimedRun("pbc-28", "endpoint", 10, 0, 40.0, (40.0, 90.0, 115.0), ({"auc": 0.01}, {"auc": 0.05}, {"auc": 0.5}), judging=10.0)
    late = dataclasses.replace(curve, seconds=curve.seconds[2:], gains=curve.gains[2:])
    found = Within("pbc-28", 10, "auc", 120.0, 0.02).measure(Evidence(curves=[curve, curve, late]))
    assert found.values == (0.05, 0.05, 0.0)
    assert Within("pbc-28", 10, "auc", 120.0, 0.02).measure(Evidence(curves=[curve] * 3)).verdict == REPRODUCED
    assert Within("pbc-28", 1, "auc", 120.0, 0.02).measure(Evidence(curves=[curve] * 3)).verdict == UNTESTED
    now = configure("pbc-28", method="endpoint", ipc=10, seed=0, profile="tuned")
    for config, aside in ((now, ""), (now.changed(match={"steps": 3}), "timed with earlier settings")):
        assert Within("pbc-28", 10, "auc", 120.0, 0.02).measure(Evidence(curves=[curve, dataclasses.replace(curve, config=config.as_dict())])).aside == aside
    ended = Evidence(curves=[curve], timed_diverged=["pbc-28-tuned-endpoint-ipc10-seed4", "pbc-28-tuned-endpoint-ipc1-seed3"])
    assert Within("pbc-28", 10, "auc", 120.0, 0.02).measure(ended).aside == "seed 4 diverged"


def test_replays_are_as_good_as_the_worst() -> None:
    assert Replayed(1e-9).measure(Evidence(replays={"a": 1e-14, "b": 1e-12})).verdict == REPRODUCED
    assert Replayed(1e-9).measure(Evidence(replays={"a": 1e-14, "b": math.inf})).verdict == NOT_REPRODUCED
    assert Replayed(1e-9).measure(Evidence()).verdict == UNTESTED and Nothing("why").measure(Evidence()).verdict == UNTESTED


def test_leaks_are_counted_over_attackers_and_groups() -> None:
    def report(*detected: bool) -> dict[str, Any]:
        groups = {str(number): {"detected": found} for number, found in enumerate(detected)}
        return {"dataset": {"name": "pbc-28"}, "arms": {"latent": {"attacks": {"confidence": groups, "decoder": groups}}}}

    assert Leaks("latent", "pbc-28").measure(Evidence(audits=[report(True, False, True)])).values == (4.0,)
    assert Leaks("latent", "pbc-28").measure(Evidence(audits=[report(True, False)])).verdict == NOT_REPRODUCED
    assert Leaks("latent", "pbc-28").measure(Evidence(audits=[report(False, False)])).verdict == NO_DIFFERENCE
    for missing in (Leaks("latent", "phantom"), Leaks("dp-4", "pbc-28")):
        assert missing.measure(Evidence(audits=[report(False)])).verdict == UNTESTED


def test_evidence_is_what_is_stored(monkeypatch: Any, tmp_path: Any) -> None:
    made = gather([])
    assert made.records == [] and made.engine["settings"] and len(made.replays) == 2
    assert Replayed(1e-9).measure(made).verdict == REPRODUCED
    monkeypatch.setattr(module, "stored", lambda kind: tmp_path)
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(FileError, match=r"engine\.json.*make bench"):
        gather([])
    (tmp_path / "engine.json").write_text("{}")
    with pytest.raises(FileError, match=r"gpu\.json.*benchmarks/gpu\.py"):
        gather([])
    (tmp_path / "gpu.json").write_text("{}")
    (tmp_path / "time_to_quality").mkdir()
    kept = {"dataset": "pbc-28", "method": "endpoint", "ipc": 1, "seed": 0, "expert_cpu_seconds": 1.0, "judging_cpu_seconds": 2.0, "points": []}
    (tmp_path / "time_to_quality" / "one.json").write_text(json.dumps(kept))
    assert gather([]).curves == [TimedRun("pbc-28", "endpoint", 1, 0, 1.0, (), (), judging=2.0)]


def test_a_replay_with_a_wrong_mask_or_no_number_counts_as_infinitely_far(monkeypatch: Any) -> None:
    for errors, masks in (({"a": 1e-15}, {"mask": 1}), ({"a": 1e-15, "b": math.nan}, {"mask": 0})):
        monkeypatch.setattr(module, "verify", lambda path, errors=errors, masks=masks: module.Verdict(errors, masks))
        assert set(gather([]).replays.values()) == {math.inf}
