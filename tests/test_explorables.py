"""Explorable figures hold what they were given, say what they show, and refuse what does not fit."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from hoptm import explorables, progressive
from hoptm.config import generator
from hoptm.errors import DataError

STEP = torch.arange(5.0, dtype=torch.float64)
ARC = torch.stack([STEP / 2, 0.1 * STEP * (4 - STEP)], dim=1)


def aside(pattern):
    return ARC + torch.stack([torch.zeros_like(STEP), pattern], dim=1)


def held(figure):
    html = figure._repr_html_()
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    return html, json.loads(data)


def walked(iterations=4, count=400):
    """Errors of `iterations`, dead parameters among them, the thresholds, and two masks."""
    chance = generator(0, "a walk of errors")
    errors = [10 ** (torch.randn(count, generator=chance, dtype=torch.float64) - 6 + 0.3 * (number % 2)) for number in range(iterations)]
    limits = [progressive.threshold(number, 1e-7, 2.0, 1) for number in range(iterations)]
    alive = torch.arange(count) >= 30
    sticky: list[torch.Tensor] = []
    for now, limit in zip(errors, limits, strict=True):
        sticky.append(progressive.sticky(sticky[-1] if sticky else None, now, limit))
    return errors, {"sticky": sticky, "fresh": [progressive.fresh(now, limit) for now, limit in zip(errors, limits, strict=True)]}, limits, alive


def gif(frames, milliseconds=90):
    kept = io.BytesIO()
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(kept, format="GIF", save_all=True, append_images=pictures[1:], duration=[milliseconds] * (len(frames) - 1) + [2_000])
    return kept.getvalue()


def squares(count=4):
    """A red square that walks to the right on white."""
    frames = [np.full((20, 60, 3), 255, np.uint8) for _ in range(count)]
    for place, frame in enumerate(frames):
        frame[5:15, 10 * place : 10 * place + 10] = [200, 0, 30]
    return frames


def test_a_path_keeps_its_places_and_stands_on_the_first_deformation():
    html, data = held(explorables.path(ARC, {"bend": aside(0.2 * STEP * (4 - STEP)), "drift": aside(0.1 * STEP)}, 'bend & "drift" <told>'))
    assert data["first"] == "bend" and data["expert"][2] == [1.0, 0.4] and data["paths"]["drift"][4] == [2.0, 0.4]
    assert 'alt="bend &amp; &quot;drift&quot; &lt;told&gt;"' in html
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", html)[1])))
    assert picture.width > 500 and len(picture.convert("RGB").getcolors(10_000)) > 5


def test_a_path_must_begin_where_the_expert_begins():
    with pytest.raises(DataError, match="'away' begins at"):
        explorables.path(ARC, {"away": ARC + 0.1}, "alt")


def test_masks_count_every_living_parameter_once():
    errors, used, limits, alive = walked()
    errors[1][50] = 0.0  # far left of every bar
    _, data = held(explorables.masks(errors, used, limits, alive, "alt"))
    assert [sum(bins) for bins in data["total"]] == [int(alive.sum())] * 4
    for name, of in used.items():
        assert [sum(bins) for bins in data["masks"][name]["counts"]] == [int(mask[alive].sum()) for mask in of]
        assert data["masks"][name]["shares"] == [progressive.utilisation(mask, alive) for mask in of]
    assert data["limits"] == limits and data["edges"] == sorted(data["edges"])
    for bins, now in zip(data["total"], errors, strict=True):
        edge = data["edges"][20]
        assert sum(bins[:20]) == int((now[alive].log10() < edge).sum())


def test_masks_need_an_entry_an_iteration():
    errors, used, limits, alive = walked()
    with pytest.raises(DataError, match="one entry an iteration"):
        explorables.masks(errors, used, limits[:-1], alive, "alt")
    with pytest.raises(DataError, match="one entry an iteration"):
        explorables.masks([], {}, [], alive, "alt")


def test_a_film_rebuilds_every_frame_from_changes():
    frames = squares()
    _, data = held(explorables.film(gif(frames), list("abcd"), "a square walks"))
    assert data["labels"] == list("abcd") and data["milliseconds"] == 90 and (data["width"], data["height"]) == (60, 20)
    seen = Image.new("RGBA", (60, 20))
    for picture, frame in zip(data["pictures"], frames, strict=True):
        seen.alpha_composite(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA"))
        assert np.array_equal(np.asarray(seen.convert("RGB")), frame)
    changed = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["pictures"][2]))).convert("RGBA"))[..., 3] > 0
    assert changed.sum() == 2 * 10 * 10, "a frame keeps more than what changed"


def test_a_film_needs_a_label_a_frame():
    with pytest.raises(DataError, match="4 frames and 3 labels"):
        explorables.film(gif(squares()), list("abc"), "alt")


def test_data_cannot_end_the_script():
    html, data = held(explorables.film(gif(squares()), ["</script>"] * 4, "alt"))
    assert data["labels"][0] == "</script>" and html.count("</script>") == 2


def test_the_script_asks_nothing_of_a_network():
    text = explorables.SCRIPT.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"\s]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|eval|import\()", text)
