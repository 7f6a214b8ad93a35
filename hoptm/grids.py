"""A grid of notebook runs in a TOML file: which notebook, which parameters, what each cell will cost.

title = "..."                 what it is
notebook = "table.ipynb"      beside the file
[cells]                       parameters that all cells share: dataset, profile, table, settings, ...
[axes]                        lists: every combination is a cell
[shape]                       channels, classes, size, train, augmentations: prices data that are not here
"""

import dataclasses
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoptm.arms import ARMS
from hoptm.config import Config, hash_of
from hoptm.cost import Cost, Shape, estimate, in_words, judgement_seconds
from hoptm.errors import ConfigError, FileError
from hoptm.runs import configured
from hoptm.settings import changes_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEYS = {"title", "notebook", "cells", "axes", "shape"}
_NEEDED = ("dataset", "method", "ipc", "seed", "profile")


@dataclass(frozen=True)
class Cell:
    """One run of the notebook: its parameters, and the name of its files."""

    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """`DATASET-PROFILE-METHOD-ipcN-seedS`, as records are named; a data set's path gives its last part."""
        values = self.parameters
        dataset = re.sub(r"[^\w.:-]+", "_", Path(values["dataset"]).name)
        return f"{dataset}-{values['profile']}-{values['method']}-ipc{values['ipc']}-seed{values['seed']}"

    def config(self) -> Config:
        """The settings that the notebook will build. Raises ConfigError for a value that they do not take."""
        values = self.parameters
        dataset = values["dataset"] if not Path(values["dataset"]).exists() else Path(values["dataset"]).stem
        return configured(dataset, **{name: values[name] for name in _NEEDED[1:]}).changed(**changes_of(values.get("settings", "")))


@dataclass(frozen=True)
class Grid:
    """A grid that was read and checked."""

    title: str
    notebook: Path
    cells: tuple[Cell, ...]
    shape: Shape


@dataclass(frozen=True)
class Price:
    """What a cell costs in one process on this machine."""

    cost: Cost
    judge_seconds: float
    experts: str
    """Names the experts that it needs, empty for none: cells with the same name share them."""

    @property
    def own_seconds(self) -> float:
        """Without the experts."""
        return self.cost.seconds - self.cost.expert_seconds + self.judge_seconds


def read_grid(path: Path) -> Grid:
    """Read a grid, check every cell's settings, and return it.

    Raises FileError for a file that cannot be read or is no TOML, ConfigError for what does not fit, with the place.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path}: cannot be read as a grid ({error}). Check the path and the TOML.") from error
    if set(found) != _KEYS:
        odd = sorted(set(found) ^ _KEYS)
        raise ConfigError(f"{path}: {', '.join(odd)} should {'not be' if odd[0] in found else 'be'} there; a grid has {', '.join(sorted(_KEYS))}.")
    notebook = path.parent / str(found["notebook"])
    if not notebook.is_file():
        raise FileError(f"{path}: no notebook {notebook}. Name one that lies beside the grid.")
    cells = tuple(_cells(path, found["cells"], found["axes"]))
    try:
        shape = Shape(**found["shape"])
    except TypeError as error:
        raise ConfigError(f"{path}: [shape] has {', '.join(field.name for field in dataclasses.fields(Shape))}, whole numbers ({error}).") from error
    return Grid(str(found["title"]), notebook, cells, shape)


def _cells(path: Path, shared: dict[str, Any], axes: dict[str, list[Any]]) -> list[Cell]:
    if not axes or not all(isinstance(values, list) and values for values in axes.values()):
        raise ConfigError(f"{path}: [axes] needs lists that are not empty, such as ipc = [1, 10].")
    twice = sorted(set(shared) & set(axes))
    missing = [name for name in _NEEDED if name not in shared and name not in axes]
    if twice or missing:
        raise ConfigError(f"{path}: {', '.join(twice or missing)} {'stands in [cells] and in [axes]' if twice else 'stands neither in [cells] nor in [axes]'}.")
    cells = [Cell({**shared, **dict(zip(axes, values, strict=True))}) for values in itertools.product(*axes.values())]
    for cell in cells:
        try:
            cell.config()
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path}, {cell.name}: {error}") from error
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: {next(name for name in names if names.count(name) > 1)} occurs twice. Let no axis name a value twice.")
    return cells


def price(cell: Cell, shape: Shape) -> Price:
    """Measure this machine once for each kind of step, and multiply. An arm of real images costs its judgement alone; what else it trains is not counted."""
    config, method = cell.config(), cell.parameters["method"]
    whole = estimate(config, shape)
    if method in ARMS:
        whole = dataclasses.replace(whole, expert_seconds=0.0, distil_seconds=0.0, look_seconds=0.0, disk_bytes=0)
    last = config.match.start_epochs[1] - 1 + config.match.expert_epochs
    needed = hash_of([dataclasses.asdict(config.experts), dataclasses.asdict(config.network), config.seed, last])
    return Price(whole, judgement_seconds(config, shape), "" if method in ARMS else needed)


def priced(cells: Sequence[Cell], shape: Shape) -> str:
    """A line a cell and one for all, experts that several cells share counted once."""
    prices = {cell.name: price(cell, shape) for cell in cells}
    width = max(map(len, prices), default=4)
    lines = [f"{'cell':{width}s}  {'experts':>9s}  {'matching':>9s}  {'looks':>9s}  {'judging':>9s}  {'memory':>8s}  {'disk':>9s}"]
    for name, one in prices.items():
        parts = (one.cost.expert_seconds, one.cost.distil_seconds, one.cost.look_seconds, one.judge_seconds)
        times = "  ".join(f"{in_words(seconds) if seconds else '-':>9s}" for seconds in parts)
        lines.append(f"{name:{width}s}  {times}  {one.cost.memory_bytes / 1e9:5.1f} GB  {one.cost.disk_bytes / 1e6:6.0f} MB")
    shared = {one.experts: one.cost.expert_seconds for one in prices.values() if one.experts}
    whole = sum(one.own_seconds for one in prices.values()) + sum(shared.values())
    lines.append(f"{len(prices)} cells: about {in_words(whole)} on one core of this machine; experts that cells share are counted once ({len(shared)})")
    arms = sorted({cell.parameters["method"] for cell in cells} & set(ARMS))
    return "\n".join(lines + [f"of {', '.join(arms)} the judging alone is priced"] * bool(arms))
