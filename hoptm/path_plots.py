"""Figures of paths in parameter space: maps of experts, triangles of waypoints, angles over outer iterations.

A path has thousands of dimensions and a page has two, so every function here throws something away and its docstring
says what. The three pictures of geometry (`principal_plane`, `own_plane`) are functions of tensors and can be tested;
the others take what a chapter computed and return a matplotlib Figure in the look of `plots`.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, style
from hoptm.shape import three_point_cosines

EXPERTS = ("#0072b2", "#c44e00", "#00795a", "#a23b85", "#8a6100", "#333333", "#5b4fa2", "#b3003c", "#4d7300", "#006d80")
"""One colour an expert; the eleventh expert begins again."""
CORNERS = ("start", "middle", "end")
"""The corners of a triangle of waypoints, in the order of `shape.three_point_cosines`."""


# ---- from many dimensions to two -------------------------------------------------------------------------------


def principal_plane(points: Float[Tensor, "n p"]) -> tuple[Float[Tensor, "n 2"], float]:
    """Coordinates of points in the plane that holds most of their spread, and the share of the spread it holds, 0 to 1.

    Principal components: the plane through the mean along the two directions of largest variance. What lies across
    the plane is lost. Each axis points to the side of its farthest point, so that a figure does not flip from one
    machine to the next. Points that do not spread at all have all coordinates 0 and share 1.
    """
    centred = points - points.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    places = torch.nn.functional.pad(left * sizes, (0, 2))[:, :2]
    farthest = places.gather(0, places.abs().argmax(dim=0, keepdim=True))
    spread = sizes.square()
    return places * torch.where(farthest < 0, -1.0, 1.0).to(places), float(spread[:2].sum() / spread.sum()) if spread.sum() > 0 else 1.0


def own_plane(points: Float[Tensor, "3 p"]) -> Float[Tensor, "3 2"]:
    """A triangle laid flat: start at the origin, end on the first axis to the right, middle above or on that axis.

    Three points always lie in a plane, so lengths and angles stay exactly as they are; only place and turn are lost.
    """
    middle, end = points[1] - points[0], points[2] - points[0]
    base = end.norm()
    along = middle @ end / base if base > 0 else middle.norm()
    above = (middle.square().sum() - along.square()).clamp_min(0).sqrt()
    zero = torch.zeros_like(base)
    return torch.stack([torch.stack([zero, zero]), torch.stack([along, above]), torch.stack([base, zero])])


# ---- experts ---------------------------------------------------------------------------------------------------


@style()
def kept_checkpoints(rows: Mapping[str, tuple[int, Sequence[int]]]) -> Figure:
    """Which checkpoints of an expert a run can read, a line each: name -> (epochs of training, epochs that are read)."""
    drawn = figure(WIDTH, 0.7 + 0.62 * len(rows))
    axes = drawn.subplots()
    widest = max(epochs for epochs, _ in rows.values()) + 1
    for row, (name, (epochs, read)) in enumerate(rows.items()):
        for epoch in range(epochs + 1):
            colour = COLOURS["student"] if epoch in read else FAINT
            axes.add_patch(Rectangle((epoch + 0.08, -row), 0.84, 0.42, facecolor=colour, edgecolor="none"))
        axes.text(0, 0.46 - row, f"{name}: {len(read)} of {epochs + 1}", fontsize=11, va="bottom")
    axes.set(xlim=(0, widest), ylim=(0.9 - len(rows), 0.95), yticks=[], xlabel="checkpoint after epoch")
    ticks = [epoch for epoch in range(0, widest, 10 if widest > 20 else 1)]
    axes.set_xticks([epoch + 0.5 for epoch in ticks], [str(epoch) for epoch in ticks])
    axes.spines["left"].set_visible(False)
    return drawn


@style()
def two_maps(parameters: Float[Tensor, "e k p"], answers: Float[Tensor, "e k q"]) -> Figure:
    """The paths of e experts over k checkpoints, twice: as parameters, starts laid on one point, and by what the networks answer.

    `answers` is any description of a network's output, such as its probabilities on validation images. Each map is
    the principal plane of all points it shows, with its share of their spread; both axes of a map have one scale.
    """
    drawn, places = _maps(parameters, answers, WIDTH)
    _walk_to(drawn, places, parameters.shape[1] - 1.0)
    return drawn


@style()
def two_maps_film(parameters: Float[Tensor, "e k p"], answers: Float[Tensor, "e k q"], frames: int = 4, milliseconds: int = 130) -> bytes:
    """`two_maps` as an animated GIF: all experts walk at once, `frames` pictures from one checkpoint to the next.

    Between checkpoints a dot moves along the straight chord. The last picture stays for two seconds.
    """
    drawn, places = _maps(parameters, answers, 5.2)
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")  # once is enough: nothing but the dots moves
    pictures = []
    for step in range((parameters.shape[1] - 1) * frames + 1):
        _walk_to(drawn, places, step / frames)
        pictures.append(_pixels(drawn))
    shades = np.array([255] * 3 + (Image.fromarray(pictures[-1]).quantize(31).getpalette() or []), dtype=np.int32).reshape(-1, 3)
    film = [_in_shades(picture, shades) for picture in pictures]
    kept = io.BytesIO()
    durations = [milliseconds] * (len(film) - 1) + [2_000]
    film[0].save(kept, format="GIF", save_all=True, append_images=film[1:], duration=durations, loop=0, optimize=True)
    return kept.getvalue()


def _pixels(drawn: Figure) -> np.ndarray:
    kept = io.BytesIO()
    drawn.savefig(kept, format="raw", dpi=110)
    width, height = (round(inches * 110) for inches in drawn.get_size_inches())
    return np.frombuffer(kept.getvalue(), dtype=np.uint8).reshape(height, width, 4)[:, :, :3]


def _in_shades(picture: np.ndarray, shades: np.ndarray) -> Image.Image:
    """The picture in the nearest of a few colours; the first of equals, so that white stays white."""
    names, places = np.unique(picture.astype(np.int64) @ np.array([65_536, 256, 1]), return_inverse=True)
    colours = np.stack([names >> 16, names >> 8 & 255, names & 255], axis=1)
    nearest = np.square(colours[:, None] - shades).sum(axis=2).argmin(axis=1)
    drawn = Image.fromarray(nearest[places].reshape(picture.shape[:2]).astype(np.uint8), "P")
    drawn.putpalette(shades.flatten().tolist())
    return drawn


def _maps(parameters: Tensor, answers: Tensor, width: float) -> tuple[Figure, list[np.ndarray]]:
    """Both maps without their paths, and the coordinates (e, k, 2) of these."""
    drawn, places = figure(width, 0.63 * width), []
    titles = ("parameters, starts together", "answers")
    for axes, title, points in zip(drawn.subplots(1, 2), titles, (parameters - parameters[:, :1], answers), strict=True):
        flat, share = principal_plane(points.flatten(0, 1).double())
        low, high = flat.min(dim=0).values, flat.max(dim=0).values
        half, middle = 0.58 * max(float((high - low).max()), 1e-9), (low + high) / 2
        limits = torch.stack([middle - half, middle + half]).T.tolist()
        axes.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[], title=title)
        axes.set_box_aspect(1)
        axes.set_xlabel(f"this plane holds\n{share:.0%} of the spread", loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(True)
        places.append(flat.view(*points.shape[:2], 2).numpy())
    return drawn, places


def _walk_to(drawn: Figure, places: Sequence[np.ndarray], reach: float) -> None:
    """Draw the paths of both maps anew, up to checkpoint `reach`, which may lie between two."""
    for axes, paths in zip(drawn.axes, places, strict=True):
        for artist in (*axes.lines, *axes.texts):
            artist.remove()
        for expert, path in enumerate(paths):
            _walk(axes, path, expert, reach)


def _walk(axes: Axes, path: np.ndarray, expert: int, reach: float) -> None:
    colour, whole = EXPERTS[expert % len(EXPERTS)], math.floor(reach)
    seen = path[: whole + 1]
    if reach > whole:
        seen = np.concatenate([seen, [path[whole] + (reach - whole) * (path[whole + 1] - path[whole])]])
    axes.plot(*seen.T, color=colour, linewidth=1.8)
    axes.plot(*path[: whole + 1].T, "o", color=colour, markersize=3.5)
    axes.plot(*path[0], "o", color=colour, markersize=7, markerfacecolor="white")
    axes.plot(*seen[-1], "o", color=colour, markersize=12, markeredgecolor="white")
    axes.annotate(str(expert), seen[-1], color="white", fontsize=8, weight="bold", ha="center", va="center_baseline")


@style()
def loss_rise(radii: Sequence[float], rises: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """How much the loss rises with the distance from an expert: a panel a direction, a line an expert.

    `rises` maps a direction to optimisers (`sgd`, `flat`) and these to the rise at each radius. Each panel has its own scale.
    """
    drawn = figure(WIDTH, 3.2)
    for axes, (direction, curves) in zip(np.atleast_1d(drawn.subplots(1, len(rises))), rises.items(), strict=True):
        for optimiser, dash, colour in (("sgd", "-", COLOURS["student"]), ("flat", "--", COLOURS["published"])):
            axes.plot(radii, curves[optimiser], dash, color=colour, label=f"{optimiser} expert")
        axes.set(title=direction, xlabel="distance", xlim=(0, max(radii)))
        axes.axhline(0, color=RECORD, linewidth=1)
        axes.ticklabel_format(axis="y", style="plain")
    drawn.axes[0].set_ylabel("rise of the loss")
    drawn.axes[0].legend(handlelength=1.6)
    return drawn


# ---- the shape of a path ---------------------------------------------------------------------------------------


@style()
def plane_paths(paths: Mapping[str, Float[Tensor, "k 2"]]) -> Figure:
    """Paths that lie in a plane, beside each other, each with the triangle of its first, middle and last point."""
    drawn = figure(WIDTH, 1.9)
    colours = [COLOURS["expert"], COLOURS["student"], *EXPERTS[2:]]
    everything = torch.cat(list(paths.values()))
    low, high = everything.min(dim=0).values, everything.max(dim=0).values
    pad = 0.08 * (high - low).max()
    limits = torch.stack([low - pad, high + pad]).T.tolist()
    for axes, (name, path), colour in zip(np.atleast_1d(drawn.subplots(1, len(paths))), paths.items(), colours, strict=False):
        corners = path[[0, len(path) // 2, -1]]
        axes.fill(*corners.T.numpy(), color=colour, alpha=0.15, linewidth=0)
        axes.plot(*path.T.numpy(), "-o", color=colour, markersize=4)
        axes.plot(*corners.T.numpy(), "o", color=colour, markersize=9)
        axes.set(title=name, xticks=[], yticks=[], xlim=limits[0], ylim=limits[1])
        axes.set_aspect("equal")
        axes.spines[["left", "bottom"]].set_visible(False)
    return drawn


@style()
def entries(cosines: Float[Tensor, "3 3 3"], unit: Sequence[str] = CORNERS) -> Figure:
    """The 27 numbers of the published loss as three tables, one a corner: always 0, always 1, or a cosine."""
    drawn = figure(WIDTH, 2.55)
    short = [word[0] for word in unit]
    for corner, axes in enumerate(drawn.subplots(1, 3)):
        for j in range(3):
            for k in range(3):
                fixed = corner in (j, k) or j == k
                axes.add_patch(Rectangle((k, j), 1, 1, facecolor="#f4f4f4" if fixed else COLOURS["student"], edgecolor="white", linewidth=3))
                text = f"{float(cosines[corner, j, k]):.{0 if fixed else 2}f}".replace("-", "\N{MINUS SIGN}")
                axes.text(k + 0.5, j + 0.5, text, color=RECORD if fixed else "white", fontsize=11, ha="center", va="center")
        axes.set(xlim=(0, 3), ylim=(3, 0), title=f"at the {unit[corner]}", aspect="equal")
        axes.set_xticks([0.5, 1.5, 2.5], short)
        axes.set_yticks([0.5, 1.5, 2.5], short)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    return drawn


@style()
def kites(panels: Mapping[str, tuple[Float[Tensor, "3 p"], Float[Tensor, "3 p"]]]) -> Figure:
    """Triangles of waypoints in their own planes, a panel each: name -> (student, expert).

    The expert's triangle lies above the line, the student's is folded below it, both from the same start, in units of
    the expert's way from start to end; a student of the expert's shape gives a kite that folds onto itself. Angles
    are in degrees. Both axes have one scale.
    """
    laid = {name: (own_plane(student.double()), own_plane(expert.double())) for name, (student, expert) in panels.items()}
    laid = {name: (student / expert[2, 0], expert / expert[2, 0]) for name, (student, expert) in laid.items()}
    everything = torch.cat([torch.cat([expert, student * torch.tensor([1.0, -1.0])]) for student, expert in laid.values()])
    (left, bottom), (right, top) = everything.min(dim=0).values.tolist(), everything.max(dim=0).values.tolist()
    aside, above = 0.17, 0.13
    tall = (top - bottom + 2 * above) * (WIDTH - 0.1) / (right - left + 2 * aside)
    drawn = figure(WIDTH, len(laid) * (tall + 0.3))
    for axes, (name, (student, expert)) in zip(np.atleast_1d(drawn.subplots(len(laid), 1)), laid.items(), strict=True):
        _triangle(axes, expert, "expert", 1)
        _triangle(axes, student, "student", -1)
        axes.annotate("start", (0, 0), (-9, 0), textcoords="offset points", ha="right", va="center_baseline")
        axes.annotate("end", (max(1.0, float(student[2, 0])), 0), (9, 0), textcoords="offset points", ha="left", va="center_baseline")
        axes.set(xlim=(left - aside, right + aside), ylim=(bottom - above, top + above), title=name)
        axes.set_aspect("equal")
        axes.set_axis_off()
    return drawn


def _triangle(axes: Axes, corners: Float[Tensor, "3 2"], name: str, side: int) -> None:
    """One triangle with its angles; `side` is 1 above the line and -1 below it."""
    colour = {"expert": INK, "student": COLOURS["student"]}[name]
    degrees = torch.rad2deg(torch.acos(three_point_cosines(corners).clamp(-1, 1)))
    places = (corners * torch.tensor([1.0, side])).tolist()
    axes.fill(*zip(*places, strict=True), facecolor=colour, alpha=0.12, linewidth=0)
    axes.plot(*zip(*places, places[0], strict=True), color=colour, linewidth=1.8)
    axes.plot(*zip(*places, strict=True), "o", color=colour, markersize=6)
    for corner, (place, shift, aligned) in enumerate(zip(places, ((10, 17), (0, 9), (-10, 17)), ("left", "center", "right"), strict=True)):
        text = f"{float(degrees[corner]):.0f}°"
        if corner == 1:
            text = f"{name} {text}"
        where = (shift[0], side * shift[1])
        axes.annotate(text, place, where, textcoords="offset points", color=colour, ha=aligned, va="bottom" if side > 0 else "top")


@style()
def cosines_over_time(arms: Mapping[str, Float[Tensor, "i 3"]]) -> Figure:
    """How far each of the three cosines of the student is from the expert's, over outer iterations: a panel a corner.

    `arms` maps up to three names to student minus expert in each iteration: dots, and their running mean as a line.
    """
    drawn = figure(WIDTH, 5.4)
    rows = drawn.subplots(3, 1, sharex=True)
    looks = ((COLOURS["endpoint"], "-"), (COLOURS["published"], "--"), (COLOURS["full"], "-"))
    for corner, axes in enumerate(rows):
        for (name, differences), (colour, dash) in zip(arms.items(), looks, strict=False):
            values = differences[:, corner].numpy()
            axes.plot(values, "o", color=colour, markersize=3.5, alpha=0.3, markeredgewidth=0)
            axes.plot(running_mean(values), dash, color=colour, label=name)
        axes.axhline(0, color=RECORD, linewidth=1)
        axes.set_title(f"at the {CORNERS[corner]}")
        axes.margins(y=0.15)
    drawn.supylabel("cosine, student minus expert", fontsize=12)
    rows[2].set_xlabel("outer iteration")
    drawn.legend(*rows[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(arms), columnspacing=1.2, handlelength=1.6)
    return drawn


def running_mean(values: np.ndarray, share: int = 10) -> np.ndarray:
    """The mean of each value and its neighbours on both sides, `1 / share` of the whole at most on each."""
    reach = len(values) // share
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in range(len(values))])
