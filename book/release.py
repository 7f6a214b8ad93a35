"""What is given out: sdist, wheel and the site as a zip, with their checksums, in `dist/`: `make release`.

The package is built as pip builds it, in a fresh environment that holds what `pyproject.toml` asks for and nothing else.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = "hatchling>=1.26"
"""As in `build-system.requires`; a test compares the two."""


def package(out: Path) -> list[Path]:
    """Build sdist and wheel into `out`; returns their paths. Raises CalledProcessError when pip or the build fails."""
    with tempfile.TemporaryDirectory(prefix="hoptm-build-") as folder:
        venv.create(folder, with_pip=False)
        python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", BUILD], check=True)
        subprocess.run([str(python), "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True)
    return sorted([*out.glob(f"hoptm-{version('hoptm')}.tar.gz"), *out.glob(f"hoptm-{version('hoptm')}-*.whl")])


def zipped(site: Path, target: Path) -> Path:
    """The rendered site in one file that unpacks to one folder; the same pages give the same bytes. Exits when there is no site."""
    if not (site / "index.html").is_file():
        sys.exit(f"No site at {site}. Run: make book")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in site.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{target.stem}/{path.relative_to(site).as_posix()}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return target


def checksums(files: list[Path], target: Path) -> None:
    """A line a file, as `sha256sum --check` reads it."""
    target.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files), encoding="utf-8")


def main() -> None:
    """Build everything anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    files = [*package(options.out.resolve()), zipped(options.site, options.out / f"hoptm-{version('hoptm')}-site.zip")]
    checksums(files, options.out / "SHA256SUMS")
    print("\n".join(f"{path.name:40s} {path.stat().st_size / 1e6:6.1f} MB" for path in files))


if __name__ == "__main__":
    main()
