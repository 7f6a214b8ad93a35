"""Pages that are made hold everything they promise; pages with code run as they stand and print what they say."""

import ast
import contextlib
import io
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK))

import build  # noqa: E402
import pages  # noqa: E402

from hoptm.profiles import DESCRIBED, PROFILES_DESCRIBED  # noqa: E402

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NOTATION = (BOOK / "notation.md").read_text(encoding="utf-8")
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
MODULES = {path.stem for path in (ROOT / "hoptm").glob("*.py")} - {"__init__", "__main__"}


# ---- pages with code -------------------------------------------------------------------------------------------


def blocks(page: str) -> list[tuple[str, str]]:
    """Blocks of Python, each with the text that is said to be printed by it."""
    found = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", page, re.DOTALL | re.MULTILINE)
    return [(code, said) for code, said in found]


def run(page: str) -> None:
    names: dict[str, object] = {}
    for code, said in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "page", "exec"), names)
        assert printed.getvalue() == said, code


@pytest.mark.parametrize(("name", "count"), [("adding-a-path-loss", 5), ("your-own-folder", 6)])
def test_a_page_runs_and_prints_what_it_says(name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "cache"))
    page = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    assert len(blocks(page)) == count
    run(page)


def test_a_page_that_rots_is_seen() -> None:
    with pytest.raises(AssertionError):
        run("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(NameError):
        run("```python\nprint(nothing)\n```\n")


def test_the_worked_loss_is_ten_lines() -> None:
    code, _ = blocks((BOOK / "adding-a-path-loss.md").read_text(encoding="utf-8"))[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


# ---- reference -------------------------------------------------------------------------------------------------


def test_the_reference_has_every_module_once() -> None:
    listed = [module for room in pages.rooms_of(CONTRIBUTING) for module in room.modules]
    assert sorted(listed) == sorted(MODULES), "the table of CONTRIBUTING.md and the modules of hoptm part"


def test_the_reference_lists_every_method_and_profile_with_its_meaning() -> None:
    page = pages.module_part("profiles")
    for known in (DESCRIBED, PROFILES_DESCRIBED):
        for name, words in known.items():
            assert f"| `{name}` | {pages.escaped(words)} |" in page
    assert page.index("### DESCRIBED") < page.index("| `endpoint`") < page.index("| `paper`")


@pytest.mark.parametrize("room", pages.rooms_of(CONTRIBUTING), ids=lambda room: room.modules[0])
def test_a_page_of_the_reference_has_every_public_name(room: pages.Room) -> None:
    page = pages.room_page(room)
    headings = re.findall(r"^### (.+)$", page.replace("\\", ""), re.MULTILINE)
    for module in room.modules:
        tree = ast.parse((ROOT / "hoptm" / f"{module}.py").read_text(encoding="utf-8"))
        public = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
        assert set(public) <= set(headings), module
        assert f"## hoptm.{module}" in page
    for code in re.findall(r"```python\n(def .*?)\n```", page, re.DOTALL):
        ast.parse(code + ": ...")


def test_signatures_are_written_as_they_are() -> None:
    tree = ast.parse('def f(self, a: Float[Tensor, "k p"], *rest: int, b: str = "x", **more: Any) -> int: ...')
    assert pages.signature(tree.body[0]) == "def f(a: Float[Tensor, 'k p'], *rest: int, b: str = 'x', **more: Any) -> int"  # type: ignore[arg-type]
    tree = ast.parse("def f(a, /, b=1, *, c): ...")
    assert pages.signature(tree.body[0]) == "def f(a, b = 1, *, c)"  # type: ignore[arg-type]
    wide = ast.parse(f"def f({', '.join(f'argument_{number}: int' for number in range(9))}) -> int: ...")
    assert pages.signature(wide.body[0]).count("\n") == 10  # type: ignore[arg-type]


def test_docstrings_are_words_and_code_and_no_markup() -> None:
    assert pages.prose("`a_b` is a_b * $2 <x> {y}") == r"`a_b` is a\_b \* \$2 \<x\> \{y\}"
    assert pages.prose("an odd ` tick_") == r"an odd ` tick\_"


# ---- glossary --------------------------------------------------------------------------------------------------


def all_words() -> list[str]:
    return [name.lower() for page in (NOTATION, GLOSSARY) for word in pages.words_of(page) for name in word.names]


def test_each_term_is_defined_once() -> None:
    words = all_words()
    assert not {word for word in words if words.count(word) > 1}


def test_every_term_of_the_style_sheet_is_defined() -> None:
    (listed,) = re.findall(r"One term a thing: \*(.*?)\*", CONTRIBUTING)
    terms = [term.strip().lower() for term in listed.split(",")]
    assert len(terms) > 8 and set(terms) <= set(all_words())


def test_the_glossary_is_one_alphabet_of_both_pages() -> None:
    made = pages.glossary_page(GLOSSARY, NOTATION)
    body = made.split("```{glossary}\n")[1]
    leading = [entry.splitlines()[0].lower() for entry in body.removesuffix("```\n").split("\n\n")]
    assert leading == sorted(leading) and len(leading) == len(pages.words_of(NOTATION)) + len(pages.words_of(GLOSSARY))
    assert "expert\n  a network trained on real images" in body and "|" not in body.split("AUC")[0]


def test_every_word_has_a_meaning() -> None:
    for page in (NOTATION, GLOSSARY):
        rows = [line for line in page.splitlines() if line.startswith("| **")]
        assert len(rows) == len(pages.words_of(page))
        assert all(len(word.meaning) > 15 for word in pages.words_of(page))


# ---- other pages -----------------------------------------------------------------------------------------------


def test_the_notes_on_the_original_code_have_sixteen_rows() -> None:
    text = (BOOK / "reading-the-original.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 17))
    for _, release, here, where in rows:
        assert len(release) > 30 and re.match(r"\*\*(Kept|Mended|Changed|Open|Not claimed)\.?\*\*", here) and "`" in where


COMPLAINTS = (
    "On Colab something restarts", "On Colab a helper file is missing", "There is no Binder button", "The download hangs or is refused",
    "Which normalisation", "Grey or colour?", "papermill ran, and my parameters had no effect", "The session was lost",
    "or a negative step size", "Out of memory", "Experts fill the disk", "An expert file from somewhere else",
    "Why are experts not trained to the end?", "A figure does not fit its text", "The scores are lower than in the paper",
    "Which hyper-parameters did the paper use?", "Best or last iterate?", "The build is green although a page failed",
    "A cell was stopped", "A notebook became large", "Jupyter Book 2",
)  # fmt: skip
"""What readers of books like this one complain of, as the issues of a dozen of them show."""


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_each_complaint_is_answered(complaint: str) -> None:
    text = (BOOK / "troubleshooting.md").read_text(encoding="utf-8")
    (answer,) = re.findall(rf"^\*\*[^*\n]*{re.escape(complaint)}[^*\n]*\*\*(.*?)(?=^\*\*|^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(answer.split()) >= 8


def test_the_changelog_names_the_version() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version and f"## {version[1]}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_a_cell_printed_in_a_row_is_one_output() -> None:
    def printed(text: str, name: str = "stdout") -> nbformat.NotebookNode:
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data", data={"image/png": ""})
    found = build.joined([printed("6"), printed(" experts\n"), picture, printed("a\n"), printed("b\n", "stderr"), printed("c\n", "stderr")])
    assert [output.get("text") for output in found] == ["6 experts\n", None, "a\n", "b\nc\n"]


def test_outputs_of_generated_images_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(build, "obtainable", lambda dataset: False)
    monkeypatch.setattr(build, "execute_all", lambda *arguments: pytest.fail("a notebook ran"))
    monkeypatch.setattr(sys, "argv", ["build.py", "--store", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="nothing stored"):
        build.main()
    assert not list(tmp_path.iterdir())
