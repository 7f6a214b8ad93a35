"""A synthetic set elsewhere: PNG files, an .npz in MedMNIST's layout, a torch data set; and judged again from its file, in three lines.

Pictures hold bytes: pixels are taken back to 0 .. 255, rounded and clipped, so a network trained on them differs a little
from one trained on the set itself. The torch data set holds the numbers as they are.
"""

import io
import json
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hoptm.config import Config, configure, from_dict
from hoptm.data import Splits, Standardisation
from hoptm.errors import DataError, FileError
from hoptm.evaluate import Evaluation, evaluate
from hoptm.files import write_aside, write_text
from hoptm.networks import network
from hoptm.synthetic import SyntheticSet

_USE = """\
from hoptm import data, exports, synthetic
made, splits = synthetic.load("FILE"), data.load("DATASET", size={size})
print(exports.judged(made, splits{profile}).mean("accuracy"))"""


def use(made: SyntheticSet) -> str:
    """Three lines for whoever gets a set's file: the set as tensors, the real data, and the score of fresh networks.

    FILE and DATASET are to be filled in. A profile is named where the file holds no settings to judge it by, as that of real images has none.
    """
    return _USE.format(size=made.images.shape[-1], profile="" if has_settings(made) else ', profile="fast"')


def has_settings(made: SyntheticSet) -> bool:
    """Whether the file of a set says by which network and protocol to judge it, as that of every distilled set does."""
    return "match" in made.info["config"]


def settings_of(made: SyntheticSet, profile: str | None = None) -> Config:
    """The settings in a set's file; a set that was not distilled (a baseline) has none of its evaluation, and takes those of a profile.

    Raises DataError for such a set without a profile, and as `config.from_dict`.
    """
    if has_settings(made):
        return from_dict(made.info["config"])
    if profile is None:
        raise DataError("the set's file holds no settings, so it was not made by hoptm distill. Name a profile to judge it by.")
    name, seed = made.info["source"].get("name", "unknown"), made.info["seed"] or 0
    return configure(name, method="endpoint", ipc=made.info["ipc"], seed=seed, profile=profile)


def judged(made: SyntheticSet, splits: Splits, config: Config | None = None, *, profile: str | None = None) -> Evaluation:
    """Fresh networks trained on a set and scored on test, by the settings, seed and protocol in its file: the same bits as where it was made, on one CPU.

    The recipe is chosen on validation again. `config` takes the place of the file's settings; `profile` stands in where the file holds none. Raises
    DataError as `settings_of`, and as `evaluate` does for images that do not fit.
    """
    config = settings_of(made, profile) if config is None else config
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    return evaluate(net, made, splits.val, splits.test, config.evaluation, config.seed)


class Images(Dataset[tuple[Tensor, int]]):
    """A set for `torch.utils.data.DataLoader`: item i is the standardised image (c, h, w), float32, and its class."""

    def __init__(self, made: SyntheticSet) -> None:
        self.images, self.labels = made.images.clone(), made.labels.clone()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def pixels(images: Float[Tensor, "n c h w"], standardisation: Standardisation) -> UInt8[Tensor, "n h w c"]:
    """Standardised images as bytes 0 .. 255, channels last, rounded and clipped. Raises DataError for another number of channels."""
    return (standardisation.invert(images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_folder(made: SyntheticSet, folder: str | Path) -> Path:
    """Write FOLDER/LABEL-CLASS/NUMBER.png and FOLDER/description.json (source, licence, classes, settings); returns the folder.

    Subfolders sort in the order of the labels, as `torchvision.datasets.ImageFolder` reads them; classes without
    images get an empty one. Letters of a class name that do not suit every file system become hyphens.

    Raises FileError when the folder exists and is not empty or cannot be written, DataError for images that are
    neither grey nor colour.
    """
    folder, shown = Path(folder), _shown(made)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder}: it exists and is not an empty folder. Name another one.")
    try:
        for label, name in enumerate(made.info["class_names"]):
            (folder / _folder_name(label, name, made.classes)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error}. Name another folder.") from error
    digits = max(4, len(str(len(shown) - 1)))
    for number, (image, label) in enumerate(zip(shown.numpy(), made.labels.tolist(), strict=True)):
        place = folder / _folder_name(label, made.info["class_names"][label], made.classes) / f"{number:0{digits}d}.png"
        write_aside(place, lambda path, image=image: _write_png(path, image))  # type: ignore[misc]
    write_text(folder / "description.json", _description(made) + "\n")
    return folder


def to_npz(made: SyntheticSet, path: str | Path) -> Path:
    """Write an .npz with MedMNIST's six arrays, of which only train is filled, and a `description`; returns the path.

    `train_images` (n, h, w) or (n, h, w, 3) uint8, `train_labels` (n, 1); val and test have no images: take those of
    the source. `description` is JSON in a text array, without pickles. The same set gives the same bytes.

    Raises FileError when it cannot be written or does not end in .npz, DataError for images neither grey nor colour.
    """
    path, shown = Path(path), _shown(made).numpy()
    if path.suffix != ".npz":
        raise FileError(f"{path}: the file must end in .npz.")
    shown = shown[..., 0] if shown.shape[3] == 1 else shown
    kind = np.uint8 if made.classes <= 256 else np.int64
    arrays = {"train_images": shown, "train_labels": made.labels.numpy()[:, None].astype(kind), "description": np.array(_description(made))}
    for split in ("val", "test"):
        arrays |= {f"{split}_images": shown[:0], f"{split}_labels": np.zeros((0, 1), kind)}
    written = io.BytesIO()
    np.savez(written, **arrays)  # type: ignore[arg-type]
    write_aside(path, lambda temporary: _write_bytes(temporary, written.getvalue()))
    return path


def _shown(made: SyntheticSet) -> Tensor:
    if made.images.shape[1] not in (1, 3):
        raise DataError(f"images of {made.images.shape[1]} channels are neither grey nor colour. Use the torch data set, hoptm.exports.Images.")
    return pixels(made.images, made.standardisation)


def _folder_name(label: int, name: str, classes: int) -> str:
    return f"{label:0{len(str(classes - 1))}d}-{re.sub(r'[^A-Za-z0-9_]+', '-', name)[:40].strip('-') or 'class'}"


def _description(made: SyntheticSet) -> str:
    scale = {"mean": made.standardisation.mean, "std": made.standardisation.std}
    return json.dumps({"set": made.info, "standardisation": scale, "lr": made.lr}, indent=1, sort_keys=True)


def _write_png(path: Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path, "PNG")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
