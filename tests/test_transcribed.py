"""The paper's numbers: stored once with their source, and compared only with the same data."""

import dataclasses
import math

import pytest

from hoptm.catalogue import official_info
from hoptm.data import load
from hoptm.errors import ConfigError, DataError
from hoptm.records import Record
from hoptm.transcribed import Entry, Measured, comparison, entries, entry, measured, standard_errors, stands_in, table, table_of, transcribed


def record(seed: int, *accuracies: float, method: str = "published") -> Record:
    scores = {"scores": [{"accuracy": value, "auc": 0.5, "balanced_accuracy": value} for value in accuracies]}
    return Record({"name": "pathmnist", "checksum": "x"}, method, 10, seed, {"profile": "paper"}, scores, 1.0, 1, "c", {}, "cpu")


def test_the_source_is_beside_the_numbers():
    found = transcribed()
    assert "commit 96cb5136" in found["source"] and "not checked" in found["how"]
    assert [one.ipc for one in entries("table1", "HoP-TM")] == [1, 5, 10, 100, 1000]
    assert [one.ipc for one in entries("table2", "HoP-TM")] == [1, 5, 10, 50]
    cells = [value for rows in found["tables"].values() for row in rows["rows"].values() for value in row.values()]
    assert len(cells) == 40 and all(20 < mean < 100 and 0 < std < 5 for mean, std in cells)


def test_a_method_finds_its_nearest_row_or_none():
    assert entry("table1", "published", 10) == Entry("HoP-TM", 10, 77.23 / 100, 0.65 / 100, 5)
    assert entry("table1", "random", 10) is None and entry("table1", "published", 2) is None and entry("table2", "dm", 10) is None
    assert table_of("pathmnist") == "table1" and table_of("phantom") is None
    with pytest.raises(ConfigError, match="table1, table2"):
        table("table3")


def test_only_the_official_file_is_no_stand_in():
    official = official_info("pathmnist")
    assert stands_in("table1", official) == ""
    assert "STAND-IN" in stands_in("table1", dataclasses.replace(official, checksum="md5:0"))
    assert "STAND-IN: Phantom" in stands_in("table1", load("phantom:90").info)
    folder = dataclasses.replace(official, name="covid19-cxr", class_names=("a", "b", "c", "d"))
    assert stands_in("table2", folder) == "" and "STAND-IN" in stands_in("table2", dataclasses.replace(folder, class_names=("a", "b", "c")))


def test_standard_errors_by_hand():
    one = measured([record(0, 0.6, 0.8)])
    assert (one.mean, one.n, one.over) == (pytest.approx(0.7), 2, "networks on one set")
    assert one.standard_error == pytest.approx(0.1)
    several = measured([record(0, 0.6, 0.8), record(1, 0.8, 0.9), record(2, 0.5, 0.7)])
    assert several.n == 3 and several.over == "seeds" and several.mean == pytest.approx((0.7 + 0.85 + 0.6) / 3)
    theirs = Entry("HoP-TM", 10, 0.5, 0.2, 4)
    assert standard_errors(one, theirs) == pytest.approx(0.2 / math.hypot(0.1, 0.1))
    assert standard_errors(Measured(0.4, 0.0, 2, "seeds"), Entry("x", 1, 0.5, 0.0, 5)) == -math.inf
    with pytest.raises(DataError, match="two"):
        measured([record(0, 0.6)])
    with pytest.raises(DataError, match="no record"):
        measured([])


def test_a_stand_in_is_shown_and_not_compared():
    real, other = comparison([record(0, 0.7, 0.8)], "table1", ""), comparison([record(0, 0.7, 0.8)], "table1", "STAND-IN: x")
    assert "0.7723" in real and "standard errors" in real and "as transcribed" in real
    assert "0.7723" in other and "standard errors" not in other and other.endswith("STAND-IN: x")
    assert "no number was transcribed" in comparison([record(0, 0.7, 0.8, method="random")], "table1", "")
