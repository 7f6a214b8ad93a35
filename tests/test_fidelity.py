"""Fidelity and size, against brute force."""

import itertools
from dataclasses import replace

import pytest
import torch
from scipy import stats
from test_synthetic import small_splits
from toy_sets import net, toy

from hoptm import fidelity
from hoptm.baselines import random_subset
from hoptm.config import EvaluationConfig, generator
from hoptm.data import Splits, Standardisation, Train, Validation, load, standardisation
from hoptm.errors import ConfigError, DataError
from hoptm.evaluate import Recipe, train_on
from hoptm.fidelity import compactness, held_out_counts, nearest_distance, nearness, preference, recognised
from hoptm.latent_controls import kmeans_decoded
from hoptm.synthetic import from_real, provenance
from hoptm.vae import VaeConfig, untrained

SETTINGS = EvaluationConfig(steps=40, batch=16, networks=1)


def brute(images: torch.Tensor, train: torch.Tensor) -> list[float]:
    return [min(float((image.double() - other.double() / 255).square().mean().sqrt()) for other in train) for image in images]


def test_distances_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    train = toy().train.images
    images = torch.rand(6, 1, 8, 8, generator=generator(0))
    for chunk in (2048, 7):
        monkeypatch.setattr(fidelity, "_CHUNK", chunk)
        assert nearest_distance(images, train) == pytest.approx(brute(images, train), abs=1e-7)
    copies = train[5:9].float() / 255
    assert nearest_distance(copies, train) == [0.0] * 4


def test_copies_are_nearer_than_held_out_images_and_noise_is_farther() -> None:
    splits = toy()
    copies = random_subset(splits, 4, generator(0))
    found = nearness(copies, splits.train, splits.val)
    assert found.nearer == 1.0 and max(found.synthetic) < 1e-6 and len(found.held_out) == 40
    assert found.held_out == pytest.approx(brute(splits.val.images.float() / 255, splits.train.images), abs=1e-7)
    far = nearness(replace(copies, images=torch.where(torch.rand(copies.images.shape, generator=generator(1)) > 0.5, 9.0, -9.0)), splits.train, splits.val)
    assert far.nearer == 0.0 and far.medians[0] > far.medians[1]


def test_a_smooth_image_is_near_to_all_and_a_copy_prefers_train() -> None:
    splits = load("phantom:900")
    copies = random_subset(splits, 4, generator(0))
    found = nearness(copies, splits.train, splits.val)
    assert found.nearer == found.closer == 1.0
    halves = [(splits.val.images[part::2], splits.val.labels[part::2]) for part in range(2)]
    unseen = copies.standardisation.apply(halves[0][0][: len(copies.labels)])
    fresh = nearness(replace(copies, images=unseen), splits.train, Validation(*halves[1]))
    assert abs(fresh.closer - 0.5) < 0.2
    blurred = torch.nn.functional.avg_pool2d(unseen, 9, stride=1, padding=4, count_include_pad=False)
    smooth = nearness(replace(copies, images=blurred), splits.train, Validation(*halves[1]))
    assert smooth.nearer > 0.7 and abs(smooth.closer - 0.5) < 0.2 and smooth.closer < smooth.nearer - 0.1


def test_what_may_be_held_out_is_counted_exactly() -> None:
    """Against every way to part the images, and against the hypergeometric distribution where all weights are 1."""
    weights, inside, outside = [1, 2, 2, 4], 4, 3
    ways = list(itertools.combinations(range(7), outside))
    sums = [sum(weights[one] for one in way if one < 4) for way in ways]
    found = held_out_counts(weights, inside, outside)
    assert found == pytest.approx([sums.count(value) / len(ways) for value in range(10)], abs=1e-12)
    ones = held_out_counts([1] * 20, 900, 100)
    assert ones == pytest.approx(stats.hypergeom(1000, 100, 20).pmf(range(21)), rel=1e-9, abs=1e-15)
    with pytest.raises(ConfigError, match="cannot be among"):
        held_out_counts([1] * 8, 4, 3)


def test_copies_prefer_train_and_their_p_is_that_of_hypergeometric_draws() -> None:
    splits = toy()
    found = preference(random_subset(splits, 6, generator(0)), splits.train, splits.val)
    p = float(stats.hypergeom(60, 20, 6).pmf(0)) ** 2  # 40 of train and 20 held out in each of two classes
    assert (found.hits, found.count) == (12, 12) and found.expected == pytest.approx(8)
    assert found.p == found.least == pytest.approx(p) and found.tells(0.025) and not found.tells(p / 2)
    two = preference(random_subset(splits, 1, generator(0)), splits.train, splits.val)
    assert two.least == pytest.approx((40 / 60) ** 2) and not two.tells(0.025)
    held = from_real(
        Splits(Train(splits.val.images, splits.val.labels), splits.val, splits.test, splits.info),
        torch.arange(12),
        provenance(splits, method="x", ipc=6, seed=0),
    )
    assert preference(held, splits.train, splits.val).hits == 0 and preference(held, splits.train, splits.val).p == pytest.approx(1.0)


def test_images_that_are_all_alike_are_one_witness() -> None:
    """Twelve equal images have one nearest image between them; by themselves they say next to nothing, though all twelve have it in train."""
    splits = toy()
    one = random_subset(splits, 1, generator(0))
    many = replace(one, images=one.images[:1].repeat(12, 1, 1, 1), labels=torch.arange(12) % 2)
    found = preference(many, splits.train, splits.val)
    assert found.hits == 12 and found.p == found.least == pytest.approx(40 / 60)


@pytest.mark.parametrize("size", [1, 5, 9])
def test_images_that_train_never_held_pass_however_smooth_they_are(size: int) -> None:
    """The share of false alarms at 5 % over 60 partings of one pool; a comparison with held-out images finds leaks in blurred ones far more often."""
    splits = load("phantom:900")
    pool = torch.cat([splits.train.images, splits.val.images, splits.test.images])
    labels = torch.cat([splits.train.labels, splits.val.labels, splits.test.labels])
    blurred = torch.nn.functional.avg_pool2d(pool.float() / 255, size, stride=1, padding=size // 2, count_include_pad=False)
    alarms, first = 0, random_subset(splits, 4, generator(0))
    for turn in range(60):
        order = torch.randperm(len(pool), generator=generator(turn, "parting"))
        ours, held, train = order[: len(first.labels)], order[40:400], order[400:]
        made = replace(first, images=first.standardisation.apply((255 * blurred[ours]).round().to(torch.uint8)), labels=labels[ours])
        alarms += preference(made, Train(pool[train], labels[train]), Validation(pool[held], labels[held])).p <= 0.05
    assert alarms <= stats.binom(60, 0.05).isf(1e-3)


def test_a_trace_of_train_is_found_in_noise_that_hides_it_from_the_eye() -> None:
    splits = load("phantom:900")
    copies = random_subset(splits, 30, generator(0))
    noise = torch.randn(copies.images.shape, generator=generator(1))
    found = preference(replace(copies, images=copies.images + noise), splits.train, splits.val)
    assert found.p < 1e-3
    assert nearness(replace(copies, images=copies.images + noise), splits.train, splits.val).medians[0] > 0.1
    with pytest.raises(DataError, match="cannot be compared"):
        preference(random_subset(toy(), 2, generator(0)), splits.train, splits.val)


def test_copies_are_judged_beside_those_that_the_source_holds_anyway() -> None:
    """Two copies of two are found where one held-out image in fifty is one, and one of twenty is not; sources repeat pictures."""
    usual = (0.0,) * 10 + (0.1,) * 490
    of = lambda ours: fidelity.Nearness(ours, usual, ours, usual)  # noqa: E731
    assert of((0.0, 0.001)).copies == (2, 10) and of((0.0, 0.001)).copies_p == pytest.approx(12 * 11 / (502 * 501))
    assert of((0.0,) + (0.1,) * 19).copies_p == pytest.approx(1 - float(stats.hypergeom(520, 11, 20).pmf(0))) and of((0.0,) + (0.1,) * 19).copies_p > 0.3
    assert of((0.1, 0.2)).copies_p == 1.0


def test_nearer_is_the_mann_whitney_share() -> None:
    found = fidelity.Nearness((0.1, 0.2, 0.2, 0.5), (0.2, 0.3, 0.4), (0.2, 0.1, 0.2, 0.5), (0.2, 0.2, 0.8))
    u = stats.mannwhitneyu(found.held_out, found.synthetic).statistic
    assert found.nearer == pytest.approx(u / 12) and found.medians == pytest.approx((0.2, 0.3))
    ratios = [0.5, 2.0, 1.0, 1.0], [1.0, 1.5, 0.5]
    assert found.closer == pytest.approx(stats.mannwhitneyu(ratios[1], ratios[0]).statistic / 12)


def test_the_null_is_spaced_through_the_split() -> None:
    splits = toy()
    found = nearness(random_subset(splits, 2, generator(0)), splits.train, splits.val, most=10)
    assert found.held_out == pytest.approx(brute(splits.val.images[::4].float() / 255, splits.train.images), abs=1e-7)
    for at, one in zip(range(0, 40, 4), found.held_out_to_others, strict=True):
        others = torch.cat([splits.val.images[:at], splits.val.images[at + 1 :]])
        assert brute(splits.val.images[at : at + 1].float() / 255, others) == pytest.approx([one], abs=1e-7)
    assert nearest_distance(splits.val.images[:1].float() / 255, splits.val.images[:1], [0]) == [float("inf")]
    other = Validation(torch.zeros(2, 1, 9, 9, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="cannot be compared"):
        nearness(random_subset(splits, 2, generator(0)), splits.train, other)


def test_a_network_of_real_data_names_real_images_and_not_swapped_ones() -> None:
    splits, family = toy(), net()
    theta, measured = train_on(family, splits.train, Recipe("adamw", 0.01, "none", 40), SETTINGS, generator(0)), standardisation(splits.train)
    made = random_subset(splits, 8, generator(1))
    guess = family(theta, made.images).argmax(1)
    assert recognised(family, theta, measured, made) == float((guess == made.labels).double().mean()) > 0.9
    assert recognised(family, theta, measured, replace(made, labels=1 - made.labels)) < 0.1
    half = replace(made, labels=torch.where(torch.arange(16) % 2 == 0, made.labels, 1 - made.labels))
    assert recognised(family, theta, measured, half) == pytest.approx(0.5, abs=0.1)


def test_another_standardisation_is_converted() -> None:
    splits, family = toy(), net()
    theta, measured, made = family.initial(generator(0)), standardisation(splits.train), random_subset(splits, 20, generator(1))
    other = Standardisation((0.1,), (0.9,))
    raw = splits.train.images[:40]
    ours, theirs = (replace(made, images=one.apply(raw), labels=splits.train.labels[:40], standardisation=one) for one in (measured, other))
    assert recognised(family, theta, measured, ours) == recognised(family, theta, measured, theirs)
    assert not torch.equal(family(theta, ours.images).argmax(1), family(theta, theirs.images).argmax(1))  # so it matters
    with pytest.raises(DataError, match="its own data"):
        recognised(family, theta, measured, replace(made, images=torch.zeros(40, 1, 9, 9)))


def test_bytes_by_hand() -> None:
    splits = toy()
    found = compactness(random_subset(splits, 2, generator(0)), splits.train)
    assert found.set_bytes == 4 * 64 * 4 + 4 * 8 and found.train_bytes == 80 * 64 + 80 * 8
    assert found.share == pytest.approx(1056 / 5760)
    assert compactness(random_subset(splits, 2, generator(0)), splits.train, other_bytes=1000).set_bytes == 2056


def test_bytes_of_codes_are_those_of_the_codes_and_their_decoder() -> None:
    splits = small_splits()
    made = kmeans_decoded(splits, untrained(VaeConfig(dims=4, width=3), 3, 8, generator(0)), 2, 0)
    soft = torch.full((6, 3), 1 / 3)
    assert made.codes is not None and made.rendering is not None
    held = made.codes.nbytes + sum(value.nbytes for value in made.rendering.shared.values())
    assert compactness(made, splits.train).set_bytes == held + made.labels.nbytes
    assert compactness(replace(made, soft=soft), splits.train).set_bytes == held + made.labels.nbytes + soft.nbytes
