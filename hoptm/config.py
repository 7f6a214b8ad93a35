"""What a run is: frozen settings, the profiles that fill them, and seeds by name.

A `Config` holds every number that shapes a result; it is printed whole into each record. A profile fills it:
`smoke` (seconds, for tests), `fast` (two CPU cores), `tuned` (the same with searched settings), `large` (for a tenth of train, searched),
`colab` (one GPU) and `paper` (the published table).
No global seed exists: `generator(seed, "experts", 3)` gives the third expert its own stream.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import torch

from hoptm.errors import ConfigError
from hoptm.profiles import DESCRIBED as DESCRIBED
from hoptm.profiles import FILL, SEARCHED, of_method, searched, tuples, unsearched
from hoptm.profiles import METHODS as METHODS
from hoptm.profiles import PROFILES as PROFILES
from hoptm.profiles import PROFILES_DESCRIBED as PROFILES_DESCRIBED
from hoptm.settings import FIRST_IMAGES, HIGHEST_RATE, INITIAL, MASKS, MOST, MOST_JUDGED, MOST_RATES, OPTIMISERS, RENDERINGS, fitting
from hoptm.settings import INNER_LOSSES as INNER_LOSSES
from hoptm.settings import EvaluationConfig as EvaluationConfig
from hoptm.settings import ExpertConfig as ExpertConfig
from hoptm.settings import LatentConfig as LatentConfig
from hoptm.settings import MatchConfig as MatchConfig
from hoptm.settings import NetworkConfig as NetworkConfig

_SCORES = ("auc", "accuracy", "balanced_accuracy")


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

    @property
    def budget(self) -> int | tuple[int, ...]:
        """Images of every class, or of each where `match.per_class` says so; `arms.budget` knows `match.class_power` too."""
        return self.match.per_class or self.ipc

    def changed(self, **changes: Any) -> "Config":
        """A copy with some settings changed; a dictionary changes a part: `changed(match={"steps": 5})`.

        Raises ConfigError for an unknown name, a value of another type or one out of range.
        """
        names = {item.name for item in dataclasses.fields(self)}
        parts: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in names:
                raise ConfigError(f"no setting {name!r}; there are {', '.join(sorted(names))}.")
            old = getattr(self, name)
            if not (isinstance(value, dict) and isinstance(old, NetworkConfig | ExpertConfig | MatchConfig | EvaluationConfig | LatentConfig)):
                parts[name] = value
                continue
            unknown = sorted(set(value) - {item.name for item in dataclasses.fields(old)})
            if unknown:
                raise ConfigError(f"no setting {name}.{unknown[0]}; there are {', '.join(item.name for item in dataclasses.fields(old))}.")
            fitting(type(old), tuples(value), f"{name}.")
            parts[name] = dataclasses.replace(old, **tuples(value))
        fitting(Config, parts)
        new = dataclasses.replace(self, **parts)
        check(new)
        return new


def from_dict(plain: dict[str, Any]) -> Config:
    """The inverse of `Config.as_dict`. A setting that did not exist yet when it was stored has its default, which changes nothing.

    `plain` may be a stranger's: raises ConfigError when a key is unknown, one that no setting could do without is missing, or a value is of another type
    or out of range.
    """
    parts = {"network": NetworkConfig, "experts": ExpertConfig, "match": MatchConfig, "evaluation": EvaluationConfig, "latent": LatentConfig}
    try:
        whole = {name: plain[name] for name in ("dataset", "method", "ipc", "seed", "profile")}
        given = {name: tuples(plain[name]) for name in parts if name in plain or name not in _LATER}
        fitting(Config, whole)
        for name, part in given.items():
            fitting(parts[name], part, f"{name}.")
        config = Config(**whole, **{name: parts[name](**part) for name, part in given.items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"a stored configuration does not fit this version of hoptm: {error}.") from error
    check(config)
    return config


_LATER = ("latent",)
"""Parts that older files lack."""


def configure(dataset: str, *, method: str, ipc: int, seed: int, profile: str = "fast", **changes: Any) -> Config:
    """The settings of a profile for one data set, method, budget (images per class) and seed.

    `changes` are as in `Config.changed`. Raises ConfigError with the allowed values.
    """
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(PROFILES)}.")
    if method not in METHODS:
        raise ConfigError(f"no method {method!r}; there are {', '.join(METHODS)}.")
    parts = FILL[profile](dataset, ipc)
    config = Config(dataset=dataset, method=method, ipc=ipc, seed=seed, profile=profile)
    config = config.changed(**parts)
    config = config.changed(**of_method(method, config))
    if profile in SEARCHED:
        _say_unsearched(dataset, method, profile)
        config = config.changed(**searched(dataset, method, profile))
    return config.changed(**changes)


@functools.cache
def _say_unsearched(dataset: str, method: str, profile: str) -> None:
    """One line on standard error where a searched profile has no settings of its own, once a process."""
    words = unsearched(dataset, method, profile)
    if words:
        print(f"hoptm: {words}", file=sys.stderr)


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
            match.published_middle or kept % max(1, match.waypoint_count - 1) == 0,
            f"{match.waypoint_count} waypoints do not fall on stored checkpoints: a segment has {kept} (match.expert_epochs times experts.per_epoch), "
            f"which must be a multiple of {match.waypoint_count - 1}; raise experts.per_epoch",
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
        (
            not match.own_start or match.end == "fixed",
            "a student that starts on its own (match.own_start) has no expert's end to be nearest to: match.end must be fixed",
        ),
        (match.outcome_batch >= 1 and match.own_start >= 0, "match.outcome_batch must be 1 or more and match.own_start 0 or more"),
        (
            not match.own_start or (match.position_weight == match.between_weight == match.shape_weight == 0 and not any(match.orders)),
            "a student that starts on its own (match.own_start) has no expert to be compared with: only match.outcome_weight may be above 0",
        ),
        (
            match.position_weight + match.between_weight + match.shape_weight + match.outcome_weight + sum(match.orders) > 0,
            "no loss has a weight above 0: there is nothing to match",
        ),
        (match.step_sizes_of in ("all", "each"), f"match.step_sizes_of is {match.step_sizes_of!r}; it must be all or each"),
        (
            match.step_sizes_of == "all" or (match.gradient == "exact" and not match.own_start),
            "a step size for each inner step needs the exact gradient, and a student that starts from an expert",
        ),
        (match.segments >= 1, f"match.segments is {match.segments}; it must be 1 or more"),
        (
            match.segments == 1 or not (match.threshold or match.quantile or match.end == "adaptive" or match.own_start),
            "several segments at once have no mask, a fixed end, and students that start from experts: set match.threshold and match.quantile to None, "
            "match.end to fixed and match.own_start to 0, or match.segments to 1",
        ),
        (match.labels in ("hard", "teacher", "learned"), f"match.labels is {match.labels!r}; it must be hard, teacher or learned"),
        (match.labels == "hard" or match.inner_loss == "cross_entropy", "soft labels need match.inner_loss cross_entropy"),
        (match.lr_labels >= 0, f"match.lr_labels is {match.lr_labels}; it must not be negative"),
        (match.gradient in ("exact", "truncated"), f"match.gradient is {match.gradient!r}; it must be exact or truncated"),
        (
            match.gradient == "exact" or not (match.shape_weight or match.between_weight or any(match.orders) or match.student_momentum or match.waypoints > 2),
            "the truncated gradient knows the end point alone, and a student without momentum",
        ),
        (match.first_images in FIRST_IMAGES, f"match.first_images is {match.first_images!r}; it must be one of {', '.join(FIRST_IMAGES)}"),
        (
            not match.per_class or (min(match.per_class) >= 1 and latent.initial != "kmeans"),
            f"match.per_class is {match.per_class}; each class needs 1 image or more, and latent.initial kmeans knows equal budgets alone",
        ),
        (
            not match.class_power or (-2 <= match.class_power <= 2 and not match.per_class and latent.initial != "kmeans"),
            f"match.class_power is {match.class_power}; it must lie in -2 .. 2, match.per_class be empty, and latent.initial not kmeans",
        ),
        (match.keep >= 0, f"match.keep is {match.keep}; it must be 0 or more"),
        (match.memory_mb >= 0, f"match.memory_mb is {match.memory_mb}; it must be 0 or more"),
        (0 <= match.student_momentum < 1, f"match.student_momentum is {match.student_momentum}; it must lie in 0 .. 1"),
        (experts.per_epoch >= 1, "experts.per_epoch must be 1 or more"),
        (0 <= experts.momentum < 1 and 0 <= experts.averaging < 1, "experts.momentum and experts.averaging must lie in 0 .. 1"),
        (experts.weight_decay >= 0, "experts.weight_decay must not be negative"),
        (experts.decay in ("none", "cosine"), f"experts.decay is {experts.decay!r}; it must be none or cosine"),
        (latent.rendering in RENDERINGS, f"latent.rendering is {latent.rendering!r}; it must be one of {', '.join(RENDERINGS)}"),
        (
            latent.initial in INITIAL.get(latent.rendering, ()),
            f"latent.initial is {latent.initial!r}; with latent.rendering {latent.rendering} it must be one of {', '.join(INITIAL.get(latent.rendering, ()))}",
        ),
        (latent.dims >= 1 and latent.prior_weight >= 0 and latent.shape_weight >= 0, "latent.dims must be 1 or more and its weights not negative"),
        (judged.steps >= 1 and judged.batch >= 1 and judged.networks >= 1, "evaluation.steps, evaluation.batch and evaluation.networks must be 1 or more"),
        (len(judged.sgd_lrs) + len(judged.adamw_lrs) >= 1, "evaluation needs at least one step size"),
        *((_part(config, name) <= most, f"{name} is {_part(config, name)}; it must be at most {most:,}") for name, most in MOST.items()),
        (len(judged.sgd_lrs) <= MOST_RATES and len(judged.adamw_lrs) <= MOST_RATES, f"evaluation has more than {MOST_RATES} step sizes of one optimiser"),
        (
            all(0 < lr <= HIGHEST_RATE for lr in (*judged.sgd_lrs, *judged.adamw_lrs)),
            f"evaluation.sgd_lrs and evaluation.adamw_lrs must lie in 0 .. {HIGHEST_RATE:g} (above 0)",
        ),
        (
            (len(judged.sgd_lrs) + len(judged.adamw_lrs) + judged.networks) * judged.steps <= MOST_JUDGED,
            f"evaluation.steps is {judged.steps}; over all step sizes and networks there may be {MOST_JUDGED:,} steps",
        ),
        (0 <= judged.momentum < 1, f"evaluation.momentum is {judged.momentum}; it must lie in 0 .. 1"),
        (0 <= judged.weight_decay <= HIGHEST_RATE, f"evaluation.weight_decay is {judged.weight_decay}; it must lie in 0 .. {HIGHEST_RATE:g}"),
        (judged.select_by in _SCORES, f"evaluation.select_by is {judged.select_by!r}; it must be one of {', '.join(_SCORES)}"),
    ]
    for holds, words in rules:
        if not holds:
            raise ConfigError(words + ".")


def _part(config: Config, name: str) -> Any:
    part, _, setting = name.partition(".")
    return getattr(getattr(config, part), setting)


def resolved(config: Config, steps_per_epoch: int) -> Config:
    """The same settings with the student's step size as numbers, from how far the expert goes in a segment.

    `None` starts at the step size with which N steps of the student would carry half as far as the expert's M epochs of S steps, were the gradient the
    same all the way: b M S / (2 N) for an expert of step size b without momentum or decay. That keeps the first student from overshooting.
    With plain outer steps a step size for each inner step has about 1 / N of the gradient, so `lr_lr` None is N times that of one for all.
    """
    match, experts = config.match, config.experts
    plain = experts.decay == "none" and not experts.momentum and not match.student_momentum
    lr = match.lr or (0.5 * experts.lr * match.expert_epochs * steps_per_epoch / match.steps if plain else 0.5 * _carried(config, steps_per_epoch))
    each = match.steps if match.step_sizes_of == "each" else 1
    of_lr = match.lr_lr if match.lr_lr is not None else LOG_STEP if match.optimiser == "adam" else 0.1 * lr**2 * each
    return config.changed(match={"lr": lr, "lr_lr": of_lr})


def _carried(config: Config, steps_per_epoch: int) -> float:
    """How far an expert goes in a segment, the mean over the starts, for each unit of a student's step size: both along one constant gradient."""
    match, experts = config.match, config.experts
    whole, (first, last) = experts.epochs * steps_per_epoch, match.start_epochs
    moved, way = 0.0, [0.0]
    for now in range((last - 1 + match.expert_epochs) * steps_per_epoch):
        moved = experts.momentum * moved + step_size_at(experts, now / whole)
        way.append(way[-1] + moved)
    length = match.expert_epochs * steps_per_epoch
    segments = [way[start * steps_per_epoch + length] - way[start * steps_per_epoch] for start in range(first, last)]
    student = sum((1 - match.student_momentum**step) / (1 - match.student_momentum) for step in range(1, match.steps + 1))
    return sum(segments) / len(segments) / student


def step_size_at(experts: ExpertConfig, progress: float) -> float:
    """The experts' step size when `progress` (0 to 1) of their training is done."""
    return experts.lr if experts.decay == "none" else experts.lr * 0.5 * (1 + math.cos(math.pi * progress))


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
