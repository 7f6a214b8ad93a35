"""Augmentation against slow computations of one image at a time."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hoptm.augment import KINDS, STRATEGIES, Draw, apply, draw, kinds
from hoptm.errors import ConfigError

torch.set_num_threads(1)
EVERY = (*KINDS, "dihedral")
GEOMETRIC = ("crop", "cutout", "flip", "scale", "rotate", "dihedral")


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=6, channels=3, size=9, seed=0):
    return torch.randn(count, channels, size, size, generator=stream(seed), dtype=torch.float64)


# --- one image at a time, in plain Python ------------------------------------------------------------------------


def pixel(image, row, column):
    """(c,) values at whole coordinates; zero outside."""
    inside = 0 <= row < image.shape[1] and 0 <= column < image.shape[2]
    return image[:, row, column] if inside else np.zeros(image.shape[0])


def sampled(image, place):
    """Bilinear values at `place(x, y) -> (x, y)`, distances in pixels from the centre, x to the right and y down."""
    size = image.shape[1]
    middle = (size - 1) / 2
    result = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            x, y = place(column - middle, row - middle)
            x, y = x + middle, y + middle
            left, top = math.floor(x), math.floor(y)
            for near_column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
                for near_row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
                    result[:, row, column] += across * down * pixel(image, near_row, near_column)
    return result


def slow_color(image, brightness, saturation, contrast):
    image = image + brightness
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            grey = image[:, row, column].mean()
            image[:, row, column] = (image[:, row, column] - grey) * saturation + grey
    return (image - image.mean()) * contrast + image.mean()


def slow_crop(image, down, right):
    size = image.shape[1]
    result = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            result[:, row, column] = pixel(image, row + down, column + right)
    return result


def slow_cutout(image, row, column):
    side = int(image.shape[1] * 0.5 + 0.5)
    top, left = row - side // 2, column - side // 2
    image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    return image


def slow_flip(image, flipped):
    return image[:, :, ::-1] if flipped else image


def slow_scale(image, across, down):
    return sampled(image, lambda x, y: (across * x, down * y))


def slow_rotate(image, degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return sampled(image, lambda x, y: (cos * x - sin * y, sin * x + cos * y))


def slow_dihedral(image, element):
    if element & 4:
        image = np.swapaxes(image, 1, 2)
    if element & 2:
        image = np.flipud(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    if element & 1:
        image = np.fliplr(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    return image


SLOW = {"color": slow_color, "crop": slow_crop, "cutout": slow_cutout, "flip": slow_flip, "scale": slow_scale, "rotate": slow_rotate, "dihedral": slow_dihedral}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [9, 12])
@pytest.mark.parametrize("name", EVERY)
def test_equals_the_slow_computation(name, size, channels):
    images = pictures(count=10, channels=channels, size=size)
    drawn = draw(name, 10, size, stream(5))
    assert drawn.name == name
    expected = [SLOW[name](image.numpy().copy(), **{key: value[index].item() for key, value in drawn.values.items()}) for index, image in enumerate(images)]
    changed = apply(images, drawn)
    torch.testing.assert_close(changed, torch.from_numpy(np.stack(expected)), rtol=1e-10, atol=1e-10)
    assert channels == 1 or not torch.equal(changed, images)


def test_color_is_brightness_then_saturation_then_contrast():
    image = torch.tensor([1.0, 2.0, 6.0, 3.0, 3.0, 9.0], dtype=torch.float64).view(1, 3, 1, 2).expand(1, 3, 1, 2)
    image = torch.cat([image, image + 1], 2)  # 2 x 2
    values = {"brightness": 0.25, "saturation": 2.0, "contrast": 0.5}
    drawn = Draw("color", {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()})
    bright = image + 0.25
    grey = bright.mean(1, keepdim=True)
    vivid = 2 * bright - grey
    torch.testing.assert_close(apply(image, drawn), 0.5 * vivid + 0.5 * vivid.mean())


def test_a_quarter_turn_turns_anticlockwise():
    images = pictures(count=1)
    turned = apply(images, Draw("rotate", {"degrees": torch.tensor([90.0], dtype=torch.float64)}))
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)))


def test_geometric_kinds_equal_the_library_once_differentiated():
    images = pictures(size=11).requires_grad_()
    upper = pictures(size=11, seed=9)
    for name, entries in (("scale", ("across", None, None, None, "down", None)), ("rotate", None)):
        drawn = draw(name, 6, 11, stream(2))
        zero = torch.zeros(6, dtype=torch.float64)
        if entries is None:
            angle = drawn.values["degrees"].deg2rad()
            columns = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
        else:
            columns = [drawn.values[entry] if entry else zero for entry in entries]
        grid = F.affine_grid(torch.stack(columns, 1).view(6, 2, 3), list(images.shape), align_corners=True)
        theirs = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        ours = apply(images, drawn)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        (expected,) = torch.autograd.grad(theirs, images, upper)
        torch.testing.assert_close(torch.autograd.grad(ours, images, upper)[0], expected, rtol=1e-12, atol=1e-12)


# --- what is drawn -----------------------------------------------------------------------------------------------

RANGES = {
    ("color", "brightness"): (-0.5, 0.5),
    ("color", "saturation"): (0, 2),
    ("color", "contrast"): (0.5, 1.5),
    ("scale", "across"): (1 / 1.2, 1.2),
    ("scale", "down"): (1 / 1.2, 1.2),
    ("rotate", "degrees"): (-15, 15),
}


@pytest.mark.parametrize(("name", "key"), RANGES)
def test_continuous_ranges(name, key):
    low, high = RANGES[name, key]
    values = draw(name, 20_000, 28, stream(1)).values[key]
    width = high - low
    assert values.dtype == torch.float64
    assert low <= values.min() < low + 0.001 * width
    assert high - 0.001 * width < values.max() <= high
    assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.01 * width)
    assert float(values.std()) == pytest.approx(width / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize(
    ("name", "size", "keys", "low", "high"),
    [
        ("crop", 28, ("down", "right"), -4, 4),
        ("crop", 32, ("down", "right"), -4, 4),
        ("crop", 112, ("down", "right"), -14, 14),
        ("cutout", 28, ("row", "column"), 0, 28),
        ("cutout", 9, ("row", "column"), 0, 8),
        ("flip", 28, ("flipped",), 0, 1),
        ("dihedral", 28, ("element",), 0, 7),
    ],
)
def test_whole_ranges(name, size, keys, low, high):
    drawn = draw(name, 20_000, size, stream(1))
    assert tuple(drawn.values) == keys
    for values in drawn.values.values():
        assert values.dtype == torch.int64
        counts = torch.bincount(values - low)
        expected = 20_000 / (high - low + 1)
        assert len(counts) == high - low + 1
        assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_values_of_a_kind_are_independent():
    for name in ("color", "crop", "cutout", "scale"):
        together = torch.corrcoef(torch.stack([value.double() for value in draw(name, 20_000, 28, stream()).values.values()]))
        assert (together - torch.eye(len(together))).abs().max() < 0.04


@pytest.mark.parametrize(
    ("strategy", "names"), [("dsa", KINDS), ("color_crop_cutout_flip_scale_rotate", KINDS), ("flip_crop", ("flip", "crop")), ("dihedral", ("dihedral",))]
)
def test_one_kind_a_batch_each_equally_often(strategy, names):
    source, batches = stream(), 3_000
    counts = Counter(draw(strategy, 2, 28, source).name for _ in range(batches))
    assert set(counts) == set(names)
    expected = batches / len(names)
    assert max(abs(count - expected) for count in counts.values()) < 4.5 * math.sqrt(expected)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "flip_crop"])
def test_same_generator_same_bits(strategy):
    before = torch.get_rng_state()
    first, second = ([draw(strategy, 5, 28, source) for _ in range(20)] for source in (stream(3), stream(3)))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == [draw(strategy, 5, 28, source) for source in [stream(4)] for _ in range(20)]) == (strategy == "none")
    assert all(value.shape == (5,) for drawn in first for value in drawn.values.values())


def test_draws_compare_by_bits():
    one = Draw("flip", {"flipped": torch.tensor([0, 1])})
    assert one == Draw("flip", {"flipped": torch.tensor([0, 1])})
    assert one != Draw("flip", {"flipped": torch.tensor([1, 1])})
    assert one != Draw("none", {})
    assert one != "flip"


# --- as a function of the images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_kinds_are_linear(name):
    one, other = pictures(seed=1), pictures(seed=2)
    drawn = draw(name, 6, 9, stream())
    torch.testing.assert_close(apply(2 * one - 3 * other, drawn), 2 * apply(one, drawn) - 3 * apply(other, drawn))
    assert apply(torch.zeros_like(one), drawn).eq(0).all()


@pytest.mark.parametrize("name", EVERY)
def test_differentiable_once_and_twice(name):
    images = pictures(count=2, channels=2, size=4).requires_grad_()
    drawn = draw(name, 2, 4, stream(1))
    assert torch.autograd.gradcheck(lambda x: apply(x, drawn), (images,))
    assert torch.autograd.gradgradcheck(lambda x: apply(x, drawn).pow(3), (images,))


@pytest.mark.parametrize("name", EVERY)
def test_each_image_has_its_own_draw_and_the_type_stays(name):
    images = pictures(count=1).expand(8, -1, -1, -1).float()
    drawn = draw(name, 8, 9, stream(1))
    changed = apply(images, drawn)
    assert changed.dtype == torch.float32
    assert len({image.numpy().tobytes() for image in changed}) > 1
    for index, image in enumerate(changed):
        alone = Draw(name, {key: value[index : index + 1] for key, value in drawn.values.items()})
        torch.testing.assert_close(apply(images[:1], alone)[0], image)


def test_crop_moves_bits_exactly():
    images = pictures(count=1, size=28).float()
    changed = apply(images, Draw("crop", {"down": torch.tensor([3]), "right": torch.tensor([-4])}))
    assert torch.equal(changed[..., :25, 4:], images[..., 3:, :24])
    assert changed[..., 25:, :].eq(0).all()
    assert changed[..., :4].eq(0).all()


def test_dihedral_is_the_whole_group():
    image = pictures(count=1, size=4)
    turned = apply(image.expand(8, -1, -1, -1), Draw("dihedral", {"element": torch.arange(8)}))
    plane = image[0].numpy().transpose(1, 2, 0)
    group = [np.rot90(side, times).transpose(2, 0, 1) for side in (plane, np.fliplr(plane)) for times in range(4)]
    assert {each.numpy().tobytes() for each in turned} == {np.ascontiguousarray(each).tobytes() for each in group}
    assert torch.equal(turned[0], image[0])


def test_none_changes_nothing():
    images = pictures()
    drawn = draw("none", 6, 9, stream())
    assert drawn == Draw("none", {})
    assert apply(images, drawn) is images


@pytest.mark.parametrize("strategy", ["", "zoom", "flip_zoom", "flip_flip", "none_flip", "dihedral_flip", "dsa_flip"])
def test_unknown_strategies_are_named(strategy):
    with pytest.raises(ConfigError, match="dsa"):
        draw(strategy, 2, 8, stream())
    with pytest.raises(ConfigError, match="dihedral"):
        kinds(strategy)


def test_misfits_are_named():
    images = pictures()
    with pytest.raises(ConfigError, match=r"5.* 6 images"):
        apply(images, draw("flip", 5, 9, stream()))
    with pytest.raises(ConfigError, match="square"):
        apply(images[..., :5], draw("flip", 6, 9, stream()))
    with pytest.raises(ConfigError, match="zoom"):
        apply(images, Draw("zoom", {}))
