"""Clouds in the night's account: which exposures lost light, how much, and how unevenly."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from gueststar.core import times
from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.operations.report.account import NightAccount, Unit
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.transparency import ClearSkies
from gueststar.store.repo import SurveyRepo

_LOST, _STRUCTURE = "cloud_extinction_mag", "zero_point_structure_mag"


@dataclass(frozen=True)
class CloudyExposure:
    """An exposure that clouds dimmed, all at once or in patches."""

    exposure: int
    time_utc: str
    physical_filter: str
    extinction_mag: float
    """Median over the detectors; NaN if no clear sky is known."""
    range_mag: float
    """Between the most and the least dimmed detector."""
    structure_mag: float
    """Largest change within a detector (rms)."""
    is_patchy: bool
    """Whether fluxes differ by place more than one zero point tells."""

    def line(self) -> str:
        """Return one line for a reader."""
        lost = "" if math.isnan(self.extinction_mag) else f"loses {self.extinction_mag:.2f} mag"
        patches = f"patchy: {self.structure_mag:.2f} mag rms within, {self.range_mag:.2f} between detectors"
        return f"{self.exposure} {self.time_utc[11:19]} {self.physical_filter}: " + ", ".join(
            part for part in (lost, patches if self.is_patchy else "") if part
        )


def with_extinction(account: NightAccount, repo: SurveyRepo) -> NightAccount:
    """Return the account with the extinction by clouds for every calibrated image that has none yet.

    Images of a survey's first nights were calibrated before a clear sky was known; they are judged by what the survey
    knows now, this night included.
    """
    waiting = [unit for unit in account.units if _is_calibrated(unit) and math.isnan(_value(unit, _LOST))]
    if not waiting:
        return account
    settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
    skies = ClearSkies(
        repo.ledger, repo.camera.site, account.day_obs, config=settings.photometry.transparency, is_night_included=True
    )
    return replace(account, units=tuple(_judged(unit, skies) for unit in account.units))


def _judged(unit: Unit, skies: ClearSkies) -> Unit:
    if not _is_calibrated(unit) or math.isfinite(_value(unit, _LOST)):
        return unit
    expected = skies.expected(unit.exposure.info, unit.detector)
    if expected is None:
        return unit
    return replace(unit, metrics={**unit.metrics, _LOST: expected - _value(unit, "zero_point")})


def cloudy_exposures(account: NightAccount) -> list[CloudyExposure]:
    """Return the exposures whose extinction or structure is not good, by time."""
    lost_limit, structure_limit = METRICS_BY_NAME[_LOST].fair, METRICS_BY_NAME[_STRUCTURE].fair
    assert lost_limit is not None
    assert structure_limit is not None
    by_exposure: dict[int, list[Unit]] = defaultdict(list)
    for unit in account.units:
        if _is_calibrated(unit):
            by_exposure[unit.exposure.id].append(unit)
    found = []
    for exposure, units in sorted(by_exposure.items()):
        lost = np.array([_value(unit, _LOST) for unit in units])
        structure = max((_value(unit, _STRUCTURE) for unit in units), default=0.0)
        known = lost[np.isfinite(lost)]
        median = float(np.median(known)) if known.size else math.nan
        spread = float(np.ptp(known)) if known.size else 0.0
        is_patchy = structure > structure_limit or (spread > lost_limit and median > lost_limit)
        if is_patchy or median > lost_limit:
            info = units[0].exposure.info
            found.append(
                CloudyExposure(
                    exposure, times.isot_utc(info.mjd_start), info.physical_filter or "", median, spread,
                    float(np.nan_to_num(structure)), is_patchy,
                )
            )  # fmt: skip
    return found


def _is_calibrated(unit: Unit) -> bool:
    return unit.exposure.info.observation_type == "science" and math.isfinite(_value(unit, "zero_point"))


def _value(unit: Unit, name: str) -> float:
    value = unit.metrics.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
