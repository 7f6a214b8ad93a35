"""Distribution and gradient matching: one iteration against differences of a loss written out here, and whole runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_sets import net, toy

from hoptm import augment, networks
from hoptm import matching_baselines as module
from hoptm.baselines import random_subset
from hoptm.config import NetworkConfig, generator
from hoptm.data import standardisation
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.matching_baselines import (
    DistributionMatching,
    GradientMatching,
    distribution_matching,
    distribution_step,
    gradient_distance,
    gradient_matching,
    gradient_step,
)
from hoptm.synthetic import SyntheticSet

SMALL = NetworkConfig(depth=1, width=8)
DM = DistributionMatching(network=SMALL, iterations=4, batch=1000, lr_images=0.5, augmentation="none")
DC = GradientMatching(network=SMALL, iterations=2, rounds=2, network_steps=2, batch=1000, lr_images=0.1, augmentation="none")


def module_of(theta: torch.Tensor) -> nn.Module:
    """The same network as an ordinary module with these weights."""
    plain = networks.convnet(SMALL, 1, 2, 8).double()
    nn.utils.vector_to_parameters(theta, plain.parameters())
    return plain


def slope(loss: Callable[[torch.Tensor], float], images: torch.Tensor, place: tuple[int, ...]) -> float:
    step = torch.zeros_like(images)
    step[place] = 1e-5
    return (loss(images + step) - loss(images - step)) / 2e-5


PLACES = [(0, 0, 1, 2), (1, 0, 7, 7), (2, 0, 4, 0), (3, 0, 3, 5)]


def start() -> tuple[Any, ...]:
    splits = toy()
    made = random_subset(splits, 2, generator(0))
    measured = standardisation(splits.train)
    return splits, measured, made.images.double(), made.labels, measured.apply(splits.train.images).double()


def test_a_step_of_distribution_matching_follows_its_loss() -> None:
    splits, measured, images, labels, real = start()
    plain = module_of(net().initial(generator(5)).double())
    seen: list[torch.Tensor] = []
    plain.classifier.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))  # type: ignore[operator]

    def features(pixels: torch.Tensor) -> torch.Tensor:
        plain(pixels)
        return seen.pop().mean(0)

    def loss(pixels: torch.Tensor) -> float:
        with torch.no_grad():
            gaps = [features(real[splits.train.labels == label]) - features(pixels[labels == label]) for label in (0, 1)]
        return float(sum(gap.square().sum() for gap in gaps))

    velocity = torch.randn(images.shape, generator=generator(1), dtype=torch.float64)
    moved, kept = distribution_step(net(), splits.train, measured, labels, DM)(images, velocity, generator(5))
    for place in PLACES:
        assert float(kept[place] - 0.5 * velocity[place]) == pytest.approx(slope(loss, images, place), rel=1e-4, abs=1e-9)
    torch.testing.assert_close(moved, images - 0.5 * kept)
    assert loss(moved) != loss(images) and loss(images - 0.01 * (kept - 0.5 * velocity)) < loss(images)


def test_the_distance_of_gradients_by_hand() -> None:
    family = net()
    chance = generator(3)
    first, second = (torch.randn(family.layout.size, generator=chance, dtype=torch.float64) for _ in range(2))
    expected, at = 0.0, 0
    for shape, size in zip(family.layout.shapes, family.layout.sizes, strict=True):
        if len(shape) > 1:
            for node in range(shape[0]):
                width = size // shape[0]
                one, other = (vector[at + node * width : at + (node + 1) * width] for vector in (first, second))
                expected += 1 - float(one @ other) / float(one.norm() * other.norm())
        at += size
    assert float(gradient_distance(family, first, second)) == pytest.approx(expected)
    assert float(gradient_distance(family, first, 3 * first)) == pytest.approx(0, abs=1e-9)
    assert float(gradient_distance(family, first, 0 * first)) == pytest.approx(10)  # eight channels and two classes, each 1


def test_a_round_of_gradient_matching_follows_its_loss() -> None:
    splits, measured, images, labels, real = start()
    plain = module_of(net().initial(generator(5)).double())

    def gradients(pixels: torch.Tensor, label: int) -> list[torch.Tensor]:
        found = torch.autograd.grad(F.cross_entropy(plain(pixels), torch.full((len(pixels),), label)), list(plain.parameters()))
        return [one.flatten(1) for one in found if one.ndim > 1]

    def loss(pixels: torch.Tensor) -> float:
        total = 0.0
        for label in (0, 1):
            for one, other in zip(gradients(real[splits.train.labels == label], label), gradients(pixels[labels == label], label), strict=True):
                total += float((1 - F.cosine_similarity(one, other, dim=1)).sum())
        return total

    step = gradient_step(net(), splits.train, measured, labels, replace(DC, rounds=1))
    _, kept = step(images, torch.zeros_like(images), generator(5))
    for place in PLACES:
        assert float(kept[place]) == pytest.approx(slope(loss, images, place), rel=1e-4, abs=1e-9)


def test_between_rounds_the_network_is_trained_on_the_images() -> None:
    splits, measured, images, labels, _ = start()
    seen: list[torch.Tensor] = []
    family = net()

    def watched(net_: Any, theta: torch.Tensor, pixels: torch.Tensor, label: int) -> torch.Tensor:
        seen.append(theta.detach())
        return gradient_of(net_, theta, pixels, label)

    gradient_of = module._gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_gradient", watched)
        moved, _ = gradient_step(family, splits.train, measured, labels, replace(DC, lr_images=1e-9, momentum=0.0))(images, 0 * images, generator(5))
    torch.testing.assert_close(moved, images, rtol=0, atol=1e-6)
    theta = family.initial(generator(5)).double()
    torch.testing.assert_close(seen[0], theta)
    for _ in range(2):  # the two network steps, on all four images
        theta = theta.requires_grad_()
        (found,) = torch.autograd.grad(F.cross_entropy(family(theta, images), labels), theta)
        theta = (theta - 0.01 * found).detach()
    torch.testing.assert_close(seen[4], theta, rtol=0, atol=1e-6)
    assert len(seen) == 8 and not torch.equal(seen[4], seen[0])


@pytest.mark.parametrize("strategy", ["color", "crop", "cutout", "flip", "scale", "rotate", "dihedral"])
def test_real_and_synthetic_images_are_changed_alike(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    splits, measured, images, labels, _ = start()
    draws: list[augment.Draw] = []

    def watched(pixels: torch.Tensor, draw: augment.Draw) -> torch.Tensor:
        draws.append(draw)
        return apply(pixels, draw)

    apply = augment.apply
    monkeypatch.setattr(augment, "apply", watched)
    distribution_step(net(), splits.train, measured, labels, replace(DM, augmentation=strategy))(images, 0 * images, generator(5))
    gradient_step(net(), splits.train, measured, labels, replace(DC, augmentation=strategy, rounds=1))(images, 0 * images, generator(5))
    assert len(draws) == 8
    for real, own in zip(draws[::2], draws[1::2], strict=True):
        assert real.name == own.name == strategy
        for key, values in real.values.items():
            assert len(values) == 40 and len(own.values[key]) == 2
            assert len(torch.unique(torch.cat([values, own.values[key]]))) == 1


RUNS: list[Any] = [
    pytest.param(distribution_matching, replace(DM, augmentation="dsa", batch=16), "dm", id="dm"),
    pytest.param(gradient_matching, replace(DC, batch=16), "dc", id="dc"),
    pytest.param(gradient_matching, replace(DC, augmentation="dsa", batch=16), "dsa", id="dsa"),
]


@pytest.mark.parametrize(("run", "config", "method"), RUNS)
def test_a_run_is_its_steps_and_can_be_taken_up_anywhere(run: Any, config: Any, method: str) -> None:
    splits = toy()
    whole = run(splits, 2, config, 7)
    assert torch.equal(whole.images, run(splits, 2, config, 7).images) and not torch.equal(whole.images, run(splits, 2, config, 8).images)
    assert whole.info["method"] == method and whole.info["config"]["iterations"] == config.iterations and whole.info["selection"] == []
    make = distribution_step if method == "dm" else gradient_step
    first = run(splits, 2, replace(config, iterations=1), 7)
    images, velocity = random_start(splits, 7), torch.zeros(4, 1, 8, 8)
    for index in range(config.iterations):
        # a fresh step function each time: nothing is kept between iterations but images and velocity
        step = make(net(), splits.train, standardisation(splits.train), whole.labels, config)
        images, velocity = step(images, velocity, generator(7, method, index))
        if index == 0:
            assert torch.equal(images, first.images)
    assert torch.equal(images, whole.images)


def random_start(splits: Any, seed: int) -> torch.Tensor:
    return random_subset(splits, 2, generator(seed, "initial images")).images


def test_matching_brings_the_features_together() -> None:
    """In networks that the run has not seen."""
    splits = toy()
    before = random_subset(splits, 2, generator(0, "initial images"))
    after = distribution_matching(splits, 2, replace(DM, iterations=60, lr_images=5.0), 0)
    family, psi = net(), module.embedding(net())
    real = standardisation(splits.train).apply(splits.train.images)

    def gap(made: SyntheticSet) -> float:
        thetas = [family.initial(generator(99, number)) for number in range(5)]
        means = [
            [psi(theta, x[kinds == label]).mean(0) for x, kinds in ((real, splits.train.labels), (made.images, made.labels))]
            for theta in thetas
            for label in (0, 1)
        ]
        return float(sum((one - other).square().sum() for one, other in means))

    assert gap(after) < 0.5 * gap(before)


def test_a_start_can_be_given() -> None:
    splits = toy()
    noise = random_subset(splits, 2, generator(0))
    noise = replace(noise, images=torch.randn(4, 1, 8, 8, generator=generator(1)))
    made = distribution_matching(splits, 2, replace(DM, lr_images=1e-9), 0, start=noise)
    torch.testing.assert_close(made.images, noise.images, rtol=0, atol=1e-6)
    assert made.info["config"]["start"] == "random" and distribution_matching(splits, 2, DM, 0).info["config"]["start"] == "real training images"
    with pytest.raises(DataError, match="does not fit"):
        distribution_matching(splits, 2, DM, 0, start=replace(noise, images=torch.zeros(4, 1, 9, 9)))


def test_what_cannot_run_is_refused() -> None:
    for changes in ({"iterations": 0}, {"batch": 0}, {"lr_images": 0.0}, {"momentum": 1.0}, {"augmentation": "colours"}):
        with pytest.raises(ConfigError):
            replace(DM, **changes)
        with pytest.raises(ConfigError):
            replace(DC, **changes)
    with pytest.raises(DivergedError, match="lr_images"):
        distribution_matching(toy(), 2, replace(DM, network=replace(SMALL, norm="none"), lr_images=1e6, iterations=50), 0)
