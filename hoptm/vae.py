"""The two halves of a small convolutional VAE: images to codes, and codes to images.

No layer keeps state, so each half is an ordinary function of its weights and its input, in the input's type. The decoder is
kept narrow because its weights travel with a set of codes and count in its bytes. How a VAE is trained, see `latent`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoptm.errors import ConfigError

_GRID = 8
"""Images are halved twice at least, and on while their edge is even and above this."""
_PART = 512
"""Images that are encoded at once."""
LARGEST_DIMS, LARGEST_WIDTH, LARGEST_EDGE = 4_096, 512, 1_024
"""Bounds of a decoder: numbers in a code, channels, and pixels along an edge."""
LARGEST_IMAGE = 32 * 1024**2
"""Bytes that the largest layer of a decoder may hold for one image, so that a stranger's file cannot ask for any amount of memory: width 512 up to 256
pixels, 32 up to 1,024. How many images are decoded, and how many at once, `synthetic_file` bounds."""


@dataclass(frozen=True)
class VaeConfig:
    """Every number that shapes a VAE. Raises ConfigError for one out of range."""

    dims: int = 64
    """Numbers in a code. Half as many halve the decoder, which is mostly its linear map, and raise the error of reconstructions by a third to a half."""
    width: int = 16
    """Channels of the decoder; the encoder, which no set carries, has two and four times as many."""
    beta: float = 0.1
    """Weight of the KL term against half the squared error: the variance of the decoder's pixel noise, in standardised units."""
    steps: int = 2_000
    batch: int = 64
    lr: float = 3e-3
    """First step size of Adam; it falls in a straight line to nothing at the last step."""

    def __post_init__(self) -> None:
        if min(self.dims, self.width, self.steps, self.batch) < 1:
            raise ConfigError(f"dims {self.dims}, width {self.width}, steps {self.steps} and batch {self.batch} of a VAE must all be 1 or more.")
        if not (0 < self.lr <= 1 and 0 <= self.beta <= 100):
            raise ConfigError(f"lr {self.lr} and beta {self.beta} of a VAE must lie in 0 .. 1 (lr above 0) and 0 .. 100.")


@dataclass(frozen=True, eq=False)
class Decoder:
    """The half of a VAE that a set of codes needs. `weights` are float32; a call works in the codes' type and on their device.

    Raises ConfigError when the weights are not those of such a decoder, the size is not a multiple of 4, or one of the bounds above is passed.
    """

    dims: int
    width: int
    channels: int
    size: int
    weights: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.dims > LARGEST_DIMS or self.width > LARGEST_WIDTH or self.size > LARGEST_EDGE:
            raise ConfigError(
                f"dims {self.dims}, width {self.width}, channels {self.channels} and size {self.size} of a decoder must all be 1 or more, "
                f"dims at most {LARGEST_DIMS:,}, width at most {LARGEST_WIDTH:,} and size at most {LARGEST_EDGE:,}."
            )
        if self.image_bytes > LARGEST_IMAGE:
            raise ConfigError(
                f"a decoder of width {self.width} for {self.channels} x {self.size} x {self.size} holds {self.image_bytes:,} bytes an image in its "
                f"largest layer and may hold {LARGEST_IMAGE:,}. Take a smaller width."
            )
        _check_weights("decoder", _decoder(*self.shape), self.weights)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Dims, width, channels and size."""
        return self.dims, self.width, self.channels, self.size

    @property
    def image_bytes(self) -> int:
        """Bytes of the largest layer's output for one image, in float32; two or three such are held at a time."""
        return max(self.width, 4 * self.channels) * self.size**2

    @property
    def image_work(self) -> int:
        """Multiplications that one image takes."""
        halvings = _halvings(self.size)
        places = [(self.size >> halving) ** 2 for halving in range(1, halvings + 1)]
        return 9 * self.width**2 * sum(places) + 36 * self.width * self.channels * places[0] + self.dims * self.width * places[-1]

    def __call__(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Standardised images of codes, differentiable. Raises ConfigError for codes of another length."""
        if codes.shape[1] != self.dims:
            raise ConfigError(f"codes of {codes.shape[1]} numbers were given to a decoder of {self.dims}: they belong to another VAE.")
        images: Tensor = torch.func.functional_call(_decoder(*self.shape), _like(self.weights, codes), (codes,))
        return images


@dataclass(frozen=True, eq=False)
class Vae:
    """A VAE: its settings and the weights of both halves. Raises ConfigError when the weights do not fit."""

    config: VaeConfig
    decoder: Decoder
    encoder: Mapping[str, Tensor]
    """Weights of the encoder, float32."""

    def __post_init__(self) -> None:
        _check_weights("encoder", _encoder(*self.decoder.shape), self.encoder)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Codes of standardised images: the means that the encoder gives, without noise and without a gradient."""
        expected = (self.decoder.channels, self.decoder.size, self.decoder.size)
        if images.shape[1:] != expected:
            raise ConfigError(f"images of shape {tuple(images.shape[1:])} were given to a VAE for {expected} (channels, height, width).")
        return torch.cat([self.posterior(part)[0] for part in images.split(_PART)])

    def decode(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Standardised images of codes, differentiable."""
        return self.decoder(codes)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Means and log variances of the Gaussians over codes, differentiable."""
        out: Tensor = torch.func.functional_call(_encoder(*self.decoder.shape), _like(self.encoder, images), (images,))
        return out[:, : self.config.dims], out[:, self.config.dims :]


def _like(weights: Mapping[str, Tensor], other: Tensor) -> dict[str, Tensor]:
    return {name: value.to(other) for name, value in weights.items()}


def _check_weights(half: str, skeleton: nn.Module, weights: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(value.shape) for name, value in skeleton.named_parameters()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != found:
        name = sorted({*wanted.items()} ^ {*found.items()})[0][0]
        raise ConfigError(f"the weights of a {half} do not fit its shape: {name} is {found.get(name, 'missing')}, not {wanted.get(name, 'expected')}.")
    if not all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in weights.values()):
        raise ConfigError(f"the weights of a {half} must be finite float32 numbers.")


# --- the two halves ----------------------------------------------------------------------------------------------


def _halvings(size: int) -> int:
    if size < 4 or size % 4:
        raise ConfigError(f"a VAE needs images whose edge is a multiple of 4, not {size}. Load the data set at another size.")
    count = 2
    while size >> count > _GRID and (size >> count) % 2 == 0:
        count += 1
    return count


@lru_cache
def _encoder(dims: int, width: int, channels: int, size: int) -> nn.Module:
    """Convolutions of stride 2 down to the grid, then a linear map to means and log variances."""
    halvings = _halvings(size)
    edges = [channels, 2 * width, *[4 * width] * (halvings - 1)]
    with torch.device("meta"):
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(edges):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(edges[-1] * (size >> halvings) ** 2, 2 * dims))


@lru_cache
def _decoder(dims: int, width: int, channels: int, size: int) -> nn.Module:
    """A linear map to the grid, convolutions after each doubling; the last doubling reads four pixels from channels, which is cheap."""
    halvings = _halvings(size)
    grid = size >> halvings
    with torch.device("meta"):
        layers: list[nn.Module] = [nn.Linear(dims, width * grid**2), nn.Unflatten(1, (width, grid, grid)), nn.SiLU()]
        for doubling in range(halvings):
            layers += [nn.Upsample(scale_factor=2)] if doubling else []
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2))


def untrained(config: VaeConfig, channels: int, size: int, generator: torch.Generator) -> Vae:
    """A VAE with weights U(-1, 1) sqrt(3 / fan-in), which keep the variance of what passes, and biases of 0.

    Raises ConfigError for a size that is no multiple of 4.
    """
    shape = (config.dims, config.width, channels, size)
    return Vae(config, Decoder(*shape, _fresh(_decoder(*shape), generator)), _fresh(_encoder(*shape), generator))


def _fresh(skeleton: nn.Module, chance: torch.Generator) -> dict[str, Tensor]:
    made = {}
    for name, value in skeleton.named_parameters():
        bound = (3 / value[0].numel()) ** 0.5 if value.dim() > 1 else 0.0
        made[name] = bound * (2 * torch.rand(value.shape, generator=chance) - 1)
    return made
