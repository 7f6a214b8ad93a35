"""A figure as a light PNG, for pages that show many rows of letters."""

import io
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A figure as a PNG of few colours: rows of letters take a third of the bytes, so that a page of many rows stays light."""

    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png


def picture(drawn: Figure, colours: int = 64) -> Picture:
    """The figure, rendered at its own resolution and reduced to so many colours, for a notebook to show."""
    whole, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(whole, format="png", bbox_inches="tight")
    with Image.open(whole) as seen:
        seen.convert("RGB").quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return Picture(small.getvalue())
