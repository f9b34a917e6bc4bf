"""What artificial sources tell of a night: completeness against magnitude, and errors of fluxes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.operations.report.account import NightAccount
from gueststar.store.ledger import ExposureRow, Job, JobState

_COUNTS = ("n", "n_source", "n_differenced", "n_candidate", "n_alert")


def with_injections(account: NightAccount, jobs: list[Job]) -> NightAccount:
    """Return the account with what the last artificial sources of each image measured, among its metrics."""
    names = METRICS_BY_NAME.keys() - _FACTS
    measured: dict[tuple[int | None, int | None], dict[str, Any]] = defaultdict(dict)
    for job in _done(jobs):  # one into the difference alone knows nothing of the catalog
        known = {name: value for name, value in job.metrics.items() if name in names and value is not None}
        measured[job.exposure_id, job.detector] |= known
    if not measured:
        return account
    units = tuple(
        replace(unit, metrics={**unit.metrics, **measured.get((unit.exposure.id, unit.detector), {})})
        for unit in account.units
    )
    return replace(account, units=units)


_FACTS = frozenset({"limiting_mag", "difference_limiting_mag", "cpu_s", "peak_rss_mb"})
"""Metrics of an injection that are those of its image."""


def _done(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.kind == "injection" and job.state is JobState.DONE]


def pooled_injections(jobs: list[Job], exposures: dict[int, ExposureRow]) -> dict[str, Any]:
    """Return counts by filter (and stage) and magnitude, summed over images, and figures; empty without sources."""
    done = _done(jobs)
    if not done:
        return {}
    bins: dict[str, dict[float, dict[str, float]]] = defaultdict(dict)
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in done:
        row = exposures.get(job.exposure_id or 0)
        glass = (row.info.physical_filter if row else None) or "?"
        stage = job.metrics.get("stage", "science")
        glass = glass if stage == "science" else f"{glass}, {_ENTERED[stage]}"
        groups[glass].append(job)
        for item in job.metrics["bins"]:
            total = bins[glass].setdefault(
                item["mag_low"],
                {"mag_low": item["mag_low"], "mag_high": item["mag_high"], **dict.fromkeys(_COUNTS, 0)},
            )
            for name in _COUNTS:
                total[name] += item[name]
    return {
        "classes": {glass: pooled_classes(mine) for glass, mine in sorted(groups.items())},
        "n_images": len(done),
        "n_injected": sum(job.metrics["n_injected"] for job in done),
        "filters": {
            glass: {"bins": [bins[glass][low] for low in sorted(bins[glass])], **_figures(mine)}
            for glass, mine in sorted(groups.items())
        },
    }


def pooled_classes(jobs: list[Job]) -> dict[str, list[dict[str, Any]]]:
    """Return counts by what sources lie on (``surface``) and how near a bright star is (``distance``).

    Each row is a class with its limits and its counts in bins of whole magnitudes, summed over images.
    """
    totals: dict[tuple[str, float, float, int], dict[str, float]] = {}
    for job in jobs:
        for item in job.metrics.get("classes", ()):
            low = -np.inf if item["low"] is None else item["low"]
            high = np.inf if item["high"] is None else item["high"]
            key = (item["by"], low, high, int(np.floor(item["mag_low"])))
            total = totals.setdefault(key, dict.fromkeys(_COUNTS, 0))
            for name in _COUNTS:
                total[name] += item[name]
    found: dict[str, list[dict[str, Any]]] = {"surface": [], "distance": []}
    for by, low, high in sorted({key[:3] for key in totals}):
        bins = [
            {"mag_low": float(key[3]), "mag_high": key[3] + 1.0, **counts}
            for key, counts in sorted(totals.items()) if key[:3] == (by, low, high)
        ]  # fmt: skip
        limits = {"low": None if np.isinf(low) else low, "high": None if np.isinf(high) else high}
        found[by].append(limits | {"label": _class_label(by, low, high), "bins": bins})
    return found


def _class_label(by: str, low: float, high: float) -> str:
    if np.isinf(low) and np.isinf(high):
        return "blank sky" if by == "surface" else "no bright star"
    unit = "mag/arcsec2" if by == "surface" else "arcsec"
    if np.isinf(low):
        return f"below {high:g} {unit}"
    return f"above {low:g} {unit}" if np.isinf(high) else f"{low:g} to {high:g} {unit}"


def class_tables(pooled: dict[str, Any]) -> list[dict[str, Any]]:
    """Return tables for a reader: found on the difference of all in it, by class and whole magnitudes.

    Each has a ``title``, ``columns`` (magnitudes) and ``rows`` of a label and cells such as ``12/15``.
    """
    titles = {"surface": "by the brightness of what they lie on", "distance": "by the distance to a bright star"}
    tables = []
    for glass, classes in pooled.get("classes", {}).items():
        for by, rows in classes.items():
            counted = [row for row in rows if any(item["n_differenced"] for item in row["bins"])]
            mags = sorted({item["mag_low"] for row in counted for item in row["bins"]})
            if not counted:
                continue
            tables.append(
                {
                    "title": f"{glass}: found on the difference, {titles[by]}",
                    "columns": [f"{mag:.0f}-{mag + 1:.0f}" for mag in mags],
                    "rows": [(row["label"], [_cell(row["bins"], mag) for mag in mags]) for row in counted],
                }
            )
    return tables


def _cell(bins: list[dict[str, Any]], mag: float) -> str:
    for item in bins:
        if item["mag_low"] == mag and item["n_differenced"]:
            return f"{item['n_candidate']}/{item['n_differenced']}"
    return ""


def class_lines(pooled: dict[str, Any]) -> list[str]:
    """Return the tables as lines of text."""
    lines = []
    for table in class_tables(pooled):
        lines.append(f"  {table['title']} (magnitudes):")
        lines.append("  " + f"{'':24s}" + "".join(f"{column:>10s}" for column in table["columns"]))
        lines += [f"    {label:22s}" + "".join(f"{cell:>10s}" for cell in cells) for label, cells in table["rows"]]
    return lines


_ENTERED = {"raw": "put into the raw counts", "difference": "put into the difference"}


def _figures(jobs: list[Job]) -> dict[str, Any]:
    """Return medians over images of what is measured on each."""
    return {
        "n_images": len(jobs),
        "limiting_mag": _median([job.metrics.get("limiting_mag") for job in jobs]),
        "difference_limiting_mag": _median([job.metrics.get("difference_limiting_mag") for job in jobs]),
        "source": {name: _median([job.metrics["source"].get(name) for job in jobs]) for name in _MEDIANS},
        "difference": {
            name: _median([job.metrics.get("difference", {}).get(name) for job in jobs])
            for name in (*_MEDIANS, "alert_magnitude_50")
        },
    }


_MEDIANS = ("magnitude_50", "plateau", "flux_bias", "pull_median", "pull_sigma")


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.median(known)) if known else None


def injection_lines(pooled: dict[str, Any]) -> list[str]:
    """Return the figures for a reader, one line a filter and kind."""
    if not pooled:
        return []
    lines = [f"{pooled['n_injected']} artificial stars in {pooled['n_images']} detector images:"]
    for glass, found in pooled["filters"].items():
        for kind, limit_name in (("source", "limiting_mag"), ("difference", "difference_limiting_mag")):
            figures, limit = found[kind], found.get(limit_name)
            if figures["plateau"] is None and figures["flux_bias"] is None:
                continue
            name = "catalog" if kind == "source" else "difference"
            against = f" (computed 5-sigma limit {limit:.2f})" if limit is not None else ""
            alerted = figures.get("alert_magnitude_50")
            parts = [
                f"half found at {_shown(figures['magnitude_50'], '.2f')}{against}",
                f"likely alerts {alerted:.2f}" if alerted is not None else "",
                f"bright ones found {_shown(figures['plateau'], '.1%')}",
                f"fluxes off by {_shown(figures['flux_bias'], '+.2%')}",
                f"scatter {_shown(figures['pull_sigma'], '.2f')} of their errors",
            ]
            told = glass if glass.endswith(_ENTERED["difference"]) else f"{glass} {name}"
            lines.append(f"  {told}: " + ", ".join(part for part in parts if part))
    return lines


def _shown(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
