"""How good after how many seconds of the processor: what `benchmarks/time_to_quality.py` stored, and arms compared at equal time."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hoptm.config import configure, from_dict
from hoptm.errors import FileError
from hoptm.intervals import Interval, interval, paired_interval


@dataclass(frozen=True)
class TimedRun:
    """One seed, from nothing: at each look, processor seconds since the start (experts counted, judgements not) and gains over random real images.

    `judging` are the processor seconds of one judgement, which whoever wants a judged set within a time has to add.
    """

    dataset: str
    method: str
    ipc: int
    seed: int
    expert_seconds: float
    seconds: tuple[float, ...]
    gains: tuple[dict[str, float], ...]
    config: dict[str, Any] = field(default_factory=dict)
    """The whole configuration, as stored."""
    judging: float = 0.0

    def gain_at(self, seconds: float, score: str) -> float | None:
        """The gain at the last look that could be judged within so many seconds, that judgement counted; None before the first."""
        seen = [gains[score] for at, gains in zip(self.seconds, self.gains, strict=True) if at + self.judging <= seconds]
        return seen[-1] if seen else None


JUDGEMENTS = "judgements.json"
"""Beside the folder of runs: what one judgement takes, for runs that did not time theirs."""


def read_timed_runs(folder: Path) -> list[TimedRun]:
    """Every run of a folder, by name; none where there is no folder.

    A run that did not time its judgements takes their seconds from `JUDGEMENTS` beside the folder, by data set and images a class.
    Raises FileError for a file that is not one of these, and for a run whose judgements nobody timed.
    """
    found = []
    apart = folder.parent / JUDGEMENTS
    timed = json.loads(apart.read_text(encoding="utf-8"))["cpu_seconds"] if apart.exists() else {}
    for path in sorted(folder.glob("*.json")):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            points = read["points"]
            times, gains = tuple(float(one["cpu_seconds"]) for one in points), tuple(dict(one["gain"]) for one in points)
            place, config = (read["dataset"], read["method"], read["ipc"], read["seed"]), read.get("config", {})
            judging = read.get("judging_cpu_seconds", timed.get(f"{read['dataset']}-ipc{read['ipc']}"))
            if judging is None:
                what = f"python benchmarks/time_to_quality.py --dataset {read['dataset']} --ipc {read['ipc']} --judgement"
                raise FileError(f"{path} says no judging_cpu_seconds, and {apart} has none for it. Time a judgement: {what}.")
            found.append(TimedRun(*place, read["expert_cpu_seconds"], times, gains, config, float(judging)))
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: not a run of benchmarks/time_to_quality.py ({error!r}). Move it away, or make it again.") from error
    return found


def of_earlier_settings(config: Mapping[str, Any]) -> bool:
    """Whether the profile of a stored configuration has other settings of matching or of experts today, the number of iterations apart.

    Raises ConfigError for a stored configuration that does not fit this version.
    """
    then = from_dict(dict(config))
    today = configure(then.dataset, method=then.method, ipc=then.ipc, seed=then.seed, profile=then.profile)
    today = today.changed(match={"iterations": then.match.iterations, "validate_every": then.match.validate_every})
    return (then.match, then.experts) != (today.match, today.experts)


def gain_in_time(runs: Sequence[TimedRun], seconds: float, score: str) -> Interval | None:
    """The gain over random images after so many processor seconds, one judgement among them, with its interval over seeds.

    None for fewer than two runs, or where one had no set judged by then.
    """
    gains = [run.gain_at(seconds, score) for run in runs]
    seen = [gain for gain in gains if gain is not None]
    return interval(seen) if len(seen) == len(gains) > 1 else None


def difference_in_time(first: Sequence[TimedRun], second: Sequence[TimedRun], seconds: float, score: str) -> Interval | None:
    """First minus second, each after so many processor seconds, paired by seed; None for fewer than two pairs of which both have looked."""
    one, other = ({run.seed: gain for run in runs if (gain := run.gain_at(seconds, score)) is not None} for runs in (first, second))
    shared = sorted(set(one) & set(other))
    return paired_interval([one[seed] for seed in shared], [other[seed] for seed in shared]) if len(shared) > 1 else None


SAME = 1.25
"""Experts of one seed are the same work in both arms; when one arm's took so many times the other's seconds, another machine ran it."""


def at_equal_time(first: Sequence[TimedRun], second: Sequence[TimedRun], score: str) -> tuple[float, Interval] | None:
    """Seconds after the experts at which the first run of any pair ended, so that none is judged later than it ran, and first minus second then, by seed.

    Experts and judgements are the same work in both arms and only their seconds wobble, so the clock starts when the experts are there and stops for the
    judgement. A seed counts when both arms ran it on
    machines of one speed, by those seconds (`SAME`). None for fewer than two such pairs, and where an arm ended before the other had looked.
    """
    theirs = {run.seed: run for run in second}
    pairs = [(run, theirs[run.seed]) for run in first if run.seed in theirs]
    pairs = [(one, other) for one, other in pairs if max(one.expert_seconds, other.expert_seconds) <= SAME * min(one.expert_seconds, other.expert_seconds)]
    if not pairs:
        return None
    ones, others = ([_without_experts(pair[side]) for pair in pairs] for side in (0, 1))
    end = min(run.seconds[-1] for run in (*ones, *others))
    found = difference_in_time(ones, others, end, score)
    return (end, found) if found is not None and found.n == len(pairs) else None


def _without_experts(run: TimedRun) -> TimedRun:
    return dataclasses.replace(run, seconds=tuple(at - run.expert_seconds for at in run.seconds), judging=0.0)
