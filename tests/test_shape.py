"""Angles among codes: which triangles are drawn, and how two clouds of codes are compared. The shape of paths: test_path_losses.py."""

import itertools
import math

import pytest
import torch

from hoptm.config import generator
from hoptm.errors import DataError
from hoptm.shape import Triplets, code_shape, draw_triplets


def clouds(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Synthetic codes and labels, real codes and labels: classes 0, 1 and 3, five or six codes against thirty."""
    chance = generator(0, "clouds")
    labels = torch.tensor([3, 0, 1, 0, 3, 1, 0, 1, 3, 0, 1, 3, 0, 1, 3, 0])
    real_labels = torch.tensor([0, 1, 2, 3]).repeat(30)
    return torch.randn(16, 4, dtype=dtype, generator=chance), labels, torch.randn(120, 4, dtype=dtype, generator=chance), real_labels


def turn(size: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator(3))).Q


# ---- the draw ---------------------------------------------------------------------------------------------------


def test_corners_differ_and_belong_to_their_class() -> None:
    _, labels, _, real_labels = clouds()
    drawn = draw_triplets(labels, real_labels, 50, generator(1))
    both = torch.cat([labels, real_labels])
    assert drawn.synthetic.shape == drawn.real.shape == (3, 50, 3)
    for rows, made in ((drawn.synthetic, True), (drawn.real, False)):
        assert torch.equal(both[rows], torch.tensor([0, 1, 3])[:, None, None].expand(3, 50, 3))
        assert torch.equal(rows < len(labels), torch.full_like(rows, made, dtype=torch.bool))
        assert all(len(set(corners)) == 3 for corners in rows.reshape(-1, 3).tolist())


def test_every_triangle_is_equally_likely() -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    drawn = draw_triplets(labels, torch.zeros(3, dtype=torch.int64), 60_000, generator(2))
    codes = drawn.synthetic[0] @ torch.tensor([25, 5, 1])
    counts = [int((codes == 25 * a + 5 * b + c).sum()) for a, b, c in itertools.permutations(range(5), 3)]
    assert sum(counts) == 60_000 and all(abs(count - 1000) < 5 * math.sqrt(1000) for count in counts)


def test_the_draw_comes_from_its_generator() -> None:
    _, labels, _, real_labels = clouds()
    first, again, other = (draw_triplets(labels, real_labels, 20, generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(first.synthetic, again.synthetic) and torch.equal(first.real, again.real)
    assert not torch.equal(first.synthetic, other.synthetic)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_codes_stand_among_real_ones(count: int) -> None:
    labels, real_labels = torch.full((count,), 7), torch.tensor([7, 2, 7, 7, 2, 7])
    drawn = draw_triplets(labels, real_labels, 400, generator(6))
    assert drawn.synthetic.shape == (1, 400, 3)
    assert set(drawn.synthetic[0, :, 0].tolist()) == set(range(count))
    others = {count, count + 2, count + 3, count + 5}
    assert set(drawn.synthetic[0, :, 1:].flatten().tolist()) == set(drawn.real.flatten().tolist()) == others
    assert (drawn.synthetic[0, :, 1] != drawn.synthetic[0, :, 2]).all()


def test_too_few_real_codes_are_refused() -> None:
    with pytest.raises(DataError, match="class 1 has 2 encoded"):
        draw_triplets(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1, 1]), 3, generator(0))


# ---- the distance -----------------------------------------------------------------------------------------------


def test_against_the_law_of_cosines() -> None:
    """Sides, then angles, then ranks, in plain Python."""
    codes, labels, real, real_labels = clouds()
    drawn = draw_triplets(labels, real_labels, 12, generator(7))
    pool = torch.cat([codes, real])

    def cosines(triangles: torch.Tensor) -> list[float]:
        found = []
        for corners in triangles.tolist():
            for here, first, second in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
                a, b, c = (math.dist(pool[corners[i]].tolist(), pool[corners[j]].tolist()) for i, j in ((here, first), (here, second), (first, second)))
                found.append((a * a + b * b - c * c) / (2 * a * b))
        return sorted(found)

    gaps = [abs(ours - theirs) for kind in range(3) for ours, theirs in zip(cosines(drawn.synthetic[kind]), cosines(drawn.real[kind]), strict=True)]
    wanted = sum(gap * gap / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)
    assert wanted > 1e-4
    assert float(code_shape(codes, real, drawn)) == pytest.approx(wanted, rel=1e-9)


def test_equal_distributions_give_zero() -> None:
    """The same triangles, moved, turned, scaled, in another order and with other corners first."""
    _, _, real, real_labels = clouds()
    codes = 3.0 * real @ turn(4) - 2.0
    rows = draw_triplets(real_labels, real_labels, 40, generator(8)).synthetic
    mixed = rows[:, torch.randperm(40, generator=generator(9))][:, :, [2, 0, 1]]
    assert float(code_shape(codes, real, Triplets(rows, mixed + len(codes)))) < 1e-25
    assert float(code_shape(codes, real, Triplets(rows, rows.roll(1, 0) + len(codes)))) > 1e-5


def test_many_triangles_of_one_distribution_come_close() -> None:
    chance = generator(10)
    zeros = torch.zeros(400, dtype=torch.int64)
    real, same = (torch.randn(400, 8, dtype=torch.float64, generator=chance) for _ in range(2))
    flat = same * torch.tensor([3.0, *[0.1] * 7], dtype=torch.float64)  # nearly on a line: angles near 0 and 180 degrees
    drawn = draw_triplets(zeros, zeros, 4000, chance)
    near, far = float(code_shape(same, real, drawn)), float(code_shape(flat, real, drawn))
    assert near < 2e-4 and far > 100 * near, (near, far)


def test_synthetic_codes_may_be_moved_turned_and_scaled_alone() -> None:
    codes, labels, real, real_labels = clouds()
    drawn = draw_triplets(labels, real_labels, 30, generator(11))
    before = float(code_shape(codes, real, drawn))
    assert float(code_shape(0.2 * codes @ turn(4) + 5.0, real, drawn)) == pytest.approx(before, rel=1e-9)
    assert abs(float(code_shape(codes * torch.tensor([4.0, 1.0, 1.0, 1.0], dtype=torch.float64), real, drawn)) - before) > 1e-4


def test_a_lone_code_is_bound_to_its_place_among_real_ones() -> None:
    _, _, real, real_labels = clouds()
    codes, labels = real[:4].clone(), torch.tensor([0, 1, 2, 3])
    drawn = draw_triplets(labels, real_labels, 2000, generator(12))
    inside, outside = float(code_shape(codes, real, drawn)), float(code_shape(codes + 20.0, real, drawn))
    assert outside > 5 * inside
    both = [3.0 * part @ turn(4) + 1.0 for part in (codes, real)]
    assert float(code_shape(*both, drawn)) == pytest.approx(inside, rel=1e-9)


def test_the_gradient() -> None:
    codes, labels, real, real_labels = clouds()
    codes, real = codes[:, :2], real[:, :2]
    three = labels == 3
    for few, kinds in ((codes[three], labels[three]), (codes[:3], labels[:3])):
        drawn = draw_triplets(kinds, real_labels, 3, generator(13))
        assert torch.autograd.gradcheck(lambda leaf, drawn=drawn: code_shape(leaf, real, drawn), few.clone().requires_grad_())


def test_codes_in_one_place_stay_finite() -> None:
    _, labels, real, real_labels = clouds()
    codes = torch.zeros(16, 4, dtype=torch.float64, requires_grad=True)
    loss = code_shape(codes, real, draw_triplets(labels, real_labels, 10, generator(14)))
    (gradient,) = torch.autograd.grad(loss, codes)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_descent_brings_the_angles_together() -> None:
    codes, labels, real, real_labels = clouds()
    drawn = draw_triplets(labels, real_labels, 50, generator(15))
    leaf = (codes * torch.tensor([5.0, 1.0, 0.2, 0.2], dtype=torch.float64)).requires_grad_()
    before = code_shape(leaf, real, drawn).item()
    optimiser = torch.optim.Adam([leaf], 0.1)
    for _ in range(20):
        optimiser.zero_grad()
        code_shape(leaf, real, drawn).backward()
        optimiser.step()
    assert code_shape(leaf, real, drawn).item() < 0.3 * before


def test_a_line_against_an_even_triangle() -> None:
    """Cosines -1, 1, 1 against three times 1/2: both branches of SmoothL1."""
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    even = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    drawn = Triplets(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[3, 4, 5]]]))
    assert float(code_shape(line, even, drawn)) == pytest.approx((2 * 0.5**2 / 2 + 1.0) / 3)
