"""Losses of the student's own steps.

Experts see the classes as often as the train split holds them, and their logits carry these shares. A synthetic set holds the classes in shares of
its own, most often equal ones. A student with plain cross-entropy can follow the experts' shares only through its images; two losses put
them into the student, so that the images need not carry them.
"""

import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from hoptm.config import INNER_LOSSES
from hoptm.errors import ConfigError
from hoptm.inner import InnerLoss


def named(name: str, counts: Int64[Tensor, "k"], held: Int64[Tensor, "k"] | None = None) -> InnerLoss:
    """The inner loss of a name; `counts` are the training images of each class, `held` those of the synthetic set (equally many where it is None).

    With w = (share of train) / (share of the set), class by class: `cross_entropy`; `prior`, where each image weighs w of its class; `balanced_softmax`,
    the cross-entropy of the logits less log w. Under both the best logits are those of plain cross-entropy on train, which is what the
    experts learned. The second is the balanced softmax of Ren et al. (2020) with its sides changed: there the data are unequal and the answer is
    not to be. A class without training images counts as one image. Raises ConfigError for another name.
    """
    if name not in INNER_LOSSES:
        raise ConfigError(f"no inner loss {name!r}; there are {', '.join(INNER_LOSSES)}.")
    share = counts.clamp_min(1).double()
    share = share / share.sum()
    weight = share * (len(share) if held is None else held.sum().double() / held)

    def prior(logits: Tensor, targets: Tensor) -> Tensor:
        each = F.cross_entropy(logits, targets, weight=weight.to(logits), reduction="none")
        return each.mean()

    def balanced(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits - weight.log().to(logits), targets)

    found: dict[str, InnerLoss] = {"cross_entropy": F.cross_entropy, "prior": prior, "balanced_softmax": balanced}
    return found[name]
