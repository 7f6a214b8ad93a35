"""One arm of the benchmark in a process that waits for orders: a line in, a run, one line of JSON out."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

REPEATS = 5


class Worker:
    """The parent's side: start an arm, let it run, close it."""

    def __init__(self, arm: str, setting: dict[str, int]) -> None:
        single = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        words = [sys.executable, __file__, arm, json.dumps(setting)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=single)

    def run(self, order: str = "run") -> dict[str, Any]:
        """One gradient: seconds on the clock and of the processor, its norm, and the peak of memory above the inputs so far."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(order, file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def parts(self) -> dict[str, float]:
        """Shares of the time by kind of work, and the end of this worker."""
        self.run()
        found = self.run("parts")
        self.close()
        return found

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()


def inputs(setting: dict[str, int]) -> dict[str, Any]:
    """What all arms share: network, expert waypoints, images, labels, step size and plan."""
    import torch

    from hoptm.config import MatchConfig, NetworkConfig, generator
    from hoptm.networks import network
    from hoptm.outer import draw_plan

    torch.set_num_threads(1)
    chance, size, batch = generator(0, "bench"), setting["size"], setting["batch"]
    net = network(NetworkConfig("convnet", 3, setting["width"], "instance"), channels=3, classes=9, size=size)
    start = net.initial(chance)
    expert = torch.stack([start, start + 0.01 * torch.randn(start.shape, generator=chance)])
    images = torch.randn(90, 3, size, size, generator=chance)
    plan = draw_plan(90, size, MatchConfig(steps=setting["steps"], batch=batch), chance)
    return {"predict": net, "expert": expert, "images": images, "targets": torch.arange(90) // 10, "lr": torch.tensor(0.01), "plan": plan}


def channels_last(net: Any) -> Callable[[Any, Any], Any]:
    """The same network from the library's own layers, its maps and weights channels last."""
    import torch
    import torch.nn.functional as F

    from hoptm.parameters import unflatten

    def predict(theta: Any, images: Any) -> Any:
        *blocks, weight, bias = unflatten(theta, net.layout).values()
        shown = images.contiguous(memory_format=torch.channels_last)
        for number in range(0, len(blocks), 4):
            kernel, offset, scale, shift = blocks[number : number + 4]
            shown = F.conv2d(shown, kernel.contiguous(memory_format=torch.channels_last), offset, padding=1)
            shown = F.avg_pool2d(F.relu(F.group_norm(shown, len(scale), scale, shift)), 2)
        return F.linear(shown.flatten(1), weight, bias)

    return predict


def work(arm: str, setting: dict[str, int]) -> Callable[[], float]:
    """A function that computes the arm's gradient once and gives its norm."""
    import torch.nn.functional as F

    from hoptm import adjoint, kernels, unroll
    from hoptm.path_losses import end_point

    given = inputs(setting) | {"path_loss": end_point, "waypoints": (0, setting["steps"])}
    if arm == "convolutions":
        return convolutions(setting)
    if arm == "plain, channels last":
        given["predict"] = channels_last(given["predict"])
    if arm.startswith("plain"):
        return lambda: float(unroll.path_gradient(**given).images.norm())
    keep = setting["steps"] if arm.endswith("all kept") else 0
    step = kernels.Compiled(given["predict"], F.cross_entropy) if arm.startswith("compiled") else None
    return lambda: float(adjoint.path_gradient(**given, step=step, keep=keep).images.norm())


def convolutions(setting: dict[str, int]) -> Callable[[], float]:
    """Nine passes a step: three of values, three of gradients of inputs, three of weights; the first layer two of each,
    since its input has no tangent. Each kind in the layout that was faster in a trial."""
    import torch

    passes: list[Callable[[], Any]] = []
    inputs, side = 3, setting["size"]
    for _ in range(3):
        times = 2 if inputs == 3 else 3
        for masks in ((True, False, False), (False, True, False), None):
            trials = [_convolution(setting, inputs, side, masks, layout) for layout in (torch.contiguous_format, torch.channels_last)]
            passes += [min(trials, key=_seconds)] * times
        inputs, side = setting["width"], side // 2

    def run() -> float:
        for _ in range(setting["steps"]):
            for one in passes:
                one()
        return 0.0

    return run


def _convolution(setting: dict[str, int], inputs: int, side: int, masks: Any, layout: Any) -> Callable[[], Any]:
    import torch

    shown, upper, weight = (
        torch.randn(shape).contiguous(memory_format=layout)
        for shape in ((setting["batch"], inputs, side, side), (setting["batch"], setting["width"], side, side), (setting["width"], inputs, 3, 3))
    )
    if masks is None:
        return lambda: torch.conv2d(shown, weight, None, 1, 1)
    return lambda: torch.ops.aten.convolution_backward(upper, shown, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, list(masks))


def _seconds(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


KINDS = {
    "weight_tiles": "transforms", "weight_adjoint": "transforms", "input_tiles": "transforms", "input_adjoint": "transforms", "output_map": "transforms",
    "output_adjoint": "transforms", "spread": "transforms", "gather": "transforms", "forward": "norm, ReLU, mean", "forward1": "norm, ReLU, mean",
    "backward": "norm, ReLU, mean", "backward1": "norm, ReLU, mean",
}  # fmt: skip


def parts(run: Callable[[], float]) -> dict[str, float]:
    """Shares of one run: products, transforms, norms, copies between flat and packed parameters, augmentation and head, the rest."""
    import torch

    from hoptm import augment, kernels, native

    spent: Counter[str] = Counter()

    def timed(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            answer = call(*arguments, **named)
            spent[kind] += time.perf_counter() - began
            return answer

        return measured

    library = native.load(native.cache_folder())
    for name, kind in KINDS.items():
        setattr(library, f"f32_{name}", timed(kind, getattr(library, f"f32_{name}")))
    torch.bmm, torch.Tensor.baddbmm_, torch.Tensor.copy_ = (
        timed("products", torch.bmm),
        timed("products", torch.Tensor.baddbmm_),
        timed("packing", torch.Tensor.copy_),
    )
    augment.apply, kernels._curvature, torch.autograd.grad = (
        timed("augmentation, head", call) for call in (augment.apply, kernels._curvature, torch.autograd.grad)
    )
    began = time.perf_counter()
    run()
    whole = time.perf_counter() - began
    shares = {kind: round(seconds / whole, 3) for kind, seconds in spent.most_common()}
    return shares | {"rest": round(1 - sum(shares.values()), 3)}


def main() -> None:
    """The child's side: `engine_worker.py ARM SETTING`."""
    from hoptm.records import peak_bytes

    arm, setting = sys.argv[1], json.loads(sys.argv[2])
    run, bare = work(arm, setting), peak_bytes()
    for line in sys.stdin:
        if line.strip() == "parts":
            print(json.dumps(parts(run)), flush=True)
            continue
        began, used = time.perf_counter(), time.process_time()
        norm = run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "norm": norm, "bytes": peak_bytes() - bare}), flush=True)


if __name__ == "__main__":
    main()
