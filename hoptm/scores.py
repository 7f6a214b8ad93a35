"""Scores of one network on one split: class probabilities, then accuracy, balanced accuracy, AUC, recall and calibration.

The metrics are scikit-learn's where it has them; calibration is written out here. A class that the split does not hold takes no part, and is said to be absent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from torch import Tensor

from hoptm.data import Standardisation
from hoptm.errors import DataError, DivergedError
from hoptm.networks import Network

_CHUNK, _HELD = 512, 2**30
"""Images a forward pass of `predict`, and numbers that the network's layers may give for them: a very wide network sees fewer images at once."""
BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class Scores:
    """Scores of one network on one split, each in 0 .. 1."""

    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that the split holds."""
    auc: float
    """Area under the ROC curve: of class 1 when there are two, else the mean over the split's classes of one against the rest."""
    recall: tuple[float | None, ...]
    """One a class; None for a class that the split does not hold."""
    worst_recall: float | None = None
    """The lowest recall of the classes that the split holds. None in what was stored before it was measured."""
    ece: float | None = None
    """Expected calibration error, see `calibration_error`: 0 is calibrated. None in what was stored before it was measured."""


def predict(network: Network, theta: Float[Tensor, "p"], standardisation: Standardisation, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """Class probabilities (n, k), float64 on the CPU, of raw pixels. Double precision keeps the order of near-certain images, which AUC reads.

    Raises DataError for images of another shape than the network's.
    """
    expected = (network.channels, network.size, network.size)
    if tuple(images.shape[1:]) != expected:
        raise DataError(f"images {tuple(images.shape[1:])} were given to a network for {expected}. Name the data that the synthetic set was made from.")
    part = max(1, min(_CHUNK, _HELD // network.held))
    with torch.no_grad():
        logits = [network(theta, standardisation.apply(some).to(theta)) for some in images.split(part)]
    return torch.cat(logits).cpu().double().softmax(dim=1)


def score(probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, "n"]) -> Scores:
    """Compare class probabilities with the true classes.

    A class that the split does not hold takes no part in balanced accuracy and AUC, and its recall is None.

    Raises DataError when the split holds fewer than two classes (AUC is undefined) or a class beyond k, and
    DivergedError for probabilities that are not finite.
    """
    if not torch.isfinite(probabilities).all():
        raise DivergedError("a network gave probabilities that are not finite. Take a smaller step size.")
    classes = probabilities.shape[1]
    present = torch.unique(labels).tolist()
    if len(present) < 2 or present[0] < 0 or present[-1] >= classes:
        raise DataError(f"the split holds the classes {present}; scores need two or more of 0 .. {classes - 1}.")
    truth, guess = labels.numpy(), probabilities.argmax(dim=1).numpy()
    recall = dict(zip(present, recall_score(truth, guess, labels=present, average=None, zero_division=0).tolist(), strict=True))
    positives = [1] if classes == 2 else present
    areas = [float(roc_auc_score(truth == label, probabilities[:, label].numpy())) for label in positives]
    return Scores(
        accuracy=float(accuracy_score(truth, guess)),
        balanced_accuracy=sum(recall.values()) / len(recall),
        auc=sum(areas) / len(areas),
        recall=tuple(recall.get(label) for label in range(classes)),
        worst_recall=min(recall.values()),
        ece=calibration_error(probabilities, labels),
    )


def calibration_error(probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, "n"], bins: int = BINS) -> float:
    """Expected calibration error, 0 .. 1 (Naeini et al., 2015; Guo et al., 2017, equation 3).

    The confidence of an image is its largest class probability. Images fall into `bins` bins of equal width, bin m
    being ((m - 1) / bins, m / bins]; the error is the sum over bins of |B_m| / n * |accuracy(B_m) - mean confidence(B_m)|.
    Empty bins count nothing. With few images it is biased upwards, so compare it at one n only.

    Raises DataError for no images, fewer than one bin, or probabilities outside 0 .. 1.
    """
    if len(labels) < 1 or bins < 1 or not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise DataError(f"calibration needs probabilities in 0 .. 1, one image and one bin or more; there are {len(labels)} images and {bins} bins.")
    confidence, guess = probabilities.double().max(dim=1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    place = torch.bucketize(confidence, edges)  # right ends belong to the bin
    surplus = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, (guess == labels).double() - confidence)
    return float(surplus.abs().sum() / len(labels))
