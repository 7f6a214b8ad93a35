"""Nothing that chooses or makes a set can read the test split: it raises when it is touched before the last call."""

import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_sets import net, toy

from hoptm import data, embeddings, evaluate, fidelity
from hoptm.baselines import herding, k_centre, k_means, natural_subset, random_subset
from hoptm.card import card
from hoptm.config import EvaluationConfig, NetworkConfig, generator
from hoptm.data import Splits, Train, Validation, standardisation
from hoptm.embeddings import PIXELS, trained_features
from hoptm.evaluate import Recipe, choose_recipe, train_on
from hoptm.matching_baselines import DistributionMatching, GradientMatching, distribution_matching, gradient_matching
from hoptm.results import stored
from hoptm.synthetic import SyntheticSet, from_real, load, provenance

SETTINGS = EvaluationConfig(steps=6, batch=16, networks=1, sgd_lrs=(0.01,), adamw_lrs=(0.002,))
SMALL = NetworkConfig(depth=1, width=8)
DM = DistributionMatching(network=SMALL, iterations=2, batch=16)
DSA = GradientMatching(network=SMALL, iterations=1, rounds=2, network_steps=1, batch=16)


class Poisoned(data.Test):
    """A test split that cannot be looked at while `shut`: not its images, not its labels, not how many there are."""

    shut = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "labels", "__dict__") and Poisoned.shut:
            raise AssertionError(f"the test split was touched: {name}")
        return super().__getattribute__(name)


@pytest.fixture
def splits() -> Iterator[Splits]:
    made = toy(Poisoned)
    Poisoned.shut = True
    yield made
    Poisoned.shut = False


WAYS: dict[str, Any] = {
    "random": lambda splits: random_subset(splits, 2, generator(0)),
    "natural": lambda splits: natural_subset(splits, 2, generator(0)),
    "named": lambda splits: from_real(splits, torch.tensor([0, 1]), provenance(splits, method="start", ipc=1, seed=0)),
    "herding": lambda splits: herding(splits, 2, PIXELS),
    "k-centre": lambda splits: k_centre(splits, 2, PIXELS),
    "k-means": lambda splits: k_means(splits, 2, PIXELS, generator(0)),
    "herding in a trained network": lambda splits: herding(
        splits, 2, trained_features(net(), splits.train, Recipe("adamw", 0.01, "dsa", 4), SETTINGS, generator(0))
    ),
    "distribution matching": lambda splits: distribution_matching(splits, 2, DM, 0),
    "gradient matching": lambda splits: gradient_matching(splits, 2, replace(DSA, augmentation="none"), 0),
    "siamese gradient matching": lambda splits: gradient_matching(splits, 2, DSA, 0),
}


def test_the_poison_works(splits: Splits) -> None:
    for touch in (lambda: splits.test.images, lambda: splits.test.labels, lambda: len(splits.test), lambda: splits.test == 0 or vars(splits.test)):
        with pytest.raises(AssertionError, match="touched"):
            touch()


@pytest.mark.parametrize("way", WAYS)
def test_a_set_is_made_chosen_and_judged_without_test_until_the_last_call(way: str, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    made: SyntheticSet = WAYS[way](splits)
    assert len(made.labels) in (2, 4) and card(made).text
    recipe, tried = choose_recipe(net(), made, splits.val, SETTINGS, 0)
    assert len(tried) == 3
    fidelity.nearness(made, splits.train, splits.val)
    fidelity.compactness(made, splits.train)
    with pytest.raises(AssertionError, match="touched"):  # so the last call does read it
        evaluate.evaluate(net(), made, splits.val, splits.test, SETTINGS, 100, recipe)
    train, trained = evaluate._train, []

    def counted(*words: Any) -> torch.Tensor:
        trained.append(train(*words))
        Poisoned.shut = False  # the only network of the last call is trained
        return trained[-1]

    monkeypatch.setattr(evaluate, "_train", counted)
    found = evaluate.evaluate(net(), made, splits.val, splits.test, SETTINGS, 100, recipe)
    assert len(trained) == 1 and len(found.scores) == 1


def test_stored_selections_were_made_on_validation(splits: Splits) -> None:
    """A stored set says by what it was selected, and neither reading nor showing nor choosing a recipe for it needs test."""
    paths = sorted(stored("distilled").glob("*.safetensors"))
    assert paths
    for path in paths:
        made = load(path)
        looks = made.info["selection"]
        assert looks and all(set(look) <= {"iteration", "accuracy", "balanced_accuracy", "auc"} for look in looks)
        every = made.info["config"]["match"]["validate_every"]
        assert [look["iteration"] for look in looks] == [every * (at + 1) for at in range(len(looks))]
        assert card(made).looks


def test_types_keep_test_out_of_what_chooses() -> None:
    """What is learned from is a Train, what is chosen by a Validation; the functions name them, and the types do not mix."""
    assert typing.get_type_hints(choose_recipe)["validation"] is Validation
    for function in (train_on, embeddings.embed_train, embeddings.trained_features, fidelity.nearness, standardisation):
        hints = typing.get_type_hints(function)
        assert hints["train"] is Train and data.Test not in hints.values() and Splits not in hints.values()
    whole = toy()
    for wrong in (whole.test, whole.val):
        with pytest.raises(TypeError):
            train_on(net(), wrong, Recipe("sgd", 0.01, "none", 1), SETTINGS, generator(0))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            embeddings.embed_train(wrong, PIXELS)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        fidelity.nearness(random_subset(whole, 2, generator(0)), whole.train, whole.test)  # type: ignore[arg-type]
