"""Figures of a set as it forms: film strip, animation, step size and validation, and how close the student comes.

They take what a callback of `distill.distill` can collect, and share the look of `plots`.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from hoptm.errors import DataError
from hoptm.outer import Look
from hoptm.plots import COLOURS, INK, RECORD, SCORE_NAMES, WIDTH, Pixels, figure, mosaic, style
from hoptm.results import NAMES

Snapshot: TypeAlias = tuple[int, Pixels]
"""Outer iterations done, and the images then."""

_SHADES = 24
"""Colours of an animation; few keep the file small."""


def dense_early(snapshots: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """At most `count` of the snapshots, the first and the last among them, close together at first, when most happens."""
    last, parts = len(snapshots) - 1, max(count - 1, 1)
    return [snapshots[at] for at in dict.fromkeys(round(last * (part / parts) ** 2) for part in range(parts + 1))]


@style()
def film_strip(snapshots: Sequence[Snapshot], history: Sequence[Look], names: Sequence[str] = ()) -> Figure:
    """A row of pictures for each image, with its name, above the loss of every iteration and its running mean.

    Each picture stands over its own iteration: the axis is straight between two snapshots, however far apart they are.
    Raises DataError for fewer than two snapshots, or iterations that do not ascend.
    """
    done = [iteration for iteration, _ in snapshots]
    if len(done) < 2 or any(after <= before for before, after in pairwise(done)):
        raise DataError(f"a film strip needs two snapshots or more, of ascending iterations, not {done}.")
    count, columns, margin = len(snapshots[0][1]), len(done), 0.75
    width = WIDTH - margin - 0.1
    film_height = count * width / columns
    height = film_height + 2.6
    drawn = figure(WIDTH, height)
    drawn.set_layout_engine("none")
    film = drawn.add_axes((margin / WIDTH, 2.55 / height, width / WIDTH, film_height / height))
    for column, (_, pixels) in enumerate(snapshots):
        for row in range(count):
            film.imshow(mosaic(pixels[row : row + 1], 1), extent=(column - 0.47, column + 0.47, -row - 0.97, -row - 0.03), aspect="auto")
    film.set(xlim=(-0.5, columns - 0.5), ylim=(-count, 0))
    film.set_axis_off()
    for row, name in enumerate(names):
        film.text(-0.55, -row - 0.5, name, rotation=90, ha="right", va="center", fontsize=11)
    axes = drawn.add_axes((margin / WIDTH, 0.6 / height, width / WIDTH, 1.85 / height))
    losses = np.array([look.total for look in history])
    places = np.interp([look.iteration for look in history], done, range(columns))
    axes.plot(places, losses, "o", color=COLOURS["student"], alpha=0.25, markersize=4, markeredgewidth=0)
    axes.plot(places, _running_mean(losses), color=COLOURS["student"])
    axes.set(xlim=(-0.5, columns - 0.5), xlabel="outer iterations done", ylabel="end-point loss")
    axes.set_xticks(range(columns), [str(iteration) for iteration in done])
    axes.grid()
    return drawn


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours, an eighth of the whole at most."""
    reach = len(values) // 16
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in range(len(values))])


def forming(snapshots: Sequence[Snapshot], columns: int = 2, scale: int = 5, milliseconds: int = 150) -> bytes:
    """An animated GIF of the images forming, a bar under them as the clock; the last frame stays for two seconds."""
    last = max(done for done, _ in snapshots)
    pictures = [_with_bar(mosaic(pixels, columns), done / max(last, 1)) for done, pixels in snapshots]
    shades = Image.fromarray(np.concatenate([pictures[0], pictures[-1]])).quantize(_SHADES)
    size = (pictures[0].shape[1] * scale, pictures[0].shape[0] * scale)
    frames = [Image.fromarray(one).quantize(palette=shades, dither=Image.Dither.NONE).resize(size, Image.Resampling.NEAREST) for one in pictures]
    kept = io.BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [2_000]
    frames[0].save(kept, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return kept.getvalue()


def _with_bar(picture: np.ndarray, share: float) -> np.ndarray:
    """The picture over a bar as long as the share of the work that is done."""
    bar = np.full((3, picture.shape[1], 3), 255, dtype=np.uint8)
    bar[1:, : round(share * picture.shape[1])] = [int(COLOURS["student"][at : at + 2], 16) for at in (1, 3, 5)]
    return np.concatenate([picture, bar])


@style()
def progress(history: Sequence[Look], looks: Sequence[Mapping[str, int | float]], score: str = "auc") -> Figure:
    """The step size that is learned with the images, and the looks at validation with a ring round the one that was kept."""
    drawn = figure(WIDTH, 4.2)
    above, below = drawn.subplots(2, 1, sharex=True)
    above.plot([look.iteration for look in history], [look.lr for look in history], color=COLOURS["student"])
    above.set_ylabel("step size")
    iterations, values = [look["iteration"] for look in looks], [look[score] for look in looks]
    best = values.index(max(values))
    below.plot(iterations, values, "o-", color=INK, linewidth=1)
    below.plot(iterations[best], values[best], "o", color="none", markeredgecolor=COLOURS["published"], markersize=15, markeredgewidth=2)
    below.annotate("kept", (iterations[best], values[best]), (0, -12), textcoords="offset points", ha="center", va="top", color=COLOURS["published"])
    below.margins(y=0.35)
    below.set(xlabel="outer iterations done", ylabel=f"validation {SCORE_NAMES[score]}")
    return drawn


@style()
def approach(curves: Mapping[str, Float[Tensor, "m t"]]) -> Figure:
    """How far a student is from the expert's end after each inner step, in units of the expert's own way.

    Curves map arms of `results.NAMES` to distances of m segments after steps 0 .. t - 1: each thin, their mean thick.
    """
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    for method, distances in curves.items():
        axes.plot(distances.T.numpy(), color=COLOURS[method], linewidth=0.8, alpha=0.35)
        mean = distances.mean(dim=0).numpy()
        axes.plot(mean, color=COLOURS[method], linewidth=2.5)
        up = all(mean[-1] >= other.mean(dim=0)[-1] for other in curves.values())
        where, side = (0, 8 if up else -8), "bottom" if up else "top"
        axes.annotate(NAMES[method], (len(mean) - 1, mean[-1]), where, textcoords="offset points", color=COLOURS[method], ha="right", va=side)
    axes.axhline(1, color=RECORD, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="inner step", ylabel="distance to the expert's end", ylim=(0, None))
    return drawn
