"""Nothing that chooses or makes a set can read the test split: it raises when it is touched before the last call."""

import importlib
import inspect
import pickle
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_data_real import loaded
from toy_sets import net, sealed, toy

import hoptm
from hoptm import arms, audit, audit_plan, cost, data, embeddings, evaluate, experts, fidelity, leaf, pipelines, runs, search
from hoptm import baselines as real_sets
from hoptm.baselines import herding, k_centre, k_means, natural_subset, random_subset
from hoptm.card import card
from hoptm.config import EvaluationConfig, NetworkConfig, configure, from_dict, generator
from hoptm.data import Selectable, Splits, Train, Validation, single_label, standardisation
from hoptm.distill import distill
from hoptm.embeddings import PIXELS, trained_features
from hoptm.evaluate import Recipe, choose_recipe, train_network, train_on
from hoptm.matching_baselines import DistributionMatching, GradientMatching, distribution_matching, gradient_matching
from hoptm.networks import network
from hoptm.results import stored
from hoptm.scores import predict, score
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


def test_stored_selections_have_the_form_of_looks_at_validation(splits: Splits) -> None:
    """Names and iterations of all stored looks; that the numbers are those of validation is checked below, for the look that a set was kept for."""
    paths = sorted(stored("distilled").glob("*.safetensors"))
    assert paths
    for path in paths:
        made = load(path)
        looks = made.info["selection"]
        assert looks and all(set(look) <= {"iteration", "accuracy", "balanced_accuracy", "auc"} for look in looks)
        every = made.info["config"]["match"]["validate_every"]
        assert [look["iteration"] for look in looks] == [every * (at + 1) for at in range(len(looks))]
        assert card(made).looks


@pytest.mark.parametrize("name", ["tuned-endpoint", "tuned-published", "fast-endpoint"])
def test_the_look_that_a_stored_set_was_kept_for_was_at_validation(name: str) -> None:
    """Made again from the file and the validation split, with test shut: the stored scores come out, up to the bits of another CPU.

    The images in a file are those of the best look, so this one can be repeated. Scores on test would differ by more.
    """
    whole = loaded("pneumoniamnist")
    made, splits = load(stored("distilled") / f"pneumoniamnist-{name}-ipc1-seed0.safetensors"), sealed(whole, "test")
    config = from_dict(made.info["config"])
    judged, family = config.evaluation, network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    recipe = Recipe("adamw", judged.adamw_lrs[len(judged.adamw_lrs) // 2], config.match.look or config.match.augmentation, judged.steps)
    theta = train_network(family, made.images, made.labels, recipe, judged, generator(config.seed, "validation look"))
    best = max(made.info["selection"], key=lambda look: look[judged.select_by])
    measured = lambda split: score(predict(family, theta, made.standardisation, split.images), split.labels)  # noqa: E731
    again, elsewhere = measured(splits.val), measured(whole.test)
    for key in ("accuracy", "balanced_accuracy", "auc"):
        assert getattr(again, key) == pytest.approx(best[key], abs=0.005), key
    assert max(abs(getattr(elsewhere, key) - best[key]) for key in ("accuracy", "balanced_accuracy", "auc")) > 0.01


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


# ---- who may name the test split at all --------------------------------------------------------------------------

JUDGES = {
    "evaluate.evaluate", "evaluate.full_data", "exports.judged", "audit.run", "audit._one",
    "data_plots.parts", "data_plots.class_shares", "data_plots.grey_levels", "data.Splits", "data.Splits.__init__",
}  # fmt: skip
"""Final judgement, figures of all three splits, and the type itself. Everything else of the package names neither `Splits` nor `Test`."""

SELECTING: dict[str, Callable[..., Any]] = {
    "distill.distill": distill, "experts.experts": experts.experts, "search.search": search.search, "search.validation_score": search.validation_score,
    "arms.arm": arms.arm, **{f"arms.{name}": made for name, made in arms.ARMS.items()}, "arms.first_images": arms.first_images, "arms.budget": arms.budget,
    "baselines.random_subset": real_sets.random_subset, "baselines.select": real_sets.select, "leaf.leaf": leaf.leaf,
    "matching_baselines.distribution_matching": distribution_matching, "matching_baselines.gradient_matching": gradient_matching,
    "runs.make": runs.make, "audit.match_dp_sgd": audit.match_dp_sgd, "audit_plan.plan": audit_plan.plan, "audit_plan.shadow_of": audit_plan.shadow_of,
    "cost.arm_seconds": cost.arm_seconds,
}  # fmt: skip
"""What learns or selects, by name: each takes a `Selectable` as its splits."""


def names_test(hint: Any) -> bool:
    """Whether a type hint holds `Splits` or `Test`, however deep."""
    if isinstance(hint, list | tuple):
        return any(map(names_test, hint))
    return hint in (Splits, data.Test) or any(map(names_test, typing.get_args(hint)))


def annotated() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every function, method, class and alias of the package, with the hints of its parameters or fields."""
    for module in (importlib.import_module(f"hoptm.{found.name}") for found in pkgutil.iter_modules(hoptm.__path__) if found.name != "__main__"):
        short = module.__name__.removeprefix("hoptm.")
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) == module.__name__ and (inspect.isfunction(thing) or inspect.isclass(thing)):
                yield f"{short}.{name}", typing.get_type_hints(thing)
                methods = vars(thing).items() if inspect.isclass(thing) else ()
                yield from ((f"{short}.{name}.{key}", typing.get_type_hints(one)) for key, one in methods if inspect.isfunction(one))
            elif typing.get_origin(thing) is not None:
                yield f"{short}.{name}", {name: thing}


def test_only_what_judges_names_the_test_split() -> None:
    """Annotations that name no `Splits` and no `Test` let mypy refuse `.test` in all that learns or selects."""
    every = dict(annotated())
    assert len(every) > 500 and {"distill.distill", "pipelines.Shadow", "arms.Make"} <= set(every)
    found = {name for name, hints in every.items() if any(names_test(hint) for key, hint in hints.items() if key != "return")}
    assert found == JUDGES


@pytest.mark.parametrize("name", SELECTING)
def test_what_learns_or_selects_takes_a_selectable(name: str) -> None:
    hints = typing.get_type_hints(SELECTING[name])
    assert hints["splits"] is Selectable and not any(names_test(hint) for key, hint in hints.items() if key != "return")
    assert "test" not in typing.get_type_hints(Selectable) and issubclass(Splits, Selectable)
    assert typing.get_type_hints(pipelines.Shadow)["splits"] is Selectable


def test_splits_hand_over_what_has_no_test(splits: Splits) -> None:
    seen = splits.without_test
    assert type(seen) is Selectable and not hasattr(seen, "test") and not any(part is splits.test for part in vars(seen).values())
    assert (seen.train, seen.val, seen.info) == (splits.train, splits.val, splits.info) and seen.without_test.train is splits.train
    assert (seen.channels, seen.classes, seen.size) == (splits.channels, splits.classes, splits.size)
    assert single_label(seen) is seen and single_label(splits) is splits


def test_both_kinds_can_be_sent_to_another_process_and_changed() -> None:
    for whole in (toy(), toy().without_test):
        again = pickle.loads(pickle.dumps(whole))
        assert type(again) is type(whole) and bool((again.train.images == whole.train.images).all()) and again.info == whole.info
        shorter = replace(whole, train=Train(whole.train.images[:4], whole.train.labels[:4]))
        assert type(shorter) is type(whole) and len(shorter.train) == 4 and shorter.val is whole.val
    assert len(toy().test) == len(pickle.loads(pickle.dumps(toy())).test) == 60
    with pytest.raises(Exception, match=r"(?i)train"):
        Selectable(toy().val, toy().val, toy().info)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"(?i)test"):
        Splits(toy().train, toy().val, toy().val, toy().info)  # type: ignore[arg-type]


def test_callers_with_all_splits_hand_on_what_has_no_test(splits: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cell of a comparison, a trial of a search, a shadow of an audit, a row of a matrix get a `Selectable`: they could not read test if they would."""
    given: list[type] = []
    looks = SimpleNamespace(synthetic=SimpleNamespace(info={"selection": [{"auc": 0.5}]}))

    def noted(result: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **others: Any) -> Any:
            given.extend(type(word) for word in words if isinstance(word, Selectable))
            return result(*words)

        return call

    config = configure("halves", method="endpoint", ipc=1, seed=0, profile="smoke")
    monkeypatch.setattr(runs, "arm", noted(arms.arm))
    for name in ("distill", "experts"):
        monkeypatch.setattr(search, name, noted(lambda *words: looks))
    runs.make(config, splits, "random", tmp_path / "state")
    search.search("halves", "endpoint", 1, splits, tmp_path / "journal", trials=1, profile="smoke", base={"experts": {"epochs": 10}})
    settings = pipelines.AuditSettings(pool=60, ipc=1, canary_initialisers=0, canaries=0, shadows=4)
    shadow = audit_plan.shadow_of(splits, audit_plan.plan(splits, settings), 0)
    assert given == [Selectable] * 3 and type(shadow.splits) is Selectable

    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parent.parent / "data"), *sys.path])
    for script, further in (("make_transfer", ()), ("make_imbalance", (1.0,))):
        module = importlib.import_module(script)
        monkeypatch.setattr(module, "RECORDS", tmp_path)
        for name in ("arm", "distill", "experts"):
            monkeypatch.setattr(module, name, noted(lambda *words: looks))
        given.clear()
        for name in ("random", "endpoint"):
            module.made(name, config, splits, *further)
        assert given == [Selectable] * 3, script
