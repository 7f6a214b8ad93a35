"""Exports, read back by other programs: the same pixels and labels, in a process of their own."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import hoptm, refused
from torch.utils.data import DataLoader
from toy_sets import net, toy

from hoptm.baselines import herding, random_subset
from hoptm.card import card
from hoptm.config import EvaluationConfig, configure, generator
from hoptm.data import Standardisation, load
from hoptm.distill import distill
from hoptm.embeddings import PIXELS
from hoptm.errors import DataError, FileError
from hoptm.evaluate import Recipe, evaluate
from hoptm.experts import experts
from hoptm.exports import Images, judged, pixels, to_folder, to_npz, use
from hoptm.networks import network
from hoptm.synthetic import SyntheticSet
from hoptm.synthetic import load as load_set

FRESH = """
import json, sys
import numpy as np
from pathlib import Path
from PIL import Image
from hoptm.exports import Images
from hoptm.synthetic import load
made = load(sys.argv[1])
folder = [(path.parent.name, np.asarray(Image.open(path)).tolist()) for path in sorted(Path(sys.argv[2]).rglob("*.png"), key=lambda path: path.name)]
with np.load(sys.argv[3], allow_pickle=False) as file:
    arrays = {name: file[name].tolist() for name in file.files if name != "description"}
    description = json.loads(str(file["description"]))
torch_set = [(image.tolist(), label) for image, label in (Images(made)[index] for index in range(len(made.labels)))]
print(json.dumps([folder, arrays, description, torch_set]))
"""


def coloured() -> SyntheticSet:
    """Six images of three classes, of which one has none; colours that differ in every channel."""
    first = random_subset(toy(), 3, generator(0), seed=0)
    images = torch.randn(6, 3, 8, 8, generator=generator(1))
    info = {**first.info, "class_names": ["up/..", "down", "a b\n\u00e9"]}
    return replace(first, images=images, standardisation=Standardisation((0.5, 0.4, 0.6), (0.2, 0.2, 0.3)), labels=torch.tensor([0, 0, 2, 2, 0, 2]), info=info)


def grey() -> SyntheticSet:
    return random_subset(toy(), 3, generator(0), seed=0)


def written(made: SyntheticSet, folder: Path) -> list[Path]:
    made.save(folder / "set.safetensors")
    return [folder / "set.safetensors", to_folder(made, folder / "pictures"), to_npz(made, folder / "set.npz")]


@pytest.mark.parametrize("make", [grey, coloured])
def test_a_fresh_process_reads_the_same_pixels_and_labels(make, tmp_path):
    made = make()
    done = subprocess.run([sys.executable, "-c", FRESH, *map(str, written(made, tmp_path))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder, arrays, description, torch_set = json.loads(done.stdout)
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (made.standardisation.mean, made.standardisation.std))
    raw = np.clip(np.round((made.images.double().numpy() * std + mean) * 255), 0, 255).transpose(0, 2, 3, 1)
    raw = raw[..., 0] if raw.shape[3] == 1 else raw
    assert np.abs(np.array([image for _, image in folder]) - raw).max() == 0
    assert [int(name.split("-")[0]) for name, _ in folder] == made.labels.tolist()
    assert np.abs(np.array(arrays["train_images"]) - raw).max() == 0 and arrays["train_labels"] == made.labels[:, None].tolist()
    assert arrays["val_images"] == arrays["test_images"] == arrays["val_labels"] == []
    assert description["set"] == made.info and description["standardisation"]["mean"] == list(made.standardisation.mean)
    for (image, label), own, kind in zip(torch_set, made.images, made.labels.tolist(), strict=True):
        assert torch.equal(torch.tensor(image, dtype=torch.float32), own) and label == kind


def test_real_images_come_back_as_they_were():
    splits = toy()
    made = random_subset(splits, 40, generator(0))
    shown = pixels(made.images, made.standardisation)[..., 0]
    assert sorted(shown.flatten(1).tolist()) == sorted(splits.train.images.flatten(1).tolist())


def test_the_folder_sorts_as_the_labels_and_names_are_tame(tmp_path):
    folder = to_folder(coloured(), tmp_path / "pictures")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0-up", "1-down", "2-a-b", "description.json"]
    assert list((folder / "1-down").iterdir()) == [] and len(list((folder / "2-a-b").iterdir())) == 3
    assert json.loads((folder / "description.json").read_text(encoding="utf-8"))["set"]["source"]["licence"] == "CC0"
    assert [path for path in tmp_path.rglob("*") if path.parent == tmp_path] == [folder]
    assert Image.open(folder / "0-up" / "0000.png").mode == "RGB"


def test_many_classes_keep_their_order(tmp_path):
    made = grey()
    names = [".." if number % 2 else "same" for number in range(12)]
    folder = to_folder(replace(made, info={**made.info, "class_names": names}), tmp_path / "pictures")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert found == [f"{number:02d}-{'class' if number % 2 else 'same'}" for number in range(12)]


def test_the_npz_has_the_same_bytes_twice(tmp_path):
    first, again = (to_npz(coloured(), tmp_path / f"{name}.npz") for name in "ab")
    assert first.read_bytes() == again.read_bytes()
    with np.load(first) as file:
        assert file["train_images"].dtype == file["train_labels"].dtype == np.uint8 and file["train_images"].shape == (6, 8, 8, 3)
        assert file["val_images"].shape == (0, 8, 8, 3) and file["test_labels"].shape == (0, 1)


def test_a_loader_reads_the_torch_set():
    made = grey()
    images, labels = next(iter(DataLoader(Images(made), batch_size=6)))
    assert torch.equal(images, made.images) and torch.equal(labels, made.labels) and len(Images(made)) == 6


def test_a_saved_set_scores_the_same_in_a_fresh_process(tmp_path):
    """Any network and recipe: the same numbers to the last bit."""
    splits, made = toy(), grey()
    made.save(tmp_path / "set.safetensors")
    settings, recipe = EvaluationConfig(steps=6, batch=16, networks=2), Recipe("sgd", 0.01, "dsa", 6)
    here = evaluate(net(), made, splits.val, splits.test, settings, 100, recipe).as_dict()
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[2]); from toy_sets import net, toy; from hoptm.config import EvaluationConfig\n"
        "from hoptm.evaluate import Recipe, evaluate; from hoptm.synthetic import load; import torch; torch.set_num_threads(1)\n"
        "splits, settings, recipe = toy(), EvaluationConfig(steps=6, batch=16, networks=2), Recipe('sgd', 0.01, 'dsa', 6)\n"
        "print(json.dumps(evaluate(net(), load(sys.argv[1]), splits.val, splits.test, settings, 100, recipe).as_dict()))"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "set.safetensors"), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


@pytest.mark.parametrize(
    ("method", "half", "changes"),
    [("endpoint", False, {}), ("half", True, {}), ("latent", False, {"latent": {"dims": 6, "steps": 30}}), ("teacher", False, {})],
)
def test_the_three_lines_of_a_card_give_the_score_that_was_seen_here(method, half, changes, tmp_path):
    """Pixels, half the resolution in half precision, codes with their decoder, soft labels: by the very text of the card, in a fresh process."""
    splits = load("phantom:450")
    config = configure("phantom:450", method=method, ipc=1, seed=0, profile="smoke", **changes)
    path = tmp_path / "set.safetensors"
    distill(config, splits, experts(config, splits, progress=False, processes=1), progress=False).synthetic.save(path, half=half)
    family = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    here = evaluate(family, load_set(path), splits.val, splits.test, config.evaluation, config.seed).mean("accuracy")
    assert _by_its_card(path, "phantom:450") == here


def _by_its_card(path, dataset):
    """The score that the three lines of a file's card print in a fresh process; what stands in capitals there is filled in."""
    lines = use(load_set(path))
    assert lines in card(load_set(path)).text.replace("\n  ", "\n") and len(lines.splitlines()) == 3
    text = "import torch; torch.set_num_threads(1)\n" + lines.replace("FILE", str(path)).replace("DATASET", dataset).replace('"fast"', '"smoke"')
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_the_lines_suit_sets_without_settings_and_other_sizes(tmp_path):
    """Real images, and a folder's at half its size: with a profile named, and at the size of the set."""
    splits, path = load("phantom:450"), tmp_path / "real.safetensors"
    made = herding(splits, 1, PIXELS)
    made.save(path)
    with pytest.raises(DataError, match="Name a profile"):
        judged(made, splits)
    assert _by_its_card(path, "phantom:450") == judged(made, splits, profile="smoke").mean("accuracy")
    for split, label, number in itertools.product(("train", "val", "test"), range(2), range(4)):
        (tmp_path / "own" / split / str(label)).mkdir(parents=True, exist_ok=True)
        grey = torch.randint(0, 256, (32, 32), generator=generator(number, split, str(label))).numpy().astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "own" / split / str(label) / f"{number}.png")
    halved = load(tmp_path / "own", size=16)
    small = random_subset(halved, 1, generator(0), seed=0)
    small.save(path)
    assert "size=16" in use(small) and _by_its_card(path, str(tmp_path / "own")) == judged(small, halved, profile="smoke").mean("accuracy")


def test_what_cannot_be_written_is_refused(tmp_path):
    made = grey()
    two = replace(made, images=torch.zeros(6, 2, 8, 8), standardisation=Standardisation((0.5, 0.5), (0.1, 0.1)))
    for write in (to_folder, to_npz):
        with pytest.raises(DataError, match="neither grey nor colour"):
            write(two, tmp_path / "x.npz")
    assert len(Images(two)) == 6
    with pytest.raises(FileError, match=r"\.npz"):
        to_npz(made, tmp_path / "set.zip")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(FileError, match="not an empty folder"):
        to_folder(made, tmp_path / "taken")
    with pytest.raises(FileError, match="cannot write"):
        to_folder(made, tmp_path / "taken" / "file" / "pictures")
    assert os.listdir(tmp_path) == ["taken"]


def test_the_command_exports(tmp_path):
    made = grey()
    made.save(tmp_path / "set.safetensors")
    done = hoptm("export", tmp_path / "set.safetensors", "--to", "folder", "--out", tmp_path / "pictures", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["images"] == 6
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 6
    assert hoptm("export", tmp_path / "set.safetensors", "--to", "npz", "--out", tmp_path / "set.npz").stdout.endswith("6 images\n")
    assert refused(hoptm("export", tmp_path / "set.safetensors", "--to", "npz", "--out", tmp_path / "set.zip"), ".npz")
    assert refused(hoptm("export", tmp_path / "absent", "--to", "npz", "--out", tmp_path / "set.npz"), "absent")


def test_the_command_judges_a_baseline_by_a_named_profile(tmp_path):
    splits = load("phantom:450")
    herding(splits, 1, PIXELS, seed=3).save(tmp_path / "set.safetensors")
    assert refused(hoptm("evaluate", tmp_path / "set.safetensors", "--dataset", "phantom:450"), "--profile")
    done = hoptm("evaluate", tmp_path / "set.safetensors", "--dataset", "phantom:450", "--profile", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["set"]["scores"]
    assert len(scores) == 2 and 0 <= scores[0]["worst_recall"] <= scores[0]["balanced_accuracy"] and 0 <= scores[0]["ece"] <= 1
