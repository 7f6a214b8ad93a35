"""Renderings: what they show, what gradient they pass on, what they cost to store."""

import copy
from typing import Any

import pytest
import torch

from hoptm import adjoint, augment, inner
from hoptm.config import NetworkConfig, generator
from hoptm.errors import ConfigError
from hoptm.networks import network
from hoptm.path_losses import end_point
from hoptm.rendering import Decoded, Pixels, Rendering, Upsampled, images_within, leaf_gradient, restored, stored_bytes
from hoptm.vae import VaeConfig, untrained

VAE = untrained(VaeConfig(dims=5, width=3), 3, 8, generator(0))
KINDS: dict[str, Rendering] = {"pixels": Pixels(), "upsampled": Upsampled(), "decoded": Decoded.by(VAE)}


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=generator(1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_rendering_keeps_the_promises_of_all(kind: str) -> None:
    rendering = KINDS[kind]
    leaf = rendering.initial(images().requires_grad_())
    assert isinstance(rendering, Rendering) and rendering.name == kind and not leaf.requires_grad
    assert leaf.shape == (4, *rendering.leaf_shape(3, 8)) and rendering(leaf).shape == (4, 3, 8, 8)
    assert torch.autograd.gradcheck(rendering, leaf.double().requires_grad_())
    torch.testing.assert_close(rendering(leaf)[1:2], rendering(leaf[1:2]))  # images do not see each other
    again = restored(rendering.name, rendering.config, rendering.shared)
    assert torch.equal(again(leaf), rendering(leaf)) and again.config == rendering.config


def test_pixels_are_a_copy() -> None:
    shown = images()
    leaf = Pixels().initial(shown)
    assert torch.equal(leaf, shown) and leaf.data_ptr() != shown.data_ptr() and Pixels()(leaf) is leaf


def test_upsampling_by_hand() -> None:
    """Between the centres of two enlarged pixels the line goes a quarter, then three quarters of the way; the border is held."""
    row = torch.tensor([0.0, 4.0, 8.0])
    enlarged = Upsampled()(row.expand(1, 1, 3, 3))
    torch.testing.assert_close(enlarged[0, 0], torch.tensor([0.0, 1.0, 3.0, 5.0, 7.0, 8.0]).expand(6, 6))
    torch.testing.assert_close(Upsampled()(row[:, None].expand(1, 1, 3, 3)), enlarged.mT)


def test_downsampling_is_the_mean_of_squares() -> None:
    shown = images()
    wanted = torch.stack([torch.stack([shown[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(4)], -1) for i in range(4)], -2)
    torch.testing.assert_close(Upsampled().initial(shown), wanted)
    assert Upsampled(4).initial(shown).shape == (4, 3, 2, 2)
    flat = torch.full((1, 1, 4, 4), 0.7)
    torch.testing.assert_close(Upsampled()(Upsampled().initial(flat)), flat)


def test_codes_start_at_the_encoders_means() -> None:
    torch.testing.assert_close(KINDS["decoded"].initial(images()), VAE.encode(images()))
    torch.testing.assert_close(KINDS["decoded"](VAE.encode(images())), VAE.decode(VAE.encode(images())))
    with pytest.raises(ConfigError, match="without its encoder"):
        Decoded(VAE.decoder).initial(images())


def test_images_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="divides 28"):
        Upsampled(3).leaf_shape(1, 28)
    with pytest.raises(ConfigError, match="divides 8"):
        Upsampled(3).initial(images())
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\) .* decoder of \(3, 8, 8\)"):
        Decoded(VAE.decoder).leaf_shape(1, 8)
    for factor in (1, 0, -2, 2.5):
        with pytest.raises((ConfigError, TypeError)):
            restored("upsampled", {"factor": factor}, {})


# ---- bytes ------------------------------------------------------------------------------------------------------


def test_bytes_are_the_floats_of_the_leaf_and_of_the_decoder_once() -> None:
    shown = images(7)
    for rendering in KINDS.values():
        tensors = [rendering.initial(shown), *rendering.shared.values()]
        assert stored_bytes(rendering, 7, 3, 8) == sum(len(tensor.numpy().tobytes()) for tensor in tensors)
    assert stored_bytes(Upsampled(), 4, 3, 28) == stored_bytes(Pixels(), 1, 3, 28) == 4 * 3 * 28 * 28
    assert stored_bytes(Decoded.by(VAE), 3, 3, 8) - stored_bytes(Decoded.by(VAE), 2, 3, 8) == 4 * 5


def test_as_many_images_as_fit() -> None:
    for rendering in KINDS.values():
        for count in (0, 1, 5):
            limit = stored_bytes(rendering, count, 3, 8)
            assert images_within(rendering, limit, 3, 8) == count
            assert images_within(rendering, limit - 1, 3, 8) == max(0, count - 1)
    assert images_within(Decoded.by(VAE), 100, 3, 8) == 0


# ---- the engine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_at_the_leaf_is_that_of_the_unrolled_graph(kind: str) -> None:
    """Adjoint sweep and one backward call through the rendering, against autograd from the leaf to the path loss; float64."""
    rendering, chance = KINDS[kind], generator(2)
    net = network(NetworkConfig(depth=1, width=3), channels=3, classes=2, size=8)
    labels, steps = torch.tensor([0, 1, 0, 1]), 5
    leaf = rendering.initial(images()).double()
    start = net.initial(chance).double()
    expert = torch.stack([start, start + 0.1 * torch.randn(start.shape, dtype=torch.float64, generator=chance)])
    batches = tuple(torch.randperm(4, generator=chance)[:3] for _ in range(steps))
    plan = inner.Plan(batches, tuple(augment.draw("dsa", 3, 8, chance) for _ in range(steps)))
    lr = torch.tensor(0.05, dtype=torch.float64)

    engine = adjoint.path_gradient(net, end_point, expert, rendering(leaf), labels, lr, plan, (0, steps))
    found = leaf_gradient(rendering, leaf, engine.images)

    whole = leaf.clone().requires_grad_()
    theta = expert[0].clone().requires_grad_()
    path = [theta]
    for step in range(steps):
        seen = augment.apply(rendering(whole)[plan.batches[step]], plan.draws[step])
        loss = torch.nn.functional.cross_entropy(net(path[-1], seen), labels[plan.batches[step]])
        path.append(path[-1] - lr * torch.autograd.grad(loss, path[-1], create_graph=True)[0])
    (wanted,) = torch.autograd.grad(end_point(torch.stack([path[0], path[-1]]), expert), whole)
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


# ---- from a file ------------------------------------------------------------------------------------------------

_CONFIG, _SHARED = KINDS["decoded"].config, dict(KINDS["decoded"].shared)
WRONG: dict[str, tuple[str, Any, Any]] = {
    "a name of no rendering": ("fourier", {}, {}),
    "settings of another rendering": ("pixels", {"factor": 2}, {}),
    "a setting too many": ("decoded", {**_CONFIG, "depth": 2}, _SHARED),
    "a setting missing": ("decoded", {"dims": 5}, _SHARED),
    "a setting that is no number": ("decoded", {**_CONFIG, "dims": "five"}, _SHARED),
    "a setting beyond all memory": ("decoded", {**_CONFIG, "dims": 10**30}, _SHARED),
    "no code at all": ("decoded", {**_CONFIG, "dims": 0}, _SHARED),
    "no weights": ("decoded", _CONFIG, {}),
    "weights of another decoder": ("decoded", {**_CONFIG, "width": 4}, _SHARED),
    "weights too many": ("decoded", _CONFIG, {**_SHARED, "encoder.0.weight": torch.zeros(1)}),
    "weights that nothing reads": ("upsampled", {"factor": 2}, _SHARED),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_describes_no_rendering_is_refused(wrong: tuple[str, Any, Any]) -> None:
    with pytest.raises(ConfigError):
        restored(*copy.copy(wrong))


@pytest.mark.parametrize("sizes", [{"dims": 2**62}, {"width": 2**40}, {"dims": float("inf")}, {"dims": 4_097}, {"width": 513}])
def test_a_decoder_of_any_size_cannot_be_asked_for(sizes: dict[str, Any]) -> None:
    known = KINDS["decoded"]
    with pytest.raises(ConfigError):
        restored("decoded", {**known.config, **sizes}, known.shared)
