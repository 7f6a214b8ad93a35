"""Time and peak memory of the engine against plain autograd: `make bench`.

Every arm computes the same gradient in a process of its own (`engine_worker.py`): T inner steps of a ConvNet-3 on
3 x 32 x 32 images, batch 10, DSA, one thread. The arms take turns, so that a busy machine slows all of them; a ratio is the
median over the pairs, and that of the processor's own time stands beside it. Memory is the peak above a process that only
built the inputs. The last line is one JSON object.
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
PLAIN = ("plain, contiguous", "plain, channels last")
EAGER = ("eager, none kept", "eager, all kept")
EAGER_TURNS = 3
COMPILED = ("compiled, none kept", "compiled, all kept")
GROWTH_ARMS = ("plain, contiguous", "compiled, none kept")
BASE = {"steps": 20, "width": 64, "batch": 10, "size": 32}
GROWTH = {"steps": (10, 20, 40, 80), "width": (16, 32, 64, 128), "batch": (5, 10, 20, 40), "size": (16, 32, 48, 64)}


def layouts(setting: dict[str, int], pairs: int) -> dict[str, float]:
    """Milliseconds a step of plain autograd in either memory layout, over a shorter path."""
    steps = min(10, setting["steps"])
    workers = {name: Worker(name, setting | {"steps": steps}) for name in PLAIN}
    seconds = [{name: worker.run()["seconds"] for name, worker in workers.items()} for _ in range(pairs + 1)][1:]
    for worker in workers.values():
        worker.close()
    return {name: round(1000 * statistics.median(each[name] for each in seconds) / steps, 2) for name in PLAIN}


def compare(setting: dict[str, int], pairs: int) -> dict[str, Any]:
    """All arms of one setting in turns, after one run each to warm up; eager arms in the first `EAGER_TURNS`; the library's convolutions alone."""
    trial = layouts(setting, pairs)
    plain = min(PLAIN, key=lambda name: trial[name])
    workers = {name: Worker(name, setting) for name in (plain, *EAGER, *COMPILED, "convolutions")}
    first = {name: worker.run() for name, worker in workers.items()}  # the peak is that of the first run
    rounds = [{name: worker.run() for name, worker in workers.items() if turn < EAGER_TURNS or name not in EAGER} for turn in range(pairs)]
    for worker in workers.values():
        worker.close()
    arms = {}
    for name in workers:
        times, cpu = ([(each[name][key], each[plain][key]) for each in rounds if name in each] for key in ("seconds", "cpu_seconds"))
        arms[name] = {
            "ms_per_step": round(1000 * statistics.median(ours for ours, _ in times) / setting["steps"], 2),
            "time_ratio": round(statistics.median(ours / other for ours, other in times), 3),
            "cpu_ms_per_step": round(1000 * statistics.median(ours for ours, _ in cpu) / setting["steps"], 2),
            "cpu_ratio": round(statistics.median(ours / other for ours, other in cpu), 3),
            "pairs": [round(ours / other, 3) for ours, other in times],
            "peak_bytes": first[name]["bytes"],
            "memory_ratio": round(first[name]["bytes"] / first[plain]["bytes"], 4),
            "gradient_norm": first[name]["norm"],
        }
    return {"setting": setting, "layouts_ms_per_step": trial, "plain": plain, "arms": arms, "parts": Worker(COMPILED[1], setting).parts()}


def show(found: dict[str, Any]) -> None:
    """A table of one setting, and where the time of the fastest arm goes."""
    words = ", ".join(f"{name} {value}" for name, value in found["setting"].items())
    print(f"\n{words}; ratios to {found['plain']} (a trial of both layouts, ms a step: {found['layouts_ms_per_step']})")
    print(f"{'arm':22s}{'ms a step':>11s}{'time':>8s}{'cpu ms':>9s}{'cpu':>7s}{'MB':>9s}{'memory':>9s}{'|gradient|':>13s}")
    for name, arm in found["arms"].items():
        memory = f"{arm['peak_bytes'] / 1e6:9.0f}{arm['memory_ratio']:9.3f}{arm['gradient_norm']:13.4e}" if name != "convolutions" else ""
        print(f"{name:22s}{arm['ms_per_step']:11.2f}{arm['time_ratio']:8.3f}{arm['cpu_ms_per_step']:9.2f}{arm['cpu_ratio']:7.3f}{memory}")
    print("`convolutions`: the nine passes of the library's convolutions alone, each in its faster memory layout")
    print("compiled, all kept, shares of its time: " + ", ".join(f"{name} {share:.0%}" for name, share in found["parts"].items()))


def grow() -> dict[str, Any]:
    """Processor time and memory of two arms while one of T, width, batch and image size changes; exponents from a fit of logarithms."""
    found: dict[str, Any] = {}
    for axis, values in GROWTH.items():
        found[axis] = {"values": list(values)}
        for name in GROWTH_ARMS:
            points = []
            for value in values:
                worker = Worker(name, BASE | {axis: value})
                first = worker.run()
                points.append({"seconds": min(first["cpu_seconds"], worker.run()["cpu_seconds"]), "bytes": first["bytes"]})
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
