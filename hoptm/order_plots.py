"""Figures of what a path loss sees: orders against deformations, curvature against the loss's, errors against a threshold.

Each function takes what a chapter computed and returns a matplotlib Figure in the look of `plots`. Lines are named where they
run, not in a legend, and a name keeps its colour from figure to figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from hoptm.path_plots import running_mean
from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, style

ORDERS = {"endpoint": COLOURS["endpoint"], "velocity": "#5b4fa2", "curvature": "#b3003c", "torsion": "#4d7300"}
"""One colour an arm that is named by the order it adds; that of the end point is the book's."""
MASKS = {"sticky": COLOURS["published"], "fresh": "#5b4fa2", "quantile": COLOURS["full"], "layers": "#a23b85"}
"""One colour a mask; the sticky one is the published method's."""
LINES = ("#0072b2", "#c44e00", "#00795a", "#a23b85", "#8a6100")
UNSEEN = 1e-9
"""A loss below this is rounding and is written as 0."""
_BLUES = LinearSegmentedColormap.from_list("seen", ["#ffffff", "#00507d"])


# ---- orders ----------------------------------------------------------------------------------------------------


@style()
def deformations(expert: Float[Tensor, "k 2"], paths: Mapping[str, Float[Tensor, "k 2"]], losses: Mapping[str, Sequence[float]]) -> Figure:
    """What each loss (a row) says of each deformation (a column), with a sketch of the deformed path on top of its column.

    `losses` maps the name of a loss to one value for each of `paths`. A cell holds the value; its colour is the value relative to the
    largest of its row, so that a row shows what its loss sees best. Rounding is written as 0.
    """
    drawn = figure(WIDTH, 0.95 + 0.36 * len(losses))
    sketches, table = drawn.subplots(2, 1, height_ratios=(0.72, 0.36 * len(losses)))
    table.sharex(sketches)
    for column, (name, path) in enumerate(paths.items()):
        for points, colour, size in ((expert, RECORD, 5.5), (path, COLOURS["student"], 3.2)):
            places = 0.5 + column + 0.42 * (points.numpy() - [1, 0])
            sketches.plot(places[:, 0], places[:, 1] - 0.5 - column, "-o", color=colour, markersize=size, linewidth=1.3)
        sketches.annotate(name, (column + 0.5, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", va="bottom")
    sketches.set(xlim=(0, len(paths)), ylim=(-0.42, 0.42))
    sketches.set_axis_off()
    values = np.array(list(losses.values()), dtype=float)
    values[values < UNSEEN] = 0
    seen = values / np.maximum(values.max(axis=1, keepdims=True), UNSEEN)
    table.pcolormesh(seen, cmap=_BLUES, vmin=0, vmax=1, edgecolors="white", linewidth=2)
    for row, column in np.ndindex(*values.shape):
        colour = "white" if seen[row, column] > 0.64 else INK if values[row, column] else RECORD
        table.text(column + 0.5, row + 0.5, short(float(values[row, column])), color=colour, fontsize=11, ha="center", va="center_baseline")
    table.set_yticks([row + 0.5 for row in range(len(losses))], list(losses))
    table.set(ylim=(len(losses), 0), xticks=[])
    table.tick_params(length=0)
    table.spines[:].set_visible(False)
    return drawn


def short(value: float) -> str:
    """A value of 0 or more in few letters: two digits, `0` for rounding, a power of ten when it is small."""
    if value < UNSEEN:
        return "0"
    if value < 0.00095:
        power = math.floor(math.log10(value))
        return f"$10^{{{power}}}$"
    return f"{value:.{max(1, 1 - math.floor(math.log10(value)))}f}"


@style()
def agreement(sizes: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Cosines between two vectors against a step size on a logarithmic axis: a colour a place, and for each of its kinds a dash."""
    drawn = figure(WIDTH, 3.3)
    axes, ends, colours = drawn.subplots(), {}, []
    for (place, kinds), colour in zip(curves.items(), LINES, strict=False):
        for (kind, values), dash in zip(kinds.items(), ("-o", "--o"), strict=False):
            axes.plot(sizes, values, dash, color=colour, markersize=5)
            ends[f"{kind}, {place}"] = float(values[-1])
            colours.append(colour)
    lowest = min(min(values) for kinds in curves.values() for values in kinds.values())
    axes.set(xscale="log", ylim=(min(0.0, lowest) - 0.03, 1.05), xlabel="step size", ylabel="cosine")
    axes.axhline(1, color=FAINT, linewidth=1, zorder=0)
    _end_names(axes, ends, colours)
    return drawn


@style()
def terms_over_time(terms: Mapping[str, Mapping[str, Sequence[float]]], still: Mapping[str, float]) -> Figure:
    """Terms of a path loss over outer iterations: a panel a term, a line an arm (a name in `ORDERS`), dots for single iterations.

    `still` gives for a term the value of a student that does not move (grey line), where that is known.
    """
    drawn = figure(WIDTH, 0.6 + 1.55 * len(terms))
    panels = np.atleast_1d(drawn.subplots(len(terms), 1, sharex=True))
    for axes, (term, arms) in zip(panels, terms.items(), strict=True):
        ends = {}
        for name, values in arms.items():
            axes.plot(values, "o", color=ORDERS[name], markersize=3, alpha=0.3, markeredgewidth=0)
            smooth = running_mean(np.asarray(values, dtype=float))
            axes.plot(smooth, color=ORDERS[name])
            ends[f"+ {name}" if name != "endpoint" else "end point"] = float(smooth[-1])
        if term in still:
            axes.axhline(still[term], color=RECORD, linewidth=1)
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (-2, -2), "textcoords": "offset points"}
            axes.annotate("a still student", (1, still[term]), color=RECORD, fontsize=11, ha="right", va="top", **place)
        axes.margins(y=0.15)
        axes.set_title(term)
        _end_names(axes, ends, [ORDERS[name] for name in arms], tall=1.2)
    panels[-1].set_xlabel("outer iteration")
    return drawn


# ---- masks -----------------------------------------------------------------------------------------------------


@style()
def errors_and_threshold(errors: Float[Tensor, "p"], dead: Float[Tensor, "d"], limits: Sequence[float]) -> Figure:
    """Histogram of squared errors on a logarithmic axis, living parameters and dead ones, under the places of a moving threshold.

    Errors below 1e-20, zero among them, stand in the leftmost bar. The first and the last of `limits` are named.
    """
    floor = 1e-20
    edges = np.logspace(math.log10(floor) - 0.5, math.ceil(math.log10(float(errors.max()))), 60)
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    for values, colour, name in ((errors, COLOURS["student"], "living"), (dead, COLOURS["start"], "dead")):
        shown = values.clamp_min(floor).numpy()
        axes.hist(shown, edges.tolist(), color=colour, alpha=0.85)
        left, side = (float(np.quantile(shown, 0.02)), "right") if name == "living" else (floor, "left")
        axes.annotate(f"{name}: {len(shown)} ", (left, 0.66), xycoords=("data", "axes fraction"), color=colour, ha=side)
    for limit in limits:
        axes.axvline(limit, color=COLOURS["published"], linewidth=0.8, alpha=0.5)
    for limit, words, side in ((limits[0], "first threshold ", "right"), (limits[-1], " last", "left")):
        axes.annotate(words, (limit, 1), xycoords=("data", "axes fraction"), color=COLOURS["published"], ha=side, va="top")
    axes.set(xscale="log", yscale="symlog", xlabel="squared error of a parameter at the end of the path", ylabel="parameters")
    axes.set_ylim(0, axes.get_ylim()[1] * 8)
    axes.minorticks_off()
    return drawn


@style()
def shares_below(curves: Mapping[str, Float[Tensor, "_"]], limit: float, title: str) -> Figure:
    """The share of parameters whose squared error lies below x, for each x: a line a name, and a threshold as a vertical line.

    `title` says what the names are; they stand on their lines.

    Where a line crosses the threshold one reads which share a mask at that threshold has in use. Errors of 0 are left of the axis.
    """
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    lowest = min(float(errors.quantile(0.02)) for errors in curves.values())
    highest = max(float(errors.max()) for errors in curves.values())
    grid = torch.logspace(math.log10(max(lowest, 1e-16)), math.log10(highest), 200)
    for (name, errors), colour in zip(curves.items(), LINES, strict=False):
        share = torch.searchsorted(errors.sort().values.contiguous(), grid.to(errors)) / len(errors)
        axes.plot(grid.numpy(), share.numpy(), color=colour)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.annotate(name, (float(errors.quantile(0.6)), 0.6), color=colour, weight="bold", ha="center", va="center", bbox=ground)
    axes.axvline(limit, color=INK, linewidth=1)
    axes.annotate(r" $\tau_0$", (limit, 0.97), xycoords=("data", "axes fraction"), ha="left", va="top")
    axes.set(xscale="log", ylim=(0, 1), xlabel="squared error", ylabel="share of parameters below", title=title)
    return drawn


@style()
def shares_in_use(shares: Mapping[str, Sequence[float]]) -> Figure:
    """The share of parameters in use at each outer iteration, a line a mask (a name in `MASKS`)."""
    drawn = figure(WIDTH, 3.3)
    axes = drawn.subplots()
    for name, values in shares.items():
        axes.step(range(len(values)), values, where="mid", color=MASKS[name], linewidth=1.2 if name == "layers" else 2.0)
    axes.set(ylim=(0, 1.03), xlabel="outer iteration", ylabel="share in use")
    _end_names(axes, {name: float(values[-1]) for name, values in shares.items()}, [MASKS[name] for name in shares])
    return drawn


@style()
def windows(starts: Mapping[str, Sequence[int]]) -> Figure:
    """The start epoch that each outer iteration drew, a panel a window."""
    drawn = figure(WIDTH, 2.7)
    panels = np.atleast_1d(drawn.subplots(1, len(starts), sharey=True))
    for axes, (name, drawn_starts) in zip(panels, starts.items(), strict=True):
        axes.plot(drawn_starts, "o", color=COLOURS["student"], markersize=5, alpha=0.7, markeredgewidth=0)
        axes.set(title=name, xlabel="outer iteration", yticks=range(max(map(max, starts.values())) + 1))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    panels[0].set_ylabel("start epoch")
    return drawn


def _end_names(axes: Axes, ends: Mapping[str, float], colours: Sequence[str], tall: float = 2.4) -> None:
    """Names at the right ends of lines, moved apart where they would lie on one another; `tall` is the panel's height in inches."""
    low, high = axes.get_ylim()
    gap, heights, lowest, highest = 0.2 / tall * (high - low), dict(ends), -math.inf, high
    for name in sorted(ends, key=lambda name: ends[name]):
        heights[name] = lowest = max(heights[name], lowest + gap)
    for name in sorted(heights, key=lambda name: -heights[name]):
        heights[name] = min(heights[name], highest)
        highest = heights[name] - gap
    for (name, height), colour in zip(heights.items(), colours, strict=False):
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
        axes.annotate(name, (1, height), color=colour, va="center", fontsize=11, **place)
