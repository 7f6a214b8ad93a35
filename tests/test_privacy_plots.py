"""Figures of leaks hold what they were given; frames stand where the initialiser is, and letters can be read on white."""

import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from hoptm import audit, privacy_plots
from hoptm.config import generator
from hoptm.membership import roc
from hoptm.retrieval import nearest

REAL = torch.rand(9, 1, 4, 4, generator=generator(0))


def test_the_frame_is_around_the_initialiser() -> None:
    images = REAL[[2, 5]] + 0.01
    values, found = nearest(images, REAL, 3)
    drawn = privacy_plots.neighbours(images, REAL, found, values, [2, -1])
    framed = [number for number, axes in enumerate(drawn.axes) if any(isinstance(patch, Rectangle) for patch in axes.patches)]
    assert len(drawn.axes) == 8 and framed == [1]
    assert drawn.axes[1].get_xlabel() == "0.010" and drawn.axes[1].xaxis.label.get_fontweight() == "bold"
    assert torch.equal(torch.from_numpy(drawn.axes[1].images[0].get_array().data), REAL[2, 0])


def test_ranks_are_places_from_one() -> None:
    drawn = privacy_plots.ranks({"published": ([3, 0, 0], 100), "latent": ([9], 100)})
    (axes,) = drawn.axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 1, 4], [10]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["published", "latent"] and axes.get_xscale() == "log"


def test_curves_begin_where_they_are_resolved() -> None:
    member = torch.arange(2000) % 2 == 0
    answers = torch.randn(2000, generator=generator(1)) + member
    drawn = privacy_plots.curves({"random": roc(answers, member), "dp-4": roc(torch.randn(2000, generator=generator(2)), member)}, 0.01)
    (axes,) = drawn.axes
    chance, first, second = axes.lines
    assert chance.get_xdata()[0] == 0.01 and first.get_xdata().min() >= 0.01 and max(second.get_ydata()) == 1
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert next(text.get_text() for text in axes.texts) == "real random subset" and to_hex(first.get_color()) == privacy_plots.ARMS["random"]


def test_areas_stand_before_what_chance_looks_like() -> None:
    drawn = privacy_plots.areas(
        {"canaries": {"full": (0.9, 0.45, 0.55), "dp-4": (0.5, 0.44, 0.56)}, "ordinary": {"full": (0.6, 0.49, 0.51), "dp-4": (0.5, 0.4, 0.6)}}
    )
    first, second = drawn.axes
    assert first.get_title(loc="left") == "canaries" and list(second.lines[1].get_xdata()) == [0.49, 0.51]
    assert [float(line.get_xdata()[0]) for line in first.lines[2::2]] == [0.9, 0.5]
    low = privacy_plots.areas({"canaries": {"full": (0.2, 0.3, 0.7)}}).axes[0]
    assert low.get_xlim()[0] < 0.2, "no dot is cut off"


@pytest.mark.parametrize("name", audit.ARMS)
def test_every_arm_has_a_name_and_a_colour_that_can_be_read(name: str) -> None:
    red, green, blue = ((part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4) for part in to_rgb(privacy_plots.ARMS[name]))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) > 4.5 and privacy_plots.NAMES[name]
    assert len(set(privacy_plots.ARMS.values())) == len(privacy_plots.ARMS)
