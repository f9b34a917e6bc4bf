"""Calibration masters out of a repository."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from gueststar.formats.calibration_master import read_calibration_master
from gueststar.model.calibration import CalibrationKind, CalibrationMaster
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.refcat_import import FindMasters, Masters
from gueststar.store.repo import SurveyRepo


def masters_of(repo: SurveyRepo) -> FindMasters:
    """Return a function that finds the masters a repository holds for a detector and an exposure."""
    read = lru_cache(maxsize=4)(read_calibration_master)

    def find(kind: CalibrationKind, detector: Detector, info: ExposureInfo) -> CalibrationMaster | None:
        found = repo.find_calibration(kind, detector.id, info.mjd_tai, physical_filter=info.physical_filter)
        return read(Path(found.path)) if found else None

    return lambda detector, info: Masters(
        find("bias", detector, info), find("dark", detector, info), find("flat", detector, info)
    )
