"""The commands, for people who do not open notebooks.

`hoptm distill` makes a synthetic set by one of the methods that `hoptm methods` explains, `hoptm evaluate` judges one beside random real images and can
write its scores into a copy of its file, `hoptm card` shows what a file says of itself, `hoptm audit` what it gives away, `hoptm export` writes it for
other programs, `hoptm verify` replays frozen numbers of the published method, `hoptm reproduce` runs a grid of notebooks.
With `--json` the standard output holds one JSON object and nothing else; progress and estimates go to standard error.
"""

import dataclasses
import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import click
import torch

from hoptm import audit as leaks
from hoptm import verify as golden
from hoptm.arms import arm as arm_of
from hoptm.card import SCORES, described
from hoptm.card import card as card_of
from hoptm.card_page import page
from hoptm.config import DESCRIBED, METHODS, PROFILES, PROFILES_DESCRIBED, Config, configure, from_dict
from hoptm.cost import estimate
from hoptm.data import Selectable, Splits, load, single_label
from hoptm.distill import distill as run_distillation
from hoptm.errors import ConfigError, FileError, HoptmError
from hoptm.evaluate import Evaluation
from hoptm.evaluate import evaluate as judge
from hoptm.experts import experts
from hoptm.exports import to_folder, to_npz
from hoptm.files import write_text
from hoptm.grids import price, priced, read_grid
from hoptm.intervals import Interval, network_interval
from hoptm.likeness import trained_on_train
from hoptm.networks import network
from hoptm.pipelines import AuditSettings
from hoptm.privacy_card import of_report, of_set
from hoptm.records import commit, device_words, peak_bytes, versions
from hoptm.settings import changes_of
from hoptm.synthetic import SyntheticSet
from hoptm.synthetic import load as load_set

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
_WORDS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC", "worst_recall": "worst-class recall", "ece": "ECE (0 is best)"}
_EXPORTS = {"folder": to_folder, "npz": to_npz}
_SIZE = click.option("--size", type=click.IntRange(8, 1024), default=None, help="Image size in pixels (a folder is resized; MedMNIST has 28, 64, 128, 224).")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(versions()["hoptm"], prog_name="hoptm")
def cli() -> None:
    """Distil a medical image data set into a few synthetic images, and judge them."""


@cli.command()
@click.option("--dataset", required=True, help="A MedMNIST name, phantom, an .npz in MedMNIST's layout, or an image folder.")
@click.option("--ipc", type=int, required=True, help="Synthetic images per class (1 or more).")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="endpoint",
    show_default=True,
    metavar="NAME",
    help="endpoint: the end point alone. published: with shape potential and mask. `hoptm methods` lists all and says what each does.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="fast",
    show_default=True,
    help=" ".join(f"{name}: {words}." for name, words in PROFILES_DESCRIBED.items()),
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws experts, initial images, batches and augmentation.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, ending in .safetensors.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting, such as match.iterations=50 or match.per_class=1,2. Repeatable."
)
@_SIZE
@_JSON
def distill(dataset: str, ipc: int, method: str, profile: str, seed: int, out: Path, settings: tuple[str, ...], size: int | None, as_json: bool) -> None:
    """Make a synthetic set. Stop with Ctrl-C at any time: the same command goes on from there."""
    _check_out(out)
    config = configure(_name(dataset), method=method, ipc=ipc, seed=seed, profile=profile).changed(**changes_of(settings))
    splits = _load(dataset, size).without_test
    _say(str(estimate(config, splits)))
    state = out.with_name(out.name + ".state")
    if state.exists():
        _say(f"going on from {state}")
    began = time.perf_counter()
    paths = experts(config, splits)
    trained = time.perf_counter()
    done = run_distillation(config, splits, paths, resume=state)
    done.synthetic.save(out)
    state.unlink(missing_ok=True)
    report = {
        "file": str(out), "config": config.as_dict(), "images": len(done.synthetic.labels), "lr": done.synthetic.lr,
        "selection": done.synthetic.info["selection"],
        "last": dataclasses.asdict(done.history[-1]), "expert_seconds": trained - began, "seconds": time.perf_counter() - trained, **_provenance(),
    }  # fmt: skip
    _answer(as_json, report, f"wrote {out}: {report['images']} images. Judge them with: hoptm evaluate {out}")


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dataset", default=None, help="Where the real data are; default: the name in the file.")
@click.option("--profile", type=click.Choice(PROFILES), default=None, help="Evaluation settings of another profile; default: the file's own.")
@click.option("--seed", type=int, default=None, help="Seed of the evaluation networks and the random images; default: the file's own.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Also write a copy of FILE whose card has these scores.")
@_SIZE
@_JSON
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
    splits = _load(dataset or _source(made, file), size or made.images.shape[-1])
    _check_fit(made, splits, file)
    if out is not None:
        _check_out(out)
        _check_source(made, splits, file)
    rival = "random" if made.soft is None else "random-teacher"
    if made.soft is not None:
        _say("note: this set carries soft labels, so the random images get labels of experts, too.")
    began = time.perf_counter()
    real = arm_of(rival, config, splits.without_test)
    arms = {"set": _judge(made, config, splits), "random": _judge(real, config, splits)}
    report = {name: found.as_dict() for name, found in arms.items()} | {
        "intervals": {name: {score: dataclasses.asdict(sure) for score, sure in _sure(found).items()} for name, found in arms.items()},
        "rival": rival, "file": str(file), "seconds": time.perf_counter() - began, **_provenance(),
    }  # fmt: skip
    if out is not None:
        described(made, scores=arms).save(out, half="stored" in made.info)
        _say(f"wrote {out}, a copy of {file} whose card has these scores")
    _answer(as_json, report | ({} if out is None else {"out": str(out)}), _table(arms, rival))


@cli.command()
@_JSON
def methods(as_json: bool) -> None:
    """List every method and every profile of `hoptm distill`, and say what each does."""
    parts = {"--method": DESCRIBED, "--profile": PROFILES_DESCRIBED}
    lines = []
    for option, known in parts.items():
        lines += [f"{option}", *(_hanging(name, words) for name, words in known.items()), ""]
    words = "A method is what it sets over its profile; --set changes any setting of it. What the settings mean: hoptm.settings, in the book's reference."
    _answer(as_json, {option.strip("-"): dict(found) for option, found in parts.items()}, "\n".join([*lines, textwrap.fill(words, 80)]))


def _hanging(name: str, words: str) -> str:
    """A name and what it means on lines of 80 characters at most."""
    return textwrap.fill(words, 80, initial_indent=f"  {name:16s}  ", subsequent_indent=" " * 20)


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@_JSON
def verify(files: tuple[Path, ...], as_json: bool) -> None:
    """Replay golden files of the published method; exit with 1 above 1e-9 relative or on a mask that differs."""
    verdicts = {path: golden.verify(path) for path in (files or golden.golden_files())}
    if not verdicts:
        raise FileError("no golden files: the package was installed without hoptm/golden. Install it again, or name files.")
    passed = all(verdict.passed for verdict in verdicts.values())
    lines = []
    for path, verdict in verdicts.items():
        lines += [path.name, *(f"  {name:22s} {error:.1e}" for name, error in verdict.errors.items())]
        lines += [f"  {name:22s} {count} differ" for name, count in verdict.masks.items()]
    worst = max(max(verdict.errors.values()) for verdict in verdicts.values())
    lines.append(f"{'equal' if passed else 'NOT EQUAL'}: largest relative error {worst:.1e}, allowed {golden.TOLERANCE:.0e}")
    report = {"passed": passed, "files": {path.name: dataclasses.asdict(verdict) for path, verdict in verdicts.items()}}
    _answer(as_json, report, "\n".join(lines))
    if not passed:
        sys.exit(1)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--html", "html", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Also write the card as one HTML page, images inside.")
@_JSON
def card(file: Path, html: Path | None, as_json: bool) -> None:
    """Show a set's card: source and licence, how it was made, scores, privacy audit, warnings. Runs nothing of the file."""
    made = load_set(file)
    found = card_of(made)
    if html is not None:
        write_text(html, page(made))
        _say(f"wrote {html}")
    _answer(as_json, {"file": str(file), **dataclasses.asdict(found)}, found.text)


@cli.command()
@click.argument("what")
@click.option("--arm", "arms", multiple=True, help=f"Pipelines to audit, repeatable; default: {', '.join(leaks.ARMS)}.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the pool of images, the coins, and all shadows.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A folder of reports; of a set's file: the copy to write, with the section in its card."
)
@click.option("--like", "arm", default=None, help="For a set's file: add what the report in --report found for this arm.")
@click.option("--report", "known", type=click.Path(path_type=Path), default=None, help="For a set's file with --like: the folder of that report.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a size, such as audit.pool=1000 or audit.shadows=16. Repeatable.")
@_SIZE
@_JSON
def audit(
    what: str, arms: tuple[str, ...], seed: int, out: Path, arm: str | None, known: Path | None, settings: tuple[str, ...], size: int | None, as_json: bool
) -> None:
    """Measure what leaks. WHAT is a data set, whose pipelines are attacked with shadows (stop with Ctrl-C at any time: the same command
    goes on from there), or the file of one set, whose images are compared with train directly, in seconds."""
    if what.endswith(".safetensors"):
        _audit_file(Path(what), out, arm, known, as_json)
        return
    chosen = AuditSettings(**{"seed": seed, **_audit_changes(settings)})
    splits, names = _load(what, size), arms or leaks.ARMS
    folder = out / f".{_name(what).replace(':', '-')}-seed{chosen.seed}.shadows"
    _say(leaks.estimate(splits.without_test, chosen, names, folder))
    report = leaks.run(splits, chosen, folder, names)
    written = leaks.write(report, folder, out)
    _say(f"wrote {written}; the shadows stay in {folder} until you delete it")
    sections = {name: of_report(report, name) for name in report["arms"]}
    lines = [
        f"{name}, {threat}, {group}: {words}"
        for name, section in sections.items() for threat, part in section.items() if isinstance(part, dict) for group, words in part.items()
    ]  # fmt: skip
    _answer(as_json, report, "\n".join(lines))


def _audit_file(file: Path, out: Path, arm: str | None, known: Path | None, as_json: bool) -> None:
    _check_out(out)
    made = load_set(file)
    splits = _load(_source(made, file), made.images.shape[-1]).without_test
    _check_fit(made, splits, file)
    _say(f"estimate: a minute or less; {len(made.labels)} images are compared with {len(splits.train)} of train and held-out ones, after a network is trained")
    section = of_set(made, splits, trained_on_train(splits))
    if arm is not None:
        if known is None:
            raise ConfigError("--like names an arm of a report: name its folder with --report.")
        section |= {f"pipeline, {name}": part for name, part in of_report(leaks.read(known), arm).items()}
    audited = described(made, privacy=section)
    audited.save(out)
    _answer(as_json, {"file": str(out), "privacy": section}, "\n".join(card_of(audited).privacy))


def _audit_changes(settings: tuple[str, ...]) -> dict[str, Any]:
    changes = changes_of(settings)
    names = {item.name for item in dataclasses.fields(AuditSettings)}
    unknown = [part for part in changes if part != "audit"] + [key for key in changes.get("audit", {}) if key not in names]
    if unknown:
        raise ConfigError(f"no setting {unknown[0]!r} of an audit; write audit.NAME with one of {', '.join(sorted(names))}.")
    return dict(changes.get("audit", {}))


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--to", "form", type=click.Choice(tuple(_EXPORTS)), required=True, help="folder: PNG files by class. npz: MedMNIST's layout, train only.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder or the .npz file to write.")
@_JSON
def export(file: Path, form: str, out: Path, as_json: bool) -> None:
    """Write a set's images for other programs, as bytes 0 .. 255: values outside are clipped."""
    made = load_set(file)
    written = _EXPORTS[form](made, out)
    _answer(as_json, {"file": str(file), "out": str(written), "images": len(made.labels)}, f"wrote {written}: {len(made.labels)} images")


@cli.command()
@click.argument("grid", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder of notebooks and records; default: runs/GRID.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Cells side by side on this machine.")
@click.option("--cluster", metavar="ADDRESS", default=None, help="A Dask scheduler that runs the cells instead (pip install 'hoptm[cluster]').")
@click.option("--dry-run", is_flag=True, help="Print what each cell that is left will cost, and stop.")
@_JSON
def reproduce(grid: Path, out: Path | None, workers: int, cluster: str | None, dry_run: bool, as_json: bool) -> None:
    """Run a grid of notebooks: a TOML file, or table1, table2, which ship. Finished cells are left alone, a failed one stops no other."""
    try:
        import papermill  # noqa: F401  # what it starts needs it; here: every other command works without notebooks

        from hoptm import reproduce as grid_runs
    except ImportError as error:
        raise ConfigError(f"hoptm reproduce runs notebooks, which need more packages ({error}): pip install 'hoptm[book]'.") from error
    path = grid_runs.find_grid(grid)
    read, folder = read_grid(path), (out or Path("runs") / path.stem)
    left = grid_runs.left(read, folder)
    if not as_json or not dry_run:
        _say(f"{read.title}: {len(read.cells) - len(left)} of {len(read.cells)} cells are finished")
    if dry_run:
        prices = {cell.name: dataclasses.asdict(price(cell, read.shape)) for cell in left} if as_json else {}
        _answer(as_json, {"grid": read.title, "left": prices}, priced(left, read.shape))
        return
    _say(priced(left, read.shape))
    executor = None if cluster is None else grid_runs.dask_executor(cluster)
    outcomes = grid_runs.reproduce(read, folder, executor=executor, workers=workers, say=_say)
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    report = {"grid": read.title, "ran": len(outcomes), "failed": failed, "out": str(folder)}
    _answer(as_json, report, grid_runs.summary(read, folder))
    if failed:
        _say(f"{len(failed)} of {len(outcomes)} cells failed: {', '.join(failed)}. The same command runs them again.")
        sys.exit(1)


def main() -> None:
    """Entry point: errors a user can mend end in one line and status 2, Ctrl-C in 130."""
    torch.set_num_threads(1)
    try:
        cli.main(standalone_mode=False)
    except HoptmError as error:
        print(f"hoptm: {error}", file=sys.stderr)
        sys.exit(2)
    except click.exceptions.Abort:
        print("hoptm: stopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _judge(made: SyntheticSet, config: Config, splits: Splits) -> Evaluation:
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    return judge(net, made, splits.val, splits.test, config.evaluation, config.seed)


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
    if "match" in made.info["config"]:
        return from_dict(made.info["config"])
    if profile is None:
        raise FileError(f"{file}: it holds no settings, so it was not made by hoptm distill. Name a --profile to judge it by.")
    name, seed = made.info["source"].get("name", "unknown"), made.info["seed"] or 0
    return configure(name, method="endpoint", ipc=made.info["ipc"], seed=seed, profile=profile)


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
    if made.info["source"].get("checksum") != splits.info.checksum:
        _say(f"note: {splits.info.name} is not the file that {file} was made from (other checksum); the scores are for the data named here.")


def _check_source(made: SyntheticSet, splits: Selectable, file: Path) -> None:
    """Raises ConfigError for data that the set was not made from: its card would hold their scores under its own source."""
    if made.info["source"].get("checksum") != splits.info.checksum:
        words = f"{splits.info.name} is not what {file} was made from (other checksum), so its scores do not belong into that card"
        raise ConfigError(f"{words}. Leave --out away, or name the data it was made from.")


def _name(dataset: str) -> str:
    """A data set's name for the settings: a path stands for its last part, so that no machine's path is kept."""
    return Path(dataset).stem if Path(dataset).exists() else dataset


def _load(dataset: str, size: int | None) -> Splits:
    return single_label(load(dataset) if size is None else load(dataset, size=size))


def _check_out(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: the file must end in .safetensors.")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: no such folder. Make it first.")


def _provenance() -> dict[str, Any]:
    return {"commit": commit(), "versions": versions(), "device": device_words(), "peak_bytes": peak_bytes()}


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _answer(as_json: bool, report: dict[str, Any], words: str) -> None:
    print(json.dumps(report) if as_json else words)
