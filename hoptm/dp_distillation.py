"""A small set with a guarantee: the real data are read once, through noise, and never again.

Distribution matching with one fixed random network. Each image's embedding is clipped to length C; the means of all classes are one vector, to
which the analytic Gaussian mechanism adds noise once (`release`). What is left, `distil_release`, takes the noisy vector and public things:
it cannot touch an image, and whatever it does is covered (post-processing).

The guarantee: (epsilon, delta)-DP when one image is replaced by any other of its class. Labels and class counts n_c are
public. Replacing an image of class c moves that class's mean by at most 2 C / n_c and no other, so each class has noise in this proportion.
"""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm.config import NetworkConfig, generator
from hoptm.data import Selectable, Standardisation, Train
from hoptm.embeddings import embedding
from hoptm.errors import ConfigError, DataError
from hoptm.gaussian_mechanism import noise_for
from hoptm.networks import Network, network
from hoptm.synthetic import SyntheticSet, provenance

DELTA = 1e-5
ROWS = ("guarantee", "mechanism", "noise", "class counts (public)", "what it covers")
"""Names of the rows of `described`."""
SECRET = "drawn from the operating system for this release alone, and kept nowhere"
REPEATABLE = "drawn from a generator that was passed in: whoever knows its seed can take the noise away, and from him nothing is hidden"
COVERS = "images, labels, step size and settings; scores and rows of an audit, where a copy has them, were computed from real images without noise"
WITHHELD = "not given, since it is computed from all real images without noise"
"""Stands where other sets have the checksum of their source: who knows all images but one could try candidates against it."""
_CHUNK = 512
_PUBLIC_NOISE = 256


@dataclass(frozen=True)
class DpSettings:
    """Everything that shapes a set besides the data: fixed in advance, none of it chosen by looking at an image."""

    epsilon: float
    delta: float = DELTA
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(depth=3, width=8))
    iterations: int = 300
    lr_images: float = 0.1
    """Step size of Adam on the images."""
    mean: float = 0.5
    std: float = 0.25
    """The standardisation, of every channel, in place of measured statistics."""


@dataclass(frozen=True)
class Release:
    """What leaves the room: the noisy class means and what is public. No image, and no number computed from one without noise."""

    means: Float[Tensor, "k d"]
    counts: tuple[int, ...]
    settings: DpSettings
    channels: int
    size: int
    seed: int
    """Draws the random network and the images that the set starts from; public."""
    secret: bool
    """Whether the noise came from the operating system, so that nobody can draw it again."""

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        return (
            f"({self.settings.epsilon:g}, {self.settings.delta:g})-differentially private for the replacement of one image by another of its class; "
            "labels and class counts are public, and one image is the unit, not one patient"
        )


@dataclass(frozen=True)
class Public:
    """The fixed random network, what is taken from its embeddings, and C; all drawn from a public seed."""

    net: Network
    theta: Float[Tensor, "p"]
    centre: Float[Tensor, "d"]
    """The mean embedding of images of random grey noise: it says nothing of any data set."""
    clip: float
    """C, the median length of the embeddings of those noise images about their mean."""

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Embeddings about the centre, shortened to C where they are longer; differentiable."""
        found = embedding(self.net)(self.theta, images) - self.centre
        length = found.norm(dim=1, keepdim=True).clamp_min(1e-12)
        clipped: Tensor = found * (self.clip / length).clamp_max(1.0)
        return clipped


def public(settings: DpSettings, channels: int, size: int, classes: int, seed: int) -> Public:
    """The public part of a release. Raises ConfigError as `networks.network`."""
    net = network(settings.network, channels=channels, classes=classes, size=size)
    chance = generator(seed, "public network")
    theta = net.initial(chance)
    coarse = torch.rand(_PUBLIC_NOISE, channels, 4, 4, generator=chance)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    with torch.no_grad():
        found = embedding(net)(theta, (smooth - settings.mean) / settings.std)
    centre = found.mean(dim=0)
    return Public(net, theta, centre, float((found - centre).norm(dim=1).median()))


def clipped_means(train: Train, settings: DpSettings, classes: int, known: Public) -> Float[Tensor, "k d"]:
    """The exact class means of clipped embeddings, float64. Not to be let out: `release` adds the noise. Raises DataError for a class without images."""
    fixed = _standardisation(settings, train.images.shape[1])
    with torch.no_grad():
        found = torch.cat([known.embed(fixed.apply(part)) for part in train.images.split(_CHUNK)]).double()
    if not all(bool((train.labels == label).any()) for label in range(classes)):
        raise DataError("a class has no training image, so its mean cannot be released. Merge it with another class.")
    return torch.stack([found[train.labels == label].mean(dim=0) for label in range(classes)])


def release(train: Train, classes: int, settings: DpSettings, seed: int, noise: torch.Generator | None = None) -> Release:
    """Read the train split once and add the noise: the only function here that sees an image.

    In units of its class's sensitivity 2 C / n_c each mean has sensitivity 1, only one of them can move, and so the whole vector has
    sensitivity 1; its noise is `noise_for(epsilon, delta)`. Without `noise` the operating system draws it. A noise from a known seed is no
    protection: who can draw it again takes it away, and has the exact means. A generator is for tests and lessons, which have to repeat; and
    torch keeps 32 bits of a seed, few enough to try them all. (Noise is float64; attacks on the last bits of floating point are out of scope.)

    Raises TypeError for another split, DataError for a multi-label split or an empty class, ConfigError for epsilon or delta out of range.
    """
    if not isinstance(train, Train):
        raise TypeError(f"a release is made from the train split only, not from {type(train).__name__}.")
    if train.labels.ndim != 1:
        raise DataError("the train split is multi-label, and a release needs one class an image. Choose another data set.")
    sigma = noise_for(settings.epsilon, settings.delta)
    known = public(settings, train.images.shape[1], train.images.shape[2], classes, seed)
    counts = torch.bincount(train.labels, minlength=classes)
    exact = clipped_means(train, settings, classes, known)
    scale = 2 * known.clip / counts.double()[:, None]
    drawn = _from_system(exact.shape) if noise is None else torch.randn(exact.shape, dtype=torch.float64, generator=noise)
    noisy = exact + sigma * scale * drawn
    return Release(noisy.float(), tuple(counts.tolist()), settings, train.images.shape[1], train.images.shape[2], seed, noise is None)


def _from_system(shape: torch.Size) -> Float[Tensor, "..."]:
    """Standard normal numbers, float64, from random bits of the operating system: 52 of them a number, taken through the inverse of the normal law."""
    bits = torch.frombuffer(bytearray(os.urandom(8 * shape.numel())), dtype=torch.int64) & (2**52 - 1)
    normal: Tensor = torch.special.ndtri((bits.double() + 0.5) / 2**52)
    return normal.view(shape)


def distil_release(released: Release, ipc: int) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, "n"], Standardisation]:
    """Images (standardised by the public numbers), labels and standardisation whose clipped embeddings have the released means.

    From standard noise, `settings.iterations` Adam steps of fixed size on the squared distance of class means; nothing is chosen on data.
    Pixels are held to what a picture can show. Raises ConfigError for `ipc` below 1.
    """
    if ipc < 1:
        raise ConfigError(f"{ipc} images per class were asked for; ask for 1 or more.")
    settings, classes = released.settings, len(released.counts)
    known = public(settings, released.channels, released.size, classes, released.seed)
    fixed = _standardisation(settings, released.channels)
    labels = torch.arange(classes).repeat_interleave(ipc)
    shape = (len(labels), released.channels, released.size, released.size)
    images = torch.randn(shape, generator=generator(released.seed, "initial noise")).requires_grad_()
    optimiser = torch.optim.Adam([images], settings.lr_images)
    low, high = -settings.mean / settings.std, (1 - settings.mean) / settings.std
    for _ in range(settings.iterations):
        optimiser.zero_grad()
        means = known.embed(images).view(classes, ipc, -1).mean(dim=1)
        (means - released.means).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            images.clamp_(low, high)
    return images.detach(), labels, fixed


def _standardisation(settings: DpSettings, channels: int) -> Standardisation:
    return Standardisation((settings.mean,) * channels, (settings.std,) * channels)


def described(released: Release) -> dict[str, Any]:
    """The guarantee and what it rests on, plain JSON, for a set's card."""
    settings = released.settings
    mechanism = f"analytic Gaussian mechanism, once, on clipped class means; noise {noise_for(settings.epsilon, settings.delta):.4g} sensitivities"
    return dict(zip(ROWS, (released.statement, mechanism, SECRET if released.secret else REPEATABLE, list(released.counts), COVERS), strict=True))


def released_set(released: Release, ipc: int, splits: Selectable, *, lr: float = 0.01) -> SyntheticSet:
    """A set distilled from a release, whose card states the guarantee and where its noise came from.

    Make the release without a generator: its noise is then the operating system's. A noise from a known seed is no protection, and the card says which
    it was. One release gives as many sets as are wanted and nothing more is spent. Of `splits` only the description is read, no image, and its checksum
    is left out. `lr` is a first step size for training on the set; it is not learned. Raises DataError for data of other classes than the release's,
    else as `distil_release`.
    """
    if len(released.counts) != splits.classes:
        raise DataError(f"the release has {len(released.counts)} classes and {splits.info.name} has {splits.classes}. Name the data it was made from.")
    images, labels, fixed = distil_release(released, ipc)
    config = {"differential privacy": dataclasses.asdict(released.settings), "images started as": "noise, from the public seed"}
    info = provenance(splits, method="dp-release", ipc=ipc, seed=released.seed, config=config)
    source = {**info["source"], "checksum": WITHHELD}
    return SyntheticSet(images, labels, lr, fixed, {**info, "source": source, "privacy": described(released)})
