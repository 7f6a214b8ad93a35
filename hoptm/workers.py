"""Work done side by side in fresh processes, one thread each, with the same bits however many there are."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeAlias

import torch

from hoptm.errors import HoptmError

Work: TypeAlias = Callable[[int], None]
"""Does the task of a number."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the work inside: bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(prepare: Callable[[], Work], tasks: Sequence[int], number: int, done: Callable[[], object]) -> None:
    """Do each task in one of `number` fresh processes, which end when this one does or is interrupted.

    Each process calls `prepare` once (it must be picklable) and then what that returned, one task at a time, on one
    thread; `done` is called here after each. Raises what a task raises, HoptmError when a process is ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(number, context, _begin, (prepare, reader))
    try:
        with _starting():
            making = [pool.submit(_do, task) for task in tasks]
        for finished in as_completed(making):
            finished.result()
            done()
    except BaseException as error:
        writer.close()  # the workers see the end of the pipe and leave at once
        if isinstance(error, BrokenProcessPool):
            raise HoptmError("a worker process was ended, perhaps for want of memory. Run again with processes=1: what was finished is kept.") from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """While workers start: hide `__main__`, or each would run the caller's script again; and let them ignore Ctrl-C."""
    main, handler = sys.modules["__main__"], None
    sys.modules["__main__"] = types.ModuleType("__main__")
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


_here: dict[str, Work] = {}
"""In a worker: the function that does one task, with what it needs in memory."""


def _begin(prepare: Callable[[], Work], parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    _here["work"] = prepare()


def _do(task: int) -> None:
    _here["work"](task)


def _leave_with(parent: Connection) -> None:
    """Wait for the parent's end of the pipe to close, by its will or its death, and end this process."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv_bytes()
    os._exit(1)
