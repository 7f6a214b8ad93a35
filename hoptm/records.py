"""One JSON file a finished run: what was run, on what, and what came out.

Every number in the book is read from these files. A record carries the whole configuration, the data set's
checksum, the commit, the versions and the machine's kind, so that a reader can make it again.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hoptm.errors import ConfigError, FileError
from hoptm.files import write_text

_PACKAGES = ("torch", "numpy", "scikit-learn", "scipy", "safetensors")


@dataclass(frozen=True)
class Record:
    """One arm on one data set at one budget and seed."""

    dataset: dict[str, str]
    """`name` and `checksum`."""
    method: str
    """`endpoint`, `published`, `random` (fresh images), `start` (the real images a run started from) or `full`."""
    ipc: int
    """Images per class; 0 for the full data."""
    seed: int
    config: dict[str, Any]
    scores: dict[str, Any]
    """The evaluation as a dictionary: recipe, recipes tried, scores of each fresh network."""
    seconds: float
    """Wall seconds of the run that this record stands for, made and judged, with its experts where they were not cached; `extra` has their part."""
    peak_bytes: int
    """Peak resident memory of the process that ran it."""
    commit: str
    versions: dict[str, str]
    device: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its ending; one a run."""
        return f"{self.dataset['name']}-{self.config['profile']}-{self.method}-ipc{self.ipc}-seed{self.seed}"


def write_record(folder: Path, record: Record) -> Path:
    """Write a record, whole or not at all, and return its path."""
    path = folder / f"{record.name}.json"
    write_text(path, json.dumps(dataclasses.asdict(record), indent=1, sort_keys=True) + "\n")
    return path


def read_records(folder: Path, pattern: str = "*.json") -> list[Record]:
    """The records of a folder whose names fit, in their order. Raises FileError for one that cannot be read."""
    records = []
    for path in sorted(folder.glob(pattern)):
        try:
            records.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: not a record ({error}). Remove it or make it again.") from error
    return records


def write_diverged(folder: Path, name: str, config: dict[str, Any], why: str) -> Path:
    """Write down that the run which would have become the record `name` diverged, so that no table loses it in silence; returns the path."""
    path = folder / f"{name}.diverged"
    said = {"config": config, "why": why, "commit": commit(), "versions": versions(), "device": device_words()}
    write_text(path, json.dumps(said, indent=1, sort_keys=True) + "\n")
    return path


def read_diverged(folder: Path) -> dict[str, str]:
    """Why runs of a folder ended without a set, by the name their record would have. Raises FileError for a file that cannot be read."""
    found = {}
    for path in sorted(folder.glob("*.diverged")):
        try:
            found[path.stem] = str(json.loads(path.read_text(encoding="utf-8"))["why"])
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: does not say why a run diverged ({error}). Remove it or run again.") from error
    return found


def commit() -> str:
    """The commit of the source this runs from, with `+` when the source has changes; `installed` for a wheel.

    A copy of the source whose history is another's, or none, says what the environment variable HOPTM_COMMIT names.
    """
    root = Path(__file__).resolve().parent.parent
    if "HOPTM_COMMIT" in os.environ:
        return os.environ["HOPTM_COMMIT"]
    if not (root / ".git").exists():
        return f"installed {versions()['hoptm']}"
    try:
        name = _git(root, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git(root, "status", "--porcelain", "--", "hoptm") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (git does not answer)"


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python, hoptm and the libraries that shape a number."""
    found = {"python": platform.python_version()}
    for package in ("hoptm", *_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def best_device() -> str:
    """Where training runs unless a caller says otherwise: the GPU if torch sees one, else the processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_words(device: str | None = None) -> str:
    """The kind of machine in words, without its name: `cpu, x86_64, 1 thread, Linux`."""
    if (device or best_device()).startswith("cuda"):
        return f"cuda, {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"cpu, {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}, {platform.system()}"


def check_room(needed: int, what: str) -> None:
    """Raise ConfigError where `what` takes more bytes than the machine that it runs on has, before the system ends the process. Looks at no memory that
    is in use, so what is let through may still not fit."""
    if best_device() == "cuda":
        there = torch.cuda.get_device_properties(0).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise ConfigError(f"{what} takes {needed / 1e9:,.0f} GB of memory or more; this machine has {there / 1e9:,.0f}. Make the network or the batch smaller.")


def peak_bytes() -> int:
    """Peak resident memory of this process so far, in bytes; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
