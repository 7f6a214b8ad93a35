"""A whole audit: a pool of images, coins, every pipeline once a shadow, and what an attacker made of it.

Each shadow's scores are a file as soon as they are there, so an audit that is stopped goes on where it was. The groups of images that
`audit_plan` names are judged apart.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hoptm.audit_plan import GROUPS, JUDGED, Plan, plan, shadow_of
from hoptm.config import generator, hash_of
from hoptm.data import Selectable, Splits
from hoptm.dp_training import matched
from hoptm.errors import ConfigError, FileError
from hoptm.files import read_info, read_tensors, write_tensors, write_text
from hoptm.intervals import Interval, interval, paired_interval
from hoptm.membership import Roc, Verdict, attack, holm, levelled, likelihood_ratios, power, roc
from hoptm.pipelines import THREATS, AuditSettings, Outcome, Pipeline, Shadow, observe, pipeline
from hoptm.records import commit, device_words, versions
from hoptm.retrieval import against_held_out, nearest, retrieval
from hoptm.scores import predict, score

ARMS = ("random", "full", "pixel-real", "pixel-noise", "latent", "dp-1", "dp-4", "dp-10", "dp-sgd", "pixel-mean", "pixel-vae")
"""All arms of an audit, in the order in which they are run; the four sets and the reference points before the other initialisations."""
TUNING = (100, 101, 102, 103)
"""Indices of the shadows on which epsilon of DP-SGD is chosen; they are no shadows of the audit."""
DP_SGD = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 30.0)
"""Epsilons that are tried for DP-SGD, up to the first that is good enough. The closer they stand, the closer is the match; each costs `TUNING` runs."""
SHIFTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Planted shifts, in standard deviations of an image's score, at which the power of the test is stated."""
_CURVE_POINTS = 80
_OVER_SHADOWS = "over shadows, which share one pool of images, by Student's t"
"""Kind of the intervals of test scores. Shadows share about half of their images, two by two, so other pools would spread more than this says."""


def run(
    splits: Splits,
    settings: AuditSettings,
    folder: Path,
    arms: Sequence[str] = ARMS,
    *,
    pipelines: Mapping[str, Pipeline] | None = None,
    progress: bool = True,
    done: Callable[[str, int], None] = lambda arm, index: None,
) -> dict[str, Any]:
    """Run all shadows that `folder` does not hold yet, shadow by shadow, and give the report of `report`.

    `dp-sgd` is DP-SGD at the smallest epsilon at which its validation score reaches that of `pixel-real`, on shadows of their own. `pipelines`
    stands in for `pipelines.pipeline` by name. A pipeline gets a shadow without a test split; what it lets out is scored on test here. `done` is
    called after each. Raises FileError for a folder of another audit, else as the pipelines do.
    """
    seen = splits.without_test
    made = plan(seen, settings)
    _mark(folder, seen, made)
    known = {name: _named(name, seen, made, folder, pipelines) for name in arms}
    work = [(index, name) for index in range(settings.shadows) for name in arms if not _file(folder, name, index).exists()]
    for index, name in tqdm(work, desc="audit", unit="shadow", disable=not progress):
        _one(splits, made, index, known[name], _file(folder, name, index))
        done(name, index)
    return report(seen, settings, folder, arms)


def _named(name: str, splits: Selectable, made: Plan, folder: Path, pipelines: Mapping[str, Pipeline] | None) -> Pipeline:
    if pipelines is not None:
        return pipelines[name]
    return pipeline(f"dp-sgd-{match_dp_sgd(splits, made, folder)['epsilon']:g}" if name == "dp-sgd" else name)


def match_dp_sgd(splits: Selectable, made: Plan, folder: Path) -> dict[str, Any]:
    """Epsilon for DP-SGD, chosen on validation; kept in `matched.json` of the folder."""
    path = folder / "matched.json"
    if not path.exists():
        wanted = _on_validation("pixel-real", splits, made)
        tried = []
        for epsilon in DP_SGD:
            tried.append((epsilon, _on_validation(f"dp-sgd-{epsilon:g}", splits, made)))
            if tried[-1][1] >= wanted:
                break
        found = {
            "epsilon": matched(tried, wanted),
            "reached": tried[-1][1] >= wanted,
            "wanted": wanted,
            "tried": tried,
            "score": f"AUC, validation, mean over {len(TUNING)} shadows",
        }
        write_text(path, json.dumps(found) + "\n")
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return plain


def _on_validation(name: str, splits: Selectable, made: Plan) -> float:
    each = [pipeline(name)(shadow_of(splits, made, index)) for index in TUNING]
    found = [score(predict(one.net, theta, one.standardisation, splits.val.images), splits.val.labels).auc for one in each for theta in one.thetas]
    return sum(found) / len(found)


def _mark(folder: Path, splits: Selectable, made: Plan) -> None:
    """Say in the folder whose it is: data, settings, and who is in which group. Raises FileError when it is another audit's."""
    who = [made.pool.tolist(), made.labels.tolist(), made.group.tolist(), made.order.tolist(), list(splits.train.images.shape)]
    said = {"dataset": splits.info.checksum, "settings": dataclasses.asdict(made.settings), "plan": hash_of({"who": who})}
    path, wanted = folder / "audit.json", json.loads(json.dumps(said))
    if not path.exists():
        write_text(path, json.dumps(wanted) + "\n")
    elif hash_of(json.loads(path.read_text(encoding="utf-8"))) != hash_of(wanted):
        raise FileError(f"{folder}: holds shadows of an audit with other data or settings. Name another folder, or delete this one.")


def _file(folder: Path, arm: str, index: int) -> Path:
    return folder / arm / f"shadow-{index:02d}.safetensors"


def _one(splits: Splits, made: Plan, index: int, run_it: Pipeline, path: Path) -> None:
    """Run one pipeline on one shadow, which has no test split, keep what an attacker sees, and score the models on test."""
    began, shadow, pool = time.process_time(), shadow_of(splits, made, index), splits.train.images[made.pool]
    outcome = run_it(shadow)
    found = observe(outcome, pool, made.labels)
    test = [score(predict(outcome.net, theta, outcome.standardisation, splits.test.images), splits.test.labels) for theta in outcome.thetas]
    info = {
        "seconds": time.process_time() - began, "said": dict(outcome.said),
        "auc": sum(one.auc for one in test) / len(test), "balanced_accuracy": sum(one.balanced_accuracy for one in test) / len(test),
        **_direct(outcome, shadow, pool, splits.train.labels[made.pool], made.members(index)),
    }  # fmt: skip
    write_tensors(path, {name: values.float() for name, values in found.items()}, info)


def _direct(outcome: Outcome, shadow: Shadow, pool: Tensor, labels: Tensor, held: Tensor) -> dict[str, Any]:
    """What the images themselves tell: whose nearest image of the pool is a member, the ranks of the initialisers among the members, and
    how many non-members of the same kind lie nearer. `labels` are the true ones, canaries' too."""
    if outcome.images is None:
        return {}
    real = pool.float() / 255
    _, found = nearest(outcome.images, real, 1)
    inside = torch.nonzero(held).flatten()
    ranks = retrieval(outcome.images, real[held], shadow.chosen)
    shares = against_held_out(outcome.images, real[held], shadow.chosen, labels[held], real[~held], labels[~held])
    return {"nearest_is_member": held[found[:, 0]].tolist(), "ranks": list(ranks.ranks), "candidates": ranks.candidates, "shares": list(shares),
            "places": inside[shadow.chosen].tolist()}  # fmt: skip


def _found(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Retrieval of initialisers over all shadows: found at once, and the mean share of non-members of their kind that lie nearer (1/2 by chance).

    One image initialises in many shadows, and how central it is belongs to it, so intervals are over images, each with its mean over its shadows.
    """
    hits: dict[int, list[float]] = {}
    shares: dict[int, list[float]] = {}
    for info in infos:
        for place, rank, share in zip(info["places"], info["ranks"], info["shares"], strict=True):
            hits.setdefault(place, []).append(float(rank == 0))
            shares.setdefault(place, []).append(share)
    means = (interval([sum(one) / len(one) for one in found.values()]) for found in (hits, shares))
    at_once, nearer = ({**dataclasses.asdict(mean), "kind": "over images by Student's t"} for mean in means)
    return {"hits": int(sum(map(sum, hits.values()))), "images": sum(map(len, hits.values())), "candidates": len(hits), "at_once": at_once, "share": nearer}


def scores_of(folder: Path, arm: str, shadows: int) -> dict[str, Tensor]:
    """All stored scores of an arm, (shadows, images) for each threat model. Raises FileError for missing or damaged files."""
    each = [read_tensors(_file(folder, arm, index))[0] for index in range(shadows)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def report(splits: Selectable, settings: AuditSettings, folder: Path, arms: Sequence[str]) -> dict[str, Any]:
    """What the audit found of `arms`, and of others that `folder` knows, plain JSON: settings, threat models, size and power of a test, verdicts and curves.

    `detected` holds after Holm's correction over all tests of the report, so that one false alarm anywhere has a chance of about 5 % at most. `power` is
    that of one test alone, `power_corrected` of the first of them all.
    """
    made = plan(splits, settings)
    counts = {name: int((made.group == index).sum()) for index, name in enumerate(GROUPS)}
    arms = [*arms, *(arm for arm in ARMS if arm not in arms and (folder / arm).is_dir())]
    whole = [arm for arm in arms if all(_file(folder, arm, index).exists() for index in range(settings.shadows))]
    judged = {arm: _judged(made, folder, arm) for arm in whole}
    verdicts = [one for arm in judged.values() for groups in arm["attacks"].values() for one in groups.values()]
    for one, stands in zip(verdicts, holm([one["z"] for one in verdicts]), strict=True):
        one["detected"] = stands
    said = {
        "dataset": {"name": splits.info.name, "checksum": splits.info.checksum, "licence": splits.info.licence},
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))), "threats": THREATS, "groups": counts,
        "unit": "one image; patients are not known, so nothing is said of them",
        "power": _powers(settings, counts, 1), "power_corrected": _powers(settings, counts, len(verdicts)),
        "arms": judged, "tests": len(verdicts),
        "unfinished": [arm for arm in arms if arm not in whole],
        "commit": commit(), "versions": versions(), "device": device_words(),
    }  # fmt: skip
    path = folder / "matched.json"
    return said | ({"dp_sgd": json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {})


def _powers(settings: AuditSettings, counts: Mapping[str, int], tests: int) -> dict[str, dict[str, float]]:
    chance, sizes = generator(settings.seed, "power"), {name: counts[name] for name in JUDGED if counts[name]}
    return {name: {f"{shift:g}": power(settings.shadows, count, shift, chance, tests=max(1, tests)) for shift in SHIFTS} for name, count in sizes.items()}


def _judged(made: Plan, folder: Path, arm: str) -> dict[str, Any]:
    shadows, member = made.settings.shadows, made.member
    infos = [read_info(_file(folder, arm, index)) for index in range(shadows)]
    attacks: dict[str, Any] = {}
    for threat, raw in scores_of(folder, arm, shadows).items():
        scores = levelled(raw)
        attacks[threat] = {}
        for name in JUDGED:
            where = made.group == GROUPS.index(name)
            if bool(where.any()):
                chance = generator(made.settings.seed, "attack", arm, threat, name)
                found = attack(scores[:, where], member[:, where], chance)
                curve = thinned(roc(likelihood_ratios(scores[:, where], member[:, where]), member[:, where]))
                attacks[threat][name] = {**_plain(found), "curve": [curve.fpr.tolist(), curve.tpr.tolist()]}
    scores_on_test = {name: _on_test([info[name] for info in infos]) for name in ("auc", "balanced_accuracy")}
    direct: dict[str, Any] = {name: [info[name] for info in infos] for name in ("nearest_is_member", "ranks", "candidates") if name in infos[0]}
    direct |= {"found": _found(infos)} if "shares" in infos[0] else {}
    return {"attacks": attacks, "test": scores_on_test, "direct": direct, "seconds": sum(info["seconds"] for info in infos), "said": infos[0]["said"]}


def _on_test(each: Sequence[float]) -> dict[str, Any]:
    """A test score over shadows, with that of each shadow, so that arms can be paired: shadow i holds the same images in every arm."""
    return {**dataclasses.asdict(interval(each)), "kind": _OVER_SHADOWS, "each": list(each)}


def paired(report: Mapping[str, Any], first: str, second: str, score: str = "auc") -> Interval:
    """The mean of the test score of arm `first` less that of `second`, paired shadow by shadow.

    Earlier reports hold no score of each shadow. From these comes the widest interval that pairing could give: a difference spreads at most as
    much as both scores together. Its kind says so. Raises ConfigError for an arm that the report lacks, or arms of other numbers of shadows.
    """
    missing = [name for name in (first, second) if name not in report["arms"]]
    if missing:
        raise ConfigError(f"no finished arm {missing[0]!r} in this audit; there are {', '.join(report['arms'])}.")
    one, other = (report["arms"][name]["test"][score] for name in (first, second))
    if "each" in one and "each" in other:
        return dataclasses.replace(paired_interval(one["each"], other["each"]), kind=f"paired {_OVER_SHADOWS}")
    if one["n"] != other["n"]:
        raise ConfigError(f"{first} has {one['n']} shadows and {second} has {other['n']}, so they cannot be paired. Audit both alike.")
    mean, half = one["mean"] - other["mean"], (one["high"] - one["low"] + other["high"] - other["low"]) / 2
    return Interval(mean, mean - half, mean + half, one["n"], one["df"], f"the widest that pairing could give, {_OVER_SHADOWS}")


def _plain(found: Verdict) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "rates": [{**dataclasses.asdict(rate), "words": str(rate)} for rate in found.rates]}


def thinned(curve: Roc, points: int = _CURVE_POINTS) -> Roc:
    """About as many points as a figure on logarithmic axes shows: for each step of the false positive rate the highest true positive rate."""
    lowest = 1 / max(1, round(1 / max(1e-9, float(curve.fpr[curve.fpr > 0].min()))))
    steps = torch.logspace(math.log10(lowest), 0, points, dtype=torch.float64).clamp_max(1.0)
    return Roc(steps, torch.stack([curve.tpr[curve.fpr <= step + 1e-12].max() for step in steps]))


def estimate(splits: Selectable, settings: AuditSettings, arms: Sequence[str], folder: Path) -> str:
    """What is left to do and how long it takes on one core, by one quick pipeline timed here. One line."""
    left = {arm: sum(not _file(folder, arm, index).exists() for index in range(settings.shadows)) for arm in arms}
    if not any(left.values()):
        return "estimate: every shadow is there; only the verdicts are made anew, about a minute"
    shadow = shadow_of(splits, plan(splits, settings), TUNING[0])
    began = time.process_time()
    pipeline("full")(shadow)
    unit = time.process_time() - began
    seconds = sum(number * unit * _COST.get(arm, _COST["pixel-real"]) for arm, number in left.items())
    return f"estimate: about {max(1, round(seconds / 60))} min on one core for {sum(left.values())} runs of pipelines ({settings.shadows} shadows each)"


_COST = {"random": 0.7, "full": 1.0, "latent": 3.5, "dp-sgd": 2.0, **dict.fromkeys(("dp-1", "dp-4", "dp-10"), 0.8), "pixel-real": 1.8}
"""Seconds of a pipeline for one of `full`, as measured with the default settings; they only serve the estimate."""


def write(report: Mapping[str, Any], folder: Path, out: Path) -> Path:
    """Write the report as `out`/NAME/audit.json and beside it the scores of each finished arm; returns the folder.

    Raises FileError, before anything is written, where a report with arms that this one lacks would be lost.
    """
    target = out / f"{report['dataset']['name'].replace(':', '-')}-seed{report['settings']['seed']}"
    lost = sorted(set(read(target)["arms"]) - set(report["arms"])) if (target / "audit.json").exists() else []
    if lost:
        raise FileError(f"{target}: holds a report with {', '.join(lost)}, which this audit has not finished. Audit these arms too, or name another --out.")
    for arm in report["arms"]:
        info = {"arm": arm, "dataset": report["dataset"], "settings": report["settings"]}
        write_tensors(target / f"{arm}.safetensors", scores_of(folder, arm, report["settings"]["shadows"]), info)
    write_text(target / "audit.json", json.dumps(report) + "\n")
    return target


def read(folder: Path) -> dict[str, Any]:
    """A stored report. Raises FileError for one that is missing or damaged.

    Reports of earlier versions call the intervals of their test scores 'over seeds'; they are over shadows, and are named so here.
    """
    path = folder / "audit.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"arms", "settings", "threats"} <= set(found):
            raise ValueError("parts are missing")
        for one in (score for arm in found["arms"].values() for score in arm.get("test", {}).values()):
            one["kind"] = _OVER_SHADOWS
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FileError(f"{path}: no report of an audit ({error}). Make one with: hoptm audit") from error
    return found


def clear(folder: Path) -> None:
    """Delete the shadows of an audit, which its report has outlived. Raises ConfigError for a folder that holds no audit."""
    if not (folder / "audit.json").exists():
        raise ConfigError(f"{folder}: no shadows of an audit are kept there, so nothing is deleted.")
    shutil.rmtree(folder)
