"""Draw the README's picture from the stored records and set: `python data/make_picture.py`."""

from pathlib import Path

from hoptm.plots import hospital
from hoptm.records import read_records
from hoptm.synthetic import load

HERE = Path(__file__).resolve().parent
SET = "pneumoniamnist-fast-endpoint-ipc10-seed0.safetensors"


def main() -> None:
    """Write `book/_static/readme.png`."""
    drawn = hospital(load(HERE / "distilled" / SET), {}, read_records(HERE / "records"))
    drawn.savefig(HERE.parent / "book" / "_static" / "readme.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
