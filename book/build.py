"""Execute the notebooks of the book and render the site: `make book`.

Each notebook that the table of contents names runs in the fast profile, two at a time; one whose source, code and data
have not changed since is taken from `_build/executed`. Without PneumoniaMNIST a notebook runs on the generated set
`phantom`, and its page says so. The site is then rendered from `_build/staged`, with warnings as errors.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pages
import polish
import yaml

from hoptm.errors import DataError
from hoptm.notebooks import failure
from hoptm.sources import find

ROOT = Path(__file__).resolve().parent.parent
FALLBACK = "phantom"
CELL_TIMEOUT = 600
VERSIONS = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "jupyter-book", "sphinx-book-theme", "papermill")
BANNER = """:::{{admonition}} Executed on generated images
:class: warning
The data set `{dataset}` could not be had when this page was built, so every cell ran on `phantom`, a generated set of nine tissue-like
classes. What the text says of the real images does not fit these figures. Set `HOPTM_DATA` or connect to a network, and build again.
:::"""


@dataclass(frozen=True)
class Job:
    """One notebook to execute: its name in the table of contents, its source, its parameters and what they depend on."""

    name: str
    source: Path
    dataset: str
    parameters: dict[str, str]
    fingerprint: str


def notebooks(book: Path) -> list[str]:
    """Names, without suffix, of the notebooks in `_toc.yml`, in the order of the book."""
    found: list[str] = []

    def walk(entry: Any) -> None:
        if isinstance(entry, dict):
            found.extend(str(entry[key]) for key in ("root", "file") if key in entry)
            entry = list(entry.values())
        if isinstance(entry, list):
            for item in entry:
                walk(item)

    walk(yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8")))
    return [name for name in found if (book / f"{name}.ipynb").is_file()]


def digest(*parts: Any, files: Iterable[Path] = ()) -> str:
    """A name for JSON-able parts and the bytes of files."""
    whole = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for path in files:
        whole.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def files_under(*folders: Path) -> list[Path]:
    """The files that git would carry, sorted."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts)


def tagged(notebook: Any, tag: str) -> Any:
    """The first cell with a tag, or None."""
    return next((cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])), None)


def default_dataset(notebook: Any) -> str:
    """The data set that the notebook's parameters cell names, `phantom` when it names none."""
    cell = tagged(notebook, "parameters")
    for line in ast.parse(cell.source).body if cell else []:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "dataset" and isinstance(line.value, ast.Constant):
            return str(line.value.value)
    return FALLBACK


def obtainable(dataset: str) -> bool:
    """Whether the data set is on this machine or could be downloaded now; says why not."""
    try:
        find(dataset)
    except DataError as error:
        print(error, flush=True)
        return False
    return True


def plan(book: Path) -> list[Job]:
    """What to execute, and on which data set. With CI set, data that is missing ends the build."""
    shared = digest(sys.version, [version(name) for name in VERSIONS], files=files_under(ROOT / "hoptm", ROOT / "data"))
    had: dict[str, bool] = {FALLBACK: True}
    jobs = []
    for name in notebooks(book):
        source = book / f"{name}.ipynb"
        notebook = nbformat.read(source, as_version=4)
        dataset = default_dataset(notebook)
        if dataset not in had:
            had[dataset] = obtainable(dataset)
        parameters = {} if had[dataset] else {"dataset": FALLBACK}
        code = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in notebook.cells if cell.cell_type == "code"]
        jobs.append(Job(name, source, dataset, parameters, digest(shared, code, parameters)))
    missing = sorted(dataset for dataset, found in had.items() if not found)
    if missing:
        print(f"NO DATA: without {', '.join(missing)} every chapter runs on `{FALLBACK}`, the generated set.", flush=True)
        if os.environ.get("CI"):
            sys.exit("In CI this is a failure.")
    return jobs


def normalise(notebook: Any) -> None:
    """Drop in place what changes from run to run: standard error, run metadata, cells that papermill put in, breaks within what a cell printed."""
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
    )
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")})
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = joined(output for output in cell.outputs if output.get("name") != "stderr")
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count


def joined(outputs: Iterable[Any]) -> list[Any]:
    """What was printed in a row, in one piece: a slow machine sends it in several, and a page would show a box for each."""
    whole: list[Any] = []
    for output in outputs:
        if whole and output.output_type == "stream" and whole[-1].get("name") == output.name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def execute(job: Job, staged: Path, executed: Path) -> float:
    """Run one notebook with papermill and keep its result under `executed`. Returns seconds; raises RuntimeError with the cell that failed."""
    partial, target = executed / f"{job.name}.partial.ipynb", executed / f"{job.name}.ipynb"
    partial.parent.mkdir(parents=True, exist_ok=True)
    folder = (staged / job.name).parent
    command = [sys.executable, "-m", "hoptm.notebooks", str(job.source), str(partial), "--cwd", str(folder)]
    command += ["--parameters", json.dumps(job.parameters), "--cell-seconds", str(CELL_TIMEOUT)]
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        cell = failure(partial)
        raise RuntimeError(f"{job.source}, {cell}" if cell else f"{job.source}: {done.stderr[-3000:]}")
    seconds = time.monotonic() - started
    notebook = nbformat.read(partial, as_version=4)
    normalise(notebook)
    notebook.metadata["hoptm"] = {"fingerprint": job.fingerprint, "seconds": round(seconds, 1)}
    nbformat.write(notebook, partial)
    partial.replace(target)
    return seconds


def stored(job: Job, executed: Path) -> float | None:
    """Seconds that the kept result of this very job took, or None when there is none."""
    path = executed / f"{job.name}.ipynb"
    if not path.is_file():
        return None
    kept = nbformat.read(path, as_version=4).metadata.get("hoptm", {})
    return float(kept["seconds"]) if kept.get("fingerprint") == job.fingerprint else None


def execute_all(jobs: list[Job], staged: Path, executed: Path) -> dict[str, str]:
    """Execute what changed, two at a time, with progress. Returns what to say of each; exits when one failed."""
    words, waiting = {}, []
    for job in jobs:
        kept = stored(job, executed)
        if kept is None:
            waiting.append(job)
        else:
            words[job.name] = f"unchanged (took {kept:.0f} s)"
    if waiting:
        print(f"Executing {len(waiting)} of {len(jobs)} notebooks, two at a time; the first one also trains what the others share.", flush=True)
    failed = []
    with ThreadPoolExecutor(2) as pool:
        running: dict[Future[float], Job] = {pool.submit(execute, job, staged, executed): job for job in waiting}
        while running:
            done, _ = wait(running, timeout=30, return_when="FIRST_COMPLETED")
            if not done:
                print(f"  still at work: {', '.join(job.name for future, job in running.items() if future.running())}", flush=True)
            for future in done:
                job = running.pop(future)
                trouble = future.exception()
                words[job.name] = "FAILED" if trouble else f"{future.result():.0f} s"
                failed += [str(trouble)] if trouble else []
                print(f"  [{len(waiting) - len(running)}/{len(waiting)}] {job.name}: {words[job.name]}", flush=True)
    for error in failed:
        print(f"\n{error}\n", file=sys.stderr)
    if failed:
        sys.exit(f"{len(failed)} of {len(jobs)} notebooks failed.")
    return {job.name: words[job.name] for job in jobs}


def stage(jobs: list[Job], book: Path, staged: Path, executed: Path) -> None:
    """Fill `staged` with the pages as written and the notebooks as executed, with a banner where `phantom` stood in."""
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(book, staged, ignore=shutil.ignore_patterns("_build", "*.py", "__pycache__", ".ipynb_checkpoints"))
    for job in jobs:
        written, ran = nbformat.read(job.source, as_version=4), nbformat.read(executed / f"{job.name}.ipynb", as_version=4)
        results = iter([cell for cell in ran.cells if cell.cell_type == "code"])
        for cell in written.cells:
            if cell.cell_type == "code":
                result = next(results)
                cell.outputs, cell.execution_count = result.outputs, result.execution_count
        if job.parameters:
            written.cells.insert(1, nbformat.v4.new_markdown_cell(BANNER.format(dataset=job.dataset)))
        nbformat.write(written, staged / f"{job.name}.ipynb")
    if (staged / "api").is_dir():  # a book of one chapter, as a test builds it, has no back matter
        pages.write(staged)


def render(staged: Path, config: Path, out: Path) -> bool:
    """Build the site anew from `staged`, warnings as errors. Returns False when nothing had changed; exits when it failed."""
    site, mark = out / "html", out / "html.fingerprint"
    wanted = digest([version(name) for name in VERSIONS], files=[config, Path(polish.__file__), *files_under(staged)])
    if (site / "index.html").is_file() and mark.is_file() and mark.read_text() == wanted:
        return False
    mark.unlink(missing_ok=True)
    work = out / "site"
    shutil.rmtree(work, ignore_errors=True)
    tool = Path(sys.executable).parent / "jupyter-book"
    command = [str(tool), "build", str(staged), "--config", str(config), "--path-output", str(work), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    built = work / "_build" / "html"
    if done.returncode or not (built / "index.html").is_file():
        log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        told = [line for line in log.splitlines() if re.search(r"WARNING|ERROR|[Ee]xception", line)]
        print("\n".join(told) or log[-4000:], file=sys.stderr)
        sys.exit("The site could not be rendered: warnings count as errors.")
    polish.polish(built, config)
    shutil.rmtree(site, ignore_errors=True)
    built.replace(site)
    mark.write_text(wanted)
    return True


def store(jobs: list[Job], executed: Path) -> None:
    """Write the outputs of the executed notebooks into the book."""
    for job in jobs:
        notebook = nbformat.read(executed / f"{job.name}.ipynb", as_version=4)
        del notebook.metadata["hoptm"]
        written = nbformat.read(job.source, as_version=4)
        for cell, original in zip(notebook.cells, written.cells, strict=True):
            cell.source = original.source
            cell.id = original.id
        nbformat.write(notebook, job.source)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--book", type=Path, default=ROOT / "book", help="folder with _toc.yml, pages and notebooks")
    parser.add_argument("--out", type=Path, default=ROOT / "_build", help="where everything is built")
    parser.add_argument("--store", action="store_true", help="write the executed outputs, normalised, back into the book, and stop")
    parser.add_argument("--execute", action="store_true", help="execute only; render nothing")
    options = parser.parse_args()
    if os.environ.get("HOPTM_DATA"):  # notebooks run in their own folder
        os.environ["HOPTM_DATA"] = str(Path(os.environ["HOPTM_DATA"]).resolve())
    started = time.monotonic()
    book, out = options.book.resolve(), options.out.resolve()
    staged, executed = out / "staged", out / "executed"
    jobs = plan(book)
    if options.store and any(job.parameters for job in jobs):
        sys.exit("Nothing executed, nothing stored: outputs in the book are those of each notebook's own data set. Set HOPTM_DATA or connect to a network.")
    for job in jobs:
        (staged / job.name).parent.mkdir(parents=True, exist_ok=True)
    words = execute_all(jobs, staged, executed)
    if options.store:
        store(jobs, executed)
    elif not options.execute:
        stage(jobs, book, staged, executed)
        print("Rendering the site" if render(staged, ROOT / "_config.yml", out) else "The site is up to date.", flush=True)
    width = max(map(len, words), default=0)
    print("\n".join(f"  {name:<{width}}  {said}" for name, said in words.items()))
    print(f"Done in {time.monotonic() - started:.0f} s." + ("" if options.store or options.execute else f" Open {out / 'html' / 'index.html'}"))


if __name__ == "__main__":
    main()
