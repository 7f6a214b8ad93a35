"""A network's parameters as one flat vector, and back.

Trajectory matching lives in parameter space: an expert's checkpoint, a student's step and a gradient are all
vectors of P numbers. This module is the only place that knows the order in which a module's parameters are
laid out, which is the order of `module.named_parameters()`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoptm.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters, in flat order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers that each parameter takes in the flat vector."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.sizes)


def layout_of(module: nn.Module) -> Layout:
    """The layout of a module's parameters.

    Raises ConfigError for a module with buffers: a path of parameters cannot carry batch statistics.
    """
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        raise ConfigError(f"the network keeps state besides its parameters ({buffers[0]}). Use instance or group norm instead.")
    named = list(module.named_parameters())
    return Layout(tuple(name for name, _ in named), tuple(tuple(value.shape) for _, value in named))


def flatten(module: nn.Module) -> Float[Tensor, "p"]:
    """The module's parameters as one new vector; later changes of the module do not reach it."""
    return torch.cat([value.detach().reshape(-1) for value in module.parameters()]).clone()


def unflatten(theta: Float[Tensor, "p"], layout: Layout) -> dict[str, Tensor]:
    """Named parameters as views of `theta`, through which gradients flow.

    Raises ConfigError when `theta` is not as long as the layout asks.
    """
    if theta.numel() != layout.size:
        raise ConfigError(f"{theta.numel()} parameters were given to a network of {layout.size}: these are checkpoints of another network.")
    pieces = theta.split(layout.sizes)
    return {name: piece.view(shape) for name, piece, shape in zip(layout.names, pieces, layout.shapes, strict=True)}
