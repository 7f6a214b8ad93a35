"""Figures of judgement: what they draw is what they were given."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hoptm import score_plots
from hoptm.config import configure
from hoptm.errors import DataError
from hoptm.imbalance import NAMES
from hoptm.records import Record, read_records
from hoptm.results import shift_by_seed, stored


def _record(method, seed, value, extra, ipc=10, dataset="phantom"):
    config = configure(dataset, method="endpoint", ipc=ipc, seed=seed).as_dict()
    scores = {"scores": [{"accuracy": value, "balanced_accuracy": value, "auc": value, "ece": 1 - value, "recall": [value, value / 2]}], "tried": []}
    return Record({"name": dataset, "checksum": "md5:0"}, method, ipc, seed, config, scores, 1.0, 1, "abc", {}, "cpu", extra)


CELLS = [
    _record(f"{source}-on-{name}", seed, 0.5 + 0.1 * seed + 0.05 * place, {"source": source, "network": name})
    for place, (source, name) in enumerate([("random", "convnet"), ("depth2", "convnet"), ("depth2", "vit")])
    for seed in range(2)
]
RARE = [_record(f"{name}-factor{factor}", seed, 0.2 + 0.1 * seed, {"arm": name, "factor": float(factor), "train_counts": [9, 3]})
        for name in ("random", "aware") for factor in (1, 100) for seed in range(2 if name == "random" else 1)]  # fmt: skip


def _words(drawn):
    return [text.get_text() for axes in drawn.axes for text in axes.texts]


def test_every_arm_under_imbalance_has_a_colour():
    assert set(score_plots.UNDER_IMBALANCE) == set(NAMES) and len(set(score_plots.UNDER_IMBALANCE.values())) == len(NAMES)


def test_the_matrix_is_the_mean_over_seeds_and_empty_where_nothing_ran():
    rows, columns, matrix, seeds = score_plots.transferred(CELLS, "auc", dataset="phantom")
    assert rows == ["random", "depth2"] and columns == ["convnet", "vit"] and seeds == 2
    assert np.allclose(matrix[[0, 1, 1], [0, 0, 1]], [0.55, 0.6, 0.65]) and np.isnan(matrix[0, 1])
    assert sorted(_words(score_plots.transfer(CELLS))) == ["0.550", "0.600", "0.650", "–"]
    other = [dataclasses.replace(record, dataset={**record.dataset, "name": "pbc-28"}) for record in CELLS[:1]]
    titles = [axes.get_title(loc="left") for axes in score_plots.transfer([*CELLS, *other], score="ece").axes]
    assert titles == ["phantom: test calibration error, n ≥ 2", "pbc-28: test calibration error, n ≥ 1"]
    before = [dataclasses.replace(one, scores={**one.scores, "validation": [{"auc": 0.9}]}) for one in CELLS]
    moved = score_plots.transfer(before, value=shift_by_seed, words="test minus validation, {}")
    assert sorted(_words(moved)) == ["-0.250", "-0.300", "-0.350", "–"] and moved.axes[0].get_title(loc="left").startswith(
        "phantom: test minus validation, AUC"
    )
    with pytest.raises(DataError, match="make_transfer"):
        score_plots.transfer([])
    with pytest.raises(DataError, match="make_transfer"):
        score_plots.transferred(CELLS, "auc", dataset="pbc-28")


def test_the_rarest_class_is_the_one_with_the_fewest_training_images():
    assert score_plots.rare_recall(RARE, "random", 100.0, dataset="phantom") == pytest.approx({0: 0.1, 1: 0.15})
    assert score_plots.rare_recall(RARE, "prior", 100.0, dataset="phantom") == {}
    other = [dataclasses.replace(record, extra={**record.extra, "train_counts": [3, 9]}) for record in RARE]
    assert score_plots.rare_recall(other, "random", 100.0, dataset="phantom") == pytest.approx({0: 0.2, 1: 0.3})
    drawn = score_plots.rarest(RARE, NAMES, dataset="phantom")
    words = _words(drawn)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["imbalance factor 1", "imbalance factor 100"]
    assert words.count("random real images") == 2 and words.count("end point, prior-weighted loss: not run") == 2
    with pytest.raises(DataError, match="make_imbalance"):
        score_plots.rarest([], NAMES, dataset="phantom")


def test_dots_are_the_scores():
    drawn = score_plots.by_recipe({"one": {"random": [0.5, 0.7], "endpoint": [0.8]}, "two": {"random": [0.6], "endpoint": [0.6]}})
    (axes,) = drawn.axes
    assert _words(drawn) == ["one", "two"]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert marks == pytest.approx([0.6, 0.8, 0.6, 0.6])
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"fresh random real images", "end point"}


def test_both_ways_to_keep_are_drawn():
    (axes,) = score_plots.looking([0.5, 0.6, 0.7], [0.5, 0.5, 0.5]).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.6, 0.7], [0.5, 0.5, 0.5]]
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]


def test_tails_and_recalls_go_from_the_most_frequent_class_to_the_rarest():
    (axes,) = score_plots.tails({"factor 1": [5, 5, 5], "factor 10": [2, 9, 5]}, ["a", "b", "c"]).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["b", "c", "a"] and list(axes.lines[1].get_ydata()) == [9, 5, 2]
    (axes,) = score_plots.class_recalls({"one": [[0.1, 0.9], [0.3, 0.7]]}, ["a", "b"], [3, 30]).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b (30)", "a (3)"]
    assert list(axes.lines[-1].get_xdata()) == pytest.approx([0.8, 0.2])


def test_the_stored_records_can_be_drawn():
    records = read_records(stored("records"))
    drawn = score_plots.shifts(records, dataset="pneumoniamnist", ipc=10, methods=("random", "endpoint"))
    assert "end point, n=10" in _words(drawn)
    plt.close("all")
