"""An inner step on a GPU, recorded once as a CUDA graph and replayed: the work of `inner.Eager` without its launches.

One step of a small network is hundreds of kernels of a few microseconds each, so launching them takes longer than running
them. A graph is launched whole. One is recorded for each kind of call: first or second order, shapes and types, and the kind of
augmentation, whose values are an input like the others. Convolutions are exact float32, not TF32.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hoptm import augment
from hoptm.inner import Eager, InnerLoss, Predict, Second

Outputs: TypeAlias = tuple[Tensor | None, ...]
Record: TypeAlias = Callable[[Callable[[], Outputs]], tuple[Callable[[], None], Outputs]]
"""From work on fixed tensors to what does it again, and the tensors that hold what it gives."""

_WARM_UP, _MOST = 2, 96
"""Runs before a recording, in which libraries make their choices; graphs that are kept."""


class Captured:
    """A `Step` for one network and inner loss. Memory is kept between calls: use one object a process or thread.

    Nothing is kept from `first` for `second`, whatever `keep` says: a recording has one place for what it makes, which its next replay overwrites.
    `record` is `cuda_graph`; another can stand in for it where there is no GPU.
    """

    def __init__(self, predict: Predict, inner_loss: InnerLoss, record: Record | None = None) -> None:
        self._eager, self._record = Eager(predict, inner_loss), record or cuda_graph()
        self._graphs: dict[Any, _Graph] = {}

    def first(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, *, keep: bool) -> tuple[Tensor, Any]:
        """As `Step.first`; nothing is kept."""
        (gradient,) = self._replayed("first", {"theta": theta, "images": images, "targets": targets}, drawn)
        assert gradient is not None
        return gradient, None

    def second(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw, along: Tensor, kept: Any) -> Second:
        """As `Step.second`."""
        given = {"theta": theta, "images": images, "targets": targets, "along": along}
        product, for_theta, for_images, for_targets = self._replayed("second", given, drawn)
        assert product is not None and for_theta is not None and for_images is not None
        return Second(product, for_theta, for_images, for_targets)

    def kept_bytes(self, theta: Tensor, images: Tensor, targets: Tensor, drawn: augment.Draw) -> int:
        """As `Step.kept_bytes`: 0, since nothing is kept."""
        return 0

    def _replayed(self, order: str, given: Mapping[str, Tensor], drawn: augment.Draw) -> Outputs:
        key = (order, drawn.name, *((name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in given.items()))
        if key not in self._graphs:
            while len(self._graphs) >= _MOST:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = _Graph(functools.partial(self._work, order), given, drawn, self._record)
        return self._graphs[key](given, drawn)

    def _work(self, order: str, given: Mapping[str, Tensor], drawn: augment.Draw) -> Outputs:
        if order == "first":
            return (self._eager.first(given["theta"], given["images"], given["targets"], drawn, keep=False)[0],)
        found = self._eager.second(given["theta"], given["images"], given["targets"], drawn, given["along"], None)
        return found.product, found.theta, found.images, found.targets


class _Graph:
    """One recording: its inputs, what fills them, what replays it, and its outputs."""

    def __init__(self, work: Callable[[Mapping[str, Tensor], augment.Draw], Outputs], given: Mapping[str, Tensor], drawn: augment.Draw, record: Record) -> None:
        where = given["theta"].device
        self._given = {name: tensor.detach().clone() for name, tensor in given.items()}
        self._drawn = augment.Draw(drawn.name, {name: value.to(where, copy=True) for name, value in drawn.values.items()})
        self._replay, self._outputs = record(lambda: work(self._given, self._drawn))

    def __call__(self, given: Mapping[str, Tensor], drawn: augment.Draw) -> Outputs:
        for name, tensor in given.items():
            self._given[name].copy_(tensor)
        for name, value in drawn.values.items():
            self._drawn.values[name].copy_(value)
        self._replay()
        return self._outputs


def cuda_graph() -> Record:
    """Recordings that share one pool of memory; they must be replayed one after the other, and read before the next."""
    pool = torch.cuda.graph_pool_handle()

    def record(work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    work()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                outputs = work()
        return graph.replay, outputs

    return record


@functools.lru_cache(maxsize=8)
def captured(predict: Predict, inner_loss: InnerLoss) -> Captured:
    """The same step for the same network and loss, so that one that is trained anew finds its recordings."""
    return Captured(predict, inner_loss)
