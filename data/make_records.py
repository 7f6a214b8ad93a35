"""Make the stored records and distilled sets: `python data/make_records.py --dataset pneumoniamnist --seeds 0 1 2`.

For each seed and budget: distil with each method, then judge the distilled sets, the real images they started from, and
as many fresh random real images, each under the recipe that validation chooses for it. A run whose record is there
already is left alone, so a stopped grid goes on where it was, and several processes can share one. An estimate is printed first.
The test split is read only by the final judgement.
"""

import argparse
import itertools
import json
import math
import os
import time
from pathlib import Path

import torch

from hoptm.arms import ARMS
from hoptm.config import METHODS, Config, configure, from_dict
from hoptm.cost import arm_seconds, estimate, in_words, is_known_here, judgement_seconds
from hoptm.data import Splits, load, single_label
from hoptm.distill import stored_name
from hoptm.errors import ConfigError, DivergedError
from hoptm.evaluate import Recipe, evaluate, full_data
from hoptm.latent_controls import reconstructed
from hoptm.leaf import vae_of
from hoptm.likeness import trained_on_both
from hoptm.networks import Network, network
from hoptm.records import Record, write_diverged, write_record
from hoptm.results import SCORES, WHOLE
from hoptm.runs import carded, claimed, configured, make, record_of, record_of_set, record_path, shaping, taken
from hoptm.synthetic import SyntheticSet

HERE = Path(__file__).resolve().parent
RECORDS, SETS = HERE / "records", HERE / "distilled"
KEPT_SEEDS, KEPT_BYTES = 1, 1_000_000
"""Distilled sets of the first seeds are kept beside the records when they are small; the others can be made again from their record."""
SAME = 0.02
"""How far a look, or the step size in units of itself, may lie from the record's for a set that is made again."""


def keep(record: Record) -> None:
    """Write the record of one arm and say so."""
    write_record(RECORDS, record)
    found = record.scores["scores"]
    words = "  ".join(f"{score} {sum(one[score] for one in found) / len(found):.3f}" for score in SCORES)
    print(f"{record.name:55s} {words}  {record.seconds:6.1f} s", flush=True)


def keep_set(made: SyntheticSet, path: Path) -> None:
    """Keep a small set: as it is, in half precision where that makes it small, or not at all."""
    for half in (False, True):
        if made.images.nbytes / (2 if half else 1) < KEPT_BYTES:
            made.save(path, half=half)
            if path.stat().st_size < KEPT_BYTES:
                return
            path.unlink()  # a decoder comes on top of the images


def processor_seconds() -> float:
    """Of this process and of the workers that it has waited for: what a run costs, whoever else is at work."""
    return sum(os.times()[:4])


def run_arm(config: Config, method: str, splits: Splits, net: Network) -> None:
    """One arm of one seed and budget, unless it has a record, is known to diverge, or another process is at it."""
    path = record_path(RECORDS, config, splits, method)
    with claimed(path) as ours:
        if not ours or path.with_suffix(".diverged").exists():
            check_settings(path, config, splits, method)
            return
        began, used, state = time.perf_counter(), processor_seconds(), RECORDS / stored_name(config).replace(".safetensors", ".state")
        resumed = method not in ARMS and state.exists()
        try:
            made, extra = make(config, splits, method, state)
            found = evaluate(net, made, splits.val, splits.test, config.evaluation, config.seed)
            took = time.perf_counter() - began  # what a card says of leaks is not part of a run
            extra |= {"resumed": True} if resumed else {"processor_seconds": processor_seconds() - used}  # what an earlier process took, nobody knows
        except DivergedError as error:
            write_diverged(RECORDS, path.stem, config.as_dict(), str(error))
            print(f"{path.stem}: DIVERGED, written down without scores: {error}", flush=True)
            return
        if method not in ARMS and config.seed < KEPT_SEEDS:
            features = trained_on_both(splits.without_test)
            keep_set(carded(made, found.as_dict(), config, splits, method, RECORDS, features), SETS / stored_name(config))
        keep(record_of(config, splits, method, found, took, extra))
        if method not in ARMS:  # an arm has none, and that of an end point of its name may be at work
            state.unlink(missing_ok=True)


def set_again(config: Config, method: str, splits: Splits) -> str:
    """Make the small set of a run on record that has none beside it, and say in words what was done.

    It is kept where it is the set that the record judged: the step size that it learned and all looks at validation come out again, up to the bits of
    another processor. A run on a GPU does not come out again here.
    """
    path, record = SETS / stored_name(config), taken([RECORDS], config, splits, method)
    shape = (config.ipc * splits.classes, splits.channels, splits.size, splits.size)
    if path.exists() or record is None or not record.device.startswith("cpu") or 2 * math.prod(shape) >= KEPT_BYTES:
        return f"{path.name}: " + (
            "is there" if path.exists()
            else "no record of these data and settings" if record is None
            else "its run was on a GPU" if not record.device.startswith("cpu")
            else "too large to be kept"
        )  # fmt: skip
    state = RECORDS / path.name.replace(".safetensors", ".state")
    made, extra = make(config, splits, method, state)
    state.unlink(missing_ok=True)
    pairs = [(one[score], other[score]) for one, other in zip(extra["selection"], record.extra["selection"], strict=True) for score in one]
    if not all(math.isclose(one, other, abs_tol=SAME) for one, other in [*pairs, (extra["lr"] / record.extra["lr"], 1.0)]):
        return f"{path.name}: came out otherwise than its record says, and is not kept"
    keep_set(carded(made, record.scores, config, splits, method, RECORDS, trained_on_both(splits.without_test)), path)
    return f"{path.name}: " + ("kept" if path.exists() else "too large to be kept")


def check_settings(path: Path, config: Config, splits: Splits, method: str) -> None:
    """Raises ConfigError where what stands in a run's place, a record or a note that it diverged, is of other settings or data: it would be taken for this
    grid's."""
    ended = path.with_suffix(".diverged")
    other = path.exists() and taken([path.parent], config, splits, method) is None
    if not path.exists() and ended.exists():
        path, other = ended, shaping(from_dict(json.loads(ended.read_text(encoding="utf-8"))["config"]), method) != shaping(config, method)
    if other:
        raise ConfigError(f"{path.name} is on record with other settings or data. Move it away, or run this grid under another profile.")


def run_seed(chosen: argparse.Namespace, seed: int, splits: Splits, net: Network) -> None:
    """Every arm of one seed that has no record yet."""
    for ipc in chosen.ipcs:
        for method in [*chosen.methods, *chosen.arms]:
            config = configured(chosen.dataset, method=method, ipc=ipc, seed=seed, profile=chosen.profile)
            run_arm(config, method, splits, net)


def run_whole(method: str, chosen: argparse.Namespace, seeds: list[int], splits: Splits, net: Network) -> None:
    """All training images (`full`), or all of them through the VAE (`ceiling`). The recipe is chosen on validation with the first seed; the others use it."""
    recipe = None
    for seed in seeds:
        config = configure(chosen.dataset, method="endpoint", ipc=1, seed=seed, profile=chosen.profile)
        with claimed(record_path(RECORDS, config, splits, method)) as ours:
            if ours:
                began = time.perf_counter()
                shown = reconstructed(splits, vae_of(config, splits)) if method == "ceiling" else splits
                found = full_data(net, shown, config.evaluation, seed, steps=chosen.full_steps, recipe=recipe)
                extra = {"steps": found.recipe.steps, "recipe_of_seed": seeds[0]}
                keep(record_of(config, splits, method, found, time.perf_counter() - began, extra))
        path = record_path(RECORDS, config, splits, method)
        if not path.exists():
            print(f"{path.stem}: another process is at it; run again when it is done.", flush=True)
            return
        recipe = Recipe(**json.loads(path.read_text(encoding="utf-8"))["scores"]["recipe"])


def describe(splits: Splits) -> None:
    """Write scores on record and the direct tests of leaks into the stored sets of a data set, anew: random images may have come on record since."""
    features = trained_on_both(splits.without_test)
    for path in sorted(SETS.glob(f"{splits.info.name}-*.safetensors")):
        made = SyntheticSet.load(path)
        config, record = from_dict(made.info["config"]), record_of_set(made, splits, RECORDS)
        if record is None:
            print(f"{path.name}: no record of these data and settings; left as it is", flush=True)
            continue
        carded(made, record.scores, config, splits, config.method, RECORDS, features).save(path, half="stored" in made.info)
        print(f"{path.name}: described", flush=True)


def say_cost(chosen: argparse.Namespace, splits: Splits) -> None:
    """What each method and arm costs for one seed, by one step of each kind, and all that has no record yet together."""
    total = 0.0
    for ipc, method in itertools.product(chosen.ipcs, (*chosen.methods, *chosen.arms)):
        config = configured(chosen.dataset, method=method, ipc=ipc, seed=0, profile=chosen.profile)
        if method in ARMS:
            seconds = arm_seconds(method, config, splits)
            print(f"IPC {ipc} {method}: estimate: about {in_words(seconds)} on one core, made and judged", flush=True)
        else:
            cost = estimate(config, splits)
            seconds = cost.seconds + judgement_seconds(config, splits)
            print(f"IPC {ipc} {method}: {cost}; judging {in_words(judgement_seconds(config, splits))}", flush=True)
        paths = [record_path(RECORDS, config.changed(seed=seed), splits, method) for seed in chosen.seeds]
        total += seconds * sum(not (path.exists() or path.with_suffix(".diverged").exists()) for path in paths)
    print(f"all that has no record: about {in_words(total)} on one core, less what experts in the cache save", flush=True)


def main() -> None:
    """Parse the grid and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="pneumoniamnist")
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--ipcs", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(10)))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["endpoint", "published"])
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=["start", "random"], help="what the methods are compared with")
    parser.add_argument("--full-seeds", type=int, nargs="*", default=[], help="seeds for which all real data are trained on too")
    parser.add_argument("--ceiling-seeds", type=int, nargs="*", default=[], help="seeds for which all real data are trained on as the VAE decodes them")
    parser.add_argument("--full-steps", type=int, default=600)
    parser.add_argument("--describe", action="store_true", help="only write scores and direct tests of leaks into the stored sets of the data set")
    parser.add_argument("--sets", action="store_true", help="only make the small sets of the first seed again that are on record and not beside it")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    splits = single_label(load(chosen.dataset))
    if chosen.sets:
        for ipc, method in itertools.product(chosen.ipcs, chosen.methods):
            print(set_again(configured(chosen.dataset, method=method, ipc=ipc, seed=0, profile=chosen.profile), method, splits), flush=True)
        return
    if chosen.describe:
        describe(splits)
        return
    settings = configure(chosen.dataset, method="endpoint", ipc=1, seed=0, profile=chosen.profile)
    net = network(settings.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    SETS.mkdir(exist_ok=True)
    if is_known_here():
        say_cost(chosen, splits)
    for seed in chosen.seeds:
        run_seed(chosen, seed, splits, net)
    for method, seeds in zip(WHOLE, (chosen.full_seeds, chosen.ceiling_seeds), strict=True):
        run_whole(method, chosen, seeds, splits, net)


if __name__ == "__main__":
    main()
