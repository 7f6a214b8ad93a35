"""The evaluation table: its plan is the agreed one, its numbers are those of the records, and what is missing is said."""

import dataclasses

import pytest
from scipy import stats

from hoptm.arms import ARMS
from hoptm.config import METHODS, configure
from hoptm.errors import ConfigError
from hoptm.intervals import RING_WORDS
from hoptm.records import Record, read_records
from hoptm.results import NAMES, stored
from hoptm.tables import BEYOND_WORDS, GRIDS, MAIN, RELATIVES, Cell, cells, commands, evaluation_table, hours, hours_of_grids, hours_of_table, plan


def _record(method, seed, value, ipc=10, dataset="pneumoniamnist", profile="tuned"):
    scores = [{"accuracy": value, "balanced_accuracy": value, "auc": value, "recall": [value, value]}]
    config = configure(dataset, method="endpoint", ipc=1, seed=seed, profile=profile).as_dict()
    return Record({"name": dataset, "checksum": "md5:0"}, method, ipc, seed, config, {"scores": scores}, 1.0, 1, "abc", {}, "cpu")


FEW = [_record("endpoint", seed, value) for seed, value in enumerate((0.9, 0.92, 0.94))] + [
    _record("random", 0, 0.8),
    _record("random", 1, 0.1, profile="fast"),
]


def test_the_plan_is_whole():
    counts = {}
    for dataset, _, ipc, seeds in plan():
        counts[dataset, ipc] = counts.get((dataset, ipc), 0) + len(seeds)
    main = {(dataset, ipc): 10 * 3 for dataset in ("pneumoniamnist", "pbc-28") for ipc in (1, 50)}
    assert counts == {**main, **{(dataset, 10): 10 * 5 + 7 * 3 for dataset in ("pneumoniamnist", "pbc-28")}, ("phantom", 10): 15, ("cxr-open", 10): 15}
    assert len(set((dataset, method, ipc) for dataset, method, ipc, _ in plan())) == len(plan())


@pytest.mark.parametrize("method", (*MAIN, *RELATIVES))
def test_every_row_can_be_run_and_has_a_name(method):
    assert method in NAMES and (method in ARMS) != (method in METHODS)
    for dataset in ("pneumoniamnist", "pbc-28"):
        for ipc in (1, 10, 50):
            config = configure(dataset, method="endpoint" if method in ARMS else method, ipc=ipc, seed=0, profile="tuned")
            assert config.profile == "tuned" and config.ipc == ipc


def test_cells_hold_the_records():
    found = {(cell.dataset, cell.method, cell.ipc): cell for cell in cells(FEW, "auc")}
    cell = found["pneumoniamnist", "endpoint", 10]
    low, high = stats.t.interval(0.95, 2, loc=0.92, scale=stats.sem([0.9, 0.92, 0.94]))
    assert cell.missing == (3, 4) and str(cell) == f"0.920 [{low:.3f}, {high:.3f}] n=3 of 5°"
    assert str(found["pneumoniamnist", "random", 10]) == "0.800 n=1 of 5" and found["pneumoniamnist", "random", 10].interval is None
    assert str(found["pbc-28", "endpoint", 10]) == "not run"
    assert str(Cell("x", "y", 1, (0, 1), {0: 0.5, 1: 0.5})) == "0.500 [0.500, 0.500] n=2°"
    beyond = Cell("x", "y", 1, (0, 1, 2), dict.fromkeys(range(5), 0.5))
    assert str(beyond) == "0.500 [0.500, 0.500] n=5+" and beyond.missing == ()


def test_seeds_beyond_the_plan_are_marked():
    more = [_record("endpoint", seed, 0.9 + seed / 100, ipc=1) for seed in range(4)]
    assert BEYOND_WORDS in evaluation_table(more, dataset="pneumoniamnist") and "n=4+" in evaluation_table(more, dataset="pneumoniamnist")
    assert BEYOND_WORDS not in evaluation_table(more[:3], dataset="pneumoniamnist")


def test_what_diverged_is_said_and_not_asked_for_again():
    ended = {"pneumoniamnist-tuned-endpoint-ipc10-seed4": "why", "pbc-28-tuned-ftd-ipc10-seed0": "why", "pneumoniamnist-fast-endpoint-ipc10-seed3": "why"}
    found = {(cell.dataset, cell.method, cell.ipc): cell for cell in cells(FEW, "auc", diverged=ended)}
    cell = found["pneumoniamnist", "endpoint", 10]
    assert cell.missing == (3,) and str(cell).endswith("n=3 of 5°†") and str(found["pbc-28", "ftd", 10]) == "1 diverged"
    asked = [line for line in commands(FEW, ARMS, diverged=ended) if "pneumoniamnist" in line and " endpoint" in line and "--ipcs 10 " in line]
    assert [line.partition("--seeds ")[2].partition(" --")[0] for line in asked] == ["3"]
    assert evaluation_table(FEW, dataset="pneumoniamnist", diverged=ended).splitlines()[-2] == "† 1 run diverged and left no set"


def test_the_table_says_what_is_missing():
    text = evaluation_table(FEW, dataset="pneumoniamnist")
    lines = {line[:36].strip(): line[36:] for line in text.splitlines()}
    assert lines["end point"].split()[:2] == ["not", "run"] and "n=3 of 5" in lines["end point"]
    assert lines["IDM (improved distribution matching)"].split() == ["not", "run"] * 3
    assert lines["adaptive end"].split() == ["-", "not", "run", "-"]
    assert "TESLA (a control" in text and "MTT: end point" in text.replace("\n", " ") and RING_WORDS in text
    assert "growing window, learned labels *" in lines and "* soft labels" in text
    assert text.endswith("4 of 131 planned runs are on record")
    with pytest.raises(ConfigError, match="phantom"):
        evaluation_table(FEW, dataset="dermamnist")


def test_commands_ask_for_what_is_missing_and_no_more():
    lines = commands(FEW, ARMS)
    asked = 0
    for line in lines:
        words = line.split()
        places = {word: number for number, word in enumerate(words) if word.startswith("--")}
        order = [*sorted(places.values()), len(words)]
        values = {name: words[at + 1 : order[order.index(at) + 1]] for name, at in places.items()}
        asked += len(values["--seeds"]) * (len(values["--methods"]) + len(values["--arms"]))
        assert set(values["--methods"]) <= set(METHODS) and set(values["--arms"]) <= set(ARMS)
    assert asked == sum(len(seeds) for *_, seeds in plan()) - 4
    assert any("--seeds 3 4 --methods endpoint --arms" in line for line in lines)


def test_the_stored_records_fill_the_table():
    text = evaluation_table(read_records(stored("records")), dataset="pneumoniamnist")
    assert "n=" in text and "not run" in text


def test_hours_of_the_table_leave_the_grids_out_and_take_processor_seconds_where_there_are_some():
    runs = [dataclasses.replace(_record(method, seed, 0.9), seconds=7200.0) for method in ("endpoint", "dm") for seed in range(5)]
    assert hours_of_table(runs).startswith("table without the grids: 10.00 h of 16, 5 of ") and hours_of_table(runs).endswith("within the budget so far")
    noted = [dataclasses.replace(run, extra=run.extra | {"processor_seconds": 3600.0}) for run in runs[:6]]
    assert hours_of_table(noted + runs[6:]).startswith("table without the grids: 9.00 h")
    slow = [dataclasses.replace(run, seconds=20_000.0) for run in runs]
    assert hours_of_table(slow).endswith("over the budget so far")


def test_hours_of_the_grids_count_their_own_runs_once_and_searches():
    runs = [dataclasses.replace(_record(method, seed, 0.9), seconds=3600.0) for method in ("endpoint", "velocity", "dm") for seed in range(6)]
    lines = hours_of_grids(runs, 2.5).splitlines()
    assert lines[0].split() == ["searches", "2.50", "h"]
    assert "10.00 h, 10 of 110 runs" in lines[1] and "0.00 h, 0 of 96 runs" in lines[2], "five seeds of two arms; DM is in neither grid"
    assert "12.50 h of 16: within" in lines[3] and "16.50 h of 16: over" in hours_of_grids(runs, 6.5)
    beside = hours_of_grids(runs, 7.0, priced={"main grid": 4.0, "second grid": 5.5}).splitlines()
    assert beside[1].endswith("; 4.00 h of a core or more") and "17.00 h of 16: over" in beside[3]
    assert "9.50 h or more without searches, 17.00 h or less with them" in beside[4] and beside[4].endswith("leave open")
    assert hours_of_grids(runs, 6.0, priced={"main grid": 4.0, "second grid": 5.5}).endswith(": within")
    assert hours_of_grids(runs, 7.0, priced={"main grid": 14.0, "second grid": 5.5}).endswith(": over"), "a lower bound above the budget decides"
    assert len(hours_of_grids(runs, 6.0, priced={"main grid": 4.0}).splitlines()) == 4, "with one grid unpriced there is no sum"
    guess = {"mean": 11.4, "low": 10.45, "high": 12.35}
    for searched, word in ((2.0, "within"), (4.5, "on either side of"), (6.0, "over")):
        last = hours_of_grids(runs, searched, priced={"main grid": 4.0, "second grid": 5.5}, estimated=guess).splitlines()[-1]
        ends = f"[{10.45 + searched:.2f}, {12.35 + searched:.2f}]"
        assert last == f"estimated    {11.4 + searched:6.2f} h {ends} with searches by the clock: {word} the budget"
    both = hours_of_grids(runs, 4.5, priced={"main grid": 4.0, "second grid": 5.5}, estimated=guess, replaced=1.5).splitlines()
    assert both[-2] == hours_of_grids(runs, 4.5, priced={"main grid": 4.0, "second grid": 5.5}, estimated=guess).splitlines()[-1]
    assert both[-1] == "estimated     14.40 h [13.45, 15.35] without searches that were made again: within the budget"
    assert {method for _, methods, *_ in GRIDS["main grid"] for method in methods} <= set(NAMES)


def test_hours_are_summed_by_place_and_device():
    gpu = dataclasses.replace(_record("endpoint", 3, 0.9), device="cuda, NVIDIA", seconds=1800.0)
    lines = hours([*[dataclasses.replace(one, seconds=3600.0) for one in FEW], gpu]).splitlines()
    assert [line.split() for line in lines] == [
        ["pneumoniamnist", "IPC", "10", "cpu", "4.00", "h"], ["pneumoniamnist", "IPC", "10", "cuda", "0.50", "h"], ["in", "all", "4.50", "h"],
    ]  # fmt: skip
