"""The GPU's benchmark: what is stored held when it was made and says where; without a GPU the script says that it measures nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hoptm.results import stored

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.py"


def test_the_stored_measurement_was_right_and_says_where():
    found = json.loads((stored("bench") / "gpu.json").read_text(encoding="utf-8"))
    assert found["device"].startswith("cuda") and not found["commit"].endswith("+")
    assert {(one["augmentation"], one["soft"], one["type"]) for one in found["checks"]} == {
        (name, soft, kind) for name in ("none", "dsa", "dihedral") for soft in (False, True) for kind in ("torch.float64", "torch.float32")
    }
    assert all(one["holds"] and one["error"] <= one["allowed"] for one in found["checks"])
    for setting in found["settings"]:
        arms = setting["arms"]
        assert arms[setting["plain"]]["time_ratio"] == arms[setting["plain"]]["memory_ratio"] == 1
        norms = [arm["gradient_norm"] for arm in arms.values()]
        assert max(norms) == pytest.approx(min(norms), rel=3e-3)  # all but the recorded arm may use TF32, as torch does unasked


def test_without_a_gpu_it_says_so():
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=hidden, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "torch sees no GPU here" in done.stderr and not done.stdout
