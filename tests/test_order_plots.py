"""Figures of orders, errors and masks hold what they were given, and their names can be told apart."""

from itertools import pairwise

import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from hoptm import order_plots
from hoptm.config import MASKS, generator

FLAT = torch.stack([torch.linspace(0, 2, 5), torch.zeros(5)], dim=1)


def errors(scale, count=300):
    return scale * torch.randn(count, generator=generator(0, "errors", str(scale))).square()


def names(axes):
    return {text.get_text().strip(): text for text in axes.texts}


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (1e-12, "0"), (0.0123, "0.012"), (0.5, "0.50"), (0.00099, "0.00099"), (2.34, "2.3"), (3e-5, "$10^{-5}$"), (12.0, "12.0")]
)
def test_values_in_few_letters(value, words):
    assert order_plots.short(value) == words


def test_a_table_of_deformations():
    paths = {"drift": FLAT + torch.arange(5)[:, None] * torch.tensor([0.0, 0.2]), "same": FLAT}
    drawn = order_plots.deformations(FLAT, paths, {"end point": [0.04, 0.01], "curvature": [1e-15, 0.5], "blind": [0.0, 0.0]})
    sketches, table = drawn.axes
    assert [text.get_text() for text in table.texts] == ["0.040", "0.010", "0", "0.50", "0", "0"]
    assert [label.get_text() for label in table.get_yticklabels()] == ["end point", "curvature", "blind"]
    (cells,) = table.collections
    assert cells.get_array().reshape(3, 2).tolist() == [[1.0, 0.25], [0.0, 1.0], [0.0, 0.0]]
    assert [text.get_text() for text in sketches.texts] == list(paths)
    drift = sketches.lines[1].get_ydata()
    assert drift[-1] > drift[0] and sketches.lines[3].get_ydata().tolist() == pytest.approx([0.0] * 5)


def test_every_order_of_an_arm_and_every_mask_has_its_colour():
    assert set(order_plots.MASKS) == set(MASKS)
    for colours in (order_plots.ORDERS, order_plots.MASKS):
        assert len(set(colours.values())) == len(colours)


def test_agreement_draws_a_colour_a_place_and_a_dash_a_kind():
    drawn = order_plots.agreement([1e-3, 1e-2], {"start": {"ReLU": [0.5, 0.9], "SiLU": [1.0, 0.8]}, "end": {"ReLU": [0.4, 0.3]}})
    (axes,) = drawn.axes
    lines = axes.lines[:3]
    assert [line.get_ydata().tolist() if hasattr(line.get_ydata(), "tolist") else list(line.get_ydata()) for line in lines] == [
        [0.5, 0.9],
        [1.0, 0.8],
        [0.4, 0.3],
    ]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() and lines[0].get_linestyle() != lines[1].get_linestyle()
    assert set(names(axes)) == {"ReLU, start", "SiLU, start", "ReLU, end"}


def test_terms_over_time_show_each_arm_and_the_still_student():
    arms = {"endpoint": [0.9, 0.5], "curvature": [0.8, 0.4]}
    drawn = order_plots.terms_over_time({"end point": arms, "curvature": arms}, {"curvature": 0.2})
    first, second = drawn.axes
    assert {"end point", "+ curvature"} <= set(names(first)) and "a still student" not in names(first)
    assert any(list(line.get_ydata()) == [0.2, 0.2] for line in second.lines)
    assert to_hex(names(first)["+ curvature"].get_color()) == order_plots.ORDERS["curvature"]


def test_names_at_the_ends_of_lines_lie_apart_and_inside():
    drawn = order_plots.shares_in_use({name: [0.1, 1.0] for name in order_plots.MASKS})
    (axes,) = drawn.axes
    heights = sorted(text.xy[1] for text in axes.texts)
    assert all(after - before > 0.05 for before, after in pairwise(heights))
    assert heights[-1] <= axes.get_ylim()[1] and heights[0] > 0.5


def test_errors_and_threshold_count_everything():
    living, dead = errors(1e-6), torch.cat([torch.zeros(5), torch.full((2,), 1e-18)])
    drawn = order_plots.errors_and_threshold(living, dead, [1e-8, 1e-7, 1e-6])
    (axes,) = drawn.axes
    assert sum(patch.get_height() for patch in axes.patches) == len(living) + len(dead)
    assert {"living: 300", "dead: 7", "first threshold", "last"} <= set(names(axes))
    assert [line.get_xdata()[0] for line in axes.lines] == [1e-8, 1e-7, 1e-6]


def test_shares_below_are_the_distribution():
    found = {"8": errors(1e-5), "16": errors(1e-6)}
    (axes,) = order_plots.shares_below(found, 1e-6, "widths").axes
    for line, values in zip(axes.lines, found.values(), strict=False):
        for x, share in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[::40]:
            assert float((values < x).double().mean()) == pytest.approx(share, abs=0.005)
    assert axes.lines[2].get_xdata()[0] == 1e-6 and axes.get_title(loc="left") == "widths"
    assert to_rgb(axes.lines[0].get_color()) != to_rgb(axes.lines[1].get_color())


def test_windows_show_each_draw():
    drawn = order_plots.windows({"fixed": [3, 0, 2], "growing": [0, 0, 1]})
    assert [list(axes.lines[0].get_ydata()) for axes in drawn.axes] == [[3, 0, 2], [0, 0, 1]]
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["fixed", "growing"]
