"""Fidelity and size, against brute force."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from toy_sets import net, toy

from hoptm import fidelity
from hoptm.baselines import random_subset
from hoptm.config import EvaluationConfig, generator
from hoptm.data import Standardisation, Validation, load, standardisation
from hoptm.errors import DataError
from hoptm.evaluate import Recipe, train_on
from hoptm.fidelity import compactness, nearest_distance, nearness, recognised

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
