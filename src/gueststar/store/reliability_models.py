"""The reliability models of a survey: every version that was ever added, which one is in use, and since when."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.reliability_model import (
    default_reliability_model,
    read_reliability_model,
    write_reliability_model,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Use:
    """From when on a version was in use."""

    version: str
    mjd_tai: float
    person: str


class ReliabilityModels:
    """The folder ``models/reliability`` of a repository.

    A version is one JSON file (trees, calibration, card) with the ONNX network beside it; files are added, never
    changed. ``uses.json`` lists which version was in use since when, the last one now: taking an older version into
    use again is the way back. The version that ships with the package is always there.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "models" / "reliability"
        self._read: dict[str, ReliabilityModel] = {}

    def versions(self) -> tuple[str, ...]:
        """Return the names of all versions, that which ships first."""
        shipped = default_reliability_model().version
        added = sorted(path.stem for path in self.folder.glob("*.json") if path.stem != "uses")
        return (shipped, *(version for version in added if version != shipped))

    def model(self, version: str) -> ReliabilityModel:
        """Return one version; raises ConfigError if there is none of that name."""
        if version == default_reliability_model().version:
            return default_reliability_model()
        if version not in self._read:
            if version not in self.versions():
                raise ConfigError(f"there is no reliability model {version}; there are {', '.join(self.versions())}")
            self._read[version] = read_reliability_model(self.folder / f"{version}.json")
        return self._read[version]

    def add(self, model: ReliabilityModel) -> None:
        """Add a version; raises ConfigError if another model has that name (the same again changes nothing)."""
        if not _NAME.fullmatch(model.version) or model.version == "uses":
            raise ConfigError(f"{model.version!r} is no name for a reliability model: letters, digits, _ . + -")
        if model.version in self.versions():
            if not _is_same(self.model(model.version), model):
                raise ConfigError(f"there is another reliability model {model.version}: train with --name")
            return
        write_reliability_model(self.folder / f"{model.version}.json", model)

    def uses(self) -> tuple[Use, ...]:
        """Return the versions that were taken into use, in the order of time; empty: always that which ships."""
        path = self.folder / "uses.json"
        if not path.exists():
            return ()
        return tuple(Use(**use) for use in json.loads(path.read_text()))

    def use(self, version: str, *, person: str, mjd_tai: float | None = None) -> None:
        """Take a version into use, from the next image on; raises ConfigError if there is none of that name."""
        self.model(version)
        now = times.now_mjd_tai() if mjd_tai is None else mjd_tai
        uses = [*self.uses(), Use(version, now, person)]
        with appearing_whole(self.folder / "uses.json") as temporary:
            temporary.write_text(json.dumps([asdict(use) for use in uses], indent=1) + "\n")

    def in_use(self) -> ReliabilityModel | None:
        """Return the model in use; None if none was ever chosen (then it is that which ships)."""
        uses = self.uses()
        return self.model(uses[-1].version) if uses else None

    def rows(self) -> list[dict[str, Any]]:
        """Return what is to be told of every version: name, training set, figures, whether it is in use."""
        chosen = self.in_use() or default_reliability_model()
        return [_row(self.model(version), is_in_use=version == chosen.version) for version in self.versions()]


def _row(model: ReliabilityModel, *, is_in_use: bool) -> dict[str, Any]:
    card = model.training
    held_out = card.get("held_out", {})
    return {
        "version": model.version,
        "network": model.network_version,
        "is_in_use": is_in_use,
        "training_set": card.get("digest", ""),
        "n_real": card.get("n_real", 0),
        "n_artefact": card.get("n_artefact", 0),
        "area_under_curve": held_out.get("area_under_curve"),
        "calibration_error": held_out.get("calibration_error"),
        "missed_at_1_percent": held_out.get("missed_at_1_percent", {}).get("all"),
        "note": card.get("note", ""),
    }


def _is_same(one: ReliabilityModel, other: ReliabilityModel) -> bool:
    return one.training.get("digest") == other.training.get("digest") and one.network_version == other.network_version
