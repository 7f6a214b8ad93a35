"""A network trained under differential privacy (DP-SGD, Abadi et al. 2016), as a reference point: by Opacus, which is the kept library for it.

Opacus clips each image's gradient, adds the noise, draws Poisson batches and counts what is spent. The network is ours, with its group norm
in the library's own form, which gives the same numbers and whose gradients an image at a time Opacus knows.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hoptm.data import Standardisation, Train
from hoptm.errors import ConfigError, DivergedError
from hoptm.networks import Network
from hoptm.parameters import flatten, unflatten


@dataclass(frozen=True)
class DpTraining:
    """Settings of a run, fixed in advance."""

    epsilon: float
    delta: float = 1e-5
    steps: int = 150
    batch: int = 128
    """Expected size of a Poisson batch."""
    lr: float = 0.5
    momentum: float = 0.9
    clip: float = 1.0
    """L2 norm to which an image's gradient is shortened."""


@dataclass(frozen=True)
class DpTrained:
    """The parameters and what they cost."""

    theta: Float[Tensor, "p"]
    epsilon: float
    """As counted by Opacus's accountant over the steps that were taken, for adding or removing one image."""
    noise: float
    """Noise multiplier."""
    delta: float

    @property
    def statement(self) -> str:
        """What holds, in words. `dp_distillation` promises for the replacement of an image, another adjacency: the epsilons are not to be compared."""
        return (
            f"({self.epsilon:.3g}, {self.delta:g})-differentially private for adding or removing one image; the number of images, the size of a batch and the "
            "standardisation are public, the choice of epsilon on validation is not counted, and one image is the unit, not one patient"
        )


def train_dp(network: Network, train: Train, standardisation: Standardisation, settings: DpTraining, generator: torch.Generator) -> DpTrained:
    """Train on the train split by DP-SGD so that `settings.epsilon` is not exceeded; the PRV accountant (Gopi et al. 2021) counts.

    `standardisation` must be public, or it spends privacy that is not counted here. Batches and noise come from `generator`, which makes the
    run repeatable and is fit for an audit only: for a release the noise must be nobody's to repeat.
    Raises ConfigError when Opacus is missing or the batch is larger than the data, DivergedError when a parameter is not finite.
    """
    opacus = _opacus()
    count = len(train.labels)
    if not 0 < settings.batch < count:
        raise ConfigError(f"a Poisson batch of {settings.batch} of {count} images was asked for; ask for fewer than there are.")
    module, rate = module_of(network, network.initial(generator)), settings.batch / count
    engine: Any = opacus.GradSampleModule(module)
    noise = _noise(rate, settings)
    optimiser = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(engine.parameters(), settings.lr, momentum=settings.momentum),
        noise_multiplier=noise, max_grad_norm=settings.clip, expected_batch_size=settings.batch, generator=generator,
    )  # fmt: skip
    accountant = opacus.accountants.PRVAccountant()
    images = standardisation.apply(train.images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks on inputs without a gradient
        for _ in range(settings.steps):
            optimiser.zero_grad()
            chosen = torch.nonzero(torch.rand(count, generator=generator) < rate).flatten()
            if len(chosen):
                F.cross_entropy(engine(images[chosen]), train.labels[chosen], reduction="mean").backward()
                optimiser.step()
            else:
                _empty_step(optimiser, module)
            accountant.step(noise_multiplier=noise, sample_rate=rate)
    theta = flatten(module)
    if not torch.isfinite(theta).all():
        raise DivergedError("training by DP-SGD left the finite numbers. Take a smaller step size.")
    return DpTrained(theta, float(accountant.get_epsilon(settings.delta)), noise, settings.delta)


def _empty_step(optimiser: Any, module: nn.Module) -> None:
    """An empty Poisson batch is a step of noise alone."""
    for parameter in module.parameters():
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]  # where Opacus looks
    optimiser.step()


def module_of(network: Network, theta: Float[Tensor, "p"]) -> nn.Module:
    """The network as an ordinary module with these parameters; its layers are torch's own, which Opacus knows."""
    module = copy.deepcopy(network.skeleton).to_empty(device="cpu")
    values = unflatten(theta, network.layout)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[name])
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                plain = nn.GroupNorm(child.num_groups, child.num_channels, eps=child.eps)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain)
            elif isinstance(child, nn.Conv2d) and type(child) is not nn.Conv2d:
                same = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None)
                same.load_state_dict(child.state_dict())
                setattr(parent, name, same)
    return module


def matched(scores: Sequence[tuple[float, float]], wanted: float) -> float:
    """The smallest epsilon of (epsilon, validation score) whose score reaches `wanted`; the largest one when none does.

    Raises ConfigError for no scores.
    """
    if not scores:
        raise ConfigError("no DP-SGD models were given to match. Name one epsilon or more.")
    return next((epsilon for epsilon, score in sorted(scores) if score >= wanted), max(epsilon for epsilon, _ in scores))


@lru_cache
def _noise(rate: float, settings: DpTraining) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the range of orders that its first guess searches
        find: Any = _opacus().accountants.utils.get_noise_multiplier
        return float(find(target_epsilon=settings.epsilon, target_delta=settings.delta, sample_rate=rate, steps=settings.steps, accountant="prv"))


def _opacus() -> Any:
    try:
        import opacus
        import opacus.accountants
        import opacus.accountants.utils
        import opacus.optimizers
    except ImportError as error:
        raise ConfigError(f"DP-SGD needs Opacus ({error}). Install it with: pip install 'hoptm[audit]'; or leave the arm dp-sgd out.") from error
    return opacus
