"""The nightly report as plain values: text, JSON and HTML are made from it."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gueststar import __version__
from gueststar.core import times
from gueststar.model.camera import Camera
from gueststar.model.metrics import METRICS, Grade
from gueststar.model.rights import Program
from gueststar.operations.report.account import Fate, NightAccount, Unit, account_of
from gueststar.operations.report.arrivals import arrivals_of
from gueststar.operations.report.calibration_products import MadeProducts, made_products
from gueststar.operations.report.completeness import pooled_injections, with_injections
from gueststar.operations.report.disk import DiskUse, disk_of
from gueststar.operations.report.disk import as_json as disk_as_json
from gueststar.operations.report.drift import Drift, drift_of
from gueststar.operations.report.expected import Expected, expected_of
from gueststar.operations.report.expected import as_json as expected_as_json
from gueststar.operations.report.filters import filters_of
from gueststar.operations.report.landing import Landing, landing_of, noon_before
from gueststar.operations.report.latency import Latency, latency_of
from gueststar.operations.report.latency import as_json as latency_as_json
from gueststar.operations.report.recipes import Share, decisions_of, fallbacks, shares_as_json, shares_of
from gueststar.operations.report.repeatability import repeatability
from gueststar.operations.report.stream import stream_of
from gueststar.operations.report.timeline import Timeline, timeline_of
from gueststar.operations.report.timeline import as_json as timeline_as_json
from gueststar.operations.report.transparency import CloudyExposure, cloudy_exposures, with_extinction
from gueststar.operations.report.trends import Trends, trends_of
from gueststar.operations.report.trends import as_json as trends_as_json
from gueststar.operations.rules.sun import survey_night
from gueststar.store.ledger import Job, JobState
from gueststar.store.repo import SurveyRepo
from gueststar.store.sql import plain_json


@dataclass(frozen=True)
class MetricSummary:
    """One metric over the detector images of a night."""

    name: str
    unit: str
    doc: str
    n: int
    median: float
    low: float
    """16th percentile."""
    high: float
    """84th percentile."""
    fair: float | None
    poor: float | None
    grades: dict[str, int]
    """Grade -> number of detector images."""


@dataclass(frozen=True)
class NightReport:
    """Everything that the report of a night says."""

    survey: str
    camera: str
    version: str
    account: NightAccount
    metrics: tuple[MetricSummary, ...]
    steps: dict[str, float]
    """Stage and step -> median CPU seconds per unit of work."""
    references: tuple[dict[str, Any], ...]
    tracklets: tuple[dict[str, Any], ...]
    alerts: dict[str, int]
    """Program -> number of alerts."""
    peak_rss_mb: float
    cpu_s: float
    stream: dict[str, Any] = field(default_factory=dict)
    """What became of the alerts on the stream; empty where the survey has none."""
    arrivals: dict[str, Any] = field(default_factory=dict)
    """Files that came again, and images that came late."""
    filters: tuple[dict[str, Any], ...] = ()
    """What users' filters made of the alerts; empty where there are none."""
    clouds: tuple[CloudyExposure, ...] = ()
    """Exposures that clouds dimmed."""
    calibrations: tuple[MadeProducts, ...] = ()
    """Calibration products that were made, refused, or found no cause for, by kind and filter."""
    repeatability: tuple[dict[str, Any], ...] = ()
    """How well stars repeat from exposure to exposure, by filter; empty where none were tied together."""
    injections: dict[str, Any] = field(default_factory=dict)
    """What artificial sources tell, by filter; empty where none were injected."""
    streaks: tuple[dict[str, Any], ...] = ()
    """Likely streaks, by time."""
    streak_tracks: tuple[dict[str, Any], ...] = ()
    """Streaks that belong together."""
    drift: Drift | None = None
    """How far what the reliability model saw has moved; None where nothing was scored."""
    truth: dict[str, Any] = field(default_factory=dict)
    """Comparison with the truth, where there is one."""
    by_program: tuple[Share, ...] = ()
    """The account of each program..."""
    by_field: tuple[Share, ...] = ()
    """...and of each field."""
    fallbacks: tuple[tuple[str, str, int], ...] = ()
    """Recipe short of alerts, why, exposures."""
    expected: Expected | None = None
    """What was expected and what came. This and all that follows is the operator's."""
    landing: tuple[Landing, ...] = ()
    """Files that are not taken in."""
    latency: Latency | None = None
    """From the shutter to the alert."""
    trends: Trends | None = None
    """The last nights."""
    disk: DiskUse | None = None
    """The disks."""
    timeline: Timeline | None = None
    """What was done, and why."""
    reader: str = ""
    """For whose eyes it was made; empty for the operator's."""

    @property
    def is_explained(self) -> bool:
        """Whether every detector image is accounted for, and every file that came."""
        return self.account.is_balanced and not self.landing


def make_report(
    repo: SurveyRepo, night: int, *, truth: dict[str, Any] | None = None, now: float | None = None
) -> NightReport:
    """Return the report of a night from what the ledger holds; ``now`` (Unix time) tells what of a plan is due.

    A reader's report tells of science exposures that he may see, and nothing that was made of exposures of all
    programs: references, calibrations, tracklets, costs, drift.
    """
    jobs = repo.ledger.jobs(day_obs=night, is_lean=True)
    account = account_of(repo.ledger, night, jobs=jobs, night_at=lambda unix: survey_night(repo.camera.site, unix))
    account = with_injections(with_extinction(_of_reader(account, repo), repo), jobs)
    exposures = {unit.exposure.id: unit.exposure for unit in account.units}
    tracklet_jobs = [job for job in jobs if job.kind == "tracklets" and job.state is JobState.DONE]
    report = NightReport(
        survey=repo.settings.name,
        camera=repo.camera.name,
        version=__version__,
        account=account,
        metrics=tuple(summarise(account, repo.camera)),
        steps=median_steps(jobs),
        references=tuple(_references(jobs)),
        tracklets=tuple(tracklet_jobs[-1].metrics.get("tracklets", ())) if tracklet_jobs else (),
        alerts=alerts_by_program(account),
        peak_rss_mb=max((job.peak_rss_mb or 0.0 for job in jobs), default=0.0),
        cpu_s=sum(job.cpu_s or 0.0 for job in jobs),
        stream=stream_of(repo, night),
        filters=tuple(filters_of(repo, night)),
        arrivals=arrivals_of(repo.ledger, account),
        clouds=tuple(cloudy_exposures(account)),
        calibrations=tuple(made_products(jobs)),
        repeatability=tuple(repeatability(jobs)),
        injections=pooled_injections(jobs, exposures),
        streaks=tuple(_streaks(jobs)),
        streak_tracks=tuple(tracklet_jobs[-1].metrics.get("streak_tracks", ())) if tracklet_jobs else (),
        drift=drift_of(repo, night, jobs),
        truth=truth or {},
        by_program=shares_of(account, None, {}, "program"),
        by_field=shares_of(account, None, {}, "field"),
        reader="" if repo.sight.reader.is_operator else repo.sight.reader.name,
    )
    return report if report.reader else _for_the_operator(report, repo, jobs, time.time() if now is None else now)


def _for_the_operator(report: NightReport, repo: SurveyRepo, jobs: list[Job], now: float) -> NightReport:
    """Return the report with what only the operator is told: expectations, times, disks, the diary."""
    account, night = report.account, report.account.day_obs
    rows = list({unit.exposure.id: unit.exposure for unit in account.units}.values())
    expected = expected_of(repo, night, [row.info for row in rows], now=now)
    begin = noon_before(night, longitude_deg=repo.camera.site.longitude_deg)
    events = repo.ledger.events(since=begin)
    decided = decisions_of(events)
    last = max(repo.ledger.nights(), default=night)
    return replace(
        report,
        expected=expected,
        by_program=shares_of(account, expected, decided, "program"),
        by_field=shares_of(account, expected, decided, "field"),
        fallbacks=tuple(fallbacks(account, decided)),
        landing=landing_of(repo, night, is_last=night >= last),
        latency=latency_of(repo, night, rows, jobs),
        trends=trends_of(repo, night),
        disk=disk_of(repo, night),
        timeline=timeline_of(repo, night, jobs, events, exposures={row.id for row in rows}),
    )


def _of_reader(account: NightAccount, repo: SurveyRepo) -> NightAccount:
    """Return the account of science exposures only, where it is not the operator's."""
    if repo.sight.reader.is_operator:
        return account
    units = tuple(
        replace(unit, metrics={name: value for name, value in unit.metrics.items() if name != "cpu_s"})
        for unit in account.units if unit.exposure.info.observation_type == "science"
    )  # fmt: skip
    return replace(account, units=units, refused=())


def value_of(unit: Unit, name: str) -> float:
    """Return a unit's metric as a float; NaN where it was not measured."""
    value = unit.metrics.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def science_units(account: NightAccount) -> list[Unit]:
    """Return the detector images of science exposures, by time."""
    return [unit for unit in account.units if unit.exposure.info.observation_type == "science"]


def summarise(account: NightAccount, camera: Camera) -> list[MetricSummary]:
    """Return every metric that at least one detector image of the night has."""
    summaries = []
    for metric in METRICS:
        values = np.array([value_of(unit, metric.name) for unit in science_units(account)])
        values = values[np.isfinite(values)]
        if values.size == 0:
            continue
        low, median, high = (float(v) for v in np.percentile(values, (16, 50, 84)))
        limits = metric.thresholds(camera)
        grades = Counter(metric.grade(float(v), camera).value for v in values)
        summaries.append(
            MetricSummary(
                metric.name, metric.unit, metric.doc, int(values.size), median, low, high,
                limits[0] if limits else None, limits[1] if limits else None, dict(grades),
            )
        )  # fmt: skip
    return summaries


def median_steps(jobs: list[Job]) -> dict[str, float]:
    """Return median CPU seconds of every step of every kind of job."""
    seconds: dict[str, list[float]] = {}
    for job in jobs:
        for step, value in job.metrics.get("steps", {}).items():
            seconds.setdefault(f"{job.kind}: {step}", []).append(float(value))
    return {step: float(np.median(values)) for step, values in seconds.items()}


def alerts_by_program(account: NightAccount) -> dict[str, int]:
    """Return the number of alerts of each program."""
    counts: Counter[str] = Counter()
    for unit in science_units(account):
        value = value_of(unit, "n_alerts")
        if math.isfinite(value):
            counts[Program(unit.exposure.info.program).name.lower()] += int(value)
    return dict(counts)


def _references(jobs: list[Job]) -> list[dict[str, Any]]:
    return [
        {
            "field": job.key["field"], "detector": job.key["detector"], "band": job.key["band"],
            "n_epochs": len(job.key["epochs"]), "state": job.state.value, "reason": job.reason,
        }
        for job in jobs if job.kind == "reference"
    ]  # fmt: skip


def _streaks(jobs: list[Job]) -> list[dict[str, Any]]:
    """Return the likely streaks of a night's differences, by time."""
    done = (job for job in jobs if job.kind == "difference" and job.state is JobState.DONE)
    rows = [row for job in done for row in job.metrics.get("streaks", {}).get("likely", ())]
    return sorted(rows, key=lambda row: (row["mjd_begin"], row["streak_id"]))


def as_json(report: NightReport) -> dict[str, Any]:
    """Return the report as JSON-able values, one entry per detector image."""
    account = report.account
    return {
        "survey": report.survey,
        "camera": report.camera,
        "version": report.version,
        "night": account.day_obs,
        "reader": report.reader or "operator",
        "is_explained": report.is_explained,
        "received": len(account.units),
        **{fate.value: account.count(fate) for fate in Fate},
        "origins": dict(account.origins()),
        "refused_files": [{"path": path, "reason": reason} for path, reason in account.refused],
        "reasons": [{"fate": f, "reason": r, "n": n} for f, r, n in account.reasons()],
        "alerts": report.alerts,
        "stream": report.stream,
        "filters": list(report.filters),
        "arrivals": report.arrivals,
        "clouds": [vars(cloudy) for cloudy in report.clouds],
        "calibrations": [vars(made) for made in report.calibrations],
        "repeatability": list(report.repeatability),
        "injections": report.injections,
        "drift": plain_json(asdict(report.drift)) if report.drift else None,
        "references": list(report.references),
        "tracklets": list(report.tracklets),
        "streaks": list(report.streaks),
        "streak_tracks": list(report.streak_tracks),
        "by_program": shares_as_json(report.by_program),
        "by_field": shares_as_json(report.by_field),
        **({} if report.reader else _operators_as_json(report)),
        "metrics": [vars(summary) for summary in report.metrics],
        "cpu_s_by_step": report.steps,
        "cpu_s": report.cpu_s,
        "peak_rss_mb": report.peak_rss_mb,
        "truth": report.truth,
        "units": _units_as_json(account),
    }


def _operators_as_json(report: NightReport) -> dict[str, Any]:
    """Return what only the operator is told, as JSON-able values."""
    return {
        "fallbacks": [{"recipe": recipe, "why": why, "exposures": n} for recipe, why, n in report.fallbacks],
        "expected": plain_json(expected_as_json(report.expected)),
        "landing": [vars(landing) for landing in report.landing],
        "latency": plain_json(latency_as_json(report.latency)),
        "trends": plain_json(trends_as_json(report.trends)),
        "disk": plain_json(disk_as_json(report.disk)),
        "timeline": plain_json(timeline_as_json(report.timeline)),
    }


def _units_as_json(account: NightAccount) -> list[dict[str, Any]]:
    starts = {unit.exposure.id: unit.exposure.info.mjd_start for unit in account.units}
    told = {number: times.isot_utc(start) for number, start in starts.items()}  # once an exposure: it is slow
    return [_unit_as_json(unit, told[unit.exposure.id]) for unit in account.units]


def _unit_as_json(unit: Unit, time_utc: str) -> dict[str, Any]:
    info = unit.exposure.info
    values = {metric.name: value_of(unit, metric.name) for metric in METRICS}
    return {
        "exposure": unit.exposure.id,
        "detector": unit.detector,
        "time_utc": time_utc,
        "observation_type": info.observation_type,
        "program": int(info.program),
        "field": info.field,
        "physical_filter": info.physical_filter,
        "fate": unit.fate.value,
        "origin": unit.origin,
        "stage": unit.stage,
        "reason": unit.reason,
        "metrics": {name: value for name, value in values.items() if math.isfinite(value)},
    }


def worst_grade(unit: Unit, camera: Camera) -> Grade:
    """Return the worst grade among a unit's metrics."""
    order = (Grade.UNKNOWN, Grade.GOOD, Grade.FAIR, Grade.POOR)
    grades = [metric.grade(value_of(unit, metric.name), camera) for metric in METRICS]
    return max(grades, key=order.index)
