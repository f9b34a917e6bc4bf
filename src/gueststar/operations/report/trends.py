"""Image quality, depth, zero point and astrometry over the last nights, each night in one of four colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gueststar.model.camera import Camera
from gueststar.model.metrics import METRICS_BY_NAME, Grade
from gueststar.operations.report.night_memory import remembered
from gueststar.store.night_values import night_stamp, night_values, science_nights
from gueststar.store.repo import SurveyRepo

N_NIGHTS = 30
"""Nights shown."""

FOLLOWED: Mapping[str, tuple[str, ...]] = {
    "science": ("fwhm_arcsec", "limiting_mag", "zero_point", "zero_point_rms_mag", "astrometric_rms_mas"),
    "difference": ("difference_limiting_mag", "score_sigma"),
}
"""Kind of job -> metrics followed from night to night."""

ZERO_POINT_FADED = (0.1, 0.3)
"""A night's zero point is fair, and poor, if it lies this much (mag) below the median of the earlier nights."""

_LEAST_NIGHTS = 3
_LEAST_IMAGES = 3


@dataclass(frozen=True)
class NightValue:
    """One metric in one filter over one night."""

    n: int
    low: float
    """16th percentile."""
    median: float
    high: float
    grade: Grade
    """UNKNOWN: not measured, or without a threshold."""


@dataclass(frozen=True)
class Trend:
    """One metric in one filter, night after night."""

    name: str
    unit: str
    physical_filter: str
    values: tuple[NightValue | None, ...]
    """One a night; None: not measured."""
    fair: float | None
    poor: float | None

    @property
    def tonight(self) -> NightValue | None:
        """Of the last night."""
        return self.values[-1]


@dataclass(frozen=True)
class Trends:
    """The last nights, oldest first, and what was measured in them."""

    nights: tuple[int, ...]
    rows: tuple[Trend, ...]


def trends_of(repo: SurveyRepo, night: int, *, n_nights: int = N_NIGHTS) -> Trends | None:
    """Return the trends up to a night; None where nothing was measured."""
    nights = science_nights(repo.ledger, until=night, most=n_nights)
    summaries = [
        remembered(repo.root, one, "trends", night_stamp(repo.ledger, one), lambda one=one: summary_of(repo, one))  # type: ignore[misc]
        for one in nights
    ]
    return trends_from(nights, summaries, repo.camera)


def summary_of(repo: SurveyRepo, night: int) -> dict[str, dict[str, list[float]]]:
    """Return metric -> filter -> [n, 16 %, median, 84 %] of a night's images."""
    found: dict[str, dict[str, list[float]]] = {}
    for kind, names in FOLLOWED.items():
        rows = night_values(repo.ledger, night, kind, names)
        for k, name in enumerate(names):
            groups: dict[str, list[float]] = {}
            for glass, values in rows:
                value = values[k]
                if value is not None and math.isfinite(value):
                    groups.setdefault(glass or "?", []).append(value)
            found[name] = {glass: _percentiles(values) for glass, values in groups.items()}
    return found


def _percentiles(values: Sequence[float]) -> list[float]:
    return [len(values), *(float(value) for value in np.percentile(values, (16, 50, 84)))]


def trends_from(
    nights: Sequence[int], summaries: Sequence[Mapping[str, Mapping[str, Sequence[float]]]], camera: Camera
) -> Trends | None:
    """Return trends from the summaries of nights (`summary_of`)."""
    rows = []
    for name in (name for names in FOLLOWED.values() for name in names):
        for glass in sorted({glass for summary in summaries for glass in summary.get(name, {})}):
            rows.append(_trend(name, glass, [summary.get(name, {}).get(glass) for summary in summaries], camera))
    return Trends(tuple(nights), tuple(rows)) if rows else None


def _trend(name: str, glass: str, told: Sequence[Sequence[float] | None], camera: Camera) -> Trend:
    metric = METRICS_BY_NAME[name]
    limits = metric.thresholds(camera)
    values: list[NightValue | None] = []
    for k, one in enumerate(told):
        if one is None:
            values.append(None)
            continue
        n, low, median, high = one
        grade = _zero_point_grade(told[:k], median) if name == "zero_point" else metric.grade(median, camera)
        values.append(NightValue(int(n), low, median, high, grade))
    return Trend(name, metric.unit, glass, tuple(values), *(limits or (None, None)))


def _zero_point_grade(earlier: Sequence[Sequence[float] | None], median: float) -> Grade:
    """Return how a zero point stands to that of earlier nights: mirrors grow dull, and filters are exchanged."""
    known = [one[2] for one in earlier if one is not None and one[0] >= _LEAST_IMAGES]
    if len(known) < _LEAST_NIGHTS:
        return Grade.UNKNOWN
    lost = float(np.median(known)) - median
    return Grade.POOR if lost > ZERO_POINT_FADED[1] else Grade.FAIR if lost > ZERO_POINT_FADED[0] else Grade.GOOD


_SIGNS = {Grade.GOOD: "o", Grade.FAIR: "~", Grade.POOR: "!", Grade.UNKNOWN: "."}


def trend_lines(trends: Trends | None) -> list[str]:
    """Return it as lines of text: tonight's median, the median of the nights before, and a sign a night."""
    if trends is None or len(trends.nights) < 2:
        return []
    lines = [f"over the last {len(trends.nights)} nights (o good, ~ fair, ! poor, . not measured or graded):"]
    for row in trends.rows:
        before = [value.median for value in row.values[:-1] if value is not None]
        now = "not measured" if row.tonight is None else f"{row.tonight.median:.4g}"
        usual = f"{np.median(before):.4g}" if before else "-"
        signs = "".join(_SIGNS[Grade.UNKNOWN if value is None else value.grade] for value in row.values)
        lines.append(f"  {row.name:<25} {row.physical_filter:<8} {now:>12} (before {usual}) {row.unit:<7} {signs}")
    return lines


def as_json(trends: Trends | None) -> dict[str, Any] | None:
    """Return it as JSON-able values."""
    if trends is None:
        return None
    return {
        "nights": list(trends.nights),
        "rows": [
            {
                "metric": row.name, "unit": row.unit, "physical_filter": row.physical_filter, "fair": row.fair,
                "poor": row.poor, "values": [_value_as_json(value) for value in row.values],
            }
            for row in trends.rows
        ],
    }  # fmt: skip


def _value_as_json(value: NightValue | None) -> dict[str, Any] | None:
    return None if value is None else {**vars(value), "grade": value.grade.value}
