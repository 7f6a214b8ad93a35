"""What fills a configuration: profiles by name, methods by name, and the settings that a search found.

A profile is a function of data set and budget; a method is what it sets over its profile. Nothing here is checked: `config` does that.
"""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DESCRIBED: Mapping[str, str] = {
    "endpoint": "the end point alone: where the student ends against where the expert ends",
    "published": "HoP-TM: the end point, the shape potential of the path, and the mask of easy parameters first, which stay in use",
    "published-bare": "the published method without its parts: the end point alone, with what the published method's search chose",
    "shape": "the end point and the shape potential of the path, without the mask",
    "progressive": "the end point under the published mask: parameters with small errors first, and what is in use stays in use",
    "fresh": "the end point under a mask by the same threshold that is drawn anew in each iteration",
    "quantile": "the end point under a mask that uses a share of the parameters, from 30 % to all",
    "layers": "the end point under a mask that uses a share of the layers, from 30 % to all",
    "growing": "the end point; the window of start epochs grows over the run, early starts first",
    "positions": "the end point and the positions of the three waypoints between, five in all",
    "velocity": "the end point and the velocity of the path over five waypoints",
    "curvature": "the end point and the curvature of the path over five waypoints",
    "torsion": "the end point and the torsion of the path over five waypoints",
    "adaptive": "the end point, with the student's end at its step nearest to the expert's end",
    "each-step": "the end point, with a learned step size for each inner step in place of one for all",
    "student-momentum": "the end point, with a student that steps with momentum 0.5",
    "with-outcome": "the end point and, at a third of its weight, the loss of the student's end on real training images",
    "rising": "velocity, whose weight rises from 0 over the first half of the run: velocity is its control",
    "prior": "the end point, with an inner loss that weighs each class by its share of train over its share of the set",
    "balanced": "the end point, with balanced softmax as the inner loss",
    "budgets": "the end point, with more images of classes that are rare in train, as many in all",
    "aware": "balanced softmax and more images of rare classes together",
    "long": "the end point of experts with momentum 0.9 whose step size falls to 0, over segments of four epochs and twice as many of the student's steps",
    "momentum-experts": "the end point of experts with momentum 0.9 whose step size falls to 0",
    "averaged-experts": "the end point of experts whose weights are averaged over their last steps",
    "ftd": "the end point of experts that were trained towards flat minima (FTD)",
    "tesla": "the end point by the truncated gradient, which drops the paths through later weights (TESLA): a control",
    "datm": "the end point with a growing window and learned soft labels (DATM)",
    "teacher": "the end point with soft labels: what the experts say of the first images, kept as it is",
    "learned": "the end point with the same soft labels to begin with, then learned",
    "outcome": "no path: the loss of a student that starts on its own, on real training images",
    "extended": "an adaptive end, velocity over five waypoints and the outcome term, by Adam; in the profiles tuned and large the parts that a search chose",
    "latent": "the end point, learning codes that the frozen decoder of a VAE draws, from encoded real images",
    "latent-prior": "latent, and the codes are held near the prior of the VAE",
    "latent-shape": "latent, and the angles between codes of a class are held near those of encoded training images",
    "latent-path": "latent, and the shape potential of the path",
    "latent-kmeans": "latent, with codes that start at the k-means centres of each class",
    "latent-draws": "latent, with codes that start as draws from the prior",
    "half": "the end point, learning images of half the resolution that are enlarged",
}
"""Every method in a line, as `of_method` sets it over its profile; further settings are in `settings`."""
METHODS = tuple(DESCRIBED)


def of_method(method: str, config: Any) -> dict[str, Any]:
    """What a method sets over its profile (a `config.Config`); each of the single-part methods is the end point with that part."""
    threshold, weight = {"threshold": config.match.threshold or 5e-9}, {"shape_weight": config.match.shape_weight or 0.5}
    plain: dict[str, Any] = {"shape_weight": 0.0, "threshold": None}
    several = {"experts": {"per_epoch": config.experts.per_epoch * 4 // math.gcd(4, config.match.expert_epochs * config.experts.per_epoch)}}
    halves = {"experts": {"per_epoch": config.experts.per_epoch * 2 // math.gcd(2, config.match.expert_epochs * config.experts.per_epoch)}}
    stable = {"optimiser": "adam", "lr_images": 0.05, "lr_lr": None}
    parts: dict[str, dict[str, Any]] = {
        "endpoint": {"match": plain},
        "published": {"match": {**weight, **threshold}},
        "published-bare": {"match": plain},
        "shape": {"match": {**plain, **weight}, **halves},
        "progressive": {"match": {**plain, **threshold}},
        "fresh": {"match": {**plain, **threshold, "mask": "fresh"}},
        "quantile": {"match": {**plain, "mask": "quantile", "quantile": SHARES}},
        "layers": {"match": {**plain, "mask": "layers", "quantile": SHARES}},
        "growing": {"match": {**plain, "window": "growing"}},
        "positions": {"match": {**plain, "waypoints": 5, "between_weight": 1.0}, **several},
        "velocity": {"match": {**plain, "waypoints": 5, "orders": (ORDER_WEIGHT,)}, **several},
        "curvature": {"match": {**plain, "waypoints": 5, "orders": (0.0, ORDER_WEIGHT)}, **several},
        "torsion": {"match": {**plain, "waypoints": 5, "orders": (0.0, 0.0, ORDER_WEIGHT)}, **several},
        "adaptive": {"match": {**plain, "end": "adaptive"}},
        "each-step": {"match": {**plain, "step_sizes_of": "each"}},
        "student-momentum": {"match": {**plain, "student_momentum": 0.5}},
        "with-outcome": {"match": {**plain, "outcome_weight": 0.3}},
        "rising": {"match": {**plain, "waypoints": 5, "orders": (ORDER_WEIGHT,), "orders_rise": 0.5}, **several},
        "prior": {"match": {**plain, "inner_loss": "prior"}},
        "balanced": {"match": {**plain, "inner_loss": "balanced_softmax"}},
        "budgets": {"match": {**plain, "class_power": CLASS_POWER}},
        "aware": {"match": {**plain, "inner_loss": "balanced_softmax", "class_power": CLASS_POWER}},
        "long": {"match": {**plain, **_lengthened(config.match.steps, config.match.start_epochs, config.experts.epochs)}, "experts": STEADY},
        "momentum-experts": {"match": plain, "experts": STEADY},
        "averaged-experts": {"match": plain, "experts": {"averaging": AVERAGING}},
        "ftd": {"match": plain, "experts": {"optimiser": "flat"}},
        "tesla": {"match": {**plain, "gradient": "truncated"}},
        "datm": {"match": {**plain, "window": "growing", "labels": "learned"}},
        "teacher": {"match": {**plain, "labels": "teacher"}},
        "learned": {"match": {**plain, "labels": "learned"}},
        "outcome": {"match": {**plain, "position_weight": 0.0, "outcome_weight": 1.0, "own_start": OWN_START}},
        "extended": {"match": {**plain, **stable, "end": "adaptive", "waypoints": 5, "orders": (0.1,), "outcome_weight": 0.3}, **several},
        "latent": {"match": plain, "latent": {"rendering": "decoded"}},
        "latent-prior": {"match": plain, "latent": {"rendering": "decoded", "prior_weight": CODE_WEIGHT}},
        "latent-shape": {"match": plain, "latent": {"rendering": "decoded", "shape_weight": CODE_WEIGHT}},
        "latent-path": {"match": {**plain, **weight}, "latent": {"rendering": "decoded"}, **halves},
        "latent-kmeans": {"match": plain, "latent": {"rendering": "decoded", "initial": "kmeans"}},
        "latent-draws": {"match": plain, "latent": {"rendering": "decoded", "initial": "prior"}},
        "half": {"match": plain, "latent": {"rendering": "upsampled"}},
    }
    return parts[method]


ORDER_WEIGHT, OWN_START, CODE_WEIGHT, CLASS_POWER = 0.5, 40, 0.1, -0.25
STEADY: Mapping[str, Any] = {"momentum": 0.9, "decay": "cosine"}
"""Experts that go on until their step size has fallen to 0."""
LONG = 4
"""Epochs of a long segment, where the experts have as many."""
SHARES, AVERAGING = (0.3, 1.0), 0.9
"""Shares in use at the first and the last iteration; decay of the experts' average, so that it looks about ten steps back."""


def _smoke(dataset: str, ipc: int) -> dict[str, Any]:
    return {
        "network": {"depth": 2, "width": 8},
        "experts": {"optimiser": "sgd", "count": 2, "epochs": 2, "batch": 256},
        "match": {"steps": 4, "expert_epochs": 1, "start_epochs": (0, 2), "batch": 20, "iterations": 4, "lr": None, "lr_lr": None, "validate_every": 2},
        "evaluation": {"steps": 10, "networks": 2, "sgd_lrs": (0.01,), "adamw_lrs": (0.002,)},
    }


def _fast(dataset: str, ipc: int) -> dict[str, Any]:
    """A small network and few iterations; the mask's threshold goes through the same twenty rises as the published one."""
    return {
        "network": {"depth": 3, "width": 32},
        "experts": {"optimiser": "sgd", "count": 6, "epochs": 6, "batch": 256},
        "match": {"steps": 20, "batch": 20, "iterations": 40, "lr": None, "lr_images": 30.0, "lr_lr": None, "threshold_every": 2, "validate_every": 10},
        "evaluation": {"steps": 300},
    }


def _tuned(dataset: str, ipc: int) -> dict[str, Any]:
    """The network of `fast`, Adam, and twice as many checkpoints; the rest was searched on validation (`hoptm.search`)."""
    parts = _fast(dataset, ipc)
    parts["experts"] |= {"epochs": 10, "per_epoch": 2}
    parts["match"] |= {"optimiser": "adam", "lr_images": 0.05, "iterations": 120, "threshold_every": 6, "validate_every": 30}
    return parts


def _large(dataset: str, ipc: int) -> dict[str, Any]:
    """For about a tenth of train: experts with momentum whose step size falls to 0, a student that sees more images a step, smaller steps of the images.

    The rest was searched on validation at that budget, `large.json`.
    """
    parts = _tuned(dataset, ipc)
    parts["experts"] |= {"epochs": 20, "momentum": 0.9, "decay": "cosine"}
    parts["match"] |= {"batch": 64, "steps": 40, "lr_images": 0.005, "iterations": 160, "threshold_every": 8, "validate_every": 40}
    return parts


_KIN = {**dict.fromkeys(("latent-prior", "latent-shape", "latent-path", "latent-kmeans", "latent-draws"), "latent"), "published-bare": "published"}
"""Methods that take the searched settings of another: the same, and one part more; or, `published-bare`, without the published parts."""
_PUBLISHED_PARTS = ("shape_weight", "threshold", "threshold_growth", "threshold_every")


def _lengthened(steps: int, starts: tuple[int, int], epochs: int) -> dict[str, Any]:
    """A longer segment, by twice the student's steps; starts from which it would leave the experts' epochs fall away."""
    length = min(LONG, epochs)
    last = min(starts[1], epochs - length + 1)
    return {"expert_epochs": length, "steps": 2 * steps, "start_epochs": (min(starts[0], last - 1), last)}


_WINDOWED = ("growing", "datm")
"""Methods whose window of starts grows, so it must hold more than one."""
_WINDOW = (0, 8)


def _opened(own: dict[str, Any]) -> dict[str, Any]:
    """Settings with room for a window to grow. Where the search of the end point chose a single start, later starts are added and the outer optimiser is
    the profile's, because plain steps that go with one start may diverge on later ones."""
    match = own.get("match", {})
    first, last = match.get("start_epochs", _WINDOW)
    if last - first > 1:
        return own
    kept = {name: value for name, value in match.items() if name not in ("optimiser", "lr_images")}
    return own | {"match": kept | {"start_epochs": _WINDOW}}


SEARCHED = ("tuned", "large")
"""Profiles with settings of a search, each in a file of its name."""


@functools.cache
def _table(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).resolve().parent / f"{profile}.json").read_text(encoding="utf-8"))
    return found


def searched(dataset: str, method: str, profile: str = "tuned") -> dict[str, Any]:
    """What the search of a profile chose: for a data set that was not searched, what it chose for the first one.

    `common` holds for every method: the experts, whose settings were chosen by hand before a search. Methods that were not searched take the settings of
    the end point, and add their part; those whose window grows get one that can.
    """
    table = _table(profile)
    chosen = table.get(dataset) or table[next(iter(table))]
    own = chosen.get(_KIN.get(method, method), chosen.get("endpoint", {}))
    if method in _WINDOWED:
        own = _opened(own)
    if method == "published-bare":
        own = {name: {key: value for key, value in part.items() if key not in _PUBLISHED_PARTS} for name, part in own.items()}
    if method == "long" and "match" in own:  # twice the searched steps, from the searched starts
        epochs = chosen["common"].get("experts", {}).get("epochs", FILL[profile](dataset, 1)["experts"]["epochs"])
        own = own | {"match": own["match"] | _lengthened(own["match"]["steps"], tuple(own["match"]["start_epochs"]), epochs)}
    parts = {*chosen["common"], *own}
    return tupled({name: {**chosen["common"].get(name, {}), **own.get(name, {})} for name in parts})


def unsearched(dataset: str, method: str, profile: str = "tuned") -> str:
    """What `searched` takes instead where nothing was searched for this data set or method, in words; empty where something was.

    The single-part methods are meant to take the end point's settings, so only the end point's absence is said of them. Codes are not: a step of a code
    is no step of a pixel.
    """
    table = _table(profile)
    if dataset not in table:
        return f"no settings were searched for {dataset}; the profile {profile} takes those of {next(iter(table))}. Search with data/make_search.py."
    own = _KIN.get(method, method)
    wanted = own if own in ("published", "extended", "latent") else "endpoint"
    if wanted in table[dataset]:
        return ""
    instead = "those of endpoint" if "endpoint" in table[dataset] else "the ones before a search"
    return f"no settings of {wanted} were searched for {dataset}; the profile {profile} takes {instead}. Search with data/make_search.py."


def tupled(parts: dict[str, Any]) -> dict[str, Any]:
    """`tuples` for each part."""
    return {name: tuples(part) for name, part in parts.items()}


def _colab(dataset: str, ipc: int) -> dict[str, Any]:
    return {
        "experts": {"optimiser": "flat", "count": 10, "epochs": 6},
        "match": {"steps": 40, "batch": 100, "iterations": 500, "lr": None, "lr_lr": None, "threshold_every": 25, "validate_every": 100},
        "evaluation": {"steps": 1_000},
    }


def _paper(dataset: str, ipc: int) -> dict[str, Any]:
    """The released settings: the row of the data set's kind with the smallest budget that is not below `ipc`.

    Judging differs: 1,000 optimiser steps for every set, where the release takes 1,000 epochs. For up to 128 images, one batch, that is the same.
    """
    rows = _PUBLISHED_112 if "covid" in dataset.lower() or "cxr" in dataset.lower() else _PUBLISHED_28
    budget = min((known for known in rows if known >= ipc), default=max(rows))
    network, match = rows[budget]
    return {"network": network, "match": match, "evaluation": {"steps": 1_000}}


_D3, _D5 = {"depth": 3, "width": 128}, {"depth": 5, "width": 128}
_PATH = {"steps": 80, "lr": 0.01, "lr_images": 10.0, "threshold_growth": 1.5, "shape_weight": 0.5}
_CXR = {"steps": 80, "lr": 0.001, "lr_images": 100.0, "threshold": 1e-10, "threshold_growth": 1.3, "shape_weight": 1.0}
_PUBLISHED_28: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    10: (_D3, {**_PATH, "batch": 10, "lr_lr": 1e-7, "threshold": 5e-9, "start_epochs": (0, 4)}),
    100: (_D3, {**_PATH, "batch": 100, "lr_lr": 1e-5, "threshold": 5e-8, "start_epochs": (0, 40)}),
    1000: (_D3, {**_PATH, "batch": 100, "lr_lr": 1e-5, "threshold": 5e-8, "start_epochs": (40, 60), "steps": 100}),
}
_PUBLISHED_112: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    5: (_D5, {**_CXR, "batch": 10, "lr_lr": 1e-7, "start_epochs": (0, 4)}),
    10: (_D5, {**_CXR, "batch": 10, "lr_lr": 1e-7, "start_epochs": (0, 20)}),
    50: (_D5, {**_CXR, "batch": 20, "lr_lr": 1e-5, "start_epochs": (0, 20), "expert_epochs": 3, "threshold_growth": 1.6}),
}
FILL = {"smoke": _smoke, "fast": _fast, "tuned": _tuned, "large": _large, "colab": _colab, "paper": _paper}
"""Every profile, as a function of data set and images a class."""
PROFILES = tuple(FILL)
PROFILES_DESCRIBED: Mapping[str, str] = {
    "smoke": "seconds, to show that it runs, and no more",
    "fast": "minutes on two cores, with a small network and few iterations",
    "tuned": "the network of fast, Adam and more iterations; settings searched on validation at ten images a class",
    "large": "for about a tenth of train; settings searched on validation at that budget",
    "colab": "one GPU, with the published network, ten experts and 500 iterations",
    "paper": "the published setting, days on a processor",
}
"""Every profile in a line: what it is for and what it costs."""


def tuples(part: dict[str, Any]) -> dict[str, Any]:
    """Lists of JSON as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}
