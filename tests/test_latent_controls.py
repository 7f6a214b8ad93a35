"""Controls of learned codes: sets that hold what they say, at the bytes they say."""

from pathlib import Path

import pytest
import torch
from test_synthetic import COUNTS, small_splits

from hoptm.baselines import random_subset
from hoptm.config import generator
from hoptm.data import standardisation
from hoptm.errors import DataError
from hoptm.latent import kmeans_codes
from hoptm.latent_controls import kmeans_decoded, reconstructed, reconstructions, upsampled_random
from hoptm.rendering import Decoded, Pixels, Upsampled, images_within, stored_bytes
from hoptm.synthetic import load
from hoptm.vae import VaeConfig, untrained

SPLITS = small_splits()
VAE = untrained(VaeConfig(dims=4, width=3), 3, 8, generator(0))


def shown() -> torch.Tensor:
    return standardisation(SPLITS.train).apply(SPLITS.train.images)


def test_kmeans_centroids_are_decoded(tmp_path: Path) -> None:
    made = kmeans_decoded(SPLITS, VAE, 2, 5)
    codes, labels = kmeans_codes(VAE.encode(shown()), SPLITS.train.labels, 2, 5)
    assert made.codes is not None and torch.equal(made.codes, codes) and torch.equal(made.labels, labels) and labels.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(made.images, VAE.decode(codes))
    assert made.info["method"] == "kmeans-decode" and made.info["seed"] == 5 and made.info["ipc"] == 2
    assert made.payload == stored_bytes(Decoded.by(VAE), 6, 3, 8)
    made.save(tmp_path / "set")
    back = load(tmp_path / "set")
    assert torch.equal(back.images, made.images) and back.rendering is not None and back.rendering.config == Decoded.by(VAE).config
    with pytest.raises(DataError, match=r"5 centroids .* class 1"):
        kmeans_decoded(SPLITS, VAE, 5, 0)


def test_reconstructions_of_named_images() -> None:
    chosen = torch.tensor([11, 0, 7])
    made = reconstructions(SPLITS, VAE, chosen, 1, seed=3, lr=0.02)
    torch.testing.assert_close(made.images, VAE.decode(VAE.encode(shown()[chosen])))
    assert torch.equal(made.labels, SPLITS.train.labels[chosen]) and made.lr == 0.02 and made.info["method"] == "reconstruction"
    assert made.standardisation == standardisation(SPLITS.train)


def test_upsampled_images_are_the_same_draw_at_a_quarter_of_the_bytes() -> None:
    made, whole = upsampled_random(SPLITS, 2, generator(4)), random_subset(SPLITS, 2, generator(4))
    torch.testing.assert_close(made.images, Upsampled()(torch.nn.functional.avg_pool2d(whole.images, 2)))
    assert torch.equal(made.labels, whole.labels) and made.info["method"] == "upsampled"
    assert 4 * made.payload == whole.payload == stored_bytes(Pixels(), 6, 3, 8)
    assert images_within(Upsampled(), whole.payload, 3, 8) == 4 * len(whole.labels)
    with pytest.raises(DataError, match="class 1"):
        upsampled_random(SPLITS, 5, generator(0))


def test_reconstructed_changes_the_train_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = reconstructed(SPLITS, VAE)
    wanted = standardisation(SPLITS.train).invert(VAE.decode(VAE.encode(shown()))) * 255
    assert made.train.images.dtype == torch.uint8 and type(made.train) is type(SPLITS.train) and len(made.train) == sum(COUNTS)
    assert float((made.train.images - wanted).abs().max()) <= 0.5 + 1e-3
    assert made.val is SPLITS.val and made.test is SPLITS.test and torch.equal(made.train.labels, SPLITS.train.labels)
    assert made.info.checksum == SPLITS.info.checksum and made.info.note == "made here; training images reconstructed from codes of 4 numbers"
    monkeypatch.setattr("hoptm.latent_controls._PART", 7)
    assert (reconstructed(SPLITS, VAE).train.images.int() - made.train.images.int()).abs().max() <= 1  # a rounding may tip
