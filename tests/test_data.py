"""Loading: what is found where, what is read how, and one clear error for everything else."""

import contextlib
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hoptm import catalogue, sources
from hoptm.data import Standardisation, Test, Train, Validation, available, load, single_label, standardisation
from hoptm.errors import DataError
from hoptm.readers import hold_out

Parts = dict[str, Any]


def parts(classes: int = 3, size: int = 6, channels: int = 0, each: int = 4) -> Parts:
    """A valid set in MedMNIST's layout: every class in every split, random pixels."""
    random = np.random.default_rng(0)
    made: Parts = {}
    for split in ("train", "val", "test"):
        labels = np.repeat(np.arange(classes), each)
        made[f"{split}_images"] = random.integers(0, 256, (len(labels), size, size, *([channels] if channels else [])), dtype=np.uint8)
        made[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    return made


def saved(folder: Path, made: Parts, name: str = "set.npz") -> Path:
    np.savez(folder / name, **made)
    return folder / name


def refused(*words: str) -> Any:
    """One line that names the thing (each of the words, in any order)."""
    return pytest.raises(DataError, match="(?s)^(?!.*\n)" + "".join(f"(?=.*{word})" for word in words))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data of this machine, no cache, no network."""
    monkeypatch.delenv("HOPTM_DATA", raising=False)
    monkeypatch.setenv("HOPTM_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


# --- an .npz by its path ---


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_npz_by_path(tmp_path: Path, channels: int) -> None:
    made = parts(channels=channels)
    splits = load(saved(tmp_path, made))
    assert (type(splits.train), type(splits.val), type(splits.test)) == (Train, Validation, Test)
    assert (splits.classes, splits.channels, splits.size) == (3, max(channels, 1), 6) and len(splits.train) == 12
    assert splits.train.images.dtype == torch.uint8 and splits.train.labels.dtype == torch.int64 and splits.train.images.is_contiguous()
    expected = made["test_images"] if channels else made["test_images"][..., None]
    for channel in range(splits.channels):
        np.testing.assert_array_equal(splits.test.images[:, channel].numpy(), expected[..., channel])
    np.testing.assert_array_equal(splits.val.labels.numpy(), made["val_labels"][:, 0])
    assert splits.info.checksum == "sha256:" + hashlib.sha256((tmp_path / "set.npz").read_bytes()).hexdigest()
    assert (splits.info.name, splits.info.task, splits.info.note) == ("set", "multi-class", "") and splits.info.class_names == ("class 0", "class 1", "class 2")


def test_npz_with_flat_labels_and_under_root(tmp_path: Path) -> None:
    made = {key: value.reshape(-1).astype(np.int32) if key.endswith("labels") else value for key, value in parts(classes=2).items()}
    saved(tmp_path, made)
    splits = load("set.npz", tmp_path)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4 and splits.info.task == "binary-class"


def test_npz_without_validation(tmp_path: Path) -> None:
    made = {key: value for key, value in parts(each=40).items() if not key.startswith("val")}
    path = saved(tmp_path, made)
    splits, again = load(path), load(path)
    assert splits.val.labels.bincount().tolist() == [6, 6, 6] and splits.train.labels.bincount().tolist() == [34, 34, 34]
    both = torch.cat([splits.train.images, splits.val.images])[:, 0].flatten(1).tolist()
    assert sorted(both) == sorted(made["train_images"].reshape(120, -1).tolist())
    assert torch.equal(splits.val.images, again.val.images) and "15 %" in splits.info.note


def change(**changes: Callable[[Any], Any]) -> Callable[[Parts], Parts]:
    return lambda made: {**made, **{key: edit(made[key]) for key, edit in changes.items()}}


def without(*keys: str) -> Callable[[Parts], Parts]:
    return lambda made: {key: value for key, value in made.items() if key not in keys}


def holding_nan(array: Any) -> Any:
    array = array.astype(np.float32)
    array.reshape(-1)[1] = np.nan
    return array


BAD = {
    "wrong dtype of images": (change(train_images=lambda x: x / 255), ("train_images", "float64", "uint8")),
    "signed images": (change(test_images=lambda x: x.astype(np.int8)), ("test_images", "int8")),
    "images with NaN": (change(val_images=holding_nan), ("val_images", "NaN")),
    "wrong dtype of labels": (change(train_labels=lambda x: x.astype(float)), ("train_labels", "float64", "whole numbers")),
    "labels with NaN": (change(train_labels=holding_nan), ("train_labels", "NaN")),
    "labels in words": (change(train_labels=lambda x: x.astype(str)), ("train_labels", "whole numbers")),
    "flat images": (change(train_images=lambda x: x.reshape(len(x), -1)), ("train_images", "shape")),
    "oblong images": (change(train_images=lambda x: x[:, :, 1:]), ("train_images", r"\(12, 6, 5, 1\)")),
    "channels first": (change(train_images=lambda x: np.stack([x] * 3, 1)), ("train_images", "channels last")),
    "four channels": (change(train_images=lambda x: np.stack([x] * 4, 3)), ("train_images", "shape")),
    "no pixels": (change(train_images=lambda x: x[:, :0, :0]), ("train_images", "shape")),
    "no images": (change(val_images=lambda x: x[:0], val_labels=lambda x: x[:0]), ("val_images", "no image")),
    "scalar labels": (change(train_labels=lambda x: x[0, 0]), ("train_labels", "shape")),
    "labels without columns": (change(train_labels=lambda x: x[:, :0]), ("train_labels", "shape")),
    "sizes that differ": (change(test_images=lambda x: x[:, 1:, 1:]), ("train", "test", "shape")),
    "colour in one split": (change(test_images=lambda x: np.stack([x] * 3, 3)), ("train", "test", "shape")),
    "missing key": (without("test_labels"), ("test_labels", "missing", "train_images")),
    "missing images": (without("train_images"), ("train_images", "missing")),
    "half a validation split": (without("val_images"), ("val_images", "missing")),
    "nothing known": (lambda made: {"x": made["train_images"]}, ("train_images", "missing")),
    "unequal length": (change(train_labels=lambda x: x[:-1]), ("train", "12 images", "11 labels")),
    "empty class": (change(train_labels=lambda x: np.where(x == 1, 2, x)), ("class 1", "no image")),
    "class only in test": (change(test_labels=lambda x: np.where(x == 1, 3, x)), ("class 3", "no image", "train")),
    "labels from 1": (lambda made: {key: value + 1 if key.endswith("labels") else value for key, value in made.items()}, ("class 0", "no image")),
    "one class": (lambda made: {key: value * 0 if key.endswith("labels") else value for key, value in made.items()}, ("one class",)),
    "negative label": (change(train_labels=lambda x: x.astype(np.int8) - 1), ("train_labels", "negative", "-1")),
    "huge label": (change(train_labels=lambda x: x.astype(np.uint64) + 2**63), ("train_labels", "no label")),
    "counts for findings": (change(train_labels=lambda x: np.concatenate([x, x], 1)), ("train_labels", "0 and 1")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_npz_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    edit, words = BAD[case]
    with refused(r"set\.npz", *words):
        load(saved(tmp_path, edit(parts())))


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    made = parts() | {"train_images": np.array([Bomb(tmp_path / "touched")], dtype=object)}
    with refused("train_images", "pickled"):
        load(saved(tmp_path, made))
    assert not (tmp_path / "touched").exists()


def test_damaged_files(tmp_path: Path) -> None:
    whole = saved(tmp_path, parts(each=100)).read_bytes()
    flipped = bytearray(whole)
    flipped[2000] ^= 1
    bare = io.BytesIO()
    np.save(bare, np.zeros(3))
    lying = io.BytesIO()
    with zipfile.ZipFile(lying, "w") as file:
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000000, 28, 28), }".ljust(117) + "\n"
        file.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    contents = {"empty": b"", "truncated": whole[:-500], "half": whole[: len(whole) // 2], "flipped": bytes(flipped), "noise": os.urandom(4000),
                "text": b"not an archive\n", "pickle": b"\x80\x04N.", "bare": bare.getvalue(), "lying": lying.getvalue()}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with refused(rf"{name}\.npz", "(again|numpy.savez)"):
            load(tmp_path / f"{name}.npz")


def test_arguments_that_do_not_fit_an_npz(tmp_path: Path) -> None:
    path = saved(tmp_path, parts())
    assert load(path, size=6).size == 6
    with refused("6x6", "28x28"):
        load(path, size=28)
    with refused("group"):
        load(path, group=lambda file: file.stem)


def test_multi_label(tmp_path: Path) -> None:
    made = {key: np.eye(3, dtype=np.uint8)[value[:, 0]] if key.endswith("labels") else value for key, value in parts().items()}
    splits = load(saved(tmp_path, made))
    assert splits.train.labels.shape == (12, 3) and splits.classes == 3 and splits.info.task == "multi-label"
    with refused("set", "multi-label"):
        single_label(splits)
    plain = load(saved(tmp_path, parts(), "plain.npz"))
    assert single_label(plain) is plain


# --- a folder of images ---


def folder(path: Path, splits: tuple[str, ...] = ("train", "test"), mode: str = "L", size: int = 6, each: int = 20) -> Path:
    """Two classes; image `k` of a class shows the value 10 k + class."""
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            (path / split / name).mkdir(parents=True)
            for index in range(each):
                Image.new("L", (size, size), 10 * index + label).convert(mode).save(path / split / name / f"{index:02}_{index // 2}.png")
    return path


def test_folder(tmp_path: Path) -> None:
    splits = load(folder(tmp_path / "set", ("train", "val", "test")))
    assert (splits.classes, splits.channels, splits.size) == (2, 1, 6) and splits.info.class_names == ("cat", "dog") and splits.info.note == ""
    assert splits.train.images[:, 0, 0, 0].tolist() == [10 * index + label for label in (0, 1) for index in range(20)]
    assert splits.val.labels.tolist() == [0] * 20 + [1] * 20 and splits.info.name == "set" and splits.info.task == "binary-class"


def test_folder_checksum_follows_names_and_bytes(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    assert load(first).info.checksum == load(second).info.checksum
    (second / "notes.txt").write_text("not an image")
    assert load(first).info.checksum == load(second).info.checksum
    (second / "test" / "cat" / "00_0.png").rename(second / "test" / "cat" / "zz.png")
    assert load(first).info.checksum != load(second).info.checksum


def test_folder_of_any_colour_is_rgb(tmp_path: Path) -> None:
    path = folder(tmp_path / "set")
    Image.new("RGB", (6, 6), (1, 2, 3)).save(path / "test" / "dog" / "zz.png")
    splits = load(path)
    assert splits.channels == 3 and splits.test.images[-1, :, 0, 0].tolist() == [1, 2, 3] and splits.train.images[0].float().std() == 0


def test_folder_resizes_smoothly(tmp_path: Path) -> None:
    path = folder(tmp_path / "set")
    board = (np.indices((12, 12)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(path / "test" / "dog" / "zz.png")
    splits = load(path, size=4)
    assert splits.size == 4 and (splits.test.images[-1].float() - 127.5).abs().max() < 20
    assert splits.test.images[0].float().std() == 0


def test_folder_holds_out_whole_groups(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", each=20)
    splits = load(path, group=lambda file: f"{file.parent.parent.name}{file.stem.split('_')[1]}")
    held = {label: set() for label in (0, 1)}
    for image, label in zip(splits.val.images[:, 0, 0, 0].tolist(), splits.val.labels.tolist(), strict=True):
        held[label].add((image - label) // 20)
    assert held[0] == held[1] and len(held[0]) == 1 and len(splits.val) == 4 and "by group" in splits.info.note
    assert not {value // 20 for value in splits.train.images[:, 0, 0, 0].tolist()} & held[0]


def test_folder_with_a_group_on_both_sides(tmp_path: Path) -> None:
    with refused("group 0", "train", "test"):
        load(folder(tmp_path / "set"), group=lambda file: file.stem.split("_")[1])
    with refused("no validation split"):
        load(folder(tmp_path / "other"), group=lambda file: file.parent.parent.name)


def broken(path: Path) -> None:
    file = path / "train" / "dog" / "03_1.png"
    file.write_bytes(file.read_bytes()[:-20])


BAD_FOLDERS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "broken PNG": (broken, ("train.dog.03_1.png", "cannot be read", "Replace")),
    "text named PNG": (lambda path: (path / "test" / "cat" / "01_0.png").write_text("hello"), ("01_0.png", "cannot be read")),
    "empty PNG": (lambda path: (path / "test" / "cat" / "01_0.png").write_bytes(b""), ("01_0.png", "cannot be read")),
    "mixed sizes": (lambda path: Image.new("L", (9, 7)).save(path / "test" / "cat" / "zz.png"), ("9x7", "size=6")),
    "more than 8 bits": (lambda path: Image.fromarray(np.zeros((6, 6), np.uint16)).save(path / "test" / "cat" / "zz.png"), ("zz.png", "8 bits")),
    "no test": (lambda path: (path / "test").rename(path / "other"), ("no folder test",)),
    "no train": (lambda path: (path / "train").rename(path / "other"), ("no folder train",)),
    "empty class": (lambda path: (path / "train" / "eel").mkdir(), ("eel", "no image")),
    "class only in test": (lambda path: (path / "test" / "dog").rename(path / "test" / "eel"), ("eel", "not in train")),
    "one class": (lambda path: (path / "train" / "dog").rename(path / "dog"), ("1 class", "cat")),
    "empty validation": (lambda path: (path / "val" / "cat").mkdir(parents=True), ("val", "no image")),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    spoil, words = BAD_FOLDERS[case]
    path = folder(tmp_path / "set")
    spoil(path)
    with refused("set", *words):
        load(path)


def test_impossible_sizes(tmp_path: Path) -> None:
    path = folder(tmp_path / "set")
    for size in (0, -3, 100_000):
        with refused(f"size={size}"):
            load(path, size=size)


def test_hold_out_keeps_groups_whole_and_classes_even() -> None:
    random = np.random.default_rng(1)
    labels, groups = random.integers(0, 3, 400), [f"p{number}" for number in random.integers(0, 150, 400)]
    held = hold_out(labels, groups)
    assert all(len({bool(held[index]) for index in range(400) if groups[index] == name}) == 1 for name in set(groups))
    for label in range(3):
        assert 0.10 < held[labels == label].mean() <= 0.16
    np.testing.assert_array_equal(held, hold_out(labels, groups))


# --- names ---

CLASSES = {"pathmnist": 9, "chestmnist": 14, "dermamnist": 7, "octmnist": 4, "pneumoniamnist": 2, "retinamnist": 5, "breastmnist": 2, "bloodmnist": 8,
           "tissuemnist": 8, "organamnist": 11, "organcmnist": 11, "organsmnist": 11}  # fmt: skip


def test_twelve_sets_are_described() -> None:
    assert set(catalogue.MEDMNIST) == set(CLASSES)
    for stem, (kind, pixels) in catalogue.MEDMNIST_FILES.items():
        info = catalogue.official_info(stem)
        assert len(info.class_names) == CLASSES[kind] and info.checksum.startswith("md5:") and len(info.checksum) == 36
        assert (stem == kind) == (pixels == 28) and info.name == stem
        assert info.licence == ("CC BY-NC 4.0" if kind == "dermamnist" else "CC BY 4.0")
    assert catalogue.official_info("pneumoniamnist").checksum == "md5:28209eda62fecd6e6a2d98b1501bb15f"
    assert catalogue.official_info("chestmnist").task == "multi-label" and catalogue.official_info("retinamnist").task == "ordinal-regression"
    assert "dihedral" in catalogue.official_info("pathmnist").augmentations and "dihedral" not in catalogue.official_info("octmnist").augmentations
    assert len({catalogue.official_info(stem).checksum for stem in catalogue.MEDMNIST_FILES}) == 48


def test_missing_set_names_every_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not available("pathmnist")
    with refused("pathmnist_64.npz", "HOPTM_DATA", "not set", ".medmnist", "HOPTM_OFFLINE", "phantom"):
        load("PathMNIST", size=64)
    monkeypatch.setenv("HOPTM_DATA", str(tmp_path / "here"))
    with refused("pathmnist.npz", "here", "here.medmnist", "home..medmnist", "phantom"):
        load("pathmnist")
    for name in ("pbc-28", "pbc-28-small", "cxr-open"):
        assert not available(name)
        with refused(name, "here", "HOPTM_DATA"):
            load(name)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("pathmnst", None, ("pathmnst", "pathmnist")),
        ("fantom", None, ("phantom",)),
        ("", None, ("pathmnist", "phantom")),
        ("zzz", None, ("zzz", "pneumoniamnist")),
        ("absent/set.npz", None, ("absent.set.npz", "no such file")),
        ("absent.npz", None, ("absent.npz", "no such file")),
        ("pathmnist", 50, ("28, 64, 128, 224", "50")),
        ("pathmnist_64", 28, ("contradict",)),
        ("pathmnist", 0, ("28, 64, 128, 224",)),
        ("phantom:10", None, ("phantom:10", "90")),
        ("phantom:many", None, ("phantom:many", "COUNT")),
        ("phantom:", None, ("COUNT",)),
        ("phantom", 64, ("28 pixels",)),
    ],
)
def test_unknown_names(name: str, size: int | None, words: tuple[str, ...]) -> None:
    with refused(*words):
        load(name, size=size)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("a,b\n")
    with refused("set.csv", "npz"):
        load(tmp_path / "set.csv")


def publish(monkeypatch: pytest.MonkeyPatch, content: bytes, **changes: str) -> None:
    """Let medmnist's table describe these bytes as BreastMNIST."""
    entry = {**catalogue.published()["breastmnist"], "MD5": hashlib.md5(content).hexdigest(), **changes}
    monkeypatch.setattr(catalogue, "published", lambda: {"breastmnist": entry})
    monkeypatch.setattr(sources, "published", lambda: {"breastmnist": entry})


@pytest.fixture
def breast(tmp_path: Path) -> bytes:
    return saved(tmp_path, parts(classes=2), "made.npz").read_bytes()


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breast: bytes) -> None:
    publish(monkeypatch, breast)
    cache, data, given = tmp_path / "home" / ".medmnist", tmp_path / "data", tmp_path / "given"
    monkeypatch.setenv("HOPTM_DATA", str(data))
    for place, root in ((cache, None), (data / "medmnist", None), (data, None), (given / "medmnist", given), (given, given)):
        place.mkdir(parents=True, exist_ok=True)
        (place / "breastmnist.npz").write_bytes(breast)
        assert available("breastmnist", root) and sources.find("breastmnist", root).path == place / "breastmnist.npz"
        info = load("breastmnist", root).info
        assert (info.name, info.class_names, info.checksum[:4]) == ("breastmnist", ("malignant", "normal, benign"), "md5:")


def test_wrong_checksum_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breast: bytes) -> None:
    publish(monkeypatch, breast + b" ")
    (tmp_path / "breastmnist.npz").write_bytes(breast)
    with refused("breastmnist.npz", "wrong checksum", "delete"):
        load("breastmnist", tmp_path)
    splits = load(tmp_path / "breastmnist.npz")
    assert "not the published BreastMNIST" in splits.info.note and splits.info.checksum.startswith("sha256:")
    publish(monkeypatch, breast)
    assert load(tmp_path / "breastmnist.npz").info.licence == "CC BY 4.0"
    (tmp_path / "pbc_blood_28.npz").write_bytes(breast)
    with refused("pbc_blood_28.npz", "wrong checksum"):
        load("pbc-28", tmp_path)
    assert "PBC" not in load(tmp_path / "pbc_blood_28.npz").info.note


def test_another_number_of_classes_than_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(tmp_path, parts(classes=4), "breastmnist.npz").read_bytes()
    publish(monkeypatch, content)
    with refused("breastmnist", "4 classes instead of 2"):
        load("breastmnist", tmp_path)


@contextlib.contextmanager
def server(content: bytes, failures: int = 0) -> Iterator[tuple[str, list[int]]]:
    """A web server on this machine that fails a few times, then gives the bytes; it lists its answers."""
    answers: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.append(503 if len(answers) < failures else 200)
            self.send_response(answers[-1])
            self.send_header("Content-Length", str(len(content) if answers[-1] == 200 else 0))
            self.end_headers()
            if answers[-1] == 200:
                self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/breastmnist.npz", answers
        web.shutdown()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOPTM_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("online")
def test_download_retries_checks_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breast: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with server(breast, failures=2) as (url, answers):
        publish(monkeypatch, breast, url=url)
        assert load("breastmnist").info.name == "breastmnist" and answers == [503, 503, 200]
        assert load("breastmnist").classes == 2 and len(answers) == 3
    assert [path.name for path in (tmp_path / "home" / ".medmnist").iterdir()] == ["breastmnist.npz"]
    out, err = capfd.readouterr()
    assert out == "" and "100%" in err


@pytest.mark.usefixtures("online")
def test_download_of_other_bytes_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breast: bytes) -> None:
    with server(b"something else") as (url, answers):
        publish(monkeypatch, breast, url=url)
        with refused("breastmnist.npz", "download from", "phantom"):
            load("breastmnist")
        assert answers == [200, 200, 200]
    assert not list((tmp_path / "home" / ".medmnist").iterdir())
    with refused("breastmnist.npz", "download from", "ConnectionError", "HOPTM_DATA"):
        load("breastmnist")


def test_phantom_by_name() -> None:
    splits, info = load("phantom:900"), load("phantom:900").info
    assert (len(splits.train), len(splits.val), len(splits.test)) == (900, 90, 180) and available("phantom:900")
    assert (splits.classes, splits.channels, splits.size) == (9, 3, 28) and info.name == "phantom:900" and info.augmentations[-1] == "dihedral"
    assert info.checksum == "sha256:51ad684da89b90ee917fbbe60670b16484f41ef4947d9cf24f4c685f4ef95b97"


def test_nothing_imports_medmnist_or_torchvision(tmp_path: Path) -> None:
    saved(tmp_path, parts())
    script = """
import sys
import hoptm
from hoptm.catalogue import official_info
official_info("pathmnist"), hoptm.load("set.npz")
assert not {"medmnist", "torchvision"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    assert not (tmp_path / "home" / ".medmnist").exists()


# --- standardisation ---


def test_standardisation_is_measured_on_train() -> None:
    images = torch.randint(0, 256, (5000, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 3
    measured = standardisation(Train(images, torch.zeros(5000, dtype=torch.int64)))
    pixels = images.numpy() / 255
    np.testing.assert_allclose(measured.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(measured.std, pixels.std((0, 2, 3)), rtol=1e-12)
    applied = measured.apply(images)
    assert applied.dtype == torch.float32
    np.testing.assert_allclose(applied.double().numpy(), (pixels - pixels.mean((0, 2, 3))[:, None, None]) / pixels.std((0, 2, 3))[:, None, None], atol=1e-5)
    assert torch.equal((measured.invert(applied) * 255).round().to(torch.uint8), images)
    assert measured.invert(applied.double() * 10).min() == 0 and measured.invert(applied.double() * 10).max() == 1


def test_constant_channel_is_not_divided_by_zero() -> None:
    images = torch.full((7, 1, 4, 4), 51, dtype=torch.uint8)
    measured = standardisation(Train(images, torch.zeros(7, dtype=torch.int64)))
    assert measured.mean == pytest.approx((0.2,)) and measured.std == (1 / 255,)
    assert measured.apply(images).abs().max() < 1e-4


def test_standardisation_of_another_number_of_channels() -> None:
    measured = Standardisation((0.5,), (0.2,))
    with refused("3 channels", "on 1"):
        measured.apply(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with refused("3 channels", "on 1"):
        measured.invert(torch.zeros(2, 3, 4, 4))
