"""Path losses against their formulas, and on degenerate paths."""

import math

import pytest
import torch
import torch.nn.functional as F

from hoptm.path_losses import end_point, shape, squared_errors, weighted_sum
from hoptm.shape import shape_potential, three_point_cosines


@pytest.fixture
def paths():
    chance = torch.Generator().manual_seed(3)
    return torch.randn(3, 20, generator=chance, dtype=torch.float64), torch.randn(3, 20, generator=chance, dtype=torch.float64)


def test_end_point_by_hand():
    student = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    expert = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert float(end_point(student, expert)) == pytest.approx((1 + 9) / (4 + 16))
    assert float(end_point(student, expert, torch.tensor([0.0, 1.0]))) == pytest.approx(9 / 16)
    assert squared_errors(student, expert).tolist() == [1.0, 9.0]


def test_end_point_is_one_for_a_student_that_did_not_move_and_zero_at_the_end(paths):
    _, expert = paths
    assert float(end_point(expert[[0, 0]], expert[[0, 2]])) == pytest.approx(1.0)
    assert float(end_point(expert, expert)) == 0.0


@pytest.mark.parametrize("weight", [torch.zeros(20, dtype=torch.float64), None])
def test_nothing_to_compare_gives_zero_and_not_nan(paths, weight):
    student, expert = paths
    expert = expert if weight is not None else expert[[0, 0, 0]]
    leaf = student.clone().requires_grad_()
    loss = end_point(leaf, expert, weight)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert leaf.grad is not None and float(leaf.grad.abs().max()) == 0.0


def test_shape_equals_the_twenty_seven_entries(paths):
    """Independent of the core: all i, j, k of the published formula."""
    student, expert = paths

    def entries(points):
        unit = F.normalize(points[None, :, :] - points[:, None, :], dim=2, eps=1e-12)
        return torch.stack([unit[i, j] @ unit[i, k] for i in range(3) for j in range(3) for k in range(3)])

    wanted = F.smooth_l1_loss(entries(student), entries(expert))
    assert float(shape_potential(student, expert)) == pytest.approx(float(wanted), rel=1e-12)


def test_angles_of_a_triangle():
    points = torch.zeros(3, 5, dtype=torch.float64)
    points[1, 0], points[2, 1] = 3.0, 4.0
    assert three_point_cosines(points).tolist() == pytest.approx([0.0, 3 / 5, 4 / 5])
    assert sum(math.acos(value) for value in three_point_cosines(points)) == pytest.approx(math.pi)


def test_shape_does_not_see_shift_turn_or_scale_but_sees_a_bend(paths):
    student, _ = paths
    turn = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert float(shape(2.5 * student @ turn + 7.0, student)) < 1e-25
    bent = student.clone()
    bent[1] += 1.0
    assert float(shape(bent, student)) > 1e-4


def test_largest_shape_potential_is_two_ninths():
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    assert float(shape(line, line[[1, 0, 2]])) == pytest.approx(2 / 9)


def test_degenerate_triangles_stay_finite(paths):
    student, expert = paths
    still = student[[0, 0, 0]].clone().requires_grad_()
    loss = shape(still, expert)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(still.grad).all()


def test_weighted_sum_and_weights_of_zero(paths):
    student, expert = paths

    def refused(first, second):
        raise AssertionError("a term of weight 0 was computed")

    total = weighted_sum([(2.0, end_point), (0.5, shape), (0.0, refused)])(student, expert)
    assert float(total) == pytest.approx(2 * float(end_point(student, expert)) + 0.5 * float(shape(student, expert)))
    assert float(weighted_sum([])(student, expert)) == 0.0
