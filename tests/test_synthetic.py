"""Synthetic sets: what they accept, the file they live in, and sets of real images."""

import hashlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from hoptm import data, files, synthetic_file
from hoptm.baselines import random_subset
from hoptm.data import Info, Splits, Standardisation, Train, Validation, standardisation
from hoptm.errors import DataError, FileError
from hoptm.rendering import Decoded, Pixels, Rendering, Upsampled
from hoptm.results import SOFT as SOFT_METHODS
from hoptm.synthetic import SyntheticSet, describe, from_real, initialise, load, provenance
from hoptm.synthetic_file import Parts, wrong_parts
from hoptm.vae import Decoder, VaeConfig, _decoder, untrained

COUNTS = (7, 4, 9)


def small_splits() -> Splits:
    """Three unequal classes; each training image is told from every other by its first pixel."""
    chance = torch.Generator().manual_seed(3)
    total = sum(COUNTS)
    images = torch.randint(0, 256, (total, 3, 8, 8), generator=chance).to(torch.uint8)
    images[:, 0, 0, 0] = torch.arange(total).to(torch.uint8)
    labels = torch.tensor([label for label, count in enumerate(COUNTS) for _ in range(count)])[torch.randperm(total, generator=chance)]
    info = Info("toy", "Toy set", ("left", "middle", "right"), "multi-class", "CC0", "nobody, never", "sha256:00", "made here", ("none", "dsa"))
    return Splits(Train(images, labels), Validation(images[:6], labels[:6]), data.Test(images[6:], labels[6:]), info)


def small_set(**changes: Any) -> SyntheticSet:
    splits = small_splits()
    parts: dict[str, Any] = {
        "images": torch.linspace(-2, 2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8),
        "labels": torch.tensor([2, 0]),
        "lr": 0.017,
        "standardisation": Standardisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
        "info": provenance(splits, method="endpoint", ipc=1, seed=4, config={"dataset": "toy"}, selection=[{"iteration": 2, "auc": 0.75}]),
    }
    return SyntheticSet(**{**parts, **changes})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- the file -------------------------------------------------------------------------------------------------


def test_a_set_comes_back_as_it_was(tmp_path: Path) -> None:
    made = small_set()
    made.save(tmp_path / "set.safetensors")
    for read in (load, SyntheticSet.load):
        back = read(tmp_path / "set.safetensors")
        assert torch.equal(back.images, made.images) and torch.equal(back.labels, made.labels)
        assert back.lr == made.lr and back.standardisation == made.standardisation and back.info == made.info


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(12)]
    for path in paths:
        small_set().save(path)
    load(paths[0]).save(tmp_path / "again.safetensors")
    assert len({digest(path) for path in paths}) == 1
    assert digest(tmp_path / "again.safetensors") == digest(paths[0])


def test_another_set_gives_other_bytes(tmp_path: Path) -> None:
    others = [small_set(), small_set(lr=0.0170001), small_set(labels=torch.tensor([2, 1])), small_set(info={**small_set().info, "seed": 5})]
    for index, made in enumerate(others):
        made.save(tmp_path / str(index))
    assert len({digest(tmp_path / str(index)) for index in range(len(others))}) == len(others)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "set.safetensors"
    small_set().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FileError, match=r"set\.safetensors.*again"):
        load(path)


def test_an_edited_pixel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    small_set().save(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        load(path)


def test_an_edited_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    small_set().save(path)
    content = path.read_bytes()
    assert content.count(b"CC0") == 1
    path.write_bytes(content.replace(b"CC0", b"MIT"))
    with pytest.raises(FileError, match="checksum"):
        load(path)


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "set.safetensors"
    path.write_bytes(pickle.dumps(_Trap(mark)))
    with pytest.raises(FileError, match=r"set\.safetensors"):
        load(path)
    torch.save({"images": _Trap(mark)}, path)
    with pytest.raises(FileError, match=r"set\.safetensors"):
        load(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Trap(mark)))
    assert mark.exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileError, match="no such file"):
            load(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    with path.open("wb") as file:
        file.truncate(2 * 1024**3 + 1)  # sparse: takes no room
    with pytest.raises(FileError, match="at most"):
        load(path)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.safetensors"
    small_set().save(path)
    before = digest(path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(FileError, match="No space left"):
        small_set(lr=0.5).save(path)
    assert digest(path) == before and list(tmp_path.iterdir()) == [path]


def stored(**changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a file holds, some of it changed; the checksum is made anew, so only the content can be wrong."""
    made = small_set()
    tensors = {
        "images": made.images,
        "labels": made.labels,
        "lr": torch.tensor([made.lr], dtype=torch.float64),
        "mean": torch.tensor(made.standardisation.mean, dtype=torch.float64),
        "std": torch.tensor(made.standardisation.std, dtype=torch.float64),
    }
    header = {"kind": "hoptm synthetic set 1", "set": made.info}
    for name, value in changes.items():
        if name in tensors:
            tensors[name] = value
        else:
            header[name] = value
    return {name: value for name, value in tensors.items() if value is not None}, header


def test_the_untouched_stored_form_loads(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "set", *stored())
    assert torch.equal(load(tmp_path / "set").images, small_set().images)


DAMAGE: dict[str, dict[str, Any]] = {
    "half pixels": {"images": torch.zeros(2, 3, 8, 8, dtype=torch.float16)},
    "flat pixels": {"images": torch.zeros(2, 3, 64)},
    "oblong pixels": {"images": torch.zeros(2, 3, 8, 4)},
    "no pixels": {"images": torch.zeros(0, 3, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)},
    "NaN": {"images": torch.full((2, 3, 8, 8), math.nan)},
    "infinity": {"images": torch.full((2, 3, 8, 8), -math.inf)},
    "float labels": {"labels": torch.tensor([0.0, 1.0])},
    "int32 labels": {"labels": torch.tensor([0, 1], dtype=torch.int32)},
    "unequal lengths": {"labels": torch.tensor([0, 1, 2])},
    "negative label": {"labels": torch.tensor([0, -1])},
    "label beyond the classes": {"labels": torch.tensor([0, 3])},
    "missing labels": {"labels": None},
    "step size of 0": {"lr": torch.tensor([0.0], dtype=torch.float64)},
    "negative step size": {"lr": torch.tensor([-0.1], dtype=torch.float64)},
    "NaN step size": {"lr": torch.tensor([math.nan], dtype=torch.float64)},
    "two step sizes": {"lr": torch.tensor([0.1, 0.1], dtype=torch.float64)},
    "mean of another channel count": {"mean": torch.tensor([0.5], dtype=torch.float64)},
    "deviation of 0": {"std": torch.tensor([0.1, 0.0, 0.1], dtype=torch.float64)},
    "deviation as a matrix": {"std": torch.ones(3, 1, dtype=torch.float64)},
    "infinite mean": {"mean": torch.tensor([0.1, math.inf, 0.1], dtype=torch.float64)},
    "another kind": {"kind": "experts"},
    "no description": {"set": None},
    "a description without classes": {"set": {"source": {}}},
    "class names that are numbers": {"set": {**small_set().info, "class_names": [1, 2, 3]}},
}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE.keys())
def test_wrong_content_is_one_clear_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "set.safetensors"
    files.write_tensors(path, *stored(**changes))
    with pytest.raises(FileError, match=r"set\.safetensors: .*(M|m)ake or fetch it again"):
        load(path)


# ---- the set in memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.0, -0.01, math.nan, math.inf])
def test_a_step_size_must_be_finite_and_positive(lr: float) -> None:
    with pytest.raises(DataError, match="step size"):
        small_set(lr=lr)


def test_labels_must_be_classes() -> None:
    with pytest.raises(DataError, match=r"labels 0 \.\. 3 for 3 classes"):
        small_set(labels=torch.tensor([0, 3]))
    with pytest.raises(DataError, match=r"labels -1"):
        small_set(labels=torch.tensor([0, -1]))


def test_pixels_must_be_finite() -> None:
    with pytest.raises(DataError, match="finite"):
        small_set(images=torch.full((2, 3, 8, 8), math.nan))


def test_the_description_must_be_json_and_is_copied() -> None:
    info = small_set().info
    with pytest.raises(DataError, match="JSON"):
        small_set(info={**info, "source": {"path": Path("x")}})
    with pytest.raises(DataError, match="JSON"):
        small_set(info={**info, "selection": [math.nan]})
    made = small_set(info=info)
    info["class_names"].append("later")
    assert made.classes == 3 and json.dumps(made.info)


def test_the_description_reads_plainly() -> None:
    text = describe(small_set())
    assert "2 images of 3 x 8 x 8 for Toy set, made by endpoint, seed 4" in text
    assert "left 1, middle 0, right 1" in text
    assert "0.017" in text and "CC0" in text and "made here" in text and len(text.splitlines()) <= 5


# ---- sets of real images ------------------------------------------------------------------------------------------


def test_initialise_draws_each_class_in_turn() -> None:
    train = small_splits().train
    chosen = initialise(train, 3, 4, torch.Generator().manual_seed(0))
    assert chosen.dtype == torch.int64 and train.labels[chosen].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(chosen.tolist())) == 12
    again = initialise(train, 3, 4, torch.Generator().manual_seed(0))
    assert torch.equal(chosen, again)
    draws = {tuple(sorted(initialise(train, 3, 1, torch.Generator().manual_seed(seed)).tolist())) for seed in range(300)}
    assert len({draw for each in draws for draw in each}) == sum(COUNTS)  # every image can be drawn


def test_initialise_refuses_what_it_cannot_give() -> None:
    train = small_splits().train
    with pytest.raises(DataError, match="class 1 has 4 training images and 5 per class"):
        initialise(train, 3, 5, torch.Generator())
    with pytest.raises(DataError, match="class 3 has 0"):
        initialise(train, 4, 1, torch.Generator())
    with pytest.raises(DataError, match="1 or more"):
        initialise(train, 3, 0, torch.Generator())


def test_random_subset_holds_real_training_images(tmp_path: Path) -> None:
    splits = small_splits()
    made = random_subset(splits, 2, torch.Generator().manual_seed(8), seed=8)
    pixels = (made.standardisation.invert(made.images) * 255).round().to(torch.uint8)
    rows = pixels[:, 0, 0, 0].long()
    assert torch.equal(pixels, splits.train.images[rows])
    assert torch.equal(made.labels, splits.train.labels[rows]) and made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert made.standardisation == standardisation(splits.train)
    assert made.info["method"] == "random" and made.info["ipc"] == 2 and made.info["seed"] == 8 and made.info["augmentations"] == ["none", "dsa"]
    known = splits.info
    origin = {"name": "toy", "title": "Toy set", "checksum": known.checksum, "licence": known.licence, "citation": known.citation, "note": known.note}
    assert made.info["source"] == origin
    made.save(tmp_path / "set")
    assert torch.equal(load(tmp_path / "set").images, made.images)


def test_from_real_takes_the_images_that_were_named() -> None:
    splits = small_splits()
    made = from_real(splits, torch.tensor([5, 0]), provenance(splits, method="start", ipc=1, seed=0), lr=0.03)
    assert torch.equal(made.images, standardisation(splits.train).apply(splits.train.images[torch.tensor([5, 0])]))
    assert made.lr == 0.03 and made.info["method"] == "start"


# ---- what a set may carry besides -----------------------------------------------------------------------------------


def rendered_set(rendering: Rendering, **changes: Any) -> SyntheticSet:
    codes = rendering.initial(small_set().images)
    return small_set(**{"images": rendering(codes), "codes": codes, "rendering": rendering, **changes})


VAE = untrained(VaeConfig(dims=5, width=3), 3, 8, torch.Generator().manual_seed(1))
SOFT = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("rendering", [Decoded.by(VAE), Upsampled(), Upsampled(4)], ids=["decoded", "upsampled", "upsampled 4"])
def test_codes_and_soft_labels_come_back(tmp_path: Path, rendering: Rendering) -> None:
    made = rendered_set(rendering, soft=SOFT)
    made.save(tmp_path / "set")
    back = load(tmp_path / "set")
    assert made.codes is not None and back.codes is not None and back.rendering is not None and back.soft is not None
    assert torch.equal(back.codes, made.codes) and torch.equal(back.soft, SOFT) and torch.equal(back.images, made.images)
    assert torch.equal(back.rendering(back.codes), made.images) and back.info == made.info
    assert {name: value.tolist() for name, value in back.rendering.shared.items()} == {name: value.tolist() for name, value in rendering.shared.items()}
    tensors, _ = files.read_tensors(tmp_path / "set")
    assert set(tensors) == {"images", "labels", "lr", "mean", "std", "codes", "soft", *rendering.shared}
    back.save(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(tmp_path / "set")


def test_a_set_rendered_from_pixels_is_a_set_of_pixels(tmp_path: Path) -> None:
    made = rendered_set(Pixels())
    made.save(tmp_path / "set")
    small_set().save(tmp_path / "plain")
    assert made.codes is None and made.rendering is None and digest(tmp_path / "set") == digest(tmp_path / "plain")


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "data" / "distilled").glob("*.safetensors")), ids=lambda path: path.stem)
def test_stored_sets_keep_their_bytes(tmp_path: Path, path: Path) -> None:
    made = load(path)
    made.save(tmp_path / "set", half="stored" in made.info)
    assert (tmp_path / "set").read_bytes() == path.read_bytes()
    rendered = next((name for method, name in (("-latent-", "decoded"), ("-half-", "upsampled")) if method in path.stem), None)
    assert (made.rendering.name if made.rendering else None) == rendered and (made.codes is not None) == bool(rendered)
    assert (made.soft is not None) == (made.info["method"] in SOFT_METHODS)


def test_the_payload_counts_codes_and_the_decoder_once() -> None:
    made = rendered_set(Decoded.by(VAE))
    assert made.payload == 4 * (2 * 5 + sum(value.numel() for value in VAE.decoder.weights.values()))
    assert small_set().payload == 4 * 2 * 3 * 8 * 8 == 4 * rendered_set(Upsampled()).payload
    assert f"rendered (decoded) from 5 numbers an image, {made.payload} bytes" in describe(made)
    assert "soft labels" in describe(small_set(soft=SOFT)) and len(describe(rendered_set(Upsampled(), soft=SOFT)).splitlines()) == 5


def test_images_off_by_rounding_are_accepted_and_others_are_not() -> None:
    made = rendered_set(Decoded.by(VAE))
    rendered_set(Decoded.by(VAE), images=made.images * (1 + 5e-4))
    with pytest.raises(DataError, match=r"codes do not give \(off by"):
        rendered_set(Decoded.by(VAE), images=made.images + 0.01)


WRONG: dict[str, dict[str, Any]] = {
    "codes without a rendering": {"rendering": None},
    "a rendering without codes": {"codes": None},
    "too few codes": {"codes": torch.zeros(1, 5)},
    "codes of another length": {"codes": torch.zeros(2, 6)},
    "double codes": {"codes": torch.zeros(2, 5, dtype=torch.float64)},
    "codes that are not finite": {"codes": torch.full((2, 5), math.nan)},
    "codes of other images": {"codes": torch.ones(2, 5)},
    "a rendering that does not fit the size": {"rendering": Upsampled(3)},
    "soft labels of other classes": {"soft": torch.full((2, 2), 0.5)},
    "double soft labels": {"soft": SOFT.double()},
    "soft labels that do not sum to 1": {"soft": 0.9 * SOFT},
    "negative soft labels": {"soft": torch.tensor([[1.5, -0.5, 0.0], [1.0, 0.0, 0.0]])},
    "soft labels that are not finite": {"soft": torch.full((2, 3), math.nan)},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG.keys())
def test_parts_that_do_not_belong_together_are_wrong(changes: dict[str, Any]) -> None:
    whole = vars(rendered_set(Decoded.by(VAE), soft=SOFT))
    assert wrong_parts(Parts(**whole)) is None
    assert wrong_parts(Parts(**{**whole, **changes}))
    if not {"codes", "rendering"} & set(changes):
        with pytest.raises(DataError, match=r"a synthetic set .*soft labels"):
            SyntheticSet(**{**whole, **changes})


def rendered_file(**changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """As `stored`, for a set of codes with soft labels; a tensor's name may be `decoder.2.bias`."""
    made = rendered_set(Decoded.by(VAE))
    assert made.codes is not None and made.rendering is not None
    tensors, header = stored(images=made.images)
    tensors |= {"codes": made.codes, "soft": SOFT, **made.rendering.shared}
    header["rendering"] = {"name": "decoded", "config": made.rendering.config}
    for name, value in changes.items():
        (tensors if isinstance(value, torch.Tensor) or name in tensors else header)[name] = value
    return {name: value for name, value in tensors.items() if value is not None}, {name: value for name, value in header.items() if value is not None}


def test_the_untouched_rendered_form_loads(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "set", *rendered_file())
    assert load(tmp_path / "set").rendering is not None


_CONFIG = Decoded.by(VAE).config
RENDERED_DAMAGE: dict[str, dict[str, Any]] = {
    "codes of other images": {"codes": torch.ones(2, 5)},
    "codes that are not finite": {"codes": torch.full((2, 5), math.inf)},
    "half codes": {"codes": torch.zeros(2, 5, dtype=torch.float16)},
    "codes of another count": {"codes": torch.zeros(3, 5)},
    "no codes": {"codes": None},
    "no rendering": {"rendering": None},
    "a rendering that is a word": {"rendering": "decoded"},
    "a rendering without settings": {"rendering": {"name": "decoded"}},
    "a rendering without a name": {"rendering": {"config": _CONFIG}},
    "an unknown rendering": {"rendering": {"name": "fourier", "config": {}}},
    "another rendering": {"rendering": {"name": "upsampled", "config": {"factor": 2}}},
    "a decoder of another width": {"rendering": {"name": "decoded", "config": {**_CONFIG, "width": 4}}},
    "a decoder for another size": {"rendering": {"name": "decoded", "config": {**_CONFIG, "size": 16}}},
    "a weight missing": {"decoder.0.bias": None},
    "a weight that is not finite": {"decoder.0.bias": torch.full((12,), math.nan)},
    "a weight of another shape": {"decoder.0.bias": torch.zeros(3)},
    "a weight too many": {"decoder.99.bias": torch.zeros(3)},
    "a tensor that nothing reads": {"encoder.0.bias": torch.zeros(3)},
    "soft labels that are no probabilities": {"soft": 2 * SOFT},
    "double soft labels": {"soft": SOFT.double()},
    "soft labels for other images": {"soft": SOFT[:1]},
}


@pytest.mark.parametrize("changes", RENDERED_DAMAGE.values(), ids=RENDERED_DAMAGE.keys())
def test_wrong_rendered_content_is_one_clear_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    files.write_tensors(tmp_path / "set.safetensors", *rendered_file(**changes))
    with pytest.raises(FileError, match=r"set\.safetensors: .*(M|m)ake or fetch it again"):
        load(tmp_path / "set.safetensors")


def square_set(size: int, width: int, count: int = 3) -> SyntheticSet:
    vae = untrained(VaeConfig(width=width), 3, size, torch.Generator().manual_seed(1))
    codes = torch.randn(count, vae.config.dims, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return small_set(images=vae.decode(codes), labels=torch.arange(count) % 3, codes=codes, rendering=Decoded.by(vae))


@pytest.mark.parametrize(("size", "width"), [(28, 16), (64, 16), (112, 16), (128, 16), (224, 16), (28, 128), (224, 64)])
def test_codes_of_every_image_size_load(tmp_path: Path, size: int, width: int) -> None:
    made = square_set(size, width)
    made.save(tmp_path / "set")
    assert torch.equal(load(tmp_path / "set").images, made.images)


def test_images_are_rendered_within_a_budget_of_bytes_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at a time as their largest layer leaves room for; loading a file renders each image once."""
    square_set(28, 16, 100).save(tmp_path / "small")
    square_set(224, 32, 25).save(tmp_path / "large")
    seen: list[int] = []
    call = Decoded.__call__

    def counted(self: Decoded, leaf: torch.Tensor) -> torch.Tensor:
        seen.append(len(leaf))
        return call(self, leaf)

    monkeypatch.setattr(Decoded, "__call__", counted)
    load(tmp_path / "small")
    assert seen == [64, 36]
    seen.clear()
    load(tmp_path / "large")
    assert seen == [20, 5] and max(seen) * 32 * 224**2 <= 32 * 1024**2


def test_rendering_is_bounded_in_all(tmp_path: Path) -> None:
    """Sixteen images of a decoder as wide as may be, in a file of 52 megabytes, would take a minute: refused before the first is rendered."""
    vae = Decoder(1, 512, 1, 256, {name: torch.zeros(value.shape) for name, value in _decoder(1, 512, 1, 256).named_parameters()})
    one = {"mean": torch.tensor([0.5], dtype=torch.float64), "std": torch.tensor([0.5], dtype=torch.float64)}
    tensors, header = stored(images=torch.zeros(16, 1, 256, 256), labels=torch.zeros(16, dtype=torch.int64), **one)
    header["rendering"] = {"name": "decoded", "config": Decoded(vae).config}
    files.write_tensors(tmp_path / "set.safetensors", tensors | {"codes": torch.zeros(16, 1), **Decoded(vae).shared}, header)
    with pytest.raises(FileError, match=r"set\.safetensors: .* takes [\d,]+ multiplications to render 16 images; 274,877,906,944 are allowed"):
        load(tmp_path / "set.safetensors")


def test_the_edge_and_the_augmentations_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (["none"] * 2, [str(number) for number in range(51)]):
        files.write_tensors(tmp_path / "set", *stored(set={**small_set().info, "augmentations": names}))
        with pytest.raises(FileError, match="more than 50 augmentations, or one of them twice"):
            load(tmp_path / "set")
    small_set().save(tmp_path / "set")
    monkeypatch.setattr(synthetic_file, "LARGEST_EDGE", 7)
    with pytest.raises(FileError, match="images of 8 pixels; an edge may have 7"):
        load(tmp_path / "set")


def test_a_plain_set_may_hold_no_decoder(tmp_path: Path) -> None:
    tensors, header = stored()
    files.write_tensors(tmp_path / "set", {**tensors, "decoder.0.bias": torch.zeros(3)}, header)
    with pytest.raises(FileError, match=r"holds the tensors .*decoder"):
        load(tmp_path / "set")
