"""How good is a small set: train fresh networks on it, score them on the test split.

Optimiser, step size and augmentation are chosen on the validation split, for each arm anew, because they alone can
move a score by more than a method does. The types keep the splits apart: what chooses takes a `Validation` and
nothing else, and the test split is first read when every network is trained.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from hoptm import augment
from hoptm.config import EvaluationConfig, generator
from hoptm.data import Split, Splits, Standardisation, Test, Train, Validation, single_label, standardisation
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.kernels import fastest
from hoptm.networks import Network
from hoptm.records import best_device, check_room
from hoptm.scores import Scores, predict, score
from hoptm.synthetic import SyntheticSet

OPTIMISERS = ("sgd", "adamw")

Render: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From indices (b,) to standardised images (b, c, h, w) and class labels (b,)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a set: optimiser, first step size, augmentation, number of optimiser steps.

    Raises ConfigError for a value out of range.
    """

    optimiser: str
    lr: float
    augmentation: str
    steps: int

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ConfigError(f"no optimiser {self.optimiser!r}; there are {', '.join(OPTIMISERS)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"the step size is {self.lr}; it must be finite and above 0.")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} optimiser steps were asked for; ask for 1 or more.")


def train_network(
    network: Network,
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, "n"] | Float[Tensor, "n k"],
    recipe: Recipe,
    settings: EvaluationConfig,
    generator: torch.Generator,
) -> Float[Tensor, "p"]:
    """The parameters (P,) of a network trained from a fresh start on standardised images with hard or soft labels.

    SGD with momentum, or AdamW, both with weight decay; the step size falls to a tenth after half of the steps, as
    in the published evaluation. Batches of at most `settings.batch` images run through fresh permutations. The
    initial network is drawn from `generator` first, so that it does not depend on the images. Works on the device of
    `images`; the random numbers are the same on every device.

    Raises DivergedError when the parameters leave the finite numbers, ConfigError for a step that this machine has no memory for.
    """
    return _train(network, lambda chosen: (images[chosen], labels[chosen]), len(labels), recipe, settings, generator)


def train_on(network: Network, train: Train, recipe: Recipe, settings: EvaluationConfig, generator: torch.Generator) -> Float[Tensor, "p"]:
    """As `train_network`, on all real training images, standardised a batch at a time.

    Takes the train split alone, so what is built on it (embeddings, a judge of synthetic images) can have seen neither
    validation nor test. Raises DataError for a multi-label set, else as `train_network` does.
    """
    _check_split(train, Train)
    if train.labels.ndim != 1:
        raise DataError("the train split is multi-label, and this needs one class an image. Choose another data set.")
    return _train(network, _rendering(train, standardisation(train)), len(train.labels), recipe, settings, generator)


def _rendering(train: Train, measured: Standardisation) -> Render:
    images, labels = train.images.to(best_device()), train.labels.to(best_device())
    return lambda chosen: (measured.apply(images[chosen]), labels[chosen])


def _train(network: Network, render: Render, count: int, recipe: Recipe, settings: EvaluationConfig, chance: torch.Generator) -> Tensor:
    batch = min(settings.batch, count)
    check_room(4 * (4 * network.layout.size + batch * network.held), f"a training step of this network on {batch} images")
    theta = network.initial(chance).to(render(torch.zeros(1, dtype=torch.int64))[0]).requires_grad_()
    optimiser, engine = _optimiser(theta, recipe, settings), fastest(network, F.cross_entropy, theta.device, theta.dtype)
    for step, chosen in enumerate(_batches(count, batch, recipe.steps, chance)):
        if step == recipe.steps // 2:
            optimiser.param_groups[0]["lr"] = recipe.lr * 0.1
        images, labels = render(chosen)
        drawn = augment.draw(recipe.augmentation, len(chosen), network.size, chance)
        theta.grad = engine.first(theta.detach(), images, labels, drawn, keep=False)[0]
        optimiser.step()
    if not torch.isfinite(theta).all():
        raise DivergedError(f"training with {recipe.optimiser} and step size {recipe.lr:g} left the finite numbers. Take a smaller step size.")
    return theta.detach()


def _optimiser(theta: Tensor, recipe: Recipe, settings: EvaluationConfig) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD([theta], recipe.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW([theta], recipe.lr, weight_decay=settings.weight_decay)


def _batches(count: int, batch: int, steps: int, chance: torch.Generator) -> Iterator[Tensor]:
    """`steps` batches of exactly `batch` indices, cut from one fresh permutation after another."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=chance)])
        yield waiting[:batch]
        waiting = waiting[batch:]


@dataclass(frozen=True)
class Tried:
    """A recipe and its scores on validation; None when training with it diverged."""

    recipe: Recipe
    scores: Scores | None


@dataclass(frozen=True)
class Evaluation:
    """The recipe in use, what was tried on validation (empty when the recipe was given), test scores of each fresh network.

    `validation` holds the scores of the same networks on validation: they choose nothing, and say how much of a score stays on the way to test.
    """

    recipe: Recipe
    tried: tuple[Tried, ...]
    scores: tuple[Scores, ...]
    validation: tuple[Scores, ...] = ()

    def mean(self, name: str) -> float:
        """Mean over the networks of `accuracy`, `balanced_accuracy`, `auc`, `worst_recall` or `ece`."""
        return sum(float(getattr(scores, name)) for scores in self.scores) / len(self.scores)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def choose_recipe(
    network: Network,
    synthetic: SyntheticSet,
    validation: Validation,
    settings: EvaluationConfig,
    seed: int,
    *,
    progress: bool = False,
) -> tuple[Recipe, list[Tried]]:
    """The recipe that suits this set best on validation, and all that were tried, in order.

    A coarse search with one network, the same initial one each time: optimisers and step sizes under one
    augmentation (DSA where the set lists it), then the other augmentations that fit the modality under the best of
    these. `settings.select_by` decides; ties go to the earlier. Given the test split it raises TypeError.

    Raises DataError when set, network and split do not fit each other, DivergedError when every recipe diverged.
    """
    return _choose(_arm_of_set(network, synthetic), validation, settings, seed, progress)


def evaluate(
    network: Network,
    synthetic: SyntheticSet,
    validation: Validation,
    test: Test,
    settings: EvaluationConfig,
    seed: int,
    recipe: Recipe | None = None,
    *,
    progress: bool = False,
) -> Evaluation:
    """Choose a recipe on validation unless one is given, train `settings.networks` fresh networks, score them on test.

    Network i starts from the seed and i alone, so two sets that are compared under one seed share their initial
    networks. Test pixels are read when all networks are trained.

    Raises as `choose_recipe`, and DivergedError when a final network diverges.
    """
    return _judge(_arm_of_set(network, synthetic), validation, test, settings, seed, recipe, progress)


def full_data(
    network: Network,
    splits: Splits,
    settings: EvaluationConfig,
    seed: int,
    *,
    steps: int | None = None,
    recipe: Recipe | None = None,
    progress: bool = False,
) -> Evaluation:
    """The same judgement for the whole train split: the score that a small set is measured against.

    `steps` defaults to the larger of `settings.steps` and five epochs; fewer than `settings.steps` are refused,
    because a weak full-data model makes every gap look small. The search trains for as many. A
    `recipe` that is given brings its own steps.

    Raises ConfigError for too few steps, else as `evaluate`.
    """
    train = single_label(splits).train
    steps = (recipe.steps if recipe else steps) or max(settings.steps, 5 * math.ceil(len(train.labels) / settings.batch))
    if steps < settings.steps:
        raise ConfigError(f"full data would get {steps} steps, fewer than the {settings.steps} of a small set. Ask for at least as many.")
    measured = standardisation(train)
    arm = _Arm(network, _rendering(train, measured), len(train.labels), measured, splits.info.augmentations)
    return _judge(arm, splits.val, splits.test, dataclasses.replace(settings, steps=steps), seed, recipe, progress)


@dataclass(frozen=True)
class _Arm:
    """What is judged: a training set as a rendering of `count` indices, and the network that is trained on it."""

    network: Network
    render: Render
    count: int
    standardisation: Standardisation
    augmentations: Sequence[str]

    def train(self, recipe: Recipe, settings: EvaluationConfig, chance: torch.Generator) -> Tensor:
        return _train(self.network, self.render, self.count, recipe, settings, chance)

    def score(self, theta: Tensor, split: Split) -> Scores:
        return score(predict(self.network, theta, self.standardisation, split.images), split.labels)


def _arm_of_set(network: Network, synthetic: SyntheticSet) -> _Arm:
    have = (*synthetic.images.shape[1:], synthetic.classes)
    need = (network.channels, network.size, network.size, network.classes)
    if have != need:
        raise DataError(f"the set has (channels, height, width, classes) {have} and the network {need}. Build the network for this set.")
    labels = synthetic.labels if synthetic.soft is None else synthetic.soft  # a teacher's word counts where a set carries it
    images, labels = synthetic.images.to(best_device()), labels.to(best_device())
    return _Arm(network, lambda chosen: (images[chosen], labels[chosen]), len(labels), synthetic.standardisation, synthetic.info["augmentations"])


def _choose(arm: _Arm, validation: Split, settings: EvaluationConfig, seed: int, progress: bool) -> tuple[Recipe, list[Tried]]:
    _check_split(validation, Validation)
    first = "dsa" if "dsa" in arm.augmentations else arm.augmentations[0]
    others = [name for name in arm.augmentations if name != first]
    pairs = [("sgd", lr) for lr in settings.sgd_lrs] + [("adamw", lr) for lr in settings.adamw_lrs]
    tried: list[Tried] = []
    with tqdm(total=len(pairs) + len(others), desc="choose a recipe", unit="network", disable=not progress) as bar:

        def attempt(recipe: Recipe) -> None:
            scores = None
            with contextlib.suppress(DivergedError):
                scores = arm.score(arm.train(recipe, settings, generator(seed, "recipe")), validation)
            tried.append(Tried(recipe, scores))
            bar.update()

        for optimiser, lr in pairs:
            attempt(Recipe(optimiser, lr, first, settings.steps))
        best = _best(tried, settings.select_by)
        for name in others:
            attempt(dataclasses.replace(best, augmentation=name))
    return _best(tried, settings.select_by), tried


def _best(tried: Sequence[Tried], name: str) -> Recipe:
    """The recipe with the highest score; the earlier of equals."""
    ranked = [(float(getattr(one.scores, name)), one.recipe) for one in tried if one.scores is not None]
    if not ranked:
        raise DivergedError("training diverged with every recipe that was tried. Give smaller step sizes in evaluation.sgd_lrs and evaluation.adamw_lrs.")
    return max(ranked, key=lambda pair: pair[0])[1]


def _judge(arm: _Arm, validation: Split, test: Split, settings: EvaluationConfig, seed: int, recipe: Recipe | None, progress: bool) -> Evaluation:
    _check_split(test, Test)
    tried: list[Tried] = []
    if recipe is None:
        recipe, tried = _choose(arm, validation, settings, seed, progress)
    rounds = tqdm(range(settings.networks), desc="evaluate", unit="network", disable=not progress)
    trained = [arm.train(recipe, settings, generator(seed, "evaluation", index)) for index in rounds]
    before, after = (tuple(arm.score(theta, split) for theta in trained) for split in (validation, test))
    return Evaluation(recipe, tuple(tried), after, before)


def _check_split(split: Split, kind: type[Split]) -> None:
    if not isinstance(split, kind):
        words = "networks learn from train, recipes are chosen on validation, scores are taken on test"
        raise TypeError(f"a {kind.__name__} split is read here, not a {type(split).__name__}: {words}.")
