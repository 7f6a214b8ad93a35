"""Ranks and neighbours against brute force; copies are found, noise is not."""

import pytest
import torch

from hoptm.config import generator
from hoptm.errors import DataError
from hoptm.retrieval import Retrieval, against_held_out, distances, nearest, retrieval

REAL = torch.rand(50, 1, 4, 4, generator=generator(0, "real"))


def test_distances_are_those_of_brute_force() -> None:
    images = torch.rand(3, 1, 4, 4, generator=generator(1))
    brute = [[float((one.double() - other.double()).square().mean().sqrt()) for other in REAL] for one in images]
    torch.testing.assert_close(distances(images, REAL), torch.tensor(brute, dtype=torch.float64))
    values, found = nearest(images, REAL, 3)
    assert found[1].tolist() == sorted(range(50), key=lambda index: brute[1][index])[:3]
    assert bool((values.diff(dim=1) >= 0).all()) and nearest(images, REAL, 99)[1].shape == (3, 50)


def test_copies_are_retrieved_and_noise_is_not() -> None:
    started = [7, 3, 30, 12, 44]
    copies = retrieval(REAL[started] + 0.02 * torch.randn(5, 1, 4, 4, generator=generator(2)), REAL, started)
    assert copies.ranks == (0,) * 5 and copies.hits == 5 and copies.p < 1e-7 and copies.typical == pytest.approx(0.01)
    noise = retrieval(torch.rand(400, 1, 4, 4, generator=generator(3)), REAL, torch.randint(50, (400,), generator=generator(4)))
    assert 0.4 < noise.typical < 0.6 and noise.p > 0.05 and noise.interval[0] < 1 / 50 < noise.interval[1]


def test_of_equal_distances_the_later_place_counts() -> None:
    twins = torch.zeros(4, 1, 4, 4)
    assert retrieval(torch.zeros(1, 1, 4, 4), twins, [1]).ranks == (3,)
    assert Retrieval((0, 9), 10).typical == pytest.approx(0.5)


def test_odd_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        distances(torch.zeros(1, 1, 5, 5), REAL)
    with pytest.raises(DataError, match="initialisers were given"):
        retrieval(REAL[:2], REAL, [0])


def test_looking_like_ones_class_is_not_being_found() -> None:
    """Images that know their class and no image of it: high among all, in the middle of the held-out ones of the class."""
    chance = generator(5)
    bright = torch.tensor([0.1, 0.9])[:, None, None, None]
    draw = lambda count: (bright.expand(2, 1, 4, 4).repeat_interleave(count, 0) + 0.05 * torch.randn(2 * count, 1, 4, 4, generator=chance)).clamp(0, 1)  # noqa: E731
    real, held, made = draw(40), draw(30), draw(40)
    labels, held_labels = torch.arange(2).repeat_interleave(40), torch.arange(2).repeat_interleave(30)
    started = torch.arange(80)
    assert retrieval(made, real, started).typical < 0.35  # half of the candidates are of another class
    shares = torch.tensor(against_held_out(made, real, started, labels, held, held_labels))
    assert 0.4 < float(shares.mean()) < 0.6
    copies = against_held_out(real + 0.01 * torch.randn(real.shape, generator=chance), real, started, labels, held, held_labels)
    assert set(copies) == {0.5 / 31}
    with pytest.raises(DataError, match="no held-out image has class 1"):
        against_held_out(made, real, started, labels, held[:30], held_labels[:30])
    with pytest.raises(DataError, match="initialisers were given"):
        against_held_out(made, real, [0, 1, 2], labels, held, held_labels)
