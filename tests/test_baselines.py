"""Sets of real images: each against its definition, written out here in another way."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from toy_sets import INFO, bright_halves, net, toy

from hoptm import baselines, data
from hoptm.baselines import herding, k_centre, k_means, natural_subset, random_subset
from hoptm.config import EvaluationConfig, generator
from hoptm.data import Splits, Train, Validation, standardisation
from hoptm.embeddings import PIXELS, Features, embed_train, embedding, trained_features
from hoptm.errors import DataError
from hoptm.evaluate import Recipe, train_network, train_on
from hoptm.synthetic import SyntheticSet

SETTINGS = EvaluationConfig(steps=20, batch=16, networks=1)
RECIPE = Recipe("adamw", 0.01, "none", 20)


def rows_of(made: SyntheticSet, splits: Splits) -> list[int]:
    """Which training images a set holds; every image of the toy is one of a kind."""
    real = standardisation(splits.train).apply(splits.train.images).flatten(1)
    distance = torch.cdist(made.images.flatten(1).double(), real.double())
    assert float(distance.min(dim=1).values.max()) < 1e-5
    return [int(row) for row in distance.argmin(dim=1)]


def class_features(splits: Splits, label: int) -> tuple[np.ndarray, np.ndarray]:
    rows = torch.nonzero(splits.train.labels == label).flatten()
    return rows.numpy(), embed_train(splits.train, PIXELS)[rows].numpy()


def test_herding_brings_the_running_mean_nearest_to_the_class_mean() -> None:
    """At unit length the argmax of the inner product is the image that leaves the smallest distance between the means."""
    splits = toy()
    found = rows_of(herding(splits, 5, PIXELS), splits)
    for label in (0, 1):
        rows, features = class_features(splits, label)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        taken: list[int] = []
        for _ in range(5):
            gaps = [np.inf if at in taken else np.linalg.norm(unit.mean(0) - unit[[*taken, at]].mean(0)) for at in range(len(unit))]
            taken.append(int(np.argmin(gaps)))
        assert found[5 * label : 5 * label + 5] == rows[taken].tolist()


def test_herding_beats_chance_at_the_class_mean() -> None:
    splits = toy()

    def gap(made: SyntheticSet) -> float:
        rows, features = class_features(splits, 0)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        chosen = [list(rows).index(row) for row in rows_of(made, splits) if row in rows]
        return float(np.linalg.norm(unit[chosen].mean(0) - unit.mean(0)))

    drawn = [gap(random_subset(splits, 8, generator(seed))) for seed in range(20)]
    assert gap(herding(splits, 8, PIXELS)) < min(drawn)


def test_k_centre_is_farthest_first_and_within_twice_the_best_radius() -> None:
    splits = toy()
    found = rows_of(k_centre(splits, 4, PIXELS), splits)
    for label in (0, 1):
        rows, features = class_features(splits, label)
        distance = np.linalg.norm(features[:, None] - features[None], axis=2)
        taken = [int(np.argmin(np.linalg.norm(features - features.mean(0), axis=1)))]
        for _ in range(3):
            taken.append(int(np.argmax([min(distance[at, one] for one in taken) if at not in taken else -1 for at in range(len(rows))])))
        assert found[4 * label : 4 * label + 4] == rows[taken].tolist()
        radius = distance[:, taken].min(axis=1).max()
        chance = np.random.default_rng(0)
        others = [distance[:, chance.choice(len(rows), 4, replace=False)].min(axis=1).max() for _ in range(200)]
        assert radius <= 2 * min(others)


def clusters() -> Splits:
    """Each class in three tight groups of grey, nine images a group."""
    chance = torch.Generator().manual_seed(0)
    levels, labels = [10, 100, 200, 60, 160, 230], [0, 0, 0, 1, 1, 1]
    images = torch.cat([torch.randint(level, level + 12, (9, 1, 8, 8), generator=chance) for level in levels]).to(torch.uint8)
    kinds = torch.tensor(labels).repeat_interleave(9)
    return Splits(Train(images, kinds), Validation(images[:2], kinds[:2]), data.Test(images[:2], kinds[:2]), INFO)


def test_k_means_takes_the_real_image_nearest_to_each_centre() -> None:
    splits = clusters()
    found = sorted(rows_of(k_means(splits, 3, PIXELS, generator(1)), splits))
    features = embed_train(splits.train, PIXELS).numpy()
    expected = []
    for group in range(6):  # each group's own mean is its centre
        own = features[9 * group : 9 * group + 9]
        expected.append(9 * group + int(np.argmin(np.linalg.norm(own - own.mean(0), axis=1))))
    assert found == expected
    fitted = KMeans(3, n_init=10, random_state=3).fit(features[:27])
    assert sorted(int(np.argmin(np.linalg.norm(features[:27] - centre, axis=1))) for centre in fitted.cluster_centers_) == expected[:3]


def test_centres_do_not_share_an_image() -> None:
    distance = torch.tensor([[0.0, 1.0, 2.0], [0.1, 0.9, 0.2], [0.0, 0.5, 0.4]])
    assert baselines._nearest_each(distance).tolist() == [0, 2, 1]


def test_equal_images_are_not_chosen_twice() -> None:
    images, labels = torch.full((12, 1, 8, 8), 7, dtype=torch.uint8), torch.arange(12) % 2
    same = Splits(Train(images, labels), Validation(images, labels), data.Test(images, labels), INFO)
    every = torch.zeros(6, 3, dtype=torch.float64)
    for choose in (baselines.herd, baselines._spread):
        assert sorted(choose(every, 6).tolist()) == list(range(6))
    assert len(k_centre(same, 6, PIXELS).labels) == 12


def test_natural_images_have_the_mix_of_the_classes_and_none_is_missing() -> None:
    splits = toy(rare=8)  # one in eight is of class 1
    ones = []
    for seed in range(60):
        made = natural_subset(splits, 8, generator(seed), seed=seed)
        assert len(made.labels) == 16 == len(set(rows_of(made, splits))) and made.info["method"] == "natural" and made.info["ipc"] == 8
        ones.append(int((made.labels == 1).sum()))
    assert min(ones) >= 1
    expected = 1 + 14 * 9 / 78  # one for certain, then 14 of the 78 that are left, of which 9 are of class 1
    assert abs(np.mean(ones) - expected) < 4 * np.std(ones) / math.sqrt(60)


@pytest.mark.parametrize("choose", [herding, k_centre])
def test_a_choice_without_chance_is_the_same_twice(choose: Any) -> None:
    splits = toy()
    first, again = choose(splits, 3, PIXELS, seed=4, lr=0.02), choose(splits, 3, PIXELS)
    assert torch.equal(first.images, again.images) and first.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert first.info["seed"] == 4 and first.lr == 0.02 and first.info["config"] == {"features": "standardised pixels"}
    assert len(set(rows_of(first, splits))) == 6


def test_chance_comes_from_the_generator() -> None:
    splits = toy()
    for make in (lambda seed: k_means(splits, 3, PIXELS, generator(seed)), lambda seed: natural_subset(splits, 3, generator(seed))):
        first, again = make(0), make(0)
        assert torch.equal(first.images, again.images)
        assert any(not torch.equal(first.images, make(seed).images) for seed in range(1, 6))


def test_budgets_that_cannot_be_met_are_refused() -> None:
    splits = toy(rare=20)  # four images of class 1
    for make in (herding, k_centre):
        with pytest.raises(DataError, match="class 1 has 4"):
            make(splits, 5, PIXELS)
    with pytest.raises(DataError, match="class 1 has 4"):
        k_means(splits, 5, PIXELS, generator(0))
    with pytest.raises(DataError, match="train has 80"):
        natural_subset(splits, 41, generator(0))
    with pytest.raises(DataError, match="1 or more"):
        natural_subset(splits, 0, generator(0))


# ---- feature spaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["convnet", "resnet", "vgg", "mlp", "vit"])
def test_an_embedding_is_what_the_classifier_reads(family: str) -> None:
    family_net = net(family=family, depth=1 if family == "convnet" else 2)
    theta, images = family_net.initial(generator(0)), torch.randn(5, 1, 8, 8, generator=generator(1))
    features = embedding(family_net)(theta, images)
    sizes = family_net.layout.sizes
    bias, weight = theta[-2:], theta[-2 - sizes[-2] : -2].view(2, -1)
    torch.testing.assert_close(features @ weight.T + bias, family_net(theta, images))


def test_a_trained_embedding_has_seen_train_alone() -> None:
    splits, family = toy(), net()
    features = trained_features(family, splits.train, RECIPE, SETTINGS, generator(0))
    theta = train_network(family, standardisation(splits.train).apply(splits.train.images), splits.train.labels, RECIPE, SETTINGS, generator(0))
    torch.testing.assert_close(theta, train_on(family, splits.train, RECIPE, SETTINGS, generator(0)))
    found = embed_train(splits.train, features)
    assert found.dtype == torch.float64 and found.shape == (80, 8 * 16) and not found.requires_grad
    expected = embedding(family)(theta, standardisation(splits.train).apply(splits.train.images))
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)
    made = herding(splits, 2, features)
    assert made.info["config"]["features"] == "convnet of depth 1 and width 8, trained on train: adamw 0.01, 20 steps"


def test_features_of_another_form_are_refused() -> None:
    train = toy().train
    with pytest.raises(DataError, match="one row an image"):
        embed_train(train, Features("maps", lambda images: images))
    with pytest.raises(DataError, match="finite"):
        embed_train(train, Features("broken", lambda images: images.flatten(1) / 0))
    images, _ = bright_halves(8, 0)
    with pytest.raises(DataError, match="multi-label"):
        train_on(net(), Train(images, torch.ones(8, 2, dtype=torch.int64)), RECIPE, SETTINGS, generator(0))
