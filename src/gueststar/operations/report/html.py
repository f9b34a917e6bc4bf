"""The nightly report as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from gueststar.core import times
from gueststar.formats.calibrated_image import read_calibrated_image
from gueststar.model.exposure import ExposureInfo
from gueststar.model.metrics import METRICS_BY_NAME, Grade
from gueststar.model.rights import Program
from gueststar.operations.report import figures
from gueststar.operations.report.account import RAW, Fate, Unit
from gueststar.operations.report.arrivals import arrival_lines
from gueststar.operations.report.completeness import class_tables, injection_lines
from gueststar.operations.report.disk import size_text
from gueststar.operations.report.drift import drift_lines
from gueststar.operations.report.filters import filter_lines
from gueststar.operations.report.night_report import NightReport, science_units, value_of, worst_grade
from gueststar.operations.report.repeatability import repeatability_lines
from gueststar.operations.report.stream import stream_lines
from gueststar.operations.report.trends import Trend
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

TRENDS = (
    "fwhm_arcsec", "zero_point", "cloud_extinction_mag", "limiting_mag", "astrometric_rms_mas",
    "sky_electrons", "score_sigma", "n_candidates", "difference_limiting_mag",
)  # fmt: skip
"""Metrics drawn against time."""

MAPS = ("fwhm_arcsec", "astrometric_rms_mas", "score_sigma")
"""Metrics drawn on the focal plane."""


@dataclass(frozen=True)
class Preview:
    """Science and difference image of one detector, small; empty where there is none."""

    caption: str
    science: str
    difference: str


@dataclass(frozen=True)
class ExposureLine:
    """One row of the exposure table."""

    exposure: int
    time_utc: str
    what: str
    program: str
    fates: str
    grade: str
    values: tuple[str, ...]
    reasons: str


COLUMNS = (
    "fwhm_arcsec",
    "zero_point",
    "cloud_extinction_mag",
    "limiting_mag",
    "astrometric_rms_mas",
    "n_candidates",
    "n_alerts",
)
"""Metrics shown in the exposure table (medians over detectors; counts are sums)."""


def render_html(report: NightReport, repo: SurveyRepo, *, n_previews: int = 3) -> str:
    """Return the page; pictures are embedded, so that the file can be mailed."""
    import jinja2

    template = files("gueststar.operations.report").joinpath("templates/night.html").read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    measured = {summary.name for summary in report.metrics}
    account, camera = report.account, repo.camera
    tables = class_tables(report.injections)
    return environment.from_string(template).render(
        report=report,
        account=account,
        fates=[(fate.value, account.count(fate)) for fate in Fate],
        fate_map=embedded(figures.fates(account)) if account.units else "",
        trends=[embedded(figures.trend(account, camera, name)) for name in TRENDS if name in measured],
        focal_plane=embedded(figures.focal_plane(account, camera, [m for m in MAPS if m in measured]))
        if measured & set(MAPS)
        else "",
        repeatability_lines=repeatability_lines(list(report.repeatability)),
        arrival_lines=arrival_lines(report.arrivals),
        stream_lines=stream_lines(report.stream) + filter_lines(list(report.filters)),
        injection_lines=injection_lines(report.injections),
        drift_lines=drift_lines(report.drift)[:1],
        injections=embedded(figures.injections(report.injections)) if report.injections else "",
        injection_classes=embedded(figures.injection_classes(report.injections)) if tables else "",
        injection_tables=tables,
        completeness=embedded(figures.completeness(report.truth)) if _has_transients(report) else "",
        fate_colours=[(fate.value, colour) for fate, colour in figures.FATE_COLOURS.items()],
        latency_picture=embedded(figures.latency(report.latency)) if report.latency and report.latency.images else "",
        night_trends=_night_trends(report),
        usual=[_usual(trend) for trend in report.trends.rows] if report.trends else [],
        size_text=size_text,
        columns=[(name, METRICS_BY_NAME[name].unit) for name in COLUMNS],
        exposures=exposure_lines(report, repo),
        previews=make_previews(report, repo, n_previews),
        steps=sorted(report.steps.items(), key=lambda item: -item[1]),
    )


def _night_trends(report: NightReport) -> list[str]:
    """Return a picture of every followed metric, where there are nights to compare."""
    if report.trends is None or len(report.trends.nights) < 2:
        return []
    names = dict.fromkeys(row.name for row in report.trends.rows)
    return [embedded(figures.nights(report.trends, name)) for name in names]


def _usual(trend: Trend) -> str:
    """Return the median of the nights before."""
    before = [value.median for value in trend.values[:-1] if value is not None]
    return f"{np.median(before):.4g}" if before else ""


def _has_transients(report: NightReport) -> bool:
    return any(row["n"] for row in report.truth.get("completeness", ()))


def embedded(png: bytes) -> str:
    """Return PNG bytes as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pointing(info: ExposureInfo) -> str:
    """Return what an exposure of the sky was pointed at: its object and field, once where they are the same."""
    field = "" if info.field is None else f"field {info.field}"
    return " ".join(dict.fromkeys(name for name in (info.object_name, field) if name))


def exposure_lines(report: NightReport, repo: SurveyRepo) -> list[ExposureLine]:
    """Return the rows of the exposure table, by time."""
    by_exposure: dict[int, list[Unit]] = {}
    for unit in report.account.units:
        by_exposure.setdefault(unit.exposure.id, []).append(unit)
    lines = []
    for exposure, units in sorted(by_exposure.items()):
        info = units[0].exposure.info
        what = info.observation_type if info.observation_type != "science" else _pointing(info)
        origins = sorted({unit.origin for unit in units} - {RAW})
        what += f" ({', '.join(origins)})" if origins else ""
        counts = {fate: sum(u.fate is fate for u in units) for fate in Fate}
        grades = [worst_grade(unit, repo.camera) for unit in units]
        lines.append(
            ExposureLine(
                exposure, times.isot_utc(info.mjd_start)[:19].replace("T", " "),
                f"{what} {info.physical_filter or ''} {info.exposure_s:g} s", Program(info.program).name.lower(),
                ", ".join(f"{n} {fate.value}" for fate, n in counts.items() if n),
                max(grades, key=list(Grade).index).value if info.observation_type == "science" else "",
                tuple(_cell(units, name) for name in COLUMNS), "; ".join(sorted({u.reason for u in units if u.reason})),
            )
        )  # fmt: skip
    return lines


def _cell(units: Sequence[Unit], name: str) -> str:
    values = np.array([value_of(unit, name) for unit in units])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return ""
    return f"{int(values.sum())}" if name.startswith("n_") else f"{np.median(values):.4g}"


def make_previews(report: NightReport, repo: SurveyRepo, n: int) -> list[Preview]:
    """Return previews of up to ``n`` processed detector images, spread over the night."""
    done = [u for u in science_units(report.account) if "n_candidates" in u.metrics]
    chosen = [done[round(k)] for k in np.linspace(0, len(done) - 1, min(n, len(done)))] if done else []
    previews = []
    for unit in chosen:
        data_id = DataId(visit=unit.exposure.id, detector=unit.detector)
        pictures = []
        for product in ("science_image", "difference_image"):
            stored = repo.find_one(product, data_id)
            if stored is None:  # a user's own difference, or detections of a catalog
                pictures.append("")
                continue
            image = read_calibrated_image(stored.path)
            usable = image.pixels.is_usable()
            sigma = float(np.sqrt(np.median(image.pixels.variance[usable]))) if usable.any() else 1.0
            shown = np.where(usable | (product == "science_image"), image.pixels.image, 0.0)
            pictures.append(embedded(figures.thumbnail(shown.astype(np.float32), sigma=sigma)))
        info = unit.exposure.info
        caption = f"{times.isot_utc(info.mjd_start)[:19]} {info.physical_filter} detector {unit.detector}"
        if any(pictures):
            previews.append(Preview(caption, *pictures))
    return previews
