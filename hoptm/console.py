"""What all commands share: two options, how a data set is named and loaded, and where words go.

With `--json` the standard output holds one JSON object and nothing else; progress, notes and estimates go to standard error.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from hoptm.data import Splits, load, single_label
from hoptm.errors import ConfigError
from hoptm.records import commit, device_words, peak_bytes, versions

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
SIZE = click.option("--size", type=click.IntRange(8, 1024), default=None, help="Image size in pixels (a folder is resized; MedMNIST has 28, 64, 128, 224).")


def short_name(dataset: str) -> str:
    """A data set's name for the settings: a path stands for its last part, so that no machine's path is kept."""
    return Path(dataset).stem if Path(dataset).exists() else dataset


def load_named(dataset: str, size: int | None) -> Splits:
    """A data set with one class an image, by name or by path. Raises as `data.load`."""
    return single_label(load(dataset) if size is None else load(dataset, size=size))


def check_out(out: Path) -> None:
    """Raises ConfigError for a file that could not be written as a synthetic set."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: the file must end in .safetensors.")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: no such folder. Make it first.")


def made_here() -> dict[str, Any]:
    """What goes with a result: commit, versions, device, and memory so far."""
    return {"commit": commit(), "versions": versions(), "device": device_words(), "peak_bytes": peak_bytes()}


def say(words: str) -> None:
    """A line on standard error."""
    print(words, file=sys.stderr)


def answer(as_json: bool, report: dict[str, Any], words: str) -> None:
    """The result on standard output: the report, or the words for it."""
    print(json.dumps(report) if as_json else words)
