"""Everything that can be proved, one step after the other: `make test`, or `tests/run.py STEP ...` for some steps.

Without PneumoniaMNIST the chapters run on the generated set and are not compared; without Chromium the browser part does
not run, without a C++ compiler the tests of the compiled step. All are said at the end, and all are failures when CI is set.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_DATA = 3
HAS_DATA = f"""
import sys
from hoptm.errors import DataError
from hoptm.sources import find
try:
    find("pneumoniamnist")
except DataError as error:
    print(error)
    sys.exit({NO_DATA})
"""
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q"]
ELSEWHERE = [f"--ignore=tests/test_{name}.py" for name in ("smoke", "book_form", "site", "explorables_in_browser")]
TITLES = {
    "style": "ruff and mypy",
    "unit": "unit tests",
    "compare": "every chapter, its outputs compared with the stored ones",
    "smoke": "every notebook in the smoke profile with unusual parameters",
    "form": "the form of the notebooks",
    "site": "the site, warnings as errors",
    "browser": "the site in Chromium",
}


@dataclass
class Step:
    """How one step ended: its counts, its seconds, and words when it could not run as meant."""

    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    excuse: str = ""

    def run(self, *command: str) -> None:
        """Run a command, show its output, and count what its last line says; a command that counts nothing counts as one."""
        print(f"$ {' '.join(Path(word).name if word == PYTHON else word for word in command)}", flush=True)
        tail = ""
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                tail = line if re.search(r"\d+ (passed|failed|error)", line) else tail
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", tail)}
        passed, failed = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
        self.passed += passed if counts else process.returncode == 0
        self.failed += max(failed, int(process.returncode != 0))


def style(step: Step) -> None:
    """Ruff's rules and format, notebooks too, and types."""
    step.run(PYTHON, "-m", "ruff", "check", ".")
    step.run(PYTHON, "-m", "ruff", "format", "--check", ".")
    step.run(PYTHON, "-m", "mypy")


def unit(step: Step) -> None:
    """All tests but those of the notebooks and the site; those of the compiled step when there is a compiler."""
    kernels = []
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "c++", "g++", "clang++")):
        step.excuse = "NOT RUN: no C++ compiler for the compiled step (Debian and Ubuntu: apt-get install g++; macOS: xcode-select --install)"
        kernels = ["--ignore=tests/test_kernels.py"]
    step.run(*PYTEST, "-n", "2", *ELSEWHERE, *kernels, "tests")


def compare(step: Step) -> None:
    """Strict nbval; without data, the chapters on generated images, checked for errors and form."""
    if subprocess.run([PYTHON, "-c", HAS_DATA], cwd=ROOT, check=False).returncode != NO_DATA:
        comparing = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg", "-p", "tests.nbval_sockets"]
        step.run(*PYTEST, "-n", "2", "--dist", "loadscope", *comparing, "book/chapters")
        return
    step.excuse = "NOT COMPARED: no data"
    folder = ROOT / "_build" / "fallback"
    shutil.rmtree(folder, ignore_errors=True)
    step.run(PYTHON, "book/build.py", "--execute", "--out", str(folder))
    step.run(*PYTEST, "-k", "test_form", "--notebooks", str(folder / "executed"), "tests/test_book_form.py")
    shutil.rmtree(folder, ignore_errors=True)


def smoke(step: Step) -> None:
    """Papermill with unusual parameters."""
    step.run(*PYTEST, "-n", "2", "tests/test_smoke.py")


def form(step: Step) -> None:
    """The rules of the notebooks and their self-tests."""
    step.run(*PYTEST, "tests/test_book_form.py")


def site(step: Step) -> None:
    """Execute what changed and render."""
    step.run(PYTHON, "book/build.py")


def browser(step: Step) -> None:
    """The rendered site in Chromium, when there is one."""
    if not any(shutil.which(name) for name in BROWSERS):
        step.excuse = "NOT RUN: no Chromium on the PATH (Debian and Ubuntu: apt-get install chromium; macOS: brew install --cask chromium)"
        return
    step.run(*PYTEST, "-n", "2", "tests/test_site.py", "tests/test_explorables_in_browser.py")


STEPS = {"style": style, "unit": unit, "compare": compare, "smoke": smoke, "form": form, "site": site, "browser": browser}


def main() -> int:
    """Run the steps that the command line names, or all."""
    names = sys.argv[1:] or list(STEPS)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        print(f"no step {unknown[0]!r}; there are {', '.join(STEPS)}")
        return 2
    if os.environ.get("HOPTM_DATA"):  # notebooks run in their own folder
        os.environ["HOPTM_DATA"] = str(Path(os.environ["HOPTM_DATA"]).resolve())
    done = []
    for name in names:
        print(f"\n=== {name}: {TITLES[name]} ===", flush=True)
        step, started = Step(name), time.monotonic()
        STEPS[name](step)
        step.seconds = time.monotonic() - started
        if step.excuse:
            print(step.excuse)
            step.failed += bool(os.environ.get("CI"))
        print(f"--- {name}: {step.passed} passed, {step.failed} failed in {step.seconds:.0f} s", flush=True)
        done.append(step)
    print(f"\n{'step':<10}{'passed':>8}{'failed':>8}{'seconds':>9}")
    for step in done:
        print(f"{step.name:<10}{step.passed:>8}{step.failed:>8}{step.seconds:>9.0f}  {step.excuse}")
    failed = sum(step.failed for step in done)
    print(f"{sum(step.passed for step in done)} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
