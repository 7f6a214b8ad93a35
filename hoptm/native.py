"""The C++ of `kernels.cpp`, compiled on first use with the system's compiler and kept in a cache.

A library is named by the digest of source, flags, compiler and processor, and lies beside its own checksum: one that
does not match is built again and never loaded. Nothing here is needed for correct results; `kernels` falls back to eager.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import platformdirs

from hoptm.errors import FileError
from hoptm.files import write_aside, write_text

COMPILERS = ("c++", "g++", "clang++")
"""Tried in this order, after the environment variable CXX."""
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")
"""Not -ffast-math: it would flush subnormal numbers in the whole process, and drop the NaN of a student that diverges. Products and sums are not
fused: which of them a compiler fuses depends on the code around them, so that a pass with tangents would differ in its last bits from one without."""

_POINTERS = {
    "input_tiles": 2, "input_adjoint": 2, "output_map": 2, "output_adjoint": 2, "weight_tiles": 2, "weight_adjoint": 2, "spread": 2, "gather": 2,
    "forward": 5, "forward1": 8, "backward": 7, "backward1": 11,
}  # fmt: skip
"""Each function's pointers; three whole numbers follow where there are two."""


def cache_folder() -> Path:
    """Where libraries are kept: `kernels` in the folder that HOPTM_CACHE names, else in the user's cache."""
    return Path(os.environ.get("HOPTM_CACHE") or platformdirs.user_cache_path("hoptm")) / "kernels"


def compiler() -> str:
    """The path of a C++ compiler. Raises FileError when there is none."""
    names = [name for name in (os.environ.get("CXX"), *COMPILERS) if name]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise FileError("no C++ compiler (c++, g++, clang++) was found. Install one, or name it in the environment variable CXX.")
    return found


def library(folder: Path) -> Path:
    """The compiled library in `folder`, built when it is missing or does not match its checksum.

    Raises FileError when there is no compiler, when it fails, or when the folder cannot be written.
    """
    source = resources.files("hoptm").joinpath("kernels.cpp").read_text(encoding="utf-8")
    command = [compiler(), *FLAGS]
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False).stdout
    name = hashlib.sha256("\n".join([source, *command, version, _processor()]).encode()).hexdigest()[:16]
    path, seal = folder / f"{name}.so", folder / f"{name}.sha256"
    if not (path.is_file() and seal.is_file() and seal.read_text(encoding="utf-8") == _digest(path)):
        write_aside(path, functools.partial(_compile, command, source))
        write_text(seal, _digest(path))
    return path


def _compile(command: list[str], source: str, target: Path) -> None:
    """With every flag, else without -march=native, which some compilers do not know."""
    for words in (command, [word for word in command if word != "-march=native"]):
        done = subprocess.run([*words, "-x", "c++", "-", "-o", str(target)], input=source, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
    raise FileError(f"{command[0]} could not compile hoptm's kernels: {first}. Name another compiler in the environment variable CXX.")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


@functools.cache
def load(folder: Path) -> ctypes.CDLL:
    """The library of `folder`, loaded once a process, with the types of its functions set.

    Raises FileError as `library` does, and when the system will not load what was built.
    """
    path = library(folder)
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise FileError(f"{path}: the system will not load it ({error}). Name another folder in the environment variable HOPTM_CACHE.") from error
    for name, pointers in _POINTERS.items():
        for kind in ("f32", "f64"):
            function = getattr(found, f"{kind}_{name}")
            function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * (3 if pointers == 2 else 0)
            function.restype = None
    return found
