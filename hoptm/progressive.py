"""Easy, then complex: which parameters the end-point loss counts.

A parameter is easy where the student already ends near the expert. The published method counts a parameter from
the first iteration in which its squared error falls below a threshold, and the threshold grows. A quantile needs no scale: it counts a
growing share of the parameters, the nearest first. The mask is a weight over the P parameters that a path loss takes.

Parameters to which the network does not answer (a bias before a norm) have no error and no gradient. They are easy at once and
teach nothing, so they are left out of quantiles and of the share in use; the published mask counts them.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hoptm.parameters import Layout


def threshold(iteration: int, initial: float, growth: float, every: int) -> float:
    """tau(iteration) = initial * growth^floor(iteration / every), a squared error (Dong et al. 2025)."""
    return float(initial * growth ** (iteration // every))


def sticky(previous: Bool[Tensor, "p"] | None, errors: Float[Tensor, "p"], limit: float) -> Bool[Tensor, "p"]:
    """The published mask: a parameter once below the threshold counts for ever.

    `previous` is the mask of the last iteration, None before the first. Strictly below `limit` is easy.
    The mask is shared by all experts and start epochs, so it fills up faster than any one of them would.
    """
    easy = fresh(errors, limit)
    return easy if previous is None else previous | easy


def fresh(errors: Float[Tensor, "p"], limit: float) -> Bool[Tensor, "p"]:
    """The mask of this iteration alone: strictly below `limit` is easy."""
    return errors.detach() < limit


def share(progress: float, first: float, last: float) -> float:
    """The share in use when `progress` (0 to 1) of a run is done: linear from `first` to `last`."""
    return first + (last - first) * min(1.0, max(0.0, progress))


def quantile(errors: Float[Tensor, "p"], part: float, alive: Bool[Tensor, "p"]) -> Bool[Tensor, "p"]:
    """The `part` (0 to 1) of the living parameters with the smallest errors, rounded up; all of them at 1.

    Free of scale: the same share is in use whatever the step size, width or data. Of equal errors the earlier parameter is taken.
    """
    living = alive.nonzero().flatten()
    wanted = min(len(living), max(1, -int(-part * len(living) // 1)))
    chosen = errors.detach()[living].argsort(stable=True)[:wanted]
    mask = torch.zeros_like(alive)
    mask[living[chosen]] = True
    return mask


def layers(errors: Float[Tensor, "p"], moved: Float[Tensor, "p"], part: float, alive: Bool[Tensor, "p"], layout: Layout) -> Bool[Tensor, "p"]:
    """Whole tensors at a time: the `part` of the living tensors whose error relative to how far the expert moved is smallest.

    `moved` is the squared distance that the expert went, coordinate by coordinate. At least one tensor is in use.
    """
    ratios, spans = [], []
    first = 0
    for shape in layout.shapes:
        span = slice(first, first + math.prod(shape))
        first = span.stop
        if bool(alive[span].any()):
            ratios.append(errors[span].sum() / moved[span].sum().clamp_min(1e-30))
            spans.append(span)
    wanted = min(len(spans), max(1, -int(-part * len(spans) // 1)))
    mask = torch.zeros_like(alive)
    for index in torch.stack(ratios).detach().argsort(stable=True)[:wanted].tolist():
        mask[spans[index]] = alive[spans[index]]
    return mask


def utilisation(mask: Bool[Tensor, "p"], alive: Bool[Tensor, "p"] | None = None) -> float:
    """The share of parameters in use, 0 to 1; with `alive`, of the living ones."""
    return float((mask if alive is None else mask[alive]).double().mean())
