"""Is everything ready for the night: a checklist, each line looked at now.

A line is *good*, *fair* (the night can run; look at it by day), *bad* (mend it before the night), or *unknown*.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from gueststar.core.errors import ConfigError, GueststarError
from gueststar.core.times import mjd_tai_of_unix, unix
from gueststar.operations.actions.check_archive_disk import try_writing
from gueststar.operations.coming_fields import LEAST_COVERED, catalog_radius_deg, covered, one_a_field, places_of
from gueststar.operations.rules.facts import RECENT_NIGHTS
from gueststar.operations.rules.sun import night_after, noon_before
from gueststar.operations.watch.disks import disk_facts, trouble_with
from gueststar.pipelines.night.plan import REQUIRED_KINDS
from gueststar.store.archive.archive import Archive
from gueststar.store.disks import space_of
from gueststar.store.operation_facts import OperationFacts
from gueststar.store.operation_settings import LandingPlace
from gueststar.store.operator_state import read_operator_state
from gueststar.store.orbits import OrbitStore
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo
from gueststar.stream.broker import LocalBroker

Verdict = Literal["good", "fair", "bad", "unknown"]

CLOCK_FAIR_S, CLOCK_BAD_S = 2.0, 30.0
"""Differences between this machine's clock and others at which a line is fair, and bad."""

_DAY_S = 86400.0
_BEAT_S = 120.0
_CONNECT_S = 3.0


@dataclass(frozen=True)
class Line:
    """One line of the checklist."""

    name: str
    verdict: Verdict
    text: str
    """What was found, and what to do where it is not good."""


@dataclass(frozen=True)
class ReadinessLimits:
    """From when on something is old."""

    calibration_days: float = 30.0
    """Masters older than this are fair."""
    orbit_days: float = 45.0
    """Orbits taken in longer ago than this are fair."""


def readiness_lines(
    repo: SurveyRepo, night: int, *, now: float, limits: ReadinessLimits = ReadinessLimits()
) -> list[Line]:
    """Go through the checklist for a night and return its lines; a check that fails by itself is a line too."""
    checks: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("disk", lambda: _disks(repo)),
        ("archive", lambda: _archive(repo)),
        ("landing places", lambda: _landing_places(repo)),
        ("database", lambda: _database(repo)),
        ("brokers", lambda: _brokers(repo)),
        ("rules", lambda: _rules(repo)),
        ("calibrations", lambda: _calibrations(repo, night, limits)),
        ("catalogs", lambda: _catalogs(repo, night)),
        ("orbits", lambda: _orbits(repo, now, limits)),
        ("clock", lambda: _clock(repo, night)),
        ("workers", lambda: _workers(repo)),
        ("mail", lambda: _mail(repo)),
    ]
    return [line for name, check in checks for line in _looked(name, check)]


def _looked(name: str, check: Callable[[], Iterator[Line]]) -> list[Line]:
    try:
        return list(check())
    except (GueststarError, OSError) as problem:
        return [Line(name, "bad", " ".join(str(problem).split()))]


def _disks(repo: SurveyRepo) -> Iterator[Line]:
    disks, space = repo.settings.operation.disks, space_of(repo.root)
    try_writing(repo.root / "operator")
    text = f"{space.free_gb:.1f} GB free, mark {disks.sandbox_low_gb:g} GB, reserve {disks.reserve_gb:g} GB"
    is_bad, is_fair = space.free_gb < disks.reserve_gb, space.free_gb < disks.sandbox_low_gb
    yield Line("disk", "bad" if is_bad else "fair" if is_fair else "good", text)


def _archive(repo: SurveyRepo) -> Iterator[Line]:
    disks = repo.settings.operation.disks
    if disks.archive is None:
        yield Line(
            "archive", "fair", "there is no second copy: name a folder in survey.yaml, operation: disks: archive"
        )
        return
    if trouble := disk_facts("archive", disks.archive, disks.archive_low_gb).trouble:
        yield Line("archive", "bad", f"{disks.archive} {trouble}")
        return
    archive = Archive(repo)
    try_writing(archive.root)
    is_low = archive.space.free_gb < disks.archive_low_gb
    text = f"{archive.space.free_gb:.1f} GB free, mark {disks.archive_low_gb:g} GB, {len(archive.batches())} manifests"
    yield Line("archive", "fair" if is_low else "good", text)


def _landing_places(repo: SurveyRepo) -> Iterator[Line]:
    places = repo.settings.operation.landing
    if not any(place.holds == "raw" for place in places):
        yield Line("landing places", "fair", "no landing place holds raw files: operation: landing in survey.yaml")
    for place in places:
        name = f"landing place {place.path}"
        problem = _problem_of(place)
        yield Line(name, "bad" if problem else "good", problem or f"{place.holds}, whole by {place.complete_by}")


def _problem_of(place: LandingPlace) -> str:
    """Return what is wrong with a landing place; empty if nothing is."""
    if trouble := trouble_with(place.path):
        return f"cannot be looked into: {trouble}"
    if place.after == "remove" and not os.access(place.path, os.W_OK):
        return "files cannot be removed there (after: remove)"
    return ""


def _database(repo: SurveyRepo) -> Iterator[Line]:
    begin = time.monotonic()
    repo.ledger.event("readiness", "database", "a line to see whether it is written down")
    written = time.monotonic() - begin
    repo.find("raw", exposure=0)
    where = "PostgreSQL" if repo.settings.database else "SQLite"
    verdict: Verdict = "good" if written < 1.0 else "fair"
    yield Line("database", verdict, f"{where}: a line was written in {1000 * written:.0f} ms")


def _brokers(repo: SurveyRepo) -> Iterator[Line]:
    servers = repo.settings.stream.bootstrap_servers
    if servers is None:
        local = LocalBroker(repo.root)
        if local.state is None:
            yield Line("brokers", "fair", "none is set: alerts stay in the log (stream: bootstrap_servers)")
        elif local.pid() is None:
            yield Line(
                "brokers", "bad", f"the repository's broker does not run: gueststar alerts broker start {repo.root}"
            )
        else:
            yield Line("brokers", "good", f"the repository's broker runs at {local.state.bootstrap_servers}")
        return
    answers = {server: _answers(server) for server in servers.split(",")}
    silent = [f"{server.strip()}: {problem}" for server, problem in answers.items() if problem]
    verdict: Verdict = "good" if not silent else "bad" if len(silent) == len(answers) else "fair"
    yield Line("brokers", verdict, "; ".join(silent) or f"{len(answers)} answer")


def _answers(server: str) -> str:
    """Return why a server (host:port) does not take connections; empty if it does."""
    host, _, port = server.strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            return ""
    except (OSError, ValueError) as problem:
        return str(getattr(problem, "strerror", None) or problem)


def _rules(repo: SurveyRepo) -> Iterator[Line]:
    from gueststar.operations.rules.load import load_rules  # rules know the names of actions

    try:
        book = load_rules(repo.root, repo.settings.operation)
    except ConfigError as problem:
        yield Line("rules", "bad", f"{problem}")
        return
    windows = [w for w in book.maintenance if w.end > time.time()]
    text = f"{book.source}: valid" + (f"; next downtime: {windows[0].reason}" if windows else "")
    yield Line("rules", "good", text)


def _calibrations(repo: SurveyRepo, night: int, limits: ReadinessLimits) -> Iterator[Line]:
    """Tell of the kinds of masters that science waits for whether all detectors have valid, recent ones."""
    frames = {kind for kind, _ in OperationFacts(repo.ledger).kinds_of_frames()}
    midnight = mjd_tai_of_unix(noon_before(repo.camera.site, night) + _DAY_S / 2)
    detectors = {detector.id for detector in repo.camera.detectors}
    for kind in REQUIRED_KINDS:
        if kind not in frames:
            continue
        spans = repo.calibration_spans(kind)
        valid = {data_id.detector for data_id, (begin, end) in spans if begin <= midnight < end}
        nights = [int(ref.run.split("/")[1]) for ref in repo.find(kind) if "/" in ref.run]
        newest = max(nights, default=None)
        if missing := sorted(detectors - valid):
            told = ", ".join(map(str, missing[:8]))
            yield Line(f"{kind} masters", "bad", f"none is valid for detectors {told}: take {kind} frames")
        elif newest is not None:
            age = (noon_before(repo.camera.site, night) - noon_before(repo.camera.site, newest)) / _DAY_S
            verdict: Verdict = "fair" if age > limits.calibration_days else "good"
            yield Line(
                f"{kind} masters", verdict, f"valid for all detectors, the newest of {newest}, {age:.0f} nights old"
            )


def _catalogs(repo: SurveyRepo, night: int) -> Iterator[Line]:
    if not repo.camera.has_sky:
        return
    found, nowhere = places_of(repo, expected_on=night, observed_on=night_after(night, -1))
    store, radius = RefcatStore(repo.root / "refcats"), catalog_radius_deg(repo)
    if not store.names():
        yield Line("catalogs", "bad", f"there is no reference catalog: gueststar refcat import {repo.root} TABLE")
        return
    places = [place for place, _ in one_a_field(repo, found)]
    bare = [place for place in places if covered(store, place, radius_deg=radius) < LEAST_COVERED]
    told = [f"{len(places)} fields, {len(places) - len(bare)} covered by {', '.join(store.names())}"]
    told += [f"no stars at {place.ra:.3f}, {place.dec:.3f}" for place in bare[:3]]
    told += [f"fields {', '.join(map(str, nowhere[:3]))} have no place"] if nowhere else []
    yield Line("catalogs", "bad" if bare else "fair" if nowhere or not places else "good", "; ".join(told))


def _orbits(repo: SurveyRepo, now: float, limits: ReadinessLimits) -> Iterator[Line]:
    path = OrbitStore(repo.root).path
    if not repo.camera.has_sky:
        return
    if not path.exists():
        yield Line("orbits", "fair", "no orbits: known asteroids will not be told")
        return
    days = (now - path.stat().st_mtime) / _DAY_S
    yield Line("orbits", "fair" if days > limits.orbit_days else "good", f"taken in {max(0.0, days):.0f} days ago")


def _clock(repo: SurveyRepo, night: int) -> Iterator[Line]:
    """Compare this machine's clock with those of the disks' file servers, of the ledger and of the observatory."""
    operation = repo.settings.operation
    folders = [repo.root / "operator", *([operation.disks.archive] if operation.disks.archive else [])]
    folders += [place.path for place in operation.landing if os.access(place.path, os.W_OK)]
    differences = {str(folder): _difference(folder) for folder in folders if folder.is_dir()}
    worst = max(differences, key=lambda name: abs(differences[name]), default="")
    difference = differences.get(worst, 0.0)
    size = abs(difference)
    verdict: Verdict = "bad" if size > CLOCK_BAD_S else "fair" if size > CLOCK_FAIR_S else "good"
    text = f"within {size:.1f} s of the disks' clocks ({worst})"
    yield Line("clock", verdict, text if verdict == "good" else f"{text}: look at the time service, timedatectl")
    yield from _observatory_clock(repo, night)


def _difference(folder: Path) -> float:
    """Return by how much (s) a file's time on a disk differs from this machine's clock."""
    before = time.time()
    written = try_writing(folder)
    after = time.time()
    return min(written - before, 0.0) if written < before else max(written - after, 0.0)


def _observatory_clock(repo: SurveyRepo, night: int) -> Iterator[Line]:
    """Tell whether exposures were received before their shutter closed: one of two clocks is wrong then."""
    nights = [night_after(night, -n) for n in range(RECENT_NIGHTS + 1)]
    rows = [row for one in nights for row in repo.ledger.exposures(day_obs=one)]
    closed = {row.id: unix(row.info.mjd_start) + row.info.exposure_s for row in rows}
    early = [closed[row.id] - row.received for row in rows if row.received < closed[row.id] - CLOCK_FAIR_S]
    if early:
        text = f"{len(early)} of {len(rows)} exposures came up to {max(early):.0f} s before their shutter closed"
        yield Line("observatory's clock", "bad", f"{text}: its clock or ours is wrong")
    elif rows:
        yield Line("observatory's clock", "good", f"{len(rows)} exposures came after their shutter closed")


def _workers(repo: SurveyRepo) -> Iterator[Line]:
    state = read_operator_state(repo.root)
    if state is None:
        yield Line("workers", "unknown", f"no operator ran here: gueststar operate {repo.root}")
        return
    age = time.time() - state.beat
    if age > _BEAT_S:
        yield Line(
            "workers", "bad", f"the operator was last seen {age / 60:.0f} minutes ago: gueststar operate {repo.root}"
        )
        return
    is_here = state.host == socket.gethostname()
    dead = [worker.name for worker in state.workers if is_here and worker.pid and not psutil.pid_exists(worker.pid)]
    verdict: Verdict = "bad" if dead or not state.workers else "good"
    text = f"operator {state.mode}, {len(state.workers)} workers"
    yield Line("workers", verdict, text + (f"; gone: {', '.join(dead)}" if dead else ""))


def _mail(repo: SurveyRepo) -> Iterator[Line]:
    mail, alarms = repo.settings.operation.mail, repo.settings.operation.alarms
    if (mail.server is None or not mail.alarms_to) and alarms.webhook is None:
        yield Line("mail", "fair", "nobody is told of alarms: operation: mail (server, alarms_to) or alarms (webhook)")
        return
    yield Line("mail", "good", f"alarms go to {', '.join(mail.alarms_to) or 'the webhook'}")


def counted(lines: list[Line]) -> dict[str, int]:
    """Return how many lines have which verdict."""
    return {verdict: sum(line.verdict == verdict for line in lines) for verdict in ("good", "fair", "bad", "unknown")}
