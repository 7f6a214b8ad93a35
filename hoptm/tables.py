"""The evaluation table: which arms it must hold, what the records say of each, and what has not been run.

The plan is fixed beforehand, so a cell that is missing is seen to be missing. Nothing here trains.
"""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hoptm.errors import ConfigError
from hoptm.intervals import RING, RING_WORDS, Interval, interval
from hoptm.records import Record
from hoptm.results import NAMES, SHORT, SHORT_WORDS, SOFT, by_seed, select

MAIN = ("natural", "random", "herding", "kcentre", "kmeans-decode", "dm", "endpoint", "published", "extended", "latent")
"""Arms of every data set and budget of the main part."""
PARTS = ("shape", "progressive", "positions", "velocity", "curvature", "torsion")
"""Single parts over the end point: the two published ones and the orders."""
MATCHED = ("random", "endpoint", "published", "extended")
RELATIVES = ("dc", "dsa", "ftd", "tesla", "adaptive", "datm", "random-teacher")
"""Arms at ten images a class alone: gradient matching, the other members of the trajectory family, and what soft labels are compared with."""
ELSEWHERE = ("random", "dm", "endpoint", "published", "extended")
DATASETS = ("pneumoniamnist", "pbc-28")
SMALL_DATASETS = ("phantom", "cxr-open")
FAMILY = {
    "dm": "DM", "dc": "DC", "dsa": "DSA", "endpoint": "MTT", "ftd": "FTD", "tesla": "TESLA (a control: not the gradient of its loss)", "adaptive": "ATT",
    "datm": "DATM", "published": "HoP-TM",
}  # fmt: skip
"""What the field calls the arms that are ours to implement from its papers."""
BEYOND_WORDS = "+ more seeds than this table planned, all of them in the interval; a seed that is added after a look at the others can flatter it"
NEVER = {"idm": "IDM (improved distribution matching)"}
"""Rows that the field would expect and that this project does not have; they are shown as `not run`."""


@dataclass(frozen=True)
class Cell:
    """One arm on one data set at one budget: the seeds that were asked for, those on record, and the interval of a score over them."""

    dataset: str
    method: str
    ipc: int
    wanted: tuple[int, ...]
    values: dict[int, float]
    """The score of each seed on record, also of seeds beyond the plan: the mean over its fresh networks."""
    diverged: tuple[int, ...] = ()
    """Seeds whose run ended without a set."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Seeds that were asked for and have not been run."""
        return tuple(seed for seed in self.wanted if seed not in self.values and seed not in self.diverged)

    @property
    def interval(self) -> Interval | None:
        """Student's t over seeds; None for fewer than two."""
        return interval(list(self.values.values())) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return f"{len(self.diverged)} diverged" if self.diverged else "not run"
        found = self.interval
        part = f" of {len(self.wanted)}" if len(self.values) < len(self.wanted) else ""
        part += RING if found is not None and found.wide else ""
        part += "+" if set(self.values) - set(self.wanted) else ""
        part += "†" if self.diverged else ""
        if found is None:
            return f"{next(iter(self.values.values())):.3f} n=1{part}"
        return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] n={found.n}{part}"


def plan() -> list[tuple[str, str, int, tuple[int, ...]]]:
    """Every cell of the table as data set, arm, images a class and seeds: five seeds at ten images a class in the main part, three elsewhere."""
    three: tuple[int, ...] = (0, 1, 2)
    five: tuple[int, ...] = (0, 1, 2, 3, 4)
    cells = [(dataset, method, ipc, five if ipc == 10 else three) for dataset in DATASETS for ipc in (1, 10, 50) for method in MAIN]
    cells += [(dataset, method, 10, three) for dataset in DATASETS for method in RELATIVES]
    return cells + [(dataset, method, 10, three) for dataset in SMALL_DATASETS for method in ELSEWHERE]


def cells(records: Sequence[Record], score: str, *, profile: str = "tuned", diverged: Collection[str] = ()) -> list[Cell]:
    """The planned cells with what is on record for them; `diverged` are names of `records.read_diverged`. Raises DataError as `results.by_seed` does."""
    found = []
    for dataset, method, ipc, seeds in plan():
        kept = select(records, dataset=dataset, method=method, ipc=ipc, profile=profile)
        ended = tuple(seed for seed in seeds if f"{dataset}-{profile}-{method}-ipc{ipc}-seed{seed}" in diverged)
        found.append(Cell(dataset, method, ipc, seeds, by_seed(kept, score) if kept else {}, ended))
    return found


def evaluation_table(records: Sequence[Record], *, dataset: str, score: str = "auc", profile: str = "tuned", diverged: Collection[str] = ()) -> str:
    """A row an arm and a column a budget, as plain text: mean, 95 % interval over seeds, and n; `not run` where there is nothing.

    A dash marks what was never planned, a star soft labels, a dagger runs that diverged, a double one settings that nobody searched, a ring an interval of
    few seeds, a plus seeds beyond the plan. Below stand the names that the field has for the arms, and how many planned runs are on record.
    Raises ConfigError for a data set that the plan does not hold.
    """
    ours = [cell for cell in cells(records, score, profile=profile, diverged=diverged) if cell.dataset == dataset]
    if not ours:
        raise ConfigError(f"the table holds no data set {dataset!r}; it holds {', '.join((*DATASETS, *SMALL_DATASETS))}.")
    ipcs, methods = sorted({cell.ipc for cell in ours}), list(dict.fromkeys(cell.method for cell in ours))
    by_place = {(cell.method, cell.ipc): str(cell) for cell in ours}
    wide = max(30, 2 + max(map(len, by_place.values())))
    lines = [f"{dataset}, profile {profile}, test {score.replace('_', ' ')}", f"{'arm':34s}" + "".join(f"{f'IPC {ipc}':>{wide}s}" for ipc in ipcs)]
    for method in methods:
        name = NAMES[method] + (" *" if method in SOFT else " ‡" if method in SHORT else "")
        lines.append(f"{name:34s}" + "".join(f"{by_place.get((method, ipc), '-'):>{wide}s}" for ipc in ipcs))
    lines += [f"{name:34s}" + "".join(f"{'not run':>{wide}s}" for _ in ipcs) for name in NEVER.values()]
    done, asked = (sum(len(part) for part in parts) for parts in ([set(c.wanted) & set(c.values) for c in ours], [c.wanted for c in ours]))
    star = ["* soft labels: to be compared with one another alone"] if any(method in SOFT for method in methods) else []
    star += [words for mark, words in ((RING, RING_WORDS), ("+", BEYOND_WORDS)) if any(mark in text for text in by_place.values())]
    star += [SHORT_WORDS] if any(method in SHORT for method in methods) else []
    ended = sum(len(cell.diverged) for cell in ours)
    dagger = [f"† {ended} run{'s' if ended > 1 else ''} diverged and left no set"] if ended else []
    known = [f"{FAMILY[method]}: {NAMES[method]}" for method in methods if method in FAMILY]
    called = textwrap.wrap(f"as the field calls them: {'; '.join(known)}", 120)
    return "\n".join([*lines, *called, *star, *dagger, f"{done} of {asked} planned runs are on record"])


def commands(records: Sequence[Record], arms: Iterable[str], *, profile: str = "tuned", diverged: Collection[str] = ()) -> list[str]:
    """What to run for the missing cells: one command of `data/make_records.py` for each data set, budget and set of missing seeds.

    `arms` names those that are made rather than distilled (`arms.ARMS`). Cells of one command lack the same seeds.
    """
    made = set(arms)
    groups: dict[tuple[str, int, tuple[int, ...]], list[str]] = {}
    for cell in cells(records, "auc", profile=profile, diverged=diverged):
        if cell.missing:
            groups.setdefault((cell.dataset, cell.ipc, cell.missing), []).append(cell.method)
    lines = []
    for (dataset, ipc, seeds), methods in groups.items():
        words = [f"python data/make_records.py --dataset {dataset} --profile {profile} --ipcs {ipc} --seeds {' '.join(map(str, seeds))}"]
        for option, chosen in (("--methods", [m for m in methods if m not in made]), ("--arms", [m for m in methods if m in made])):
            words.append(" ".join([option, *chosen]))
        lines.append(" ".join(words))
    return lines


GRIDS: Mapping[str, tuple[tuple[str, tuple[str, ...], int, int], ...]] = {
    "main grid": tuple((dataset, ("random", "endpoint", *PARTS, "published", "extended", "latent"), 10, 5) for dataset in DATASETS),
    "second grid": (
        *((dataset, MATCHED, ipc, 3) for dataset, tenth in zip(DATASETS, (235, 149), strict=True) for ipc in (1, 50, tenth)),
        *((dataset, MATCHED, 10, 3) for dataset in SMALL_DATASETS),
    ),
}
"""The two grids of the search for a configuration that wins: data set, arms, images a class, and seeds from 0 up."""
BUDGET_HOURS = 16


def runs_of_grid(name: str) -> list[tuple[str, str, int, int]]:
    """Every run of one of `GRIDS`: data set, arm, images a class, seed. Raises KeyError for another name."""
    return [(dataset, method, ipc, seed) for dataset, methods, ipc, seeds in GRIDS[name] for method in methods for seed in range(seeds)]


def hours_of_grids(
    records: Sequence[Record],
    searched: float,
    *,
    priced: Mapping[str, float] = MappingProxyType({}),
    estimated: Mapping[str, float] | None = None,
    replaced: float = 0.0,
    profile: str = "tuned",
) -> str:
    """Hours of searches (`search.hours_in`) and of the two grids as they are on record, against `BUDGET_HOURS`, as plain text.

    These are hours of wall time. A run has one thread, so its processor hours are no more; runs on a GPU count as they are. Where `priced` has the
    processor hours of a grid (`benchmarks/price_of_grids.py`), they stand beside: no fewer, since the price counts steps alone. What a run took lies
    between. With `estimated` (the same file: mean, low and high of what the grids took, by runs that noted processor seconds) the last line is an estimate
    with its 95 % interval, and one more says it without the `replaced` hours among `searched`, of searches that others took the place of.
    """
    took = {(record.dataset["name"], record.method, record.ipc, record.seed): record.seconds for record in records if record.config["profile"] == profile}
    lines, total = [f"{'searches':12s} {searched:6.2f} h"], searched
    for name in GRIDS:
        runs = runs_of_grid(name)
        spent = sum(took.get(run, 0.0) for run in runs) / 3600
        beside = f"; {priced[name]:.2f} h of a core or more" if name in priced else ""
        lines.append(f"{name:12s} {spent:6.2f} h, {sum(run in took for run in runs)} of {len(runs)} runs on record{beside}")
        total += spent
    lines.append(f"{'by the clock':12s} {total:6.2f} h of {BUDGET_HOURS}: {'within' if total <= BUDGET_HOURS else 'over'} the budget")
    if set(priced) >= set(GRIDS):
        least = sum(priced[name] for name in GRIDS)
        verdict = "over" if least > BUDGET_HOURS else "within" if total <= BUDGET_HOURS else "within or over, which these two bounds leave open"
        lines.append(f"{'of a core':12s} {least:6.2f} h or more without searches, {total:.2f} h or less with them: {verdict}")
        if estimated is not None:
            whole = {"with searches by the clock": searched, **({"without searches that were made again": searched - replaced} if replaced else {})}
            for word, more in whole.items():
                mean, low, high = (estimated[end] + more for end in ("mean", "low", "high"))
                guess = "within" if high <= BUDGET_HOURS else "over" if low > BUDGET_HOURS else "on either side of"
                lines.append(f"{'estimated':12s} {mean:6.2f} h [{low:.2f}, {high:.2f}] {word}: {guess} the budget")
    return "\n".join(lines)


def hours_of_table(records: Sequence[Record], *, profile: str = "tuned") -> str:
    """Hours of the runs of the evaluation table (`plan`) that belong to neither grid, against `BUDGET_HOURS`, as plain text.

    A run counts its processor seconds where it noted them, and else its seconds by the clock, which are no fewer.
    """
    took = {
        (record.dataset["name"], record.method, record.ipc, record.seed): float(record.extra.get("processor_seconds", record.seconds))
        for record in records
        if record.config["profile"] == profile
    }
    shared = {run for name in GRIDS for run in runs_of_grid(name)}
    own = [(dataset, method, ipc, seed) for dataset, method, ipc, seeds in plan() for seed in seeds if (dataset, method, ipc, seed) not in shared]
    spent, done = sum(took.get(run, 0.0) for run in own) / 3600, sum(run in took for run in own)
    verdict = "within" if spent <= BUDGET_HOURS else "over"
    return f"table without the grids: {spent:.2f} h of {BUDGET_HOURS}, {done} of {len(own)} runs on record: {verdict} the budget so far"


def hours(records: Sequence[Record], *, profile: str = "tuned") -> str:
    """Hours of wall time that the runs on record took, made and judged, by data set, images a class and kind of device, as plain text with a total."""
    sums: dict[tuple[str, int, str], float] = {}
    for record in records:
        if record.config["profile"] == profile:
            key = (record.dataset["name"], record.ipc, record.device.partition(",")[0])
            sums[key] = sums.get(key, 0.0) + record.seconds / 3600
    lines = [f"{name:16s} {f'IPC {ipc}' if ipc else 'all images':>10s}  {device:5s} {value:6.2f} h" for (name, ipc, device), value in sorted(sums.items())]
    return "\n".join([*lines, f"{'in all':34s} {sum(sums.values()):6.2f} h"])
