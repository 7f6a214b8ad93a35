"""The scripts behind the matrices write a run that diverges down, once, without scores, and do not try it again."""

import contextlib
import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from hoptm.arms import arm
from hoptm.card import NO_AUDIT, card
from hoptm.config import Config, configure, generator
from hoptm.data import Splits, load
from hoptm.errors import ConfigError, DivergedError
from hoptm.imbalance import thinned
from hoptm.networks import network
from hoptm.records import Record, write_diverged, write_record
from hoptm.runs import configured, record_path, taken
from hoptm.synthetic import SyntheticSet

DATA = Path(__file__).resolve().parent.parent / "data"
NAME = "phantom:450"


@pytest.fixture()
def script(monkeypatch, tmp_path):
    """A script of `data/` as a module that keeps its records in a folder of the test and whose runs all diverge; the list counts the tries."""
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    tries: list[int] = []

    def diverges(*arguments):
        tries.append(1)
        raise DivergedError("step 3: the step size fell below 0")

    def opened(name, maker):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "RECORDS", tmp_path)
        monkeypatch.setattr(module, maker, diverges)
        return module, tries

    return opened


@pytest.fixture(scope="module")
def small() -> Splits:
    return load(NAME)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def said_once(folder: Path, tries: list[int], name: str, words: str) -> None:
    (found,) = kept(folder)
    assert tries == [1] and found.name == f"{name}.diverged"
    written = json.loads(found.read_text())
    assert "fell below 0" in json.dumps(written) and words in json.dumps(written["config"])


def test_a_row_of_the_transfer_matrix(script, tmp_path, capsys, small):
    module, tries = script("make_transfer", "made")
    for _ in range(2):
        module.run_row(NAME, "depth2", 1, small)
    said_once(tmp_path, tries, f"{small.info.name}-fast-depth2-ipc{module.IPC}-seed1", '"depth": 2')
    assert capsys.readouterr().out.count("DIVERGED") == 1


def test_a_run_of_the_rare_classes(script, tmp_path, capsys, small):
    module, tries = script("make_imbalance", "made")
    for _ in range(2):
        module.run(NAME, 10.0, "prior", 1, small)
    said_once(tmp_path, tries, f"{small.info.name}-fast-prior-factor10-ipc{module.IPC}-seed1", '"inner_loss": "prior"')
    assert capsys.readouterr().out.count("DIVERGED") == 1


def of_other_settings(folder: Path, splits: Splits, config: Config, method: str, **changes: dict[str, int]) -> None:
    """A record of this name whose run had other settings: fewer iterations, if nothing else is said."""
    config = config.changed(**(changes or {"match": {"iterations": config.match.iterations - 1}}))
    dataset = {"name": splits.info.name, "checksum": splits.info.checksum}
    write_record(folder, Record(dataset, method, config.ipc, config.seed, config.as_dict(), {}, 0.0, 0, "", {}, "", {}))


def test_a_matrix_takes_no_record_of_other_settings_for_its_own(script, tmp_path, small):
    module, tries = script("make_transfer", "made")
    of_other_settings(tmp_path, small, module.settings(NAME, "depth2", 1), "depth2-on-convnet")
    with pytest.raises(ConfigError, match=r"depth2-on-convnet.*other settings"):
        module.run_row(NAME, "depth2", 1, small)
    module, tries = script("make_imbalance", "made")
    counts = torch.bincount(thinned(small, 10.0, generator(1, "thinned train")).train.labels, minlength=small.classes).tolist()
    of_other_settings(tmp_path, small, module.settings(NAME, "prior", 1, counts), "prior-factor10")
    with pytest.raises(ConfigError, match=r"prior-factor10.*other settings"):
        module.run(NAME, 10.0, "prior", 1, small)
    assert not tries


@pytest.mark.parametrize(
    ("method", "part", "known"),
    [("random", "match", True), ("start", "match", True), ("random-teacher", "match", False), ("endpoint", "match", False), ("random", "evaluation", False)],
)
def test_real_images_know_no_settings_of_a_path(tmp_path, small, method, part, known):
    config = configured(NAME, method=method, ipc=1, seed=1, profile="smoke")
    of_other_settings(tmp_path, small, config, method, **{part: {"steps": 3}})
    assert (taken([tmp_path], config, small, method) is not None) == known


def test_a_run_of_the_grid(script, tmp_path, capsys, small):
    module, tries = script("make_records", "make")
    config = configure(NAME, method="endpoint", ipc=1, seed=1, profile="smoke")
    for _ in range(2):
        module.run_arm(config, "endpoint", small, None)
    said_once(tmp_path, tries, record_path(tmp_path, config, small, "endpoint").stem, '"method": "endpoint"')
    assert capsys.readouterr().out.count("DIVERGED") == 1


def test_a_stored_set_says_how_it_scores_and_what_it_gives_away(monkeypatch, tmp_path, small, capsys):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module("make_records")
    monkeypatch.setattr(module, "RECORDS", tmp_path)
    monkeypatch.setattr(module, "SETS", tmp_path)
    net = network(configure(NAME, method="endpoint", ipc=1, seed=0, profile="smoke").network, channels=3, classes=9, size=28)
    for method in ("endpoint", "random"):
        module.run_arm(configured(NAME, method=method, ipc=1, seed=0, profile="smoke"), method, small, net)
    (path,) = tmp_path.glob("*.safetensors")
    first = card(SyntheticSet.load(path))
    assert any(name == "set auc" for name, _ in first.scores) and not any(name.startswith("random") for name, _ in first.scores)
    path.rename(tmp_path / f"{small.info.name}-smoke-endpoint-ipc1-seed0.safetensors")
    module.describe(small)
    again = card(SyntheticSet.load(next(tmp_path.glob("*.safetensors"))))
    assert {"set auc", "random auc"} <= {name for name, _ in again.scores} and again.privacy != (NO_AUDIT,)
    for record in tmp_path.glob("*endpoint*.json"):
        record.unlink()
    module.describe(small)
    assert "no record of these data and settings" in capsys.readouterr().out


def test_a_set_that_is_not_there_is_made_again_if_it_is_the_one_that_was_judged(monkeypatch, tmp_path, small):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module("make_records")
    monkeypatch.setattr(module, "RECORDS", tmp_path)
    monkeypatch.setattr(module, "SETS", tmp_path)
    config = configure(NAME, method="endpoint", ipc=1, seed=0, profile="smoke")
    net = network(config.network, channels=3, classes=9, size=28)
    assert "no record" in module.set_again(config, "endpoint", small)
    module.run_arm(config, "endpoint", small, net)
    (path,), (record,) = tmp_path.glob("*.safetensors"), tmp_path.glob("*.json")
    whole = path.read_bytes()
    assert module.set_again(config, "endpoint", small).endswith("is there")
    path.unlink()
    assert module.set_again(config, "endpoint", small).endswith(": kept") and path.read_bytes() == whole
    path.unlink()
    read = json.loads(record.read_text())
    for name, words in (("looks", "came out otherwise"), ("lr", "came out otherwise"), ("device", "on a GPU")):
        other = json.loads(json.dumps(read))
        if name == "looks":
            other["extra"]["selection"][0]["auc"] -= 0.1
        other["extra"]["lr"] *= 2 if name == "lr" else 1
        other["device"] = "cuda, NVIDIA" if name == "device" else other["device"]
        record.write_text(json.dumps(other))
        assert words in module.set_again(config, "endpoint", small) and not path.exists()


def test_a_set_is_kept_whole_or_halved_or_not_at_all(monkeypatch, tmp_path, small):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    module = importlib.import_module("make_records")
    made = arm("random", configure(NAME, method="endpoint", ipc=2, seed=0, profile="smoke"), small)
    made.save(tmp_path / "whole")
    size = (tmp_path / "whole").stat().st_size
    for limit, kept in ((size + 1, "whole"), (size, "half"), (made.images.nbytes // 2, "not")):
        monkeypatch.setattr(module, "KEPT_BYTES", limit)
        path = tmp_path / f"{kept}.safetensors"
        module.keep_set(made, path)
        assert path.exists() == (kept != "not") and (kept == "not" or path.stat().st_size < limit)
        if kept != "not":
            again = SyntheticSet.load(path)
            rounded = (made.images.half() if kept == "half" else made.images).float()
            assert torch.equal(again.images, rounded) and ("stored as" in dict(card(again).facts)) == (kept == "half")


def test_a_search_writes_the_settings_of_its_methods_alone(monkeypatch, tmp_path):
    """Settings of other methods and sets stay; other budgets and journals are refused."""
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    module = importlib.import_module("make_search")
    (tmp_path / "hoptm").mkdir()
    (tmp_path / "data" / "search").mkdir(parents=True)
    monkeypatch.setattr(module, "HERE", tmp_path / "data")
    settings = tmp_path / "hoptm" / "tuned.json"
    before = {"other": {"common": {"kept": 1}}, NAME: {"common": {}, "endpoint": {"kept": 1}, "published": {"kept": 1}}}
    settings.write_text(json.dumps(before))
    monkeypatch.setattr(module, "search", lambda *_, **__: {"changes": {"new": 2}})
    monkeypatch.setattr(module, "is_known_here", lambda: False)
    monkeypatch.setattr(sys, "argv", ["make_search", "--dataset", NAME, "--methods", "endpoint", "extended"])
    module.main()
    assert json.loads(settings.read_text()) == before | {NAME: before[NAME] | {"endpoint": {"new": 2}, "extended": {"new": 2}}}
    for words in (["--ipc", "1"], ["--profile", "large"]):
        monkeypatch.setattr(sys, "argv", ["make_search", "--dataset", NAME, *words])
        with pytest.raises(SystemExit):
            module.main()


def test_a_grid_refuses_a_record_of_other_settings(monkeypatch, tmp_path, small):
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    module = importlib.import_module("make_records")
    monkeypatch.setattr(module, "RECORDS", tmp_path)
    monkeypatch.setattr(module, "SETS", tmp_path)
    config = configured(NAME, method="random", ipc=1, seed=0, profile="smoke")
    net = network(config.network, channels=small.channels, classes=small.classes, size=small.size)
    module.run_arm(config, "random", small, net)
    (path,) = kept(tmp_path)
    module.run_arm(config, "random", small, net)  # the same again is left alone
    written = json.loads(path.read_text())
    written["config"]["evaluation"]["steps"] += 1
    path.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="other settings"):
        module.run_arm(config, "random", small, net)
    path.unlink()
    for changes, refused in (({"evaluation": {"steps": 3}}, True), ({"match": {"steps": 3}}, False)):  # a note that it diverged, of other settings
        write_diverged(tmp_path, path.stem, config.changed(**changes).as_dict(), "why")
        with pytest.raises(ConfigError, match=r"diverged is on record with other settings") if refused else contextlib.nullcontext():
            module.run_arm(config, "random", small, net)


def test_a_cell_judged_on_a_network_of_another_shape_is_refused(script, tmp_path, small):
    module, tries = script("make_transfer", "made")
    cell = module.record_of(module.settings(NAME, "depth2", 1), small, "depth2", "convnet")
    write_record(tmp_path, dataclasses.replace(cell, extra={**cell.extra, "judged_on": {"name": "convnet", "depth": 3, "width": 64}}))
    with pytest.raises(ConfigError, match="network of another shape"):
        module.run_row(NAME, "depth2", 1, small)
    assert not tries
