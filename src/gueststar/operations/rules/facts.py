"""What rules are told of an exposure and of the survey, gathered cheaply: what seldom changes is remembered."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from gueststar.core import times
from gueststar.model.calibration import KINDS, CalibrationKind
from gueststar.model.camera import Camera
from gueststar.operations.rules.contract import CalibrationSet, ExposureFacts, SurveyFacts
from gueststar.operations.rules.good_epochs import GoodEpochs
from gueststar.operations.rules.record import in_force_since, operated_since, signal_times, started_last
from gueststar.operations.rules.sun import night_after, sun_altitude_deg, survey_night
from gueststar.pipelines.night.plan import REQUIRED_KINDS
from gueststar.store.ledger import ExposureRow
from gueststar.store.operation_facts import OperationFacts
from gueststar.store.products import DataId
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

ASKED_AGAIN_S = 10.0
"""What was not there is looked for again after this long; what was there is believed."""

MAX_RADIUS_DEG = 1.0
"""Stars are counted out to the corner of the camera's field, but not further than this."""

RECENT_NIGHTS = 3
"""Of so many nights before the running one rules are told the calibration frames that came."""

CATCH_UP_NIGHTS = 40
"""Of so many nights before the running one rules are told what was received: those are caught up after an absence."""

OLDER_AGAIN_S = 60.0
"""What was received in nights before the recent ones is looked up this often."""

Monotonic = Callable[[], float]


class ExposureFactsSource:
    """Gathers what rules may ask of exposures; one for a process."""

    def __init__(self, repo: SurveyRepo, *, monotonic: Monotonic = time.monotonic) -> None:
        self.repo = repo
        self._references = _References(repo, monotonic)
        self._calibrations = _CalibrationSpans(repo, monotonic)
        self._densities: dict[tuple[int | None, float, float], float | None] = {}
        self._refcats = RefcatStore(repo.root / "refcats")
        self._radius_deg = min(field_radius_deg(repo.camera), MAX_RADIUS_DEG)

    def facts(self, row: ExposureRow, *, now: float) -> ExposureFacts:
        """Return what rules may ask of an exposure at a Unix time."""
        return ExposureFacts(
            exposure=row, night=survey_night(self.repo.camera.site, now), age_s=age_s(row, now),
            stars_per_deg2=self._density(row), has_reference=self._references.are_there(row),
            has_calibrations=self._calibrations.are_valid(row),
        )  # fmt: skip

    def forget(self) -> None:
        """Look for everything again: references, calibrations or catalogs have changed."""
        self._references.forget()
        self._calibrations.forget()
        self._densities.clear()

    def _density(self, row: ExposureRow) -> float | None:
        """Return the stars per square degree at an exposure's place; once for a field."""
        info = row.info
        if info.ra is None or info.dec is None or not self.repo.camera.has_sky:
            return None
        key = (info.field, 0.0, 0.0) if info.field is not None else (None, round(info.ra, 1), round(info.dec, 1))
        if key not in self._densities:
            count = self._refcats.count(ra=info.ra, dec=info.dec, radius_deg=self._radius_deg)
            if not count:
                return None  # a catalog may still be brought
            area = 2.0 * math.pi * (1.0 - math.cos(math.radians(self._radius_deg))) * math.degrees(1.0) ** 2
            self._densities[key] = count / area
        return self._densities[key]


class _References:
    """Which detectors of a field have a reference in a band."""

    def __init__(self, repo: SurveyRepo, monotonic: Monotonic) -> None:
        self.repo, self._monotonic = repo, monotonic
        self._known: dict[tuple[int, str], tuple[float, frozenset[int | None]]] = {}

    def forget(self) -> None:
        self._known.clear()

    def are_there(self, row: ExposureRow) -> bool:
        """Return whether every detector of an exposure has its reference."""
        info = row.info
        if info.field is None or info.band is None:
            return False
        asked, detectors = self._known.get((info.field, info.band), (-math.inf, frozenset()))
        if not detectors.issuperset(row.detectors) and self._monotonic() - asked > ASKED_AGAIN_S:
            found = self.repo.find("reference_image", field=info.field, band=info.band)
            detectors = frozenset(ref.data_id.detector for ref in found)
            self._known[info.field, info.band] = self._monotonic(), detectors
        return detectors.issuperset(row.detectors)


class _CalibrationSpans:
    """When the calibration products that science waits for are valid."""

    def __init__(self, repo: SurveyRepo, monotonic: Monotonic) -> None:
        self.repo, self._monotonic = repo, monotonic
        self.forget()

    def forget(self) -> None:
        self._asked = -math.inf
        self._needed: frozenset[tuple[str, str | None]] = frozenset()
        self._spans: dict[tuple[CalibrationKind, DataId], list[tuple[float, float]]] = {}

    def are_valid(self, row: ExposureRow) -> bool:
        """Return whether every detector has the products that the camera needs, as far as it takes such frames."""
        if not math.isfinite(self._asked):
            self._ask()
        if not self._are_valid(row) and self._monotonic() - self._asked > ASKED_AGAIN_S:
            self._ask()
        return self._are_valid(row)

    def _are_valid(self, row: ExposureRow) -> bool:
        info = row.info
        for kind in REQUIRED_KINDS:
            if (kind, info.physical_filter if kind == "flat" else None) not in self._needed:
                continue
            glass = info.physical_filter if KINDS[kind].is_per_filter else None
            for detector in row.detectors:
                spans = self._spans.get((kind, DataId(detector=detector, physical_filter=glass)), ())
                if not any(begin <= info.mjd_tai < end for begin, end in spans):
                    return False
        return True

    def _ask(self) -> None:
        self._asked = self._monotonic()
        self._needed = OperationFacts(self.repo.ledger).kinds_of_frames()
        self._spans = {}
        for kind in REQUIRED_KINDS:
            for data_id, span in self.repo.calibration_spans(kind) if self._needed else ():
                self._spans.setdefault((kind, data_id), []).append(span)


class SurveyFactsSource:
    """Gathers what rules that follow the clock may ask, from the ledger, the disks and the sun."""

    def __init__(self, repo: SurveyRepo, *, monotonic: Monotonic = time.monotonic) -> None:
        self.repo, self._monotonic = repo, monotonic
        self._facts = OperationFacts(repo.ledger)
        self._epochs = GoodEpochs(repo)
        self._since: float | None = None
        self._rules_since: dict[str, float] = {}
        self._present_since = 0.0
        self._older: tuple[int, float, dict[int, int]] = (0, -math.inf, {})

    def facts(
        self,
        *,
        now: float,
        signals: frozenset[str] = frozenset(),
        is_idle: bool = True,
        idle_since: float | None = None,
    ) -> SurveyFacts:
        """Return what rules may ask at a Unix time; whether anything is worked on is known to the caller only."""
        site = self.repo.camera.site
        night = survey_night(site, now)
        first = night_after(night, -RECENT_NIGHTS)
        received = self._received(night)
        if self._since is None or self._since > now:
            self._since = operated_since(self.repo.ledger, now)
            self._rules_since = in_force_since(self.repo.ledger, now)
            self._present_since = started_last(self.repo.ledger)
        since = self._since
        return SurveyFacts(
            now=now, night=night, sun_altitude_deg=sun_altitude_deg(site, now) if site.is_placed else None,
            signals=signals, free_gb=free_gb(self.repo), received=received.get(night, 0), is_idle=is_idle,
            since=now if since is None else since, rules_since=self._rules_since, present_since=self._present_since,
            idle_since=idle_since if is_idle else None,
            signal_times=signal_times(self.repo.ledger), received_by_night=received,
            calibration_sets=[CalibrationSet(*item) for item in self._facts.frame_sets(since_night=first)],
            good_epochs=self._epochs.counts(), epoch_nights=self._epochs.nights,
        )  # fmt: skip

    def _received(self, night: int) -> dict[int, int]:
        """Return night -> science exposures received, of nights that may still be caught up."""
        asked_for, asked, older = self._older
        if asked_for != night or self._monotonic() - asked > OLDER_AGAIN_S:
            older = self._facts.received(since_night=night_after(night, -CATCH_UP_NIGHTS))
            self._older = night, self._monotonic(), older
        return {**older, **self._facts.received(since_night=night_after(night, -RECENT_NIGHTS))}


def free_gb(repo: SurveyRepo) -> dict[str, float]:
    """Return the free space of the disks that are there: sandbox (the repository's) and archive."""
    folders: dict[str, Path | None] = {"sandbox": repo.root, "archive": repo.settings.operation.disks.archive}
    found = {}
    for name, folder in folders.items():
        try:
            if folder is not None:
                found[name] = shutil.disk_usage(folder).free / 1e9
        except OSError:  # it vanished: whoever watches the disks says so
            continue
    return found


def age_s(row: ExposureRow, now: float) -> float:
    """Return how long ago (s) the shutter closed; not below zero, whatever a wrong clock says."""
    closed = times.unix(row.info.mjd_start) + row.info.exposure_s
    return max(0.0, now - closed)


def field_radius_deg(camera: Camera) -> float:
    """Return the angle from the boresight to the furthest corner of a detector."""
    furthest = 0.0
    for detector in camera.detectors:
        ny, nx = detector.shape
        half = math.hypot(nx, ny) / 2.0 * camera.pixel_scale_arcsec
        place = detector.focal_plane
        furthest = max(furthest, math.hypot(place.x_arcsec, place.y_arcsec) + half)
    return furthest / 3600.0
