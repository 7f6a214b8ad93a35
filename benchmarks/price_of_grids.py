"""What the runs of the two grids cost on a core of their own, at least: `python benchmarks/price_of_grids.py`.

The records say how long runs took by the clock, on machines that had other work too. Here each of them is priced in processor seconds instead, from
steps that are measured on this machine. That is a lower bound: augmentation, the drawing of batches, Python, a VAE, and scoring on validation and test
are not counted, and experts are counted once for all runs that share them.
Runs that noted their processor seconds say how far above its price a run lies: median and quartiles of that ratio are stored, too.
Written to `data/bench/price_of_grids.json`. Needs the data sets of the grids.
"""

import argparse
import json
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
from hoptm.records import Record, commit, device_words, read_records, versions
from hoptm.results import stored
from hoptm.tables import GRIDS, runs_of_grid

OUT = Path(__file__).resolve().parent.parent / "data" / "bench" / "price_of_grids.json"


def price(records: Sequence[Record], shapes: Mapping[str, Shape]) -> float:
    """Processor hours of these runs, at least: experts once for each data set, seed, and settings of experts and network; matching, looks and judging for each.

    Raises ConfigError for an arm other than random images, KeyError for a data set without a shape.
    """
    seconds, trained = 0.0, set()
    for record in records:
        config, shape = from_dict(record.config), shapes[record.dataset["name"]]
        seconds += judgement_seconds(config, shape)
        if record.method in ARMS:
            if record.method != "random":
                raise ConfigError(f"{record.name}: only runs of the two grids are priced, and these have no such arm.")
            continue
        cost, whose = estimate(config, shape), (record.dataset["name"], record.seed, config.experts, config.network)
        seconds += cost.distil_seconds + cost.look_seconds + (0.0 if whose in trained else cost.expert_seconds)
        trained.add(whose)
    return seconds / 3600


def over_price(records: Sequence[Record], shapes: Mapping[str, Shape]) -> list[float]:
    """Processor seconds without experts over the price of matching, looks and judging, ascending, for distilled runs of pixels that noted both seconds.

    The seconds of experts are by the clock, so they are no fewer than the processor's.
    """
    found = []
    for record in records:
        if {"processor_seconds", "expert_seconds"} <= set(record.extra) and record.method in METHODS and record.dataset["name"] in shapes:
            config, shape = from_dict(record.config), shapes[record.dataset["name"]]
            if config.latent.rendering == "pixels":
                cost = estimate(config, shape)
                took = record.extra["processor_seconds"] - record.extra["expert_seconds"]
                found.append(took / (cost.distil_seconds + cost.look_seconds + judgement_seconds(config, shape)))
    return sorted(found)


def main() -> None:
    """Price what is on record of each grid, and write it down."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    records = read_records(stored("records"))
    shapes = {name: Shape.of(single_label(load(name))) for name in sorted({run[0] for grid in GRIDS for run in runs_of_grid(grid)})}
    hours, counts = {}, {}
    for grid in GRIDS:
        wanted = set(runs_of_grid(grid))
        runs = [one for one in records if one.config["profile"] == "tuned" and (one.dataset["name"], one.method, one.ipc, one.seed) in wanted]
        hours[grid], counts[grid] = price(runs, shapes), len(runs)
        print(f"{grid}: {len(runs)} of {len(wanted)} runs, {hours[grid]:.2f} h of a core or more", flush=True)
    about = {"commit": commit(), "device": device_words(), "versions": versions(), "profile": "tuned"}
    ratios = over_price([one for one in records if one.config["profile"] == "tuned"], shapes)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"over its price, {len(ratios)} runs: median {median:.2f}, quartiles {low:.2f} and {high:.2f}", flush=True)
    over = {"n": len(ratios), "median": median, "quartiles": [low, high]}
    write_text(OUT, json.dumps({**about, "hours": hours, "runs": counts, "over_price": over}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
