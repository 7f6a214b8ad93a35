"""Figures of codes: what bytes buy with and without a decoder, and how the angles among codes are spread."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from hoptm.plots import COLOURS, FAINT, RECORD, WIDTH, figure, style
from hoptm.rendering import Rendering, stored_bytes

KINDS = {"pixels": COLOURS["endpoint"], "upsampled": COLOURS["half"], "decoded": COLOURS["latent"]}
"""One colour a rendering, by its name."""
WORDS = {"pixels": "pixels", "upsampled": "half resolution", "decoded": "codes and their decoder"}


@style()
def bytes_against_images(renderings: Sequence[Rendering], classes: int, channels: int, size: int, most: int = 1000) -> Figure:
    """Bytes of a set against its images a class, both axes logarithmic: a line a rendering, what is shared counted once.

    `size` is height and width in pixels, `most` the largest number of images a class. Labels are not counted.
    """
    drawn = figure(WIDTH, 3.6)
    axes, ipcs = drawn.subplots(), np.unique(np.geomspace(1, most, 60).round().astype(int))
    for rendering in renderings:
        values = [stored_bytes(rendering, int(ipc) * classes, channels, size) for ipc in ipcs]
        axes.plot(ipcs, values, color=KINDS[rendering.name])
        where = {"decoded": 0, "pixels": len(ipcs) - 1}.get(rendering.name, len(ipcs) // 2)
        side = ("left", "bottom") if where == 0 else ("right", "bottom") if rendering.name == "pixels" else ("left", "top")
        offset = (4, 6) if side[1] == "bottom" else (6, -6)
        place = (float(ipcs[where]), float(values[where]))
        axes.annotate(WORDS[rendering.name], place, offset, textcoords="offset points", color=KINDS[rendering.name], ha=side[0], va=side[1])
    axes.set(xscale="log", yscale="log", xlabel="images a class", ylabel="bytes")
    axes.grid(color=FAINT)
    return drawn


@style()
def angles(curves: Mapping[str, Float[Tensor, "_"]]) -> Figure:
    """For each kind of code the share of triangle corners whose cosine is at most so large."""
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    colours = (RECORD, COLOURS["latent"], COLOURS["full"], COLOURS["published"])
    for (name, cosines), colour in zip(curves.items(), colours, strict=False):
        ordered = np.sort(cosines.detach().numpy())
        axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=colour, label=name)
    axes.set(xlabel="cosine of an angle among three codes of a class", ylabel="share of angles", ylim=(0, 1))
    axes.grid(color=FAINT)
    drawn.legend(loc="outside upper left", ncols=1)
    return drawn
