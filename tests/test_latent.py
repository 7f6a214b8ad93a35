"""The VAE: its two halves as functions, its training on the train split alone, its cache, and its codes."""

import dataclasses
import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from hoptm import latent
from hoptm import vae as vae_module
from hoptm.config import generator
from hoptm.data import Test, Train, Validation, standardisation
from hoptm.errors import ConfigError, DataError, DivergedError, FileError
from hoptm.files import read_tensors, write_tensors
from hoptm.latent import cached_vae, kmeans_codes, prior, sample_prior, train_vae
from hoptm.vae import Decoder, Vae, VaeConfig, untrained

SMALL = VaeConfig(dims=6, width=4, steps=120, batch=32, lr=1e-2)


def blobs(count: int = 96, channels: int = 3, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright spots at places of their own on a dark ground: two numbers an image, so that few code numbers suffice."""
    place = torch.rand(count, 2, generator=torch.Generator().manual_seed(5)) * (size - 1)
    axis = torch.arange(size)
    distance = (axis[None, :, None] - place[:, 0, None, None]) ** 2 + (axis[None, None, :] - place[:, 1, None, None]) ** 2
    spots = (20 + 200 * torch.exp(-distance / (size / 2)))[:, None].expand(-1, channels, -1, -1)
    return spots.round().to(torch.uint8).contiguous(), (place[:, 0] > size / 2).long()


@pytest.fixture(scope="module")
def train() -> Train:
    return Train(*blobs())


@pytest.fixture(scope="module")
def vae(train: Train) -> Vae:
    return train_vae(train, SMALL, generator(1, "vae"))


def weights_of(made: Vae) -> dict[str, torch.Tensor]:
    return {f"{half}.{name}": value for half, part in (("e", made.encoder), ("d", made.decoder.weights)) for name, value in part.items()}


# ---- the two halves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 28), (1, 64), (3, 64), (1, 4), (3, 20), (1, 112)])
def test_shapes_there_and_back(channels: int, size: int) -> None:
    made = untrained(VaeConfig(dims=5, width=4), channels, size, generator(0))
    images = torch.randn(3, channels, size, size, generator=generator(1))
    codes = made.encode(images)
    assert codes.shape == (3, 5) and made.decode(codes).shape == images.shape
    assert made.decode(codes.double()).dtype == torch.float64


def test_sizes_that_are_no_multiple_of_four_are_refused() -> None:
    for size in (1, 2, 6, 30):
        with pytest.raises(ConfigError, match="multiple of 4"):
            untrained(SMALL, 1, size, generator(0))


def test_the_decoder_by_hand() -> None:
    """Linear map, SiLU, two convolutions with a doubling before the second, one more, and pixels read from channels."""
    made = untrained(VaeConfig(dims=3, width=2), 1, 8, generator(3)).decoder
    w = [value.double() for value in made.weights.values()]
    z = torch.randn(2, 3, dtype=torch.float64, generator=generator(4))

    def silu(x: torch.Tensor) -> torch.Tensor:
        return x / (1 + torch.exp(-x))

    def conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.unfold(x, 3, padding=1)
        return (weight.flatten(1) @ patches + bias[:, None]).unflatten(2, x.shape[2:])

    x = silu((z @ w[0].T + w[1]).reshape(2, 2, 2, 2))
    x = silu(conv(x, w[2], w[3]))
    x = silu(conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), w[4], w[5]))
    x = conv(x, w[6], w[7])
    wanted = torch.empty(2, 1, 8, 8, dtype=torch.float64)
    for row in (0, 1):
        for column in (0, 1):
            wanted[:, 0, row::2, column::2] = x[:, 2 * row + column]
    torch.testing.assert_close(made(z), wanted, rtol=0, atol=1e-12)


def test_the_decoder_is_smooth_and_each_image_is_its_own() -> None:
    made = untrained(VaeConfig(dims=3, width=2), 1, 4, generator(3)).decoder
    codes = torch.randn(2, 3, dtype=torch.float64, generator=generator(4)).requires_grad_()
    assert torch.autograd.gradcheck(made, codes) and torch.autograd.gradgradcheck(made, codes)
    torch.testing.assert_close(made(codes)[:1], made(codes[:1]), rtol=0, atol=1e-12)  # no statistics over the batch


def test_encoding_carries_no_gradient_and_does_not_depend_on_its_parts(vae: Vae, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    images = standardisation(train).apply(train.images).requires_grad_()
    codes = vae.encode(images)
    assert not codes.requires_grad
    monkeypatch.setattr("hoptm.vae._PART", 7)
    torch.testing.assert_close(vae.encode(images), codes)
    torch.testing.assert_close(codes, vae.posterior(images)[0].detach())


def test_codes_and_images_of_another_shape_are_refused(vae: Vae) -> None:
    with pytest.raises(ConfigError, match=r"codes of 5 numbers .* decoder of 6"):
        vae.decode(torch.zeros(1, 5))
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\) .* VAE for \(3, 8, 8\)"):
        vae.encode(torch.zeros(1, 1, 8, 8))


def test_weights_that_do_not_fit_are_refused(vae: Vae) -> None:
    shape, weights = vae.decoder.shape, dict(vae.decoder.weights)
    name = next(iter(weights))
    for wrong in ({name: weights[name]}, {**weights, "more": torch.zeros(1)}, {**weights, name: weights[name][:1]}):
        with pytest.raises(ConfigError, match="do not fit"):
            Decoder(*shape, wrong)
    for value in (torch.full_like(weights[name], math.nan), weights[name].double()):
        with pytest.raises(ConfigError, match="finite float32"):
            Decoder(*shape, {**weights, name: value})
    with pytest.raises(ConfigError, match="1 or more"):
        Decoder(0, *shape[1:], weights)
    with pytest.raises(ConfigError, match="encoder"):
        Vae(vae.config, vae.decoder, weights)


@pytest.mark.parametrize("size", [8, 20, 28, 64, 112, 224])
def test_what_a_decoder_holds_and_multiplies_is_counted(size: int) -> None:
    shape, held, work = (7, 4, 3, size), [], 0
    skeleton = vae_module._decoder.__wrapped__(*shape)
    for module in skeleton:
        module.register_forward_hook(lambda _module, _inputs, output: held.append(4 * output.numel()))
    out = torch.empty(1, 7, device="meta")
    for module in skeleton:
        out = module(out)
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            places = out[0, 0].numel() if out.dim() == 4 else 1
            work += module.weight.numel() * places
    made = untrained(VaeConfig(dims=7, width=4), 3, size, generator(0)).decoder
    assert made.image_bytes == max(held) and made.image_work == work


WIDE = [
    ((1, 512, 1, 512), r"width 512 for 1 x 512 x 512 holds 134,217,728 bytes an image in its largest layer and may hold 33,554,432"),
    ((1, 1, 40, 512), r"bytes an image"),
    ((1, 1, 1, 2048), r"size at most 1,024"),
    ((4097, 1, 1, 28), r"dims at most 4,096"),
    ((1, 513, 1, 28), r"width at most 512"),
]


@pytest.mark.parametrize(("shape", "words"), WIDE)
def test_decoders_beyond_the_bounds_are_refused(shape: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Decoder(*shape, {})


@pytest.mark.parametrize("wrong", [{"dims": 0}, {"width": 0}, {"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": 2.0}, {"beta": -0.1}, {"beta": math.nan}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        VaeConfig(**wrong)  # type: ignore[arg-type]


# ---- training ---------------------------------------------------------------------------------------------------


def test_training_lowers_the_error_of_reconstructions(vae: Vae, train: Train) -> None:
    images = standardisation(train).apply(train.images)
    before = untrained(SMALL, 3, 8, generator(1, "vae"))
    errors = [float((made.decode(made.encode(images)) - images).square().mean()) for made in (before, vae)]
    assert errors[0] > 0.9 and errors[1] < 0.15, errors  # standardised pixels have variance 1


@pytest.mark.parametrize("channels", [1, 3])
def test_training_works_at_64_pixels(channels: int) -> None:
    train = Train(*blobs(48, channels, 64))
    real = standardisation(train).apply(train.images)
    settings = dataclasses.replace(SMALL, steps=60)
    before, after = (train_vae(train, dataclasses.replace(settings, steps=steps), generator(1, "vae")) for steps in (1, 60))
    errors = [float((one.decode(one.encode(real)) - real).square().mean()) for one in (before, after)]
    assert after.decode(after.encode(real)).shape == (48, channels, 64, 64) and errors[1] < 0.7 * errors[0]


def test_the_loss_is_the_evidence_bound(train: Train) -> None:
    """Against torch.distributions: minus beta (log p(x | z) + constant - KL), pixel noise of variance beta, over the pixels."""
    config = VaeConfig(dims=3, width=2, beta=0.4)
    made, images = untrained(config, 3, 8, generator(7)), standardisation(train).apply(train.images)[:5]
    found = latent._loss(made, images, generator(8))
    mean, log_variance = made.posterior(images)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    codes = mean + ours.scale * torch.randn(mean.shape, generator=generator(8))
    pixels = torch.distributions.Normal(made.decode(codes), math.sqrt(config.beta))
    likelihood = (pixels.log_prob(images) + 0.5 * math.log(2 * math.pi * config.beta)).flatten(1).sum(1)
    divergence = torch.distributions.kl_divergence(ours, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).sum(1)
    wanted = config.beta * (divergence - likelihood).mean() / images[0].numel()
    torch.testing.assert_close(found, wanted)


def test_a_large_beta_makes_codes_follow_the_prior(train: Train) -> None:
    images = standardisation(train).apply(train.images)
    made = [train_vae(train, dataclasses.replace(SMALL, beta=beta, steps=60), generator(1, "vae")) for beta in (0.0, 100.0)]
    spread = [float(each.encode(images).square().mean()) for each in made]
    assert spread[1] < 0.05 < spread[0], spread


def test_the_same_generator_gives_the_same_bits_and_labels_are_not_read(train: Train) -> None:
    short = dataclasses.replace(SMALL, steps=8)
    first = weights_of(train_vae(train, short, generator(2, "vae")))
    torch.randn(3)  # the global generator plays no part
    again = weights_of(train_vae(Train(train.images, 1 - train.labels), short, generator(2, "vae")))
    other = weights_of(train_vae(train, short, generator(3, "vae")))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not any(value.requires_grad for value in first.values())


def test_every_image_is_seen_in_each_pass(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    loss = latent._loss
    monkeypatch.setattr(latent, "_loss", lambda made, images, chance: (seen.append(images), loss(made, images, chance))[1])
    train_vae(train, dataclasses.replace(SMALL, steps=9), generator(0))
    images = standardisation(train).apply(train.images)
    keys = [[int((images == image).flatten(1).all(1).nonzero()[0]) for image in torch.cat(seen[part : part + 3])] for part in (0, 3, 6)]
    assert all(sorted(part) == list(range(96)) for part in keys) and keys[0] != keys[1]
    seen.clear()
    train_vae(Train(train.images[:5], train.labels[:5]), dataclasses.replace(SMALL, steps=2), generator(0))
    assert [len(part) for part in seen] == [5, 5]


@pytest.mark.parametrize("kind", [Validation, Test])
def test_other_splits_are_refused(train: Train, kind: type, tmp_path: Path) -> None:
    other = kind(train.images, train.labels)
    for unchecked in (train_vae, inspect.unwrap(train_vae)):
        with pytest.raises(TypeError):
            unchecked(other, SMALL, generator(0))
    for unchecked in (cached_vae, inspect.unwrap(cached_vae)):
        with pytest.raises(TypeError):
            unchecked(other, SMALL, 0, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_vae_that_diverges_says_so(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = latent._loss
    monkeypatch.setattr(latent, "_loss", lambda *parts: loss(*parts) * math.inf)
    with pytest.raises(DivergedError, match="Lower its lr"):
        train_vae(train, dataclasses.replace(SMALL, steps=2), generator(0))


# ---- the cache --------------------------------------------------------------------------------------------------


def test_the_cache_keeps_what_was_trained(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(SMALL, steps=5)
    direct = weights_of(train_vae(train, short, generator(4, "vae")))
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path))
    made = weights_of(cached_vae(train, short, 4))
    monkeypatch.setattr(latent, "train_vae", None)  # a second training would fail
    read = weights_of(cached_vae(train, short, 4))
    assert all(torch.equal(direct[name], made[name]) and torch.equal(direct[name], read[name]) for name in direct)
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("vae.safetensors")] == ["vaes"]


def test_other_images_settings_and_seeds_have_a_place_of_their_own(train: Train, tmp_path: Path) -> None:
    short = dataclasses.replace(SMALL, steps=1)
    images = train.images.clone()
    images[0, 0, 0, 0] ^= 1
    for part, config, seed in (
        (train, short, 0),
        (train, short, 1),
        (train, dataclasses.replace(short, beta=0.2), 0),
        (Train(images, train.labels), short, 0),
    ):
        cached_vae(part, config, seed, cache=tmp_path)
    assert len(list(tmp_path.rglob("vae.safetensors"))) == 4


def test_damaged_and_foreign_files_are_refused(train: Train, tmp_path: Path) -> None:
    short = dataclasses.replace(SMALL, steps=1)
    cached_vae(train, short, 0, cache=tmp_path)
    (path,) = tmp_path.rglob("vae.safetensors")
    tensors, info = read_tensors(path)
    write_tensors(path, {name: value for name, value in tensors.items() if not name.startswith("encoder.0")}, info)
    with pytest.raises(FileError, match=r"vae\.safetensors.*encoder.*Delete it"):
        cached_vae(train, short, 0, cache=tmp_path)
    write_tensors(path, tensors, {**info, "seed": 1})
    with pytest.raises(FileError, match="other data or settings"):
        cached_vae(train, short, 0, cache=tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        cached_vae(train, short, 0, cache=tmp_path)


# ---- codes ------------------------------------------------------------------------------------------------------


def test_the_prior_is_minus_its_log_density() -> None:
    codes = torch.randn(7, 5, dtype=torch.float64, generator=generator(0))
    density = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0).log_prob(codes)
    assert float(prior(codes)) == pytest.approx(float(-density.mean()) - 0.5 * math.log(2 * math.pi))
    assert float(prior(torch.zeros(3, 2))) == 0
    assert torch.autograd.gradcheck(prior, codes.requires_grad_())


def test_codes_from_the_prior() -> None:
    codes = sample_prior(20_000, 3, generator(0, "codes"))
    assert codes.shape == (20_000, 3) and torch.equal(codes, sample_prior(20_000, 3, generator(0, "codes")))
    assert float(codes.mean(0).abs().max()) < 0.03 and float((codes.T.cov() - torch.eye(3)).abs().max()) < 0.03
    assert float(prior(codes)) == pytest.approx(0.5, abs=0.01)


def test_kmeans_finds_the_middles_of_each_class() -> None:
    middles = torch.tensor([[[0.0, 0.0], [9.0, 0.0]], [[0.0, 9.0], [9.0, 9.0]]])  # class, cluster, place
    chance = generator(0)
    labels, cluster = torch.randint(2, (400,), generator=chance), torch.randint(2, (400,), generator=chance)
    codes = middles[labels, cluster] + 0.1 * torch.randn(400, 2, generator=chance)
    found, kinds = kmeans_codes(codes, labels, 2, 7)
    assert kinds.tolist() == [0, 0, 1, 1] and found.dtype == codes.dtype
    for label in (0, 1):
        ours = sorted(found[kinds == label].tolist())
        wanted = sorted(codes[(labels == label) & (cluster == part)].mean(0).tolist() for part in (0, 1))
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
    torch.testing.assert_close(kmeans_codes(codes, labels, 1, 0)[0], torch.stack([codes[labels == label].mean(0) for label in (0, 1)]))
    assert torch.equal(kmeans_codes(codes, labels, 3, 5)[0], kmeans_codes(codes, labels, 3, 5)[0])
    assert not torch.equal(kmeans_codes(codes, labels, 9, 5)[0], kmeans_codes(codes, labels, 9, 6)[0])


def test_kmeans_is_as_good_as_many_starts() -> None:
    codes, labels = torch.randn(200, 4, generator=generator(1)), torch.zeros(200, dtype=torch.int64)
    found, _ = kmeans_codes(codes, labels, 5, 0)
    inertia = float(torch.cdist(codes, found).min(1).values.square().sum())
    assert inertia < 1.1 * float(KMeans(5, n_init=20, random_state=0).fit(codes.numpy()).inertia_)


def test_too_many_centroids_are_refused() -> None:
    codes, labels = torch.randn(5, 2), torch.tensor([0, 0, 0, 2, 2])
    with pytest.raises(DataError, match="3 centroids were asked for of class 2, which has 2"):
        kmeans_codes(codes, labels, 3, 0)
    with pytest.raises(DataError, match="0 centroids"):
        kmeans_codes(codes, labels, 0, 0)
    found, kinds = kmeans_codes(codes, labels, 2, 0)  # every code of class 2 is its own centroid
    assert kinds.tolist() == [0, 0, 2, 2]
    assert sorted(found[2:].tolist()) == sorted(codes[3:].tolist())
