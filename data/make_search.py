"""Search settings on validation: `python data/make_search.py --dataset pbc-28 --methods endpoint published extended`.

Journals of all trials are kept in `data/search`; the best of each method goes into `hoptm/tuned.json`, which the profile `tuned` reads.
A stopped search goes on where it was. Seeds of searches start at 100; the test split is not read.
"""

import argparse
import json
from pathlib import Path

import torch

from hoptm.data import load, single_label
from hoptm.search import SPACES, search

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "hoptm" / "tuned.json"


def main() -> None:
    """Search each method in turn, the same number of trials for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--methods", nargs="*", choices=SPACES, default=list(SPACES))
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    splits = single_label(load(chosen.dataset))
    (HERE / "search").mkdir(exist_ok=True)
    for method in chosen.methods:
        journal = HERE / "search" / f"{chosen.dataset}-{method}-ipc{chosen.ipc}.journal"
        found = search(chosen.dataset, method, chosen.ipc, splits, journal, trials=chosen.trials)
        print(json.dumps(found), flush=True)
        table = json.loads(TABLE.read_text(encoding="utf-8"))
        table.setdefault(chosen.dataset, {"common": {}})[method] = found["changes"]
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
