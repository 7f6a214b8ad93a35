"""The stored comparison of the truncated gradient with the exact one: whole, exact at one step, and worse with more steps and larger ones."""

import json
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "data" / "bench" / "truncated.json"


@pytest.fixture(scope="module")
def rows():
    return json.loads(BENCH.read_text(encoding="utf-8"))["rows"]


def _mean(rows, name, **chosen):
    values = [row[name] for row in rows if all(row[key] == value for key, value in chosen.items())]
    assert values
    return sum(values) / len(values)


def test_one_step_is_exact(rows):
    for row in (row for row in rows if row["steps"] == 1):
        assert row["cosine"] == pytest.approx(1) and row["norm_ratio"] == pytest.approx(1)
        assert row["truncated_lr_gradient"] == pytest.approx(row["exact_lr_gradient"])


def test_it_turns_away_with_steps_and_step_size(rows):
    assert _mean(rows, "cosine", steps=40, lr=0.05) < _mean(rows, "cosine", steps=10, lr=0.05) < 1 - 1e-4
    assert _mean(rows, "cosine", steps=40, lr=0.05) < _mean(rows, "cosine", steps=40, lr=0.005)


def test_the_record_says_where_it_comes_from(rows):
    assert len({(row["steps"], row["lr"], row["seed"]) for row in rows}) == len(rows) >= 15
    assert not any(row["commit"].endswith("+") for row in rows)
    assert json.loads(BENCH.read_text(encoding="utf-8"))["about"]["dtype"] == "float64"
