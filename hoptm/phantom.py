"""A generated, tissue-like data set that needs no network: nine classes, 28x28 colour, stained as pathology slides are.

Every image is a map of two dyes, haematoxylin (blue, nuclei) and eosin (pink, fibres), drawn from a recipe of its class and
turned into colour by the Beer-Lambert law with the stain vectors of Ruifrok and Johnston (2001). Classes overlap: their recipes share
ranges, and many fields of view also hold a piece of a neighbouring tissue. The test split is stained by another laboratory.
It looks like tissue; it is none, and no medical claim may rest on it.

All arithmetic is in double precision and only uniform numbers are drawn, so that one seed gives the same bytes on every machine. The recipes were
set once, before anything was distilled, on fresh draws: a ConvNet of depth 3 and width 32 reaches about 0.96 with all images and about 0.43 with
one random image a class under the training stain, 0.93 and 0.41 under the test's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from hoptm.config import generator

CLASSES = ("fat", "glass", "debris", "lymphocytes", "mucus", "muscle", "mucosa", "stroma", "tumour")
SIZE = 28
COUNT = 9_000
SEED = 20_250
_SHARES = (0.104, 0.106, 0.115, 0.116, 0.089, 0.135, 0.088, 0.104, 0.143)
_NEIGHBOURS = ((7, 4), (0, 4), (7, 4), (7, 8), (2, 6), (7, 7), (8, 7), (5, 5), (6, 2))
"""The two tissues that may share a field of view with each class."""
_CHUNK = 128
_MIXED = 0.45
_Y, _X = torch.meshgrid(torch.arange(SIZE, dtype=torch.float64), torch.arange(SIZE, dtype=torch.float64), indexing="ij")
_QUADRATIC = torch.stack([torch.ones_like(_X), _X, _Y, _X * _X, _X * _Y, _Y * _Y]).flatten(1)
_STEPS = (_X[0] - _X[0][:, None]).abs()
_BORDER = (_X[0] == 0) | (_X[0] == SIZE - 1)
_BLUR = 0.7 * (_STEPS == 0).double() + 0.15 * ((_STEPS == 1).double() + torch.diag(_BORDER.double()))
"""The optics: along each axis a pixel takes a little of its two neighbours, at the border of itself."""

Map = Float64[Tensor, "n 28 28"]


@dataclass(frozen=True)
class Stain:
    """How one laboratory colours: optical density of each dye in red, green and blue, its strength, and the light behind."""

    haematoxylin: tuple[float, float, float] = (0.65, 0.70, 0.29)
    eosin: tuple[float, float, float] = (0.12, 0.93, 0.30)
    strength: tuple[float, float] = (1.0, 1.0)
    light: tuple[float, float, float] = (0.98, 0.97, 0.98)


HERE = Stain()
ELSEWHERE = Stain(haematoxylin=(0.55, 0.75, 0.36), eosin=(0.20, 0.85, 0.50), strength=(0.88, 1.12), light=(0.95, 0.91, 0.92))


def arrays(count: int = COUNT) -> dict[str, tuple[UInt8[Tensor, "n 3 28 28"], Int64[Tensor, "n"]]]:
    """Images and labels of the three splits: `count` for training, a tenth of it for validation, a fifth for test.

    The same count gives the same bytes. Test images carry another stain (`ELSEWHERE`).
    """
    sizes = {"train": (count, HERE), "val": (count // 10, HERE), "test": (count // 5, ELSEWHERE)}
    made = {}
    for split, (size, stain) in sizes.items():
        source = generator(SEED, "phantom", split)
        labels = _labels(size, source)
        made[split] = (draw(labels, source, stain), labels)
    return made


def draw(labels: Int64[Tensor, "n"], source: torch.Generator, stain: Stain = HERE) -> UInt8[Tensor, "n 3 28 28"]:
    """One fresh image a label, 0..8 in the order of `CLASSES`; pixels 0..255."""
    images = torch.empty(len(labels), 3, SIZE, SIZE, dtype=torch.uint8)
    for name in range(len(CLASSES)):
        for where in torch.nonzero(labels == name).flatten().split(_CHUNK):
            images[where] = _coloured(_field(name, len(where), source), source, stain)
    return images


def _labels(size: int, source: torch.Generator) -> Int64[Tensor, "n"]:
    """Class counts in fixed shares, so that each class is there, in random order."""
    edges = [round(size * sum(_SHARES[: name + 1])) for name in range(len(CLASSES))]
    counts = torch.tensor([high - low for low, high in zip([0, *edges[:-1]], edges, strict=True)])
    return torch.repeat_interleave(torch.arange(len(CLASSES)), counts)[torch.randperm(size, generator=source)]


def _field(name: int, count: int, source: torch.Generator) -> Float64[Tensor, "n 2 28 28"]:
    """Dye maps of one class; in some, a neighbouring tissue enters from one side."""
    own = _RECIPES[name](count, source)
    mixed = _uniform(source, count) < _MIXED
    second = _uniform(source, count) < 0.5
    distance = _along(_angle(source, count))[0] - _uniform(source, count, -1.0, 13.0)[:, None, None]
    share = ((distance + 5 * (_noise(count, 4, source) - 0.5)) / 2 + 0.5).clamp(0, 1)
    for which, neighbour in enumerate(_NEIGHBOURS[name]):
        chosen = torch.nonzero(mixed & (second == bool(which))).flatten()
        if len(chosen):
            other = _RECIPES[neighbour](len(chosen), source)
            part = share[chosen, None]
            own[chosen] = own[chosen] * (1 - part) + other * part
    return own


def _coloured(dyes: Float64[Tensor, "n 2 28 28"], source: torch.Generator, stain: Stain) -> UInt8[Tensor, "n 3 28 28"]:
    """Beer-Lambert: light times ten to the minus optical density, with the spread from slide to slide and a little grain."""
    count = len(dyes)
    strength = torch.tensor(stain.strength, dtype=torch.float64)[:, None, None] * _uniform(source, (count, 2, 1, 1), 0.75, 1.3)
    amounts = (_BLUR @ dyes @ _BLUR).clamp_min(0) * strength
    vectors = torch.tensor([stain.haematoxylin, stain.eosin], dtype=torch.float64) + _uniform(source, (count, 2, 3), -0.06, 0.06)
    density = vectors.transpose(1, 2) @ amounts.flatten(2)
    light = torch.tensor(stain.light, dtype=torch.float64)[:, None] * _uniform(source, (count, 1, 1), 0.92, 1.02)
    grain = _uniform(source, (count, 3, SIZE * SIZE), -0.025, 0.025)
    image = density.mul_(-math.log(10)).exp_().mul_(light).add_(grain).clamp_(0, 1).mul_(255).round_()
    return image.to(torch.uint8).view(count, 3, SIZE, SIZE)


# --- brushes: each gives n maps of 28x28 in 0..1, lengths in pixels ---


def _uniform(source: torch.Generator, shape: int | tuple[int, ...], low: int | float = 0, high: int | float = 1) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=source, dtype=torch.float64)


def _angle(source: torch.Generator, count: int) -> Float64[Tensor, "n"]:
    return _uniform(source, count, 0.0, 2 * math.pi)


def _along(angle: Float64[Tensor, "n"]) -> tuple[Map, Map]:
    """Distance from the centre along a direction and across it."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x, y = _X - (SIZE - 1) / 2, _Y - (SIZE - 1) / 2
    return cos * x + sin * y, cos * y - sin * x


def _noise(count: int, cells: int, source: torch.Generator) -> Map:
    """Smooth random clouds: values on a coarse lattice, smoothly interpolated."""
    place = torch.linspace(0, cells, SIZE, dtype=torch.float64)
    near = (place[:, None] - torch.arange(cells + 1)).abs().clamp_max(1)
    weight = 1 - near * near * (3 - 2 * near)
    return weight @ _uniform(source, (count, cells + 1, cells + 1)) @ weight.T


def _bands(count: int, source: torch.Generator, angle: Tensor, period: tuple[float, float], bend: float) -> Map:
    """Stripes across a direction, bent by slow noise: fibres."""
    across = _along(angle)[1] + bend * (_noise(count, 2, source) - 0.5)
    phase = across / _uniform(source, (count, 1, 1), *period) + _uniform(source, (count, 1, 1))
    saw = phase - torch.floor(phase)
    return 2 * (saw - 0.5).abs()


def _spots(
    count: int,
    source: torch.Generator,
    number: tuple[int, int],
    radius: tuple[float, float],
    stretch: tuple[float, float] = (1.0, 1.3),
    angle: Tensor | None = None,
    place: Callable[[], tuple[Tensor, Tensor]] | None = None,
) -> Map:
    """A random number of soft ellipses of random size and darkness, the darkest on top: nuclei."""
    wanted = _uniform(source, count, number[0], number[1] + 1).floor()
    darkest = torch.zeros(count, SIZE * SIZE, dtype=torch.float64)
    for index in range(number[1]):
        y, x = place() if place else _uniform(source, (2, count), -1.0, SIZE)
        turn = (angle if angle is not None else _angle(source, count)) + _uniform(source, count, -0.25, 0.25)
        long = _uniform(source, count, *radius) * _uniform(source, count, *stretch)
        wide = long / _uniform(source, count, *stretch) ** 2
        dark = _uniform(source, count, 0.7, 1.0) * (index < wanted)
        body = (1.8 * _ellipse(y, x, turn, long, wide)).clamp_(0, 1)
        torch.maximum(darkest, body.mul_(dark[:, None]), out=darkest)
    return darkest.view(count, SIZE, SIZE)


def _ellipse(y: Tensor, x: Tensor, turn: Tensor, long: Tensor, wide: Tensor) -> Float64[Tensor, "n 784"]:
    """1 in the middle of each ellipse, 0 on its edge, negative outside: a quadratic in the pixel's place, so one product."""
    cos, sin = torch.cos(turn), torch.sin(turn)
    xx, yy = (cos / long) ** 2 + (sin / wide) ** 2, (sin / long) ** 2 + (cos / wide) ** 2
    xy = 2 * cos * sin * (long**-2 - wide**-2)
    one = 1 - xx * x * x - xy * x * y - yy * y * y
    return torch.stack([one, 2 * xx * x + xy * y, 2 * yy * y + xy * x, -xx, -xy, -yy], dim=1) @ _QUADRATIC


def _cells(count: int, source: torch.Generator, number: int) -> Map:
    """Walls between the regions nearest to random points: 1 on a wall, 0 inside."""
    first = torch.full((count, SIZE, SIZE), 1e9, dtype=torch.float64)
    second = first.clone()
    for _ in range(number):
        y, x = _uniform(source, (2, count, 1, 1), -3.0, SIZE + 3.0)
        far = (_Y - y) ** 2 + (_X - x) ** 2
        second = torch.minimum(second, torch.maximum(first, far))
        first = torch.minimum(first, far)
    return (1 - (second.sqrt() - first.sqrt()) / _uniform(source, (count, 1, 1), 1.5, 3.5)).clamp(0, 1)


# --- recipes: haematoxylin and eosin of each class ---


def _dyes(haematoxylin: Map, eosin: Map) -> Float64[Tensor, "n 2 28 28"]:
    return torch.stack([haematoxylin, eosin], dim=1)


def _level(count: int, source: torch.Generator, low: float, high: float) -> Float64[Tensor, "n 1 1"]:
    return _uniform(source, (count, 1, 1), low, high)


def _fat(count: int, source: torch.Generator) -> Tensor:
    walls = _cells(count, source, 7)
    nuclei = _spots(count, source, (0, 2), (1.0, 1.8), (1.2, 1.6))
    return _dyes(0.05 * walls + 0.6 * nuclei * walls, walls * _level(count, source, 0.2, 0.55) + 0.03)


def _glass(count: int, source: torch.Generator) -> Tensor:
    haze = _noise(count, 3, source) * _level(count, source, 0.0, 0.12)
    dust = _spots(count, source, (0, 2), (0.8, 1.6))
    return _dyes(0.3 * haze + 0.15 * dust, haze + 0.02 * _noise(count, 9, source))


def _debris(count: int, source: torch.Generator) -> Tensor:
    clumps = _noise(count, 7, source) * _noise(count, 4, source)
    specks = _spots(count, source, (4, 16), (0.7, 1.5))
    return _dyes(0.25 * clumps + 0.55 * specks, 0.1 + _level(count, source, 0.5, 1.0) * clumps)


def _lymphocytes(count: int, source: torch.Generator) -> Tensor:
    nuclei = _spots(count, source, (22, 34), (1.6, 2.4))
    return _dyes(0.12 + _level(count, source, 0.65, 0.95) * nuclei, 0.1 + 0.2 * _noise(count, 4, source))


def _mucus(count: int, source: torch.Generator) -> Tensor:
    streams = _bands(count, source, _angle(source, count), (5.0, 11.0), 14.0)
    nuclei = _spots(count, source, (0, 4), (1.0, 1.8))
    return _dyes(_level(count, source, 0.08, 0.22) * streams + 0.5 * nuclei, 0.03 + 0.14 * streams * _noise(count, 5, source))


def _muscle(count: int, source: torch.Generator) -> Tensor:
    angle = _angle(source, count)
    fibres = _bands(count, source, angle, (3.0, 6.0), 3.0)
    nuclei = _spots(count, source, (2, 6), (1.6, 2.2), (1.3, 1.7), angle)
    return _dyes(0.06 + 0.6 * nuclei, _level(count, source, 0.3, 0.55) + 0.2 * fibres)


def _stroma(count: int, source: torch.Generator) -> Tensor:
    angle = _angle(source, count)
    fibres = _bands(count, source, angle, (3.0, 7.0), 12.0)
    nuclei = _spots(count, source, (3, 9), (1.4, 2.2), (1.1, 1.5), angle)
    loose = _noise(count, 4, source)
    return _dyes(0.06 + 0.6 * nuclei, _level(count, source, 0.12, 0.4) + 0.35 * fibres * loose)


def _mucosa(count: int, source: torch.Generator) -> Tensor:
    return _gland(count, source, number=(14, 22), radius=(1.3, 1.9), lumen=(3.0, 5.5), scatter=0.8)


def _tumour(count: int, source: torch.Generator) -> Tensor:
    return _gland(count, source, number=(14, 24), radius=(1.7, 2.9), lumen=(0.0, 4.5), scatter=3.5)


def _gland(count: int, source: torch.Generator, number: tuple[int, int], radius: tuple[float, float], lumen: tuple[float, float], scatter: float) -> Tensor:
    """A ring of nuclei round a pale lumen: orderly in mucosa, large and scattered in tumour."""
    middle = SIZE / 2 + _uniform(source, (2, count), -5.0, 5.0)
    opening = _uniform(source, count, *lumen)

    def around() -> tuple[Tensor, Tensor]:
        turn = _angle(source, count)
        reach = opening + _uniform(source, count, 3.0, 5.0) + _uniform(source, count, -scatter, 3 * scatter)
        return middle[0] + reach * torch.sin(turn), middle[1] + reach * torch.cos(turn)

    nuclei = _spots(count, source, number, radius, (1.0, 1.4), place=around)
    distance = ((_Y - middle[0, :, None, None]) ** 2 + (_X - middle[1, :, None, None]) ** 2).sqrt() + 3 * (_noise(count, 4, source) - 0.5)
    body = ((distance - opening[:, None, None]) / 2 + 0.5).clamp(0, 1)
    pale = 0.25 + 0.75 * body
    tint = _level(count, source, 0.10, 0.25)
    return _dyes((tint + _level(count, source, 0.5, 0.8) * nuclei) * pale, _level(count, source, 0.15, 0.35) * pale + 0.1 * _noise(count, 5, source))


_RECIPES = (_fat, _glass, _debris, _lymphocytes, _mucus, _muscle, _mucosa, _stroma, _tumour)
