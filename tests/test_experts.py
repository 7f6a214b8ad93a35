"""Experts: the steps against independent ones, the bits against other runs, the cache against rivals, kills and damage."""

import dataclasses
import errno
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import nn

from hoptm import config, data, experts, files, trajectories
from hoptm.config import ExpertConfig
from hoptm.data import Info, Splits, Train, Validation
from hoptm.errors import ConfigError, DivergedError, FileError
from hoptm.networks import network
from hoptm.parameters import unflatten

SGD = ExpertConfig(optimiser="sgd", batch=32, lr=0.1, augmentation="none")
HELPER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import test_experts as here
trained = []
original = here.experts.train
here.experts.train = lambda *rest: (trained.append(1), original(*rest))[1]
cache, processes = Path(sys.argv[1]), int(sys.argv[2])
here.experts.experts(here.settings(), here.toy(), cache=cache, progress=False, processes=processes)
print(len(trained))
"""
"""A script without the guard on `__main__`, as a reader would write it."""


def toy(seed: int = 0, count: int = 200) -> Splits:
    chance = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 16, 16), generator=chance, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 1, :, :8] //= 2
    info = Info(
        name="toy",
        title="Toy",
        class_names=("a", "b"),
        task="binary-class",
        licence="none",
        citation="none",
        checksum="sha256:0",
        note="",
        augmentations=("none", "dsa"),
    )
    return Splits(Train(images, labels), Validation(images[:20], labels[:20]), data.Test(images[:20], labels[:20]), info)


def settings(**changes) -> config.Config:
    """Three experts of 7 steps an epoch for 12 epochs, some tenths of a second each."""
    changes = {"experts": {"count": 3, "batch": 32, "epochs": 12}, "match": {"start_epochs": (0, 12)}, **changes}
    return config.configure("toy", method="endpoint", ipc=1, seed=0, profile="smoke", **changes)


def quick(**changes) -> config.Config:
    return settings(**{"experts": {"count": 2, "batch": 64, "epochs": 2}, "match": {"start_epochs": (0, 2)}, **changes})


def net_of(chosen: config.Config):
    return network(chosen.network, channels=1, classes=2, size=16)


def standard_images(splits: Splits) -> torch.Tensor:
    return data.standardisation(splits.train).apply(splits.train.images)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("expert_*")}


def test_plain_steps_equal_torch():
    splits, net = toy(), net_of(quick())
    images, labels = standard_images(splits), splits.train.labels
    kept = experts.train(net, images, labels, SGD, [0, 3, 9], torch.Generator().manual_seed(5))

    chance = torch.Generator().manual_seed(5)
    parts = [nn.Parameter(value.clone()) for value in unflatten(net.initial(chance), net.layout).values()]
    optimiser, found, step = torch.optim.SGD(parts, lr=0.1), {0: torch.cat([part.detach().reshape(-1) for part in parts])}, 0
    while step < 9:
        for batch in torch.randperm(len(labels), generator=chance).split(32):
            experts.augment.draw("none", len(batch), 16, chance)
            optimiser.zero_grad()
            F.cross_entropy(net(torch.cat([part.reshape(-1) for part in parts]), images[batch]), labels[batch]).backward()
            optimiser.step()
            step += 1
            found[step] = torch.cat([part.detach().reshape(-1) for part in parts])
    assert list(kept) == [0, 3, 9]
    for now, theta in kept.items():
        assert torch.allclose(theta, found[now], rtol=0, atol=1e-6), now
    assert (kept[9] - kept[0]).norm() > 0.1


def test_momentum_and_decay_equal_torch_while_the_step_size_stays():
    """The heavy ball and momentum SGD are the same path at a constant step size."""
    splits, net = toy(), net_of(quick())
    images, labels = standard_images(splits), splits.train.labels
    heavy = dataclasses.replace(SGD, lr=0.02, momentum=0.9, weight_decay=1e-2)
    kept = experts.train(net, images, labels, heavy, [9], torch.Generator().manual_seed(5))
    chance = torch.Generator().manual_seed(5)
    theta = net.initial(chance).requires_grad_()
    optimiser = torch.optim.SGD([theta], lr=0.02, momentum=0.9, weight_decay=1e-2)
    orders = (batch for _ in range(2) for batch in torch.randperm(len(labels), generator=chance).split(32))
    for batch in itertools.islice(orders, 9):
        experts.augment.draw("none", len(batch), 16, chance)
        (theta.grad,) = torch.autograd.grad(F.cross_entropy(net(theta, images[batch]), labels[batch]), theta)
        optimiser.step()
    assert torch.allclose(kept[9], theta.detach(), rtol=0, atol=1e-5)


def test_a_cosine_ends_at_rest_and_an_average_lags_behind():
    splits, net = toy(), net_of(quick())
    images, labels = standard_images(splits), splits.train.labels
    plain, cosine, mean = (
        experts.train(net, images, labels, dataclasses.replace(SGD, epochs=4, **changes), range(29), torch.Generator().manual_seed(5))
        for changes in ({}, {"decay": "cosine"}, {"averaging": 0.9})
    )
    lengths = [float((kept[28] - kept[27]).norm() / (kept[1] - kept[0]).norm()) for kept in (plain, cosine)]
    assert lengths[1] < 0.02 * lengths[0]
    assert torch.equal(plain[0], mean[0]) and float((mean[28] - mean[0]).norm()) < float((plain[28] - plain[0]).norm())
    expected = plain[0]
    for now in range(28):
        expected = torch.lerp(plain[now + 1], expected, min(0.9, (1 + now) / (10 + now)))
    assert torch.allclose(mean[28], expected, atol=1e-6)


def slow_flat_step(parts: list[torch.Tensor], loss, lr: float, rho: float, alpha: float) -> list[torch.Tensor]:
    """The flat-minimum step from its equations, tensor by tensor, with the angle written as a cosine."""

    def gradients(at: list[torch.Tensor]) -> list[torch.Tensor]:
        leaves = [part.clone().requires_grad_() for part in at]
        loss(leaves).backward()
        return [leaf.grad for leaf in leaves]

    def norm(tensors: list[torch.Tensor]) -> float:
        return math.sqrt(sum(float((tensor**2).sum()) for tensor in tensors))

    g = gradients(parts)
    scale = rho / (norm([part.abs() * one for part, one in zip(parts, g, strict=True)]) + 1e-12)
    h = gradients([part + part**2 * one * scale for part, one in zip(parts, g, strict=True)])
    cosine = sum(float((one * two).sum()) for one, two in zip(g, h, strict=True)) / (norm(g) * norm(h))
    return [part - lr * (two - alpha * (one - cosine * norm(g) * two / norm(h))) for part, one, two in zip(parts, g, h, strict=True)]


@pytest.mark.parametrize(("rho", "alpha"), [(0.01, 0.3), (0.5, 0.9), (0.2, 0.0)])
def test_flat_steps_equal_a_slow_version(rho, alpha):
    net, chosen = net_of(quick()), ExpertConfig(optimiser="flat", lr=0.2, rho=rho, sharpness=alpha)
    images, labels = standard_images(toy()).double()[:24], toy().train.labels[:24]

    def gradient(theta):
        leaf = theta.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(net(leaf, images), labels), leaf)[0]

    theta = net.initial(torch.Generator().manual_seed(1)).double()
    parts = [part.clone() for part in unflatten(theta, net.layout).values()]
    plain = theta
    for _ in range(4):
        theta, plain = experts.flat(gradient, theta, chosen), experts.sgd(gradient, plain, chosen)
        parts = slow_flat_step(parts, lambda at: F.cross_entropy(net(torch.cat([one.reshape(-1) for one in at]), images), labels), 0.2, rho, alpha)
    assert torch.allclose(theta, torch.cat([part.reshape(-1) for part in parts]), rtol=1e-9, atol=1e-12)
    assert (theta - plain).abs().max() > 1e-6


def test_the_flat_step_without_its_terms_is_the_plain_one():
    theta, chosen = torch.tensor([0.3, -2.0, 0.0]), ExpertConfig(rho=1e-12, sharpness=0.0, lr=0.1)
    gradient = lambda at: at**3 + 1  # noqa: E731
    assert torch.allclose(experts.flat(gradient, theta, chosen), experts.sgd(gradient, theta, chosen), rtol=1e-6)
    assert torch.equal(experts.flat(torch.zeros_like, theta, chosen), theta)  # no NaN where all gradients vanish


def test_checkpoints_do_not_share_memory(monkeypatch):
    """On a CPU a checkpoint that aliases the live weights becomes the last state."""

    def in_place(gradient, theta, chosen):
        return theta.sub_(chosen.lr * gradient(theta.clone()))

    splits, net = toy(), net_of(quick())
    rest = (net, standard_images(splits), splits.train.labels, SGD, [0, 2, 4])
    expected = experts.train(*rest, torch.Generator().manual_seed(0))
    monkeypatch.setitem(experts.OPTIMISERS, "sgd", in_place)
    kept = experts.train(*rest, torch.Generator().manual_seed(0))
    assert all(torch.equal(kept[step], expected[step]) for step in (0, 2, 4)) and not torch.equal(kept[0], kept[4])
    kept[0].zero_()
    assert kept[2].norm() > 0


def test_every_image_once_an_epoch_and_no_step_too_many(monkeypatch):
    seen, draws = [], []
    original = experts.augment.draw
    monkeypatch.setattr(experts.augment, "draw", lambda name, count, size, chance: (draws.append((name, count, size)), original(name, count, size, chance))[1])
    monkeypatch.setitem(experts.OPTIMISERS, "sgd", lambda gradient, theta, chosen: (seen.append(1), theta)[1])
    chosen = ExpertConfig(optimiser="sgd", batch=64, augmentation="dsa")
    splits = toy()
    experts.train(net_of(quick()), standard_images(splits), splits.train.labels, chosen, [0, 5], torch.Generator())
    assert [count for _, count, _ in draws] == [64, 64, 64, 8, 64] and len(seen) == 5
    assert {(name, size) for name, _, size in draws} == {("dsa", 16)}
    batches = experts._batches(200, 64, torch.Generator().manual_seed(3))
    first, second = (torch.cat([next(batches) for _ in range(4)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(200)) and not torch.equal(first, second)


@pytest.mark.parametrize(
    ("keep", "chosen", "words"),
    [([], SGD, "one or more"), ([-1, 2], SGD, "0 or more"), ([1], ExpertConfig(optimiser="adam"), "no optimiser 'adam'.*sgd, flat")],
)
def test_settings_that_make_no_expert(keep, chosen, words):
    splits = toy()
    with pytest.raises(ConfigError, match=words):
        experts.train(net_of(quick()), standard_images(splits), splits.train.labels, chosen, keep, torch.Generator())


def test_divergence_is_named_with_advice():
    splits = toy()
    with pytest.raises(DivergedError, match=r"optimiser step \d+ of 8. Lower experts.lr \(now 1e\+30\)"):
        experts.train(
            net_of(quick()),
            standard_images(splits),
            splits.train.labels,
            ExpertConfig(optimiser="sgd", lr=1e30, batch=32, augmentation="none"),
            [8],
            torch.Generator(),
        )


def test_steps_an_epoch():
    assert [experts.steps_per_epoch(count, 256) for count in (1, 256, 257, 4708)] == [1, 1, 2, 19]


@pytest.mark.parametrize(("window", "length"), [((0, 4), 2), ((0, 1), 1), ((2, 5), 3), ((20, 30), 1)])
def test_what_is_kept_is_what_a_run_draws(window, length):
    from hoptm.outer import matching  # here, so that the scripts below start sooner

    for method in ("endpoint", "published"):
        chosen = config.configure("toy", method=method, ipc=1, seed=0, profile="paper", match={"start_epochs": window, "expert_epochs": length})
        kept = experts.reachable_steps(chosen, 1000)
        assert kept == experts.reachable_steps(chosen.changed(experts={"epochs": 90}), 1000) and list(kept) == sorted(set(kept))
        drawn = {epoch for start in range(*window) for epoch in matching(chosen.match).expert_epochs(start)}
        assert {4 * epoch for epoch in drawn} <= set(kept)
    assert {4 * epoch for epoch in drawn} == set(kept)  # the published method reads them all


@pytest.mark.parametrize("change", [{"waypoints": 5, "orders": (1.0,)}, {"orders": (0.1, 0.1, 0.1, 0.1)}, {"waypoints": 3, "between_weight": 1.0}])
def test_more_waypoints_are_kept_at_one_checkpoint_an_epoch(change):
    from hoptm.outer import matching

    chosen = config.configure("toy", method="endpoint", ipc=1, seed=0, profile="paper")
    chosen = chosen.changed(experts={"per_epoch": 1}, match={"start_epochs": (1, 3), "expert_epochs": 4, **change})
    drawn = {4 * epoch for start in (1, 2) for epoch in matching(chosen.match).expert_epochs(start)}
    assert drawn <= set(experts.reachable_steps(chosen, 1000))


def test_several_checkpoints_an_epoch():
    chosen = config.configure("toy", method="curvature", ipc=1, seed=0, profile="fast", match={"start_epochs": (1, 3)}, experts={"epochs": 4})
    assert chosen.experts.per_epoch == 2
    assert experts.reachable_steps(chosen, 1000) == (0, 2, 4, 6, 8, 10, 12, 14, 16)
    assert experts.reachable_steps(chosen, 1200) == (0, 2, 5, 8, 10, 12, 15, 18, 20), "to the nearest step; halves to the even one"
    assert experts.reachable_steps(chosen.changed(experts={"per_epoch": 4}), 300) == (0, 1, 2, 3, 4, 5, 6, 7, 8), "a step is kept once"


def test_experts_are_stored_once_and_found_again(tmp_path, monkeypatch):
    chosen, splits = quick(), toy()
    made = experts.experts(chosen, splits, cache=tmp_path, progress=False)
    assert made.count == 2 and made.steps == (0, 4, 8) and made.folder.parent == tmp_path / "experts"
    assert made.info["steps_per_epoch"] == 4 and made.info["dataset"]["name"] == "toy" and made.info["network"]["size"] == 16
    assert made.parameters == net_of(chosen).layout.size and torch.get_num_threads() == 1
    expected = experts.train(net_of(chosen), standard_images(splits), splits.train.labels, chosen.experts, made.steps, config.generator(0, "experts", 1))
    assert torch.equal(made.points(1, made.steps), torch.stack([expected[step] for step in made.steps]))
    assert not torch.equal(made.points(0, [0]), made.points(1, [0]))
    assert trajectories.verify(made.folder) == made

    monkeypatch.setattr(experts, "train", None)  # nothing is trained again
    for other in (
        chosen,
        chosen.changed(method="published"),
        chosen.changed(ipc=5),
        chosen.changed(experts={"count": 1}),
        chosen.changed(experts={"rho": 0.5}),
    ):
        assert experts.experts(other, splits, cache=tmp_path, progress=False).folder == made.folder


def test_whatever_shapes_an_expert_names_another_folder(tmp_path):
    base = quick(experts={"count": 1, "batch": 64, "epochs": 2, "optimiser": "flat"})
    parts = [("experts", "lr", 0.02), ("experts", "rho", 0.02), ("experts", "augmentation", "none"), ("network", "width", 9), ("match", "start_epochs", (0, 1))]
    others = [base, base.changed(seed=1), *(base.changed(**{part: {name: value}}) for part, name, value in parts)]
    folders = [experts.experts(other, toy(), cache=tmp_path, progress=False).folder for other in others]
    folders.append(experts.experts(base, toy(seed=1), cache=tmp_path, progress=False).folder)
    assert len(set(folders)) == len(folders)


def test_disk_is_predicted(tmp_path):
    for chosen in (quick(), quick(network={"width": 32})):
        made = experts.experts(chosen, toy(), cache=tmp_path, progress=False)
        real = sum(path.stat().st_size for path in made.folder.iterdir())
        assert 0.9 * real < experts.estimate_bytes(chosen, made.parameters, 200) < 1.5 * real


def test_threads_are_given_back(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    experts.experts(quick(), toy(), cache=tmp_path, progress=False, processes=1)
    assert asked == [1, 7]


def test_a_full_disk_leaves_nothing_but_what_was_finished(tmp_path, monkeypatch):
    original, calls = files.save_file, []

    def full(*rest, **named):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(*rest, **named)

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(FileError, match="No space left"):
        experts.experts(quick(), toy(), cache=tmp_path, progress=False)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == ["expert_000.safetensors"]
    assert experts.experts(quick(), toy(), cache=tmp_path, progress=False).count == 2 and len(calls) == 3


@pytest.mark.parametrize("damage", ["truncated", "another network", "another seed"])
def test_a_bad_file_in_the_cache_is_refused(tmp_path, damage):
    made = experts.experts(quick(), toy(), cache=tmp_path, progress=False)
    path = trajectories.file_of(made.folder, 1)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        changes = {"network": {"width": 5}} if damage == "another network" else {"seed": 1}
        other = experts.experts(quick().changed(**changes), toy(), cache=tmp_path, progress=False)
        path.write_bytes(trajectories.file_of(other.folder, 1).read_bytes())
    words = {"truncated": "not a whole safetensors file", "another network": "another network.*width 5", "another seed": "other data or settings"}
    with pytest.raises(FileError, match=words[damage]):
        experts.experts(quick(), toy(), cache=tmp_path, progress=False)


def test_wrong_number_of_processes(tmp_path):
    with pytest.raises(ConfigError, match="processes is 0"):
        experts.experts(quick(), toy(), cache=tmp_path, processes=0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Three experts made here, one after the other."""
    return bytes_of(experts.experts(settings(), toy(), cache=tmp_path_factory.mktemp("cache"), progress=False, processes=1).folder)


def start(tmp_path: Path, processes: int) -> subprocess.Popen:
    script, tests = tmp_path / "script.py", Path(__file__).parent
    script.write_text(HELPER.format(root=str(tests.parent), tests=str(tests)))
    command = [sys.executable, str(script), str(tmp_path / "cache"), str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(tmp_path: Path, pattern: str, seconds: float = 250) -> Path:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for found in (tmp_path / "cache").glob(f"experts/*/{pattern}"):
            return found
        time.sleep(0.005)
    raise AssertionError(f"no {pattern} after {seconds} s")


def check_taken_up(folder: Path, undisturbed: dict[str, bytes]) -> None:
    assert len(bytes_of(folder)) < 3, "ended too late to prove anything"
    for lock in folder.glob(".*.lock"):
        FileLock(lock).acquire(timeout=20).lock.release()  # no worker lives on
    experts.experts(settings(), toy(), cache=folder.parent.parent, progress=False, processes=1)
    assert bytes_of(folder) == undisturbed  # the finished ones were made by a worker
    assert all(path.suffix == ".lock" for path in folder.iterdir() if path.name not in undisturbed)


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path, undisturbed):
    run = start(tmp_path, processes=2)
    folder = wait_for(tmp_path, "expert_*.safetensors").parent
    run.kill()
    run.communicate(timeout=250)
    check_taken_up(folder, undisturbed)


@pytest.fixture
def interruptible():
    """Ctrl-C as at a terminal: a shell that starts tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_ends_its_workers_quietly(tmp_path, undisturbed, capfd, interruptible):
    def interrupt() -> None:
        """As a terminal does it: to the workers too."""
        folders.append(wait_for(tmp_path, "expert_*.safetensors").parent)
        for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
            os.kill(process.pid, signal.SIGINT)

    folders, watcher = [], threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        experts.experts(settings(), toy(), cache=tmp_path / "cache", progress=False, processes=2)
    watcher.join()
    assert multiprocessing.active_children() == [] and capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    check_taken_up(folders[0], undisturbed)


def test_two_processes_that_want_the_same_train_it_once(tmp_path, undisturbed, monkeypatch):
    rival, here, original = start(tmp_path, processes=1), [], experts.train
    monkeypatch.setattr(experts, "train", lambda *rest: (here.append(1), original(*rest))[1])
    folder = wait_for(tmp_path, ".expert_000.lock").parent
    experts.experts(settings(), toy(), cache=tmp_path / "cache", progress=False, processes=1)
    there, words = rival.communicate(timeout=250)
    assert rival.returncode == 0, words
    assert int(there) + len(here) == 3 and int(there) > 0 and bytes_of(folder) == undisturbed
