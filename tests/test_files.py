"""Files are whole or absent."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch

from hoptm import files
from hoptm.errors import FileError


def test_round_trip_and_same_bytes(tmp_path):
    tensors = {"b": torch.arange(6).view(2, 3), "a": torch.randn(4, dtype=torch.float64)}
    for name in ("one", "two"):
        files.write_tensors(tmp_path / name, dict(reversed(list(tensors.items()))) if name == "two" else tensors, {"x": [1, "y"]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, info = files.read_tensors(tmp_path / "one")
    assert info == {"x": [1, "y"]} == files.read_info(tmp_path / "one")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_other_processes_write_the_same_bytes(tmp_path):
    """The order of a header's keys may differ from one process to the next."""
    words = "from hoptm.files import write_tensors as w; w(Path(sys.argv[1]), {'a': torch.ones(2)}, {'k': 1, 'j': 2})"
    script = "import sys, torch; from pathlib import Path; " + words
    for name in "abcd":
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_scalars_and_flags_survive(tmp_path):
    files.write_tensors(tmp_path / "f", {"lr": torch.tensor(0.02), "mask": torch.tensor([True, False])}, {})
    found, _ = files.read_tensors(tmp_path / "f")
    assert found["lr"].shape == () and found["mask"].tolist() == [True, False]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "pickle", "missing"])
def test_damage_is_named(tmp_path, damage):
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, {"a": torch.randn(50)}, {"k": 1})
    whole = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(whole[:-20])
    elif damage == "flip":
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickle":
        torch.save({"a": torch.randn(3)}, path)
    else:
        path.unlink()
    with pytest.raises(FileError, match=r"set\.safetensors"):
        files.read_tensors(path)


def header_changed(path, change):
    """The file with its safetensors header changed by hand, and its length set right."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header, len(content) - end)
    words = json.dumps(header).encode()
    path.write_bytes(len(words).to_bytes(8, "little") + words + content[end:])


@pytest.mark.parametrize("shape", [[0, 2**63], [2**63, 0], [0, 2**62, 2**62], [2**62, 0]])
def test_a_shape_that_no_tensor_can_have_is_a_clear_error(tmp_path, shape):
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, {"a": torch.randn(50)}, {"k": 1})
    header_changed(path, lambda header, end: header.update(extra={"dtype": "F32", "shape": shape, "data_offsets": [end, end]}))
    with pytest.raises(FileError, match=r"set\.safetensors"):
        files.read_tensors(path)


def test_a_description_is_bounded_before_it_is_read(tmp_path, monkeypatch):
    """Sixteen megabytes of brackets would take half a gigabyte as lists."""
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, {"a": torch.ones(2)}, {"k": ["x" * 1000]})
    assert files.read_info(path)["k"]
    monkeypatch.setattr(files, "_LONGEST", 1000)
    for read in (files.read_info, files.read_tensors):
        with pytest.raises(FileError, match=r"set\.safetensors: its description has \d+ characters and may have 1000"):
            read(path)


def test_the_number_of_tensors_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, {str(number): torch.ones(1) for number in range(12)}, {})
    monkeypatch.setattr(files, "_MOST", 11)
    with pytest.raises(FileError, match="it holds 12 tensors and may hold 11"):
        files.read_tensors(path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def full(*_words, **_named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(FileError, match="space"):
        files.write_tensors(path, {"a": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["set.safetensors"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(_path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_aside(tmp_path / "new", stop)
    assert os.listdir(tmp_path) == []


def test_what_is_read_is_aligned_as_what_was_made(tmp_path):
    """Kernels begin elsewhere on memory that is not aligned, and the last bit of a result may follow."""
    made = {name: torch.randn(size) for name, size in (("a", 3), ("b", 5), ("c", 7), ("d", 64))}
    files.write_tensors(tmp_path / "odd", made, {"some": "words of any length"})
    found, _ = files.read_tensors(tmp_path / "odd")
    assert {name: value.data_ptr() % 64 for name, value in found.items()} == dict.fromkeys(made, 0)
    assert all(torch.equal(found[name], value) for name, value in made.items())
