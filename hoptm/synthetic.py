"""A synthetic set: a few images that stand for a training set, in one file.

The images are kept standardised, as networks read them, together with what is needed to use them: labels, the
student's step size that was learned with them, the standardisation, and where they come from. The file is safetensors,
which can hold no code; the same content always gives the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm import synthetic_file
from hoptm.data import Selectable, Standardisation, Train, single_label, standardisation
from hoptm.errors import DataError, FileError
from hoptm.records import versions
from hoptm.rendering import Pixels, Rendering, stored_bytes
from hoptm.synthetic_file import Parts


@dataclass(frozen=True)
class SyntheticSet:
    """Images (n, c, h, w) float32, standardised; labels (n,) from 0; the step size they were made for; their origin.

    `info` is plain JSON: `source` (name, title, checksum, licence, citation, note), `class_names`, `augmentations`
    that fit the modality, `config`, `versions`, `selection`, `method`, `ipc`, `seed`. It is copied on the way in.

    A set whose images are rendered also has `codes` (n, ...) float32, the leaf they are rendered from, and the `rendering`; one
    that is rendered from pixels keeps neither. `soft` (n, k) float32 holds a teacher's probabilities, beside the labels.

    Raises DataError for a wrong type, shape, label, step size or standardisation, for numbers that are not finite, for codes
    whose rendering is not the images, and for soft labels that are no probabilities.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    lr: float
    standardisation: Standardisation
    info: dict[str, Any]
    codes: Float[Tensor, "n ..."] | None = None
    rendering: Rendering | None = None
    soft: Float[Tensor, "n k"] | None = None

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps(self.info, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise DataError(f"the description of a synthetic set must be plain JSON: {error}.") from error
        object.__setattr__(self, "info", plain)
        wrong = synthetic_file.wrong_parts(self._parts)
        if wrong:
            raise DataError(f"a synthetic set {wrong}.")
        if isinstance(self.rendering, Pixels):
            object.__setattr__(self, "codes", None)
            object.__setattr__(self, "rendering", None)

    @property
    def _parts(self) -> Parts:
        return Parts(self.images, self.labels, self.lr, self.standardisation, self.info, self.codes, self.rendering, self.soft)

    @property
    def classes(self) -> int:
        """Number of classes, with those that have no image."""
        return len(self.info["class_names"])

    @property
    def payload(self) -> int:
        """Bytes that the images take as they are kept: pixels, or codes with what they share. Labels are not counted."""
        return stored_bytes(self.rendering or Pixels(), len(self.images), self.images.shape[1], self.images.shape[2])

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write one safetensors file, whole or not at all; the same set gives the same bytes. With `half` images are rounded to float16, and the
        file says so. Raises FileError."""
        synthetic_file.write(Path(path), self._parts, half=half)

    @staticmethod
    def load(path: str | Path) -> "SyntheticSet":
        """Read a file of `save`. Raises FileError, with the file's name, for anything else; runs no code of the file."""
        parts = synthetic_file.read(Path(path))
        try:
            return SyntheticSet(**vars(parts))
        except DataError as error:
            raise FileError(f"{path}: {error} Make or fetch it again.") from error


load = SyntheticSet.load


def initialise(train: Train, classes: int, ipc: int | Sequence[int], generator: torch.Generator) -> Int64[Tensor, "n"]:
    """Indices of `ipc` different real images of each class, drawn uniformly, class by class; a sequence names a number for each class.

    A class's images come from one shuffle of it, so a larger budget holds a smaller one of the same generator. Raises DataError when a class has
    fewer images than that, when a number is below 1, or when a sequence does not fit the classes.
    """
    chosen = []
    for label, count in enumerate(budgets_of(ipc, classes)):
        members = torch.nonzero(train.labels == label).flatten()
        if len(members) < count:
            raise DataError(f"class {label} has {len(members)} training images and {count} per class were asked for. Ask for fewer, or take another data set.")
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


def budgets_of(ipc: int | Sequence[int], classes: int) -> list[int]:
    """Images of each class: one number for all, or a sequence as it is. Raises DataError as `initialise`."""
    counts = [ipc] * classes if isinstance(ipc, int) else [int(count) for count in ipc]
    if len(counts) != classes:
        raise DataError(f"budgets for {len(counts)} classes were given to a set of {classes}. Name one for each class.")
    if min(counts) < 1:
        raise DataError(f"{min(counts)} images per class were asked for; ask for 1 or more.")
    return counts


def provenance(
    splits: Selectable, *, method: str, ipc: int, seed: int | None, config: Mapping[str, Any] | None = None, selection: Sequence[Any] = ()
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


def from_real(splits: Selectable, indices: Int64[Tensor, "n"], info: Mapping[str, Any], *, lr: float = 0.01) -> SyntheticSet:
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
        *_kept_as(made),
        f"source {checksum}, licence {licence}" + (f", note: {source['note']}" if source.get("note") else ""),
    ]
    return "\n".join(lines)


def _kept_as(made: SyntheticSet) -> list[str]:
    """A line for what a set has besides images and labels."""
    words = []
    if made.codes is not None and made.rendering is not None:
        numbers = " x ".join(map(str, made.codes.shape[1:]))
        words.append(f"rendered ({made.rendering.name}) from {numbers} numbers an image, {made.payload} bytes with what the images share")
    if made.soft is not None:
        words.append("soft labels beside the labels")
    return ["; ".join(words)] if words else []
