"""Learned codes against their controls, at equal images and at equal bytes with the decoder counted once.

Nothing here trains: counts come from what a rendering stores, scores from records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hoptm.config import generator
from hoptm.errors import DataError
from hoptm.intervals import interval
from hoptm.records import Record
from hoptm.rendering import Decoded, Pixels, Rendering, Upsampled, images_within, stored_bytes
from hoptm.results import NAMES, gains_by_seed
from hoptm.vae import VaeConfig, untrained

CODES = ("latent", "latent-prior", "latent-shape", "latent-path")
"""Arms that learn codes: plain, with a pull to the prior, with the shape of the encoded data, with the shape potential of the path."""
CONTROLS = ("endpoint", "half", "kmeans-decode", "reconstruction", "upsampled", "random")
"""What learned codes have to beat: learned pixels, learned pixels at half resolution, and what was only chosen."""
PAIRS = (*(("latent", control) for control in CONTROLS), *((method, "latent") for method in CODES[1:]))
"""Codes against each control, then what each regulariser adds to them."""
_STORED_AS = {**dict.fromkeys((*CODES, "kmeans-decode", "reconstruction"), "codes"), **dict.fromkeys(("half", "upsampled"), "half"), "random": "bytes"}
"""How an arm's images are stored; what is not named here is stored as pixels."""


@dataclass(frozen=True)
class Budget:
    """A data set's images and the budget in bytes: that of `pixels` learned images a class, stored as pixels in float32."""

    classes: int
    channels: int
    size: int
    pixels: int


BUDGETS: Mapping[str, Budget] = {"pneumoniamnist": Budget(2, 1, 28, 50), "pbc-28": Budget(8, 3, 28, 10)}
"""The smallest budget of the grid that holds the decoder: at ten grey images a class it alone is larger than the images."""


def counts(budget: Budget, config: VaeConfig | None = None) -> dict[str, int]:
    """Images a class that fit in the budget, by how they are stored: `pixels`, `half`, `codes` and `bytes` (real images, one byte a value).

    0 where what the images share does not fit. `config` shapes the decoder. Raises ConfigError for images that a rendering cannot make.
    """
    shape = budget.channels, budget.size
    kinds: dict[str, Rendering] = {
        "pixels": Pixels(),
        "half": Upsampled(),
        "codes": Decoded.by(untrained(config or VaeConfig(), *shape, generator(0, "decoder size"))),
    }
    limit = stored_bytes(kinds["pixels"], budget.classes * budget.pixels, *shape)
    found = {name: images_within(kind, limit, *shape) // budget.classes for name, kind in kinds.items()}
    return {**found, "bytes": limit // (budget.channels * budget.size**2) // budget.classes}


def count_of(method: str, budget: Budget) -> int:
    """Images a class of an arm within the budget."""
    return counts(budget)[_STORED_AS.get(method, "pixels")]


def gains(
    records: Sequence[Record], score: str, *, dataset: str, first: str, second: str, ipc: int | None, profile: str = "tuned"
) -> tuple[dict[int, float], tuple[int, int]]:
    """First minus second by seed, and the images a class of each: both `ipc`, or what fits in the data set's budget of bytes when that is None.

    Raises DataError for a data set without a budget.
    """
    if dataset not in BUDGETS:
        raise DataError(f"no budget in bytes for {dataset}; there are {', '.join(BUDGETS)}.")
    one, other = (count_of(method, BUDGETS[dataset]) if ipc is None else ipc for method in (first, second))
    return gains_by_seed(records, score, dataset=dataset, first=first, second=second, ipc=one, second_ipc=other, profile=profile), (one, other)


def codes_table(records: Sequence[Record], *, dataset: str, ipc: int, score: str, profile: str = "tuned") -> str:
    """What learned codes gain over each control at `ipc` images a class and at equal bytes, then what each regulariser adds, as plain text.

    Means with 95 % intervals over shared seeds by Student's t; with fewer than two the row says how many there are. `images` are images a class of
    the two arms.
    """
    lines = [
        f"{dataset}, {score.replace('_', ' ')}: {NAMES['latent']} against a control, then what each regulariser adds",
        f"{'':27s}  at {f'{ipc} images a class each':26s}  at equal bytes",
        _row("", "n", "gain", "n", "images", "gain"),
    ]
    for first, second in PAIRS:
        (equal, _), (within, (one, other)) = (gains(records, score, dataset=dataset, first=first, second=second, ipc=at, profile=profile) for at in (ipc, None))
        name = NAMES[second] if first == "latent" else "+ " + NAMES[first].partition(" + ")[2]
        lines.append(_row(name, str(len(equal)), _shown(equal), str(len(within)), f"{one}:{other}", _shown(within)))
    return "\n".join(lines)


def _shown(found: Mapping[int, float]) -> str:
    if len(found) < 2:
        return "too few seeds" if found else "not on record"
    seen = interval(list(found.values()))
    return f"{seen.mean:+.3f} [{seen.low:+.3f}, {seen.high:+.3f}]"


def _row(name: str, n: str, gain: str, n_bytes: str, images: str, gain_bytes: str) -> str:
    return f"{name:27s}{n:>3s} {gain:24s}{n_bytes:>3s} {images:8s}{gain_bytes}".rstrip()
