"""The README's example runs as it stands."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_of_a_path_loss_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    made = names["made"]
    assert {name for look in made.history for name in look.terms} == {"velocity"}  # type: ignore[attr-defined]


def test_the_picture_is_there():
    (picture,) = re.findall(r"!\[.{40,}?\]\((.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert (ROOT / picture).is_file()
