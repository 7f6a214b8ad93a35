"""Figures of gradients through training: ways to compute one beside each other, how far off each is, and what it costs.

Each way keeps one colour and one stroke (`LOOKS`), and its name stands where its curve ends. The functions take numbers
that a chapter computed and return a matplotlib Figure in the look of `plots`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, mosaic, style

LOOKS: dict[str, dict[str, Any]] = {
    "finite differences": {"color": COLOURS["published"], "linestyle": "none", "marker": "o", "markerfacecolor": "none", "markersize": 9},
    "autograd": {"color": RECORD, "linewidth": 6.0, "alpha": 0.45},
    "adjoint": {"color": COLOURS["student"], "linewidth": 1.6},
    "full graph": {"color": INK},
    "checkpointed": {"color": COLOURS["random"]},
    "adjoint, half kept": {"color": COLOURS["student"], "linestyle": "--"},
    "truncated": {"color": COLOURS["start"], "linestyle": ":"},
    "adjoint, compiled": {"color": COLOURS["full"]},
}
"""Colour and stroke of each way to a gradient."""
SHADES = (COLOURS["student"], COLOURS["published"], COLOURS["full"], COLOURS["start"], COLOURS["random"])
"""Colours of curves that are not ways to a gradient, in their order."""


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Heights for labels: in the order of `places`, `gap` apart or more, within 0 .. 1 where they fit, and by least squares near to them.

    With i gaps taken from the i-th place this is isotonic regression, by pooling neighbours that are out of order.
    """
    order = sorted(range(len(places)), key=lambda at: places[at])
    pools: list[list[float]] = []
    for number, at in enumerate(order):
        pools.append([places[at] - number * gap])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    room = max(1 - (len(order) - 1) * gap, 0.0)
    lowered = [min(max(_mean(pool), 0.0), room) for pool in pools for _ in pool]
    heights = [0.0] * len(places)
    for number, at in enumerate(order):
        heights[at] = lowered[number] + number * gap
    return heights


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _label_ends(axes: Axes, ends: Mapping[str, float], looks: Mapping[str, str], gap: float) -> None:
    """Each name at the right edge, beside the end of its curve; call it after the limits are set."""
    low, high = axes.get_ylim()
    scaled = math.log10 if axes.get_yscale() == "log" else float
    places = [(scaled(end) - scaled(low)) / (scaled(high) - scaled(low)) for end in ends.values()]
    for name, height in zip(ends, spread(places, gap), strict=True):
        axes.annotate(name, (1.02, height), xycoords="axes fraction", color=looks[name], va="center", fontsize=11, annotation_clip=False)


@style()
def pixel_row(pixels: UInt8[Tensor, "1 c h w"], row: int, slopes: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """An image with one row marked, above the derivative by each pixel of that row: name in `LOOKS` -> (columns, derivatives)."""
    drawn = figure(WIDTH, 5.2)
    above, below = drawn.subplots(2, 1, height_ratios=(1, 1.35))
    above.imshow(mosaic(pixels, 1))
    above.axhspan(row - 0.5, row + 0.5, facecolor=COLOURS["published"], alpha=0.55, linewidth=0)
    above.annotate("this row", (pixels.shape[3], row), (6, 0), textcoords="offset points", color=COLOURS["published"], va="center", annotation_clip=False)
    above.set_axis_off()
    for name, (columns, values) in slopes.items():
        below.plot(columns, values, label=name, **LOOKS[name])
    below.axhline(0, color=FAINT, linewidth=1, zorder=0)
    below.set(xlabel="column of the pixel", ylabel="dL / d pixel", xlim=(-0.5, pixels.shape[3] - 0.5))
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    below.legend(*below.get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(slopes), columnspacing=1.2)
    return drawn


@style()
def difference_errors(sizes: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """How far finite differences are from the gradient, relative to it, against their step size, on logarithmic axes: a curve a name.

    An error of exactly 0 is drawn at 1e-16, where double precision ends.
    """
    drawn = figure(WIDTH, 3.9)
    axes = drawn.subplots()
    colours = dict(zip(errors, SHADES, strict=False))
    for name, values in errors.items():
        axes.plot(sizes, np.maximum(values, 1e-16), "o-", color=colours[name], markersize=4)
    axes.axhline(1, color=RECORD, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="step size of the difference", ylabel="relative error")
    axes.grid()
    handles = [axes.lines[number] for number in range(len(errors))]
    drawn.legend(handles, list(errors), loc="outside upper left", ncols=min(3, len(errors)), columnspacing=1.2, handlelength=1.6)
    return drawn


@style()
def zooms(places: Float[np.ndarray, "s"], views: Mapping[str, tuple[Float[np.ndarray, "s"], Float[np.ndarray, "s"]]]) -> Figure:
    """A loss along a line, seen from near and from far: a panel a view, title -> (change of the loss, change that the gradient foretells).

    `places` run from -1 to 1, the edges of every view. Each panel has its own scale.
    """
    drawn = figure(WIDTH, 3.1)
    for axes, (name, (seen, foretold)) in zip(np.atleast_1d(drawn.subplots(1, len(views))), views.items(), strict=True):
        axes.plot(places, foretold, color=COLOURS["student"])
        axes.plot(places, seen, "o", color=COLOURS["published"], markersize=3.5)
        axes.set(title=name, xticks=[-1, 0, 1])
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.margins(y=0.15)
    drawn.axes[0].set_ylabel("change of the loss")
    drawn.supxlabel("along one direction, in units of the panel's reach", fontsize=12)
    parts = (drawn.axes[0].lines[1], drawn.axes[0].lines[0])
    drawn.legend(parts, ("the loss", "its gradient"), loc="outside upper left", ncols=2, columnspacing=1.2, handlelength=1.2)
    return drawn


@style()
def costs(steps: Sequence[int], megabytes: Mapping[str, Sequence[float]], trainings: Mapping[str, Sequence[float]]) -> Figure:
    """Peak memory, in MB, above time, in units of the training itself, against the number of inner steps: a curve a name of `LOOKS`."""
    drawn = figure(WIDTH, 6.2)
    panels = drawn.subplots(2, 1, sharex=True)
    for axes, curves, words in zip(panels, (megabytes, trainings), ("memory at its peak (MB)", "time (trainings)"), strict=True):
        for name, values in curves.items():
            axes.plot(steps, values, **LOOKS[name])
        axes.set(ylabel=words, xlim=(0, max(steps)), ylim=(0, 1.05 * max(max(values) for values in curves.values())))
        axes.grid(axis="y")
        _label_ends(axes, {name: values[-1] for name, values in curves.items()}, {name: LOOKS[name]["color"] for name in curves}, 0.1)
    panels[1].set_xlabel("inner steps T")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn


@style()
def angles(steps: Sequence[int], degrees: Mapping[str, Sequence[float]]) -> Figure:
    """The angle between a truncated gradient and the exact one against the number of inner steps, in degrees: a curve a name."""
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    colours = dict(zip(degrees, SHADES, strict=False))
    for name, values in degrees.items():
        axes.plot(steps, values, "o-", color=colours[name], markersize=4)
    axes.set(xlabel="inner steps T", ylabel="angle to the exact gradient (°)", xlim=(0, max(steps)))
    axes.set_ylim(-1, max(30.0, 1.1 * max(max(values) for values in degrees.values())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    _label_ends(axes, {name: values[-1] for name, values in degrees.items()}, colours, 0.1)
    return drawn
