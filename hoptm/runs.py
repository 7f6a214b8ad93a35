"""One cell of a comparison, from experts to its record: made, judged, written down, and taken from there the next time.

A cell is an arm or a method on one data set at one budget and seed. The notebooks and `data/make_records.py` run their cells here.
"""

import contextlib
import dataclasses
import glob
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hoptm import kernels
from hoptm.arms import ARMS, arm
from hoptm.card import described
from hoptm.config import Config, MatchConfig, configure, from_dict, resolved
from hoptm.data import Selectable
from hoptm.distill import distill
from hoptm.errors import ConfigError
from hoptm.evaluate import Evaluation
from hoptm.experts import experts, steps_per_epoch
from hoptm.likeness import Likeness
from hoptm.outer import Look, State
from hoptm.privacy_card import of_set
from hoptm.records import Record, commit, device_words, peak_bytes, read_records, versions
from hoptm.results import WHOLE
from hoptm.synthetic import SyntheticSet


def configured(dataset: str, *, method: str, ipc: int, seed: int, profile: str) -> Config:
    """The settings of a cell. An arm of real images (`arms.ARMS`) takes network and evaluation of the end point. Raises as `configure`."""
    return configure(dataset, method="endpoint" if method in ARMS else method, ipc=ipc, seed=seed, profile=profile)


def make(
    config: Config, splits: Selectable, method: str, state: Path, callbacks: Sequence[Callable[[State, Look], None]] = ()
) -> tuple[SyntheticSet, dict[str, Any]]:
    """The set of an arm, or of a method after its distillation, with what was seen on the way.

    Where `splits` hold a test split, nothing here gets it. A distillation keeps its state in `state` and takes it up from there. Remove that file when the
    record is written, not before: a run that is killed while its set is judged then begins with the set.
    Raises as `arms.arm`, `experts.experts` and `distill.distill` do.
    """
    began, real = time.perf_counter(), splits.without_test
    if method in ARMS:
        found = arm(method, config, real)
        return found, {"make_seconds": time.perf_counter() - began, "made_with": found.info["config"]}
    paths = experts(config, real, progress=False, processes=1)
    trained = time.perf_counter()
    done = distill(config, real, paths, resume=state, callbacks=callbacks, progress=False)
    last = done.history[-1]
    seen = {"selection": done.synthetic.info["selection"], "lr": done.synthetic.lr, "last_total": last.total, "last_utilisation": last.utilisation}
    took = {"distil_seconds": time.perf_counter() - began, "expert_seconds": trained - began}
    return done.synthetic, {**seen, "dead_parameters": done.dead_parameters, **took}


def record_of(config: Config, splits: Selectable, method: str, found: Evaluation, seconds: float, extra: dict[str, Any]) -> Record:
    """The record of one judged cell, not yet written; `extra` is what `make` saw."""
    return Record(
        dataset={"name": splits.info.name, "checksum": splits.info.checksum}, method=method, ipc=0 if method in WHOLE else config.ipc, seed=config.seed,
        config=config.as_dict(), scores=found.as_dict(), seconds=seconds, peak_bytes=peak_bytes(),
        commit=commit(), versions=versions(), device=device_words(), extra={**extra, "engine": kernels.engine_name()},
    )  # fmt: skip


def carded(made: SyntheticSet, scores: Mapping[str, Any], config: Config, splits: Selectable, method: str, folder: Path, features: Likeness) -> SyntheticSet:
    """The set with what its card is to say: its test scores, those of as many random real images where they are on record, and the direct tests of leaks.

    Random images have the labels that the set has: a teacher's where the set carries soft ones. `features` as in `privacy_card.of_set`. Raises DataError
    when set and data do not fit.
    """
    other = record_path(folder, config, splits, "random" if made.soft is None else "random-teacher")
    rival = read_records(folder, glob.escape(other.name)) if other.is_file() else []
    return described(made, scores={"set": scores} | ({"random": rival[0].scores} if rival else {}), privacy=of_set(made, splits.without_test, features))


def record_of_set(made: SyntheticSet, splits: Selectable, folder: Path) -> Record | None:
    """The record of the run that made this very set: same data, and the same settings of all that shapes a set; None where there is none."""
    config = from_dict(made.info["config"])
    path, epoch = record_path(folder, config, splits, config.method), steps_per_epoch(len(splits.train.labels), config.experts.batch)
    for record in read_records(folder, glob.escape(path.name)) if path.is_file() else []:
        known, same = _settings(record), record.dataset["checksum"] == made.info["source"]["checksum"] == splits.info.checksum
        if known and same and all(getattr(resolved(known, epoch), part) == getattr(config, part) for part in ("network", "experts", "match", "latent")):
            return record
    return None


def record_path(folder: Path, config: Config, splits: Selectable, method: str) -> Path:
    """Where `records.write_record` puts the record of this cell."""
    return folder / f"{splits.info.name}-{config.profile}-{method}-ipc{0 if method in WHOLE else config.ipc}-seed{config.seed}.json"


def taken(folders: Sequence[Path], config: Config, splits: Selectable, method: str) -> Record | None:
    """The record of this very cell in one of the folders: same data by checksum, same settings; None where there is none.

    A record of the same name with other settings or data is passed over; an arm without a path (`arms.ARMS`) has no settings of matching, but which images it
    starts from. Raises FileError for a file that is no record.
    """
    for folder in folders:
        path = record_path(folder, config, splits, method)
        for record in read_records(folder, glob.escape(path.name)) if path.is_file() else []:
            known = _settings(record)
            if known and record.dataset["checksum"] == splits.info.checksum and shaping(known, method) == shaping(config, method):
                return record
    return None


def shaping(config: Config, method: str) -> Config:
    """The settings that shape a cell: all of them; for an arm or for all images, all but those of a path, which shape the teacher of `random-teacher` alone."""
    start = MatchConfig(first_images=config.match.first_images, per_class=config.match.per_class, class_power=config.match.class_power)
    return dataclasses.replace(config, match=start) if method in (*ARMS, *WHOLE) and method != "random-teacher" else config


def _settings(record: Record) -> Config | None:
    try:
        return from_dict(record.config)
    except ConfigError:
        return None


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the record at `path` to make; one that is there, or that another process is at, is left alone."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not path.exists()
    finally:
        lock.release()
