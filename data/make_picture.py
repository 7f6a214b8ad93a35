"""Draw the README's picture and the one for previews from the stored records and set: `python data/make_picture.py`."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from hoptm.plots import RECORD, figure, hospital, mosaic, style
from hoptm.records import read_records
from hoptm.synthetic import SyntheticSet, load

HERE = Path(__file__).resolve().parent
SET = "pneumoniamnist-fast-endpoint-ipc10-seed0.safetensors"


def preview(made: SyntheticSet) -> Figure:
    """1200 x 630 pixels for links to the book: the images of a set beside the book's question."""
    drawn = figure(12, 6.3)
    with style():
        images, words = drawn.subplots(1, 2, width_ratios=(3, 4))
        shown = [made.standardisation.invert(made.images[made.labels == label][:10]) for label in range(made.classes)]
        images.imshow(mosaic(torch.cat(shown), 5), interpolation="nearest")
        for axes in (images, words):
            axes.set_axis_off()
        words.text(0.02, 0.72, "Can ten images\nstand for\na hospital?", fontsize=46, weight="bold", va="center", linespacing=1.15)
        words.text(0.02, 0.3, "Medical images, distilled:\na book whose chapters run", fontsize=25, va="center", linespacing=1.3)
        source = made.info["source"]
        words.text(0.02, 0.1, f"distilled from {source['title']} ({source['licence']})", fontsize=15, color=RECORD, va="center")
    return drawn


def main() -> None:
    """Write `book/_static/readme.png` and `book/_static/preview.png`."""
    made, folder = load(HERE / "distilled" / SET), HERE.parent / "book" / "_static"
    hospital(made, {}, read_records(HERE / "records")).savefig(folder / "readme.png", metadata={"Software": None})
    preview(made).savefig(folder / "preview.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
