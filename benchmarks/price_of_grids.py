"""What the runs of the two grids cost on a core of their own, at least: `python benchmarks/price_of_grids.py`.

The records say how long runs took by the clock, on machines that had other work too. Here each of them is priced in processor seconds instead, from
steps that are measured on this machine. That is a lower bound: augmentation, the drawing of batches, Python, a VAE, and scoring on validation and test
are not counted, and experts are counted once for all runs that share them.
Later runs noted their processor seconds. What they took over their price, by data set, gives an estimate of what the grids took, with an interval.
Written to `data/bench/price_of_grids.json`. Needs the data sets of the grids.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hoptm.arms import ARMS
from hoptm.config import METHODS, from_dict
from hoptm.cost import Shape, estimate, judgement_seconds
from hoptm.data import load, single_label
from hoptm.errors import ConfigError
from hoptm.files import write_text
from hoptm.intervals import interval
from hoptm.records import Record, commit, device_words, read_records, versions
from hoptm.results import stored
from hoptm.tables import GRIDS, runs_of_grid

CACHED = 1.0
"""Seconds by the clock below which a run found its experts in the cache."""
OUT = Path(__file__).resolve().parent.parent / "data" / "bench" / "price_of_grids.json"


def parts(records: Sequence[Record], shapes: Mapping[str, Shape]) -> dict[str, dict[str, float]]:
    """Processor hours of these runs by data set, at least: `experts`, once for each seed and settings of experts and network, and `own`, matching, looks and
    judging of each run.

    Raises ConfigError for an arm other than random images, KeyError for a data set without a shape.
    """
    found: dict[str, dict[str, float]] = {}
    trained = set()
    for record in records:
        name, config = record.dataset["name"], from_dict(record.config)
        hours, shape = found.setdefault(name, {"own": 0.0, "experts": 0.0}), shapes[name]
        hours["own"] += judgement_seconds(config, shape) / 3600
        if record.method in ARMS:
            if record.method != "random":
                raise ConfigError(f"{record.name}: only runs of the two grids are priced, and these have no such arm.")
            continue
        cost, whose = estimate(config, shape), (name, record.seed, config.experts, config.network)
        hours["own"] += (cost.distil_seconds + cost.look_seconds) / 3600
        hours["experts"] += 0.0 if whose in trained else cost.expert_seconds / 3600
        trained.add(whose)
    return found


def over_price(records: Sequence[Record], shapes: Mapping[str, Shape]) -> dict[str, list[float]]:
    """Processor seconds over the price of matching, looks and judging, ascending, by data set.

    Of distilled runs of pixels that noted their seconds and found their experts in the cache: seconds of experts are by the clock, so they cannot be
    taken off. Runs that another process had begun note none (`extra.resumed`).
    """
    found: dict[str, list[float]] = {}
    for record in records:
        noted = "processor_seconds" in record.extra and record.extra.get("expert_seconds", math.inf) < CACHED
        if noted and record.method in METHODS and record.dataset["name"] in shapes:
            config, shape = from_dict(record.config), shapes[record.dataset["name"]]
            if config.latent.rendering == "pixels":
                cost = estimate(config, shape)
                ratio = record.extra["processor_seconds"] / (cost.distil_seconds + cost.look_seconds + judgement_seconds(config, shape))
                found.setdefault(record.dataset["name"], []).append(ratio)
    return {name: sorted(ratios) for name, ratios in found.items()}


def estimated(hours: Mapping[str, Mapping[str, float]], over: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Hours that runs of these prices took: `mean`, and `low` and `high`, the ends of its 95 % interval.

    A sum over many runs moves with the mean ratio, so each set's own hours are taken times the mean of its ratios and the ends of Student's interval of
    that mean; of all ratios where a set has fewer than two. The ends of the sets are added up, as if all were off to one side at once. Experts count at
    their price. Raises ConfigError where fewer than two runs noted their seconds.
    """
    every = interval([ratio for ratios in over.values() for ratio in ratios])
    of_set = {name: interval(over[name]) if len(over.get(name, ())) > 1 else every for name in hours}
    return {word: sum(one["own"] * getattr(of_set[name], word) + one["experts"] for name, one in hours.items()) for word in ("mean", "low", "high")}


def main() -> None:
    """Price what is on record of each grid, and write it down."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    records = [one for one in read_records(stored("records")) if one.config["profile"] == "tuned"]
    shapes = {name: Shape.of(single_label(load(name))) for name in sorted({run[0] for grid in GRIDS for run in runs_of_grid(grid)})}
    over = over_price(records, shapes)
    hours, counts, guesses = {}, {}, []
    for grid in GRIDS:
        wanted = set(runs_of_grid(grid))
        runs = [one for one in records if (one.dataset["name"], one.method, one.ipc, one.seed) in wanted]
        by_set = parts(runs, shapes)
        hours[grid], counts[grid] = sum(one["own"] + one["experts"] for one in by_set.values()), len(runs)
        guesses.append(estimated(by_set, over))
        print(f"{grid}: {len(runs)} of {len(wanted)} runs, {hours[grid]:.2f} h of a core or more", flush=True)
    whole = {word: sum(guess[word] for guess in guesses) for word in guesses[0]}
    ratios = {name: {"n": len(found), "mean": statistics.fmean(found), "least": found[0], "most": found[-1]} for name, found in over.items()}
    print(f"estimated {whole['mean']:.2f} h, {whole['low']:.2f} to {whole['high']:.2f}, by {ratios}", flush=True)
    about = {"commit": commit(), "device": device_words(), "versions": versions(), "profile": "tuned"}
    write_text(OUT, json.dumps({**about, "hours": hours, "runs": counts, "over_price": ratios, "estimated": whole}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
