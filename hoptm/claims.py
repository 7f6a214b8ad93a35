"""Every claim of the paper and of this project, as data, and a finding for each from records.

A claim is its words, whose it is, where it stands, and the comparisons that decide it. `judge` turns claims and evidence into
findings and reads nothing else. The paper's numbers are transcribed (`published_tables.json`); where its data are not at hand
its claims stay untested, and stand a second time as claims on other data under this project's settings.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hoptm.comparisons import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    REPRODUCED,
    SETS,
    UNTESTED,
    VERDICTS,
    Comparison,
    Engine,
    Evidence,
    Gain,
    Gap,
    GapBelow,
    Measured,
    Nothing,
    Reach,
    Replayed,
    Within,
)  # fmt: skip
from hoptm.errors import ConfigError
from hoptm.results import NAMES
from hoptm.verify import TOLERANCE

TENTH = (("pneumoniamnist", 235), ("pbc-28", 149))
"""A tenth of train as images a class, for each real data set of the main grid."""
HEADLINE = 0.8
"""Accuracy points that a set of a tenth of train may miss to all real images, on average: this project's headline."""
_GRID = tuple((dataset, ipc) for dataset, tenth in TENTH for ipc in (1, 10, 50, tenth))
_TEN = tuple((dataset, 10) for dataset, _ in TENTH)
_RIVALS = {"DM": "dm", "MTT": "endpoint", "FTD": "ftd", "DATM": "datm"}
"""Rows of the paper's tables that are arms here."""
_ABSTRACT, _SUMMARY = "abstract", "the project's summary"


@dataclass(frozen=True)
class Claim:
    """One sentence that may be true or not, and what decides it."""

    words: str
    """Without the setting; claims that differ in their setting alone share their words."""
    where: str
    """Data set, images a class and profile."""
    whose: str
    """`paper` or `project`."""
    source: str
    comparisons: tuple[Comparison, ...]
    """All must hold."""


@dataclass(frozen=True)
class Finding:
    """A claim with its comparisons measured."""

    claim: Claim
    measured: tuple[Measured, ...]

    @property
    def verdict(self) -> str:
        """One comparison that fails is enough to fail; what is not measured leaves the rest untested; one without a difference leaves it open."""
        words = {one.verdict for one in self.measured}
        return next(word for word in (NOT_REPRODUCED, UNTESTED, NO_DIFFERENCE, REPRODUCED) if word in words)


def judge(claims: Sequence[Claim], evidence: Evidence) -> list[Finding]:
    """A finding a claim, in order. Raises ConfigError for a claim that nothing is to decide; use `Nothing` and say why."""
    for claim in claims:
        if not claim.comparisons:
            raise ConfigError(f"the claim {claim.words!r} ({claim.where}) names no comparison. Give one, or Nothing with the reason.")
    return [Finding(claim, tuple(comparison.measure(evidence) for comparison in claim.comparisons)) for claim in claims]


def published_tables() -> dict[str, Any]:
    """The paper's tables as transcribed: accuracy in percent, mean and standard deviation by method and images a class."""
    found: dict[str, Any] = json.loads((Path(__file__).resolve().parent / "published_tables.json").read_text(encoding="utf-8"))
    return found


def paper_elsewhere() -> list[Claim]:
    """The paper's claims on data of this book, under its settings: they may fail here and hold there."""
    source = f"{_ABSTRACT}, on our data and settings"
    shape, mask = "a shape potential helps: ", "easy to complex helps: "
    found = [_gain("paper", source, "shape", "endpoint", *setting, before=shape) for setting in _TEN]
    found += [_gain("paper", source, "progressive", "endpoint", *setting, before=mask) for setting in _TEN]
    for rival in ("endpoint", "random"):
        found += [_gain("paper", source, "published", rival, "pneumoniamnist", ipc, "fast") for ipc in (1, 10)]
        found += [_gain("paper", source, "published", rival, *setting) for setting in _GRID]
    table = "Table 1, on our data and settings"
    found += [_gain("paper", table, "published", rival, *setting) for rival in ("ftd", "datm", "dm") for setting in _TEN]
    words = f"accuracy comparable to all images, read as at most {HEADLINE} points short"
    return [*found, Claim(words, "both sets, a tenth of train, tuned", "paper", source, (Gap("published", TENTH, HEADLINE),))]


def paper() -> list[Claim]:
    """The paper's claims on its own data: the abstract, then each row and budget of the tables as transcribed."""
    own = ("pathmnist", 10, "paper")
    found = [
        Claim("earlier methods look at end points only", "", "paper", _ABSTRACT, (Nothing("a statement about other papers: no run decides it"),)),
        Claim("privacy is preserved", "", "paper", _ABSTRACT, (Nothing("no leakage audit on record"),)),
        _gain("paper", _ABSTRACT, "shape", "endpoint", *own, before="a shape potential helps: "),
        _gain("paper", _ABSTRACT, "progressive", "endpoint", *own, before="easy to complex helps: "),
        Claim(f"accuracy comparable to all images, read as at most {HEADLINE} points short", "PathMNIST, a tenth of train, paper", "paper", _ABSTRACT,
              (Gap("published", (("pathmnist", 1000),), HEADLINE, "paper"),)),
    ]  # fmt: skip
    for name, table in published_tables()["tables"].items():
        found += [*_reached(name, table), *_above(name, table)]
    return found


def _reached(name: str, table: dict[str, Any]) -> Iterator[Claim]:
    for ipc, (mean, deviation) in table["rows"]["HoP-TM"].items():
        decided = Reach("published", table["dataset"], int(ipc), mean, deviation)
        yield Claim(
            f"{table['title']}: accuracy at least as printed, less one deviation", f"IPC {ipc}: {mean:.2f} (sd {deviation:.2f})", "paper", name, (decided,)
        )


def _above(name: str, table: dict[str, Any]) -> Iterator[Claim]:
    ours = table["rows"]["HoP-TM"]
    for rival, row in table["rows"].items():
        ipcs = [int(ipc) for ipc in row if rival != "HoP-TM" and ours[ipc][0] > row[ipc][0]]
        if ipcs:
            arm = _RIVALS.get(rival)
            parts = tuple(Gain("published", arm, table["dataset"], ipc, "paper") for ipc in ipcs) if arm else (Nothing("no such arm in this project"),)
            yield Claim(f"{table['title']}: above other methods, where printed so", f"{rival}, IPC {', '.join(map(str, ipcs))}", "paper", name, parts)


def project_gains() -> list[Claim]:
    """What this project hopes of its parts: each against what it has to beat."""
    source = _SUMMARY
    found = [_gain("project", source, "endpoint", "random", "pneumoniamnist", ipc, "fast") for ipc in (1, 10)]
    found += [_gain("project", source, "endpoint", "random", *setting) for setting in _GRID]
    found += [_gain("project", source, order, "endpoint", *setting) for order in ("positions", "velocity", "curvature", "torsion") for setting in _TEN]
    for rival in ("endpoint", "random"):
        found += [_gain("project", source, "extended", rival, *setting) for setting in (*_GRID, ("cxr-open", 10))]
    rivals = ("endpoint", "random", "half", "upsampled", "kmeans-decode", "reconstruction")
    return found + [_gain("project", source, "latent", rival, *setting) for rival in rivals for setting in _TEN]


def project_rest() -> list[Claim]:
    """The headline, the aims that join several comparisons, and what is claimed of the engine."""
    both = tuple(
        Gain("extended", rival, dataset, ipc, score=score, needs=5)
        for dataset, _ in TENTH for ipc in (1, 10) for rival in ("endpoint", "random") for score in ("accuracy", "auc")
    )  # fmt: skip
    large, small, width = "width 128, 80 steps", "width 32, 20 steps", "time and memory of the engine"
    lean, full = "compiled, none kept", "compiled, all kept"
    limits = Engine(80, 128, lean, "pairs", 0.85), Engine(80, 128, lean, "memory_ratio", 1 / 8)
    aims = [(large, full, 80, 128, 0.75), (small, full, 20, 32, 0.55), (large, lean, 80, 128, 0.65), (large, full, 80, 128, 0.5), (small, full, 20, 32, 0.4)]
    headline = (Gap("extended", TENTH, HEADLINE), GapBelow("extended", "random", TENTH))
    quick = [("pneumoniamnist", 10, "auc", 120.0, 0.02), ("pbc-28", 1, "accuracy", 720.0, 0.1), ("pbc-28", 10, "accuracy", 720.0, 0.02)]
    bounds = [
        Claim(width, f"{where}, {arm}: time below {bound}", "project", "benchmark", (Engine(t, w, arm, "pairs", bound),)) for where, arm, t, w, bound in aims
    ]
    return [
        Claim("headline: a tenth of train misses at most 0.8 points, and less than random", "both sets, tuned", "project", _SUMMARY, headline),
        Claim("extended beats end point and random, both sets, IPC 1 and 10, five seeds", "tuned", "project", _SUMMARY, both),
        Claim(width, f"{large}, {lean}: time below 0.85, memory below 1/8", "project", "benchmark", limits), *bounds,
        Claim(width, "on a GPU: time below 0.2", "project", "benchmark", (Nothing("no run on a GPU on record"),)),
        *(Claim("gain over random from nothing", f"{SETS[name]}, IPC {ipc}, above {bound}", "project", "benchmark", (Within(name, ipc, score, seconds, bound),))
          for name, ipc, score, seconds, bound in quick),
        Claim("equal to the released method", f"frozen iterations, below {TOLERANCE:g}", "project", "hoptm verify", (Replayed(TOLERANCE),)),
    ]  # fmt: skip


def of_set(dataset: str, profile: str, ipcs: Sequence[int] = (1, 10)) -> list[Claim]:
    """The plain questions one asks of any data set and profile: end point and published against random, and against each other."""
    pairs = (("endpoint", "random"), ("published", "random"), ("published", "endpoint"))
    return [_gain("reader", "this chapter", first, second, dataset, ipc, profile) for first, second in pairs for ipc in ipcs]


def _gain(whose: str, source: str, first: str, second: str, dataset: str, ipc: int, profile: str = "tuned", before: str = "") -> Claim:
    """First beats second, in accuracy and in AUC."""
    parts = tuple(Gain(first, second, dataset, ipc, profile, score) for score in ("accuracy", "auc"))
    return Claim(f"{before}{NAMES[first]} beats {NAMES[second]}", f"{SETS.get(dataset, dataset)}, IPC {ipc}, {profile}", whose, source, parts)


def table(findings: Sequence[Finding]) -> str:
    """A line a claim under the words that several share: the verdict, the setting and what was measured, as plain text."""
    lines = []
    for (words, source), group in groupby(findings, key=lambda finding: (finding.claim.words, finding.claim.source)):
        lines.append(f"{words} [{source}]")
        lines += [f"  {finding.verdict:20s} {(finding.claim.where + ': ') if finding.claim.where else ''}{_measured(finding)}" for finding in group]
    return "\n".join(lines)


def _measured(finding: Finding) -> str:
    if len(finding.measured) <= 2:
        return "; ".join(dict.fromkeys(str(one).strip() for one in finding.measured))
    return f"of {len(finding.measured)} comparisons {tally([one.verdict for one in finding.measured])}"


def tally(verdicts: Sequence[str]) -> str:
    """How often each word stands, words that do not occur left out."""
    return ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS if word in verdicts)
