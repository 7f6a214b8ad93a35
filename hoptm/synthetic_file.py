"""The file of a synthetic set: which tensors, which header, and what is wrong with parts that are no set.

A set of pixels holds five tensors. One whose images are rendered also holds `codes`, the tensors that the rendering shares
(`decoder.*`) and, in the header, the rendering's name and settings; one with a teacher's labels holds `soft`. Images may be kept in
half precision, where that is what lets a file be shared; the description then says so under `stored`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoptm.data import Standardisation
from hoptm.errors import ConfigError, FileError
from hoptm.files import read_tensors, write_tensors
from hoptm.rendering import Pixels, Rendering, cost_of_image, restored

LARGEST = 2 * 1024**3
"""Bytes; a larger file is refused before it is read."""
TOLERANCE = 1e-3
"""Rendered images may differ from the stored ones by this much, absolutely and relatively: machines round convolutions differently."""

LARGEST_EDGE = 4_096
"""Pixels along an edge of an image."""
LARGEST_WORK = 2**38
"""Multiplications that rendering all images may take, about half a minute of a core: 7,000 images of 224 pixels with a decoder of the usual width."""

_AT_ONCE = 32 * 1024**2
"""Bytes that the largest layer may hold for the images that are rendered at a time when a set is checked; a few times as much is in use."""
_PART = 64
"""Images that are rendered at a time, at most."""
_AUGMENTATIONS = 50
"""Names of augmentations at most: judging a set trains a network with each."""
HALF = "images rounded to float16; the scores are those of the images before"
"""What a description says of a file in half precision."""
_KIND = "hoptm synthetic set 1"
_TENSORS = {"images": torch.float32, "labels": torch.int64, "lr": torch.float64, "mean": torch.float64, "std": torch.float64}
_OPTIONAL = {"codes": torch.float32, "soft": torch.float32}
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
class Parts:
    """The fields of a `SyntheticSet`, not yet looked at."""

    images: Tensor
    labels: Tensor
    lr: float
    standardisation: Standardisation
    info: dict[str, Any]
    codes: Tensor | None = None
    rendering: Rendering | None = None
    soft: Tensor | None = None


def write(path: Path, parts: Parts, *, half: bool = False) -> None:
    """Write one safetensors file, whole or not at all; the same parts give the same bytes. With `half` images are rounded to float16. Raises FileError."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (parts.standardisation.mean, parts.standardisation.std))
    images, info = (parts.images.half(), {**parts.info, "stored": HALF}) if half else (parts.images, parts.info)
    tensors = {"images": images, "labels": parts.labels, "lr": torch.tensor([parts.lr], dtype=torch.float64), "mean": mean, "std": std}
    header: dict[str, Any] = {"kind": _KIND, "set": info}
    if parts.codes is not None and parts.rendering is not None:
        tensors |= {"codes": parts.codes, **parts.rendering.shared}
        header["rendering"] = {"name": parts.rendering.name, "config": parts.rendering.config}
    if parts.soft is not None:
        tensors["soft"] = parts.soft
    write_tensors(path, tensors, header)


def read(path: Path) -> Parts:
    """The parts in a file of `write`, of the right types and shapes; that codes give the images is for the set that is made of them to see.

    Raises FileError, with the file's name; runs no code of the file.
    """
    if path.is_file() and path.stat().st_size > LARGEST:
        raise FileError(f"{path}: {path.stat().st_size} bytes; a synthetic set has at most {LARGEST}. Name the file that `hoptm distill` wrote.")
    tensors, header = read_tensors(path)
    try:
        parts = _parts(tensors, header)
    except ConfigError as error:
        raise FileError(f"{path}: {str(error).removesuffix('.')}. It is no synthetic set of this version; make or fetch it again.") from error
    return parts


def _parts(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Parts:
    """A file's content as parts of a set. Raises ConfigError, in words for the reader, when it is none."""
    wrong = _wrong_file(tensors, header)
    if wrong:
        raise ConfigError(wrong)
    measured = Standardisation(tuple(tensors["mean"].tolist()), tuple(tensors["std"].tolist()))
    rendering, others = _rendering(tensors, header), (tensors.get("codes"), tensors.get("soft"))
    parts = Parts(tensors["images"].float(), tensors["labels"], float(tensors["lr"]), measured, header["set"], others[0], rendering, others[1])
    wrong = _wrong_forms(parts)
    if wrong:
        raise ConfigError(f"the set {wrong}")
    return parts


def _rendering(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Rendering | None:
    """What turns the file's codes into images. Raises ConfigError when the file describes no rendering that we know."""
    if "codes" not in tensors:
        return None
    described = header["rendering"]
    return restored(described["name"], described["config"], {name: value for name, value in tensors.items() if name not in _TENSORS | _OPTIONAL})


def _wrong_file(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str | None:
    """What keeps a file's content from being made into a set at all, in words."""
    if header.get("kind") != _KIND:
        return f"the header says {header.get('kind')!r} where {_KIND!r} is expected"
    described, allowed = header.get("rendering"), {*_TENSORS, *_OPTIONAL}
    if ("codes" in tensors) != (described is not None):
        return "codes and the description of their rendering must come together"
    if described is not None and not (isinstance(described, dict) and isinstance(described.get("name"), str) and isinstance(described.get("config"), dict)):
        return "the description of the rendering has no name or no settings"
    strange = sorted(name for name in set(tensors) - allowed if described is None or not name.startswith("decoder."))
    if not set(_TENSORS) <= set(tensors) or strange:
        return f"it holds the tensors {sorted(tensors)} where {sorted(_TENSORS)} are expected"
    if not isinstance(header.get("set"), dict):
        return "the header has no description"
    halved = {"images": torch.float16} if header["set"].get("stored") == HALF and tensors["images"].dtype == torch.float16 else {}
    for name, dtype in (_TENSORS | _OPTIONAL | halved).items():
        if name in tensors and tensors[name].dtype != dtype:
            return f"{name} is {tensors[name].dtype} where {dtype} is expected"
    if tensors["lr"].shape != (1,) or tensors["mean"].dim() != 1 or tensors["std"].dim() != 1:
        return "the step size must be one number, and mean and std one number a channel"
    return None


def wrong_parts(parts: Parts) -> str | None:
    """What is wrong with the parts of a set, in words that go on from "a synthetic set"; None when nothing is."""
    return _wrong_forms(parts) or _wrong_rendered(parts)


def _wrong_forms(parts: Parts) -> str | None:
    """What is wrong before anything is rendered."""
    return (
        _wrong_info(parts.info)
        or _wrong_images(parts.images, parts.labels, len(parts.info["class_names"]))
        or _wrong_numbers(parts)
        or _wrong_codes(parts)
        or _wrong_soft(parts)
    )


def _wrong_info(info: Mapping[str, Any]) -> str | None:
    for name, kinds in _INFO.items():
        if not isinstance(info.get(name), kinds):
            return f"says nothing valid under {name!r}"
    for name in ("class_names", "augmentations"):
        if not info[name] or not all(isinstance(word, str) for word in info[name]):
            return f"needs at least one name under {name!r}"
    if len(set(info["augmentations"])) < len(info["augmentations"]) or len(info["augmentations"]) > _AUGMENTATIONS:
        return f"names more than {_AUGMENTATIONS} augmentations, or one of them twice"
    return None


def _wrong_images(images: Tensor, labels: Tensor, classes: int) -> str | None:
    if images.dtype != torch.float32 or images.dim() != 4 or 0 in images.shape or images.shape[2] != images.shape[3]:
        return f"needs square float32 images (n, c, h, h), not {images.dtype} {tuple(images.shape)}"
    if images.shape[2] > LARGEST_EDGE:
        return f"has images of {images.shape[2]} pixels; an edge may have {LARGEST_EDGE:,}"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return f"of {len(images)} images needs as many int64 labels, not {labels.dtype} {tuple(labels.shape)}"
    if not torch.isfinite(images).all():
        return "holds pixels that are not finite"
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        return f"has labels {int(labels.min())} .. {int(labels.max())} for {classes} classes (0 .. {classes - 1})"
    return None


def _wrong_numbers(parts: Parts) -> str | None:
    if not (math.isfinite(parts.lr) and parts.lr > 0):
        return f"has the step size {parts.lr}; it must be finite and above 0"
    mean, std, channels = parts.standardisation.mean, parts.standardisation.std, parts.images.shape[1]
    if len(mean) != channels or len(std) != channels:
        return f"with {channels} channels is standardised by {len(mean)} means and {len(std)} deviations"
    if not all(math.isfinite(value) for value in mean) or not all(math.isfinite(value) and value > 0 for value in std):
        return "is standardised by numbers that are not finite, or by deviations that are not above 0"
    return None


def _wrong_codes(parts: Parts) -> str | None:
    codes, rendering, images = parts.codes, parts.rendering, parts.images
    if codes is None or rendering is None:
        return None if codes is None and isinstance(rendering, Pixels | None) else "needs codes and their rendering together, or neither"
    try:
        wanted = (len(images), *rendering.leaf_shape(images.shape[1], images.shape[2]))
    except ConfigError as error:
        return f"has another rendering than its images: {str(error).removesuffix('.')}"
    if codes.dtype != torch.float32 or tuple(codes.shape) != wanted:
        return f"needs float32 codes {wanted} for its rendering, not {codes.dtype} {tuple(codes.shape)}"
    if not torch.isfinite(codes).all():
        return "holds codes that are not finite"
    return None


def _wrong_rendered(parts: Parts) -> str | None:
    """Whether the images are what the codes give, where that can be seen with bounded work and memory."""
    codes, rendering, images = parts.codes, parts.rendering, parts.images
    if codes is None or rendering is None:
        return None
    largest, work = cost_of_image(rendering, images.shape[1], images.shape[2])
    if len(images) * work > LARGEST_WORK:
        asked = f"takes {len(images) * work:,} multiplications to render {len(images)} images; {LARGEST_WORK:,} are allowed"
        return f"{asked}. Take a narrower decoder or fewer images"
    off = _off(rendering, codes, images, max(1, min(_PART, _AT_ONCE // largest)))
    return None if off <= TOLERANCE else f"has images that its codes do not give (off by up to {off:.2g})"


@torch.no_grad()
def _off(rendering: Rendering, codes: Tensor, images: Tensor, part: int) -> float:
    """By how much the images differ from what their codes give beyond the relative tolerance, at most; infinite where a rendered number is not finite.

    `part` images are rendered at a time, since a decoder holds more numbers an image than the image.
    """
    worst = 0.0
    for some, shown in zip(codes.split(part), images.split(part), strict=True):
        off = ((rendering(some) - shown).abs() - TOLERANCE * shown.abs()).max()
        worst = max(worst, float(torch.nan_to_num(off, nan=math.inf)))
    return worst


def _wrong_soft(parts: Parts) -> str | None:
    soft = parts.soft
    if soft is None:
        return None
    wanted = (len(parts.images), len(parts.info["class_names"]))
    if soft.dtype != torch.float32 or tuple(soft.shape) != wanted:
        return f"needs float32 soft labels {wanted}, not {soft.dtype} {tuple(soft.shape)}"
    if not torch.isfinite(soft).all() or bool((soft < 0).any()) or bool(((soft.sum(1) - 1).abs() > TOLERANCE).any()):
        return "has soft labels that are no probabilities: each row must be 0 or more and sum to 1"
    return None
