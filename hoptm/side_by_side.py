"""Several students at once: B copies of a network as one network, so that one engine carries B segments through its T steps.

Parameters of the copies follow each other in one vector (B P,), images and targets likewise. A ConvNet becomes one of B groups, which is
what fills a GPU; on a processor, whose caches one student fills already, the copies take their turns. Either way it is one `Step` of
`inner`, and its gradient is that of the B students apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hoptm import augment
from hoptm.errors import ConfigError
from hoptm.inner import InnerLoss, Second, Step
from hoptm.layers import convolve, group_norm, halve
from hoptm.networks import Network, norm_groups


@dataclass(frozen=True)
class Several:
    """`count` copies of a network: theta (B P,), images (B n, c, h, w), those of a copy together, to logits (B n, k)."""

    one: Network
    count: int

    def initial(self, generator: torch.Generator) -> Float[Tensor, "bp"]:
        """Fresh parameters of each copy."""
        return torch.cat([self.one.initial(generator) for _ in range(self.count)])

    def __call__(self, theta: Float[Tensor, "bp"], images: Float[Tensor, "bn c h w"]) -> Float[Tensor, "bn k"]:
        """Logits, copy after copy. Raises ConfigError when theta or the images cannot be shared out among the copies."""
        if len(images) % self.count or len(theta) != self.count * self.one.layout.size:
            raise ConfigError(f"{len(theta)} parameters and {len(images)} images are not those of {self.count} copies of a network of {self.one.layout.size}.")
        each = theta.view(self.count, -1)
        if self.one.config.family == "convnet":
            return self._grouped(each, images)
        return torch.cat([self.one(own, shown) for own, shown in zip(each, images.chunk(self.count), strict=True)])

    def _grouped(self, theta: Float[Tensor, "b p"], images: Float[Tensor, "bn c h w"]) -> Tensor:
        """The ConvNet of `networks.convnet`, its copies as groups of channels."""
        config, layout, copies = self.one.config, self.one.layout, self.count
        pieces = zip(layout.names, theta.split(list(layout.sizes), dim=1), layout.shapes, strict=True)
        parts = {name: piece.reshape(copies, *shape) for name, piece, shape in pieces}
        each = images.view(copies, -1, *images.shape[1:])
        maps = each.transpose(0, 1).flatten(1, 2)  # (n, B c, h, w)
        for block in range(config.depth):
            weight, bias = (parts[f"blocks.{block}.conv.{name}"].flatten(0, 1) for name in ("weight", "bias"))
            maps = F.conv2d(maps, weight, bias, padding=1, groups=copies) if maps.device.type == "cpu" else convolve(maps, weight, bias, copies)
            if config.norm != "none":
                weight, bias = (parts[f"blocks.{block}.norm.{name}"].flatten(0, 1) for name in ("weight", "bias"))
                maps = group_norm(maps, weight, bias, copies * norm_groups(config.norm, config.width))
            maps = halve(maps.relu())
        features = maps.reshape(maps.shape[0], copies, -1).transpose(0, 1)  # (B, n, f)
        logits = torch.baddbmm(parts["classifier.bias"][:, None], features, parts["classifier.weight"].transpose(1, 2))
        return logits.flatten(0, 1)


@dataclass(frozen=True)
class Summed:
    """The inner loss of `count` copies: the sum of their own, so that each copy's gradient is its own."""

    loss: InnerLoss
    count: int

    def __call__(self, logits: Float[Tensor, "bn k"], targets: Tensor) -> Float[Tensor, ""]:
        """The sum over the copies' shares of logits and targets."""
        return torch.stack([self.loss(*pair) for pair in zip(logits.chunk(self.count), targets.chunk(self.count), strict=True)]).sum()


@dataclass(frozen=True)
class InTurn:
    """A `Step` for `count` copies by the step of one, copy after copy."""

    step: Step
    count: int

    def first(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, *, keep: bool) -> tuple[Tensor, Any]:
        """As `Step.first`."""
        gradients, kept = [], []
        for own in self._shares(theta, images, targets, drawn):
            gradient, memory = self.step.first(*own, keep=keep)
            gradients.append(gradient.clone())
            kept.append(memory)
        return torch.cat(gradients), kept if keep else None

    def second(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, along: Tensor, kept: Any) -> Second:
        """As `Step.second`."""
        found = []
        for number, (own, way) in enumerate(zip(self._shares(theta, images, targets, drawn), along.chunk(self.count), strict=True)):
            one = self.step.second(*own, way, None if kept is None else kept[number])
            found.append(Second(one.product.clone(), one.theta.clone(), one.images.clone(), None if one.targets is None else one.targets.clone()))
        soft = [one.targets for one in found if one.targets is not None]
        return Second(
            torch.stack([one.product for one in found]).sum(),
            torch.cat([one.theta for one in found]),
            torch.cat([one.images for one in found]),
            torch.cat(soft) if soft else None,
        )

    def kept_bytes(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> int:
        """As `Step.kept_bytes`: those of each copy."""
        return self.count * self.step.kept_bytes(*self._shares(theta, images, targets, drawn)[0])

    def _shares(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> list[tuple[Tensor, Tensor, Tensor, augment.Draw]]:
        size = len(images) // self.count
        draws = [augment.Draw(drawn.name, {name: value[copy * size : (copy + 1) * size] for name, value in drawn.values.items()}) for copy in range(self.count)]
        return list(zip(theta.chunk(self.count), images.chunk(self.count), targets.chunk(self.count), draws, strict=True))


def step_of(
    engine: Callable[[Any, InnerLoss, torch.device, torch.dtype], Step], one: Network, loss: InnerLoss, count: int, device: torch.device, dtype: torch.dtype
) -> Step:
    """What does the work of `count` students' inner step: one network of groups on a GPU, turns on a processor. `engine` is as `kernels.fastest`."""
    if device.type == "cuda":
        return engine(Several(one, count), Summed(loss, count), device, dtype)
    return InTurn(engine(one, loss, device, dtype), count)
