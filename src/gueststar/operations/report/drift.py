"""Has what is scored changed? Features, scores and pass rate of a night against training and earlier nights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.drift import kolmogorov_smirnov, population_stability
from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.core.errors import ConfigError
from gueststar.model.metrics import Grade
from gueststar.operations.report.night_memory import remembered
from gueststar.store.ledger import Job, JobState
from gueststar.store.night_values import night_stamp, science_nights
from gueststar.store.reliability_models import ReliabilityModels
from gueststar.store.repo import SurveyRepo

Counts = list[NDArray[np.int64]]

FAIR, POOR = 0.1, 0.25
"""Population stability above which a distribution has moved somewhat, and has shifted (the customary limits)."""

N_NIGHTS = 30
"""Earlier nights that a night is compared with."""

_LEAST = 200
"""Fewer detections than this tell nothing of a distribution: chance alone moves the index by a tenth."""


@dataclass(frozen=True)
class Shift:
    """How far the distribution of one feature or score has moved."""

    name: str
    psi_training: float
    ks_training: float
    psi_before: float
    ks_before: float
    grade: Grade
    """By the earlier nights of the survey where there are enough detections, else by the training rows."""


@dataclass(frozen=True)
class InjectedScores:
    """How the night's artificial sources were scored."""

    n: int
    """Detected ones."""
    likely: float
    """Fraction whose score and flags would let them become alerts."""
    likely_before: float
    """The same on earlier nights; NaN without any."""
    median_bin: tuple[float, float]
    """Bin of score that holds the median one."""


@dataclass(frozen=True)
class Drift:
    """What a night says of the reliability model in use."""

    version: str
    n_detections: int
    n_before: int
    passing: float
    """Fraction of the detections with a score of one half or more."""
    passing_before: float
    shifts: tuple[Shift, ...]
    injected: InjectedScores | None

    @property
    def grade(self) -> Grade:
        """Of the whole: that of the score's distribution."""
        return next((shift.grade for shift in self.shifts if shift.name == "reliability"), Grade.UNKNOWN)

    def worst(self, n: int = 5) -> list[Shift]:
        """Return the features that moved most, against what they are graded by."""
        known = [shift for shift in self.shifts if shift.grade is not Grade.UNKNOWN]
        return sorted(known, key=lambda shift: -_graded(shift))[:n]


def drift_of(repo: SurveyRepo, night: int, jobs: Sequence[Job]) -> Drift | None:
    """Return the drift of a night with these jobs; None where nothing was scored by a model that counts."""
    tonight = _scored(jobs)
    if not tonight:
        return None
    version = Counter(job.metrics["vetting"]["version"] for job in tonight).most_common(1)[0][0]
    try:
        model = ReliabilityModels(repo.root).model(version)
    except ConfigError:  # a model that the survey's settings name by its path, or that a release shipped before
        return None
    earlier = science_nights(repo.ledger, until=night - 1, most=N_NIGHTS)
    before = [metrics for one in earlier for metrics in _remembered_pools(repo, one)]
    return compare_nights(model, [job.metrics for job in jobs], before)


def _remembered_pools(repo: SurveyRepo, night: int) -> list[dict[str, Any]]:
    def compute() -> list[dict[str, Any]]:
        """Return the sums of the night."""
        kinds = ("difference", "injection")
        jobs = [
            job for kind in kinds
            for job in repo.ledger.jobs(kind=kind, day_obs=night, state=JobState.DONE, is_lean=True)
        ]  # fmt: skip
        return pooled_metrics([job.metrics for job in jobs])

    pools: list[dict[str, Any]] = remembered(repo.root, night, "drift", night_stamp(repo.ledger, night), compute)
    return pools


def pooled_metrics(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a night's metrics summed, in the same form: one entry a version of the model, one of artificial sources.

    Compared with another night (`compare_nights`), they say the same as the metrics of all its images.
    """
    by_version: dict[str, list[dict[str, Any]]] = {}
    for one in metrics:
        if "counts" in one.get("vetting", {}):
            by_version.setdefault(one["vetting"]["version"], []).append(one)
    pools: list[dict[str, Any]] = []
    for version, mine in by_version.items():
        counts = _pooled(mine, [np.zeros(len(row), np.int64) for row in mine[0]["vetting"]["counts"]])
        n_reliable = sum(one["vetting"]["n_reliable"] for one in mine)
        pools.append(
            {"vetting": {"version": version, "counts": [row.tolist() for row in counts], "n_reliable": n_reliable}}
        )
    scores = [one["injected_scores"] for one in metrics if "injected_scores" in one]
    if scores:
        total = {name: sum(one[name] for one in scores) for name in ("n", "n_likely")}
        pools.append({"injected_scores": total})
    return pools


def compare_nights(
    model: ReliabilityModel, tonight: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> Drift | None:
    """Return the drift from metrics of difference and injection jobs; None if none was scored by the model."""
    mine, theirs = ([m for m in metrics if _is_by(m, model.version)] for metrics in (tonight, before))
    distribution = model.training.get("distribution")
    if not mine or not distribution:
        return None
    expected = [np.asarray(counts) for counts in distribution["counts"]]
    now, then = _pooled(mine, expected), _pooled(theirs, expected)
    return Drift(
        model.version, _n(now), _n(then), _passing(mine), _passing(theirs),
        tuple(_shift(*one) for one in zip(distribution["names"], now, then, expected, strict=True)),
        _injected(tonight, before),
    )  # fmt: skip


def _scored(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.kind == "difference" and "counts" in job.metrics.get("vetting", {})]


def _is_by(metrics: dict[str, Any], version: str) -> bool:
    vetting = metrics.get("vetting", {})
    return vetting.get("version") == version and "counts" in vetting


def _pooled(metrics: Sequence[dict[str, Any]], like: Counts) -> Counts:
    total = [np.zeros_like(counts) for counts in like]
    for one in metrics:
        for sums, counts in zip(total, one["vetting"]["counts"], strict=True):
            sums += np.asarray(counts)
    return total


def _n(counts: Counts) -> int:
    return int(counts[0].sum()) if counts else 0


def _passing(metrics: Sequence[dict[str, Any]]) -> float:
    n = sum(sum(one["vetting"]["counts"][0]) for one in metrics)
    return sum(one["vetting"]["n_reliable"] for one in metrics) / n if n else float("nan")


def _shift(name: str, now: NDArray[Any], then: NDArray[Any], expected: NDArray[Any]) -> Shift:
    has_before = min(now.sum(), then.sum()) >= _LEAST
    psi_training, psi_before = population_stability(now, expected), population_stability(now, then)
    decisive = psi_before if has_before else psi_training
    grade = Grade.UNKNOWN
    if now.sum() >= _LEAST and np.isfinite(decisive):
        grade = Grade.POOR if decisive > POOR else Grade.FAIR if decisive > FAIR else Grade.GOOD
    return Shift(
        name, psi_training, kolmogorov_smirnov(now, expected), psi_before if has_before else float("nan"),
        kolmogorov_smirnov(now, then) if has_before else float("nan"), grade,
    )  # fmt: skip


def _graded(shift: Shift) -> float:
    return shift.psi_before if np.isfinite(shift.psi_before) else shift.psi_training


def _injected(tonight: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> InjectedScores | None:
    now, then = ([m["injected_scores"] for m in metrics if "injected_scores" in m] for metrics in (tonight, before))
    n = sum(one["n"] for one in now)
    if n == 0:
        return None
    counts = np.sum([one["counts"] for one in now], axis=0)[:-1]
    edges = [0.0, *now[0]["edges"], 1.0]
    middle = int(np.searchsorted(np.cumsum(counts), 0.5 * counts.sum()))
    n_then = sum(one["n"] for one in then)
    return InjectedScores(
        n, sum(one["n_likely"] for one in now) / n,
        sum(one["n_likely"] for one in then) / n_then if n_then else float("nan"), (edges[middle], edges[middle + 1]),
    )  # fmt: skip


def drift_lines(drift: Drift | None) -> list[str]:
    """Return the drift for a reader."""
    if drift is None:
        return []
    lines = [
        f"reliability model {drift.version}: {drift.n_detections} detections scored, {drift.passing:.1%} at 0.5 or more"
        + (f" ({drift.passing_before:.1%} of {drift.n_before} on earlier nights)" if drift.n_before else "")
        + f"; distribution of the scores {drift.grade.value}"
    ]
    for shift in drift.worst():
        against = f", {shift.psi_before:.2f} to earlier nights" if np.isfinite(shift.psi_before) else ""
        lines.append(f"  {shift.name}: stability index {shift.psi_training:.2f} to training{against} ({shift.grade})")
    if drift.injected is not None:
        found = drift.injected
        before = f" ({found.likely_before:.1%} earlier)" if np.isfinite(found.likely_before) else ""
        lines.append(
            f"  artificial sources: {found.n} detected, {found.likely:.1%} would be alerts{before}, "
            f"median score {found.median_bin[0]:g} to {found.median_bin[1]:g}"
        )
    return lines
