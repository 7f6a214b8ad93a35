"""Pages of the book that are made and not written: the reference from docstrings, the glossary, the changelog.

`build.py` calls `write` while it stages the book. The reference follows the table of modules in CONTRIBUTING.md, a page a row; what a
page says is read from the source, so that it cannot part from it. The glossary puts the words of the notation page and those
of `glossary.md` into one alphabet.
"""

import ast
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDE = 88
"""Characters of a signature on one line."""
MARKER = "<!-- all words -->"
"""Where the glossary goes in `glossary.md`."""


@dataclass(frozen=True)
class Room:
    """One row of the table of modules: their names and what they hold."""

    modules: tuple[str, ...]
    idea: str

    @property
    def page(self) -> str:
        """The name of its page: the first module's."""
        return self.modules[0]

    @property
    def title(self) -> str:
        """The names, as a heading."""
        return ", ".join(self.modules)


@dataclass(frozen=True)
class Word:
    """A term of the book: its names, the first one leading, and its meaning in Markdown."""

    names: tuple[str, ...]
    meaning: str


def write(staged: Path) -> None:
    """Write all made pages into the staged book."""
    folder, contents = staged / "api", staged / "_toc.yml"
    rooms = rooms_of((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for room in rooms:
        (folder / f"{room.page}.md").write_text(room_page(room), encoding="utf-8")
    index = (folder / "index.md").read_text(encoding="utf-8")
    rows = [f"| [{room.title}]({room.page}.md) | {room.idea} |" for room in rooms]
    (folder / "index.md").write_text(index + "\n| modules of `hoptm` | what they hold |\n|---|---|\n" + "\n".join(rows) + "\n", encoding="utf-8")
    listed = "".join(f"\n          - file: api/{room.page}" for room in rooms)
    contents.write_text(contents.read_text(encoding="utf-8").replace("file: api/index", f"file: api/index\n        sections:{listed}"), encoding="utf-8")
    shutil.copyfile(ROOT / "CHANGELOG.md", staged / "changelog.md")
    own = (staged / "glossary.md").read_text(encoding="utf-8")
    (staged / "glossary.md").write_text(glossary_page(own, (staged / "notation.md").read_text(encoding="utf-8")), encoding="utf-8")


# ---- reference -------------------------------------------------------------------------------------------------


def rooms_of(contributing: str) -> list[Room]:
    """The rows of the table of modules in CONTRIBUTING.md, in its order."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*?) \|$", contributing, re.MULTILINE)
    return [Room(tuple(re.findall(r"`(\w+)`", names)), idea) for names, idea in rows]


def room_page(room: Room) -> str:
    """The page of one row: each module's docstring, then its public names with signatures and docstrings."""
    return f"# {room.title}\n\n{room.idea[0].upper()}{room.idea[1:]}.\n\n" + "\n".join(map(module_part, room.modules))


def module_part(module: str) -> str:
    """One module in Markdown."""
    tree = ast.parse((ROOT / "hoptm" / f"{module}.py").read_text(encoding="utf-8"))
    parts = [f"## hoptm.{module}\n\n{prose(ast.get_docstring(tree) or '')}\n"]
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            parts.append(thing(node, node.name))
            methods = node.body if isinstance(node, ast.ClassDef) else []
            parts += [thing(method, f"{node.name}.{method.name}") for method in methods if isinstance(method, ast.FunctionDef) and public(method)]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                parts.append(f"### {escaped(target.id)}\n\n{prose(str(after.value.value))}\n{entries(node.value)}")
    return "\n".join(parts)


def entries(value: ast.expr | None) -> str:
    """The rows of a dictionary of names and plain words, as a table; nothing for any other value."""
    pairs = list(zip(value.keys, value.values, strict=True)) if isinstance(value, ast.Dict) else []
    plain = [(key.value, said.value) for key, said in pairs if isinstance(key, ast.Constant) and isinstance(said, ast.Constant)]
    rows = [f"| `{name}` | {escaped(words)} |\n" for name, words in plain if isinstance(name, str) and isinstance(words, str)]
    return "\n| name | meaning |\n|---|---|\n" + "".join(rows) if rows and len(rows) == len(pairs) else ""


def public(method: ast.FunctionDef) -> bool:
    """Whether a method is for readers: a plain name, and documented."""
    return not method.name.startswith("_") and ast.get_docstring(method) is not None


def thing(node: ast.FunctionDef | ast.ClassDef, name: str) -> str:
    """A function or a class: heading, signature, docstring."""
    return f"### {escaped(name)}\n\n```python\n{signature(node)}\n```\n\n{prose(ast.get_docstring(node) or '')}\n"


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """A function's head, or a class's with its annotated fields; broken into a line an argument where it is wide."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and not line.target.id.startswith("_")]
        return "\n    ".join([f"class {node.name}" + (f"({bases}):" if bases else ":" if fields else ""), *map(ast.unparse, fields)])
    ending = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = listed(node.args)
    line = f"def {node.name}({', '.join(arguments)}){ending}"
    return line if len(line) <= WIDE else f"def {node.name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){ending}"


def listed(given: ast.arguments) -> list[str]:
    """Arguments as they are written, without `self`, with defaults and the marks `*` and `**`."""
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    words = [with_default(argument, default) for argument, default in zip(plain, defaults, strict=True) if argument.arg not in ("self", "cls")]
    words += [f"*{ast.unparse(given.vararg)}"] if given.vararg else ["*"] if given.kwonlyargs else []
    words += [with_default(argument, default) for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return words + ([f"**{ast.unparse(given.kwarg)}"] if given.kwarg else [])


def with_default(argument: ast.arg, default: ast.expr | None) -> str:
    """`name: type = default`."""
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default is not None else "")


def prose(docstring: str) -> str:
    """A docstring as Markdown: what is in backticks is code, all else is words and no markup, lists stay lists."""
    parts = docstring.strip().split("`")
    if len(parts) % 2 == 0:  # an odd backtick is a letter
        return escaped(docstring.strip())
    return "".join(f"`{part}`" if number % 2 else escaped(part) for number, part in enumerate(parts))


def escaped(text: str) -> str:
    """Text in which nothing is Markdown; a list's dashes stay."""
    return re.sub(r"([\\*_$<>\[\]{}#|~^])", r"\\\1", text)


# ---- glossary --------------------------------------------------------------------------------------------------


def words_of(page: str) -> list[Word]:
    """The rows of a page's table of words: `| **name**, or **other name** | meaning |`."""
    rows = re.findall(r"^\| (\*\*.*?) \| (.*) \|$", page, re.MULTILINE)
    return [Word(tuple(re.findall(r"\*\*(.+?)\*\*", names)), meaning) for names, meaning in rows]


def glossary_page(own: str, notation: str) -> str:
    """`glossary.md` with all words, those of the notation page among them, in one alphabet in place of its table."""
    head, _, _ = own.partition(MARKER)
    words = sorted(words_of(notation) + words_of(own), key=lambda word: word.names[0].lower())
    entries = ["\n".join(word.names) + f"\n  {word.meaning}\n" for word in words]
    return head + "```{glossary}\n" + "\n".join(entries) + "```\n"
