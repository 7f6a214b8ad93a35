"""Higher orders: invariances, zero on equal paths, gradients, degenerate paths, and what each order sees."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch

from hoptm import orders, path_losses
from hoptm.config import generator
from hoptm.errors import ConfigError

LOSSES = {
    "velocity": orders.velocity,
    "difference 1": partial(orders.difference, order=1),
    "curvature": orders.of_order(2),
    "torsion": orders.of_order(3),
    "order 4": orders.of_order(4),
    "between": orders.between,
}
EVERY = {
    **{name: (loss, 5) for name, loss in LOSSES.items()},
    "twist": (orders.twist, 4),
    "end point": (path_losses.end_point, 5),
    "shape": (path_losses.shape, 3),
}
"""Each loss with the waypoints that it takes here."""


def _paths(points=5, size=12, seed=0):
    chance = generator(seed, "paths")
    return tuple(torch.randn(points, size, generator=chance, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("name", LOSSES)
def test_zero_on_equal_paths_and_positive_elsewhere(name):
    student, expert = _paths()
    assert float(LOSSES[name](expert, expert)) == pytest.approx(0.0, abs=1e-12)
    assert float(LOSSES[name](student, expert)) > 0.01


@pytest.mark.parametrize("name", [*LOSSES, "twist", "end point", "shape"])
def test_equal_paths_with_repeated_waypoints_lose_nothing(name):
    """An expert may stand still for a while."""
    loss, count = EVERY[name]
    expert = _paths()[1][[0, 0, 1, 2, 2]][:count]
    assert float(loss(expert, expert)) == pytest.approx(0.0, abs=1e-12)


def test_a_chord_along_which_the_expert_stands_still_is_not_compared():
    student, expert = _paths()
    still = expert[[0, 0, 1, 2, 2]]
    moving = 1.0 - torch.nn.functional.cosine_similarity(torch.diff(student, dim=0)[1:3], torch.diff(still, dim=0)[1:3]).mean()
    assert float(orders.velocity(student, still)) == pytest.approx(float(moving)) and float(moving) > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_unchanged_when_both_are_shifted_turned_and_scaled_alike(name):
    student, expert = _paths()
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator(1, "turn"), dtype=torch.float64)).Q
    shift = torch.randn(12, generator=generator(2, "shift"), dtype=torch.float64)
    moved = [1e-3 * path @ turn + shift for path in (student, expert)]
    assert float(LOSSES[name](*moved)) == pytest.approx(float(LOSSES[name](student, expert)), rel=1e-9)


@pytest.mark.parametrize("name", [*LOSSES, "twist", "end point", "shape"])
def test_gradients_are_right(name):
    loss, count = EVERY[name]
    student, expert = (path[:count] for path in _paths(size=4))
    assert torch.autograd.gradcheck(lambda path: loss(path, expert), (student.clone().requires_grad_(),))


def test_a_twist_does_not_change_when_paths_are_shifted_turned_or_scaled():
    student, expert = (path[:4] for path in _paths())
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator(1, "turn"), dtype=torch.float64)).Q
    assert float(orders.twist(1e-3 * student @ turn + 2.0, 5.0 * expert @ turn)) == pytest.approx(float(orders.twist(student, expert)), rel=1e-6)


@pytest.mark.parametrize("name", [*LOSSES, "twist"])
@pytest.mark.parametrize("kind", ["still student", "still expert", "repeated waypoints", "both still"])
def test_degenerate_paths_give_finite_numbers(name, kind):
    loss = orders.twist if name == "twist" else LOSSES[name]
    student, expert = (path[: 4 if name == "twist" else 5] for path in _paths())
    still = student[:1].expand_as(student)
    student, expert = {
        "still student": (still, expert),
        "still expert": (student, still),
        "repeated waypoints": (student[[0, 0, 1, 1, 2][: len(student)]], expert),
        "both still": (still, still),
    }[kind]
    leaf = student.clone().requires_grad_()
    found = loss(leaf, expert)
    (gradient,) = torch.autograd.grad(found, leaf)
    assert torch.isfinite(found) and torch.isfinite(gradient).all()
    if name != "twist":  # an angle alone, which no method uses: its gradient has no bound where a chord vanishes
        assert float(gradient.abs().max()) < 1e4


def test_the_floor_of_a_chord_changes_no_path_that_moves():
    student, expert = _paths()
    directions = [torch.nn.functional.normalize(torch.diff(path, dim=0), dim=1, eps=orders.EPS) for path in (student, expert)]
    assert torch.equal(orders.velocity(student, expert), 1.0 - (directions[0] * directions[1]).sum(dim=1).mean())
    shorter = student[:1] + 1e-6 * (student - student[:1])
    assert float(orders.velocity(shorter, expert)) == pytest.approx(1.0, abs=1e-2)


def test_a_student_that_does_not_move():
    _, expert = _paths()
    still = expert[:1].expand_as(expert)
    assert float(orders.velocity(still, expert)) == pytest.approx(1.0)
    assert float(orders.between(still, expert)) == pytest.approx(1.0)
    assert float(orders.difference(still, expert, 1)) == pytest.approx(1.0)


def test_differences_by_hand():
    """Expert: unit steps along a line. Student: the same with one waypoint displaced by h across it."""
    line = torch.zeros(5, 3, dtype=torch.float64)
    line[:, 0] = torch.arange(5)
    bent = line.clone()
    bent[2, 1] = 0.3
    assert float(orders.difference(bent, line, 2)) == pytest.approx((1 + 4 + 1) / 3 * 0.09 / 3)
    assert float(orders.difference(bent, line, 3)) == pytest.approx((9 + 9) / 2 * 0.09 / 10)
    assert float(orders.velocity(bent, line)) == pytest.approx(1 - (2 + 2 / math.sqrt(1.09)) / 4)
    assert float(orders.between(bent, line)) == pytest.approx(0.09 / 4 / 3)


def test_one_weight_means_the_same_at_every_order():
    """Independent errors of one size at every waypoint score alike at each order, in the mean."""
    chance = generator(0, "noise")
    expert = torch.randn(7, 1, generator=chance, dtype=torch.float64).cumsum(0) * torch.ones(1, 4000, dtype=torch.float64)
    noisy = expert + 0.1 * torch.randn(expert.shape, generator=chance, dtype=torch.float64)
    found = [float(orders.difference(noisy, expert, order)) for order in (1, 2, 3, 4)]
    assert max(found) / min(found) < 1.1


def test_curvature_of_gradient_steps_is_the_hessian_along_the_path():
    """On a quadratic bowl, theta' = theta - a A theta: the second difference is a^2 A g, here to the last bit but rounding."""
    chance = generator(0, "bowl")
    root = torch.randn(6, 6, generator=chance, dtype=torch.float64)
    bowl, step = root @ root.T / 6, 0.05
    path = [torch.randn(6, generator=chance, dtype=torch.float64)]
    for _ in range(2):
        path.append(path[-1] - step * bowl @ path[-1])
    second = torch.diff(torch.stack(path), n=2, dim=0)[0]
    assert torch.allclose(second, step**2 * bowl @ (bowl @ path[0]), rtol=1e-10)


def test_twist_sees_only_what_leaves_the_plane():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 2, 0]], dtype=torch.float64)
    twisted = flat.clone()
    twisted[3] = torch.tensor([1.0, 1, 1])
    assert float(orders.twist(flat, flat)) == pytest.approx(0.0, abs=1e-9)
    assert float(orders.twist(twisted, flat)) == pytest.approx(1.0, abs=1e-5)


def test_too_few_waypoints_and_orders_below_one():
    student, expert = _paths(points=2)
    for order in (2, 3):
        with pytest.raises(ConfigError, match=f"needs {order + 1} waypoints"):
            orders.difference(student, expert, order)
    with pytest.raises(ConfigError, match="start at 1"):
        orders.of_order(0)


def test_even_steps_and_the_adaptive_end():
    assert orders.even_steps(20, 5) == (0, 5, 10, 15, 20) and orders.even_steps(7, 3) == (0, Fraction(7, 2), 7)
    with pytest.raises(ConfigError, match="waypoints"):
        orders.even_steps(2, 4)
    path = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert orders.nearest_end(path, torch.tensor([2.4]), 1) == 2
    assert orders.nearest_end(path, torch.tensor([0.0]), 1) == 1
    assert [orders.rising(progress, 0.5) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert orders.rising(0.0, 0.0) == 1.0
