"""Messages on their way to people: files that stay until they were delivered, whatever is down meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gueststar.core.errors import ConfigError, TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.private import open_private
from gueststar.operations.watch import mail, webhook
from gueststar.operations.watch.places import folders, writable_folders
from gueststar.store.operation_settings import OperationSettings

FOLDER = "outbox"

Channel = Literal["mail", "webhook"]

JOINED_FROM = 4
"""As many messages that wait for one channel leave as one."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 1800.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """One message for one channel."""

    channel: Channel
    heading: str
    text: str
    facts: Mapping[str, Any]
    """The same for programs: what a webhook posts."""
    written: float
    """Unix time."""
    attempts: int = 0
    not_before: float = 0.0
    """Unix time of the next attempt."""
    trouble: str = ""
    """Why it could not be delivered at the last one."""


@dataclass(frozen=True)
class Delivery:
    """What became of the messages that waited."""

    n_sent: int = 0
    n_waiting: int = 0
    trouble: str = ""


Send = Callable[[OperationSettings, Message], None]


def channels_of(settings: OperationSettings) -> tuple[Channel, ...]:
    """Return the ways by which a survey's alarms leave."""
    has_mail = settings.mail.server is not None and bool(settings.mail.alarms_to)
    named: list[tuple[Channel, bool]] = [("mail", has_mail), ("webhook", settings.alarms.webhook is not None)]
    return tuple(name for name, is_set in named if is_set)


def post(
    root: Path, settings: OperationSettings, heading: str, text: str, facts: Mapping[str, Any], *, now: float,
    order: int = 0,
) -> list[Path]:  # fmt: skip
    """Put a message into the outbox for each channel; return its files. The same message twice is one.

    Those of one moment leave by their ``order``. TransientError where nothing can be written, also beside the
    repository.
    """
    made = []
    for channel in channels_of(settings):
        mark = hashlib.sha256(json.dumps([heading, text], sort_keys=True).encode()).hexdigest()[:16]
        name = f"{now:017.3f}-{order:09d}-{channel}-{mark}.json"
        made.append(_put(root, name, Message(channel, heading, text, facts, now)))
    return made


def waiting(root: Path) -> list[Message]:
    """Return the messages that were not delivered yet, oldest first."""
    return [message for _, message in _read(root)]


def send_by_channel(settings: OperationSettings, message: Message) -> None:
    """Deliver one message."""
    if message.channel == "mail":
        mail.send(settings.mail, message.heading, message.text, to=settings.mail.alarms_to)
    elif settings.alarms.webhook is not None:
        webhook.post(settings.alarms.webhook, {"text": f"{message.heading}\n{message.text}", **message.facts})


def send_outbox(root: Path, settings: OperationSettings, *, now: float, send: Send = send_by_channel) -> Delivery:
    """Deliver what waits and is due; what cannot be delivered waits longer each time, up to half an hour.

    Where another process delivers at this moment nothing is done.
    """
    with _alone(root) as is_alone:
        if not is_alone:
            return Delivery(n_waiting=len(waiting(root)))
        n_sent, trouble = 0, ""
        for channel in ("mail", "webhook"):
            mine = [(path, message) for path, message in _read(root) if message.channel == channel]
            if channel not in channels_of(settings):
                remove(path for path, _ in mine)  # nobody is there any more to whom they could go
                continue
            due = [pair for pair in mine if _is_due(pair[1], now)]
            n, why = _send_all(settings, due, now, send)
            n_sent, trouble = n_sent + n, trouble or why
        return Delivery(n_sent, len(waiting(root)), trouble)


def _send_all(
    settings: OperationSettings, due: Sequence[tuple[Path, Message]], now: float, send: Send
) -> tuple[int, str]:
    """Send messages of one channel until one fails; return how many left, and why the others did not."""
    left = list(due)
    while left:
        batch = left if len(left) >= JOINED_FROM else left[:1]
        try:
            send(settings, joined([message for _, message in batch]))
        except (TransientError, ConfigError) as problem:
            for path, message in left:
                with suppress(OSError):  # where its disk is full it is tried again sooner
                    _write(path, _put_off(message, str(problem), now))
            _log.warning("%d messages by %s wait: %s", len(left), batch[0][1].channel, problem)
            return len(due) - len(left), str(problem)
        remove(path for path, _ in batch)
        left = left[len(batch) :]
    return len(due), ""


def joined(messages: Sequence[Message]) -> Message:
    """Return several messages of a channel as one."""
    if len(messages) == 1:
        return messages[0]
    lines = [f"- {message.heading}" for message in messages]
    parts = [f"{message.heading}\n\n{message.text}" for message in messages]
    text = "\n".join(lines) + "\n\n" + "\n\n---\n\n".join(parts)
    facts = {"messages": [dict(message.facts) for message in messages]}
    heading = f"{len(messages)} messages, the first: {messages[0].heading}"
    return replace(messages[0], heading=heading, text=text, facts=facts)


def _put_off(message: Message, trouble: str, now: float) -> Message:
    pause = min(_FIRST_PAUSE_S * 2.0**message.attempts, _LONGEST_PAUSE_S)
    return replace(message, attempts=message.attempts + 1, not_before=now + pause, trouble=trouble)


def _is_due(message: Message, now: float) -> bool:
    return message.not_before <= now or message.not_before > now + _LONGEST_PAUSE_S  # the clock was set back


def _put(root: Path, name: str, message: Message) -> Path:
    trouble: OSError | None = None
    for folder in _folders(root):
        try:
            _write(folder / name, message)
            return folder / name
        except OSError as problem:
            trouble = problem
    raise TransientError(f"the message {message.heading!r} cannot be written down: {trouble}")


def _folders(root: Path) -> Iterator[Path]:
    for folder in writable_folders(root):
        with suppress(OSError):
            (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
            yield folder / FOLDER


def _write(path: Path, message: Message) -> None:
    with appearing_whole(path) as temporary, open_private(temporary, "w") as file:
        json.dump(asdict(message), file)
        file.flush()
        os.fsync(file.fileno())


def _read(root: Path) -> list[tuple[Path, Message]]:
    found = []
    for path in sorted((path for folder in folders(root) for path in (folder / FOLDER).glob("[0-9]*.json")), key=_name):
        try:
            found.append((path, Message(**json.loads(path.read_text()))))
        except OSError:  # another process delivered it this moment, or its disk is away
            continue
    return found


def _name(path: Path) -> str:
    return path.name


def remove(paths: Iterable[Path]) -> None:
    """Forget messages."""
    for path in list(paths):
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Hold the outbox while it is decided what is to be told: two processes would tell it twice."""
    with _locked(root, "writing", fcntl.LOCK_EX):
        yield


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    try:
        with _locked(root, "sending", fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield True
    except BlockingIOError:
        yield False


@contextmanager
def _locked(root: Path, name: str, how: int) -> Iterator[None]:
    """Hold a lock in the first folder that can be written to; none where there is no such folder."""
    for folder in _folders(root):
        try:
            file = open_private(folder / name, "a")
        except OSError:
            continue
        with file:
            fcntl.flock(file, how)
            yield
        return
    yield
