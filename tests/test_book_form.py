"""Every notebook keeps the form of the book; and every rule is seen to fail on a notebook that breaks it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import form_rules
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

GOOD_PATH = "book/chapters/01_example.ipynb"


def test_form(notebook_path: str, pytestconfig: pytest.Config) -> None:
    path = Path(pytestconfig.getoption("--notebooks")) / notebook_path
    assert path.is_file(), f"{path}: no notebook found"
    notebook = nbformat.read(path, as_version=4)
    problems = [f"{rule.__name__}: {words}" for rule in form_rules.RULES for words in rule(notebook, f"book/{notebook_path}")]
    if path.stat().st_size > form_rules.MAX_BYTES:
        problems.append(f"size: {path.stat().st_size} bytes, {form_rules.MAX_BYTES} are the most")
    assert not problems, f"{notebook_path}\n" + "\n".join(problems)


def printed(source: str, text: str, *tags: str) -> Any:
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=[new_output("stream", name="stdout", text=text)])


def good() -> Any:
    """A chapter that breaks no rule."""
    figure = new_output("execute_result", data={"image/png": "", "text/plain": "<Figure size 600x300 with 1 Axes>"}, execution_count=5)
    parameters = 'dataset: str = "phantom"\nprofile: str = "fast"\nseed: int = 0'
    run = 'print(f"dataset={config.dataset} profile={config.profile} seed={config.seed}")'
    cells = [
        new_markdown_cell("# What is a line?"),
        new_markdown_cell("**You will see** a line. **You need** nothing. **Time and memory**: 5 seconds, under the CC BY 4.0."),
        new_code_cell(form_rules.SETUP, metadata={"tags": ["setup", "hide-input"]}),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell("import hoptm"),
        printed(run, "dataset=phantom profile=fast seed=0\n", "run"),
        new_markdown_cell("## A line\n\nIt is $y = 0.5 x$, or `y = 0.5`; see [the notation](#line)."),
        new_code_cell("plots.line()", metadata={"mystnb": {"image": {"alt": "A line that rises to the right."}}}, outputs=[figure]),
        new_markdown_cell("*What to see*: it rises."),
        printed("print(len(x))", "5\n"),
        printed("print(1)", "1\n"),
        new_markdown_cell("## Summary\n\n- A line rises."),
        new_markdown_cell("## Exercises\n\n1. Where does it end?"),
        new_markdown_cell("## Solutions"),
        printed("# Exercise 1\nprint(x[-1])", "1\n", "solution", "hide-cell"),
        new_markdown_cell("## References\n\n- Line et al. 2.0, 50 %."),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}})
    for count, cell in enumerate(form_rules.code(notebook), start=1):
        cell.execution_count = count
    return notebook


def source(number: int, text: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[number].source = text

    return change


def said(number: int, text: str, name: str = "stdout") -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[number].outputs = [new_output("stream", name=name, text=text)]

    return change


def tagged(number: int, *tags: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[number].metadata["tags"] = list(tags)

    return change


def without(number: int) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        del notebook.cells[number]

    return change


def with_metadata(notebook: Any) -> None:
    notebook.metadata["papermill"] = {}


def twice_run(notebook: Any) -> None:
    notebook.cells[4].execution_count = 17


def two_images(notebook: Any) -> None:
    notebook.cells[7].outputs *= 2


def explorable(still: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[7].metadata = {}
        html = f'<div class="explorable" data-explorable="film">\n{still}<script>' + "x\n" * 40 + "</script></div>"
        notebook.cells[7].outputs = [new_output("execute_result", data={"text/html": html, "text/plain": "<Explorable film>"}, execution_count=5)]

    return change


def no_alt(notebook: Any) -> None:
    del notebook.cells[7].metadata["mystnb"]


BROKEN: list[tuple[str, Callable[[Any], None]]] = [
    ("title", source(0, "# A line")),
    ("title", source(6, "# Another title?")),
    ("promises", source(1, "**You will see** a line. **You need** nothing.")),
    ("setup", source(2, "!pip install torch")),
    ("setup", tagged(2)),
    ("parameters", tagged(3)),
    ("parameters", tagged(4, "parameters")),
    ("parameters", source(3, 'dataset: str = "phantom"\nprofile: str = "fast"\nseed = 0')),
    ("parameters", source(3, 'dataset: str = "phantom"\nprofile: str = "fast"\nseed: int = "0"')),
    ("parameters", source(3, 'dataset: str = "phantom"\nprofile: str = "fast"')),
    ("run", tagged(5)),
    ("run", source(5, 'print(f"dataset={dataset} profile={profile} seed={seed}")')),
    ("run", said(5, "dataset=phantom profile=fast\n")),
    ("lengths", source(9, "\n".join(["x = 1"] * 26))),
    ("lengths", source(9, "\n".join(f"def f{n}():\n    pass" for n in range(3)))),
    ("lengths", source(9, "class Line:\n    pass")),
    ("branches", source(9, 'if config.profile == "smoke":\n    x = x[:5]')),
    ("branches", source(9, 'steps = 5 if profile in ("smoke",) else 50')),
    ("plain_markdown", source(8, "```{note}\nIt rises.\n```")),
    ("plain_markdown", source(8, ":::{tip}\nIt rises.\n:::")),
    ("plain_markdown", source(8, "It rises {cite}`line`.")),
    ("figures", no_alt),
    ("figures", two_images),
    ("figures", explorable("")),
    ("figures", explorable('<img alt="A line." src="data:image/png;base64,">')),
    ("figures", without(8)),
    ("figures", said(7, "no figure\n")),
    ("ending", without(11)),
    ("ending", source(11, "## References")),
    ("solutions", source(12, "## Exercises\n\n1. Where?\n2. Why?")),
    ("solutions", tagged(14, "solution")),
    ("numbers", source(8, "It rises by 0.5.")),
    ("numbers", source(8, "It rises by 50 %.")),
    ("numbers", source(8, "It rises by fifty, that is 50 percent.")),
    ("numbers", source(8, "It rises by 5 ± 1.")),
    ("outputs", said(9, "\n".join("5" * 31))),
    ("outputs", said(9, "a warning", name="stderr")),
    ("outputs", said(9, "saved to /" + "home/reader/line.png")),
    ("outputs", said(9, "done 2026-01-02 03:04:05")),
    ("outputs", said(9, "<Line object at 0x7f3a5c0d1e90>")),
    ("outputs", said(9, "100%|####| 5/5 [00:01, 5.0it/s]")),
    ("executed", twice_run),
    ("compared", tagged(9, "nbval-skip")),
    ("compared", source(9, "# NBVAL_IGNORE_OUTPUT\nprint(5)")),
    ("metadata", with_metadata),
    ("links", source(8, "[open](https://colab.research.google.com/github/hoptm/hoptm/blob/main/book/chapters/02_other.ipynb)")),
    ("links", source(8, "[a page](no_such_page.md)")),
    ("links", source(8, "![badge](https://example.org/badge.svg)")),
]


def test_good_passes() -> None:
    notebook = good()
    assert not {rule.__name__: words for rule in form_rules.RULES if (words := rule(notebook, GOOD_PATH))}


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=[f"{number}-{name}" for number, (name, _) in enumerate(BROKEN)])
def test_rule_can_fail(rule: str, change: Callable[[Any], None]) -> None:
    notebook = copy.deepcopy(good())
    change(notebook)
    assert getattr(form_rules, rule)(notebook, GOOD_PATH)


def test_a_third_may_be_ignored() -> None:
    notebook = good()
    tagged(9, "nbval-ignore-output")(notebook)
    assert not form_rules.compared(notebook, GOOD_PATH)
    tagged(10, "nbval-ignore-output")(notebook)
    assert form_rules.compared(notebook, GOOD_PATH)


def test_an_explorable_figure_is_a_figure() -> None:
    notebook = good()
    explorable('<img alt="A line that rises to the right." src="data:image/png;base64,">')(notebook)
    assert not [words for rule in form_rules.RULES for words in rule(notebook, GOOD_PATH)]


def test_only_outside_of_chapters_may_a_parameter_stand_beside_the_configuration() -> None:
    notebook = good()
    notebook.cells[3].source += '\ntable: str = "table1"'
    source(5, 'print(f"dataset={config.dataset} profile={config.profile} seed={config.seed} table={table}")')(notebook)
    notebook.cells[5].outputs[0].text = "dataset=phantom profile=fast seed=0 table=table1\n"
    assert form_rules.run(notebook, GOOD_PATH) and not form_rules.run(notebook, "book/reproduce/example.ipynb")


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule.__name__ for rule in form_rules.RULES} == {name for name, _ in BROKEN}
