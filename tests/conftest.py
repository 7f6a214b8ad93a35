"""One thread a process, so that results and times do not depend on who else runs; and where notebooks and the site lie."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent


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
