"""How far the truncated gradient (TESLA) is from the exact one, by inner steps and step size: `python benchmarks/truncated_gradient.py`.

One expert segment of the profile `fast` on PneumoniaMNIST, twenty real images as the synthetic set, DSA, float64: the exact adjoint and the
truncated gradient of the same end-point loss on the same path. Written to `data/bench/truncated.json`: cosine and norm ratio of the image
gradients, and both gradients of the step size.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

import torch

from hoptm import adjoint, experts, path_losses, truncated
from hoptm.arms import first_images
from hoptm.config import configure, generator
from hoptm.data import load, standardisation
from hoptm.files import write_text
from hoptm.networks import network
from hoptm.outer import draw_plan
from hoptm.records import commit, device_words, versions

OUT = Path(__file__).resolve().parent.parent / "data" / "bench" / "truncated.json"
STEPS, SIZES, SEEDS = (1, 5, 10, 20, 40), (0.005, 0.02, 0.05), (0, 1, 2)


def compared(steps: int, size: float, seed: int) -> dict[str, float]:
    """Both gradients on one path."""
    config = configure("pneumoniamnist", method="endpoint", ipc=10, seed=0, profile="fast")
    splits = load("pneumoniamnist")
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    paths = experts.experts(config, splits, progress=False, processes=1)
    epoch = experts.steps_per_epoch(len(splits.train.labels), config.experts.batch)
    segment = paths.points(seed, [0, config.match.expert_epochs * epoch]).double()
    chosen = first_images(config.changed(seed=seed), splits)
    images, labels = standardisation(splits.train).apply(splits.train.images[chosen]).double(), splits.train.labels[chosen]
    plan = draw_plan(len(labels), splits.size, dataclasses.replace(config.match, steps=steps), generator(seed, "truncated"))
    lr = torch.tensor(size, dtype=torch.float64)
    path = adjoint.forward(net, segment[0], images, labels, lr, plan)
    _, at = adjoint.waypoint_gradients(path_losses.end_point, path[[0, steps]], segment, (0, steps))
    exact, cut = (engine.backward(net, path, at, images, labels, lr, plan) for engine in (adjoint, truncated))
    return {
        "steps": steps, "lr": size, "seed": seed,
        "cosine": float(torch.cosine_similarity(exact[0].flatten(), cut[0].flatten(), dim=0)), "norm_ratio": float(cut[0].norm() / exact[0].norm()),
        "exact_lr_gradient": float(exact[2]), "truncated_lr_gradient": float(cut[2]),
    }  # fmt: skip


def main() -> None:
    """Every pair of steps and size for each expert and set of images; the file is written after each, and what it holds is not made again."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    rows = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.exists() else []
    done = {(row["steps"], row["lr"], row["seed"]) for row in rows}
    about = {"dataset": "pneumoniamnist", "profile": "fast", "ipc": 10, "dtype": "float64", "versions": versions(), "device": device_words()}
    for seed, steps, size in itertools.product(SEEDS, STEPS, SIZES):
        if (steps, size, seed) not in done:
            rows.append({**compared(steps, size, seed), "commit": commit()})
            write_text(OUT, json.dumps({"about": about, "rows": rows}, indent=1, sort_keys=True) + "\n")
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
