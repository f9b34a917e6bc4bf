"""A night in a few hundred numbers, made once and kept: what pages over many nights are made of."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from gueststar.core import times
from gueststar.formats.atomic import appearing_whole
from gueststar.model.rights import Program
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo
from gueststar.store.survey_rows import ExposureFact, UnitFact, exposure_facts, unit_facts, work_counts

FOLDER = "summaries"
"""Of the repository, for the operator's summaries."""

TRENDS: dict[str, tuple[str, ...]] = {
    "science": ("fwhm_arcsec", "limiting_mag", "zero_point", "astrometric_rms_mas", "sky_electrons",
                "psf_ellipticity_residual"),
    "difference": ("difference_limiting_mag", "score_sigma", "n_candidates"),
    "association": ("n_alerts",),
    "injection": ("completeness_50_mag", "difference_completeness_50_mag"),
}  # fmt: skip
"""Kind of work -> metrics that are followed over nights."""

RECENT = 7
"""The last nights are summarised anew each time: work on them may be done again."""

LIVE_S = 43200.0
"""Exposures that came later than this after the shutter closed were not taken live."""


class Spread(BaseModel):
    """Values of many detector images."""

    model_config = ConfigDict(frozen=True)

    n: int
    low: float
    """16th percentile."""
    median: float
    high: float
    """84th percentile."""


class FieldNight(BaseModel):
    """What a field got in one band."""

    model_config = ConfigDict(frozen=True)

    field: int
    band: str
    ra: float
    """Degrees, mean of the pointings."""
    dec: float
    n: int
    last_mjd: float
    depth: float | None = None
    """Median limiting magnitude."""


class NightSummary(BaseModel):
    """A night of science exposures."""

    model_config = ConfigDict(frozen=True)

    night: int
    counts: dict[str, int]
    """Work by kind and state: with others than now, the summary is made anew."""
    exposures: dict[str, dict[str, int]]
    """Band -> program -> number of exposures."""
    states: dict[str, int]
    """State -> number of exposures."""
    open_s: float
    """Time with open shutter, seconds."""
    fields: tuple[FieldNight, ...]
    spreads: dict[str, dict[str, Spread]]
    """Metric -> band -> values."""
    alerts: dict[str, int]
    """Program -> number of alerts."""
    received_s: Spread | None = None
    """From shutter to received; None where exposures were not taken live, and for a reader."""
    received_p95_s: float | None = None
    alert_s: Spread | None = None
    """From received to association done."""
    alert_p95_s: float | None = None
    unexplained: int | None = None
    """Exposures that nobody would ever look at again; None for a reader."""
    units: int = 0
    """Detector images."""
    cpu_s: float = 0.0
    bytes: dict[str, int] = {}
    """Product -> bytes stored for this night; empty for a reader."""


def summarise_nights(repo: SurveyRepo, nights: Sequence[int], *, is_fresh: bool = False) -> list[NightSummary]:
    """Return the summaries of nights; the operator's are kept in the repository and made anew where work was done."""
    is_operator = repo.sight.reader.is_operator
    counts = work_counts(repo.ledger) if is_operator else {}
    made = []
    for number, night in enumerate(nights):
        path = repo.root / FOLDER / f"{night}.json"
        kept = _kept(path) if is_operator and not is_fresh and number < len(nights) - RECENT else None
        if kept is None or kept.counts != counts.get(night, {}):
            kept = summarise_night(repo, night, counts.get(night, {}))
            if is_operator:
                path.parent.mkdir(exist_ok=True)
                with appearing_whole(path) as temporary:
                    temporary.write_text(kept.model_dump_json())
        made.append(kept)
    return made


def _kept(path: Path) -> NightSummary | None:
    try:
        return NightSummary.model_validate_json(path.read_text())
    except (FileNotFoundError, ValueError):  # there is none, or another version of the software wrote it
        return None


@dataclass
class _Gathered:
    """Metrics of a night's detector images."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    depths: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    alerts: Counter[str] = field(default_factory=Counter)
    alert_s: list[float] = field(default_factory=list)
    units: set[tuple[int, int]] = field(default_factory=set)
    cpu_s: float = 0.0


def summarise_night(repo: SurveyRepo, night: int, counts: dict[str, int]) -> NightSummary:
    """Return the summary of a night, of the exposures that whoever opened the survey may see."""
    exposures = {row.id: row for row in exposure_facts(repo.ledger, night)}
    gathered = _Gathered()
    for kind, names in TRENDS.items():
        for unit in unit_facts(repo.ledger, night, kind, names):
            if unit.exposure in exposures:
                _add(gathered, kind, exposures[unit.exposure], unit)
    is_operator = repo.sight.reader.is_operator
    received = _delays(exposures.values()) if is_operator else []
    numbers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in exposures.values():
        numbers[row.band or "?"][Program(row.program).name.lower()] += 1
    return NightSummary(
        night=night, counts=counts, exposures={band: dict(found) for band, found in numbers.items()},
        states=dict(Counter(row.state for row in exposures.values())) if is_operator else {},
        open_s=sum(row.exposure_s for row in exposures.values()), fields=_fields(exposures.values(), gathered.depths),
        spreads={name: {band: _spread(found) for band, found in by_band.items()}
                 for name, by_band in gathered.values.items()},
        alerts=dict(gathered.alerts), received_s=_spread(received) if received else None,
        received_p95_s=_p95(received), alert_s=_spread(gathered.alert_s) if gathered.alert_s else None,
        alert_p95_s=_p95(gathered.alert_s), unexplained=repo.ledger.balance(night).unexplained if is_operator else None,
        units=len(gathered.units), cpu_s=gathered.cpu_s, bytes=stored_bytes(repo.root, night) if is_operator else {},
    )  # fmt: skip


def _add(gathered: _Gathered, kind: str, exposure: ExposureFact, unit: UnitFact) -> None:
    gathered.cpu_s += unit.cpu_s or 0.0
    if kind == "science":
        gathered.units.add((unit.exposure, unit.detector))
    if unit.state != JobState.DONE:
        return
    band = exposure.band or "?"
    for name, value in unit.values.items():
        gathered.values[name][band].append(value)
    if "limiting_mag" in unit.values and exposure.field is not None:
        gathered.depths[exposure.field, band].append(unit.values["limiting_mag"])
    if kind == "association":
        gathered.alerts[Program(exposure.program).name.lower()] += int(unit.values.get("n_alerts", 0))
        if unit.finished is not None and exposure.received is not None and unit.finished > exposure.received:
            gathered.alert_s.append(unit.finished - exposure.received)


def _delays(exposures: Iterable[ExposureFact]) -> list[float]:
    """Return seconds from shutter to received, of a night whose exposures came live."""
    rows = [row for row in exposures if row.received is not None]
    if not rows:
        return []
    ends = times.unix_of([row.mjd_start + row.exposure_s / 86400.0 for row in rows])
    delays = [float(row.received or 0.0) - float(end) for row, end in zip(rows, ends, strict=True)]
    is_live = bool(delays) and 0.0 < float(np.median(delays)) < LIVE_S
    return delays if is_live else []


def _fields(exposures: Iterable[ExposureFact], depths: dict[tuple[int, str], list[float]]) -> tuple[FieldNight, ...]:
    groups: dict[tuple[int, str], list[ExposureFact]] = defaultdict(list)
    for row in exposures:
        if row.field is not None and row.ra is not None and row.dec is not None:
            groups[row.field, row.band or "?"].append(row)
    return tuple(
        FieldNight(
            field=number, band=band, ra=_mean_angle([float(row.ra or 0.0) for row in rows]),
            dec=float(np.mean([row.dec for row in rows if row.dec is not None])), n=len(rows),
            last_mjd=max(row.mjd_start for row in rows),
            depth=float(np.median(depths[number, band])) if depths.get((number, band)) else None,
        )
        for (number, band), rows in sorted(groups.items())
    )  # fmt: skip


def _mean_angle(degrees: Sequence[float]) -> float:
    angles = np.radians(np.asarray(degrees))
    return float(np.degrees(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())) % 360.0)


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = (float(value) for value in np.percentile(np.asarray(values), (16, 50, 84)))
    return Spread(n=len(values), low=low, median=median, high=high)


def _p95(values: Sequence[float]) -> float | None:
    return float(np.percentile(np.asarray(values), 95)) if values else None


def stored_bytes(root: Path, night: int) -> dict[str, int]:
    """Return product -> bytes of the files that lie in the night's folders."""
    found: dict[str, int] = {}
    products = root / "products"
    if not products.is_dir():
        return found
    for product in sorted(os.scandir(products), key=lambda entry: entry.name):
        folder = Path(product.path) / str(night)
        if folder.is_dir():
            found[product.name] = sum(_size(entry) for entry in os.scandir(folder))
    return found


def _size(entry: Any) -> int:
    try:
        return int(entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:  # it was cleaned up meanwhile
        return 0
