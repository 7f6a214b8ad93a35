"""Structural similarity against scikit-image; copies are nearest in every way of looking; a card says what other eyes than pixels find."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from toy_sets import bright_halves, sealed, toy

from hoptm.arms import first_images
from hoptm.baselines import random_subset
from hoptm.config import configure, generator
from hoptm.data import Split, Splits, Standardisation, Train, Validation, load, standardisation
from hoptm.embeddings import PIXELS
from hoptm.errors import DataError
from hoptm.fidelity import preference, preferred
from hoptm.likeness import Likeness, in_features, structural, to_all, trained_on_both
from hoptm.privacy_card import BY_FEATURES, BY_STRUCTURE, FEW, FOUND, MISSED, MOST, of_set
from hoptm.retrieval import distances
from hoptm.synthetic import SyntheticSet, from_real, provenance


@pytest.mark.parametrize(("channels", "edge"), [(1, 28), (3, 12), (1, 5)])
def test_structural_similarity_is_that_of_scikit_image(channels: int, edge: int) -> None:
    chance = generator(0, "ssim")
    images, real = torch.rand(4, channels, edge, edge, generator=chance), torch.rand(6, channels, edge, edge, generator=chance)
    real[0] = (images[0] + 0.1 * real[0]).clamp(0, 1)
    found = structural(images, real)
    for i, one in enumerate(images):
        for j, other in enumerate(real):
            said = structural_similarity(one.numpy(), other.numpy(), channel_axis=0, data_range=1.0, win_size=min(7, edge))
            assert float(found[i, j]) == pytest.approx(1 - said, abs=1e-5)
    assert int(found[0].argmin()) == 0 and float(structural(images, images).diagonal().abs().max()) < 1e-5


def test_a_change_of_brightness_moves_pixels_more_than_structure() -> None:
    """What structural similarity sees and pixels do not: a darker copy is still the copy."""
    splits = load("phantom:900")
    real = splits.train.images[:200].float() / 255
    dark = 0.6 * real[:5]
    assert structural(dark, real).argmin(dim=1).tolist() == list(range(5))
    assert distances(dark, real).argmin(dim=1).tolist() != list(range(5))


def test_images_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        structural(torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 8, 8))


def test_pixels_as_features_are_the_distances_of_pixels() -> None:
    splits = toy()
    images = random_subset(splits, 3, generator(0))
    shown = images.standardisation.invert(images.images)
    apart = in_features(PIXELS, Standardisation((0.0,), (1.0,)))
    real = splits.train.images.float() / 255
    torch.testing.assert_close(to_all(apart, shown, splits.train.images), distances(shown, real))


def test_features_of_a_network_know_copies_and_treat_both_splits_alike() -> None:
    splits = toy()
    few = splits.train.images[:20]
    found = to_all(trained_on_both(splits.without_test), few.float() / 255, splits.train.images)
    assert found.argmin(dim=1).tolist() == list(range(20)) and float(found.diagonal().max()) < 1e-6
    poisoned = sealed(splits, "test")
    assert torch.equal(found, to_all(trained_on_both(poisoned), few.float() / 255, splits.train.images)), "test images are never read"


def noise(turn: int) -> Splits:
    """Images and labels without any sense, of which a network can only learn which ones it has seen."""
    chance = generator(turn, "noise")
    images, labels = torch.randint(0, 256, (200, 1, 8, 8), generator=chance).to(torch.uint8), torch.randint(0, 2, (200,), generator=chance)
    return replace(toy(), train=Train(images[:100], labels[:100]), val=Validation(images[100:], labels[100:]))


def test_a_network_of_both_splits_keeps_the_size_of_the_test_and_one_of_train_alone_does_not() -> None:
    """Of 20 unseen images half have their nearest in train, where the network treats train and held-out images alike."""
    hits, alone, alarms = 0, 0, 0
    for turn in range(12):
        splits = noise(turn)
        unseen = from_images(splits, torch.randint(0, 256, (20, 1, 8, 8), generator=generator(turn, "unseen")).to(torch.uint8), torch.arange(20) % 2)
        tests = []
        for seen in (splits.without_test, replace(splits, val=Validation(splits.train.images, splits.train.labels)).without_test):
            apart = trained_on_both(seen)
            tests.append(preferred(nearest_by(apart, unseen, splits.train), nearest_by(apart, unseen, splits.val), splits.train, splits.val))
        hits, alone, alarms = hits + tests[0].hits, alone + tests[1].hits, alarms + (tests[0].p <= 0.05)
    assert abs(hits - 120) <= 35 and alarms <= 3
    assert alone < 90, "a network that knows train hides what is near to it"


def test_a_card_says_what_other_eyes_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoptm.likeness._STEPS", 20)
    splits = load("phantom:900")
    config = configure("phantom:900", method="published", ipc=4, seed=3, profile="smoke")
    chosen = first_images(config, splits)
    info = provenance(splits, method="published", ipc=4, seed=3, config=config.as_dict())
    made = from_real(splits, chosen, info)
    dirty = replace(made, images=made.images + 0.3 * torch.randn(made.images.shape, generator=generator(0, "dirt")))
    noise = replace(made, images=torch.randn(made.images.shape, generator=generator(1, "dirt")))
    by_network = trained_on_both(splits.without_test)
    leaks, none = of_set(dirty, splits.without_test, by_network), of_set(noise, splits.without_test, by_network)
    for name in (BY_STRUCTURE, BY_FEATURES):
        assert leaks[name]["verdict of initialisers"] == FOUND, name
        assert leaks[name]["images"] == f"{len(chosen)} of {len(chosen)}" and f"of {len(chosen)}" in leaks[name]["initialisers found at once"]
        assert none[name]["verdict of initialisers"] == MISSED and none[name]["verdict"] in (FEW, MISSED), name
    assert of_set(made, splits.without_test)[BY_FEATURES] == "not compared"
    unnamed = replace(made, info=provenance(splits, method="x", ipc=4, seed=3))
    assert "verdict of initialisers" not in of_set(unnamed, splits.without_test)[BY_STRUCTURE]


def test_a_large_set_is_compared_in_part() -> None:
    splits = toy()
    made = random_subset(splits, 18, generator(0))
    many = replace(made, images=made.images.repeat(4, 1, 1, 1), labels=made.labels.repeat(4))
    said = of_set(many, splits)[BY_STRUCTURE]
    count = int(said["images"].split(" of ")[0])
    assert said["images"] == f"{count} of {len(many.labels)}" and MOST / 2 < count <= MOST


def nearest_by(apart: Likeness, made: SyntheticSet, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    found = to_all(apart, made.standardisation.invert(made.images), split.images).min(dim=1)
    return found.values, found.indices


@pytest.mark.parametrize("apart", [structural, in_features(PIXELS, Standardisation((0.0,), (1.0,)))], ids=["structure", "features"])
def test_the_tests_keep_their_size_by_any_likeness(apart: Likeness) -> None:
    """The distances may be any: of sets that know nothing of how real images were parted one in twenty is called a leak at 5 %, or fewer."""
    splits, alarms = toy(), 0
    for turn in range(60):
        images, labels = bright_halves(12, 100 + turn)
        unseen = from_images(splits, images, labels)
        alarms += preferred(nearest_by(apart, unseen, splits.train), nearest_by(apart, unseen, splits.val), splits.train, splits.val).p <= 0.05
    assert alarms <= stats.binom(60, 0.05).isf(1e-3)
    seen = random_subset(splits, 6, generator(0))
    assert preferred(nearest_by(apart, seen, splits.train), nearest_by(apart, seen, splits.val), splits.train, splits.val).hits == 12


def test_by_pixels_it_is_the_test_of_pixels() -> None:
    splits = toy()
    made = from_images(splits, *bright_halves(12, 7))
    found = preferred(nearest_by(distances, made, splits.train), nearest_by(distances, made, splits.val), splits.train, splits.val)
    assert found == preference(made, splits.train, splits.val)


def from_images(splits: Splits, images: torch.Tensor, labels: torch.Tensor) -> SyntheticSet:
    measured = standardisation(splits.train)
    return SyntheticSet(measured.apply(images), labels, 0.01, measured, provenance(splits, method="x", ipc=1, seed=0))
