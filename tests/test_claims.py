"""The list of claims: whole, unique, and true of whatever records there are."""

import dataclasses

from known_findings import arm

from hoptm.claims import FAMILIES, HEADLINE, TENTH, extended, headline, of_set, paper
from hoptm.comparisons import Gain, Nothing, Reach
from hoptm.records import Record
from hoptm.transcribed import transcribed
from hoptm.verdicts import NO_DIFFERENCE, NOT_REPRODUCED, REPRODUCED, UNTESTED, Evidence, judge, table

ALL = [claim for make in FAMILIES.values() for claim in make()]


def test_without_evidence_nothing_is_claimed() -> None:
    assert {finding.verdict for finding in judge(ALL, Evidence())} == {UNTESTED}


def test_no_claim_stands_twice_and_each_says_whose_it_is() -> None:
    keys = [(claim.words, claim.where, claim.source) for claim in ALL]
    assert len(set(keys)) == len(keys)
    assert {claim.whose for claim in ALL} == {"paper", "project"} and all(claim.words and claim.source for claim in ALL)


def test_the_papers_own_claims_rest_on_its_data_and_settings_alone() -> None:
    """Records of every other data set and profile leave them untested."""
    parts = ("published", "endpoint", "shape", "progressive")
    records = [
        record for dataset in ("pneumoniamnist", "pbc-28", "phantom", "cxr-open", "pathmnist-small") for method in parts
        for record in arm(method, [0.9, 0.91, 0.92], dataset=dataset, ipc=10, profile="paper")
    ] + arm("published", [0.9, 0.91, 0.92], dataset="pathmnist", ipc=10, profile="fast")  # fmt: skip
    assert {finding.verdict for finding in judge(paper(), Evidence(records))} == {UNTESTED}
    real = arm("published", [0.9, 0.91, 0.92], dataset="pathmnist", ipc=10, profile="paper")
    words = {finding.claim.where: finding.verdict for finding in judge(paper(), Evidence(real))}
    assert words["IPC 10, printed 77.23 (sd 0.65)"] == REPRODUCED and list(words.values()).count(UNTESTED) == len(words) - 1


def test_tables_become_claims_number_by_number() -> None:
    tables = transcribed()["tables"]
    reached = [part for claim in paper() for part in claim.comparisons if isinstance(part, Reach)]
    printed = [(one["dataset"], int(ipc), *cell) for one in tables.values() for ipc, cell in one["rows"]["HoP-TM"].items()]
    assert [(part.dataset, part.ipc, part.mean, part.deviation) for part in reached] == printed and len(printed) == 9
    above = {claim.where.split(",")[0]: claim for claim in paper() if "above other methods" in claim.words}
    assert set(above) == {"DM", "IDM", "MTT", "FTD", "DATM", "ATT"}
    assert above["IDM"].where == "IDM, IPC 5, 10, 100, 1000", "at one image a class the table has IDM above: no claim"
    assert [part.ipc for part in above["MTT"].comparisons if isinstance(part, Gain)] == [1, 5, 10, 100, 1000]
    assert isinstance(above["IDM"].comparisons[0], Nothing)
    assert "transcribed" in transcribed()["how"]


def test_the_headline_is_the_bound_and_random_together() -> None:
    def made(method: str, points: float) -> list[Record]:
        return [record for name, ipc in TENTH for record in arm(method, [value - points / 100 for value in (0.9, 0.91, 0.92)], dataset=name, ipc=ipc)]

    full = [record for name, _ in TENTH for record in arm("full", [0.9, 0.91, 0.92], dataset=name, ipc=0)]

    def word(distilled: float, random: float) -> str:
        finding, yardstick = judge(headline(), Evidence([*full, *made("extended", distilled), *made("random", random)]))
        assert (yardstick.verdict == REPRODUCED) == (random < HEADLINE), "what random images miss is shown beside it"
        return finding.verdict

    assert word(HEADLINE - 0.1, 3) == REPRODUCED
    assert word(HEADLINE + 0.1, 3) == NOT_REPRODUCED
    assert word(HEADLINE - 0.1, HEADLINE - 0.3) == NOT_REPRODUCED, "within the bound, but random images are nearer"
    assert word(-1, -2) == NO_DIFFERENCE, "both count as 0: no less than random"


def test_the_joint_aim_asks_for_five_seeds_everywhere() -> None:
    def records(count: int) -> list[Record]:
        ladder = {"extended": 0.9, "endpoint": 0.8, "random": 0.7}
        return [
            record for method, value in ladder.items() for dataset, _ in TENTH for ipc in (1, 10)
            for record in arm(method, [value + 0.001 * seed for seed in range(count)], dataset=dataset, ipc=ipc)
        ]  # fmt: skip

    joint = extended()[-1]
    assert len(joint.comparisons) == 16
    assert judge([joint], Evidence(records(5)))[0].verdict == REPRODUCED
    assert judge([joint], Evidence(records(4)))[0].verdict == UNTESTED
    assert judge([joint], Evidence([one for one in records(5) if one.ipc != 1]))[0].verdict == UNTESTED


def test_a_finding_names_pairs_on_two_devices_and_seeds_that_diverged() -> None:
    records = arm("shape", [0.8, 0.81, 0.82], dataset="pbc-28", ipc=10) + arm("endpoint", [0.7, 0.7, 0.7], dataset="pbc-28", ipc=10)
    moved = [dataclasses.replace(record, device="cuda, NVIDIA") if (record.method, record.seed) == ("shape", 1) else record for record in records]
    claim = next(claim for claim in FAMILIES["the paper's parts, our data"]() if claim.where == "PBC-28, IPC 10, tuned")
    told = [
        table(judge([claim], Evidence(made, diverged=diverged))).splitlines()[1]
        for made, diverged in (
            (records, ()),
            (moved, ("pbc-28-tuned-shape-ipc10-seed4", "pbc-28-tuned-endpoint-ipc10-seed3", "pbc-28-tuned-endpoint-ipc1-seed5")),
            ([], ("pbc-28-tuned-shape-ipc10-seed0",)),
        )
    ]
    assert "device" not in told[0] and "diverged" not in told[0]
    assert told[1].endswith("; seed 1 on two devices; seed 4 of end point + shape diverged; seed 3 of end point diverged")
    assert told[2].endswith("; seed 0 of end point + shape diverged") and "untested" in told[2]


def test_a_readers_own_set_gets_the_plain_questions() -> None:
    records = arm("endpoint", [0.8, 0.81, 0.82], dataset="mine", ipc=1, profile="colab") + arm(
        "random", [0.7, 0.7, 0.7], dataset="mine", ipc=1, profile="colab"
    )
    words = [finding.verdict for finding in judge(of_set("mine", "colab"), Evidence(records))]
    assert words == [REPRODUCED, *[UNTESTED] * 5]
