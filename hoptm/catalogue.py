"""What the publishers say of each data set: classes, task, licence, whom to cite, checksum.

The table of MedMNIST is read from the text of the installed `medmnist` package without running it, because importing it creates folders,
swallows errors and may pull in torchvision. Its own downloader is not used either.
"""

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoptm.errors import DataError

_PARTS = ("path", "chest", "derma", "oct", "pneumonia", "retina", "breast", "blood", "tissue", "organa", "organc", "organs")
MEDMNIST = tuple(f"{part}mnist" for part in _PARTS)
MEDMNIST_SIZES = (28, 64, 128, 224)
MEDMNIST_FILES = {(kind if pixels == 28 else f"{kind}_{pixels}"): (kind, pixels) for kind in MEDMNIST for pixels in MEDMNIST_SIZES}
"""The name of each official file, without its ending, with the set and the size in pixels that it holds."""
NAMES = (*MEDMNIST, "pbc-28", "pbc-28-small", "cxr-open", "phantom")
UPRIGHT: tuple[str, ...] = ("none", "dsa")
NO_UP_OR_DOWN: tuple[str, ...] = ("none", "dsa", "dihedral")
_SEEN_FROM_ANY_SIDE = ("pathmnist", "dermamnist", "bloodmnist", "tissuemnist")


@dataclass(frozen=True)
class Info:
    """What travels with a data set: names, licence, whom to cite, the checksum of its source, and a note that belongs beside every number.

    `task` is binary-class, multi-class, ordinal-regression or multi-label. `checksum` is `md5:` for MedMNIST files, as published, and
    `sha256:` for everything else. `augmentations` are those that fit the modality, the most natural last.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    task: str
    licence: str
    citation: str
    checksum: str
    note: str
    augmentations: tuple[str, ...]


_MEDMNIST_CITATION = "Yang et al., MedMNIST v2, Scientific Data 10:41 (2023), doi 10.1038/s41597-022-01721-8. Images: "
_KERMANY, _LITS = "Kermany et al., Cell 172(5) (2018)", "Bilic et al., Medical Image Analysis 84 (2023), and Xu et al., IEEE TMI 38(8) (2019)"
_IMAGES_OF = {
    "pathmnist": "Kather et al., PLOS Medicine 16(1) (2019)",
    "chestmnist": "Wang et al., CVPR 2017",
    "dermamnist": "Tschandl et al., Scientific Data 5:180161 (2018)",
    "octmnist": _KERMANY,
    "pneumoniamnist": _KERMANY,
    "retinamnist": "Liu et al., DeepDRiD, Patterns 3(6) (2022)",
    "breastmnist": "Al-Dhabyani et al., Data in Brief 28 (2020)",
    "bloodmnist": "Acevedo et al., Data in Brief 30 (2020)",
    "tissuemnist": "Ljosa et al., Nature Methods 9(7) (2012)",
    "organamnist": _LITS,
    "organcmnist": _LITS,
    "organsmnist": _LITS,
}
PBC = Info(
    name="pbc-28",
    title="PBC-28 (peripheral blood cells)",
    class_names=("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil", "platelet"),
    task="multi-class",
    licence="CC BY 4.0; changed: centre crop 200x200, bicubic resize to 28x28, 18 files left out, new split",
    citation="Acevedo et al., A dataset for microscopic peripheral blood cell images, Mendeley Data V1 (2020), doi 10.17632/snkd93bnjr.1",
    checksum="",
    note="PBC-28, not the official BloodMNIST",
    augmentations=NO_UP_OR_DOWN,
)
PBC_FILES = {
    "pbc_blood_28": ("pbc-28", "61c5d0d2a103ee5b5c95b86857427e60c150ccf613cc6fe61482a7f3dcb04324"),
    "pbc_blood_28_small": ("pbc-28-small", "c99ce6106c5f8c7f9d8ed79fac729ca2b2ba415a45d12d115d865a91e83938a0"),
}
CXR_FOLDER = "cxr_open_3class_112"
CXR = Info(
    name="cxr-open",
    title="Open chest X-rays (COVID, normal, pneumonia)",
    class_names=(),
    task="multi-class",
    licence="COVID: CC BY 3.0 (Hannover Medical School); NORMAL and PNEUMONIA: NIH ChestX-ray8, free use, link and acknowledge the NIH Clinical Center",
    citation="COVID: Winther et al., COVID-19 Image Repository, doi 10.25835/0090041. NORMAL, PNEUMONIA: Wang et al., ChestX-ray8, CVPR 2017",
    checksum="",
    note="class and hospital are confounded: no claim about diagnosis; COVID files name no patient",
    augmentations=UPRIGHT,
)


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """The table of medmnist's `info.py`, parsed as a literal: nothing of the package runs. Raises DataError when it is not installed."""
    spec = importlib.util.find_spec("medmnist")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for node in ast.parse((Path(folder) / "info.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "INFO":
                table: dict[str, dict[str, Any]] = ast.literal_eval(node.value)
                return table
    raise DataError("the table of MedMNIST sets cannot be found: install medmnist (pip install 'medmnist>=3,<4'), or use the generated set: phantom.")


def official_info(stem: str) -> Info:
    """What MedMNIST publishes of one of its files; `stem` is a key of `MEDMNIST_FILES`."""
    kind, pixels = MEDMNIST_FILES[stem]
    entry = published()[kind]
    return Info(
        name=stem,
        title=entry["python_class"] if pixels == 28 else f"{entry['python_class']} at {pixels} px",
        class_names=tuple(entry["label"][key] for key in sorted(entry["label"], key=int)),
        task="multi-label" if "multi-label" in entry["task"] else entry["task"],
        licence=entry["license"],
        citation=_MEDMNIST_CITATION + _IMAGES_OF[kind],
        checksum="md5:" + entry["MD5" if pixels == 28 else f"MD5_{pixels}"],
        note="",
        augmentations=NO_UP_OR_DOWN if kind in _SEEN_FROM_ANY_SIDE else UPRIGHT,
    )


def patient(path: Path) -> str:
    """The patient of a file of the open chest X-rays: NIH names are PATIENT_SCAN; others name none, so each image stands alone."""
    found = re.fullmatch(r"(\d{8})_\d{3}", path.stem)
    return found[1] if found else path.stem
