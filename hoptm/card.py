"""A set's card: what it stands for, under which terms, how it was made, how it scores, what was measured of its leaks.

The card is read from the file alone. A file may come from anybody: its words are shortened and stripped of what does not
print (a terminal obeys some of that), numbers are taken where they are numbers, and nothing else of it is believed.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hoptm.evaluate import Evaluation
from hoptm.exports import has_settings, use
from hoptm.intervals import network_interval
from hoptm.records import versions
from hoptm.synthetic import SyntheticSet

REAL = ("random", "random-teacher", "natural", "herding", "kcentre", "kmeans", "start")
"""Methods whose images are training images as they are."""
SCORES = ("accuracy", "balanced_accuracy", "auc", "worst_recall", "ece")
NO_AUDIT = "No privacy audit was run on this set. Nothing is claimed about what it gives away of its training images."
SAID_BY_FILE = "What follows is what the file says of itself; it was not checked when this card was made."
NO_PROOF = "An attack that fails is no proof of privacy: only a guarantee, where one is stated, holds against attacks that nobody has tried."
EARLIER = "A verdict marked so was made by an earlier test, a bootstrap over the set's images, which found leaks too often. Make it anew with: hoptm audit FILE"
_BOOTSTRAP = re.compile(r"bootstrap over \d+ images; 0\.5 is chance$")
"""How that test ends the row that it rests on."""
_LONGEST, _MOST_ROWS = 300, 100


@dataclass(frozen=True)
class Card:
    """What a card says, as clean words; `facts`, `settings` and `scores` are rows of a name and a value."""

    title: str
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    scores: tuple[tuple[str, str], ...]
    privacy: tuple[str, ...]
    looks: tuple[tuple[float, dict[str, float]], ...]
    """Looks at validation: the iteration and the scores then, ascending."""
    settings: tuple[tuple[str, str], ...]
    use: str
    """Three lines of Python that judge the set elsewhere."""
    scored_by: str
    """The command that writes a copy with scores."""

    @property
    def text(self) -> str:
        """The card for a terminal."""
        lines = [self.title, "=" * min(len(self.title), 100), ""]
        lines += [f"warning: {words}" for words in self.warnings] + [""] * bool(self.warnings)
        lines += [
            *_rows(self.facts),
            "",
            "scores on test",
            *(_rows(self.scores) or [f"  none stored; for a copy of the file that has them: {self.scored_by}"]),
        ]
        lines += ["", "privacy", *(f"  {words}" for words in self.privacy)]
        if self.looks:
            lines += ["", "looks at validation"]
            lines += [f"  iteration {at:g}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in found.items()) for at, found in self.looks]
        lines += ["", "settings", *(_rows(self.settings) or ["  none stored"])]
        return "\n".join([*lines, "", "to judge it elsewhere", *(f"  {line}" for line in self.use.splitlines())])


def card(made: SyntheticSet) -> Card:
    """The card of a set, from what its file holds. Made for files of strangers: raises nothing for odd words in them."""
    info = made.info
    source = {key: clean(value) for key, value in info["source"].items()} if isinstance(info["source"], dict) else {}
    title = f"{clean(info['method'])} set for {source.get('title') or source.get('name') or 'an unnamed data set'}"
    looks = _looks(info.get("selection"))
    return Card(
        title=title,
        warnings=tuple(_warnings(made, source, looks)),
        facts=tuple(_facts(made, source)),
        scores=tuple(_scores(info.get("scores"))),
        privacy=tuple(_privacy(info.get("privacy"))),
        looks=tuple(looks),
        settings=tuple(_flat(info.get("config"))),
        use=use(made),
        scored_by="hoptm evaluate FILE --out COPY" + ("" if has_settings(made) else " --profile fast"),
    )


def described(
    made: SyntheticSet, *, scores: Mapping[str, Evaluation | Mapping[str, Any]] | None = None, privacy: Mapping[str, Any] | None = None
) -> SyntheticSet:
    """A copy whose file also carries test scores by arm (`set`, `random`; a record's are plain JSON already) or a privacy audit; the card shows them.

    Raises DataError for what is no JSON.
    """
    info = dict(made.info)
    if scores is not None:
        info["scores"] = {name: found.as_dict() if isinstance(found, Evaluation) else dict(found) for name, found in scores.items()}
    if privacy is not None:
        info["privacy"] = dict(privacy)
    return dataclasses.replace(made, info=info)


def clean(value: Any, most: int = _LONGEST) -> str:
    """Words of a stranger on one line: what does not print becomes a question mark, and at most `most` characters stay."""
    text = value if isinstance(value, str) else json.dumps(value)
    shown = "".join(letter if letter.isprintable() else " " if letter in "\n\t" else "?" for letter in text[: most + 1])
    return shown if len(text) <= most else shown[:most] + " ..."


def _number(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15
    return float(value) if sound and math.isfinite(value) else None


def _rows(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    wide = min(max((len(name) for name, _ in pairs), default=0), 30)
    return [f"  {name:{wide}s}  {value}" for name, value in pairs]


def _facts(made: SyntheticSet, source: Mapping[str, str]) -> list[tuple[str, str]]:
    info, (count, channels, height, width) = made.info, made.images.shape
    counts = torch.bincount(made.labels, minlength=made.classes).tolist()
    named = [f"{clean(name, 60)} {number}" for name, number in list(zip(info["class_names"], counts, strict=True))[:_MOST_ROWS]]
    scale = "; ".join(f"{mean:.4f} and {std:.4f}" for mean, std in zip(made.standardisation.mean, made.standardisation.std, strict=True))
    return [
        ("images", f"{count} of {channels} x {height} x {width}, {made.images.numel() * made.images.element_size()} bytes of pixels"),
        *([("stored as", clean(info["stored"]))] if "stored" in info else []),
        ("images a class", ", ".join(named)),
        ("made by", f"{clean(info['method'])}, {info['ipc']} a class, seed {info['seed']}"),
        ("step size", f"{made.lr:.4g}"),
        ("mean and deviation", f"{scale} (pixels 0 .. 1; one pair a channel)"),
        ("augmentations", ", ".join(clean(name, 60) for name in info["augmentations"][:20])),
        ("source", " ".join(source.get(key, "") for key in ("name", "checksum")).strip() or "unknown"),
        ("licence", source.get("licence") or "unknown"),
        ("citation", source.get("citation") or "unknown"),
        ("versions", ", ".join(f"{clean(name, 40)} {clean(value, 40)}" for name, value in sorted(info["versions"].items())[:20])),
    ]


def _warnings(made: SyntheticSet, source: Mapping[str, str], looks: list[tuple[float, dict[str, float]]]) -> list[str]:
    info, licence = made.info, source.get("licence", "")
    shown = made.images * torch.tensor(made.standardisation.std)[:, None, None] + torch.tensor(made.standardisation.mean)[:, None, None]
    clipped = float(((shown < -1e-4) | (shown > 1 + 1e-4)).float().mean())
    missing = made.classes - len(torch.unique(made.labels))
    here, theirs = versions(), info["versions"]
    other = [name for name in ("hoptm", "torch") if theirs.get(name) != here[name]]
    rules = [
        (info["method"] in REAL, "The images are real training images: whoever has the file has those patients' pictures."),
        (info["method"] not in REAL, "Unless the settings say otherwise, the images started as real training images, which can show through."),
        (bool(looks), f"Selected on validation: the best of {len(looks)} looks was kept, so validation scores of this set flatter it."),
        (re.search(r"\bNC\b|non-?commercial", licence, re.IGNORECASE) is not None, f"Non-commercial licence: {licence}."),
        (not licence, "The licence of the source is not known: do not pass this file on."),
        (bool(source.get("note")), f"Of the source: {source.get('note')}."),
        (True, "One file is one seed: a claim about a method needs several."),
        (_few(info.get("scores")), "Scores rest on three networks or fewer: their interval is wide."),
        (missing > 0, f"{missing} of {made.classes} classes have no image."),
        (clipped > 0, f"{clipped:.1%} of the pixel values lie outside what a picture can show and are clipped in pictures and 8-bit exports."),
        (bool(other), f"Made with other versions of {' and '.join(other)} than are installed here: scores may differ slightly."),
        (True, "For research and teaching, not for clinical use."),
    ]
    return [words for holds, words in rules if holds]


def _arms(scores: Any) -> list[tuple[str, dict[str, list[float]]]]:
    """By arm and score one number a network; what has another form is left out."""
    if not isinstance(scores, dict):
        return []
    arms = []
    for name, found in list(({"set": scores} if isinstance(scores.get("scores"), list) else scores).items())[:20]:
        networks = found.get("scores") if isinstance(found, dict) else None
        rows = [one for one in networks[:_MOST_ROWS] if isinstance(one, dict)] if isinstance(networks, list) else []
        values = {score: [value for one in rows if (value := _number(one.get(score))) is not None] for score in SCORES}
        arms.append((clean(name, 40), {score: numbers for score, numbers in values.items() if numbers}))
    return [(name, values) for name, values in arms if values]


def _scores(scores: Any) -> list[tuple[str, str]]:
    rows = []
    for name, values in _arms(scores):
        for score, numbers in values.items():
            words = f"{numbers[0]:.3f}, one network"
            if len(numbers) > 1:
                found = network_interval(numbers)
                words = f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] over {found.n} networks of one seed{', wide' if found.wide else ''}"
            rows.append((f"{name} {score.replace('_', ' ')}", words))
    return rows


def _few(scores: Any) -> bool:
    return any(len(numbers) <= 3 for _, values in _arms(scores) for numbers in values.values())


def _privacy(audit: Any) -> list[str]:
    if not isinstance(audit, dict) or not audit:
        return [NO_AUDIT]
    rows = _flat(audit)
    old = {name.partition(".")[0] for name, value in rows if _BOOTSTRAP.search(value)}
    words = [f"{name}: {value}" + " (by an earlier test)" * (name.endswith(".verdict") and name.partition(".")[0] in old) for name, value in rows]
    return [SAID_BY_FILE, *([EARLIER] if old else []), *words, NO_PROOF]


def _looks(selection: Any) -> list[tuple[float, dict[str, float]]]:
    looks = []
    for look in selection[:2000] if isinstance(selection, list) else []:
        at = _number(look.get("iteration")) if isinstance(look, dict) else None
        found = {name: value for name in SCORES if (value := _number(look.get(name))) is not None} if at is not None else {}
        if at is not None and found:
            looks.append((at, found))
    return sorted(looks, key=lambda look: look[0])


def _flat(plain: Any) -> list[tuple[str, str]]:
    """Two levels of a dictionary as rows; deeper parts as JSON."""
    rows: list[tuple[str, str]] = []
    for name, value in plain.items() if isinstance(plain, dict) else ():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(clean(f"{name}.{key}" if key else name, 80), clean(one)) for key, one in list(inner)[:_MOST_ROWS]]
    return rows[:_MOST_ROWS]
