"""Flat vectors and modules."""

import pytest
import torch
from torch import nn

from hoptm.errors import ConfigError
from hoptm.parameters import flatten, layout_of, unflatten


def test_there_and_back_in_the_module_order():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False))
    theta, layout = flatten(module), layout_of(module)
    assert layout.names == ("0.weight", "0.bias", "1.weight")
    assert layout.size == theta.numel() == 6 + 2 + 8
    for name, value in unflatten(theta, layout).items():
        assert torch.equal(value, dict(module.named_parameters())[name])


def test_the_vector_does_not_alias_the_module():
    module = nn.Linear(3, 2)
    theta = flatten(module)
    before = theta.clone()
    with torch.no_grad():
        module.weight.zero_()
    assert torch.equal(theta, before)


def test_gradients_flow_through_the_views():
    module = nn.Linear(3, 2)
    theta = flatten(module).requires_grad_()
    (unflatten(theta, layout_of(module))["weight"].square().sum()).backward()
    assert theta.grad is not None
    assert torch.equal(theta.grad[:6], 2 * theta.detach()[:6])
    assert theta.grad[6:].abs().sum() == 0


def test_another_networks_vector_and_hidden_state_are_refused():
    with pytest.raises(ConfigError, match="another network"):
        unflatten(torch.zeros(5), layout_of(nn.Linear(3, 2)))
    with pytest.raises(ConfigError, match="running_mean"):
        layout_of(nn.BatchNorm1d(3))
