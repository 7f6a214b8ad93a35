"""Experts: networks trained on real data, of whose paths a student's will be compared with.

A path is trained by a pure step `(gradient, theta, settings) -> theta` on flat parameters: plain SGD, or the
flat-minimum step of FTD. Only checkpoints that a run can draw are kept, and training stops at the last of them.
Finished experts are cached; missing ones are trained side by side, one thread each, with the same bits however many.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from hoptm import augment, inner, trajectories
from hoptm.config import Config, ExpertConfig, generator, hash_of, step_size_at
from hoptm.data import Selectable, Standardisation, single_label, standardisation
from hoptm.errors import ConfigError, DivergedError, FileError
from hoptm.files import digest_of
from hoptm.kernels import fastest
from hoptm.networks import Network, network
from hoptm.records import best_device
from hoptm.trajectories import Trajectories
from hoptm.workers import one_thread, side_by_side

Gradient: TypeAlias = Callable[[Tensor], Tensor]
"""From parameters (P,) to the gradient (P,) of one batch's loss."""
Step: TypeAlias = Callable[[Gradient, Tensor, ExpertConfig], Tensor]

_POOL_SECONDS = 10.0
"""Work below this is done here: starting processes would take as long."""


def sgd(gradient: Gradient, theta: Float[Tensor, "p"], settings: ExpertConfig) -> Float[Tensor, "p"]:
    """One plain gradient step of size `settings.lr`: no momentum, no weight decay."""
    return theta - settings.lr * gradient(theta)


def flat(gradient: Gradient, theta: Float[Tensor, "p"], settings: ExpertConfig) -> Float[Tensor, "p"]:
    """One step towards a flat minimum; two gradients of the same batch, norms over all parameters.

    With g the gradient at theta, the adaptive probe is e = rho theta^2 g / || |theta| g ||, g' the gradient at theta + e, and the
    step follows g' - alpha (g - its projection on g'), which also closes the gap between the two losses (Zhuang et
    al. 2022, GSAM; Kwon et al. 2021 for the adaptive radius; used for experts by Du et al. 2023, FTD).
    """
    here = gradient(theta)
    probe = settings.rho * theta**2 * here / (torch.linalg.vector_norm(theta * here) + 1e-12)
    there = gradient(theta + probe)
    direction = there / (torch.linalg.vector_norm(there) + 1e-12)
    across = here - torch.dot(here, direction) * direction
    after: Tensor = theta - settings.lr * (there - settings.sharpness * across)
    return after


OPTIMISERS: dict[str, Step] = {"sgd": sgd, "flat": flat}


def steps_per_epoch(count: int, batch: int) -> int:
    """Optimiser steps in one pass through `count` images; a short last batch is a step too."""
    return -(-count // batch)


def reachable_steps(config: Config, train_count: int) -> tuple[int, ...]:
    """The optimiser steps at which a run can read an expert: ascending, the same for every method.

    For each start epoch t that can be drawn: t, the published middle (2 t + M) // 2, t + M, with M epochs matched, and the epochs of more waypoints. With
    several checkpoints an epoch all are kept, from the first step to the end of the last epoch, so that runs with other windows share them.
    """
    (first, last), length, parts = config.match.start_epochs, config.match.expert_epochs, config.experts.per_epoch
    if parts > 1:
        reach = range(config.experts.epochs * parts + 1)
        return tuple(sorted({round(index * steps_per_epoch(train_count, config.experts.batch) / parts) for index in reach}))
    between = length if config.match.published_middle else length // max(1, config.match.waypoint_count - 1)  # a whole number, or the settings were refused
    epochs = {epoch for start in range(first, last) for epoch in (*range(start, start + length, between), (2 * start + length) // 2, start + length)}
    return tuple(epoch * steps_per_epoch(train_count, config.experts.batch) for epoch in sorted(epochs))


def estimate_bytes(config: Config, parameters: int, train_count: int) -> int:
    """Disk that all experts of a run take, in bytes, for a network of P `parameters`."""
    steps = len(reachable_steps(config, train_count))
    return config.experts.count * (steps * (4 * parameters + 200) + 3_000)


def train(
    network: Network,
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, "n"],
    settings: ExpertConfig,
    keep: Sequence[int],
    generator: torch.Generator,
) -> dict[int, Float[Tensor, "p"]]:
    """Train one network on standardised images, from its initial state to the last step in `keep`.

    Momentum is the heavy ball (Polyak, 1964): theta - theta before is added times `momentum`. With `averaging` what is kept is the running
    average of the weights. Returns the parameters after each of the optimiser steps in `keep` (0: before the first), on the CPU. The
    generator draws the initial network, a permutation of the images each epoch, and each batch's augmentation.
    Raises ConfigError for an unknown optimiser or augmentation, DivergedError when a parameter is not finite.
    """
    step = _optimiser(settings.optimiser)
    last = max(keep, default=-1)
    if last < 0 or min(keep) < 0:
        raise ConfigError(f"optimiser steps to keep are {list(keep)}; give one or more, each 0 or more.")
    theta = network.initial(generator).to(images.device)
    batches, engine = _batches(len(labels), settings.batch, generator), fastest(network, F.cross_entropy, theta.device, theta.dtype)
    whole = settings.epochs * steps_per_epoch(len(labels), settings.batch)
    average = before = theta
    kept: dict[int, Tensor] = {}
    for now in range(last + 1):
        if now in keep:
            kept[now] = average.detach().cpu().clone()  # without the copy, an optimiser that works in place changes what was kept
        if now == last:
            break
        batch = next(batches)
        drawn = augment.draw(settings.augmentation, len(batch), network.size, generator)
        gradient = _gradient(engine, images[batch], labels[batch], drawn, settings.weight_decay)
        after = step(gradient, theta, dataclasses.replace(settings, lr=step_size_at(settings, now / whole)))
        if settings.momentum:
            after = after + settings.momentum * (theta - before)
        theta, before = after, theta
        average = theta if not settings.averaging else torch.lerp(theta, average, min(settings.averaging, (1 + now) / (10 + now)))
        if not torch.isfinite(theta).all():
            raise DivergedError(f"an expert left the finite numbers at optimiser step {now + 1} of {last}. Lower experts.lr (now {settings.lr:g}).")
    return kept


def _optimiser(name: str) -> Step:
    if name not in OPTIMISERS:
        raise ConfigError(f"no optimiser {name!r} for experts; there are {', '.join(OPTIMISERS)}.")
    return OPTIMISERS[name]


def _batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(count, generator=generator).split(batch)


def _gradient(engine: inner.Step, images: Tensor, labels: Tensor, drawn: augment.Draw, weight_decay: float = 0.0) -> Gradient:
    def gradient(theta: Tensor) -> Tensor:
        theta = theta.detach()
        found = engine.first(theta, images, labels, drawn, keep=False)[0]
        return found + weight_decay * theta if weight_decay else found.clone()  # the engine may use its buffer again

    return gradient


@dataclass(frozen=True)
class _Job:
    """All that a worker process needs; plain data, so that it can be sent."""

    config: Config
    images: np.ndarray
    labels: np.ndarray
    classes: int
    standard: Standardisation
    keep: tuple[int, ...]
    info: Mapping[str, Any]
    folder: Path
    device: str

    @property
    def network(self) -> Network:
        return network(self.config.network, channels=self.images.shape[1], classes=self.classes, size=self.images.shape[2])


def experts(
    config: Config, splits: Selectable, *, cache: Path | None = None, progress: bool = True, processes: int | None = None, device: str | None = None
) -> Trajectories:
    """The experts of a run: read from the cache, the missing ones trained on the train split and stored there.

    `cache` is a folder (default: the environment variable HOPTM_CACHE, else the user's cache). `processes` bounds how many are trained side
    by side (default: the cores that are free to this process; one when the work is short or on a GPU). A run that is killed keeps
    its finished experts, and another that wants the same ones at the same time waits for them.

    Raises DataError for a multi-label set, ConfigError for settings out of range, FileError for a damaged or foreign
    file in the cache or a full disk, DivergedError when training fails, HoptmError when a worker process is killed.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"processes is {processes}; it must be 1 or more.")
    job = _job(config, single_label(splits), cache, device or best_device())
    missing = [index for index in range(config.experts.count) if not _is_made(job, index)]
    if missing:
        with (
            one_thread(),
            tqdm(total=config.experts.count, initial=config.experts.count - len(missing), desc="experts", unit="expert", disable=not progress) as bar,
        ):
            number = min(len(missing), processes or _processes(job, len(missing)))
            if number == 1:
                make = _maker(job)
                for index in missing:
                    make(index)
                    bar.update()
            else:
                side_by_side(partial(_maker, job), missing, number, bar.update)
    return trajectories.open_folder(job.folder, job.network.layout, config.experts.count)


def _job(config: Config, splits: Selectable, cache: Path | None, device: str) -> _Job:
    images, labels = splits.train.images.numpy(), splits.train.labels.numpy()
    keep = reachable_steps(config, len(labels))
    _optimiser(config.experts.optimiser)
    layout = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size).layout
    unread = (
        {"count", "per_epoch"}
        | ({"epochs"} if config.experts.decay == "none" else set())
        | ({"rho", "sharpness"} if config.experts.optimiser == "sgd" else set())
    )
    train = digest_of({"images": splits.train.images, "labels": splits.train.labels})
    made_from = {
        "dataset": {"name": splits.info.name, "checksum": splits.info.checksum, "train": train},
        "network": {**dataclasses.asdict(config.network), "channels": splits.channels, "classes": splits.classes, "size": splits.size},
        "experts": {name: value for name, value in dataclasses.asdict(config.experts).items() if name not in unread},
        "seed": config.seed,
        "steps": keep,
        "device": torch.device(device).type,
    }
    info = {**made_from, "layout": list(zip(layout.names, layout.shapes, strict=True)), "steps_per_epoch": steps_per_epoch(len(labels), config.experts.batch)}
    return _Job(config, images, labels, splits.classes, standardisation(splits.train), keep, info, trajectories.cache_folder(made_from, cache), device)


def _is_made(job: _Job, index: int) -> bool:
    path = trajectories.file_of(job.folder, index)
    if not path.exists():
        return False
    info = trajectories.header(path, job.network.layout)
    if hash_of({name: info.get(name) for name in job.info}) != hash_of(job.info):
        raise FileError(f"{path}: made from other data or settings than its folder is named for. Delete it and run again.")
    return True


def _maker(job: _Job) -> Callable[[int], None]:
    """A function that makes one expert, unless another process was quicker."""
    net = job.network
    images = job.standard.apply(torch.from_numpy(job.images)).to(job.device)
    labels = torch.from_numpy(job.labels).to(job.device)

    def make(index: int) -> None:
        path = trajectories.file_of(job.folder, index)
        with trajectories.alone(path):
            if not _is_made(job, index):
                kept = train(net, images, labels, job.config.experts, job.keep, generator(job.config.seed, "experts", index))
                trajectories.save(path, kept, {**job.info, "index": index})

    return make


def _processes(job: _Job, missing: int) -> int:
    """As many as there are cores; one when the work is short, by one gradient measured here."""
    if torch.device(job.device).type != "cpu":
        return 1
    net, batch = job.network, min(job.config.experts.batch, len(job.labels))
    drawn = augment.draw("none", batch, net.size, torch.Generator())
    engine = fastest(net, F.cross_entropy, torch.device("cpu"), torch.float32)
    gradient = _gradient(engine, torch.zeros(batch, *job.images.shape[1:]), torch.zeros(batch, dtype=torch.int64), drawn)
    theta = torch.zeros(net.layout.size)
    gradient(theta)
    began = time.perf_counter()
    gradient(theta)
    seconds = (time.perf_counter() - began) * max(job.keep) * missing
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if seconds > _POOL_SECONDS else 1
