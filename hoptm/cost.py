"""What a run will cost, before it starts: seconds, memory and disk.

Time is predicted from one inner step and one training step measured on this machine, in seconds of its processor, so the prediction follows the
machine and not what else runs on it. Memory and disk follow from the sizes of the network and the batch. A `Shape` is enough, so that a data set
that is not here yet can be priced too.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hoptm import augment
from hoptm.adjoint import backward, forward
from hoptm.arms import ARMS
from hoptm.config import Config, EvaluationConfig, NetworkConfig, generator
from hoptm.data import Selectable
from hoptm.errors import ConfigError
from hoptm.experts import estimate_bytes, reachable_steps
from hoptm.inner import Plan
from hoptm.kernels import fastest
from hoptm.matching_baselines import DC_FAST, DM_FAST, DSA_FAST, distribution_matching, gradient_matching
from hoptm.networks import Network, network
from hoptm.records import best_device
from hoptm.synthetic import budgets_of

_PROCESS_BYTES = 350_000_000
"""Resident memory of Python with torch and scikit-learn loaded."""
_COPIES = 12
"""Activations kept by the graph of one step and its derivative, in units of the feature maps; measured on ConvNets."""
_MEASURED_PIXELS = 256 * 28**2
"""A batch of more pixels is timed in part and multiplied: time grows with the batch at most (`data/bench/growth.json`)."""


@dataclass(frozen=True)
class Shape:
    """All of a data set that a cost depends on: channels, classes, edge in pixels, training images, augmentations to choose from."""

    channels: int
    classes: int
    size: int
    train: int
    augmentations: int = 2

    @classmethod
    def of(cls, splits: Selectable) -> "Shape":
        """The shape of a data set that is here."""
        return cls(splits.channels, splits.classes, splits.size, len(splits.train.labels), len(splits.info.augmentations))


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
        parts = f"experts {in_words(self.expert_seconds)} unless cached, matching {in_words(self.distil_seconds)}, validation {in_words(self.look_seconds)}"
        room = f"{self.memory_bytes / 1e9:.1f} GB of memory, {self.disk_bytes / 1e6:.0f} MB of disk"
        return f"estimate: about {in_words(self.seconds)} on one core ({parts}), {room}"


def in_words(seconds: float) -> str:
    """Seconds, minutes, hours or days, with the unit."""
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def is_known_here() -> bool:
    """Whether costs measured here hold here; says so in one line where they do not, which is on a GPU."""
    if best_device() == "cpu":
        return True
    print("no estimate: costs are measured on a processor, and this runs on a GPU", flush=True)
    return False


def estimate(config: Config, data: Selectable | Shape) -> Cost:
    """Measure one step of each kind on random images (under a second for small networks, once a process) and multiply."""
    shape = Shape.of(data) if isinstance(data, Selectable) else data
    match, judged = config.match, config.evaluation
    net = _network(config.network, shape)
    count = sum(budgets_of(config.budget, shape.classes))
    inner_batch, look_batch, expert_batch = min(match.batch, count), min(judged.batch, count), min(config.experts.batch, shape.train)

    steps = reachable_steps(config, shape.train)
    per_expert_step = _train_seconds(config.network, shape, expert_batch) * (2 if config.experts.optimiser == "flat" else 1)
    looks = -(-match.iterations // match.validate_every)
    return Cost(
        expert_seconds=config.experts.count * max(steps) * per_expert_step,
        distil_seconds=match.iterations * match.steps * _inner_seconds(config.network, shape, inner_batch),
        look_seconds=looks * judged.steps * _train_seconds(config.network, shape, look_batch),
        memory_bytes=_PROCESS_BYTES
        + shape.train * shape.channels * shape.size**2
        + 4 * (match.steps + 8) * net.layout.size
        + _graph_bytes(config, shape, inner_batch),
        disk_bytes=estimate_bytes(config, net.layout.size, shape.train) + 16 * count * shape.channels * shape.size**2,
    )


def judgement_seconds(config: Config, data: Selectable | Shape) -> float:
    """What judging a set of the budget of `config` costs. Raises as `evaluation_seconds`."""
    shape = Shape.of(data) if isinstance(data, Selectable) else data
    count = sum(budgets_of(config.budget, shape.classes))
    return evaluation_seconds(_network(config.network, shape), count, config.evaluation, shape.augmentations)


def evaluation_seconds(net: Network, images: int, settings: EvaluationConfig, augmentations: int) -> float:
    """What judging a set of so many images with this network costs: one network for each recipe that is tried, then the fresh networks.

    `augmentations` is how many fit the modality: the search tries each optimiser and step size under one of them, then the others.
    Scoring them on validation and test is not counted.
    """
    shape = Shape(net.channels, net.classes, net.size, images, augmentations)
    tried = len(settings.sgd_lrs) + len(settings.adamw_lrs) + augmentations - 1
    return (tried + settings.networks) * settings.steps * _train_seconds(net.config, shape, min(settings.batch, images))


def arm_seconds(name: str, config: Config, splits: Selectable) -> float:
    """Seconds that an arm takes to make and to judge; sets matched without expert paths are measured on a small part of their work.

    A VAE that is not in the cache is not counted. Raises ConfigError for an unknown arm.
    """
    if name not in ARMS:
        raise ConfigError(f"no arm {name!r}; there are {', '.join(ARMS)}.")
    judging = judgement_seconds(config, splits)
    if name in ("herding", "kcentre", "kmeans"):
        return judging + config.evaluation.steps * _train_seconds(config.network, Shape.of(splits), config.evaluation.batch)
    return judging + (_matching_seconds(name, config, splits) if name in ("dm", "dsa", "dc") else 0.0)


def _matching_seconds(name: str, config: Config, splits: Selectable) -> float:
    if name == "dm":
        whole = dataclasses.replace(DM_FAST, network=config.network, augmentation=splits.info.augmentations[-1])
        part = dataclasses.replace(whole, iterations=2)
        return whole.iterations / 2 * _once(lambda: distribution_matching(splits, config.ipc, part, config.seed))
    full = dataclasses.replace(DSA_FAST if name == "dsa" else DC_FAST, network=config.network)
    little = dataclasses.replace(full, iterations=1, rounds=2)
    return full.iterations * full.rounds / 2 * _once(lambda: gradient_matching(splits, config.ipc, little, config.seed))


def _network(config: NetworkConfig, shape: Shape) -> Network:
    return network(config, channels=shape.channels, classes=shape.classes, size=shape.size)


def _graph_bytes(config: Config, shape: Shape, batch: int) -> int:
    """Memory of one step's graph: feature maps of each block, four bytes each, several copies."""
    maps, size = 0, shape.size
    for _ in range(config.network.depth):
        maps += config.network.width * size**2
        size //= 2
    return 4 * _COPIES * batch * maps


@functools.cache
def _train_seconds(config: NetworkConfig, shape: Shape, batch: int) -> float:
    few, chance = _few(batch, shape), generator(0, "cost")
    net = _network(config, shape)
    theta = net.initial(chance)
    images = torch.randn(few, net.channels, net.size, net.size, generator=chance)
    labels = torch.arange(few) % net.classes
    engine, drawn = fastest(net, F.cross_entropy, theta.device, theta.dtype), augment.draw("none", few, net.size, chance)
    return _seconds(lambda: engine.first(theta, images, labels, drawn, keep=False)) * batch / few


@functools.cache
def _inner_seconds(config: NetworkConfig, shape: Shape, batch: int) -> float:
    few, chance = _few(batch, shape), generator(0, "cost")
    net = _network(config, shape)
    theta = net.initial(chance)
    images = torch.randn(few, net.channels, net.size, net.size, generator=chance)
    labels = torch.arange(few) % net.classes
    plan = Plan((torch.arange(few),), (augment.draw("none", few, net.size, chance),))
    lr = torch.tensor(0.01)
    step = fastest(net, F.cross_entropy, theta.device, theta.dtype)

    def both() -> None:
        path = forward(net, theta, images, labels, lr, plan, step=step)
        backward(net, path, {1: path[1]}, images, labels, lr, plan, step=step)

    return _seconds(both) * batch / few


def _few(batch: int, shape: Shape) -> int:
    return min(batch, max(1, _MEASURED_PIXELS // shape.size**2))


def _seconds(work: Callable[[], object]) -> float:
    """The quicker of two runs after a warm-up, in seconds of the processor: who else runs on the machine does not count."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return max(min(times[1:]), 1e-6)


def _once(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
