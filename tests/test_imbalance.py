"""Thinned training sets and budgets, by hand; a distillation with a budget for each class."""

import pytest
import torch

from hoptm.arms import EQUAL, arm, budget, first_images
from hoptm.config import configure, from_dict, generator
from hoptm.data import load
from hoptm.distill import distill
from hoptm.errors import ConfigError, DataError
from hoptm.experts import experts
from hoptm.imbalance import shared_out, tail_counts, thinned
from hoptm.synthetic import initialise


def test_counts_by_hand():
    counts = torch.tensor([50, 400, 100])
    assert tail_counts(counts, 1.0).tolist() == [50, 50, 50]
    assert tail_counts(counts, 100.0).tolist() == [4, 400, 40]
    assert tail_counts(torch.tensor([50, 400, 20]), 4.0).tolist() == [40, 80, 20]  # the head is what the rarest can be multiplied to
    assert tail_counts(torch.tensor([900, 900, 900]), 100.0).tolist() == [900, 90, 9]


def test_no_class_gives_more_than_it_has_and_the_ratio_is_the_factor():
    counts = torch.tensor([848, 2177, 1086, 2024, 850, 993, 2329, 1644])
    for factor in (1.0, 10.0, 100.0):
        kept = tail_counts(counts, factor)
        assert bool((kept <= counts).all()) and bool((kept == counts).any())
        assert int(kept.argmin()) == 0 or factor == 1
        assert float(kept.max() / kept.min()) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize(
    ("counts", "factor", "error"), [([5, 5], 0.5, ConfigError), ([5, 5], float("inf"), ConfigError), ([5], 2.0, DataError), ([9, 9], 90.0, DataError)]
)
def test_what_cannot_be_thinned(counts, factor, error):
    with pytest.raises(error):
        tail_counts(torch.tensor(counts), factor)


def test_train_alone_is_thinned():
    whole = load("phantom:450")
    made, again, other = thinned(whole, 10.0, generator(0, "t")), thinned(whole, 10.0, generator(0, "t")), thinned(whole, 10.0, generator(1, "t"))
    counts = torch.bincount(made.train.labels)
    assert counts.tolist() == tail_counts(torch.bincount(whole.train.labels), 10.0).tolist() and 9 < float(counts.max() / counts.min()) < 11.5
    assert torch.equal(made.train.images, again.train.images) and not torch.equal(made.train.images, other.train.images)
    assert "imbalance factor of 10" in made.info.note and made.info.checksum == whole.info.checksum
    assert made.val is whole.val and made.test is whole.test


def test_budgets_by_hand():
    assert shared_out([1000, 100, 10], 30, 0.0) == (10, 10, 10)
    assert shared_out([1000, 100, 10], 30, 1.0) == (26, 3, 1)
    assert shared_out([1000, 100, 10], 30, -1.0) == (2, 18, 10)  # the rarest has ten; what it cannot give goes to the next
    assert shared_out([16, 1], 4, -0.5) == (3, 1)
    for power in (-0.5, -0.25, 0.0, 0.5, 1.0):
        found = shared_out([2329, 1206, 625, 324, 168, 87, 45, 23], 80, power)
        assert sum(found) == 80 and min(found) >= 1 and list(found) == sorted(found, reverse=power > 0)
    for total in (2, 1111):
        with pytest.raises(ConfigError, match="cannot be shared"):
            shared_out([1000, 100, 10], total, 0.0)


def test_a_distillation_keeps_its_budgets(tmp_path):
    splits = load("phantom:450")
    per_class = (1, 2, 3, 1, 1, 1, 1, 1, 4)
    config = configure("phantom:450", method="endpoint", ipc=2, seed=0, profile="smoke", match={"per_class": per_class})
    assert from_dict(config.as_dict()) == config
    paths = experts(config, splits, cache=tmp_path, progress=False, processes=1)
    made = distill(config, splits, paths, progress=False).synthetic
    for found in (made, arm("random", config, splits), arm("start", config, splits)):
        assert torch.bincount(found.labels).tolist() == list(per_class)
    for name in EQUAL:
        with pytest.raises(ConfigError, match="per_class"):
            arm(name, config, splits)


def test_budgets_that_do_not_fit_are_refused():
    splits = load("phantom:450")
    with pytest.raises(DataError, match="3 classes"):
        initialise(splits.train, splits.classes, (1, 2, 3), generator(0))
    with pytest.raises(DataError, match="ask for 1"):
        initialise(splits.train, splits.classes, (0,) * 9, generator(0))
    with pytest.raises(ConfigError, match="per_class"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"per_class": (1, 0)})


def test_equal_budgets_are_what_they_were():
    splits = load("phantom:450")
    same = initialise(splits.train, 9, 3, generator(7)), initialise(splits.train, 9, [3] * 9, generator(7))
    assert torch.equal(*same)


def test_budgets_follow_the_counts_of_train_by_one_setting():
    """`match.class_power` gives what `match.per_class` with the same shares gives, in every arm that knows budgets, and arms without them refuse it."""
    splits = load("phantom:450")
    counts = torch.bincount(splits.train.labels, minlength=splits.classes).tolist()
    by_power = configure("phantom:450", method="budgets", ipc=3, seed=1, profile="smoke")
    by_hand = by_power.changed(match={"class_power": 0.0, "per_class": shared_out(counts, 3 * len(counts), by_power.match.class_power)})
    assert budget(by_power, splits) == by_hand.budget and sum(by_hand.budget) == 3 * splits.classes
    assert torch.equal(first_images(by_power, splits), first_images(by_hand, splits))
    assert torch.equal(arm("random", by_power, splits).images, arm("random", by_hand, splits).images)
    with pytest.raises(ConfigError, match=r"match\.class_power -0\.25"):
        arm("natural", by_power, splits)
    with pytest.raises(ConfigError, match=r"match\.per_class be empty"):
        by_power.changed(match={"per_class": (1, 2)})
