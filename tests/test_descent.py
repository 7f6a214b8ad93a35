"""The optimisers of the outer loop against torch's own."""

import pytest
import torch

from hoptm import descent
from hoptm.config import MatchConfig, generator


def _inputs():
    chance = generator(0, "descent")
    return torch.randn(2, 1, 3, 3, generator=chance, dtype=torch.float64), [torch.randn(2, 1, 3, 3, generator=chance, dtype=torch.float64) for _ in range(5)]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_equal_to_the_library(name):
    leaf, gradients = _inputs()
    lr = torch.tensor(0.02, dtype=torch.float64)
    match = MatchConfig(optimiser=name, lr=0.02, lr_lr=0.03 if name == "adam" else 1e-3, lr_images=0.1, momentum=0.5)
    theirs, rate = leaf.clone().requires_grad_(), (lr.log() if name == "adam" else lr).clone().requires_grad_()
    groups = [{"params": [theirs], "lr": 0.1}, {"params": [rate], "lr": match.step_sizes[1]}]
    library = torch.optim.Adam(groups, betas=descent.BETAS, eps=descent.EPS) if name == "adam" else torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    moments = descent.Moments.none(leaf, lr)
    for step, gradient in enumerate(gradients):
        for_lr = gradient.sum() * 1e-3
        theirs.grad, rate.grad = gradient, for_lr * lr if name == "adam" else for_lr
        library.step()
        leaf, lr, moments = descent.OPTIMISERS[name](leaf, lr, gradient, for_lr, moments, match, step)
        assert torch.allclose(leaf, theirs, rtol=1e-9)
        assert float(lr) == pytest.approx(float(rate.detach().exp() if name == "adam" else rate.detach()), rel=1e-9)


def test_adam_never_changes_the_sign_of_the_step_size():
    leaf, gradients = _inputs()
    match, lr = MatchConfig(optimiser="adam", lr=0.02, lr_lr=5.0), torch.tensor(0.02, dtype=torch.float64)
    moments = descent.Moments.none(leaf, lr)
    for step in range(4):
        leaf, lr, moments = descent.adam(leaf, lr, gradients[0], torch.tensor(100.0, dtype=torch.float64), moments, match, step)
        assert lr > 0


def test_inputs_are_left_alone():
    leaf, gradients = _inputs()
    before, lr = leaf.clone(), torch.tensor(0.02, dtype=torch.float64)
    moments = descent.Moments.none(leaf, lr)
    for step in OPTIMISERS:
        step(leaf, lr, gradients[0], lr, moments, MatchConfig(lr=0.02, lr_lr=1e-3), 0)
    assert torch.equal(leaf, before) and not moments.leaf.any()


OPTIMISERS = tuple(descent.OPTIMISERS.values())
