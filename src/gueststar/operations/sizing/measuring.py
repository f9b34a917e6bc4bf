"""Take the costs of images from a repository that processed some on this machine."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gueststar.core.errors import DataError
from gueststar.operations.sizing.throughput import STAGES, MeasuredSky
from gueststar.operations.survey_pages.night_summary import stored_bytes
from gueststar.store.alerts.log import AlertLog
from gueststar.store.ledger import Job, JobState
from gueststar.store.repo import SurveyRepo


def measure_repo(repo: SurveyRepo, *, name: str) -> MeasuredSky:
    """Return what the images cost that a repository processed on this machine. Raises DataError if there are none."""
    jobs = {kind: _done(repo, kind) for kind in STAGES}
    if not jobs["science"]:
        raise DataError(f"{repo.root} has no processed images: gueststar process {repo.root}")
    steps: dict[str, list[float]] = defaultdict(list)
    for kind, mine in jobs.items():
        for job in mine:
            for step, seconds in (job.metrics.get("steps") or {}).items():
                steps[f"{kind}: {step}"].append(float(seconds))
    shapes = [detector.shape for detector in repo.camera.detectors]
    nights = sorted({job.day_obs for job in jobs["science"] if job.day_obs is not None})
    return MeasuredSky(
        name=name, n_images=len(jobs["science"]), mpix=statistics.median(ny * nx for ny, nx in shapes) / 1e6,
        n_sources=_median(jobs["science"], "n_sources"), n_alerts=_median(jobs["association"], "n_alerts"),
        cpu_s={kind: statistics.median(job.cpu_s or 0.0 for job in mine) for kind, mine in jobs.items() if mine},
        steps={step: round(statistics.median(values), 4) for step, values in steps.items()},
        bytes=_bytes(repo.root, nights, len(jobs["science"])), alert_bytes=_alert_bytes(repo.root),
        memory_gb=max((job.peak_rss_mb or 0.0) for mine in jobs.values() for job in mine) / 1000.0,
    )  # fmt: skip


def _done(repo: SurveyRepo, kind: str) -> list[Job]:
    """Return the jobs of a kind but, where there are several, the first: it loads the compiled code."""
    jobs = [job for job in repo.ledger.jobs(kind=kind, state=JobState.DONE) if job.cpu_s]
    return jobs[1:] if len(jobs) > 2 else jobs


def _median(jobs: Sequence[Job], metric: str) -> float:
    values = [float(job.metrics[metric]) for job in jobs if job.metrics.get(metric) is not None]
    return statistics.median(values) if values else 0.0


_MADE = (
    "science_image", "detrended_frame", "source", "aperture_source", "science_metrics", "difference_image",
    "dia_source", "candidate_cutouts", "forced_source", "streak", "streak_cutouts", "difference_metrics",
)  # fmt: skip


def _bytes(root: Path, nights: Sequence[int], n_images: int) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for night in nights:
        for product, number in stored_bytes(root, night).items():
            if product in _MADE:
                total[product] += number
                counts[product] += sum(1 for _ in (root / "products" / product / str(night)).iterdir())
    return {product: round(total[product] / counts[product], 1) for product in _MADE if counts[product]}


def _alert_bytes(root: Path) -> float | None:
    if not (root / "alerts").is_dir():
        return None
    with AlertLog(root) as log:
        sizes = [path.stat().st_size for path in log.segments()]
        n = log.last_serial()
    return round(sum(sizes) / n, 1) if n and sizes else None
