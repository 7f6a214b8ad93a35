"""Time and peak memory of the engine against plain autograd: `make bench`.

Every arm computes the same gradient in a process of its own (`engine_worker.py`): T inner steps of a ConvNet-3 on 3 x 32 x 32
images, batch 10, DSA, one thread. The arms take turns, so that a busy machine slows all of them; a ratio is the median over
the pairs. Memory is the peak above a process that only built the inputs. The last line is one JSON object.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from engine_worker import Worker

from hoptm.files import write_text
from hoptm.records import commit, device_words, versions

STORED = Path(__file__).resolve().parent.parent / "data" / "bench"
ARMS = ("plain, contiguous", "plain, channels last", "eager, none kept", "eager, all kept", "compiled, none kept", "compiled, all kept")
GROWTH_ARMS = ("plain, contiguous", "compiled, none kept", "compiled, all kept")
BASE = {"steps": 20, "width": 64, "batch": 10, "size": 32}
GROWTH = {"steps": (10, 20, 40, 80), "width": (16, 32, 64, 128), "batch": (5, 10, 20, 40), "size": (16, 24, 32, 48, 64)}


def compare(setting: dict[str, int], pairs: int) -> dict[str, Any]:
    """All arms of one setting in turns, after one run each to warm up; and the nine passes of convolutions alone."""
    workers = {name: Worker(name, setting) for name in (*ARMS, "convolutions")}
    try:
        first = {name: worker.run() for name, worker in workers.items()}  # the peak is that of the first run
        rounds = [{name: worker.run() for name, worker in workers.items()} for _ in range(pairs)]
        parts = Worker("compiled, all kept", setting).parts()
    finally:
        for worker in workers.values():
            worker.close()
    ms = {name: [1000 * each[name]["seconds"] / setting["steps"] for each in rounds] for name in workers}
    fastest = min(ARMS[:2], key=lambda name: statistics.median(ms[name]))
    memory = {name: first[name]["bytes"] for name in ARMS}
    arms = {
        name: {
            "ms_per_step": round(statistics.median(ms[name]), 2),
            "time_ratio": round(statistics.median(ours / plain for ours, plain in zip(ms[name], ms[fastest], strict=True)), 3),
            "peak_bytes": memory.get(name, 0),
            "memory_ratio": round(memory.get(name, 0) / memory[fastest], 4),
            "gradient_norm": first[name]["norm"],
        }
        for name in workers
    }
    return {"setting": setting, "pairs": pairs, "plain": fastest, "arms": arms, "parts": parts}


def show(found: dict[str, Any]) -> None:
    """A table of one setting, and where the time of the fastest arm goes."""
    words = ", ".join(f"{name} {value}" for name, value in found["setting"].items())
    print(f"\n{words}; {found['pairs']} pairs; ratios to {found['plain']}")
    print(f"{'arm':22s}{'ms a step':>11s}{'time':>8s}{'MB':>9s}{'memory':>9s}{'|gradient|':>13s}")
    for name, arm in found["arms"].items():
        memory = f"{arm['peak_bytes'] / 1e6:9.0f}{arm['memory_ratio']:9.3f}" if arm["peak_bytes"] else " " * 18
        print(f"{name:22s}{arm['ms_per_step']:11.2f}{arm['time_ratio']:8.3f}{memory}" + (f"{arm['gradient_norm']:13.4e}" if arm["gradient_norm"] else ""))
    print("`convolutions`: the nine passes of the library's convolutions alone, each in its faster memory layout")
    print("compiled, all kept, shares of its time: " + ", ".join(f"{name} {share:.0%}" for name, share in found["parts"].items()))


def grow() -> dict[str, Any]:
    """Time and memory of a few arms while one of T, width, batch and image size changes; exponents from a fit of logarithms."""
    found: dict[str, Any] = {}
    for axis, values in GROWTH.items():
        found[axis] = {"values": list(values)}
        for name in GROWTH_ARMS:
            points = []
            for value in values:
                worker = Worker(name, BASE | {axis: value})
                first = worker.run()
                points.append({"seconds": min(worker.run()["seconds"] for _ in range(2)), "bytes": first["bytes"]})
                worker.close()
            found[axis][name] = {key: [point[key] for point in points] for key in ("seconds", "bytes")}
            found[axis][name]["exponents"] = {key: exponent(values, [point[key] for point in points]) for key in ("seconds", "bytes")}
            print(
                f"{axis:6s} {name:22s} time ~ {axis}^{found[axis][name]['exponents']['seconds']}, memory ~ {axis}^{found[axis][name]['exponents']['bytes']}",
                flush=True,
            )
    return {"base": BASE, "axes": found}


def exponent(values: tuple[int, ...], measured: list[float]) -> float:
    """The slope of log(measured) over log(values), by least squares."""
    x, y = [math.log(value) for value in values], [math.log(max(value, 1e-9)) for value in measured]
    return round(statistics.linear_regression(x, y).slope, 2)


def main() -> None:
    """Compare the arms in two settings, or fit growth, and print one JSON object last; `--store` keeps it in data/bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80, help="T of the wide setting")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="growth in T, width, batch and image size instead")
    parser.add_argument("--store", action="store_true", help="keep the result in data/bench")
    chosen = parser.parse_args()
    if chosen.growth:
        report = {"growth": grow()}
    else:
        report = {"settings": []}
        for setting in ({"steps": chosen.steps, "width": 128}, {"steps": min(20, chosen.steps), "width": 32}):
            report["settings"].append(compare(BASE | setting, chosen.pairs))
            show(report["settings"][-1])
            sys.stdout.flush()
    report |= {"device": device_words("cpu"), "commit": commit(), "versions": versions()}
    if chosen.store:
        write_text(STORED / ("growth.json" if chosen.growth else "engine.json"), json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
