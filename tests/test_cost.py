"""The estimate before the work: its parts follow the settings, and its time is of the right size."""

import time

import pytest

from hoptm.config import configure
from hoptm.cost import Cost, estimate
from hoptm.data import load
from hoptm.distill import distill
from hoptm.experts import experts


@pytest.fixture(scope="module")
def splits():
    return load("phantom:450")


def test_time_is_within_a_factor_of_six_of_the_run(splits, tmp_path):
    config = configure("phantom:450", method="published", ipc=2, seed=0, profile="smoke", match={"iterations": 60, "validate_every": 60})
    paths = experts(config, splits, cache=tmp_path, progress=False, processes=1)
    predicted = estimate(config, splits)
    began = time.perf_counter()
    distill(config, splits, paths, progress=False)
    taken = time.perf_counter() - began
    assert taken / 6 < predicted.distil_seconds + predicted.look_seconds < taken * 6


def test_twice_the_work_costs_twice_the_disk_and_more_memory(splits):
    small = configure("phantom:450", method="endpoint", ipc=2, seed=0, profile="smoke")
    one, experts_twice = estimate(small, splits), estimate(small.changed(experts={"count": 4}), splits)
    sets = 16 * 18 * 3 * 28 * 28
    assert experts_twice.disk_bytes - sets == 2 * (one.disk_bytes - sets)
    assert estimate(small.changed(network={"width": 64}), splits).memory_bytes > one.memory_bytes


@pytest.mark.parametrize(("seconds", "words"), [(5.0, "5 s"), (600.0, "10.0 min"), (36_000.0, "10.0 h"), (864_000.0, "10.0 d")])
def test_words_have_units(seconds, words):
    said = str(Cost(0.0, seconds, 0.0, 2_000_000_000, 3_000_000))
    assert f"about {words}" in said and "2.0 GB of memory" in said and "3 MB of disk" in said
