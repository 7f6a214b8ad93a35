"""What a card says of leaks: true of sets whose leak is known, read from a report, and no more than was measured."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from toy_sets import bright_halves, toy

from hoptm import cli as command
from hoptm.arms import first_images
from hoptm.audit import read
from hoptm.baselines import random_subset
from hoptm.card import EARLIER, NO_AUDIT, NO_PROOF, card, described
from hoptm.card_page import page
from hoptm.config import configure, generator
from hoptm.data import Splits, load, standardisation
from hoptm.dp_distillation import COVERS, DpSettings, release, released_set
from hoptm.dp_distillation import described as guaranteed
from hoptm.errors import ConfigError
from hoptm.files import read_tensors
from hoptm.privacy_card import BY_FEATURES, COPIES, FEW, FOUND, MISSED, MOVED, NEAREST, POWER, STATED, initialisers, of_report, of_set, promised, sees
from hoptm.results import stored
from hoptm.synthetic import SyntheticSet, from_real, initialise, provenance

PROMISES = re.compile(r"\bprivate\b|\bsafe\b|\banonym|protects?\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return read(stored("audits") / "pneumoniamnist-seed0")


def test_copies_are_said_to_leak_and_noise_is_not_called_anything() -> None:
    splits = toy()
    copies = of_set(random_subset(splits, 6, generator(0)), splits)
    assert copies[NEAREST]["verdict"] == COPIES and copies[NEAREST]["copies"].startswith("12 of 12")
    assert copies[NEAREST]["closer to train than to held-out"].startswith("1.000;") and "no test" in copies[NEAREST]["closer to train than to held-out"]
    assert "initialisers" not in copies  # a random subset names no seed of a run
    grey = SyntheticSet(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), 0.01, standardisation(splits.train), provenance(splits, method="x", ipc=2, seed=0))
    assert of_set(grey, splits)[NEAREST]["verdict"] == FEW and not PROMISES.search(json.dumps(of_set(grey, splits)))


def near_copies(splits: Splits, count: int, dirt: float, seed: int) -> SyntheticSet:
    first = random_subset(splits, count, generator(seed))
    return replace(first, images=first.images + dirt * torch.randn(first.images.shape, generator=generator(seed, "dirt")))


def test_the_verdict_is_that_of_the_exact_test_and_few_images_are_said_to_be_few() -> None:
    splits = toy()
    leak = of_set(near_copies(splits, 6, 0.2, 0), splits)[NEAREST]
    assert leak["verdict"] == FOUND and leak["copies"].startswith("0 of 12") and leak["nearest real image is in train"].startswith("12 of 12; 8.0 expected")
    two = of_set(near_copies(splits, 1, 0.2, 0), splits)[NEAREST]  # both are found in train, which chance does too: (40 / 60) squared
    assert two["verdict"] == FEW and "the smallest possible with so many images 0.44" in two["test"]
    noise = near_copies(splits, 6, 50.0, 0)
    assert of_set(noise, splits)[NEAREST]["verdict"] == MISSED


def test_held_out_images_are_no_leak_even_if_only_two() -> None:
    """The verdict that this replaces called about one in four pairs of unseen images a leak: a bootstrap of two has their values as its ends."""
    splits, alarms = toy(), 0
    for turn in range(40):
        images, labels = bright_halves(10, 100 + turn)
        unseen = replace(random_subset(splits, 1, generator(0)), images=standardisation(splits.train).apply(images[:2]), labels=labels[:2])
        alarms += of_set(unseen, splits)[NEAREST]["verdict"] in (FOUND, COPIES)
    assert alarms == 0


def test_the_initialisers_of_a_run_are_found_from_its_file() -> None:
    splits = load("phantom:900")
    config = configure("phantom:900", method="published", ipc=2, seed=3, profile="smoke")
    chosen = initialise(splits.train, splits.classes, 2, generator(3, "initial images"))
    info = provenance(splits, method="published", ipc=2, seed=3, config=config.as_dict())
    made = from_real(splits, chosen, info)
    found = initialisers(made, splits)
    assert found is not None and torch.equal(found, chosen)
    rows = of_set(made, splits)["initialisers"]
    assert (
        rows["verdict"] == FOUND and rows["found at once"].startswith(f"{len(chosen)} of {len(chosen)}") and f"of {len(splits.train)}" in rows["found at once"]
    )
    assert rows[MOVED].startswith("0.000 ")
    half = replace(made, images=made.images + 0.5)
    assert of_set(half, splits)["initialisers"][MOVED].startswith("0.500 ")
    others = initialise(splits.train, splits.classes, 2, generator(4, "initial images"))  # of the same classes, and none of those that the file names
    elsewhere = of_set(from_real(splits, others, info), splits)["initialisers"]
    assert elsewhere["verdict"] == MISSED
    noise = provenance(splits, method="published", ipc=2, seed=3, config=config.changed(latent={"initial": "noise"}).as_dict())
    assert initialisers(from_real(splits, chosen, noise), splits) is None
    assert "held-out images of their class" in rows["test"] and "bootstrap" not in json.dumps(rows)


def test_herded_initialisers_are_not_compared_with_held_out_images() -> None:
    splits = load("phantom:900")
    config = configure("phantom:900", method="published", ipc=4, seed=3, profile="smoke", match={"first_images": "herding"})
    chosen = first_images(config, splits)
    made = from_real(splits, chosen, provenance(splits, method="published", ipc=4, seed=3, config=config.as_dict()))
    rows = of_set(made, splits)["initialisers"]
    assert rows["verdict"] == FOUND and "chosen and not drawn" in rows["test"]


def test_a_section_from_the_stored_report(report: dict[str, Any]) -> None:
    assert {"random", "full"} <= set(report["arms"])
    section = of_report(report, "random")
    assert section["nearness"]["initialisers"].startswith(FOUND) and "chance" in section["nearness"]["initialisers"]
    assert of_report(report, "full")["confidence"]["canaries"].startswith(FOUND)
    assert section["nearness"]["ordinary"].startswith(MISSED)
    for arm in report["arms"]:
        words = json.dumps(of_report(report, arm)).replace("differentially private", "")
        assert not PROMISES.search(words), arm
    with pytest.raises(ConfigError, match="no finished arm"):
        of_report(report, "nobody")


def test_the_power_stands_beside_the_verdict_and_counts_all_tests(report: dict[str, Any]) -> None:
    """The card and the chapter say the same of it: the smallest shift that the first of all tests finds often enough."""
    for group, power in report["power_corrected"].items():
        enough = [float(shift) for shift, share in power.items() if share >= POWER]
        words = sees(report, group)
        assert (f"sees shifts from {min(enough):g} standard deviations on" in words) if enough else ("is weak here" in words and "0.8 or less" in words)
        assert of_report(report, "random")["nearness"][group].endswith(words)
    known = {**report, "power_corrected": {"few": {"0": 0.0, "0.5": 0.79, "0.8": 0.8}, "fewer": {"0": 0.0, "0.5": 0.79}}}
    assert sees(known, "few") == "the test sees shifts from 0.8 standard deviations on"
    assert sees(known, "fewer") == "the test is weak here: it sees no shift of 0.5 or less"
    alone = {name: part for name, part in report.items() if name != "power_corrected"}  # as the first reports had it
    assert sees(alone, "ordinary").startswith("a test by itself, not corrected for the others, sees shifts from")


def test_the_card_shows_the_section_and_says_what_an_attack_cannot_show(report: dict[str, Any]) -> None:
    made = random_subset(toy(), 2, generator(0))
    assert card(made).privacy == (NO_AUDIT,)
    audited = described(made, privacy=of_report(report, "random"))
    assert card(audited).privacy[-1] == NO_PROOF and any("canary initialisers" in words and "AUC" in words for words in card(audited).privacy)
    assert "likelihood-ratio attack" in page(audited)


def test_a_card_of_an_earlier_test_says_so() -> None:
    """Files that were described before keep their words, and the card says what their verdicts rest on; those of a new test are not marked."""
    splits = toy()
    made = near_copies(splits, 6, 0.2, 0)
    earlier = {
        NEAREST: {"closer to train than to held-out": "0.900 [0.810, 0.970], bootstrap over 12 images; 0.5 is chance", "verdict": FOUND},
        "x": {"verdict": "y"},
    }
    words = card(described(made, privacy=earlier)).privacy
    assert EARLIER in words and f"{NEAREST}.verdict: {FOUND} (by an earlier test)" in words and "x.verdict: y" in words
    new = card(described(made, privacy=of_set(made, splits))).privacy
    assert EARLIER not in new and not any("earlier" in one for one in new) and f"{NEAREST}.verdict: {FOUND}" in new


def test_the_command_writes_a_set_with_its_section(tmp_path: Any, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoptm.likeness._STEPS", 10)
    splits = load("phantom:900")
    random_subset(splits, 2, generator(0)).save(tmp_path / "set.safetensors")
    words = ["audit", str(tmp_path / "set.safetensors"), "--out", str(tmp_path / "audited.safetensors"), "--json"]
    like = ["--like", "random", "--report", str(stored("audits") / "pneumoniamnist-seed0")]
    done = CliRunner().invoke(command.cli, [*words, *like], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert said["privacy"][NEAREST]["verdict"] == COPIES and said["privacy"][BY_FEATURES]["images"] == "18 of 18" and "pipeline, confidence" in said["privacy"]
    assert SyntheticSet.load(tmp_path / "audited.safetensors").info["privacy"] == said["privacy"]
    with pytest.raises(ConfigError, match="--report"):
        CliRunner().invoke(command.cli, [*words, "--like", "random"], catch_exceptions=False)


def test_an_audited_copy_is_kept_as_its_original_was(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in half precision says so on its card, and the copy holds what its card says."""
    monkeypatch.setattr("hoptm.likeness._STEPS", 10)
    made, sizes = random_subset(load("phantom:900"), 2, generator(0)), {}
    for half in (True, False):
        path, copy = tmp_path / f"{half}.safetensors", tmp_path / f"{half}-audited.safetensors"
        made.save(path, half=half)
        assert CliRunner().invoke(command.cli, ["audit", str(path), "--out", str(copy)], catch_exceptions=False).exit_code == 0
        for one in (path, copy):
            images, header = read_tensors(one)[0]["images"], read_tensors(one)[1]
            assert images.dtype == (torch.float16 if half else torch.float32) and ("stored" in header["set"]) == half, one.name
        assert torch.equal(SyntheticSet.load(copy).images, SyntheticSet.load(path).images)
        sizes[half] = copy.stat().st_size
    assert sizes[True] < sizes[False]


def test_an_audit_keeps_a_guarantee_and_says_who_states_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoptm.likeness._STEPS", 10)
    splits = load("phantom:900")
    released = release(splits.train, splits.classes, DpSettings(4.0, iterations=2), 0)
    made = released_set(released, 2, splits)
    made.save(tmp_path / "set.safetensors")
    for first, second in (("set", "once"), ("once", "twice")):
        words = ["audit", str(tmp_path / f"{first}.safetensors"), "--out", str(tmp_path / f"{second}.safetensors")]
        assert CliRunner().invoke(command.cli, words, catch_exceptions=False).exit_code == 0
        said = SyntheticSet.load(tmp_path / f"{second}.safetensors").info["privacy"]
        assert {name: said[f"{STATED}{name}"] for name in guaranteed(released)} == guaranteed(released) and "verdict" in said[NEAREST]
    assert promised(random_subset(splits, 2, generator(0))) == {}


def test_a_released_set_is_scored_though_it_has_no_checksum(tmp_path: Any) -> None:
    splits, path, copy = load("phantom:450"), tmp_path / "set.safetensors", tmp_path / "scored.safetensors"
    released_set(release(splits.train, splits.classes, DpSettings(4.0, iterations=2), 0), 1, splits).save(path)
    done = CliRunner().invoke(command.cli, ["evaluate", str(path), "--profile", "smoke", "--out", str(copy)], catch_exceptions=False)
    assert done.exit_code == 0 and "gives no checksum of its source" in done.stderr and "other checksum" not in done.stderr
    shown = card(SyntheticSet.load(copy))
    other = CliRunner().invoke(command.cli, ["evaluate", str(path), "--profile", "smoke", "--dataset", "phantom:540", "--out", str(tmp_path / "x.safetensors")])
    assert isinstance(other.exception, ConfigError) and "other name" in str(other.exception) and not (tmp_path / "x.safetensors").exists()
    assert shown.scores and f"what it covers: {COVERS}" in shown.privacy and splits.info.checksum not in copy.read_bytes().decode("latin-1")


def test_the_command_audits_a_data_set_and_goes_on(tmp_path: Any) -> None:
    sizes = {"pool": 700, "shadows": 4, "ipc": 2, "canaries": 10, "canary_initialisers": 1, "width": 4, "model_steps": 10, "models": 1, "full_steps": 10}
    settings = [word for name, value in sizes.items() for word in ("--set", f"audit.{name}={value}")]
    words = ["audit", "phantom:900", "--arm", "random", "--out", str(tmp_path), "--json", *settings]
    done = CliRunner().invoke(command.cli, words, catch_exceptions=False)
    assert "estimate: about" in done.stderr and list(json.loads(done.stdout)["arms"]) == ["random"]
    again = CliRunner().invoke(command.cli, words, catch_exceptions=False)
    assert "every shadow is there" in again.stderr
    assert {path.name for path in (tmp_path / "phantom-900-seed0").iterdir()} == {"audit.json", "random.safetensors"}
    with pytest.raises(ConfigError, match="no setting 'shapes'"):
        CliRunner().invoke(command.cli, [*words, "--set", "audit.shapes=3"], catch_exceptions=False)
