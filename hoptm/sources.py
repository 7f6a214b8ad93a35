"""Where a data set lies: the search for a file or folder by name or path, the check of its checksum, the download."""

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hoptm.catalogue import CXR, CXR_FOLDER, MEDMNIST, MEDMNIST_FILES, MEDMNIST_SIZES, NAMES, PBC, PBC_FILES, UPRIGHT, Info, official_info, patient, published
from hoptm.errors import DataError

_WAY_OUT = "Put it into a folder and set HOPTM_DATA to that folder, or use the generated set: phantom."


@dataclass(frozen=True)
class Source:
    """A file or folder on this machine with what is known of it; `group` tells which patient a file shows, where names tell."""

    path: Path
    info: Info
    group: Callable[[Path], str] | None = None


def find(name: str, root: str | Path | None = None, *, size: int | None = None) -> Source:
    """The file or folder of a named set or a path; a missing MedMNIST file is downloaded to the cache folder of medmnist.

    Looked at in turn: `root`, or else HOPTM_DATA, with their subfolder `medmnist`; the cache; the network, unless HOPTM_OFFLINE=1.
    Raises DataError naming every place tried, or a checksum that does not match, or near names for an unknown one.
    """
    official = _official(name, size)
    if official is not None:
        return _find_official(official, root)
    return _find_shared(name.lower(), root) if name.lower() in NAMES else _find_path(name, root)


def available(name: str, root: str | Path | None = None, *, size: int | None = None) -> bool:
    """Whether `load` finds the set without the network. It looks for the file, it does not read it.

    Raises DataError for a size in which MedMNIST does not come.
    """
    if is_phantom(name):
        return True
    official = _official(name, size)
    if official is not None:
        file = f"{official}.npz"
        return any(path.is_file() for path in [*_places(file, root), cache() / file])
    places = _shared_places(name.lower(), root) if name.lower() in NAMES else _path_places(name, root)
    return any(path.exists() for path in places)


def is_phantom(name: str) -> bool:
    """Whether the name asks for the generated set: `phantom`, or `phantom:COUNT`."""
    return name.lower().partition(":")[0] == "phantom"


def cache() -> Path:
    """The folder that the medmnist package uses."""
    return Path.home() / ".medmnist"


def digest(path: Path, kind: str) -> str:
    """`md5:…` or `sha256:…` of a file. Raises DataError when it cannot be read."""
    whole = hashlib.new(kind, usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                whole.update(part)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from error
    return f"{kind}:{whole.hexdigest()}"


def _official(name: str, size: int | None) -> str | None:
    """The official file's name without its ending, if the name is one of MedMNIST's: `pathmnist`, `PathMNIST`, `pathmnist_64`."""
    found = re.fullmatch(r"([a-z]+mnist)(?:_(\d+))?", name.lower())
    if found is None or found[1] not in MEDMNIST:
        return None
    named = int(found[2]) if found[2] else None
    if named is not None and size is not None and named != size:
        raise DataError(f"{name} and size={size} contradict each other. Leave one out.")
    pixels = named or (28 if size is None else size)
    if pixels not in MEDMNIST_SIZES:
        raise DataError(f"{found[1]} comes in {', '.join(map(str, MEDMNIST_SIZES))} pixels, not {pixels}. Choose one of these sizes.")
    return found[1] if pixels == 28 else f"{found[1]}_{pixels}"


def _find_official(stem: str, root: str | Path | None) -> Source:
    info, file = official_info(stem), f"{stem}.npz"
    for path in [*_places(file, root), cache() / file]:
        if path.is_file():
            found = digest(path, "md5")
            if found != info.checksum:
                words = f"{path}: wrong checksum, {found} instead of {info.checksum}. It is not the published file"
                raise DataError(f"{words}: delete it and load again, or fetch it anew.")
            return Source(path, info)
    tried = f"{_looked(root)}, {cache()}"
    if os.environ.get("HOPTM_OFFLINE", "") not in ("", "0"):
        raise DataError(f"cannot find {file}. Tried: {tried}; no download, because HOPTM_OFFLINE is set. {_WAY_OUT}")
    kind, pixels = MEDMNIST_FILES[stem]
    url = published()[kind]["url" if pixels == 28 else f"url_{pixels}"]
    try:
        return Source(_download(url, info.checksum, file), info)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot find {file}. Tried: {tried}, download from {url} ({_brief(error)}). {_WAY_OUT}") from error


def _brief(error: Exception) -> str:
    words = f"{type(error).__name__}: {error}"
    return words if len(words) <= 160 else words[:160] + "..."


def _download(url: str, checksum: str, file: str) -> Path:
    """Fetch to the cache, whole or not at all, in three attempts, with a bar on standard error. Raises OSError or ValueError."""
    import pooch  # here: only a download needs it

    pooch.get_logger().setLevel(logging.WARNING)
    fetcher = pooch.create(path=cache(), base_url="", registry={file: checksum}, urls={file: url}, retry_if_failed=2)
    return Path(fetcher.fetch(file, downloader=pooch.HTTPDownloader(progressbar=True, timeout=30)))


def _bases(root: str | Path | None) -> list[Path]:
    chosen = root if root is not None else os.environ.get("HOPTM_DATA") or None
    return [] if chosen is None else [Path(chosen).expanduser()]


def _places(file: str, root: str | Path | None) -> list[Path]:
    return [folder / file for base in _bases(root) for folder in (base, base / "medmnist")]


def _looked(root: str | Path | None) -> str:
    places = [f"{folder}" for base in _bases(root) for folder in (base, base / "medmnist")]
    return ", ".join(places) if places else "HOPTM_DATA (not set)"


def _shared_places(name: str, root: str | Path | None) -> list[Path]:
    """Where the two sets that have no download of their own may lie."""
    if name == "cxr-open":
        return [base / CXR_FOLDER for base in _bases(root)]
    file = next(stem for stem, (short, _) in PBC_FILES.items() if short == name) + ".npz"
    return [place for base in _bases(root) for place in (base / "pbc_blood_28" / file, base / file)]


def _find_shared(name: str, root: str | Path | None) -> Source:
    places = _shared_places(name, root)
    for path in places:
        if path.exists():
            source = _identify(path)
            if name != source.info.name:
                raise DataError(f"{path}: wrong checksum. It is not the file that {name} stands for: fetch it anew, or load it by its path.")
            return source
    tried = ", ".join(map(str, places)) or "HOPTM_DATA (not set)"
    raise DataError(f"cannot find {name}, which has no download. Tried: {tried}. {_WAY_OUT}")


def _path_places(name: str, root: str | Path | None) -> list[Path]:
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise DataError(f"cannot look for the data set {name[:80]!r}: there is no such user. Check the path.") from error
    return [path] if path.is_absolute() else [path, *(base / path for base in _bases(root))]


def _find_path(name: str, root: str | Path | None) -> Source:
    places = _path_places(name, root) if name.strip() else []
    for path in places:
        try:
            there = path.exists()
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise DataError(f"cannot look for the data set {name[:80]!r} ({error.strerror}). Check the path.") from error
        if there:
            return _identify(path)
    if not places or (os.sep not in name and "/" not in name and not name.endswith(".npz")):
        near = difflib.get_close_matches(name.lower(), NAMES, n=3, cutoff=0.5) or NAMES
        raise DataError(f"no data set {name!r}. Did you mean {', '.join(near)}? A path to an .npz file or an image folder will do as well.")
    raise DataError(f"no such file or folder. Tried: {', '.join(map(str, places))}. Check the path, or use the generated set: phantom.")


def _identify(path: Path) -> Source:
    """What is known of a file by its name, if its checksum bears the name out; otherwise only its checksum."""
    unknown = Info(path.stem, path.stem, (), "", "unknown: not stated in the file", "", "", "", UPRIGHT)
    if path.is_dir():
        known = path.name == CXR_FOLDER
        unknown = replace(unknown, name=path.resolve().name, title=path.resolve().name)
        return Source(path, CXR if known else unknown, patient if known else None)
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: neither an .npz file nor a folder. Give an .npz in MedMNIST's layout, or a folder with train/CLASS/* and test/CLASS/*.")
    checksum = digest(path, "sha256")
    if path.stem in PBC_FILES:
        name, expected = PBC_FILES[path.stem]
        if checksum == f"sha256:{expected}":
            return Source(path, replace(PBC, name=name, checksum=checksum, title=PBC.title + (", small" if name.endswith("small") else "")))
    if path.stem in MEDMNIST_FILES:
        info = official_info(path.stem)
        if digest(path, "md5") == info.checksum:
            return Source(path, info)
        return Source(path, replace(unknown, checksum=checksum, note=f"not the published {info.title}: another checksum"))
    return Source(path, replace(unknown, checksum=checksum))
