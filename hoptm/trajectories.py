"""Expert trajectories on disk: kept, checked, read a few checkpoints at a time.

An expert is one safetensors file, `expert_003.safetensors`, with one float32 vector of P parameters for each
optimiser step that was kept, `step_000247`. Only steps that a run can draw are stored. Digests of the whole file and of each checkpoint
travel in its header, so that reading two checkpoints of forty is checked as well. Experts live in a cache folder
named by the hash of everything that shaped them; a lock beside each file lets several processes share the folder.
"""

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hoptm.config import hash_of
from hoptm.errors import FileError
from hoptm.files import read_info, read_tensors, write_tensors
from hoptm.parameters import Layout

FORMAT = 2
"""Version of the files; another version never shares a cache folder with this one."""
_OF_ONE_EXPERT = ("index", "digests", "seal")


@dataclass(frozen=True)
class Trajectories:
    """A folder of experts that share network, data, settings and stored steps; holds no weights itself."""

    folder: Path
    count: int
    """Experts, named 0 .. count - 1."""
    steps: tuple[int, ...]
    """Optimiser steps that are stored, ascending; 0 is the initial network."""
    parameters: int
    """P, the length of a checkpoint."""
    info: dict[str, Any]
    """What made them: data set, network, settings, seed, steps an epoch."""

    def points(self, expert: int, steps: Sequence[int]) -> Float[Tensor, "k p"]:
        """Checkpoints of one expert at the given optimiser steps, float32, in that order; reads only those.

        Raises FileError when the expert or a step is not stored, or when what is read is damaged, not finite or
        of other experts than those this folder was opened with.
        """
        if not 0 <= expert < self.count:
            raise FileError(f"{self.folder}: no expert {expert}; there are 0 .. {self.count - 1}.")
        absent = [step for step in steps if step not in self.steps]
        if absent:
            raise FileError(
                f"{self.folder}: optimiser step {absent[0]} is not stored; stored are {_listed(self.steps)}. Train experts for the settings that draw it."
            )
        path = file_of(self.folder, expert)
        info = header(path)
        if _shared(info) != self.info:
            raise FileError(f"{path}: made from other data, network or settings than the experts beside it. Delete it and train again.")
        found = torch.empty(len(steps), self.parameters)
        for row, step in zip(found, steps, strict=True):
            row.copy_(_checked(path, step, _read(path, step), info))
        return found


def file_of(folder: Path, expert: int) -> Path:
    """The file of one expert."""
    return folder / f"expert_{expert:03d}.safetensors"


def cache_folder(made_from: Mapping[str, Any], cache: Path | None = None) -> Path:
    """The folder `experts/HASH` for experts made from this JSON-able description.

    It lies in `cache`, else in the folder that the environment variable HOPTM_CACHE names, else in the user's cache.
    """
    root = cache or os.environ.get("HOPTM_CACHE") or platformdirs.user_cache_path("hoptm")
    return Path(root).expanduser() / "experts" / hash_of({"format": FORMAT, **made_from})


def save(path: Path, checkpoints: Mapping[int, Float[Tensor, "p"]], info: Mapping[str, Any]) -> None:
    """Write one expert: flat float32 parameters by optimiser step, and a JSON-able description.

    For the checks of `open_folder` the description holds `layout` ([name, shape] pairs) and should hold `network`.
    Raises FileError for no checkpoints, vectors of unequal length, of another type or not finite, and when the disk
    refuses; then nothing is left behind.
    """
    if not checkpoints:
        raise FileError(f"{path}: an expert needs at least one checkpoint.")
    steps = sorted(checkpoints)
    tensors = {_key(step): checkpoints[step].detach().cpu().clone() for step in steps}
    whole = {**info, "kind": "expert", "format": FORMAT, "steps": steps, "parameters": checkpoints[steps[0]].numel()}
    whole["digests"] = {name: _digest(tensor) for name, tensor in tensors.items()}
    for step in steps:
        _checked(path, step, tensors[_key(step)], whole)
    whole["seal"] = _seal(whole)
    write_tensors(path, tensors, whole)


def open_folder(folder: Path, layout: Layout | None = None, count: int | None = None) -> Trajectories:
    """The experts of a folder, the first `count` of them if given; reads headers only.

    Raises FileError when there are none or too few, when a file is damaged, when the files do not belong together,
    or when they are of another network than `layout`.
    """
    numbers = [int(match[1]) for match in (re.fullmatch(r"expert_(\d+)\.safetensors", path.name) for path in folder.glob("expert_*")) if match]
    wanted = count if count is not None else max(numbers, default=-1) + 1
    if wanted < 1:
        raise FileError(f"{folder}: no experts here. Train them, or name the folder that holds expert_000.safetensors.")
    absent = sorted(set(range(wanted)) - set(numbers))
    if absent:
        raise FileError(f"{file_of(folder, absent[0])}: missing; {len(absent)} of {wanted} experts are. Train again: finished experts are kept.")
    first = header(file_of(folder, 0), layout)
    for expert in range(1, wanted):
        if _shared(header(file_of(folder, expert), layout)) != _shared(first):
            raise FileError(f"{file_of(folder, expert)}: made from other data, network or settings than {file_of(folder, 0).name}. Keep one kind in a folder.")
    return Trajectories(folder, wanted, tuple(first["steps"]), first["parameters"], _shared(first))


def verify(folder: Path) -> Trajectories:
    """Read every checkpoint of every expert and check it; returns the folder opened.

    Raises FileError on the first that is damaged, missing, not finite, or too many.
    """
    found = open_folder(folder)
    for expert in range(found.count):
        path = file_of(folder, expert)
        tensors, info = read_tensors(path)
        if set(tensors) != {_key(step) for step in found.steps}:
            raise FileError(f"{path}: its checkpoints are not those its header names. Delete it and train again.")
        for step in found.steps:
            _checked(path, step, tensors[_key(step)], info)
    return found


def header(path: Path, layout: Layout | None = None) -> dict[str, Any]:
    """The description in an expert's file; reads the header only.

    Raises FileError when the file is missing, truncated, no expert, of another version or of another network than
    `layout`.
    """
    info = read_info(path)
    if info.get("kind") != "expert" or info.get("format") != FORMAT:
        raise FileError(f"{path}: not an expert of this version of hoptm. Delete it and train again.")
    if info.get("seal") != _seal(info):
        raise FileError(f"{path}: the description does not match its checksum. The file is damaged: delete it and train again.")
    if layout is not None:
        _check_layout(path, info, layout)
    return info


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of one expert's file, so that one process at a time makes it; others wait here.

    A process that dies gives its lock back; what it had half written is removed by the next that comes.
    Raises FileError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f".{path.stem}.lock")
        lock.acquire()
    except OSError as error:
        raise FileError(f"cannot write in {path.parent}: {error}. Name another folder for the cache (HOPTM_CACHE), then run again.") from error
    try:
        for half in path.parent.glob(f".{path.name}.*"):
            half.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _key(step: int) -> str:
    return f"step_{step:06d}"


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def _seal(info: Mapping[str, Any]) -> str:
    return hash_of({name: value for name, value in info.items() if name != "seal"})


def _shared(info: Mapping[str, Any]) -> dict[str, Any]:
    """What all experts of a folder have in common."""
    return {name: value for name, value in info.items() if name not in _OF_ONE_EXPERT}


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) <= 12 else f"{', '.join(map(str, steps[:6]))}, ... {steps[-1]} ({len(steps)} steps)"


def _read(path: Path, step: int) -> Tensor:
    try:
        with safe_open(str(path), framework="pt") as file:
            found: Tensor = file.get_tensor(_key(step)).clone()  # aligned as any other, see files.read_tensors
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: cannot read {_key(step)} ({error}). Delete the file and train again.") from error
    return found


def _checked(path: Path, step: int, tensor: Tensor, info: Mapping[str, Any]) -> Tensor:
    name = _key(step)
    if tensor.dtype != torch.float32 or tensor.shape != (info["parameters"],):
        raise FileError(f"{path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it must be float32 of shape ({info['parameters']},).")
    if not torch.isfinite(tensor).all():
        raise FileError(f"{path}: {name} holds numbers that are not finite. Train again with a smaller experts.lr.")
    if _digest(tensor) != info["digests"].get(name):
        raise FileError(f"{path}: {name} does not match its checksum. The file is damaged: delete it and train again.")
    return tensor


def _check_layout(path: Path, info: Mapping[str, Any], layout: Layout) -> None:
    stored = [(name, tuple(shape)) for name, shape in info.get("layout", [])]
    wanted = list(zip(layout.names, layout.shapes, strict=True))
    if stored == wanted:
        return
    words = ", ".join(f"{name} {value}" for name, value in (info.get("network") or {}).items()) or "unnamed"
    old, new = next(pair for pair in itertools.zip_longest(stored, wanted) if pair[0] != pair[1])
    raise FileError(
        f"{path}: an expert of another network. The file's has {info['parameters']:,} parameters ({words}), this run's has {layout.size:,}; "
        f"they differ first at {_part(old)} against {_part(new)}. Use that network's settings, or another folder."
    )


def _part(parameter: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if parameter is None else f"{parameter[0]} {parameter[1]}"
