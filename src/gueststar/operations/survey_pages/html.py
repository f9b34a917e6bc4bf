"""The weekly and survey-long page as one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from gueststar.model.camera import Camera
from gueststar.operations.metrics.definitions import DEFINITIONS
from gueststar.operations.metrics.text import shown
from gueststar.operations.report.html import embedded
from gueststar.operations.survey_pages import pictures
from gueststar.operations.survey_pages.report import SurveyReport

TRENDS = {
    "fwhm_arcsec": "width of the PSF [arcsec]", "limiting_mag": "5-sigma depth [mag]",
    "zero_point": "zero point [mag]", "astrometric_rms_mas": "scatter about the catalog [mas]",
    "difference_limiting_mag": "depth of differences [mag]", "score_sigma": "noise of the score (1: understood)",
    "n_candidates": "detections on a difference", "completeness_50_mag": "half of artificial sources found [mag]",
    "difference_completeness_50_mag": "half found on differences [mag]",
}  # fmt: skip
"""Metrics drawn over nights, with their titles."""

MOST_LACKING = 40
"""Lines of the table of what references lack."""


def field_radius_deg(camera: Camera) -> float:
    """Return how far the corners of the camera reach from its middle."""
    corners = [
        math.hypot(abs(d.focal_plane.x_arcsec) + 0.5 * d.shape[1] * camera.pixel_scale_arcsec,
                   abs(d.focal_plane.y_arcsec) + 0.5 * d.shape[0] * camera.pixel_scale_arcsec)
        for d in camera.detectors
    ]  # fmt: skip
    return max(corners, default=3600.0) / 3600.0


def coverage_maps(report: SurveyReport, camera: Camera) -> dict[str, bytes]:
    """Return PNGs by name: what each filter covers, how deep, how long ago, and how deep its references are."""
    radius, maps = field_radius_deg(camera), {}
    for band in sorted({item.band for item in report.coverage}):
        for what in pictures.MAPS:
            maps[f"{what.replace(' ', '_')}_{band}"] = pictures.sky_map(report.coverage, band, what, radius_deg=radius)
        if any(state.band == band and state.depth is not None for state in report.references):
            maps[f"references_{band}"] = pictures.reference_map(
                report.coverage, report.references, band, radius_deg=radius
            )
    return maps


Drawn = Mapping[str, Mapping[str, bytes]]
"""Part of the page -> name of a picture -> PNG."""


def survey_pictures(report: SurveyReport, camera: Camera) -> Drawn:
    """Return all pictures of the page: ``maps``, ``nightly``, ``trends``."""
    nights = report.nights
    measured = {name for night in nights for name in night.spreads}
    nightly = {"exposures": pictures.exposures(nights), "alerts": pictures.alerts(nights)}
    if any(night.bytes for night in nights):
        nightly["growth"] = pictures.growth(nights)
    trends = {name: pictures.trend(nights, name, title) for name, title in TRENDS.items() if name in measured}
    return {"maps": coverage_maps(report, camera), "nightly": nightly, "trends": trends}


def render_survey(report: SurveyReport, drawn: Drawn, *, is_apart: bool = False) -> str:
    """Return the page with its pictures within it; or, ``is_apart``, beside it (``cid:NAME.png``), as mail has them."""
    import jinja2

    template = files("gueststar.operations.survey_pages").joinpath("templates/survey.html").read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    lacking = [state for state in report.references if state.lacks]
    placed = {
        part: [(name, f"cid:{name}.png" if is_apart else embedded(png)) for name, png in found.items()]
        for part, found in drawn.items()
    }
    return environment.from_string(template).render(
        report=report, totals=report.totals, **placed, lacking=lacking[:MOST_LACKING], n_lacking=len(lacking),
        n_with_reference=sum(not state.lacks for state in report.references),
        versions=versions_of(report), metrics=metric_rows(report), bytes=_sizes(report.totals.get("bytes", {})),
        deep=depth_rows(report),
    )  # fmt: skip


def versions_of(report: SurveyReport) -> list[str]:
    """Return the versions that measured metrics, the earliest first."""
    first: dict[str, float] = {}
    for row in report.metrics:
        first.setdefault(row["version"], row["measured"])
        first[row["version"]] = min(first[row["version"]], row["measured"])
    return sorted(first, key=lambda version: first[version])


def metric_rows(report: SurveyReport) -> list[dict[str, Any]]:
    """Return one row a metric and scope: value and standing by version."""
    versions = versions_of(report)
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in report.metrics:
        cells.setdefault((row["name"], row["scope"]), {})[row["version"]] = row
    rows = []
    for metric in DEFINITIONS:
        for (name, scope), mine in sorted(cells.items()):
            if name == metric.name:
                values = [_cell(mine.get(version)) for version in versions]
                rows.append({"name": name, "unit": metric.unit, "doc": metric.doc, "scope": scope, "cells": values})
    return rows


def _cell(row: dict[str, Any] | None) -> tuple[str, str, str]:
    """Return text, standing and reason of one value."""
    if row is None:
        return "", "", ""
    if row["value"] is None:
        return "-", "", row["why"]
    error = "" if row["error"] is None else f" ± {shown(row['error'])}"
    return f"{shown(row['value'])}{error}", row["standing"], f"n {row['n']}"


def depth_rows(report: SurveyReport) -> list[dict[str, Any]]:
    """Return one row a band: fields, exposures and depths."""
    rows = []
    for band in sorted({item.band for item in report.coverage}):
        mine = [item for item in report.coverage if item.band == band]
        deep = sorted(item.depth for item in mine if item.depth is not None)
        rows.append({
            "band": band, "fields": len(mine), "exposures": sum(item.n for item in mine),
            "depth": f"{deep[len(deep) // 2]:.2f}" if deep else "",
            "references": sum(state.band == band and not state.lacks for state in report.references),
        })  # fmt: skip
    return rows


def _sizes(found: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, sized(number)) for name, number in found.items()]


def sized(number: float) -> str:
    """Return bytes in a readable unit."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000.0
    raise AssertionError("not reached")
