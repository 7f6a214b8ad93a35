"""Figures of gradients hold what they were given, and their labels never lie on one another."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hoptm import gradient_plots
from hoptm.gradient_plots import LOOKS, spread


def words(drawn: Figure) -> list[str]:
    """All text of a figure that is seen."""
    drawn.canvas.draw()
    return [text.get_text() for text in drawn.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible() and text.get_text()]


def inside(drawn: Figure) -> bool:
    """Whether all letters lie on the page."""
    drawn.draw_without_rendering()
    width, height = drawn.canvas.get_width_height()
    boxes = [text.get_window_extent() for axes in drawn.axes for text in axes.texts if text.get_text()]
    return all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("places", [[0.5], [0.1, 0.12, 0.9], [0.0, 0.0, 0.0], [0.99, 0.98, 1.0, 0.2], [0.3, 0.1, 0.2, 0.95]])
def test_labels_keep_their_order_and_distance(places):
    heights = spread(places, 0.1)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(heights)[order]) > 0.1 - 1e-9).all()
    assert min(heights) > -1e-9 and max(heights) < 1 + 1e-9


def test_labels_that_do_not_collide_stay_where_they_are():
    assert spread([0.8, 0.2, 0.5], 0.1) == pytest.approx([0.8, 0.2, 0.5])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([], 0.1) == []


def test_every_way_has_a_look_of_its_own():
    strokes = [(to_hex(look["color"]), look.get("linestyle", "-")) for look in LOOKS.values()]
    assert len(set(strokes)) == len(strokes)


def test_pixel_row_draws_each_way_over_its_columns():
    pixels = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    drawn = gradient_plots.pixel_row(pixels, 2, {"autograd": (range(6), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), "finite differences": ([0, 2], [0.0, 2.0])})
    _, below = drawn.axes
    assert [line.get_xydata().tolist() for line in below.lines[1:2]] == [[[0, 0], [2, 2]]]
    assert list(below.lines[0].get_ydata()) == [0, 1, 2, 3, 4, 5]
    assert {"autograd", "finite differences", "this row"} <= set(words(drawn)) and inside(drawn)


def test_difference_errors_keep_a_zero_on_the_page():
    drawn = gradient_plots.difference_errors([1e-1, 1e-4], {"smooth": [1e-2, 0.0], "rough": [1.0, 0.5]})
    axes = drawn.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert list(axes.lines[0].get_ydata()) == [1e-2, 1e-16] and list(axes.lines[1].get_ydata()) == [1.0, 0.5]
    assert {"smooth", "rough"} <= set(words(drawn))


def test_zooms_draw_a_panel_a_view():
    places = np.linspace(-1, 1, 5)
    drawn = gradient_plots.zooms(places, {"far": (places**2, places), "near": (2 * places, 2 * places)})
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["far", "near"]
    assert drawn.axes[0].lines[1].get_ydata().tolist() == (places**2).tolist()
    assert {"the loss", "its gradient"} <= set(words(drawn))


def test_costs_name_each_curve_at_its_end():
    memory = {"full graph": [1.0, 2.0, 90.0], "adjoint": [1.0, 1.0, 1.1], "truncated": [1.0, 1.0, 1.0]}
    drawn = gradient_plots.costs([1, 2, 40], memory, {name: [3.0, 3.0, 3.0] for name in memory})
    above, below = drawn.axes
    assert list(above.lines[0].get_ydata()) == [1.0, 2.0, 90.0]
    assert [text.get_text() for text in above.texts] == [text.get_text() for text in below.texts] == list(memory)
    heights = sorted(text.xy[1] for text in below.texts)
    assert (np.diff(heights) > 0.099).all() and inside(drawn)


def test_angles_draw_degrees():
    drawn = gradient_plots.angles([1, 4], {"small step": [0.0, 5.0], "large step": [0.0, 40.0]})
    axes = drawn.axes[0]
    assert list(axes.lines[1].get_ydata()) == [0.0, 40.0] and axes.get_ylim()[1] > 40
    assert {"small step", "large step"} <= set(words(drawn)) and inside(drawn)
