"""The figure of findings: every row, every word, in its colour."""

import dataclasses
import io

import numpy as np
import pytest
from known_findings import FEW, LOST, OPEN, WON, claim
from PIL import Image

from hoptm.claim_plots import MARKERS, VERDICT_COLOURS, gains
from hoptm.errors import ConfigError
from hoptm.pictures import picture
from hoptm.verdicts import VERDICTS, Evidence, Finding, judge


def findings() -> list[Finding]:
    def row(one, other, where):
        return claim(one, dataclasses.replace(other, name="AUC"), where=where)

    made = [row(WON, OPEN, "first, tuned"), row(LOST, LOST, "second"), row(FEW, WON, "third"), claim(WON, where="no gain in two scores")]
    return judge(made, Evidence())


def test_each_claim_keeps_its_row_and_each_score_its_word():
    drawn = gains(findings())
    left, right = drawn.axes
    drawn.draw_without_rendering()
    said = [text.get_text() for text in drawn.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible()]
    assert {"first", "second", "third", "it helps", "untested, n=2", "gain in accuracy", "gain in AUC"} <= set(said) and "no gain in two scores" not in said
    markers = [{(line.get_marker(), line.get_color()) for line in axes.lines if len(line.get_xdata()) == 1} for axes in (left, right)]
    look = {word: (MARKERS[word], VERDICT_COLOURS[word]) for word in VERDICTS}
    assert markers == [{look["reproduced"], look["not reproduced"]}, {look["no difference shown"], look["not reproduced"], look["reproduced"]}]
    shown = {text.get_text(): text.get_color() for text in drawn.legends[0].get_texts()}
    assert shown == {word: VERDICT_COLOURS[word] for word in ("reproduced", "not reproduced", "no difference shown")}


def test_a_mark_stands_at_its_mean_over_its_bar_and_seeds():
    left = gains(findings()).axes[0]
    (mark,) = [line for line in left.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert mark.get_xdata()[0] == pytest.approx(0.11)
    at = mark.get_ydata()[0]
    there = [list(line.get_xdata()) for line in left.lines if set(line.get_ydata()) == {at}]
    assert list(WON.values) in there and [WON.interval.low, WON.interval.high] in there
    place = dict(zip([text.get_text() for text in left.get_yticklabels()], left.get_yticks(), strict=True))
    assert place["first"] == at and left.get_xlim()[0] < LOST.interval.low


def test_nothing_is_cut_off():
    drawn = gains(findings())
    drawn.draw_without_rendering()
    box = drawn.bbox
    for text in drawn.findobj(lambda artist: hasattr(artist, "get_text")):
        if text.get_visible() and text.get_text():
            seen = text.get_window_extent()
            assert seen.x0 >= box.x0 - 1 and seen.x1 <= box.x1 + 1 and seen.y0 >= box.y0 - 1 and seen.y1 <= box.y1 + 1, text.get_text()


def test_verdicts_differ_in_colour_and_marker_and_can_be_read():
    assert set(VERDICT_COLOURS) == set(MARKERS) == set(VERDICTS)
    assert len(set(VERDICT_COLOURS.values())) == len(set(MARKERS.values())) == len(VERDICTS)


def test_findings_without_a_gain_are_refused():
    with pytest.raises(ConfigError, match=r"verdicts\.table"):
        gains(findings()[-1:])


def test_a_picture_is_the_figure_in_fewer_bytes():
    drawn, whole = gains(findings()), io.BytesIO()
    drawn.savefig(whole, format="png", bbox_inches="tight")
    made = picture(drawn)._repr_png_()
    assert len(made) < 0.5 * len(whole.getvalue())
    ours, theirs = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float) for png in (made, whole.getvalue()))
    assert ours.shape == theirs.shape and abs(ours - theirs).mean() < 2
    assert repr(picture(drawn)) == "Picture()"
