"""Losses of the student's own steps.

Experts see the classes as often as the train split holds them, a synthetic set holds each equally often. A student with plain
cross-entropy then learns the experts' class prior through the images. Two losses keep the prior out of them.
"""

import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from hoptm.config import INNER_LOSSES
from hoptm.errors import ConfigError
from hoptm.inner import InnerLoss


def named(name: str, counts: Int64[Tensor, "k"]) -> InnerLoss:
    """The inner loss of a name; `counts` are the training images of each class.

    `cross_entropy`; `prior`: each image weighs its class's share of train times the number of classes, so that a balanced synthetic
    batch pulls as an unbalanced real one does; `balanced_softmax` (Ren et al. 2020): log of the share is added to the logits, so that the student's
    logits are free of it. A class without images counts as one image. Raises ConfigError for another name.
    """
    if name not in INNER_LOSSES:
        raise ConfigError(f"no inner loss {name!r}; there are {', '.join(INNER_LOSSES)}.")
    share = counts.clamp_min(1).double()
    share = share / share.sum()

    def prior(logits: Tensor, targets: Tensor) -> Tensor:
        weight = (share * len(share)).to(logits)
        each = F.cross_entropy(logits, targets, weight=weight, reduction="none")
        return each.mean()

    def balanced(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits + share.log().to(logits), targets)

    found: dict[str, InnerLoss] = {"cross_entropy": F.cross_entropy, "prior": prior, "balanced_softmax": balanced}
    return found[name]
