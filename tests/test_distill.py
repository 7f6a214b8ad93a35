"""The outer loop: same bits, resumed bits, errors with advice."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from toy_sets import sealed

from hoptm import distill as module
from hoptm.arms import first_images
from hoptm.config import MatchConfig, configure, generator
from hoptm.data import load
from hoptm.distill import distill
from hoptm.errors import DataError, DivergedError, FileError
from hoptm.experts import experts
from hoptm.inner import Eager
from hoptm.networks import network
from hoptm.outer import Matching, Problem, State, draw_plan, matching, outer_step


def _config(method="published", seed=5, **match):
    config = configure("phantom:450", method=method, ipc=2, seed=seed, profile="smoke")
    return config.changed(match={"iterations": 6, "validate_every": 3, **match})


@pytest.fixture(scope="module")
def splits():
    return load("phantom:450")


@pytest.fixture(scope="module")
def paths(splits, tmp_path_factory):
    return experts(_config(), splits, cache=tmp_path_factory.mktemp("cache"), progress=False, processes=1)


def _run(splits, paths, config, **named):
    return distill(config, splits, paths, progress=False, **named)


@pytest.mark.parametrize("method", ["endpoint", "published"])
def test_one_seed_gives_one_result_and_another_seed_another(splits, paths, method):
    first, again = (_run(splits, paths, _config(method)) for _ in range(2))
    assert torch.equal(first.last.images, again.last.images) and first.last.lr == again.last.lr
    assert first.history == again.history
    assert not torch.equal(first.last.images, _run(splits, paths, _config(method, seed=6)).last.images)


def test_the_files_of_two_runs_are_the_same_bytes(splits, paths, tmp_path):
    for name in ("one", "two"):
        _run(splits, paths, _config()).synthetic.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_methods_start_from_the_same_images_batches_and_segments(splits, paths):
    end, published = (_run(splits, paths, _config(method, lr_images=0.0, lr_lr=0.0)) for method in ("endpoint", "published"))
    assert torch.equal(end.last.images, published.last.images)
    assert [look.start_epoch for look in end.history] == [look.start_epoch for look in published.history]
    assert set(end.history[0].terms) == {"end_point"} and set(published.history[0].terms) == {"end_point", "shape"}


def test_distilling_brings_the_student_closer(splits, paths):
    history = _run(splits, paths, _config("endpoint", iterations=40, validate_every=40)).history
    early, late = (sum(look.total for look in part) / len(part) for part in (history[:8], history[-8:]))
    assert late < 0.97 * early


def test_a_growing_window_opens_from_the_first_start_to_the_last():
    match = MatchConfig(start_epochs=(2, 8), window="growing", iterations=11)
    seen = [module._window(match, iteration) for iteration in range(11)]
    assert seen[0] == (2, 3) and seen[-1] == (2, 8) and seen[5] == (2, 5) and seen == sorted(seen)
    assert module._window(MatchConfig(start_epochs=(2, 8), iterations=11), 0) == (2, 8)


def test_a_growing_window_is_where_starts_are_drawn_from(splits, paths):
    early, late = (
        [look.start_epoch for look in _run(splits, paths, _config("growing", iterations=24, validate_every=24)).history][part]
        for part in (slice(8), slice(-8, None))
    )
    assert set(early) == {0} and set(late) == {0, 1}


@pytest.mark.parametrize(("megabytes", "kept"), [(0.001, "0 of 4"), (1000.0, "4 of 4")])
def test_steps_are_kept_as_memory_allows(splits, paths, capsys, megabytes, kept):
    plain = _run(splits, paths, _config("endpoint"))
    found = _run(splits, paths, _config("endpoint", memory_mb=megabytes))
    assert f"hoptm: {kept} inner steps are kept" in capsys.readouterr().err
    assert torch.allclose(found.last.images, plain.last.images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("match", "kept"), [({}, 0), ({"keep": 3}, 3), ({"memory_mb": 0.001}, 0), ({"memory_mb": 1000.0}, 4)])
def test_the_engine_is_asked_to_keep_what_the_settings_say(splits, paths, match, kept):
    asked = []

    class Counting(Eager):
        def first(self, *given, keep):
            asked.append(keep)
            return super().first(*given, keep=keep)

    config = _config("endpoint", iterations=2, validate_every=2, **match)
    _run(splits, paths, config, engine=lambda net, loss, where, kind: Counting(net, loss))
    asked = asked[-2 * config.match.steps :]  # a step may have been weighed before the run
    assert len(asked) == 2 * config.match.steps and sum(asked) == 2 * kept


@pytest.mark.parametrize("mask", ["quantile", "layers"])
def test_the_share_in_use_grows_through_the_run(splits, paths, mask):
    shares = [look.utilisation for look in _run(splits, paths, _config("endpoint", iterations=4, mask=mask, quantile=(0.3, 1.0))).history]
    assert shares == sorted(shares) and shares[-1] == 1.0 and shares[0] < 0.5
    if mask == "quantile":
        assert shares == pytest.approx([0.3, 0.5333, 0.7667, 1.0], abs=2e-3)


def test_weights_rise_through_the_run(splits, paths):
    history = _run(splits, paths, _config("endpoint", iterations=5, orders=(0.5,), orders_rise=0.5)).history
    weights = [(look.total - look.terms["end_point"]) / look.terms["velocity"] for look in history]
    assert weights == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5], abs=1e-4)


def test_a_mask_leaves_dead_parameters_out(splits, paths):
    config, masks = _config("endpoint", mask="fresh", threshold=1e9), []
    _run(splits, paths, config, callbacks=[lambda state, look: masks.append(state.mask)])
    alive = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size).alive
    assert not alive.all() and all(torch.equal(mask, alive) for mask in masks)


@pytest.mark.parametrize("loss", ["prior", "balanced_softmax"])
def test_the_inner_loss_of_the_settings_trains_the_student(splits, paths, loss):
    uneven = {"per_class": (1, *[2] * 8), "iterations": 2, "validate_every": 2}
    plain, weighed = (_run(splits, paths, _config("endpoint", **uneven, inner_loss=name)).last.images for name in ("cross_entropy", loss))
    assert not torch.allclose(plain, weighed, atol=1e-4)


def test_segments_share_the_memory(splits):
    config = _config("endpoint", memory_mb=1.0)
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    images, labels = torch.randn(18, 3, 28, 28, generator=generator(0, "memory")), torch.arange(18) % 9

    def kept(segments: int, megabytes: float) -> int:
        match = replace(config.match, segments=segments, memory_mb=megabytes)
        return module._kept_within(Problem(net, labels, match, matching(match)), images, 0, 28)

    budgets = [0.5 * number for number in range(1, 60)]
    assert {kept(1, budget) for budget in budgets} == {0, 1, 2, 3, 4} and any(kept(2, budget) < kept(1, budget) for budget in budgets)
    assert all(kept(2, 2 * budget) == kept(1, budget) for budget in budgets)


def test_a_run_stopped_at_any_iteration_resumes_to_the_same_bits(splits, paths, tmp_path):
    whole = _run(splits, paths, _config())

    class Stop(Exception):
        pass

    def stop_at(last, state, _look):
        if state.iteration == last:
            raise Stop

    for last in range(1, 7):
        state = tmp_path / f"state{last}"
        with pytest.raises(Stop):
            _run(splits, paths, _config(), resume=state, save_every=2, callbacks=[partial(stop_at, last)])
        resumed = _run(splits, paths, _config(), resume=state, save_every=2)
        assert torch.equal(resumed.last.images, whole.last.images)
        assert torch.equal(resumed.synthetic.images, whole.synthetic.images)
        assert resumed.history == whole.history and resumed.synthetic.info == whole.synthetic.info


def test_the_state_of_another_run_is_refused(splits, paths, tmp_path):
    state = tmp_path / "state"
    _run(splits, paths, _config(), resume=state)
    with pytest.raises(FileError, match="other settings"):
        _run(splits, paths, _config(seed=9), resume=state)
    with pytest.raises(FileError, match="first images"):
        _run(splits, paths, _config(), resume=state, chosen=first_images(_config(seed=9), splits))
    with pytest.raises(FileError, match="experts"):
        _run(splits, replace(paths, info={**paths.info, "seed": 77}), _config(), resume=state)
    with pytest.raises(FileError, match="data"):
        _run(replace(splits, info=replace(splits.info, checksum="sha256:other")), paths, _config(), resume=state)
    state.write_bytes(state.read_bytes()[:-30])
    with pytest.raises(FileError, match="state"):
        _run(splits, paths, _config(), resume=state)


def test_the_chosen_iterate_is_the_best_look(splits, paths):
    seen = {}

    def remember(state, _look):
        seen[state.iteration] = state.leaf

    done = _run(splits, paths, _config(), callbacks=[remember])
    looks = done.synthetic.info["selection"]
    assert [look["iteration"] for look in looks] == [3, 6]
    best = max(looks, key=lambda look: (look["auc"], -look["iteration"]))
    assert torch.equal(done.synthetic.images, seen[best["iteration"]])


def test_looks_train_under_the_augmentation_they_are_given(splits, paths):
    plain, same, other = (_run(splits, paths, _config("endpoint", look=look)) for look in (None, _config().match.augmentation, "none"))
    assert torch.equal(plain.last.images, other.last.images)
    seen = [done.synthetic.info["selection"] for done in (plain, same, other)]
    assert seen[0] == seen[1] != seen[2]


def test_the_test_split_is_never_read(splits, paths):
    done = distill(_config(), sealed(splits, "test"), paths, progress=False)
    assert torch.equal(done.last.images, _run(splits, paths, _config()).last.images)


def test_a_path_loss_of_ones_own_in_ten_lines(splits, paths):
    def velocity(student, expert):
        return 1 - torch.cosine_similarity(student[-1] - student[0], expert[-1] - expert[0], dim=0)

    config = _config("endpoint", iterations=30)
    own = Matching((0, config.match.steps), lambda start: (start, start + 1), lambda mask: {"velocity": (1.0, velocity)})
    history = _run(splits, paths, config, compare=own).history
    assert set(history[0].terms) == {"velocity"}
    assert sum(look.total for look in history[-6:]) < sum(look.total for look in history[:6])


def test_an_empty_mask_moves_nothing_and_is_no_nan(splits, paths):
    done = _run(splits, paths, _config(threshold=1e-300, shape_weight=0.0))
    assert {look.utilisation for look in done.history} == {0.0}
    assert {look.total for look in done.history} == {0.0}
    first = _run(splits, paths, _config("endpoint", lr_images=0.0, lr_lr=0.0))
    assert torch.equal(done.last.images, first.last.images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr_lr": 1.0}, "learned step size"),
        ({"lr": 10.0, "lr_lr": 0.0, "steps": 30}, "inner step|outer iteration"),
        ({"lr_images": 1e6, "momentum": 0.99}, "inner step|outer iteration|learned step size"),
    ],
)
def test_divergence_is_named_with_advice(splits, paths, changes, words):
    with pytest.raises(DivergedError, match=words) as caught:
        _run(splits, paths, _config("endpoint", **{"iterations": 60, "validate_every": 60, **changes}))
    assert "Lower" in str(caught.value)


def test_too_few_images_in_a_class(splits, paths):
    with pytest.raises(DataError, match="class"):
        _run(splits, paths, _config().changed(ipc=400))


def test_the_published_middle():
    for length, start, middle in ((2, 0, 1), (2, 3, 4), (3, 0, 1), (3, 1, 2)):
        compare = matching(MatchConfig(steps=7, expert_epochs=length, shape_weight=0.5, threshold=1e-6))
        assert compare.student_steps == (0, 3, 7)
        assert compare.expert_epochs(start) == (start, middle, start + length)
    assert matching(MatchConfig(steps=7)).student_steps == (0, 7)


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (5, 10), (6, 3), (1, 1)])
def test_a_plan_shows_every_image_before_any_again(count, batch):
    plan = draw_plan(count, 8, MatchConfig(steps=9, batch=batch), generator(0, "plan"))
    assert plan.steps == 9 and len(plan.draws) == 9
    shown = torch.cat(plan.batches).tolist()
    for first in range(0, len(shown) - count + 1, count):
        assert sorted(shown[first : first + count]) == list(range(count))
    assert max(len(one) for one in plan.batches) == min(count, batch)


def test_killed_three_times_and_resumed_gives_the_same_bytes(tmp_path):
    """SIGKILL at three moments, then the file is compared with that of a run left alone."""
    words = [
        sys.executable, "-m", "hoptm", "distill", "--dataset", "phantom:450", "--ipc", "1", "--method", "published", "--profile", "smoke", "--seed", "3",
        "--set", "match.iterations=60", "--set", "match.validate_every=20", "--out",
    ]  # fmt: skip
    alone, killed = tmp_path / "alone.safetensors", tmp_path / "killed.safetensors"
    subprocess.run([*words, str(alone)], check=True, capture_output=True)
    state = killed.with_name("killed.safetensors.state")
    wait = torch.rand(3, generator=generator(int(time.time()), "moments")).tolist()
    kills = 0
    for moment in wait:
        process = subprocess.Popen([*words, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = state.stat().st_mtime_ns if state.exists() else None
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(0.3 * moment)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if killed.exists():
            break
    assert kills >= 1, "no run was killed before it had finished"
    subprocess.run([*words, str(killed)], check=True, capture_output=True)
    assert killed.read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.safetensors", "killed.safetensors"]


def test_a_stored_set_is_used_only_for_its_own_data(splits, paths, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "cache"))
    config = _config().changed(match={"iterations": 1})
    made = module.stored_or_made(config, splits, tmp_path)
    assert "made now" in capsys.readouterr().out
    made.save(tmp_path / module.stored_name(config))
    assert torch.equal(module.stored_or_made(config, splits, tmp_path).images, made.images)
    assert "stored set" in capsys.readouterr().out.splitlines()[0][:10]
    other = replace(splits, info=replace(splits.info, checksum="sha256:0"))
    for changed, data in ((config, other), (config.changed(match={"momentum": 0.4}), splits)):
        module.stored_or_made(changed, data, tmp_path)
        assert "made now" in capsys.readouterr().out


def test_the_outer_step_does_not_change_its_inputs(splits, paths):
    config = _config()
    net = network(config.network, channels=3, classes=9, size=28)
    images = torch.randn(9, 3, 28, 28, generator=generator(0, "images"))
    state = State.first(images.clone(), 0.02)
    plan = draw_plan(9, 28, config.match, generator(0, "plan"))
    compare = matching(config.match)
    steps = [paths.steps[0], paths.steps[0], paths.steps[-1]]
    problem = Problem(net, torch.arange(9), replace(config.match, lr=0.02, lr_lr=1e-8), compare)
    outer_step(state, problem, paths.points(0, steps), plan)
    assert torch.equal(state.leaf, images) and state.mask is None and float(state.lr) == pytest.approx(0.02)
