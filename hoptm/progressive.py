"""Easy, then complex: which parameters the end-point loss counts.

A parameter is easy where the student already ends near the expert. The published method counts a parameter from
the first iteration in which its squared error falls below a threshold, and the threshold grows. The mask is a
weight over the P parameters that a path loss takes.
"""

from jaxtyping import Bool, Float
from torch import Tensor


def threshold(iteration: int, initial: float, growth: float, every: int) -> float:
    """tau(iteration) = initial * growth^floor(iteration / every), a squared error (Dong et al. 2025)."""
    return float(initial * growth ** (iteration // every))


def sticky(previous: Bool[Tensor, "p"] | None, errors: Float[Tensor, "p"], limit: float) -> Bool[Tensor, "p"]:
    """The published mask: a parameter once below the threshold counts for ever.

    `previous` is the mask of the last iteration, None before the first. Strictly below `limit` is easy.
    The mask is shared by all experts and start epochs, so it fills up faster than any one of them would.
    """
    easy = errors.detach() < limit
    return easy if previous is None else previous | easy


def utilisation(mask: Bool[Tensor, "p"]) -> float:
    """The share of parameters in use, 0 to 1."""
    return float(mask.double().mean())
