"""Settings: ranges, profiles, seeds by name."""

import json
import math

import pytest
import torch

from hoptm import profiles
from hoptm.config import DESCRIBED, METHODS, PROFILES, PROFILES_DESCRIBED, configure, from_dict, generator, hash_of, resolved
from hoptm.descent import Moments, sgd
from hoptm.errors import ConfigError
from hoptm.settings import changes_of


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_there_and_back_through_json(profile, method):
    config = configure("pathmnist", method=method, ipc=10, seed=3, profile=profile)
    assert from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_methods_share_all_but_their_own_terms():
    end, published = (configure("pneumoniamnist", method=method, ipc=1, seed=0, profile="fast") for method in ("endpoint", "published"))
    assert end.match.shape_weight == 0 and end.match.threshold is None
    assert published.match.shape_weight > 0 and published.match.threshold is not None
    assert published.changed(method="endpoint", match={"shape_weight": 0.0, "threshold": None}) == end


PUBLISHED = [
    ("pathmnist", 1, (80, 2, (0, 4), 10, 10.0, 0.01, 1e-7, 5e-9, 1.5, 0.5, 3)),
    ("pathmnist", 5, (80, 2, (0, 4), 10, 10.0, 0.01, 1e-7, 5e-9, 1.5, 0.5, 3)),
    ("pathmnist", 10, (80, 2, (0, 4), 10, 10.0, 0.01, 1e-7, 5e-9, 1.5, 0.5, 3)),
    ("pathmnist", 100, (80, 2, (0, 40), 100, 10.0, 0.01, 1e-5, 5e-8, 1.5, 0.5, 3)),
    ("pathmnist", 1000, (100, 2, (40, 60), 100, 10.0, 0.01, 1e-5, 5e-8, 1.5, 0.5, 3)),
    ("covid19-cxr", 1, (80, 2, (0, 4), 10, 100.0, 0.001, 1e-7, 1e-10, 1.3, 1.0, 5)),
    ("covid19-cxr", 10, (80, 2, (0, 20), 10, 100.0, 0.001, 1e-7, 1e-10, 1.3, 1.0, 5)),
    ("covid19-cxr", 50, (80, 3, (0, 20), 20, 100.0, 0.001, 1e-5, 1e-10, 1.6, 1.0, 5)),
]


@pytest.mark.parametrize(("dataset", "ipc", "row"), PUBLISHED)
def test_the_paper_profile_is_the_published_table(dataset, ipc, row):
    config = configure(dataset, method="published", ipc=ipc, seed=0, profile="paper")
    match = config.match
    found = (match.steps, match.expert_epochs, match.start_epochs, match.batch, match.lr_images, match.lr, match.lr_lr, match.threshold, match.threshold_growth)
    assert (*found, match.shape_weight, config.network.depth) == row
    assert match.iterations == 10_000 and match.momentum == 0.5 and config.network.width == 128
    experts = config.experts
    assert (experts.count, experts.epochs, experts.batch, experts.lr, experts.rho, experts.sharpness, experts.optimiser) == (
        100,
        100,
        256,
        0.01,
        0.01,
        0.3,
        "flat",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ipc": 0}, "ipc is 0"),
        ({"seed": -1}, "seed"),
        ({"match": {"lr": -0.1}}, "step size"),
        ({"match": {"lr": 1e9}}, "step size"),
        ({"match": {"lr": float("nan")}}, r"match\.lr is nan; it must be a finite number or None"),
        ({"match": {"lr_images": -1.0}}, "lr_images"),
        ({"match": {"start_epochs": (3, 3)}}, "start_epochs"),
        ({"match": {"start_epochs": (0, 90)}}, "epochs"),
        ({"match": {"colour": 1}}, "no setting match.colour"),
        ({"colour": 1}, "no setting 'colour'"),
        ({"evaluation": {"select_by": "test"}}, "select_by"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast").changed(**changes)


WRONG_TYPES = [
    ("match", "steps", "x", "match.steps is 'x'; it must be a whole number"),
    ("match", "steps", 2.5, "match.steps is 2.5; it must be a whole number"),
    ("match", "steps", True, "match.steps is True; it must be a whole number"),
    ("match", "steps", 10**30, "match.steps is 1000.*; it must be a whole number"),
    ("match", "lr", "0.1", "match.lr is '0.1'; it must be a finite number or None"),
    ("match", "lr", math.inf, "match.lr is inf; it must be a finite number or None"),
    ("match", "lr_images", 10**400, "match.lr_images is 1000.*; it must be a finite number"),
    ("match", "look", 3, "match.look is 3; it must be a word or None"),
    ("match", "start_epochs", [0], r"match.start_epochs is \(0,\); it must be a list of 2, each a whole number"),
    ("match", "orders", 0.5, "match.orders is 0.5; it must be a list, each a finite number"),
    ("match", "orders", [0.5, "x"], r"match.orders is \(0.5, 'x'\); it must be a list, each a finite number"),
    ("match", "quantile", [0.5, None], "match.quantile is .*; it must be a list of 2, each a finite number or None"),
    ("network", "family", None, "network.family is None; it must be a word"),
    ("evaluation", "sgd_lrs", None, "evaluation.sgd_lrs is None; it must be a list"),
    (None, "ipc", "1", "ipc is '1'; it must be a whole number"),
    (None, "seed", True, "seed is True; it must be a whole number"),
    (None, "dataset", ["x"], r"dataset is \['x'\]; it must be a word"),
    (None, "match", "steps", "does not fit"),
]


@pytest.mark.parametrize(("part", "name", "value", "words"), WRONG_TYPES)
def test_a_stored_value_of_another_type_is_named(part, name, value, words):
    plain = configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast").as_dict()
    (plain if part is None else plain[part])[name] = value
    with pytest.raises(ConfigError, match=words):
        from_dict(plain)


BEYOND = [
    ({"network": {"depth": 101}}, "network.depth is 101; it must be at most 100"),
    ({"network": {"width": 5000}}, "network.width is 5000; it must be at most 4,096"),
    ({"evaluation": {"steps": 10**9}}, "evaluation.steps is 1000000000; it must be at most 1,000,000"),
    ({"evaluation": {"batch": 10**9}}, "evaluation.batch"),
    ({"evaluation": {"networks": 10**9}}, "evaluation.networks"),
    ({"evaluation": {"steps": 10**6, "networks": 100}}, "10,000,000 steps"),
    ({"evaluation": {"sgd_lrs": (0.01,) * 101}}, "100 step sizes"),
    ({"evaluation": {"adamw_lrs": (0.0,)}}, "adamw_lrs"),
    ({"evaluation": {"sgd_lrs": (1e300,)}}, "sgd_lrs"),
    ({"evaluation": {"momentum": -0.5}}, "evaluation.momentum"),
    ({"evaluation": {"weight_decay": -0.5}}, "evaluation.weight_decay"),
    ({"ipc": {"more": 1}}, "ipc is {'more': 1}; it must be a whole number"),
]


@pytest.mark.parametrize(("changes", "words"), BEYOND)
def test_what_the_commands_run_from_a_file_is_bounded(changes, words):
    with pytest.raises(ConfigError, match=words):
        configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast").changed(**changes)


def test_bounds_leave_room_for_what_is_of_use():
    large = {"network": {"depth": 8, "width": 1024}, "evaluation": {"steps": 20_000, "networks": 50, "batch": 4096}, "match": {"iterations": 10**6}}
    config = configure("covid19-cxr", method="published", ipc=10, seed=2**62, profile="paper", **large)
    assert from_dict(config.as_dict()) == config
    config = configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast")
    assert config.changed(match={"orders": [0.5], "waypoints": 3}).match.orders == (0.5,), "lists are taken for tuples"


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match="smoke, fast, tuned, large, colab, paper"):
        configure("phantom", method="endpoint", ipc=1, seed=0, profile="slow")
    with pytest.raises(ConfigError, match="endpoint, published"):
        configure("phantom", method="magic", ipc=1, seed=0)
    with pytest.raises(ConfigError, match="does not fit"):
        from_dict({"dataset": "phantom"})


def test_seeds_by_name_are_streams_of_their_own():
    first, again, other, next_seed = (torch.rand(4, generator=generator(*words)) for words in ((0, "a", 1), (0, "a", 1), (0, "a", 2), (1, "a", 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, next_seed)
    assert hash_of({"b": 1, "a": 2}) == hash_of({"a": 2, "b": 1})


def test_variants_of_codes_take_the_searched_settings_of_codes(monkeypatch):
    table = {"known": {"common": {}, "endpoint": {"match": {"steps": 11}}, "latent": {"match": {"steps": 12}}}}
    monkeypatch.setattr(profiles, "_table", lambda profile: table)
    steps = {method: profiles.searched("known", method)["match"]["steps"] for method in ("latent", "latent-prior", "latent-shape", "half", "shape")}
    assert steps == {"latent": 12, "latent-prior": 12, "latent-shape": 12, "half": 11, "shape": 11}


@pytest.mark.parametrize("method", METHODS)
def test_the_profile_for_large_sets_serves_every_method(method):
    config = configure("pbc-28", method=method, ipc=149, seed=0, profile="large")
    assert (config.experts.momentum, config.experts.decay, config.match.batch) == (0.9, "cosine", 64)


@pytest.mark.parametrize("student_momentum", [0.0, 0.5])
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, "none"), (0.9, "none"), (0.0, "cosine"), (0.9, "cosine")])
def test_a_student_starts_at_half_of_the_way_of_its_experts(momentum, decay, student_momentum):
    """Along one constant gradient, walked step by step as `experts.trajectory` walks."""
    config = configure("phantom", method="endpoint", ipc=1, seed=0, profile="tuned")
    config = config.changed(experts={"momentum": momentum, "decay": decay}, match={"student_momentum": student_momentum, "expert_epochs": 2})
    (first, last), epoch, total = config.match.start_epochs, 7, config.experts.epochs * 7
    before = now = 0.0
    walk = [now]
    for step in range(total):
        rate = config.experts.lr * (0.5 * (1 + math.cos(math.pi * step / total)) if decay == "cosine" else 1.0)
        before, now = now, now + rate + momentum * (now - before)
        walk.append(now)
    segments = [walk[(start + 2) * epoch] - walk[start * epoch] for start in range(first, last)]
    found = resolved(config, epoch).match
    velocity = walked = 0.0
    for _ in range(config.match.steps):
        velocity = student_momentum * velocity + 1.0
        walked += found.lr * velocity
    assert walked == pytest.approx(0.5 * sum(segments) / len(segments))
    if not (momentum or student_momentum or decay == "cosine"):
        assert found.lr == 0.5 * config.experts.lr * 2 * epoch / config.match.steps, "the same bits as ever"


def test_a_step_size_for_each_step_learns_as_fast_as_one_for_all():
    """With plain steps: N step sizes, each with its share of the gradient, move their mean as one would be moved."""
    one = configure("phantom", method="endpoint", ipc=1, seed=0, profile="fast").changed(match={"optimiser": "sgd", "lr_lr": None})
    each = one.changed(match={"step_sizes_of": "each"})
    gradients = torch.rand(one.match.steps, generator=generator(0, "gradients"))
    leaf = torch.zeros(1, 1)
    moved = []
    for config, lr, for_lr in ((one, torch.tensor(0.1), gradients.sum()), (each, torch.full((one.match.steps,), 0.1), gradients)):
        match = resolved(config, 10).match
        moved.append(sgd(leaf, lr, leaf, for_lr, Moments.none(leaf, lr), match, 0)[1].mean() - 0.1)
    assert moved[0] < 0 and torch.allclose(moved[0], moved[1])


def test_the_published_method_without_its_parts_keeps_the_rest_of_its_search():
    for dataset in ("pneumoniamnist", "pbc-28"):
        whole, bare = (configure(dataset, method=method, ipc=1, seed=0, profile="tuned") for method in ("published", "published-bare"))
        assert whole.match.shape_weight > 0 and whole.match.threshold and not bare.match.shape_weight and bare.match.threshold is None
        kept = {"threshold": whole.match.threshold, "shape_weight": whole.match.shape_weight, "threshold_growth": whole.match.threshold_growth}
        assert bare.changed(method="published", match={**kept, "threshold_every": whole.match.threshold_every}) == whole


@pytest.mark.parametrize("dataset", ["pneumoniamnist", "pbc-28"])
@pytest.mark.parametrize("method", ["growing", "datm"])
def test_a_window_that_is_to_grow_can(dataset, method):
    plain, found = (configure(dataset, method=name, ipc=10, seed=0, profile="tuned") for name in ("endpoint", method))
    first, last = found.match.start_epochs
    assert last - first > 1 and last - 1 + found.match.expert_epochs <= found.experts.epochs
    assert (found.match.steps, found.match.augmentation, found.experts) == (plain.match.steps, plain.match.augmentation, plain.experts)
    if plain.match.start_epochs[1] - plain.match.start_epochs[0] == 1:
        assert found.match.optimiser == "adam"
    else:
        assert found.changed(method="endpoint", match={"window": "fixed", "labels": "hard"}) == plain


def test_every_method_and_profile_is_described_in_a_line_of_its_own():
    assert tuple(DESCRIBED) == METHODS and tuple(PROFILES_DESCRIBED) == PROFILES == tuple(profiles.FILL)
    for known in (DESCRIBED, PROFILES_DESCRIBED):
        assert len(set(known.values())) == len(known) and all(words and "\n" not in words and not words.endswith(".") for words in known.values())
    with pytest.raises(KeyError):
        profiles.of_method("magic", configure("phantom", method="endpoint", ipc=1, seed=0, profile="smoke"))


MEANT = {
    "soft labels": lambda config: config.match.labels != "hard",
    "growing window": lambda config: config.match.window == "growing" and config.match.labels != "hard",
    "window of start epochs grows": lambda config: config.match.window == "growing" and config.match.labels == "hard",
    "VAE draws": lambda config: config.latent.rendering == "decoded" and config.latent.initial == "real" and not _extra(config),
    "half the resolution": lambda config: config.latent.rendering == "upsampled",
    "mask": lambda config: config.match.mask != "sticky" or config.match.threshold is not None,
    "shape potential": lambda config: config.match.shape_weight > 0,
    "velocity": lambda config: config.match.orders[:1] > (0.0,),
    "curvature": lambda config: config.match.orders[1:2] > (0.0,),
    "torsion": lambda config: config.match.orders[2:3] > (0.0,),
    "truncated": lambda config: config.match.gradient == "truncated",
    "inner step": lambda config: config.match.step_sizes_of == "each",
    "adaptive end": lambda config: config.match.end == "adaptive" and config.match.optimiser == "adam",
    "nearest to the expert's end": lambda config: config.match.end == "adaptive" and config.match.optimiser == "sgd",
    "no path": lambda config: config.match.position_weight == 0,
    "momentum 0.9": lambda config: config.experts.momentum == 0.9 and config.experts.decay == "cosine",
    "four epochs": lambda config: config.match.expert_epochs == 4 and config.match.steps == 40,
    "steps with momentum": lambda config: config.match.student_momentum > 0,
    "rises from 0": lambda config: config.match.orders_rise > 0,
    "weighs each class": lambda config: config.match.inner_loss == "prior",
    "balanced softmax": lambda config: config.match.inner_loss == "balanced_softmax",
    "rare": lambda config: config.match.class_power < 0,
    "flat minima": lambda config: config.experts.optimiser == "flat",
    "averaged": lambda config: config.experts.averaging > 0,
    "k-means": lambda config: config.latent.initial == "kmeans",
    "draws from the prior": lambda config: config.latent.initial == "prior",
    "prior of the VAE": lambda config: config.latent.prior_weight > 0,
    "angles between codes": lambda config: config.latent.shape_weight > 0,
}
"""Words of a description and the setting that they stand for."""


def _extra(config):
    return config.latent.prior_weight or config.latent.shape_weight or config.match.shape_weight


@pytest.mark.parametrize("words", MEANT)
def test_descriptions_say_what_methods_set(words):
    """The methods whose line has these words are those that set it over a profile that sets nothing of the kind."""
    set_by = {method for method in METHODS if MEANT[words](configure("phantom", method=method, ipc=1, seed=0, profile="fast"))}
    assert {method for method in METHODS if words in DESCRIBED[method].replace("without the mask", "")} == set_by


def test_settings_as_they_are_typed():
    assert changes_of("match.inner_loss=prior match.per_class=1,2 match.lr=0.01") == {"match": {"inner_loss": "prior", "per_class": (1, 2), "lr": 0.01}}
    assert changes_of(["latent.initial=noise", "match.orders=0,0,0,0.2", "match.orders_rise=0.5"]) == {
        "latent": {"initial": "noise"},
        "match": {"orders": (0, 0, 0, 0.2), "orders_rise": 0.5},
    }
    assert changes_of("match.orders=0.5, match.start_epochs=[0,3] match.threshold=null")["match"] == {
        "orders": (0.5,),
        "start_epochs": (0, 3),
        "threshold": None,
    }
    assert changes_of("") == {} and changes_of("experts.optimiser=a,b") == {"experts": {"optimiser": "a,b"}}
    assert configure("phantom", method="endpoint", ipc=1, seed=0).changed(**changes_of("match.per_class=1,2")).budget == (1, 2)
    for wrong in ("lr=1", "match.lr", "match.per_class=[1, 2]"):
        with pytest.raises(ConfigError, match=r"PART\.NAME=VALUE"):
            changes_of(wrong)
