"""How good after how many CPU seconds, from nothing: `python benchmarks/time_to_quality.py --dataset pneumoniamnist --ipc 10`.

One clock a run: processor seconds of experts and distillation, one process, one thread, no cache. At a few iterations the clock
stops, the set is judged (its recipe chosen on validation, fresh networks on test), and the clock goes on. Judgements have a clock of their own, and the
median of one is added when a run is read (`hoptm.timed_runs`), since a user judges once. The gain is over random real
images of the same seed under their own best recipe. One JSON file a run, or NAME.diverged for a run that ended without a set; what is there is left alone.
`--judgement` times one judgement of random images instead, for runs that were made before judgements had a clock, into `data/bench/judgements.json`.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hoptm import kernels
from hoptm.arms import first_images
from hoptm.baselines import random_subset
from hoptm.config import Config, configure, from_dict, generator
from hoptm.cost import estimate, in_words, is_known_here, judgement_seconds
from hoptm.data import Splits, load, single_label, standardisation
from hoptm.distill import distill
from hoptm.errors import ConfigError, DivergedError
from hoptm.evaluate import Evaluation, evaluate
from hoptm.experts import experts
from hoptm.files import write_text
from hoptm.networks import network
from hoptm.outer import Look, State
from hoptm.records import commit, device_words, versions, write_diverged
from hoptm.synthetic import SyntheticSet, provenance
from hoptm.timed_runs import JUDGEMENTS

FOLDER = Path(__file__).resolve().parent.parent / "data" / "bench" / "time_to_quality"
AT = (5, 10, 20, 40, 80, 160)
SCORES = ("accuracy", "balanced_accuracy", "auc")


def judged(made: SyntheticSet, config: Config, splits: Splits) -> Evaluation:
    """The protocol of the tables."""
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    return evaluate(net, made, splits.val, splits.test, config.evaluation, config.seed)


def run(config: Config, splits: Splits) -> dict[str, object]:
    """Experts and distillation on the clock, judgements on another. Raises ConfigError for codes or soft labels, which it cannot judge on the way."""
    if config.latent.rendering != "pixels" or config.match.labels != "hard":
        raise ConfigError("time to quality is measured for pixels with hard labels; take another method.")
    known, began, spans = splits.without_test, time.process_time(), []
    rival = judged(random_subset(known, config.ipc, generator(config.seed, "random images"), seed=config.seed), config, splits)
    spans.append(time.process_time() - began)
    labels, measured, points, away = splits.train.labels[first_images(config, known)], standardisation(known.train), [], 0.0

    def look(state: State, seen: Look) -> None:
        nonlocal away
        if state.iteration not in AT:
            return
        seconds = time.process_time() - began - away
        stopped = time.process_time()
        info = provenance(splits, method=config.method, ipc=config.ipc, seed=config.seed)
        found = judged(SyntheticSet(state.leaf, labels, float(state.lr), measured, info), config, splits)
        gains = {score: found.mean(score) - rival.mean(score) for score in SCORES}
        points.append({"iteration": state.iteration, "cpu_seconds": seconds, "gain": gains, "recipe": str(found.recipe)})
        print(
            f"{config.dataset} IPC {config.ipc} seed {config.seed}: {seconds:6.1f} CPU s, {state.iteration} iterations, AUC gain {gains['auc']:+.3f}",
            flush=True,
        )
        spans.append(time.process_time() - stopped)
        away += spans[-1]

    with tempfile.TemporaryDirectory() as empty:
        began = time.process_time()
        paths = experts(config, known, cache=Path(empty), progress=False, processes=1)
        trained = time.process_time() - began
        distill(config, known, paths, progress=False, callbacks=[look])
    clocks = {"expert_cpu_seconds": trained, "judging_cpu_seconds": statistics.median(spans)}
    return {"config": config.as_dict(), **clocks, "points": points, "random": {score: rival.mean(score) for score in SCORES}}


def judgement(config: Config, splits: Splits) -> None:
    """Time one judgement of random images and write it down beside those of other data sets and budgets."""
    subset = random_subset(splits.without_test, config.ipc, generator(config.seed, "random images"), seed=config.seed)
    began = time.process_time()
    judged(subset, config, splits)
    took = time.process_time() - began
    path = FOLDER.parent / JUDGEMENTS
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cpu_seconds": {}, "measured": {}}
    place = f"{splits.info.name}-ipc{config.ipc}"
    known["cpu_seconds"][place] = took
    known["measured"][place] = {"commit": commit(), "device": device_words(), "versions": versions(), "seed": config.seed, "profile": config.profile}
    write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(f"{place}: one judgement takes {took:.1f} CPU s", flush=True)


def say_cost(given: argparse.Namespace, splits: Splits) -> None:
    """What one seed costs: experts, distillation, and the judgements on the way and of the random images."""
    config = configure(given.dataset, method=given.method, ipc=given.ipc, seed=0, profile=given.profile).changed(match={"iterations": max(AT)})
    seconds = estimate(config, splits).seconds + (1 + len(AT)) * judgement_seconds(config, splits)
    print(f"estimate: about {in_words(seconds)} on one core for each seed that has no file", flush=True)


def main() -> None:
    """Every seed that has no file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--ipc", type=int, required=True)
    parser.add_argument("--method", default="endpoint")
    parser.add_argument("--profile", default="tuned")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--judgement", action="store_true", help="time one judgement of random images, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    splits = single_label(load(given.dataset))
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.judgement:
        judgement(configure(given.dataset, method=given.method, ipc=given.ipc, seed=0, profile=given.profile), splits)
        return
    if is_known_here():
        say_cost(given, splits)
    for seed in given.seeds:
        path = FOLDER / f"{splits.info.name}-{given.profile}-{given.method}-ipc{given.ipc}-seed{seed}.json"
        config = configure(given.dataset, method=given.method, ipc=given.ipc, seed=seed, profile=given.profile)
        config = config.changed(match={"iterations": max(AT), "validate_every": max(AT)})
        if (there := next((one for one in (path, path.with_suffix(".diverged")) if one.exists()), None)) is not None:
            if from_dict(json.loads(there.read_text(encoding="utf-8"))["config"]) != config:
                raise ConfigError(f"{there.name} was timed with other settings. Move it away, or take another profile.")
            continue
        engine = kernels.engine_name()
        about = {"commit": commit(), "device": device_words(), "versions": versions(), "engine": engine, "seed": seed, "ipc": given.ipc}
        try:
            found = run(config, splits)
        except DivergedError as error:
            write_diverged(FOLDER, path.stem, config.as_dict(), str(error))
            print(f"{path.stem}: DIVERGED, written down without a point: {error}", flush=True)
            continue
        write_text(path, json.dumps({**about, "dataset": splits.info.name, "method": given.method, **found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
