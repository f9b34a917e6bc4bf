"""Raise, settle and deliver alarms.

An alarm is a row of the ledger, one for each kind and subject while it is open. Telling people is apart from that: a
message is first written into the outbox, then sent from there, so that nothing is lost where the mail server, the
database or this process goes away in between.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gueststar.core.errors import ConfigError, ServiceDown, TransientError
from gueststar.operations.watch.kinds import advice_on
from gueststar.operations.watch.outbox import (
    Delivery,
    Message,
    Send,
    channels_of,
    only_writer,
    post,
    remove,
    send_by_channel,
    send_outbox,
)
from gueststar.operations.watch.quiet import is_due, is_held_back
from gueststar.operations.watch.spool import SpooledAlarm, merge_spool, open_spooled, spool
from gueststar.store.alarms import Alarm, Alarms, Severity
from gueststar.store.ledger import Ledger
from gueststar.store.settings import SurveySettings

CALM_S = 300.0
"""An alarm is told to be over when it has been so for this long; one that comes back before is the same alarm."""


class Watched(Protocol):
    """What of a survey alarms need; a `SurveyRepo` has it."""

    @property
    def root(self) -> Path:
        """Its folder."""
        ...

    @property
    def settings(self) -> SurveySettings:
        """Its survey.yaml."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Its ledger; may raise ServiceDown."""
        ...


def raise_alarm(repo: Watched, kind: str, subject: str, text: str, severity: Severity, *, now: float) -> None:
    """Say that something is wrong: once, or as often as it is seen.

    While the database is down the alarm is kept in a file of the repository; a critical one leaves all the same, with
    the next `deliver`.
    """
    try:
        Alarms(repo.ledger).see(kind, subject, severity, text, now=now, calm_s=CALM_S)
    except ServiceDown:
        is_sent = severity == "critical" and bool(channels_of(repo.settings.operation))
        is_news = spool(repo.root, SpooledAlarm("see", kind, subject, now, severity, text, is_sent))
        if is_news and is_sent:
            _post(repo, [Alarm(0, kind, subject, severity, text, now, now, 1)], now=now)


def settle_alarm(repo: Watched, kind: str, subject: str, *, now: float) -> None:
    """Say that something is right: if it was wrong, people are told so too."""
    try:
        Alarms(repo.ledger).settle(kind, subject, now=now)
    except ServiceDown:
        spool(repo.root, SpooledAlarm("settle", kind, subject, now))


def deliver(repo: Watched, now: float, *, send: Send = send_by_channel) -> Delivery:
    """Tell people what is due: write it into the outbox, then send what lies there.

    Troubles on the way are told in what is returned, not raised. A mail server may take its time: what must not wait
    uses a `Courier`.
    """
    post_due(repo, now)
    return send_outbox(repo.root, repo.settings.operation, now=now, send=send)


def post_due(repo: Watched, now: float) -> int:
    """Write messages on all alarms that are due, and on those that are over, into the outbox; return on how many.

    Nothing is done while the database is down: `raise_alarm` has written those on critical alarms.
    """
    try:
        alarms = Alarms(repo.ledger)
        merge_spool(repo.root, alarms)
        settings = repo.settings.operation
        if not channels_of(settings):
            return 0
        with only_writer(repo.root):
            told = [alarm for alarm in alarms.open() if is_due(alarm, settings.alarms, now)]
            told += [
                alarm for alarm in alarms.over_untold()
                if now - (alarm.closed or now) >= CALM_S and not is_held_back(alarm, settings.alarms, now)
            ]  # fmt: skip
            made = _post(repo, told, now=now)
            try:
                if told:
                    alarms.mark_sent([alarm.id for alarm in told], now=now)
            except ServiceDown:  # not written down, not sent: else it would be sent again and again
                remove(made)
                return 0
        return len(told)
    except ServiceDown:
        return 0


def known_alarms(repo: Watched, *, since: float | None = None) -> list[Alarm]:
    """Return the open alarms, the worst first, or all that were open since a time; also while the database is down.

    Then they are those that were raised since it went, without numbers.
    """
    try:
        alarms = Alarms(repo.ledger)
        merge_spool(repo.root, alarms)
        return alarms.open() if since is None else alarms.since(since)
    except ServiceDown:
        return spooled_alarms(repo.root)


def spooled_alarms(root: Path) -> list[Alarm]:
    """Return the alarms that were raised while the database is down."""
    return [
        Alarm(0, one.kind, one.subject, one.severity, one.text, one.time, one.time, 1) for one in open_spooled(root)
    ]


def try_delivery(repo: Watched, *, now: float, send: Send = send_by_channel) -> dict[str, str]:
    """Send a message by every way that is set; return what was wrong with each, empty where it was delivered.

    ConfigError where none is set.
    """
    operation, survey = repo.settings.operation, repo.settings.name
    if not channels_of(operation):
        raise ConfigError(
            f"{repo.root / 'survey.yaml'} names no way: operation.mail.server with alarms_to, or "
            "operation.alarms.webhook"
        )
    alarm = Alarm(0, "test", "", "notice", "Somebody tried whether alarms arrive.", now, now, 1)
    told = {}
    for channel in channels_of(operation):
        message = Message(channel, heading_of(alarm, survey), text_of(alarm), facts_of(alarm, survey), now)
        try:
            send(operation, message)
            told[str(channel)] = ""
        except (TransientError, ConfigError) as problem:
            told[str(channel)] = str(problem)
    return told


class Courier:
    """Delivers beside a loop that must not wait: messages are written at once, and sent in a thread of their own."""

    def __init__(self, *, send: Send = send_by_channel) -> None:
        self._send = send
        self._thread: threading.Thread | None = None
        self.last = Delivery()
        """What became of the messages at the last turn that ended."""

    def turn(self, repo: Watched, now: float) -> None:
        """Write what is due, and send unless the last turn still does."""
        post_due(repo, now)
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._deliver, args=(repo, now), name="courier", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Wait a while for a turn that is under way; what was not sent stays in the outbox."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _deliver(self, repo: Watched, now: float) -> None:
        self.last = send_outbox(repo.root, repo.settings.operation, now=now, send=self._send)


def heading_of(alarm: Alarm, survey: str) -> str:
    """Return the subject line of a message on an alarm."""
    if alarm.closed is not None:
        return f"[{survey}] over: {alarm.name}"
    again = "still " if alarm.sent is not None else ""
    return f"[{survey}] {again}{alarm.severity.upper()}: {alarm.name}"


def text_of(alarm: Alarm) -> str:
    """Return the message on an alarm: what, since when, what to do."""
    lines = [alarm.text, "", f"since {_utc(alarm.opened)}, seen {alarm.n_seen} times, last {_utc(alarm.last_seen)}"]
    if alarm.closed is not None:
        lines.append(f"over since {_utc(alarm.closed)}")
    elif advice := advice_on(alarm.kind):
        lines += ["", f"What to do: {advice.replace('`', '')}"]
    if alarm.id and alarm.closed is None:
        lines += ["", f"Taken care of? gueststar alarm ack REPO {alarm.id}"]
    return "\n".join(lines) + "\n"


def facts_of(alarm: Alarm, survey: str) -> dict[str, Any]:
    """Return an alarm as values for programs."""
    state = "closed" if alarm.closed is not None else "open"
    return {
        "survey": survey, "alarm": alarm.id, "kind": alarm.kind, "subject": alarm.subject,
        "severity": alarm.severity, "state": state, "message": alarm.text, "opened": alarm.opened,
        "last_seen": alarm.last_seen, "closed": alarm.closed, "n_seen": alarm.n_seen,
    }  # fmt: skip


def _post(repo: Watched, alarms: Sequence[Alarm], *, now: float) -> list[Path]:
    survey, made = repo.settings.name, []
    for alarm in alarms:
        made += post(
            repo.root, repo.settings.operation, heading_of(alarm, survey), text_of(alarm), facts_of(alarm, survey),
            now=now, order=alarm.id,
        )  # fmt: skip
    return made


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
