"""Small sets of real images: what a distilled set has to beat.

Every set here holds training images as they are: it leaks them whole, and no selection reads validation or test.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from torch import Tensor

from hoptm.data import Selectable, single_label
from hoptm.embeddings import Features, embed_train
from hoptm.errors import DataError
from hoptm.synthetic import SyntheticSet, budgets_of, from_real, initialise, provenance

Choose: TypeAlias = Callable[[Tensor, int], Tensor]
"""From the features (n, d) of a class and a number to the rows that are taken."""


def random_subset(splits: Selectable, ipc: int | Sequence[int], generator: torch.Generator, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """`ipc` real training images of each class, drawn uniformly without replacement and standardised as train is.

    A sequence names a number for each class; the description then holds their rounded mean as `ipc`.

    `seed` is only written into the description; the draw comes from `generator`. The step size `lr` is what a
    reader may start from; the evaluation chooses its own on validation.

    Raises DataError for a multi-label set, or a class with fewer than `ipc` images.
    """
    chosen = initialise(single_label(splits).train, splits.classes, ipc, generator)
    return from_real(splits, chosen, provenance(splits, method="random", ipc=_mean(ipc, splits), seed=seed), lr=lr)


def natural_subset(splits: Selectable, ipc: int, generator: torch.Generator, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """`ipc` times the number of classes real training images in all, with the class mix that chance gives them.

    First one image of each class, so that none is missing, then the rest uniformly without replacement from what is
    left: at small totals this favours rare classes a little over a draw that may miss them. Method `natural`.

    Raises DataError for a multi-label set, a class without images, or fewer training images than asked for.
    """
    train = single_label(splits).train
    first, total = initialise(train, splits.classes, 1, generator), ipc * splits.classes
    if ipc < 1 or total > len(train.labels):
        raise DataError(f"{ipc} images per class, {total} in all, were asked for; train has {len(train.labels)}. Ask for 1 or more, and for fewer.")
    order = torch.randperm(len(train.labels), generator=generator)
    rest = order[~torch.isin(order, first)][: total - len(first)]
    return from_real(splits, torch.cat([first, rest]), provenance(splits, method="natural", ipc=ipc, seed=seed), lr=lr)


def herding(splits: Selectable, ipc: int | Sequence[int], features: Features, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """The images whose running mean follows the mean of their class (Welling, ICML 2009), class by class.

    With features phi scaled to unit length and class mean mu: w_0 = mu, x_t = argmax over images not yet taken of
    <w_{t-1}, phi(x)>, w_t = w_{t-1} + mu - phi(x_t). At unit length this is also the image that brings the mean of the
    chosen nearest to mu. No chance enters; `seed` names the network behind `features`. Raises as `random_subset`.
    """
    return _by_class(splits, ipc, features, "herding", herd, seed, lr)


def k_centre(splits: Selectable, ipc: int | Sequence[int], features: Features, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """Farthest-first k-centre (Sener and Savarese, ICLR 2018, algorithm 1), class by class.

    The first image is the nearest to the class mean; each next one is the farthest from all that are chosen
    (Euclidean, in `features`), at most twice the best possible radius. No chance enters. Raises as `random_subset`.
    """
    return _by_class(splits, ipc, features, "kcentre", _spread, seed, lr)


def k_means(
    splits: Selectable, ipc: int | Sequence[int], features: Features, generator: torch.Generator, *, seed: int | None = None, lr: float = 0.01
) -> SyntheticSet:
    """The real image nearest to each of `ipc` k-means centres of its class (scikit-learn's k-means++, four starts).

    An image that two centres share goes to the first, the second takes its next nearest. The starts of k-means come
    from `generator`. Raises as `random_subset`.
    """
    return _by_class(splits, ipc, features, "kmeans", nearest_to_centres(generator), seed, lr)


def select(splits: Selectable, ipc: int | Sequence[int], features: Features, choose: Choose) -> Int64[Tensor, "n"]:
    """Indices of `ipc` training images of each class, class by class, as `choose` picks them by their features. Raises as `random_subset`."""
    train = single_label(splits).train
    initialise(train, splits.classes, ipc, torch.Generator())  # refuses a budget that a class cannot meet
    found = embed_train(train, features)
    members = [torch.nonzero(train.labels == label).flatten() for label in range(splits.classes)]
    return torch.cat([rows[choose(found[rows], count)] for rows, count in zip(members, budgets_of(ipc, splits.classes), strict=True)])


def _mean(ipc: int | Sequence[int], splits: Selectable) -> int:
    return round(sum(budgets_of(ipc, splits.classes)) / splits.classes)


def _by_class(splits: Selectable, ipc: int | Sequence[int], features: Features, method: str, choose: Choose, seed: int | None, lr: float) -> SyntheticSet:
    config: dict[str, Any] = {"features": features.name}
    return from_real(splits, select(splits, ipc, features, choose), provenance(splits, method=method, ipc=_mean(ipc, splits), seed=seed, config=config), lr=lr)


def nearest_to_centres(generator: torch.Generator) -> Choose:
    """The choice of `k_means`."""
    state = int(torch.randint(2**31 - 1, (), generator=generator))

    def choose(found: Tensor, count: int) -> Tensor:
        fitted = KMeans(count, n_init=4, random_state=state).fit(found.numpy())
        distance = torch.cdist(torch.from_numpy(fitted.cluster_centers_).to(found), found)
        return _nearest_each(distance)

    return choose


def herd(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, "k"]:
    """The choice of `herding`: rows of `features`, in the order in which they are taken."""
    unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)
    mean = unit.mean(dim=0)
    wish, chosen = mean.clone(), []
    free = torch.zeros(len(unit), dtype=unit.dtype)
    for _ in range(count):
        best = int((unit @ wish + free).argmax())
        chosen.append(best)
        free[best] = -torch.inf
        wish += mean - unit[best]
    return torch.tensor(chosen)


def _spread(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, "k"]:
    gap = (features - features.mean(dim=0)).norm(dim=1)
    chosen = [int(gap.argmin())]
    nearest = (features - features[chosen[0]]).norm(dim=1)
    nearest[chosen[0]] = -1.0  # taken: equal images must not be chosen twice
    for _ in range(count - 1):
        best = int(nearest.argmax())
        chosen.append(best)
        nearest = torch.minimum(nearest, (features - features[best]).norm(dim=1))
        nearest[best] = -1.0
    return torch.tensor(chosen)


def _nearest_each(distance: Float[Tensor, "k n"]) -> Int64[Tensor, "k"]:
    chosen: list[int] = []
    for row in distance.clone():
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen)
