"""One step of the outer loop's optimiser, on what is learned and on the student's step size.

`sgd` is the published one: momentum, and the step size learned as it is, so that a step can carry it below 0 (that stops
the run). `adam` (Kingma and Ba, 2015) learns the logarithm of the step size, which cannot change sign, and its steps do not
depend on the scale of a gradient that moves by orders of magnitude between segments.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoptm.config import MatchConfig

BETAS, EPS = (0.5, 0.9), 1e-12
"""Decay of the two moments, short because a run may have only tens of iterations; and what is added to the root."""


@dataclass(frozen=True)
class Moments:
    """Running means of gradients, and of their squares where the optimiser keeps them (zeros otherwise)."""

    leaf: Float[Tensor, "n ..."]
    lr: Float[Tensor, "*steps"]
    leaf_square: Float[Tensor, "n ..."]
    lr_square: Float[Tensor, "*steps"]

    @staticmethod
    def none(leaf: Float[Tensor, "n ..."], lr: Float[Tensor, "*steps"]) -> "Moments":
        """Before the first step."""
        return Moments(torch.zeros_like(leaf), torch.zeros_like(lr), torch.zeros_like(leaf), torch.zeros_like(lr))


def sgd(
    leaf: Float[Tensor, "n ..."],
    lr: Float[Tensor, "*steps"],
    for_leaf: Float[Tensor, "n ..."],
    for_lr: Float[Tensor, "*steps"],
    moments: Moments,
    match: MatchConfig,
    step: int,
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "*steps"], Moments]:
    """The published step: v = momentum v + g; x = x - lr_images v; the step size likewise with `lr_lr`."""
    of_leaf = match.momentum * moments.leaf + for_leaf
    of_lr = match.momentum * moments.lr + for_lr
    after = Moments(of_leaf, of_lr, moments.leaf_square, moments.lr_square)
    return leaf - match.lr_images * of_leaf, lr - match.step_sizes[1] * of_lr, after


def adam(
    leaf: Float[Tensor, "n ..."],
    lr: Float[Tensor, "*steps"],
    for_leaf: Float[Tensor, "n ..."],
    for_lr: Float[Tensor, "*steps"],
    moments: Moments,
    match: MatchConfig,
    step: int,
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "*steps"], Moments]:
    """Adam on the leaf, whose steps are about `lr_images` an entry, and on log lr, whose steps are about `lr_lr`. `step` counts from 0."""
    first, second = BETAS
    for_log = for_lr * lr  # d L / d log a = a d L / d a
    after = Moments(
        first * moments.leaf + (1 - first) * for_leaf,
        first * moments.lr + (1 - first) * for_log,
        second * moments.leaf_square + (1 - second) * for_leaf.square(),
        second * moments.lr_square + (1 - second) * for_log.square(),
    )
    unbias, unbias_square = 1 - first ** (step + 1), math.sqrt(1 - second ** (step + 1))

    def moved(mean: Tensor, square: Tensor) -> Tensor:
        return mean / unbias / (square.sqrt() / unbias_square + EPS)

    leaf = leaf - match.lr_images * moved(after.leaf, after.leaf_square)
    return leaf, lr * torch.exp(-match.step_sizes[1] * moved(after.lr, after.lr_square)), after


OPTIMISERS = {"sgd": sgd, "adam": adam}
