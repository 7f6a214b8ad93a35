"""Figures of many parts side by side: what each gains over one arm, how it got there, whether their gradients agree, and what a small set can
represent at all.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hoptm.intervals import paired_interval
from hoptm.plots import COLOURS, FAINT, INK, RECORD, SCORE_NAMES, WIDTH, figure, style
from hoptm.records import Record
from hoptm.results import NAMES, by_seed, select
from hoptm.timed_runs import TimedRun

LEAST = 3
"""Seeds that an interval is drawn for, at least."""
_SIGNED = LinearSegmentedColormap.from_list("signed", ["#c44e00", "#ffffff", "#0072b2"])
_LINES = ("#0072b2", "#a23b85", "#00795a", "#c44e00", "#8a6100")


@style()
def paired_gains(records: Sequence[Record], datasets: Sequence[str], *, ipc: int, methods: Sequence[str], against: str, profile: str, score: str) -> Figure:
    """What each method gains over `against`, a panel a data set: a dot a seed, the mean, its 95 % interval by Student's t, and n.

    Pairs are runs of one seed. Hollow: the interval holds 0. A method with fewer than `LEAST` shared seeds has dots and no interval, which would say
    nothing and stretch the axis; without any it is written down as not on record.
    """
    drawn = figure(WIDTH, (0.75 + 0.36 * len(methods)) * len(datasets) + 0.5)
    panels = np.atleast_1d(drawn.subplots(len(datasets), 1, sharex=True))
    for axes, dataset in zip(panels, datasets, strict=True):
        base = by_seed(select(records, dataset=dataset, method=against, ipc=ipc, profile=profile), score)
        for row, method in enumerate(methods):
            ours = by_seed(select(records, dataset=dataset, method=method, ipc=ipc, profile=profile), score)
            shared = sorted(set(base) & set(ours))
            _row(axes, -float(row), [ours[seed] for seed in shared], [base[seed] for seed in shared], COLOURS[method])
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks([-row for row in range(len(methods))], [NAMES[method] for method in methods])
        axes.set_ylim(-len(methods) + 0.4, 0.6)
        axes.grid(axis="x", color=FAINT)
        axes.set_title(f"{dataset}, {ipc} image{'s' if ipc > 1 else ''} a class")
    panels[-1].xaxis.set_major_locator(MaxNLocator(5))
    panels[-1].set_xlabel(f"gain in test {SCORE_NAMES[score]} over {NAMES[against]}")
    return drawn


def _row(axes: Axes, height: float, ours: Sequence[float], base: Sequence[float], colour: str) -> None:
    right = axes.get_yaxis_transform()
    axes.plot(np.subtract(ours, base), [height] * len(ours), "o", color=RECORD, alpha=0.45, markersize=5, markeredgewidth=0)
    if len(ours) < LEAST:
        words = "not on record" if not ours else f"n = {len(ours)}, too few"
        axes.text(0.99 if not ours else 1.01, height, words, transform=right, ha="right" if not ours else "left", va="center", fontsize=10, color=RECORD)
        return
    found = paired_interval(list(ours), list(base))
    axes.plot([found.low, found.high], [height, height], "-", color=colour, linewidth=2.5)
    hollow = found.low <= 0 <= found.high
    axes.plot([found.mean], [height], "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=8)
    axes.text(1.01, height, f"n = {found.n}", transform=right, va="center", fontsize=10, color=RECORD)


@style()
def looks(records: Sequence[Record], budgets: Sequence[tuple[str, int]], *, methods: Sequence[str], profile: str, score: str) -> Figure:
    """What validation said on the way, against outer iterations: a panel a data set and budget, a thin line a seed, a thick one their mean.

    The networks that look train by one fixed recipe, so a line is compared with itself and no line with a judged score. A method without a record keeps
    its row in the legend, with n = 0.
    """
    drawn = figure(WIDTH, 2.6 * len(budgets))
    panels = np.atleast_1d(drawn.subplots(len(budgets), 1))
    for axes, (dataset, ipc) in zip(panels, budgets, strict=True):
        for method in methods:
            found = [record.extra["selection"] for record in select(records, dataset=dataset, method=method, ipc=ipc, profile=profile)]
            for seen in found:
                axes.plot([one["iteration"] for one in seen], [one[score] for one in seen], color=COLOURS[method], linewidth=0.8, alpha=0.4)
            times = sorted(set.intersection(*({one["iteration"] for one in seen} for seen in found))) if found else []
            means = [float(np.mean([one[score] for seen in found for one in seen if one["iteration"] == time])) for time in times]
            axes.plot(times, means, "-o", color=COLOURS[method], markersize=4, label=f"{NAMES[method]}, n = {len(found)}")
        axes.set_title(f"{dataset}, {ipc} image{'s' if ipc > 1 else ''} a class", pad=6)
        axes.set_ylabel(f"validation {SCORE_NAMES[score]}")
        axes.grid(axis="y", color=FAINT)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=10)
        if not any(len(line.get_xdata()) for line in axes.lines):
            axes.set(xticks=[], yticks=[])
    panels[-1].set_xlabel("outer iterations done")
    return drawn


@style()
def in_time(runs: Sequence[TimedRun], panels: Sequence[tuple[str, int]], *, score: str) -> Figure:
    """The gain over random images against processor seconds from nothing, one judgement among them.

    A panel a data set and budget, a colour a method, a thin line a seed, a thick one the mean over seeds look by look. Dotted: the mean second at which
    the experts were there.
    """
    drawn = figure(WIDTH, 0.4 + 2.5 * len(panels))
    places = np.atleast_1d(drawn.subplots(len(panels), 1, sharex=True))
    for axes, (dataset, ipc) in zip(places, panels, strict=True):
        here = [run for run in runs if (run.dataset, run.ipc) == (dataset, ipc)]
        for method in dict.fromkeys(run.method for run in here):
            own = [run for run in here if run.method == method]
            for run in own:
                axes.plot([at + run.judging for at in run.seconds], [gains[score] for gains in run.gains], color=COLOURS[method], linewidth=0.8, alpha=0.4)
            looks_shared = min(len(run.seconds) for run in own)
            middle = np.mean([[at + run.judging for at in run.seconds[:looks_shared]] for run in own], axis=0)
            means = np.mean([[gains[score] for gains in run.gains[:looks_shared]] for run in own], axis=0)
            axes.plot(middle, means, "-o", color=COLOURS[method], markersize=4, label=f"{NAMES[method]}, n = {len(own)}")
        if here:
            axes.axvline(float(np.mean([run.expert_seconds for run in here])), color=RECORD, linestyle=":", linewidth=1.3)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1, ncols=3, fontsize=9, handlelength=1.3)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_title(f"{dataset}, {ipc} image{'s' if ipc > 1 else ''} a class{'' if here else ': not on record'}", pad=22 if here else None)
        axes.set_ylabel(f"gain in {SCORE_NAMES[score]}")
        axes.grid(axis="y", color=FAINT)
    places[-1].set_xlabel("processor seconds from nothing: experts, distillation, one judgement")
    return drawn


@style()
def cosines(matrix: Float[Tensor, "m m"], names: Sequence[str]) -> Figure:
    """Cosines between the gradients of m losses for the same images, as a square of coloured cells with the value written in each."""
    drawn = figure(WIDTH, WIDTH * 0.82)
    axes = drawn.subplots()
    axes.imshow(matrix.numpy(), cmap=_SIGNED, vmin=-1, vmax=1)
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            axes.text(column, row, f"{round(value, 1) + 0.0:.1f}", ha="center", va="center", fontsize=11, color="white" if abs(value) > 0.75 else INK)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return drawn


@style()
def shares(panels: Mapping[str, Mapping[str, Float[Tensor, "_"]]]) -> Figure:
    """The share of a displacement that the first n directions can give, against n on a logarithmic axis: a panel a place, a line a kind of image."""
    drawn = figure(WIDTH, 0.6 + 2.3 * len(panels))
    places = np.atleast_1d(drawn.subplots(len(panels), 1, sharex=True, sharey=True))
    for axes, (title, curves) in zip(places, panels.items(), strict=True):
        for (name, values), colour in zip(curves.items(), _LINES, strict=False):
            axes.plot(range(1, len(values) + 1), values.numpy(), color=colour, label=name)
            axes.plot([len(values)], [float(values[-1])], "o", color=colour)
        axes.set(xscale="log", ylim=(0, 1), ylabel="share it can give")
        axes.grid(color=FAINT)
        axes.set_title(title)
    places[-1].set_xlabel("gradients that may be mixed")
    drawn.legend(*places[0].get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return drawn
