"""Read an .npz in MedMNIST's layout, or a folder of images, into arrays that are checked before anything else sees them.

Both give, for `train`, `val` and `test`, images (N, H, W, C) of bytes and whole-number labels (N,), or (N, K) of 0 and 1 for several
findings an image. Nothing is unpickled.
"""

import contextlib
import hashlib
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from hoptm.config import generator
from hoptm.errors import DataError

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
Images = UInt8[np.ndarray, "_ _ _ _"]
Labels = Int64[np.ndarray, "_"] | Int64[np.ndarray, "_ _"]
Arrays = dict[str, tuple[Images, Labels]]
_DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError, struct.error)


def read_npz(path: Path) -> tuple[Arrays, str]:
    """The splits of an .npz and a note: keys `train_images` (N, H, W) or (N, H, W, C) uint8, `train_labels` (N,) or (N, 1), and so on.

    Without both `val` keys 15 % of train is held out, each class alike. Raises DataError that names the key at fault.
    """
    parts = _members(path)
    arrays: Arrays = {}
    for split in SPLITS:
        keys = f"{split}_images", f"{split}_labels"
        if split == "val" and not any(key in parts for key in keys):
            continue
        for key in keys:
            if key not in parts:
                raise DataError(f"{path}: the key {key} is missing; there are {', '.join(sorted(parts)) or 'none'}. Save it under that name.")
        images, labels = _images(parts[keys[0]], f"{path}: {keys[0]}"), _labels(parts[keys[1]], f"{path}: {keys[1]}")
        if len(images) != len(labels):
            raise DataError(f"{path}: {split} has {len(images)} images and {len(labels)} labels. There must be one label an image.")
        arrays[split] = images, labels
    _agree(arrays, path)
    if "val" in arrays:
        return arrays, ""
    held = hold_out(arrays["train"][1], [str(index) for index in range(len(arrays["train"][1]))])
    return _cut(arrays, held), "validation cut from train, 15 % of each class"


def _members(path: Path) -> dict[str, Any]:
    """Every array of the file; damage and pickles end here."""
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. Fetch or make it again.")
    key = ""
    parts: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in [key for key in file.files if key.startswith(tuple(f"{split}_" for split in SPLITS))]:
                parts[key] = file[key]
            return parts or dict.fromkeys(file.files)
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path}: holds one bare array, not an .npz with train_images and so on. Save it with numpy.savez.") from error
    except _DAMAGE as error:
        if key and "allow_pickle" in str(error):
            raise DataError(f"{path}: {key} holds pickled objects, which can run code and are never loaded. Save plain uint8 and integer arrays.") from error
        raise DataError(f"{path}: the file is damaged or no .npz{f', at {key}' if key else ''} ({error}). Fetch or make it again.") from error


def _holds_nan(array: Any) -> str:
    return " and holds NaN" if array.dtype.kind == "f" and np.isnan(array).any() else ""


def _images(array: Any, where: str) -> Images:
    if array.dtype != np.uint8:
        raise DataError(f"{where} is {array.dtype}{_holds_nan(array)}; it must be uint8, 0 to 255. Scale the images and save them as bytes.")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.shape[1] != array.shape[2] or array.shape[1] == 0:
        raise DataError(f"{where} has shape {array.shape}; it must be (N, H, H) or (N, H, H, C) with C 1 or 3, square, channels last. Reshape it.")
    if len(array) == 0:
        raise DataError(f"{where} holds no image. Every split needs some.")
    return np.ascontiguousarray(array)


def _labels(array: Any, where: str) -> Labels:
    if array.dtype.kind not in "iu":
        raise DataError(f"{where} is {array.dtype}{_holds_nan(array)}; labels must be whole numbers, 0 to classes - 1. Save them as integers.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise DataError(f"{where} has shape {array.shape}; it must be (N,) or (N, 1), or (N, K) of 0 and 1. Reshape it.")
    if array.min() < 0:
        raise DataError(f"{where} holds a negative label, {array.min()} at {int(np.argmax(array.reshape(-1) < 0))}. Labels start at 0.")
    if array.max() > (1 if array.ndim == 2 else np.iinfo(np.int32).max):
        raise DataError(f"{where} holds {array.max()}, which no label can be. Use 0 to classes - 1, or 0 and 1 in several columns.")
    return np.asarray(array, dtype=np.int64)


def _agree(arrays: Arrays, path: Path) -> None:
    """One image shape and one kind of label in all splits, and every class in train."""
    shapes = {split: (images.shape[1:], labels.shape[1:]) for split, (images, labels) in arrays.items()}
    if len(set(shapes.values())) > 1:
        words = "; ".join(f"{split} {image}{f', labels {label}' if label else ''}" for split, (image, label) in shapes.items())
        raise DataError(f"{path}: the splits differ in shape: {words}. Give them one size and one number of channels.")
    train = arrays["train"][1]
    if train.ndim == 2:
        return
    present = np.unique(train)
    highest = max(int(labels.max()) for _, labels in arrays.values())
    if highest == 0 or (len(present) == 1 and present[0] == highest == 1):
        raise DataError(f"{path}: train has one class only ({present[0]}). A classifier needs two or more.")
    absent = np.setdiff1d(np.arange(min(highest + 1, len(present) + 5)), present)
    if len(absent):
        raise DataError(f"{path}: class {absent[0]} has no image in train, though labels go up to {highest}. Add some, or number the classes 0, 1, 2, ...")


def read_folder(path: Path, size: int | None, group: Callable[[Path], str] | None) -> tuple[Arrays, tuple[str, ...], str, str]:
    """The splits of `path/train|val|test/CLASS/*`, the class names (sorted), a `sha256:` checksum and a note.

    Grey if every file is 8-bit grey, otherwise all are taken as RGB. With `size` each image is resized to size x size (bilinear,
    smoothed when it shrinks); without, all must be square and alike. Without `val`, 15 % of train is held out, no `group` on both sides.
    Raises DataError that names the folder or file at fault.
    """
    if size is not None and not 1 <= size <= 4096:
        raise DataError(f"size={size} is no image size. Choose a number of pixels, for instance size=28.")
    names = _class_names(path)
    files = {split: _files(path / split, names) for split in SPLITS if split != "val" or (path / "val").is_dir()}
    mode, pixels = _format(path, [file for part in files.values() for file, _ in part], size)
    arrays: Arrays = {}
    for split, part in files.items():
        images = np.stack([_pixels(file, mode, pixels) for file, _ in part])
        arrays[split] = images.reshape(len(part), pixels, pixels, -1), np.array([label for _, label in part], dtype=np.int64)
    groups = {split: [group(file) if group else f"{split}/{file.parent.name}/{file.name}" for file, _ in part] for split, part in files.items()}
    note = ""
    if "val" not in arrays:
        held = hold_out(arrays["train"][1], groups["train"])
        arrays = _cut(arrays, held)
        groups["val"] = [name for name, out in zip(groups["train"], held, strict=True) if out]
        groups["train"] = [name for name, out in zip(groups["train"], held, strict=True) if not out]
        note = f"validation cut from train, 15 % of each class{', by group' if group else ''}"
    _apart(groups, path)
    return arrays, names, _checksum(path, [file for part in files.values() for file, _ in part]), note


def _class_names(path: Path) -> tuple[str, ...]:
    for split in ("train", "test"):
        if not (path / split).is_dir():
            raise DataError(f"{path}: no folder {split}. Images must lie in train/CLASS/, test/CLASS/ and, if there is one, val/CLASS/.")
    names = tuple(sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir() and not folder.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"{path / 'train'}: {len(names)} class folders ({', '.join(names) or 'none'}). A classifier needs two or more.")
    return names


def _files(split: Path, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Image files with their labels, in the order of their names."""
    folders = sorted(folder for folder in split.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    strange = [folder.name for folder in folders if folder.name not in names]
    if strange:
        raise DataError(f"{split}: class {strange[0]} is not in train, which has {', '.join(names)}. Rename or remove it.")
    found = []
    for folder in folders:
        images = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
        if split.name == "train" and not images:
            raise DataError(f"{folder}: no image in this class. Add some ({', '.join(SUFFIXES[:3])}, ...) or remove the folder.")
        found += [(image, names.index(folder.name)) for image in images]
    if not found:
        raise DataError(f"{split}: no image. Put some into {split.name}/CLASS/, or remove an empty val folder.")
    return found


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except (*_DAMAGE, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error}). Replace or remove the file.") from error


def _format(path: Path, files: Sequence[Path], size: int | None) -> tuple[str, int]:
    """Grey or RGB, and the edge length of all images; the checksums inside the files are verified on the way."""
    modes, sizes = Counter[str](), Counter[tuple[int, int]]()
    for file in files:
        with _opened(file) as image:
            modes[image.mode] += 1
            sizes[image.size] += 1
            image.verify()
            if image.mode[0] in "IF":
                raise DataError(f"{file}: more than 8 bits a pixel ({image.mode}). Window it to 0 to 255 and save it as 8-bit grey: only you know the window.")
    width, height = sizes.most_common(1)[0][0]
    if size is None and (len(sizes) > 1 or width != height):
        words = ", ".join(f"{number} of {wide}x{high}" for (wide, high), number in sizes.most_common(3))
        found = f"{path}: images are not square and of one size ({words}{', ...' if len(sizes) > 3 else ''})"
        raise DataError(f"{found}. Give a size, for instance size={min(width, height)}; all are resized to it.")
    return ("L" if set(modes) == {"L"} else "RGB"), size or width


def _pixels(file: Path, mode: str, size: int) -> UInt8[np.ndarray, "..."]:
    with _opened(file) as image:
        plain = image.convert(mode)
        return np.asarray(plain if plain.size == (size, size) else plain.resize((size, size), Image.Resampling.BILINEAR))


def _checksum(path: Path, files: Sequence[Path]) -> str:
    """SHA-256 over the sorted names, relative to the folder, and the bytes of the files."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative_to(path).as_posix()):
        content = file.read_bytes()
        whole.update(f"{file.relative_to(path).as_posix()}\0{len(content)}\0".encode() + content)
    return f"sha256:{whole.hexdigest()}"


def hold_out(labels: Labels, groups: Sequence[str]) -> Bool[np.ndarray, "_"]:
    """Which images go to validation: 15 % of each class at most, at least one where a class has two, whole groups only, always the same ones.

    Groups are taken in a fixed random order as long as no class exceeds its share. Raises DataError when no group is small enough.
    """
    kinds = labels if labels.ndim == 1 else np.zeros(len(labels), dtype=np.int64)
    room = Counter({int(kind): min(max(round(HELD_OUT * number), 1), number - 1) for kind, number in zip(*np.unique(kinds, return_counts=True), strict=True)})
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    names, held = sorted(members), np.zeros(len(labels), dtype=bool)
    for turn in torch.randperm(len(names), generator=generator(0, "validation")).tolist():
        needed = Counter(kinds[members[names[turn]]].tolist())
        if all(room[kind] >= number for kind, number in needed.items()):
            room.subtract(needed)
            held[members[names[turn]]] = True
    if not held.any():
        raise DataError(f"no validation split can be cut: none of the {len(names)} groups fits into 15 % of its classes. Provide a val split.")
    return held


def _cut(arrays: Arrays, held: Bool[np.ndarray, "_"]) -> Arrays:
    images, labels = arrays["train"]
    return {"train": (images[~held], labels[~held]), "val": (images[held], labels[held]), "test": arrays["test"]}


def _apart(groups: dict[str, list[str]], path: Path) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = set(groups[first]) & set(groups[second])
        if both:
            raise DataError(f"{path}: group {min(both)} is in both {first} and {second}. Move its files to one side.")
