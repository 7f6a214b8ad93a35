"""The recorded step gives what the eager one gives, whatever was replayed before. Where there is no GPU, work done again stands in for a recording."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hoptm import adjoint, augment, inner_losses, kernels
from hoptm.captured import Captured, Outputs, captured
from hoptm.config import MatchConfig, NetworkConfig, generator
from hoptm.inner import Eager
from hoptm.networks import Network, network
from hoptm.outer import draw_plan
from hoptm.path_losses import end_point

CUDA = torch.cuda.is_available()
WHERE = torch.device("cuda" if CUDA else "cpu")


def done_again(work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
    """As a recording: inputs and outputs stay where they are in memory, and nothing happens but on replay."""
    outputs = work()
    for tensor in outputs:
        if tensor is not None:
            tensor.fill_(float("nan"))

    def replay() -> None:
        for tensor, new in zip(outputs, work(), strict=True):
            if tensor is not None and new is not None:
                tensor.copy_(new)

    return replay, outputs


RECORD = None if CUDA else done_again


def small(family: str = "convnet") -> Network:
    return network(NetworkConfig(family, 2, 4), channels=2, classes=3, size=8)


def given(count: int, seed: int, soft: bool) -> tuple[Tensor, Tensor]:
    chance = generator(seed, "captured")
    images = torch.randn(count, 2, 8, 8, generator=chance, dtype=torch.float64)
    targets = torch.randn(count, 3, generator=chance, dtype=torch.float64).softmax(1) if soft else torch.randint(3, (count,), generator=chance)
    return images.to(WHERE), targets.to(WHERE)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", ["none", *augment.KINDS, "dihedral"])
def test_the_same_as_the_eager_step_call_after_call(kind: str, soft: bool) -> None:
    net = small()
    ours, plain = Captured(net, F.cross_entropy, RECORD), Eager(net, F.cross_entropy)
    for turn, count in enumerate([5, 3, 5, 3, 5]):
        chance = generator(turn, "calls")
        theta = net.initial(chance).double().to(WHERE)
        along = torch.randn(theta.shape, generator=chance, dtype=torch.float64).to(WHERE)
        images, targets = given(count, turn, soft)
        drawn = augment.draw(kind, count, 8, chance)
        wanted = plain.first(theta, images, targets, drawn, keep=False)[0]
        found, kept = ours.first(theta, images, targets, drawn, keep=True)
        assert kept is None
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        second, other = plain.second(theta, images, targets, drawn, along, None), ours.second(theta, images, targets, drawn, along, None)
        for name in ("product", "theta", "images", "targets"):
            one, two = getattr(second, name), getattr(other, name)
            assert (one is None) == (two is None) == (name == "targets" and not soft)
            if one is not None:
                torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ["convnet", "vgg", "resnet", "mlp", "vit"])
def test_every_family_can_be_recorded(family: str) -> None:
    net = small(family)
    ours, plain = Captured(net, F.cross_entropy, RECORD), Eager(net, F.cross_entropy)
    images, targets = given(4, 0, False)
    for seed in range(2):
        theta = net.initial(generator(seed, "family")).double().to(WHERE)
        drawn = augment.draw("crop", 4, 8, generator(seed, "crop"))
        torch.testing.assert_close(
            ours.first(theta, images, targets, drawn, keep=False)[0], plain.first(theta, images, targets, drawn, keep=False)[0], rtol=1e-9, atol=1e-11
        )


@pytest.mark.parametrize("loss", ["cross_entropy", "prior", "balanced_softmax"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_gradient_of_a_path(loss: str, momentum: float) -> None:
    net, chance = small(), generator(0, "path")
    inner_loss = inner_losses.named(loss, torch.tensor([1, 2, 5]).to(WHERE))
    start = net.initial(chance).double()
    expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance, dtype=torch.float64)]).to(WHERE)
    images, targets = given(7, 0, False)
    plan = draw_plan(7, 8, MatchConfig(steps=12, batch=5), chance).to(WHERE)
    rest = (end_point, expert, images, targets, torch.tensor(0.02, dtype=torch.float64, device=WHERE), plan, (0, 12), inner_loss)
    wanted = adjoint.path_gradient(net, *rest, momentum=momentum)
    found = adjoint.path_gradient(net, *rest, momentum=momentum, step=Captured(net, inner_loss, RECORD), keep=3)
    for name in ("loss", "images", "lr", "path"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12)


def test_a_recording_keeps_no_step_whatever_memory_there_is() -> None:
    net = small()
    images, labels = given(6, 0, False)
    plan = draw_plan(6, 8, MatchConfig(steps=4, batch=3), generator(0, "memory")).to(WHERE)
    theta = net.initial(generator(0, "memory")).double().to(WHERE)
    assert adjoint.steps_within(1e9, Captured(net, F.cross_entropy, RECORD), theta, images, labels, plan) == 0
    assert adjoint.steps_within(1e9, Eager(net, F.cross_entropy), theta, images, labels, plan) == 4


def test_a_gpu_gets_recordings_and_finds_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoptm.captured.cuda_graph", lambda: done_again)
    captured.cache_clear()
    first = kernels.fastest(small(), F.cross_entropy, torch.device("cuda"), torch.float32)
    assert isinstance(first, Captured)
    assert kernels.fastest(small(), F.cross_entropy, torch.device("cuda"), torch.float32) is first
    assert kernels.fastest(small("mlp"), F.cross_entropy, torch.device("cuda"), torch.float32) is not first
    captured.cache_clear()


def test_no_more_recordings_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoptm.captured._MOST", 2)
    made: list[int] = []

    def counting(work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        made.append(1)
        return done_again(work)

    net = small()
    ours, theta = Captured(net, F.cross_entropy, counting), net.initial(generator(0, "few")).double()
    draws = augment.draw("none", 1, 8, generator(0, "few"))
    for count in (1, 2, 1, 3, 1, 1):
        images, targets = (tensor.cpu() for tensor in given(count, 0, False))
        ours.first(theta, images, targets, draws, keep=False)
    assert len(made) == 4  # 1, 2, 3 for the first time; 1 again after 3 pushed it out
