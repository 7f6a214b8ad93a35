"""Figures of judgement: what a recipe does to a comparison, what looking at test is worth, other networks, and rare classes.

Records or numbers in, a matplotlib Figure out, in the look of `plots`; what a figure of means does not say is in `score_tables`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hoptm.errors import DataError
from hoptm.intervals import Interval, interval
from hoptm.plots import COLOURS, FAINT, INK, RECORD, SCORE_NAMES, WIDTH, figure, style
from hoptm.records import Record
from hoptm.results import NAMES, by_seed, select, shift
from hoptm.score_tables import FAMILIES, SOURCES, TRANSFER_SETS, rare_recall, same_at_one

UNDER_IMBALANCE = {
    "random": COLOURS["random"],
    "random-budgets": "#006d80",
    "endpoint": COLOURS["endpoint"],
    "prior": COLOURS["outcome"],
    "balanced_softmax": COLOURS["extended"],
    "budgets": COLOURS["progressive"],
    "aware": COLOURS["full"],
}
"""One colour an arm of `imbalance.NAMES`."""


@style()
def by_recipe(scores: Mapping[str, Mapping[str, Sequence[float]]], score: str = "auc") -> Figure:
    """For each recipe, in words, the scores of each arm: a dot a seed or network, a bar between the means. The arms are names of `results.NAMES`."""
    drawn = figure(WIDTH, 1.3 + 0.62 * len(scores))
    axes = drawn.subplots()
    for height, (recipe, arms) in zip(range(0, -len(scores), -1), scores.items(), strict=True):
        means = {name: float(np.mean(values)) for name, values in arms.items()}
        axes.plot(list(means.values()), [height] * len(means), "-", color=FAINT, linewidth=5, zorder=1)
        for name, values in arms.items():
            axes.plot(values, [height] * len(values), "o", color=COLOURS[name], alpha=0.25, markersize=4, markeredgewidth=0)
            axes.plot([means[name]], [height], "D", color=COLOURS[name], markersize=8, markeredgecolor="white", zorder=3)
        axes.text(0, height + 0.22, recipe, transform=axes.get_yaxis_transform(), fontsize=11, va="bottom")
    for name in dict.fromkeys(name for arms in scores.values() for name in arms):
        axes.plot([], [], "D", color=COLOURS[name], markersize=8, label=NAMES[name])
    drawn.legend(loc="outside upper left", ncols=2)
    axes.set_ylim(-len(scores) + 0.4, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(SCORE_NAMES[score])
    return drawn


@style()
def looking(on_test: Sequence[float], on_validation: Sequence[float], score: str = "auc") -> Figure:
    """What is reported after 1, 2, ... looks: the best by test and the best by validation, both as test scores; the gap is what looking at test is worth."""
    drawn = figure(WIDTH, 3.3)
    axes, looks = drawn.subplots(), np.arange(1, len(on_test) + 1)
    axes.fill_between(looks, on_validation, on_test, color=FAINT, alpha=0.7)
    for values, colour, words, align in (
        (on_test, COLOURS["published"], "kept by its test score", "bottom"),
        (on_validation, COLOURS["full"], "kept by validation", "top"),
    ):
        axes.plot(looks, values, "-", color=colour)
        place = values[-1] if align == "bottom" else min(values)
        axes.annotate(words, (looks[-1], place), (0, 6 if align == "bottom" else -6), textcoords="offset points", color=colour, ha="right", va=align)
    axes.set_xticks([place for place in looks if place == 1 or place % 5 == 0])
    axes.set_xlabel("networks that were looked at")
    axes.set_ylabel(f"reported test {SCORE_NAMES[score]}")
    axes.margins(y=0.25)
    return drawn


@style()
def shifts(records: Sequence[Record], *, dataset: str, ipc: int, methods: Sequence[str], score: str = "auc", profile: str = "fast") -> Figure:
    """Test minus validation of each arm, mean and 95 % interval over seeds. Raises DataError as `results.shift` does."""
    found = {name: shift(records, score, dataset=dataset, method=name, ipc=ipc, profile=profile) for name in methods}
    drawn = figure(WIDTH, 1.1 + 0.55 * len(found))
    axes = drawn.subplots()
    for height, (name, one) in zip(range(0, -len(found), -1), found.items(), strict=True):
        _bar(axes, one, height, COLOURS[name])
        axes.text(0, height + 0.2, f"{NAMES[name]}, n={one.n}", transform=axes.get_yaxis_transform(), fontsize=11, color=COLOURS[name], va="bottom")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_ylim(-len(found) + 0.4, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"test {SCORE_NAMES[score]} minus validation {SCORE_NAMES[score]}")
    return drawn


def _bar(axes: Axes, found: Interval, height: int, colour: str) -> None:
    axes.plot([found.low, found.high], [height, height], "-", color=colour, linewidth=3)
    axes.plot([found.mean], [height], "o", color=colour, markersize=8)


BySeed: TypeAlias = Callable[[Sequence[Record], str], dict[int, float]]
"""From the records of an arm and a score to a value a seed: `results.by_seed`, or `results.shift_by_seed` for test minus validation."""


def transferred(
    records: Sequence[Record], score: str, *, dataset: str, ipc: int = 10, profile: str = "fast", value: BySeed = by_seed
) -> tuple[list[str], list[str], np.ndarray, int]:
    """The mean over seeds of each cell of `data/transfer`: rows, columns, the matrix (not a number where nothing was run), and the fewest seeds of a cell.

    Of a data set that is not on record the planned rows and columns, with nothing in them and 0 seeds.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    rows = sorted({record.extra["source"] for record in ours} or SOURCES, key=lambda name: (name != "random", name))
    there = {record.extra["network"] for record in ours} or set(FAMILIES)
    columns = [name for name in FAMILIES if name in there]
    cells = [[value(select(ours, dataset=dataset, method=f"{row}-on-{name}", ipc=ipc, profile=profile), score) for name in columns] for row in rows]
    matrix = np.array([[np.mean(list(cell.values())) if cell else np.nan for cell in line] for line in cells])
    return rows, columns, matrix, min((len(cell) for line in cells for cell in line if cell), default=0)


@style()
def transfer(
    records: Sequence[Record], *, score: str = "auc", value: BySeed = by_seed, words: str = "test {}", datasets: Sequence[str] = TRANSFER_SETS
) -> Figure:  # fmt: skip
    """Sets in rows, the networks that train on them in columns, a score in each cell; darker is higher, a dash is not run. A panel for each data set.

    With `value` another number than the score stands in a cell, and `words` say which. A data set of `datasets` that is not on record has a panel
    that says `not run`.
    """
    names = dict.fromkeys([*datasets, *(record.dataset["name"] for record in records)])
    found = {name: transferred(records, score, dataset=name, value=value) for name in names}
    heights = [1.0 + 0.5 * len(rows) if seeds else 0.6 for rows, _, _, seeds in found.values()]
    drawn = figure(WIDTH, sum(heights) + 0.5)
    panels = drawn.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, (rows, columns, matrix, seeds)) in zip(panels, found.items(), strict=True):
        if seeds:
            _matrix(axes, rows, columns, matrix)
            axes.set_title(f"{name}: {words.format(_SCORES.get(score, score))}, n ≥ {seeds}", pad=26)
        else:
            axes.set_axis_off()
            axes.set_title(f"{name}: {words.format(_SCORES.get(score, score))}, not run")
    return drawn


def _matrix(axes: Axes, rows: Sequence[str], columns: Sequence[str], matrix: np.ndarray) -> None:
    low, high = float(np.nanmin(matrix)) - 0.02, float(np.nanmax(matrix)) + 0.06
    axes.imshow(matrix, cmap="Blues", aspect="auto", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(matrix):
        dark = (value - low) / (high - low) > 0.6  # false where nothing was run
        axes.text(column, row, "–" if np.isnan(value) else f"{value:.3f}", ha="center", va="center", color="white" if dark else INK, fontsize=11)
    axes.set_xticks(range(len(columns)), [FAMILIES[name] for name in columns])
    axes.set_yticks(range(len(rows)), [SOURCES[name] for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()


_SCORES = {**SCORE_NAMES, "ece": "calibration error", "worst_recall": "worst recall"}


# ---- rare classes ----------------------------------------------------------------------------------------------


@style()
def tails(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Images of each class left in train, a line for each imbalance factor (its name in the key), on a logarithmic axis; the rarest class is last."""
    order = np.argsort([-count for count in list(counts.values())[-1]], kind="stable")
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    for (name, values), shade in zip(counts.items(), np.linspace(0.75, 0, len(counts)), strict=True):
        axes.plot(range(len(order)), np.asarray(values)[order], "o-", color=str(shade), label=name)
        axes.text(len(order) - 0.85, np.asarray(values)[order][-1], name, va="center", fontsize=11)
    axes.set_yscale("log")
    axes.set_ylabel("images in train")
    axes.set_xticks(range(len(order)), [class_names[place] for place in order], rotation=40, ha="right")
    axes.margins(x=0.03)
    axes.set_xlim(right=len(order) + 0.9)
    return drawn


@style()
def class_recalls(found: Mapping[str, Sequence[Sequence[float]]], class_names: Sequence[str], counts: Sequence[int]) -> Figure:
    """Recall of each class, the most frequent class on top: a dot a network of each arm, their mean a larger mark. The arms are named and coloured in turn."""
    order = np.argsort([-count for count in counts], kind="stable")
    colours = (INK, COLOURS["random"], UNDER_IMBALANCE["random-budgets"], COLOURS["start"])
    drawn = figure(WIDTH, 1.4 + 0.5 * len(order))
    axes = drawn.subplots()
    for place, (name, runs) in enumerate(found.items()):
        values = np.asarray(runs)[:, order]
        heights = -np.arange(len(order)) + 0.2 - 0.2 * place
        for line in values:
            axes.plot(line, heights, "o", color=colours[place], alpha=0.3, markersize=4, markeredgewidth=0)
        axes.plot(values.mean(axis=0), heights, "D", color=colours[place], markersize=7, markeredgecolor="white", label=name)
    axes.set_yticks(-np.arange(len(order)), [f"{class_names[place]} ({counts[place]})" for place in order])
    axes.set_xlabel("recall on validation")
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    drawn.legend(loc="outside upper left", ncols=1)
    return drawn


@style()
def rarest(records: Sequence[Record], names: Mapping[str, str], *, dataset: str, ipc: int = 10, profile: str = "fast") -> Figure:
    """Recall of the rarest class by imbalance factor: a panel a factor, a row an arm, a dot a seed; bars are 95 % intervals where there are two seeds or more.

    At factor 1 all classes are equally many, and an arm that is `random` or the end point there says so instead of `not run`.
    Raises DataError when nothing is on record.
    """
    factors = sorted({record.extra["factor"] for record in records if record.dataset["name"] == dataset})
    if not factors:
        raise DataError(f"no run on rare classes of {dataset} is on record: run data/make_imbalance.py.")
    drawn = figure(WIDTH, 0.9 + len(factors) * (0.5 + 0.42 * len(names)))
    panels = np.atleast_1d(drawn.subplots(len(factors), 1, sharex=True))
    for axes, factor in zip(panels, factors, strict=True):
        for height, (name, words) in zip(range(0, -len(names), -1), names.items(), strict=True):
            values = rare_recall(records, name, factor, dataset=dataset, ipc=ipc, profile=profile)
            said = words if values else f"{words}: {_absent(name, factor)}"
            axes.plot(list(values.values()), [height] * len(values), "o", color=UNDER_IMBALANCE[name], alpha=0.5, markersize=6, markeredgewidth=0)
            if len(values) > 1:
                _bar(axes, interval(list(values.values())), height, UNDER_IMBALANCE[name])
            axes.text(0, height + 0.14, said, transform=axes.get_yaxis_transform(), fontsize=10, color=UNDER_IMBALANCE[name] if values else RECORD, va="bottom")
        axes.set_title(f"imbalance factor {factor:g}")
        axes.set_ylim(-len(names) + 0.5, 0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("test recall of the rarest class")
    panels[-1].set_xlim(-0.02, 1.02)
    return drawn


def _absent(name: str, factor: float) -> str:
    twin = same_at_one(name)
    return f"same as {NAMES[twin] if twin == 'endpoint' else twin}" if factor == 1 and twin != name else "not run"
