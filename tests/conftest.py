"""One thread a process, so that results and times do not depend on who else runs; where notebooks and the site lie; a browser that stays here."""

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOCAL = re.compile(r"^(file|data|blob|about):|^http://127\.0\.0\.1:\d+/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--notebooks", default=str(ROOT / "book"), help="folder with chapters/ and reproduce/ whose form is checked")
    parser.addoption("--site", default=str(ROOT / "_build" / "html"), help="folder of the rendered site")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`notebook_path` runs over every notebook, `page_path` over every page of the site, as paths inside their folder."""
    for name, option, pattern in (("notebook_path", "--notebooks", "*.ipynb"), ("page_path", "--site", "*.html")):
        if name not in metafunc.fixturenames:
            continue
        folder = Path(metafunc.config.getoption(option))
        found = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if "_static" not in path.parts and ".ipynb_checkpoints" not in path.parts
        )
        metafunc.parametrize(name, found or ["nothing-found"])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    folder = Path(pytestconfig.getoption("--site")).resolve()
    assert (folder / "index.html").is_file(), f"no site at {folder}: run `make book` first"
    return folder


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright  # here: most tests need no browser

    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert program, f"no Chromium on the PATH (looked for {', '.join(BROWSERS)})"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page that may reach this machine only; what it asked for elsewhere, or in vain, is an error at the end of the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    left: list[str] = []
    missing: list[str] = []
    context.route(lambda url: not LOCAL.match(url), lambda route: (left.append(route.request.url), route.abort()))
    context.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    yield context.new_page()
    context.close()
    assert not left, f"requests that leave the machine: {left}"
    assert not missing, f"files that are not there: {missing}"
