"""Preparation before the pixels come: the files of the next pointing, where that is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from gueststar.core import times
from gueststar.core.clock import Clock
from gueststar.model.expected import ExpectedExposure
from gueststar.operations.operator.facts import night_of
from gueststar.pipelines.engine.contract import Engine
from gueststar.pipelines.night.calibrations.known import APPLIED, CalibrationFinder
from gueststar.pipelines.night.prewarm import prewarm
from gueststar.store.expected import Expectations
from gueststar.store.ledger import ExposureRow, separation_deg
from gueststar.store.repo import SurveyRepo

AHEAD_S = 3600.0
"""Pointings further ahead than this are not prepared."""
_CALIBRATIONS_S = 600.0
"""How often it is asked anew which calibration products there are."""


class Pointing(NamedTuple):
    """What the next exposure will look at."""

    field: int
    physical_filter: str
    mjd_tai: float


class Prewarming:
    """Lets workers read ahead what the next pointing needs, once for each."""

    def __init__(self, repo: SurveyRepo, engine: Engine, *, clock: Clock) -> None:
        self.engine, self.clock = engine, clock
        self.last: Pointing | None = None
        self.use(repo)

    def use(self, repo: SurveyRepo) -> None:
        """Work with a repository that was opened anew."""
        self.repo, self._finder, self._found = repo, CalibrationFinder(repo), time.monotonic()

    def turn(self, received: ExposureRow | None) -> int:
        """Prepare the next pointing: the list's, or the field of the exposure that was ``received`` last.

        Returns the number of files that are read ahead.
        """
        pointing = self._next(received)
        if pointing is None or (self.last is not None and pointing[:2] == self.last[:2]):
            return 0
        self.last = pointing
        files = self.files_of(pointing)
        if files:
            self.engine.warm(prewarm, self.repo.root, tuple(files))
        return len(files)

    def _next(self, received: ExposureRow | None) -> Pointing | None:
        now = self.clock.now()
        rows = [
            row for row in Expectations(self.repo.ledger).of_night(night_of(now, self.repo.camera))
            if row.mjd_start is not None and row.observation_type == "science"
            and 0.0 <= times.unix(row.mjd_start) - now < AHEAD_S
        ]  # fmt: skip
        for row in sorted(rows, key=lambda item: item.mjd_start or 0.0):
            field = self._field_of(row)
            if field is not None and row.physical_filter is not None and row.mjd_start is not None:
                return Pointing(field, row.physical_filter, row.mjd_start)
        if received is None or received.info.field is None or received.info.physical_filter is None:
            return None
        return Pointing(received.info.field, received.info.physical_filter, received.info.mjd_tai)

    def _field_of(self, row: ExpectedExposure) -> int | None:
        if row.field is not None or row.ra is None or row.dec is None:
            return row.field
        tolerance = (self.repo.settings.field_tolerance_arcmin or self.repo.camera.pointing_tolerance_arcmin) / 60.0
        near = [(separation_deg(field.ra, field.dec, row.ra, row.dec), field.id) for field in self.repo.ledger.fields()]
        distance, number = min(near, default=(tolerance + 1.0, 0))
        return number if distance <= tolerance else None

    def files_of(self, pointing: Pointing) -> list[Path]:
        """Return the references and calibration products that exposures of a pointing need."""
        glass = self.repo.camera.filter_named(pointing.physical_filter)
        band = None if glass is None else glass.band
        files = [ref.path for ref in self.repo.find("reference_image", field=pointing.field, band=band)]
        files += [ref.path for ref in self.repo.find("reference_source", field=pointing.field, band=band)]
        if time.monotonic() - self._found > _CALIBRATIONS_S:
            self._finder, self._found = CalibrationFinder(self.repo), time.monotonic()
        for detector in self.repo.camera.detectors:
            found = (
                self._finder.path(kind, detector.id, pointing.mjd_tai, pointing.physical_filter) for kind in APPLIED
            )
            files += [path for path in found if path is not None]
        return files
