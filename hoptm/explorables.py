"""Figures that answer to their reader: a path to deform, masks to walk through, a film to stop.

Each is a small page fragment of its own: a still picture with alt text, the data that `hoptm` computed, and one plain script, `explorables.js`,
that draws in the picture's place. It asks nothing of a network, works by keyboard, and where no script may run the still picture stays.
What the script computes itself, the losses of two paths, is held to `hoptm` by a test in a browser; all else it reads.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from hoptm import orders, path_losses, progressive
from hoptm.errors import DataError
from hoptm.order_plots import MASKS, ORDERS, UNSEEN, short
from hoptm.path_losses import PathLoss
from hoptm.plots import COLOURS, FAINT, INK, RECORD, WIDTH, figure, style

LOSSES: dict[str, PathLoss] = {
    "end point": path_losses.end_point,
    "between": orders.between,
    "shape": lambda student, expert: path_losses.shape(_three(student), _three(expert)),
    "velocity": orders.velocity,
    "curvature": orders.of_order(2),
    "torsion": orders.of_order(3),
    "order 4": orders.of_order(4),
}
"""What `path` shows of two paths, by name; the script has the same names."""
SCRIPT = files("hoptm").joinpath("explorables.js")
ABSOLUTE = ("sticky", "fresh")
"""Masks that the threshold decides."""
_SHADES = 48
"""Colours of a film; few keep it small."""
_GREY = "#6e6e6e"
"""The expert's grey, dark enough for small letters."""


@dataclass(frozen=True)
class Explorable:
    """A figure as HTML: as the last value of a cell a notebook shows it. `alt` says what the still picture shows."""

    kind: str
    alt: str
    still: bytes
    data: Mapping[str, Any]

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self.still).decode()
        data = json.dumps(self.data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        return (
            f'<div class="explorable" data-explorable="{self.kind}">\n<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{picture}">\n'
            f'<script type="application/json">{data}</script>\n<script>\n{SCRIPT.read_text(encoding="utf-8")}</script>\n</div>'
        )

    def __repr__(self) -> str:
        return f"<Explorable {self.kind}>"


def path(expert: Float[Tensor, "5 2"], paths: Mapping[str, Float[Tensor, "5 2"]], alt: str) -> Explorable:
    """A student's path in a plane that the reader deforms, beside what each of `LOSSES` says of it.

    `paths` maps names of deformations to the deformed path; the first is shown at first. All begin where the expert begins. The expert should go from
    about 0 to 2 along the first axis and stay within 1 of it. Raises DataError for a path that begins elsewhere.
    """
    plain = {name: _rounded(points) for name, points in {"": expert, **paths}.items()}
    road = plain.pop("")
    for name, points in plain.items():
        if points[0] != road[0]:
            raise DataError(f"the path {name!r} begins at {points[0]}, the expert at {road[0]}. Both paths must begin at one point.")
    first = next(iter(plain))
    colours = {**ORDERS, "end point": ORDERS["endpoint"], "student": COLOURS["student"]}
    data = {"expert": road, "paths": plain, "first": first, "colours": colours, "ink": INK, "grey": _GREY}
    return Explorable("orders", alt, _png(_still_path(torch.tensor(road).double(), torch.tensor(plain[first]).double(), colours)), data)


def masks(
    errors: Sequence[Float[Tensor, "p"]], used: Mapping[str, Sequence[Bool[Tensor, "p"]]], limits: Sequence[float], alive: Bool[Tensor, "p"], alt: str
) -> Explorable:
    """Histograms of the living parameters' squared errors, one an outer iteration, with the part that each mask has in use.

    `used` maps masks (names in `order_plots.MASKS`) to one mask an iteration, `limits` is the threshold of each iteration. Shares are
    `progressive.utilisation`'s. Errors of 0 stand in the leftmost bar. Raises DataError when there are not as many of each as iterations.
    """
    counts = {len(errors), len(limits), *map(len, used.values())}
    if len(counts) > 1 or not errors:
        raise DataError(f"errors, limits and each mask must have one entry an iteration; there are {sorted(counts)}.")
    living = [found[alive].double() for found in errors]
    low = min(float(found[found > 0].quantile(0.002)) for found in living)
    edges = np.linspace(math.floor(math.log10(low)), math.ceil(math.log10(max(float(found.max()) for found in living))), 41)
    binned = [_binned(found, edges) for found in living]
    parts = {
        name: {
            "counts": [torch.bincount(bins[mask[alive]], minlength=40).tolist() for bins, mask in zip(binned, of, strict=True)],
            "shares": [progressive.utilisation(mask, alive) for mask in of],
        }
        for name, of in used.items()
    }
    data = {
        "edges": edges.round(4).tolist(), "total": [torch.bincount(bins, minlength=40).tolist() for bins in binned], "limits": list(limits),
        "masks": parts, "absolute": ABSOLUTE, "first": len(limits) // 4, "colours": MASKS, "ink": INK, "faint": FAINT,
    }  # fmt: skip
    return Explorable("masks", alt, _png(_still_masks(data, next(iter(used)))), data)


def film(gif: bytes, labels: Sequence[str], alt: str) -> Explorable:
    """A film to play, stop and walk through, a label a frame; it stands on its last frame, which is also the still picture.

    `gif` is what `film_plots.forming` and `path_plots.two_maps_film` give. Each frame is kept as what changed since the one before.
    Raises DataError when there are not as many labels as frames.
    """
    opened = Image.open(io.BytesIO(gif))
    moments = range(getattr(opened, "n_frames", 1))
    if len(moments) != len(labels):
        raise DataError(f"a film needs a label for each frame; there are {len(moments)} frames and {len(labels)} labels.")
    frames, milliseconds = [], []
    for moment in moments:
        opened.seek(moment)
        frames.append(np.asarray(opened.convert("RGB")))
        milliseconds.append(int(opened.info.get("duration", 100)))
    shades = Image.fromarray(np.concatenate([frames[0], frames[-1]])).quantize(_SHADES)
    flat = [np.asarray(Image.fromarray(frame).quantize(palette=shades, dither=Image.Dither.NONE)) for frame in frames]
    changes = [np.where(now == before, _SHADES, now).astype(np.uint8) for before, now in pairwise(flat)]
    pictures = [base64.b64encode(_shaded(picture, shades)).decode() for picture in (flat[0], *changes)]
    height, width = flat[0].shape
    data = {"pictures": pictures, "labels": list(labels), "width": width, "height": height, "milliseconds": milliseconds[0]}
    return Explorable("film", alt, _shaded(flat[-1], shades), data)


def _three(path: Tensor) -> Tensor:
    return path[[0, len(path) // 2, -1]]


def _rounded(points: Float[Tensor, "5 2"]) -> list[list[float]]:
    return [[round(float(value), 9) for value in point] for point in points]


def _binned(errors: Float[Tensor, "p"], edges: np.ndarray) -> Tensor:
    """The bin of each error; what lies outside goes into the nearest."""
    places = errors.clamp_min(torch.finfo(torch.float64).tiny).log10()
    return torch.bucketize(places, torch.from_numpy(edges[1:-1]), right=True)


@style()
def _still_path(expert: Tensor, student: Tensor, colours: Mapping[str, str]) -> Figure:
    drawn = figure(WIDTH, 2.7)
    plane, bars = drawn.subplots(1, 2)
    for points, colour, size, name in ((expert, RECORD, 7.0, "expert"), (student, COLOURS["student"], 5.0, "student")):
        plane.plot(*points.T.numpy(), "-o", color=colour, markersize=size, label=name)
    plane.set(xlim=(-0.3, 2.3), ylim=(-1.15, 1.15), xticks=[], yticks=[])
    plane.legend(loc="lower left", handlelength=1.2)
    values = {name: float(loss(student, expert)) for name, loss in LOSSES.items()}
    lengths = [math.sqrt(min(1.0, value)) if value >= UNSEEN else 0.0 for value in values.values()]
    bars.barh(list(values), lengths, color=[colours.get(name, RECORD) for name in values], height=0.5)
    for row, (value, length) in enumerate(zip(values.values(), lengths, strict=True)):
        bars.annotate(short(value), (length, row), (3, 0), textcoords="offset points", va="center", fontsize=11)
    bars.set(xlim=(0, 1.3), xticks=[])
    bars.invert_yaxis()
    return drawn


@style()
def _still_masks(data: Mapping[str, Any], name: str) -> Figure:
    drawn, at = figure(WIDTH, 2.9), data["first"]
    axes = drawn.subplots()
    left, wide = np.array(data["edges"][:-1]), np.diff(data["edges"])
    axes.bar(left, data["total"][at], wide, align="edge", color=FAINT)
    axes.bar(left, data["masks"][name]["counts"][at], wide, align="edge", color=MASKS[name])
    axes.axvline(math.log10(data["limits"][at]), color=MASKS["sticky"])
    axes.set_title(f"{name}, iteration {at}: {data['masks'][name]['shares'][at]:.0%} in use")
    axes.set(yticks=[], xlabel="squared error of a parameter, power of ten")
    return drawn


def _png(drawn: Figure) -> bytes:
    kept = io.BytesIO()
    drawn.savefig(kept, format="png", metadata={"Software": None})
    picture, smaller = Image.open(kept).convert("RGB").quantize(64, dither=Image.Dither.NONE), io.BytesIO()
    picture.save(smaller, format="PNG", optimize=True)
    return smaller.getvalue()


def _shaded(flat: np.ndarray, shades: Image.Image) -> bytes:
    """A picture of palette numbers as PNG; the number after the last shade is transparent."""
    picture, kept = Image.fromarray(flat, "P"), io.BytesIO()
    palette = (shades.getpalette() or [])[: 3 * _SHADES]
    picture.putpalette(palette + [0] * (3 * (_SHADES + 1) - len(palette)))
    picture.save(kept, format="PNG", transparency=_SHADES)
    return kept.getvalue()
