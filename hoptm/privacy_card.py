"""The privacy section of a set's card: what was audited, against whom, and what came out with its intervals.

Two sources: the set itself (its images against train and against held-out images, by pixels, by structural similarity and by features of a network),
and the report of an audit of the pipeline that made it.
The words never go beyond a measurement: an attack that failed is said to have failed, and one that so few images cannot decide, to be undecided.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from hoptm.arms import first_images
from hoptm.config import METHODS, from_dict, generator
from hoptm.data import Selectable
from hoptm.dp_distillation import ROWS
from hoptm.errors import ConfigError
from hoptm.fidelity import nearness, preference, preferred
from hoptm.intervals import Randomised
from hoptm.likeness import Likeness, structural, to_all
from hoptm.retrieval import against_held_out, exchanged, exchanged_in, ranked, retrieval
from hoptm.synthetic import SyntheticSet

NEAREST, MOVED = "nearest training image", "changed since the start"
FOUND, MISSED = "leak found", "this attack found no leak; that does not show that there is none"
FEW, COPIES = "too few images to tell", "leak found: copies of training images"
POWER = 0.8
"""A test is said to see a shift where it finds this share of planted leaks, or more."""
LEVEL = 0.05 / 7
"""Of each of the seven tests that a card makes of a set (copies; and by each likeness, nearest images and initialisers), so that the card of a set that
leaks nothing says 'leak found' with a chance of 5 % at most."""
BY_STRUCTURE, BY_FEATURES = "by structural similarity", "by features of a network"
STATED = "stated by the file before this audit, "
"""What stands before the rows of a guarantee in the card of a set that was audited later."""
MOST = 100
"""Images of a set that are compared by structural similarity and by features, evenly spaced through it: the first takes its time."""


def of_set(made: SyntheticSet, splits: Selectable, features: Likeness | None = None) -> dict[str, Any]:
    """The direct tests of one set, plain JSON: nearness to train beside held-out images, and retrieval of initialisers where they are known.

    `features` compares by a network (`likeness.trained_on_both`); without it the section says that nothing was compared so.
    All verdicts are those of exact or randomisation tests at `LEVEL`. Raises DataError when set and data do not fit.
    """
    found, test = nearness(made, splits.train, splits.val), preference(made, splits.train, splits.val)
    (first, second), (copied, usual) = found.medians, found.copies
    section: dict[str, Any] = {
        "audited": f"the {len(made.labels)} images of this one set, directly; no shadow was trained for it",
        "threat": "an attacker who has the set and a list of candidate pictures",
        "unit": "one image; patients are not known, so nothing is said of them",
        NEAREST: {
            "distance": f"median {first:.4f} for synthetic images, {second:.4f} for {len(found.held_out)} held-out real ones (root mean square, pixels 0 .. 1)",
            "nearer than held-out": f"{found.nearer:.3f}; a smooth image lies nearer to all others, so this alone shows no copying",
            "closer to train than to held-out": f"{found.closer:.3f}; about 0.5 for unseen real images, on either side for smooth or noisy ones: no test",
            "copies": f"{copied} of {test.count} within half a grey level of a training image; {usual} of {len(found.held_out)} held-out images, "
            f"p = {found.copies_p:.3g} (Fisher's exact test)",
            "nearest real image is in train": f"{test.hits} of {test.count}; {test.expected:.1f} expected where train and held-out images are alike to the set",
            "test": f"{_p(test)}, exact: real images parted anew at random, class by class; for splits drawn image by image, whatever the set looks like",
            "verdict": COPIES if found.copies_p <= LEVEL else _verdict(test),
        },
    }
    chosen = initialisers(made, splits)
    if chosen is not None:
        section["initialisers"] = retrieved(made, splits, chosen)
    section[BY_STRUCTURE] = _by(structural, made, splits, chosen)
    section[BY_FEATURES] = _by(features, made, splits, chosen) if features is not None else "not compared"
    return section


def _by(apart: Likeness, made: SyntheticSet, splits: Selectable, chosen: Int64[Tensor, "n"] | None) -> dict[str, str]:
    """Rows of a card: the tests of nearest images and of initialisers by another likeness than pixels."""
    some = torch.arange(0, len(made.labels), -(-len(made.labels) // MOST))
    images, held_out = made.standardisation.invert(made.images[some]), splits.val
    to_train, to_others = (to_all(apart, images, part.images) for part in (splits.train, held_out))
    test = preferred(to_train.min(dim=1), to_others.min(dim=1), splits.train, held_out)
    rows = {
        "images": f"{len(some)} of {len(made.labels)}",
        "nearest real image is in train": f"{test.hits} of {test.count}; {test.expected:.1f} expected where train and held-out images are alike to the set",
        "test": _p(test),
        "verdict": _verdict(test),
    }
    if chosen is None:
        return rows
    truth, drawn = chosen[some], _drawn(made)
    found, none = ranked(to_train, truth), torch.zeros(0, dtype=torch.int64)
    others, their = (to_others, held_out.labels) if drawn else (to_others[:, :0], none)
    again = exchanged_in(to_train[:, truth], others, splits.train.labels[truth], their, generator(0, "initialisers"))
    return rows | {
        "initialisers found at once": f"{found.hits} of {len(found.ranks)}, by guessing 1 of {found.candidates}",
        "test of initialisers": _p(again),
        "verdict of initialisers": _verdict(again),
    }


def _drawn(made: SyntheticSet) -> bool:
    """Whether the initialisers were drawn at random from train, and not chosen."""
    return from_dict(made.info["config"]).match.first_images == "random"


def initialisers(made: SyntheticSet, splits: Selectable) -> Int64[Tensor, "n"] | None:
    """The real training images that this set started from; None where it started from none, or its file does not say from which."""
    info = made.info
    if info["method"] not in METHODS or "match" not in info["config"] or info["source"].get("checksum") != splits.info.checksum:
        return None
    config = from_dict(info["config"])
    if config.latent.initial != "real":
        return None
    chosen = first_images(config, splits)
    return chosen if torch.equal(splits.train.labels[chosen], made.labels) else None


def retrieved(made: SyntheticSet, splits: Selectable, chosen: Int64[Tensor, "n"]) -> dict[str, str]:
    """Rows of a card: where initialisers stand among all training images, and among held-out images of their class; and a test, which decides the verdict."""
    images, real, held_out = made.standardisation.invert(made.images), splits.train.images.float() / 255, splits.val.images.float() / 255
    found = retrieval(images, real, chosen)
    shares = against_held_out(images, real, chosen, splits.train.labels, held_out, splits.val.labels)
    drawn = _drawn(made)
    others, their = (held_out, splits.val.labels) if drawn else (held_out[:0], splits.val.labels[:0])
    test = exchanged(images, real, chosen, splits.train.labels, others, their, generator(0, "initialisers"))
    by = "held-out images of their class" if drawn else "each other class by class, as they were chosen and not drawn"
    low, high = found.interval
    began = made.standardisation.apply(splits.train.images[chosen])
    return {
        MOVED: f"{float((made.images - began).square().mean().sqrt()):.3f} (root mean square, in standard deviations of a pixel)",
        "found at once": f"{found.hits} of {len(found.ranks)} [{low:.3f}, {high:.3f}] (Clopper-Pearson), by guessing 1 of {found.candidates}",
        "typical rank": f"{found.typical:.4f} of the list of all training images; 0.5 is chance",
        "nearer held-out images of their class": f"{sum(shares) / len(shares):.3f} of them, mean over {len(shares)} images; 0.5 is chance for drawn ones",
        "test": f"{_p(test)}: initialisers exchanged at random with {by}",
        "verdict": _verdict(test),
    }


def _p(test: Randomised) -> str:
    return f"p = {test.p:.3g} at a level of {LEVEL:.3g}, the smallest possible with so many images {test.least:.2g}"


def _verdict(test: Randomised) -> str:
    """Whether a test found something. Where the smallest p that it can have lies above the level, it cannot, and that is no failed attack."""
    return FOUND if test.p <= LEVEL else MISSED if test.tells(LEVEL) else FEW


def of_report(report: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """The section for sets that the pipeline `arm` of an audit makes. Raises ConfigError for an arm that it did not finish."""
    if arm not in report["arms"]:
        raise ConfigError(f"no finished arm {arm!r} in this audit; there are {', '.join(report['arms'])}.")
    settings, found = report["settings"], report["arms"][arm]
    section: dict[str, Any] = {
        "audited": f"the pipeline {arm} on {report['dataset']['name']}: {settings['shadows']} shadows on halves of {settings['pool']} images",
        "method": "likelihood-ratio attack, every shadow in turn the target (Carlini et al. 2022), on small settings; other settings were not audited",
        "unit": report["unit"],
        "tests": f"{report['tests']} in this audit; a leak counts as found after Holm's correction over all of them, at 5 %",
    }
    if "guarantee" in found["said"]:
        section["guarantee"] = found["said"]["guarantee"]
    for threat, groups in found["attacks"].items():
        section[f"threat {threat}"] = report["threats"][threat]
        section[threat] = {name: _words(one, report, name) for name, one in groups.items()}
    return section


def _words(one: Mapping[str, Any], report: Mapping[str, Any], group: str) -> str:
    rates = "; ".join(rate["words"] for rate in one["rates"] if rate["tpr"] is not None) or "no true positive rate is resolvable"
    verdict, reach = FOUND if one["detected"] else MISSED, sees(report, group)
    return (
        f"{verdict}: AUC {one['auc']:.3f} [{one['low']:.3f}, {one['high']:.3f}], chance {one['chance_low']:.3f} to {one['chance_high']:.3f}; {rates}; {reach}"
    )


def sees(report: Mapping[str, Any], group: str) -> str:
    """The smallest shift that the test of a group of images finds with a power of `POWER` or more, in words, as the first of all tests of the report.

    Earlier reports hold the power of a test by itself only, and the words say so.
    """
    corrected = "power_corrected" in report
    power, test = report["power_corrected" if corrected else "power"][group], "the test" if corrected else "a test by itself, not corrected for the others,"
    found = [float(shift) for shift, share in power.items() if share >= POWER]
    least, most = min(found, default=None), max(float(shift) for shift in power)
    return f"{test} is weak here: it sees no shift of {most:g} or less" if least is None else f"{test} sees shifts from {least:g} standard deviations on"


def promised(made: SyntheticSet) -> dict[str, Any]:
    """Rows of a guarantee that the file of a set states already, under names that say so: no test of images can make one, or check one."""
    said = made.info.get("privacy")
    rows = {name.removeprefix(STATED): row for name, row in said.items()} if isinstance(said, dict) else {}
    return {STATED + name: rows[name] for name in ROWS if name in rows} if "guarantee" in rows else {}
