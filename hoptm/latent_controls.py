"""What a set of learned codes has to beat, at equal images and at equal bytes, and the most its decoder allows.

Centroids of codes decoded; the same real images through the VAE; real images at half resolution. Real images as they are:
`baselines.random_subset`, with `rendering.images_within` for how many fit in the bytes.
"""

from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from hoptm.data import Known, Selectable, Standardisation, Train, single_label, standardisation
from hoptm.latent import kmeans_codes
from hoptm.rendering import Decoded, Rendering, Upsampled
from hoptm.synthetic import SyntheticSet, initialise, provenance
from hoptm.vae import Vae

_PART = 512
"""Images that are decoded at once."""


def kmeans_decoded(splits: Selectable, vae: Vae, ipc: int, seed: int, *, lr: float = 0.01) -> SyntheticSet:
    """The k-means centroids of each class's codes, decoded: `ipc` images a class, method `kmeans-decode`.

    Raises DataError for a multi-label set or a class with fewer than `ipc` images.
    """
    train = single_label(splits).train
    codes, labels = kmeans_codes(vae.encode(standardisation(train).apply(train.images)), train.labels, ipc, seed)
    return _rendered(splits, Decoded.by(vae), codes, labels, "kmeans-decode", ipc, seed, lr)


def reconstructions(splits: Selectable, vae: Vae, indices: Int64[Tensor, "n"], ipc: int, *, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """The real training images `indices` through the VAE, method `reconstruction`; `ipc` and `seed` are only written down.

    Raises DataError for a multi-label set.
    """
    return _from_images(splits, Decoded.by(vae), indices, "reconstruction", ipc, seed, lr)


def upsampled_random(splits: Selectable, ipc: int, generator: torch.Generator, *, factor: int = 2, seed: int | None = None, lr: float = 0.01) -> SyntheticSet:
    """`ipc` random real images a class kept at 1 / `factor` of the resolution and enlarged, method `upsampled`.

    At equal bytes with real images, ask for `factor` squared times as many. The draw is `baselines.random_subset`'s: the same
    generator state gives the same images. Raises DataError as it does, ConfigError when `factor` does not divide the size.
    """
    chosen = initialise(single_label(splits).train, splits.classes, ipc, generator)
    return _from_images(splits, Upsampled(factor), chosen, "upsampled", ipc, seed, lr)


def _from_images(splits: Selectable, rendering: Rendering, indices: Tensor, method: str, ipc: int, seed: int | None, lr: float) -> SyntheticSet:
    train = single_label(splits).train
    codes = rendering.initial(standardisation(train).apply(train.images[indices]))
    return _rendered(splits, rendering, codes, train.labels[indices], method, ipc, seed, lr)


def _rendered(splits: Selectable, rendering: Rendering, codes: Tensor, labels: Tensor, method: str, ipc: int, seed: int | None, lr: float) -> SyntheticSet:
    info = provenance(splits, method=method, ipc=ipc, seed=seed, config={"rendering": {"name": rendering.name, **rendering.config}})
    with torch.no_grad():
        images = rendering(codes)
    return SyntheticSet(images, labels, lr, standardisation(splits.train), info, codes, rendering)


def reconstructed(splits: Known, vae: Vae) -> Known:
    """The same splits with every training image replaced by its reconstruction, rounded to bytes: the decoder's ceiling.

    A classifier trained on it in full (`evaluate.full_data`) sees all that codes of real images can carry. Validation and test
    stay as they are, and so does the source's checksum; the note says what was done.
    """
    train, measured = splits.train, standardisation(splits.train)
    images = torch.cat([_through(part, vae, measured) for part in train.images.split(_PART)])
    note = "; ".join(words for words in (splits.info.note, f"training images reconstructed from codes of {vae.config.dims} numbers") if words)
    return replace(splits, train=Train(images, train.labels), info=replace(splits.info, note=note))


@torch.no_grad()
def _through(images: Tensor, vae: Vae, measured: Standardisation) -> Tensor:
    shown = measured.invert(vae.decode(vae.encode(measured.apply(images))))
    return (shown * 255).round().to(torch.uint8)
