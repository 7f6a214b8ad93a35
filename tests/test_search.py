"""The search: validation only, resumable, within its budget."""

import json
from types import SimpleNamespace

import optuna
import pytest
from toy_sets import sealed

from hoptm import profiles
from hoptm import search as module
from hoptm.config import configure
from hoptm.data import load
from hoptm.errors import ConfigError, DataError, DivergedError
from hoptm.search import MOST, SEED, SPACES, by_adam, hours_in, search, trials_in

QUICK = {"match": {"iterations": 2, "validate_every": 1, "expert_epochs": 2}, "experts": {"count": 1, "epochs": 10, "per_epoch": 2}}


@pytest.fixture(scope="module")
def splits():
    return load("phantom:450")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_a_search_goes_on_and_never_reads_the_test_split(splits, tmp_path):
    words = ("phantom:450", "extended", 1, sealed(splits, "test"), tmp_path / "journal")
    first = search(*words, trials=1, profile="smoke", base=QUICK)
    more = search(*words, trials=3, profile="smoke", base=QUICK)
    again = search(*words, trials=3, profile="smoke", base=QUICK)
    assert (first["trials"], more["trials"], again["trials"]) == (1, 3, 3)
    assert again == more and more["score"] >= first["score"] and 0 <= more["score"] <= 1
    found = configure("phantom:450", method="extended", ipc=1, seed=0, profile="smoke", **QUICK).changed(**profiles.tupled(more["changes"]))
    assert found.match.waypoints == 5 and found.match.mask == "quantile"


def test_a_search_ends_with_its_time(splits, tmp_path):
    words = ("phantom:450", "endpoint", 1, sealed(splits, "test"), tmp_path / "journal")
    with pytest.raises(ConfigError, match="no trial of phantom:450-endpoint-ipc1 ended"):
        search(*words, trials=3, profile="smoke", base=QUICK, seconds=1e-9)
    assert search(*words, trials=1, profile="smoke", base=QUICK)["trials"] == 1
    assert search(*words, trials=3, profile="smoke", base=QUICK, seconds=1e-9)["trials"] == 1


@pytest.mark.parametrize("method", SPACES)
def test_every_corner_of_a_space_is_a_valid_setting(method):
    class Corner:
        def __init__(self, last):
            self.last = last

        def suggest_categorical(self, name, choices):
            return choices[-1 if self.last else 0]

        def suggest_float(self, name, low, high, log=False):
            return high if self.last else low

    for profile in profiles.SEARCHED:
        config = configure("pbc-28", method=method, ipc=10, seed=SEED, profile=profile)
        for last in (False, True):
            found = config.changed(**SPACES[method](Corner(last), config, "dihedral"))
            assert found.match.augmentation in ("dihedral", "dsa")


def test_methods_share_the_space_that_they_share():
    class Names:
        def __init__(self):
            self.seen = {}

        def suggest_categorical(self, name, choices):
            self.seen[name] = tuple(choices)
            return choices[0]

        def suggest_float(self, name, low, high, log=False):
            self.seen[name] = (low, high, log)
            return low

    seen = {}
    for method, space in SPACES.items():
        names = Names()
        space(names, configure("pbc-28", method=method, ipc=1, seed=SEED, profile="tuned"), "dihedral")
        seen[method] = names.seen
    assert seen["endpoint"].items() <= seen["published"].items()
    assert seen["endpoint"].items() <= seen["extended"].items()


def test_a_search_looks_at_all_trials_under_one_augmentation(splits, tmp_path, monkeypatch):
    seen = []

    def noted(config, splits):
        seen.append(config.match)
        return 0.5

    monkeypatch.setattr(module, "validation_score", noted)
    search("phantom:450", "endpoint", 1, splits, tmp_path / "journal", trials=6, profile="tuned", base={"experts": {"count": 1}})
    assert {match.look for match in seen} == {splits.info.augmentations[-1]} and {match.optimiser for match in seen} == {"adam"}
    assert len({match.augmentation for match in seen}) == 2


def test_what_is_not_a_search(splits, tmp_path):
    with pytest.raises(ConfigError, match="no search space"):
        search("phantom:450", "tesla", 1, splits, tmp_path / "journal")
    with pytest.raises(ConfigError, match=str(MOST)):
        search("phantom:450", "endpoint", 1, splits, tmp_path / "journal", trials=MOST + 1)


@pytest.mark.parametrize("profile", profiles.SEARCHED)
def test_the_table_of_found_settings_is_read_by_the_profile(profile):
    table = json.loads((profiles.Path(profiles.__file__).resolve().parent / f"{profile}.json").read_text(encoding="utf-8"))
    for dataset, methods in table.items():
        for method, parts in methods.items():
            if method == "common":
                continue
            config = configure(dataset, method=method, ipc=10, seed=0, profile=profile)
            for part, changes in parts.items():
                assert changes.items() <= config.as_dict()[part].items()
    assert configure("never-searched", method="curvature", ipc=1, seed=0, profile=profile).match.orders == (0.0, 0.5)


@pytest.mark.parametrize("profile", profiles.SEARCHED)
def test_the_stored_settings_are_the_best_of_their_journals(profile):
    folder, found = profiles.Path(__file__).resolve().parent.parent / "data" / "search", 0
    for dataset, methods in json.loads((profiles.Path(profiles.__file__).resolve().parent / f"{profile}.json").read_text(encoding="utf-8")).items():
        for journal in folder.glob(f"{dataset}-*.journal"):
            name, ipc = journal.stem.removeprefix(f"{dataset}-").split("-ipc")
            if (profile == "tuned") == (ipc == "10"):
                storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
                best = module._best(optuna.load_study(study_name=journal.stem, storage=storage).get_trials())
                assert best.user_attrs["changes"] == methods[name], journal.name
                found += 1
    assert found >= 6


def test_trials_of_plain_steps_are_not_chosen():
    def trial(number, value, optimiser):
        return SimpleNamespace(number=number, value=value, user_attrs={"changes": {"match": {"optimiser": optimiser}}})

    trials = [trial(0, 0.9, "sgd"), trial(1, 0.7, "adam"), trial(2, None, "adam"), trial(3, 0.8, "adam"), trial(4, 0.8, "adam")]
    assert module._best(trials).number == 3
    assert module._best(trials[:1]) is None


def test_settings_that_were_not_searched_are_said(capsys):
    configure("never-searched-either", method="endpoint", ipc=1, seed=0, profile="tuned")
    assert "no settings were searched for never-searched-either" in capsys.readouterr().err
    assert profiles.unsearched("pneumoniamnist", "curvature") == ""
    assert "no settings of latent were searched" in profiles.unsearched("pneumoniamnist", "latent-prior"), "a step of a code is no step of a pixel"
    assert profiles.unsearched("pbc-28", "latent") == ""
    configure("pneumoniamnist", method="endpoint", ipc=1, seed=0, profile="tuned")
    assert capsys.readouterr().err == ""


def test_trials_of_a_journal_and_those_that_diverged(splits, tmp_path, monkeypatch):
    def sometimes(config, splits):
        if config.match.lr_images > 0.01:
            raise DivergedError("it left the finite numbers")
        return 0.5

    monkeypatch.setattr(module, "validation_score", sometimes)
    found = search("phantom:450", "endpoint", 1, splits, tmp_path / "journal", trials=6, profile="large", base={"experts": {"count": 1}})
    finished, diverged = trials_in(tmp_path / "journal")
    assert finished == found["trials"] == 6 and 0 < diverged < 6
    assert by_adam(tmp_path / "journal") == 6
    text = (tmp_path / "journal").read_text()
    (tmp_path / "plain").write_text(text.replace('"optimiser":"adam"', '"optimiser":"sgd"', 2).replace('"optimiser": "adam"', '"optimiser": "sgd"', 2))
    assert by_adam(tmp_path / "plain") == 4
    assert 0 < hours_in(tmp_path / "journal") < 0.1
    (tmp_path / "hour").write_text(
        '{"op_code":4,"datetime_start":"2026-01-01T10:00:00+00:00"}\n{"op_code":4,"datetime_start":"2026-01-01T10:30:00+00:00"}\n'
        '{"op_code":6,"trial_id":1,"state":1,"datetime_complete":"2026-01-01T12:00:00+00:00"}\n'
    )
    assert hours_in(tmp_path / "hour") == 1.5, "a trial that never ended does not count"
    (tmp_path / "other").write_text("{}\n")
    for name in ("other", "nowhere"):
        with pytest.raises(DataError, match="not a journal"):
            trials_in(tmp_path / name)
