"""What figures of judgement do not say, as plain text: differences paired by seed with 95 % intervals, and what was planned and is not on record.

Records in, words out. Sets on other networks, rare classes, the shift from validation to test, and the scores of label robustness.
"""

import itertools
import textwrap
from collections.abc import Collection, Mapping, Sequence

from hoptm.fairness import lrs_by_seed
from hoptm.imbalance import NAMES as RARE_NAMES
from hoptm.intervals import interval, noted, ringed
from hoptm.records import Record
from hoptm.results import NAMES, SOFT, by_seed, recalls, select, shift_by_seed

TRANSFER_SETS = ("pneumoniamnist", "pbc-28")
SOURCES = {"random": "random real images", "depth2": "made with depth 2", "depth3": "made with depth 3", "depth4": "made with depth 4"}
FAMILIES = {"convnet": "ConvNet", "vgg": "VGG", "resnet": "ResNet", "mlp": "MLP", "vit": "ViT"}
"""What `data/make_transfer.py` runs: data sets, rows and columns, in words."""


def shifts_table(
    records: Sequence[Record], *, places: Mapping[str, tuple[str, str]], ipc: int, methods: Sequence[str], score: str = "auc", against: str = "random"
) -> str:  # fmt: skip
    """Test minus validation of each arm, and how far that is from `against`'s own, paired by seed, as plain text.

    `places` gives a data set and a profile for each name in words. The last column says which networks were scored on validation, see
    `results.shift_by_seed`. A place without a record is `not run`, an arm with fewer than two seeds has no interval.
    """
    rows, missing = [("data set", "arm", "test minus validation", f"minus that of {NAMES[against]}", "on validation")], []
    for words, (dataset, profile) in places.items():
        kept = {name: select(records, dataset=dataset, method=name, ipc=ipc, profile=profile) for name in methods}
        absent = [NAMES[name] for name, found in kept.items() if not found]
        if absent:
            missing.append(f"{words}: not run, profile {profile}, {ipc} images a class: {'; '.join(absent)}")
        rival = select(records, dataset=dataset, method=against, ipc=ipc, profile=profile)
        for name, found in kept.items():
            own, scored = shift_by_seed(found, score), _on_validation(found)
            alike = _paired(own, shift_by_seed(rival, score)) if scored == _on_validation(rival) else "other networks on validation"
            rows += [(words, NAMES[name], _over_seeds(own), "-" if name == against else alike, scored)] if found else []
    return noted([*_lines(rows), *missing])


def _on_validation(records: Sequence[Record]) -> str:
    return "the same networks" if all(record.scores.get("validation") for record in records) else "the best that was tried"


def _minus(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """First minus second over the seeds that both have."""
    return {seed: first[seed] - second[seed] for seed in sorted(set(first) & set(second))}


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> str:
    return _over_seeds(_minus(first, second))


def _apart(name: str, differences: Sequence[Mapping[int, float]]) -> str:
    """How many of these differences have an interval that lies apart from zero."""
    found = [interval(list(values.values())) for values in differences if len(values) > 1]
    above, below = sum(one.low > 0 for one in found), sum(one.high < 0 for one in found)
    return f"{name}: of {len(found)} intervals {above} above zero, {below} below"


def _over_seeds(values: Mapping[int, float]) -> str:
    """Mean, 95 % interval and n; of one seed its value and no interval."""
    return f"{_mean(values)}{',' if len(values) < 2 else ''} n={ringed(len(values))}"


def _mean(values: Mapping[int, float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:+.3f}, " for value in values.values()) + "too few seeds"
    found = interval(list(values.values()))
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def label_robustness(records: Sequence[Record], *, dataset: str, methods: Sequence[str], ipc: int = 10, profile: str = "tuned") -> str:
    """HLR, IOR, alpha and LRS of arms with hard labels, mean and 95 % interval over the seeds shared with all real and with random images, as plain text.

    The score is taken seed by seed, so its mean is not quite the score of the mean alpha. What is not on record is named in the last lines. Arms with
    soft labels are named too, and why: a record holds their accuracy with those labels, HLR asks for the same images with their classes alone.
    """
    arms = ("full", 0), ("random", ipc)
    whole, plain = (by_seed(select(records, dataset=dataset, method=name, ipc=count, profile=profile), "accuracy") for name, count in arms)
    rows: list[tuple[str, ...]] = [("arm", "n", "HLR", "IOR", "alpha", "LRS")]
    missing = []
    for name in methods:
        own = by_seed(select(records, dataset=dataset, method=name, ipc=ipc, profile=profile), "accuracy")
        if not own:
            missing.append(NAMES[name])
        if not own or name in SOFT:
            continue
        found = lrs_by_seed(real_hard=whole, synthetic_hard=own, synthetic=own, random=plain)
        cells = [_mean({seed: getattr(one, part) for seed, one in found.items()}) for part in ("hlr", "ior", "alpha", "score")]
        rows.append((NAMES[name], ringed(len(found)), *cells))
    tails = ["not run: " + "; ".join(missing)] if missing else []
    soft = [NAMES[name] for name in methods if name in SOFT and NAMES[name] not in missing]
    tails += [f"not from records, no accuracy with classes alone: {'; '.join(soft)}"] if soft else []
    last = [line for tail in tails for line in textwrap.wrap(tail, 150, break_on_hyphens=False)]
    return noted([f"{dataset}, profile {profile}, {ipc} images a class", *_lines(rows), *last])


def transfer_missing(
    records: Sequence[Record], diverged: Collection[str] = (), *, datasets: Sequence[str] = TRANSFER_SETS, seeds: Sequence[int] = (0, 1, 2),
    ipc: int = 10, profile: str = "fast",
) -> str:  # fmt: skip
    """Which planned cells of `data/transfer` are not run: data set, seed, set and network; `diverged` names runs that ended without a score."""
    there, lines = {record.name for record in records} | set(diverged), []
    for dataset in datasets:
        alike: dict[str, list[str]] = {}
        for seed in seeds:
            ends = f"ipc{ipc}-seed{seed}"
            left = {
                words: [
                    family for name, family in FAMILIES.items()
                    if not there & {f"{dataset}-{profile}-{source}-on-{name}-{ends}", f"{dataset}-{profile}-{source}-{ends}"}
                ]
                for source, words in SOURCES.items()
            }  # fmt: skip
            alike.setdefault(_left(left), []).append(str(seed))
        lines += [f"{dataset}: not run, seed{'s' * (len(found) > 1)} {', '.join(found)}, {words}" for words, found in alike.items() if words]
    return "\n".join(line for one in lines for line in textwrap.wrap(one, 150, subsequent_indent="  ")) or "every planned cell is on record"


def _left(left: Mapping[str, Sequence[str]]) -> str:
    if all(len(families) == len(FAMILIES) for families in left.values()):
        return "every set on every network"
    each = {words: "every network" if len(families) == len(FAMILIES) else ", ".join(families) for words, families in left.items() if families}
    return "; ".join(f"{words} on {families}" for words, families in each.items())


def transfer_gains(records: Sequence[Record], *, dataset: str, ipc: int = 10, profile: str = "fast") -> str:
    """Each made set minus the random images on each network, paired by seed with 95 % intervals, as plain text: AUC, calibration error, and the shift.

    The shift is test minus validation in AUC, over records that hold validation scores of the networks that were tested. The last lines count the intervals
    that lie apart from zero.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    if not ours:
        return f"{dataset}: not run"
    columns = ("AUC", "calibration error", "test minus validation, AUC")
    rows: list[tuple[str, ...]] = [("network", "set minus random real images", *columns)]
    differences = []
    for (name, family), source in itertools.product(FAMILIES.items(), list(SOURCES)[1:]):
        pair = [select(ours, dataset=dataset, method=f"{row}-on-{name}", ipc=ipc, profile=profile) for row in (source, "random")]
        scored = [_minus(*(by_seed([one for one in side if _holds(one, score)], score) for side in pair)) for score in ("auc", "ece")]
        shifted = _minus(*(shift_by_seed([one for one in side if one.scores.get("validation")], "auc") for side in pair))
        differences.append((*scored, shifted))
        rows.append((family, SOURCES[source], *map(_over_seeds, differences[-1])))
    return noted([dataset, *_lines(rows), *map(_apart, columns, zip(*differences, strict=True))])


def _holds(record: Record, score: str) -> bool:
    return all(one.get(score) is not None for one in record.scores["scores"])


def rare_recall(records: Sequence[Record], name: str, factor: float, *, dataset: str, ipc: int = 10, profile: str = "fast") -> dict[int, float]:
    """Recall of the class with the fewest training images, by seed, of one arm of `data/imbalance` at one factor; empty where nothing was run."""
    kept = select(records, dataset=dataset, method=f"{name}-factor{factor:g}", ipc=ipc, profile=profile)
    found = recalls(kept)
    return {record.seed: found[record.seed][record.extra["train_counts"].index(min(record.extra["train_counts"]))] for record in kept}


def same_at_one(name: str) -> str:
    """Which arm an arm is where all classes are equally many: `random`, or `endpoint`. `data/make_imbalance.py` runs no other there."""
    return "random" if name.startswith("random") else "endpoint"


def rare_gains(records: Sequence[Record], pairs: Sequence[tuple[str, str]], *, dataset: str, ipc: int = 10, profile: str = "fast") -> str:
    """First minus second by imbalance factor, paired by seed with 95 % intervals: recall of the rarest class and balanced accuracy, as plain text.

    At factor 1 arms stand for those that they are the same as, so pairs fall together there; each is said once, and none of an arm with itself. The last
    lines count the intervals that lie apart from zero.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    factors = sorted({record.extra["factor"] for record in ours})
    if not factors:
        return f"{dataset}: not run, run data/make_imbalance.py"
    columns = ("recall of the rarest class", "balanced accuracy")
    rows, differences = [("factor", "arm", "minus", *columns)], []
    for factor in factors:
        asked = [(same_at_one(first), same_at_one(second)) for first, second in pairs] if factor == 1 else pairs
        for first, second in dict.fromkeys(pair for pair in asked if pair[0] != pair[1]):
            kept = {name: select(ours, dataset=dataset, method=f"{name}-factor{factor:g}", ipc=ipc, profile=profile) for name in (first, second)}
            rare = _minus(*(rare_recall(ours, name, factor, dataset=dataset, ipc=ipc, profile=profile) for name in (first, second)))
            balanced = _minus(*(by_seed(kept[name], "balanced_accuracy") for name in (first, second)))
            differences.append((rare, balanced))
            rows.append((f"{factor:g}", RARE_NAMES[first], RARE_NAMES[second], _over_seeds(rare), _over_seeds(balanced)))
    return noted([*_lines(rows), *map(_apart, columns, zip(*differences, strict=True))])
