"""Search settings on validation: `python data/make_search.py --dataset pbc-28 --methods endpoint published extended`.

Journals of all trials are kept in `data/search`; the best of each method goes into `hoptm/PROFILE.json`, which the profile `tuned` or `large` reads.
A stopped search goes on where it was. Seeds of searches start at 100; the test split is put away before a search begins.
"""

import argparse
import json
from pathlib import Path

import torch
from filelock import FileLock

from hoptm.config import configure
from hoptm.cost import estimate, in_words, is_known_here
from hoptm.data import Selectable, load, single_label
from hoptm.files import write_text
from hoptm.profiles import SEARCHED
from hoptm.search import SEED, SPACES, search, trials_in

HERE = Path(__file__).resolve().parent
IPC = 10
"""Images a class at which the profile `tuned` is searched."""


def say_cost(chosen: argparse.Namespace, splits: Selectable) -> None:
    """What the trials that are still to run cost with the profile's own settings; a trial may choose longer paths."""
    for method in chosen.methods:
        journal = HERE / "search" / f"{chosen.dataset}-{method}-ipc{chosen.ipc}.journal"
        left = max(0, chosen.trials - (trials_in(journal)[0] if journal.exists() else 0))
        one = estimate(configure(chosen.dataset, method=method, ipc=chosen.ipc, seed=SEED, profile=chosen.profile), splits)
        print(f"{method}: about {in_words(left * one.seconds)} on one core for {left} trials of {in_words(one.seconds)}", flush=True)


def main() -> None:
    """Search each method in turn, the same number of trials for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--methods", nargs="*", choices=SPACES, default=list(SPACES))
    parser.add_argument("--ipc", type=int, default=IPC)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seconds", type=float, help="for each method: no new trial after so long")
    parser.add_argument("--profile", choices=SEARCHED, default="tuned")
    chosen = parser.parse_args()
    if chosen.profile == "tuned" and chosen.ipc != IPC:
        parser.error(f"settings of the profile tuned serve every budget and were searched at {IPC} images a class; {chosen.ipc} would replace them.")
    if chosen.profile != "tuned" and chosen.ipc == IPC:
        parser.error(f"the journals at {IPC} images a class are those of the profile tuned; {chosen.profile} is searched at another budget (--ipc).")
    torch.set_num_threads(1)
    splits = single_label(load(chosen.dataset)).without_test
    (HERE / "search").mkdir(exist_ok=True)
    best = HERE.parent / "hoptm" / f"{chosen.profile}.json"
    if is_known_here():
        say_cost(chosen, splits)
    for method in chosen.methods:
        journal = HERE / "search" / f"{chosen.dataset}-{method}-ipc{chosen.ipc}.journal"
        found = search(chosen.dataset, method, chosen.ipc, splits, journal, trials=chosen.trials, profile=chosen.profile, seconds=chosen.seconds)
        print(json.dumps(found), flush=True)
        with FileLock(best.with_suffix(".lock")):
            table = json.loads(best.read_text(encoding="utf-8"))
            table.setdefault(chosen.dataset, {"common": {}})[method] = found["changes"]
            write_text(best, json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
