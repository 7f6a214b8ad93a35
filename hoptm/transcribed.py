"""The paper's numbers, as transcribed, and how far a record of ours is from them.

They stand once, in `transcribed.json`, with their source: a third party typed them from the paper, and they were not checked against it.
A difference is counted in standard errors, and only between the same data: a stand-in is shown beside the paper and not compared.
"""

import functools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoptm.catalogue import Info, official_info
from hoptm.errors import ConfigError, DataError
from hoptm.records import Record
from hoptm.results import NAMES, by_seed


@dataclass(frozen=True)
class Entry:
    """One number of the paper, as a share of 1: mean and standard deviation over `networks` networks."""

    row: str
    ipc: int
    mean: float
    std: float
    networks: int

    @property
    def standard_error(self) -> float:
        """Of the mean, over networks."""
        return self.std / math.sqrt(self.networks)


@dataclass(frozen=True)
class Measured:
    """Our accuracy: its mean, the standard error of the mean, n, and over what."""

    mean: float
    standard_error: float
    n: int
    over: str


@functools.cache
def transcribed() -> dict[str, Any]:
    """The whole file: paper, source, how it was transcribed, and the tables."""
    found: dict[str, Any] = json.loads((Path(__file__).resolve().parent / "transcribed.json").read_text(encoding="utf-8"))
    return found


def table(name: str) -> dict[str, Any]:
    """One of the tables, `table1` or `table2`. Raises ConfigError for another name."""
    tables: dict[str, dict[str, Any]] = transcribed()["tables"]
    if name not in tables:
        raise ConfigError(f"no table {name!r} was transcribed; there are {', '.join(tables)}.")
    return tables[name]


def table_of(dataset: str) -> str | None:
    """The table that a data set's name belongs to, None where the paper has none."""
    return next((name for name, found in transcribed()["tables"].items() if found["dataset"] == dataset), None)


def entry(name: str, method: str, ipc: int) -> Entry | None:
    """The paper's number for a method of ours, by the row it is nearest to; None where no number was transcribed."""
    row = transcribed()["rows_of_methods"].get(method)
    found = table(name)["rows"].get(row, {}).get(str(ipc))
    return None if found is None else Entry(row, ipc, found[0] / 100, found[1] / 100, transcribed()["networks"])


def entries(name: str, row: str) -> list[Entry]:
    """All numbers of a row, in the order of their budgets."""
    return [Entry(row, int(ipc), mean / 100, std / 100, transcribed()["networks"]) for ipc, (mean, std) in table(name)["rows"][row].items()]


def stands_in(name: str, info: Info) -> str:
    """Why this data set is only a stand-in for that of the table; empty where it is the table's own.

    PathMNIST is known by the checksum of its official file. The paper's split of the X-rays is not published, so there a name and four classes
    are all that can be asked for.
    """
    wanted = table(name)
    if wanted["dataset"] == "pathmnist":
        same = info.checksum == official_info("pathmnist").checksum
    else:
        same = info.name == wanted["dataset"] and len(info.class_names) == wanted["classes"]
    return "" if same else f"STAND-IN: {info.title} was run in place of the data of {wanted['title']}. The paper's number is shown, not compared."


def measured(records: Sequence[Record], score: str = "accuracy") -> Measured:
    """Our score with its standard error: over seeds where there are several records, else over the fresh networks of the one.

    Raises DataError for no record, or for one with fewer than two networks.
    """
    if not records:
        raise DataError("there is no record to compare. Run the cell first.")
    over_seeds = list(by_seed(records, score).values())
    values = over_seeds if len(records) > 1 else [float(one[score]) for one in records[0].scores["scores"]]
    if len(values) < 2:
        raise DataError(f"{len(values)} network in the record: a standard error needs two. Run more seeds.")
    over = "seeds" if len(records) > 1 else "networks on one set"
    return Measured(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)), len(values), over)


def standard_errors(ours: Measured, theirs: Entry) -> float:
    """Ours minus the paper's, in standard errors of that difference. Infinite where neither has any spread."""
    error = math.hypot(ours.standard_error, theirs.standard_error)
    return (ours.mean - theirs.mean) / error if error else math.copysign(math.inf, ours.mean - theirs.mean)


def comparison(records: Sequence[Record], name: str, stand_in: str) -> str:
    """Two or three lines: ours, the paper's as transcribed, and the difference in standard errors, or why there is none."""
    one, ours = records[0], measured(records)
    lines = [f"ours   {NAMES[one.method]:28s} IPC {one.ipc}: accuracy {ours.mean:.3f}, standard error {ours.standard_error:.3f} over {ours.n} {ours.over}"]
    theirs = entry(name, one.method, one.ipc)
    if theirs is None:
        return "\n".join([*lines, f"paper  no number was transcribed for this method and budget in {table(name)['title']}"])
    lines.append(f"paper  {theirs.row:28s} IPC {theirs.ipc}: accuracy {theirs.mean:.4f}, standard deviation {theirs.std:.4f}, as transcribed")
    lines.append(stand_in or f"ours minus the paper's: {ours.mean - theirs.mean:+.3f}, or {standard_errors(ours, theirs):+.1f} standard errors")
    return "\n".join(lines)
