"""Figures show what they are given: the artists, words and colours, not the pixels."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hoptm import film_plots, phantom, plots, results
from hoptm.config import configure
from hoptm.data import Standardisation
from hoptm.errors import DataError
from hoptm.outer import Look
from hoptm.records import Record
from hoptm.synthetic import SyntheticSet

NAMES = ["normal", "pneumonia"]
DEVICE = "cpu, x86_64, 1 thread, Linux"


def record(method: str, ipc: int, seed: int, auc: float) -> Record:
    scores = [{"accuracy": 0.5, "balanced_accuracy": 0.5, "auc": auc + shift} for shift in (-0.01, 0.01)]
    config = configure("pneumoniamnist", method="endpoint", ipc=max(ipc, 1), seed=seed).as_dict()
    found = {"scores": scores, "recipe": {"steps": 300}}
    return Record({"name": "pneumoniamnist", "checksum": ""}, method, ipc, seed, config, found, 1.0, 1, "0123456789ab", {}, DEVICE)


@pytest.fixture
def records() -> list[Record]:
    """End point beats random by 0.20 and by 0.00 at one and ten images a class; the second is no gain."""
    arms = {("endpoint", 1): 0.8, ("random", 1): 0.6, ("endpoint", 10): 0.9, ("random", 10): 0.9, ("full", 0): 0.95}
    spread = {"endpoint": (0.0, 0.02, 0.04), "random": (0.01, 0.03, 0.02), "full": (0.0, 0.01, 0.02)}
    return [record(method, ipc, seed, auc + spread[method][seed]) for (method, ipc), auc in arms.items() for seed in range(3)]


def made(ipc: int = 2, profile: str = "fast") -> SyntheticSet:
    info: dict[str, Any] = {
        "source": {"name": "pneumoniamnist"}, "class_names": NAMES, "augmentations": ["none"], "config": {"profile": profile}, "versions": {},
        "selection": [], "method": "endpoint", "ipc": ipc, "seed": 0,
    }  # fmt: skip
    images = torch.rand(2 * ipc, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return SyntheticSet(images, torch.arange(2).repeat_interleave(ipc), 0.01, Standardisation((0.5,), (0.25,)), info)


def words(drawn: Figure) -> list[str]:
    """All text of a figure that is seen."""
    drawn.canvas.draw()
    return [text.get_text() for text in drawn.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible() and text.get_text()]


def dots(axes: Any, marker: str, colour: str) -> list[list[float]]:
    """Abscissae of the lines with this marker and colour."""
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == marker and line.get_color() == colour]


def test_figure_has_the_look_and_no_window() -> None:
    import matplotlib.pyplot as plt

    drawn = plots.figure(4.0, 2.0)
    assert tuple(drawn.get_size_inches()) == (4, 2) and drawn.dpi == plots.STYLE["figure.dpi"]
    assert drawn.get_facecolor() == (1, 1, 1, 1)
    assert not plt.get_fignums()
    with plots.style():
        assert drawn.subplots().xaxis.label.get_size() == plots.STYLE["axes.labelsize"]
    assert plt.rcParams["figure.dpi"] != plots.STYLE["figure.dpi"], "the look leaked out"


def test_letters_can_be_read() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for name in (*results.NAMES, "student", "expert"):
        assert 1.05 / (luminance(plots.COLOURS[name]) + 0.05) >= 4.2, f"{name} is too pale for letters on white"
    arms = [plots.COLOURS[name] for name in results.NAMES]
    assert len(set(arms)) == len(arms) and plots.RECORD not in arms
    phone = 350 / (plots.WIDTH * 72)
    assert all(plots.STYLE[key] * phone >= 9 for key in ("font.size", "xtick.labelsize", "ytick.labelsize", "axes.labelsize"))


def test_mosaic_places_each_image() -> None:
    pixels = torch.arange(3, dtype=torch.float32).view(3, 1, 1, 1).expand(3, 1, 4, 4) / 4
    picture = plots.mosaic(pixels, columns=2, gap=1)
    assert picture.shape == (9, 9, 3)
    assert (picture[:4, :4] == 0).all() and (picture[:4, 5:] == 64).all() and (picture[5:, :4] == 128).all()
    assert (picture[4] == 255).all() and (picture[5:, 5:] == 255).all()
    colour = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert (plots.mosaic(colour, columns=5) == [10, 20, 30]).all()


def test_gallery_sorts_by_class() -> None:
    labels = torch.tensor([1, 0, 1, 1])
    pixels = labels.to(torch.uint8).view(4, 1, 1, 1).expand(4, 1, 6, 6) * 200
    drawn = plots.gallery(pixels, labels, ["normal", "nobody", "pneumonia"][::2], columns=2)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == NAMES
    first, second = (np.asarray(axes.images[0].get_array()) for axes in drawn.axes)
    assert first.shape[:2] == (6, 6) and second.shape[:2] == (14, 14)
    assert (first == 0).all() and (second[:6, :6] == 200).all()


def test_gallery_puts_small_classes_side_by_side() -> None:
    drawn = plots.gallery(torch.zeros(4, 3, 4, 4), torch.tensor([2, 2, 0, 3]), ["a", "b", "c", "d"], columns=3)
    assert [axes.get_title(loc="left") for axes in drawn.axes if axes.images] == ["a", "c", "d"]
    drawn.canvas.draw()
    first, second, third = (axes.get_position() for axes in drawn.axes if axes.images)
    assert first.x1 < second.x0 and third.y1 < first.y0


@pytest.mark.parametrize("names", [phantom.CLASSES, ("basophil", "immature granulocyte", "monocyte", "erythroblast")])
def test_gallery_keeps_long_names_apart(names: tuple[str, ...]) -> None:
    drawn = plots.gallery(torch.zeros(len(names), 3, 4, 4), torch.arange(len(names)), names)
    drawn.canvas.draw()
    titles = [text.get_window_extent() for text in drawn.findobj(Text) if text.get_text() in names]
    assert len(titles) == len(names) and not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))


def test_hospital_shows_records_in_grey_and_this_run_in_colour(records: list[Record]) -> None:
    drawn = plots.hospital(made(ipc=10), {"endpoint": 0.91, "random": 0.87}, records)
    *grids, axes = drawn.axes if not drawn.subfigs else [axes for part in drawn.subfigs for axes in part.axes]
    assert len(grids) == 2 and all(grid.images for grid in grids)
    grey = dots(axes, "o", plots.RECORD)
    seeds = sorted(tuple(np.round(line, 3)) for line in grey if len(line) == 3)
    assert seeds == sorted([(0.95, 0.96, 0.97), (0.9, 0.92, 0.94), (0.91, 0.93, 0.92), (0.8, 0.82, 0.84), (0.61, 0.63, 0.62)])
    assert sorted(round(line[0], 3) for line in grey if len(line) == 1) == [0.62, 0.82, 0.92, 0.92, 0.96]
    assert dots(axes, "D", plots.COLOURS["endpoint"]) == [[0.91]] and dots(axes, "D", plots.COLOURS["random"]) == [[0.87]]
    said = words(drawn)
    assert said.count(results.NAMES["endpoint"]) == 2 and said.count(results.NAMES["full"]) == 1
    assert {"10 images a class", "1 image a class", "test AUC", *NAMES} <= set(said)
    assert any(DEVICE in text and "0123456789ab" in text for text in said)


def test_hospital_rows_name_their_own_dots(records: list[Record]) -> None:
    """The name of an arm stands over the dots of that arm, in that arm's colour."""
    drawn = plots.hospital(made(ipc=10), {"endpoint": 0.91}, [one for one in records if one.ipc != 1])
    axes = [axes for part in drawn.subfigs for axes in part.axes][-1]
    height = {text.get_text(): text.get_position()[1] for text in axes.texts}
    dot = {round(float(np.mean(line.get_xdata())), 3): line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 3}
    assert 0 < height[results.NAMES["full"]] - dot[0.96] < 0.5
    assert height[results.NAMES["full"]] > height["10 images a class"] > height[results.NAMES["endpoint"]] > height[results.NAMES["random"]]
    assert {text.get_text(): text.get_color() for text in axes.texts}[results.NAMES["full"]] == plots.COLOURS["full"]


@pytest.mark.parametrize(("ipc", "profile"), [(10, "smoke"), (3, "smoke")])
def test_hospital_without_records_says_so(records: list[Record], ipc: int, profile: str) -> None:
    drawn = plots.hospital(made(ipc, profile), {"endpoint": 0.7, "random": 0.6}, records)
    axes = [axes for part in drawn.subfigs for axes in part.axes][-1]
    assert not dots(axes, "o", plots.RECORD)
    assert len(dots(axes, "D", plots.COLOURS["endpoint"])) == 1
    assert any("no stored records" in text for text in words(drawn))


def test_hospital_gives_many_classes_a_row_each() -> None:
    names = [f"tissue {number}" for number in range(6)]
    few = made(ipc=3, profile="smoke")
    many = SyntheticSet(few.images, torch.arange(6), 0.01, few.standardisation, few.info | {"class_names": names})
    axes = plots.hospital(many, {"endpoint": 0.7}, []).subfigs[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert np.asarray(axes.images[0].get_array()).shape[0] == 6 * 8 + 5 * 2


def test_gains_are_hollow_where_zero_is_inside(records: list[Record]) -> None:
    drawn = plots.gains(records, dataset="pneumoniamnist", ipcs=(1, 10), pairs=[("endpoint", "random")])
    (axes,) = drawn.axes
    means = [(round(float(line.get_xdata()[0]), 3), line.get_markerfacecolor()) for line in axes.lines if line.get_marker() == "o"]
    assert means == [(0.2, plots.RECORD), (0.0, "white")]
    expected = results.gain(records, "auc", dataset="pneumoniamnist", first="endpoint", second="random", ipc=1)
    assert [expected.low, expected.high] in [list(line.get_xdata()) for line in axes.lines]
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines), "no line at zero"
    assert any("gain in test AUC" in text for text in words(drawn))
    with pytest.raises(DataError, match="share 0 seeds"):
        plots.gains(records, dataset="pneumoniamnist", ipcs=(10,), pairs=[("endpoint", "start")])


def history(count: int = 20) -> list[Look]:
    return [Look(at, 0, 1.0 - 0.03 * at, {"end_point": 1.0 - 0.03 * at}, 1.0, 0.02 - 0.0005 * at) for at in range(count)]


def snapshots(*done: int, images: int = 2) -> list[tuple[int, torch.Tensor]]:
    return [(at, torch.full((images, 1, 6, 6), at / 20)) for at in done]


def test_film_strip_stands_over_its_own_iterations() -> None:
    drawn = film_plots.film_strip(snapshots(0, 4, 20), history(), names=NAMES)
    film, axes = drawn.axes
    assert len(film.images) == 6
    middles = [(image.get_extent()[0] + image.get_extent()[1]) / 2 for image in film.images]
    assert middles == pytest.approx([0, 0, 1, 1, 2, 2])
    assert [int(np.asarray(image.get_array()).flat[0]) for image in film.images] == [0, 0, 51, 51, 255, 255]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "4", "20"] and list(axes.get_xticks()) == [0, 1, 2]
    scattered = next(line for line in axes.lines if line.get_marker() == "o")
    assert list(scattered.get_ydata()) == [look.total for look in history()]
    assert scattered.get_xdata()[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1]) and scattered.get_xdata()[12] == pytest.approx(1.5)
    assert film.get_xlim() == axes.get_xlim() and [text.get_text() for text in film.texts] == NAMES
    left, right = film.get_position(), axes.get_position()
    assert (left.x0, left.x1) == pytest.approx((right.x0, right.x1)), "film and curve do not share their axis"


@pytest.mark.parametrize("done", [(0,), (0, 0), (4, 2)])
def test_film_strip_needs_ascending_snapshots(done: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="two snapshots or more"):
        film_plots.film_strip(snapshots(*done), history())


def test_dense_early_keeps_both_ends() -> None:
    every = snapshots(*range(101))
    assert [done for done, _ in film_plots.dense_early(every, 6)] == [0, 4, 16, 36, 64, 100]
    assert [done for done, _ in film_plots.dense_early(every[:3], 6)] == [0, 1, 2]


def test_forming_is_an_animation_of_the_snapshots() -> None:
    kept = film_plots.forming(snapshots(0, 5, 10, images=3), columns=3, scale=2)
    animation = Image.open(io.BytesIO(kept))
    assert kept[:6] == b"GIF89a" and animation.n_frames == 3 and animation.size == ((3 * 6 + 2 * 2) * 2, (6 + 3) * 2)
    shades, bars = [], []
    for frame in range(3):
        animation.seek(frame)
        shown = np.asarray(animation.convert("RGB")).astype(int)
        shades.append(shown[2, 2].mean())
        bars.append(int((shown[-1, :, 0] < 128).sum()))
    assert shades[0] < shades[-1] and bars == [0, 22, 44]


def test_progress_rings_the_look_that_was_kept() -> None:
    looks = [{"iteration": at, "auc": auc, "accuracy": 0.5} for at, auc in ((5, 0.7), (10, 0.9), (15, 0.9), (20, 0.8))]
    above, below = film_plots.progress(history(), looks).axes
    assert list(above.lines[0].get_ydata()) == [look.lr for look in history()]
    ring = next(line for line in below.lines if line.get_color() == "none")
    assert ([float(value) for value in ring.get_xdata()], [float(value) for value in ring.get_ydata()]) == ([10], [0.9])
    assert below.get_ylabel() == "validation AUC"


def test_approach_draws_each_walk_and_its_mean() -> None:
    curves = {"start": torch.tensor([[1.0, 0.9], [1.0, 0.7]]), "endpoint": torch.tensor([[1.0, 0.5], [1.0, 0.3]])}
    (axes,) = film_plots.approach(curves).axes
    thick = {line.get_color(): float(line.get_ydata()[-1]) for line in axes.lines if line.get_linewidth() > 2}
    assert thick[plots.COLOURS["start"]] == pytest.approx(0.8) and thick[plots.COLOURS["endpoint"]] == pytest.approx(0.4)
    assert sum(line.get_linewidth() < 0.9 for line in axes.lines) == 4
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == {results.NAMES["start"], results.NAMES["endpoint"]}
    assert labels[results.NAMES["endpoint"]].get_color() == plots.COLOURS["endpoint"]
