"""Expert files: read in part, checked in part and in whole, never half written, never mixed up."""

import errno
import shutil

import pytest
import torch
from filelock import FileLock, Timeout

from hoptm import files, trajectories
from hoptm.errors import FileError
from hoptm.parameters import Layout

LAYOUT = Layout(("0.weight", "0.bias"), ((4, 5), (4,)))
STEPS = (0, 5, 10)
INFO = {
    "dataset": {"name": "toy", "checksum": "sha256:0"},
    "network": {"family": "mlp", "width": 4},
    "layout": list(zip(LAYOUT.names, LAYOUT.shapes, strict=True)),
    "seed": 0,
}


def path_of(seed: int) -> dict[int, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {step: torch.randn(24, generator=chance) for step in STEPS}


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        trajectories.save(trajectories.file_of(tmp_path / "experts", index), path_of(index), {**INFO, "index": index})
    return tmp_path / "experts"


def change(path, old: bytes, new: bytes) -> None:
    whole = path.read_bytes()
    assert whole.count(old) == 1 and len(old) == len(new)
    path.write_bytes(whole.replace(old, new))


def flip(path, tensor: torch.Tensor) -> None:
    """Change one bit of one stored checkpoint."""
    raw = tensor.numpy().tobytes()
    change(path, raw, bytes([raw[0] ^ 1]) + raw[1:])


def test_points_come_in_the_order_asked(folder):
    found = trajectories.open_folder(folder, LAYOUT)
    assert (found.count, found.steps, found.parameters, found.info["seed"]) == (3, STEPS, 24, 0)
    for expert in range(3):
        stored = path_of(expert)
        assert torch.equal(found.points(expert, [10, 0, 10]), torch.stack([stored[10], stored[0], stored[10]]))
    assert found.points(0, []).shape == (0, 24)


def test_what_is_read_is_a_copy(folder):
    found = trajectories.open_folder(folder)
    first = found.points(0, [5])
    first.zero_()
    assert torch.equal(found.points(0, [5])[0], path_of(0)[5])


def test_a_part_is_read_and_only_that_part_is_checked(folder):
    flip(trajectories.file_of(folder, 1), path_of(1)[10])
    found = trajectories.open_folder(folder, LAYOUT)
    assert torch.equal(found.points(1, [0, 5]), torch.stack([path_of(1)[0], path_of(1)[5]]))
    with pytest.raises(FileError, match=r"expert_001.*step_000010 does not match its checksum"):
        found.points(1, [0, 10])
    with pytest.raises(FileError, match="expert_001"):
        trajectories.verify(folder)


def test_verify_passes_what_was_saved(folder):
    assert trajectories.verify(folder).count == 3


def test_a_step_or_an_expert_that_is_not_stored(folder):
    found = trajectories.open_folder(folder)
    with pytest.raises(FileError, match=r"step 7 is not stored; stored are 0, 5, 10\."):
        found.points(0, [0, 7])
    for expert in (-1, 3):
        with pytest.raises(FileError, match=r"no expert -?\d; there are 0 .. 2"):
            found.points(expert, [0])


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (
            Layout(("0.weight", "0.bias"), ((5, 5), (5,))),
            r"has 24 parameters \(family mlp, width 4\), this run's has 30; .* 0.weight \(4, 5\) against 0.weight \(5, 5\)",
        ),
        (Layout(("0.bias", "0.weight"), ((4,), (4, 5))), r"0.weight \(4, 5\) against 0.bias \(4,\)"),
        (Layout((*LAYOUT.names, "1.bias"), (*LAYOUT.shapes, (2,))), r"nothing against 1.bias \(2,\)"),
    ],
)
def test_another_network_is_refused_and_both_are_named(folder, layout, words):
    with pytest.raises(FileError, match=words):
        trajectories.open_folder(folder, layout)


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "pickled", "edited", "foreign", "folder"])
def test_a_damaged_file_is_named_on_opening(folder, damage):
    path = trajectories.file_of(folder, 1)
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    elif damage == "pickled":
        torch.save(path_of(1), path)
    elif damage == "edited":
        change(path, b'\\"seed\\": 0', b'\\"seed\\": 7')
    elif damage == "foreign":
        files.write_tensors(path, {"images": torch.zeros(3)}, {"kind": "set"})
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(FileError, match="expert_001"):
        trajectories.open_folder(folder)
    with pytest.raises(FileError, match="expert_001"):
        trajectories.verify(folder)


def test_a_file_that_was_swapped_after_opening(folder):
    found = trajectories.open_folder(folder)
    trajectories.save(trajectories.file_of(folder, 2), path_of(2), {**INFO, "index": 2, "seed": 1})
    with pytest.raises(FileError, match=r"expert_002.*other data, network or settings"):
        found.points(2, [0])
    with pytest.raises(FileError, match=r"expert_002.*other data, network or settings"):
        trajectories.open_folder(folder)
    assert trajectories.open_folder(folder, count=2).count == 2


def test_a_missing_or_extra_checkpoint_fails_the_whole_check(folder):
    path = trajectories.file_of(folder, 0)
    tensors, info = files.read_tensors(path)
    files.write_tensors(path, {**tensors, "step_000020": torch.zeros(24)}, info)
    with pytest.raises(FileError, match="not those its header names"):
        trajectories.verify(folder)
    del tensors["step_000005"]
    files.write_tensors(path, tensors, info)
    with pytest.raises(FileError, match="cannot read step_000005"):
        trajectories.open_folder(folder).points(0, [5])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(24, dtype=torch.float64), "torch.float64"),
        (torch.zeros(23), r"\(23,\)"),
        (torch.zeros(24, 1), r"\(24, 1\)"),
        (torch.full((24,), torch.nan), "not finite"),
    ],
)
def test_wrong_numbers_are_refused_on_writing_and_on_reading(folder, tmp_path, bad, words):
    if bad.dim() == 1:  # the shape checks of the tests would be first
        with pytest.raises(FileError, match=words):
            trajectories.save(tmp_path / "new" / "expert_000.safetensors", {**path_of(0), 10: bad}, INFO)
        assert not (tmp_path / "new").exists()
    path = trajectories.file_of(folder, 0)
    tensors, info = files.read_tensors(path)
    files.write_tensors(path, {**tensors, "step_000010": bad}, info)
    with pytest.raises(FileError, match=words):
        trajectories.open_folder(folder).points(0, [10])
    with pytest.raises(FileError, match=words):
        trajectories.verify(folder)


def test_no_checkpoints_and_no_experts(tmp_path):
    with pytest.raises(FileError, match="at least one checkpoint"):
        trajectories.save(tmp_path / "expert_000.safetensors", {}, INFO)
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileError, match="no experts here"):
            trajectories.open_folder(folder)


def test_more_experts_than_there_are(folder):
    with pytest.raises(FileError, match=r"expert_003.safetensors: missing; 2 of 5"):
        trajectories.open_folder(folder, count=5)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(tensors, name, metadata):
        with open(name, "wb") as half:
            half.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(FileError, match=r"No space left on device.*run again"):
        trajectories.save(tmp_path / "expert_000.safetensors", path_of(0), INFO)
    assert list(tmp_path.iterdir()) == []


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "named"))
    made_from = {"seed": 0, "steps": (0, 5)}
    folder = trajectories.cache_folder(made_from)
    assert folder.parent == tmp_path / "named" / "experts"
    assert trajectories.cache_folder(made_from, tmp_path) == tmp_path / "experts" / folder.name
    assert trajectories.cache_folder({**made_from, "seed": 1}).name != folder.name
    monkeypatch.setattr(trajectories, "FORMAT", trajectories.FORMAT + 1)
    assert trajectories.cache_folder(made_from).name != folder.name
    monkeypatch.delenv("HOPTM_CACHE")
    assert trajectories.cache_folder(made_from).parts[-3:-1] == ("hoptm", "experts")


def test_the_lock_keeps_others_out_and_clears_what_was_half_written(folder):
    path = trajectories.file_of(folder, 0)
    half, neighbour = folder / f".{path.name}.ab12", folder / ".expert_001.safetensors.cd34"
    half.write_bytes(b"half")
    neighbour.write_bytes(b"half")
    with trajectories.alone(path):
        assert not half.exists() and neighbour.exists() and path.exists()
        (lock,) = folder.glob(".expert_000.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0.1)
    FileLock(lock).acquire(timeout=0.1).lock.release()


def test_a_folder_that_cannot_be_written(folder):
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    with pytest.raises(FileError, match=r"cannot write .*HOPTM_CACHE"), trajectories.alone(trajectories.file_of(folder, 0)):
        raise AssertionError("the lock was given")
