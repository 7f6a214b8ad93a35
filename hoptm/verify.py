"""Replay frozen outer iterations of the published method through this core, and say how far they are apart.

The golden files hold three consecutive outer iterations in float64: inputs, student, mask, losses, gradients and
updates. They ship with the package, so an installed wheel can check itself: `hoptm verify`.
"""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from hoptm import augment
from hoptm.config import MatchConfig, NetworkConfig
from hoptm.errors import ConfigError, FileError
from hoptm.inner import Plan
from hoptm.networks import network
from hoptm.outer import Problem, State, matching, outer_step

TOLERANCE = 1e-9
"""Largest relative error, max|a - b| / max|b|, that counts as equal."""

_SETTINGS = ("expert", "images_0", "labels", "lr_0", "T", "lamb", "lr_img", "lr_lr", "momentum", "width", "depth", "expert_epochs")
_AFTER = (
    "start_epoch", "mid_epoch", "threshold", "batches", "student_mid", "student_end", "mask", "endpoint_loss", "shape_loss", "total_loss",
    "grad_images", "grad_lr", "images_after", "lr_after",
)  # fmt: skip


def golden_files() -> list[Path]:
    """The files that ship with the package."""
    folder = Path(str(resources.files("hoptm") / "golden"))
    return sorted(folder.glob("*.npz"))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Relative error of each number, and how many entries of each mask differ."""

    errors: dict[str, float]
    masks: dict[str, int]

    @property
    def passed(self) -> bool:
        """Every error within TOLERANCE (a NaN is not) and every mask equal."""
        return bool(self.errors) and all(error <= TOLERANCE for error in self.errors.values()) and not any(self.masks.values())


def verify(path: Path) -> Verdict:
    """Replay one golden file in float64. Raises FileError when the file is not one."""
    golden = _read(path)
    labels = torch.from_numpy(golden["labels"].astype(np.int64))
    expert, images = torch.from_numpy(golden["expert"]), torch.from_numpy(golden["images_0"])
    settings = NetworkConfig("convnet", int(golden["depth"]), int(golden["width"]), "instance")
    try:
        predict = network(settings, channels=images.shape[1], classes=int(labels.max()) + 1, size=images.shape[-1])
    except ConfigError as error:
        raise FileError(f"{path}: {error}") from error
    if predict.layout.size != expert.shape[1]:
        raise FileError(f"{path}: its checkpoints have {expert.shape[1]} parameters and its network {predict.layout.size}.")
    match = MatchConfig(
        steps=int(golden["T"]), expert_epochs=int(golden["expert_epochs"]), lr_images=float(golden["lr_img"]), lr_lr=float(golden["lr_lr"]),
        momentum=float(golden["momentum"]), shape_weight=float(golden["lamb"]), threshold_growth=1.0, augmentation="none",
        threshold=1.0,  # each iteration of the file has its own
    )  # fmt: skip
    state, problem = State.first(images, float(golden["lr_0"])), Problem(predict, labels, match, matching(match))
    errors: dict[str, float] = {}
    masks: dict[str, int] = {}
    for iteration in range(_iterations(golden)):
        part = {name: golden[f"it{iteration}_{name}"] for name in _AFTER}
        state = _replay(part, f"it{iteration}_", state, problem, expert, errors, masks)
    return Verdict(errors, masks)


def _replay(part: dict[str, Any], prefix: str, state: State, problem: Problem, expert: torch.Tensor, errors: dict[str, float], masks: dict[str, int]) -> State:
    """One iteration: our numbers beside the file's."""
    match = dataclasses.replace(problem.match, threshold=float(part["threshold"]))
    start = int(part["start_epoch"])
    epochs = problem.compare.expert_epochs(start)
    batches = tuple(torch.from_numpy(row[row >= 0]) for row in part["batches"])
    nothing = tuple(augment.draw("none", len(batch), state.leaf.shape[-1], torch.Generator()) for batch in batches)
    state, look, found = outer_step(state, dataclasses.replace(problem, match=match), expert[list(epochs)], Plan(batches, nothing), start)
    ours = {
        "mid_epoch": epochs[1], "student_mid": found.path[1], "student_end": found.path[2],
        "endpoint_loss": look.terms["end_point"], "shape_loss": match.shape_weight * look.terms["shape"], "total_loss": look.total,
        "grad_images": found.images, "grad_lr": found.lr, "images_after": state.leaf, "lr_after": state.lr,
    }  # fmt: skip
    for name, value in ours.items():
        wanted = np.asarray(part[name], dtype=np.float64)
        errors[prefix + name] = float(np.abs(np.asarray(value, dtype=np.float64) - wanted).max() / np.abs(wanted).max())
    if state.mask is None:
        raise ConfigError("the replay has no mask; the published method always has one.")
    masks[prefix + "mask"] = int((state.mask.numpy() != part["mask"].astype(bool)).sum())
    return state


def _iterations(golden: dict[str, Any]) -> int:
    return sum(name.endswith("_start_epoch") for name in golden)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileError(f"{path}: no such file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile, TypeError, AttributeError) as error:
        raise FileError(f"{path}: not a golden file ({error}). Give an .npz in the layout of hoptm/golden.") from error
    wanted = [*_SETTINGS, *(f"it{number}_{name}" for number in range(max(1, _iterations(golden))) for name in _AFTER)]
    missing = [name for name in wanted if name not in golden]
    if missing:
        raise FileError(f"{path}: it holds no {missing[0]!r}. Give an .npz in the layout of hoptm/golden.")
    wrong = [name for name in ("expert", "images_0") if golden[name].dtype != np.float64]
    if wrong:
        raise FileError(f"{path}: {wrong[0]} is {golden[wrong[0]].dtype}; golden numbers are float64.")
    return golden
