"""A release touches the data once, moves as little as it says when an image is replaced, and nothing after it reads an image."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_sets import bright_halves, toy

from hoptm import dp_distillation, pipelines
from hoptm.card import card
from hoptm.config import NetworkConfig, generator
from hoptm.data import Test, Train
from hoptm.dp_distillation import (
    COVERS,
    REPEATABLE,
    SECRET,
    WITHHELD,
    DpSettings,
    Release,
    clipped_means,
    described,
    distil_release,
    public,
    release,
    released_set,
)
from hoptm.errors import ConfigError, DataError
from hoptm.gaussian_mechanism import noise_for
from hoptm.synthetic import SyntheticSet

SETTINGS = DpSettings(4.0, network=NetworkConfig(depth=1, width=4), iterations=20)


def made(settings: DpSettings = SETTINGS, train: Train | None = None) -> Release:
    return release(train or toy().train, 2, settings, 0, generator(1, "noise"))


def test_poisoned_data_change_nothing_after_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    train = toy().train
    released = made(train=train)
    images, labels, fixed = distil_release(released, 3)

    train.images.fill_(255)  # in place: whoever still holds a pixel, holds poison
    train.labels.zero_()

    def touched(*_: object) -> None:
        raise AssertionError("real data were read after the release")

    monkeypatch.setattr(Train, "__getattribute__", touched)
    again, _, _ = distil_release(released, 3)
    assert torch.equal(images, again) and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert fixed.mean == (0.5,) and fixed.std == (0.25,)


def test_the_audited_pipeline_reads_no_image_after_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole arm of an audit: the models of the set are trained, and the set let out, from the release and public numbers."""
    settings = pipelines.AuditSettings(ipc=2, canary_initialisers=1, model_steps=4, models=2, width=4)
    monkeypatch.setattr(pipelines, "DpSettings", lambda epsilon: replace(SETTINGS, epsilon=epsilon))
    shadow = lambda: pipelines.Shadow(3, toy(), torch.arange(4), settings)  # noqa: E731
    whole = pipelines.dp_set(4.0, shadow())

    def touched(*_: object) -> None:
        raise AssertionError("real data were read after the release")

    def last_look(train: Train, *words: Any) -> Release:
        released = release(train, *words)
        train.images.fill_(255)
        train.labels.zero_()
        monkeypatch.setattr(Train, "__getattribute__", touched)
        return released

    monkeypatch.setattr(pipelines, "release", last_look)
    found = pipelines.dp_set(4.0, shadow())
    assert found.images is not None and whole.images is not None and torch.equal(found.images, whole.images)
    assert all(torch.equal(one, other) for one, other in zip(found.thetas, whole.thetas, strict=True)) and found.said == whole.said
    with pytest.raises(AssertionError, match="after the release"):
        pipelines.real_subset(pipelines.Shadow(3, toy(), torch.arange(4), settings))


def test_nothing_but_the_release_depends_on_the_data() -> None:
    one, other = made(), made(train=Train(*bright_halves(80, 9)))
    assert not torch.equal(one.means, other.means)
    for name in ("counts", "settings", "channels", "size", "seed", "secret"):
        assert getattr(one, name) == getattr(other, name)
    known = public(SETTINGS, 1, 8, 2, 0)
    assert known.clip == public(SETTINGS, 1, 8, 2, 0).clip and not hasattr(one, "images")


def test_one_replaced_image_moves_its_class_within_the_sensitivity() -> None:
    train, known = toy().train, public(SETTINGS, 1, 8, 2, 0)
    exact, counts = clipped_means(train, SETTINGS, 2, known), torch.bincount(train.labels)
    worst = torch.zeros(2, dtype=torch.float64)
    for index in range(12):
        for value in (0, 255):
            other = train.images.clone()
            other[index] = value
            moved = (clipped_means(Train(other, train.labels), SETTINGS, 2, known) - exact).norm(dim=1)
            own = int(train.labels[index])
            assert moved[1 - own] == 0
            worst[own] = torch.maximum(worst[own], moved[own])
    bound = 2 * known.clip / counts.double()
    assert bool((worst <= bound).all()) and bool((worst > 0.05 * bound).all())
    tight = replace(known, clip=known.clip / 10)
    lengths = tight.embed(torch.randn(64, 1, 8, 8, generator=generator(0))).norm(dim=1)
    assert float(lengths.max()) == pytest.approx(tight.clip, rel=1e-5)


def test_the_noise_has_the_size_that_the_mechanism_asks_for() -> None:
    train, known = toy(rare=4).train, public(SETTINGS, 1, 8, 2, 0)
    exact, counts = clipped_means(train, SETTINGS, 2, known), torch.bincount(train.labels).double()
    drawn = [release(train, 2, SETTINGS, 0, generator(turn, "noise")).means.double() - exact for turn in range(60)]
    spread = torch.stack(drawn).square().mean(dim=(0, 2)).sqrt()
    torch.testing.assert_close(spread, noise_for(4.0, 1e-5) * 2 * known.clip / counts, rtol=0.1, atol=0)
    assert spread[1] > 2.5 * spread[0]  # the rare class pays more


def test_the_set_has_the_released_means() -> None:
    generous = DpSettings(1e5, network=NetworkConfig(depth=1, width=4), iterations=300)
    released, known = made(generous), public(generous, 1, 8, 2, 0)
    images, _, fixed = distil_release(released, 4)
    start, _, _ = distil_release(made(DpSettings(1e5, network=generous.network, iterations=0)), 4)
    before, after = ((known.embed(one).view(2, 4, -1).mean(dim=1) - released.means).norm() for one in (start, images))
    assert float(after) < 0.3 * float(before)
    shown = fixed.invert(images)
    assert float((fixed.apply((shown * 255).round().to(torch.uint8)) - images).abs().max()) < 0.01  # nothing to clip
    assert "replacement of one image" in str(described(released)["guarantee"])


def test_a_release_becomes_a_file_whose_card_states_the_guarantee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = toy()
    released = release(splits.train, 2, SETTINGS, 7)

    def touched(*_: object) -> None:
        raise AssertionError("real data were read after the release")

    with monkeypatch.context() as shut:
        shut.setattr(Train, "__getattribute__", touched)
        made = released_set(released, 3, splits)
        larger = released_set(released, 5, splits)  # of the same release: nothing more is spent
    made.save(tmp_path / "set.safetensors")
    read = SyntheticSet.load(tmp_path / "set.safetensors")
    images, labels, fixed = distil_release(released, 3)
    assert torch.equal(read.images, images) and torch.equal(read.labels, labels) and read.standardisation == fixed
    assert read.info["privacy"] == described(released) == larger.info["privacy"] and len(larger.labels) == 10
    assert (read.info["ipc"], read.info["seed"], read.info["source"]["checksum"]) == (3, 7, WITHHELD)
    assert splits.info.checksum and splits.info.checksum not in json.dumps(read.info)
    assert read.info["config"]["differential privacy"] == asdict(SETTINGS)
    shown = card(read).privacy
    assert {f"guarantee: {released.statement}", f"noise: {SECRET}", f"what it covers: {COVERS}"} <= set(shown)
    assert any("analytic Gaussian mechanism" in one for one in shown)
    with pytest.raises(DataError, match="2 classes"):
        released_set(released, 3, replace(splits, info=replace(splits.info, class_names=("a", "b", "c"))))


def test_without_a_generator_nobody_can_draw_the_noise_again() -> None:
    torch.manual_seed(0)
    one = release(toy().train, 2, SETTINGS, 0)
    torch.manual_seed(0)
    other = release(toy().train, 2, SETTINGS, 0)
    assert not torch.equal(one.means, other.means) and one.secret and described(one)["noise"] == SECRET
    assert torch.equal(made().means, made().means) and not made().secret and described(made())["noise"] == REPEATABLE  # a known seed takes it away


def test_the_noise_of_the_operating_system_is_normal() -> None:
    drawn = dp_distillation._from_system(torch.Size((200, 500)))
    assert drawn.dtype == torch.float64 and bool(torch.isfinite(drawn).all()) and len(torch.unique(drawn)) == drawn.numel()
    at = torch.tensor([0.001, 0.1, 0.5, 0.9, 0.999], dtype=torch.float64)
    torch.testing.assert_close(torch.quantile(drawn.flatten(), at), torch.special.ndtri(at), atol=0.2, rtol=0)
    assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.std()) - 1) < 0.02


def test_odd_wishes_are_refused() -> None:
    unchecked = release.__wrapped__  # type: ignore[attr-defined]  # without the tests' own check of types
    with pytest.raises(TypeError, match="train split only"):
        unchecked(Test(*bright_halves(20, 1)), 2, SETTINGS, 0, generator(0))
    with pytest.raises(DataError, match="no training image"):
        release(toy().train, 3, SETTINGS, 0, generator(0))
    with pytest.raises(ConfigError, match="epsilon"):
        made(DpSettings(0.0, network=SETTINGS.network))
    with pytest.raises(ConfigError, match="1 or more"):
        distil_release(made(), 0)
