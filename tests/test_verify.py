"""The released numbers, and that the comparison can fail."""

import numpy as np
import pytest

from hoptm.errors import FileError
from hoptm.verify import TOLERANCE, golden_files, verify


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_the_core_equals_the_released_method(path):
    verdict = verify(path)
    assert verdict.passed
    assert len(verdict.errors) == 30 and max(verdict.errors.values()) <= TOLERANCE
    assert list(verdict.masks.values()) == [0, 0, 0]


def test_two_golden_files_ship():
    assert [path.name for path in golden_files()] == ["published_a.npz", "published_b.npz"]


def _edited(tmp_path, change):
    with np.load(golden_files()[0]) as file:
        golden = {name: file[name] for name in file.files}
    change(golden)
    path = tmp_path / "edited.npz"
    np.savez(path, **golden)
    return path


@pytest.mark.parametrize("key", ["it1_grad_images", "it2_student_end", "it0_shape_loss", "it2_lr_after"])
def test_a_number_that_differs_fails(tmp_path, key):
    def change(golden):
        golden[key] = golden[key] * (1 + 1e-7)

    verdict = verify(_edited(tmp_path, change))
    assert not verdict.passed and verdict.errors[key] > TOLERANCE


def test_a_mask_that_differs_and_a_nan_fail(tmp_path):
    def flip(golden):
        golden["it1_mask"][3] ^= 1

    def spoil(golden):
        golden["it0_grad_lr"] = np.array(np.nan)

    assert verify(_edited(tmp_path, flip)).masks["it1_mask"] == 1
    assert not verify(_edited(tmp_path, flip)).passed
    assert not verify(_edited(tmp_path, spoil)).passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda golden: golden.pop("it1_mask"), "it1_mask"),
        (lambda golden: golden.pop("it0_start_epoch"), "it0_start_epoch|it2"),
        (lambda golden: golden.update(expert=golden["expert"].astype(np.float32)), "float32"),
        (lambda golden: golden.update(width=np.array(9)), "parameters"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, change, words):
    with pytest.raises(FileError, match=words):
        verify(_edited(tmp_path, change))


def test_no_npz_and_pickled_npz(tmp_path):
    (tmp_path / "no.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "pickled.npz", expert=np.array([{"a": 1}], dtype=object))
    for name in ("no.npz", "pickled.npz", "absent.npz"):
        with pytest.raises(FileError, match=name):
            verify(tmp_path / name)
