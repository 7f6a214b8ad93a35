"""Codes against their controls at equal bytes: what fits, and the table."""

import dataclasses

import pytest
import torch
from toy_sets import INFO

from hoptm.claims import latent_bytes
from hoptm.config import configure, generator
from hoptm.data import Splits, Test, Train, Validation
from hoptm.equal_bytes import BUDGETS, CODES, CONTROLS, PAIRS, Budget, codes_table, count_of, counts, gains
from hoptm.errors import DataError
from hoptm.latent_controls import reconstructions, upsampled_random
from hoptm.records import Record
from hoptm.rendering import BYTES
from hoptm.runs import configured
from hoptm.vae import VaeConfig, untrained
from hoptm.verdicts import REPRODUCED, UNTESTED, Evidence, judge


def _noise(budget: Budget) -> Splits:
    labels = torch.arange(budget.classes).repeat(210)
    images = torch.randint(0, 256, (len(labels), budget.channels, budget.size, budget.size), generator=generator(0, "noise"), dtype=torch.uint8)
    names = tuple(map(str, range(budget.classes)))
    info = dataclasses.replace(INFO, class_names=names, task="multi-class")
    return Splits(Train(images, labels), Validation(images[:20], labels[:20]), Test(images[:20], labels[:20]), info)


@pytest.mark.parametrize("dataset", BUDGETS)
def test_sets_made_at_these_counts_fill_the_bytes(dataset):
    """By the tensors that a set holds: within the limit, and above it with one more image a class; with the decoder of the stored runs."""
    splits, budget = _noise(BUDGETS[dataset]), BUDGETS[dataset]
    configs = [configured(dataset, method=method, ipc=10, seed=0, profile="tuned").latent for method in CODES]
    assert {(one.rendering, one.dims) for one in configs} == {("decoded", VaeConfig().dims)}
    vae, chance = untrained(VaeConfig(), budget.channels, budget.size, generator(0, "vae")), generator(0, "images")
    for more in (0, 1):
        codes = (count_of("latent", budget) + more) * budget.classes
        decoded = reconstructions(splits, vae, torch.zeros(codes, dtype=torch.int64), codes)
        half = upsampled_random(splits, count_of("half", budget) + more, chance)
        held = [made.codes.nbytes + sum(value.nbytes for value in made.rendering.shared.values()) for made in (decoded, half)]
        assert [one > BYTES * budget.classes * budget.pixels * budget.channels * budget.size**2 for one in held] == [bool(more)] * 2


def test_real_images_take_a_byte_a_value_and_a_decoder_may_not_fit():
    tight = Budget(2, 1, 28, 10)
    assert counts(tight) == {"pixels": 10, "half": 40, "codes": 0, "bytes": 40}
    assert counts(dataclasses.replace(BUDGETS["pbc-28"], pixels=1))["codes"] == 0, "ten is the smallest budget of the grid that holds its decoder"
    assert [count_of(method, BUDGETS["pbc-28"]) for method in ("endpoint", "random", "upsampled")] == [10, 40, 40]
    small = counts(BUDGETS["pbc-28"], VaeConfig(dims=16))["codes"]
    assert small > 4 * counts(BUDGETS["pbc-28"])["codes"], "a shorter code is shorter, and so is its decoder"


def _records(method: str, ipc: int, values: list[float]) -> list[Record]:
    found = []
    for seed, value in enumerate(values):
        config = configure("pbc-28", method="endpoint", ipc=1, seed=seed, profile="tuned").as_dict()
        scores = {"scores": [{"accuracy": value, "auc": value}], "recipe": {"steps": 1}}
        found.append(Record({"name": "pbc-28", "checksum": "md5:0"}, method, ipc, seed, config, scores, 1.0, 1, "abc", {}, "cpu"))
    return found


def test_both_sides_are_taken_at_their_own_count():
    budget = BUDGETS["pbc-28"]
    codes, half = count_of("latent", budget), count_of("half", budget)
    records = [*_records("latent", codes, [0.9, 0.91, 0.95]), *_records("half", half, [0.8, 0.8, 0.8]), *_records("half", codes, [0.1, 0.1, 0.1])]
    found, images = gains(records, "auc", dataset="pbc-28", first="latent", second="half", ipc=None)
    assert list(found.values()) == pytest.approx([0.1, 0.11, 0.15]) and images == (codes, half)
    assert gains(records, "auc", dataset="pbc-28", first="latent", second="half", ipc=10) == ({}, (10, 10))
    shown = codes_table(records, dataset="pbc-28", ipc=10, score="auc").splitlines()
    assert len(shown) == 3 + len(PAIRS) == 3 + len(CONTROLS) + len(CODES) - 1
    row = next(line for line in shown if line.startswith("end point, half resolution"))
    assert "+0.120 [+0.054, +0.186]" in row and f"{codes}:{half}" in row and row.startswith(f"{'end point, half resolution':27s}  0 not on record")
    findings = {finding.claim.words: finding.verdict for finding in judge(latent_bytes(), Evidence(records=records)) if "PBC" in finding.claim.where}
    assert findings["gain of latent codes over end point, half resolution at equal bytes"] == REPRODUCED
    assert list(findings.values()).count(UNTESTED) == len(PAIRS) - 1


def test_one_seed_has_no_interval_and_other_sets_have_no_budget():
    records = [*_records("latent", 10, [0.9]), *_records("half", 10, [0.8])]
    shown = codes_table(records, dataset="pbc-28", ipc=10, score="auc")
    assert "at 10 images a class each" in shown and "  1 too few seeds" in shown and max(map(len, shown.splitlines())) <= 92
    with pytest.raises(DataError, match="no budget in bytes for phantom; there are pneumoniamnist, pbc-28"):
        gains(records, "auc", dataset="phantom", first="latent", second="half", ipc=None)
