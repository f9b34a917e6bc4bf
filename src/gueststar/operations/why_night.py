"""What the ledger tells of a night, of what was expected of it, and of the times of an exposure."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from gueststar.core import times
from gueststar.model.expected import ExpectedExposure
from gueststar.model.rights import Program
from gueststar.operations.report.expected import expected_lines, expected_of
from gueststar.operations.report.landing import files_not_taken
from gueststar.operations.report.latency import ImageTimes, image_times, latency_lines, sent_times
from gueststar.operations.report.night_report import make_report
from gueststar.operations.report.timeline import timeline_lines
from gueststar.operations.report.verdict import verdict_of
from gueststar.operations.rules.record import FIRING, time_of
from gueststar.operations.rules.words import moment_words
from gueststar.store.arrivals import received_times
from gueststar.store.expected import Expectations
from gueststar.store.ledger import ExposureRow
from gueststar.store.repo import SurveyRepo

_MOST = 200


def account_lines(repo: SurveyRepo, night: int) -> list[str]:
    """Return a night's verdict, what was expected, its latencies and what was done; empty if nothing is known of it."""
    report = make_report(repo, night)
    is_expected = report.expected is not None and report.expected.is_known
    if not report.account.units and not is_expected and not report.account.refused:
        return []
    lines = [verdict_of(report)]
    lines += [f"  {fate}: {n} x {reason}" for fate, reason, n in report.account.reasons()]
    lines += [landing.line() for landing in report.landing] + expected_lines(report.expected)
    lines += [f"{n} exposures to {recipe} only: {why}" for recipe, why, n in report.fallbacks]
    return lines + latency_lines(report.latency) + timeline_lines(report.timeline, most=_MOST)


def never_received(repo: SurveyRepo, number: int) -> list[str]:
    """Return what lists tell of an exposure that was never received; empty if none does, or for a reader."""
    if not repo.sight.reader.is_operator:
        return []
    return [_told(row, "and never received") for row in Expectations(repo.ledger).of_exposure(number)]


def expectation_of(repo: SurveyRepo, row: ExposureRow) -> list[str]:
    """Return which entry of which list an exposure is; a line that none told of it where lists tell of its night."""
    if not repo.sight.reader.is_operator:
        return []
    night = row.info.day_obs
    received = [other.info for other in repo.ledger.exposures(day_obs=night)]
    expected = expected_of(repo, night, received, now=time.time())
    if not expected.is_known:
        return []
    mine = [entry for entry, number in expected.matched if number == row.id]
    if mine:
        return [_told(mine[0], "")]
    is_unexpected = any(info.exposure_id == row.id for info in expected.unexpected)
    return [f"nobody expected it: it is not in the {expected.source} of the night"] if is_unexpected else []


def _told(row: ExpectedExposure, and_what: str) -> str:
    when = f"at {times.isot_utc(row.mjd_start)[:19]} UTC" if row.mjd_start else "at any time"
    facts = [
        f"field {row.field}" if row.field is not None else "",
        f"through {row.physical_filter}" if row.physical_filter else "",
        f"{Program(row.program).name.lower()} program" if row.program is not None else "",
    ]
    told = ", ".join(fact for fact in facts if fact)
    named = f"expected {when} of night {row.day_obs} by the {row.source} {row.file}".rstrip()
    return " ".join(part for part in (named, f"({told})" if told else "", and_what) if part)


def times_of(repo: SurveyRepo, row: ExposureRow) -> dict[int, list[str]]:
    """Return, by detector, a science exposure's way from the shutter to the alert, step by step; none for a reader."""
    if not repo.sight.reader.is_operator or row.info.observation_type != "science":
        return {}
    jobs = repo.ledger.jobs(exposure_id=row.id, is_lean=True)
    images = image_times(
        [row], jobs, camera=repo.camera, received=received_times(repo.ledger, row.info.day_obs),
        sent=sent_times(repo, row.info.day_obs), required_s=repo.settings.operation.latency_required_s,
    )  # fmt: skip
    return {image.detector: _steps(image) for image in images}


def _steps(image: ImageTimes) -> list[str]:
    lines = [
        f"shutter closed {_clock(image.shutter)}, received {_clock(image.received)} ({_span(image.transfer_s)} later)"
    ]
    if image.alerted is None:
        return [*lines, "no alert yet"]
    steps = image.steps
    spent = f"{_span(steps['queue'])} queued, {_span(steps['work'])} worked on"
    if math.isnan(steps["work"]):
        spent = "it was processed again since: when it was queued and worked on is not known"
    lines.append(f"{image.n_alerts} alerts written {_clock(image.alerted)} ({spent})")
    if image.published is not None and not image.n_unsent:
        lines.append(f"published {_clock(image.published)} ({_span(steps['publication'])} later)")
    elif image.n_unsent:
        lines.append(f"{image.n_unsent} alerts are not on the stream")
    total = image.transfer_s + image.processing_s
    return [*lines, f"from the shutter to the alert: {_span(total)}"] if math.isfinite(total) else lines


def _span(seconds: float) -> str:
    for limit, unit, word in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172800.0, 3600.0, "h")):
        if abs(seconds) < limit:
            return f"{seconds / unit:.1f} {word}"
    return f"{seconds / 86400:.0f} days"


def story_of_rule(repo: SurveyRepo, name: str) -> list[str]:
    """Return the last firings of a rule and what became of them; empty if there is none of that name."""
    events = repo.ledger.events(what=FIRING, subject=name)
    lines = [
        f"  {moment_words(time_of(event))} night {event.data.get('night', '-')}: {event.text}"
        + (f" ({event.data['state']})" if event.data.get("state") else "")
        for event in events[-_MOST:]
    ]
    return [f"rule {name!r} in the diary, {len(events)} entries", *lines] if events else []


def story_of_landing(repo: SurveyRepo, name: str) -> list[str]:
    """Return where a file lies that was never taken in; empty if it lies in no landing place, or for a reader."""
    if not repo.sight.reader.is_operator:
        return []
    return [
        f"file {path}: lies there since {_clock(since)} and was not taken in yet"
        for path, since in files_not_taken(repo, name)
    ]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
