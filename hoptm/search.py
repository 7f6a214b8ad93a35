"""Search for settings on the validation split: seeded, resumable, the same budget and shared space for every method.

A trial distils with settings that Optuna proposes (tree-structured Parzen estimator) and takes the best of the run's looks
at validation. What searches takes a `data.Selectable`, which has no test split; whole `Splits` may be given, and a trial gets them without their
test split. Trials are kept in a journal file, so a stopped search goes on; the seeds of a search are none of those that results are reported for.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from hoptm.config import Config, configure
from hoptm.data import Selectable
from hoptm.distill import distill
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.experts import experts

SEED = 100
"""First seed of a search; reported seeds are below."""
MOST = 40
"""Trials of one method on one data set, at most."""

Suggest: TypeAlias = Any
"""An Optuna trial: `suggest_float`, `suggest_int`, `suggest_categorical`."""


def shared(trial: Suggest, config: Config, modality: str) -> dict[str, Any]:
    """What every method may choose: the step size of the images, inner steps, the window of starts, augmentation.

    The outer optimiser is Adam, which learns the student's step size as its logarithm. Plain steps learn it as it is: where an earlier search could choose
    them (PBC-28, `data/search/earlier`), each of their runs that could start beyond the first epoch ended below 0, and the best of the others hardly moved
    the images.
    """
    large = config.profile == "large"  # many images: smaller steps of each, longer paths, late windows
    low, high = (0.001, 0.05) if large else (0.01, 0.2)
    starts = {"early": (0, 4), "whole": (0, 18), "late": (9, 18)}
    match = {
        "optimiser": "adam",
        "lr_images": trial.suggest_float("lr_images_adam", low, high, log=True),
        "steps": trial.suggest_categorical("steps", [20, 40] if large else [10, 20, 40]),
        "start_epochs": starts[trial.suggest_categorical("starts", list(starts))] if large else (0, trial.suggest_categorical("last_start", [1, 4, 8])),
        "augmentation": trial.suggest_categorical("augmentation", sorted({"dsa", modality})),
    }
    return {"match": match}


def published(trial: Suggest, config: Config, modality: str) -> dict[str, Any]:
    """The published parts: weight of the shape potential, first threshold and its growth."""
    found = shared(trial, config, modality)
    found["match"] |= {
        "shape_weight": trial.suggest_float("shape_weight", 0.1, 5.0, log=True),
        "threshold": trial.suggest_float("threshold", 1e-9, 1e-3, log=True),
        "threshold_growth": trial.suggest_float("threshold_growth", 1.1, 2.0),
        "threshold_every": max(1, config.match.iterations // 20),
    }
    return found


def extended(trial: Suggest, config: Config, modality: str) -> dict[str, Any]:
    """Most parts that this project adds: ends, orders up to torsion, a quantile mask, windows, inner losses, momentum of the student, the outcome, starts.

    No shape potential, no mask by threshold or layers, no step size for each step, no other experts, no soft labels.
    """
    found = shared(trial, config, modality)
    found["match"] |= {
        "end": trial.suggest_categorical("end", ["fixed", "adaptive"]),
        "waypoints": 5,
        "between_weight": trial.suggest_categorical("between_weight", [0.0, 0.5]),
        "orders": tuple(trial.suggest_categorical(name, [0.0, 0.1, 0.5]) for name in ("velocity", "curvature", "torsion")),
        "orders_rise": trial.suggest_categorical("orders_rise", [0.0, 0.5]),
        "mask": "quantile",
        "quantile": (trial.suggest_categorical("first_share", [0.3, 1.0]), 1.0),
        "window": trial.suggest_categorical("window", ["fixed", "growing"]),
        "inner_loss": trial.suggest_categorical("inner_loss", ["cross_entropy", "prior", "balanced_softmax"]),
        "student_momentum": trial.suggest_categorical("student_momentum", [0.0, 0.5, 0.9]),
        "outcome_weight": trial.suggest_categorical("outcome_weight", [0.0, 0.3, 1.0]),
        "first_images": trial.suggest_categorical("first_images", ["random", "herding"]),
    }
    return found


SPACES: Mapping[str, Callable[[Suggest, Config, str], dict[str, Any]]] = {
    "endpoint": shared,
    "published": published,
    "extended": extended,
    "latent": shared,
}


def search(
    dataset: str,
    method: str,
    ipc: int,
    splits: Selectable,
    journal: Path,
    *,
    trials: int = 12,
    profile: str = "tuned",
    seeds: int = 1,
    base: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Up to `trials` trials in all, those in `journal` counted, and no new one after `seconds`; returns the best settings, their score, the number of trials.

    The score is the best look at validation of a run (`distill`), by `evaluation.select_by`, the mean over `seeds` seeds from SEED on. Looks of new
    trials train their network under the modality's augmentation, whatever a trial's student sees, so that trials differ by their images alone.
    A trial whose run diverges counts and scores 0. `base` are changes of the settings that all trials share.

    Raises ConfigError for a method without a space, more than MOST trials, or no time for a single one, DataError when Optuna is not installed.
    """
    if method not in SPACES:
        raise ConfigError(f"no search space for {method!r}; there are {', '.join(SPACES)}.")
    if not 1 <= trials <= MOST:
        raise ConfigError(f"{trials} trials were asked for; 1 to {MOST} are allowed.")
    optuna = _optuna()
    modality = splits.info.augmentations[-1]

    def objective(trial: Suggest) -> float:
        scores = []
        for seed in range(SEED, SEED + seeds):
            config = configure(dataset, method=method, ipc=ipc, seed=seed, profile=profile, **(base or {})).changed(match={"look": modality})
            changes = SPACES[method](trial, config, modality)
            trial.set_user_attr("changes", json.loads(json.dumps(changes)))
            try:
                scores.append(validation_score(config.changed(**changes), splits.without_test))
            except DivergedError as error:
                trial.set_user_attr("diverged", str(error))
                scores.append(0.0)
        return sum(scores) / len(scores)

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    name = f"{dataset}-{method}-ipc{ipc}"
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    study.sampler = optuna.samplers.TPESampler(seed=SEED + len(done))  # the same seed again would propose the same trials again
    study.optimize(objective, n_trials=max(0, trials - len(done)), timeout=seconds)
    if (best := _best(study.get_trials(deepcopy=False))) is None:
        raise ConfigError(f"no trial of {name} ended within {seconds} seconds. Allow more.")
    finished = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    return {"changes": best.user_attrs["changes"], "score": best.value, "trials": finished, "method": method, "ipc": ipc, "dataset": dataset}


def _best(trials: Sequence[Any]) -> Any | None:
    """The first of the best trials by Adam. Older journals hold trials of plain steps as well, and looks under each trial's own augmentation: do not go on
    with one, begin anew."""
    known = [trial for trial in trials if trial.value is not None and trial.user_attrs["changes"]["match"]["optimiser"] == "adam"]
    return max(known, key=lambda trial: (trial.value, -trial.number), default=None)


def trials_in(journal: Path) -> tuple[int, int]:
    """Finished trials of a stored search, and how many of them diverged. Read as plain lines of JSON, so Optuna is not needed.

    Raises DataError for a file that is no journal.
    """
    finished, diverged = 0, 0
    try:
        for line in journal.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            finished += entry["op_code"] == _STATE_OF_TRIAL and entry["state"] in _FINISHED
            diverged += entry["op_code"] == _ATTRIBUTE_OF_TRIAL and "diverged" in entry["user_attr"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{journal}: not a journal of a search ({error}). Make one with data/make_search.py.") from error
    return finished, diverged


def by_adam(journal: Path) -> int:
    """How many finished trials of a stored search, the diverged ones among them, had Adam. Raises DataError as `trials_in`."""
    trials_in(journal)
    entries = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    finished = {entry["trial_id"] for entry in entries if entry["op_code"] == _STATE_OF_TRIAL and entry["state"] in _FINISHED}
    chosen = [entry for entry in entries if entry["op_code"] == _ATTRIBUTE_OF_TRIAL and "changes" in entry["user_attr"] and entry["trial_id"] in finished]
    return sum(entry["user_attr"]["changes"]["match"]["optimiser"] == "adam" for entry in chosen)


def hours_in(journal: Path) -> float:
    """Hours of wall time that the finished trials of a stored search took, with experts where they were not cached. Raises DataError as `trials_in`."""
    trials_in(journal)
    entries = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    began = [datetime.fromisoformat(entry["datetime_start"]) for entry in entries if entry["op_code"] == _NEW_TRIAL]
    ended = {entry["trial_id"]: entry["datetime_complete"] for entry in entries if entry["op_code"] == _STATE_OF_TRIAL and entry["state"] in _FINISHED}
    return math.fsum((datetime.fromisoformat(end) - began[trial]).total_seconds() for trial, end in ended.items()) / 3600


_NEW_TRIAL, _STATE_OF_TRIAL, _ATTRIBUTE_OF_TRIAL, _FINISHED = 4, 6, 8, (1, 2, 3)
"""Optuna's numbers in a journal: what a line sets, and the states complete, pruned and failed."""


def validation_score(config: Config, splits: Selectable) -> float:
    """Distil; the best of the run's own looks at validation."""
    done = distill(config, splits, experts(config, splits, progress=False, processes=1), progress=False)
    return max(float(look[config.evaluation.select_by]) for look in done.synthetic.info["selection"])


def _optuna() -> Any:
    try:
        import optuna  # heavy, and only a search needs it
    except ImportError as error:
        raise DataError("a search needs Optuna: pip install 'hoptm[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
