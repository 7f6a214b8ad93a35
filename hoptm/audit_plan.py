"""Who is in which shadow of an audit: a pool of images, in groups that are judged apart, and fair coins.

A leak is not an average, so groups are kept apart: *ordinary* images, mislabelled *canaries*, the candidates for *initialisers*,
mislabelled ones of these, and, where they are none of these, images of the *rarest class*: they are few, and each counts for more. The first
`ipc` candidates of each class initialise whenever a shadow holds them, so for them to be a member is to be an initialiser. Where a shadow lacks
some, *reserves* take their places. These are in no test: for them membership means one thing or the other. Ordinary images, those of the rarest
class and canaries never initialise.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from hoptm.config import generator
from hoptm.data import Selectable, Train, single_label
from hoptm.errors import DataError
from hoptm.membership import toss
from hoptm.pipelines import AuditSettings, Shadow

GROUPS = ("ordinary", "canaries", "initialisers", "canary initialisers", "rarest class", "reserves")
JUDGED = GROUPS[:5]
"""Groups that are tested for membership."""


def reserves(ipc: int) -> int:
    """Reserves of a class, so many that a shadow with too few images to initialise is rarer than one in ten thousand."""
    return 3 * ipc + 12


@dataclass(frozen=True)
class Plan:
    """Who is in which shadow, drawn from the seed alone."""

    pool: Int64[Tensor, "n"]
    """Indices of the train split; no two are the same picture."""
    labels: Int64[Tensor, "n"]
    """As the shadows see them: those of canaries are wrong."""
    group: Int64[Tensor, "n"]
    """Index into `GROUPS`."""
    order: Int64[Tensor, "m"]
    """Places of the pool that may initialise, in the order in which they are taken."""
    settings: AuditSettings

    def members(self, shadow: int) -> Bool[Tensor, "n"]:
        """Which images of the pool a shadow holds: a fair coin each."""
        return toss(1, len(self.pool), generator(self.settings.seed, "membership", shadow))[0]

    @property
    def member(self) -> Bool[Tensor, "s n"]:
        """Those of all shadows."""
        return torch.stack([self.members(index) for index in range(self.settings.shadows)])


def plan(splits: Selectable, settings: AuditSettings) -> Plan:
    """Draw the pool, the canaries and the candidates; of classes that are equally rare in train the first is the rarest.

    Raises DataError for a multi-label set or one that is too small.
    """
    train, chance = single_label(splits).train, generator(settings.seed, "audit")
    _, first = torch.unique(train.images.flatten(1), dim=0, return_inverse=True)
    once = torch.full((int(first.max()) + 1,), len(first)).scatter_reduce(0, first, torch.arange(len(first)), "amin")
    pool = once[torch.randperm(len(once), generator=chance)[: settings.pool]]
    if len(pool) < settings.pool:
        raise DataError(f"{settings.pool} different images were asked for and train has {len(pool)}. Audit a smaller pool.")
    labels, group = train.labels[pool].clone(), torch.zeros(settings.pool, dtype=torch.int64)
    per_class = settings.ipc - settings.canary_initialisers
    first_of = [torch.nonzero(labels == label).flatten() for label in range(splits.classes)]
    needed = per_class + reserves(settings.ipc)
    if min(len(one) for one in first_of) < needed:
        raise DataError(f"a class has fewer than {needed} images in a pool of {settings.pool}; shadows could lack initialisers. Take a larger pool.")
    group[torch.cat([one[:per_class] for one in first_of])] = GROUPS.index("initialisers")
    group[torch.cat([one[per_class:needed] for one in first_of])] = GROUPS.index("reserves")
    free = torch.nonzero(group == 0).flatten()
    free = free[torch.randperm(len(free), generator=chance)]
    wrong = free[: settings.canaries + splits.classes * settings.canary_initialisers]
    labels[wrong] = (labels[wrong] + torch.randint(1, splits.classes, (len(wrong),), generator=chance)) % splits.classes
    group[wrong] = GROUPS.index("canaries")
    of_class = [wrong[labels[wrong] == label][: settings.canary_initialisers] for label in range(splits.classes)]
    group[torch.cat(of_class)] = GROUPS.index("canary initialisers")
    rarest = int(torch.bincount(train.labels, minlength=splits.classes).argmin())
    group[(group == GROUPS.index("ordinary")) & (labels == rarest)] = GROUPS.index("rarest class")
    rank = torch.tensor([3, 3, 1, 0, 3, 2])[group]
    order = rank.argsort(stable=True)
    return Plan(pool, labels, group, order[rank[order] < 3], settings)


def shadow_of(splits: Selectable, made: Plan, index: int) -> Shadow:
    """Shadow `index`: its images with their labels, and which of them initialise; no test split. Raises DataError when a class has too few."""
    held = made.members(index)
    inside, place = torch.nonzero(held).flatten(), held.cumsum(0) - 1
    order = made.order[held[made.order]]
    chosen = [order[made.labels[order] == label][: made.settings.ipc] for label in range(splits.classes)]
    if any(len(one) < made.settings.ipc for one in chosen):
        raise DataError(f"shadow {index} lacks {made.settings.ipc} images of a class. Audit a larger pool.")
    train = Train(splits.train.images[made.pool[inside]], made.labels[inside])
    return Shadow(index, dataclasses.replace(splits.without_test, train=train), place[torch.cat(chosen)], made.settings)
