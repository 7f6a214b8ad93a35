"""Figures of data say what the data say."""

import pytest
import torch

from hoptm import data_plots
from hoptm.data import load
from hoptm.scores import Scores


@pytest.fixture(scope="module")
def splits():
    return load("phantom:900")


def test_each_bar_is_a_share_and_carries_its_count(splits):
    (axes,) = data_plots.class_shares(splits).axes
    counts = torch.bincount(splits.test.labels, minlength=9)
    widths = [bar.get_width() for bar in axes.containers[2]]
    assert widths == pytest.approx((counts / counts.sum()).tolist())
    assert [text.get_text() for text in axes.texts][18:] == [str(int(count)) for count in counts]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(splits.info.class_names)


def test_a_panel_a_channel_and_a_line_a_split_that_holds_all_pixels(splits):
    panels = data_plots.grey_levels(splits).axes
    assert [axes.get_title("left") for axes in panels] == ["red", "green", "blue"]
    for axes in panels:
        assert [line.get_label() for line in axes.lines] == list(data_plots.SPLITS)
        assert all(4 * sum(line.get_ydata()) == pytest.approx(1) for line in axes.lines)
    red = panels[0].lines
    assert abs(red[0].get_ydata() - red[2].get_ydata()).sum() > 3 * abs(red[0].get_ydata() - red[1].get_ydata()).sum(), "test has another stain"


def test_a_line_runs_from_validation_to_test():
    one = {name: Scores(value, value - 0.1, value, (value, value)) for name, value in (("validation", 0.9), ("test", 0.7))}
    left, right = data_plots.validation_and_test([one, one], {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}).axes
    assert left.lines[0].get_ydata().tolist() == [0.9, 0.7] and right.lines[0].get_ydata() == pytest.approx([0.8, 0.6])
    assert len(left.lines) == 6 and left.get_title("left") == "accuracy"


def test_rows_show_one_above_the_other():
    upper, lower = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    first, second = data_plots.rows({"dark": upper, "light": lower}).axes
    assert (first.get_title("left"), second.get_title("left")) == ("dark", "light")
    assert first.images[0].get_array().min() == 0 and second.images[0].get_array().min() == 255
