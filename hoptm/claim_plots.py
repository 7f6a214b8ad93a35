"""Figures of findings: every paired gain a row, coloured by its verdict."""

from collections.abc import Sequence
from itertools import groupby

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import blended_transform_factory

from hoptm.errors import ConfigError
from hoptm.plots import FAINT, INK, RECORD, WIDTH, figure, style
from hoptm.verdicts import NO_DIFFERENCE, NOT_REPRODUCED, REPRODUCED, UNTESTED, VERDICTS, Finding, Measured

VERDICT_COLOURS = {REPRODUCED: "#006b5b", NOT_REPRODUCED: "#a8321a", NO_DIFFERENCE: "#5a5a8c", UNTESTED: RECORD}
"""One colour a verdict; the marker says the same to those who cannot tell colours apart."""
MARKERS = {REPRODUCED: "o", NOT_REPRODUCED: "X", NO_DIFFERENCE: "D", UNTESTED: "."}
SCORES = ("accuracy", "AUC")
LINEAR = 0.05
"""The axis of gains is linear up to here on both sides of 0 and logarithmic beyond, so that small gains are seen beside large ones."""
TICKS = (-0.3, -0.05, 0, 0.05, 0.3)
ABOVE, BELOW = 0.4, 0.6
"""Inches above the rows for the verdicts, and below for the axis."""


@style()
def gains(findings: Sequence[Finding]) -> Figure:
    """A row a claim, in groups under the words that claims share: the gain in accuracy left, in AUC right.

    A dot is a seed, a bar the 95 % interval, the marker its mean, coloured by the verdict of that score. A claim with too few seeds keeps
    its row. Findings that compare anything else are left out; raises ConfigError when none is left.
    """
    shown = [finding for finding in findings if tuple(one.name for one in finding.measured) == SCORES]
    if not shown:
        raise ConfigError("none of these findings is a gain in accuracy and AUC; print them with verdicts.table.")
    groups = [(words, list(found)) for words, found in groupby(shown, key=lambda finding: finding.claim.words)]
    rows = len(shown) + 1.3 * len(groups)
    height = 0.27 * rows + BELOW + ABOVE
    drawn = figure(WIDTH, height)
    bottom, tall = BELOW / height, 0.27 * rows / height
    with mpl.rc_context({"figure.constrained_layout.use": False}):  # the words above each group cross both panels
        drawn.set_layout_engine(None)
    left = drawn.add_axes((0.4, bottom, 0.27, tall))
    panels, labels, at = (left, drawn.add_axes((0.71, bottom, 0.27, tall), sharey=left)), {}, 0.0
    heading = blended_transform_factory(drawn.transFigure, panels[0].transData)
    for words, found in groups:
        at -= 1.3
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        panels[1].text(0.01, at + 0.15, words, transform=heading, fontsize=10.5, weight="bold", va="center", clip_on=False, bbox=ground)
        for finding in found:
            at -= 1
            labels[at] = finding.claim.where.removesuffix(", tuned")
            for axes, one in zip(panels, finding.measured, strict=True):
                _row(axes, one, at)
    for index, axes in enumerate(panels):
        _panel(axes, f"gain in {SCORES[index]}", (at - 0.7, -0.3), [finding.measured[index] for finding in shown])
    panels[1].tick_params(labelleft=False)
    panels[0].set_yticks(list(labels), labels.values(), fontsize=10.5)
    _legend(drawn, {one.verdict for finding in shown for one in finding.measured})
    return drawn


def _row(axes: Axes, one: Measured, at: float) -> None:
    colour, found = VERDICT_COLOURS[one.verdict], one.interval
    axes.plot(one.values, [at] * len(one.values), "o", color=INK, alpha=0.5, markersize=3.5, markeredgewidth=0, zorder=3)
    if one.verdict == UNTESTED or found is None:
        count = len(one.values)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(0.5, at, f"untested, n={count}", transform=axes.get_yaxis_transform(), color=colour, fontsize=9.5, va="center", ha="center", bbox=ground)
        return
    axes.plot([found.low, found.high], [at, at], "-", color=colour, linewidth=4, alpha=0.5, solid_capstyle="butt")
    face = "white" if one.verdict == NO_DIFFERENCE else colour
    axes.plot([found.mean], [at], MARKERS[one.verdict], color=colour, markerfacecolor=face, markersize=7, zorder=4)


def _panel(axes: Axes, label: str, ends: tuple[float, float], drawn: Sequence[Measured]) -> None:
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_ylim(*ends)
    axes.set_xlabel(label)
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=1)
    intervals = [one.interval for one in drawn if one.interval and one.verdict != UNTESTED]
    places = [abs(value) for one in drawn for value in one.values] + [abs(end) for one in intervals for end in (one.low, one.high)]
    ends_x = 1.25 * max([LINEAR, *places])
    axes.set_xlim(-ends_x, ends_x)
    shown = [tick for tick in TICKS if abs(tick) <= ends_x]
    axes.set_xticks(shown, [f"{tick:g}".replace("0.", ".") for tick in shown], fontsize=10)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color=FAINT)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _legend(drawn: Figure, words: set[str]) -> None:
    """The verdicts that occur, each in its colour with its marker."""
    present = [word for word in VERDICTS if word in words and word != UNTESTED]
    faces = {word: "white" if word == NO_DIFFERENCE else VERDICT_COLOURS[word] for word in present}
    marks = [Line2D([], [], linestyle="none", marker=MARKERS[word], color=VERDICT_COLOURS[word], markerfacecolor=faces[word]) for word in present]
    if present:
        shown = drawn.legend(marks, present, loc="upper left", bbox_to_anchor=(0, 1), ncols=len(present), handletextpad=0.1, columnspacing=1, borderaxespad=0.2)
        for text, word in zip(shown.get_texts(), present, strict=True):
            text.set_color(VERDICT_COLOURS[word])
