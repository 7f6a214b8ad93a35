"""The compiled step equals the eager one; where it cannot be built, the eager one runs and says so."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from hoptm import adjoint, augment, inner, kernels, native, path_losses, unroll
from hoptm.config import NetworkConfig, generator
from hoptm.errors import ConfigError, DivergedError, FileError
from hoptm.inner import Eager, Kept, Plan
from hoptm.kernels import Compiled
from hoptm.networks import NORMS, network

SHAPES = [(3, 5, 1, 28, 3), (2, 20, 3, 9, 4), (1, 16, 2, 4, 2), (2, 6, 3, 7, 3)]
"""Depth, width, channels, size, classes: 28 -> 14 -> 7 -> 3, odd sizes, one block, widths that fill no vector."""


def built(norm="instance", depth=2, width=6, channels=2, size=9, classes=3):
    return network(NetworkConfig("convnet", depth, width, norm), channels=channels, classes=classes, size=size)


def relative(ours, wanted):
    return float((ours - wanted).abs().max() / wanted.abs().max())


def one_step(net, soft, dtype=torch.float64, count=4):
    chance = generator(0, "kernels")

    def normal(*shape):
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    theta = net.initial(chance).double() + 0.1 * normal(net.layout.size)
    images, along = normal(count, net.channels, net.size, net.size), normal(net.layout.size)
    targets = torch.softmax(normal(count, net.classes), 1).to(dtype) if soft else torch.arange(count) % net.classes
    return theta.to(dtype), images.to(dtype), targets, along.to(dtype)


def path_inputs(net, steps, strategy, soft, dtype=torch.float64, seed=1):
    chance = generator(seed, "kernels", strategy)
    images = torch.randn(7, net.channels, net.size, net.size, generator=chance, dtype=torch.float64)
    soft_targets = torch.softmax(torch.randn(7, net.classes, generator=chance, dtype=torch.float64), 1)
    sizes = [5, 7, 2] * steps
    batches = tuple(torch.randperm(7, generator=chance)[: sizes[step]] for step in range(steps))
    plan = Plan(batches, tuple(augment.draw(strategy, len(batch), net.size, chance) for batch in batches))
    start = net.initial(chance).double()
    expert = start + 0.1 * torch.arange(3)[:, None] * torch.randn(3, net.layout.size, generator=chance, dtype=torch.float64)
    return images.to(dtype), soft_targets.to(dtype) if soft else torch.arange(7) % net.classes, plan, expert.to(dtype)


def both_losses(net):
    end = partial(path_losses.end_point, weight=(torch.arange(net.layout.size) % 3 > 0).double())
    return path_losses.weighted_sum([(1.0, end), (0.5, path_losses.shape)])


def same(ours, wanted, tolerance=1e-10):
    for name in ("loss", "images", "lr", "path", "targets"):
        if getattr(wanted, name) is not None:
            assert relative(getattr(ours, name), getattr(wanted, name)) < tolerance, name


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_one_step_equals_autograd(norm, shape, soft):
    net = built(norm, *shape)
    theta, images, targets, along = one_step(net, soft)
    drawn = augment.draw("rotate" if soft else "none", len(images), net.size, generator(0, "draw"))
    eager, compiled = Eager(net, F.cross_entropy), Compiled(net, F.cross_entropy)
    gradient, _ = eager.first(theta, images, targets, drawn, keep=False)
    wanted = eager.second(theta, images, targets, drawn, along, None)
    for keep in (False, True):
        ours, kept = compiled.first(theta, images, targets, drawn, keep=keep)
        assert relative(ours, gradient) < 1e-10
        found = compiled.second(theta, images, targets, drawn, along, kept)
        for name in ("product", "theta", "images", "targets") if soft else ("product", "theta", "images"):
            assert relative(getattr(found, name), getattr(wanted, name)) < 1e-10, name
        assert (found.targets is None) == (not soft)


@pytest.mark.parametrize("strategy", ["none", "dsa", "dihedral"])
@pytest.mark.parametrize(("momentum", "several"), [(0.0, False), (0.8, True)])
@pytest.mark.parametrize("keep", [0, 1, 4, 6])
def test_a_path_equals_plain_autograd(strategy, momentum, several, keep):
    net = built()
    images, targets, plan, expert = path_inputs(net, 6, strategy, several)
    lr = torch.linspace(0.02, 0.05, 6, dtype=torch.float64) if several else torch.tensor(0.05, dtype=torch.float64)
    arguments = (net, both_losses(net), expert, images, targets, lr, plan, (0, 3, 6))
    wanted = unroll.path_gradient(*arguments, momentum=momentum)
    assert wanted.images.abs().max() > 0
    same(adjoint.path_gradient(*arguments, momentum=momentum, step=Compiled(net, F.cross_entropy), keep=keep), wanted)


def test_an_early_end_reads_only_what_it_needs():
    net = built()
    images, targets, plan, expert = path_inputs(net, 6, "dsa", True)
    arguments = (net, path_losses.end_point, expert[:2], images, targets, torch.tensor(0.05, dtype=torch.float64), plan, lambda path: (0, 4))
    same(adjoint.path_gradient(*arguments, step=Compiled(net, F.cross_entropy), keep=6), unroll.path_gradient(*arguments))


def test_any_inner_loss():
    """A weighted loss, and one whose second derivative in the logits is zero."""
    losses = [
        lambda logits, targets: F.cross_entropy(logits, targets, weight=torch.tensor([1.0, 5.0, 0.2], dtype=logits.dtype)),
        lambda logits, targets: (logits * F.one_hot(targets, 3)).sum() / 3,
    ]
    net = built()
    theta, images, targets, along = one_step(net, soft=False)
    still = augment.draw("none", 4, 9, generator(0, "still"))
    for loss in losses:
        wanted = Eager(net, loss).second(theta, images, targets, still, along, None)
        found = Compiled(net, loss).second(theta, images, targets, still, along, None)
        assert all(relative(getattr(found, name), getattr(wanted, name)) < 1e-10 for name in ("product", "theta", "images"))


def test_float32_is_as_near_to_the_truth_as_eager():
    """Ten steps against float64, medians over plans: where rounding carries one activation across 0, any float32 path may jump."""
    net = built(width=24, channels=3, size=16)
    lr, loss, errors = torch.tensor(0.05), path_losses.end_point, {"eager": [], "compiled": []}
    steps = {"eager": Eager(net, F.cross_entropy), "compiled": Compiled(net, F.cross_entropy)}
    for seed in range(5):
        images, targets, plan, expert = path_inputs(net, 10, "flip_color", True, torch.float32, seed)
        truth = adjoint.path_gradient(net, loss, expert[:2].double(), images.double(), targets.double(), lr.double(), plan, (0, 10), step=steps["compiled"])
        for name, step in steps.items():
            found = adjoint.path_gradient(net, loss, expert[:2], images, targets, lr, plan, (0, 10), step=step)
            errors[name].append(relative(found.images.double(), truth.images))
    eager, compiled = (torch.tensor(errors[name]).median() for name in ("eager", "compiled"))
    assert compiled < 5e-5 and compiled < 8 * eager


def test_the_same_bits_twice_and_for_every_keep():
    net = built(width=24, channels=3, size=16)
    images, targets, plan, expert = path_inputs(net, 5, "dsa", True, torch.float32)
    arguments = (net, path_losses.end_point, expert[:2], images, targets, torch.tensor(0.05), plan, (0, 5))
    first, *others = (adjoint.path_gradient(*arguments, step=Compiled(net, F.cross_entropy), keep=keep) for keep in (0, 0, 2, 5))
    for other in others:
        assert torch.equal(first.images, other.images) and torch.equal(first.targets, other.targets) and torch.equal(first.path, other.path)


def test_divergence_is_named():
    net = built()
    images, targets, plan, expert = path_inputs(net, 4, "none", False)
    with pytest.raises(DivergedError, match="inner step"):
        adjoint.forward(net, expert[0], images, targets, torch.tensor(1e300, dtype=torch.float64), plan, step=Compiled(net, F.cross_entropy))


def test_what_is_kept_is_counted_and_bounded():
    net = built()
    images, targets, plan, expert = path_inputs(net, 6, "none", False)
    for step in (Eager(net, F.cross_entropy), Compiled(net, F.cross_entropy)):
        each = step.kept_bytes(expert[0], images, targets, augment.draw("none", 7, 9, generator(0, "x")))
        path = 7 * expert[0].numel() * 8
        found = [adjoint.steps_within(path + share * each, step, expert[0], images, targets, plan) for share in (-1, 0, 0.99, 1, 3.5, 6, 100)]
        assert each > 0 and found == [0, 0, 0, 1, 3, 6, 6]
        kept = Kept(2)
        adjoint.forward(net, expert[0], images, targets, torch.tensor(0.05, dtype=torch.float64), plan, step=step, kept=kept)
        assert sorted(kept.steps) == [0, 1]


def test_the_fastest_step():
    cpu, loss = torch.device("cpu"), F.cross_entropy
    dense = network(NetworkConfig("mlp", 2, 8, "instance"), channels=1, classes=2, size=4)
    assert isinstance(kernels.fastest(built(), loss, cpu, torch.float32), Compiled)
    assert isinstance(kernels.fastest(dense, loss, cpu, torch.float32), Eager)
    assert isinstance(kernels.fastest(built(), loss, cpu, torch.float16), Eager)
    assert isinstance(kernels.fastest(built(), loss, torch.device("meta"), torch.float32), Eager)
    assert isinstance(kernels.fastest(lambda theta, images: images, loss, cpu, torch.float32), Eager)


def test_what_does_not_fit_is_refused():
    dense = network(NetworkConfig("mlp", 2, 8, "instance"), channels=1, classes=2, size=4)
    with pytest.raises(ConfigError, match="mlp"):
        Compiled(dense, F.cross_entropy)
    net = built()
    theta, images, targets, _ = one_step(net, soft=False)
    still = augment.draw("none", 4, 9, generator(0, "still"))
    for wrong in ((theta[1:], images), (theta, images[:, :1]), (theta, images[..., 1:]), (theta.float(), images), (theta.half(), images.half())):
        with pytest.raises(ConfigError, match=r"given to another network|on a CPU"):
            Compiled(net, F.cross_entropy).first(*wrong, targets, still, keep=False)


WITHOUT_COMPILER = """
import torch
from hoptm import kernels
from hoptm.config import NetworkConfig
from hoptm.networks import network
net = network(NetworkConfig("convnet", 1, 4), channels=1, classes=2, size=4)
for _ in range(2):
    print(type(kernels.fastest(net, torch.nn.functional.cross_entropy, torch.device("cpu"), torch.float32)).__name__)
"""


def test_no_compiler_gives_one_line_and_the_eager_step(tmp_path):
    settings = {name: value for name, value in os.environ.items() if name != "CXX"} | {"PATH": "", "HOPTM_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Eager", "Eager"]
    (notice,) = done.stderr.strip().splitlines()
    assert "without compiled kernels" in notice and "CXX" in notice
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: no such luck' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(FileError, match="no such luck"):
        native.library(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_compiler_that_knows_no_native_processor_will_do(tmp_path, monkeypatch):
    picky = tmp_path / "picky"
    asked = '[ "$1" = --version ] && { echo picky; exit; }'
    tried = 'for word in "$@"; do [ "$word" = -march=native ] && exit 1; target=$word; done'
    picky.write_text(f'#!/bin/sh\n{asked}\n{tried}\necho built > "$target"\n', encoding="utf-8")
    picky.chmod(0o755)
    monkeypatch.setenv("CXX", str(picky))
    assert native.library(tmp_path / "cache").read_text(encoding="utf-8") == "built\n"


def test_a_damaged_library_is_built_again(tmp_path):
    good = native.library(native.cache_folder())
    for path in good.parent.glob(f"{good.stem}.*"):
        shutil.copy(path, tmp_path / path.name)
    copy = tmp_path / good.name
    copy.write_bytes(copy.read_bytes()[:-1000])
    assert native.library(tmp_path) == copy
    native.load(tmp_path)
    before = copy.stat().st_mtime_ns
    native.library(tmp_path)
    assert copy.stat().st_mtime_ns == before and copy.stat().st_size == good.stat().st_size


def test_a_library_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    nothing = tmp_path / "nothing.so"
    nothing.write_bytes(b"no library")
    monkeypatch.setattr(native, "library", lambda folder: nothing)
    with pytest.raises(FileError, match="HOPTM_CACHE"):
        native.load(tmp_path)


def test_steps_share_no_state_across_dtypes_and_batches():
    net = built()
    compiled = Compiled(net, F.cross_entropy)
    for dtype, count in ((torch.float64, 4), (torch.float32, 4), (torch.float64, 3), (torch.float64, 1), (torch.float64, 4)):
        theta, images, targets, along = one_step(net, False, dtype, count)
        still = augment.draw("none", count, 9, generator(0, "still"))
        found = compiled.second(theta, images, targets, still, along, None)
        wanted = inner.Eager(net, F.cross_entropy).second(theta, images, targets, still, along, None)
        assert relative(found.images, wanted.images) < (1e-10 if dtype == torch.float64 else 1e-4)
