"""Every notebook runs in the smoke profile with unusual parameters, and its own words show that they took effect."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import form_rules
import nbformat
import pytest

from hoptm import notebooks
from hoptm.synthetic import load

BOOK = Path(__file__).resolve().parent.parent / "book"
UNUSUAL: dict[str, str] = {
    "dataset": "phantom:900", "profile": "smoke", "seed": "7919", "ipc": "2", "method": "published", "out": "out/unusual.safetensors",
    "size": "28", "table": "table2", "settings": "match.inner_loss=prior",
}  # fmt: skip
"""What each parameter is set to; none is a default of any notebook but `dataset` and `method`, which then take the other value."""
OTHERWISE = {"method": "endpoint"}


def unusual(defaults: dict[str, Any]) -> dict[str, str]:
    unknown = sorted(set(defaults) - set(UNUSUAL))
    assert not unknown, f"no unusual value for {', '.join(unknown)}: add one to UNUSUAL"
    values = {name: UNUSUAL[name] for name in defaults}
    return {name: OTHERWISE.get(name, value) if str(defaults[name]) == value else value for name, value in values.items()}


def defaults(notebook: Any) -> dict[str, Any]:
    (cell,) = [cell for cell in notebook.cells if "parameters" in form_rules.tags(cell)]
    lines = [line for line in ast.parse(cell.source).body if isinstance(line, ast.AnnAssign)]
    return {ast.unparse(line.target): ast.literal_eval(line.value) for line in lines if line.value}


def command_line(name: str, source: Path, executed: Path, values: dict[str, str], folder: Path) -> list[str]:
    """The command of the README for the notebook that it names; for the others ours, whose kernels cannot be robbed of a port."""
    if name == "reproduce/distill.ipynb":
        command = [sys.executable, "-m", "papermill", str(source), str(executed), "--cwd", str(folder), "--kernel", "python3", "--no-progress-bar"]
        return [*command, *(word for pair in values.items() for word in ("-p", *pair))]
    typed = {name: int(value) if value.isdigit() else value for name, value in values.items()}
    return [sys.executable, "-m", "hoptm.notebooks", str(source), str(executed), "--cwd", str(folder), "--parameters", json.dumps(typed)]


@pytest.mark.timeout(400)
def test_smoke(notebook_path: str, tmp_path: Path) -> None:
    source = BOOK / notebook_path
    assert source.is_file(), f"{source}: no notebook found"
    notebook = nbformat.read(source, as_version=4)
    values = unusual(defaults(notebook))
    if "out" in values:
        values["out"] = str(tmp_path / values["out"])
    executed = tmp_path / "executed.ipynb"
    command = command_line(notebook_path, source, executed, values, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]

    cells = nbformat.read(executed, as_version=4).cells
    (said,) = ["".join(form_rules.texts(cell)).split() for cell in cells if "run" in form_rules.tags(cell)]
    for name, value in values.items():
        if name == "out":
            assert Path(value).is_file(), f"nothing was written to {value}"
        else:
            assert f"{name}={value}" in said, f"{name} is not {value} in {said}"
    if "settings" in values:
        assert load(values["out"]).info["config"]["match"]["inner_loss"] == "prior", "the settings did not reach the set"


@pytest.mark.timeout(400)
def test_a_set_with_soft_labels_is_judged_beside_random_images_with_soft_labels(tmp_path: Path) -> None:
    values = {
        "dataset": "phantom:900",
        "profile": "smoke",
        "method": "teacher",
        "out": str(tmp_path / "set.safetensors"),
        "settings": "match.student_momentum=0.5",
    }
    notebooks.run_notebook(BOOK / "reproduce" / "distill.ipynb", tmp_path / "executed.ipynb", values, cwd=tmp_path)
    said = "\n".join(text for cell in nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells for text in form_rules.texts(cell))
    assert "random real images with soft labels of the same experts" in said and "random real, teacher's labels" in said
    records = sorted(path.name for path in tmp_path.glob("*.json"))
    assert records == ["phantom:900-smoke-random-teacher-ipc1-seed0.json", "phantom:900-smoke-teacher-ipc1-seed0.json"]
    made = load(values["out"])
    assert made.soft is not None and made.info["config"]["match"]["student_momentum"] == 0.5


def test_a_parameter_without_effect_is_seen() -> None:
    assert unusual({"seed": 0, "method": "published"}) == {"seed": "7919", "method": "endpoint"}
    with pytest.raises(AssertionError, match="no unusual value for colour"):
        unusual({"colour": "red"})
