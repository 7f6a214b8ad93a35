"""Many parts side by side: the numbers in the figures are those of the records."""

import dataclasses

import pytest
import torch

from hoptm import results, together_plots
from hoptm.intervals import paired_interval
from hoptm.records import read_records
from hoptm.timed_runs import TimedRun


@pytest.fixture(scope="module")
def records():
    return [record for record in read_records(results.stored("records")) if record.dataset["name"] == "pneumoniamnist"]


def test_a_dot_a_seed_and_the_paired_interval(records):
    drawn = together_plots.paired_gains(records, ["pneumoniamnist"], ipc=10, methods=["endpoint", "velocity"], against="random", profile="fast", score="auc")
    (axes,) = drawn.axes
    one, other = (results.by_seed(results.select(records, dataset="pneumoniamnist", method=name, ipc=10), "auc") for name in ("endpoint", "random"))
    seeds = sorted(one)
    dots, whisker, mean = axes.lines[:3]
    assert dots.get_xdata().tolist() == pytest.approx([one[seed] - other[seed] for seed in seeds])
    found = paired_interval([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    assert list(whisker.get_xdata()) == [found.low, found.high] and list(mean.get_xdata()) == [found.mean]
    assert (mean.get_markerfacecolor() == "white") == (found.low <= 0 <= found.high)
    assert [text.get_text() for text in axes.texts] == ["n = 10", "not on record"], "no velocity in the profile fast"


def test_only_pairs_of_one_seed_count(records):
    fewer = [record for record in records if not (record.method == "random" and record.seed > 3)]
    fewer += [dataclasses.replace(records[0], method="random", seed=99, ipc=10)]
    (axes,) = together_plots.paired_gains(fewer, ["pneumoniamnist"], ipc=10, methods=["endpoint"], against="random", profile="fast", score="auc").axes
    assert axes.texts[0].get_text() == "n = 4"


def test_two_seeds_have_dots_and_no_interval(records):
    two = [record for record in records if record.method != "random" or record.seed < 2]
    (axes,) = together_plots.paired_gains(two, ["pneumoniamnist"], ipc=10, methods=["endpoint"], against="random", profile="fast", score="auc").axes
    assert axes.texts[0].get_text() == "n = 2, too few" and [len(line.get_xdata()) for line in axes.lines] == [2, 2]  # the dots, and the line at 0


def test_looks_are_those_of_the_records(records):
    budgets, methods = [("pneumoniamnist", 10), ("pneumoniamnist", 7)], ["endpoint", "published"]
    drawn = together_plots.looks(records, budgets, methods=methods, profile="fast", score="auc")
    axes, empty = drawn.axes
    found = [record.extra["selection"] for record in results.select(records, dataset="pneumoniamnist", method="endpoint", ipc=10)]
    assert len(found) == 10 and len(axes.lines) == 22
    for line, seen in zip(axes.lines, found, strict=False):
        assert list(line.get_xdata()) == [one["iteration"] for one in seen] and list(line.get_ydata()) == [one["auc"] for one in seen]
    mean = axes.lines[10].get_ydata()
    assert mean == pytest.approx([sum(seen[at]["auc"] for seen in found) / 10 for at in range(len(mean))])
    words = [text.get_text() for panel in (axes, empty) for text in panel.get_legend().get_texts()]
    assert words == ["end point, n = 10", "published, n = 10", "end point, n = 0", "published, n = 0"]


def test_a_line_a_seed_on_the_clock():
    def run(seed, *gains):
        return TimedRun("phantom", "endpoint", 1, seed, 10.0 + seed, tuple(20.0 + 10 * at for at in range(len(gains))), tuple({"auc": gain} for gain in gains))

    drawn = together_plots.in_time([run(0, 0.1, 0.2, 0.3), run(1, 0.3, 0.4)], [("phantom", 1), ("phantom", 10)], score="auc")
    axes, empty = drawn.axes
    assert [list(line.get_xdata()) for line in axes.lines[:3]] == [[20, 30, 40], [20, 30], [20, 30]]
    assert axes.lines[2].get_ydata() == pytest.approx([0.2, 0.3]) and axes.lines[3].get_xdata()[0] == pytest.approx(10.5)
    assert axes.get_legend().get_texts()[0].get_text() == "end point, n = 2" and "not on record" in empty.get_title(loc="left")


def test_cells_say_their_cosines():
    (axes,) = together_plots.cosines(torch.tensor([[1.0, -0.04], [-0.04, 1.0]]), ["one", "two"]).axes
    assert [text.get_text() for text in axes.texts] == ["1.0", "0.0", "0.0", "1.0"], "no minus before a nought"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "two"]


def test_shares_run_from_one_direction_to_all():
    drawn = together_plots.shares({"here": {"a": torch.tensor([0.1, 0.4, 0.5]), "b": torch.tensor([0.2])}})
    (axes,) = drawn.axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3] and axes.lines[1].get_ydata() == pytest.approx([0.5])
    assert axes.get_xscale() == "log" and axes.get_ylim() == (0, 1)
