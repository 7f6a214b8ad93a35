"""Whole audits on small sets: a planted leak is found, data without a signal stay at chance, a stopped audit goes on to the same result."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_sealed import Poisoned
from toy_sets import toy

from hoptm import audit
from hoptm.audit import plan, read, report, run, scores_of, shadow_of, thinned, write
from hoptm.audit_plan import GROUPS, reserves
from hoptm.config import generator
from hoptm.data import Splits, Train, Validation, load
from hoptm.dp_training import DpTraining
from hoptm.errors import ConfigError, DataError, FileError
from hoptm.intervals import paired_interval
from hoptm.membership import roc
from hoptm.pipelines import PIPELINES, AuditSettings, Outcome, Pipeline, Shadow, observe, pipeline, redrawn
from hoptm.results import stored
from hoptm.vae import VaeConfig, untrained

TINY = AuditSettings(
    pool=420, shadows=8, ipc=2, canaries=16, canary_initialisers=1, width=4, experts=1, epochs=2, iterations=2, inner_steps=3,
    vae_steps=15, model_steps=30, models=1, full_steps=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("HOPTM_CACHE", str(tmp_path_factory.mktemp("cache")))
    found = load("phantom:900")
    keep = found.train.labels < 3  # three classes
    parts = {name: type(part)(part.images[part.labels < 3], part.labels[part.labels < 3]) for name, part in (("val", found.val), ("test", found.test))}
    repeated = Train(torch.cat([found.train.images[keep], other_pictures(found)]), torch.cat([found.train.labels[keep]] * 2))
    yield Splits(repeated, parts["val"], parts["test"], dataclasses.replace(found.info, class_names=found.info.class_names[:3]))
    patch.undo()


def other_pictures(found: Splits) -> torch.Tensor:
    """The same images mirrored, to have enough of each class."""
    return found.train.images[found.train.labels < 3].flip(3)


def test_the_plan_has_no_twins_and_its_groups_are_as_large_as_asked(splits: Splits) -> None:
    made = plan(splits, TINY)
    pictures = splits.train.images[made.pool]
    assert len(torch.unique(pictures.flatten(1), dim=0)) == len(made.pool) == 420
    counts = [int((made.group == index).sum()) for index in range(len(GROUPS))]
    assert counts[1:4] == [16, 3, 3] and counts[5] == 3 * reserves(2) and sum(counts) == 420
    wrong = made.labels != splits.train.labels[made.pool]
    assert torch.equal(wrong, (made.group == GROUPS.index("canaries")) | (made.group == GROUPS.index("canary initialisers")))
    assert torch.equal(plan(splits, TINY).order, made.order) and 0.4 < float(made.member.float().mean()) < 0.6
    with pytest.raises(DataError, match="different images"):
        plan(splits, dataclasses.replace(TINY, pool=10_000))


def test_the_rarest_class_is_a_group_of_its_own(splits: Splits) -> None:
    true = splits.train.labels
    few = Train(splits.train.images[true != 1], true[true != 1]), Train(splits.train.images[true == 1][:60], true[true == 1][:60])
    rare = dataclasses.replace(splits, train=Train(torch.cat([one.images for one in few]), torch.cat([one.labels for one in few])))
    made = plan(rare, dataclasses.replace(TINY, pool=len(torch.unique(rare.train.images.flatten(1), dim=0))))
    labels = rare.train.labels[made.pool]
    apart = made.group == GROUPS.index("rarest class")
    assert bool(apart.any()) and set(labels[apart].tolist()) == {1} and not bool((labels[made.group == GROUPS.index("ordinary")] == 1).any())
    assert torch.equal(made.labels[apart], labels[apart]), "they carry their true label"
    assert not set(torch.nonzero(apart).flatten().tolist()) & set(made.order.tolist()), "and never initialise"


def test_to_be_a_member_is_to_initialise_for_candidates_and_for_no_canary(splits: Splits) -> None:
    made = plan(splits, TINY)
    for index in range(4):
        shadow, held = shadow_of(splits, made, index), made.members(index)
        inside = torch.nonzero(held).flatten()
        assert torch.equal(shadow.splits.train.images, splits.train.images[made.pool[inside]])
        assert shadow.splits.train.labels[shadow.chosen].tolist() == [0, 0, 1, 1, 2, 2]
        used = set(inside[shadow.chosen].tolist())
        candidates = torch.nonzero((made.group == 2) | (made.group == 3)).flatten()
        assert all((int(one) in used) == bool(held[one]) for one in candidates)
        assert not {int(made.group[one]) for one in used} & {GROUPS.index(name) for name in ("ordinary", "canaries", "rarest class")}


def test_retrieval_counts_an_image_once_however_many_shadows_it_starts() -> None:
    infos = [{"places": [1, 2], "ranks": [0, 3], "shares": [0.0, 0.5]}, {"places": [1, 4], "ranks": [0, 0], "shares": [0.2, 1.0]}]
    found = audit._found(infos)
    assert (found["hits"], found["images"], found["candidates"]) == (3, 4, 3)
    assert found["share"]["n"] == found["at_once"]["n"] == 3 and found["share"]["kind"].startswith("over images")
    assert found["share"]["mean"] == pytest.approx((0.1 + 0.5 + 1.0) / 3) and found["at_once"]["mean"] == pytest.approx(2 / 3)


def test_a_folder_is_bound_to_who_is_in_which_group(splits: Splits, tmp_path: Path) -> None:
    made = plan(splits, TINY)
    audit._mark(tmp_path, splits, made)
    audit._mark(tmp_path, splits, plan(splits, TINY))
    with pytest.raises(FileError, match="other data or settings"):
        audit._mark(tmp_path, splits, dataclasses.replace(made, group=made.group.flip(0)))


def test_a_planted_leak_is_found(splits: Splits, tmp_path: Path) -> None:
    """Canaries inside a real random subset: a total leak of the images that are in it."""
    found = run(splits, dataclasses.replace(TINY, shadows=16, model_steps=100), tmp_path, ["random"], progress=False)["arms"]["random"]["attacks"]
    for threat in ("confidence", "nearness"):
        for group in ("initialisers", "canary initialisers"):
            assert found[threat][group]["detected"] and found[threat][group]["auc"] > 0.85, (threat, group)
            assert found[threat][group]["auc"] > found[threat][group]["chance_high"]
    assert found["nearness"]["canary initialisers"]["low"] > 0.7
    assert 0.4 < found["nearness"]["canaries"]["auc"] < 0.65  # those never start an image


def blind(real: Pipeline) -> Pipeline:
    """The same pipeline on images that no coin has to do with: half of the pool by a draw of its own, which the attacked coins do not know."""

    def of_others(shadow: Shadow) -> Outcome:
        half = dataclasses.replace(shadow.settings, seed=shadow.settings.seed + 77)
        # the pool and its candidates are those of the audit; only the coins are others
        made = dataclasses.replace(plan(WHOLE["splits"], shadow.settings), settings=half)
        return real(shadow_of(WHOLE["splits"], made, shadow.index))

    return of_others


WHOLE: dict[str, Splits] = {}


@pytest.mark.timeout(1200)  # nine whole pipelines a shadow
def test_the_whole_audit_without_a_signal_stays_at_chance(splits: Splits, tmp_path: Path) -> None:
    WHOLE["splits"] = splits
    arms = ["random", "full", "pixel-real", "pixel-noise", "pixel-mean", "pixel-vae", "latent", "dp-4", "dp-sgd-4"]
    found = run(splits, dataclasses.replace(TINY, shadows=5), tmp_path, arms, pipelines={name: blind(pipeline(name)) for name in arms}, progress=False)
    verdicts = [one for arm in found["arms"].values() for groups in arm["attacks"].values() for one in groups.values()]
    assert len(verdicts) == 5 * (2 + 1 + 2 + 2 + 2 + 2 + 3 + 2 + 1)
    inside = sum(one["chance_low"] <= one["auc"] <= one["chance_high"] for one in verdicts)
    assert inside >= 0.85 * len(verdicts)
    assert not any(one["detected"] for one in verdicts)
    assert sum(one["p"] <= 0.05 for one in verdicts) <= 0.12 * len(verdicts)
    direct = [arm["direct"]["found"] for arm in found["arms"].values() if "found" in arm["direct"]]
    assert len(direct) >= 5
    for one in direct:
        assert one["share"]["low"] <= 0.5 <= one["share"]["high"], one


def test_epsilon_is_chosen_on_validation_with_test_out_of_reach(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipelines, on shadows of their own, at one large and one tiny epsilon; the choice is kept, and read again."""
    shut = dataclasses.replace(splits, test=Poisoned(splits.test.images, splits.test.labels))
    monkeypatch.setattr(Poisoned, "shut", True)
    made = plan(shut, dataclasses.replace(TINY, shadows=4))
    monkeypatch.setattr(audit, "DP_SGD", (0.5, 50.0))
    monkeypatch.setattr("hoptm.pipelines.DpTraining", partial(DpTraining, steps=6, batch=40))
    monkeypatch.setattr(audit, "TUNING", (100,))
    other = dataclasses.replace(shut, val=Validation(shut.val.images, (shut.val.labels + 1) % 3))
    assert audit._on_validation("random", shut, made) != audit._on_validation("random", other, made)  # so validation is what it reads
    with pytest.raises(AssertionError, match="touched"):
        run(shut, made.settings, tmp_path / "whole", ["random"], progress=False)  # and an audit itself does read test
    found = audit.match_dp_sgd(shut, made, tmp_path)
    assert 0 <= found["wanted"] <= 1 and found["score"].endswith("validation, mean over 1 shadows")
    assert [epsilon for epsilon, _ in found["tried"]] in ([0.5], [0.5, 50.0]) and found["epsilon"] == found["tried"][-1][0]
    assert found["reached"] == (found["tried"][-1][1] >= found["wanted"])
    monkeypatch.setattr(audit, "_on_validation", None)  # a choice that is kept is not made again
    assert audit.match_dp_sgd(shut, made, tmp_path) == found
    assert audit._named("dp-sgd", shut, made, tmp_path, None).args == (found["epsilon"],)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("scores", "epsilon", "reached"), [((0.6, 0.9, 0.0), 1.0, True), ((0.9, 0.0, 0.0), 0.1, True), ((0.6, 0.7, 0.75), 10.0, False)])
def test_the_first_epsilon_that_is_good_enough_is_taken(
    scores: tuple[float, ...], epsilon: float, reached: bool, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = dict(zip(("dp-sgd-0.1", "dp-sgd-1", "dp-sgd-10"), scores, strict=True))
    monkeypatch.setattr(audit, "DP_SGD", (0.1, 1.0, 10.0))
    monkeypatch.setattr(audit, "_on_validation", lambda name, *_: {"pixel-real": 0.8, **of}[name])
    found = audit.match_dp_sgd(splits, plan(splits, TINY), tmp_path)
    assert (found["epsilon"], found["reached"], found["wanted"]) == (epsilon, reached, 0.8)


def test_a_stopped_audit_goes_on_to_the_same_result(splits: Splits, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    arms, few = ["random", "pixel-noise"], dataclasses.replace(TINY, shadows=4)

    def stop(arm: str, index: int) -> None:
        if (arm, index) == ("random", 2):
            raise Stop

    with pytest.raises(Stop):
        run(splits, few, tmp_path / "stopped", arms, progress=False, done=stop)
    kept = sorted((tmp_path / "stopped").rglob("*.safetensors"))
    assert len(kept) == 5
    assert report(splits, few, tmp_path / "stopped", arms)["unfinished"] == arms
    before = [path.stat().st_mtime_ns for path in kept]
    resumed = run(splits, few, tmp_path / "stopped", arms, progress=False)
    assert [path.stat().st_mtime_ns for path in kept] == before
    whole = run(splits, few, tmp_path / "whole", arms, progress=False)
    for one in (resumed, whole):
        for arm in arms:
            del one["arms"][arm]["seconds"]
    assert resumed["arms"] == whole["arms"] and whole["unfinished"] == []
    with pytest.raises(FileError, match="other data or settings"):
        run(splits, dataclasses.replace(few, seed=1), tmp_path / "whole", arms, progress=False)


def test_a_report_is_written_and_read(splits: Splits, tmp_path: Path) -> None:
    few = dataclasses.replace(TINY, shadows=4)
    found = run(splits, few, tmp_path / "work", ["random"], progress=False)
    target = write(found, tmp_path / "work", tmp_path / "out")
    assert target.name == "phantom-900-seed0" and read(target) == json.loads(json.dumps(found))
    kept = scores_of(tmp_path / "work", "random", 4)
    assert set(kept) == {"confidence", "nearness"} and kept["confidence"].shape == (4, 420)
    planted = found["arms"]["random"]["direct"]["found"]  # a real subset: every image is its own initialiser
    assert planted["hits"] == planted["images"] == 4 * 3 * few.ipc and planted["share"]["mean"] < 0.05
    words = {score["kind"] for score in found["arms"]["random"]["test"].values()}
    assert words == {"over shadows, which share one pool of images, by Student's t"}  # shadows are no seeds
    score = found["arms"]["random"]["test"]["auc"]
    assert len(score["each"]) == score["n"] == 4 and sum(score["each"]) / 4 == pytest.approx(score["mean"])
    with pytest.raises(FileError, match="holds a report with random"):
        write({**found, "arms": {}}, tmp_path / "work", tmp_path / "out")
    assert set(report(splits, few, tmp_path / "work", ["pixel-noise"])["arms"]) == {"random"}  # what the folder holds is not forgotten
    (target / "audit.json").write_text("{}")
    with pytest.raises(FileError, match="no report"):
        read(target)
    with pytest.raises(ConfigError, match="nothing is deleted"):
        audit.clear(tmp_path / "nowhere")
    audit.clear(tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_stored_report_says_over_shadows_whatever_it_was_stored_with(tmp_path: Path) -> None:
    whole = json.loads((stored("audits") / "pneumoniamnist-seed0" / "audit.json").read_text())
    for one in (score for arm in whole["arms"].values() for score in arm["test"].values()):
        one["kind"] = "over seeds by Student's t"  # as earlier versions wrote it
    (tmp_path / "audit.json").write_text(json.dumps(whole))
    kinds = {score["kind"] for arm in read(tmp_path)["arms"].values() for score in arm["test"].values()}
    assert kinds == {"over shadows, which share one pool of images, by Student's t"}


def test_arms_are_paired_shadow_by_shadow_and_earlier_reports_give_what_they_can() -> None:
    shared = torch.randn(12, generator=generator(0, "shared")).double()
    one, other = (shared + 0.1 * torch.randn(12, generator=generator(turn, "own")).double() + turn for turn in (1, 0))
    report = {"arms": {name: {"test": {"auc": audit._on_test(values.tolist())}} for name, values in (("one", one), ("other", other))}}
    close = audit.paired(report, "one", "other")
    assert close == dataclasses.replace(paired_interval(one.tolist(), other.tolist()), kind=close.kind) and close.kind.startswith("paired over shadows")
    earlier = json.loads(json.dumps(report))
    for arm in earlier["arms"].values():
        del arm["test"]["auc"]["each"]
    wide = audit.paired(earlier, "one", "other")
    assert wide.mean == pytest.approx(close.mean) and wide.low < close.low < close.high < wide.high and wide.kind.startswith("the widest")
    against = {"arms": {"one": {"test": {"auc": audit._on_test(shared.tolist())}}, "other": {"test": {"auc": audit._on_test((-shared).tolist())}}}}
    exact = audit.paired(against, "one", "other")  # scores that go against each other spread as much as they can
    for arm in against["arms"].values():
        del arm["test"]["auc"]["each"]
    assert audit.paired(against, "one", "other").low == pytest.approx(exact.low) and audit.paired(against, "one", "other").high == pytest.approx(exact.high)
    with pytest.raises(ConfigError, match="no finished arm 'third'"):
        audit.paired(report, "one", "third")
    earlier["arms"]["other"]["test"]["auc"]["n"] = 11
    with pytest.raises(ConfigError, match="cannot be paired"):
        audit.paired(earlier, "one", "other")


def test_a_stored_report_says_what_was_tried_and_pairs_its_arms() -> None:
    """Reports of a coarser list of epsilons are read as they are: what they tried is theirs."""
    found = read(stored("audits") / "pneumoniamnist-seed0")
    chosen = found["dp_sgd"]
    assert dict(map(tuple, chosen["tried"]))[chosen["epsilon"]] >= chosen["wanted"] or not chosen["reached"]
    assert audit.paired(found, "dp-sgd", "pixel-real").n == found["settings"]["shadows"]
    assert list(audit.DP_SGD) == sorted(set(audit.DP_SGD)) and {5.0, 7.0} < set(audit.DP_SGD)


def test_thinning_keeps_the_curve() -> None:
    chance = generator(0, "curve")
    member = torch.rand(4000, generator=chance) < 0.5
    whole = roc(torch.randn(4000, generator=chance) + member, member)
    thin = thinned(whole)
    assert thin.fpr[-1] == thin.tpr[-1] == 1 and bool((thin.tpr.diff() >= 0).all()) and len(thin.fpr) == 80
    for at in (0.01, 0.1, 0.5):
        near = int((thin.fpr - at).abs().argmin())
        assert float(thin.tpr[near]) == pytest.approx(float(whole.tpr[whole.fpr <= thin.fpr[near] + 1e-12].max()))


def test_arms_by_name() -> None:
    assert set(PIPELINES) | {"dp-1", "dp-4", "dp-10", "dp-sgd"} == set(audit.ARMS)
    with pytest.raises(ConfigError, match="no arm"):
        pipeline("dp-much")
    with pytest.raises(ConfigError, match="4 shadows"):
        AuditSettings(shadows=3)


def test_an_attacker_with_the_decoder_finds_what_it_can_draw() -> None:
    vae = untrained(VaeConfig(dims=4, width=4, steps=1), 1, 8, generator(0, "vae"))
    with torch.no_grad():
        own = vae.decode(torch.randn(6, 4, generator=generator(1)))
    noise = own[:, :, torch.randperm(8, generator=generator(2))]
    assert float(redrawn(vae.decoder, own).mean()) < 0.5 * float(redrawn(vae.decoder, noise).mean())
    splits = toy()
    seen = observe(_outcome(vae), splits.train.images, splits.train.labels)
    assert set(seen) == {"confidence", "nearness", "decoder"} and all(len(values) == 80 for values in seen.values())
    assert float(seen["nearness"].max()) == 0.0  # a copy


def _outcome(vae: Any) -> Outcome:
    from toy_sets import net

    from hoptm.data import standardisation

    train = toy().train
    return Outcome(net(), (net().initial(generator(0)),), standardisation(train), train.images[:2].float() / 255, vae.decoder)
