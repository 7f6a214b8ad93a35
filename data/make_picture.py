"""Draw the picture that opens the book and the README from the stored set and records: `python data/make_picture.py`."""

from pathlib import Path

from hoptm import plots, results
from hoptm.records import read_records
from hoptm.synthetic import SyntheticSet

PLACE = Path(__file__).resolve().parent.parent / "book" / "_static" / "hospital.png"


def main() -> None:
    """Write the picture: ten distilled images of each class beside the stored scores of every arm."""
    made = SyntheticSet.load(results.stored("distilled") / "pneumoniamnist-fast-endpoint-ipc10-seed0.safetensors")
    drawn = plots.hospital(made, {}, read_records(results.stored("records")))
    drawn.savefig(PLACE, dpi=drawn.dpi, bbox_inches="tight", metadata={"Software": None})
    print(PLACE.relative_to(PLACE.parents[2]))


if __name__ == "__main__":
    main()
