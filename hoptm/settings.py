"""The parts of a configuration: frozen settings of network, experts, matching, evaluation and of what is learned.

Each default of a setting that came later means what runs did before it existed, so that old records can be read. A configuration may come from a
stranger's file, so `fitting` compares values with these types, and what a command runs from a file has bounds.
"""

import dataclasses
import json
import reprlib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hoptm.errors import ConfigError

OPTIMISERS = ("sgd", "adam")
MASKS = ("sticky", "fresh", "quantile", "layers")
RENDERINGS = ("pixels", "upsampled", "decoded")
FIRST_IMAGES = ("random", "herding", "kmeans")
INITIAL = {"pixels": ("real", "mean", "noise", "vae"), "upsampled": ("real",), "decoded": ("real", "kmeans", "prior")}
"""Where a leaf may start, by its rendering."""
INNER_LOSSES = ("cross_entropy", "prior", "balanced_softmax")
MOST = {"network.depth": 100, "network.width": 4_096, "evaluation.steps": 1_000_000, "evaluation.batch": 100_000, "evaluation.networks": 1_000}
"""Upper bounds of what `hoptm evaluate` and `hoptm audit` run from a set's file, far above what is of use: the published profile has depth 5, width 128,
1,000 steps, 5 networks. They keep a file from asking for any amount of work; how much memory a network may take, `networks` bounds."""
MOST_RATES, MOST_JUDGED, HIGHEST_RATE = 100, 10_000_000, 1e6
"""Step sizes in each list of an evaluation; its steps, over all step sizes and networks; the largest step size and weight decay."""
_WORDS = {int: "a whole number", float: "a finite number", str: "a word", types.NoneType: "None"}


def fitting(kind: type, values: Mapping[str, Any], within: str = "") -> None:
    """Raise ConfigError on the first value that is not of its setting's type in the dataclass `kind`, naming both; `within` goes before its name.

    A whole number serves for any number; True and False are none. Numbers are finite, whole ones of at most 64 bits. Unknown names are not looked at.
    """
    for item in dataclasses.fields(kind):
        if item.name in values and not _is(values[item.name], item.type):
            raise ConfigError(f"{within}{item.name} is {reprlib.repr(values[item.name])}; it must be {_described(item.type)}.")


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, types.UnionType):
        return any(_is(value, one) for one in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        kinds = typing.get_args(wanted)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis and isinstance(value, tuple) else kinds
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if wanted in (int, float):
        largest = 2**63 - 1 if isinstance(value, int) else sys.float_info.max
        return isinstance(value, int | wanted) and not isinstance(value, bool) and -largest <= value <= largest
    return isinstance(value, wanted)


def _described(wanted: Any) -> str:
    if isinstance(wanted, types.UnionType):
        return " or ".join(_described(one) for one in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        kinds = typing.get_args(wanted)
        return f"a list{'' if kinds[-1] is Ellipsis else f' of {len(kinds)}'}, each {_described(kinds[0])}"
    return _WORDS.get(wanted) or f"the settings of {wanted.__name__}"


@dataclass(frozen=True)
class NetworkConfig:
    """The network that is trained: `family` is a name in `networks.FAMILIES`. Bounds of the numbers are in `MOST`."""

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
    """alpha, initial step size of the student; learned. None: with N steps along one gradient it goes half as far as the expert (`config.resolved`)."""
    lr_images: float = 10.0
    lr_lr: float | None = 1e-7
    """Step size with which `lr` is learned. None: a tenth of lr^2, free of scale, N times that for a step size each; for Adam `LOG_STEP`."""
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
    look: str | None = None
    """Augmentation of the networks that look at validation; None: what the student sees, `augmentation`."""
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
    """Share of the run over which the weights of the orders, the positions between and the shape rise from 0; 0: constant."""
    end: str = "fixed"
    """`adaptive`: the student's end is its step nearest to the expert's end, from a quarter of the way on; the other waypoints are evenly spaced."""
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
    """Loss of the student's steps. With w, a class's share of train over its share of the set: `prior` weighs by w, `balanced_softmax` takes log w off."""
    student_momentum: float = 0.0
    """Momentum of the student's own steps."""
    step_sizes_of: str = "all"
    """Whose step size is learned: one for `all` inner steps, or one for `each`, all the same at first. A set keeps their mean."""
    labels: str = "hard"
    """Labels of the synthetic images: `hard`; `teacher`: the experts' mean probabilities for the real images they started from;
    `learned`: these to begin with, then learned. Results with soft labels stand in a table of their own."""
    lr_labels: float = 0.05
    """Step size of learned labels, on their logarithms: what Adam moves one by in an iteration, about."""
    segments: int = 1
    """B, segments of experts in an outer iteration, each with a student of its own; the loss is their mean. On a GPU they run as one network of groups."""
    gradient: str = "exact"
    """`truncated`: the control that drops the paths through later weights (TESLA)."""
    first_images: str = "random"
    """How the real images that a run starts from are chosen from train: `random`, or by `herding` or `kmeans` in the features of a network trained on train."""
    per_class: tuple[int, ...] = ()
    """Images of each class, in the order of the labels; empty: `ipc` of each."""
    class_power: float = 0.0
    """With `per_class` empty: `ipc` a class in the mean, shared out in proportion to a class's images in train to this power; below 0 rare ones get more."""
    keep: int = 0
    """Inner steps whose work is kept for the backward sweep: time for memory; the same result."""
    memory_mb: float = 0.0
    """Above 0: as many steps are kept as fit into so many megabytes together with the path, whatever `keep` says."""

    @property
    def step_sizes(self) -> tuple[float, float]:
        """`lr` and `lr_lr` as numbers. Raises ConfigError while they are None; `resolved` fills them in."""
        if self.lr is None or self.lr_lr is None:
            raise ConfigError("match.lr and match.lr_lr are None, which follow the expert: fill them in with config.resolved first.")
        return self.lr, self.lr_lr

    @property
    def waypoint_count(self) -> int:
        """K: as asked, or as few as the losses need."""
        of_orders = max((order + 1 for order, weight in enumerate(self.orders, 1) if weight), default=2)
        return self.waypoints or max(of_orders, 3 if self.shape_weight or self.between_weight else 2)

    @property
    def published_middle(self) -> bool:
        """Whether the three waypoints are those of the released code: shape potential and sticky mask together, with a middle that may be out of step."""
        return self.waypoints == 0 and self.shape_weight != 0 and self.mask == "sticky" and self.threshold is not None


@dataclass(frozen=True)
class LatentConfig:
    """What is learned, and how it becomes images."""

    rendering: str = "pixels"
    """`pixels`; `upsampled`: half the resolution; `decoded`: codes through the frozen decoder of a VAE trained on the train split."""
    initial: str = "real"
    """Codes start as encoded real images (`real`), class-wise k-means centroids of codes (`kmeans`) or draws from the prior (`prior`). Pixels
    start as real images, near the mean image of their class (`mean`), as standard noise (`noise`) or as decoded draws from a Gaussian over the
    codes of their class (`vae`). Images of fewer pixels start as real ones."""
    dims: int = 64
    prior_weight: float = 0.0
    """Weight of the negative log prior of the codes."""
    shape_weight: float = 0.0
    """Weight of the angles of code triplets against those of encoded training images."""
    steps: int = 2_000
    """Training steps of the VAE."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a small set is judged: recipes tried on validation, then fresh networks on test. Bounds of the numbers are in `MOST`."""

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


def changes_of(settings: str | Iterable[str]) -> dict[str, Any]:
    """`match.lr=0.01` and its like as the nested changes that `config.Config.changed` takes; in one text several stand with spaces between them.

    A value is read as JSON, what commas part as a tuple (`match.per_class=1,2`), and what is neither as a word. Raises ConfigError for anything that is
    not PART.NAME=VALUE; which names and values there are `changed` says.
    """
    changes: dict[str, Any] = {}
    for setting in settings.split() if isinstance(settings, str) else settings:
        name, found, value = setting.partition("=")
        part, dot, key = name.partition(".")
        if not found or not dot:
            raise ConfigError(f"{setting!r} is no setting: write PART.NAME=VALUE, such as match.iterations=50.")
        changes.setdefault(part, {})[key] = _value(value)
    return changes


def _value(text: str) -> Any:
    for written in (text, f"[{text.rstrip(',')}]"):
        try:
            parsed = json.loads(written)
        except ValueError:
            continue
        return tuple(parsed) if isinstance(parsed, list) else parsed
    return text
