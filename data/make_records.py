"""Make the stored records and distilled sets: `python data/make_records.py --dataset pneumoniamnist --seeds 0 1 2`.

For each seed and budget: distil with each method, then judge the distilled sets, the real images they started from, and
as many fresh random real images, each under the recipe that validation chooses for it. A run whose record is there
already is left alone, so a stopped grid goes on where it was, and several processes can share one. An estimate is printed first.
The test split is read only by the final judgement.
"""

import argparse
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from hoptm import kernels
from hoptm.arms import ARMS, arm
from hoptm.config import METHODS, Config, configure
from hoptm.cost import arm_seconds, estimate, in_words
from hoptm.data import Splits, load, single_label
from hoptm.distill import distill, stored_name
from hoptm.errors import DivergedError
from hoptm.evaluate import Evaluation, Recipe, evaluate, full_data
from hoptm.experts import experts
from hoptm.latent_controls import reconstructed
from hoptm.leaf import vae_of
from hoptm.networks import Network, network
from hoptm.records import Record, commit, device_words, peak_bytes, versions, write_record
from hoptm.synthetic import SyntheticSet

HERE = Path(__file__).resolve().parent
RECORDS, SETS = HERE / "records", HERE / "distilled"
WHOLE = ("full", "ceiling")
"""Arms that train on the whole train split; their records have IPC 0."""
KEPT_SEEDS, KEPT_BYTES = 1, 1_000_000
"""Distilled sets of the first seeds are kept beside the records when they are small; the others can be made again from their record."""


def distilled(config: Config, splits: Splits, folder: Path) -> tuple[SyntheticSet, dict[str, object]]:
    """Run, or take up, one distillation."""
    paths = experts(config, splits, progress=False, processes=1)
    state = folder / stored_name(config).replace(".safetensors", ".state")
    done = distill(config, splits, paths, resume=state, progress=False)
    state.unlink(missing_ok=True)
    last = done.history[-1]
    seen = {"selection": done.synthetic.info["selection"], "lr": done.synthetic.lr, "last_total": last.total, "last_utilisation": last.utilisation}
    seen["dead_parameters"] = done.dead_parameters
    return done.synthetic, seen


def keep(config: Config, splits: Splits, found: Evaluation, method: str, began: float, extra: dict[str, object]) -> None:
    """Write the record of one arm and say so."""
    extra = {**extra, "engine": "compiled" if kernels.available() else "autograd"}
    record = Record(
        dataset={"name": splits.info.name, "checksum": splits.info.checksum}, method=method, ipc=0 if method in WHOLE else config.ipc, seed=config.seed,
        config=config.as_dict(), scores=found.as_dict(), seconds=time.perf_counter() - began, peak_bytes=peak_bytes(),
        commit=commit(), versions=versions(), device=device_words(), extra=extra,
    )  # fmt: skip
    write_record(RECORDS, record)
    words = "  ".join(f"{score} {found.mean(score):.3f}" for score in ("accuracy", "balanced_accuracy", "auc"))
    print(f"{record.name:55s} {words}  {record.seconds:6.1f} s", flush=True)


def record_path(config: Config, splits: Splits, method: str, ipc: int) -> Path:
    """Where the record of this arm is kept."""
    return RECORDS / f"{splits.info.name}-{config.profile}-{method}-ipc{ipc}-seed{config.seed}.json"


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the arm to itself; another that is at it is left alone."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not path.exists()
    finally:
        lock.release()


def run_arm(config: Config, method: str, splits: Splits, net: Network) -> None:
    """One arm of one seed and budget, unless it has a record or another process is at it."""
    with claimed(record_path(config, splits, method, config.ipc)) as ours:
        if not ours:
            return
        began = time.perf_counter()
        if method in ARMS:
            made = arm(method, config, splits)
            extra = {"make_seconds": time.perf_counter() - began}
        else:
            try:
                made, extra = distilled(config, splits, RECORDS)
            except DivergedError as error:
                print(f"{record_path(config, splits, method, config.ipc).stem}: DIVERGED, no record: {error}", flush=True)
                return
            if config.seed < KEPT_SEEDS and made.images.nbytes < KEPT_BYTES:
                made.save(SETS / stored_name(config))
            extra["distil_seconds"] = time.perf_counter() - began
        found = evaluate(net, made, splits.val, splits.test, config.evaluation, config.seed)
        keep(config, splits, found, method, began, extra)


def run_seed(chosen: argparse.Namespace, seed: int, splits: Splits, net: Network) -> None:
    """Every arm of one seed that has no record yet."""
    for ipc in chosen.ipcs:
        for method in [*chosen.methods, *chosen.arms]:
            config = configure(chosen.dataset, method="endpoint" if method in ARMS else method, ipc=ipc, seed=seed, profile=chosen.profile)
            run_arm(config, method, splits, net)


def run_whole(method: str, chosen: argparse.Namespace, seeds: list[int], splits: Splits, net: Network) -> None:
    """All training images (`full`), or all of them through the VAE (`ceiling`). The recipe is chosen on validation with the first seed; the others use it."""
    recipe = None
    for seed in seeds:
        config = configure(chosen.dataset, method="endpoint", ipc=1, seed=seed, profile=chosen.profile)
        with claimed(record_path(config, splits, method, 0)) as ours:
            if ours:
                began = time.perf_counter()
                shown = reconstructed(splits, vae_of(config, splits)) if method == "ceiling" else splits
                found = full_data(net, shown, config.evaluation, seed, steps=chosen.full_steps, recipe=recipe)
                keep(config, splits, found, method, began, {"steps": chosen.full_steps, "recipe_of_seed": seeds[0]})
        path = record_path(config, splits, method, 0)
        if not path.exists():
            print(f"{path.stem}: another process is at it; run again when it is done.", flush=True)
            return
        recipe = Recipe(**json.loads(path.read_text(encoding="utf-8"))["scores"]["recipe"])


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
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    splits = single_label(load(chosen.dataset))
    settings = configure(chosen.dataset, method="endpoint", ipc=1, seed=0, profile=chosen.profile)
    net = network(settings.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    SETS.mkdir(exist_ok=True)
    for ipc, method in itertools.product(chosen.ipcs, chosen.methods):
        print(f"IPC {ipc} {method}: {estimate(configure(chosen.dataset, method=method, ipc=ipc, seed=0, profile=chosen.profile), splits)}", flush=True)
    for ipc, name in itertools.product(chosen.ipcs, chosen.arms):
        config = configure(chosen.dataset, method="endpoint", ipc=ipc, seed=0, profile=chosen.profile)
        print(f"IPC {ipc} {name}: estimate: about {in_words(arm_seconds(name, config, splits))} on one core, made and judged", flush=True)
    for seed in chosen.seeds:
        run_seed(chosen, seed, splits, net)
    for method, seeds in zip(WHOLE, (chosen.full_seeds, chosen.ceiling_seeds), strict=True):
        run_whole(method, chosen, seeds, splits, net)


if __name__ == "__main__":
    main()
