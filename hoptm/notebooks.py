"""Run one notebook with parameters, by papermill, on sockets that nobody else can take: `python -m hoptm.notebooks IN OUT`.

A kernel that listens on TCP is given ports that were free a moment ago. When several kernels start side by side, another process may
take one of them in that moment, and the kernel dies. On Unix the kernels here listen on sockets in a folder of their own instead.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import nbformat
from traitlets.config import Config

from hoptm.errors import FileError

UNIX = os.name == "posix"
LONGEST = 100
"""Characters that a socket's path may have on every Unix."""


@contextmanager
def sockets() -> Iterator[dict[str, str]]:
    """Settings for a Jupyter `KernelManager` under which its kernel's sockets lie in a new folder; empty where there are no such sockets (Windows).

    Raises FileError when the folder for temporary files has too long a path for a socket.
    """
    if not UNIX:
        yield {}
        return
    folder = Path(tempfile.mkdtemp(prefix="hoptm-"))
    try:
        if len(str(folder / "k-5")) > LONGEST:
            raise FileError(f"{folder}: too long a path for a socket. Set TMPDIR to a shorter one.")
        yield {"transport": "ipc", "ip": str(folder / "k")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_notebook(
    source: Path, target: Path, parameters: Mapping[str, Any], *, cwd: Path | None = None, cell_seconds: int | None = None, progress: bool = False
) -> None:
    """Execute `source` with these parameters in the folder `cwd` and write it, outputs and all, to `target`.

    `cell_seconds` is the longest that a cell may take; None: no limit. Raises papermill's PapermillExecutionError with the cell that failed;
    `target` then holds what ran. Raises FileError as `sockets` does.
    """
    import papermill  # here: what only reads notebooks, or grids of them, works where it is not installed (Colab)

    with sockets() as found:
        papermill.execute_notebook(
            source, target, dict(parameters), kernel_name="python3", cwd=cwd, progress_bar=progress, execution_timeout=cell_seconds,
            config=Config({"KernelManager": found}),
        )  # fmt: skip


def failure(executed: Path) -> str | None:
    """The cell that failed in an executed notebook, its source and its error, as a person wants to read them; None where none failed.

    Cells are counted from 0 as in the source: what papermill put in does not count.
    """
    cells = nbformat.read(executed, as_version=4).cells if executed.is_file() else []
    for number, cell in enumerate(cell for cell in cells if not _PUT_IN & set(cell.metadata.get("tags", []))):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback[-8:]))
                return f"cell {number}:\n\n{cell.source}\n\n{trace}\n{output.ename}: {output.evalue}"
    return None


_PUT_IN = {"injected-parameters", "papermill-error-cell-tag"}
"""Tags of cells that papermill adds."""


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--parameters", default="{}", help="A JSON object: name to value.")
@click.option("--cwd", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None, help="The folder to run in; default: this one.")
@click.option("--cell-seconds", type=click.IntRange(1), default=None, help="The longest that a cell may take; default: no limit.")
def main(source: Path, target: Path, parameters: str, cwd: Path | None, cell_seconds: int | None) -> None:
    """Execute the notebook SOURCE and write it with its outputs to TARGET."""
    run_notebook(source, target, json.loads(parameters), cwd=cwd, cell_seconds=cell_seconds)


if __name__ == "__main__":
    main()
