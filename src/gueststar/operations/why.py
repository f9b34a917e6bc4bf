"""The whole causal story of one thing, from the ledger: an exposure, an alert, or a place on the sky."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.model.rights import Program
from gueststar.operations.report.account import RAW, account_of
from gueststar.operations.rules.story import exposure_rule_lines, night_rule_lines
from gueststar.operations.why_night import (
    account_lines,
    expectation_of,
    never_received,
    story_of_landing,
    story_of_rule,
    times_of,
)
from gueststar.store.alerts.log import AlertLog
from gueststar.store.ledger import FAILED_ATTEMPT, ExposureRow, Job
from gueststar.store.repo import SurveyRepo

_NIGHT = re.compile(r"^(19|20)\d{6}$")
_PLACE = re.compile(r"^\s*([0-9.]+)\s*,\s*([+-]?[0-9.]+)\s*$")


def story_of(repo: SurveyRepo, subject: str) -> list[str]:
    """Return the story of an exposure, candid, object, file, night (YYYYMMDD), rule or ``RA,DEC`` (degrees), as lines.

    Raises ConfigError if there is no such thing.
    """
    if place := _PLACE.match(subject):
        return story_of_place(repo, ra=float(place[1]), dec=float(place[2]))
    if subject.isdigit() and (row := repo.ledger.exposure(int(subject))) is not None:
        return story_of_exposure(repo, row)
    if (lines := story_of_alert(repo, subject)) is not None:
        return lines
    if lines := _story_of_file(repo, subject) + story_of_landing(repo, subject):
        return lines
    if subject.isdigit() and (lines := never_received(repo, int(subject))):
        return lines
    if lines := story_of_rule(repo, subject):
        return lines
    if _NIGHT.match(subject) and (lines := story_of_night(repo, int(subject))):
        return lines
    raise ConfigError(
        f"{subject!r} is no exposure, alert, object, file, night, rule or place (RA,DEC in degrees) of {repo.root}"
    )


def story_of_night(repo: SurveyRepo, night: int) -> list[str]:
    """Return what a night (YYYYMMDD) brought, and what rules did for it; empty if there is nothing of it."""
    rows = repo.ledger.exposures(day_obs=night)
    counts = Counter(row.info.observation_type for row in rows)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    lines = [f"night {night}: exposures {told}"] if rows else []
    return lines + account_lines(repo, night) + night_rule_lines(repo.ledger, night)


def story_of_exposure(repo: SurveyRepo, row: ExposureRow) -> list[str]:
    """Return what arrived, what was done with it and what became of every detector."""
    info = row.info
    glass = f" through {info.physical_filter}" if info.physical_filter else ""
    program = info.program.name.lower()
    lines = [
        f"exposure {row.id}: {info.observation_type}, {info.exposure_s:g} s{glass}, {program} program",
        f"  started {times.isot_utc(info.mjd_start)} UTC, night {info.day_obs}, object {info.object_name or '-'}",
    ]
    if info.ra is not None and info.dec is not None:
        lines.append(f"  pointing RA {info.ra:.5f} Dec {info.dec:+.5f}, field {info.field}")
    received = f"received {_clock(row.received)}, " if row.received else ""  # not told to readers
    lines.append(f"  {received}detectors {', '.join(map(str, row.detectors))}")
    lines += [f"  file {f.path}: {f.status.value} {f.reason}" for f in _files_of(repo, row.id)]
    lines += [f"  {line}" for line in expectation_of(repo, row)]
    lines += [f"  {line}" for line in exposure_rule_lines(repo.ledger, row.id)]
    steps = times_of(repo, row)
    account = account_of(repo.ledger, info.day_obs)
    for unit in account.units:
        if unit.exposure.id == row.id:
            origin = f" (came in as {unit.origin})" if unit.origin != RAW else ""
            lines.append(
                f"detector {unit.detector}{origin}: {unit.fate.value}{': ' + unit.reason if unit.reason else ''}"
            )
            lines += [f"  {line}" for line in steps.get(unit.detector, ())]
            for job in _jobs_of(repo, row, unit.detector):
                lines += [f"  {line}" for line in job_lines(job) + attempt_lines(repo, job)]
    return lines


def attempt_lines(repo: SurveyRepo, job: Job) -> list[str]:
    """Return the attempts at a job that failed for reasons that may pass; none for a reader."""
    told = repo.ledger.events(what=FAILED_ATTEMPT, subject=str(job.id)) if job.attempts > 1 else []
    return [f"  attempt {event.data.get('attempt')} failed {_clock(event.time)}: {event.text}" for event in told]


def job_lines(job: Job) -> list[str]:
    """Return what one unit of work used, measured and cost."""
    when = f" at {_clock(job.finished)}" if job.finished else ""
    cost = f", attempt {job.attempts}, {job.cpu_s or 0:.2f} s of CPU" if job.attempts else ""  # not told to readers
    lines = [f"{job.kind}: {job.state.value}{when}{cost}"]
    if job.reason:
        lines.append(f"  because {job.reason}")
    for name, used in (job.metrics.get("inputs") or {}).items():
        shown = f"{len(used)} ({used[0]} ...)" if isinstance(used, list) and len(used) > 3 else used
        if used:
            lines.append(f"  used {name}: {shown}")
    entered = job.metrics.get("entered")
    if isinstance(entered, dict):
        lines.append(f"  entered from {entered.get('file')}")
        if entered.get("measured"):
            lines.append("  measured here: " + ", ".join(entered["measured"]))
        lines += [f"  note: {note}" for note in entered.get("notes", ())]
    measured = [
        f"{name} {float(value):.4g} {METRICS_BY_NAME[name].unit}".rstrip()
        for name, value in job.metrics.items()
        if name in METRICS_BY_NAME and isinstance(value, int | float)
    ]
    if measured:
        lines.append("  measured " + ", ".join(measured))
    rejected = job.metrics.get("not_alerted") or job.metrics.get("rejected")
    if rejected:
        lines.append(f"  rejected {rejected}")
    if job.traceback:
        lines += [f"  {line}" for line in job.traceback.strip().splitlines()[-4:]]
    return lines


def story_of_alert(repo: SurveyRepo, subject: str) -> list[str] | None:
    """Return the story of a candid or of an object's alerts; None if the log has none that the reader may take."""
    log, nights = AlertLog(repo.root), repo.sight.packet_nights()
    entries = [e] if subject.isdigit() and (e := log.find(int(subject), programs=nights)) else []
    entries = entries or log.entries(programs=nights, object_name=subject)
    if not entries:
        return None
    from gueststar.formats.avro import decode_alert

    lines = []
    for entry in entries:
        packet = decode_alert(log.read(entry))
        candidate, stream = packet["candidate"], Program(entry.program).name.lower()
        sign = "brighter" if candidate["isdiffpos"] in ("t", "1") else "fainter"
        lines += [
            f"alert {entry.candid} of {entry.object_name}, {stream} stream"
            + (f", {entry.segment}" if repo.sight.reader.is_operator else ""),
            f"  RA {candidate['ra']:.6f} Dec {candidate['dec']:+.6f}, {sign} than the reference, "
            f"mag {candidate['magpsf']:.3f} ± {candidate['sigmapsf']:.3f}, reliability {candidate['rb']}",
            f"  history: {len(packet['prv_candidates'] or [])} items shown, {candidate['ndethist']} detections counted",
        ]
    if len(entries) == 1:
        lines += _exposure_behind(repo, candidate)
    return lines


def _exposure_behind(repo: SurveyRepo, candidate: dict[str, Any]) -> list[str]:
    jd = float(candidate["jd"])
    for row in repo.ledger.exposures(observation_type="science"):
        if abs(times.jd_utc(row.info.mjd_start) - jd) < 0.05 / 86400.0:
            return story_of_exposure(repo, row)
    return []


def story_of_place(repo: SurveyRepo, *, ra: float, dec: float) -> list[str]:
    """Return which images covered a place and what was detected there."""
    lines = [f"place RA {ra:.5f} Dec {dec:+.5f}"]
    for row in repo.ledger.exposures(observation_type="science"):
        for job in _one_a_detector(repo.ledger.jobs(exposure_id=row.id)):
            corners = job.metrics.get("corners") or _record_corners(job)
            if corners and _is_inside(ra, dec, corners):
                limit = job.metrics.get("limiting_mag", job.metrics.get("difference_limiting_mag"))
                told = "" if limit is None else f": limit {float(limit):.2f} mag"
                lines.append(
                    f"  {times.isot_utc(row.info.mjd_start)[:19]} exposure {row.id} detector {job.detector} "
                    f"{row.info.physical_filter}{told}"
                )
                lines += _detections_near(repo, row.id, int(job.detector or 0), ra, dec)
    if len(lines) == 1:
        lines.append("  no calibrated image covers it")
    return lines


def _one_a_detector(jobs: list[Job]) -> list[Job]:
    """Return the job that tells the outline of each detector: of the science image, else of a user's difference."""
    found: dict[int | None, Job] = {}
    for kind in ("difference", "science"):
        found |= {job.detector: job for job in jobs if job.kind == kind}
    return [found[number] for number in sorted(found, key=lambda n: -1 if n is None else n)]


def _record_corners(job: Job) -> list[list[float]] | None:
    record = job.metrics.get("visit_record")
    return [[record[f"ra_{k}"], record[f"dec_{k}"]] for k in (1, 2, 3, 4)] if record else None


def _detections_near(repo: SurveyRepo, visit: int, detector: int, ra: float, dec: float) -> list[str]:
    import numpy as np

    from gueststar.store.products import DataId

    lines = []
    data_id = DataId(visit=visit, detector=detector)
    for product, what in (("source", "source"), ("dia_source", "difference detection")):
        if not repo.exists(product, data_id):
            continue
        table = repo.get(product, data_id)
        dx = (table["ra"] - ra + 180.0) % 360.0 - 180.0
        distance = np.hypot(dx * np.cos(np.radians(dec)), table["dec"] - dec) * 3600.0
        for row in np.flatnonzero(distance < 3.0):
            extra = f", reliability {table['reliability'][row]:.2f}" if "reliability" in table else ""
            flux, error = table["psf_flux"][row], table["psf_flux_err"][row]
            lines.append(f"    {what} at {distance[row]:.2f} arcsec: {flux:.0f} ± {error:.0f} nJy{extra}")
    return lines


def _is_inside(ra: float, dec: float, corners: list[list[float]]) -> bool:
    """Return whether a place lies inside a small convex footprint given by its corners in order."""
    import numpy as np

    points = np.asarray(corners, dtype=np.float64)
    x = ((points[:, 0] - ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec))
    y = points[:, 1] - dec
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    return bool(np.all(cross > 0) or np.all(cross < 0))


def _story_of_file(repo: SurveyRepo, subject: str) -> list[str]:
    return [
        f"file {f.path}: {f.status.value}{' ' + _clock(f.received) if f.received else ''}"
        + (f": {f.reason}" if f.reason else "")
        for f in repo.ledger.files()
        if f.path.endswith(subject) or f.sha256.startswith(subject)
    ]


def _files_of(repo: SurveyRepo, exposure: int) -> list[Any]:
    return list(repo.ledger.files(exposure_id=exposure))


def _jobs_of(repo: SurveyRepo, row: ExposureRow, detector: int) -> list[Job]:
    if row.info.observation_type == "science":
        return repo.ledger.jobs(exposure_id=row.id, detector=detector)
    jobs = repo.ledger.jobs(kind="calibration", day_obs=row.info.day_obs, detector=detector)
    return [job for job in jobs if row.id in job.key.get("frames", ())]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
