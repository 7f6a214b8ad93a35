"""What can decide a claim: gains, gaps to all real images, ratios of the benchmark, replays; and the evidence they are measured on."""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoptm.errors import FileError
from hoptm.records import Record, read_diverged, read_records
from hoptm.results import NAMES, SHORT, by_seed, gains_by_seed, gaps_by_seed, on_two_devices, select, stored
from hoptm.timed_runs import of_earlier_settings, read_timed_runs
from hoptm.verdicts import SEEDS, Evidence, Measured
from hoptm.verify import Verdict, golden_files, verify

SETS = {"pneumoniamnist": "PneumoniaMNIST", "pbc-28": "PBC-28", "cxr-open": "open chest X-rays", "pathmnist": "PathMNIST", "phantom": "phantom"}
"""What a data set is called on the page; others keep the name they have."""


@dataclass(frozen=True)
class Gain:
    """One arm minus another, paired seed by seed; the claim is a gain above 0."""

    first: str
    second: str
    dataset: str
    ipc: int
    profile: str = "tuned"
    score: str = "accuracy"
    needs: int = SEEDS
    second_ipc: int | None = None
    """Images a class of the second arm, where they differ."""

    def measure(self, evidence: Evidence) -> Measured:
        """The differences over the seeds that both arms have."""
        setting: dict[str, Any] = {"dataset": self.dataset, "profile": self.profile}
        sides = (self.first, self.ipc), (self.second, self.ipc if self.second_ipc is None else self.second_ipc)
        found = gains_by_seed(evidence.records, self.score, first=self.first, second=self.second, ipc=sides[0][1], second_ipc=sides[1][1], **setting)
        absent = [NAMES.get(arm, arm) for arm, count in sides if not select(evidence.records, method=arm, ipc=count, **setting)]
        missing = "" if found else f"no records of {', '.join(absent)}" if absent else "no seed shared"
        name, aside = "AUC" if self.score == "auc" else self.score, _aside(evidence, sides, self.dataset, self.profile)
        return Measured(name, tuple(found.values()), 0.0, True, self.needs, missing, aside=aside)


def _aside(evidence: Evidence, sides: Sequence[tuple[str, int]], dataset: str, profile: str) -> str:
    """Which pairs of two arms, each with its images a class, ran on two devices, and which seeds of either diverged; empty where none did."""
    (first, ipc), (second, second_ipc) = sides
    apart = on_two_devices(evidence.records, dataset=dataset, first=first, second=second, ipc=ipc, second_ipc=second_ipc, profile=profile)
    told = [f"{_seeds(apart)} on two devices"] if apart else []
    told += [f"{NAMES[arm]}: short runs, nothing searched" for arm, _ in sides if arm in SHORT]
    for arm, count in sides:
        ended = _ended(evidence.diverged, f"{dataset}-{profile}-{arm}-ipc{count}-seed")
        told += [f"{_seeds(ended)} of {NAMES.get(arm, arm)} diverged"] if ended else []
    return "; ".join(told)


def _ended(names: Collection[str], start: str) -> list[int]:
    """Seeds of the runs that diverged whose name begins so."""
    return sorted(int(name.removeprefix(start)) for name in names if name.startswith(start))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


@dataclass(frozen=True)
class Gap:
    """Accuracy points missing to all real images, meaned over data sets, a negative gap counted as 0; the claim is a gap below the bound.

    Seeds are those that every set shares. A gap is counted as 0 for each set and seed before the mean, so luck with one seed cannot pay for another.
    """

    method: str
    ipcs: tuple[tuple[str, int], ...]
    """Data sets, each with its number of images a class."""
    bound: float
    profile: str = "tuned"
    needs: int = SEEDS

    def measure(self, evidence: Evidence) -> Measured:
        """One mean over the sets for each shared seed, in points."""
        values, missing = _points(evidence, self.method, self.ipcs, self.profile)
        aside = _asides(evidence, ((self.method, self.method),), self.ipcs, self.profile)
        return Measured(f"gap of {NAMES[self.method]}, points", tuple(values.values()), self.bound, False, self.needs, missing, "+.2f", aside=aside)


@dataclass(frozen=True)
class GapBelow:
    """The same gap of one arm against that of another, paired; the claim is that the first one's is smaller."""

    first: str
    second: str
    ipcs: tuple[tuple[str, int], ...]
    profile: str = "tuned"
    needs: int = SEEDS

    def measure(self, evidence: Evidence) -> Measured:
        """First minus second, in points, over the seeds that all sets and both arms share."""
        (one, lacks), (other, lacks_too) = (_points(evidence, method, self.ipcs, self.profile) for method in (self.first, self.second))
        values = tuple(one[seed] - other[seed] for seed in sorted(set(one) & set(other)))
        missing = "" if values else lacks or lacks_too or "no seed shared"
        aside = _asides(evidence, ((self.first, self.second),), self.ipcs, self.profile)
        return Measured(f"less that of {NAMES[self.second]}", values, 0.0, False, self.needs, missing, "+.2f", aside=aside)


def _asides(evidence: Evidence, pairs: Sequence[tuple[str, str]], ipcs: Sequence[tuple[str, int]], profile: str) -> str:
    """`_aside` of every pair of arms on every data set, each said once. All real images are no partner in this: they follow no experts."""
    told: dict[str, None] = {}
    for dataset, ipc in ipcs:
        for pair in pairs:
            for part in filter(None, _aside(evidence, [(arm, ipc) for arm in pair], dataset, profile).split("; ")):
                told[f"{SETS.get(dataset, dataset)} {part}"] = None
    return "; ".join(told)


def _points(evidence: Evidence, method: str, ipcs: Sequence[tuple[str, int]], profile: str) -> tuple[dict[int, float], str]:
    by_set = {name: gaps_by_seed(evidence.records, "accuracy", dataset=name, method=method, ipc=ipc, profile=profile) for name, ipc in ipcs}
    absent = [SETS.get(name, name) for name, found in by_set.items() if not found]
    shared = sorted(set.intersection(*(set(found) for found in by_set.values())))
    missing = f"no seed with both {NAMES[method]} and all real images: {', '.join(absent)}" if absent else "" if shared else "no seed shared by the sets"
    return {seed: 100 * math.fsum(max(0.0, found[seed]) for found in by_set.values()) / len(by_set) for seed in shared}, missing


@dataclass(frozen=True)
class Reach:
    """An arm's accuracy against a printed mean; the claim is to lie above it, less one printed standard deviation. All in points."""

    method: str
    dataset: str
    ipc: int
    mean: float
    deviation: float
    profile: str = "paper"
    needs: int = SEEDS

    def measure(self, evidence: Evidence) -> Measured:
        """Accuracy a seed, in points."""
        found = by_seed(select(evidence.records, dataset=self.dataset, method=self.method, ipc=self.ipc, profile=self.profile), "accuracy")
        missing = "" if found else "no records"
        return Measured("accuracy, points", tuple(100 * one for one in found.values()), self.mean - self.deviation, True, self.needs, missing, ".2f")


@dataclass(frozen=True)
class Engine:
    """A ratio to plain autograd in the stored benchmark; the claim is to lie below the bound. Times are paired, memory is one count."""

    steps: int
    width: int
    arm: str
    key: str
    """`pairs` for time, `memory_ratio` for peak memory over the bare process."""
    bound: float

    def measure(self, evidence: Evidence) -> Measured:
        """The ratios of the interleaved pairs, or the one of memory."""
        settings = [one for one in evidence.engine.get("settings", ()) if (one["setting"]["steps"], one["setting"]["width"]) == (self.steps, self.width)]
        found = settings[0]["arms"].get(self.arm, {}).get(self.key, ()) if settings else ()
        values, timed = tuple(found) if isinstance(found, Sequence) else (found,), self.key == "pairs"
        name = "time" if timed else "memory"
        return Measured(name, values, self.bound, False, SEEDS if timed else 1, "" if values else "not in the stored benchmark", ".3f", timed)


@dataclass(frozen=True)
class OnGpu:
    """The time of a recorded step on a GPU against plain autograd there, the median of interleaved turns; the claim is to lie below the bound."""

    steps: int
    width: int
    bound: float

    def measure(self, evidence: Evidence) -> Measured:
        """The one ratio that the stored run holds; it says what its device was."""
        settings = [one for one in evidence.gpu.get("settings", ()) if (one["setting"]["steps"], one["setting"]["width"]) == (self.steps, self.width)]
        values = tuple(one["arms"]["adjoint, recorded"]["time_ratio"] for one in settings[:1])
        return Measured(f"time at T {self.steps}", values, self.bound, False, 1, "" if values else "not in the stored run on a GPU", ".3f", False)


@dataclass(frozen=True)
class Within:
    """The gain over random images that a run from nothing has reached within so many CPU seconds of experts, distillation and one judgement.

    The claim is to lie above the bound.
    """

    dataset: str
    ipc: int
    score: str
    seconds: float
    bound: float
    method: str = "endpoint"
    needs: int = SEEDS

    def measure(self, evidence: Evidence) -> Measured:
        """The last gain on the clock, a value a seed; a run with no point so early has gained nothing."""
        wanted = (self.dataset, self.ipc, self.method)
        curves = [curve for curve in evidence.curves if (curve.dataset, curve.ipc, curve.method) == wanted]
        values = tuple(curve.gain_at(self.seconds, self.score) or 0.0 for curve in curves)
        name = f"{'AUC' if self.score == 'auc' else self.score} within {self.seconds:g} CPU s"
        told = ["timed with earlier settings"] if any(of_earlier_settings(curve.config) for curve in curves if curve.config) else []
        ended = _ended(evidence.timed_diverged, f"{self.dataset}-tuned-{self.method}-ipc{self.ipc}-seed")
        told += [f"{_seeds(ended)} diverged"] if ended else []
        return Measured(name, values, self.bound, True, self.needs, "" if values else "no curves on record", aside="; ".join(told))


@dataclass(frozen=True)
class Replayed:
    """Frozen numbers of the released method, replayed in float64; the claim is a relative error below the bound in every file."""

    bound: float

    def measure(self, evidence: Evidence) -> Measured:
        """The largest error of all files."""
        worst = (max(evidence.replays.values()),) if evidence.replays else ()
        return Measured("largest relative error", worst, self.bound, False, 1, "" if worst else "nothing replayed", "", False)


@dataclass(frozen=True)
class Leaks:
    """In how many groups of images the attacks of a stored audit found a leak; the claim is none. That attacks find nothing is not privacy:

    one audit can refute the claim and none can show it, so a count of 0 stands on the bound.
    """

    arm: str
    dataset: str

    def measure(self, evidence: Evidence) -> Measured:
        """The count over attackers and groups, each after the audit's correction for many tests."""
        arms = [report["arms"][self.arm] for report in evidence.audits if report["dataset"]["name"] == self.dataset and self.arm in report["arms"]]
        found = [sum(group["detected"] for groups in arm["attacks"].values() for group in groups.values()) for arm in arms]
        return Measured("leaks found", tuple(map(float, found[:1])), 0.0, False, 1, "" if found else "no audit on record", ".0f", False)


@dataclass(frozen=True)
class Nothing:
    """No record could decide this, and why."""

    why: str

    def measure(self, evidence: Evidence) -> Measured:
        """No values, whatever the evidence."""
        return Measured("", (), 0.0, True, 1, self.why)


def gather(records: Sequence[Record] | None = None) -> Evidence:
    """What ships with the book: records, benchmarks, and the golden files replayed now (seconds). Raises FileError for a damaged file."""
    bench, audits = stored("bench"), stored("audits")
    replays = {path.name: verify(path) for path in golden_files()}
    return Evidence(
        read_records(stored("records")) if records is None else records,
        _read(bench / "engine.json"),
        read_timed_runs(bench / "time_to_quality"),
        {name: max(one.errors.values()) if not any(one.masks.values()) and not _undefined(one) else math.inf for name, one in replays.items()},
        _read(bench / "gpu.json", "python benchmarks/gpu.py"),
        [_read(path) for path in sorted(audits.glob("*/audit.json"))],
        tuple(read_diverged(stored("records"))) if records is None else (),
        tuple(read_diverged(bench / "time_to_quality")),
    )


def _undefined(replay: Verdict) -> bool:
    return any(math.isnan(error) for error in replay.errors.values())


def _read(path: Path, maker: str = "make bench") -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: not a stored benchmark ({error}). Make it again with {maker}.") from error
    return found
