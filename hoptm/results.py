"""From records to the numbers a page may state: arms, paired gains, plain tables.

Nothing here trains. A score of an arm at one seed is the mean over its fresh networks; an interval is over seeds by
Student's t, and a gain is paired seed by seed.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hoptm.errors import DataError
from hoptm.intervals import Interval, interval, noted, paired_interval, ringed
from hoptm.records import Record

SCORES = ("accuracy", "balanced_accuracy", "auc")
NAMES = {
    "endpoint": "end point",
    "published": "published",
    "published-bare": "published, without its parts",
    "shape": "end point + shape",
    "progressive": "end point + mask",
    "fresh": "end point + fresh mask",
    "quantile": "end point + quantile mask",
    "layers": "end point + mask by layers",
    "growing": "end point + growing window",
    "positions": "end point + positions",
    "velocity": "end point + velocity",
    "curvature": "end point + curvature",
    "torsion": "end point + torsion",
    "adaptive": "adaptive end",
    "each-step": "a step size for each step",
    "momentum-experts": "experts with momentum, decay",
    "long": "momentum experts, long segments",
    "student-momentum": "student with momentum",
    "with-outcome": "end point + outcome",
    "rising": "end point + rising velocity",
    "prior": "prior-weighted inner loss",
    "balanced": "balanced softmax",
    "budgets": "more images of rare classes",
    "aware": "balanced softmax, more of rare classes",
    "averaged-experts": "averaged experts",
    "ftd": "end point, flat experts",
    "tesla": "end point, truncated gradient",
    "datm": "growing window, learned labels",
    "teacher": "end point, teacher's labels",
    "learned": "end point, learned labels",
    "outcome": "outcome alone",
    "extended": "extended",
    "latent": "latent codes",
    "latent-prior": "latent codes + prior",
    "latent-shape": "latent codes + shape of codes",
    "latent-path": "latent codes + shape of path",
    "latent-kmeans": "latent codes from k-means",
    "latent-draws": "latent codes from the prior",
    "half": "end point, half resolution",
    "dm": "distribution matching",
    "dsa": "gradient matching, augmented",
    "dc": "gradient matching",
    "herding": "herding",
    "kcentre": "k-centre",
    "kmeans": "k-means, nearest real image",
    "natural": "random, natural class mix",
    "kmeans-decode": "decoded k-means centres",
    "reconstruction": "decoded real images",
    "upsampled": "random at half resolution",
    "start": "the real images it started from",
    "random": "fresh random real images",
    "random-teacher": "random real, teacher's labels",
    "full": "all real images",
    "ceiling": "all real images, decoded",
}
"""What an arm is called in words."""


MAKERS = {
    "records": "python data/make_records.py",
    "distilled": "python data/make_records.py",
    "transfer": "python data/make_transfer.py",
    "imbalance": "python data/make_imbalance.py",
    "search": "python data/make_search.py",
    "audits": "hoptm audit DATASET --out data/audits",
    "bench": "make bench",
}
"""What makes each folder of a checkout's `data`."""


def stored(kind: str) -> Path:
    """The folder of what ships with the book, such as `records`, `distilled` or `bench`, in a checkout or in the installed package.

    Raises DataError where it is missing, which names the command that makes it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "data" / kind, package / "stored" / kind):
        if folder.is_dir():
            return folder
    if (package.parent / "pyproject.toml").is_file():
        raise DataError(f"no stored {kind}: this checkout has no folder data/{kind}. Make it with `{MAKERS.get(kind, 'git checkout data')}`.")
    raise DataError(f"no stored {kind}: neither data/{kind} of a checkout nor {kind} in the installed package. Install hoptm again.")


def select(records: Sequence[Record], *, dataset: str, method: str, ipc: int, profile: str = "fast") -> list[Record]:
    """The records of one arm, one a seed, in the order of the seeds.

    All real images (`full`) know nothing of paths and budgets, so their record serves every profile with the same network and evaluation; where a
    seed has several, it is the one that trained for most steps, since a weak model of all data makes every gap look small.
    """
    if method == "full":
        judged = [_judged_by(record) for record in records if (record.dataset["name"], record.config["profile"]) == (dataset, profile)]
        return _strongest(records, dataset, judged)
    found = [
        record for record in records if (record.dataset["name"], record.method, record.ipc, record.config["profile"]) == (dataset, method, ipc, profile)
    ]  # fmt: skip
    return sorted(found, key=lambda record: record.seed)


def _judged_by(record: Record) -> list[Any]:
    return [record.config[part] for part in ("network", "evaluation")]


def _strongest(records: Sequence[Record], dataset: str, judged: Sequence[list[Any]]) -> list[Record]:
    every = [record for record in records if (record.dataset["name"], record.method) == (dataset, "full") and _judged_by(record) in judged]
    found = {record.seed: record for record in sorted(every, key=lambda record: int(record.scores["recipe"]["steps"]))}
    return [found[seed] for seed in sorted(found)]


def by_seed(records: Sequence[Record], score: str) -> dict[int, float]:
    """The mean of a score over each record's fresh networks, by seed.

    Records made before the worst recall was stored hold every class's recall, so it is taken from there. Raises
    DataError for a score that a record does not hold (older ones have no `ece`).
    """
    found = {record.seed: [_score_of(one, score) for one in record.scores["scores"]] for record in records}
    missing = [seed for seed, values in found.items() if None in values]
    if missing:
        raise DataError(f"the records of seed {missing[0]} hold no {score}: they were made before it was measured. Make them again, or take another score.")
    return {seed: sum(value for value in values if value is not None) / len(values) for seed, values in found.items()}


def _score_of(one: Mapping[str, Any], score: str) -> float | None:
    if score == "worst_recall" and one.get(score) is None:
        return min((float(value) for value in one["recall"] if value is not None), default=None)
    value = one.get(score)
    return None if value is None else float(value)


def arm(records: Sequence[Record], score: str, *, dataset: str, method: str, ipc: int, profile: str = "fast") -> Interval:
    """Mean and 95 % interval over seeds of one arm. Raises DataError when fewer than two seeds are on record."""
    values = by_seed(select(records, dataset=dataset, method=method, ipc=ipc, profile=profile), score)
    if len(values) < 2:
        raise DataError(f"{len(values)} seeds on record for {dataset}, {method}, IPC {ipc}, {profile}; an interval needs two.")
    return interval(list(values.values()))


def gain(records: Sequence[Record], score: str, *, dataset: str, first: str, second: str, ipc: int, profile: str = "fast") -> Interval:
    """Mean and 95 % interval of first minus second over the seeds that both arms share."""
    found = gains_by_seed(records, score, dataset=dataset, first=first, second=second, ipc=ipc, profile=profile)
    if len(found) < 2:
        raise DataError(f"{first} and {second} share {len(found)} seeds on record for {dataset}, IPC {ipc}; a paired interval needs two.")
    return paired_interval(list(found.values()), [0.0] * len(found))


def gains_by_seed(
    records: Sequence[Record], score: str, *, dataset: str, first: str, second: str, ipc: int, second_ipc: int | None = None, profile: str = "fast"
) -> dict[int, float]:
    """First minus second of a score, for each seed that both arms share; empty where they share none. The second has `second_ipc` images a class if given."""
    sides = (first, ipc), (second, ipc if second_ipc is None else second_ipc)
    one, other = (by_seed(select(records, dataset=dataset, method=method, ipc=count, profile=profile), score) for method, count in sides)
    return {seed: one[seed] - other[seed] for seed in sorted(set(one) & set(other))}


def gaps_by_seed(records: Sequence[Record], score: str, *, dataset: str, method: str, ipc: int, profile: str = "fast") -> dict[int, float]:
    """All real images (as `select` takes them) minus an arm, for each seed that both have; above 0 the arm falls short. Empty where there is none."""
    small = select(records, dataset=dataset, method=method, ipc=ipc, profile=profile)
    if not small:
        return {}
    full, arm_scores = by_seed(_strongest(records, dataset, [_judged_by(small[0])]), score), by_seed(small, score)
    return {seed: full[seed] - arm_scores[seed] for seed in sorted(set(full) & set(arm_scores))}


def shift(records: Sequence[Record], score: str, *, dataset: str, method: str, ipc: int, profile: str = "fast") -> Interval:
    """Test minus validation, with a 95 % interval over seeds: what an arm loses on the way to the test split. See `shift_by_seed`.

    Raises DataError for fewer than two seeds.
    """
    found = shift_by_seed(select(records, dataset=dataset, method=method, ipc=ipc, profile=profile), score)
    if len(found) < 2:
        raise DataError(f"{len(found)} seeds on record with validation scores for {dataset}, {method}, IPC {ipc}, {profile}; an interval needs two.")
    return interval(list(found.values()))


def shift_by_seed(records: Sequence[Record], score: str) -> dict[int, float]:
    """Test minus validation by seed, each the mean over the same fresh networks.

    Older records have no validation scores of their fresh networks. Where one of `records` has none, all are read as before: by the one network with
    which the chosen recipe was found, the best of a few, which flatters validation a little; records whose recipe another seed gave are left out then.
    """
    same = all(record.scores.get("validation") for record in records)
    found = [record for record in records if same or record.scores["tried"]]
    after = by_seed(found, score) if found else {}
    before = {record.seed: _on_validation(record, score) if same else _chosen(record, score) for record in found}
    return {seed: after[seed] - before[seed] for seed in sorted(after)}


def _on_validation(record: Record, score: str) -> float:
    values = [_score_of(one, score) for one in record.scores["validation"]]
    if any(value is None for value in values):
        raise DataError(f"{record.name} holds no {score} on validation. Make it again, or take another score.")
    return math.fsum(value for value in values if value is not None) / len(values)


def _chosen(record: Record, score: str) -> float:
    values = [_score_of(one["scores"], score) for one in record.scores["tried"] if one["recipe"] == record.scores["recipe"] and one["scores"]]
    if not values or values[0] is None:
        raise DataError(f"{record.name} holds no {score} on validation. Make it again, or take another score.")
    return values[0]


def tried(records: Sequence[Record], score: str) -> dict[tuple[str, float, str], dict[int, float]]:
    """Scores on validation of every recipe that was tried, by (optimiser, step size, augmentation) and seed; what diverged is left out."""
    found: dict[tuple[str, float, str], dict[int, float]] = {}
    for record in records:
        for one in record.scores["tried"]:
            value = _score_of(one["scores"], score) if one["scores"] else None
            if value is not None:
                recipe = one["recipe"]
                found.setdefault((recipe["optimiser"], recipe["lr"], recipe["augmentation"]), {})[record.seed] = value
    return found


def recalls(records: Sequence[Record]) -> dict[int, list[float]]:
    """The recall of every class, the mean over each record's fresh networks, by seed. Raises DataError for a class that test does not hold."""
    found = {}
    for record in records:
        each = [one["recall"] for one in record.scores["scores"]]
        if any(value is None for recall in each for value in recall):
            raise DataError(f"{record.name}: the test split holds no image of one class, which has no recall.")
        found[record.seed] = [sum(values) / len(each) for values in zip(*each, strict=True)]
    return found


def difference(records: Sequence[Record], score: str, *, dataset: str, first: str, second: str, ipc: int, profile: str = "fast", least: int = 3) -> str:
    """What the paired 95 % interval of first minus second says: `helps`, `hurts`, `no difference shown`, or `not on record` below `least` shared seeds."""
    one, other = (by_seed(select(records, dataset=dataset, method=method, ipc=ipc, profile=profile), score) for method in (first, second))
    if len(set(one) & set(other)) < max(2, least):
        return "not on record"
    found = gain(records, score, dataset=dataset, first=first, second=second, ipc=ipc, profile=profile)
    return "helps" if found.low > 0 else "hurts" if found.high < 0 else "no difference shown"


def on_two_devices(
    records: Sequence[Record], *, dataset: str, first: str, second: str, ipc: int, profile: str = "tuned", second_ipc: int | None = None
) -> list[int]:
    """Seeds at which one arm ran on a processor and the other on a GPU: the same experts by settings and seed, with other bits."""
    kinds = [
        {record.seed: record.device.partition(",")[0] for record in select(records, dataset=dataset, method=method, ipc=count, profile=profile)}
        for method, count in ((first, ipc), (second, ipc if second_ipc is None else second_ipc))
    ]
    return [seed for seed in sorted(set(kinds[0]) & set(kinds[1])) if kinds[0][seed] != kinds[1][seed]]


WHOLE = ("full", "ceiling")
"""Arms that train on as many images as train has; their records have IPC 0."""
SOFT = ("datm", "teacher", "learned", "random-teacher")
"""Arms with soft labels; they stand in a table of their own."""
SHORT = ("dm", "dc", "dsa")
"""Arms with short settings of their own, for which nothing was searched."""
SHORT_WORDS = "‡ short runs with settings as they are, and their last iterate: nothing was searched for them, and no look at validation chose among iterates"
HARD = tuple(name for name in NAMES if name not in SOFT)
"""Arms with hard labels."""


def arms_table(records: Sequence[Record], *, dataset: str, ipcs: Sequence[int], methods: Sequence[str] = HARD, profile: str = "fast") -> str:
    """Every arm with its mean and 95 % interval of each score, as plain text; all real images come last."""
    lines = [f"{'IPC':>4s}  {'arm':32s} {'n':>2s}" + "".join(f"  {score.replace('_', ' '):>22s}" for score in SCORES)]
    rows = [(ipc, method) for ipc in ipcs for method in methods if method not in WHOLE] + [(0, method) for method in WHOLE if method in methods]
    for ipc, method in rows:
        found = select(records, dataset=dataset, method=method, ipc=ipc, profile=profile)
        if len(found) < 2:
            continue
        cells = [arm(records, score, dataset=dataset, method=method, ipc=ipc, profile=profile) for score in SCORES]
        text = "".join(f"  {cell.mean:6.3f} [{cell.low:.3f}, {cell.high:.3f}]" for cell in cells)
        lines.append(f"{ipc or 'all':>4}  {NAMES[method]:32s} {ringed(cells[0].n):>2s}{text}")
    return noted(lines)


def gains_table(records: Sequence[Record], *, dataset: str, ipcs: Sequence[int], pairs: Sequence[tuple[str, str]], profile: str = "fast") -> str:
    """Paired gains with 95 % intervals, as plain text; n seeds give n - 1 degrees of freedom."""
    lines = [f"{'IPC':>4s}  {'gain':58s} {'n':>2s}" + "".join(f"  {score.replace('_', ' '):>24s}" for score in SCORES)]
    for ipc in ipcs:
        for first, second in pairs:
            cells = [gain(records, score, dataset=dataset, first=first, second=second, ipc=ipc, profile=profile) for score in SCORES]
            text = "".join(f"  {cell.mean:+7.3f} [{cell.low:+.3f}, {cell.high:+.3f}]" for cell in cells)
            lines.append(f"{ipc:4d}  {NAMES[first] + ' against ' + NAMES[second]:58s} {ringed(cells[0].n):>2s}{text}")
    return noted(lines)


def gaps_table(records: Sequence[Record], *, ipcs: Sequence[tuple[str, int]], methods: Sequence[str], profile: str = "tuned") -> str:
    """Accuracy points missing to all real images, for each data set with its number of images a class and each arm, as plain text.

    Below 0 an arm scores above all real images. An arm with fewer than two seeds beside all real images keeps its row, without an interval.
    """
    lines = [f"{'data set':16s} {'IPC':>4s}  {'arm':31s} {'n':>2s}  gap in accuracy points"]
    for dataset, ipc in ipcs:
        for method in methods:
            found = [100 * one for one in gaps_by_seed(records, "accuracy", dataset=dataset, method=method, ipc=ipc, profile=profile).values()]
            cell = interval(found) if len(found) > 1 else None
            text = f"{cell.mean:+6.2f} [{cell.low:+.2f}, {cell.high:+.2f}]" if cell else "too few seeds"
            lines.append(f"{dataset:16s} {ipc:4d}  {NAMES[method]:31s} {ringed(len(found)):>2s}  {text}")
    return noted(lines)


def places_table(
    records: Sequence[Record], *, places: Sequence[tuple[str, int]], methods: Sequence[str], against: str, scores: Sequence[str] = ("auc", "accuracy"),
    profile: str = "tuned",
) -> str:  # fmt: skip
    """What each method gains over `against` on each data set with its number of images a class, paired by seed, with 95 % intervals, as plain text.

    A pair with fewer than two shared seeds keeps its row, without an interval.
    """
    rows = [("data set", "IPC", "arm", "n", *(score.replace("_", " ") for score in scores))]
    for (dataset, ipc), method in itertools.product(places, methods):
        found = [gains_by_seed(records, score, dataset=dataset, first=method, second=against, ipc=ipc, profile=profile) for score in scores]
        cells = [interval(list(one.values())) if len(one) > 1 else None for one in found]
        shown = [f"{cell.mean:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]" if cell else "too few seeds" for cell in cells]
        rows.append((dataset, str(ipc), NAMES[method] + (" ‡" if method in SHORT else ""), ringed(len(found[0])), *shown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    number = (1,)  # whole numbers stand to the right; n to the left, since a ring may follow it
    lines = [
        " ".join(cell.rjust(width) if at in number else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows
    ]
    short = [SHORT_WORDS] if any(method in SHORT for method in (*methods, against)) else []
    return noted([f"gain over {NAMES[against]}" + (" ‡" if against in SHORT else ""), *(line.rstrip() for line in lines), *short])
