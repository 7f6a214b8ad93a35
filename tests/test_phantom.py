"""The generated set: the same bytes everywhere, quick to make, all classes there, the test split stained elsewhere."""

import time

import pytest
import torch

from hoptm import phantom
from hoptm.config import generator
from hoptm.files import digest_of

PINNED = "6e1c6fd16005a621d19ed439096bbe02fa31e2fad55a41f270258ee081a42725"
PINNED_900 = "51ad684da89b90ee917fbbe60670b16484f41ef4947d9cf24f4c685f4ef95b97"
Made = dict[str, tuple[torch.Tensor, torch.Tensor]]


def digest(made: Made) -> str:
    return digest_of({f"{split}_{kind}": part for split, pair in made.items() for kind, part in zip(("images", "labels"), pair, strict=True)})


@pytest.fixture(scope="module")
def whole() -> tuple[Made, float]:
    start = time.process_time()
    made = phantom.arrays()
    return made, time.process_time() - start


def test_bytes_are_pinned(whole: tuple[Made, float]) -> None:
    assert digest(whole[0]) == PINNED
    assert digest(phantom.arrays(900)) == PINNED_900


def test_made_in_ten_seconds_of_one_core(whole: tuple[Made, float]) -> None:
    assert torch.get_num_threads() == 1
    assert whole[1] < 10


def test_counts_and_slight_imbalance(whole: tuple[Made, float]) -> None:
    for split, size in {"train": 9_000, "val": 900, "test": 1_800}.items():
        images, labels = whole[0][split]
        counts = labels.bincount()
        assert images.shape == (size, 3, 28, 28) and images.dtype == torch.uint8 and len(counts) == 9 == len(phantom.CLASSES)
        assert 1.4 < counts.max() / counts.min() < 2
    assert [len(labels) for _, labels in phantom.arrays(90).values()] == [90, 9, 18]
    assert all(set(labels.tolist()) == set(range(9)) for _, labels in phantom.arrays(90).values())


def test_labels_are_shuffled(whole: tuple[Made, float]) -> None:
    assert all(set(labels[:200].tolist()) == set(range(9)) for _, labels in whole[0].values())


def test_splits_share_no_image(whole: tuple[Made, float]) -> None:
    seen = [{bytes(image.flatten().tolist()) for image in whole[0][split][0][:300]} for split in ("train", "val", "test")]
    assert [len(part) for part in seen] == [300, 300, 300] and not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_only_test_is_stained_elsewhere(whole: tuple[Made, float]) -> None:
    red, green, blue = range(3)
    mean = {split: images.double().mean((0, 2, 3)) / 255 for split, (images, _) in whole[0].items()}
    assert (mean["train"] - mean["val"]).abs().max() < 0.01
    shift = mean["test"] - mean["train"]
    assert shift[blue] < -0.08 and -0.08 < shift[red] < -0.01 and abs(shift[green]) < abs(shift[blue])


def test_without_dye_only_light_is_left() -> None:
    clear = phantom.Stain(strength=(0.0, 0.0), light=(0.9, 0.6, 0.3))
    mean = phantom.draw(torch.arange(9).repeat(20), generator(0, "clear"), clear).double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64) * 0.97, rtol=0.01, atol=0)


def test_dye_absorbs_as_its_vector_says() -> None:
    green_only = phantom.Stain(haematoxylin=(0.0, 1.0, 0.0), eosin=(0.0, 1.0, 0.0), light=(1.0, 1.0, 1.0))
    images = phantom.draw(torch.full((200,), 5), generator(0, "green"), green_only).double().mean((0, 2, 3)) / 255
    assert images[0] > 0.9 and images[2] > 0.9 and images[1] < 0.45


def test_classes_differ_in_colour_but_overlap() -> None:
    """Mean colour alone tells some classes apart, far from all: nearest class mean is above chance and far below a network."""
    labels = torch.arange(9).repeat(60)
    first, second = (phantom.draw(labels, generator(0, "colour", name)).double().mean((2, 3)) for name in ("a", "b"))
    centres = torch.stack([first[labels == name].mean(0) for name in range(9)])
    right = (torch.cdist(second, centres).argmin(1) == labels).double().mean()
    assert 0.3 < right < 0.7


def test_every_seed_gives_other_images() -> None:
    labels = torch.arange(9)
    same, other = (phantom.draw(labels, generator(seed, "images")) for seed in (1, 2))
    assert torch.equal(same, phantom.draw(labels, generator(1, "images"))) and not torch.equal(same, other)
