"""Distil a medical image data set into a few synthetic images, and judge what they are worth.

The whole method in small modules: experts draw paths through parameter space, a path loss compares a student's path
with theirs, and one engine turns its exact gradient into gradients for the images. Chapters of the book use these names.
"""

from hoptm.config import Config, configure, generator
from hoptm.data import Splits, load, standardisation
from hoptm.errors import ConfigError, DataError, DivergedError, FileError, HoptmError
from hoptm.networks import Network, network

__all__ = [
    "Config", "ConfigError", "DataError", "DivergedError", "FileError", "HoptmError", "Network", "Splits", "configure", "generator", "load",
    "network", "standardisation",
]  # fmt: skip
