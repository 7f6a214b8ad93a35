"""Masks: the published one, fresh ones, quantiles, whole layers, and parameters that nothing depends on."""

import pytest
import torch

from hoptm.config import NetworkConfig, generator
from hoptm.networks import network
from hoptm.parameters import Layout
from hoptm.progressive import fresh, layers, quantile, share, sticky, threshold, utilisation

ALL = torch.ones(4, dtype=torch.bool)


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


def test_a_fresh_mask_forgets():
    assert fresh(torch.tensor([9.0, 0.2, 0.3]), 0.3).tolist() == [False, True, False]


def test_a_quantile_has_no_scale():
    errors = torch.tensor([0.4, 0.1, 0.3, 0.2])
    for scale in (1.0, 1e-9, 1e6):
        assert quantile(scale * errors, 0.5, ALL).tolist() == [False, True, False, True]
    assert quantile(errors, 1.0, ALL).all() and int(quantile(errors, 1e-6, ALL).sum()) == 1
    assert quantile(torch.zeros(4), 0.5, ALL).tolist() == [True, True, False, False]


def test_dead_parameters_take_no_place_in_a_quantile():
    alive = torch.tensor([False, True, True, True])
    assert quantile(torch.tensor([0.0, 0.3, 0.1, 0.2]), 0.6, alive).tolist() == [False, False, True, True]
    assert utilisation(torch.tensor([True, False, True, True]), alive) == pytest.approx(2 / 3)


def test_layers_by_their_relative_error():
    layout = Layout(("a", "b", "c"), ((2,), (1,), (1,)))
    errors, moved = torch.tensor([1.0, 1.0, 0.5, 0.1]), torch.tensor([10.0, 10.0, 0.5, 0.2])
    assert layers(errors, moved, 0.34, ALL, layout).tolist() == [True, True, False, True]
    assert layers(errors, moved, 0.1, ALL, layout).tolist() == [True, True, False, False]
    assert layers(errors, moved, 1.0, torch.tensor([True, False, True, False]), layout).tolist() == [True, False, True, False]


def test_the_share_is_linear_and_stays_in_range():
    assert [share(progress, 0.2, 1.0) for progress in (-1.0, 0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.2, 0.2, 0.6, 1.0, 1.0])


@pytest.mark.parametrize(("family", "norm"), [("convnet", "instance"), ("convnet", "group"), ("convnet", "none"), ("vgg", "instance"), ("mlp", "layer")])
def test_dead_parameters_are_those_without_a_gradient(family, norm):
    net = network(NetworkConfig(family, depth=2, width=8, norm=norm), channels=1, classes=3, size=16)
    chance = generator(0, "dead")
    theta = net.initial(chance).double().requires_grad_()
    logits = net(theta, torch.randn(12, 1, 16, 16, generator=chance, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(logits.square().sum() + logits.sum(), theta)
    size = gradient.abs() / gradient.abs().max()
    assert float(size[~net.alive].max() if (~net.alive).any() else torch.tensor(0.0)) < 1e-12
    assert all(bool(part.max() > 1e-12) for part, living in zip(size.split(net.layout.sizes), net.alive.split(net.layout.sizes), strict=True) if living.any())
    assert bool((~net.alive).any()) == (family in ("convnet", "vgg") and norm == "instance")


def test_masks_do_not_carry_gradients():
    leaf = torch.rand(4, requires_grad=True)
    for mask in (fresh(leaf, 0.5), quantile(leaf, 0.5, ALL), sticky(None, leaf, 0.5), layers(leaf, torch.ones(4), 0.5, ALL, Layout(("a",), ((4,),)))):
        assert mask.dtype == torch.bool and not mask.requires_grad
