"""The commands, as a person types them. Most run in this process, through the entry point; an error with a traceback escapes it."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from hoptm import cli, data, judging_commands
from hoptm.cli import main
from hoptm.config import DESCRIBED, PROFILES_DESCRIBED
from hoptm.data import Selectable
from hoptm.synthetic import load as load_set

SMOKE = ["--ipc", "1", "--profile", "smoke", "--seed", "1"]


def hoptm(*words):
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "argv", ["hoptm", *map(str, words)]):
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def in_a_process(*words):
    return subprocess.run([sys.executable, "-m", "hoptm", *map(str, words)], capture_output=True, text=True, timeout=120)


def refused(done, *words):
    """One clear error: status 2, no traceback, each word named."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    for word in words:
        assert str(word) in done.stderr, done.stderr
    return True


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set.safetensors"
    done = hoptm("distill", "--dataset", "phantom:450", *SMOKE, "--method", "published", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_distill_writes_one_file_and_one_json_object(made):
    out, done = made
    report = json.loads(done.stdout)
    assert report["config"]["method"] == "published" and report["config"]["seed"] == 1 and report["images"] == 9
    assert [path.name for path in out.parent.iterdir()] == ["set.safetensors"]
    assert "estimate:" in done.stderr and "memory" in done.stderr and "disk" in done.stderr
    assert done.stderr.index("estimate:") < done.stderr.index("distil:")


def test_evaluate_puts_random_images_beside_the_set(made):
    done = hoptm("evaluate", made[0], "--dataset", "phantom:450", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for arm in ("set", "random"):
        assert len(report[arm]["scores"]) == 2 and 0 <= report[arm]["scores"][0]["auc"] <= 1
        assert report[arm]["recipe"]["optimiser"] in ("sgd", "adamw")
    plain = hoptm("evaluate", made[0], "--dataset", "phantom:450")
    assert "random" in plain.stdout and "AUC" in plain.stdout


SCORES = ("accuracy", "balanced accuracy", "AUC", "worst-class recall", "ECE")


def test_evaluate_prints_five_scores_with_intervals_over_networks(made):
    done = hoptm("evaluate", made[0], "--dataset", "phantom:450", "--json")
    report, plain = json.loads(done.stdout), hoptm("evaluate", made[0], "--dataset", "phantom:450").stdout
    assert max(map(len, plain.splitlines())) <= 80
    rows = {name: line for line in plain.splitlines() for name in SCORES if line.startswith(name)}
    assert set(rows) == set(SCORES) and all(line.count("[") == 2 for line in rows.values()), plain
    words = " ".join(plain.split())
    assert "2 fresh networks [95 % interval over networks of one set; other seeds are not in it]" in words and "the intervals are wide" in words
    for arm in ("set", "random"):
        for score, sure in report["intervals"][arm].items():
            values = [one[score] for one in report[arm]["scores"]]
            assert sure["n"] == 2 and "over networks of one set" in sure["kind"] and "seeds" not in sure["kind"]
            assert sure["low"] <= sure["mean"] == pytest.approx(sum(values) / 2) and sure["mean"] <= sure["high"]
    assert set(report["intervals"]["set"]) == {"accuracy", "balanced_accuracy", "auc", "worst_recall", "ece"}


def test_evaluate_writes_a_copy_whose_card_has_the_scores(made, tmp_path):
    before, copy = made[0].read_bytes(), tmp_path / "scored.safetensors"
    assert "none stored; for a copy of the file that has them: hoptm evaluate FILE --out COPY" in hoptm("card", made[0]).stdout
    done = hoptm("evaluate", made[0], "--dataset", "phantom:450", "--out", copy, "--json")
    report, card = json.loads(done.stdout), hoptm("card", copy).stdout
    assert report["out"] == str(copy) and made[0].read_bytes() == before
    assert "none stored" not in card and len([line for line in card.splitlines() if "over 2 networks of one seed, wide" in line]) == 10
    stored, whole = load_set(copy), load_set(made[0])
    assert stored.info["scores"] == {arm: report[arm] for arm in ("set", "random")}
    assert bool((stored.images == whole.images).all()) and {name: stored.info[name] for name in whole.info} == whole.info


def test_scores_of_other_data_come_into_no_card(made, tmp_path):
    for words in (("--dataset", "phantom:450", "--out", tmp_path / "set.pt"), ("--dataset", "phantom:540", "--out", tmp_path / "set.safetensors")):
        assert refused(hoptm("evaluate", made[0], *words), "--out")
    assert list(tmp_path.iterdir()) == []


def test_soft_labels_are_judged_beside_soft_labels(tmp_path):
    words = ("distill", "--dataset", "phantom:450", *SMOKE, "--method", "teacher", "--set", "evaluation.networks=1", "--out", tmp_path / "soft.safetensors")
    assert hoptm(*words).returncode == 0
    done = hoptm("evaluate", tmp_path / "soft.safetensors", "--out", tmp_path / "scored.safetensors")
    assert done.returncode == 0 and "labels of experts, too" in done.stderr and "under labels of experts" in " ".join(done.stdout.split())
    assert "one network, no interval" in " ".join(done.stdout.split()) and "[" not in done.stdout
    assert json.loads(hoptm("evaluate", tmp_path / "soft.safetensors", "--json").stdout)["rival"] == "random-teacher"


def test_methods_are_listed_and_explained():
    done = hoptm("methods")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    words = " ".join(done.stdout.split())
    assert all(f"{name} {meaning}" in words for known in (DESCRIBED, PROFILES_DESCRIBED) for name, meaning in known.items())
    assert json.loads(hoptm("methods", "--json").stdout) == {"method": dict(DESCRIBED), "profile": dict(PROFILES_DESCRIBED)}
    told = " ".join(hoptm("distill", "--help").stdout.split())
    assert "`hoptm methods` lists all" in told and all(f"{name}: {meaning}." in told for name, meaning in PROFILES_DESCRIBED.items())


def test_what_learns_is_handed_no_test_split(tmp_path, monkeypatch):
    given = []

    def noted(function):
        def call(*words, **others):
            given.extend(type(word) for word in words if isinstance(word, Selectable))
            return function(*words, **others)

        return call

    for module, names in ((cli, ("experts", "run_distillation", "estimate")), (judging_commands, ("arm_of", "of_set"))):
        for name in names:
            monkeypatch.setattr(module, name, noted(getattr(module, name)))
    out = tmp_path / "set.safetensors"
    assert hoptm("distill", "--dataset", "phantom:450", *SMOKE, "--set", "match.iterations=1", "--out", out).returncode == 0
    assert hoptm("evaluate", out).returncode == 0 and hoptm("audit", out, "--out", tmp_path / "audited.safetensors").returncode == 0
    assert given == [Selectable] * 5


def test_a_set_without_a_source_is_refused_in_one_line(made, tmp_path):
    whole = load_set(made[0])
    stranger = tmp_path / "stranger.safetensors"
    dataclasses.replace(whole, info={**whole.info, "source": {}}).save(stranger)
    for words in (("evaluate", stranger), ("audit", stranger, "--out", tmp_path / "audited.safetensors")):
        done = hoptm(*words)
        assert done.returncode == 2 and "does not say from which data set" in done.stderr, done.stderr
    assert hoptm("evaluate", stranger, "--dataset", "phantom:450", "--json").returncode == 0


def test_a_set_that_asks_for_what_no_run_has_is_refused_in_one_line(made, tmp_path):
    """A file may be written by anybody: its settings are of the right types and in bounds, or both commands say what is wrong."""
    whole, path = load_set(made[0]), tmp_path / "stranger.safetensors"
    source = {**whole.info["source"], "name": "phantom:450"}
    checksum = {"checksum": data.load("phantom:450").info.checksum}
    cases = [
        ({"match": {"steps": "x"}}, "match.steps is 'x'; it must be a whole number"),
        ({"evaluation": {"steps": 10**9}}, "evaluation.steps is 1000000000"),
        ({"network": {"width": 10**6}}, "network.width is 1000000"),
        ({"evaluation": {"momentum": -1.0}}, "evaluation.momentum"),
        ({"match": {"first_images": "herding"}, "evaluation": {"adamw_lrs": []}}, "evaluation.adamw_lrs"),
    ]
    for changes, words in cases:
        config = {name: {**part, **changes.get(name, {})} if isinstance(part, dict) else part for name, part in whole.info["config"].items()}
        dataclasses.replace(whole, info={**whole.info, "source": source | checksum, "config": config}).save(path)
        assert refused(hoptm("audit", path, "--out", tmp_path / "audited.safetensors"), words)
        if "adamw_lrs" not in words:
            assert refused(hoptm("evaluate", path), words)


@pytest.mark.parametrize("name", ["x" * 10_000, "~nobody-of-this-name/x", "a\x1b[2Jb", 7])
def test_a_set_that_names_no_data_set_is_refused_in_one_line(made, tmp_path, name):
    whole, path = load_set(made[0]), tmp_path / "stranger.safetensors"
    dataclasses.replace(whole, info={**whole.info, "source": {**whole.info["source"], "name": name}}).save(path)
    done = hoptm("evaluate", path)
    assert refused(done) and len(done.stderr) < 600 and "\x1b" not in done.stderr


def test_two_processes_write_the_same_bytes(made, tmp_path):
    again = tmp_path / "again.safetensors"
    assert in_a_process("distill", "--dataset", "phantom:450", *SMOKE, "--method", "published", "--out", again).returncode == 0
    assert again.read_bytes() == made[0].read_bytes()


def test_verify_passes_and_can_fail(tmp_path):
    done = hoptm("verify")
    assert done.returncode == 0 and "it2_grad_images" in done.stdout and done.stdout.strip().splitlines()[-1].startswith("equal")
    from hoptm.verify import golden_files

    with np.load(golden_files()[0]) as file:
        golden = {name: file[name] for name in file.files}
    golden["it0_grad_images"] = golden["it0_grad_images"] * 1.001
    np.savez(tmp_path / "other.npz", **golden)
    failed = hoptm("verify", tmp_path / "other.npz", "--json")
    assert failed.returncode == 1 and json.loads(failed.stdout)["passed"] is False


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--ipc", "0"], "ipc is 0"),
        (["--set", "match.lr=-0.1"], "step size"),
        (["--set", "match.lr=1e9"], "step size"),
        (["--set", "match.colour=1"], "match.colour"),
        (["--set", "match.steps=many"], "match.steps is 'many'; it must be a whole number"),
        (["--set", "ipc.more=1"], "ipc is {'more': 1}"),
        (["--set", "lr"], "PART.NAME=VALUE"),
        (["--ipc", "4000"], "class 0"),
        (["--dataset", "pneumoniamnits"], "pneumoniamnist"),
        (["--out", "set.pt"], ".safetensors"),
        (["--out", "no/such/folder/set.safetensors"], "no such folder"),
        (["--method", "magic"], "endpoint"),
    ],
)
def test_bad_words_end_in_one_line(tmp_path, words, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"--dataset": "phantom:450", "--ipc": "1", "--profile": "smoke", "--out": str(tmp_path / "set.safetensors")}
    extra = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name in given:
            given[name] = value
        else:
            extra += [name, value]
    done = hoptm("distill", *[word for pair in given.items() for word in pair], *extra)
    assert refused(done, named)
    assert list(tmp_path.iterdir()) == []


def _npz(path, change=None):
    chance = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 12), ("test", 12)):
        arrays[f"{split}_images"] = chance.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    if change is not None:
        change(arrays)
    np.savez(path, **arrays)
    return path


def _put(key, make):
    def change(arrays):
        arrays[key] = make(arrays[key])

    return change


BAD = {
    "wrong-dtype": _put("train_images", lambda images: images.astype(np.float32)),
    "wrong-shape": _put("train_images", lambda images: images[:, 0]),
    "missing-key": lambda arrays: arrays.pop("val_labels"),
    "unequal-length": _put("train_labels", lambda labels: labels[:-1]),
    "empty-class": _put("train_labels", lambda labels: labels * 2),
    "one-class": lambda arrays: [arrays.update({f"{split}_labels": arrays[f"{split}_labels"] * 0}) for split in ("train", "val", "test")],
    "negative-label": _put("train_labels", lambda labels: labels.astype(np.int64) - 1),
    "nan": _put("train_labels", lambda labels: np.where(labels > 0, np.nan, 0.0)),
    "pickled": _put("train_labels", lambda labels: np.array([{"a": 1}] * len(labels), dtype=object)),
    "no-images": _put("train_images", lambda images: images[:0]),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_npz_ends_in_one_line(tmp_path, name):
    path = _npz(tmp_path / f"{name}.npz", BAD[name])
    done = hoptm("distill", "--dataset", path, *SMOKE, "--out", tmp_path / "set.safetensors")
    assert refused(done, f"{name}.npz")
    assert [left.name for left in tmp_path.iterdir()] == [f"{name}.npz"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_npz_ends_in_one_line(tmp_path, damage):
    path = _npz(tmp_path / f"{damage}.npz")
    path.write_bytes({"truncated": path.read_bytes()[:-700], "empty": b"", "text": b"images"}[damage])
    assert refused(hoptm("distill", "--dataset", path, *SMOKE, "--out", tmp_path / "set.safetensors"), f"{damage}.npz")


def test_a_good_npz_runs(tmp_path):
    done = hoptm("distill", "--dataset", _npz(tmp_path / "good.npz"), *SMOKE, "--out", tmp_path / "set.safetensors")
    assert done.returncode == 0, done.stderr


def test_a_named_set_with_a_wrong_checksum(tmp_path, monkeypatch):
    monkeypatch.setenv("HOPTM_DATA", str(tmp_path))
    monkeypatch.setenv("HOPTM_OFFLINE", "1")
    _npz(tmp_path / "pneumoniamnist.npz")
    done = hoptm("distill", "--dataset", "pneumoniamnist", *SMOKE, "--out", tmp_path / "set.safetensors")
    assert refused(done, "pneumoniamnist.npz", "checksum")


def _folder(path, count=6, size=32):
    chance = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (path / split / label).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(chance.integers(0, 255, (size, size), dtype=np.uint8)).save(path / split / label / f"{number}.png")
    return path


def test_a_folder_with_a_broken_png_or_mixed_sizes(tmp_path):
    folder = _folder(tmp_path / "images")
    Image.new("L", (20, 20)).save(folder / "train/a/0.png")
    assert refused(hoptm("distill", "--dataset", folder, *SMOKE, "--out", tmp_path / "set.safetensors"), "images", "size")
    whole = (folder / "train/b/3.png").read_bytes()
    (folder / "train/b/3.png").write_bytes(whole[: len(whole) // 2])
    assert refused(hoptm("distill", "--dataset", folder, "--size", "28", *SMOKE, "--out", tmp_path / "set.safetensors"), "3.png")
    assert not (tmp_path / "set.safetensors").exists()


def test_a_damaged_or_foreign_set_is_refused(made, tmp_path):
    path = tmp_path / "set.safetensors"
    path.write_bytes(made[0].read_bytes()[:-100])
    assert refused(hoptm("evaluate", path, "--dataset", "phantom:450"), "set.safetensors")
    assert refused(hoptm("evaluate", tmp_path / "absent.safetensors"), "absent.safetensors")
    assert refused(hoptm("evaluate", made[0], "--dataset", _npz(tmp_path / "grey.npz")), "grey")


def test_a_disk_that_is_full_leaves_nothing(tmp_path):
    """A limit on the size of any file stands in for a full disk."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "sys.argv = ['hoptm', *sys.argv[1:]]; from hoptm.cli import main; main()"
    )
    words = [sys.executable, "-c", script, "distill", "--dataset", "phantom:450", *SMOKE, "--out", str(tmp_path / "set.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HOPTM_CACHE": str(tmp_path / "cache")})
    assert refused(done, "cannot write", "space")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_help_gives_units():
    for command in ("distill", "evaluate", "verify"):
        assert hoptm(command, "--help").returncode == 0
    assert "images per class" in " ".join(hoptm("distill", "--help").stdout.split())
