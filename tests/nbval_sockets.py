"""A pytest plugin, `-p tests.nbval_sockets`: kernels that nbval starts listen where no other process can take their place."""

from contextlib import ExitStack
from functools import partial

import nbval.kernel
import pytest
from jupyter_client.manager import KernelManager


def pytest_configure(config: pytest.Config) -> None:
    from hoptm.notebooks import sockets  # not above: shape checks must be there before the package is

    kept = ExitStack()
    found = kept.enter_context(sockets())
    nbval.kernel.KernelManager = partial(KernelManager, **found)
    config.add_cleanup(kept.close)
