"""Figures of tables and of costs: ours beside the paper's numbers, predicted beside measured seconds, and how the engine's cost grows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, style
from hoptm.records import Record
from hoptm.results import NAMES
from hoptm.transcribed import entries, measured, table, transcribed

ROWS = ("HoP-TM", "DATM", "ATT", "FTD", "MTT", "IDM", "DM")
"""Rows of the paper's Table 1 in the order in which they are named."""
ENGINE = {"plain, contiguous": ("plain autograd", COLOURS["random"]), "compiled, none kept": ("the engine, compiled", COLOURS["endpoint"])}
PAPER = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
"""Behind letters that stand on lines."""
AXES = {"steps": "inner steps", "width": "width", "batch": "images a step", "size": "edge in pixels"}


@dataclass(frozen=True)
class Timed:
    """One piece of work on record: its row in the figure and its colour, predicted and measured seconds, and predicted with experts."""

    row: str
    colour: str
    predicted: float
    took: float
    with_experts: float | None = None


@style()
def beside_the_paper(records: Sequence[Record], name: str, stand_in: str) -> Figure:
    """Accuracy over images a class: the paper's rows as transcribed, with one standard deviation, and ours, a dot a method and budget.

    Dots are hollow where the data only stand in for the paper's.
    """
    rows = {row: entries(name, row) for row in ROWS if row in table(name)["rows"]}
    own = transcribed()["rows_of_methods"]["published"]
    drawn = figure(WIDTH, 4.4)
    axes = drawn.subplots()
    budgets = sorted({one.ipc for found in rows.values() for one in found})
    places = _apart({row: found[0].mean for row, found in rows.items()}, 0.03)
    for row, found in rows.items():
        colour, wide = (INK, 2.2) if row == own else (RECORD, 1.0)
        values = ([one.ipc for one in found], [one.mean for one in found], [one.std for one in found])
        axes.errorbar(*values, capsize=2, color=colour, linewidth=wide, zorder=3 if row == own else 2)
        axes.text(budgets[0] * 0.82, places[row], row, ha="right", va="center", fontsize=10, color=colour)
    _ours(axes, records, bool(stand_in))
    axes.set_xscale("log")
    axes.set_xticks(budgets, [str(ipc) for ipc in budgets])
    axes.minorticks_off()
    axes.set_xlim(budgets[0] / 3.2, budgets[-1] * 1.6)
    axes.set_xlabel("images a class")
    axes.set_ylabel("test accuracy")
    axes.set_title(f"{table(name)['title']}: lines as transcribed")
    axes.grid(axis="y")
    return drawn


def _apart(values: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights for names beside values, in their order and never closer than `gap`, as near to the values as that allows from below."""
    heights: dict[str, float] = {}
    last = -math.inf
    for name in sorted(values, key=lambda name: values[name]):
        last = heights[name] = max(values[name], last + gap)
    return heights


def _ours(axes: Any, records: Sequence[Record], hollow: bool) -> None:
    """A dot for each method and budget that is on record, with its standard error and its name beside it."""
    for method, ipc in sorted({(record.method, record.ipc) for record in records}):
        ours = measured([record for record in records if (record.method, record.ipc) == (method, ipc)])
        colour = COLOURS[method]
        face = "#ffffff" if hollow else colour
        axes.errorbar([ipc], [ours.mean], [ours.standard_error], fmt="o", color=colour, markerfacecolor=face, markeredgewidth=2, capsize=3, zorder=4)
        words = f"ours, {NAMES[method]}" + (", on a stand-in" if hollow else "")
        axes.annotate(words, (ipc, ours.mean), xytext=(8, -12), textcoords="offset points", fontsize=10, color=colour, bbox=PAPER, zorder=5)


@style()
def predicted_and_measured(runs: Sequence[Timed]) -> Figure:
    """Measured seconds in units of the predicted ones, a dot a run and a row a kind of work: at 1 they agree, in the band within a factor of two.

    A tick in a row stands where a run that also trains its experts should be, for the median of the row.
    """
    rows = list(dict.fromkeys(run.row for run in runs))
    drawn = figure(WIDTH, 1.3 + 0.36 * len(rows))
    axes = drawn.subplots()
    axes.axvspan(0.5, 2, color=FAINT, alpha=0.6, linewidth=0)
    axes.axvline(1, color=RECORD, linewidth=1.2)
    for height, row in enumerate(rows):
        chosen = [run for run in runs if run.row == row]
        axes.plot([run.took / run.predicted for run in chosen], [height] * len(chosen), "o", color=chosen[0].colour, alpha=0.85)
        trained = sorted(run.with_experts / run.predicted for run in chosen if run.with_experts is not None)
        if trained:
            axes.plot([trained[len(trained) // 2]], [height], "|", color=INK, markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xscale("log")
    ratios = [value for run in runs for value in (run.took / run.predicted, (run.with_experts or run.predicted) / run.predicted)]
    _plain_ticks(axes.xaxis, min(0.4, *ratios) / 1.2, max(2.5, *ratios) * 1.2)
    axes.set_xlim(min(0.4, *ratios) / 1.2, max(2.5, *ratios) * 1.2)
    axes.set_xlabel("seconds on record, in units of the predicted ones")
    return drawn


def _plain_ticks(axis: Any, low: float, high: float) -> None:
    """One, two and five times powers of ten between two ends, written out."""
    ticks = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


@style()
def growth(axes_of: Mapping[str, Mapping[str, Any]], quantity: str, words: str) -> Figure:
    """How seconds or bytes (`quantity`) grow with each of four sizes, both axes logarithmic: dots as measured, a line fitted to their logarithms.

    `axes_of` is `growth.axes` of `data/bench/growth.json`; the fitted exponent stands at the end of each line.
    """
    drawn = figure(WIDTH, 5.4)
    for axes, (name, found) in zip(drawn.subplots(2, 2, sharey=True).flat, axes_of.items(), strict=True):
        values = np.asarray(found["values"], dtype=float)
        for arm, (label, colour) in ENGINE.items():
            points = np.asarray(found[arm][quantity])
            slope, start = fit(values, points)
            axes.plot(values, points, "o", color=colour, label=label)
            axes.plot(values, math.exp(start) * values**slope, color=colour, linewidth=1.3)
            axes.annotate(f"{slope:.1f}", (values[-1], math.exp(start) * values[-1] ** slope), xytext=(5, 0), textcoords="offset points", color=colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.set_xlim(values[0] / 1.2, values[-1] * 1.6)
        axes.set_title(AXES[name])
        axes.grid(axis="y")
    drawn.supylabel(words, fontsize=12)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return drawn


def fit(values: Sequence[float] | Sequence[int] | np.ndarray, measured_at: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Slope and intercept of a straight line through the logarithms, by least squares: the slope is the exponent of a power law."""
    slope, start = np.polyfit(np.log(np.asarray(values, dtype=float)), np.log(np.asarray(measured_at, dtype=float)), 1)
    return float(slope), float(start)


@style()
def walls(workers: Sequence[int], days: Mapping[str, Sequence[float]], floor: float) -> Figure:
    """Days until a grid is done over the number of workers, a line a way of sharing the work, and the days below which none of them can go."""
    drawn = figure(WIDTH, 3.8)
    axes = drawn.subplots()
    for (name, values), colour in zip(days.items(), (COLOURS["endpoint"], COLOURS["published"], COLOURS["random"]), strict=False):
        axes.plot(workers, values, "o-", color=colour)
        middle = len(workers) // 2
        axes.annotate(name, (workers[middle], values[middle]), xytext=(8, 7), textcoords="offset points", fontsize=11, color=colour, bbox=PAPER)
    axes.axhline(floor, color=RECORD, linewidth=1.2, linestyle="--")
    axes.text(workers[0], floor, "the longest chain: one expert, then one cell", va="bottom", fontsize=10, color=INK)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.minorticks_off()
    _plain_ticks(axes.yaxis, *axes.get_ylim())
    axes.set_xlabel("workers, each as fast as one core of this machine")
    axes.set_ylabel("days, predicted")
    axes.grid(axis="y")
    return drawn
