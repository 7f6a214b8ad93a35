"""Sets that are optimised without expert paths: distribution matching (DM) and gradient matching (DC, DSA).

Written from the equations of the papers. All randomness of iteration i comes from the seed and i, and one iteration is a
pure function of the images and their velocity, so a run can be cut anywhere and taken up again with the same bits. The
last iterate is the result: nothing is chosen, so neither validation nor test is read.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from hoptm import augment
from hoptm.config import NetworkConfig, generator
from hoptm.data import Selectable, Standardisation, Train, single_label, standardisation
from hoptm.embeddings import embedding
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.networks import Network, network
from hoptm.parameters import unflatten
from hoptm.records import best_device
from hoptm.synthetic import SyntheticSet, initialise, provenance

_SMALL = NetworkConfig(width=32)


def _check(*counts: int, lr: float, momentum: float, augmentation: str) -> None:
    if min(counts) < 1 or not 0 < lr <= 1e6 or not 0 <= momentum < 1:
        raise ConfigError(f"counts {counts} must be 1 or more, step sizes ({lr}) in 0 .. 1e6 and momentum ({momentum}) in 0 .. 1.")
    augment.kinds(augmentation)


@dataclass(frozen=True)
class DistributionMatching:
    """Settings of DM. The defaults are the paper's for a 3-block ConvNet. Raises ConfigError for a value out of range."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    iterations: int = 20_000
    batch: int = 256
    """Real images a class and iteration, at most."""
    lr_images: float = 1.0
    momentum: float = 0.5
    augmentation: str = "dsa"

    def __post_init__(self) -> None:
        _check(self.iterations, self.batch, lr=self.lr_images, momentum=self.momentum, augmentation=self.augmentation)


@dataclass(frozen=True)
class GradientMatching:
    """Settings of DC, or of DSA when `augmentation` is not "none". The defaults are the papers' for ten images a class.

    Raises ConfigError for a value out of range.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    iterations: int = 1_000
    """K, initial networks."""
    rounds: int = 10
    """T, steps of the images along the training of one network. The papers take 1 at one image a class, 10 at 10, 50 at 50."""
    network_steps: int = 50
    """Steps of the network on the synthetic images between two rounds: 1, 50 and 10 in the papers."""
    batch: int = 256
    """Real images a class and round, at most; also synthetic images a network step, at most."""
    lr_images: float = 0.1
    lr_network: float = 0.01
    momentum: float = 0.5
    augmentation: str = "dsa"

    def __post_init__(self) -> None:
        _check(
            self.iterations, self.rounds, self.network_steps, self.batch,
            lr=min(self.lr_images, self.lr_network), momentum=self.momentum, augmentation=self.augmentation,
        )  # fmt: skip


DM_FAST = DistributionMatching(network=_SMALL, iterations=300, batch=128, lr_images=10.0)
"""For two cores: a narrow network and larger steps on fewer iterations."""
DSA_FAST = GradientMatching(network=_SMALL, iterations=10, network_steps=10, batch=64, lr_images=1.0)
DC_FAST = dataclasses.replace(DSA_FAST, augmentation="none")

Step: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(images (n, c, h, w), velocity of the same shape, the iteration's own generator) -> both after one iteration."""


def distribution_matching(
    splits: Selectable, ipc: int, config: DistributionMatching, seed: int, *, start: SyntheticSet | None = None, progress: bool = False
) -> SyntheticSet:
    """`ipc` images a class whose mean features follow those of real images in random networks (Zhao and Bilen, WACV 2023, algorithm 1).

    Each iteration draws a fresh network psi and, for each class, a real batch and one change of the augmentation, the
    same for real and synthetic images: the loss is the sum over classes of |mean psi(A(real)) - mean psi(A(synthetic))|^2.
    Images start as those of `start`, by default as real training images. Method `dm`.

    Raises DataError for a multi-label set, a class with fewer than `ipc` images or a `start` that does not fit, and
    DivergedError for pixels that are not finite.
    """
    return _run(splits, ipc, config, "dm", seed, start, progress, distribution_step)


def gradient_matching(
    splits: Selectable, ipc: int, config: GradientMatching, seed: int, *, start: SyntheticSet | None = None, progress: bool = False
) -> SyntheticSet:
    """`ipc` images a class on which a network's gradients follow those on real images (DC: Zhao et al., ICLR 2021, algorithm 1;
    with siamese augmentation DSA: Zhao and Bilen, ICML 2021).

    Each iteration trains a fresh network on the synthetic images; `rounds` times on the way the images take a step that
    lowers `gradient_distance`, class by class. Method `dc` without augmentation, else `dsa`. Images start as those of
    `start`, by default as real training images (the papers: noise for DC, either for DSA). Raises as `distribution_matching`.
    """
    return _run(splits, ipc, config, "dc" if config.augmentation == "none" else "dsa", seed, start, progress, gradient_step)


def distribution_step(net: Network, train: Train, measured: Standardisation, labels: Int64[Tensor, "n"], config: DistributionMatching) -> Step:
    """One iteration of DM as a pure function of images, velocity and generator."""
    psi, reals = embedding(net), _real_batches(train, measured, net.classes)

    def step(images: Tensor, velocity: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        theta = net.initial(chance).to(images)
        images = images.detach().requires_grad_()
        loss = images.new_zeros(())
        for label in _classes(labels):
            real = reals(label, config.batch, chance).to(images)
            own = images[labels == label]
            change = _one_change(config.augmentation, net.size, chance)
            with torch.no_grad():
                target = psi(theta, augment.apply(real, _spread(change, len(real)))).mean(dim=0)
            loss = loss + (target - psi(theta, augment.apply(own, _spread(change, len(own)))).mean(dim=0)).square().sum()
        return _descend(images, velocity, loss, config.lr_images, config.momentum)

    return step


def gradient_step(net: Network, train: Train, measured: Standardisation, labels: Int64[Tensor, "n"], config: GradientMatching) -> Step:
    """One iteration of DC or DSA, that is one network, as a pure function of images, velocity and generator."""
    reals = _real_batches(train, measured, net.classes)

    def step(images: Tensor, velocity: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        theta = net.initial(chance).to(images)
        for turn in range(config.rounds):
            images = images.detach().requires_grad_()
            loss = images.new_zeros(())
            for label in _classes(labels):
                real, own = reals(label, config.batch, chance).to(images), images[labels == label]
                change = _one_change(config.augmentation, net.size, chance)
                wanted = _gradient(net, theta, augment.apply(real, _spread(change, len(real))), label).detach()
                loss = loss + gradient_distance(net, wanted, _gradient(net, theta, augment.apply(own, _spread(change, len(own))), label))
            images, velocity = _descend(images, velocity, loss, config.lr_images, config.momentum)
            for _ in range(config.network_steps if turn + 1 < config.rounds else 0):
                theta = _train_once(net, theta, images, labels, config, chance)
        return images, velocity

    return step


def gradient_distance(net: Network, wanted: Float[Tensor, "p"], given: Float[Tensor, "p"]) -> Float[Tensor, ""]:
    """Sum over layers and their output nodes of 1 - cosine of the two gradients at that node (Zhao et al., ICLR 2021).

    A convolution's node is an output channel, a linear map's an output unit. Parameters of one axis (biases, norms)
    take no part. A node whose gradient is zero on either side counts 1.
    """
    total = wanted.new_zeros(())
    for name, one in unflatten(wanted, net.layout).items():
        other = unflatten(given, net.layout)[name]
        if one.ndim > 1:
            one, other = one.flatten(1), other.flatten(1)
            scale = (one.norm(dim=1) * (other.square().sum(dim=1) + 1e-24).sqrt()).clamp_min(1e-12)
            total = total + (1 - (one * other).sum(dim=1) / scale).sum()
    return total


def _run(
    splits: Selectable,
    ipc: int,
    config: DistributionMatching | GradientMatching,
    method: str,
    seed: int,
    start: SyntheticSet | None,
    progress: bool,
    make: Callable[..., Step],
) -> SyntheticSet:
    train, where = single_label(splits).train, best_device()
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    measured = standardisation(train)
    images, labels = _start(splits, measured, ipc, seed, start)
    step = make(net, train, measured, labels.to(where), config)
    images = images.to(where)
    velocity = torch.zeros_like(images)
    for index in tqdm(range(config.iterations), desc=method, unit="iteration", disable=not progress):
        images, velocity = step(images, velocity, generator(seed, method, index))
        if not torch.isfinite(images).all():
            raise DivergedError(f"{method} left the finite numbers at iteration {index + 1}. Take a smaller lr_images than {config.lr_images:g}.")
    begun = "real training images" if start is None else start.info["method"]
    info = provenance(splits, method=method, ipc=ipc, seed=seed, config={**dataclasses.asdict(config), "start": begun})
    return SyntheticSet(images.cpu(), labels, 0.01, measured, info)


def _start(splits: Selectable, measured: Standardisation, ipc: int, seed: int, start: SyntheticSet | None) -> tuple[Tensor, Tensor]:
    if start is None:
        chosen = initialise(splits.train, splits.classes, ipc, generator(seed, "initial images"))
        return measured.apply(splits.train.images[chosen]), splits.train.labels[chosen]
    have, want = (*start.images.shape[1:], start.classes), (splits.channels, splits.size, splits.size, splits.classes)
    if have != want or start.standardisation != measured:
        raise DataError(f"the start {have} does not fit the data {want} (channels, height, width, classes), or is standardised otherwise. Make it anew.")
    return start.images.clone(), start.labels


def _real_batches(train: Train, measured: Standardisation, classes: int) -> Callable[[int, int, torch.Generator], Tensor]:
    members = [torch.nonzero(train.labels == label).flatten() for label in range(classes)]

    def batch(label: int, most: int, chance: torch.Generator) -> Tensor:
        rows = members[label]
        return measured.apply(train.images[rows[torch.randperm(len(rows), generator=chance)[:most]]])

    return batch


def _classes(labels: Tensor) -> Sequence[int]:
    return [int(label) for label in torch.unique(labels)]


def _one_change(strategy: str, size: int, chance: torch.Generator) -> augment.Draw:
    """One change of one image, to be made to every image of a real and a synthetic batch: that is what makes it siamese."""
    return augment.draw(strategy, 1, size, chance)


def _spread(change: augment.Draw, count: int) -> augment.Draw:
    return augment.Draw(change.name, {key: value.expand(count) for key, value in change.values.items()})


def _gradient(net: Network, theta: Tensor, images: Tensor, label: int) -> Tensor:
    """The gradient in the parameters, differentiable in the images when these want it."""
    theta = theta.detach().requires_grad_()
    loss = F.cross_entropy(net(theta, images), torch.full((len(images),), label, device=images.device))
    (found,) = torch.autograd.grad(loss, theta, create_graph=images.requires_grad)
    return found


def _train_once(net: Network, theta: Tensor, images: Tensor, labels: Tensor, config: GradientMatching, chance: torch.Generator) -> Tensor:
    theta = theta.detach().requires_grad_()
    chosen = torch.randperm(len(labels), generator=chance)[: config.batch].to(labels.device)
    change = augment.draw(config.augmentation, len(chosen), net.size, chance)
    loss = F.cross_entropy(net(theta, augment.apply(images[chosen], change)), labels[chosen])
    (found,) = torch.autograd.grad(loss, theta)
    return theta.detach() - config.lr_network * found


def _descend(images: Tensor, velocity: Tensor, loss: Tensor, lr: float, momentum: float) -> tuple[Tensor, Tensor]:
    (found,) = torch.autograd.grad(loss, images)
    velocity = momentum * velocity + found
    return images.detach() - lr * velocity, velocity
