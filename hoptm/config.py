"""What a run is: frozen settings, the profiles that fill them, and seeds by name.

A `Config` holds every number that shapes a result; it is printed whole into each record. A profile fills it:
`smoke` (seconds, for tests), `fast` (two CPU cores), `tuned` (the same with searched settings), `colab` (one GPU) and `paper`
(the published table).
No global seed exists: `generator(seed, "experts", 3)` gives the third expert its own stream.
"""

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hoptm.errors import ConfigError

PROFILES = ("smoke", "fast", "tuned", "colab", "paper")
METHODS = (
    "endpoint",
    "published",
    "shape",
    "progressive",
    "positions",
    "velocity",
    "curvature",
    "torsion",
    "adaptive",
    "ftd",
    "tesla",
    "outcome",
    "extended",
    "latent",
)
OPTIMISERS = ("sgd", "adam")
MASKS = ("sticky", "fresh", "quantile", "layers")
RENDERINGS = ("pixels", "upsampled", "decoded")
INNER_LOSSES = ("cross_entropy", "prior", "balanced_softmax")
_SCORES = ("auc", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class NetworkConfig:
    """The network that is trained: `family` is a name in `networks.FAMILIES`."""

    family: str = "convnet"
    depth: int = 3
    width: int = 128
    norm: str = "instance"


@dataclass(frozen=True)
class ExpertConfig:
    """How experts are trained on real data. `optimiser` is a name in `experts.OPTIMISERS`."""

    optimiser: str = "flat"
    count: int = 100
    epochs: int = 100
    batch: int = 256
    lr: float = 0.01
    rho: float = 0.01
    """Radius of the flat-minimum probe; `sgd` does not read it."""
    sharpness: float = 0.3
    """Weight alpha of the surrogate-gap term; `sgd` does not read it."""
    augmentation: str = "dsa"
    momentum: float = 0.0
    """Heavy-ball momentum, with either optimiser."""
    weight_decay: float = 0.0
    decay: str = "none"
    """"cosine" lets the step size fall to 0 over `epochs`."""
    averaging: float = 0.0
    """Decay of an exponential moving average over steps; what is kept is the average. 0 keeps the weights themselves."""
    per_epoch: int = 1
    """Checkpoints kept in each epoch, evenly spaced. K waypoints of a segment of M epochs need M per_epoch to be a multiple of K - 1."""


@dataclass(frozen=True)
class MatchConfig:
    """One outer iteration and how many of them. Steps count optimiser steps, epochs count expert epochs."""

    steps: int = 80
    """N, inner steps of the student."""
    expert_epochs: int = 2
    """M, length of the expert's segment."""
    start_epochs: tuple[int, int] = (0, 4)
    """Start epochs are drawn from first <= t < last."""
    batch: int = 10
    """Synthetic images an inner step, at most."""
    iterations: int = 10_000
    lr: float | None = 0.01
    """alpha, initial step size of the student; learned. None: half of what carries a plain-SGD expert's segment in N steps."""
    lr_images: float = 10.0
    lr_lr: float | None = 1e-7
    """Step size with which `lr` is learned. None: a tenth of lr^2, which is free of scale."""
    momentum: float = 0.5
    augmentation: str = "dsa"
    shape_weight: float = 0.0
    """lambda of the shape potential; 0 is plain end-point matching."""
    threshold: float | None = None
    """tau_0 of the easy-to-complex mask, a squared error; None counts every parameter."""
    threshold_growth: float = 1.5
    threshold_every: int = 500
    validate_every: int = 1_000
    """Iterations between two looks at the validation split; the best look is kept."""
    optimiser: str = "sgd"
    """`sgd`: the published one, on the images and the step size as it is. `adam`: on the images and the logarithm of the step size."""
    position_weight: float = 1.0
    """Weight of the end point."""
    waypoints: int = 0
    """K, waypoints evenly spaced in time; 0: as few as the losses need (2, or the published 3)."""
    orders: tuple[float, ...] = ()
    """Weights of velocity, curvature, torsion and up over the K waypoints."""
    between_weight: float = 0.0
    """Weight of the positions of the waypoints between start and end."""
    orders_rise: float = 0.0
    """Share of the run over which the weights of the orders rise from 0; 0: constant."""
    end: str = "fixed"
    """`adaptive`: the student's end is its step nearest to the expert's end, from a quarter of the way on."""
    mask: str = "sticky"
    """`sticky` and `fresh` read `threshold`, `quantile` and `layers` read `quantile`; there is no mask while that is None."""
    quantile: tuple[float, float] | None = None
    """Share of the parameters (`quantile`) or of the layers (`layers`) in use at the first and at the last iteration."""
    window: str = "fixed"
    """`growing`: the last start epoch grows linearly from `start_epochs[0]` to its full value over the run."""
    outcome_weight: float = 0.0
    """Weight of the loss of the student's end on a batch of real training images."""
    outcome_batch: int = 128
    own_start: int = 0
    """R: with R > 0 the student starts from a fresh network after 0 .. R - 1 of its own steps, not from an expert."""
    inner_loss: str = "cross_entropy"
    """Loss of the student's steps: `prior` weighs each class by its share of train, `balanced_softmax` adds the logarithm of that share to the logits."""
    student_momentum: float = 0.0
    """Momentum of the student's own steps."""
    labels: str = "hard"
    """Labels of the synthetic images: `hard`; `teacher`: the experts' mean probabilities for the real images they started from;
    `learned`: these to begin with, then learned. Results with soft labels stand in a table of their own."""
    lr_labels: float = 0.05
    """Step size of learned labels, on their logarithms."""
    gradient: str = "exact"
    """`truncated`: the control that drops the paths through later weights (TESLA)."""
    keep: int = 0
    """Inner steps whose work is kept for the backward sweep: time for memory; the same result."""

    @property
    def step_sizes(self) -> tuple[float, float]:
        """`lr` and `lr_lr` as numbers. Raises ConfigError while they are None; `resolved` fills them in."""
        if self.lr is None or self.lr_lr is None:
            raise ConfigError("match.lr and match.lr_lr are None, which follow the expert: fill them in with config.resolved first.")
        return self.lr, self.lr_lr


@dataclass(frozen=True)
class LatentConfig:
    """What is learned, and how it becomes images."""

    rendering: str = "pixels"
    """`pixels`; `upsampled`: half the resolution; `decoded`: codes through the frozen decoder of a VAE trained on the train split."""
    initial: str = "real"
    """Codes start as encoded real images (`real`), class-wise k-means centroids of codes (`kmeans`) or draws from the prior (`prior`)."""
    dims: int = 64
    prior_weight: float = 0.0
    """Weight of the negative log prior of the codes."""
    shape_weight: float = 0.0
    """Weight of the angles of code triplets against those of encoded training images."""
    steps: int = 2_000
    """Training steps of the VAE."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a small set is judged: recipes tried on validation, then fresh networks on test."""

    steps: int = 300
    """Optimiser steps, the same for every arm and set size."""
    batch: int = 128
    networks: int = 5
    sgd_lrs: tuple[float, ...] = (0.003, 0.01, 0.03)
    adamw_lrs: tuple[float, ...] = (0.0005, 0.002, 0.008)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    select_by: str = "auc"
    """Validation score that chooses: `auc`, `accuracy` or `balanced_accuracy`."""


@dataclass(frozen=True)
class Config:
    """Every setting of one run. Build it with `configure`."""

    dataset: str
    method: str
    ipc: int
    seed: int
    profile: str
    network: NetworkConfig = field(default_factory=NetworkConfig)
    experts: ExpertConfig = field(default_factory=ExpertConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def changed(self, **changes: Any) -> "Config":
        """A copy with some settings changed; a dictionary changes a part: `changed(match={"steps": 5})`.

        Raises ConfigError for an unknown name or a value out of range.
        """
        names = {item.name for item in dataclasses.fields(self)}
        parts: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in names:
                raise ConfigError(f"no setting {name!r}; there are {', '.join(sorted(names))}.")
            old = getattr(self, name)
            if not isinstance(value, dict):
                parts[name] = value
                continue
            unknown = sorted(set(value) - {item.name for item in dataclasses.fields(old)})
            if unknown:
                raise ConfigError(f"no setting {name}.{unknown[0]}; there are {', '.join(item.name for item in dataclasses.fields(old))}.")
            parts[name] = dataclasses.replace(old, **value)
        new = dataclasses.replace(self, **parts)
        check(new)
        return new


def from_dict(plain: dict[str, Any]) -> Config:
    """The inverse of `Config.as_dict`. A setting that did not exist yet when it was stored has its default, which changes nothing.

    Raises ConfigError when a key is unknown, or one that no setting could do without is missing.
    """
    parts = {"network": NetworkConfig, "experts": ExpertConfig, "match": MatchConfig, "evaluation": EvaluationConfig, "latent": LatentConfig}
    try:
        config = Config(
            **{name: plain[name] for name in ("dataset", "method", "ipc", "seed", "profile")},
            **{name: kind(**_tuples(plain[name])) for name, kind in parts.items() if name in plain or name not in _LATER},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"a stored configuration does not fit this version of hoptm: {error}.") from error
    check(config)
    return config


_LATER = ("latent",)
"""Parts that older files lack."""


def _tuples(part: dict[str, Any]) -> dict[str, Any]:
    """Lists of JSON as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}


def configure(dataset: str, *, method: str, ipc: int, seed: int, profile: str = "fast", **changes: Any) -> Config:
    """The settings of a profile for one data set, method, budget (images per class) and seed.

    `changes` are as in `Config.changed`. Raises ConfigError with the allowed values.
    """
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(PROFILES)}.")
    if method not in METHODS:
        raise ConfigError(f"no method {method!r}; there are {', '.join(METHODS)}.")
    parts = _PROFILES[profile](dataset, ipc)
    config = Config(dataset=dataset, method=method, ipc=ipc, seed=seed, profile=profile)
    config = config.changed(**parts)
    config = config.changed(**_method(method, config))
    if profile == "tuned":
        config = config.changed(**_searched(dataset, method))
    return config.changed(**changes)


def _method(method: str, config: Config) -> dict[str, Any]:
    """What a method sets over its profile; each of the single-part methods is the end point with that part."""
    threshold, weight = {"threshold": config.match.threshold or 5e-9}, {"shape_weight": config.match.shape_weight or 0.5}
    plain: dict[str, Any] = {"shape_weight": 0.0, "threshold": None}
    several = {"experts": {"per_epoch": config.experts.per_epoch * 4 // math.gcd(4, config.match.expert_epochs * config.experts.per_epoch)}}
    stable = {"optimiser": "adam", "lr_images": 0.05, "lr_lr": None}
    parts: dict[str, dict[str, Any]] = {
        "endpoint": {"match": plain},
        "published": {"match": {**weight, **threshold}},
        "shape": {"match": {**plain, **weight}},
        "progressive": {"match": {**plain, **threshold}},
        "positions": {"match": {**plain, "waypoints": 5, "between_weight": 1.0}, **several},
        "velocity": {"match": {**plain, "waypoints": 5, "orders": (ORDER_WEIGHT,)}, **several},
        "curvature": {"match": {**plain, "waypoints": 5, "orders": (0.0, ORDER_WEIGHT)}, **several},
        "torsion": {"match": {**plain, "waypoints": 5, "orders": (0.0, 0.0, ORDER_WEIGHT)}, **several},
        "adaptive": {"match": {**plain, "end": "adaptive"}},
        "ftd": {"match": plain, "experts": {"optimiser": "flat"}},
        "tesla": {"match": {**plain, "gradient": "truncated"}},
        "datm": {"match": {**plain, "window": "growing", "labels": "learned"}},
        "outcome": {"match": {**plain, "position_weight": 0.0, "outcome_weight": 1.0, "own_start": OWN_START}},
        "extended": {"match": {**plain, **stable, "end": "adaptive", "waypoints": 5, "orders": (0.1,), "outcome_weight": 0.3}, **several},
        "latent": {"match": plain, "latent": {"rendering": "decoded"}},
    }
    return parts[method]


ORDER_WEIGHT, OWN_START = 0.5, 40


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


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).resolve().parent / "tuned.json").read_text(encoding="utf-8"))
    return found


def _searched(dataset: str, method: str) -> dict[str, Any]:
    """What the search chose: for a data set that was not searched, what it chose for the first one.

    `common` holds for every method, the experts first of all. Methods that were not searched take the settings of the end point, and add their part.
    """
    table = _table()
    chosen = table.get(dataset) or table[next(iter(table))]
    own = chosen.get(method, chosen.get("endpoint", {}))
    parts = {*chosen["common"], *own}
    return _tupled({name: {**chosen["common"].get(name, {}), **own.get(name, {})} for name in parts})


def _tupled(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuples(part) for name, part in parts.items()}


def _colab(dataset: str, ipc: int) -> dict[str, Any]:
    return {
        "experts": {"optimiser": "flat", "count": 10, "epochs": 6},
        "match": {"steps": 40, "batch": 100, "iterations": 500, "lr": None, "lr_lr": None, "threshold_every": 25, "validate_every": 100},
        "evaluation": {"steps": 1_000},
    }


def _paper(dataset: str, ipc: int) -> dict[str, Any]:
    """The released settings: the row of the data set's kind with the smallest budget that is not below `ipc`."""
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
_PROFILES = {"smoke": _smoke, "fast": _fast, "tuned": _tuned, "colab": _colab, "paper": _paper}


def check(config: Config) -> None:
    """Raise ConfigError on the first setting out of its range, with the range."""
    match, experts, judged, network, latent = config.match, config.experts, config.evaluation, config.network, config.latent
    kept = match.expert_epochs * experts.per_epoch
    first, last = match.start_epochs
    reach = last - 1 + match.expert_epochs
    rules = [
        (config.ipc >= 1, f"ipc is {config.ipc}; images per class must be 1 or more"),
        (0 <= config.seed < 2**63, f"seed is {config.seed}; it must lie in 0 .. 2^63 - 1"),
        (network.depth >= 1 and network.width >= 1, f"network depth {network.depth} and width {network.width} must be 1 or more"),
        (experts.count >= 1 and experts.epochs >= 1 and experts.batch >= 1, "experts.count, experts.epochs and experts.batch must be 1 or more"),
        (0 < experts.lr <= 10, f"experts.lr is {experts.lr}; it must lie in 0 .. 10"),
        (match.steps >= 1 and match.batch >= 1 and match.iterations >= 1, "match.steps, match.batch and match.iterations must be 1 or more"),
        (match.expert_epochs >= 1, f"match.expert_epochs is {match.expert_epochs}; it must be 1 or more"),
        (0 <= first < last, f"match.start_epochs is {match.start_epochs}; the first must be 0 or more and below the last"),
        (reach <= experts.epochs, f"the last start plus {match.expert_epochs} epochs needs experts of {reach} epochs, they have {experts.epochs}"),
        (match.lr is None or 0 < match.lr <= 10, f"match.lr is {match.lr}; the student's step size must lie in 0 .. 10"),
        (0 <= match.lr_images <= 1e6, f"match.lr_images is {match.lr_images}; it must lie in 0 .. 1e6"),
        (match.lr_lr is None or 0 <= match.lr_lr <= 1, f"match.lr_lr is {match.lr_lr}; it must lie in 0 .. 1"),
        (0 <= match.momentum < 1, f"match.momentum is {match.momentum}; it must lie in 0 .. 1"),
        (match.shape_weight >= 0, f"match.shape_weight is {match.shape_weight}; it must not be negative"),
        (match.threshold is None or match.threshold > 0, f"match.threshold is {match.threshold}; it must be positive, or None for no mask"),
        (match.threshold_growth >= 1 and match.threshold_every >= 1, "match.threshold_growth and match.threshold_every must be 1 or more"),
        (match.validate_every >= 1, "match.validate_every must be 1 or more"),
        (match.optimiser in OPTIMISERS, f"match.optimiser is {match.optimiser!r}; it must be one of {', '.join(OPTIMISERS)}"),
        (match.waypoints == 0 or match.waypoints >= 2, f"match.waypoints is {match.waypoints}; it must be 2 or more, or 0 for as few as the losses need"),
        (
            match.waypoints < 2 or kept % (match.waypoints - 1) == 0,
            f"{match.waypoints} waypoints do not fall on stored checkpoints: a segment has {kept} (match.expert_epochs times experts.per_epoch), "
            f"which must be a multiple of {match.waypoints - 1}",
        ),
        (match.waypoints == 0 or match.waypoints > len(match.orders), f"{len(match.orders)} orders need {len(match.orders) + 1} waypoints or more"),
        (min((match.position_weight, match.between_weight, match.outcome_weight, *match.orders)) >= 0, "weights of losses must not be negative"),
        (0 <= match.orders_rise <= 1, f"match.orders_rise is {match.orders_rise}; it must lie in 0 .. 1"),
        (match.end in ("fixed", "adaptive"), f"match.end is {match.end!r}; it must be fixed or adaptive"),
        (match.window in ("fixed", "growing"), f"match.window is {match.window!r}; it must be fixed or growing"),
        (match.mask in MASKS, f"match.mask is {match.mask!r}; it must be one of {', '.join(MASKS)}"),
        (
            match.quantile is None or (len(match.quantile) == 2 and all(0 < part <= 1 for part in match.quantile)),
            f"match.quantile is {match.quantile}; it must be two shares above 0 and at most 1, or None",
        ),
        (match.inner_loss in INNER_LOSSES, f"match.inner_loss is {match.inner_loss!r}; it must be one of {', '.join(INNER_LOSSES)}"),
        (match.outcome_batch >= 1 and match.own_start >= 0, "match.outcome_batch must be 1 or more and match.own_start 0 or more"),
        (
            not match.own_start or (match.position_weight == match.between_weight == match.shape_weight == 0 and not any(match.orders)),
            "a student that starts on its own (match.own_start) has no expert to be compared with: only match.outcome_weight may be above 0",
        ),
        (
            match.position_weight + match.between_weight + match.shape_weight + match.outcome_weight + sum(match.orders) > 0,
            "no loss has a weight above 0: there is nothing to match",
        ),
        (match.labels in ("hard", "teacher", "learned"), f"match.labels is {match.labels!r}; it must be hard, teacher or learned"),
        (match.labels == "hard" or match.inner_loss == "cross_entropy", "soft labels need match.inner_loss cross_entropy"),
        (match.lr_labels >= 0, f"match.lr_labels is {match.lr_labels}; it must not be negative"),
        (match.gradient in ("exact", "truncated"), f"match.gradient is {match.gradient!r}; it must be exact or truncated"),
        (
            match.gradient == "exact" or not (match.shape_weight or match.between_weight or any(match.orders) or match.student_momentum or match.waypoints > 2),
            "the truncated gradient knows the end point alone, and a student without momentum",
        ),
        (match.keep >= 0, f"match.keep is {match.keep}; it must be 0 or more"),
        (0 <= match.student_momentum < 1, f"match.student_momentum is {match.student_momentum}; it must lie in 0 .. 1"),
        (experts.per_epoch >= 1, "experts.per_epoch must be 1 or more"),
        (0 <= experts.momentum < 1 and 0 <= experts.averaging < 1, "experts.momentum and experts.averaging must lie in 0 .. 1"),
        (experts.weight_decay >= 0, "experts.weight_decay must not be negative"),
        (experts.decay in ("none", "cosine"), f"experts.decay is {experts.decay!r}; it must be none or cosine"),
        (latent.rendering in RENDERINGS, f"latent.rendering is {latent.rendering!r}; it must be one of {', '.join(RENDERINGS)}"),
        (latent.initial in ("real", "kmeans", "prior"), f"latent.initial is {latent.initial!r}; it must be real, kmeans or prior"),
        (latent.initial == "real" or latent.rendering == "decoded", f"latent.initial {latent.initial!r} needs latent.rendering decoded"),
        (latent.dims >= 1 and latent.prior_weight >= 0 and latent.shape_weight >= 0, "latent.dims must be 1 or more and its weights not negative"),
        (judged.steps >= 1 and judged.batch >= 1 and judged.networks >= 1, "evaluation.steps, evaluation.batch and evaluation.networks must be 1 or more"),
        (len(judged.sgd_lrs) + len(judged.adamw_lrs) >= 1, "evaluation needs at least one step size"),
        (judged.select_by in _SCORES, f"evaluation.select_by is {judged.select_by!r}; it must be one of {', '.join(_SCORES)}"),
    ]
    for holds, words in rules:
        if not holds:
            raise ConfigError(words + ".")


def resolved(config: Config, steps_per_epoch: int) -> Config:
    """The same settings with the student's step size as numbers, from how far the expert goes in a segment.

    An expert of step size b walks M epochs of S steps, about b M S; the student has N steps. Starting at or below
    b M S / N keeps the first student from overshooting; `None` starts at half of it.
    """
    match, experts = config.match, config.experts
    lr = match.lr or 0.5 * experts.lr * match.expert_epochs * steps_per_epoch / match.steps
    of_lr = match.lr_lr if match.lr_lr is not None else LOG_STEP if match.optimiser == "adam" else 0.1 * lr**2
    return config.changed(match={"lr": lr, "lr_lr": of_lr})


LOG_STEP = 0.03
"""What Adam moves the logarithm of the step size by in an iteration, about."""


def hash_of(plain: Any) -> str:
    """Sixteen hexadecimal digits that name a JSON-able description."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def generator(seed: int, *name: str | int) -> torch.Generator:
    """A CPU generator for one named use of a seed; other names give independent streams.

    The same seed and name give the same bits on every machine.
    """
    words = "/".join(str(part) for part in (seed, *name))
    number = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)
