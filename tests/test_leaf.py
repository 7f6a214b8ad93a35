"""What is learned: pixels, fewer pixels, codes; and a run on each."""

import pytest
import torch

from hoptm import path_losses, unroll
from hoptm.config import METHODS, MatchConfig, configure, generator
from hoptm.data import load, standardisation
from hoptm.distill import distill
from hoptm.errors import ConfigError
from hoptm.experts import experts
from hoptm.leaf import MEAN_NOISE, STARTS, leaf
from hoptm.networks import network
from hoptm.outer import Problem, State, draw_plan, matching, outer_step
from hoptm.synthetic import SyntheticSet, initialise
from hoptm.teachers import teacher_labels


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("HOPTM_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def splits():
    return load("phantom:450")


def _config(method="latent", **latent):
    config = configure("phantom:450", method=method, ipc=2, seed=3, profile="smoke", match={"iterations": 4, "validate_every": 2})
    return config.changed(latent={"dims": 6, "steps": 30, **latent})


def _net(config, splits):
    return network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)


class Stop(Exception):
    pass


def stop_at_three(state, _look):
    if state.iteration == 3:
        raise Stop


def _leaf(config, splits):
    chosen = initialise(splits.train, splits.classes, config.ipc, generator(config.seed, "initial images"))
    return leaf(config, splits, chosen, standardisation(splits.train))


def test_where_codes_start(splits):
    starts = {name: _leaf(_config(initial=name), splits).start for name in ("real", "kmeans", "prior")}
    assert {tuple(start.shape) for start in starts.values()} == {(18, 6)}
    assert not torch.equal(starts["real"], starts["kmeans"]) and not torch.equal(starts["real"], starts["prior"])
    assert torch.equal(starts["prior"], _leaf(_config(initial="prior"), splits).start)
    assert _leaf(_config("endpoint", rendering="upsampled"), splits).start.shape == (18, 3, 14, 14)


def test_where_pixels_start(splits):
    measured, train = standardisation(splits.train), splits.train
    starts = {name: _leaf(_config("endpoint", initial=name), splits).start for name in STARTS}
    chosen = initialise(train, splits.classes, 2, generator(3, "initial images"))
    assert torch.equal(starts["real"], measured.apply(train.images[chosen]))
    for name, start in starts.items():
        assert start.shape == (18, 3, 28, 28) and start.isfinite().all()
        assert torch.equal(start, _leaf(_config("endpoint", initial=name), splits).start), name
    means = torch.stack([measured.apply(train.images[train.labels == label]).mean(dim=0) for label in train.labels[chosen]])
    away = starts["mean"] - means
    assert away.std().item() == pytest.approx(MEAN_NOISE, rel=0.05) and not torch.equal(starts["mean"][0], starts["mean"][1])
    assert starts["noise"].mean().abs() < 0.03 and starts["noise"].std().item() == pytest.approx(1, abs=0.03)


def test_noise_and_decoded_starts_hold_no_image_of_train(splits):
    everything = standardisation(splits.train).apply(splits.train.images).flatten(1)
    among = torch.cdist(everything, everything).fill_diagonal_(torch.inf).min()
    for name in ("noise", "vae"):
        start = _leaf(_config("endpoint", initial=name), splits).start.flatten(1)
        assert torch.cdist(start, everything).min() > 0.5 * among, name
    real = _leaf(_config("endpoint", initial="real"), splits).start.flatten(1)
    assert torch.cdist(real, everything).min(dim=1).values.max() < 0.1


def test_penalties_pull_codes_and_are_drawn_anew(splits):
    plain, both = _leaf(_config(), splits), _leaf(_config(prior_weight=0.5, shape_weight=2.0), splits)
    assert plain.penalty is None and both.penalty is not None
    codes = both.start.clone().requires_grad_()
    first, again, other = (both.penalty(generator(0, "penalty", word))(codes) for word in ("a", "a", "b"))
    assert float(first.detach()) == float(again.detach()) != float(other.detach())
    assert float(torch.autograd.grad(first, codes)[0].abs().max()) > 0
    prior = _leaf(_config(prior_weight=0.5), splits)
    assert prior.penalty is not None
    assert float(prior.penalty(generator(0, "x"))(codes).detach()) == pytest.approx(0.25 * float(codes.detach().square().mean()), rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"prior_weight": 0.1, "shape_weight": 0.1, "initial": "kmeans"}, {"rendering": "upsampled"}])
def test_a_run_on_codes_resumes_to_the_same_file(splits, tmp_path, changes):
    config = _config(**changes)
    paths = experts(config, splits, progress=False, processes=1)
    whole = distill(config, splits, paths, progress=False)
    assert whole.last.codes is not None and torch.allclose(whole.last.images, whole.last.rendering(whole.last.codes), atol=1e-5)
    moved = (whole.last.codes - _leaf(config, splits).start).abs().max()
    assert float(moved) > 0

    with pytest.raises(Stop):
        distill(config, splits, paths, progress=False, resume=tmp_path / "state", save_every=1, callbacks=[stop_at_three])
    resumed = distill(config, splits, paths, progress=False, resume=tmp_path / "state")
    for name, made in (("whole", whole), ("resumed", resumed)):
        made.synthetic.save(tmp_path / name)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
    loaded = SyntheticSet.load(tmp_path / "whole")
    assert loaded.codes is not None and torch.equal(loaded.codes, whole.synthetic.codes)


def test_settings_that_fit_no_rendering():
    with pytest.raises(ConfigError, match=r"with latent.rendering"):
        _config("endpoint", initial="kmeans")
    with pytest.raises(ConfigError, match=r"latent.rendering is"):
        _config("endpoint", rendering="vae")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_by_its_name(splits, method):
    config = configure("phantom:450", method=method, ipc=1, seed=0, profile="smoke", latent={"dims": 6, "steps": 30})
    if method in ("momentum-experts", "long"):  # they go ten times as far, and the plain optimiser then steps below 0
        config = config.changed(match={"optimiser": "adam", "lr_images": 0.05})
    done = distill(config, splits, experts(config, splits, progress=False, processes=1), progress=False)
    assert len(done.history) == config.match.iterations and done.synthetic.info["method"] == method
    assert all(abs(look.total) < 1e6 for look in done.history)


def test_labels_of_a_teacher_and_labels_that_are_learned(splits, tmp_path):
    hard, teacher, learned = (
        configure("phantom:450", method="endpoint", ipc=2, seed=3, profile="smoke", match={"labels": kind, "iterations": 4, "validate_every": 2})
        for kind in ("hard", "teacher", "learned")
    )
    paths = experts(hard, splits, progress=False, processes=1)
    sets = {config.match.labels: distill(config, splits, paths, progress=False).last for config in (hard, teacher, learned)}
    assert sets["hard"].soft is None
    words = teacher_labels(_net(hard, splits), paths, _leaf(hard, splits).start)
    assert torch.equal(sets["teacher"].soft, words) and torch.allclose(words.sum(dim=1), torch.ones(len(words)))
    assert not torch.allclose(sets["learned"].soft, words, atol=1e-6) and torch.allclose(sets["learned"].soft.sum(dim=1), torch.ones(len(words)))
    assert all(torch.equal(made.labels, sets["hard"].labels) for made in sets.values())

    with pytest.raises(Stop):
        distill(learned, splits, paths, progress=False, resume=tmp_path / "state", save_every=1, callbacks=[stop_at_three])
    resumed = distill(learned, splits, paths, progress=False, resume=tmp_path / "state").last
    assert torch.equal(resumed.soft, sets["learned"].soft) and torch.equal(resumed.images, sets["learned"].images)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_learned_labels_follow_the_engines_gradient(splits, optimiser):
    """The gradient is that of plain autograd, and a step is Adam's whatever moves the images."""
    net = _net(_config(), splits)
    chance = generator(0, "labels")
    images, logits = torch.randn(6, 3, 28, 28, generator=chance), torch.randn(6, 9, generator=chance)
    match = MatchConfig(steps=3, lr=0.02, lr_lr=1e-8, lr_images=0.0, lr_labels=0.1, momentum=0.0, labels="learned", batch=6, optimiser=optimiser)
    start = net.initial(chance)
    expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance)])
    plan = draw_plan(6, 28, match, chance)
    problem = Problem(net, logits.softmax(dim=1), match, matching(match))
    state, _, _ = outer_step(State.first(images, 0.02, logits), problem, expert, plan)
    leaf = logits.clone().requires_grad_()
    targets = leaf.softmax(dim=1)
    found = unroll.path_gradient(net, path_losses.end_point, expert, images, targets.detach(), torch.tensor(0.02), plan, (0, 3))
    (targets * found.targets).sum().backward()
    assert torch.allclose(state.label_moments.leaf, 0.5 * leaf.grad, rtol=1e-3, atol=1e-7)
    assert torch.allclose(state.logits, logits - 0.1 * leaf.grad.sign(), atol=1e-5)


def test_one_part_more_is_one_setting_more():
    """What a single part changes against the end point, and nothing else."""
    plain = configure("phantom:450", method="endpoint", ipc=2, seed=3, profile="fast").as_dict()
    changes = {
        "fresh": {"match.threshold": 5e-9, "match.mask": "fresh"},
        "quantile": {"match.mask": "quantile", "match.quantile": [0.3, 1.0]},
        "layers": {"match.mask": "layers", "match.quantile": [0.3, 1.0]},
        "growing": {"match.window": "growing"},
        "each-step": {"match.step_sizes_of": "each"},
        "momentum-experts": {"experts.momentum": 0.9, "experts.decay": "cosine"},
        "long": {
            "experts.momentum": 0.9,
            "experts.decay": "cosine",
            "match.expert_epochs": 4,
            "match.steps": 2 * plain["match"]["steps"],
            "match.start_epochs": [0, 3],
        },
        "student-momentum": {"match.student_momentum": 0.5},
        "with-outcome": {"match.outcome_weight": 0.3},
        "prior": {"match.inner_loss": "prior"},
        "balanced": {"match.inner_loss": "balanced_softmax"},
        "budgets": {"match.class_power": -0.25},
        "aware": {"match.class_power": -0.25, "match.inner_loss": "balanced_softmax"},
        "averaged-experts": {"experts.averaging": 0.9},
        "teacher": {"match.labels": "teacher"},
        "learned": {"match.labels": "learned"},
        "latent-path": {"match.shape_weight": 0.5, "latent.rendering": "decoded"},
        "latent-kmeans": {"latent.initial": "kmeans", "latent.rendering": "decoded"},
        "latent-draws": {"latent.initial": "prior", "latent.rendering": "decoded"},
    }
    for method, wanted in changes.items():
        found = configure("phantom:450", method=method, ipc=2, seed=3, profile="fast").as_dict()
        differs = {
            f"{part}.{name}": value
            for part in ("network", "experts", "match", "evaluation", "latent")
            for name, value in found[part].items()
            if value != plain[part][name]
        }
        assert differs == wanted, method


def test_a_step_size_for_each_inner_step(splits, tmp_path):
    config = configure(
        "phantom:450", method="each-step", ipc=2, seed=3, profile="smoke", match={"optimiser": "adam", "lr_images": 0.05, "iterations": 4, "validate_every": 2}
    )
    paths = experts(config, splits, progress=False, processes=1)
    seen = []
    made = distill(config, splits, paths, progress=False, callbacks=[lambda state, look: seen.append((state.lr, look.lr))])
    assert all(lr.shape == (config.match.steps,) for lr, _ in seen)
    assert len({round(float(rate), 9) for rate in seen[-1][0]}) == config.match.steps  # each went its own way
    assert made.last.lr == pytest.approx(float(seen[-1][0].mean())) and seen[-1][1] == pytest.approx(float(seen[-2][0].mean()))

    with pytest.raises(Stop):
        distill(config, splits, paths, progress=False, resume=tmp_path / "state", save_every=1, callbacks=[stop_at_three])
    assert torch.equal(distill(config, splits, paths, progress=False, resume=tmp_path / "state").last.images, made.last.images)
    with pytest.raises(ConfigError, match="a step size for each inner step needs the exact gradient"):
        config.changed(match={"gradient": "truncated"})


def test_step_sizes_of_their_own_follow_the_engines_gradient(splits):
    net = _net(_config(), splits)
    chance = generator(0, "rates")
    images, labels = torch.randn(6, 3, 28, 28, generator=chance), torch.arange(6)
    match = MatchConfig(steps=3, lr=0.02, lr_lr=1e-6, lr_images=0.0, momentum=0.0, batch=6, step_sizes_of="each")
    start = net.initial(chance)
    expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance)])
    plan = draw_plan(6, 28, match, chance)
    state, _, _ = outer_step(State.first(images, 0.02, each=3), Problem(net, labels, match, matching(match)), expert, plan)
    found = unroll.path_gradient(net, path_losses.end_point, expert, images, labels, torch.full((3,), 0.02), plan, (0, 3))
    assert torch.allclose(state.lr, 0.02 - 1e-6 * found.lr, rtol=1e-5) and float(found.lr.abs().min()) > 0
