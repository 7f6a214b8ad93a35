"""Records and measurements whose outcome is known."""

import dataclasses
from typing import Any

from hoptm.config import configure
from hoptm.records import Record
from hoptm.verdicts import Claim, Evidence, Measured


def record(method: str, seed: int, accuracy: float, *, dataset: str = "pneumoniamnist", ipc: int = 4, profile: str = "tuned", **changes: Any) -> Record:
    scores = [{"accuracy": accuracy + shift, "auc": accuracy + shift + 0.01} for shift in (-0.01, 0.01)]
    config = {**configure("pneumoniamnist", method="endpoint", ipc=max(ipc, 1), seed=seed, profile="fast").as_dict(), "profile": profile, **changes}
    return Record({"name": dataset, "checksum": ""}, method, ipc, seed, config, {"scores": scores, "recipe": {"steps": 1}}, 1.0, 1, "abc", {}, "cpu")


def arm(method: str, values: list[float], **changes: Any) -> list[Record]:
    return [record(method, seed, value, **changes) for seed, value in enumerate(values)]


GAIN = {"bound": 0.0, "above": True, "needs": 3}


def measured(*values: float, **changes: object) -> Measured:
    return Measured("accuracy", values, **{**GAIN, **changes})  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Given:
    """A comparison whose outcome is known."""

    found: Measured

    def measure(self, evidence: Evidence) -> Measured:
        return self.found


def claim(*found: Measured, words: str = "it helps", where: str = "here") -> Claim:
    return Claim(words, where, "project", "a test", tuple(Given(one) for one in found))


WON, LOST, OPEN, FEW = measured(0.1, 0.11, 0.12), measured(-0.1, -0.11, -0.12), measured(-0.1, 0.0, 0.12), measured(0.1, 0.11)
