"""Records, and the numbers that pages state from them."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
from scipy import stats

from hoptm import records as module
from hoptm.config import configure, from_dict
from hoptm.errors import DataError, FileError
from hoptm.intervals import RING_WORDS
from hoptm.records import Record, commit, peak_bytes, read_diverged, read_records, versions, write_diverged, write_record
from hoptm.results import (
    WHOLE,
    arm,
    arms_table,
    by_seed,
    difference,
    gain,
    gains_by_seed,
    gains_table,
    gaps_by_seed,
    gaps_table,
    on_two_devices,
    places_table,
    recalls,
    select,
    shift,
    shift_by_seed,
    stored,
    tried,
)  # fmt: skip
from hoptm.runs import shaping


def _record(method, seed, values, ipc=1, dataset="pneumoniamnist"):
    scores = [{"accuracy": value, "balanced_accuracy": value - 0.01, "auc": value + 0.02, "recall": [value, value]} for value in values]
    config = configure(dataset, method="endpoint", ipc=1, seed=seed, profile="fast").as_dict()
    return Record({"name": dataset, "checksum": "md5:0"}, method, ipc, seed, config, {"scores": scores, "recipe": {"steps": 1}}, 1.0, 1, "abc", {}, "cpu")


RECORDS = [_record("endpoint", seed, [0.8 + 0.01 * seed, 0.82 + 0.01 * seed]) for seed in range(4)] + [
    _record("random", seed, [value]) for seed, value in enumerate([0.60, 0.75, 0.70, 0.65])
]


def test_there_and_back(tmp_path):
    path = write_record(tmp_path, RECORDS[0])
    assert path.name == "pneumoniamnist-fast-endpoint-ipc1-seed0.json"
    write_record(tmp_path, RECORDS[5])
    assert read_records(tmp_path) == [RECORDS[0], RECORDS[5]]
    assert sorted(os.listdir(tmp_path)) == [path.name, "pneumoniamnist-fast-random-ipc1-seed1.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"method": "endpoint"}', "null"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(FileError, match=r"broken\.json"):
        read_records(tmp_path)


def test_one_value_a_seed_is_the_mean_over_networks():
    found = by_seed(select(RECORDS, dataset="pneumoniamnist", method="endpoint", ipc=1), "accuracy")
    assert found == pytest.approx({0: 0.81, 1: 0.82, 2: 0.83, 3: 0.84})
    assert select(RECORDS, dataset="pneumoniamnist", method="endpoint", ipc=10) == []
    assert select(RECORDS, dataset="phantom", method="endpoint", ipc=1) == []


def test_intervals_are_students_t_over_seeds():
    found = arm(RECORDS, "accuracy", dataset="pneumoniamnist", method="random", ipc=1)
    wanted = stats.t.interval(0.95, 3, loc=0.675, scale=stats.sem([0.60, 0.75, 0.70, 0.65]))
    assert (found.low, found.high) == pytest.approx(wanted) and (found.n, found.df) == (4, 3)


def test_a_gain_is_paired_by_seed_and_not_by_place():
    shuffled = [RECORDS[index] for index in (3, 0, 7, 4, 1, 6, 2, 5)]
    found = gain(shuffled, "auc", dataset="pneumoniamnist", first="endpoint", second="random", ipc=1)
    differences = [0.81 - 0.60, 0.82 - 0.75, 0.83 - 0.70, 0.84 - 0.65]
    wanted = stats.t.interval(0.95, 3, loc=sum(differences) / 4, scale=stats.sem(differences))
    assert (found.low, found.high) == pytest.approx(wanted)


def test_seeds_that_only_one_arm_has_are_left_out():
    found = gain(RECORDS[:7], "auc", dataset="pneumoniamnist", first="endpoint", second="random", ipc=1)
    assert found.n == 3
    with pytest.raises(DataError, match="share 1 seeds"):
        gain(RECORDS[:5], "auc", dataset="pneumoniamnist", first="endpoint", second="random", ipc=1)
    with pytest.raises(DataError, match="1 seeds on record"):
        arm(RECORDS[:5], "auc", dataset="pneumoniamnist", method="random", ipc=1)


def test_tables_hold_the_numbers():
    arms = arms_table(RECORDS, dataset="pneumoniamnist", ipcs=[1, 10])
    assert "end point" in arms and " 0.825 [" in arms and "10" not in arms.split("\n", 1)[1].split()
    gains = gains_table(RECORDS, dataset="pneumoniamnist", ipcs=[1], pairs=[("endpoint", "random")])
    assert "+0.150 [" in gains and "end point against fresh random real images" in gains


def _with_tried(seed, chosen, other, value):
    plain = {"accuracy": 0.5, "balanced_accuracy": 0.5, "recall": [0.2, 0.4]}
    recipes = [{"optimiser": "sgd", "lr": 0.01, "augmentation": name, "steps": 5} for name in ("dsa", "none")]
    scores = {"recipe": recipes[0], "scores": [{**plain, "auc": value}, {**plain, "auc": value, "recall": [0.4, 0.8]}]}
    scores["tried"] = [{"recipe": recipes[0], "scores": {**plain, "auc": chosen}}, {"recipe": recipes[1], "scores": other and {**plain, "auc": other}}]
    return dataclasses.replace(_record("endpoint", seed, [value]), scores=scores)


def test_what_is_lost_on_the_way_to_test():
    kept = [_with_tried(0, 0.95, 0.9, 0.9), _with_tried(1, 0.97, None, 0.9)]
    found = shift(kept, "auc", dataset="pneumoniamnist", method="endpoint", ipc=1)
    assert found.mean == pytest.approx(-0.06) and found.n == 2
    assert tried(kept, "auc") == {("sgd", 0.01, "dsa"): {0: 0.95, 1: 0.97}, ("sgd", 0.01, "none"): {0: 0.9}}
    with pytest.raises(DataError, match="1 seeds on record"):
        shift(kept[:1], "auc", dataset="pneumoniamnist", method="endpoint", ipc=1)


def test_what_is_lost_is_read_from_the_same_networks_where_all_records_have_them():
    kept = [_with_tried(seed, 0.95, 0.9, 0.9) for seed in (0, 1)]
    own = [dataclasses.replace(one, scores={**one.scores, "validation": [{"auc": 0.91}, {"auc": 0.93}]}) for one in kept]
    assert shift_by_seed(own, "auc") == pytest.approx({0: -0.02, 1: -0.02})
    assert shift_by_seed([own[0], kept[1]], "auc") == pytest.approx({0: -0.05, 1: -0.05}), "never some by one measure and some by the other"
    given = dataclasses.replace(own[0], scores={**own[0].scores, "tried": []})
    assert shift_by_seed([given], "auc") == pytest.approx({0: -0.02}), "a recipe of another seed needs no search of its own"
    assert shift_by_seed([], "auc") == {}
    lacking = [dataclasses.replace(one, scores={**one.scores, "validation": [{"accuracy": 0.9}]}) for one in own]
    with pytest.raises(DataError, match="holds no auc on validation"):
        shift_by_seed(lacking, "auc")


def test_recall_of_each_class_is_the_mean_over_networks():
    assert recalls([_with_tried(3, 0.9, 0.9, 0.9)])[3] == pytest.approx([0.3, 0.6])


def test_a_folder_that_is_missing_names_what_makes_it(tmp_path, monkeypatch):
    results = sys.modules[stored.__module__]
    monkeypatch.setattr(results, "__file__", str(tmp_path / "hoptm" / "results.py"))
    with pytest.raises(DataError, match=r"no stored transfer.*Install hoptm again"):
        stored("transfer")  # as in an installed package
    (tmp_path / "pyproject.toml").touch()
    for kind, maker in results.MAKERS.items():
        with pytest.raises(DataError, match=f"no folder data/{kind}. Make it with `{maker}`"):
            stored(kind)
        script = next((part for part in maker.split() if part.startswith("data/") and part.endswith(".py")), "pyproject.toml")
        assert (Path(__file__).resolve().parent.parent / script).is_file()
    (tmp_path / "data" / "transfer").mkdir(parents=True)
    assert stored("transfer") == tmp_path / "data" / "transfer"


def test_the_stored_records_are_whole():
    """Each record that ships: its own configuration, a checksum, a commit without changes, as many networks as it asked for."""
    records = read_records(stored("records"))
    assert len(records) > 0
    for record in records:
        config = configure(**{name: record.config[name] for name in ("dataset", "method", "ipc", "seed", "profile")})
        kept, config = (shaping(one, record.method) for one in (from_dict(record.config), config))
        assert (kept.evaluation, kept.experts, kept.match) == (config.evaluation, config.experts, config.match), record.name
        assert record.dataset["checksum"].partition(":")[0] in ("md5", "sha256")
        assert not record.commit.endswith("+") and "unknown" not in record.commit, record.name
        assert len(record.scores["scores"]) == record.config["evaluation"]["networks"]
        chosen_elsewhere = record.method in WHOLE and record.seed != record.extra["recipe_of_seed"]
        assert len(record.scores["tried"]) >= 2 or chosen_elsewhere
        assert record.seconds > 0 and record.peak_bytes > 0
        assert "/" not in json.dumps(dataclasses.asdict(record)["config"])


def test_what_a_record_says_of_the_machine(monkeypatch):
    assert set(versions()) >= {"python", "hoptm", "torch", "numpy", "scikit-learn"}
    assert peak_bytes() > 50_000_000
    assert len(commit().rstrip("+")) == 12

    def refuse(*_words):
        raise OSError("no git")

    monkeypatch.setattr(module, "_git", refuse)
    assert commit().startswith("unknown")


@pytest.mark.parametrize(("values", "words"), [([0.6, 0.71, 0.8], "helps"), ([0.4, 0.51, 0.6], "hurts"), ([0.6, 0.5, 0.7], "no difference shown")])
def test_a_difference_in_words(values, words):
    base = [_record("random", seed, [value]) for seed, value in enumerate([0.5, 0.6, 0.7])]
    other = [_record("velocity", seed, [value]) for seed, value in enumerate(values)]
    asked = {"dataset": "pneumoniamnist", "first": "velocity", "second": "random", "ipc": 1}
    assert difference(base + other, "auc", **asked) == words
    assert difference(base[:2] + other, "auc", **asked) == difference(base, "auc", **asked) == "not on record"


def test_a_run_that_diverged_is_written_down_beside_the_records(tmp_path):
    write_diverged(tmp_path, "a-run", {"seed": 3}, "it left the finite numbers")
    write_record(tmp_path, RECORDS[0])
    assert read_diverged(tmp_path) == {"a-run": "it left the finite numbers"} and len(read_records(tmp_path)) == 1
    (tmp_path / "b.diverged").write_text("{}")
    with pytest.raises(FileError, match=r"b\.diverged"):
        read_diverged(tmp_path)


def test_a_copy_of_the_source_says_which_commit_it_is(monkeypatch):
    monkeypatch.setenv("HOPTM_COMMIT", "0123456789ab")
    assert commit() == "0123456789ab"


def test_what_diverged_has_no_record():
    folder = stored("records")
    assert not {record.name for record in read_records(folder)} & read_diverged(folder).keys()


def test_differences_and_gaps_go_by_seed_and_by_what_was_judged():
    whole = [_record("full", seed, [0.9 + 0.01 * seed], ipc=0) for seed in range(1, 3)]
    setting = {"dataset": "pneumoniamnist", "ipc": 1}
    assert gains_by_seed(RECORDS, "accuracy", first="endpoint", second="random", **setting) == pytest.approx({0: 0.21, 1: 0.07, 2: 0.13, 3: 0.19})
    assert gains_by_seed(RECORDS, "accuracy", first="endpoint", second="published", **setting) == {}
    assert gaps_by_seed([*RECORDS, *whole], "accuracy", method="endpoint", **setting) == pytest.approx({1: 0.91 - 0.82, 2: 0.92 - 0.83})
    assert gaps_by_seed(RECORDS, "accuracy", method="endpoint", **setting) == {} == gaps_by_seed(whole, "accuracy", method="endpoint", **setting)
    elsewhere = [dataclasses.replace(one, config={**one.config, "profile": "tuned"}) for one in whole]
    assert gaps_by_seed([*RECORDS, *elsewhere], "accuracy", method="endpoint", **setting) == pytest.approx({1: 0.09, 2: 0.09})
    longer = [dataclasses.replace(one, scores=_record("full", one.seed, [0.99], ipc=0).scores | {"recipe": {"steps": 9}}) for one in elsewhere[:1]]
    for pile in ([*longer, *whole], [*whole, *longer]):
        assert gaps_by_seed([*RECORDS, *pile], "accuracy", method="endpoint", **setting) == pytest.approx({1: 0.99 - 0.82, 2: 0.09})
    weaker = [dataclasses.replace(one, config={**one.config, "evaluation": {}}) for one in whole]
    assert gaps_by_seed([*RECORDS, *weaker], "accuracy", method="endpoint", **setting) == {}


def test_all_real_images_are_the_longest_training_in_every_table():
    short, long = (_record("full", seed=1, values=[value], ipc=0) for value in (0.85, 0.91))
    long = dataclasses.replace(long, config={**long.config, "profile": "tuned"}, scores={**long.scores, "recipe": {"steps": 5}})
    for pile in ([short, long], [long, short]):
        assert select([*RECORDS, *pile], dataset="pneumoniamnist", method="full", ipc=0) == [long]
    two = [dataclasses.replace(one, seed=2) for one in (short, long)]
    assert "0.910 [0.910, 0.910]" in arms_table([*RECORDS, short, long, *two], dataset="pneumoniamnist", ipcs=(1,))
    assert select(RECORDS, dataset="pneumoniamnist", method="full", ipc=0) == []


def test_the_table_of_gaps_is_in_points_and_keeps_what_is_missing():
    whole = [_record("full", seed, [0.9 + 0.01 * seed], ipc=0) for seed in range(1, 3)]
    made = [dataclasses.replace(one, config={**one.config, "profile": "tuned"}) for one in (*RECORDS, *whole)]
    head, first, second, ring = gaps_table(made, ipcs=[("pneumoniamnist", 1)], methods=("endpoint", "extended")).splitlines()
    assert "points" in head and ring == RING_WORDS
    assert first.split() == ["pneumoniamnist", "1", "end", "point", "2°", "+9.00", "[+9.00,", "+9.00]"]
    assert second.split() == ["pneumoniamnist", "1", "extended", "0", "too", "few", "seeds"]


def test_the_table_of_places_pairs_by_seed_and_keeps_what_is_missing():
    def ranked(record: Record) -> Record:
        """With an AUC that is no shifted accuracy, so that the two columns can be told apart."""
        return dataclasses.replace(record, scores={**record.scores, "scores": [{**one, "auc": one["accuracy"] ** 2} for one in record.scores["scores"]]})

    made = [ranked(record) for record in RECORDS]
    where = {"places": [("pneumoniamnist", 1), ("pneumoniamnist", 7)], "methods": ["endpoint"], "against": "random"}
    title, head, there, missing = places_table(made, profile="fast", **where).splitlines()
    cells = [gain(made, score, dataset="pneumoniamnist", first="endpoint", second="random", ipc=1) for score in ("auc", "accuracy")]
    assert cells[0] != cells[1]
    assert title.endswith("random real images") and there.split()[:5] == ["pneumoniamnist", "1", "end", "point", str(cells[0].n)]
    for name, cell in zip(("auc", "accuracy"), cells, strict=True):
        assert there[head.index(name) :].startswith(f"{cell.mean:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]")
    assert missing.split() == ["pneumoniamnist", "7", "end", "point", "0", *["too", "few", "seeds"] * 2]


def test_short_arms_are_marked_on_either_side():
    where = {"places": [("pneumoniamnist", 1)], "profile": "fast"}
    assert "‡" not in places_table(RECORDS, **where, methods=["endpoint"], against="random")
    for methods, against in ((["dm"], "random"), (["endpoint"], "dm")):
        text = places_table(RECORDS, **where, methods=methods, against=against)
        assert text.count("‡") == 2 and text.endswith("chose among iterates")


def test_pairs_on_two_kinds_of_device_are_named():
    gpu = [dataclasses.replace(record, device="cuda, NVIDIA") if record.seed in (1, 2) and record.method == "endpoint" else record for record in RECORDS]
    gpu[6] = dataclasses.replace(gpu[6], device="cuda, NVIDIA")  # random, seed 2
    assert on_two_devices(gpu, dataset="pneumoniamnist", first="endpoint", second="random", ipc=1, profile="fast") == [1]
    assert on_two_devices(RECORDS, dataset="pneumoniamnist", first="endpoint", second="random", ipc=1, profile="fast") == []
