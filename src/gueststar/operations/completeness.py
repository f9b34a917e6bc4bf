"""What artificial sources tell of a night: completeness against magnitude, and errors of fluxes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.operations.account import NightAccount
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
        "n_images": len(done),
        "n_injected": sum(job.metrics["n_injected"] for job in done),
        "filters": {
            glass: {"bins": [bins[glass][low] for low in sorted(bins[glass])], **_figures(mine)}
            for glass, mine in sorted(groups.items())
        },
    }


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
            lines.append(f"  {glass} {name}: " + ", ".join(part for part in parts if part))
    return lines


def _shown(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
