"""Runs on a clock: read from files, compared at equal seconds."""

import json

import pytest

from hoptm.config import configure
from hoptm.errors import FileError
from hoptm.intervals import interval, paired_interval
from hoptm.timed_runs import TimedRun, at_equal_time, difference_in_time, gain_in_time, of_earlier_settings, read_timed_runs


def stored(folder, seed, gains, method="endpoint", began=20.0, **more):
    points = [{"iteration": 5 * at, "cpu_seconds": began + 10 * at, "gain": {"auc": gain}, "recipe": ""} for at, gain in enumerate(gains)]
    whole = {"dataset": "phantom", "method": method, "ipc": 1, "seed": seed, "expert_cpu_seconds": began - 1, "points": points, "commit": "x"}
    whole |= {"judging_cpu_seconds": 0.0} | more
    (folder / f"{method}-{seed}.json").write_text(json.dumps(whole))


def test_gains_are_those_of_the_last_look_within_the_time(tmp_path):
    stored(tmp_path, 0, [0.1, 0.2, 0.3])
    stored(tmp_path, 1, [0.0, 0.4, 0.2])
    runs = read_timed_runs(tmp_path)
    assert [(run.seed, run.expert_seconds, run.seconds) for run in runs] == [(0, 19.0, (20.0, 30.0, 40.0)), (1, 19.0, (20.0, 30.0, 40.0))]
    assert [runs[0].gain_at(at, "auc") for at in (19.9, 20.0, 39.9, 1000.0)] == [None, 0.1, 0.2, 0.3]
    assert gain_in_time(runs, 35.0, "auc") == interval([0.2, 0.4])
    assert gain_in_time(runs, 10.0, "auc") is None and gain_in_time(runs[:1], 35.0, "auc") is None


def test_a_run_that_has_not_looked_yet_is_not_left_out_of_a_mean(tmp_path):
    stored(tmp_path, 0, [0.1])
    stored(tmp_path, 1, [0.1], began=50.0)
    stored(tmp_path, 2, [0.1])
    assert gain_in_time(read_timed_runs(tmp_path), 30.0, "auc") is None


def test_a_gain_waits_for_one_judgement(tmp_path):
    """A run's own, or where it timed none, that of its data set and budget in the file beside the folder."""
    folder = tmp_path / "runs"
    folder.mkdir()
    stored(folder, 0, [0.1, 0.2], judging_cpu_seconds=7.0)
    stored(folder, 1, [0.3, 0.4], judging_cpu_seconds=None)
    path = folder / "endpoint-1.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "judging_cpu_seconds"}))
    with pytest.raises(FileError, match=r"endpoint-1\.json says no judging_cpu_seconds.*--dataset phantom --ipc 1 --judgement"):
        read_timed_runs(folder)
    (tmp_path / "judgements.json").write_text(json.dumps({"cpu_seconds": {"phantom-ipc1": 3.0}}))
    own, other = read_timed_runs(folder)
    assert (own.judging, other.judging) == (7.0, 3.0)
    assert [own.gain_at(at, "auc") for at in (26.9, 27.0, 37.0)] == [None, 0.1, 0.2]
    assert [other.gain_at(at, "auc") for at in (22.9, 23.0, 33.0)] == [None, 0.3, 0.4]


def test_arms_are_paired_by_seed_at_equal_time(tmp_path):
    for seed in range(3):
        stored(tmp_path, seed, [0.1 * seed, 0.5])
        stored(tmp_path, seed, [0.2, 0.3], method="extended", began=25.0)
    runs = read_timed_runs(tmp_path)
    ours, theirs = ([run for run in runs if run.method == name] for name in ("extended", "endpoint"))
    assert difference_in_time(ours, theirs[1:], 26.0, "auc") == paired_interval([0.2, 0.2], [0.1, 0.2])
    assert difference_in_time(ours, theirs, 22.0, "auc") is None


def test_equal_time_begins_with_the_experts_and_ends_with_the_quicker_arm_on_machines_of_one_speed(tmp_path):
    for seed in range(4):
        stored(tmp_path, seed, [0.1 * seed, 0.5, 0.9], began=20.0 + seed)
        stored(tmp_path, seed, [0.2, 0.3 + 0.1 * seed], method="extended", began=24.0 if seed else 60.0)
    runs = read_timed_runs(tmp_path)
    ours, theirs = ([run for run in runs if run.method == name] for name in ("extended", "endpoint"))
    end, found = at_equal_time(ours, theirs, "auc")
    assert end == 11.0, "the extended runs end there, counted from their experts; seed 0 ran on a slower machine and does not count"
    assert found == paired_interval([0.3 + 0.1 * seed for seed in (1, 2, 3)], [0.5, 0.5, 0.5])
    assert at_equal_time(ours[:2], theirs, "auc") is None and at_equal_time([], theirs, "auc") is None
    late = [TimedRun("phantom", "extended", 1, seed, 19.0, (50.0,), ({"auc": 0.1},)) for seed in (1, 2)]
    assert at_equal_time(late, theirs, "auc") is None, "the other arm had ended before"


def test_runs_of_earlier_settings_are_told_from_todays(tmp_path):
    config = configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast")
    for number, changes in enumerate(({"iterations": 7}, {"steps": 9})):
        stored(tmp_path, number, [0.1])
        path = tmp_path / f"endpoint-{number}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config.changed(match=changes).as_dict()}))
    assert [of_earlier_settings(run.config) for run in read_timed_runs(tmp_path)] == [False, True]


def test_a_file_of_another_kind_is_named(tmp_path):
    assert read_timed_runs(tmp_path / "nothing") == []
    (tmp_path / "a.json").write_text('{"points": 3}')
    with pytest.raises(FileError, match=r"a\.json: not a run of benchmarks"):
        read_timed_runs(tmp_path)
