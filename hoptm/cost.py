"""What a run will cost, before it starts: seconds, memory and disk.

Time is predicted from one inner step and one training step measured on this machine, so the prediction follows the
machine. Memory and disk follow from the sizes of the network and the batch.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hoptm import augment
from hoptm.adjoint import backward, forward
from hoptm.arms import ARMS
from hoptm.config import Config, EvaluationConfig, generator
from hoptm.data import Splits
from hoptm.errors import ConfigError
from hoptm.experts import estimate_bytes, reachable_steps
from hoptm.inner import Plan
from hoptm.kernels import fastest
from hoptm.matching_baselines import DC_FAST, DM_FAST, DSA_FAST, distribution_matching, gradient_matching
from hoptm.networks import Network, network
from hoptm.synthetic import budgets_of

_PROCESS_BYTES = 350_000_000
"""Resident memory of Python with torch and scikit-learn loaded."""
_COPIES = 12
"""Activations kept by the graph of one step and its derivative, in units of the feature maps; measured on ConvNets."""


@dataclass(frozen=True)
class Cost:
    """A prediction for one process; experts that are in the cache already cost nothing."""

    expert_seconds: float
    distil_seconds: float
    look_seconds: float
    memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """All of it, one process."""
        return self.expert_seconds + self.distil_seconds + self.look_seconds

    def __str__(self) -> str:
        """One line with units."""
        return (
            f"estimate: about {_time(self.seconds)} on one core (experts {_time(self.expert_seconds)} unless cached, matching {_time(self.distil_seconds)}, "
            f"validation {_time(self.look_seconds)}), {self.memory_bytes / 1e9:.1f} GB of memory, {self.disk_bytes / 1e6:.0f} MB of disk"
        )


def _time(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def estimate(config: Config, splits: Splits) -> Cost:
    """Measure one step of each kind on random images (under a second for small networks) and multiply."""
    match, judged = config.match, config.evaluation
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    chance = generator(config.seed, "cost")
    theta = net.initial(chance)
    count = sum(budgets_of(config.budget, splits.classes))
    inner_batch, look_batch, expert_batch = min(match.batch, count), min(judged.batch, count), min(config.experts.batch, len(splits.train.labels))

    steps = reachable_steps(config, len(splits.train.labels))
    per_expert_step = _train_seconds(net, theta, expert_batch, chance) * (2 if config.experts.optimiser == "flat" else 1)
    looks = -(-match.iterations // match.validate_every)
    return Cost(
        expert_seconds=config.experts.count * max(steps) * per_expert_step,
        distil_seconds=match.iterations * match.steps * _inner_seconds(net, theta, inner_batch, chance),
        look_seconds=looks * judged.steps * _train_seconds(net, theta, look_batch, chance),
        memory_bytes=_PROCESS_BYTES + splits.train.images.numel() + 4 * (match.steps + 8) * net.layout.size + _graph_bytes(config, splits, inner_batch),
        disk_bytes=estimate_bytes(config, net.layout.size, len(splits.train.labels)) + 16 * count * splits.channels * splits.size**2,
    )


def _graph_bytes(config: Config, splits: Splits, batch: int) -> int:
    """Memory of one step's graph: feature maps of each block, four bytes each, several copies."""
    maps, size = 0, splits.size
    for _ in range(config.network.depth):
        maps += config.network.width * size**2
        size //= 2
    return 4 * _COPIES * batch * maps


def _train_seconds(net: Network, theta: torch.Tensor, batch: int, chance: torch.Generator) -> float:
    images = torch.randn(batch, net.channels, net.size, net.size, generator=chance)
    labels = torch.arange(batch) % net.classes
    engine, drawn = fastest(net, F.cross_entropy, theta.device, theta.dtype), augment.draw("none", batch, net.size, chance)
    return _seconds(lambda: engine.first(theta, images, labels, drawn, keep=False))


def _inner_seconds(net: Network, theta: torch.Tensor, batch: int, chance: torch.Generator) -> float:
    images = torch.randn(batch, net.channels, net.size, net.size, generator=chance)
    labels = torch.arange(batch) % net.classes
    plan = Plan((torch.arange(batch),), (augment.draw("none", batch, net.size, chance),))
    lr = torch.tensor(0.01)

    step = fastest(net, F.cross_entropy, theta.device, theta.dtype)

    def both() -> None:
        path = forward(net, theta, images, labels, lr, plan, step=step)
        backward(net, path, {1: path[1]}, images, labels, lr, plan, step=step)

    return _seconds(both)


def _seconds(work: Callable[[], object]) -> float:
    """The quicker of two runs after a warm-up."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def evaluation_seconds(net: Network, images: int, settings: EvaluationConfig, augmentations: int, seed: int = 0) -> float:
    """Seconds that judging one set of so many images takes: every recipe tried and every final network, from one measured step.

    `augmentations` is how many fit the modality: the search tries each optimiser and step size under one of them, then the others.
    Scoring validation and test is not counted.
    """
    chance = generator(seed, "cost")
    tried = len(settings.sgd_lrs) + len(settings.adamw_lrs) + augmentations - 1
    step = _train_seconds(net, net.initial(chance), min(settings.batch, images), chance)
    return (tried + settings.networks) * settings.steps * step


def arm_seconds(name: str, config: Config, splits: Splits) -> float:
    """Seconds that an arm takes to make and to judge; sets matched without expert paths are measured on a small part of their work.

    A VAE that is not in the cache is not counted. Raises ConfigError for an unknown arm.
    """
    if name not in ARMS:
        raise ConfigError(f"no arm {name!r}; there are {', '.join(ARMS)}.")
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    judging = evaluation_seconds(net, sum(budgets_of(config.budget, splits.classes)), config.evaluation, len(splits.info.augmentations), config.seed)
    if name in ("herding", "kcentre", "kmeans"):
        chance = generator(config.seed, "cost")
        return judging + config.evaluation.steps * _train_seconds(net, net.initial(chance), config.evaluation.batch, chance)
    return judging + (_matching_seconds(name, config, splits) if name in ("dm", "dsa", "dc") else 0.0)


def _matching_seconds(name: str, config: Config, splits: Splits) -> float:
    if name == "dm":
        whole = dataclasses.replace(DM_FAST, network=config.network, augmentation=splits.info.augmentations[-1])
        part = dataclasses.replace(whole, iterations=2)
        return whole.iterations / 2 * _once(lambda: distribution_matching(splits, config.ipc, part, config.seed))
    full = dataclasses.replace(DSA_FAST if name == "dsa" else DC_FAST, network=config.network)
    little = dataclasses.replace(full, iterations=1, rounds=2)
    return full.iterations * full.rounds / 2 * _once(lambda: gradient_matching(splits, config.ipc, little, config.seed))


def _once(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_words(seconds: float) -> str:
    """Seconds in the unit that suits them: `45 s`, `3.2 min`, `5.0 h`."""
    return _time(seconds)
