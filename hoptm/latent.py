"""Codes of images: a VAE trained on the train split, kept in the cache, and what can be done with its codes.

Kingma and Welling (2014): an encoder gives mean and log variance of a Gaussian over codes, a decoder gives an image, and
training maximises the evidence bound. Nothing is learned from images outside the train split. But the decoder can remember
images of that split, and it is part of what a set of codes gives away.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from torch import Tensor
from tqdm import tqdm

from hoptm.config import generator, hash_of
from hoptm.data import Train, standardisation
from hoptm.errors import ConfigError, DataError, DivergedError, FileError
from hoptm.files import digest_of, read_tensors, write_tensors
from hoptm.records import best_device
from hoptm.trajectories import alone
from hoptm.vae import Decoder, Vae, VaeConfig, untrained

FORMAT = 1
"""Version of the stored files; another version never shares a cache folder with this one."""


def train_vae(train: Train, config: VaeConfig, generator: torch.Generator, *, progress: bool = False) -> Vae:
    """A VAE of the standardised training images; labels are not read.

    An image's loss is half the squared error of its reconstruction plus beta times the KL divergence of its code's Gaussian
    from N(0, I), over the number of pixels: the evidence bound for pixel noise of variance beta, times beta. Adam on batches
    from fresh permutations. The same generator state gives the same bits on a CPU at one thread count.

    Raises TypeError for another split than `Train`, ConfigError for a size that is no multiple of 4, DivergedError when a weight
    is not finite.
    """
    if not isinstance(train, Train):
        raise TypeError(f"a VAE is trained on the train split only, not on {type(train).__name__}.")
    images = standardisation(train).apply(train.images).to(best_device())
    made = _on(untrained(config, images.shape[1], images.shape[2], generator), images.device)
    weights = [weight.requires_grad_() for half in (made.encoder, made.decoder.weights) for weight in half.values()]
    optimiser = torch.optim.Adam(weights, config.lr)
    waiting = torch.empty(0, dtype=torch.int64)
    for step in tqdm(range(config.steps), desc="vae", unit="step", disable=not progress):
        if len(waiting) < min(config.batch, len(images)):
            waiting = torch.randperm(len(images), generator=generator)
        chosen, waiting = waiting[: config.batch], waiting[config.batch :]
        optimiser.zero_grad()
        _loss(made, images[chosen], generator).backward()
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / config.steps)
        optimiser.step()
    for weight in weights:
        weight.grad = None
        weight.requires_grad_(False)
    if not all(torch.isfinite(weight).all() for weight in weights):
        raise DivergedError(f"a VAE left the finite numbers. Lower its lr (now {config.lr:g}).")
    return _on(made, torch.device("cpu"))


def _on(made: Vae, where: torch.device) -> Vae:
    """The same VAE with its weights on a device."""
    decoder, encoder = ({name: value.to(where) for name, value in weights.items()} for weights in (made.decoder.weights, made.encoder))
    return Vae(made.config, Decoder(*made.decoder.shape, decoder), encoder)


def _loss(made: Vae, images: Tensor, chance: torch.Generator) -> Tensor:
    mean, log_variance = made.posterior(images)
    codes = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=chance).to(mean)
    error = 0.5 * (made.decode(codes) - images).square().flatten(1).sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return (error + made.config.beta * divergence).mean() / images[0].numel()


def cached_vae(train: Train, config: VaeConfig, seed: int, *, cache: Path | None = None, progress: bool = False) -> Vae:
    """The VAE of `train_vae` for `generator(seed, "vae")`, read from the cache or trained now and stored there.

    It lies in `vaes/HASH` beside the experts: in `cache`, else in HOPTM_CACHE, else in the user's cache. The hash covers the
    settings, the seed and a digest of the images. Raises FileError for a damaged or foreign file, else as `train_vae`.
    """
    if not isinstance(train, Train):
        raise TypeError(f"a VAE is trained on the train split only, not on {type(train).__name__}.")
    digest, shape = digest_of({"images": train.images}), [*train.images.shape[1:3]]
    made_from = {"format": FORMAT, "vae": dataclasses.asdict(config), "seed": seed, "train": digest, "shape": shape}
    root = cache or os.environ.get("HOPTM_CACHE") or platformdirs.user_cache_path("hoptm")
    path = Path(root).expanduser() / "vaes" / hash_of(made_from) / "vae.safetensors"
    with alone(path):
        if not path.exists():
            made = train_vae(train, config, generator(seed, "vae"), progress=progress)
            halves = {"encoder": made.encoder, "decoder": made.decoder.weights}
            write_tensors(path, {f"{half}.{name}": value for half, weights in halves.items() for name, value in weights.items()}, made_from)
        return _read(path, made_from, config)


def _read(path: Path, made_from: Mapping[str, Any], config: VaeConfig) -> Vae:
    tensors, info = read_tensors(path)
    if hash_of(info) != hash_of(made_from):
        raise FileError(f"{path}: made from other data or settings than its folder is named for. Delete it and run again.")
    halves = {half: {name[len(half) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{half}.")} for half in ("encoder", "decoder")}
    channels, size = made_from["shape"]
    try:
        return Vae(config, Decoder(config.dims, config.width, channels, size, halves["decoder"]), halves["encoder"])
    except ConfigError as error:
        raise FileError(f"{path}: {error} Delete it and run again.") from error


# --- codes -------------------------------------------------------------------------------------------------------


def prior(codes: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean over codes and their numbers of z^2 / 2: the negative log density of N(0, I) a number, without its constant log(2 pi) / 2.

    It is 0 for codes at 0 and 1/2 in the mean for codes drawn from the prior.
    """
    return 0.5 * codes.square().mean()


def sample_prior(count: int, dims: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """`count` codes from N(0, I), float32."""
    return torch.randn(count, dims, generator=generator)


def kmeans_codes(codes: Float[Tensor, "m d"], labels: Int64[Tensor, "m"], ipc: int, seed: int) -> tuple[Float[Tensor, "n d"], Int64[Tensor, "n"]]:
    """`ipc` centroids of the codes of each class that `labels` names, in ascending order, and their labels.

    Lloyd's k-means from one k-means++ start a class, seeded by `seed` and the class; decoded centroids as a small set: the idea
    of D4M (Su et al. 2024) without diffusion. Raises DataError when a class has fewer than `ipc` codes or `ipc` is below 1.
    """
    chosen, kinds = [], torch.unique(labels)
    for kind in kinds.tolist():
        members = codes[labels == kind].detach().cpu().double().numpy()
        if not 1 <= ipc <= len(members):
            raise DataError(f"{ipc} centroids were asked for of class {kind}, which has {len(members)} codes. Ask for 1 to {len(members)}.")
        start = int(torch.randint(2**31 - 1, (), generator=generator(seed, "k-means", kind)))
        centres = KMeans(ipc, n_init=1, random_state=start).fit(members).cluster_centers_
        chosen.append(torch.from_numpy(np.ascontiguousarray(centres)).to(codes))
    return torch.cat(chosen), kinds.repeat_interleave(ipc)
