"""A ConvNet's inner step, differentiated once and twice by hand; compiled, for CPUs. The same numbers as `inner.Eager`.

The first-order pass is back-propagation. The second-order pass carries the derivative along a direction of the
parameters through that pass (Pearlmutter, 1994: the R-operator), which gives the Hessian times the direction, and the
gradient of < g, direction > for images and targets. Convolutions are Winograd's, so that they are matrix products
(torch) between cheap transforms (`kernels.cpp`); the inner loss and the augmentation are left to autograd.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoptm import augment, native
from hoptm.captured import captured
from hoptm.errors import ConfigError, FileError
from hoptm.inner import Eager, InnerLoss, Second, Step
from hoptm.networks import Network
from hoptm.passes import Passes
from hoptm.records import best_device
from hoptm.side_by_side import Several


def available() -> bool:
    """Whether the kernels are there, built now if need be; says once a process on standard error where they are not."""
    return _ready(native.cache_folder())


@functools.cache
def _ready(folder: Path) -> bool:
    try:
        native.load(folder)
    except FileError as error:
        print(f"hoptm: the engine runs without compiled kernels, two to three times slower: {error}", file=sys.stderr)
        return False
    return True


def engine_name() -> str:
    """What does the inner steps of a ConvNet on `records.best_device`, as records say it: `graphs` (a GPU), `compiled` or `autograd`."""
    return "graphs" if best_device() == "cuda" else "compiled" if available() else "autograd"


def supports(network: object, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are kernels for this: a `convnet` on a CPU, float32 or float64."""
    return isinstance(network, Network) and network.config.family == "convnet" and device.type == "cpu" and dtype in (torch.float32, torch.float64)


def fastest(network: Any, inner_loss: InnerLoss, device: torch.device, dtype: torch.dtype) -> Step:
    """Compiled kernels on a CPU where there are some, graphs on a GPU, else the eager step; a missing compiler is said once on standard error."""
    if device.type == "cuda" and isinstance(network, Network | Several):
        return captured(network, inner_loss)
    if supports(network, device, dtype) and available():
        return Compiled(network, inner_loss)
    return Eager(network, inner_loss)


class Compiled:
    """A `Step` for one ConvNet. Buffers are kept between calls: use one object a process or thread.

    Raises ConfigError for another family or a GPU, FileError when the kernels cannot be built.
    """

    def __init__(self, network: Network, inner_loss: InnerLoss) -> None:
        if not supports(network, torch.device("cpu"), torch.float32):
            raise ConfigError(f"there are no kernels for the family {network.config.family!r}. Use inner.Eager.")
        self._network, self._inner_loss = network, inner_loss
        self._library = native.load(native.cache_folder())
        self._passes: dict[tuple[int, torch.dtype], Passes] = {}

    def first(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, *, keep: bool) -> tuple[Tensor, Any]:
        """As `Step.first`; what is kept are the outputs of the inner convolutions and the gradients of their inputs."""
        work = self._pass(theta, images)
        kept = work.room() if keep else None
        work.load(0, theta)
        logits = work.forward(augment.apply(images.detach(), drawn), kept).requires_grad_()
        with torch.enable_grad():
            loss = self._inner_loss(logits, targets)
        return work.backward(torch.autograd.grad(loss, logits)[0], kept), kept

    def second(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, along: Tensor, kept: Any) -> Second:
        """As `Step.second`, by the R-operator."""
        work = self._pass(theta, images)
        work.load(0, theta)
        work.load(1, along)
        leaf, wanted = images.detach().clone().requires_grad_(drawn.name != "none"), targets.detach().clone().requires_grad_(targets.is_floating_point())
        with torch.enable_grad():
            shown = augment.apply(leaf, drawn)
        logits, logits1 = work.forward1(shown.detach(), kept)
        upper, upper1, product, for_targets = _curvature(self._inner_loss, logits.requires_grad_(), logits1, wanted)
        for_theta, for_shown = work.backward1(upper, upper1, kept)
        for_images = torch.autograd.grad(shown, leaf, for_shown)[0] if shown.requires_grad else for_shown
        return Second(product, for_theta, for_images, for_targets)

    def kept_bytes(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> int:
        """As `Step.kept_bytes`."""
        return sum(tensor.nbytes for pair in self._pass(theta, images).room() for tensor in pair)

    def _pass(self, theta: Tensor, images: Tensor) -> Passes:
        net = self._network
        if images.shape[1:] != (net.channels, net.size, net.size) or theta.numel() != net.layout.size:
            raise ConfigError(f"images of shape {tuple(images.shape[1:])} and {theta.numel()} parameters were given to another network.")
        if not supports(net, images.device, images.dtype) or images.dtype != theta.dtype:
            raise ConfigError(f"the kernels take float32 or float64 on a CPU, not {images.dtype} and {theta.dtype} on {images.device}. Use inner.Eager.")
        key = (len(images), images.dtype)
        if key not in self._passes:
            while len(self._passes) > 1:  # a whole batch and a last, shorter one
                self._passes.pop(next(iter(self._passes)))
            self._passes[key] = Passes(net, len(images), images.dtype, self._library)
        return self._passes[key]


def _curvature(inner_loss: InnerLoss, logits: Tensor, logits1: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """At the logits, by autograd: G = dl/dlogits, H logits1, s = < G, logits1 >, and ds/dtargets for soft targets."""
    with torch.enable_grad():
        (upper,) = torch.autograd.grad(inner_loss(logits, wanted), logits, create_graph=True)
        product = (upper * logits1).sum()
    leaves = (logits, wanted) if wanted.requires_grad else (logits,)
    parts = torch.autograd.grad(product, leaves, allow_unused=True, materialize_grads=True) if product.requires_grad else [torch.zeros_like(x) for x in leaves]
    return upper.detach(), parts[0], product.detach(), parts[1] if len(parts) == 2 else None
