"""A synthetic set: a few images that stand for a training set, in one file.

The images are kept standardised, as networks read them, together with what is needed to use them: labels, the
student's step size that was learned with them, the standardisation, and where they come from. The file is safetensors,
which can hold no code; the same content always gives the same bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm.data import Splits, Standardisation, Train, single_label, standardisation
from hoptm.errors import DataError, FileError
from hoptm.files import read_tensors, write_tensors
from hoptm.records import versions

LARGEST = 2 * 1024**3
"""Bytes; a larger file is refused before it is read."""

_KIND = "hoptm synthetic set 1"
_TENSORS = {"images": torch.float32, "labels": torch.int64, "lr": torch.float64, "mean": torch.float64, "std": torch.float64}
_INFO: dict[str, tuple[type, ...]] = {
    "source": (dict,),
    "class_names": (list,),
    "augmentations": (list,),
    "config": (dict,),
    "versions": (dict,),
    "selection": (list,),
    "method": (str,),
    "ipc": (int,),
    "seed": (int, type(None)),
}


@dataclass(frozen=True)
class SyntheticSet:
    """Images (n, c, h, w) float32, standardised; labels (n,) from 0; the step size they were made for; their origin.

    `info` is plain JSON: `source` (name, title, checksum, licence, citation, note), `class_names`, `augmentations`
    that fit the modality, `config`, `versions`, `selection`, `method`, `ipc`, `seed`. It is copied on the way in.

    Raises DataError for a wrong type, shape, label, step size or standardisation, and for numbers that are not finite.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    lr: float
    standardisation: Standardisation
    info: dict[str, Any]

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps(self.info, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise DataError(f"the description of a synthetic set must be plain JSON: {error}.") from error
        wrong = _wrong_info(plain) or _wrong_images(self.images, self.labels, len(plain["class_names"])) or _wrong_numbers(self)
        if wrong:
            raise DataError(f"a synthetic set {wrong}.")
        object.__setattr__(self, "info", plain)

    @property
    def classes(self) -> int:
        """Number of classes, with those that have no image."""
        return len(self.info["class_names"])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; the same set gives the same bytes. Raises FileError."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.standardisation.mean, self.standardisation.std))
        tensors = {"images": self.images, "labels": self.labels, "lr": torch.tensor([self.lr], dtype=torch.float64), "mean": mean, "std": std}
        write_tensors(Path(path), tensors, {"kind": _KIND, "set": self.info})

    @staticmethod
    def load(path: str | Path) -> "SyntheticSet":
        """Read a file of `save`. Raises FileError, with the file's name, for anything else; runs no code of the file."""
        path = Path(path)
        if path.is_file() and path.stat().st_size > LARGEST:
            raise FileError(f"{path}: {path.stat().st_size} bytes; a synthetic set has at most {LARGEST}. Name the file that `hoptm distill` wrote.")
        tensors, header = read_tensors(path)
        wrong = _wrong_file(tensors, header)
        if wrong:
            raise FileError(f"{path}: {wrong}. It is no synthetic set of this version; make or fetch it again.")
        measured = Standardisation(tuple(tensors["mean"].tolist()), tuple(tensors["std"].tolist()))
        try:
            return SyntheticSet(tensors["images"], tensors["labels"], float(tensors["lr"]), measured, header["set"])
        except DataError as error:
            raise FileError(f"{path}: {error} Make or fetch it again.") from error


load = SyntheticSet.load


def _wrong_file(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str | None:
    """What keeps a file's content from being made into a set at all, in words."""
    if header.get("kind") != _KIND:
        return f"the header says {header.get('kind')!r} where {_KIND!r} is expected"
    if set(tensors) != set(_TENSORS):
        return f"it holds the tensors {sorted(tensors)} where {sorted(_TENSORS)} are expected"
    for name, dtype in _TENSORS.items():
        if tensors[name].dtype != dtype:
            return f"{name} is {tensors[name].dtype} where {dtype} is expected"
    if tensors["lr"].shape != (1,) or tensors["mean"].dim() != 1 or tensors["std"].dim() != 1:
        return "the step size must be one number, and mean and std one number a channel"
    return _wrong_info(header.get("set")) or _wrong_images(tensors["images"], tensors["labels"], len(header["set"]["class_names"]))


def _wrong_info(info: Any) -> str | None:
    if not isinstance(info, dict):
        return "has no description"
    for name, kinds in _INFO.items():
        if not isinstance(info.get(name), kinds):
            return f"says nothing valid under {name!r}"
    for name in ("class_names", "augmentations"):
        if not info[name] or not all(isinstance(word, str) for word in info[name]):
            return f"needs at least one name under {name!r}"
    return None


def _wrong_images(images: Tensor, labels: Tensor, classes: int) -> str | None:
    if images.dtype != torch.float32 or images.dim() != 4 or 0 in images.shape or images.shape[2] != images.shape[3]:
        return f"needs square float32 images (n, c, h, h), not {images.dtype} {tuple(images.shape)}"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return f"of {len(images)} images needs as many int64 labels, not {labels.dtype} {tuple(labels.shape)}"
    if not torch.isfinite(images).all():
        return "holds pixels that are not finite"
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        return f"has labels {int(labels.min())} .. {int(labels.max())} for {classes} classes (0 .. {classes - 1})"
    return None


def _wrong_numbers(made: SyntheticSet) -> str | None:
    if not (math.isfinite(made.lr) and made.lr > 0):
        return f"has the step size {made.lr}; it must be finite and above 0"
    mean, std, channels = made.standardisation.mean, made.standardisation.std, made.images.shape[1]
    if len(mean) != channels or len(std) != channels:
        return f"with {channels} channels is standardised by {len(mean)} means and {len(std)} deviations"
    if not all(math.isfinite(value) for value in mean) or not all(math.isfinite(value) and value > 0 for value in std):
        return "is standardised by numbers that are not finite, or by deviations that are not above 0"
    return None


def initialise(train: Train, classes: int, ipc: int, generator: torch.Generator) -> Int64[Tensor, "n"]:
    """Indices of `ipc` different real images of each class, drawn uniformly, class by class.

    Raises DataError when a class has fewer than `ipc` images, or `ipc` is below 1.
    """
    if ipc < 1:
        raise DataError(f"{ipc} images per class were asked for; ask for 1 or more.")
    chosen = []
    for label in range(classes):
        members = torch.nonzero(train.labels == label).flatten()
        if len(members) < ipc:
            raise DataError(f"class {label} has {len(members)} training images and {ipc} per class were asked for. Ask for fewer, or take another data set.")
        chosen.append(members[torch.randperm(len(members), generator=generator)[:ipc]])
    return torch.cat(chosen)


def provenance(
    splits: Splits, *, method: str, ipc: int, seed: int | None, config: Mapping[str, Any] | None = None, selection: Sequence[Any] = ()
) -> dict[str, Any]:
    """The `info` of a set made from `splits`: where its images come from, under which terms, and how it was made."""
    info = splits.info
    return {
        "source": {"name": info.name, "title": info.title, "checksum": info.checksum, "licence": info.licence, "citation": info.citation, "note": info.note},
        "class_names": list(info.class_names),
        "augmentations": list(info.augmentations),
        "config": dict(config or {}),
        "versions": versions(),
        "selection": list(selection),
        "method": method,
        "ipc": ipc,
        "seed": seed,
    }


def from_real(splits: Splits, indices: Int64[Tensor, "n"], info: Mapping[str, Any], *, lr: float = 0.01) -> SyntheticSet:
    """A set of real training images as they are, standardised by the statistics of the train split.

    Raises DataError for a multi-label set.
    """
    single_label(splits)
    measured = standardisation(splits.train)
    return SyntheticSet(measured.apply(splits.train.images[indices]), splits.train.labels[indices], lr, measured, dict(info))


def describe(made: SyntheticSet) -> str:
    """A few plain lines: what the set stands for, how large it is, how it was made, under which licence."""
    source, info = made.info["source"], made.info
    count, channels, height, width = made.images.shape
    title, checksum, licence = (source.get(key, "unknown") for key in ("title", "checksum", "licence"))
    counts = torch.bincount(made.labels, minlength=made.classes).tolist()
    lines = [
        f"{count} images of {channels} x {height} x {width} for {title}, made by {info['method']}, seed {info['seed']}",
        "images a class: " + ", ".join(f"{name} {number}" for name, number in zip(info["class_names"], counts, strict=True)),
        f"step size {made.lr:.4g}, {made.images.numel() * made.images.element_size()} bytes of pixels",
        f"source {checksum}, licence {licence}" + (f", note: {source['note']}" if source.get("note") else ""),
    ]
    return "\n".join(lines)
