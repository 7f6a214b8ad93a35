"""The wheel, installed where no checkout is, carries all that it needs; and the setup cell leaves torch and numpy as they are."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import form_rules
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "HOPTM_CACHE")}
CARRIED = (
    "hoptm/golden/published_a.npz", "hoptm/golden/published_b.npz", "hoptm/tuned.json", "hoptm/large.json", "hoptm/transcribed.json", "hoptm/kernels.cpp",
    "hoptm/stored/records/phantom-fast-published-ipc10-seed0.json", "hoptm/stored/distilled/phantom-fast-published-ipc10-seed0.safetensors",
    "hoptm/stored/bench/growth.json", "hoptm/stored/reproduce/table.ipynb", "hoptm/stored/reproduce/table1.toml",
)  # fmt: skip
INSTALLED_BY_THE_CELL = ("hoptm", "medmnist", "fire", "jaxtyping", "wadler_lindig", "pooch", "safetensors", "filelock", "platformdirs")


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "book" / "release.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if os.environ.get("HOPTM_OFFLINE", "0") not in ("", "0"):
        missing = "a wheel is built by hatchling, which pip fetches: there is no network"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return {path.suffix: path for path in loaded().package(tmp_path_factory.mktemp("dist"))}


def environment(folder: Path, without: tuple[str, ...], *, pip: bool = False) -> Path:
    """A new virtual environment that sees this one's packages, except those of these names."""
    subprocess.run([sys.executable, "-m", "venv", *([] if pip else ["--without-pip"]), str(folder)], check=True)
    lent = folder / "lent"
    lent.mkdir()
    left_out = re.compile(rf"(_?(editable_)?|__editable__[._]*)({'|'.join(without)})([-.].*)?$|.*\.pth$|pip([-.].*)?$|__pycache__$")
    for entry in Path(metadata.distribution("torch").locate_file("")).iterdir():
        if not left_out.match(entry.name):
            (lent / entry.name).symlink_to(entry)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n")
    return folder / "bin" / "python"


def said(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env={**ELSEWHERE, "HOPTM_CACHE": str(cwd / "cache")}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_sdist_and_wheel_carry_what_runs_need(built: dict[str, Path]) -> None:
    assert set(built) == {".whl", ".gz"}
    names = set(zipfile.ZipFile(built[".whl"]).namelist())
    assert not set(CARRIED) - names
    assert not [name for name in names if re.search(r"__pycache__|\.lock$|\.state$", name)]
    with tarfile.open(built[".gz"]) as archive:
        kept = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"data/records/phantom-fast-published-ipc10-seed0.json", "book/reproduce/table1.toml", "pyproject.toml"} <= kept
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires = ["{loaded().BUILD}"]' in pyproject


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name != "posix", reason="an environment of symbolic links")
def test_the_wheel_verifies_and_distils_where_no_checkout_is(built: dict[str, Path], tmp_path: Path) -> None:
    python = environment(tmp_path / "clean", ("hoptm",))
    install = ("install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", built[".whl"])
    said(sys.executable, "-m", "pip", "--python", python, *install, cwd=tmp_path)
    where = said(python, "-c", "import hoptm; print(hoptm.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path / "clean" / "lib"), f"hoptm is not the wheel's: {where}"
    wanted = json.loads(said(python, "-c", "import json, importlib.metadata as m; print(json.dumps(m.requires('hoptm')))", cwd=tmp_path))
    plain = [Requirement(text) for text in wanted if "extra ==" not in text]
    assert len(plain) > 10
    for requirement in plain:
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), str(requirement)

    command = tmp_path / "clean" / "bin" / "hoptm"
    assert "equal: largest relative error" in said(command, "verify", cwd=tmp_path)
    out = ("--dataset", "phantom", "--ipc", "1", "--profile", "smoke", "--out", "set.safetensors")
    assert "wrote set.safetensors: 9 images" in said(command, "distill", *out, cwd=tmp_path)
    assert "phantom-smoke-published-ipc1-seed0" in said(command, "reproduce", "standin1", "--dry-run", cwd=tmp_path)
    ask = "from hoptm import records, results; print(len(records.read_records(results.stored('records'))))"
    assert int(said(python, "-c", ask, cwd=tmp_path)) == len(list((ROOT / "data" / "records").glob("*.json")))


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name != "posix", reason="an environment of symbolic links")
def test_the_setup_cell_leaves_torch_and_numpy_as_they_are(built: dict[str, Path], tmp_path: Path) -> None:
    """The cell as it stands, but for the source of hoptm, which is the wheel: where hoptm is published cannot be asked here."""
    python = environment(tmp_path / "colab", INSTALLED_BY_THE_CELL, pip=True)
    cell, count = re.subn(r'"hoptm @ git\+[^"]+"', repr(f"hoptm @ {built['.whl'].as_uri()}"), form_rules.SETUP)
    assert count == 1
    (tmp_path / "cell.py").write_text(f"import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n{cell}\n")
    ask = "import torch, numpy; print(torch.__version__, torch.__file__, numpy.__version__, numpy.__file__)"
    lacks = "import importlib.util as u; print(u.find_spec('hoptm'), u.find_spec('jaxtyping'))"
    before = said(python, "-c", ask, cwd=tmp_path)
    assert said(python, "-c", lacks, cwd=tmp_path).split() == ["None", "None"]
    said(python, "cell.py", cwd=tmp_path)
    assert said(python, "-c", ask, cwd=tmp_path) == before
    working = "import hoptm; s = hoptm.load('phantom:90'); c = hoptm.configure('phantom', method='published', ipc=1, seed=0); print(hoptm.__file__, s.classes)"
    where, classes = said(python, "-c", working, cwd=tmp_path).split()
    assert Path(where).is_relative_to(tmp_path / "colab" / "lib") and classes == "9"


def test_the_zip_of_the_site_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("<p>here</p>")
    (tmp_path / "site" / "sub" / "page.html").write_text("<p>there</p>")
    release = loaded()
    one, other = (release.zipped(tmp_path / "site", tmp_path / folder / "book.zip") for folder in ("a", "b") if not (tmp_path / folder).mkdir())
    assert one.read_bytes() == other.read_bytes()
    assert zipfile.ZipFile(one).namelist() == ["book/index.html", "book/sub/page.html"]
    release.checksums([one], tmp_path / "SHA256SUMS")
    assert re.fullmatch(r"[0-9a-f]{64}  book\.zip\n", (tmp_path / "SHA256SUMS").read_text())
    with pytest.raises(SystemExit, match="make book"):
        release.zipped(tmp_path / "nowhere", tmp_path / "no.zip")
