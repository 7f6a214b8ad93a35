"""Files that are whole or absent.

Everything is written beside its place and then renamed, so that a killed process or a full disk leaves the
old file or none. Tensors are stored as safetensors, which can hold no code; a digest over
tensors and description travels in the header and is checked on reading.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hoptm.errors import FileError

_DEEPEST, _LONGEST, _MOST = 50, 16 * 1024**2, 100_000
"""Levels and characters of a description, and tensors of a file. A stranger's file may nest so deep that Python's own reader and writer give up, and
brackets take thirty times their length once they are read; ours hold thousands of characters and up to a few hundred tensors."""
_HEADER = "hoptm"
"""One key, because safetensors writes several in an order of its own and the same content must give the same bytes."""


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, then rename it to `path`.

    Raises FileError when the disk refuses (full, read-only); nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as done:
            os.fsync(done.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {path}: {error}. Free some space or name another folder, then run again.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_aside(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _seal(info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """One digest over the description and the tensors: a licence cannot be edited any more than a pixel."""
    return hashlib.sha256((json.dumps(info, sort_keys=True) + digest_of(tensors)).encode()).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able `info` into one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    described = json.loads(json.dumps(info))
    header = json.dumps({"info": described, "sha256": _seal(described, plain)}, sort_keys=True)
    write_aside(path, lambda temporary: save_file(plain, str(temporary), metadata={_HEADER: header}))


def read_info(path: Path) -> dict[str, Any]:
    """The `info` of a file written by `write_tensors`; reads the header only.

    Raises FileError when the file is missing, is no safetensors file or has no such header.
    """
    with _opened(path) as file:
        return _header_of(path, file)[0]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and the `info` of a file written by `write_tensors`, its digest checked.

    Raises FileError when the file is missing, truncated, of another kind, holds a tensor that cannot be, or its digest does not match.
    """
    with _opened(path) as file:
        info, expected = _header_of(path, file)
        names = list(file.keys())
        if len(names) > _MOST:
            raise FileError(f"{path}: it holds {len(names)} tensors and may hold {_MOST}. It was not written by hoptm.")
        tensors = {name: _tensor_of(path, file, name) for name in names}
    if _seal(info, tensors) != expected:
        raise FileError(f"{path}: the content does not match its checksum. The file is damaged: make or fetch it again.")
    return tensors, info


def _tensor_of(path: Path, file: Any, name: str) -> Tensor:
    """One tensor, a copy: where it lies in the file decides how it is aligned, and with that the last bit of what is computed from it."""
    try:
        tensor: Tensor = file.get_tensor(name).clone()
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # a shape such as (0, 2^63), which the file's reader lets through
        words = str(error).partition("\n")[0]
        raise FileError(f"{path}: no tensor can have the shape or type of {name[:80]!r} ({words}). It was not written by hoptm.") from error
    return tensor


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileError(f"{path}: no such file. Check the path.")
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: not a whole safetensors file ({error}). Make or fetch it again.") from error


def _header_of(path: Path, file: Any) -> tuple[dict[str, Any], str]:
    """The description and the digest. Raises FileError for a header that `write_tensors` did not write."""
    try:
        written = (file.metadata() or {})[_HEADER]
        if len(written) > _LONGEST:
            raise FileError(f"{path}: its description has {len(written)} characters and may have {_LONGEST}. It was not written by hoptm.")
        header = json.loads(written)
        info, digest = header["info"], header["sha256"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: no description in the header. It was not written by hoptm.") from error
    if not isinstance(info, dict) or not isinstance(digest, str) or _too_deep(info):
        raise FileError(f"{path}: the description in the header is of another form. It was not written by hoptm.")
    return info, digest


def _too_deep(info: dict[str, Any]) -> bool:
    level: list[Any] = [info]
    for _ in range(_DEEPEST):
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
    return bool(level)
