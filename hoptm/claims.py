"""Every claim of the paper and of this project, as data: its words, whose it is, where it stands, and the comparisons that decide it.

The paper's numbers are those of `transcribed`. Where its data are not at hand its claims stay untested, and stand a
second time as claims on other data, under this project's settings.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hoptm.comparisons import SETS, Engine, Gain, Gap, GapBelow, Leaks, Nothing, OnGpu, Reach, Replayed, Within
from hoptm.equal_bytes import BUDGETS, PAIRS, count_of
from hoptm.results import NAMES, SHORT, SOFT
from hoptm.transcribed import transcribed
from hoptm.verdicts import Claim
from hoptm.verify import TOLERANCE

TENTH = (("pneumoniamnist", 235), ("pbc-28", 149))
"""A tenth of train as images a class, for each real data set of the main grid."""
HEADLINE = 0.8
"""Accuracy points that a set of a tenth of train may miss to all real images, on average: this project's headline."""
_GRID = tuple((dataset, ipc, "tuned") for dataset, tenth in TENTH for ipc in (1, 10, 50, tenth))
_TEN = tuple((dataset, 10, "tuned") for dataset, _ in TENTH)
_RIVALS = {"DM": "dm", "MTT": "endpoint", "FTD": "ftd", "DATM": "datm", "ATT": "adaptive"}
"""Rows of the paper's tables that are arms here."""
_TOO_SHORT = "our runs of it are short ones, with settings that nobody searched"
_FAST = tuple(("pneumoniamnist", ipc, "fast") for ipc in (1, 10))
"""Settings as `_GRID` has them, in the profile of the chapters, where one data set was run."""
_ABSTRACT, _OURS, _SUMMARY = "abstract", "abstract, our data and settings", "this project"
_TABLE = "Table 1, our data and settings"
_COMPARABLE = f"accuracy comparable to all images, read as at most {HEADLINE} points short"


def parts_elsewhere() -> list[Claim]:
    """The paper's parts, one at a time, on data of this book under its settings: they may fail here and hold there."""
    shape = [_gain("paper", _OURS, "shape", "endpoint", *setting, before="a shape potential helps: ") for setting in _TEN]
    return shape + [_gain("paper", _OURS, "progressive", "endpoint", *setting, before="easy to complex helps: ") for setting in _TEN]


def whole_elsewhere() -> list[Claim]:
    """The paper's whole method on data of this book, against the end point and against random images."""
    return [_gain("paper", _OURS, "published", rival, *setting) for rival in ("endpoint", "random") for setting in (*_FAST, *_GRID)]


def rows_elsewhere() -> list[Claim]:
    """The paper's whole method on data of this book, against other rows of its table and against all images."""
    found = [_gain("paper", _TABLE, "published", rival, *setting) for rival in ("ftd", "growing", "dm") for setting in _TEN]
    return [*found, Claim(_COMPARABLE, "both sets, a tenth of train, tuned", "paper", _OURS, (Gap("published", TENTH, HEADLINE),))]


def paper() -> list[Claim]:
    """The paper's claims on its own data: the abstract, then each row and budget of the tables as transcribed.

    A record counts by the name of its data set: `covid19-cxr` is a folder that a reader brings, since the paper's split is not published.
    """
    own, large = ("pathmnist", 10, "paper"), (("pathmnist", 1000),)
    found = [
        Claim("earlier methods look at end points only", "", "paper", _ABSTRACT, (Nothing("a statement about other papers: no run decides it"),)),
        Claim("privacy is preserved", "", "paper", _ABSTRACT, (Nothing("only a guarantee would be privacy, and the release holds no experiment"),)),
        _gain("paper", _ABSTRACT, "shape", "endpoint", *own, before="a shape potential helps: "),
        _gain("paper", _ABSTRACT, "progressive", "endpoint", *own, before="easy to complex helps: "),
        Claim(_COMPARABLE, "PathMNIST, a tenth of train, paper", "paper", _ABSTRACT, (Gap("published", large, HEADLINE, "paper"),)),
    ]
    for table in transcribed()["tables"].values():
        found += [*_reached(table), *_above(table)]
    return found


def _reached(table: dict[str, Any]) -> Iterator[Claim]:
    where, _, name = table["title"].partition(", ")
    words = f"{name}: accuracy at least as printed, less one deviation"
    for ipc, (mean, deviation) in table["rows"]["HoP-TM"].items():
        decided = Reach("published", table["dataset"], int(ipc), mean, deviation)
        yield Claim(words, f"IPC {ipc}, printed {mean:.2f} (sd {deviation:.2f})", "paper", where, (decided,))


def _above(table: dict[str, Any]) -> Iterator[Claim]:
    where, _, name = table["title"].partition(", ")
    ours, words = table["rows"]["HoP-TM"], f"{name}: above other methods, where printed so"
    for rival, row in table["rows"].items():
        ipcs = [int(ipc) for ipc in row if rival != "HoP-TM" and ipc in ours and ours[ipc][0] > row[ipc][0]]
        if ipcs:
            arm = _RIVALS.get(rival, "")
            why = "its labels are soft, and hard ones are not held against them" if arm in SOFT else _TOO_SHORT if arm in SHORT else ""
            why = why if arm else "no such arm in this project"
            parts = (Nothing(why),) if why else tuple(Gain("published", arm, table["dataset"], ipc, "paper") for ipc in ipcs)
            yield Claim(words, f"{rival}, IPC {', '.join(map(str, ipcs))}", "paper", where, parts)


def distilled() -> list[Claim]:
    """Matching the end alone against as many random real images."""
    return [_gain("project", _SUMMARY, "endpoint", "random", *setting) for setting in (*_FAST, *_GRID)]


def orders() -> list[Claim]:
    """Each further order of a path loss, added to the end point."""
    return [_gain("project", _SUMMARY, order, "endpoint", *setting) for order in ("positions", "velocity", "curvature", "torsion") for setting in _TEN]


def curricula() -> list[Claim]:
    """Each mask and window that is not the published one, and each end, added to the end point."""
    return [_gain("project", _SUMMARY, part, "endpoint", *setting) for part in ("fresh", "quantile", "layers", "growing", "adaptive") for setting in _TEN]


def single_parts() -> list[Claim]:
    """Parts that the search of the extended method could choose, each alone on top of the end point; a schedule against the same weight held constant."""
    parts = [_gain("project", _SUMMARY, part, "endpoint", *setting) for part in ("student-momentum", "with-outcome", "prior", "balanced") for setting in _TEN]
    schedule = [_gain("project", _SUMMARY, "rising", "velocity", *setting) for setting in _TEN]
    bare = _gain("project", _SUMMARY, "published", "published-bare", "pneumoniamnist", 10)  # on the other set it is the end point
    return [*parts, *schedule, bare]


def teachers() -> list[Claim]:
    """Experts that were trained otherwise, and a student that learns a step size for each of its steps, against plain ones."""
    return [
        _gain("project", _SUMMARY, part, "endpoint", *setting) for part in ("momentum-experts", "long", "averaged-experts", "each-step") for setting in _TEN
    ]


def taught() -> list[Claim]:
    """Soft labels: distilled images against random real ones, both under the labels of the same experts; never against hard labels."""
    return [_gain("project", _SUMMARY, part, "random-teacher", *setting) for part in ("teacher", "learned") for setting in _TEN]


def extended() -> list[Claim]:
    """The extended method against the end point, random images and herded ones, from which it may start, and the aim that joins the first two."""
    found = [_gain("project", _SUMMARY, "extended", rival, *setting) for rival in ("endpoint", "random") for setting in (*_GRID, ("cxr-open", 10, "tuned"))]
    found += [_gain("project", _SUMMARY, "extended", "herding", dataset, ipc) for dataset, _ in TENTH for ipc in (1, 10)]
    both = tuple(
        Gain("extended", rival, dataset, ipc, score=score, needs=5)
        for dataset, _ in TENTH for ipc in (1, 10) for rival in ("endpoint", "random") for score in ("accuracy", "auc")
    )  # fmt: skip
    return [*found, Claim("gain of extended over both, on both sets, at IPC 1 and 10", "five seeds, tuned", "project", _SUMMARY, both)]


def latent() -> list[Claim]:
    """Latent codes at equal images: against pixels, random images and the controls of a decoder, and what each regulariser adds."""
    return [_gain("project", _SUMMARY, first, second, *setting) for first, second in PAIRS for setting in _TEN]


def latent_starts() -> list[Claim]:
    """Codes that start elsewhere, against plain codes."""
    return [_gain("project", _SUMMARY, arm, "latent", *setting) for arm in ("latent-kmeans", "latent-draws") for setting in _TEN]


def latent_bytes() -> list[Claim]:
    """The same at equal bytes, the decoder counted once."""
    return [_at_equal_bytes(first, second, dataset) for first, second in PAIRS for dataset in BUDGETS]


def _at_equal_bytes(first: str, second: str, dataset: str) -> Claim:
    ours, theirs = (count_of(method, BUDGETS[dataset]) for method in (first, second))
    parts = tuple(Gain(first, second, dataset, ours, score=score, second_ipc=theirs) for score in ("accuracy", "auc"))
    where = f"{SETS[dataset]}, {ours} against {theirs} images a class, tuned"
    return Claim(f"gain of {NAMES[first]} over {NAMES[second]} at equal bytes", where, "project", _SUMMARY, parts)


def headline() -> list[Claim]:
    """A tenth of train, distilled by the extended method, misses next to nothing to all real images, and less than random images miss; then what these miss."""
    parts = (Gap("extended", TENTH, HEADLINE), GapBelow("extended", "random", TENTH))
    yardstick = Claim(f"random images miss at most {HEADLINE} points", "both sets, a tenth, tuned", "project", "control", (Gap("random", TENTH, HEADLINE),))
    return [Claim(f"a tenth of train misses at most {HEADLINE} points, and less than random", "both sets, tuned", "project", "headline", parts), yardstick]


def engine() -> list[Claim]:
    """What is claimed of the engine: its time and memory, how soon a set is good, and that it equals the released method."""
    lean, kept, record = "compiled, none kept", "compiled, all kept", "stored benchmark"
    timed = [
        ("promised", kept, 80, 128, 0.75),
        ("promised", kept, 20, 32, 0.55),
        ("aim", lean, 80, 128, 0.65),
        ("aim", kept, 80, 128, 0.5),
        ("aim", kept, 20, 32, 0.4),
    ]
    quick = [("pneumoniamnist", 10, "auc", 120.0, 0.02), ("pbc-28", 1, "accuracy", 720.0, 0.1), ("pbc-28", 10, "accuracy", 720.0, 0.02)]
    limits = Engine(80, 128, lean, "pairs", 0.85), Engine(80, 128, lean, "memory_ratio", 1 / 8)
    against, quickly = "quicker and leaner than plain autograd, ", "gain over random, from nothing, aim"
    return [
        Claim("equal to the released method", f"below {TOLERANCE:g}", "project", "hoptm verify", (Replayed(TOLERANCE),)),
        Claim(against + "promised", f"width 128, {lean}: time below 0.85, memory below 1/8", "project", record, limits),
        *(Claim(against + kind, f"width {width}, {arm}: time below {bound}", "project", record, (Engine(steps, width, arm, "pairs", bound),))
          for kind, arm, steps, width, bound in timed),
        Claim(against + "aim", "on a GPU: time below 0.2", "project", "stored run on a GPU", (OnGpu(80, 128, 0.2), OnGpu(20, 32, 0.2))),
        *(Claim(quickly, f"{SETS[name]}, IPC {ipc}, above {bound}", "project", record, (Within(name, ipc, score, seconds, bound),))
          for name, ipc, score, seconds, bound in quick),
    ]  # fmt: skip


def leakage() -> list[Claim]:
    """What the attacks of the stored audit find. The release starts from real images, as the first of these does."""
    kinds = {"pixel-real": "pixels that start from real images", "pixel-noise": "pixels that start from noise", "latent": "codes and their decoder",
             "dp-4": "one noisy release, epsilon 4"}  # fmt: skip
    words = "the attacks of the audit find nothing, which would not be privacy"
    return [
        Claim(words, f"{SETS[name]}, {kind}", "project", "hoptm audit", (Leaks(arm, name),))
        for name in ("pneumoniamnist", "pbc-28")
        for arm, kind in kinds.items()
    ]


FAMILIES: Mapping[str, Callable[[], list[Claim]]] = {
    "the paper, its own data": paper,
    "the paper's parts, our data": parts_elsewhere,
    "the paper's method, our data": whole_elsewhere,
    "the paper's table, our data": rows_elsewhere,
    "end point against random": distilled,
    "further orders": orders,
    "masks, windows and ends": curricula,
    "parts of the extended method": single_parts,
    "teachers and students": teachers,
    "soft labels": taught,
    "the extended method": extended,
    "latent codes": latent,
    "latent codes, where they start": latent_starts,
    "latent codes, equal bytes": latent_bytes,
    "the headline": headline,
    "what leaks": leakage,
    "the engine": engine,
}
"""Every claim of the page, by family."""


def of_set(dataset: str, profile: str, ipcs: Sequence[int] = (1, 10)) -> list[Claim]:
    """The plain questions one asks of any data set and profile: end point and published against random, and against each other."""
    pairs = (("endpoint", "random"), ("published", "random"), ("published", "endpoint"))
    return [_gain("reader", "this chapter", first, second, dataset, ipc, profile) for first, second in pairs for ipc in ipcs]


def _gain(whose: str, source: str, first: str, second: str, dataset: str, ipc: int, profile: str = "tuned", before: str = "") -> Claim:
    """First beats second, in accuracy and in AUC."""
    parts = tuple(Gain(first, second, dataset, ipc, profile, score) for score in ("accuracy", "auc"))
    return Claim(f"{before}gain of {NAMES[first]} over {NAMES[second]}", f"{SETS.get(dataset, dataset)}, IPC {ipc}, {profile}", whose, source, parts)
