"""Gathers the facts: from the operator's picture, the ledger, the alert log, disks and logs, whichever answer."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gueststar.core import times
from gueststar.core.clock import Clock, SystemClock
from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.operations.rules.sun import sun_altitude_deg
from gueststar.operations.watch.alarms import Watched, known_alarms, spooled_alarms
from gueststar.operations.watch.disks import disks_of, trouble_with
from gueststar.operations.watch.facts import PRIORITY_NAMES, SILENT_AFTER_S, Facts, Latency, Work, sample_of
from gueststar.operations.watch.history import read_history, with_sample
from gueststar.operations.watch.logs import human_line, last_lines
from gueststar.operations.watch.outbox import waiting
from gueststar.store.alerts.publication import Publication
from gueststar.store.ledger import Ledger
from gueststar.store.operator_state import OperatorState, read_operator_state
from gueststar.store.orbits import FILE as ORBITS_FILE
from gueststar.store.pulse import Pulse
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings, read_settings
from gueststar.stream.clients import has_stream

LATENCY_HOURS = 3.0
RECENT_EXPOSURES = 12
STREAM_EVERY_S = 30.0
"""Counting a night's alerts takes a moment: it is done this often, by the machine's clock."""


@dataclass(frozen=True)
class WithoutLedger:
    """A survey whose database does not answer, as far as alarms need one."""

    root: Path
    settings: SurveySettings
    reason: str

    @property
    def ledger(self) -> Ledger:
        """Raise ServiceDown: alarms go into a file then."""
        raise ServiceDown(self.reason)


class Watcher:
    """Looks at the survey in the folder ``root``, again and again; it changes nothing there.

    ``clock`` is the operator's, where it is at hand: else what its picture tells counts. ``machine`` is that of beats.
    """

    def __init__(self, root: Path, *, clock: Clock | None = None, machine: Clock | None = None) -> None:
        self.root = root.absolute()
        self._clock, self._machine = clock, machine or SystemClock()
        self._repo: SurveyRepo | None = None
        self._stream: tuple[float, int, Mapping[str, int]] = (0.0, 0, {})
        self._one_at_a_time = threading.Lock()
        self.settings: SurveySettings = read_settings(self.root / "survey.yaml")

    def close(self) -> None:
        """Close the connections."""
        if self._repo is not None:
            self._repo.close()
            self._repo = None

    def facts(self) -> Facts:
        """Return what is known now; what does not answer is left out, and the facts say so."""
        with self._one_at_a_time:
            with suppress(ConfigError, OSError):  # a survey.yaml that is being edited: the last good one counts
                self.settings = read_settings(self.root / "survey.yaml")
            facts = self._without_ledger()
            try:
                facts = self._with_ledger(facts, self.repo())
            except ServiceDown as problem:
                facts = replace(facts, database=str(problem), alarms=tuple(spooled_alarms(self.root)))
            return replace(facts, history=with_sample(read_history(self.root), sample_of(facts)))

    def repo(self) -> SurveyRepo:
        """Return the survey; ServiceDown while its database does not answer."""
        if self.settings.database is None and not (self.root / "ledger.sqlite3").exists():
            raise ServiceDown(f"the database does not work now: {self.root / 'ledger.sqlite3'} is not there")
        if self._repo is None:
            self._repo = SurveyRepo.open(self.root)
        return self._repo

    def survey(self, facts: Facts) -> Watched:
        """Return the survey, or what is left of it while its database does not answer."""
        if facts.database:
            return WithoutLedger(self.root, self.settings, facts.database)
        return self.repo()

    def _without_ledger(self) -> Facts:
        machine = self._machine.now()
        state, is_gone = self._operator(machine)
        age = None if state is None else machine - state.beat
        messages = waiting(self.root)
        operation = self.settings.operation
        return Facts(
            survey=self.settings.name,
            now=self._now(machine, None if is_gone else state),
            settings=operation,
            operator=state,
            beat_age_s=age,
            is_operator_gone=is_gone,
            night=None if state is None or is_gone else state.night,
            disks=disks_of(self.root, operation),
            landing_away={str(p.path): why for p in operation.landing if (why := trouble_with(p.path))},
            has_stream=has_stream(self.root, self.settings.stream),
            orbits_age_days=_age_days(self.root / ORBITS_FILE, machine),
            certificates=_certificates(self.settings.stream.ca_file),
            messages_waiting=len(messages),
            message_since=min((one.written for one in messages), default=None),
            messages_trouble=next((one.trouble for one in messages if one.trouble), ""),
            log=tuple(human_line(line) for line in last_lines(self.root, 12)),
        )

    def _now(self, machine: float, state: OperatorState | None) -> float:
        """Return what time it is for the operator: a rehearsal has its own."""
        if self._clock is not None:
            return self._clock.now()
        return machine if state is None else state.clock + max(machine - state.beat, 0.0)

    def _operator(self, machine: float) -> tuple[OperatorState | None, bool]:
        """Return the operator's last picture, and whether it is gone: no process, or no beat for too long."""
        try:
            state = read_operator_state(self.root)
        except (OSError, ValueError):  # not whole, or of another version
            return None, True
        if state is None:
            return None, True
        is_old = abs(machine - state.beat) > SILENT_AFTER_S
        return state, is_old or (state.host == socket.gethostname() and not _is_there(state.pid))

    def _with_ledger(self, facts: Facts, repo: SurveyRepo) -> Facts:
        pulse = Pulse(repo.ledger)
        night = facts.night or pulse.last_night()
        if night is None:
            return replace(facts, alarms=tuple(known_alarms(repo)), sun_altitude_deg=_sun(repo, facts.now))
        expected, last_expected = pulse.n_expected(night, before_mjd=times.mjd_tai_of_unix(facts.now))
        return replace(
            facts,
            night=night,
            exposures=pulse.exposures(night),
            expected=expected,
            last_expected=None if last_expected is None else times.unix(last_expected),
            refused=pulse.refused(night),
            fields=tuple(pulse.fields(night)),
            work=tuple(Work(kind, state, n, cpu) for (kind, state), (n, cpu) in pulse.work(night).items()),
            queue={PRIORITY_NAMES.get(key, str(key)): n for key, n in sorted(pulse.queue().items())},
            oldest_waiting=pulse.oldest_waiting(night),
            last_received=pulse.last_received(night),
            latencies=tuple(_latencies(pulse, night, since=facts.now - 3600.0 * LATENCY_HOURS)),
            recent=tuple(pulse.last_exposures(night, RECENT_EXPOSURES)),
            last_files=tuple((str(status), reason) for status, reason in pulse.last_files(20)),
            quarantined=tuple(pulse.quarantined(night)),
            stream=self._stream_of(night) if facts.has_stream else {},
            sun_altitude_deg=_sun(repo, facts.now),
            alarms=tuple(known_alarms(repo)),
        )

    def _stream_of(self, night: int) -> Mapping[str, int]:
        """Return a night's alerts by fate, counted anew every half minute."""
        at, of_night, known = self._stream
        machine = self._machine.now()
        if of_night == night and abs(machine - at) < STREAM_EVERY_S:
            return known
        publication = Publication(self.root)
        try:
            counts: dict[str, int] = {}
            for (_, fate), n in publication.counts(night).items():
                counts[fate] = counts.get(fate, 0) + n
        finally:
            publication.close()
        self._stream = (machine, night, counts)
        return counts


def _latencies(pulse: Pulse, night: int, *, since: float) -> list[Latency]:
    rows = pulse.latencies(night, since=since)
    if not rows:
        return []
    ends = np.array([start + seconds / 86400.0 for _, start, seconds, _, _ in rows])
    closed = times.unix_of(ends)
    found = []
    for (exposure, _, _, received, finished), end in zip(rows, closed.tolist(), strict=True):
        arrival = received - end
        found.append(Latency(exposure, finished, arrival if -60.0 < arrival < 86400.0 else None, finished - received))
    return found


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _age_days(path: Path, now: float) -> float | None:
    try:
        return (now - path.stat().st_mtime) / 86400.0
    except OSError:
        return None


def _certificates(path: str | None) -> dict[str, float]:
    """Return when the first certificate of a file ends; nothing where there is none that can be read."""
    if path is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError):
        return {path: 0.0}
    ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return {path: min(ends)} if ends else {}


def _sun(repo: SurveyRepo, now: float) -> float | None:
    """Return the sun's altitude at the telescope, degrees; None where nobody said where that is."""
    site = repo.camera.site
    return sun_altitude_deg(site, now) if site.is_placed else None


@contextmanager
def opened(root: Path) -> Iterator[Watched]:
    """Open a survey for its alarms, also while its database does not answer."""
    try:
        repo = SurveyRepo.open(root)
    except ServiceDown as problem:
        yield WithoutLedger(root.absolute(), read_settings(root / "survey.yaml"), str(problem))
        return
    with repo:
        yield repo
