"""Judge sets on networks they were not made with: `python data/make_transfer.py --datasets pneumoniamnist pbc-28 --seeds 0 1 2`.

Rows are sets distilled with ConvNets of depth 2, 3 and 4 at width 32, and random real images; columns are five families of networks, at widths that train
in under a minute. Each cell chooses its own recipe on validation. One record a cell goes into `data/transfer`; a cell that has one is left alone,
so a stopped grid goes on where it was. An estimate is printed first. The test split is read only by the final judgement.
"""

import argparse
import dataclasses
import glob
import itertools
import time
from pathlib import Path

import torch
from make_records import check_settings, claimed

from hoptm import kernels
from hoptm.arms import arm
from hoptm.config import Config, NetworkConfig, configure
from hoptm.cost import estimate, evaluation_seconds, in_words, is_known_here
from hoptm.data import Splits, load, single_label
from hoptm.distill import distill
from hoptm.errors import ConfigError, DivergedError
from hoptm.evaluate import evaluate
from hoptm.experts import experts
from hoptm.networks import Network, network
from hoptm.records import Record, commit, device_words, peak_bytes, read_records, versions, write_diverged, write_record
from hoptm.synthetic import SyntheticSet

RECORDS = Path(__file__).resolve().parent / "transfer"
IPC = 10
DEPTHS = (2, 3, 4)
SOURCES = ("random", *(f"depth{depth}" for depth in DEPTHS))
NETWORKS = {
    "convnet": NetworkConfig("convnet", 3, 32),
    "vgg": NetworkConfig("vgg", 3, 16),
    "resnet": NetworkConfig("resnet", 2, 8),
    "mlp": NetworkConfig("mlp", 2, 64),
    "vit": NetworkConfig("vit", 2, 32),
}
"""What the sets are judged on, by the name that stands in the records."""
FITTING = {
    "pbc-28": {
        "experts": {"augmentation": "dihedral", "lr": 0.03},
        "match": {"augmentation": "dihedral", "optimiser": "adam", "lr_images": 0.05, "lr_lr": None},
    }
}
"""Settings of a data set that the profile does not fit: the plain optimiser learns a step size below 0 with the blood cells, and experts see the augmentation
of the student, at the step size of the profile `tuned`."""
JUDGED = {"networks": 3, "sgd_lrs": (0.01,), "adamw_lrs": (0.0005, 0.002)}
"""Fewer networks and step sizes than in the main table: a matrix has many cells."""


def settings(dataset: str, source: str, seed: int) -> Config:
    """The configuration of a row: end-point matching of the profile `fast` with a ConvNet of its depth; random images have that of depth 3."""
    depth = 3 if source == "random" else int(source.removeprefix("depth"))
    changes = {"network": {"depth": depth}, "evaluation": JUDGED}
    return configure(dataset, method="endpoint", ipc=IPC, seed=seed, profile="fast", **changes, **FITTING.get(dataset, {}))


def made(source: str, config: Config, splits: Splits) -> SyntheticSet:
    """The set of a row, taken up where an earlier process left it."""
    known = splits.without_test
    if source == "random":
        return arm("random", config, known)
    kept = RECORDS / f".{config.dataset}-{source}-seed{config.seed}.state"
    done = distill(config, known, experts(config, known, progress=False, processes=1), resume=kept, progress=False)
    return done.synthetic


def judged_on(splits: Splits) -> dict[str, Network]:
    """The networks of the columns for this data set."""
    return {name: network(shape, channels=splits.channels, classes=splits.classes, size=splits.size) for name, shape in NETWORKS.items()}


def record_of(config: Config, splits: Splits, source: str, name: str) -> Record:
    """The record of a cell, without its scores."""
    return Record(
        dataset={"name": splits.info.name, "checksum": splits.info.checksum}, method=f"{source}-on-{name}", ipc=config.ipc, seed=config.seed,
        config=config.as_dict(), scores={}, seconds=0.0, peak_bytes=peak_bytes(), commit=commit(), versions=versions(), device=device_words(),
        extra={"source": source, "network": name, "judged_on": dataclasses.asdict(NETWORKS[name]), "engine": kernels.engine_name()},
    )  # fmt: skip


def check_network(cell: Record) -> None:
    """Raises ConfigError where the record of a cell was judged on a network of another shape."""
    for known in read_records(RECORDS, glob.escape(f"{cell.name}.json")):
        if known.extra["judged_on"] != cell.extra["judged_on"]:
            raise ConfigError(f"{cell.name} is on record with a network of another shape, {known.extra['judged_on']}. Move it away.")


def run_row(dataset: str, source: str, seed: int, splits: Splits) -> None:
    """Every cell of a row that has no record yet; the set is made when the first of them asks for it."""
    config, held = settings(dataset, source, seed), None
    row = f"{splits.info.name}-{config.profile}-{source}-ipc{IPC}-seed{seed}"
    if (RECORDS / f"{row}.diverged").exists():
        check_settings(RECORDS / f"{row}.json", config, splits, source)
        return
    for name, net in judged_on(splits).items():
        empty = record_of(config, splits, source, name)
        with claimed(RECORDS / f"{empty.name}.json") as ours:
            if not ours or (RECORDS / f"{empty.name}.diverged").exists():
                check_settings(RECORDS / f"{empty.name}.json", config, splits, empty.method)
                check_network(empty)
                continue
            name_of = row
            try:
                held = held or made(source, config, splits)
                name_of, began = empty.name, time.perf_counter()
                found = evaluate(net, held, splits.val, splits.test, config.evaluation, seed)
            except DivergedError as error:
                write_diverged(RECORDS, name_of, config.as_dict(), str(error))
                print(f"{name_of}: DIVERGED, written down without scores: {error}", flush=True)
                if name_of == row:
                    return
                continue
            write_record(RECORDS, dataclasses.replace(empty, scores=found.as_dict(), seconds=time.perf_counter() - began, peak_bytes=peak_bytes()))
            print(f"{empty.name:55s} auc {found.mean('auc'):.3f}  ece {found.mean('ece'):.3f}", flush=True)
    cells = [RECORDS / f"{record_of(config, splits, source, name).name}.json" for name in NETWORKS]
    if all(cell.exists() or cell.with_suffix(".diverged").exists() for cell in cells):
        (RECORDS / f".{config.dataset}-{source}-seed{seed}.state").unlink(missing_ok=True)


def say_cost(dataset: str, seeds: int, splits: Splits) -> None:
    """What a data set will cost, by one step of each kind."""
    making = sum(estimate(settings(dataset, f"depth{depth}", 0), splits).seconds for depth in DEPTHS)
    judged = settings(dataset, "random", 0).evaluation
    cells = [evaluation_seconds(net, IPC * splits.classes, judged, len(splits.info.augmentations)) for net in judged_on(splits).values()]
    print(
        f"{dataset}: about {in_words(seeds * making)} for {seeds * len(DEPTHS)} sets, experts not cached, and {in_words(seeds * len(SOURCES) * sum(cells))} "
        f"for {seeds * len(SOURCES) * len(NETWORKS)} cells, on one core",
        flush=True,
    )


def main() -> None:
    """Parse the grid and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["pneumoniamnist", "pbc-28"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    RECORDS.mkdir(exist_ok=True)
    loaded = {name: single_label(load(name)) for name in chosen.datasets}
    for name, splits in loaded.items() if is_known_here() else ():
        say_cost(name, len(chosen.seeds), splits)
    for (name, splits), seed, source in itertools.product(loaded.items(), chosen.seeds, chosen.sources):
        run_row(name, source, seed, splits)


if __name__ == "__main__":
    main()
