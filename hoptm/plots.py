"""Every figure of the book has one look: this module holds it, and the figures of sets of images and of their scores.

A function takes records, a set or snapshots and returns a matplotlib Figure, which a notebook shows as the last value
of a cell. Each arm keeps one colour through the whole book; stored records are grey, the run of the reader has colour.
Figures are narrow and their letters large, so that they can be read on a telephone; their ground is white and opaque.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from hoptm.intervals import Interval, interval
from hoptm.records import Record
from hoptm.results import NAMES as NAMES
from hoptm.results import by_seed, gain, select
from hoptm.synthetic import SyntheticSet

Pixels: TypeAlias = UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
"""Images to look at: 0 .. 255 as bytes, or 0 .. 1 as floats."""

INK, RECORD, FAINT = "#333333", "#7a7a7a", "#dddddd"
"""Letters and axes, stored records and the expert, and lines that only guide the eye."""
COLOURS = {
    "endpoint": "#0072b2",
    "published": "#c44e00",
    "extended": "#b3123f",
    "latent": "#5b3fa8",
    "latent-prior": "#7a46c0",
    "latent-shape": "#3f3a8a",
    "half": "#2a6a9a",
    "shape": "#9c5b1f",
    "progressive": "#7f6a3f",
    "published-bare": "#47677c",
    "fresh": "#6f4f2f",
    "quantile": "#8f6a1f",
    "layers": "#7a5f5f",
    "growing": "#5f6f2f",
    "each-step": "#2f5f8f",
    "momentum-experts": "#4f5f7f",
    "long": "#4f4f6f",
    "student-momentum": "#2f6f7f",
    "with-outcome": "#7f4f6f",
    "rising": "#1f6f6f",
    "prior": "#6f5f5f",
    "balanced": "#5f6f5f",
    "budgets": "#7f5f3f",
    "aware": "#6f6f3f",
    "averaged-experts": "#3f6f6f",
    "teacher": "#1f6f4f",
    "learned": "#2f6f3f",
    "latent-path": "#6a3f8f",
    "latent-kmeans": "#5f4f9f",
    "latent-draws": "#4f3f7f",
    "random-teacher": "#7f6f1f",
    "positions": "#3f6f8f",
    "velocity": "#1f7f8f",
    "curvature": "#2f6f5f",
    "torsion": "#4f6f2f",
    "adaptive": "#35508f",
    "outcome": "#8f3f6f",
    "ftd": "#3f7fbf",
    "tesla": "#7f7f2f",
    "datm": "#2f7f5f",
    "dm": "#6a4f9c",
    "dsa": "#4a6a1f",
    "dc": "#6f6f1f",
    "herding": "#8f5a4f",
    "kcentre": "#5f5f5f",
    "kmeans": "#4f4f8f",
    "natural": "#7a5a2f",
    "kmeans-decode": "#7a3f6f",
    "reconstruction": "#3f5f7a",
    "upsampled": "#6f5f3f",
    "start": "#a23b85",
    "random": "#8a6100",
    "full": "#00795a",
    "ceiling": "#3f7a4f",
    "student": "#0072b2",
    "expert": RECORD,
}
"""One colour an arm; each can be told from the others by the colour-blind and is dark enough for letters on white."""
WIDTH = 5.8
"""Inches; with `figure.dpi` this is 603 pixels, which fits a page and stays sharp on a telephone."""
SCORE_NAMES = {"auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
STYLE: dict[Any, Any] = {
    "figure.dpi": 104,
    "figure.facecolor": "#ffffff",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "#ffffff",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "#ffffff",
    "grid.color": FAINT,
    "lines.linewidth": 2.0,
    "lines.markersize": 7,
    "lines.solid_capstyle": "round",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


@contextmanager
def style() -> Iterator[None]:
    """The look, for as long as a `with` block lasts, or for a function that is decorated with it: `@style()`."""
    with mpl.rc_context(STYLE):
        yield


def figure(width: float = WIDTH, height: float = 3.2) -> Figure:
    """An empty figure in the book's look, in inches. It is open in no window: a notebook shows it once, as the last value of a cell.

    Draw on it within `style()`, so that axes and letters get the look too.
    """
    with style():
        empty = plt.figure(figsize=(width, height))
    plt.close(empty)
    return empty


# ---- sets of images --------------------------------------------------------------------------------------------


def mosaic(pixels: Pixels, columns: int, gap: int = 2) -> UInt8[np.ndarray, "rows wide 3"]:
    """The images side by side in rows of `columns`, white between them, as one picture in colour."""
    whole = pixels if pixels.dtype.is_floating_point else pixels / 255
    shown = np.round(whole.detach().cpu().clamp(0, 1).numpy() * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    count, size = len(shown), shown.shape[1] + gap
    rows = -(-count // columns)
    picture = np.full((rows * size - gap, min(columns, count) * size - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(shown):
        top, left = index // columns * size, index % columns * size
        picture[top : top + size - gap, left : left + size - gap] = image
    return picture


@style()
def gallery(pixels: Pixels, labels: Int64[Tensor, "n"], class_names: Sequence[str], columns: int = 5) -> Figure:
    """Images sorted by class, each class under its name, at most `columns` images beside one another."""
    counts = {label: int((labels == label).sum()) for label in range(len(class_names)) if (labels == label).any()}
    wide = min(columns, max(counts.values()))
    letters = 0.11 * max(len(class_names[label]) for label in counts)
    across, rows = max(1, min((columns + 1) // wide, int(WIDTH / letters))), -(-max(counts.values()) // wide)
    down = -(-len(counts) // across)
    side = WIDTH / wide if across == 1 else 0.75
    drawn = figure(across * max(wide * side, letters), down * (rows * side + 0.34))
    panels = drawn.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(counts) :]:
        axes.set_axis_off()
    for axes, label in zip(panels, counts, strict=False):
        _picture(axes, mosaic(pixels[labels == label], wide), class_names[label])
    return drawn


def _picture(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, pad=3)
    axes.set_axis_off()
    axes.set_anchor("NW")


@style()
def hospital(made: SyntheticSet, this_run: Mapping[str, float], records: Sequence[Record], score: str = "auc") -> Figure:
    """A small set beside what networks trained on it score: each arm's stored seeds in grey, this run in the arm's colour.

    `this_run` maps arms of `results.NAMES` to a test score at the set's own number of images a class. Records of
    another data set or profile are left out, and so are images beyond the first twenty, shared among the classes.
    """
    arms = _stored_arms(records, made.info["source"]["name"], made.info["config"].get("profile", "fast"))
    rows: dict[tuple[int, str], list[Record]] = {(made.info["ipc"], method): [] for method in this_run} | arms
    order = sorted(rows, key=lambda row: (row[0] != 0, -row[0], list(NAMES).index(row[1])))
    height = max(4.2, 0.9 + 0.42 * (len(order) + 1.2 * len({ipc for ipc, _ in order if ipc})))
    drawn = figure(WIDTH, height)
    grid = drawn.add_gridspec(1, 2, width_ratios=(2, 3))
    left, right = (drawn.add_subfigure(grid[0, at]) for at in (0, 1))
    _made_grid(left, made, height - 0.9)
    axes = right.subplots()
    _dot_rows(axes, {row: rows[row] for row in order}, made.info["ipc"], this_run, score)
    axes.set_xlabel(f"test {SCORE_NAMES[score]}")
    origin = _origin([record for found in rows.values() for record in found]) + ("colour: this run" if this_run else "")
    drawn.supxlabel(origin.rstrip(), x=0.01, ha="left", fontsize=11)
    return drawn


def _made_grid(part: SubFigure, made: SyntheticSet, height: float) -> None:
    """The images of a set: a few classes each under its name, many classes each in a row beside its name."""
    names = made.info["class_names"]
    shown = [made.standardisation.invert(made.images[made.labels == label][: max(1, 20 // made.classes)]) for label in range(made.classes)]
    counts = [len(images) for images in shown]
    if made.classes <= 4:
        columns = _columns(counts, 0.38 * WIDTH, height)
        panels = part.subplots(made.classes, 1, height_ratios=[max(1, -(-count // columns)) for count in counts])
        for axes, images, name in zip(np.atleast_1d(panels), shown, names, strict=True):
            _picture(axes, mosaic(images, columns), name)
        return
    white = torch.ones(max(counts), *made.images.shape[1:])
    rows = mosaic(torch.cat([torch.cat([images, white])[: max(counts)] for images in shown]), max(counts))
    axes = part.subplots()
    axes.imshow(rows)
    axes.set_anchor("NW")
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * len(rows) / len(names) for row in range(len(names))], names)
    axes.tick_params(length=0)


def _columns(counts: Sequence[int], width: float, height: float) -> int:
    """The fewest images in a row with which all classes, each under its name, fit into so many inches."""
    fitting = (columns for columns in range(1, 21) if sum(-(-count // columns) for count in counts) * width / columns + 0.3 * len(counts) <= height)
    return next(fitting, 20)


def _stored_arms(records: Sequence[Record], dataset: str, profile: str) -> dict[tuple[int, str], list[Record]]:
    """Records by (images a class, arm); 0 stands for all images."""
    keys = sorted({(record.ipc, record.method) for record in records if record.method in NAMES})
    arms = {(ipc, method): select(records, dataset=dataset, method=method, ipc=ipc, profile=profile) for ipc, method in keys}
    return {key: found for key, found in arms.items() if found}


def _dot_rows(axes: Axes, rows: Mapping[tuple[int, str], list[Record]], ipc: int, this_run: Mapping[str, float], score: str) -> None:
    """One line of dots an arm, its name above it, under a heading for each number of images a class."""
    height, headed = 0.0, None
    for (images, method), found in rows.items():
        if images not in (headed, 0):
            headed, height = images, height - 0.7
            axes.text(0, height + 0.45, f"{images} image{'s' if images > 1 else ''} a class", transform=axes.get_yaxis_transform(), weight="bold")
            height -= 0.45
        axes.text(0, height + 0.16, NAMES[method], transform=axes.get_yaxis_transform(), fontsize=11, color=COLOURS[method], va="bottom")
        values = list(by_seed(found, score).values())
        if values:
            axes.plot(values, [height] * len(values), "o", color=RECORD, alpha=0.4, markersize=5, markeredgewidth=0)
        if len(values) > 1:
            _whisker(axes, interval(values), height)
        if images == ipc and method in this_run:
            axes.plot([this_run[method]], [height], "D", color=COLOURS[method], markersize=8, markeredgecolor="white", label=method)
        height -= 1
    axes.set_ylim(height + 0.5, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _whisker(axes: Axes, found: Interval, height: float, face: str = RECORD) -> None:
    axes.plot([found.low, found.high], [height, height], "-", color=RECORD, linewidth=3)
    axes.plot([found.mean], [height], "o", color=RECORD, markerfacecolor=face, markersize=8)


def _origin(records: Sequence[Record]) -> str:
    """Which machine and commit the grey marks come from, or that there are none."""
    if not records:
        return "no stored records for these settings\n"
    devices, commits = (sorted({getattr(record, name) for record in records}) for name in ("device", "commit"))
    more = f" and {len(commits) - 1} more" if len(commits) > 1 else ""
    return f"grey: stored seeds, their mean and 95 % interval\n({'; '.join(devices)};\ncommit {commits[0]}{more})\n"


@style()
def gains(
    records: Sequence[Record], *, dataset: str, ipcs: Sequence[int], pairs: Sequence[tuple[str, str]], score: str = "auc", profile: str = "fast"
) -> Figure:
    """What one arm gains over another, paired seed by seed: mean and 95 % interval, hollow where the interval holds zero.

    Raises DataError as `results.gain` does.
    """
    drawn = figure(WIDTH, 1.2 + 0.5 * len(ipcs) * len(pairs))
    axes, height = drawn.subplots(), 0.0
    used: list[Record] = []
    for ipc in ipcs:
        for first, second in pairs:
            found = gain(records, score, dataset=dataset, first=first, second=second, ipc=ipc, profile=profile)
            _whisker(axes, found, height, "white" if found.low <= 0 <= found.high else RECORD)
            words = f"{NAMES[first]} against {NAMES[second]}, {ipc} a class"
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(0, height + 0.2, words, transform=axes.get_yaxis_transform(), fontsize=11, va="bottom", bbox=ground)
            used += [record for method in (first, second) for record in select(records, dataset=dataset, method=method, ipc=ipc, profile=profile)]
            height -= 1
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_ylim(height + 0.4, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"gain in test {SCORE_NAMES[score]}")
    drawn.supxlabel(_origin(used).rstrip(), x=0.01, ha="left", fontsize=11)
    return drawn
