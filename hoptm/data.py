"""Load a medical image data set by name or path, in one shape, with its licence, its source's checksum and its standardisation.

`load` knows the twelve two-dimensional MedMNIST sets, an .npz in their layout, a folder of images, and `phantom`, a generated set that
needs no network. What is known of each set, see `catalogue`; where it is
found, `sources`; how files are read and checked, `readers`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from hoptm import phantom
from hoptm.catalogue import NO_UP_OR_DOWN, Info
from hoptm.errors import DataError
from hoptm.files import digest_of
from hoptm.readers import Arrays, read_folder, read_npz
from hoptm.sources import available, find, is_phantom

__all__ = ["Info", "Selectable", "Split", "Splits", "Standardisation", "Test", "Train", "Validation", "available", "load", "single_label", "standardisation"]

_GREY_LEVELS = 256
_PHANTOM_COUNTS = (90, 90_000)


@dataclass(frozen=True, eq=False)
class Split:
    """Images as bytes, 0..255, (n, channels, height, width), and their labels: one class each, or a row of 0 and 1 for several findings."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | Int64[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.images)


class Train(Split):
    """What may be learned from."""


class Validation(Split):
    """What may be chosen by: step sizes, recipes, the best iteration."""


class Test(Split):
    """What is looked at once, at the end."""

    __test__ = False  # for pytest, which collects by name


@dataclass(frozen=True, eq=False)
class Selectable:
    """A data set without its test split: what may be learned from, what may be chosen by, and what is known of it.

    Whatever learns or selects is annotated with this type, so a type checker refuses `.test` in it. `Splits` is one of these with the test split added.
    """

    train: Train
    val: Validation
    info: Info

    @property
    def classes(self) -> int:
        """How many classes, or findings when there are several a picture."""
        return len(self.info.class_names)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return int(self.train.images.shape[1])

    @property
    def size(self) -> int:
        """Height and width in pixels; images are square."""
        return int(self.train.images.shape[2])

    @property
    def without_test(self) -> "Selectable":
        """The same data with no test split in it: handed to what selects, it cannot be followed back to test."""
        return Selectable(self.train, self.val, self.info)


@dataclass(frozen=True, eq=False, init=False)
class Splits(Selectable):
    """The three parts of a data set, of distinct types, so that nothing can be chosen on test by mistake."""

    test: Test

    def __init__(self, train: Train, val: Validation, test: Test, info: Info) -> None:
        """In the order in which the parts are read: `info` last."""
        super().__init__(train, val, info)
        object.__setattr__(self, "test", test)


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each channel of the training images, for pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
        """Bytes to standardised numbers: (pixel / 255 - mean) / std. Raises DataError for another number of channels."""
        mean, std = self._like(images.shape[1], images.device, torch.float32)
        return (images.to(torch.float32) / 255 - mean) / std

    def invert(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Standardised numbers back to 0..1, clipped there, to look at. Raises DataError for another number of channels."""
        mean, std = self._like(images.shape[1], images.device, images.dtype)
        return (images * std + mean).clamp(0, 1)

    def _like(self, channels: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if channels != len(self.mean):
            raise DataError(f"these images have {channels} channels, the standardisation was measured on {len(self.mean)}. Use the data set it belongs to.")
        mean, std = (torch.tensor(values, device=device, dtype=dtype)[:, None, None] for values in (self.mean, self.std))
        return mean, std


def standardisation(train: Train) -> Standardisation:
    """Measure mean and standard deviation of each channel on the training images only, exactly, from counts of grey levels.

    A channel whose spread is below one grey level (a constant one has none) gets one grey level, 1/255, so that nothing is divided by zero.
    """
    level = torch.arange(_GREY_LEVELS, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(train.images.shape[1]):
        count = torch.zeros(_GREY_LEVELS, dtype=torch.float64)
        for part in train.images[:, channel].split(4096):
            count += torch.bincount(part.flatten(), minlength=_GREY_LEVELS)
        share = count / count.sum()
        middle = (share * level).sum()
        mean.append(middle.item())
        std.append(max((share * (level - middle) ** 2).sum().sqrt().item(), 1 / 255))
    return Standardisation(tuple(mean), tuple(std))


def load(name: str | Path, root: str | Path | None = None, *, size: int | None = None, group: Callable[[Path], str] | None = None) -> Splits:
    """Load a data set: images uint8 (n, channels, size, size), labels int64.

    `name` is one of
    - a MedMNIST set, `pneumoniamnist`; `size` 28 (default), 64, 128 or 224 pixels. Looked for in `root`, or else in HOPTM_DATA, and in
      their subfolder `medmnist`; then in the cache of the medmnist package; then downloaded there and checked (HOPTM_OFFLINE=1 forbids it).
    - a path to an .npz in MedMNIST's layout.
    - a path to a folder with train/CLASS/*, test/CLASS/* and perhaps val/CLASS/*; with `size` all images are resized to it. Where val is
      missing 15 % of train is held out; `group`, a function from a file's path to a name (the patient), keeps a group on one side.
    - `phantom`, a generated tissue-like set of nine classes (9,000 / 900 / 1,800 images), or `phantom:900` for 900 / 90 / 180.
    - `pbc-28`, `pbc-28-small` and `cxr-open`, if they lie under `root` or HOPTM_DATA.

    Raises DataError, in one sentence or two that name the thing and the way out: nothing found (with every place tried), an unknown name
    (with near ones), a wrong checksum, a damaged or pickled file, wrong types, shapes or labels, a class without images.
    """
    wanted = str(name)
    if is_phantom(wanted):
        if size not in (None, phantom.SIZE) or group is not None:
            raise DataError(f"{wanted} is drawn at {phantom.SIZE} pixels and has no files. Leave size and group out.")
        return _phantom(wanted)
    source = find(wanted, root, size=size)
    if source.path.is_dir():
        arrays, names, checksum, note = read_folder(source.path, size, group or source.group)
        return _splits(arrays, replace(source.info, class_names=names, checksum=checksum, note=_joined(source.info.note, note)))
    if group is not None:
        raise DataError(f"{source.path}: group works on the files of a folder; an .npz names no patients. Leave group out.")
    arrays, note = read_npz(source.path)
    edge = arrays["train"][0].shape[1]
    if size not in (None, edge):
        raise DataError(f"{source.path}: its images are {edge}x{edge}, not {size}x{size}. Leave size out, or give a file of that size.")
    return _splits(arrays, replace(source.info, note=_joined(source.info.note, note)))


Known = TypeVar("Known", bound=Selectable)
"""A data set, with its test split or without: as it was given."""


def single_label(splits: Known) -> Known:
    """What was given, if each image has one class. Raises DataError for several findings an image, which distillation does not support."""
    if splits.train.labels.ndim != 1:
        words = f"{splits.info.name} is multi-label: {splits.classes} findings an image, and this needs one class an image"
        raise DataError(f"{words}. Such sets can be loaded and looked at, not distilled: choose another one.")
    return splits


def _phantom(wanted: str) -> Splits:
    found = re.fullmatch(r"phantom(?::(\d{1,9}))?", wanted.lower())
    count = int(found[1] or phantom.COUNT) if found else 0
    low, high = _PHANTOM_COUNTS
    if not low <= count <= high:
        raise DataError(f"no data set {wanted!r}. Use phantom, or phantom:COUNT with {low} to {high} training images, for instance phantom:900.")
    made = phantom.arrays(count)
    parts = {f"{split}_{kind}": part for split, pair in made.items() for kind, part in zip(("images", "labels"), pair, strict=True)}
    info = Info(
        name="phantom" if count == phantom.COUNT else f"phantom:{count}",
        title="Phantom tissue (generated)",
        class_names=phantom.CLASSES,
        task="multi-class",
        licence="MIT, as the code that draws it",
        citation="Drawn by hoptm; stains after Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 23(4) (2001)",
        checksum=f"sha256:{digest_of(parts)}",
        note="generated, not tissue",
        augmentations=NO_UP_OR_DOWN,
    )
    return Splits(Train(*made["train"]), Validation(*made["val"]), Test(*made["test"]), info)


def _splits(arrays: Arrays, info: Info) -> Splits:
    """Arrays to tensors, channels first; classes that the source does not name get numbers, and are checked against those it does."""
    labels = arrays["train"][1]
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if info.class_names and classes != len(info.class_names):
        raise DataError(f"{info.name}: {classes} classes instead of {len(info.class_names)}. It is not the set it is named after: load it by another name.")
    kind = "multi-label" if labels.ndim == 2 else "binary-class" if classes == 2 else "multi-class"
    info = replace(info, class_names=info.class_names or tuple(f"class {number}" for number in range(classes)), task=info.task or kind)
    tensors = {
        split: (torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), torch.from_numpy(kinds)) for split, (images, kinds) in arrays.items()
    }
    return Splits(Train(*tensors["train"]), Validation(*tensors["val"]), Test(*tensors["test"]), info)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
