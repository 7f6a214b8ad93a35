"""Peak memory and time of the engine against plain autograd: `make bench`.

Each arm runs in its own process on the same inputs: T inner steps of a ConvNet-3 of width 128 on 3 x 32 x 32 images,
batch 10, one thread, with augmentation. The peak of a process that only builds the inputs is taken off. The last line
is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import time

ARMS = ("inputs", "adjoint", "unroll")


def build(steps: int):
    """The inputs that all arms share: network, expert waypoints, images, labels and the plan."""
    import torch

    from hoptm.config import MatchConfig, NetworkConfig, generator
    from hoptm.networks import network
    from hoptm.outer import draw_plan

    torch.set_num_threads(1)
    chance = generator(0, "bench")
    net = network(NetworkConfig("convnet", 3, 128, "instance"), channels=3, classes=9, size=32)
    start = net.initial(chance)
    expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance)])
    images = torch.randn(90, 3, 32, 32, generator=chance)
    plan = draw_plan(90, 32, MatchConfig(steps=steps, batch=10), chance)
    return net, expert, images, torch.arange(90) // 10, torch.tensor(0.01), plan


def arm(name: str, steps: int) -> dict[str, float]:
    """One arm in this process: seconds of its gradient and the peak memory of the whole process."""
    from hoptm import adjoint, unroll
    from hoptm.path_losses import end_point
    from hoptm.records import peak_bytes

    net, expert, images, labels, lr, plan = build(steps)
    began = time.perf_counter()
    norm = 0.0
    if name != "inputs":
        engine = adjoint if name == "adjoint" else unroll
        found = engine.path_gradient(net, end_point, expert, images, labels, lr, plan, (0, steps))
        norm = float(found.images.norm())
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes(), "gradient_norm": norm}


def main() -> None:
    """Run each arm in a fresh process and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--steps", type=int, default=80, help="T, inner steps")
    chosen = parser.parse_args()
    if chosen.arm:
        print(json.dumps(arm(chosen.arm, chosen.steps)))
        return
    single = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    found = {}
    for name in ARMS:
        words = [sys.executable, __file__, "--arm", name, "--steps", str(chosen.steps)]
        found[name] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True, env=single).stdout)
    extra = {name: found[name]["peak_bytes"] - found["inputs"]["peak_bytes"] for name in ("adjoint", "unroll")}
    speed = {name: 1000 * found[name]["seconds"] / chosen.steps for name in extra}
    for name in extra:
        print(f"{name:8s} {speed[name]:7.1f} ms a step   {extra[name] / 1e6:8.1f} MB above the inputs   gradient norm {found[name]['gradient_norm']:.4e}")
    ratio = extra["unroll"] / extra["adjoint"]
    print(f"plain autograd takes {ratio:.1f} times the memory of the engine; the engine takes {speed['adjoint'] / speed['unroll']:.2f} times its time")
    report = {"steps": chosen.steps, "ms_per_step": speed, "peak_bytes_above_inputs": extra, "memory_ratio": ratio}
    print(json.dumps(report | {"time_ratio": speed["adjoint"] / speed["unroll"]}))


if __name__ == "__main__":
    main()
