"""The card of a set: what it says, and that a stranger's words stay words. Damaged and hostile files: `test_mutated_files`."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import hoptm, refused
from toy_sets import net, toy

from hoptm.baselines import herding, random_subset
from hoptm.card import NO_AUDIT, NO_PROOF, SAID_BY_FILE, card, clean, described
from hoptm.card_page import page
from hoptm.config import EvaluationConfig, generator
from hoptm.embeddings import PIXELS
from hoptm.errors import DataError
from hoptm.evaluate import Recipe, evaluate
from hoptm.intervals import interval
from hoptm.results import stored
from hoptm.synthetic import SyntheticSet, load

LOOKS = [{"iteration": 10 * at, "accuracy": 0.5 + 0.1 * at, "auc": 0.9 - 0.05 * at} for at in range(1, 4)]


def made(**info: Any) -> SyntheticSet:
    splits = toy()
    first = random_subset(splits, 3, generator(0), seed=0)
    return replace(first, info={**first.info, "method": "published", "selection": LOOKS, "config": {"match": {"steps": 20}, "seed": 0}, **info})


class Reader(HTMLParser):
    """Tags with their attributes, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ---- what it says -----------------------------------------------------------------------------------------------


def test_the_card_says_where_a_set_comes_from_and_how_it_was_made() -> None:
    for words in (card(made()).text, Reader(page(made())).words):
        for expected in ("published set for Bright halves", "CC0", "made here", "sha256:00", "up 3, down 3", "match.steps", "torch", NO_AUDIT):
            assert expected in words, expected
    assert "iteration 10: accuracy 0.600, auc 0.850" in card(made()).text


WARNED: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "Selected on validation: the best of 3 looks", True),
    ({"selection": []}, "Selected on validation", False),
    ({"source": {"licence": "CC BY-NC 4.0"}}, "Non-commercial licence: CC BY-NC 4.0", True),
    ({"source": {"licence": "for non-commercial use"}}, "Non-commercial", True),
    ({"source": {"licence": "CC BY 4.0"}}, "Non-commercial", False),
    ({"source": {}}, "licence of the source is not known", True),
    ({"source": {"licence": "CC BY 4.0"}}, "licence of the source is not known", False),
    ({"source": {"note": "generated, not tissue"}}, "Of the source: generated, not tissue.", True),
    ({"method": "herding"}, "The images are real training images", True),
    ({"method": "published"}, "The images are real training images", False),
    ({}, "started as real training images", True),
    ({"method": "random"}, "started as real training images", False),
    ({}, "needs several", True),
    ({"class_names": ["up", "down", "none"]}, "1 of 3 classes have no image", True),
    ({"versions": {"hoptm": "0.0.1", "torch": "1.0"}}, "other versions of hoptm and torch", True),
    ({}, "other versions", False),
    ({}, "clipped", False),
    ({}, "not for clinical use", True),
]


@pytest.mark.parametrize(("changes", "words", "there"), WARNED)
def test_warnings(changes: dict[str, Any], words: str, there: bool) -> None:
    assert any(words in warning for warning in card(made(**changes)).warnings) == there


def test_pixels_that_cannot_be_shown_are_counted() -> None:
    whole = made()
    images = whole.images.clone()
    images[0, 0, 0, :4] = 100.0
    assert "1.0% of the pixel values" in " ".join(card(replace(whole, images=images)).warnings)  # 4 of 384


def test_scores_have_their_interval_and_few_networks_a_warning() -> None:
    splits = toy()
    settings = EvaluationConfig(steps=5, batch=16, networks=2)
    found = evaluate(net(), made(), splits.val, splits.test, settings, 0, Recipe("sgd", 0.01, "none", 5))
    full = described(made(), scores={"set": found, "random": found}, privacy={"attack": {"auc": 0.5, "shadows": 16}})
    shown = dict(card(full).scores)
    expected = interval([one.accuracy for one in found.scores])
    assert shown["set accuracy"] == f"{expected.mean:.3f} [{expected.low:.3f}, {expected.high:.3f}] over 2 networks of one seed, wide"
    assert {"set ece", "set worst recall", "random auc"} <= set(shown) and any("three networks" in words for words in card(full).warnings)
    assert card(full).privacy == (SAID_BY_FILE, "attack.auc: 0.5", "attack.shadows: 16", NO_PROOF)
    assert not any("three networks" in words for words in card(made()).warnings)
    assert "0.5" in page(full) and NO_AUDIT not in page(full) and "scores" not in made().info
    with pytest.raises(DataError, match="JSON"):
        described(made(), privacy={"file": Path("x")})


def test_described_survives_the_file(tmp_path: Path) -> None:
    splits = toy()
    found = evaluate(net(), made(), splits.val, splits.test, EvaluationConfig(steps=2, networks=2), 0, Recipe("sgd", 0.01, "none", 2))
    described(made(), scores={"set": found}).save(tmp_path / "set.safetensors")
    back = load(tmp_path / "set.safetensors")
    assert back.info["scores"]["set"] == found.as_dict() and len(card(back).scores) == 5


def test_stored_sets_have_cards() -> None:
    found = sorted(stored("distilled").glob("*.safetensors"))
    assert found
    for path in found:
        kept = load(path)
        text = card(kept).text
        assert kept.info["source"]["licence"] in text and kept.info["source"]["title"] in text and "Selected on validation" in text
        assert NO_AUDIT not in text and NO_PROOF in text and {"set auc", "random auc"} <= dict(card(kept).scores).keys(), path.name
    assert any("CC BY 4.0" in card(load(path)).text and "Kermany" in card(load(path)).text for path in found)


# ---- the page ---------------------------------------------------------------------------------------------------


def test_the_page_holds_the_images_themselves() -> None:
    whole = made()
    pictures = Reader(page(whole)).of("img")
    assert [picture["alt"] for picture in pictures] == ["up: 3 of 3 images", "down: 3 of 3 images"]
    raw = (whole.standardisation.invert(whole.images) * 255).round().to(torch.uint8).numpy()
    for label, picture in enumerate(pictures):
        source = str(picture["src"])
        assert source.startswith("data:image/png;base64,")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        assert shown.shape == (56, 3 * 58 - 2, 3)
        for place in range(3):
            one = shown[::7, 58 * place : 58 * place + 56 : 7]  # eight pixels, each seven times as large
            assert (one == raw[3 * label + place, 0][..., None]).all()


def test_the_curve_goes_through_the_looks() -> None:
    lines = Reader(page(made())).of("polyline")
    assert len(lines) == 2
    points = [[float(number) for number in pair.split(",")] for pair in str(lines[0]["points"]).split()]
    assert [across for across, _ in points] == [50.0, 225.0, 400.0]
    heights = [180 - 160 * (value - 0.6) / 0.25 for value in (0.6, 0.7, 0.8)]  # all scores lie in .6 .. .85
    assert [down for _, down in points] == pytest.approx(heights, abs=0.06)
    assert Reader(page(made(selection=[]))).of("polyline") == []


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e\ud800'


def test_a_strangers_words_stay_words() -> None:
    source = {key: HOSTILE for key in ("name", "title", "licence", "citation", "note", "checksum")}
    names = {"class_names": [HOSTILE, "down"], "augmentations": [HOSTILE], "method": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    deep = {"config": {HOSTILE: {HOSTILE: [HOSTILE]}}, "privacy": {HOSTILE: HOSTILE}, "scores": {HOSTILE: {"scores": [{"auc": 0.5}]}}}
    odd = made(source=source, **names, **deep)
    shown = Reader(page(odd))
    assert not {"script", "iframe", "object", "link", "a"} & {tag for tag, _ in shown.tags}
    for tag, attributes in shown.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert all(str(attributes[name]).startswith("data:image/png;base64,") for name in ("src", "href") if name in attributes)
    assert len(shown.of("img")) == 2 and "alert(1)" in shown.words
    (policy,) = [meta["content"] for meta in shown.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")
    for text in (card(odd).text, shown.words):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
        text.encode("utf-8")


def test_the_words_are_bounded() -> None:
    assert clean("a" * 1000) == "a" * 300 + " ..." and clean("a\nb\tc\x07") == "a b c?" and clean({"a": [1]}) == '{"a": [1]}'
    many = made(class_names=["up", "down", *[f"class {number}" * 1000 for number in range(300)]], config={str(key): "x" * 10_000 for key in range(500)})
    assert len(card(many).text) < 60_000 and len(page(many)) < 120_000


def test_large_sets_are_shown_in_part() -> None:
    whole = made()
    wide = replace(whole, images=torch.zeros(40, 1, 300, 300), labels=torch.arange(40) % 2)
    pictures = Reader(page(wide)).of("img")
    assert pictures[0]["alt"] == "up: 10 of 20 images"
    assert Image.open(io.BytesIO(base64.b64decode(str(pictures[0]["src"]).split(",")[1]))).size == (10 * 130 - 2, 128)
    two = replace(whole, images=torch.zeros(6, 2, 8, 8), standardisation=replace(whole.standardisation, mean=(0.5, 0.5), std=(0.1, 0.1)))
    assert len(Reader(page(two)).of("img")) == 2


# ---- the commands -----------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_a_page(tmp_path: Path) -> None:
    path, html = tmp_path / "set.safetensors", tmp_path / "card.html"
    made().save(path)
    done = hoptm("card", path, "--html", html)
    assert done.returncode == 0 and done.stdout == card(load(path)).text + "\n"
    assert html.read_text(encoding="utf-8") == page(load(path))
    plain = json.loads(hoptm("card", path, "--json").stdout)
    assert plain["title"] == "published set for Bright halves" and plain["privacy"] == [NO_AUDIT] and len(plain["looks"]) == 3
    assert refused(hoptm("card", tmp_path / "absent.safetensors"), "absent.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert refused(hoptm("card", path, "--html", html), "set.safetensors")


def test_a_set_that_was_chosen_has_a_card_too() -> None:
    text = card(herding(toy(), 2, PIXELS, seed=1)).text
    assert "herding set for Bright halves" in text and "standardised pixels" in text and "real training images" in text


def test_a_card_is_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    """Saved with its scores and an audit, loaded elsewhere: the same words for the terminal and the same page."""
    whole = made(scores={"set": {"scores": [{"auc": 0.5, "accuracy": 0.25}, {"auc": 0.75, "accuracy": 0.5}]}}, privacy={"attack": 0.5})
    whole.save(tmp_path / "set.safetensors")
    script = (
        "import sys, json; from hoptm.card import card; from hoptm.card_page import page; from hoptm.synthetic import load\n"
        "found = load(sys.argv[1]); print(json.dumps([card(found).text, page(found)]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "set.safetensors")], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    text, shown = json.loads(done.stdout)
    assert text == card(whole).text and shown == page(whole) and "0.625 [" in text
