"""The form of a notebook, one rule a function: each takes a notebook and its path in the repository and lists what is wrong."""

import ast
import re
import statistics
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
COLAB = f"https://colab.research.google.com/github/{REPOSITORY['url'].removeprefix('https://github.com/')}/blob/{REPOSITORY['branch']}/"

SETUP = f"""import subprocess
import sys

if "google.colab" in sys.modules:  # elsewhere hoptm is installed already; torch and numpy stay Colab's own
    source = "hoptm @ git+{REPOSITORY["url"]}@{REPOSITORY["branch"]}"
    packages = [source, "medmnist", "fire", "jaxtyping", "wadler-lindig", "pooch", "safetensors", "filelock", "platformdirs"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)"""

SOURCED = {
    "CC BY 4.0": "licence of most MedMNIST sets",
    "CC BY 3.0": "licence of COVID19-CXR",
    "CC BY-NC 4.0": "licence of DermaMNIST",
    "95 %": "level of every interval in the book",
}
"""Words with numbers that prose may hold as they are, and where they come from."""

MAX_BYTES = 400_000
ENDING = ["Summary", "Exercises", "Solutions", "References"]
BESIDE = {"size", "table", "method", "settings"}
"""Parameters of a notebook of `reproduce` that may stand beside the configuration: an arm is no method of it, changed settings are all over it."""
PARAMETERS = {"dataset", "profile", "seed"}
TAGS = {"setup", "parameters", "run", "solution", "hide-input", "hide-cell", "hide-output", "nbval-ignore-output"}


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def with_tag(notebook: Any, tag: str) -> list[int]:
    return [number for number, cell in enumerate(notebook.cells) if tag in tags(cell)]


def headings(notebook: Any, level: int) -> list[tuple[int, str]]:
    pattern = re.compile(rf"^{'#' * level} +(.+?) *$", re.MULTILINE)
    return [(number, text) for number, cell in enumerate(notebook.cells) if cell.cell_type == "markdown" for text in pattern.findall(cell.source)]


def is_chapter(path: str) -> bool:
    return PurePosixPath(path).parent.name == "chapters"


def explorables(cell: Any) -> list[str]:
    """The figures of `hoptm.explorables` that the cell shows, as HTML; their data is not compared, it follows the machine."""
    found = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
    return [text for text in found if text.startswith('<div class="explorable"')]


def images(cell: Any) -> int:
    return sum(kind.startswith("image/") for output in cell.get("outputs", []) for kind in output.get("data", {})) + len(explorables(cell))


def texts(cell: Any) -> list[str]:
    """What the cell printed or returned as text; a figure and the words that stand in for it do not count."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.output_type == "stream":
            found.append(output.text)
        elif not any(kind.startswith("image/") for kind in data) and data.get("text/html") not in explorables(cell):
            found += [text for kind, text in data.items() if kind.startswith("text/")]
    return found


def parsed(cell: Any) -> ast.Module:
    return ast.parse(re.sub(r"^[%!].*$", "pass", cell.source, flags=re.MULTILINE))


def title(notebook: Any, path: str) -> list[str]:
    found = headings(notebook, 1)
    if len(found) != 1 or found[0][0] != 0 or not notebook.cells[0].source.startswith("# "):
        return ["the first cell must open with the one title"]
    return [f"the title is no question: {found[0][1]}"] if is_chapter(path) and not found[0][1].endswith("?") else []


def promises(notebook: Any, path: str) -> list[str]:
    text = notebook.cells[1].source if len(notebook.cells) > 1 and notebook.cells[1].cell_type == "markdown" else ""
    return [f"the second cell lacks **{words}**" for words in ("You will see", "You need", "Time and memory") if f"**{words}**" not in text]


def setup(notebook: Any, path: str) -> list[str]:
    found = with_tag(notebook, "setup")
    if found != [2]:
        return [f"the third cell, and no other, must carry the tag setup; cells {found} do"]
    return [] if notebook.cells[2].source == SETUP else ["the setup cell is not the text of SETUP in tests/form_rules.py"]


def parameters(notebook: Any, path: str) -> list[str]:
    found = with_tag(notebook, "parameters")
    if len(found) != 1:
        return [f"one cell must carry the tag parameters; {len(found)} do"]
    problems, names = [], set()
    for line in parsed(notebook.cells[found[0]]).body:
        text = ast.unparse(line)
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or not isinstance(line.value, ast.Constant):
            problems.append(f"no typed literal: {text}")
            continue
        names.add(line.target.id)
        if type(line.value.value).__name__ != ast.unparse(line.annotation):
            problems.append(f"the literal is not of its type: {text}")
    return problems + [f"no parameter {name}" for name in sorted(PARAMETERS - names)]


def run(notebook: Any, path: str) -> list[str]:
    found = with_tag(notebook, "run")
    if len(found) != 1:
        return [f"one cell must carry the tag run; {len(found)} do"]
    cell, given = notebook.cells[found[0]], with_tag(notebook, "parameters")
    names = [line.target.id for line in parsed(notebook.cells[given[0]]).body if isinstance(line, ast.AnnAssign)] if given else []
    shown = "".join(texts(cell))
    problems = [] if given and found[0] > given[0] else ["the run cell must follow the parameters cell"]
    for name in names:
        shows = f"{name}={{config.{name}}}" in cell.source or (name in BESIDE and not is_chapter(path) and f"{name}={{{name}}}" in cell.source)
        if name != "out" and not shows:
            problems.append(f"the run cell must print {name}={{config.{name}}}")
        if name != "out" and f"{name}=" not in shown:
            problems.append(f"the run cell's output does not show {name}=")
    return problems


def lengths(notebook: Any, path: str) -> list[str]:
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    problems = [f"a code cell of {count} lines" for count in lines if count > 25]
    if statistics.median(lines) > 8:
        problems.append(f"the median code cell has {statistics.median(lines)} lines")
    trees = [node for cell in code(notebook) for node in ast.walk(parsed(cell))]
    if sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in trees) > 2:
        problems.append("more than two functions")
    return problems + ["a class"] * any(isinstance(node, ast.ClassDef) for node in trees)


def branches(notebook: Any, path: str) -> list[str]:
    """No comparison reads the profile, alone or as an attribute."""
    nodes = [node for cell in code(notebook) for node in ast.walk(parsed(cell)) if isinstance(node, ast.Compare | ast.Match)]
    names = [getattr(part, "id", getattr(part, "attr", "")) for node in nodes for part in ast.walk(node)]
    return ["a notebook must not branch on the profile"] * ("profile" in names)


def plain_markdown(notebook: Any, path: str) -> list[str]:
    pattern = re.compile(r"^\s*(`{3,}|~{3,}|:{3,})\s*\{|\{[a-z:]+\}`|^\([\w-]+\)=\s*$", re.MULTILINE)
    return [f"MyST markup: {match.group().strip()}" for cell in prose(notebook) for match in pattern.finditer(cell.source)]


def figures(notebook: Any, path: str) -> list[str]:
    problems = []
    for number, cell in enumerate(notebook.cells):
        count, alt = images(cell), cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for text in explorables(cell):
            own = re.match(r'<div class="explorable" data-explorable="\w+">\n<img alt="([^"]*)" src="data:image/png;base64,', text)
            if own is None:
                problems.append(f"cell {number}: an explorable figure without its still picture")
            alt = own[1] if own else ""
        if count > 1:
            problems.append(f"cell {number}: {count} images, one is the most")
        if count and len(alt) < 20:
            problems.append(f"cell {number}: the figure has no alt text")
        if alt and not count:
            problems.append(f"cell {number}: alt text but no figure")
        following = notebook.cells[number + 1] if number + 1 < len(notebook.cells) else None
        if count and "solution" not in tags(cell) and (following is None or following.cell_type != "markdown"):
            problems.append(f"cell {number}: no words after the figure say what to see")
        if any("<img" in text or "<video" in text for text in texts(cell)):
            problems.append(f"cell {number}: an image inside HTML carries no alt text")
    return problems


def ending(notebook: Any, path: str) -> list[str]:
    wanted = ENDING if is_chapter(path) else ["Summary", "References"]
    found = [text for _, text in headings(notebook, 2) if text in wanted]
    return [] if found == wanted else [f"the last sections must be {', '.join(wanted)}; there are {', '.join(found) or 'none'}"]


def solutions(notebook: Any, path: str) -> list[str]:
    places = {text: number for number, text in headings(notebook, 2)}
    if not is_chapter(path) or not {"Exercises", "Solutions"} <= set(places):
        return []
    asked = set(re.findall(r"^(\d+)\. ", notebook.cells[places["Exercises"]].source, re.MULTILINE))
    answers = [cell for cell in notebook.cells[places["Solutions"] :] if cell.cell_type == "code"]
    solved = {match.group(1) for cell in answers if (match := re.match(r"# Exercise (\d+)", cell.source))}
    problems = [f"exercise {number} has no solution" for number in sorted(asked - solved)] + ["no exercises"] * (not asked)
    return problems + ["a solution lacks its tags"] * any(not {"solution", "hide-cell"} <= set(tags(cell)) for cell in answers)


def numbers(notebook: Any, path: str) -> list[str]:
    """Prose states no result: no decimals, percentages or plus-minus outside formulas, code, links' targets and references."""
    stop = next((number for number, text in headings(notebook, 2) if text == "References"), len(notebook.cells))
    problems = []
    for number, cell in enumerate(notebook.cells[:stop]):
        if cell.cell_type != "markdown":
            continue
        text = cell.source
        for words in SOURCED:
            text = text.replace(words, "")
        for hidden in (r"```.*?```", r"\$\$.*?\$\$", r"\\begin\{.*?\\end\{\w+\*?\}", r"\$[^$\n]+\$", r"`[^`\n]+`", r"\]\([^)]*\)", r"<https?:[^>]*>"):
            text = re.sub(hidden, " ", text, flags=re.DOTALL)
        for match in re.finditer(r"\d+\.\d+|\d+ ?(%|percent|per cent)|±|\+/-|plus[- ]minus", text):
            problems.append(f"cell {number}: prose states a number: {text[max(0, match.start() - 20) : match.end() + 10]!r}")
    return problems


def outputs(notebook: Any, path: str) -> list[str]:
    unclean = {
        "a machine's path": r"(?<![\w.])/(home|root|tmp|work|Users|opt|usr|var|content|private)/|[A-Z]:\\\\?\w",
        "a time of day": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\b\d\d:\d\d:\d\d\b",
        "an address": r"\b0x[0-9a-f]{6,}",
        "a progress bar": r"\r|\d+(\.\d+)?(it/s|s/it)",
    }
    problems = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                problems.append(f"cell {number}: a stored error")
            if output.get("name") == "stderr":
                problems.append(f"cell {number}: output on standard error")
        text = "\n".join(texts(cell))
        if len(text.splitlines()) > 30:
            problems.append(f"cell {number}: {len(text.splitlines())} lines of output")
        problems += [f"cell {number}: {what} in the output" for what, pattern in unclean.items() if re.search(pattern, text)]
    return problems


def executed(notebook: Any, path: str) -> list[str]:
    counts = [cell.execution_count for cell in code(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else ["the cells were not executed once, from top to bottom"]


def compared(notebook: Any, path: str) -> list[str]:
    """Two thirds of the text that cells print is compared by nbval, and no other tag softens it."""
    problems = [f"unknown tag {tag}" for cell in notebook.cells for tag in tags(cell) if tag not in TAGS]
    problems += ["a comment that nbval obeys"] * any(re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source) for cell in code(notebook))
    speaking = [cell for cell in code(notebook) if texts(cell)]
    ignored = sum("nbval-ignore-output" in tags(cell) for cell in speaking)
    return problems + [f"{ignored} of {len(speaking)} text outputs are not compared"] * (3 * ignored > len(speaking))


def metadata(notebook: Any, path: str) -> list[str]:
    problems = [f"metadata {key}" for key in sorted(set(notebook.metadata) - {"kernelspec", "language_info", "hoptm"})]
    problems += [f"cell metadata {key}" for cell in notebook.cells for key in sorted(set(cell.metadata) - {"tags", "mystnb"})]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel is not python3")
    if set(notebook.metadata.get("language_info", {})) - {"name"}:
        problems.append("language_info names more than the language")
    return problems


def links(notebook: Any, path: str) -> list[str]:
    problems = []
    for cell in prose(notebook):
        for target in re.findall(r"\]\(([^)\s]+)", cell.source) + re.findall(r"https://colab\.research\.google\.com[^\s)>\"]*", cell.source):
            if "colab.research.google.com" in target and target != COLAB + path:
                problems.append(f"the Colab link is not {COLAB}{path}")
            elif not re.match(r"[a-z]+:|#", target) and not (ROOT / path).parent.joinpath(target.split("#")[0]).exists():
                problems.append(f"no such page: {target}")
        if re.search(r"!\[[^]]*\]\(https?:|<img", cell.source):
            problems.append("an image from elsewhere, or without alt text")
        problems += ["an image without alt text"] * bool(re.search(r"!\[\s*\]", cell.source))
    return problems


RULES: list[Callable[[Any, str], list[str]]] = [
    title, promises, setup, parameters, run, lengths, branches, plain_markdown, figures,
    ending, solutions, numbers, outputs, executed, compared, metadata, links,
]  # fmt: skip
