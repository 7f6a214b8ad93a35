"""The repository as a whole: one set of pins, imports that point down, documented functions, workflows that parse, no trace of a machine."""

import ast
import inspect
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| module |")[2].partition("\n\n")[0], re.MULTILINE)
ORDER = ["__main__", *(name for row in TABLE for name in re.findall(r"`(\w+)`", row))]
"""The modules as CONTRIBUTING.md lists them: imports point down its table, and in a row from left to right."""
MODULES = sorted(path.stem for path in (ROOT / "hoptm").glob("*.py"))


def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def tracked() -> list[Path]:
    """What git carries or would carry; a folder that is no repository has all its files looked at."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({ROOT / name for name in names if name and (ROOT / name).is_file()})


def test_pins_are_exact() -> None:
    for pin in pins():
        (only,) = Requirement(pin).specifier
        assert only.operator == "==" and "+" not in only.version, pin


def test_environment_equals_constraints() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert [line for line in pip if not line.startswith("-e ")] == pins()


def test_constraints_meet_the_ranges() -> None:
    exact = {canonical(Requirement(pin).name): next(iter(Requirement(pin).specifier)).version for pin in pins()}
    wanted = [Requirement(text) for text in re.findall(r'^    "([^"]+)",$', project(), re.MULTILINE) if re.match(r"[a-zA-Z][\w.-]+ *[<>=]", text)]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(exact[canonical(requirement.name)], prereleases=True), str(requirement)


def imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((ROOT / "hoptm" / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" if node.module == "hoptm" else node.module for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: a relative import"
    return {name.split(".")[1] for name in found if name.startswith("hoptm.")}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_point_down(module: str) -> None:
    assert module in ORDER, f"place {module} in ORDER"
    up = sorted(name for name in imports(module) if ORDER.index(name) <= ORDER.index(module))
    assert not up, f"{module} imports {', '.join(up)}, which does not stand below it"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__main__"])
def test_public_names_are_documented(module: str) -> None:
    loaded = import_module("hoptm" if module == "__init__" else f"hoptm.{module}")
    assert loaded.__doc__
    bare = []
    for name, value in vars(loaded).items():
        if name.startswith("_") or getattr(value, "__module__", None) != loaded.__name__ or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        own = (value.__doc__ or "").strip()
        bare += [name] if not own or own.startswith(f"{name}(") else []
        methods = vars(value).items() if inspect.isclass(value) else []
        bare += [f"{name}.{key}" for key, method in methods if inspect.isfunction(method) and not key.startswith("_") and not method.__doc__]
    assert not bare, f"{module}: no docstring on {', '.join(bare)}"


@pytest.mark.parametrize("name", ["tests", "book", "colab", "gpu", "release"])
def test_workflows_parse(name: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    triggers = workflow[True]  # YAML reads the key `on` as a truth value
    assert triggers and workflow["permissions"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] and job["steps"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_workflows_call_what_exists() -> None:
    targets = set(re.findall(r"^([\w.$()/-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in [*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / ".ci" / "run"]:
        for target in re.findall(r"^\s*(?:- run: )?make (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"


def test_one_name_for_the_repository() -> None:
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == url
    assert citation["version"] in project() and citation["license"] == "MIT"


def test_licences() -> None:
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert "Creative Commons Attribution 4.0 International Public License" in (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    assert "Mozilla Public License, version 2.0" in (ROOT / "tests" / "vendor" / "axe-LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in (ROOT / "book" / "_mathjax" / "mathjax" / "LICENSE.txt").read_text(encoding="utf-8")


def test_no_name_looks_like_an_option() -> None:
    """A tool that is given all files would take such a one for a switch."""
    assert not [path.name for path in tracked() if path.name.startswith("-")]


def test_no_machine_paths_and_no_large_files() -> None:
    pattern = re.compile(r"(?<![\w.{}$~-])/(home/[a-z]+|root|work|tmp|Users/\w+)/\w")
    problems = []
    for path in tracked():
        if path.stat().st_size > 1_500_000:
            problems.append(f"{path.name}: {path.stat().st_size} bytes")
        if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".json", ".cfg", ".txt", ".bib", ".cff"}:
            problems += [f"{path.name}: {match.group()}" for match in pattern.finditer(path.read_text(encoding="utf-8"))]
    assert not problems, "\n".join(problems)


def names_in_pages() -> list[str]:
    """Every `hoptm.room.thing` and `tests/file.py` that a page of prose puts in code letters."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "book").glob("*.md"), *(ROOT / "data").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return sorted(set(re.findall(r"`(hoptm(?:\.\w+)+|tests/\w+\.py)`", text)))


@pytest.mark.parametrize("name", names_in_pages())
def test_what_pages_name_exists(name: str) -> None:
    if name.startswith("tests/"):
        assert (ROOT / name).is_file()
        return
    *rooms, thing = name.split(".")
    if not (ROOT / "hoptm" / f"{thing}.py").is_file() or len(rooms) > 1:
        found = import_module(".".join(rooms[:2]))
        for part in (*rooms[2:], thing):
            found = getattr(found, part)
