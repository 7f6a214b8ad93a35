"""Ranks and neighbours against brute force; copies are found, noise is not."""

import pytest
import torch
from scipy import stats

from hoptm.config import generator
from hoptm.errors import DataError
from hoptm.retrieval import DRAWS, Retrieval, against_held_out, distances, exchanged, nearest, retrieval

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


def world(count: int, held: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Noise about two classes' brightness: real images with labels, held-out ones with labels."""
    chance = generator(seed, "world")
    bright = torch.tensor([0.1, 0.9])[:, None, None, None]
    draw = lambda each: (bright.expand(2, 1, 4, 4).repeat_interleave(each, 0) + 0.05 * torch.randn(2 * each, 1, 4, 4, generator=chance)).clamp(0, 1)  # noqa: E731
    return draw(count), torch.arange(2).repeat_interleave(count), draw(held), torch.arange(2).repeat_interleave(held)


def test_two_initialisers_are_enough_for_the_exchange() -> None:
    real, labels, held_out, held = world(40, 30, 0)
    found = exchanged(real[[3, 50]] + 0.01, real, [3, 50], labels, held_out, held, generator(0))
    assert found.p <= 0.005 and found.least == pytest.approx(1 / 31**2) and found.tells(0.025)
    few = exchanged(real[[3, 50]], real, [3, 50], labels, held_out[[0, 1, 30, 31]], held[[0, 1, 30, 31]], generator(0))
    assert few.least == pytest.approx(1 / 9) and not few.tells(0.025) and 0.05 < few.p < 0.2
    many = exchanged(real, real, torch.arange(80), labels, held_out, held, generator(0))
    assert many.p == many.least == 1 / (DRAWS + 1)
    with pytest.raises(DataError, match="initialisers were given"):
        exchanged(real[:2], real, [0], labels, held_out, held, generator(0))


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("alike", [False, True])
def test_the_exchange_has_its_size(count: int, alike: bool) -> None:
    """Of sets that know nothing of their initialisers one in twenty is taken for a leak at 5 %, though the images of a class are all the same."""
    alarms = 0
    for turn in range(80):
        real, labels, held_out, held = world(count, 30, turn)
        made = world(count, 1, turn + 1000)[0]
        made = torch.stack([made[labels == label].mean(dim=0) for label in labels]) if alike else made
        alarms += exchanged(made, real, torch.arange(2 * count), labels, held_out, held, generator(turn)).p <= 0.05
    assert alarms <= stats.binom(80, 0.05).isf(1e-3)


def test_chosen_initialisers_are_exchanged_among_themselves() -> None:
    """Central images lie nearer to everything, so held-out images are not their equals; which of them is whose is still a fair question."""
    real, labels, held_out, held = world(40, 30, 0)
    central = torch.cat([(real[labels == label] - real[labels == label].mean(dim=0)).flatten(1).norm(dim=1).argsort()[:6] + 40 * label for label in range(2)])
    smooth = torch.stack([real[labels == label].mean(dim=0) for label in labels[central]])
    smooth = smooth + 0.001 * torch.randn(smooth.shape, generator=generator(3))
    assert exchanged(smooth, real, central, labels, held_out, held, generator(0)).p <= 0.025
    assert exchanged(smooth, real, central, labels, held_out[:0], held[:0], generator(0)).p > 0.025
    assert exchanged(real[central] + 0.01, real, central, labels, held_out[:0], held[:0], generator(0)).p <= 0.001
