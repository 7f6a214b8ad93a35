"""The commands that judge a set, or a data set: `hoptm evaluate`, `hoptm card`, `hoptm audit`."""

import dataclasses
import textwrap
import time
from pathlib import Path
from typing import Any

import click

from hoptm import audit as leaks
from hoptm.arms import arm as arm_of
from hoptm.card import SCORES, described
from hoptm.card import card as card_of
from hoptm.card_page import page
from hoptm.config import PROFILES, Config, configure
from hoptm.console import JSON, SIZE, answer, check_out, load_named, made_here, say, short_name
from hoptm.data import Selectable
from hoptm.dp_distillation import WITHHELD
from hoptm.errors import ConfigError, FileError
from hoptm.evaluate import Evaluation
from hoptm.exports import has_settings, judged, settings_of
from hoptm.files import write_text
from hoptm.intervals import Interval, network_interval
from hoptm.likeness import trained_on_both
from hoptm.pipelines import AuditSettings
from hoptm.privacy_card import of_report, of_set, promised
from hoptm.settings import changes_of
from hoptm.synthetic import SyntheticSet
from hoptm.synthetic import load as load_set

_WORDS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC", "worst_recall": "worst-class recall", "ece": "ECE (0 is best)"}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dataset", default=None, help="Where the real data are; default: the name in the file.")
@click.option("--profile", type=click.Choice(PROFILES), default=None, help="Evaluation settings of another profile; default: the file's own.")
@click.option("--seed", type=int, default=None, help="Seed of the evaluation networks and the random images; default: the file's own.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Also write a copy of FILE whose card has these scores.")
@SIZE
@JSON
def evaluate(file: Path, dataset: str | None, profile: str | None, seed: int | None, out: Path | None, size: int | None, as_json: bool) -> None:
    """Train fresh networks on a synthetic set and on as many random real images; the recipe of each is chosen on validation.

    Random images have the labels that the set has: where it carries soft ones, those of experts, which are read from the cache or trained now.
    """
    made = load_set(file)
    config = _config_of(made, file, profile)
    if profile is not None:
        other = configure(config.dataset, method=config.method, ipc=config.ipc, seed=config.seed, profile=profile)
        config = config.changed(evaluation=dataclasses.asdict(other.evaluation))
    if seed is not None:
        config = config.changed(seed=seed)
    splits = load_named(dataset or _source(made, file), size or made.images.shape[-1])
    _check_fit(made, splits, file)
    if out is not None:
        check_out(out)
        _check_source(made, splits, file)
    rival = "random" if made.soft is None else "random-teacher"
    if made.soft is not None:
        say("note: this set carries soft labels, so the random images get labels of experts, too.")
    began = time.perf_counter()
    real = arm_of(rival, config, splits.without_test)
    arms = {"set": judged(made, splits, config), "random": judged(real, splits, config)}
    report = {name: found.as_dict() for name, found in arms.items()} | {
        "intervals": {name: {score: dataclasses.asdict(sure) for score, sure in _sure(found).items()} for name, found in arms.items()},
        "rival": rival, "file": str(file), "seconds": time.perf_counter() - began, **made_here(),
    }  # fmt: skip
    if out is not None:
        described(made, scores=arms).save(out, half="stored" in made.info)
        say(f"wrote {out}, a copy of {file} whose card has these scores")
    answer(as_json, report | ({} if out is None else {"out": str(out)}), _table(arms, rival))


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--html", "html", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Also write the card as one HTML page, images inside.")
@JSON
def card(file: Path, html: Path | None, as_json: bool) -> None:
    """Show a set's card: source and licence, how it was made, scores, privacy audit, warnings. Runs nothing of the file."""
    made = load_set(file)
    found = card_of(made)
    if html is not None:
        write_text(html, page(made))
        say(f"wrote {html}")
    answer(as_json, {"file": str(file), **dataclasses.asdict(found)}, found.text)


@click.command()
@click.argument("what")
@click.option("--arm", "arms", multiple=True, help=f"Pipelines to audit, repeatable; default: {', '.join(leaks.ARMS)}.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the pool of images, the coins, and all shadows.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A folder of reports; of a set's file: the copy to write, with the section in its card."
)
@click.option("--like", "arm", default=None, help="For a set's file: add what the report in --report found for this arm.")
@click.option("--report", "known", type=click.Path(path_type=Path), default=None, help="For a set's file with --like: the folder of that report.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a size, such as audit.pool=1000 or audit.shadows=16. Repeatable.")
@SIZE
@JSON
def audit(
    what: str, arms: tuple[str, ...], seed: int, out: Path, arm: str | None, known: Path | None, settings: tuple[str, ...], size: int | None, as_json: bool
) -> None:
    """Measure what leaks. WHAT is a data set, whose pipelines are attacked with shadows (stop with Ctrl-C at any time: the same command
    goes on from there), or the file of one set, whose images are compared with train directly, in seconds."""
    if what.endswith(".safetensors"):
        _audit_file(Path(what), out, arm, known, as_json)
        return
    chosen = AuditSettings(**{"seed": seed, **_audit_changes(settings)})
    splits, names = load_named(what, size), arms or leaks.ARMS
    folder = out / f".{short_name(what).replace(':', '-')}-seed{chosen.seed}.shadows"
    say(leaks.estimate(splits.without_test, chosen, names, folder))
    report = leaks.run(splits, chosen, folder, names)
    written = leaks.write(report, folder, out)
    say(f"wrote {written}; the shadows stay in {folder} until you delete it")
    sections = {name: of_report(report, name) for name in report["arms"]}
    lines = [
        f"{name}, {threat}, {group}: {words}"
        for name, section in sections.items() for threat, part in section.items() if isinstance(part, dict) for group, words in part.items()
    ]  # fmt: skip
    answer(as_json, report, "\n".join(lines))


def _audit_file(file: Path, out: Path, arm: str | None, known: Path | None, as_json: bool) -> None:
    check_out(out)
    made = load_set(file)
    splits = load_named(_source(made, file), made.images.shape[-1]).without_test
    _check_fit(made, splits, file)
    say(f"estimate: a minute or less; {len(made.labels)} images are compared with {len(splits.train)} of train and held-out ones, after a network is trained")
    section = of_set(made, splits, trained_on_both(splits)) | promised(made)
    if arm is not None:
        if known is None:
            raise ConfigError("--like names an arm of a report: name its folder with --report.")
        section |= {f"pipeline, {name}": part for name, part in of_report(leaks.read(known), arm).items()}
    audited = described(made, privacy=section)
    audited.save(out, half="stored" in made.info)
    answer(as_json, {"file": str(out), "privacy": section}, "\n".join(card_of(audited).privacy))


def _audit_changes(settings: tuple[str, ...]) -> dict[str, Any]:
    changes = changes_of(settings)
    names = {item.name for item in dataclasses.fields(AuditSettings)}
    unknown = [part for part in changes if part != "audit"] + [key for key in changes.get("audit", {}) if key not in names]
    if unknown:
        raise ConfigError(f"no setting {unknown[0]!r} of an audit; write audit.NAME with one of {', '.join(sorted(names))}.")
    return dict(changes.get("audit", {}))


def _sure(found: Evaluation) -> dict[str, Interval]:
    """Each score's mean with its interval over networks; of a single network there is none."""
    if len(found.scores) < 2:
        return {}
    return {score: network_interval([float(getattr(one, score)) for one in found.scores]) for score in SCORES}


def _table(arms: dict[str, Evaluation], rival: str) -> str:
    count = len(arms["set"].scores)
    kind = f"mean of {count} fresh networks [95 % interval over networks of one set; other seeds are not in it]" if count > 1 else "one network, no interval"
    beside = "random real images" if rival == "random" else "random real images under labels of experts"
    lines = [textwrap.fill(f"scores on test: {kind}. random: as many {beside}. The recipe of each is chosen on validation.", 80)]
    lines.append(f"{'':20s}" + "".join(f"{name:26s}" for name in arms).rstrip())
    sure = {name: _sure(found) for name, found in arms.items()}
    for score in SCORES:
        cells = (
            f"{found.mean(score):.3f}" + (f" [{sure[name][score].low:.3f}, {sure[name][score].high:.3f}]" if count > 1 else "") for name, found in arms.items()
        )
        lines.append(f"{_WORDS[score]:20s}" + "".join(f"{cell:26s}" for cell in cells).rstrip())
    recipes = (f"{found.recipe.optimiser} {found.recipe.lr:g}, {found.recipe.augmentation}" for found in arms.values())
    lines.append(f"{'recipe':20s}" + "".join(f"{recipe:26s}" for recipe in recipes).rstrip())
    return "\n".join(lines + ["three networks or fewer: the intervals are wide"] * (1 < count <= 3))


def _config_of(made: SyntheticSet, file: Path, profile: str | None) -> Config:
    """The settings in the file; a set that `hoptm distill` did not make (a baseline) has none of its evaluation, and takes a profile's."""
    if profile is None and not has_settings(made):
        raise FileError(f"{file}: it holds no settings, so it was not made by hoptm distill. Name a --profile to judge it by.")
    return settings_of(made, profile)


def _source(made: SyntheticSet, file: Path) -> str:
    """The name of the data set that a file gives. Raises ConfigError where it gives none, or one that a terminal could take for a command."""
    name = made.info["source"].get("name")
    if not isinstance(name, str) or not name.isprintable():
        raise ConfigError(f"{file} does not say from which data set it was made. `hoptm evaluate` takes a name with --dataset.")
    return name


def _check_fit(made: SyntheticSet, splits: Selectable, file: Path) -> None:
    wanted, given = (*made.images.shape[1:], made.classes), (splits.channels, splits.size, splits.size, splits.classes)
    if wanted != given:
        words = f"{file} holds images and classes {wanted} and {splits.info.name} has {given} (channels, height, width, classes)"
        raise ConfigError(f"{words}. Name the data it was made from.")
    if made.info["source"].get("checksum") == WITHHELD:
        say(f"note: {file} gives no checksum of its source, so nothing says that {splits.info.name} is what it was made from.")
    elif made.info["source"].get("checksum") != splits.info.checksum:
        say(f"note: {splits.info.name} is not the file that {file} was made from (other checksum); the scores are for the data named here.")


def _check_source(made: SyntheticSet, splits: Selectable, file: Path) -> None:
    """Raises ConfigError for data that the set was not made from: its card would hold their scores under its own source."""
    source = made.info["source"]
    by = "name" if source.get("checksum") == WITHHELD else "checksum"  # a released set says no more of its source than the name
    if source.get(by) != getattr(splits.info, by):
        words = f"{splits.info.name} is not what {file} was made from (other {by}), so its scores do not belong into that card"
        raise ConfigError(f"{words}. Leave --out away, or name the data it was made from.")
