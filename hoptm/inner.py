"""One inner step of the student, and the recorded randomness of a whole path.

What both engines share: the batches and draws of T steps, the gradient of one step, and the form of the answer. With the
randomness recorded, a path of training is a pure function of the images, the targets and the step size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

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
        """The same plan for images on `device`; draws follow the images by themselves."""
        return Plan(tuple(batch.to(device) for batch in self.batches), self.draws)


@dataclass(frozen=True)
class Gradients:
    """A path loss and its gradients."""

    loss: Float[Tensor, ""]
    images: Float[Tensor, "n c h w"]
    targets: Float[Tensor, "n k"] | None
    """None when the targets are class indices."""
    lr: Float[Tensor, ""]
    path: Float[Tensor, "k p"]
    """The student's waypoints."""


def inner_gradient(
    predict: Predict, inner_loss: InnerLoss, theta: Float[Tensor, "p"], images: Tensor, targets: Tensor, drawn: augment.Draw, *, graph: bool
) -> Float[Tensor, "p"]:
    """g_t: the gradient of the inner loss at `theta` on one augmented batch; with `graph` it can be differentiated again."""
    with torch.enable_grad():
        loss = inner_loss(predict(theta, augment.apply(images, drawn)), targets)
        return torch.autograd.grad(loss, theta, create_graph=graph)[0]


def check_waypoints(steps: Sequence[int], total: int, expected: int) -> None:
    """Raise ConfigError unless there are `expected` waypoints, all within 0 .. `total`."""
    if len(steps) != expected:
        raise ConfigError(f"the student has {len(steps)} waypoints and the expert {expected}: name one inner step for each checkpoint of the expert.")
    outside = [step for step in steps if not 0 <= step <= total]
    if outside:
        raise ConfigError(f"waypoint {outside[0]} lies outside the path of {total} inner steps.")
