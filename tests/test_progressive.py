"""The published mask."""

import pytest
import torch

from hoptm.progressive import sticky, threshold, utilisation


def test_threshold_grows_in_steps():
    assert [threshold(iteration, 2.0, 1.5, 3) for iteration in range(7)] == [2, 2, 2, 3, 3, 3, 4.5]
    assert threshold(10_000, 5e-9, 1.5, 500) == pytest.approx(1.66e-5, rel=2e-3)
    assert threshold(10_000, 1e-10, 1.3, 500) == pytest.approx(1.9e-8, rel=2e-2)


def test_a_parameter_once_easy_counts_for_ever():
    first = sticky(None, torch.tensor([0.1, 0.5, 0.3]), 0.3)
    assert first.tolist() == [True, False, False]
    second = sticky(first, torch.tensor([9.0, 0.2, 9.0]), 0.3)
    assert second.tolist() == [True, True, False]
    assert utilisation(second) == pytest.approx(2 / 3)
    assert first.tolist() == [True, False, False], "the earlier mask was changed in place"
