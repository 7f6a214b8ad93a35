"""Figures of codes: lines that are the bytes, curves that are the angles."""

import pytest
import torch

from hoptm import latent_plots
from hoptm.rendering import Decoded, Pixels, Upsampled, stored_bytes
from hoptm.vae import VaeConfig, untrained

VAE = untrained(VaeConfig(dims=8, steps=1), 1, 28, torch.Generator().manual_seed(0))


def test_lines_are_the_bytes_of_each_rendering():
    kinds = [Pixels(), Upsampled(), Decoded.by(VAE)]
    (axes,) = latent_plots.bytes_against_images(kinds, 2, 1, 28, most=100).axes
    for line, kind in zip(axes.lines, kinds, strict=False):
        ipcs, values = line.get_data()
        assert ipcs[0] == 1 and ipcs[-1] == 100
        assert [int(value) for value in values] == [stored_bytes(kind, 2 * int(ipc), 1, 28) for ipc in ipcs]
    assert axes.lines[0].get_ydata()[-1] == 4 * axes.lines[1].get_ydata()[-1]
    assert {text.get_text() for text in axes.texts} == set(latent_plots.WORDS.values())


def test_curves_are_shares_of_angles():
    (axes,) = latent_plots.angles({"a": torch.tensor([0.5, -0.5]), "b": torch.tensor([0.1])}).axes
    assert axes.lines[0].get_xdata().tolist() == [-0.5, 0.5] and axes.lines[0].get_ydata() == pytest.approx([0.5, 1.0])
    assert axes.lines[1].get_ydata().tolist() == [1.0]
