"""Files of strangers: damaged by chance, or written with a valid seal and odd content. Each gives one clear error or loads; none crashes or runs code."""

import copy
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from toy_sets import toy

from hoptm import files
from hoptm.arms import first_images
from hoptm.card import card
from hoptm.card_page import page
from hoptm.config import configure, generator
from hoptm.errors import FileError
from hoptm.rendering import Decoded, Rendering, Upsampled
from hoptm.synthetic import SyntheticSet, from_real, load, provenance
from hoptm.vae import VaeConfig, untrained

SETTINGS = configure("halves", method="published", ipc=3, seed=0, profile="smoke").changed(
    network={"depth": 1, "width": 4}, evaluation={"steps": 2, "networks": 1, "sgd_lrs": (0.01,), "adamw_lrs": (0.002,)}
)
"""What a file says of its run, small enough that the commands can be run on what it asks for."""


def plain_set() -> SyntheticSet:
    splits = toy()
    info = provenance(splits, method="published", ipc=3, seed=0, config=SETTINGS.as_dict(), selection=[{"iteration": 2, "accuracy": 0.5, "auc": 0.75}])
    scores = {"set": {"scores": [{"auc": 0.5}]}}
    return from_real(splits, first_images(SETTINGS, splits), {**info, "scores": scores, "privacy": {"attack": 0.5}})


def rendered_set(rendering: Rendering, **more: Any) -> SyntheticSet:
    whole = plain_set()
    codes = rendering.initial(whole.images)
    with torch.no_grad():
        return replace(whole, images=rendering(codes), codes=codes, rendering=rendering, **more)


VAE = untrained(VaeConfig(dims=5, width=3), 1, 8, generator(1))
SOFT = torch.tensor([[0.9, 0.1]] * 3 + [[0.25, 0.75]] * 3)
SETS: dict[str, tuple[Callable[[], SyntheticSet], bool]] = {
    "pixels": (plain_set, False),
    "decoded, soft labels": (lambda: rendered_set(Decoded.by(VAE), soft=SOFT), False),
    "upsampled, half precision": (lambda: rendered_set(Upsampled()), True),
}
"""How the three files that are mutated are made, and whether they keep their images in half precision."""


class Whole(NamedTuple):
    """An untouched file: its bytes, what loads from it, and its content."""

    content: bytes
    read: SyntheticSet
    tensors: dict[str, torch.Tensor]
    header: dict[str, Any]
    scratch: Path


class Mutant(NamedTuple):
    """The bytes of a file, how they were mutated, and the name of the set that they were."""

    kind: str
    of: str
    content: bytes


# ---- damaged by chance ------------------------------------------------------------------------------------------


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flipped(whole: Whole, chance: random.Random) -> bytes:
    return flip(whole.content, chance)


def cut(whole: Whole, chance: random.Random) -> bytes:
    return whole.content[: chance.randrange(len(whole.content))]


def header_flipped(whole: Whole, chance: random.Random) -> bytes:
    """Bits of the header alone, its length among them."""
    end = 8 + int.from_bytes(whole.content[:8], "little")
    return flip(whole.content[:end], chance) + whole.content[end:]


def header_edited(whole: Whole, chance: random.Random) -> bytes:
    """Words of the header swapped for others of some length; the length is set right, so that only the content is odd."""
    end = 8 + int.from_bytes(whole.content[:8], "little")
    header = whole.content[8:end]
    places = list(re.finditer(rb'[\w./]+|\[|\]|\{|\}|"|:|,', header))
    for _ in range(chance.choice((1, 2, 5))):
        place = chance.choice(places)
        new = chance.choice(
            (b"", b"0", b"-1", b"1e999", b"null", b'"', b"{", b"]", b"F64", b"BF16", b"99999999999999999999", b"[" * 50, b"\xff\xfe", b"images")
        )
        header = header[: place.start()] + new + header[place.end() :]
    return len(header).to_bytes(8, "little") + header + whole.content[end:]


# ---- written by somebody else, with a valid seal -------------------------------------------------------------------

ODD = (None, 0, -1, 10**400, 1e308, True, "", "x" * 10_000, "\ud800", [], {}, [[[]]], {"": {}}, [1, "a", None], {"iteration": 1, "auc": "high"})
ODD_SETTINGS = (None, "x", [], {}, -1, 0, 7, 2.5, True, 10**30, 2**62, 1e308, [1, 2], [0.5, "x"], ["x" * 1000], "\ud800", "random", "herding")


def sealed(whole: Whole, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> bytes:
    files.write_tensors(whole.scratch, tensors, header)
    return whole.scratch.read_bytes()


def resealed_description(whole: Whole, chance: random.Random) -> bytes:
    header = copy.deepcopy(whole.header)
    info = header["set"]
    for _ in range(chance.choice((1, 1, 3))):
        part = chance.choice([info, *[value for value in info.values() if isinstance(value, dict | list) and value]])
        part[chance.choice(list(part) if isinstance(part, dict) else list(range(len(part))))] = chance.choice(ODD)
    return sealed(whole, whole.tensors, header)


def resealed_settings(whole: Whole, chance: random.Random) -> bytes:
    """One setting of the run, which `hoptm evaluate` and `hoptm audit` read from the file."""
    header = copy.deepcopy(whole.header)
    config = header["set"]["config"]
    part = chance.choice([config, *[value for value in config.values() if isinstance(value, dict)], config["evaluation"], config["network"]])
    part[chance.choice(list(part))] = chance.choice(ODD_SETTINGS)
    return sealed(whole, whole.tensors, header)


TENSORS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda one: one[:0],
    lambda one: one[..., :-1],
    lambda one: one[None],
    lambda one: one.flatten(),
    lambda one: torch.cat([one, one]),
    lambda one: one.reshape(-1, 1),
    lambda one: torch.zeros_like(one),
    lambda one: one * float("nan"),
    lambda one: one * 10_000_000,
    lambda one: -one,
    lambda one: one.roll(1),
    lambda one: one.double(),
    lambda one: one.half(),
    lambda one: one.bfloat16(),
    lambda one: one.to(torch.int32),
    lambda one: one > 0,
    lambda one: one.to(torch.complex64),
    lambda one: torch.zeros(0, 2**62),
)
"""What becomes of a tensor; the seal is made anew."""


def resealed_tensors(whole: Whole, chance: random.Random) -> bytes:
    tensors = dict(whole.tensors)
    name = chance.choice(sorted(tensors))
    way = chance.randrange(len(TENSORS) + 2)
    if way < len(TENSORS):
        tensors[name] = TENSORS[way](tensors[name])
    else:
        moved = tensors.pop(name)
        tensors |= {chance.choice(("extra", "decoder.9.weight", "soft", "codes")): moved} if way == len(TENSORS) else {}
    return sealed(whole, tensors, whole.header)


def resealed_rendering(whole: Whole, chance: random.Random) -> bytes:
    header = copy.deepcopy(whole.header)
    described = header.get("rendering") or {"name": "pixels", "config": {}}
    way = chance.randrange(4)
    if way == 0 or not described["config"]:
        described["name"] = chance.choice(("decoded", "upsampled", "pixels", "__init__", "", None, [], {}))
    elif way == 1:
        described["config"] = chance.choice((*ODD, {**described["config"], "more": 1}))
    else:
        key = chance.choice(sorted(described["config"]))
        described["config"][key] = chance.choice((*ODD, 1, 2, 8, 2.0, 1024, 2**40, str(described["config"][key])))
    header["rendering"] = chance.choice(ODD) if chance.randrange(10) == 0 else described
    return sealed(whole, whole.tensors, header)


DAMAGED = (flipped, cut, header_flipped, header_edited)
RESEALED = (resealed_description, resealed_settings, resealed_tensors, resealed_rendering)
ROUNDS = 22


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    found, folder = {}, tmp_path_factory.mktemp("wholes")
    for number, (name, (make, half)) in enumerate(SETS.items()):
        path = folder / f"{number}.safetensors"
        make().save(path, half=half)
        found[name] = Whole(path.read_bytes(), load(path), *files.read_tensors(path), folder / "scratch")
    return found


@pytest.fixture(scope="module")
def mutants(wholes: dict[str, Whole]) -> list[Mutant]:
    """The same 528 files in every run: each mutation of each of the three sets, 22 times."""
    chance = random.Random(20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _handle: None)
        return [Mutant(way.__name__, name, way(whole, chance)) for _ in range(ROUNDS) for way in (*DAMAGED, *RESEALED) for name, whole in wholes.items()]


def test_the_three_sets_are_what_they_are_called(wholes: dict[str, Whole]) -> None:
    kept = {name: ("codes" in whole.tensors, "soft" in whole.tensors, whole.tensors["images"].dtype) for name, whole in wholes.items()}
    wanted = [(False, False, torch.float32), (True, True, torch.float32), (True, False, torch.float16)]
    assert list(kept.values()) == wanted and list(kept) == list(SETS)


def test_five_hundred_mutated_files(mutants: list[Mutant], wholes: dict[str, Whole], tmp_path: Path) -> None:
    """Each gives a FileError that names the file, or loads: with the same content where the seal is the old one, and with a card in any case."""
    path, outcome = tmp_path / "set.safetensors", {way.__name__: Counter[str]() for way in (*DAMAGED, *RESEALED)}
    for kind, of, content in mutants:
        path.write_bytes(content)
        try:
            found = load(path)
        except FileError as error:
            assert "set.safetensors" in str(error)
            outcome[kind]["refused"] += 1
            continue
        outcome[kind]["loaded"] += 1
        assert card(found).text.encode("utf-8") and page(found).encode("utf-8")
        whole = wholes[of].read
        assert kind == "resealed_tensors" or (torch.equal(found.images, whole.images) and torch.equal(found.labels, whole.labels) and found.lr == whole.lr)
        assert kind in ("resealed_description", "resealed_settings") or found.info == whole.info
    assert sum(sum(counts.values()) for counts in outcome.values()) == len(mutants) >= 500
    assert outcome["cut"] == {"refused": 3 * ROUNDS} and all(outcome[way.__name__]["refused"] > 2.7 * ROUNDS for way in DAMAGED), outcome
    assert outcome["resealed_settings"]["loaded"] == 3 * ROUNDS and all(outcome[way.__name__]["loaded"] >= 3 for way in RESEALED), outcome
    assert all(outcome[way.__name__]["refused"] > 10 for way in RESEALED if way is not resealed_settings), outcome


READ = """
import contextlib, io, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
from toy_sets import toy
from hoptm import cli, judging_commands, likeness
from hoptm.card import card
from hoptm.card_page import page
from hoptm.errors import FileError
from hoptm.synthetic import load

torch.set_num_threads(1)
likeness._STEPS = 2  # what the network sees is not at stake here
splits, elsewhere, out = toy(), judging_commands.load_named, Path(sys.argv[3]) / "audited.safetensors"
judging_commands.load_named = lambda name, size: splits if name == "halves" else elsewhere(name, size)  # the data set that the files name

def command(*words):
    sys.argv = ["hoptm", *map(str, words)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            cli.main()
        except SystemExit as done:
            assert done.code == 2 and said.getvalue().startswith(("hoptm: ", "note: ", "estimate: ")), (done.code, said.getvalue())
            return "refused"
    return "done"

for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        found = load(path)
        said = [str(bool(card(found).text and page(found)))]
        if "resealed_description" in path.name or "resealed_settings" in path.name:
            said += [command("evaluate", path), command("audit", path, "--out", out)]
    except FileError as error:
        said = ["refused" if path.name in str(error) else "refused without a name"]
    print(path.name, *said, flush=True)
"""


def read_aside(script: str, inside: Path, *more: Path) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, on a folder of files; a crash is its return code, and the files after it are missing from what it prints."""
    words = [sys.executable, "-c", script, str(inside), str(Path(__file__).parent), *map(str, more)]
    return subprocess.run(words, capture_output=True, text=True, timeout=550, check=False, env={**os.environ, "HOPTM_OFFLINE": "1"})


def written(mutants: list[Mutant], inside: Path) -> Path:
    inside.mkdir()
    for number, (kind, _, content) in enumerate(mutants):
        (inside / f"{number:03d}-{kind}.safetensors").write_bytes(content)
    return inside


@pytest.mark.timeout(600)
def test_the_interpreter_survives_and_runs_nothing(mutants: list[Mutant], tmp_path: Path) -> None:
    """All files in a process of their own: no traceback, no signal, no new file; those with a stranger's settings are also judged and audited as they ask."""
    inside = written(mutants, tmp_path / "inside")
    done = read_aside(READ, inside, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert len(said) == len(mutants) == len(list(inside.iterdir())), done.stdout[-300:]
    assert set(said) <= {"refused", "True", *(f"True {one} {other}" for one in ("done", "refused") for other in ("done", "refused"))}, set(said)
    assert said.count("refused") > 370 and min(said.count("True done done"), said.count("True refused refused")) > 10, Counter(said)
    assert {path.name for path in tmp_path.iterdir()} == {"inside", "audited.safetensors"}


def test_a_crash_would_be_seen(mutants: list[Mutant], tmp_path: Path) -> None:
    """The same reader, made to die by a signal at the third file: its code says so and later files are missing."""
    inside = written(mutants[:10], tmp_path / "inside")
    die = "    if path.name.startswith('002'): import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n"
    dying = READ.replace("    try:\n        found", die + "    try:\n        found")
    done = read_aside(dying, inside, tmp_path)
    assert done.returncode != 0 and len(done.stdout.splitlines()) == 2


EVERY_SETTING = """
import copy, json, sys
from collections import Counter
from hoptm.config import from_dict
from hoptm.errors import ConfigError

whole, odd = json.loads(sys.argv[1])
count, sevens = Counter(), 0
for name, part in [(None, whole), *[(name, part) for name, part in whole.items() if isinstance(part, dict)]]:
    for key in part:
        for value in odd:
            changed = copy.deepcopy(whole)
            (changed if name is None else changed[name])[key] = value
            try:
                found = from_dict(changed)
                count["fits"] += 1
                sevens += value == 7 and type(part[key]) is float
            except ConfigError as error:
                assert len(str(error)) < 400 and "\\n" not in str(error), error
                count["refused"] += 1
print(json.dumps([count, sevens]))
"""


def test_every_setting_takes_a_value_or_gives_one_clear_error() -> None:
    """Each setting of a stored configuration set to each odd value, without the type checks of the tests: ConfigError or a configuration, nothing else."""
    plain = SETTINGS.as_dict()
    settings = len(plain) + sum(len(part) for part in plain.values() if isinstance(part, dict))
    words = [sys.executable, "-c", EVERY_SETTING, json.dumps([plain, ODD_SETTINGS])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    count, sevens = json.loads(done.stdout)
    assert sum(count.values()) == settings * len(ODD_SETTINGS) > 1000 and count["fits"] > 100
    assert sevens > 5, "a whole number serves for any number"


@pytest.mark.parametrize("levels", [60, 900, 200_000])
def test_deep_nesting_is_refused(tmp_path: Path, levels: int) -> None:
    plain_set().save(tmp_path / "set.safetensors")
    content = (tmp_path / "set.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    old = b'\\"selection\\": ['
    assert content.count(old) == 1
    header = content[8:end].replace(old, old + b"[" * levels + b"]" * levels + b", ")
    (tmp_path / "set.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    with pytest.raises(FileError, match=r"set\.safetensors.*not written by hoptm"):
        load(tmp_path / "set.safetensors")
