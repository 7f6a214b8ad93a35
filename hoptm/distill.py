"""The outer loop: from experts and a few real images to a synthetic set.

Each outer iteration draws a segment of an expert's path, lets a student train on the synthetic images from the
segment's start, compares the two paths at their waypoints and moves the images and the student's step size down the
gradient. All randomness of iteration i comes from the seed and i, so a killed run that is resumed gives the same bits.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from tqdm import tqdm

from hoptm import adjoint, augment, evaluate, inner, path_losses, progressive
from hoptm.config import Config, MatchConfig, generator, hash_of, resolved
from hoptm.data import Splits, Standardisation, Validation, single_label, standardisation
from hoptm.errors import DivergedError, FileError
from hoptm.experts import experts as train_experts
from hoptm.experts import steps_per_epoch
from hoptm.files import read_tensors, write_tensors
from hoptm.networks import Network, network
from hoptm.scores import predict, score
from hoptm.synthetic import SyntheticSet, initialise, provenance
from hoptm.trajectories import Trajectories

Terms: TypeAlias = Mapping[str, tuple[float, path_losses.PathLoss]]


@dataclass(frozen=True)
class Matching:
    """What is compared: where on the student's path, where on the expert's, and by which losses.

    Give your own to `distill` to try another loss of a path.
    """

    student_steps: tuple[int, ...]
    """Waypoints of the student, as inner steps 0 .. N."""
    expert_epochs: Callable[[int], tuple[int, ...]]
    """From a start epoch to the epochs of the expert's waypoints, as many as the student's."""
    terms: Callable[[Tensor | None], Terms]
    """From the mask (P,) or None to named losses, each with its weight."""


def matching(match: MatchConfig) -> Matching:
    """The end point alone, or with the published shape potential when `shape_weight` is not 0.

    The published middle is inner step N // 2 of the student and epoch (2 t + M) // 2 of the expert, which for odd M
    is not the same share of the way; kept as published.
    """
    length = match.expert_epochs
    if match.shape_weight == 0:
        return Matching((0, match.steps), lambda start: (start, start + length), lambda mask: {"end_point": (1.0, _masked(mask))})
    return Matching(
        (0, match.steps // 2, match.steps),
        lambda start: (start, (2 * start + length) // 2, start + length),
        lambda mask: {"end_point": (1.0, _masked(mask)), "shape": (match.shape_weight, path_losses.shape)},
    )


def _masked(mask: Tensor | None) -> path_losses.PathLoss:
    return path_losses.end_point if mask is None else partial(path_losses.end_point, weight=mask)


@dataclass(frozen=True)
class State:
    """All that one outer iteration hands to the next."""

    iteration: int
    images: Float[Tensor, "n c h w"]
    lr: Float[Tensor, ""]
    images_velocity: Float[Tensor, "n c h w"]
    lr_velocity: Float[Tensor, ""]
    mask: Bool[Tensor, "p"] | None = None

    @staticmethod
    def first(images: Float[Tensor, "n c h w"], lr: float) -> "State":
        """The state before iteration 0."""
        step_size = torch.tensor(lr, dtype=images.dtype, device=images.device)
        return State(0, images, step_size, torch.zeros_like(images), torch.zeros_like(step_size))


@dataclass(frozen=True)
class Look:
    """What was seen in one outer iteration: the total, each term without its weight, the mask's share, the step size."""

    iteration: int
    start_epoch: int
    total: float
    terms: dict[str, float]
    utilisation: float
    lr: float


def outer_step(
    state: State,
    predict: inner.Predict,
    expert: Float[Tensor, "k p"],
    labels: Tensor,
    plan: inner.Plan,
    match: MatchConfig,
    compare: Matching,
    start_epoch: int = 0,
) -> tuple[State, Look, inner.Gradients]:
    """One outer iteration: forward sweep, mask, path loss, adjoint sweep, SGD with momentum on images and step size.

    Raises DivergedError when the student leaves the finite numbers, or when the learned step size would become
    negative (the published method learns it as it is; lower `lr_lr` or `iterations`).
    """
    path = adjoint.forward(predict, expert[0], state.images, labels, state.lr, plan)
    inner.check_waypoints(compare.student_steps, plan.steps, len(expert))
    student = path[list(compare.student_steps)]
    mask = None
    if match.threshold is not None:
        limit = progressive.threshold(state.iteration, match.threshold, match.threshold_growth, match.threshold_every)
        mask = progressive.sticky(state.mask, path_losses.squared_errors(student, expert), limit)
    terms = compare.terms(None if mask is None else mask.to(path.dtype))
    total, at_waypoints = adjoint.waypoint_gradients(path_losses.weighted_sum(list(terms.values())), student, expert, compare.student_steps)
    for_images, _, for_lr = adjoint.backward(predict, path, at_waypoints, state.images, labels, state.lr, plan)

    images_velocity = match.momentum * state.images_velocity + for_images
    lr_velocity = match.momentum * state.lr_velocity + for_lr
    images, lr = state.images - match.lr_images * images_velocity, state.lr - match.step_sizes[1] * lr_velocity
    _check_step(state.iteration, images, lr, match)
    look = Look(
        iteration=state.iteration,
        start_epoch=start_epoch,
        total=float(total),
        terms={name: float(loss(student, expert)) for name, (_, loss) in terms.items()},
        utilisation=1.0 if mask is None else progressive.utilisation(mask),
        lr=float(state.lr),
    )
    new = State(state.iteration + 1, images, lr, images_velocity, lr_velocity, mask)
    return new, look, inner.Gradients(total, for_images, None, for_lr, student)


def _check_step(iteration: int, images: Tensor, lr: Tensor, match: MatchConfig) -> None:
    first, lr_lr = match.step_sizes
    if not (torch.isfinite(images).all() and torch.isfinite(lr)):
        words = f"Lower match.lr_images (now {match.lr_images:g}) or match.lr (now {first:g})."
        raise DivergedError(f"the images left the finite numbers at outer iteration {iteration}. {words}")
    if lr <= 0:
        words = f"Lower match.lr_lr (now {lr_lr:g}) or match.iterations."
        raise DivergedError(f"the learned step size would become {float(lr):.3g} at outer iteration {iteration}. {words}")


def draw_plan(count: int, size: int, match: MatchConfig, chance: torch.Generator) -> inner.Plan:
    """Batches and augmentation of the N inner steps: passes through a fresh permutation of the `count` images.

    A set no larger than a batch is shown whole at each step; the last batch of a pass may be short.
    """
    batches: list[Tensor] = []
    while len(batches) < match.steps:
        order = torch.arange(count) if count <= match.batch else torch.randperm(count, generator=chance)
        batches.extend(order.split(match.batch))
    batches = batches[: match.steps]
    return inner.Plan(tuple(batches), tuple(augment.draw(match.augmentation, len(batch), size, chance) for batch in batches))


@dataclass(frozen=True)
class Distilled:
    """A finished run: the iterate that validation chose, the last one, and what was seen on the way."""

    synthetic: SyntheticSet
    last: SyntheticSet
    history: list[Look]


@dataclass
class _Run:
    """The state of a whole run, as it is kept on disk."""

    state: State
    history: list[Look]
    looks: list[dict[str, float]]
    """Validation looks: iteration and scores."""
    best_images: Tensor
    best_lr: float


def distill(
    config: Config,
    splits: Splits,
    experts: Trajectories,
    *,
    compare: Matching | None = None,
    resume: Path | None = None,
    save_every: int = 10,
    callbacks: Sequence[Callable[[State, Look], None]] = (),
    progress: bool = True,
) -> Distilled:
    """Distil the train split of `splits` into `config.ipc` images a class.

    `compare` replaces the method's own matching. With `resume`, the run's state is written to that file every
    `save_every` iterations and taken up from there when the file exists; a resumed run gives the same bits. Each
    callback sees the new state and what was seen. The test split is never read.

    Raises DataError for a multi-label set or a class with fewer images than `ipc`, FileError for a state of
    another run, DivergedError as `outer_step` does.
    """
    single_label(splits)
    epoch = steps_per_epoch(len(splits.train.labels), config.experts.batch)
    config = resolved(config, epoch)
    match, net = config.match, network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    compare = compare or matching(match)
    measured = standardisation(splits.train)
    chosen = initialise(splits.train, splits.classes, config.ipc, generator(config.seed, "initial images"))
    labels = splits.train.labels[chosen]
    lr, _ = match.step_sizes
    first = State.first(measured.apply(splits.train.images[chosen]), lr)
    run = _Run(first, [], [], first.images, lr)
    if resume is not None and resume.exists():
        run = _read_run(resume, config, first)

    with tqdm(total=match.iterations, initial=run.state.iteration, desc="distil", unit="iteration", disable=not progress) as bar:
        while run.state.iteration < match.iterations:
            chance = generator(config.seed, "outer iteration", run.state.iteration)
            expert_index = int(torch.randint(experts.count, (), generator=chance))
            start = int(torch.randint(*match.start_epochs, (), generator=chance))
            expert = experts.points(expert_index, [at * epoch for at in compare.expert_epochs(start)])
            plan = draw_plan(len(labels), splits.size, match, chance)
            run.state, look, _ = outer_step(run.state, net, expert, labels, plan, match, compare, start)
            run.history.append(look)
            for callback in callbacks:
                callback(run.state, look)
            done = run.state.iteration
            if done % match.validate_every == 0 or done == match.iterations:
                _look_at_validation(run, net, labels, measured, splits.val, config)
            if resume is not None and (done % save_every == 0 or done == match.iterations):
                _write_run(resume, config, run)
            bar.update()
            bar.set_postfix(loss=f"{look.total:.3f}", lr=f"{look.lr:.3g}")

    info = provenance(splits, method=config.method, ipc=config.ipc, seed=config.seed, config=config.as_dict(), selection=run.looks)
    best = SyntheticSet(run.best_images, labels, run.best_lr, measured, info)
    last = SyntheticSet(run.state.images, labels, float(run.state.lr), measured, info)
    return Distilled(best, last, run.history)


def stored_name(config: Config) -> str:
    """The file name under which the set of a run is kept: `DATASET-PROFILE-METHOD-ipcN-seedS.safetensors`."""
    return f"{config.dataset}-{config.profile}-{config.method}-ipc{config.ipc}-seed{config.seed}.safetensors"


def stored_or_made(config: Config, splits: Splits, folder: Path) -> SyntheticSet:
    """The distilled set that ships for a data set, profile, method, budget and seed, or one made now when there is none.

    A set in `folder` counts when it was made from the same data with the same network, experts and matching. One
    line is printed that says which of the two it is; making one takes as long as `distill` does. Raises as it does.
    """
    name = stored_name(config)
    wanted = resolved(config, steps_per_epoch(len(splits.train.labels), config.experts.batch)).as_dict()
    if (folder / name).exists():
        made = SyntheticSet.load(folder / name)
        same = all(made.info["config"].get(part) == wanted[part] for part in ("network", "experts", "match"))
        if same and made.info["source"]["checksum"] == splits.info.checksum:
            print(f"stored set {name}")
            return made
    print(f"no stored set {name} for these data and settings: one is made now")
    return distill(config, splits, train_experts(config, splits, progress=False), progress=False).synthetic


def _look_at_validation(run: _Run, net: Network, labels: Int64[Tensor, "n"], measured: Standardisation, validation: Validation, config: Config) -> None:
    """Train one fresh network on the current images and keep them if no earlier look scored higher on validation."""
    judged = config.evaluation
    recipe = evaluate.Recipe("adamw", judged.adamw_lrs[len(judged.adamw_lrs) // 2], config.match.augmentation, judged.steps)
    theta = evaluate.train_network(net, run.state.images, labels, recipe, judged, generator(config.seed, "validation look"))
    found = score(predict(net, theta, measured, validation.images), validation.labels)
    value = float(getattr(found, judged.select_by))
    if all(value > look[judged.select_by] for look in run.looks):
        run.best_images, run.best_lr = run.state.images, float(run.state.lr)
    run.looks.append({"iteration": run.state.iteration, "accuracy": found.accuracy, "balanced_accuracy": found.balanced_accuracy, "auc": found.auc})


def _write_run(path: Path, config: Config, run: _Run) -> None:
    state = run.state
    tensors = {
        "images": state.images,
        "lr": state.lr,
        "images_velocity": state.images_velocity,
        "lr_velocity": state.lr_velocity,
        "best_images": run.best_images,
    }
    if state.mask is not None:
        tensors["mask"] = state.mask
    info = {
        "run": hash_of(config.as_dict()),
        "iteration": state.iteration,
        "looks": run.looks,
        "best_lr": run.best_lr,
        "history": [dataclasses.asdict(look) for look in run.history],
    }
    write_tensors(path, tensors, info)


def _read_run(path: Path, config: Config, first: State) -> _Run:
    tensors, info = read_tensors(path)
    if info.get("run") != hash_of(config.as_dict()):
        raise FileError(f"{path}: the state of a run with other settings. Delete it to start anew, or name another output file.")
    if tensors["images"].shape != first.images.shape:
        raise FileError(f"{path}: the state holds images of another shape. Delete it to start anew.")
    state = State(info["iteration"], tensors["images"], tensors["lr"], tensors["images_velocity"], tensors["lr_velocity"], tensors.get("mask"))
    return _Run(state, [Look(**look) for look in info["history"]], info["looks"], tensors["best_images"], info["best_lr"])
