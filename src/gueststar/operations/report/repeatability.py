"""How well a night's stars repeat, once its exposures are tied together."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from gueststar.store.ledger import Job, JobState


def repeatability(jobs: list[Job]) -> list[dict[str, Any]]:
    """Return one row a filter: medians over its detectors, mag; empty where nothing was tied together."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        is_relative = job.kind == "learning" and job.key.get("kind") == "relative_photometry"
        if is_relative and job.state is JobState.DONE and job.metrics.get("repeatability_bright_mag") is not None:
            groups[job.key.get("filter") or "?"].append(job.metrics)
    return [
        {
            "filter": glass,
            "n_detectors": len(mine),
            "n_exposures": max(int(metrics["n_frames"]) for metrics in mine),
            **{
                name: float(np.median([metrics[name] for metrics in mine]))
                for name in ("repeatability_bright_mag", "repeatability_mag", "offset_rms_mag", "floor_mag")
            },
        }
        for glass, mine in sorted(groups.items())
    ]


def repeatability_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line a filter for a reader."""
    return [
        f"{row['filter']}: the brightest stars repeat to {1e3 * row['repeatability_bright_mag']:.1f} mmag,"
        f" all to {1e3 * row['repeatability_mag']:.1f}, once {row['n_exposures']} exposures are tied together"
        f" ({row['n_detectors']} {'detector' if row['n_detectors'] == 1 else 'detectors'};"
        f" zero points moved by {1e3 * row['offset_rms_mag']:.1f} mmag)"
        for row in rows
    ]
