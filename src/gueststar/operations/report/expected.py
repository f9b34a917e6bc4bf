"""Expected against received: what a schedule or an observing log tells of, and what came of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.times import unix_of
from gueststar.model.expected import ExpectedExposure, ListSource
from gueststar.model.exposure import ExposureInfo
from gueststar.store.expected import Expectations
from gueststar.store.ledger import FIRST_FIELD_NUMBER, separation_deg
from gueststar.store.repo import SurveyRepo

TOLERANCE_S: dict[ListSource, float] = {"log": 10.0, "schedule": 3600.0}
"""An exposure is the one that a list tells of if it began this near to the time told: a log knows, a plan slips."""

_NEVER = 1e9
_LIKE_MINUTES = 30.0
"""Missing exposures farther apart than this are different gaps."""

_LEAST_FOR_CADENCE = 10
_LEAST_GAP_S = 120.0
_GAP_FACTOR = 5.0


@dataclass(frozen=True)
class Gap:
    """A stretch of a night without the exposures that should be there."""

    begin: str
    """UTC: of the first missing exposure, or of the end of the last one before."""
    end: str
    n: int
    """Exposures that are missing; 0 where only the cadence tells."""
    minutes: float

    def line(self) -> str:
        """Return it in words."""
        if self.n == 1:
            return f"{self.begin[11:16]}: 1 exposure"
        if self.n:
            return f"{self.begin[11:16]} to {self.end[11:16]}: {self.n} exposures"
        return f"{self.begin[11:16]} to {self.end[11:16]}: {self.minutes:.0f} minutes without an exposure"


@dataclass(frozen=True)
class Expected:
    """What was expected of a night and what came. Without a list, only the gaps in the cadence are known."""

    source: str
    """schedule, log, or empty where nothing was handed in."""
    n_expected: int
    n_matched: int
    missing: tuple[ExpectedExposure, ...] = ()
    unexpected: tuple[ExposureInfo, ...] = ()
    gaps: tuple[Gap, ...] = ()
    n_not_taken: int = 0
    """Planned, but not in the observing log: the telescope did not take them."""
    matched: tuple[tuple[ExpectedExposure, int], ...] = ()
    """Entries with the exposures they are."""
    n_not_due: int = 0
    """Planned for later than now."""

    @property
    def is_known(self) -> bool:
        """Whether a list tells what to expect."""
        return bool(self.source)

    def missing_by(self, what: str) -> Counter[str]:
        """Return the number of missing exposures by ``program`` or ``field``."""
        return Counter(_name_of(row, what) for row in self.missing)


def _name_of(row: ExpectedExposure, what: str) -> str:
    if what == "program":
        return "program not told" if row.program is None else row.program.name.lower()
    return "no field" if row.field is None else str(row.field)


def expected_of(repo: SurveyRepo, night: int, received: Sequence[ExposureInfo], *, now: float) -> Expected:
    """Return what lists expect of a night against what was received.

    What is planned for after ``now`` (Unix time) is not missing, but not due. Where there is an observing log it says
    what was expected (it knows what was taken), and the schedule only how much of the plan was not taken. Without any
    list, interruptions of a steady cadence are told, and nothing is missing.
    """
    rows = Expectations(repo.ledger).of_night(night)
    logged, whole_plan = ([row for row in rows if row.source == source] for source in ("log", "schedule"))
    planned = [row for row in whole_plan if row.mjd_start is None or float(unix_of(row.mjd_start)) < now]
    if not rows:
        return Expected("", 0, 0, gaps=tuple(cadence_gaps(received)))
    chosen, source = (logged, "log") if logged else (planned, "schedule")
    kinds = {row.observation_type for row in chosen}
    comparable = [info for info in received if info.observation_type in kinds]
    tolerance_deg = _tolerance_deg(repo)
    pairs = match(chosen, comparable, tolerance_deg=tolerance_deg)
    found = {i for i, _ in pairs}
    taken = {j for _, j in pairs}
    missing = [row for i, row in enumerate(chosen) if i not in found]
    n_not_taken = len(planned) - len(_agreeing(planned, logged, tolerance_deg)) if logged else 0
    return Expected(
        source, len(chosen), len(pairs), tuple(missing),
        tuple(info for j, info in enumerate(comparable) if j not in taken), tuple(missing_gaps(missing)), n_not_taken,
        tuple((chosen[i], comparable[j].exposure_id) for i, j in pairs), len(whole_plan) - len(planned),
    )  # fmt: skip


def is_expected(repo: SurveyRepo, night: int) -> bool:
    """Return whether a list tells of a night; readers are told of none."""
    return repo.sight.reader.is_operator and bool(Expectations(repo.ledger).of_night(night))


def _tolerance_deg(repo: SurveyRepo) -> float:
    own = repo.settings.field_tolerance_arcmin
    return max(own or repo.camera.pointing_tolerance_arcmin, 1.0) / 60.0


def match(
    rows: Sequence[ExpectedExposure], received: Sequence[ExposureInfo], *, tolerance_deg: float
) -> list[tuple[int, int]]:
    """Return pairs (entry, exposure), each in one pair at most: by number, else by time with field and filter.

    The second kind is the assignment with the most pairs, and among these the smallest sum of time differences.
    """
    by_id = {info.exposure_id: j for j, info in enumerate(received)}
    pairs = [(i, by_id[row.exposure_id]) for i, row in enumerate(rows) if row.exposure_id in by_id]
    pairs = list({j: (i, j) for i, j in reversed(pairs)}.values())
    left = sorted(set(range(len(rows))) - {i for i, _ in pairs})
    free = sorted(set(range(len(received))) - {j for _, j in pairs})
    if left and free:
        cost = _costs([rows[i] for i in left], [received[j] for j in free], tolerance_deg)
        from scipy.optimize import linear_sum_assignment

        for a, b in zip(*linear_sum_assignment(cost), strict=True):
            if cost[a, b] < _NEVER:
                pairs.append((left[a], free[b]))
    return sorted(pairs)


def _costs(
    rows: Sequence[ExpectedExposure], received: Sequence[ExposureInfo], tolerance_deg: float
) -> NDArray[np.float64]:
    """Return the price ``[entry, exposure]`` of taking one for the other, s; `_NEVER` where they cannot be one."""
    wanted = np.array([math.nan if row.mjd_start is None else row.mjd_start for row in rows])
    seconds = np.abs(wanted[:, None] - np.array([info.mjd_start for info in received])[None, :]) * 86400.0
    limits = np.array([TOLERANCE_S[row.source] for row in rows])[:, None]
    cost = np.where(np.isnan(seconds), limits, seconds)  # any time of the night: after those that tell one
    cost[cost > limits] = _NEVER
    for a, b in zip(*np.nonzero(cost < _NEVER), strict=True):
        if not _agree(rows[a], received[b], tolerance_deg):
            cost[a, b] = _NEVER
    return cost


def _agree(row: ExpectedExposure, info: ExposureInfo, tolerance_deg: float) -> bool:
    """Return whether nothing that an entry tells contradicts an exposure."""
    told = (
        (row.observation_type, info.observation_type), (row.physical_filter, info.physical_filter),
    )  # fmt: skip
    if any(mine is not None and theirs is not None and mine != theirs for mine, theirs in told):
        return False
    if row.program is not None and row.program != info.program:
        return False
    if row.field is not None and info.field is not None and info.field < FIRST_FIELD_NUMBER:
        return row.field == info.field
    if None not in (row.ra, row.dec, info.ra, info.dec):
        return separation_deg(row.ra, row.dec, info.ra, info.dec) <= max(tolerance_deg, 0.1)  # type: ignore[arg-type]
    return True


def _agreeing(
    planned: Sequence[ExpectedExposure], logged: Sequence[ExpectedExposure], tolerance_deg: float
) -> list[tuple[int, int]]:
    """Return the planned exposures that the log says were taken."""
    taken = [_as_taken(row) for row in logged]
    return match(planned, taken, tolerance_deg=tolerance_deg)


def _as_taken(row: ExpectedExposure) -> ExposureInfo:
    """Return an entry of the log in the form of a received exposure; a time that it does not tell is the night's."""
    from gueststar.model.rights import Program

    return ExposureInfo(
        "", row.observation_type, row.mjd_start or 51544.0, row.exposure_s or 0.0, row.day_obs,
        Program.PUBLIC if row.program is None else row.program, row.physical_filter, None, row.ra, row.dec,
        field=row.field,
    )  # fmt: skip


def missing_gaps(missing: Sequence[ExpectedExposure]) -> list[Gap]:
    """Return stretches of missing exposures; those without a time belong to none."""
    timed = sorted((row for row in missing if row.mjd_start is not None), key=lambda row: row.mjd_start or 0.0)
    groups: list[list[ExpectedExposure]] = []
    for row in timed:
        is_near = groups and (row.mjd_start - groups[-1][-1].mjd_start) * 1440.0 < _LIKE_MINUTES  # type: ignore[operator]
        if is_near:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [_gap_of(group) for group in groups]


def _gap_of(group: Sequence[ExpectedExposure]) -> Gap:
    begin, last = group[0].mjd_start or 0.0, group[-1]
    end = (last.mjd_start or 0.0) + (last.exposure_s or 0.0) / 86400.0
    return Gap(times.isot_utc(begin)[:19], times.isot_utc(end)[:19], len(group), (end - begin) * 1440.0)


def cadence_gaps(received: Sequence[ExposureInfo]) -> list[Gap]:
    """Return the interruptions of a steady cadence of science exposures; none where the cadence is not steady.

    Steady: three quarters of the pauses between exposures are no longer than twice the typical one (and ten seconds).
    """
    rows = sorted((info for info in received if info.observation_type == "science"), key=lambda info: info.mjd_start)
    if len(rows) < _LEAST_FOR_CADENCE:
        return []
    ends = np.array([info.mjd_start + info.exposure_s / 86400.0 for info in rows])
    starts = np.array([info.mjd_start for info in rows])
    pauses = (starts[1:] - ends[:-1]) * 86400.0
    typical = float(np.median(pauses))
    if np.percentile(pauses, 75) > 2.0 * typical + 10.0:
        return []
    long = np.flatnonzero(pauses > max(_LEAST_GAP_S, _GAP_FACTOR * typical))
    return [
        Gap(times.isot_utc(ends[k])[:19], times.isot_utc(starts[k + 1])[:19], 0, float(pauses[k] / 60.0)) for k in long
    ]


def expected_lines(expected: Expected | None) -> list[str]:
    """Return it as lines of text."""
    if expected is None:
        return []
    if not expected.is_known:
        gaps = [f"  {gap.line()}" for gap in expected.gaps]
        return (
            [f"the cadence was interrupted {len(gaps)} times (no list tells what was expected):", *gaps] if gaps else []
        )
    named = "observing log" if expected.source == "log" else "schedule"
    lines = [
        f"{expected.n_expected} exposures expected by the {named}: {expected.n_matched} received, "
        f"{len(expected.missing)} missing, {len(expected.unexpected)} unexpected"
    ]
    lines += [f"  missing {gap.line()}" for gap in expected.gaps]
    for what in ("program", "field"):
        if counts := expected.missing_by(what):
            lines.append(f"  missing by {what}: " + ", ".join(f"{name} {n}" for name, n in counts.most_common(12)))
    if expected.n_not_due:
        lines.append(f"  {expected.n_not_due} planned exposures are not due yet")
    if expected.n_not_taken:
        lines.append(f"  {expected.n_not_taken} planned exposures are not in the observing log: they were not taken")
    return lines


def as_json(expected: Expected | None) -> dict[str, Any] | None:
    """Return it as JSON-able values."""
    if expected is None:
        return None
    return {
        "source": expected.source,
        "expected": expected.n_expected,
        "received": expected.n_matched,
        "missing": [_row_as_json(row) for row in expected.missing],
        "unexpected": [info.exposure_id for info in expected.unexpected],
        "gaps": [vars(gap) for gap in expected.gaps],
        "not_taken": expected.n_not_taken,
        "not_due": expected.n_not_due,
    }


def _row_as_json(row: ExpectedExposure) -> dict[str, Any]:
    return {
        "time_utc": None if row.mjd_start is None else times.isot_utc(row.mjd_start),
        "exposure_id": row.exposure_id,
        "observation_type": row.observation_type,
        "field": row.field,
        "physical_filter": row.physical_filter,
        "program": None if row.program is None else int(row.program),
        "file": row.file,
    }
