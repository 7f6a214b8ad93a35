"""What is audited: pipelines from a part of the train split to something that is let out, each run anew for every shadow.

A pipeline trains everything that reads real images again: experts, the VAE of a latent set, the set, the model. What a pipeline lets out is an `Outcome`:
a model, and perhaps a set and a decoder. An attacker turns an outcome into one score an image (`observe`), by the
threat models in `THREATS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from hoptm.config import Config, EvaluationConfig, NetworkConfig, configure, generator
from hoptm.data import Selectable, Standardisation, standardisation
from hoptm.distill import distill
from hoptm.dp_distillation import DpSettings, distil_release, release
from hoptm.dp_training import DpTraining, train_dp
from hoptm.errors import ConfigError
from hoptm.evaluate import Recipe, train_network, train_on
from hoptm.experts import experts
from hoptm.membership import confidence
from hoptm.networks import Network, network
from hoptm.rendering import Decoded
from hoptm.retrieval import distances
from hoptm.vae import Decoder

THREATS = {
    "confidence": "the attacker has a model: how sure is it of this image's label?",
    "nearness": "the attacker has the synthetic images: how near is the nearest of them to this image?",
    "decoder": "the attacker has the decoder that comes with the codes: how well can it draw this image?",
}
_INVERT_STEPS, _INVERT_LR = 25, 0.3


@dataclass(frozen=True)
class AuditSettings:
    """Everything that shapes an audit. Small enough that all arms fit in an hour on two cores; sizes are of the pool, not of the data set."""

    seed: int = 0
    pool: int = 1_400
    """Images of train that are audited; a shadow holds about half of them."""
    shadows: int = 16
    ipc: int = 10
    canaries: int = 40
    """Mislabelled images in all that never start a synthetic image."""
    canary_initialisers: int = 3
    """Of the first `ipc` candidates of each class, those that are mislabelled."""
    width: int = 16
    experts: int = 3
    epochs: int = 4
    iterations: int = 60
    inner_steps: int = 10
    vae_steps: int = 400
    model_steps: int = 200
    models: int = 2
    """Models whose confidences are averaged: an attacker with the set can train several."""
    full_steps: int = 300

    def __post_init__(self) -> None:
        counts = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("seed", "canaries", "canary_initialisers")}
        low = sorted(name for name, value in counts.items() if value < 1)
        if low or self.shadows < 4 or self.canary_initialisers > self.ipc:
            raise ConfigError(f"an audit has 4 shadows or more, sizes of 1 or more ({', '.join(low) or 'they are'}), and no more canaries than initialisers.")


@dataclass(frozen=True)
class Shadow:
    """One shadow: its part of the train split, with mislabelled canaries in it, and the images of that part which initialise, class by class."""

    index: int
    splits: Selectable
    chosen: Int64[Tensor, "n"]
    settings: AuditSettings

    @property
    def config(self) -> Config:
        """Trajectory matching by the published losses, with Adam because the run is short."""
        made = self.settings
        match = {"optimiser": "adam", "lr_images": 0.05, "iterations": made.iterations, "validate_every": made.iterations, "steps": made.inner_steps}
        return configure(
            self.splits.info.name, method="published", ipc=made.ipc, seed=1000 * made.seed + self.index, profile="fast",
            network={"width": made.width}, experts={"count": made.experts, "epochs": made.epochs},
            match={**match, "start_epochs": (0, max(1, made.epochs - 2)), "expert_epochs": min(2, made.epochs)}, latent={"steps": made.vae_steps},
            evaluation={"steps": 1},  # one look at validation, at the end, has nothing to choose from
        )  # fmt: skip

    @property
    def net(self) -> Network:
        """The network of experts, students and audited models."""
        return _network(self.settings, self.splits.channels, self.splits.classes, self.splits.size)

    def chance(self, *name: str | int) -> torch.Generator:
        """Randomness of this shadow alone."""
        return generator(self.settings.seed, "shadow", self.index, *name)


@dataclass(frozen=True)
class Outcome:
    """What a pipeline lets out."""

    net: Network
    thetas: tuple[Tensor, ...]
    standardisation: Standardisation
    images: Float[Tensor, "n c h w"] | None = None
    """The set, 0 .. 1; None for a model alone."""
    decoder: Decoder | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON that belongs to this outcome, such as what was spent."""


Pipeline: TypeAlias = Callable[[Shadow], Outcome]


def _of_set(shadow: Shadow, images: Tensor, labels: Tensor, measured: Standardisation, decoder: Decoder | None = None, **said: Any) -> Outcome:
    """Train the models of a set by a recipe that is fixed in advance, and let the set out with them. Reads the set alone and nothing of train, not even
    its shape, so that what follows a release stays post-processing."""
    net = _network(shadow.settings, images.shape[1], shadow.splits.classes, images.shape[2])
    recipe, settings = Recipe("adamw", 2e-3, "none", shadow.settings.model_steps), EvaluationConfig()
    thetas = [train_network(net, images, labels, recipe, settings, shadow.chance("model", index)) for index in range(shadow.settings.models)]
    return Outcome(net, tuple(thetas), measured, measured.invert(images), decoder, said)


def _network(settings: AuditSettings, channels: int, classes: int, size: int) -> Network:
    return network(NetworkConfig(width=settings.width), channels=channels, classes=classes, size=size)


def real_subset(shadow: Shadow) -> Outcome:
    """The candidates for initialisers as they are: a total leak of these."""
    train, measured = shadow.splits.train, standardisation(shadow.splits.train)
    return _of_set(shadow, measured.apply(train.images[shadow.chosen]), train.labels[shadow.chosen], measured)


def pixels(initial: str, shadow: Shadow) -> Outcome:
    """A pixel set by trajectory matching, from real images, near class means, from noise or from VAE samples (`latent.initial`)."""
    return _matched(shadow, shadow.config.changed(latent={"initial": initial}))


def latent_set(shadow: Shadow) -> Outcome:
    """A latent set: codes, with the decoder of a VAE that saw this shadow's images alone; both are let out. Codes start as encoded real images."""
    return _matched(shadow, shadow.config.changed(latent={"rendering": "decoded"}))


def _matched(shadow: Shadow, config: Config) -> Outcome:
    paths = experts(config, shadow.splits, progress=False, processes=1)
    made = distill(config, shadow.splits, paths, chosen=shadow.chosen, progress=False).synthetic
    decoder = made.rendering.decoder if isinstance(made.rendering, Decoded) else None
    return _of_set(shadow, made.images, made.labels, made.standardisation, decoder)


def dp_set(epsilon: float, shadow: Shadow) -> Outcome:
    """A set distilled from one differentially private release."""
    released = release(shadow.splits.train, shadow.splits.classes, DpSettings(epsilon), shadow.settings.seed, shadow.chance("dp noise", str(epsilon)))
    return _of_set(shadow, *distil_release(released, shadow.settings.ipc), guarantee=released.statement)


def full_model(shadow: Shadow) -> Outcome:
    """A model of all of the shadow's images, and no set."""
    recipe = Recipe("adamw", 2e-3, "none", shadow.settings.full_steps)
    theta = train_on(shadow.net, shadow.splits.train, recipe, EvaluationConfig(), shadow.chance("model", 0))
    return Outcome(shadow.net, (theta,), standardisation(shadow.splits.train))


def dp_model(epsilon: float, shadow: Shadow) -> Outcome:
    """A model trained on all of the shadow's images by DP-SGD, with the public standardisation of the differentially private sets."""
    public = DpSettings(epsilon)
    measured = Standardisation((public.mean,) * shadow.splits.channels, (public.std,) * shadow.splits.channels)
    done = train_dp(shadow.net, shadow.splits.train, measured, DpTraining(epsilon), shadow.chance("dp-sgd", str(epsilon)))
    said = {"epsilon": done.epsilon, "noise": done.noise, "guarantee": done.statement}
    return Outcome(shadow.net, (done.theta,), measured, said=said)


PIPELINES: dict[str, Pipeline] = {
    "random": real_subset,
    "full": full_model,
    "pixel-real": partial(pixels, "real"),
    "pixel-noise": partial(pixels, "noise"),
    "latent": latent_set,
    "pixel-mean": partial(pixels, "mean"),
    "pixel-vae": partial(pixels, "vae"),
}
"""Arms whose settings are complete; the differentially private ones are named with their epsilon, see `pipeline`."""


def pipeline(name: str) -> Pipeline:
    """The pipeline of an arm: a name of `PIPELINES`, `dp-EPSILON` for a set or `dp-sgd-EPSILON` for a model. Raises ConfigError for another."""
    if name in PIPELINES:
        return PIPELINES[name]
    kind, _, epsilon = name.rpartition("-")
    try:
        return partial({"dp": dp_set, "dp-sgd": dp_model}[kind], float(epsilon))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"no arm {name!r}; there are {', '.join(PIPELINES)}, dp-EPSILON and dp-sgd-EPSILON, such as dp-4.") from error


def observe(outcome: Outcome, images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, "n"]) -> dict[str, Float[Tensor, "n"]]:
    """One score an image for each threat model that the outcome allows; higher means: looks more like a member."""
    standardised = outcome.standardisation.apply(images)
    with torch.no_grad():
        each = [confidence(torch.cat([outcome.net(theta, part) for part in standardised.split(512)]), labels) for theta in outcome.thetas]
    found = {"confidence": torch.stack(each).mean(dim=0)}
    if outcome.images is not None:
        found["nearness"] = -distances(images.float() / 255, outcome.images).min(dim=1).values
    if outcome.decoder is not None:
        found["decoder"] = -redrawn(outcome.decoder, standardised)
    return found


def redrawn(decoder: Decoder, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Root mean square error, float64, of the best picture of each image that a decoder gives after a few Adam steps on its code, from 0.

    The encoder is not let out, so the attacker searches for codes.
    """
    errors = []
    for part in images.split(512):
        codes = torch.zeros(len(part), decoder.dims, requires_grad=True)
        optimiser = torch.optim.Adam([codes], _INVERT_LR)
        for _ in range(_INVERT_STEPS):
            optimiser.zero_grad()
            (decoder(codes) - part).square().flatten(1).mean(dim=1).sum().backward()
            optimiser.step()
        with torch.no_grad():
            errors.append((decoder(codes) - part).double().square().flatten(1).mean(dim=1).sqrt())
    return torch.cat(errors)
