"""Figures of judgement: what a recipe does to a comparison, what looking at test is worth, other networks, and rare classes.

Records or numbers in, a matplotlib Figure out, in the look of `plots`; and what a figure of means does not say, paired by seed, as plain text.
"""

import itertools
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hoptm.errors import DataError
from hoptm.fairness import lrs_by_seed
from hoptm.imbalance import NAMES as RARE_NAMES
from hoptm.intervals import Interval, interval
from hoptm.plots import COLOURS, FAINT, INK, RECORD, SCORE_NAMES, WIDTH, figure, style
from hoptm.records import Record
from hoptm.results import NAMES, SOFT, by_seed, recalls, select, shift, shift_by_seed

UNDER_IMBALANCE = {
    "random": COLOURS["random"],
    "random-budgets": "#006d80",
    "endpoint": COLOURS["endpoint"],
    "prior": COLOURS["outcome"],
    "balanced_softmax": COLOURS["extended"],
    "budgets": COLOURS["progressive"],
    "aware": COLOURS["full"],
}
"""One colour an arm of `imbalance.NAMES`."""


@style()
def by_recipe(scores: Mapping[str, Mapping[str, Sequence[float]]], score: str = "auc") -> Figure:
    """For each recipe, in words, the scores of each arm: a dot a seed or network, a bar between the means. The arms are names of `results.NAMES`."""
    drawn = figure(WIDTH, 1.3 + 0.62 * len(scores))
    axes = drawn.subplots()
    for height, (recipe, arms) in zip(range(0, -len(scores), -1), scores.items(), strict=True):
        means = {name: float(np.mean(values)) for name, values in arms.items()}
        axes.plot(list(means.values()), [height] * len(means), "-", color=FAINT, linewidth=5, zorder=1)
        for name, values in arms.items():
            axes.plot(values, [height] * len(values), "o", color=COLOURS[name], alpha=0.25, markersize=4, markeredgewidth=0)
            axes.plot([means[name]], [height], "D", color=COLOURS[name], markersize=8, markeredgecolor="white", zorder=3)
        axes.text(0, height + 0.22, recipe, transform=axes.get_yaxis_transform(), fontsize=11, va="bottom")
    for name in dict.fromkeys(name for arms in scores.values() for name in arms):
        axes.plot([], [], "D", color=COLOURS[name], markersize=8, label=NAMES[name])
    drawn.legend(loc="outside upper left", ncols=2)
    axes.set_ylim(-len(scores) + 0.4, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(SCORE_NAMES[score])
    return drawn


@style()
def looking(on_test: Sequence[float], on_validation: Sequence[float], score: str = "auc") -> Figure:
    """What is reported after 1, 2, ... looks: the best by test and the best by validation, both as test scores; the gap is what looking at test is worth."""
    drawn = figure(WIDTH, 3.3)
    axes, looks = drawn.subplots(), np.arange(1, len(on_test) + 1)
    axes.fill_between(looks, on_validation, on_test, color=FAINT, alpha=0.7)
    for values, colour, words, align in (
        (on_test, COLOURS["published"], "kept by its test score", "bottom"),
        (on_validation, COLOURS["full"], "kept by validation", "top"),
    ):
        axes.plot(looks, values, "-", color=colour)
        place = values[-1] if align == "bottom" else min(values)
        axes.annotate(words, (looks[-1], place), (0, 6 if align == "bottom" else -6), textcoords="offset points", color=colour, ha="right", va=align)
    axes.set_xticks([place for place in looks if place == 1 or place % 5 == 0])
    axes.set_xlabel("networks that were looked at")
    axes.set_ylabel(f"reported test {SCORE_NAMES[score]}")
    axes.margins(y=0.25)
    return drawn


@style()
def shifts(records: Sequence[Record], *, dataset: str, ipc: int, methods: Sequence[str], score: str = "auc", profile: str = "fast") -> Figure:
    """Test minus validation of each arm, mean and 95 % interval over seeds. Raises DataError as `results.shift` does."""
    found = {name: shift(records, score, dataset=dataset, method=name, ipc=ipc, profile=profile) for name in methods}
    drawn = figure(WIDTH, 1.1 + 0.55 * len(found))
    axes = drawn.subplots()
    for height, (name, one) in zip(range(0, -len(found), -1), found.items(), strict=True):
        _bar(axes, one, height, COLOURS[name])
        axes.text(0, height + 0.2, f"{NAMES[name]}, n={one.n}", transform=axes.get_yaxis_transform(), fontsize=11, color=COLOURS[name], va="bottom")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_ylim(-len(found) + 0.4, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"test {SCORE_NAMES[score]} minus validation {SCORE_NAMES[score]}")
    return drawn


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
    return "\n".join([*_lines(rows), *missing])


def _on_validation(records: Sequence[Record]) -> str:
    return "the same networks" if all(record.scores.get("validation") for record in records) else "the best that was tried"


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> str:
    """First minus second over the seeds that both have."""
    return _over_seeds({seed: first[seed] - second[seed] for seed in sorted(set(first) & set(second))})


def _over_seeds(values: Mapping[int, float]) -> str:
    """Mean, 95 % interval and n; of one seed its value and no interval."""
    return f"{_mean(values)}{',' if len(values) < 2 else ''} n={len(values)}"


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
        rows.append((NAMES[name], str(len(found)), *cells))
    tails = ["not run: " + "; ".join(missing)] if missing else []
    soft = [NAMES[name] for name in methods if name in SOFT and NAMES[name] not in missing]
    tails += [f"not from records, no accuracy with classes alone: {'; '.join(soft)}"] if soft else []
    last = [line for tail in tails for line in textwrap.wrap(tail, 150, break_on_hyphens=False)]
    return "\n".join([f"{dataset}, profile {profile}, {ipc} images a class", *_lines(rows), *last])


def _bar(axes: Axes, found: Interval, height: int, colour: str) -> None:
    axes.plot([found.low, found.high], [height, height], "-", color=colour, linewidth=3)
    axes.plot([found.mean], [height], "o", color=colour, markersize=8)


BySeed: TypeAlias = Callable[[Sequence[Record], str], dict[int, float]]
"""From the records of an arm and a score to a value a seed: `results.by_seed`, or `results.shift_by_seed` for test minus validation."""


TRANSFER_SETS = ("pneumoniamnist", "pbc-28")
SOURCES = {"random": "random real images", "depth2": "made with depth 2", "depth3": "made with depth 3", "depth4": "made with depth 4"}
_FAMILIES = {"convnet": "ConvNet", "vgg": "VGG", "resnet": "ResNet", "mlp": "MLP", "vit": "ViT"}
"""What `data/make_transfer.py` runs: data sets, rows and columns, in words."""


def transferred(
    records: Sequence[Record], score: str, *, dataset: str, ipc: int = 10, profile: str = "fast", value: BySeed = by_seed
) -> tuple[list[str], list[str], np.ndarray, int]:
    """The mean over seeds of each cell of `data/transfer`: rows, columns, the matrix (not a number where nothing was run), and the fewest seeds of a cell.

    Of a data set that is not on record the planned rows and columns, with nothing in them and 0 seeds.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    rows = sorted({record.extra["source"] for record in ours} or SOURCES, key=lambda name: (name != "random", name))
    there = {record.extra["network"] for record in ours} or set(_FAMILIES)
    columns = [name for name in _FAMILIES if name in there]
    cells = [[value(select(ours, dataset=dataset, method=f"{row}-on-{name}", ipc=ipc, profile=profile), score) for name in columns] for row in rows]
    matrix = np.array([[np.mean(list(cell.values())) if cell else np.nan for cell in line] for line in cells])
    return rows, columns, matrix, min((len(cell) for line in cells for cell in line if cell), default=0)


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
                    family for name, family in _FAMILIES.items()
                    if not there & {f"{dataset}-{profile}-{source}-on-{name}-{ends}", f"{dataset}-{profile}-{source}-{ends}"}
                ]
                for source, words in SOURCES.items()
            }  # fmt: skip
            alike.setdefault(_left(left), []).append(str(seed))
        lines += [f"{dataset}: not run, seed{'s' * (len(found) > 1)} {', '.join(found)}, {words}" for words, found in alike.items() if words]
    return "\n".join(line for one in lines for line in textwrap.wrap(one, 150, subsequent_indent="  ")) or "every planned cell is on record"


def _left(left: Mapping[str, Sequence[str]]) -> str:
    if all(len(families) == len(_FAMILIES) for families in left.values()):
        return "every set on every network"
    each = {words: "every network" if len(families) == len(_FAMILIES) else ", ".join(families) for words, families in left.items() if families}
    return "; ".join(f"{words} on {families}" for words, families in each.items())


def transfer_gains(records: Sequence[Record], *, dataset: str, ipc: int = 10, profile: str = "fast") -> str:
    """Each made set minus the random images on each network, paired by seed with 95 % intervals, as plain text: AUC, calibration error, and the shift.

    The shift is test minus validation in AUC, over records that hold validation scores of the networks that were tested.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    if not ours:
        return f"{dataset}: not run"
    rows: list[tuple[str, ...]] = [("network", "set minus random real images", "AUC", "calibration error", "test minus validation, AUC")]
    for (name, family), source in itertools.product(_FAMILIES.items(), list(SOURCES)[1:]):
        pair = [select(ours, dataset=dataset, method=f"{row}-on-{name}", ipc=ipc, profile=profile) for row in (source, "random")]
        cells = [_paired(*(by_seed([one for one in side if _holds(one, score)], score) for side in pair)) for score in ("auc", "ece")]
        shifted = _paired(*(shift_by_seed([one for one in side if one.scores.get("validation")], "auc") for side in pair))
        rows.append((family, SOURCES[source], *cells, shifted))
    return "\n".join([dataset, *_lines(rows)])


def _holds(record: Record, score: str) -> bool:
    return all(one.get(score) is not None for one in record.scores["scores"])


@style()
def transfer(
    records: Sequence[Record], *, score: str = "auc", value: BySeed = by_seed, words: str = "test {}", datasets: Sequence[str] = TRANSFER_SETS
) -> Figure:  # fmt: skip
    """Sets in rows, the networks that train on them in columns, a score in each cell; darker is higher, a dash is not run. A panel for each data set.

    With `value` another number than the score stands in a cell, and `words` say which. A data set of `datasets` that is not on record has a panel
    that says `not run`.
    """
    names = dict.fromkeys([*datasets, *(record.dataset["name"] for record in records)])
    found = {name: transferred(records, score, dataset=name, value=value) for name in names}
    heights = [1.0 + 0.5 * len(rows) if seeds else 0.6 for rows, _, _, seeds in found.values()]
    drawn = figure(WIDTH, sum(heights) + 0.5)
    panels = drawn.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, (rows, columns, matrix, seeds)) in zip(panels, found.items(), strict=True):
        if seeds:
            _matrix(axes, rows, columns, matrix)
            axes.set_title(f"{name}: {words.format(_SCORES.get(score, score))}, n ≥ {seeds}", pad=26)
        else:
            axes.set_axis_off()
            axes.set_title(f"{name}: {words.format(_SCORES.get(score, score))}, not run")
    return drawn


def _matrix(axes: Axes, rows: Sequence[str], columns: Sequence[str], matrix: np.ndarray) -> None:
    low, high = float(np.nanmin(matrix)) - 0.02, float(np.nanmax(matrix)) + 0.06
    axes.imshow(matrix, cmap="Blues", aspect="auto", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(matrix):
        dark = (value - low) / (high - low) > 0.6  # false where nothing was run
        axes.text(column, row, "–" if np.isnan(value) else f"{value:.3f}", ha="center", va="center", color="white" if dark else INK, fontsize=11)
    axes.set_xticks(range(len(columns)), [_FAMILIES[name] for name in columns])
    axes.set_yticks(range(len(rows)), [SOURCES[name] for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()


_SCORES = {**SCORE_NAMES, "ece": "calibration error", "worst_recall": "worst recall"}


# ---- rare classes ----------------------------------------------------------------------------------------------


@style()
def tails(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Images of each class left in train, a line for each imbalance factor (its name in the key), on a logarithmic axis; the rarest class is last."""
    order = np.argsort([-count for count in list(counts.values())[-1]], kind="stable")
    drawn = figure(WIDTH, 3.4)
    axes = drawn.subplots()
    for (name, values), shade in zip(counts.items(), np.linspace(0.75, 0, len(counts)), strict=True):
        axes.plot(range(len(order)), np.asarray(values)[order], "o-", color=str(shade), label=name)
        axes.text(len(order) - 0.85, np.asarray(values)[order][-1], name, va="center", fontsize=11)
    axes.set_yscale("log")
    axes.set_ylabel("images in train")
    axes.set_xticks(range(len(order)), [class_names[place] for place in order], rotation=40, ha="right")
    axes.margins(x=0.03)
    axes.set_xlim(right=len(order) + 0.9)
    return drawn


@style()
def class_recalls(found: Mapping[str, Sequence[Sequence[float]]], class_names: Sequence[str], counts: Sequence[int]) -> Figure:
    """Recall of each class, the most frequent class on top: a dot a network of each arm, their mean a larger mark. The arms are named and coloured in turn."""
    order = np.argsort([-count for count in counts], kind="stable")
    colours = (INK, COLOURS["random"], UNDER_IMBALANCE["random-budgets"], COLOURS["start"])
    drawn = figure(WIDTH, 1.4 + 0.5 * len(order))
    axes = drawn.subplots()
    for place, (name, runs) in enumerate(found.items()):
        values = np.asarray(runs)[:, order]
        heights = -np.arange(len(order)) + 0.2 - 0.2 * place
        for line in values:
            axes.plot(line, heights, "o", color=colours[place], alpha=0.3, markersize=4, markeredgewidth=0)
        axes.plot(values.mean(axis=0), heights, "D", color=colours[place], markersize=7, markeredgecolor="white", label=name)
    axes.set_yticks(-np.arange(len(order)), [f"{class_names[place]} ({counts[place]})" for place in order])
    axes.set_xlabel("recall on validation")
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    drawn.legend(loc="outside upper left", ncols=1)
    return drawn


@style()
def rarest(records: Sequence[Record], names: Mapping[str, str], *, dataset: str, ipc: int = 10, profile: str = "fast") -> Figure:
    """Recall of the rarest class by imbalance factor: a panel a factor, a row an arm, a dot a seed; bars are 95 % intervals where there are two seeds or more.

    At factor 1 all classes are equally many, and an arm that is `random` or the end point there says so instead of `not run`.
    Raises DataError when nothing is on record.
    """
    factors = sorted({record.extra["factor"] for record in records if record.dataset["name"] == dataset})
    if not factors:
        raise DataError(f"no run on rare classes of {dataset} is on record: run data/make_imbalance.py.")
    drawn = figure(WIDTH, 0.9 + len(factors) * (0.5 + 0.42 * len(names)))
    panels = np.atleast_1d(drawn.subplots(len(factors), 1, sharex=True))
    for axes, factor in zip(panels, factors, strict=True):
        for height, (name, words) in zip(range(0, -len(names), -1), names.items(), strict=True):
            values = rare_recall(records, name, factor, dataset=dataset, ipc=ipc, profile=profile)
            said = words if values else f"{words}: {_absent(name, factor)}"
            axes.plot(list(values.values()), [height] * len(values), "o", color=UNDER_IMBALANCE[name], alpha=0.5, markersize=6, markeredgewidth=0)
            if len(values) > 1:
                _bar(axes, interval(list(values.values())), height, UNDER_IMBALANCE[name])
            axes.text(0, height + 0.14, said, transform=axes.get_yaxis_transform(), fontsize=10, color=UNDER_IMBALANCE[name] if values else RECORD, va="bottom")
        axes.set_title(f"imbalance factor {factor:g}")
        axes.set_ylim(-len(names) + 0.5, 0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("test recall of the rarest class")
    panels[-1].set_xlim(-0.02, 1.02)
    return drawn


def rare_recall(records: Sequence[Record], name: str, factor: float, *, dataset: str, ipc: int = 10, profile: str = "fast") -> dict[int, float]:
    """Recall of the class with the fewest training images, by seed, of one arm of `data/imbalance` at one factor; empty where nothing was run."""
    kept = select(records, dataset=dataset, method=f"{name}-factor{factor:g}", ipc=ipc, profile=profile)
    found = recalls(kept)
    return {record.seed: found[record.seed][record.extra["train_counts"].index(min(record.extra["train_counts"]))] for record in kept}


def same_at_one(name: str) -> str:
    """Which arm an arm is where all classes are equally many: `random`, or `endpoint`. `data/make_imbalance.py` runs no other there."""
    return "random" if name.startswith("random") else "endpoint"


def _absent(name: str, factor: float) -> str:
    twin = same_at_one(name)
    return f"same as {NAMES[twin] if twin == 'endpoint' else twin}" if factor == 1 and twin != name else "not run"


def rare_gains(records: Sequence[Record], pairs: Sequence[tuple[str, str]], *, dataset: str, ipc: int = 10, profile: str = "fast") -> str:
    """First minus second by imbalance factor, paired by seed with 95 % intervals: recall of the rarest class and balanced accuracy, as plain text.

    At factor 1 arms stand for those that they are the same as, so pairs fall together there; each is said once, and none of an arm with itself.
    """
    ours = [record for record in records if record.dataset["name"] == dataset]
    factors = sorted({record.extra["factor"] for record in ours})
    if not factors:
        return f"{dataset}: not run, run data/make_imbalance.py"
    rows = [("factor", "arm", "minus", "recall of the rarest class", "balanced accuracy")]
    for factor in factors:
        asked = [(same_at_one(first), same_at_one(second)) for first, second in pairs] if factor == 1 else pairs
        for first, second in dict.fromkeys(pair for pair in asked if pair[0] != pair[1]):
            kept = {name: select(ours, dataset=dataset, method=f"{name}-factor{factor:g}", ipc=ipc, profile=profile) for name in (first, second)}
            rare = (rare_recall(ours, name, factor, dataset=dataset, ipc=ipc, profile=profile) for name in (first, second))
            balanced = (by_seed(kept[name], "balanced_accuracy") for name in (first, second))
            rows.append((f"{factor:g}", RARE_NAMES[first], RARE_NAMES[second], _paired(*rare), _paired(*balanced)))
    return "\n".join(_lines(rows))
