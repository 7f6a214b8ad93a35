"""How many bytes of tensors a piece of work holds at once: a count, so that it is the same on every machine.

Every operation passes through a dispatch mode, which adds the memory of what it makes; a finaliser on the storage
takes it away again when the last tensor that reads it is gone, wherever it was kept, in a graph or in a list.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Meter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, call: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)}
        made = call(*arguments, **(named or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta" and leaf.untyped_storage()._cdata not in given:
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by `work` take at one moment; what existed before and scratch space inside an operation do not count."""
    meter = _Meter()
    with meter:
        work()
    return meter.most
