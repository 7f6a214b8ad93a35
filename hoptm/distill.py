"""The outer loop: from experts and a few real images to a synthetic set.

Each iteration draws an expert, a segment of its path and a plan, and hands them to `outer.outer_step`. All randomness
of iteration i comes from the seed and i, so a killed run that is resumed gives the same bits. Now and then a fresh
network is trained on the images and scored on validation; the best look is kept.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from tqdm import tqdm

from hoptm import adjoint, evaluate, inner_losses
from hoptm.arms import first_images
from hoptm.captured import Captured
from hoptm.config import Config, MatchConfig, from_dict, generator, hash_of, resolved
from hoptm.data import Selectable, Standardisation, Validation, single_label, standardisation
from hoptm.descent import Moments
from hoptm.errors import FileError
from hoptm.experts import experts as train_experts
from hoptm.experts import steps_per_epoch
from hoptm.files import digest_of, read_tensors, write_tensors
from hoptm.inner import Eager, InnerLoss, Step
from hoptm.kernels import fastest
from hoptm.leaf import leaf
from hoptm.matching import Matching, Terms, apart, matching, outcome, side_by_side
from hoptm.networks import Network, network
from hoptm.outer import Look, Problem, State, draw_plan, draw_plan_of_several, outer_step
from hoptm.records import best_device
from hoptm.rendering import Rendering
from hoptm.scores import predict, score
from hoptm.side_by_side import Several, Summed, step_of
from hoptm.synthetic import SyntheticSet, provenance
from hoptm.teachers import teacher_labels
from hoptm.trajectories import Trajectories


@dataclass(frozen=True)
class Distilled:
    """A finished run: the iterate that validation chose, the last one, and what was seen on the way."""

    synthetic: SyntheticSet
    last: SyntheticSet
    history: list[Look]
    dead_parameters: int
    """Parameters that no output depends on; masks other than the published one leave them out."""


@dataclass
class _Run:
    """The state of a whole run, as it is kept on disk."""

    state: State
    history: list[Look]
    looks: list[dict[str, float]]
    """Validation looks: iteration and scores."""
    best_leaf: Tensor
    best_lr: float
    best_soft: Tensor | None


def distill(
    config: Config,
    splits: Selectable,
    experts: Trajectories,
    *,
    compare: Matching | None = None,
    chosen: Int64[Tensor, "n"] | None = None,
    resume: Path | None = None,
    save_every: int = 10,
    callbacks: Sequence[Callable[[State, Look], None]] = (),
    progress: bool = True,
    device: str | None = None,
    engine: Callable[[Network, InnerLoss, torch.device, torch.dtype], Step] = fastest,
) -> Distilled:
    """Distil the train split of `splits` into `config.ipc` images a class.

    `compare` replaces the method's own matching, and `chosen`, indices of training images, the real images that a run starts from (drawn from
    the seed otherwise). With `resume`, the run's state is written to that file every
    `save_every` iterations and taken up from there when the file exists; a resumed run gives the same bits. Settings, data, first images and what made the
    experts must be the same; a `compare` of your own is not checked. Each
    callback sees the new state and what was seen. `engine` gives what does the work of an inner step: `kernels.fastest`, or `inner.Eager`
    for plain autograd; the two are equal within rounding, and each gives its own bits. `device` is a torch device, by default the GPU if there is one; bits are
    the same from run to run on a CPU only. The test split is never read.

    Raises DataError for a multi-label set or a class with fewer images than `ipc`, FileError for a state of
    another run, DivergedError as `outer_step` does.
    """
    single_label(splits)
    epoch = steps_per_epoch(len(splits.train.labels), config.experts.batch)
    config = resolved(config, epoch)
    match, net = config.match, network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    measured = standardisation(splits.train)
    chosen = first_images(config, splits) if chosen is None else chosen
    where, labels = torch.device(device or best_device()), splits.train.labels[chosen]
    (lr, _) = match.step_sizes
    soft = None if match.labels == "hard" else teacher_labels(net, experts, measured.apply(splits.train.images[chosen])).to(where)
    shown = labels.to(where) if soft is None else soft
    counts, held = (torch.bincount(one, minlength=splits.classes).to(where) for one in (splits.train.labels, labels))
    loss = inner_losses.named(match.inner_loss, counts, held)
    step = engine(net, loss, where, torch.float32)
    problem = Problem(net, shown, match, compare or matching(match), inner_loss=loss, alive=net.alive.to(where), layout=net.layout, step=step)
    begun = leaf(config, splits, chosen, measured)
    problem = replace(problem, render=begun.rendering)
    if match.memory_mb:
        problem = replace(problem, match=replace(match, keep=_kept_within(problem, begun.start.to(where), config.seed, splits.size)))
    worked = problem if match.segments == 1 else _several(problem, net, step_of(engine, net, loss, match.segments, where, torch.float32))
    logits = soft.log() if soft is not None and match.labels == "learned" else None
    first = State.first(begun.start.to(where), lr, logits, each=match.steps if match.step_sizes_of == "each" else 0)
    run = _Run(first, [], [], first.leaf, lr, soft)
    given = {"chosen": chosen, "leaf": first.leaf} | ({} if soft is None else {"labels": soft})
    of = hash_of([config.as_dict(), splits.info.checksum, experts.info, digest_of(given)])
    if resume is not None and resume.exists():
        run = _read_run(resume, of, first)

    with tqdm(total=match.iterations, initial=run.state.iteration, desc="distil", unit="iteration", disable=not progress) as bar:
        while run.state.iteration < match.iterations:
            chance = generator(config.seed, "outer iteration", run.state.iteration)
            drawn = [_segment(run.state, problem, experts, epoch, splits.size, chance) for _ in range(match.segments)]
            start, expert = drawn[0][0], torch.cat([waypoints for _, waypoints in drawn], dim=1)
            plan = (draw_plan if match.segments == 1 else draw_plan_of_several)(len(labels), splits.size, match, chance).to(where)
            extra = _outcome(problem, splits, measured, chance, where) if match.outcome_weight else None
            now = worked if begun.penalty is None else replace(worked, penalty=begun.penalty(chance))
            run.state, look, _ = outer_step(run.state, now, expert.to(where), plan, start, extra)
            run.history.append(look)
            for callback in callbacks:
                callback(run.state, look)
            done = run.state.iteration
            if done % match.validate_every == 0 or done == match.iterations:
                _look_at_validation(run, net, problem, measured, splits.val, config)
            if resume is not None and (done % save_every == 0 or done == match.iterations):
                _write_run(resume, of, run)
            bar.update()
            bar.set_postfix(loss=f"{look.total:.3f}", lr=f"{look.lr:.3g}")

    info = provenance(splits, method=config.method, ipc=config.ipc, seed=config.seed, config=config.as_dict(), selection=run.looks)
    best, last = (
        _as_set(made.cpu(), size, labels, begun.rendering, measured, info, said)
        for made, size, said in ((run.best_leaf, run.best_lr, run.best_soft), (run.state.leaf, float(run.state.lr.mean()), _soft(run.state, soft)))
    )
    return Distilled(best, last, run.history, int((~net.alive).sum()))


def _several(problem: Problem, one: Network, step: Step) -> Problem:
    """The same problem for `match.segments` students side by side."""
    count = problem.match.segments
    copies, loss = Several(one, count), Summed(problem.inner_loss, count)
    return replace(problem, predict=copies, compare=side_by_side(problem.compare, count), inner_loss=loss, step=step, alive=None, layout=None)


def _kept_within(problem: Problem, start: Tensor, seed: int, size: int) -> int:
    """How many inner steps `match.memory_mb` lets the engine keep, said in one line."""
    match, chance = problem.match, generator(seed, "memory")
    plan = draw_plan(len(problem.labels), size, match, chance).to(start.device)
    with torch.no_grad():
        images = problem.render(start)
    step = problem.step or Eager(problem.predict, problem.inner_loss)
    found = adjoint.steps_within(match.memory_mb * 1e6 / match.segments, step, problem.predict.initial(chance).to(start.device), images, problem.labels, plan)
    words = "; recorded on a GPU, no step can be kept, so match.memory_mb changes nothing" if isinstance(step, Captured) else ""
    print(f"hoptm: {found} of {match.steps} inner steps are kept for the backward sweep within {match.memory_mb:g} MB{words}", file=sys.stderr)
    return found


def _soft(state: State, fixed: Tensor | None) -> Tensor | None:
    """The soft labels of this state, None when labels are hard."""
    return fixed if state.logits is None else state.logits.softmax(dim=1)


def _as_set(
    made: Tensor, lr: float, labels: Tensor, rendering: Rendering, measured: Standardisation, info: dict[str, Any], soft: Tensor | None
) -> SyntheticSet:
    """The leaf and its images as a set."""
    with torch.no_grad():
        images = rendering(made)
    return SyntheticSet(images, labels, lr, measured, info, codes=made, rendering=rendering, soft=None if soft is None else soft.cpu())


def _segment(state: State, problem: Problem, experts: Trajectories, epoch: int, size: int, chance: torch.Generator) -> tuple[int, Tensor]:
    """The start epoch and waypoints of one expert's segment; or where the student has come by itself, as its only waypoint."""
    match = problem.match
    expert_index = int(torch.randint(experts.count, (), generator=chance))
    start = int(torch.randint(*_window(match, state.iteration), (), generator=chance))
    if not match.own_start:
        return start, experts.points(expert_index, [round(at * epoch) for at in problem.compare.expert_epochs(start)])
    own = int(torch.randint(match.own_start, (), generator=chance))
    theta = problem.predict.initial(chance).to(state.leaf.device)
    if own:
        plan = draw_plan(len(problem.labels), size, match, chance, own).to(state.leaf.device)
        targets = problem.labels if state.logits is None else state.logits.softmax(dim=1)
        theta = adjoint.forward(
            problem.predict, theta, problem.render(state.leaf), targets, state.lr, plan, problem.inner_loss, momentum=match.student_momentum, step=problem.step
        )[-1]
    return own, theta[None]


def _window(match: MatchConfig, iteration: int) -> tuple[int, int]:
    """The start epochs that can be drawn now."""
    first, last = match.start_epochs
    if match.window == "fixed":
        return first, last
    return first, first + 1 + round((last - first - 1) * iteration / max(1, match.iterations - 1))


def _outcome(problem: Problem, splits: Selectable, measured: Standardisation, chance: torch.Generator, where: torch.device) -> Terms:
    """The outcome term on a fresh batch of real training images."""
    match = problem.match
    seen = torch.randint(len(splits.train.labels), (match.outcome_batch,), generator=chance)
    images, labels = measured.apply(splits.train.images[seen]).to(where), splits.train.labels[seen].to(where)
    loss = outcome(problem.predict, images, labels)
    return {"outcome": (match.outcome_weight, loss if match.segments == 1 else apart(loss, match.segments))}


def stored_name(config: Config) -> str:
    """The file name under which the set of a run is kept: `DATASET-PROFILE-METHOD-ipcN-seedS.safetensors`."""
    return f"{config.dataset}-{config.profile}-{config.method}-ipc{config.ipc}-seed{config.seed}.safetensors"


def stored_or_made(config: Config, splits: Selectable, folder: Path) -> SyntheticSet:
    """The distilled set that ships for a data set, profile, method, budget and seed, or one made now when there is none.

    A set in `folder` counts when it was made from the same data with the same network, experts and matching. One
    line is printed that says which of the two it is; making one takes as long as `distill` does. Raises as it does.
    """
    name = stored_name(config)
    wanted = resolved(config, steps_per_epoch(len(splits.train.labels), config.experts.batch))
    if (folder / name).exists():
        made = SyntheticSet.load(folder / name)
        kept = from_dict(made.info["config"])
        same = all(getattr(kept, part) == getattr(wanted, part) for part in ("network", "experts", "match", "latent"))
        if same and made.info["source"]["checksum"] == splits.info.checksum:
            print(f"stored set {name}")
            return made
    print(f"no stored set {name} for these data and settings: one is made now")
    return distill(config, splits, train_experts(config, splits, progress=False), progress=False).synthetic


def _look_at_validation(run: _Run, net: Network, problem: Problem, measured: Standardisation, validation: Validation, config: Config) -> None:
    """Train one fresh network on the current images and keep them if no earlier look scored higher on validation."""
    with torch.no_grad():
        images = problem.render(run.state.leaf)
    judged = config.evaluation
    recipe = evaluate.Recipe("adamw", judged.adamw_lrs[len(judged.adamw_lrs) // 2], config.match.look or config.match.augmentation, judged.steps)
    theta = evaluate.train_network(
        net, images, problem.labels if run.state.logits is None else run.state.logits.softmax(dim=1), recipe, judged, generator(config.seed, "validation look")
    )
    found = score(predict(net, theta, measured, validation.images), validation.labels)
    value = float(getattr(found, judged.select_by))
    if all(value > look[judged.select_by] for look in run.looks):
        run.best_leaf, run.best_lr, run.best_soft = run.state.leaf, float(run.state.lr.mean()), _soft(run.state, run.best_soft)
    run.looks.append({"iteration": run.state.iteration, "accuracy": found.accuracy, "balanced_accuracy": found.balanced_accuracy, "auc": found.auc})


_MOMENTS = ("leaf", "lr", "leaf_square", "lr_square")


def _write_run(path: Path, of: str, run: _Run) -> None:
    state = run.state
    moments = {f"moment_{name}": getattr(state.moments, name) for name in _MOMENTS}
    tensors = {"leaf": state.leaf, "lr": state.lr, "best_leaf": run.best_leaf, **moments}
    if state.mask is not None:
        tensors["mask"] = state.mask
    if run.best_soft is not None:
        tensors["best_soft"] = run.best_soft
    if state.logits is not None and state.label_moments is not None:
        tensors |= {"logits": state.logits, **{f"label_moment_{name}": getattr(state.label_moments, name) for name in _MOMENTS}}
    info = {
        "run": of,
        "iteration": state.iteration,
        "looks": run.looks,
        "best_lr": run.best_lr,
        "history": [dataclasses.asdict(look) for look in run.history],
    }
    write_tensors(path, tensors, info)


def _read_run(path: Path, of: str, first: State) -> _Run:
    stored, info = read_tensors(path)
    tensors = {name: tensor.to(first.leaf.device) for name, tensor in stored.items()}
    if info.get("run") != of:
        raise FileError(f"{path}: the state of a run with other settings, data, experts or first images. Delete it to start anew, or name another output file.")
    if tensors["leaf"].shape != first.leaf.shape:
        raise FileError(f"{path}: the state holds images of another shape. Delete it to start anew.")
    moments = Moments(**{name: tensors[f"moment_{name}"] for name in _MOMENTS})
    label_moments = Moments(**{name: tensors[f"label_moment_{name}"] for name in _MOMENTS}) if "logits" in tensors else None
    state = State(info["iteration"], tensors["leaf"], tensors["lr"], moments, tensors.get("mask"), tensors.get("logits"), label_moments)
    return _Run(state, [Look(**look) for look in info["history"]], info["looks"], tensors["best_leaf"], info["best_lr"], tensors.get("best_soft"))
