"""Figures of judgement: what they draw is what they were given."""

import dataclasses
import importlib
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hoptm import score_plots, score_tables
from hoptm.config import configure
from hoptm.errors import DataError
from hoptm.imbalance import NAMES
from hoptm.intervals import RING, RING_WORDS
from hoptm.records import Record, read_records
from hoptm.results import shift_by_seed, stored

DATA = Path(__file__).resolve().parent.parent / "data"


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
    assert sorted(_words(score_plots.transfer(CELLS, datasets=()))) == ["0.550", "0.600", "0.650", "–"]
    other = [dataclasses.replace(record, dataset={**record.dataset, "name": "pbc-28"}) for record in CELLS[:1]]
    titles = [axes.get_title(loc="left") for axes in score_plots.transfer([*CELLS, *other], score="ece", datasets=()).axes]
    assert titles == ["phantom: test calibration error, n ≥ 2", "pbc-28: test calibration error, n ≥ 1"]
    before = [dataclasses.replace(one, scores={**one.scores, "validation": [{"auc": 0.9}]}) for one in CELLS]
    moved = score_plots.transfer(before, value=shift_by_seed, words="test minus validation, {}", datasets=())
    assert sorted(_words(moved)) == ["-0.250", "-0.300", "-0.350", "–"] and moved.axes[0].get_title(loc="left").startswith(
        "phantom: test minus validation, AUC"
    )


def test_a_matrix_that_was_not_run_says_so(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    module = importlib.import_module("make_transfer")
    assert tuple(score_tables.SOURCES) == module.SOURCES and list(score_tables.FAMILIES) == list(module.NETWORKS)
    for drawn in (score_plots.transfer([]), score_plots.transfer([], value=shift_by_seed, score="ece")):
        titles = [axes.get_title(loc="left") for axes in drawn.axes]
        assert [title.partition(":")[0] for title in titles] == ["pneumoniamnist", "pbc-28"] and all(title.endswith("not run") for title in titles)
        assert not _words(drawn)
    rows, columns, matrix, seeds = score_plots.transferred([], "auc", dataset="pbc-28")
    assert rows == list(score_tables.SOURCES) and columns == list(score_tables.FAMILIES) and np.isnan(matrix).all() and seeds == 0


def test_missing_cells_are_named_by_data_set_seed_set_and_network():
    lines = score_tables.transfer_missing([]).splitlines()
    assert lines == [f"{name}: not run, seeds 0, 1, 2, every set on every network" for name in ("pneumoniamnist", "pbc-28")]
    there = [_record(f"{source}-on-{name}", 0, 0.5, {"source": source, "network": name}) for source in ("random", "depth2") for name in score_tables.FAMILIES]
    asked = {"datasets": ("phantom",), "seeds": (0, 1)}
    ended = ["phantom-fast-depth3-ipc10-seed0", "phantom-fast-depth4-on-vgg-ipc10-seed0"]  # a set that did not come about, and one network that diverged
    found = score_tables.transfer_missing(there[:-1], ended, **asked).splitlines()
    assert found[0] == "phantom: not run, seed 0, made with depth 2 on ViT; made with depth 4 on ConvNet, ResNet, MLP, ViT"
    assert found[1] == "phantom: not run, seed 1, every set on every network"
    ended += [f"phantom-fast-{source}-ipc10-seed{seed}" for source in score_tables.SOURCES for seed in (0, 1)]
    assert score_tables.transfer_missing(there, ended, **asked) == "every planned cell is on record"


def test_made_sets_are_paired_with_random_images_by_seed():
    cells = [
        _record(f"{source}-on-convnet", seed, 0.5 + 0.1 * seed + more * (seed + 1), {"source": source, "network": "convnet"})
        for source, more in (("random", 0.0), ("depth2", 0.01)) for seed in range(3 if source == "random" else 2)
    ]  # fmt: skip
    title, head, *rows, auc, ece, shift, ring = score_tables.transfer_gains(cells, dataset="phantom").splitlines()
    assert title == "phantom" and " ".join(head.split()) == "network set minus random real images AUC calibration error test minus validation, AUC"
    assert "+0.015 [-0.049, +0.079] n=2°  -0.015 [-0.079, +0.049] n=2°" in rows[0]  # 0.01 and 0.02, not the means' difference
    assert rows[0].endswith("too few seeds, n=0") and all(row.count("too few seeds") == 3 for row in rows[1:]) and len(rows) == 15
    assert auc == "AUC: of 1 intervals 0 above zero, 0 below" and ece == "calibration error: of 1 intervals 0 above zero, 0 below"
    assert shift == "test minus validation, AUC: of 0 intervals 0 above zero, 0 below" and ring == RING_WORDS
    before = [dataclasses.replace(one, scores={**one.scores, "validation": [{"auc": 0.5 + 0.1 * one.seed}]}) for one in cells]
    assert score_tables.transfer_gains(before, dataset="phantom").splitlines()[2].endswith("+0.015 [-0.049, +0.079] n=2°")
    alone = [one for one in before if one.seed == 0]
    assert score_tables.transfer_gains(alone, dataset="phantom").count("+0.010, too few seeds, n=1") == 2
    assert RING not in score_tables.transfer_gains(alone, dataset="phantom")
    assert score_tables.transfer_gains(cells, dataset="pbc-28") == "pbc-28: not run"


def test_a_place_without_records_is_not_run():
    tries = {"tried": [{"recipe": 1, "scores": {"auc": 0.9}}], "recipe": 1}
    runs = [_record(name, seed, 0.5 + (name == "start") * 0.1 * seed, {}) for name in ("random", "start") for seed in range(2)]
    old = [dataclasses.replace(one, scores={**one.scores, **tries}) for one in runs]
    places = {"Phantom": ("phantom", "fast"), "PathMNIST": ("pathmnist", "paper")}
    asked = {"places": places, "ipc": 10, "methods": ("random", "start")}
    _, first, second, last, ring = score_tables.shifts_table(old, **asked).splitlines()
    assert "-0.400 [-0.400, -0.400] n=2°  -  " in first and "-0.350 [-0.985, +0.285] n=2°" in second and "+0.050 [-0.585, +0.685] n=2°" in second
    assert first.endswith("the best that was tried") and ring == RING_WORDS
    assert last == "PathMNIST: not run, profile paper, 10 images a class: fresh random real images; the real images it started from"
    mixed = [*old[:2], *(dataclasses.replace(one, scores={**one.scores, "validation": [{"auc": 0.7}]}) for one in old[2:])]
    assert "other networks on validation" in score_tables.shifts_table(mixed, **asked) and "the same networks" in score_tables.shifts_table(mixed, **asked)


def test_label_robustness_is_taken_seed_by_seed():
    values = {"full": (0.9, 0.9), "random": (0.6, 0.7, 0.8), "endpoint": (0.7, 0.7, 0.9), "learned": (0.8,)}
    runs = [_record(name, seed, value, {}) for name, found in values.items() for seed, value in enumerate(found)]
    runs = [dataclasses.replace(one, ipc=0 if one.method == "full" else 10, scores={**one.scores, "recipe": {"steps": 9}}) for one in runs]
    text = score_tables.label_robustness(runs, dataset="phantom", methods=["random", "endpoint", "learned", "herding"], profile="fast")
    title, _, random, endpoint, missing, soft, ring = text.splitlines()
    assert title == "phantom, profile fast, 10 images a class"
    assert (
        ring == RING_WORDS and "  2°  " in endpoint and "+0.200 [+0.200, +0.200]" in endpoint and "+0.050 [-0.585, +0.685]" in endpoint
    )  # HLR, IOR over the seeds of all
    assert "-0.075 [-0.393, +0.243]" in endpoint and "+0.000 [+0.000, +0.000]" in random
    assert missing == "not run: herding" and soft == "not from records, no accuracy with classes alone: end point, learned labels"


def test_the_rarest_class_is_the_one_with_the_fewest_training_images():
    assert score_tables.rare_recall(RARE, "random", 100.0, dataset="phantom") == pytest.approx({0: 0.1, 1: 0.15})
    assert score_tables.rare_recall(RARE, "prior", 100.0, dataset="phantom") == {}
    other = [dataclasses.replace(record, extra={**record.extra, "train_counts": [3, 9]}) for record in RARE]
    assert score_tables.rare_recall(other, "random", 100.0, dataset="phantom") == pytest.approx({0: 0.2, 1: 0.3})
    drawn = score_plots.rarest(RARE, NAMES, dataset="phantom")
    words = _words(drawn)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["imbalance factor 1", "imbalance factor 100"]
    assert words.count("random real images") == 2 and words.count("end point, prior-weighted loss: not run") == 1
    assert {"end point, prior-weighted loss: same as end point", "random, more of rare classes: same as random", "end point: not run"} <= set(words)
    with pytest.raises(DataError, match="make_imbalance"):
        score_plots.rarest([], NAMES, dataset="phantom")


def test_an_arm_without_a_run_of_its_own_at_factor_one_is_what_the_script_says(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    module = importlib.import_module("make_imbalance")
    assert {score_tables.same_at_one(name) for name in NAMES} == set(module.EVEN)
    assert all(score_tables.same_at_one(name) == name for name in module.EVEN)


def test_rare_classes_are_paired_by_seed_and_factor():
    more = [_record(f"{name}-factor{factor}", seed, value + 0.1 * seed, {"arm": name, "factor": float(factor), "train_counts": [9, 3]})
            for name, factor, value in (("random-budgets", 100, 0.3), ("endpoint", 100, 0.1), ("endpoint", 1, 0.4)) for seed in range(2)]  # fmt: skip
    aware = [_record("aware-factor100", seed, 0.5 + 0.2 * seed, {"arm": "aware", "factor": 100.0, "train_counts": [9, 3]}) for seed in range(2)]
    random = [one for one in RARE if one.extra["arm"] == "random"]
    asked = [("aware", "random-budgets"), ("aware", "endpoint"), ("prior", "endpoint"), ("random-budgets", "random")]
    head, *rows, rare, balanced, ring = score_tables.rare_gains([*random, *more, *aware], asked, dataset="phantom").splitlines()
    assert ring == RING_WORDS and head.split("  ")[0] == "factor" and [row.split()[0] for row in rows] == ["1", *["100"] * 4]
    assert "end point" in rows[0] and "random real images" in rows[0] and "+0.200 [+0.200, +0.200] n=2°" in rows[0]  # once, and no arm minus itself
    assert "+0.125 [-0.193, +0.443] n=2°" in rows[1] and "+0.250 [-0.385, +0.885] n=2°" in rows[1]  # recall of the rarest, balanced accuracy
    assert rows[3].count("too few seeds, n=0") == 2
    shown = [sum(word in row for row in rows) for word in ("n=2°", "too few")]
    assert shown[0] == 4 and rare == "recall of the rarest class: of 4 intervals 2 above zero, 0 below", (shown, rare)
    back = [(second, first) for first, second in asked]
    turned = score_tables.rare_gains([*random, *more, *aware], back, dataset="phantom").splitlines()[-3:]
    assert turned[0] == "recall of the rarest class: of 4 intervals 0 above zero, 2 below"
    above, below = (int(balanced.split()[at]) for at in (-5, -2))
    assert turned[1] == f"balanced accuracy: of 4 intervals {below} above zero, {above} below"
    assert score_tables.rare_gains([], asked, dataset="phantom") == "phantom: not run, run data/make_imbalance.py"


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
