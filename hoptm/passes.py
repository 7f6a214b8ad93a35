"""The first- and second-order passes of a ConvNet over one batch, written out by hand around `kernels.cpp`.

Each block is a convolution, then norm + ReLU + 2 x 2 mean. A convolution is a matrix product between two linear maps:
for the inner ones Winograd's transforms of inputs, weights and outputs, for the first one the spreading of its few
channels into patches. A name that ends in 1 is the derivative along a direction of the parameters.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoptm.networks import Network

Call: TypeAlias = Callable[..., None]
"""call(name, *arguments): a function of the library; tensors are given as pointers."""
Kept: TypeAlias = list[tuple[Tensor, Tensor]]
"""Of each block but the first: its convolution's output, and the gradient of its input."""


@runtime_checkable
class _Convolution(Protocol):
    """One 3 x 3 convolution, padded by 1. Weights are (inputs * 9, channels); `which` is 0 for values, 1 for tangents."""

    def load(self, which: int, weights: Tensor) -> None: ...
    def see(self, which: int, shown: Tensor) -> None: ...
    def value(self, made: Tensor) -> None: ...
    def tangent(self, made: Tensor) -> None: ...
    def turn(self, which: int, upper: Tensor) -> None: ...
    def weights(self, made: Tensor) -> None: ...
    def weights1(self, made: Tensor) -> None: ...
    def lower(self, made: Tensor) -> None: ...
    def lower1(self, made: Tensor) -> None: ...


class _Spread:
    """The first layer: its images are data, so they have no tangent."""

    def __init__(self, call: Call, images: Tensor, channels: int) -> None:
        self.call, self.shape = call, images.shape[:3]
        count, inputs, side, _ = images.shape
        self.patches = images.new_empty(count, 9 * inputs, side * side)
        self.lowered = torch.empty_like(self.patches)
        self.each, self.uppers = images.new_empty(count, 9 * inputs, channels), [images, images]
        self.loaded = [images, images]

    def load(self, which: int, weights: Tensor) -> None:
        self.loaded[which] = weights.expand(self.shape[0], *weights.shape)

    def see(self, which: int, shown: Tensor) -> None:
        self.call("spread", shown, self.patches, *self.shape)

    def value(self, made: Tensor) -> None:
        torch.bmm(self.patches.mT, self.loaded[0], out=made.flatten(1, 2))

    def tangent(self, made: Tensor) -> None:
        torch.bmm(self.patches.mT, self.loaded[1], out=made.flatten(1, 2))

    def turn(self, which: int, upper: Tensor) -> None:
        self.uppers[which] = upper.flatten(1, 2)

    def weights(self, made: Tensor) -> None:
        torch.sum(torch.bmm(self.patches, self.uppers[0], out=self.each), 0, out=made)

    def weights1(self, made: Tensor) -> None:
        torch.sum(torch.bmm(self.patches, self.uppers[1], out=self.each), 0, out=made)

    def lower(self, made: Tensor) -> None:
        raise AssertionError("no first-order pass needs the gradient of the images")

    def lower1(self, made: Tensor) -> None:
        torch.bmm(self.loaded[0], self.uppers[1].mT, out=self.lowered)
        self.call("gather", made, self.lowered.baddbmm_(self.loaded[1], self.uppers[0].mT), *self.shape)


class _Tiled:
    """An inner layer, by Winograd's F(4 x 4, 3 x 3); `scratch` (3, any) is shared by all layers."""

    def __init__(self, call: Call, count: int, inputs: int, side: int, channels: int, scratch: Tensor) -> None:
        self.call, self.inputs = call, inputs
        self.map, self.kernel = (count, side, channels), (inputs, channels, channels)
        self.seen, self.loaded = scratch.new_empty(2, 36, self._tiles(), channels), scratch.new_zeros(2, 36, channels, channels)
        self.made, *self.uppers = (flat[: self.seen[0].numel()].view_as(self.seen[0]) for flat in scratch)
        self.for_weights = torch.empty_like(self.loaded[0])

    def _tiles(self) -> int:
        count, side, _ = self.map
        return count * (-(-side // 4)) ** 2

    def load(self, which: int, weights: Tensor) -> None:
        self.call("weight_tiles", weights, self.loaded[which], *self.kernel)

    def see(self, which: int, shown: Tensor) -> None:
        self.call("input_tiles", shown, self.seen[which], *self.map)

    def value(self, made: Tensor) -> None:
        torch.bmm(self.seen[0], self.loaded[0], out=self.made)
        self.call("output_map", self.made, made, *self.map)

    def tangent(self, made: Tensor) -> None:
        torch.bmm(self.seen[1], self.loaded[0], out=self.made)
        self.call("output_map", self.made.baddbmm_(self.seen[0], self.loaded[1]), made, *self.map)

    def turn(self, which: int, upper: Tensor) -> None:
        self.call("output_adjoint", upper, self.uppers[which], *self.map)

    def weights(self, made: Tensor) -> None:
        torch.bmm(self.seen[0].mT, self.uppers[0], out=self.for_weights)
        self.call("weight_adjoint", self.for_weights, made, *self.kernel)

    def weights1(self, made: Tensor) -> None:
        torch.bmm(self.seen[1].mT, self.uppers[0], out=self.for_weights)
        self.call("weight_adjoint", self.for_weights.baddbmm_(self.seen[0].mT, self.uppers[1]), made, *self.kernel)

    def lower(self, made: Tensor) -> None:
        torch.bmm(self.uppers[0], self.loaded[0].mT, out=self.made)
        self.call("input_adjoint", self.made, made, *self.map)

    def lower1(self, made: Tensor) -> None:
        torch.bmm(self.uppers[1], self.loaded[0].mT, out=self.made)
        self.call("input_adjoint", self.made.baddbmm_(self.uppers[0], self.loaded[1].mT), made, *self.map)


class _Block:
    """Convolution, norm, ReLU and mean; parameters from `start` on in the flat vector."""

    def __init__(self, call: Call, convolution: _Convolution, like: Float[Tensor, "n side side c"], width: int, inputs: int, groups: int, start: int) -> None:
        count, side, _, channels = like.shape
        self.call, self.convolution, self.width, self.groups = call, convolution, width, groups
        self.shape = (ctypes.c_long * 5)(count, side, channels, width, groups)
        self.y, self.y1 = torch.empty_like(like), torch.empty_like(like)
        self.out, self.out1 = (like.new_empty(count, side // 2, side // 2, channels) for _ in range(2))
        self.lower1 = self.out1
        self.statistics = like.new_empty(count, 6, channels)
        self.weights, self.rows = like.new_zeros(3, 9 * inputs, channels), like.new_zeros(3, 3, channels)
        self.rows[0, 1] = 1
        self.places = (start, start + 9 * inputs * width, start + 9 * inputs * width + (3 if groups else 1) * width)

    def load(self, which: int, theta: Tensor) -> None:
        """The weights (which = 0) or a direction (1) from the flat vector; channels last, filled up with zeros."""
        first, second, end = self.places
        self.weights[which, :, : self.width].copy_(theta[first:second].view(self.width, -1).mT)
        rows = theta[second:end].view(-1, self.width)
        self.rows[which, : len(rows), : self.width].copy_(rows)
        self.convolution.load(which, self.weights[which])

    def store(self, flat: Tensor) -> None:
        """What the backward pass left for weights and rows, into the flat vector."""
        first, second, end = self.places
        flat[first:second].view(self.width, -1).copy_(self.weights[2, :, : self.width].mT)
        rows = flat[second:end].view(-1, self.width)
        rows.copy_(self.rows[2, : len(rows), : self.width])

    def forward(self, shown: Tensor, y: Tensor) -> Tensor:
        self.convolution.see(0, shown)
        self.convolution.value(y)
        self.call("forward", self.shape, y, self.rows[0], self.statistics, self.out)
        return self.out

    def backward(self, upper: Tensor, y: Tensor, lower: Tensor | None, flat: Tensor) -> None:
        """From the gradient of `out` to that of the input, in `lower`; that of y is left in the block's own."""
        self.call("backward", self.shape, y, self.rows[0], self.statistics, upper, self.y, self.rows[2])
        self.convolution.turn(0, self.y)
        self.convolution.weights(self.weights[2])
        self.store(flat)
        if lower is not None:
            self.convolution.lower(lower)

    def forward1(self, shown: Tensor, shown1: Tensor | None, y: Tensor | None) -> tuple[Tensor, Tensor]:
        self.convolution.see(0, shown)
        if y is None:
            self.convolution.value(self.y)
        if shown1 is not None:
            self.convolution.see(1, shown1)
        self.convolution.tangent(self.y1)
        given = self.y if y is None else y
        self.call("forward1", self.shape, given, self.y1, self.rows[0], self.rows[1], self.statistics, self.out, self.out1)
        return self.out, self.out1

    def backward1(self, upper: Tensor, upper1: Tensor, y: Tensor | None, flat: Tensor) -> None:
        given = self.y if y is None else y
        self.call("backward1", self.shape, given, self.y1, self.rows[0], self.rows[1], self.statistics, upper, upper1, self.y, self.y1, self.rows[2])
        self.convolution.turn(0, self.y)
        self.convolution.turn(1, self.y1)
        self.convolution.weights1(self.weights[2])
        self.store(flat)


class _Head:
    """The linear map to the logits; the flat vector holds its weights as (classes, width, pixels), then its bias."""

    def __init__(self, like: Float[Tensor, "n side side c"], width: int, classes: int, start: int) -> None:
        _, side, _, channels = like.shape
        self.start, self.width, self.classes = start, width, classes
        self.loaded, self.bias = like.new_zeros(2, side * side, channels, classes), like.new_zeros(2, classes)
        self.shape = like.shape

    def load(self, which: int, theta: Tensor) -> None:
        pixels, end = self.loaded.shape[1], len(theta) - self.classes
        self.loaded[which, :, : self.width].copy_(theta[self.start : end].view(self.classes, self.width, pixels).permute(2, 1, 0))
        self.bias[which].copy_(theta[end:])

    def logits(self, features: Tensor) -> Tensor:
        return torch.addmm(self.bias[0], features.flatten(1), self.loaded[0].flatten(0, 1))

    def logits1(self, features: Tensor, features1: Tensor) -> Tensor:
        return torch.addmm(self.bias[1], features1.flatten(1), self.loaded[0].flatten(0, 1)).addmm_(features.flatten(1), self.loaded[1].flatten(0, 1))

    def backward(self, upper: Tensor, features: Tensor, flat: Tensor) -> Tensor:
        self._store(features.flatten(1).mT @ upper, upper, flat)
        return (upper @ self.loaded[0].flatten(0, 1).mT).view(self.shape)

    def backward1(self, upper: Tensor, upper1: Tensor, features: Tensor, features1: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        self._store((features1.flatten(1).mT @ upper).addmm_(features.flatten(1).mT, upper1), upper1, flat)
        values, tangents = self.loaded.flatten(1, 2)
        return (upper @ values.mT).view(self.shape), (upper1 @ values.mT).addmm_(upper, tangents.mT).view(self.shape)

    def _store(self, weights: Tensor, upper: Tensor, flat: Tensor) -> None:
        pixels, end = self.loaded.shape[1], len(flat) - self.classes
        made = weights.view(pixels, -1, self.classes)[:, : self.width].permute(2, 1, 0)
        flat[self.start : end].view(self.classes, self.width, pixels).copy_(made)
        torch.sum(upper, 0, out=flat[end:])


class Passes:
    """All buffers for batches of one size. What a pass returns is overwritten by the next.

    Order of calls: `load(0, theta)`, `forward`, `backward`; or `load(0, theta)`, `load(1, direction)`, `forward1`, `backward1`.
    """

    def __init__(self, net: Network, count: int, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        lanes = 64 // dtype.itemsize
        channels = -(-net.config.width // lanes) * lanes
        prefix = "f32_" if dtype == torch.float32 else "f64_"

        def call(name: str, *arguments: Any) -> None:
            getattr(library, prefix + name)(*[value.data_ptr() if isinstance(value, Tensor) else value for value in arguments])

        groups = next((module.num_groups for module in net.skeleton.modules() if isinstance(module, nn.GroupNorm)), 0)
        side, start, inputs = net.size, 0, net.channels
        scratch = torch.empty(3, 36 * count * (-(-(side // 2) // 4)) ** 2 * channels, dtype=dtype)
        self.images = torch.empty(count, inputs, side, side, dtype=dtype)
        self.blocks: list[_Block] = []
        for depth in range(net.config.depth):
            like = torch.empty(count, side, side, channels, dtype=dtype)
            convolution = _Tiled(call, count, inputs, side, channels, scratch) if depth else _Spread(call, self.images, channels)
            self.blocks.append(_Block(call, convolution, like, net.config.width, inputs, groups, start))
            start, side, inputs = self.blocks[-1].places[2], side // 2, net.config.width
        self.head = _Head(self.blocks[-1].out, net.config.width, net.classes, start)
        self.flat = torch.empty(net.layout.size, dtype=dtype)

    def room(self) -> Kept:
        """Fresh memory for what one step keeps."""
        return [(torch.empty_like(block.y), torch.empty_like(before.out)) for before, block in zip(self.blocks, self.blocks[1:], strict=False)]

    def load(self, which: int, theta: Float[Tensor, "p"]) -> None:
        """Take parameters (which = 0) or a direction (1)."""
        for block in self.blocks:
            block.load(which, theta)
        self.head.load(which, theta)

    def forward(self, images: Float[Tensor, "n c h w"], kept: Kept | None) -> Float[Tensor, "n k"]:
        """Logits; the outputs of the inner convolutions go to `kept`."""
        shown = images.contiguous()
        for number, block in enumerate(self.blocks):
            shown = block.forward(shown, kept[number - 1][0] if kept and number else block.y)
        return self.head.logits(shown)

    def backward(self, upper: Float[Tensor, "n k"], kept: Kept | None) -> Float[Tensor, "p"]:
        """The gradient of the parameters from that of the logits; the gradients of the inner inputs go to `kept`."""
        gradient = self.head.backward(upper, self.blocks[-1].out, self.flat)
        for number in reversed(range(len(self.blocks))):
            block = self.blocks[number]
            y, lower = kept[number - 1] if kept and number else (block.y, self.blocks[number - 1].out if number else None)
            block.backward(gradient, y, lower, self.flat)
            gradient = gradient if lower is None else lower
        return self.flat

    def forward1(self, images: Float[Tensor, "n c h w"], kept: Kept | None) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Logits and their tangent."""
        shown, shown1 = images.contiguous(), None
        for number, block in enumerate(self.blocks):
            shown, shown1 = block.forward1(shown, shown1, kept[number - 1][0] if kept and number else None)
        assert shown1 is not None
        return self.head.logits(shown), self.head.logits1(shown, shown1)

    def backward1(self, upper: Float[Tensor, "n k"], upper1: Float[Tensor, "n k"], kept: Kept | None) -> tuple[Float[Tensor, "p"], Float[Tensor, "n c h w"]]:
        """The tangents of the gradients of parameters and images."""
        last = self.blocks[-1]
        gradient, gradient1 = self.head.backward1(upper, upper1, last.out, last.out1, self.flat)
        for number in reversed(range(len(self.blocks))):
            block = self.blocks[number]
            y, lower = kept[number - 1] if kept and number else (None, None)
            block.backward1(gradient, gradient1, y, self.flat)
            if number:
                below = self.blocks[number - 1]
                if lower is None:
                    block.convolution.lower(below.out)
                gradient, gradient1 = below.out if lower is None else lower, below.out1
                block.convolution.lower1(gradient1)
        self.blocks[0].convolution.lower1(self.images)
        return self.flat, self.images
