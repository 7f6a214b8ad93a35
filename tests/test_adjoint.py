"""The engine equals plain autograd, and both equal finite differences."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from hoptm import adjoint, augment, path_losses, unroll
from hoptm.config import NetworkConfig, generator
from hoptm.errors import ConfigError, DivergedError
from hoptm.inner import Plan
from hoptm.networks import network

NET = network(NetworkConfig("convnet", depth=2, width=4), channels=2, classes=3, size=8)
COUNT = 7


def _inputs(steps: int, batch: int, strategy: str, soft: bool, waypoints: int, seed: int = 0):
    chance = generator(seed, "engine test", steps, batch)
    images = torch.randn(COUNT, 2, 8, 8, generator=chance, dtype=torch.float64)
    hard = torch.arange(COUNT) % 3
    targets = torch.softmax(torch.randn(COUNT, 3, generator=chance, dtype=torch.float64), dim=1) if soft else hard
    batches = tuple(torch.randperm(COUNT, generator=chance)[:batch] for _ in range(steps))
    plan = Plan(batches, tuple(augment.draw(strategy, batch, 8, chance) for _ in batches))
    start = NET.initial(chance).double()
    expert = start + 0.1 * torch.randn(waypoints, NET.layout.size, generator=chance, dtype=torch.float64) * torch.arange(waypoints)[:, None]
    return images, targets, plan, expert


def _losses(masked: bool):
    weight = (torch.arange(NET.layout.size) % 3 > 0).double() if masked else None
    end = partial(path_losses.end_point, weight=weight)
    return {"end": end, "shape": path_losses.shape, "both": path_losses.weighted_sum([(1.0, end), (0.5, path_losses.shape)])}


def _relative(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours - wanted).abs().max() / wanted.abs().max())


def _equal(ours: adjoint.Gradients, wanted: adjoint.Gradients) -> None:
    assert _relative(ours.loss, wanted.loss) < 1e-10
    assert _relative(ours.images, wanted.images) < 1e-10
    assert _relative(ours.lr, wanted.lr) < 1e-10
    assert _relative(ours.path, wanted.path) < 1e-10
    assert (ours.targets is None) == (wanted.targets is None)
    if ours.targets is not None and wanted.targets is not None:
        assert wanted.targets.abs().max() > 0
        assert _relative(ours.targets, wanted.targets) < 1e-10


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("strategy", ["none", "dsa", "dihedral"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", ["end", "shape", "both"])
def test_engine_equals_plain_autograd(name, masked, strategy, soft):
    images, targets, plan, expert = _inputs(6, 5, strategy, soft, 3)
    lr, loss = torch.tensor(0.05, dtype=torch.float64), _losses(masked)[name]
    wanted = unroll.path_gradient(NET, loss, expert, images, targets, lr, plan, (0, 3, 6))
    assert wanted.images.abs().max() > 0
    _equal(adjoint.path_gradient(NET, loss, expert, images, targets, lr, plan, (0, 3, 6)), wanted)


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (2, 7), (3, 3), (5, 1), (17, 5), (40, 3)])
def test_engine_at_every_length(steps, batch):
    images, targets, plan, expert = _inputs(steps, batch, "dsa", True, 3)
    lr, loss = torch.tensor(0.03, dtype=torch.float64), _losses(True)["both"]
    waypoints = (0, steps // 2, steps)
    wanted = unroll.path_gradient(NET, loss, expert, images, targets, lr, plan, waypoints)
    _equal(adjoint.path_gradient(NET, loss, expert, images, targets, lr, plan, waypoints), wanted)


def test_each_dsa_transform_passes_the_gradient():
    for name in ("color", "crop", "cutout", "flip", "scale", "rotate"):
        images, targets, plan, expert = _inputs(3, 4, name, False, 2)
        lr = torch.tensor(0.05, dtype=torch.float64)
        wanted = unroll.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 3))
        _equal(adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 3)), wanted)


@pytest.mark.parametrize("engine", [adjoint, unroll], ids=["adjoint", "unroll"])
def test_gradients_against_finite_differences(engine):
    images, targets, plan, expert = _inputs(3, 4, "scale", True, 3)
    lr, loss = torch.tensor(0.05, dtype=torch.float64), _losses(True)["both"]
    chance = generator(1, "directions")

    def value(shown, wanted, step_size):
        return float(engine.path_gradient(NET, loss, expert, shown, wanted, step_size, plan, (0, 1, 3)).loss)

    found = engine.path_gradient(NET, loss, expert, images, targets, lr, plan, (0, 1, 3))
    small = 1e-6
    move = torch.randn(images.shape, generator=chance, dtype=torch.float64)
    slope = (value(images + small * move, targets, lr) - value(images - small * move, targets, lr)) / (2 * small)
    assert float((found.images * move).sum()) == pytest.approx(slope, rel=1e-5)
    move = torch.randn(targets.shape, generator=chance, dtype=torch.float64)
    slope = (value(images, targets + small * move, lr) - value(images, targets - small * move, lr)) / (2 * small)
    assert float((found.targets * move).sum()) == pytest.approx(slope, rel=1e-5)
    slope = (value(images, targets, lr + small) - value(images, targets, lr - small)) / (2 * small)
    assert float(found.lr) == pytest.approx(slope, rel=1e-5)


def test_gradcheck_on_a_small_case():
    """torch's own gradcheck, through a wrapper that hands the engine's gradients to autograd."""
    tiny = network(NetworkConfig("convnet", depth=1, width=2), channels=1, classes=2, size=4)
    chance = generator(0, "gradcheck")
    plan = Plan((torch.tensor([0, 1]), torch.tensor([1])), tuple(augment.draw("none", size, 4, chance) for size in (2, 1)))
    start = tiny.initial(chance).double()
    expert = torch.stack([start, start + 0.1 * torch.randn(start.shape, generator=chance, dtype=torch.float64)])

    class Engine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images, lr):
            found = adjoint.path_gradient(tiny, path_losses.end_point, expert, images, torch.tensor([0, 1]), lr, plan, (0, 2))
            ctx.save_for_backward(found.images, found.lr)
            return found.loss.clone()

        @staticmethod
        def backward(ctx, outer):
            return tuple(outer * saved for saved in ctx.saved_tensors)

    images = torch.randn(2, 1, 4, 4, generator=chance, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Engine.apply, (images, torch.tensor(0.1, dtype=torch.float64, requires_grad=True)), eps=1e-6, atol=1e-6)


def test_the_inner_loss_is_an_argument():
    def weighted(logits, targets):
        return F.cross_entropy(logits, targets, weight=torch.tensor([1.0, 5.0, 0.2], dtype=logits.dtype))

    images, targets, plan, expert = _inputs(4, 5, "none", False, 2)
    lr = torch.tensor(0.05, dtype=torch.float64)
    wanted = unroll.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 4), weighted)
    _equal(adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 4), weighted), wanted)
    plain = adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 4))
    assert _relative(plain.images, wanted.images) > 1e-3


def test_waypoints_may_be_chosen_after_the_forward_sweep():
    images, targets, plan, expert = _inputs(6, 5, "dsa", False, 2)
    lr = torch.tensor(0.05, dtype=torch.float64)

    def nearest(path):
        return (0, 1 + int((path[1:5] - expert[1]).square().sum(1).argmin()))

    wanted = unroll.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, nearest)
    _equal(adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, nearest), wanted)


def test_images_that_no_step_reads_before_the_end_get_no_gradient():
    images, targets, _, expert = _inputs(2, 3, "none", False, 2)
    plan = Plan((torch.tensor([0, 1]), torch.tensor([2, 3])), tuple(augment.draw("none", 2, 8, generator(0, "x")) for _ in range(2)))
    found = adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, torch.tensor(0.05, dtype=torch.float64), plan, (0, 1))
    assert found.images[:2].abs().max() > 0
    assert found.images[2:].abs().max() == 0


def test_a_rendering_passes_its_gradient_on():
    """Codes through a frozen decoder: one ordinary backward call after the engine."""
    images, targets, plan, expert = _inputs(4, 5, "none", False, 2)
    lr = torch.tensor(0.05, dtype=torch.float64)
    decoder = torch.randn(6, images[0].numel(), generator=generator(0, "decoder"), dtype=torch.float64)
    codes = torch.randn(COUNT, 6, generator=generator(0, "codes"), dtype=torch.float64, requires_grad=True)
    rendered = (codes @ decoder).view_as(images)
    found = adjoint.path_gradient(NET, path_losses.end_point, expert, rendered, targets, lr, plan, (0, 4))
    rendered.backward(found.images)
    assert _relative(codes.grad, found.images.flatten(1) @ decoder.T) < 1e-12


def test_divergence_and_bad_waypoints_are_named():
    images, targets, plan, expert = _inputs(6, 5, "none", False, 2)
    with pytest.raises(DivergedError, match="inner step"):
        adjoint.forward(NET, expert[0], images, targets, torch.tensor(1e300, dtype=torch.float64), plan)
    lr = torch.tensor(0.05, dtype=torch.float64)
    with pytest.raises(ConfigError, match="outside"):
        adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 7))
    with pytest.raises(ConfigError, match="waypoints"):
        adjoint.path_gradient(NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 3, 6))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("strategy", ["none", "dsa"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize(("momentum", "keep"), [(0.0, 0), (0.0, 6), (0.9, 0), (0.5, 3)])
def test_momentum_step_sizes_and_kept_graphs(momentum, keep, several, strategy, soft):
    images, targets, plan, expert = _inputs(6, 5, strategy, soft, 3)
    lr = torch.linspace(0.02, 0.06, 6, dtype=torch.float64) if several else torch.tensor(0.05, dtype=torch.float64)
    arguments = (NET, _losses(True)["both"], expert, images, targets, lr, plan, (0, 3, 6))
    wanted = unroll.path_gradient(*arguments, momentum=momentum)
    assert wanted.lr.shape == lr.shape and wanted.lr.abs().min() > 0
    _equal(adjoint.path_gradient(*arguments, momentum=momentum, keep=keep), wanted)


@pytest.mark.parametrize("keep", range(6))
def test_every_number_of_kept_graphs(keep):
    images, targets, plan, expert = _inputs(5, 4, "dsa", True, 2)
    arguments = (NET, path_losses.end_point, expert, images, targets, torch.tensor(0.05, dtype=torch.float64), plan)
    kept = adjoint.path_gradient(*arguments, (0, 4), keep=keep)
    _equal(kept, unroll.path_gradient(*arguments, (0, 4)))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_scale_for_each_parameter(momentum):
    images, targets, plan, expert = _inputs(5, 4, "dsa", False, 2)
    scale = torch.rand(NET.layout.size, generator=generator(0, "scale"), dtype=torch.float64) + 0.5
    arguments = (NET, path_losses.end_point, expert, images, targets, torch.full((5,), 0.05, dtype=torch.float64), plan, (0, 5))
    wanted = unroll.path_gradient(*arguments, momentum=momentum, scale=scale)
    _equal(adjoint.path_gradient(*arguments, momentum=momentum, scale=scale, keep=2), wanted)
    assert _relative(adjoint.path_gradient(*arguments, momentum=momentum).images, wanted.images) > 1e-3


@pytest.mark.parametrize("engine", [adjoint, unroll], ids=["adjoint", "unroll"])
def test_momentum_and_step_sizes_against_finite_differences(engine):
    images, targets, plan, expert = _inputs(4, 4, "scale", True, 3)
    lr, loss = torch.linspace(0.03, 0.06, 4, dtype=torch.float64), _losses(True)["both"]
    chance = generator(1, "directions")

    def value(shown, step_sizes):
        return float(engine.path_gradient(NET, loss, expert, shown, targets, step_sizes, plan, (0, 1, 4), momentum=0.8).loss)

    found = engine.path_gradient(NET, loss, expert, images, targets, lr, plan, (0, 1, 4), momentum=0.8)
    move, small = torch.randn(images.shape, generator=chance, dtype=torch.float64), 1e-6
    slope = (value(images + small * move, lr) - value(images - small * move, lr)) / (2 * small)
    assert float((found.images * move).sum()) == pytest.approx(slope, rel=1e-5)
    for number in range(4):
        nudge = torch.zeros_like(lr)
        nudge[number] = small
        assert float(found.lr[number]) == pytest.approx((value(images, lr + nudge) - value(images, lr - nudge)) / (2 * small), rel=1e-4)


def test_a_step_size_of_zero_stays_allowed_without_momentum():
    images, targets, plan, expert = _inputs(3, 4, "none", False, 2)
    lr = torch.tensor([0.05, 0.0, 0.05], dtype=torch.float64)
    arguments = (NET, path_losses.end_point, expert, images, targets, lr, plan, (0, 3))
    _equal(adjoint.path_gradient(*arguments), unroll.path_gradient(*arguments))
    with pytest.raises(ConfigError, match="other than 0"):
        adjoint.path_gradient(*arguments, momentum=0.5)
    with pytest.raises(ConfigError, match="momentum is 1"):
        adjoint.path_gradient(*arguments, momentum=1.0)
    for engine in (adjoint, unroll):
        with pytest.raises(ConfigError, match="one number, or one a step"):
            engine.path_gradient(NET, path_losses.end_point, expert, images, targets, lr[:2], plan, (0, 3))
