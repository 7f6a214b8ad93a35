"""The engine on a GPU: is it right, and how fast is it against plain autograd there? `python benchmarks/gpu.py`.

First the gradient of a path on the GPU, by recorded steps, is compared with plain autograd on the CPU in double precision, for hard and
soft labels and three augmentations; a difference ends the script with status 1. Then plain autograd in both memory layouts, the eager
adjoint and the recorded one take turns in two settings (those of `make bench`), each timed until the GPU is done; a ratio is the median over
pairs. All but the recorded arm may convolve in TF32, as torch does unless told otherwise. Memory is the peak that torch allocated above the
inputs. The last line is one JSON object; `--store` keeps it in data/bench.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engine_worker import channels_last, inputs

from hoptm import adjoint, unroll
from hoptm.captured import Captured
from hoptm.config import MatchConfig, NetworkConfig, generator
from hoptm.files import write_text
from hoptm.networks import network
from hoptm.outer import draw_plan
from hoptm.path_losses import end_point
from hoptm.records import commit, device_words, versions

STORED = Path(__file__).resolve().parent.parent / "data" / "bench" / "gpu.json"
ALLOWED = 1e-9
"""Largest relative error in double precision. In float32 ours may be thrice that of plain autograd on the CPU, which can be large where
rounding takes a unit over its kink, and `FLOOR` more."""
FLOOR = 1e-5


def check() -> list[dict[str, Any]]:
    """Relative errors of the gradient for the images against plain autograd on the CPU, float64."""
    found = []
    for augmentation in ("none", "dsa", "dihedral"):
        for soft in (False, True):
            chance = generator(0, "gpu", augmentation)
            net = network(NetworkConfig("convnet", 3, 8), channels=3, classes=5, size=28)
            plan = draw_plan(30, 28, MatchConfig(steps=12, batch=12, augmentation=augmentation), chance)
            start = net.initial(chance).double()
            expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance, dtype=torch.float64)])
            images = torch.randn(30, 3, 28, 28, generator=chance, dtype=torch.float64)
            targets = torch.randn(30, 5, generator=chance, dtype=torch.float64).softmax(1) if soft else torch.arange(30) % 5
            lr = torch.tensor(0.01, dtype=torch.float64)
            wanted = unroll.path_gradient(net, end_point, expert, images, targets, lr, plan, (0, 12))
            single = unroll.path_gradient(net, end_point, expert.float(), images.float(), _narrow(targets), lr.float(), plan, (0, 12))
            for dtype, allowed in ((torch.float64, ALLOWED), (torch.float32, 3 * _error(single.images, wanted.images) + FLOOR)):
                there = [tensor.to("cuda", dtype if tensor.is_floating_point() else None) for tensor in (expert, images, targets, lr)]
                got = adjoint.path_gradient(net, end_point, *there, plan.to(torch.device("cuda")), (0, 12), step=Captured(net, F.cross_entropy))
                error = _error(got.images, wanted.images)
                found.append({"augmentation": augmentation, "soft": soft, "type": str(dtype), "error": error, "allowed": allowed, "holds": error <= allowed})
    return found


def _error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.cpu().double() - wanted).norm() / wanted.norm())


def _narrow(targets: torch.Tensor) -> torch.Tensor:
    return targets.float() if targets.is_floating_point() else targets


def arms(setting: dict[str, int]) -> dict[str, Callable[[], float]]:
    """What is timed, by name: each computes the same gradient and waits for it."""
    given = inputs(setting) | {"path_loss": end_point, "waypoints": (0, setting["steps"])}
    for name in ("expert", "images", "targets", "lr"):
        given[name] = given[name].to("cuda")
    given["plan"] = given["plan"].to(torch.device("cuda"))
    recorded = Captured(given["predict"], F.cross_entropy)
    return {
        "plain, contiguous": lambda: float(unroll.path_gradient(**given).images.norm()),
        "plain, channels last": lambda: float(unroll.path_gradient(**(given | {"predict": channels_last(given["predict"])})).images.norm()),
        "adjoint, eager": lambda: float(adjoint.path_gradient(**given).images.norm()),
        "adjoint, recorded": lambda: float(adjoint.path_gradient(**given, step=recorded).images.norm()),
    }


def compare(setting: dict[str, int], pairs: int) -> dict[str, Any]:
    """All arms in turns, after one run each to warm up, whose peak of memory counts."""
    run, peaks = arms(setting), {}
    for name, work in run.items():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        norm = work()
        peaks[name] = {"bytes": torch.cuda.max_memory_allocated() - before, "norm": norm}
    rounds = []
    for _ in range(pairs):
        rounds.append({})
        for name, work in run.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            rounds[-1][name] = time.perf_counter() - began
    median = {name: statistics.median(each[name] for each in rounds) for name in run}
    plain = min(("plain, contiguous", "plain, channels last"), key=median.__getitem__)
    found = {
        name: {
            "ms_per_step": round(1000 * median[name] / setting["steps"], 3),
            "time_ratio": round(statistics.median(each[name] / each[plain] for each in rounds), 3),
            "peak_bytes": peaks[name]["bytes"],
            "memory_ratio": round(peaks[name]["bytes"] / peaks[plain]["bytes"], 4),
            "gradient_norm": peaks[name]["norm"],
        }
        for name in run
    }
    return {"setting": setting, "plain": plain, "pairs": pairs, "arms": found}


def main() -> None:
    """Check, compare, print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--store", action="store_true", help="keep the result in data/bench")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here, and this script measures nothing else.")
    checked = check()
    for one in checked:
        print(f"{one['augmentation']:9s} soft {one['soft']!s:5s} {one['type']:14s} relative error {one['error']:.1e}, allowed {one['allowed']:.0e}", flush=True)
    report = {"checks": checked, "settings": []}
    for width, steps in ((128, 80), (32, 20)):
        report["settings"].append(compare({"steps": steps, "width": width, "batch": 10, "size": 32}, chosen.pairs))
        for name, arm in report["settings"][-1]["arms"].items():
            print(
                f"T {steps}, width {width} {name:22s}{arm['ms_per_step']:9.3f} ms a step, time {arm['time_ratio']:.3f}, memory {arm['memory_ratio']:.3f}",
                flush=True,
            )
    report |= {"device": device_words(), "commit": commit(), "versions": versions()}
    if chosen.store:
        write_text(STORED, json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    sys.exit(0 if all(one["holds"] for one in checked) else 1)


if __name__ == "__main__":
    main()
