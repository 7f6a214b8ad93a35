"""The commands, for people who do not open notebooks.

`hoptm distill` makes a synthetic set by one of the methods that `hoptm methods` explains, `hoptm evaluate` judges one beside random real images and can
write its scores into a copy of its file, `hoptm card` shows what a file says of itself, `hoptm audit` what it gives away, `hoptm export` writes it for
other programs, `hoptm verify` replays frozen numbers of the published method, `hoptm reproduce` runs a grid of notebooks.
With `--json` the standard output holds one JSON object and nothing else; progress and estimates go to standard error.
"""

import dataclasses
import sys
import textwrap
import time
from pathlib import Path

import click
import torch

from hoptm import verify as golden
from hoptm.config import DESCRIBED, METHODS, PROFILES, PROFILES_DESCRIBED, configure
from hoptm.console import JSON, SIZE, answer, check_out, load_named, made_here, say, short_name
from hoptm.cost import estimate
from hoptm.distill import distill as run_distillation
from hoptm.errors import ConfigError, FileError, HoptmError
from hoptm.experts import experts
from hoptm.exports import to_folder, to_npz
from hoptm.grids import price, priced, read_grid
from hoptm.judging_commands import audit, card, evaluate
from hoptm.records import versions
from hoptm.settings import changes_of
from hoptm.synthetic import load as load_set

_EXPORTS = {"folder": to_folder, "npz": to_npz}


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
@SIZE
@JSON
def distill(dataset: str, ipc: int, method: str, profile: str, seed: int, out: Path, settings: tuple[str, ...], size: int | None, as_json: bool) -> None:
    """Make a synthetic set. Stop with Ctrl-C at any time: the same command goes on from there."""
    check_out(out)
    config = configure(short_name(dataset), method=method, ipc=ipc, seed=seed, profile=profile).changed(**changes_of(settings))
    splits = load_named(dataset, size).without_test
    say(str(estimate(config, splits)))
    state = out.with_name(out.name + ".state")
    if state.exists():
        say(f"going on from {state}")
    began = time.perf_counter()
    paths = experts(config, splits)
    trained = time.perf_counter()
    done = run_distillation(config, splits, paths, resume=state)
    done.synthetic.save(out)
    state.unlink(missing_ok=True)
    report = {
        "file": str(out), "config": config.as_dict(), "images": len(done.synthetic.labels), "lr": done.synthetic.lr,
        "selection": done.synthetic.info["selection"],
        "last": dataclasses.asdict(done.history[-1]), "expert_seconds": trained - began, "seconds": time.perf_counter() - trained, **made_here(),
    }  # fmt: skip
    answer(as_json, report, f"wrote {out}: {report['images']} images. Judge them with: hoptm evaluate {out}")


@cli.command()
@JSON
def methods(as_json: bool) -> None:
    """List every method and every profile of `hoptm distill`, and say what each does."""
    parts = {"--method": DESCRIBED, "--profile": PROFILES_DESCRIBED}
    lines = []
    for option, known in parts.items():
        lines += [f"{option}", *(_hanging(name, words) for name, words in known.items()), ""]
    words = "A method is what it sets over its profile; --set changes any setting of it. What the settings mean: hoptm.settings, in the book's reference."
    answer(as_json, {option.strip("-"): dict(found) for option, found in parts.items()}, "\n".join([*lines, textwrap.fill(words, 80)]))


def _hanging(name: str, words: str) -> str:
    """A name and what it means on lines of 80 characters at most."""
    return textwrap.fill(words, 80, initial_indent=f"  {name:16s}  ", subsequent_indent=" " * 20)


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@JSON
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
    answer(as_json, report, "\n".join(lines))
    if not passed:
        sys.exit(1)


for _command in (evaluate, card, audit):
    cli.add_command(_command)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--to", "form", type=click.Choice(tuple(_EXPORTS)), required=True, help="folder: PNG files by class. npz: MedMNIST's layout, train only.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder or the .npz file to write.")
@JSON
def export(file: Path, form: str, out: Path, as_json: bool) -> None:
    """Write a set's images for other programs, as bytes 0 .. 255: values outside are clipped."""
    made = load_set(file)
    written = _EXPORTS[form](made, out)
    answer(as_json, {"file": str(file), "out": str(written), "images": len(made.labels)}, f"wrote {written}: {len(made.labels)} images")


@cli.command()
@click.argument("grid", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder of notebooks and records; default: runs/GRID.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Cells side by side on this machine.")
@click.option("--cluster", metavar="ADDRESS", default=None, help="A Dask scheduler that runs the cells instead (pip install 'hoptm[cluster]').")
@click.option("--dry-run", is_flag=True, help="Print what each cell that is left will cost, and stop.")
@JSON
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
        say(f"{read.title}: {len(read.cells) - len(left)} of {len(read.cells)} cells are finished")
    if dry_run:
        prices = {cell.name: dataclasses.asdict(price(cell, read.shape)) for cell in left} if as_json else {}
        answer(as_json, {"grid": read.title, "left": prices}, priced(left, read.shape))
        return
    say(priced(left, read.shape))
    executor = None if cluster is None else grid_runs.dask_executor(cluster)
    outcomes = grid_runs.reproduce(read, folder, executor=executor, workers=workers, say=say)
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    report = {"grid": read.title, "ran": len(outcomes), "failed": failed, "out": str(folder)}
    answer(as_json, report, grid_runs.summary(read, folder))
    if failed:
        say(f"{len(failed)} of {len(outcomes)} cells failed: {', '.join(failed)}. The same command runs them again.")
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
