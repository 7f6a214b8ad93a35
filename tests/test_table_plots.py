"""Figures of tables and costs show what they are given."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from hoptm import table_plots
from hoptm.plots import COLOURS
from hoptm.records import Record
from hoptm.transcribed import entries

GROWTH = Path(__file__).resolve().parent.parent / "data" / "bench" / "growth.json"


def record(*accuracies: float) -> Record:
    scores = {"scores": [{"accuracy": value} for value in accuracies]}
    return Record({"name": "phantom", "checksum": "x"}, "published", 10, 0, {"profile": "fast"}, scores, 1.0, 1, "c", {}, "cpu")


def test_a_line_a_row_and_our_dot_hollow_for_a_stand_in():
    for words, face in (("STAND-IN: x", "#ffffff"), ("", COLOURS["published"])):
        (axes,) = table_plots.beside_the_paper([record(0.6, 0.7)], "table1", words).axes
        *rows, ours = axes.containers
        assert len(rows) == len(table_plots.ROWS)
        assert rows[0].lines[0].get_ydata().tolist() == [one.mean for one in entries("table1", "HoP-TM")]
        assert ours.lines[0].get_ydata() == pytest.approx([0.65]) and ours.lines[0].get_markerfacecolor() == face
        assert any("stand-in" in text.get_text() for text in axes.texts) == bool(words)
        heights = sorted(text.get_position()[1] for text in axes.texts if text.get_text() in table_plots.ROWS)
        assert min(b - a for a, b in pairwise(heights)) > 0.029, "names of rows stand on each other"


def test_one_row_is_enough():
    (axes,) = table_plots.beside_the_paper([], "table2", "").axes
    assert len(axes.containers) == 1 and [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "10", "50"]


def test_a_dot_a_run_in_units_of_the_prediction():
    runs = [
        table_plots.Timed("a", "#111111", 10.0, 20.0, 30.0),
        table_plots.Timed("b", "#222222", 30.0, 15.0),
        table_plots.Timed("a", "#111111", 5.0, 5.0, 15.0),
    ]
    (axes,) = table_plots.predicted_and_measured(runs).axes
    one, first, tick, second = axes.lines
    assert set(one.get_xdata()) == {1}
    assert first.get_xdata().tolist() == [2.0, 1.0] and tick.get_xdata().tolist() == [3.0] and second.get_xdata().tolist() == [0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_growth_is_fitted_to_the_dots():
    assert table_plots.fit([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])[0] == pytest.approx(2)
    found = json.loads(GROWTH.read_text(encoding="utf-8"))["growth"]["axes"]
    drawn = table_plots.growth(found, "bytes", "bytes")
    assert [axes.get_title("left") for axes in drawn.axes] == list(table_plots.AXES.values())
    for axes, name in zip(drawn.axes, found, strict=True):
        said = [float(text.get_text()) for text in axes.texts]
        assert said == [round(found[name][arm]["exponents"]["bytes"], 1) for arm in table_plots.ENGINE] or said == pytest.approx(
            [found[name][arm]["exponents"]["bytes"] for arm in table_plots.ENGINE], abs=0.06
        )


def test_walls_have_a_line_a_way_and_a_floor():
    (axes,) = table_plots.walls([1, 2, 4], {"cells": [8.0, 4.0, 3.0], "experts too": [8.0, 4.0, 2.5]}, 2.0).axes
    assert [line.get_ydata()[-1] for line in axes.lines[:2]] == [3.0, 2.5] and set(axes.lines[2].get_ydata()) == {2.0}
    assert {"cells", "experts too"} <= {text.get_text() for text in axes.texts}
