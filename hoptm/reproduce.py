"""A grid of notebooks, run cell by cell: on this machine, or by anything that has the `submit` of `concurrent.futures.Executor`.

A cell is finished when its notebook is there with the same parameters. It is written under another name until then, so a grid that is
stopped at any time goes on where it was, within a cell too, because a distillation keeps its state. One cell that fails stops no other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat

from hoptm.errors import ConfigError, FileError
from hoptm.grids import Cell, Grid
from hoptm.notebooks import failure
from hoptm.records import Record, read_records
from hoptm.results import NAMES
from hoptm.transcribed import entry, measured, standard_errors

_CHILDREN: set[subprocess.Popen[str]] = set()
"""Processes that this one started and waits for: they are told when it is interrupted."""
PATIENCE = 30.0
"""Seconds that a notebook has to stop after Ctrl-C."""


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: seconds, and the error of the notebook cell that failed, empty for none."""

    name: str
    seconds: float
    error: str = ""


def find_grid(wanted: Path) -> Path:
    """The file itself, or the grid of that name that ships: `table1`, `table2`. Raises FileError with the names that there are."""
    if wanted.is_file():
        return wanted
    package = Path(__file__).resolve().parent
    folders = [folder for folder in (package.parent / "book" / "reproduce", package / "stored" / "reproduce") if folder.is_dir()]
    for folder in folders:
        if (folder / f"{wanted.name}.toml").is_file() and wanted.parent == Path("."):
            return folder / f"{wanted.name}.toml"
    names = ", ".join(sorted(path.stem for folder in folders[:1] for path in folder.glob("*.toml")))
    raise FileError(f"{wanted}: no such file, and no grid of that name ships. There are {names}.")


def left(grid: Grid, folder: Path) -> list[Cell]:
    """The cells that are not finished in `folder`."""
    return [cell for cell in grid.cells if not _finished(cell, folder)]


def _finished(cell: Cell, folder: Path) -> bool:
    path = folder / f"{cell.name}.ipynb"
    if not path.is_file():
        return False
    try:
        found = nbformat.read(path, as_version=4).metadata["papermill"]["parameters"]
    except (ValueError, KeyError):
        return False
    return bool(found == _parameters(cell))


def _parameters(cell: Cell) -> dict[str, object]:
    return {**cell.parameters, "out": f"{cell.name}.safetensors"}


def run_cell(name: str, source: str, folder: str, parameters: dict[str, object]) -> Outcome:
    """Run one cell in a process of its own, one thread, and give its notebook its name when all of it ran. What another scheduler calls.

    The folder must be one that whoever runs this can write to, the same for all.
    """
    began, partial = time.monotonic(), Path(folder) / f"{name}.partial.ipynb"
    command = [sys.executable, "-m", "hoptm.notebooks", source, str(partial), "--cwd", folder, "--parameters", json.dumps(parameters)]
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
    partial.unlink(missing_ok=True)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    _CHILDREN.add(child)
    try:
        _, said = child.communicate()
    finally:
        _CHILDREN.discard(child)
    seconds = time.monotonic() - began
    if child.returncode:
        return Outcome(name, seconds, failure(partial) or said[-2000:] or f"ended with status {child.returncode}")
    partial.replace(Path(folder) / f"{name}.ipynb")
    return Outcome(name, seconds)


def reproduce(grid: Grid, folder: Path, *, executor: Executor | None = None, workers: int = 1, say: Callable[[str], None] = print) -> list[Outcome]:
    """Run the cells that are left and return how each ended, in the order in which they did.

    Without an `executor` the cells run here, `workers` side by side. Ctrl-C tells the running cells to stop, drops the others and raises
    KeyboardInterrupt; what an executor of yours has begun goes on there. Raises FileError for a folder that cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made ({error}). Name another folder.") from error
    ours = ThreadPoolExecutor(workers) if executor is None else None
    pool, waiting, ended = executor or ours, left(grid, folder), []
    assert pool is not None
    where, source = str(folder.resolve()), str(grid.notebook.resolve())
    running: dict[Future[Outcome], Cell] = {pool.submit(run_cell, cell.name, source, where, _parameters(cell)): cell for cell in waiting}
    try:
        for future in as_completed(running):
            outcome = _outcome(future, running[future])
            ended.append(outcome)
            words = f"FAILED, {_last_line(outcome.error)}" if outcome.error else f"{outcome.seconds:.0f} s"
            say(f"[{len(ended)}/{len(waiting)}] {outcome.name}: {words}")
    except KeyboardInterrupt:
        for future in running:
            future.cancel()
        _stop()
        raise
    finally:
        if ours is not None:
            ours.shutdown(wait=True, cancel_futures=True)
    return ended


def _outcome(future: "Future[Outcome]", cell: Cell) -> Outcome:
    """A worker that died, or a scheduler that lost it, is a cell that failed."""
    error = future.exception()
    return future.result() if error is None else Outcome(cell.name, 0.0, f"{type(error).__name__}: {error}")


def _stop() -> None:
    """Ask the notebooks that run to stop, and end those that do not: their kernels see that, and end too."""
    told = list(_CHILDREN)
    for child in told:
        child.send_signal(signal.SIGINT)
    until = time.monotonic() + PATIENCE
    while any(child.poll() is None for child in told) and time.monotonic() < until:
        time.sleep(0.1)
    for child in told:
        if child.poll() is None:
            child.kill()


def _last_line(words: str) -> str:
    return words.strip().splitlines()[-1] if words.strip() else "no words"


def collected(grid: Grid, folder: Path) -> list[Record]:
    """The records of the grid's cells in `folder`, one a cell that has one. Raises FileError for one that cannot be read."""
    wanted = {cell.name for cell in grid.cells}
    return [record for record in read_records(folder) if record.name in wanted]


def summary(grid: Grid, folder: Path) -> str:
    """A line an arm and budget: seeds, accuracy with its standard error, the paper's number and the difference in standard errors.

    On a stand-in the difference is left out, and the last line says why. Cells without a record are counted there too.
    """
    records, lines = (
        collected(grid, folder),
        [f"{'method':32s} {'IPC':>4s} {'n':>2s}  {'accuracy':>8s}  {'s.e.':>5s}  {'paper':>6s}  {'difference, s.e.':>16s}"],
    )
    tables, notes = {cell.parameters.get("table", "") for cell in grid.cells}, set()
    table = tables.pop() if len(tables) == 1 else ""
    for method, ipc in sorted({(record.method, record.ipc) for record in records}, key=lambda pair: (pair[1], pair[0])):
        found = [record for record in records if (record.method, record.ipc) == (method, ipc)]
        ours, theirs = measured(found), entry(table, method, ipc) if table else None
        stand_in = str(found[0].extra.get("stand_in", ""))
        notes |= {stand_in} - {""}
        paper = f"{theirs.mean:.4f}" if theirs else "-"
        difference = "stand-in" if stand_in else f"{standard_errors(ours, theirs):+.1f}" if theirs else "-"
        lines.append(f"{NAMES[method]:32s} {ipc:4d} {len(found):2d}  {ours.mean:8.3f}  {ours.standard_error:5.3f}  {paper:>6s}  {difference:>16s}")
    lines += sorted(notes)
    return "\n".join([*lines, f"{len(records)} of {len(grid.cells)} cells have a record in {folder}"])


def dask_executor(address: str) -> Executor:
    """An executor on the Dask scheduler at this address. Raises ConfigError without the extra `cluster`, or where no scheduler answers."""
    try:
        from distributed import Client  # here: only this needs it
    except ImportError as error:
        raise ConfigError("--cluster needs Dask: pip install 'hoptm[cluster]'.") from error
    try:
        executor: Executor = Client(address).get_executor()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--cluster {address}: no Dask scheduler answers ({error}). Start one with: dask scheduler.") from error
    return executor
