"""Rare classes: `python data/make_imbalance.py --factors 1 10 100 --seeds 0 1 2`.

PBC-28's train split is thinned to each imbalance factor, and arms with the same number of images in all are compared: random real images, end-point
matching, and end-point matching with settings that know of the imbalance. Validation and test stay as they are; recipes are chosen by balanced accuracy.
One record a run goes into `data/imbalance`; a run that has one is left alone, so a stopped grid goes on where it was. An estimate is printed first.
The test split is read only by the final judgement.
"""

import argparse
import dataclasses
import itertools
import time
from pathlib import Path

import torch
from make_records import check_settings, claimed

from hoptm import kernels
from hoptm.arms import arm
from hoptm.config import Config, configure, generator
from hoptm.cost import estimate, evaluation_seconds, in_words, is_known_here
from hoptm.data import Splits, load, single_label
from hoptm.distill import distill
from hoptm.errors import DivergedError
from hoptm.evaluate import evaluate
from hoptm.experts import experts
from hoptm.imbalance import NAMES, shared_out, thinned
from hoptm.networks import network
from hoptm.records import Record, commit, device_words, peak_bytes, versions, write_diverged, write_record
from hoptm.synthetic import SyntheticSet

RECORDS = Path(__file__).resolve().parent / "imbalance"
IPC, POWER = 10, -0.25
"""Images a class in the mean; rare classes get more in proportion to their frequency to this power."""
EVEN = ("random", "endpoint")
"""Arms that are there when all classes are equally many; the others are one of these then, bit for bit or by their settings."""
COMMON = {
    "experts": {"count": 4, "augmentation": "dihedral", "lr": 0.03},  # as in the profile `tuned`, chosen by hand
    "match": {"augmentation": "dihedral", "optimiser": "adam", "lr_images": 0.05, "lr_lr": None},  # the step size as it is falls below 0 here
    "evaluation": {"networks": 3, "sgd_lrs": (0.01,), "adamw_lrs": (0.0005, 0.002), "select_by": "balanced_accuracy"},
}


def settings(dataset: str, name: str, seed: int, counts: list[int]) -> Config:
    """The configuration of an arm over the profile `fast`; `counts` are the images of each class that are left in train."""
    loss = {"prior": "prior", "balanced_softmax": "balanced_softmax", "aware": "balanced_softmax"}.get(name, "cross_entropy")
    more = shared_out(counts, IPC * len(counts), POWER) if name in ("random-budgets", "budgets", "aware") else ()
    config = configure(dataset, method="endpoint", ipc=IPC, seed=seed, profile="fast", **COMMON)
    return config.changed(match={"inner_loss": loss, "per_class": more})


def made(name: str, config: Config, splits: Splits, factor: float) -> SyntheticSet:
    """The set of an arm, taken up where an earlier process left it."""
    known = splits.without_test
    if name.startswith("random"):
        return arm("random", config, known)
    kept = RECORDS / f".{config.dataset}-{factor:g}-{name}-seed{config.seed}.state"
    done = distill(config, known, experts(config, known, progress=False, processes=1), resume=kept, progress=False)
    return done.synthetic


def run(dataset: str, factor: float, name: str, seed: int, whole: Splits) -> None:
    """One arm at one factor and seed, unless it has a record or another process is at it. Raises ConfigError for a record of other settings."""
    splits = thinned(whole, factor, generator(seed, "thinned train"))
    counts = torch.bincount(splits.train.labels, minlength=splits.classes).tolist()
    config = settings(dataset, name, seed, counts)
    record = Record(
        dataset={"name": splits.info.name, "checksum": splits.info.checksum}, method=f"{name}-factor{factor:g}", ipc=config.ipc, seed=seed,
        config=config.as_dict(), scores={}, seconds=0.0, peak_bytes=peak_bytes(), commit=commit(), versions=versions(), device=device_words(),
        extra={"arm": name, "factor": factor, "train_counts": counts, "engine": kernels.engine_name()},
    )  # fmt: skip
    path = RECORDS / f"{record.name}.json"
    with claimed(path) as ours:
        if not ours or path.with_suffix(".diverged").exists():
            check_settings(path, config, splits, record.method)
            return
        began = time.perf_counter()
        try:
            held = made(name, config, splits, factor)
            net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
            found = evaluate(net, held, splits.val, splits.test, config.evaluation, seed)
        except DivergedError as error:
            write_diverged(RECORDS, record.name, config.as_dict(), str(error))
            print(f"{record.name}: DIVERGED, written down without scores: {error}", flush=True)
            return
        write_record(RECORDS, dataclasses.replace(record, scores=found.as_dict(), seconds=time.perf_counter() - began, peak_bytes=peak_bytes()))
    (RECORDS / f".{dataset}-{factor:g}-{name}-seed{seed}.state").unlink(missing_ok=True)
    rare = [one.recall[counts.index(min(counts))] for one in found.scores]
    print(f"{record.name:55s} rarest recall {sum(filter(None, rare)) / len(rare):.3f}  balanced accuracy {found.mean('balanced_accuracy'):.3f}", flush=True)


def say_cost(chosen: argparse.Namespace, whole: Splits) -> None:
    """What the grid will cost, by one step of each kind; experts are shared by the arms of a factor and seed."""
    config = settings(chosen.dataset, "endpoint", 0, torch.bincount(whole.train.labels).tolist())
    net = network(config.network, channels=whole.channels, classes=whole.classes, size=whole.size)
    judging = evaluation_seconds(net, IPC * whole.classes, config.evaluation, len(whole.info.augmentations))
    total, runs = 0.0, len(chosen.seeds) * len(chosen.arms)
    for factor in chosen.factors:
        one = estimate(config, thinned(whole, factor, generator(0, "thinned train")))
        matched = sum(not name.startswith("random") for name in chosen.arms)
        total += len(chosen.seeds) * (one.expert_seconds + matched * (one.distil_seconds + one.look_seconds) + len(chosen.arms) * judging)
    print(f"{chosen.dataset}: about {in_words(total)} for {runs * len(chosen.factors)} runs on one core, experts not cached", flush=True)


def main() -> None:
    """Parse the grid and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="pbc-28")
    parser.add_argument("--factors", type=float, nargs="+", default=[100.0, 10.0, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=NAMES, default=list(NAMES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    RECORDS.mkdir(exist_ok=True)
    whole = single_label(load(chosen.dataset))
    if is_known_here():
        say_cost(chosen, whole)
    for seed, factor, name in itertools.product(chosen.seeds, chosen.factors, chosen.arms):
        if factor == 1 and name not in EVEN:
            print(f"factor 1, {name}: not run, since with equal classes it is {'random' if name.startswith('random') else 'endpoint'}", flush=True)
            continue
        run(chosen.dataset, factor, name, seed, whole)


if __name__ == "__main__":
    main()
