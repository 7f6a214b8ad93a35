"""Every arm by its name: the right number of images of each class, from the seed alone, the test split unread."""

import pytest
import torch
from toy_sets import sealed

from hoptm import records
from hoptm.arms import ARMS, arm, first_images
from hoptm.config import configure
from hoptm.data import load
from hoptm.embeddings import PIXELS, embed_train
from hoptm.errors import ConfigError
from hoptm.results import NAMES
from hoptm.runs import make


@pytest.fixture(scope="module")
def splits():
    return sealed(load("phantom:450"), "val", "test")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path_factory):
    from hoptm import matching_baselines as matched

    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path_factory.getbasetemp() / "arms"))
    for name in ("DM_FAST", "DSA_FAST", "DC_FAST"):
        short = {"iterations": 1} if name == "DM_FAST" else {"iterations": 1, "rounds": 1, "network_steps": 1}
        monkeypatch.setattr(matched, name, matched.dataclasses.replace(getattr(matched, name), **short))


def _config(**changes):
    return configure("phantom:450", method="endpoint", ipc=2, seed=3, profile="smoke", latent={"dims": 6, "steps": 20}).changed(**changes)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_as_large_as_it_says_and_follows_the_seed(splits, name):
    made, again, other = arm(name, _config(), splits), arm(name, _config(), splits), arm(name, _config(seed=4), splits)
    assert torch.equal(made.images, again.images) and torch.equal(made.labels, again.labels)
    assert not torch.equal(made.images, other.images)
    counts = torch.bincount(made.labels, minlength=9)
    assert counts.sum() == 18 and (name == "natural" or counts.unique().tolist() == [2])
    assert made.info["ipc"] == 2 and made.info["seed"] == 3 and made.info["method"] == name
    assert name in NAMES


@pytest.mark.parametrize("how", ["random", "herding", "kmeans"])
def test_a_run_starts_from_the_images_that_were_chosen(splits, how):
    from hoptm.distill import distill
    from hoptm.experts import experts

    config = _config(match={"first_images": how, "iterations": 1, "lr_images": 0.0})
    made = distill(config, load("phantom:450"), experts(config, splits, progress=False), progress=False).last
    assert torch.equal(made.images, arm("start", config, splits).images)
    wanted = {"random": "start"}.get(how, how)
    assert how == "kmeans" or torch.equal(made.images, arm(wanted, _config(), splits).images)


def test_features_need_a_step_size(splits):
    with pytest.raises(ConfigError, match=r"evaluation\.adamw_lrs"):
        first_images(_config(match={"first_images": "herding"}, evaluation={"adamw_lrs": ()}), splits)


def test_features_that_the_machine_has_no_memory_for_are_refused(splits, monkeypatch):
    monkeypatch.setattr(records, "best_device", lambda: "cpu")
    monkeypatch.setattr(records.os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 12 * len(splits.train.images) * splits.channels * splits.size**2 - 1}.get)
    with pytest.raises(ConfigError, match=r"standardised pixels, of \d+ images, takes .* GB"):
        embed_train(splits.train, PIXELS)


def test_an_unknown_arm_is_named(splits):
    with pytest.raises(ConfigError, match="no arm 'best'"):
        arm("best", _config(), splits)


def test_a_record_holds_what_an_arm_was_made_with(splits, tmp_path):
    made, extra = make(_config(), splits, "dm", tmp_path / "state")
    assert extra["made_with"] == made.info["config"] and extra["made_with"]["iterations"] == 1
