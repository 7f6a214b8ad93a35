"""Differentiable augmentation as a pure function of images and a recorded draw.

`draw` records the randomness of one batch, `apply` uses it: the same draw can be replayed, in the forward and the
backward sweep and in a test. The strategies are differentiable Siamese augmentation (Zhao and Bilen, 2021), which draws
one kind of change for the whole batch and a strength for each image, and the symmetries of the square.

In medicine a flip or a change of colour does not always keep the label: a chest has a left side, a stain a meaning.
Cells and tissue have no up or down, and fit "dihedral". Choose the strategy for the modality.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import ConfigError

KINDS = ("color", "crop", "cutout", "flip", "scale", "rotate")
STRATEGIES: Mapping[str, tuple[str, ...]] = {"none": (), "dsa": KINDS, "dihedral": ("dihedral",)}
"""The kinds among which each batch draws one. Any of the six of "dsa" joined by underscores is a strategy too: "crop_flip"."""

CROP, CUTOUT, SCALE, DEGREES = 0.125, 0.5, 1.2, 15.0
"""Largest shift and side of the hole (of the image size), largest factor, largest angle."""


@dataclass(frozen=True, eq=False)
class Draw:
    """The recorded randomness of one batch: one kind of change, and its values (n,) for the n images.

    Values are float64 or int64; the function of the kind says what they mean. Two draws are equal when all bits are.
    """

    name: str
    values: Mapping[str, Tensor]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Draw):
            return NotImplemented
        if self.name != other.name or self.values.keys() != other.values.keys():
            return False
        return all(torch.equal(value, other.values[key]) for key, value in self.values.items())

    __hash__ = None  # type: ignore[assignment]


def kinds(strategy: str) -> tuple[str, ...]:
    """The kinds of change among which a strategy draws. Raises ConfigError for an unknown strategy."""
    if strategy in STRATEGIES:
        return STRATEGIES[strategy]
    names = tuple(strategy.split("_"))
    if len(set(names)) < len(names) or not set(names) <= set(KINDS):
        raise ConfigError(f"no augmentation {strategy!r}; there are {', '.join(STRATEGIES)} and any of {', '.join(KINDS)} joined by underscores, each once.")
    return names


def draw(strategy: str, count: int, size: int, generator: torch.Generator) -> Draw:
    """Randomness for one batch of `count` images of `size` x `size` pixels; uses `generator` alone.

    One kind is drawn, each equally likely, and then its values for each image. Raises ConfigError for an unknown strategy.
    """
    choices = kinds(strategy)
    if not choices:
        return Draw("none", {})
    name = choices[int(torch.randint(len(choices), (), generator=generator))]
    return Draw(name, _DRAW[name](count, size, generator))


def apply(images: Float[Tensor, "n c h w"], draw: Draw) -> Float[Tensor, "n c h w"]:
    """The augmented images, in the type of `images`; differentiable in them to any order.

    Raises ConfigError for an unknown kind, images that are not square, or a draw for another number of images.
    """
    if draw.name == "none":
        return images
    if draw.name not in _APPLY:
        raise ConfigError(f"no augmentation kind {draw.name!r}; there are {', '.join(_APPLY)}.")
    if images.shape[2] != images.shape[3]:
        raise ConfigError(f"augmentation takes square images, not {images.shape[2]} x {images.shape[3]}.")
    for key, value in draw.values.items():
        if value.shape != images.shape[:1]:
            raise ConfigError(f"the draw of {draw.name} holds {tuple(value.shape)} values of {key} for {images.shape[0]} images.")
    return _APPLY[draw.name](images, {key: value.to(images.device) for key, value in draw.values.items()})


# --- what is drawn -----------------------------------------------------------------------------------------------


def _uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def _whole(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    """Whole numbers from `low` to `high`, both included."""
    return torch.randint(low, high + 1, (count,), generator=generator)


def _draw_color(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    ranges = {"brightness": (-0.5, 0.5), "saturation": (0.0, 2.0), "contrast": (0.5, 1.5)}
    return {name: _uniform(*span, count, generator) for name, span in ranges.items()}


def _draw_crop(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    most = int(size * CROP + 0.5)
    return {"down": _whole(-most, most, count, generator), "right": _whole(-most, most, count, generator)}


def _draw_cutout(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    last = size - hole(size) % 2  # the centre of an even square lies between pixels: 0 is the upper or left border, size the other
    return {"row": _whole(0, last, count, generator), "column": _whole(0, last, count, generator)}


def _draw_flip(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"flipped": _whole(0, 1, count, generator)}


def _draw_scale(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {axis: _uniform(1 / SCALE, SCALE, count, generator) for axis in ("across", "down")}


def _draw_rotate(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"degrees": _uniform(-DEGREES, DEGREES, count, generator)}


def _draw_dihedral(count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"element": _whole(0, 7, count, generator)}


# --- what it does ------------------------------------------------------------------------------------------------


def _each(value: Tensor, images: Tensor) -> Tensor:
    """One value an image, in the images' type, ready to broadcast over channels and pixels."""
    return value.to(images.dtype).view(-1, 1, 1, 1)


def _color(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Add `brightness`, then stretch about each pixel's mean over channels by `saturation`, then about the image's mean by `contrast`."""
    images = images + _each(values["brightness"], images)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * _each(values["saturation"], images) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _each(values["contrast"], images) + mean


def _crop(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """A window that lies `down` rows and `right` columns further; zero outside."""
    step = 2.0 / max(images.shape[-1] - 1, 1)
    down, right = values["down"].double() * step, values["right"].double() * step
    one, zero = torch.ones_like(down), torch.zeros_like(down)
    return _resample(images, (one, zero, right, zero, one, down), whole_pixels=True)


def hole(size: int) -> int:
    """The side of the square that cutout blanks, in pixels."""
    return int(size * CUTOUT + 0.5)


def _cutout(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Zero in a square about (`row`, `column`), clipped at the border."""
    size = images.shape[-1]
    places = torch.arange(size, device=images.device)

    def inside(centre: Tensor) -> Tensor:
        offset = places - (centre[:, None] - hole(size) // 2)
        return (offset >= 0) & (offset < hole(size))

    blank = inside(values["row"])[:, None, :, None] & inside(values["column"])[:, None, None, :]
    return images * ~blank


def _flip(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Mirror left and right where `flipped` is 1."""
    return torch.where(values["flipped"].bool().view(-1, 1, 1, 1), images.flip(3), images)


def _scale(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Sample at `across` times the horizontal and `down` times the vertical distance from the centre: above 1 the picture shrinks."""
    zero = torch.zeros_like(values["across"])
    return _resample(images, (values["across"], zero, zero, zero, values["down"], zero))


def _rotate(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Turn about the centre by `degrees`, anticlockwise as seen on the screen."""
    angle = values["degrees"] * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _resample(images, (cos, -sin, zero, sin, cos, zero))


def _dihedral(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """One of the eight symmetries: bit 4 of `element` transposes, then bit 2 mirrors up and down, then bit 1 left and right."""
    changes: list[tuple[int, Callable[[Tensor], Tensor]]] = [(4, lambda x: x.transpose(2, 3)), (2, lambda x: x.flip(2)), (1, lambda x: x.flip(3))]
    for bit, change in changes:
        chosen = (values["element"] & bit).bool().view(-1, 1, 1, 1)
        images = torch.where(chosen, change(images), images)
    return images


def _resample(images: Tensor, matrix: tuple[Tensor, ...], *, whole_pixels: bool = False) -> Tensor:
    """Each image at the places of an affine map (six numbers an image, on -1 .. 1 with corners aligned); zero outside."""
    shape = list(images.shape)
    places = F.affine_grid(torch.stack(matrix, 1).view(-1, 2, 3), shape, align_corners=True)
    sampled: Tensor = _Sample.apply(images, places.to(images.dtype), int(whole_pixels))  # type: ignore[no-untyped-call]
    return sampled


class _Sample(torch.autograd.Function):
    """`F.grid_sample` (bilinear for mode 0, nearest for 1) as a linear map of the images, differentiable to any order.

    The library's own can be differentiated once; here the gradient of the map is its transpose, and the other way round.
    """

    @staticmethod
    def forward(images: Tensor, places: Tensor, mode: int) -> Tensor:
        return torch.grid_sampler_2d(images, places, mode, 0, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, places, ctx.mode = inputs
        ctx.save_for_backward(places)
        ctx.shape = images.shape

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, None, None]:
        return _SampleTransposed.apply(upper, *ctx.saved_tensors, ctx.mode, ctx.shape), None, None  # type: ignore[no-untyped-call]


class _SampleTransposed(torch.autograd.Function):
    @staticmethod
    def forward(upper: Tensor, places: Tensor, mode: int, shape: torch.Size) -> Tensor:
        unread = upper.new_zeros(()).expand(shape)  # the map is linear: the values of the images do not enter
        gradient: Tensor = torch.ops.aten.grid_sampler_2d_backward(upper, unread, places, mode, 0, True, [True, False])[0]
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, places, ctx.mode, _ = inputs
        ctx.save_for_backward(places)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, None, None, None]:
        return _Sample.apply(upper, *ctx.saved_tensors, ctx.mode), None, None, None  # type: ignore[no-untyped-call]


_DRAW: dict[str, Callable[[int, int, torch.Generator], dict[str, Tensor]]] = {
    "color": _draw_color,
    "crop": _draw_crop,
    "cutout": _draw_cutout,
    "flip": _draw_flip,
    "scale": _draw_scale,
    "rotate": _draw_rotate,
    "dihedral": _draw_dihedral,
}
_APPLY: dict[str, Callable[[Tensor, Mapping[str, Tensor]], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
    "dihedral": _dihedral,
}
