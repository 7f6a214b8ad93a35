"""Worst-class recall and calibration, by hand and against scikit-learn; records made before they were measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from hoptm.config import configure
from hoptm.errors import DataError
from hoptm.records import Record, read_records, write_record
from hoptm.results import arm, by_seed, gain, stored
from hoptm.scores import BINS, Scores, calibration_error, score


def drawn(count: int, classes: int, seed: int, sharp: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=chance)
    logits = sharp * torch.rand(count, classes, generator=chance, dtype=torch.float64)
    logits[torch.arange(count), labels] += 1
    return logits.softmax(dim=1), labels


def test_calibration_by_hand() -> None:
    """Confidences .9 .9 .6 .55 in bins (13/15, 14/15], (8/15, 9/15]: the first bin is half right, the second all right."""
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.45, 0.55]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    assert calibration_error(probabilities, labels) == pytest.approx((2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.575)) / 4)
    assert calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(0.75 - 0.7375))


def test_right_ends_belong_to_their_bin() -> None:
    """At ten bins .6 lies in (.5, .6], with .55; at the other convention the two would count apart."""
    probabilities = torch.tensor([[0.6, 0.4], [0.55, 0.45]], dtype=torch.float64)
    found = calibration_error(probabilities, torch.tensor([0, 1]), bins=10)
    assert found == pytest.approx(abs(1 - (0.6 + 0.55)) / 2)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    sure = torch.eye(3, dtype=torch.float64)
    assert calibration_error(sure, torch.arange(3)) == 0.0
    assert calibration_error(sure, torch.tensor([1, 2, 0])) == 1.0


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (2, 1), (5, 2), (8, 3)])
def test_calibration_is_that_of_scikit_learns_curve(classes: int, seed: int) -> None:
    probabilities, labels = drawn(400, classes, seed)
    confidence, guess = probabilities.max(dim=1)
    right = (guess == labels).numpy()
    true, said = calibration_curve(right, confidence.numpy(), n_bins=BINS, strategy="uniform")
    counts = np.histogram(confidence.numpy(), bins=np.linspace(0, 1, BINS + 1))[0]
    expected = float((counts[counts > 0] / 400 * np.abs(true - said)).sum())
    assert score(probabilities, labels).ece == pytest.approx(expected) == calibration_error(probabilities, labels)


@pytest.mark.parametrize(("classes", "seed"), [(2, 4), (3, 5), (8, 6)])
def test_all_scores_are_scikit_learns(classes: int, seed: int) -> None:
    probabilities, labels = drawn(300, classes, seed)
    found, guess = score(probabilities, labels), probabilities.argmax(dim=1)
    recall = recall_score(labels, guess, average=None)
    assert found.worst_recall == pytest.approx(recall.min()) and found.recall == pytest.approx(recall.tolist())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, guess))
    area = roc_auc_score(labels, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr", average="macro")
    assert found.auc == pytest.approx(area)


def test_the_worst_recall_passes_over_absent_classes() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]], dtype=torch.float64)
    found = score(probabilities, torch.tensor([0, 2, 0, 2]))
    assert found.recall == (1.0, None, 0.5) and found.worst_recall == 0.5


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match="one image"):
        calibration_error(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match=r"0 \.\. 1"):
        calibration_error(torch.tensor([[1.5, -0.5]]), torch.tensor([0]))


# ---- records of both kinds ------------------------------------------------------------------------------------


def record(seed: int, scores: dict[str, object], method: str = "endpoint") -> Record:
    config = configure("pneumoniamnist", method="endpoint", ipc=1, seed=seed, profile="fast").as_dict()
    return Record({"name": "pneumoniamnist", "checksum": "md5:0"}, method, 1, seed, config, {"scores": [scores]}, 1.0, 1, "abc", {}, "cpu")


def test_old_and_new_records_give_one_table(tmp_path: Path) -> None:
    old = {"accuracy": 0.8, "balanced_accuracy": 0.7, "auc": 0.9, "recall": [0.4, None, 0.9]}
    new = json.loads(json.dumps(dataclasses.asdict(Scores(0.8, 0.7, 0.9, (0.6, None, 0.9), 0.6, 0.1))))
    for number, scores in enumerate((old, new)):
        write_record(tmp_path, record(number, scores))
    back = read_records(tmp_path)
    assert by_seed(back, "worst_recall") == {0: 0.4, 1: 0.6} and by_seed(back, "auc") == {0: 0.9, 1: 0.9}
    assert by_seed(back[1:], "ece") == {1: 0.1}
    with pytest.raises(DataError, match="seed 0 hold no ece"):
        by_seed(back, "ece")
    words = {"dataset": "pneumoniamnist", "ipc": 1}
    assert arm(back, "worst_recall", method="endpoint", **words).mean == pytest.approx(0.5)
    bare = Scores(0.8, 0.7, 0.9, (0.4, None, 0.9))
    assert bare.ece is None and bare.worst_recall is None


def test_the_stored_records_still_read() -> None:
    records = read_records(stored("records"))
    words = {"dataset": "pneumoniamnist", "first": "endpoint", "second": "random", "ipc": 1}
    found = gain(records, "worst_recall", **words)  # type: ignore[arg-type]
    assert found.n == 10 and -1 < found.low < found.high < 1
