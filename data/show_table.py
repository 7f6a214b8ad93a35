"""Print the evaluation table from the stored records, and the commands for what is missing: `python data/show_table.py --score auc`."""

import argparse
import json

from hoptm.arms import ARMS
from hoptm.records import read_diverged, read_records
from hoptm.results import stored
from hoptm.search import hours_in
from hoptm.tables import DATASETS, SMALL_DATASETS, commands, evaluation_table, hours, hours_of_grids, hours_of_table


def main() -> None:
    """Read the records and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score", default="auc", choices=("accuracy", "balanced_accuracy", "auc", "worst_recall", "ece"))
    parser.add_argument("--profile", default="tuned")
    parser.add_argument("--hours", action="store_true", help="only how long the runs on record took")
    chosen = parser.parse_args()
    records, diverged = read_records(stored("records")), read_diverged(stored("records"))
    if chosen.hours:
        journals = sorted(stored("search").rglob("*-ipc10.journal"))  # those that were searched again count, too
        print(hours(records, profile=chosen.profile), end="\n\n")
        price = json.loads((stored("bench") / "price_of_grids.json").read_text(encoding="utf-8")) if chosen.profile == "tuned" else {}
        again = sum(hours_in(journal) for journal in journals if journal.parent.name == "earlier")
        known = {"replaced": again, "priced": price.get("hours", {}), "estimated": price.get("estimated")}
        print(hours_of_grids(records, sum(map(hours_in, journals)), **known, profile=chosen.profile))
        print(hours_of_table(records, profile=chosen.profile))
        return
    for dataset in (*DATASETS, *SMALL_DATASETS):
        print(evaluation_table(records, dataset=dataset, score=chosen.score, profile=chosen.profile, diverged=diverged), end="\n\n")
    print("\n".join(commands(records, ARMS, profile=chosen.profile, diverged=diverged)))


if __name__ == "__main__":
    main()
