"""Notebooks run with parameters, side by side, on sockets of their own."""

import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from hoptm import notebooks
from hoptm.errors import FileError

WHERE = "import json, ipykernel\nfound = json.load(open(ipykernel.get_connection_file()))\nprint(found['transport'], found['ip'])"


def written(folder: Path, *cells: str) -> Path:
    start = nbformat.v4.new_code_cell("x: int = 1", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[start, *map(nbformat.v4.new_code_cell, cells)])
    made.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    nbformat.write(made, folder / "in.ipynb")
    return folder / "in.ipynb"


def said(path: Path) -> list[str]:
    return [output.text.strip() for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", []) if "text" in output]


def test_a_notebook_runs_in_its_folder_with_its_parameters_on_its_own_sockets(tmp_path: Path) -> None:
    source = written(tmp_path, "import os\nprint(x + 1, os.getcwd())", WHERE)
    (tmp_path / "inside").mkdir()
    notebooks.run_notebook(source, tmp_path / "out.ipynb", {"x": 41}, cwd=tmp_path / "inside")
    first, second = said(tmp_path / "out.ipynb")
    assert first == f"42 {tmp_path / 'inside'}"
    transport, folder = second.split()
    assert transport == ("ipc" if notebooks.UNIX else "tcp")
    assert not notebooks.UNIX or not Path(folder).parent.exists(), "the folder of the sockets stays behind"


def test_the_cell_that_fails_is_named_and_what_ran_is_kept(tmp_path: Path) -> None:
    source = written(tmp_path, "print('ran')", "1 / 0", "print('never')")
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        notebooks.run_notebook(source, tmp_path / "out.ipynb", {})
    assert (notebooks.failure(tmp_path / "out.ipynb") or "").startswith("cell 2:\n\n1 / 0"), "counted as in the source"
    assert "ran" in said(tmp_path / "out.ipynb") and "never" not in said(tmp_path / "out.ipynb")


def test_the_command_does_the_same(tmp_path: Path) -> None:
    source = written(tmp_path, "print(x)")
    command = [sys.executable, "-m", "hoptm.notebooks", str(source), str(tmp_path / "out.ipynb"), "--parameters", '{"x": 7}']
    running = [subprocess.Popen([*command[:4], str(tmp_path / f"{number}.ipynb"), *command[5:]]) for number in range(3)]
    assert [process.wait(timeout=200) for process in running] == [0, 0, 0]
    assert [said(tmp_path / f"{number}.ipynb") for number in range(3)] == [["7"]] * 3


def test_a_folder_whose_path_is_too_long_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(notebooks.tempfile, "tempdir", str(deep))
    if notebooks.UNIX:
        with pytest.raises(FileError, match="TMPDIR"), notebooks.sockets():
            pass
        assert not list(deep.iterdir())
