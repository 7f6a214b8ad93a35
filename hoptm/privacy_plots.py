"""Figures of what leaks: images beside their nearest patients, ranks of initialisers, curves of an attack, areas with what chance looks like.

Each function takes what a chapter or an audit computed and returns a matplotlib Figure in the look of `plots`.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from hoptm.membership import Roc
from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, style

ARMS = {
    "random": COLOURS["random"],
    "full": COLOURS["full"],
    "pixel-real": COLOURS["published"],
    "pixel-noise": "#0072b2",
    "pixel-mean": "#4d7300",
    "pixel-vae": "#a23b85",
    "latent": COLOURS["latent"],
    "dp-1": "#7f6a3f",
    "dp-4": "#5f5f5f",
    "dp-10": "#35508f",
    "dp-sgd": "#b3123f",
}
"""One colour an arm of an audit."""
NAMES = {
    "random": "real random subset",
    "full": "model of all images",
    "pixel-real": "pixels, from real images",
    "pixel-noise": "pixels, from noise",
    "pixel-mean": "pixels, from class means",
    "pixel-vae": "pixels, from VAE samples",
    "latent": "latent codes",
    "dp-1": "DP set, $\\varepsilon = 1$",
    "dp-4": "DP set, $\\varepsilon = 4$",
    "dp-10": "DP set, $\\varepsilon = 10$",
    "dp-sgd": "DP-SGD model",
}
TRUE = COLOURS["published"]


def _show(axes: Axes, image: Tensor) -> None:
    shown = image.permute(1, 2, 0).clamp(0, 1).numpy()
    axes.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


@style()
def neighbours(
    images: Float[Tensor, "n c h w"], real: Float[Tensor, "m c h w"], found: Int64[Tensor, "n k"], distances: Float[Tensor, "n k"], started: Sequence[int]
) -> Figure:
    """Each image (0 .. 1, left) beside its nearest real images, nearest first; the one it started from has a frame, and its distance is bold.

    `found` and `distances` are those of `retrieval.nearest`, `started` the index of each one's initialiser (-1: none).
    """
    rows, columns = found.shape
    drawn = figure(WIDTH, 0.45 + 1.16 * rows)
    axes = drawn.subplots(rows, columns + 1, squeeze=False)
    for row in range(rows):
        _show(axes[row, 0], images[row])
        for column in range(columns):
            place, index = axes[row, column + 1], int(found[row, column])
            _show(place, real[index])
            own = index == started[row]
            place.set_xlabel(f"{float(distances[row, column]):.3f}", color=TRUE if own else INK, fontweight="bold" if own else "normal", labelpad=2)
            if own:
                height, width = real.shape[2:]
                place.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=TRUE, linewidth=4))
    axes[0, 0].set_title("synthetic")
    axes[0, 1].set_title("nearest in train, with distance").set_in_layout(False)  # it is wider than its image
    return drawn


@style()
def ranks(sets: Mapping[str, tuple[Sequence[int], int]]) -> Figure:
    """Where the true initialiser of each image stands in the list of real ones: one row a set, one dot an image, on a logarithmic axis.

    `sets` maps a name to the ranks (0 is the nearest) and how many candidates there are. The shaded half is where half of the guesses would lie.
    """
    drawn = figure(WIDTH, 0.95 + 0.62 * len(sets))
    axes = drawn.subplots()
    most = max(candidates for _, candidates in sets.values())
    axes.axvspan(most / 2, most, color=FAINT, lw=0)
    axes.text(most / 2 * 0.93, -0.72, "half of all guesses \u2192", ha="right", va="center", color=RECORD, fontsize=11)
    for row, (_, (places, _)) in enumerate(sets.items()):
        shift = torch.linspace(-0.24, 0.24, len(places))
        axes.plot(torch.tensor(sorted(places)) + 1, row + shift, "o", color=TRUE, markersize=5, alpha=0.75, mew=0)
    axes.set_yticks(range(len(sets)), list(sets))
    axes.set(xscale="log", xlim=(0.8, most), ylim=(len(sets) - 0.5, -1.0), xlabel="place of the true initialiser (1: the nearest of all)")
    axes.tick_params(axis="y", length=0)
    return drawn


@style()
def curves(found: Mapping[str, Roc], lowest: float) -> Figure:
    """True against false positive rate of an attack, both logarithmic, from `lowest` on: below, too few scores stand behind a rate.

    Names in `ARMS` have their colours; the names are written at the right, in the order of the curves at the left end.
    """
    drawn = figure(WIDTH, 3.9)
    axes = drawn.subplots()
    axes.plot([lowest, 1], [lowest, 1], "--", color=RECORD, lw=1.2)
    starts = []
    for name, curve in found.items():
        seen = curve.fpr >= lowest
        colour = ARMS.get(name, INK)
        axes.plot(curve.fpr[seen], curve.tpr[seen].clamp_min(lowest), color=colour, drawstyle="steps-post")
        starts.append((float(curve.tpr[seen][0].clamp_min(lowest)), name, colour))
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.05), xlabel="false positive rate", ylabel="true positive rate")
    ordered = sorted([*starts, (lowest, "guessing", RECORD)], reverse=True)
    for place, (_, name, colour) in enumerate(ordered):
        axes.text(1.03, 0.97 - 0.087 * place, NAMES.get(name, name), color=colour, transform=axes.transAxes, va="top", fontsize=11)
    return drawn


@style()
def areas(rows: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """AUCs of an attack, one panel a group of images, one row an arm; behind each dot the range where it lies by chance in 95 % of tosses.

    `rows` maps a group to arms, and each to (AUC, lower and upper end of chance). A dot far to the right of its bar is a leak; at its edge may be luck.
    """
    names = list(next(iter(rows.values())))
    lowest = min(0.33, *(value for arms in rows.values() for one in arms.values() for value in one))
    drawn = figure(WIDTH, 1.2 + 0.34 * len(names))
    panels = drawn.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for panel, (group, arms) in zip(panels, rows.items(), strict=True):
        panel.axvline(0.5, color=RECORD, lw=1, ls="--")
        for row, name in enumerate(names):
            area, low, high = arms[name]
            panel.plot([low, high], [row, row], color=FAINT, lw=9, solid_capstyle="butt")
            panel.plot(area, row, "o", color=ARMS.get(name, INK))
        panel.set_title(group.replace(" ", "\n"))
        panel.set(xlim=(lowest - 0.05, 1.08), xticks=[0.5, 1], xlabel="AUC", ylim=(len(names) - 0.5, -0.5))
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
    for label, name in zip(panels[0].get_yticklabels(), names, strict=True):
        label.set_color(ARMS.get(name, INK))
    return drawn
