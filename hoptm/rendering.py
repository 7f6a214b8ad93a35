"""From what is learned to images: a rendering turns a leaf tensor into standardised images.

The engine gives the gradient at the images; one ordinary backward call takes it through a rendering to the leaf. The leaf may be
the pixels themselves, images of fewer pixels, or codes that a frozen decoder reads. A rendering also says what it costs to
store, so that sets can be compared at equal bytes as well as at equal images.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm.errors import ConfigError
from hoptm.vae import Decoder, Vae

BYTES = 4
"""A stored number is a float32."""


@runtime_checkable
class Rendering(Protocol):
    """What the outer loop and a synthetic set ask of a rendering."""

    @property
    def name(self) -> str:
        """One word that `restored` knows."""

    @property
    def config(self) -> dict[str, Any]:
        """The numbers that shape it, plain JSON."""

    @property
    def shared(self) -> Mapping[str, Tensor]:
        """Frozen tensors that all images share, by the names under which a set stores them; counted once."""

    def __call__(self, leaf: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Standardised images, differentiable in the leaf, in its type and on its device."""

    def leaf_shape(self, channels: int, size: int) -> tuple[int, ...]:
        """Shape of one image's share of the leaf, for images of this shape. Raises ConfigError for images it cannot make."""

    def initial(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        """A leaf to start from: what stands for these standardised images. No gradient flows through it."""


@dataclass(frozen=True)
class Pixels:
    """The leaf is the images."""

    @property
    def name(self) -> str:
        """`pixels`."""
        return "pixels"

    @property
    def config(self) -> dict[str, Any]:
        """Nothing shapes it."""
        return {}

    @property
    def shared(self) -> Mapping[str, Tensor]:
        """Nothing is shared."""
        return {}

    def __call__(self, leaf: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The leaf itself."""
        return leaf

    def leaf_shape(self, channels: int, size: int) -> tuple[int, ...]:
        """That of an image."""
        return channels, size, size

    def initial(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """A copy of the images."""
        return images.detach().clone()


@dataclass(frozen=True)
class Upsampled:
    """The leaf is images of `factor` times fewer rows and columns, enlarged by bilinear interpolation.

    With factor 2, four images take the bytes of one: the multi-formation of Kim et al. 2022 (IDC) with images instead of
    quarters of images. Raises ConfigError for a factor below 2.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ConfigError(f"an upsampled rendering has factor {self.factor}; it must be 2 or more.")

    @property
    def name(self) -> str:
        """`upsampled`."""
        return "upsampled"

    @property
    def config(self) -> dict[str, Any]:
        """The factor."""
        return {"factor": self.factor}

    @property
    def shared(self) -> Mapping[str, Tensor]:
        """Nothing is shared."""
        return {}

    def __call__(self, leaf: Float[Tensor, "n c a b"]) -> Float[Tensor, "n c h w"]:
        """The leaf enlarged; a pixel's centre stays where it was (corners not aligned)."""
        return F.interpolate(leaf, scale_factor=self.factor, mode="bilinear", align_corners=False)

    def leaf_shape(self, channels: int, size: int) -> tuple[int, ...]:
        """A smaller image's. Raises ConfigError when the factor does not divide the size."""
        if size % self.factor:
            raise ConfigError(f"images of {size} pixels cannot be made by enlarging {self.factor} times. Take a factor that divides {size}.")
        return channels, size // self.factor, size // self.factor

    def initial(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c a b"]:
        """The mean over each square of factor x factor pixels. Raises ConfigError when the factor does not divide the size."""
        self.leaf_shape(images.shape[1], images.shape[2])
        return F.avg_pool2d(images.detach(), self.factor)


@dataclass(frozen=True, eq=False)
class Decoded:
    """The leaf is codes, read by a frozen decoder. `vae` gives codes of images; a set that was loaded has none."""

    decoder: Decoder
    vae: Vae | None = None

    @staticmethod
    def by(vae: Vae) -> "Decoded":
        """The rendering of a trained VAE."""
        return Decoded(vae.decoder, vae)

    @property
    def name(self) -> str:
        """`decoded`."""
        return "decoded"

    @property
    def config(self) -> dict[str, Any]:
        """What shapes the decoder."""
        made = self.decoder
        return {"dims": made.dims, "width": made.width, "channels": made.channels, "size": made.size}

    @property
    def shared(self) -> Mapping[str, Tensor]:
        """The decoder's weights as `decoder.*`."""
        return {f"decoder.{name}": value for name, value in self.decoder.weights.items()}

    def __call__(self, leaf: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """The decoder's images."""
        return self.decoder(leaf)

    def leaf_shape(self, channels: int, size: int) -> tuple[int, ...]:
        """One code's. Raises ConfigError for other images than the decoder's."""
        if (channels, size) != (self.decoder.channels, self.decoder.size):
            wanted, found = ((channels, size, size), (self.decoder.channels, self.decoder.size, self.decoder.size))
            raise ConfigError(f"images of shape {wanted} (channels, height, width) were asked of a decoder of {found}. Train a VAE on that data set.")
        return (self.decoder.dims,)

    def initial(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Encoder means. Raises ConfigError when only the decoder is there."""
        if self.vae is None:
            raise ConfigError("this decoder came without its encoder, so images cannot be turned into codes. Train the VAE with latent.cached_vae.")
        return self.vae.encode(images)


def restored(name: str, config: Mapping[str, Any], shared: Mapping[str, Tensor]) -> Rendering:
    """The rendering that a file describes by its `name`, `config` and `shared` tensors.

    Raises ConfigError when they do not describe one.
    """
    try:
        if name == "decoded":
            weights = {key.removeprefix("decoder."): value for key, value in shared.items() if key.startswith("decoder.")}
            made: Rendering = Decoded(Decoder(**{key: int(config[key]) for key in ("dims", "width", "channels", "size")}, weights=weights))
        else:
            made = {"pixels": Pixels, "upsampled": Upsampled}[name](**config)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:  # sizes that no tensor can have, too
        raise ConfigError(f"no rendering {name!r} with the settings {dict(config)}; there are pixels, upsampled and decoded.") from error
    if made.config != dict(config) or set(made.shared) != set(shared):
        raise ConfigError(f"the rendering {name!r} stores {sorted(made.shared)} and {made.config}, not {sorted(shared)} and {dict(config)}.")
    return made


def cost_of_image(rendering: Rendering, channels: int, size: int) -> tuple[int, int]:
    """What rendering one image of this shape takes: bytes of the largest layer, in float32, and multiplications."""
    if isinstance(rendering, Decoded):
        return rendering.decoder.image_bytes, rendering.decoder.image_work
    return BYTES * channels * size**2, 4 * channels * size**2  # four neighbours a pixel, at most


def stored_bytes(rendering: Rendering, count: int, channels: int, size: int) -> int:
    """Bytes of `count` images of this shape: their leaf, and what they share once, in float32. Labels are not counted.

    Raises ConfigError for images that the rendering cannot make.
    """
    return BYTES * (count * math.prod(rendering.leaf_shape(channels, size)) + shared_numbers(rendering))


def images_within(rendering: Rendering, limit: int, channels: int, size: int) -> int:
    """How many images of this shape fit in `limit` bytes; 0 when what they share does not fit. Raises as `stored_bytes`."""
    free = limit // BYTES - shared_numbers(rendering)
    return max(0, free // math.prod(rendering.leaf_shape(channels, size)))


def shared_numbers(rendering: Rendering) -> int:
    """Numbers in the tensors that all images share."""
    return sum(value.numel() for value in rendering.shared.values())


def leaf_gradient(rendering: Rendering, leaf: Float[Tensor, "n ..."], for_images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
    """The gradient at the leaf, from the gradient at its images: one backward call through the rendering."""
    with torch.enable_grad():
        start = leaf.detach().requires_grad_()
        return torch.autograd.grad(rendering(start), start, for_images.to(leaf.dtype))[0]
