"""The truncated gradient: exact where it should be, and not elsewhere."""

import pytest
import torch

from hoptm import adjoint, augment, path_losses, truncated
from hoptm.config import NetworkConfig, configure, generator
from hoptm.errors import ConfigError
from hoptm.inner import Plan, inner_gradient
from hoptm.networks import network

NET = network(NetworkConfig("convnet", depth=2, width=4), channels=1, classes=3, size=8)


def _inputs(steps):
    chance = generator(0, "truncated", steps)
    images = torch.randn(6, 1, 8, 8, generator=chance, dtype=torch.float64)
    batches = tuple(torch.randperm(6, generator=chance)[:4] for _ in range(steps))
    plan = Plan(batches, tuple(augment.draw("dsa", 4, 8, chance) for _ in batches))
    start = NET.initial(chance).double()
    expert = torch.stack([start, start + 0.02 * torch.randn(start.shape, generator=chance, dtype=torch.float64)])
    return images, torch.arange(6) % 3, plan, expert, torch.tensor(0.05, dtype=torch.float64)


def _both(steps):
    images, labels, plan, expert, lr = _inputs(steps)
    path = adjoint.forward(NET, expert[0], images, labels, lr, plan)
    _, at = adjoint.waypoint_gradients(path_losses.end_point, path[[0, steps]], expert, (0, steps))
    return [engine.backward(NET, path, at, images, labels, lr, plan) for engine in (adjoint, truncated)], (path, at, images, labels, lr, plan)


def test_one_step_is_exact_and_many_are_not():
    (exact, cut), _ = _both(1)
    assert torch.allclose(exact[0], cut[0], rtol=1e-12) and torch.allclose(exact[2], cut[2])
    (exact, cut), _ = _both(12)
    cosine = torch.cosine_similarity(exact[0].flatten(), cut[0].flatten(), dim=0)
    assert 0 < float(cosine) < 0.9999


def test_by_hand():
    """The published expression: the gradient of -a sum_t < g_t(x), b_T > with every theta_t held."""
    (_, cut), (path, at, images, labels, lr, plan) = _both(5)
    leaf, rate = images.clone().requires_grad_(), lr.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for number, (batch, drawn) in enumerate(zip(plan.batches, plan.draws, strict=True)):
        theta = path[number].clone().requires_grad_()
        gradient = inner_gradient(NET, torch.nn.functional.cross_entropy, theta, leaf[batch], labels[batch], drawn, graph=True)
        total = total - rate * (gradient @ at[5])
    wanted = torch.autograd.grad(total, (leaf, rate))
    assert torch.allclose(cut[0], wanted[0], rtol=1e-10) and torch.allclose(cut[2], wanted[1], rtol=1e-10)


def test_waypoints_on_the_way_are_refused():
    images, labels, plan, expert, lr = _inputs(4)
    path = adjoint.forward(NET, expert[0], images, labels, lr, plan)
    with pytest.raises(ConfigError, match="one waypoint"):
        truncated.backward(NET, path, {2: path[2], 4: path[4]}, images, labels, lr, plan)


def test_the_method_by_its_name():
    assert configure("phantom", method="tesla", ipc=1, seed=0).match.gradient == "truncated"
    with pytest.raises(ConfigError, match="truncated gradient"):
        configure("phantom", method="tesla", ipc=1, seed=0).changed(match={"shape_weight": 0.5})
