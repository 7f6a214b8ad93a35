"""What a claim is, the one word that a measurement earns it, and findings as plain text.

No word is given by hand: a comparison with too little on record is untested, whatever one hopes. `judge` turns claims and evidence
into findings and reads nothing else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from hoptm.errors import ConfigError
from hoptm.intervals import Interval, interval
from hoptm.records import Record
from hoptm.timed_runs import TimedRun

VERDICTS = {
    "reproduced": "the whole interval lies on the claim's side of its bound",
    "not reproduced": "the whole interval lies on the other side",
    "no difference shown": "the interval holds the bound: neither the claim nor its opposite is shown",
    "untested": "too few seeds on record, or nothing that could decide it",
}
"""Every word that a finding may say, with what it means; the bound of a gain is 0."""
REPRODUCED, NOT_REPRODUCED, NO_DIFFERENCE, UNTESTED = VERDICTS
SEEDS = 3
"""The fewest seeds that a verdict may rest on, unless the claim asks for more."""


@dataclass(frozen=True)
class Evidence:
    """All that a verdict may rest on."""

    records: Sequence[Record] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    """The stored run of `make bench`."""
    curves: Sequence[TimedRun] = ()
    """Stored runs of `benchmarks/time_to_quality.py`."""
    replays: Mapping[str, float] = field(default_factory=dict)
    """Largest relative error of each golden file; infinite where a mask differs."""
    gpu: Mapping[str, Any] = field(default_factory=dict)
    """The stored run of `benchmarks/gpu.py`."""
    audits: Sequence[Mapping[str, Any]] = ()
    """Stored reports of `hoptm audit`."""
    diverged: Collection[str] = ()
    """Names of the runs that diverged (`records.read_diverged`)."""
    timed_diverged: Collection[str] = ()
    """The same of runs on the clock, under the names of `curves`."""


@dataclass(frozen=True)
class Measured:
    """One comparison, measured: values a seed, their interval if there are two or more, and the word."""

    name: str
    values: tuple[float, ...]
    bound: float
    above: bool
    """Whether the claim holds above the bound; else below it."""
    needs: int
    missing: str = ""
    """What is not on record, in words, where that is why there are too few values."""
    form: str = "+.3f"
    """How a number is printed; empty for one that moves with the machine, which is not."""
    sampled: bool = True
    """Whether the values are a sample; a single count or an exact replay is not, and stands for itself."""
    aside: str = ""
    """What a reader must know beside the numbers: pairs that ran on two devices, seeds that diverged."""

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the mean by Student's t; of a count, the count; None where there is too little."""
        if not self.sampled:
            return Interval(self.values[0], self.values[0], self.values[0], 1, None, "a count") if self.values else None
        return interval(self.values) if len(self.values) > 1 else None

    @property
    def verdict(self) -> str:
        """The word, by the rule in VERDICTS. An interval that only touches the bound holds it."""
        found = self.interval
        if found is None or len(self.values) < self.needs:
            return UNTESTED
        low, high = (found.low, found.high) if self.above else (-found.high, -found.low)
        bound = self.bound if self.above else -self.bound
        return REPRODUCED if low > bound else NOT_REPRODUCED if high < bound else NO_DIFFERENCE

    def __str__(self) -> str:
        """Name, mean, interval and n; or what is missing."""
        found, count = self.interval, f"n={len(self.values)}" if self.sampled else "one count"
        if found is None or (len(self.values) < self.needs and not self.values):
            return f"{self.name} ({self.missing or count})"
        if not self.form:
            return f"{self.name}, {count}"
        ends = f" [{found.low:{self.form}}, {found.high:{self.form}}]" if self.sampled else ""
        short = f", needs {self.needs}" if len(self.values) < self.needs else ""
        return f"{self.name} {found.mean:{self.form}}{ends} {count}{short}"


@runtime_checkable
class Comparison(Protocol):
    """What can be measured on evidence."""

    def measure(self, evidence: Evidence) -> Measured:
        """The comparison on this evidence; without values where there is nothing to compare."""
        ...


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


def table(findings: Sequence[Finding]) -> str:
    """A line a claim under the words that several share: the verdict, the setting and what was measured, as plain text."""
    lines = []
    for (words, source), group in groupby(findings, key=lambda finding: (finding.claim.words, finding.claim.source)):
        lines.append(f"{words} [{source}]")
        lines += [f"  {finding.verdict:19s} {': '.join(part for part in (finding.claim.where, _measured(finding)) if part)}" for finding in group]
    return "\n".join(lines)


def _measured(finding: Finding) -> str:
    """Each comparison with its own word where the words differ; many are only counted, and what is missing is said once."""
    words = [one.verdict for one in finding.measured]
    apart, asides = len(set(words)) > 1, dict.fromkeys(one.aside for one in finding.measured if one.aside)
    if len(words) > 2:
        told = [f"of {len(words)} comparisons {tally(words)}"]
    elif any(one.values for one in finding.measured):
        told = [f"{one}, {word}" if apart else str(one) for one, word in zip(finding.measured, words, strict=True)]
    else:
        told = list(dict.fromkeys(one.missing for one in finding.measured))
    return "; ".join([*told, *asides])


def tally(verdicts: Sequence[str]) -> str:
    """How often each word stands, words that do not occur left out."""
    return ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS if word in verdicts)


def counts(findings: Mapping[str, Sequence[Finding]]) -> str:
    """How often each word stands in each family, as plain text; the last line sums."""
    lines = [f"{'':30s}" + "".join(f"{word:>21s}" for word in VERDICTS)]
    rows = {**findings, "all claims": [finding for found in findings.values() for finding in found]}
    for family, found in rows.items():
        verdicts = [finding.verdict for finding in found]
        lines.append(f"{family:30s}" + "".join(f"{verdicts.count(word):21d}" for word in VERDICTS))
    return "\n".join(lines)
