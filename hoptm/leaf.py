"""What is learned: the leaf of a run, how it becomes images, where it starts, and what is asked of codes themselves.

Two regularisers hold codes near the data: the prior of the VAE, and the angles of triplets of a class's codes, which are to be spread as
those of encoded training images are (`shape.code_shape`). The shape of the *path* is another thing: a term of the path loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm import latent, shape
from hoptm.config import Config, generator
from hoptm.data import Selectable, Standardisation
from hoptm.rendering import Decoded, Pixels, Rendering, Upsampled
from hoptm.vae import Vae, VaeConfig

TRIPLETS = 64
"""Triangles of each class that are drawn in an outer iteration."""

MEAN_NOISE = 0.1
"""Standard deviation of what parts images that start at the mean of their class, in standardised pixels."""


@dataclass(frozen=True)
class Leaf:
    """The start of a run. `penalty` gives a loss of the leaf for one iteration, drawn from a generator; None: nothing is asked of it."""

    start: Float[Tensor, "n ..."]
    rendering: Rendering
    penalty: Callable[[torch.Generator], Callable[[Tensor], Tensor]] | None = None


def leaf(config: Config, splits: Selectable, chosen: Int64[Tensor, "n"], measured: Standardisation) -> Leaf:
    """The leaf that `config.latent` describes; `chosen` are the real training images that it starts from.

    Codes need a VAE of the train split, read from the cache or trained now (`latent.cached_vae`, seeded by `config.seed`).
    Raises ConfigError for images that a rendering cannot make, else as `cached_vae`.
    """
    images, settings = measured.apply(splits.train.images[chosen]), config.latent
    if settings.rendering == "pixels":
        return Leaf(STARTS[settings.initial](config, splits, images, splits.train.labels[chosen], measured), Pixels())
    if settings.rendering == "upsampled":
        smaller = Upsampled()
        return Leaf(smaller.initial(images), smaller)
    vae = vae_of(config, splits)
    labels = splits.train.labels[chosen]
    penalty = _penalty(config, splits, measured, vae, labels) if settings.prior_weight or settings.shape_weight else None
    return Leaf(_codes(config, splits, measured, vae, images), Decoded.by(vae), penalty)


def real(config: Config, splits: Selectable, images: Tensor, labels: Tensor, measured: Standardisation) -> Tensor:
    """The real images themselves."""
    return images


def near_mean(config: Config, splits: Selectable, images: Tensor, labels: Tensor, measured: Standardisation) -> Tensor:
    """The mean of all training images of each one's class, and N(0, `MEAN_NOISE`^2) so that images of a class are not all alike."""
    means = torch.stack([measured.apply(splits.train.images[splits.train.labels == label]).mean(dim=0) for label in range(splits.classes)])
    return means[labels] + MEAN_NOISE * torch.randn(images.shape, generator=generator(config.seed, "initial noise"))


def noise(config: Config, splits: Selectable, images: Tensor, labels: Tensor, measured: Standardisation) -> Tensor:
    """N(0, 1) in each standardised pixel: nothing of any image."""
    return torch.randn(images.shape, generator=generator(config.seed, "initial noise"))


def vae_sample(config: Config, splits: Selectable, images: Tensor, labels: Tensor, measured: Standardisation) -> Tensor:
    """Decoded draws from a Gaussian over the codes of the class (mean and deviation of each number of a code over train)."""
    vae = vae_of(config, splits)
    codes = vae.encode(measured.apply(splits.train.images))
    groups = [codes[splits.train.labels == label] for label in range(splits.classes)]
    mean, spread = torch.stack([group.mean(dim=0) for group in groups]), torch.stack([group.std(dim=0, correction=0) for group in groups])
    drawn = mean[labels] + spread[labels] * torch.randn(len(labels), codes.shape[1], generator=generator(config.seed, "initial codes"))
    with torch.no_grad():
        return vae.decode(drawn)


STARTS: dict[str, Callable[[Config, Selectable, Tensor, Tensor, Standardisation], Tensor]] = {
    "real": real,
    "mean": near_mean,
    "noise": noise,
    "vae": vae_sample,
}
"""Where pixels start, by the name in `latent.initial`."""


def vae_of(config: Config, splits: Selectable) -> Vae:
    """The VAE of a run: trained on the train split only, kept in the cache."""
    return latent.cached_vae(splits.train, VaeConfig(dims=config.latent.dims, steps=config.latent.steps), config.seed)


def _codes(config: Config, splits: Selectable, measured: Standardisation, vae: Vae, images: Tensor) -> Tensor:
    if config.latent.initial == "prior":
        return latent.sample_prior(len(images), config.latent.dims, generator(config.seed, "initial codes"))
    if config.latent.initial == "kmeans":
        everything = vae.encode(measured.apply(splits.train.images))
        return latent.kmeans_codes(everything, splits.train.labels, config.ipc, config.seed)[0]
    return vae.encode(images)


def _penalty(
    config: Config, splits: Selectable, measured: Standardisation, vae: Vae, labels: Tensor
) -> Callable[[torch.Generator], Callable[[Tensor], Tensor]]:
    settings = config.latent
    known = vae.encode(measured.apply(splits.train.images)) if settings.shape_weight else torch.empty(0, settings.dims)

    def drawn(chance: torch.Generator) -> Callable[[Tensor], Tensor]:
        triplets = shape.draw_triplets(labels, splits.train.labels, TRIPLETS, chance) if settings.shape_weight else None

        def loss(codes: Tensor) -> Tensor:
            total = settings.prior_weight * latent.prior(codes)
            return total if triplets is None else total + settings.shape_weight * shape.code_shape(codes, known.to(codes), triplets)

        return loss

    return drawn
