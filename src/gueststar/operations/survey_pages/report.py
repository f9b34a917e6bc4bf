"""The page on weeks, or on the whole survey, as plain values: HTML, text and JSON are made from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from gueststar import __version__
from gueststar.core.errors import ConfigError
from gueststar.operations.metrics.text import as_json as metric_as_json
from gueststar.operations.survey_pages.night_summary import FieldNight, NightSummary, summarise_nights
from gueststar.operations.survey_pages.references import ReferenceState, reference_states
from gueststar.store.metric_values import MetricValues
from gueststar.store.repo import SurveyRepo
from gueststar.store.survey_rows import science_nights


@dataclass(frozen=True)
class FieldCoverage:
    """What a field has in one band."""

    field: int
    band: str
    ra: float
    """Degrees."""
    dec: float
    n: int
    """Exposures."""
    n_nights: int
    last_mjd: float
    """Start of the last exposure, MJD TAI."""
    depth: float | None
    """Median limiting magnitude of an exposure."""
    coadd_depth: float | None
    """What all its exposures together would reach, if their noise is that of the sky."""


@dataclass(frozen=True)
class SurveyReport:
    """Everything that the page says."""

    survey: str
    camera: str
    version: str
    first: int
    """First night."""
    last: int
    weeks: int | None
    """None: the whole survey."""
    nights: tuple[NightSummary, ...]
    coverage: tuple[FieldCoverage, ...]
    references: tuple[ReferenceState, ...] = ()
    """Empty for a reader."""
    metrics: tuple[dict[str, Any], ...] = ()
    """Last value of every named metric, scope and version, of the survey; empty for a reader."""
    reader: str = ""
    """For whose eyes it was made; empty for the operator's."""
    totals: dict[str, Any] = field(default_factory=dict)


def make_survey_report(repo: SurveyRepo, *, weeks: int | None = None, until: int | None = None) -> SurveyReport:
    """Return the page of the last ``weeks`` (None: of the survey) up to a night, as its reader may see it.

    A reader's page tells of exposures that he may see and of nothing else. Raises ConfigError where there are none.
    """
    everything = [night for night in science_nights(repo.ledger) if until is None or night <= until]
    if not everything:
        raise ConfigError(f"{repo.root} holds no science exposures that {repo.sight.reader.name} may see")
    nights = [night for night in everything if weeks is None or night > before(everything[-1], 7 * weeks)]
    summaries = summarise_nights(repo, nights)
    coverage = coverage_of(summaries)
    is_operator = repo.sight.reader.is_operator
    return SurveyReport(
        survey=repo.settings.name, camera=repo.camera.name, version=__version__, first=nights[0], last=nights[-1],
        weeks=weeks, nights=tuple(summaries), coverage=tuple(coverage),
        references=tuple(reference_states(repo, coverage)) if is_operator else (),
        metrics=tuple(_metrics(repo)) if is_operator else (), reader="" if is_operator else repo.sight.reader.name,
        totals=_totals(summaries, is_operator=is_operator),
    )  # fmt: skip


def before(night: int, days: int) -> int:
    """Return the night so many days earlier, YYYYMMDD."""
    return int((datetime.strptime(str(night), "%Y%m%d") - timedelta(days=days)).strftime("%Y%m%d"))


def coverage_of(summaries: Iterable[NightSummary]) -> list[FieldCoverage]:
    """Return what every field has in every band, over nights."""
    groups: dict[tuple[int, str], list[FieldNight]] = defaultdict(list)
    for summary in summaries:
        for item in summary.fields:
            groups[item.field, item.band].append(item)
    return [_coverage(items) for _, items in sorted(groups.items())]


def _coverage(items: Sequence[FieldNight]) -> FieldCoverage:
    n = np.array([item.n for item in items])
    known = [(item.n, item.depth) for item in items if item.depth is not None]
    depth = float(np.median(np.repeat([d for _, d in known], [k for k, _ in known]))) if known else None
    together = 1.25 * np.log10(sum(k * 10 ** (0.8 * d) for k, d in known)) if known else None
    last = max(items, key=lambda item: item.last_mjd)
    return FieldCoverage(
        last.field, last.band, last.ra, last.dec, int(n.sum()), len(items), last.last_mjd, depth,
        None if together is None else float(together),
    )  # fmt: skip


def _metrics(repo: SurveyRepo) -> list[dict[str, Any]]:
    return [metric_as_json(value) for value in MetricValues(repo.ledger).latest(nightly=False)]


def _totals(summaries: Sequence[NightSummary], *, is_operator: bool) -> dict[str, Any]:
    exposures: Counter[str] = Counter()
    programs: Counter[str] = Counter()
    alerts: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for summary in summaries:
        for band, found in summary.exposures.items():
            exposures[band] += sum(found.values())
            programs.update(found)
        alerts.update(summary.alerts)
        stored.update(summary.bytes)
    totals: dict[str, Any] = {
        "nights": len(summaries), "exposures": sum(exposures.values()),
        "exposures_by_band": dict(sorted(exposures.items())),
        "exposures_by_program": dict(sorted(programs.items())), "alerts_by_program": dict(sorted(alerts.items())),
        "open_hours": sum(summary.open_s for summary in summaries) / 3600.0,
    }  # fmt: skip
    if is_operator:
        states: Counter[str] = Counter()
        for summary in summaries:
            states.update(summary.states)
        totals |= {
            "states": dict(states), "unexplained": sum(summary.unexplained or 0 for summary in summaries),
            "cpu_hours": sum(summary.cpu_s for summary in summaries) / 3600.0, "bytes": dict(stored.most_common()),
        }  # fmt: skip
    return totals


def as_json(report: SurveyReport) -> dict[str, Any]:
    """Return the page as plain values."""
    return {
        "survey": report.survey, "camera": report.camera, "version": report.version,
        "reader": report.reader or "operator", "first": report.first, "last": report.last, "weeks": report.weeks,
        "totals": report.totals, "coverage": [asdict(item) for item in report.coverage],
        "references": [asdict(item) for item in report.references], "metrics": list(report.metrics),
        "nights": [night.model_dump(mode="json", exclude={"counts", "fields"}) for night in report.nights],
    }  # fmt: skip
