"""Evaluation: training, scores, choosing on validation only, intervals."""

import json
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from hoptm import data, records, scores
from hoptm import evaluate as module
from hoptm.baselines import random_subset
from hoptm.config import EvaluationConfig, NetworkConfig, generator
from hoptm.data import Info, Splits, Train, Validation, standardisation
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.evaluate import Recipe, choose_recipe, evaluate, full_data, train_network
from hoptm.intervals import bootstrap_interval, compare, interval, paired_interval
from hoptm.networks import Network, network
from hoptm.scores import predict, score
from hoptm.synthetic import SyntheticSet

SETTINGS = EvaluationConfig(steps=40, batch=16, networks=2, sgd_lrs=(0.01,), adamw_lrs=(0.002,), select_by="accuracy")


def bright_halves(count: int, seed: int, margin: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise whose upper half (class 0) or lower half (class 1) is brighter by `margin`."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=chance)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 4 * label : 4 * label + 4] += margin
    return images.to(torch.uint8), labels


def toy(augmentations: tuple[str, ...] = ("none", "dsa"), margin: int = 80) -> Splits:
    info = Info("halves", "Bright halves", ("up", "down"), "binary-class", "CC0", "made here", "sha256:00", "", augmentations)
    return Splits(Train(*bright_halves(80, 1, margin)), Validation(*bright_halves(40, 2, margin)), data.Test(*bright_halves(60, 3, margin)), info)


def net(classes: int = 2) -> Network:
    return network(NetworkConfig(depth=1, width=8), channels=1, classes=classes, size=8)


def small(splits: Splits, seed: int = 0) -> SyntheticSet:
    return random_subset(splits, 4, generator(seed, "random images"), seed=seed)


# ---- training -------------------------------------------------------------------------------------------------


def test_a_separable_set_is_learned() -> None:
    splits = toy()
    found = evaluate(net(), small(splits), splits.val, splits.test, SETTINGS, 0)
    assert found.mean("accuracy") > 0.95 and found.mean("auc") > 0.95 and len(found.scores) == 2
    wrong = replace(small(splits), labels=1 - small(splits).labels)
    assert evaluate(net(), wrong, splits.val, splits.test, SETTINGS, 0, recipe=found.recipe).mean("accuracy") < 0.05


def test_a_step_that_the_machine_has_no_memory_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted before anything is allocated: four times the parameters, and what each image leaves in the layers."""
    made, recipe = small(toy()), Recipe("adamw", 0.01, "none", 2)
    needed = 4 * (4 * net().layout.size + len(made.labels) * net().held)
    for there, enough in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(records, "best_device", lambda: "cpu")
        monkeypatch.setattr(records.os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": there}.__getitem__)
        if enough:
            train_network(net(), made.images, made.labels, recipe, SETTINGS, generator(0))
        else:
            with pytest.raises(ConfigError, match=r"a training step of this network on 8 images takes .* GB of memory or more"):
                train_network(net(), made.images, made.labels, recipe, SETTINGS, generator(0))


def test_a_wide_network_sees_fewer_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    splits, seen = toy(), []
    made, theta = small(splits), net().initial(generator(0))
    whole = predict(net(), theta, made.standardisation, splits.test.images)
    monkeypatch.setattr(scores, "_HELD", 7 * net().held + 1)
    monkeypatch.setattr(Network, "__call__", counting(Network.__call__, seen))
    assert torch.allclose(predict(net(), theta, made.standardisation, splits.test.images), whole) and max(seen) == 7 and sum(seen) == 60


def counting(call: Callable[..., torch.Tensor], seen: list[int]) -> Callable[..., torch.Tensor]:
    def counted(self: Network, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return call(self, theta, images)

    return counted


def test_full_data_is_learned_and_gets_enough_steps() -> None:
    splits = toy()
    found = full_data(net(), splits, SETTINGS, 0)
    assert found.recipe.steps == 40 and found.mean("accuracy") > 0.95  # five epochs would be 25 steps
    assert full_data(net(), splits, replace(SETTINGS, steps=3, networks=1), 0).recipe.steps == 25
    assert full_data(net(), splits, SETTINGS, 0, steps=41, recipe=Recipe("sgd", 0.01, "none", 41)).tried == ()
    with pytest.raises(ConfigError, match="fewer than"):
        full_data(net(), splits, SETTINGS, 0, steps=39)


def test_one_seed_gives_the_same_bits() -> None:
    splits = toy(margin=8)
    first, again, other = (evaluate(net(), small(splits), splits.val, splits.test, SETTINGS, seed).as_dict() for seed in (5, 5, 6))
    assert json.dumps(first) == json.dumps(again) and first != other
    made, recipe = small(splits), Recipe("adamw", 0.01, "dsa", 7)
    thetas = [train_network(net(), made.images, made.labels, recipe, SETTINGS, generator(seed, "x")) for seed in (0, 0, 1)]
    assert torch.equal(thetas[0], thetas[1]) and not torch.equal(thetas[0], thetas[2])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_training_is_the_textbook_update_with_one_drop(optimiser: str) -> None:
    """Against updates written out here; the batch is the whole set, so its order does not matter."""
    splits, settings, lr, steps = toy(), replace(SETTINGS, momentum=0.8, weight_decay=0.05), 0.02, 7
    made, family = small(splits), net()
    theta = family.initial(generator(1, "x")).requires_grad_()
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, steps + 1):
        rate = lr if step <= steps // 2 else lr / 10
        (gradient,) = torch.autograd.grad(F.cross_entropy(family(theta, made.images), made.labels), theta)
        with torch.no_grad():
            if optimiser == "sgd":
                first = settings.momentum * first + gradient + settings.weight_decay * theta
                theta = (theta - rate * first).requires_grad_()
            else:
                first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
                moved = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                theta = (theta * (1 - rate * settings.weight_decay) - rate * moved).requires_grad_()
    found = train_network(family, made.images, made.labels, Recipe(optimiser, lr, "none", steps), settings, generator(1, "x"))
    for pixels in (made.images, torch.randn(20, 1, 8, 8, generator=generator(2))):
        torch.testing.assert_close(family(found, pixels), family(theta.detach(), pixels), rtol=1e-3, atol=1e-3)


def test_arms_share_their_initial_networks() -> None:
    splits, still = toy(), Recipe("sgd", 1e-12, "dsa", 1)
    arms = [small(splits, seed) for seed in (0, 1)]
    thetas = [train_network(net(), arm.images, arm.labels, still, SETTINGS, generator(3, "evaluation", 0)) for arm in arms]
    assert not torch.equal(arms[0].images, arms[1].images)
    torch.testing.assert_close(thetas[0], thetas[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(thetas[0], net().initial(generator(3, "evaluation", 0)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (10, 10), (7, 3)])
def test_batches_run_through_permutations(count: int, batch: int) -> None:
    found = list(module._batches(count, batch, 2 * count, torch.Generator().manual_seed(0)))
    assert [len(chosen) for chosen in found] == [batch] * (2 * count)
    stream = torch.cat(found)[: count * (2 * batch)].reshape(-1, count)
    assert (stream.sort(dim=1).values == torch.arange(count)).all() and not (stream[0] == stream[1]).all()


def test_divergence_is_an_error_with_advice() -> None:
    made = small(toy())
    with pytest.raises(DivergedError, match="smaller step size"):
        train_network(net(), made.images * 1e30, made.labels, Recipe("sgd", 1e30, "none", 5), SETTINGS, generator(0))


@pytest.mark.parametrize("changes", [{"optimiser": "adam"}, {"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr": math.inf}, {"steps": 0}])
def test_a_recipe_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Recipe(**{"optimiser": "sgd", "lr": 0.01, "augmentation": "none", "steps": 1, **changes})


# ---- scores ---------------------------------------------------------------------------------------------------


def pairs_in_order(scores: list[float], positive: list[bool]) -> float:
    """AUC by its meaning: the share of positive-negative pairs in the right order, ties half."""
    ups = [value for value, is_positive in zip(scores, positive, strict=True) if is_positive]
    downs = [value for value, is_positive in zip(scores, positive, strict=True) if not is_positive]
    return sum((up > down) + 0.5 * (up == down) for up in ups for down in downs) / (len(ups) * len(downs))


def test_binary_scores_by_hand() -> None:
    positive = [0.9, 0.4, 0.35, 0.8, 0.1, 0.35]
    labels = torch.tensor([1, 1, 1, 0, 0, 0])
    found = score(torch.tensor([[1 - value, value] for value in positive]), labels)
    assert found.accuracy == pytest.approx(3 / 6) and found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found.recall == pytest.approx((2 / 3, 1 / 3))
    assert found.auc == pytest.approx((3 + 2 + 1.5) / 9)  # pairs in order for .9, .4 and .35; the last ties once


def test_three_class_scores_by_hand() -> None:
    chance = torch.Generator().manual_seed(0)
    probabilities = torch.rand(40, 3, generator=chance).softmax(dim=1)
    labels = torch.randint(0, 3, (40,), generator=chance)
    found, guess = score(probabilities, labels), probabilities.argmax(dim=1)
    recall = [float((guess[labels == label] == label).float().mean()) for label in range(3)]
    areas = [pairs_in_order(probabilities[:, label].tolist(), (labels == label).tolist()) for label in range(3)]
    assert found.accuracy == pytest.approx(float((guess == labels).float().mean()))
    assert found.recall == pytest.approx(recall) and found.balanced_accuracy == pytest.approx(np.mean(recall))
    assert found.auc == pytest.approx(np.mean(areas))


def test_an_absent_class_takes_no_part() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]], dtype=torch.float64)
    found = score(probabilities, torch.tensor([0, 2, 0, 2]))
    assert found.recall == (1.0, None, 0.5) and found.balanced_accuracy == 0.75 and found.accuracy == 0.75
    assert found.auc == pytest.approx((1.0 + 0.75) / 2)


def test_undefined_scores_are_errors() -> None:
    even = torch.full((3, 2), 0.5)
    with pytest.raises(DataError, match="two or more"):
        score(even, torch.tensor([1, 1, 1]))
    with pytest.raises(DataError, match=r"0 \.\. 1"):
        score(even, torch.tensor([0, 1, 2]))
    with pytest.raises(DivergedError, match="finite"):
        score(even * math.nan, torch.tensor([0, 1, 1]))


def test_prediction_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    splits, family = toy(), net()
    theta, measured = family.initial(generator(0)), standardisation(splits.train)
    whole = predict(family, theta, measured, splits.val.images)
    expected = family(theta, measured.apply(splits.val.images)).double().softmax(dim=1)
    monkeypatch.setattr(scores, "_CHUNK", 7)
    assert whole.dtype == torch.float64 and not whole.requires_grad
    torch.testing.assert_close(whole, expected.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(predict(family, theta, measured, splits.val.images), whole, rtol=0, atol=1e-6)


def test_near_certain_images_keep_their_order() -> None:
    logits = torch.tensor([[0.0, 20.0], [0.0, 25.0], [0.0, 30.0]])
    assert len(set(logits.softmax(dim=1)[:, 1].tolist())) == 1  # single precision cannot tell them apart

    class Fixed(Network):
        def __call__(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
            return logits[: len(images)]

    family = net()
    fixed = object.__new__(Fixed)
    fixed.__dict__.update(family.__dict__)
    splits = toy()
    found = predict(fixed, family.initial(generator(0)), standardisation(splits.train), splits.val.images[:3])
    assert len(set(found[:, 1].tolist())) == 3


# ---- choosing on validation only ----------------------------------------------------------------------------------


class Closed(data.Test):
    """A test split that nobody may look into while it is shut."""

    shut = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "labels") and Closed.shut:
            raise AssertionError("the test split was read before the networks were trained")
        return super().__getattribute__(name)


@pytest.fixture
def closed() -> Iterator[Closed]:
    yield Closed(*bright_halves(60, 3))
    Closed.shut = False


def test_the_test_split_is_read_after_all_training(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    splits, trained = toy(), []
    train = module._train

    def counted(*args: Any) -> torch.Tensor:
        Closed.shut = True
        trained.append(train(*args))
        Closed.shut = len(trained) < 5  # two step sizes, one more augmentation, two final networks
        return trained[-1]

    monkeypatch.setattr(module, "_train", counted)
    assert len(evaluate(net(), small(splits), splits.val, closed, SETTINGS, 0).scores) == 2
    assert len(trained) == 5
    monkeypatch.undo()
    Closed.shut = True
    with pytest.raises(AssertionError, match="before the networks"):
        evaluate(net(), small(splits), splits.val, closed, SETTINGS, 0)


def test_choosing_takes_validation_and_nothing_else() -> None:
    splits = toy()
    hints = typing.get_type_hints(choose_recipe)
    assert hints["validation"] is Validation and not [name for name, kind in hints.items() if kind in (data.Test, Splits)]
    with pytest.raises(TypeError, match="alidation"):  # by the annotation, where annotations are checked
        choose_recipe(net(), small(splits), splits.test, SETTINGS, 0)  # type: ignore[arg-type]
    arm, given = module._arm_of_set(net(), small(splits)), Recipe("sgd", 0.01, "none", 1)
    for wrong in (splits.test, splits.train):  # and by the step itself
        with pytest.raises(TypeError, match=f"a Validation split is read here, not a {type(wrong).__name__}"):
            module._choose(arm, wrong, SETTINGS, 0, False)
    with pytest.raises(TypeError, match="a Test split is read here, not a Validation"):
        module._judge(arm, splits.val, splits.val, SETTINGS, 0, given, False)


def test_candidates_share_a_network_that_no_final_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    splits, train, streams = toy(), module._train, []

    def watched(*args: Any) -> torch.Tensor:
        streams.append(args[-1].initial_seed())
        return train(*args)

    monkeypatch.setattr(module, "_train", watched)
    evaluate(net(), small(splits), splits.val, splits.test, replace(SETTINGS, steps=2), 0)
    search, final = streams[:3], streams[3:]
    assert len(set(search)) == 1 and len(set(final)) == 2 and not set(search) & set(final)


def test_the_search_is_coarse_and_in_order() -> None:
    splits = toy(("none", "dsa", "dihedral"))
    settings = replace(SETTINGS, sgd_lrs=(1e-9, 0.05), adamw_lrs=(1e-9,))
    recipe, tried = choose_recipe(net(), small(splits), splits.val, settings, 0)
    searched = [("sgd", 1e-9, "dsa"), ("sgd", 0.05, "dsa"), ("adamw", 1e-9, "dsa"), ("sgd", 0.05, "none"), ("sgd", 0.05, "dihedral")]
    assert [(one.recipe.optimiser, one.recipe.lr, one.recipe.augmentation) for one in tried] == searched
    values = [one.scores.accuracy for one in tried if one.scores is not None]
    assert recipe == tried[values.index(max(values))].recipe and recipe.lr == 0.05 and recipe.steps == settings.steps


def test_a_set_without_dsa_starts_from_its_first_augmentation() -> None:
    splits = toy(("none",))
    _, tried = choose_recipe(net(), small(splits), splits.val, SETTINGS, 0)
    assert [one.recipe.augmentation for one in tried] == ["none", "none"]


def test_ties_go_to_the_earlier() -> None:
    splits = toy(("none",))
    settings = replace(SETTINGS, sgd_lrs=(3e-12, 1e-12), adamw_lrs=(1e-12,))
    recipe, tried = choose_recipe(net(), small(splits), splits.val, settings, 0)
    assert len({one.scores.accuracy for one in tried if one.scores}) == 1 and recipe == Recipe("sgd", 3e-12, "none", settings.steps)


def test_a_diverged_recipe_is_kept_in_the_list_and_not_chosen() -> None:
    splits = toy()
    recipe, tried = choose_recipe(net(), small(splits), splits.val, replace(SETTINGS, sgd_lrs=(1e38,)), 0)
    assert tried[0].scores is None and recipe.optimiser == "adamw"
    with pytest.raises(DivergedError, match="every recipe"):
        choose_recipe(net(), small(splits), splits.val, replace(SETTINGS, sgd_lrs=(1e38,), adamw_lrs=()), 0)


def test_the_score_that_selects_can_be_named() -> None:
    high_auc = module.Scores(0.6, 0.6, 0.9, (0.6, 0.6))
    high_accuracy = module.Scores(0.8, 0.7, 0.7, (0.9, 0.5))
    tried = [module.Tried(Recipe("sgd", lr, "none", 1), scores) for lr, scores in ((0.1, high_auc), (0.2, high_accuracy))]
    assert module._best(tried, "auc").lr == 0.1 and module._best(tried, "accuracy").lr == 0.2 and module._best(tried, "balanced_accuracy").lr == 0.2


def test_what_does_not_fit_is_refused() -> None:
    splits = toy()
    with pytest.raises(DataError, match="3"):
        choose_recipe(net(classes=3), small(splits), splits.val, SETTINGS, 0)
    with pytest.raises(DataError, match="made from"):
        predict(net(), net().initial(generator(0)), standardisation(splits.train), torch.zeros(2, 1, 9, 9, dtype=torch.uint8))


def test_an_evaluation_is_plain_json() -> None:
    splits = toy()
    found = evaluate(net(), small(splits), splits.val, splits.test, SETTINGS, 0)
    plain = found.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert len(plain["tried"]) == 3 and plain["recipe"]["steps"] == 40 and len(plain["scores"][0]["recall"]) == 2
    assert len(plain["validation"]) == len(plain["scores"]) == 2
    assert plain["validation"] != plain["scores"] and all(len(one["recall"]) == 2 for one in plain["validation"])
    assert found.mean("auc") == pytest.approx(np.mean([scores["auc"] for scores in plain["scores"]]))


# ---- intervals --------------------------------------------------------------------------------------------------


def test_an_interval_by_the_printed_table() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * math.sqrt(2.5) / math.sqrt(5)  # t of 4 degrees of freedom, 97.5 %
    assert (found.mean, found.n, found.df, found.wide) == (3.0, 5, 4, False)
    assert found.low == pytest.approx(3 - half, abs=1e-3) and found.high == pytest.approx(3 + half, abs=1e-3)
    assert interval([0.0, 1.0, 2.0]).high == pytest.approx(1 + 4.303 / math.sqrt(3), abs=1e-3)  # 2 degrees of freedom


@pytest.mark.parametrize("count", [2, 3, 10, 50])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_an_interval_is_scipys(count: int, level: float) -> None:
    values = np.random.default_rng(count).normal(0.8, 0.05, count).tolist()
    low, high = stats.t.interval(level, count - 1, loc=np.mean(values), scale=stats.sem(values))
    found = interval(values, level)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9) and found.wide == (count <= 3)


def test_a_paired_interval_is_that_of_the_differences() -> None:
    first, second = [0.9, 0.8, 0.85, 0.7], [0.85, 0.74, 0.86, 0.6]
    found = paired_interval(first, second)
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high)) and (found.n, found.df) == (4, 3)
    assert found.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert str(found) == f"0.050 [{low:.3f}, {high:.3f}] n=4, df=3, paired over seeds by Student's t"
    assert str(paired_interval(first[:3], second[:3])).endswith("wide")


def test_intervals_need_something_to_rest_on() -> None:
    with pytest.raises(ConfigError, match="two values"):
        interval([0.5])
    with pytest.raises(ConfigError, match="same seeds"):
        paired_interval([0.5, 0.6], [0.5])
    with pytest.raises(ConfigError, match="finite"):
        interval([0.5, math.nan])
    with pytest.raises(ConfigError, match="level"):
        interval([0.5, 0.6], level=95.0)
    with pytest.raises(ConfigError, match="two images"):
        bootstrap_interval(torch.tensor([True]), torch.Generator())


def test_the_bootstrap_agrees_with_the_binomial() -> None:
    correct = torch.arange(1000) < 800
    found = bootstrap_interval(correct, torch.Generator().manual_seed(0))
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert found.mean == pytest.approx(0.8) and found.low == pytest.approx(0.8 - half, abs=0.003) and found.high == pytest.approx(0.8 + half, abs=0.003)
    assert (found.n, found.df, found.kind) == (1000, None, "bootstrap over test images") and "df" not in str(found)
    assert found == bootstrap_interval(correct.double(), torch.Generator().manual_seed(0))
    assert found.kind not in (interval([0.0, 1.0]).kind, paired_interval([0.0, 1.0], [0.0, 0.0]).kind)


def test_a_printed_score_and_its_verdict() -> None:
    assert compare("accuracy", 0.85349, 0.84, 0.87) == ("0.853", "accuracy: inside the stored interval")
    assert compare("AUC", 0.84, 0.84, 0.87)[1] == "AUC: inside the stored interval"
    assert compare("AUC", 0.8399, 0.84, 0.87) == ("0.840", "AUC: below the stored interval")
    assert compare("AUC", 0.871, 0.84, 0.87)[1] == "AUC: above the stored interval"
    with pytest.raises(ConfigError):
        compare("AUC", math.nan, 0.84, 0.87)
    with pytest.raises(ConfigError):
        compare("AUC", 0.85, 0.87, 0.84)
