"""Why parts need not help, on both sets of the main grid: `python benchmarks/account.py`.

Three measurements with the searched settings of the end point (profile `tuned`, ten images a class), written to `data/bench/account.json`:

- which way each loss pulls the same images: cosines between gradients, the mean over two experts and two starts, for each seed;
- what share of an expert's displacement the gradients of a set can give in one step: real and distilled images of seed 0, and noise, for each expert and start;
- what experts know at their last checkpoint: scores on validation of plain ones, of those with momentum and decay, and of averaged ones, seed 0.

What the file holds is not measured again. About a quarter of an hour of a core where no experts are cached. The test split is never read.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from hoptm import adjoint, experts, matching, orders, outer, path_losses, representable, scores, synthetic
from hoptm.arms import first_images
from hoptm.config import Config, configure, generator, resolved
from hoptm.data import Selectable, load, single_label, standardisation
from hoptm.distill import stored_name
from hoptm.files import write_text
from hoptm.networks import network
from hoptm.records import commit, device_words, versions
from hoptm.trajectories import Trajectories

DATA = Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "bench" / "account.json"
SETS, SEEDS, OF = ("pneumoniamnist", "pbc-28"), (0, 1, 2), 2
TEACHERS = {"plain": "endpoint", "momentum and decay": "momentum-experts", "averaged": "averaged-experts"}


def settings(dataset: str, method: str, seed: int, splits: Selectable) -> Config:
    """The searched settings of a method at ten images a class, the student's step size filled in."""
    config = configure(dataset, method=method, ipc=10, seed=seed, profile="tuned")
    return resolved(config, experts.steps_per_epoch(len(splits.train), config.experts.batch))


def cosines(dataset: str, seed: int, splits: Selectable) -> dict[str, object]:
    """Cosines between the gradients of all losses for the real images that a run of this seed starts from."""
    config = settings(dataset, "velocity", seed, splits)
    match, net = config.match, network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    paths, epoch = experts.experts(config, splits, progress=False, processes=1), experts.steps_per_epoch(len(splits.train), config.experts.batch)
    chosen, measured, method = first_images(config, splits), standardisation(splits.train), outer.matching(match)
    images, labels, (lr, _) = measured.apply(splits.train.images[chosen]), splits.train.labels[chosen], match.step_sizes
    seen = torch.randint(len(splits.train), (match.outcome_batch,), generator=generator(seed, "a look at the outcome"))
    answers = measured.apply(splits.train.images[seen]), splits.train.labels[seen]
    losses = {"end point": path_losses.end_point, "shape": lambda s, e: path_losses.shape(s[::2], e[::2]), "between": orders.between}
    losses |= {"velocity": orders.velocity, "curvature": orders.of_order(2), "torsion": orders.of_order(3), "outcome": matching.outcome(net, *answers)}
    found = []
    for start in (match.start_epochs[0], match.start_epochs[1] - 1):
        for index in range(OF):
            expert = paths.points(index, [round(at * epoch) for at in method.expert_epochs(start)])
            plan = outer.draw_plan(len(labels), splits.size, match, generator(seed, "a student", start, index))
            pulls = [
                adjoint.path_gradient(net, loss, expert, images, labels, torch.tensor(lr), plan, method.student_steps).images.flatten()
                for loss in losses.values()
            ]
            unit = F.normalize(torch.stack(pulls), dim=1)
            found.append(unit @ unit.T)
    return {"losses": list(losses), "cosines": torch.stack(found).mean(0).tolist()}


def shares(dataset: str, splits: Selectable) -> list[dict[str, object]]:
    """The share of each expert's displacement in the span of the gradients of a set, from the first and the last start."""
    config = settings(dataset, "endpoint", 0, splits)
    match, net = config.match, network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    paths, epoch = experts.experts(config, splits, progress=False, processes=1), experts.steps_per_epoch(len(splits.train), config.experts.batch)
    chosen, measured = first_images(config, splits), standardisation(splits.train)
    real, labels = measured.apply(splits.train.images[chosen]), splits.train.labels[chosen]
    kinds = {"real images": (real, labels), "noise": (torch.randn(real.shape, generator=generator(0, "noise")), labels)}
    for method in ("endpoint", "published", "extended"):
        held = synthetic.load(DATA / "distilled" / stored_name(configure(dataset, method=method, ipc=10, seed=0, profile="tuned")))
        kinds[method] = (held.images, held.labels)
    rows: list[dict[str, object]] = []
    for start in (match.start_epochs[0], match.start_epochs[1] - 1):
        for index in range(paths.count):
            begin, end = paths.points(index, [start * epoch, (start + match.expert_epochs) * epoch])
            given = {name: representable.shares_in_span(end - begin, representable.image_gradients(net, begin, *kind)) for name, kind in kinds.items()}
            rows.append({"start": start, "expert": index, "images": len(labels), "shares": {name: float(share[-1]) for name, share in given.items()}})
    return rows


def known(dataset: str, method: str, splits: Selectable) -> list[dict[str, float]]:
    """Scores on validation of each expert's last checkpoint."""
    config = settings(dataset, method, 0, splits)
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    paths: Trajectories = experts.experts(config, splits, progress=False, processes=1)
    measured, rows = standardisation(splits.train), []
    for index in range(paths.count):
        said = scores.score(scores.predict(net, paths.points(index, [paths.steps[-1]])[0], measured, splits.val.images), splits.val.labels)
        rows.append({"accuracy": said.accuracy, "auc": said.auc})
    return rows


def main() -> None:
    """Whatever the file lacks; it is written after each piece."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    held = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"sets": {}}
    about = {"profile": "tuned", "ipc": 10, "versions": versions(), "device": device_words(), "commit": commit()}

    def keep() -> None:
        write_text(OUT, json.dumps({**held, **about}, indent=1, sort_keys=True) + "\n")

    for dataset in SETS:
        splits = single_label(load(dataset)).without_test
        own = held["sets"].setdefault(dataset, {"cosines": {}, "teachers": {}})
        for seed in SEEDS:
            if str(seed) not in own["cosines"]:
                own["cosines"][str(seed)] = cosines(dataset, seed, splits)
                keep()
        if "shares" not in own:
            own["shares"] = shares(dataset, splits)
            keep()
        for name, method in TEACHERS.items():
            if name not in own["teachers"]:
                own["teachers"][name] = known(dataset, method, splits)
                keep()
                print(dataset, name, {score: sum(row[score] for row in own["teachers"][name]) / len(own["teachers"][name]) for score in ("accuracy", "auc")})


if __name__ == "__main__":
    main()
