"""Feature spaces in which real images are compared: standardised pixels, or a network before its classifier.

Nothing here sees validation or test: a network is trained on the train split alone, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoptm.config import EvaluationConfig
from hoptm.data import Train, standardisation
from hoptm.errors import DataError
from hoptm.evaluate import Recipe, train_on
from hoptm.networks import Network
from hoptm.parameters import unflatten
from hoptm.records import check_room

_CHUNK = 512
"""Images a forward pass."""


@dataclass(frozen=True)
class Features:
    """A feature space: `embed` takes standardised images (n, c, h, w) to features (n, d); `name` says which, in the description of a set."""

    name: str
    embed: Callable[[Tensor], Tensor]


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1)


PIXELS = Features("standardised pixels", _flat)
"""The images themselves, d = c * h * w."""


def embedding(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    """The network before its last linear map, as a function of its whole parameter vector: (theta (P,), images) -> (n, d).

    Differentiable in both. For the ConvNet d is width * (size / 2^depth)^2: what distribution matching calls psi.
    """
    body = network.skeleton[:-1]  # type: ignore[index]  # every family is a sequence that ends in `classifier`

    def psi(theta: Tensor, images: Tensor) -> Tensor:
        named = {name: value for name, value in unflatten(theta, network.layout).items() if not name.startswith("classifier.")}
        features: Tensor = torch.func.functional_call(body, named, (images,))
        return features.flatten(1)

    return psi


def network_features(name: str, network: Network, theta: Float[Tensor, "p"]) -> Features:
    """The features of one network with fixed parameters, computed without gradients where `theta` lies."""
    psi = embedding(network)

    def embed(images: Tensor) -> Tensor:
        with torch.no_grad():
            return psi(theta, images.to(theta))

    return Features(name, embed)


def trained_features(network: Network, train: Train, recipe: Recipe, settings: EvaluationConfig, generator: torch.Generator) -> Features:
    """The features of a network that is trained here, on the train split alone. Raises as `evaluate.train_on`."""
    theta = train_on(network, train, recipe, settings, generator)
    shape = f"{network.config.family} of depth {network.config.depth} and width {network.config.width}"
    return network_features(f"{shape}, trained on train: {recipe.optimiser} {recipe.lr:g}, {recipe.steps} steps", network, theta)


def embed_train(train: Train, features: Features) -> Float[Tensor, "n d"]:
    """The features (n, d) of all training images, standardised by their own statistics, float64 on the CPU, a chunk at a time.

    Raises DataError when `features` gives another shape or numbers that are not finite, ConfigError for more features than this machine has memory for.
    """
    measured = standardisation(train)
    check_room(12 * len(train.images) * features.embed(measured.apply(train.images[:1])).numel(), f"{features.name}, of {len(train.images)} images,")
    parts = [features.embed(measured.apply(part)) for part in train.images.split(_CHUNK)]
    if any(part.ndim != 2 for part in parts) or sum(len(part) for part in parts) != len(train.images):
        raise DataError(f"{features.name} gave {tuple(parts[0].shape)} for {min(_CHUNK, len(train.images))} images; features are one row an image.")
    found = torch.cat(parts).detach().cpu().double()
    if not torch.isfinite(found).all():
        raise DataError(f"{features.name} gave numbers that are not finite. Take another network or a smaller step size.")
    return found
