"""The calibration products that a repository holds for an exposure: found by the planner, read by workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gueststar.model.calibration import KINDS, CalibrationKind, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.refcat_import import FindCalibrations
from gueststar.store.product_files import read_product
from gueststar.store.products import product_named
from gueststar.store.repo import SurveyRepo

CalibrationPaths = Mapping[CalibrationKind, Path]
"""Files of the calibration products for one exposure and detector; kinds without one are absent."""


APPLIED: tuple[CalibrationKind, ...] = tuple(name for name, kind in KINDS.items() if kind.is_applied)
"""Kinds that exposures are calibrated with."""


class CalibrationFinder:
    """Finds the products that are valid for an exposure, asking the registry once for each kind, place and time."""

    def __init__(self, repo: SurveyRepo) -> None:
        self._find = lru_cache(maxsize=None)(repo.find_calibration)

    def paths(
        self, detector: int, info: ExposureInfo, kinds: Iterable[CalibrationKind] = APPLIED
    ) -> dict[CalibrationKind, Path]:
        """Return the files of the products of ``kinds`` that are valid when an exposure was taken."""
        found = {}
        for kind in kinds:
            glass = info.physical_filter if KINDS[kind].is_per_filter else None
            if KINDS[kind].is_per_filter and glass is None:
                continue
            if (ref := self._find(kind, detector, info.mjd_tai, glass)) is not None:
                found[kind] = Path(ref.path)
        return found


def read_calibrations(paths: CalibrationPaths) -> Calibrations:
    """Read calibration products; DataError for a file that is none."""
    return Calibrations(**{kind: _read(kind, path) for kind, path in paths.items()})


def calibrations_of(repo: SurveyRepo) -> FindCalibrations:
    """Return a function that reads what a repository holds for a detector and an exposure."""
    finder, read = CalibrationFinder(repo), lru_cache(maxsize=16)(_read)

    def find(detector: Detector, info: ExposureInfo) -> Calibrations:
        paths = finder.paths(detector.id, info)
        return Calibrations(**{kind: read(kind, path) for kind, path in paths.items()})

    return find


def _read(kind: CalibrationKind, path: Path) -> Any:
    return read_product(product_named(kind), path)
