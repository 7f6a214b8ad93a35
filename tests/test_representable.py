"""Shares of a displacement in a span: known spans, and gradients that are the engine's own."""

import pytest
import torch

from hoptm import augment, inner
from hoptm.config import NetworkConfig, generator
from hoptm.networks import network
from hoptm.representable import image_gradients, shares_in_span


def test_known_spans():
    axes = torch.eye(4)
    shares = shares_in_span(torch.tensor([3.0, 4.0, 0.0, 12.0]), axes)
    assert shares.tolist() == pytest.approx([9 / 169, 25 / 169, 25 / 169, 1.0])
    skew = torch.stack([axes[0] + axes[1], 1e-3 * (axes[0] - axes[1])])
    assert shares_in_span(torch.tensor([3.0, 4.0, 0.0, 12.0]), skew)[-1] == pytest.approx(25 / 169), "lengths and angles do not matter"


def test_it_equals_least_squares_and_never_falls():
    chance = generator(0, "spans")
    displacement, directions = torch.randn(60, generator=chance, dtype=torch.float64), torch.randn(20, 60, generator=chance, dtype=torch.float64)
    shares = shares_in_span(displacement, directions)
    assert (shares.diff() >= 0).all()
    for count in (1, 7, 20):
        best = torch.linalg.lstsq(directions[:count].T, displacement[:, None]).solution
        left = (displacement - directions[:count].T @ best[:, 0]).square().sum() / displacement.square().sum()
        assert float(shares[count - 1]) == pytest.approx(1 - float(left), abs=1e-12)


def test_what_is_no_new_direction_adds_nothing():
    first = torch.tensor([1.0, 2.0, 0.0])
    shares = shares_in_span(torch.tensor([0.0, 1.0, 1.0]), torch.stack([first, -2 * first, torch.zeros(3)]))
    assert shares.tolist() == pytest.approx([0.4, 0.4, 0.4])
    assert shares_in_span(torch.zeros(3), first[None]).tolist() == [0.0]


def test_a_step_on_these_images_lies_in_the_span_of_their_gradients():
    net = network(NetworkConfig(depth=1, width=4), channels=1, classes=3, size=8)
    chance = generator(0, "a step")
    theta, images, labels = net.initial(chance).double(), torch.randn(5, 1, 8, 8, generator=chance, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    directions = image_gradients(net, theta, images, labels)
    whole = inner.Eager(net, torch.nn.functional.cross_entropy).first(theta, images, labels, augment.draw("none", 5, 8, chance), keep=False)[0]
    assert torch.allclose(directions.mean(0), whole, atol=1e-12)
    assert shares_in_span(whole, directions)[-1] == pytest.approx(1.0) and shares_in_span(whole, directions)[0] < 0.999
