"""Figures of data as they are found: how many images of each class, how bright, and how two splits differ."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hoptm.data import Split, Splits
from hoptm.plots import COLOURS, FAINT, INK, WIDTH, Pixels, figure, mosaic, style
from hoptm.scores import Scores

SPLITS = {"train": COLOURS["full"], "validation": COLOURS["random"], "test": COLOURS["endpoint"]}
"""One colour a split, in the order in which a study may look at them."""


def parts(splits: Splits) -> dict[str, Split]:
    """The three splits by the names of `SPLITS`."""
    return dict(zip(SPLITS, (splits.train, splits.val, splits.test), strict=True))


@style()
def class_shares(splits: Splits) -> Figure:
    """The share of each class in each split as bars, the number of images written at each. Takes splits with one class an image."""
    names, kinds = splits.info.class_names, np.arange(splits.classes)
    drawn = figure(WIDTH, 1.0 + 0.72 * splits.classes)
    axes = drawn.subplots()
    for place, (name, split) in enumerate(parts(splits).items()):
        counts = np.bincount(split.labels.numpy(), minlength=splits.classes)
        heights = kinds + (place - 1) * 0.27
        axes.barh(heights, counts / counts.sum(), 0.25, color=SPLITS[name], label=f"{name}, {len(split):,} images")
        for height, count in zip(heights, counts, strict=True):
            axes.text(count / counts.sum() + 0.004, height, f"{count:,}", va="center", fontsize=10)
    axes.set_yticks(kinds, names)
    axes.invert_yaxis()
    axes.set_xlabel("share of the split")
    axes.margins(x=0.12)
    drawn.legend(loc="outside upper left", ncols=1)
    return drawn


@style()
def grey_levels(splits: Splits) -> Figure:
    """How often each level of brightness occurs in each split, a panel a channel, as densities over 0 .. 255 in steps of four."""
    names = ("grey",) if splits.channels == 1 else ("red", "green", "blue")
    drawn = figure(WIDTH, 0.7 + 1.7 * splits.channels)
    panels = drawn.subplots(splits.channels, 1, sharex=True, squeeze=False)[:, 0]
    edges = np.arange(0, 257, 4)
    for channel, axes in enumerate(panels):
        for name, split in parts(splits).items():
            counts, _ = np.histogram(split.images[:, channel].numpy(), edges, density=True)
            axes.step(edges[:-1], counts, where="post", color=SPLITS[name], label=name, linewidth=1.8)
        axes.set_ylabel("density")
        axes.set_yticks([])
        axes.set_title(names[channel])
    panels[-1].set_xlabel("pixel as stored, 0 to 255")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return drawn


@style()
def validation_and_test(found: Sequence[Mapping[str, Scores]], names: Mapping[str, str]) -> Figure:
    """For each network a line from its score on validation to its score on test, a panel a score; `names` says which, in what words."""
    drawn = figure(WIDTH, 3.2)
    panels = drawn.subplots(1, len(names), sharey=True)
    for axes, (score, words) in zip(np.atleast_1d(panels), names.items(), strict=True):
        for network in found:
            ends = [float(getattr(network[split], score)) for split in ("validation", "test")]
            axes.plot((0, 1), ends, color=FAINT, linewidth=1.5)
            for at, (value, split) in enumerate(zip(ends, ("validation", "test"), strict=True)):
                axes.plot(at, value, "o", color=SPLITS[split])
        axes.set_xticks((0, 1), ("validation", "test"))
        axes.set_xlim(-0.4, 1.4)
        axes.set_title(words, color=INK)
        axes.grid(axis="y")
    return drawn


@style()
def rows(pictures: Mapping[str, Pixels]) -> Figure:
    """As many images in each row, each row under its name: what changes from one to the next stands below each other."""
    count = len(next(iter(pictures.values())))
    drawn = figure(WIDTH, len(pictures) * (WIDTH / count + 0.32))
    for axes, (name, images) in zip(np.atleast_1d(drawn.subplots(len(pictures), 1)), pictures.items(), strict=True):
        axes.imshow(mosaic(images, count, gap=1))
        axes.set_title(name, pad=3)
        axes.set_axis_off()
        axes.set_anchor("W")
    return drawn
