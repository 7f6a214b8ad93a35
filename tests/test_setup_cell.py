"""The setup cell, run under a stand-in for Colab: installs what Colab lacks and never touches torch or numpy."""

import re
import subprocess
import sys
import types
from importlib.metadata import requires

import form_rules
import pytest
from packaging.requirements import Requirement

COLABS_OWN = {
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas",
    "matplotlib", "pillow", "tqdm", "click", "termcolor", "typing-extensions",
}  # fmt: skip
"""Comes with Colab's image; the weekly workflow runs the chapters there."""


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def wanted_here(requirement: str) -> bool:
    """Not for an extra, nor for an older Python than Colab's, which is newer than 3.10."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": "", "python_version": "3.12"})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    return commands


def test_does_nothing_elsewhere(installed: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    exec(form_rules.SETUP, {})
    assert installed == []


def test_on_colab(installed: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(form_rules.SETUP, {})
    (command,) = installed
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in command
    assert not {"-U", "--upgrade", "--force-reinstall", "-I", "--ignore-installed"} & set(command)
    names = {canonical(word) for word in command[4:] if not word.startswith("-")}
    assert not names & {"torch", "torchvision", "numpy"}

    needed = {canonical(word) for name in ("hoptm", "medmnist", "jaxtyping") for word in requires(name) or [] if wanted_here(word)}
    assert needed <= names | COLABS_OWN, f"missing on Colab: {sorted(needed - names - COLABS_OWN)}"
