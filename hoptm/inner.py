"""One inner step of the student, and the recorded randomness of a whole path.

What both engines share: the batches and draws of T steps, the gradient of one step and its derivative, and the form of
the answer. With the randomness recorded, a path of training is a pure function of images, targets and step sizes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hoptm import augment
from hoptm.errors import ConfigError

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""predict(theta (P,), images (b, c, h, w)) -> logits (b, k); a `networks.Network` is one."""
InnerLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""loss(logits (b, k), targets (b,) classes or (b, k) soft labels) -> scalar."""


@dataclass(frozen=True)
class Plan:
    """The recorded randomness of a path: which images each inner step sees, and how they are augmented."""

    batches: tuple[Int64[Tensor, "_"], ...]
    draws: tuple[augment.Draw, ...]

    @property
    def steps(self) -> int:
        """T, the number of inner steps."""
        return len(self.batches)

    def to(self, device: torch.device) -> "Plan":
        """The same plan for images on `device`."""
        draws = tuple(augment.Draw(draw.name, {name: value.to(device) for name, value in draw.values.items()}) for draw in self.draws)
        return Plan(tuple(batch.to(device) for batch in self.batches), draws)


@dataclass(frozen=True)
class Gradients:
    """A path loss and its gradients."""

    loss: Float[Tensor, ""]
    images: Float[Tensor, "n c h w"]
    targets: Float[Tensor, "n k"] | None
    """None when the targets are class indices."""
    lr: Float[Tensor, "*steps"]
    """As the step size was given: one number, or one a step."""
    path: Float[Tensor, "waypoints p"]
    """The student's waypoints."""


@dataclass(frozen=True)
class Second:
    """s = < g, along > of one step, and its derivatives."""

    product: Float[Tensor, ""]
    theta: Float[Tensor, "p"]
    images: Float[Tensor, "b c h w"]
    targets: Float[Tensor, "b k"] | None


@runtime_checkable
class Step(Protocol):
    """The work of one inner step, once and twice differentiated. What is returned may be overwritten by the next call."""

    def first(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, *, keep: bool) -> tuple[Tensor, Any]:
        """The gradient g (P,) of the inner loss; with `keep` also what spares `second` work, else None."""
        ...

    def second(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, along: Tensor, kept: Any) -> Second:
        """The derivatives of < g, along >; `kept` is what `first` gave for the same arguments, or None."""
        ...

    def kept_bytes(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> int:
        """Bytes that one kept step of such arguments takes."""
        ...


@dataclass
class Kept:
    """What the forward sweep leaves for the backward sweep: the first `limit` steps, which every backward sweep reads."""

    limit: int
    steps: dict[int, Any] = field(default_factory=dict)


def inner_gradient(
    predict: Predict, inner_loss: InnerLoss, theta: Float[Tensor, "p"], images: Tensor, targets: Tensor, drawn: augment.Draw, *, graph: bool
) -> Float[Tensor, "p"]:
    """g_t: the gradient of the inner loss at `theta` on one augmented batch; with `graph` it can be differentiated again."""
    with torch.enable_grad():
        loss = inner_loss(predict(theta, augment.apply(images, drawn)), targets)
        return torch.autograd.grad(loss, theta, create_graph=graph)[0]


@dataclass(frozen=True)
class Eager:
    """A `Step` by autograd: any network, loss and device; the reference for every other."""

    predict: Predict
    inner_loss: InnerLoss

    def first(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, *, keep: bool) -> tuple[Tensor, Any]:
        """As `Step.first`; what is kept is the graph of the gradient, and its leaves."""
        if keep:
            graph = self._graph(theta, images, targets, drawn)
            return graph[0].detach(), graph
        leaf = theta.clone().requires_grad_()
        return inner_gradient(self.predict, self.inner_loss, leaf, images, targets, drawn, graph=False), None

    def second(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, along: Tensor, kept: Any) -> Second:
        """As `Step.second`, by reverse mode over the graph of the gradient."""
        gradient, *leaves = kept or self._graph(theta, images, targets, drawn)
        with torch.enable_grad():
            product = gradient @ along
        parts = torch.autograd.grad(product, leaves, allow_unused=True, materialize_grads=True)
        return Second(product.detach(), parts[0], parts[1], parts[2] if len(parts) == 3 else None)

    def kept_bytes(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> int:
        """As `Step.kept_bytes`: what the graph of one gradient saves, each piece of memory counted once."""
        sizes: dict[int, int] = {}

        def note(saved: Tensor) -> Tensor:
            sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            _, graph = self.first(theta, images, targets, drawn, keep=True)
        del graph
        return sum(sizes.values())

    def _graph(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> tuple[Tensor, ...]:
        soft = targets.is_floating_point()
        leaf, shown = theta.clone().requires_grad_(), images.detach().clone().requires_grad_()
        wanted = targets.detach().clone().requires_grad_(soft)
        gradient = inner_gradient(self.predict, self.inner_loss, leaf, shown, wanted, drawn, graph=True)
        return (gradient, leaf, shown, wanted) if soft else (gradient, leaf, shown)


def step_sizes(lr: Float[Tensor, "*steps"], total: int) -> Float[Tensor, "t"]:
    """The step size of each of `total` steps, through which gradients flow. Raises ConfigError unless `lr` is () or (T,)."""
    if lr.shape not in ((), (total,)):
        raise ConfigError(f"{lr.numel()} step sizes were given for a path of {total} inner steps: give one number, or one a step.")
    return lr.expand(total)


def check_waypoints(steps: Sequence[int | Fraction], total: int, expected: int) -> None:
    """Raise ConfigError unless there are `expected` waypoints, all within 0 .. `total`."""
    if len(steps) != expected:
        raise ConfigError(f"the student has {len(steps)} waypoints and the expert {expected}: name one inner step for each checkpoint of the expert.")
    outside = [step for step in steps if not 0 <= step <= total]
    if outside:
        raise ConfigError(f"waypoint {outside[0]} lies outside the path of {total} inner steps.")


def waypoints_on(path: Float[Tensor, "t p"] | Sequence[Float[Tensor, "p"]], steps: Sequence[int | Fraction]) -> Float[Tensor, "k p"]:
    """The student at inner steps 0 .. T; between two steps it is on the straight line from one to the other."""
    rows = [torch.lerp(path[before], path[before + 1], share) if share else path[before] for before, share in map(split, steps)]
    return torch.stack(rows)


def split(step: int | Fraction) -> tuple[int, float]:
    """A waypoint as the step before it and the share (0 to 1) of the way to the next."""
    before = math.floor(step)
    return before, float(step - before)
