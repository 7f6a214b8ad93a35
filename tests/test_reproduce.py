"""A grid runs cell by cell, goes on where it was, and one cell that fails stops no other."""

import functools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from hoptm import reproduce
from hoptm.cli import cli
from hoptm.errors import ConfigError, FileError
from hoptm.grids import read_grid
from hoptm.records import read_records

SHIPPED = Path(__file__).resolve().parent.parent / "book" / "reproduce"
QUICK = """title = "quick"
notebook = "n.ipynb"
[cells]
dataset = "phantom"
profile = "smoke"
method = "endpoint"
[axes]
seed = [0, 1]
ipc = [1, 2]
[shape]
channels = 3
classes = 9
size = 28
train = 900
"""


def quick(folder: Path, source: str) -> Path:
    """A grid whose notebook does nothing of ours, so that many cells are a matter of seconds."""
    start = nbformat.v4.new_code_cell("ipc = seed = 0\nout = ''", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[start, nbformat.v4.new_code_cell(source)])
    made.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    nbformat.write(made, folder / "n.ipynb")
    (folder / "quick.toml").write_text(QUICK)
    return folder / "quick.toml"


@pytest.mark.timeout(400)
def test_a_failing_cell_stops_no_other_and_is_run_again(tmp_path):
    source = "import os\nfrom pathlib import Path\nassert ipc != 2 or Path('mended').exists(), 'two are too many'\nPath(out).write_text(str(os.getpid()))"
    grid, said = read_grid(quick(tmp_path, source)), []
    ended = reproduce.reproduce(grid, tmp_path / "out", workers=2, say=said.append)
    errors = {outcome.name: outcome.error for outcome in ended}
    assert {name: bool(error) for name, error in errors.items()} == {
        f"phantom-smoke-endpoint-ipc{ipc}-seed{seed}": ipc == 2 for ipc in (1, 2) for seed in (0, 1)
    }
    assert all("two are too many" in error and "cell 1:" in error for error in errors.values() if error)
    assert sum("FAILED" in line for line in said) == 2 and said[-1].startswith("[4/4]")
    assert [cell.parameters["ipc"] for cell in reproduce.left(grid, tmp_path / "out")] == [2, 2]

    (tmp_path / "out" / "mended").touch()
    before = (tmp_path / "out" / "phantom-smoke-endpoint-ipc1-seed0.safetensors").read_text()
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:  # another scheduler: what it gets can be sent to another process
        again = reproduce.reproduce(grid, tmp_path / "out", executor=elsewhere, say=said.append)
    assert [bool(outcome.error) for outcome in again] == [False, False] and reproduce.left(grid, tmp_path / "out") == []
    assert (tmp_path / "out" / "phantom-smoke-endpoint-ipc1-seed0.safetensors").read_text() == before, "a finished cell ran again"
    assert not list((tmp_path / "out").glob("*.partial.ipynb"))


def finished(folder: Path, name: str, parameters: dict[str, object]) -> None:
    made = nbformat.v4.new_notebook()
    made.metadata["papermill"] = {"parameters": parameters}
    nbformat.write(made, folder / f"{name}.ipynb")


def test_a_finished_cell_of_other_parameters_is_not_taken(tmp_path):
    grid = read_grid(quick(tmp_path, "pass"))
    cell = grid.cells[0]
    finished(tmp_path, cell.name, {**cell.parameters, "out": f"{cell.name}.safetensors"})
    assert [one.name for one in reproduce.left(grid, tmp_path)] == [one.name for one in grid.cells[1:]]
    finished(tmp_path, cell.name, {**cell.parameters, "size": 3, "out": f"{cell.name}.safetensors"})
    assert len(reproduce.left(grid, tmp_path)) == 4
    (tmp_path / f"{cell.name}.ipynb").write_text("torn")
    assert len(reproduce.left(grid, tmp_path)) == 4


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_an_interrupted_grid_leaves_nothing_running_and_goes_on(tmp_path):
    source = (
        "import os, time\nfrom pathlib import Path\nPath(f'begun-{ipc}-{seed}').write_text(str(os.getpid()))\ntime.sleep(0 if Path('go').exists() else 300)"
    )
    path, out = quick(tmp_path, source), tmp_path / "out"
    command = [sys.executable, "-m", "hoptm", "reproduce", str(path), "--out", str(out), "--workers", "1"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell lets what it starts in the background ignore it
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heard)
    waited = time.monotonic() + 200
    while not list(out.glob("begun-*")) or not (kernel := next(iter(out.glob("begun-*"))).read_text()):
        assert time.monotonic() < waited and running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=100)
    assert running.returncode == 130 and "goes on from there" in said
    while alive(int(kernel)):
        assert time.monotonic() < waited, "the kernel still runs"
        time.sleep(0.1)
    assert len(list(out.glob("begun-*"))) == 1 and len(reproduce.left(read_grid(path), out)) == 4


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_a_notebook_that_does_not_stop_when_asked_is_ended(monkeypatch):
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "deaf\n"
    monkeypatch.setattr(reproduce, "PATIENCE", 0.3)
    monkeypatch.setattr(reproduce, "_CHILDREN", {child})
    reproduce._stop()
    assert child.wait(timeout=20) == -signal.SIGKILL


def test_without_papermill_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    found = CliRunner().invoke(cli, ["reproduce", str(quick(tmp_path, "pass"))])
    assert isinstance(found.exception, ConfigError) and "pip install 'hoptm[book]'" in str(found.exception)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc/self").exists() else os.kill(process, 0) is None
    except OSError:
        return False


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "title"), [("standin1", "Phantom tissue"), ("standin2", "Open chest X-rays")])
def test_one_cell_of_each_table_runs_on_a_stand_in_and_says_so(tmp_path, name, title):
    if name == "standin2" and not (Path(os.environ.get("HOPTM_DATA", "")) / "cxr_open_3class_112").is_dir():
        missing = "the open chest X-rays have no download: set HOPTM_DATA"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    path = tmp_path / "one.toml"
    path.write_text((SHIPPED / f"{name}.toml").read_text().replace('["published", "random"]', '["published"]'))
    (tmp_path / "table.ipynb").write_bytes((SHIPPED / "table.ipynb").read_bytes())
    grid = read_grid(path)
    (outcome,) = reproduce.reproduce(grid, tmp_path / "out")
    assert not outcome.error, outcome.error
    (record,) = read_records(tmp_path / "out")
    assert record.name == outcome.name and record.extra["stand_in"].startswith(f"STAND-IN: {title}")
    assert record.extra["predicted_seconds"] > 0 and record.extra["distil_seconds"] > 0
    summary = reproduce.summary(grid, tmp_path / "out")
    assert f"STAND-IN: {title}" in summary and "1 of 1 cells have a record" in summary
    executed = (tmp_path / "out" / f"{outcome.name}.ipynb").read_text()
    assert f"STAND-IN: {title}" in executed and "this cell is on record: False" in executed


def test_grids_that_ship_are_found_by_name():
    assert reproduce.find_grid(Path("table1")) == SHIPPED / "table1.toml"
    with pytest.raises(FileError, match="standin1, standin2, table1, table2"):
        reproduce.find_grid(Path("table7"))


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"hoptm\[cluster\]"):
        reproduce.dask_executor("tcp://127.0.0.1:1")
