"""Publication: what the alert log holds goes to its topic, each packet once and in order.

The log is durable before anything is sent. The publisher sends in the log's order with an idempotent producer, and
marks a packet as sent when the brokers acknowledged it. Killed between acknowledgement and mark, or after any failure,
it first reads from the topic what arrived beyond the last mark: the topic itself says what is there, so nothing is sent
twice. One publisher works on a repository at a time. No step asks a clock, but for what is told to people.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

from gueststar.core.errors import DataError, TransientError
from gueststar.model.flavour import Flavour
from gueststar.store.alerts.log import FOLDER, AlertLog
from gueststar.store.alerts.publication import Fate, Publication, SentPacket
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.settings import StreamSettings
from gueststar.stream.access import readers_of
from gueststar.stream.clients import client_options, error_of
from gueststar.stream.flavours import content_of, flavours_of, headers_of, key_of
from gueststar.stream.read import read_topic
from gueststar.stream.sending import (
    PACKETS_ARE_LARGE,
    PATIENCE_S,
    Delivery,
    MessageParts,
    Sender,
    produce,
    send_retraction,
)
from gueststar.stream.topics import RETRACTIONS, Topics, topic_of

BATCH = 500
"""Packets read from the log, sent and marked together: what a killed publisher reads back at most."""

_NOTHING = "nothing to send"


@dataclass
class PublishReceipt:
    """What one round of publishing did."""

    n_sent: int = 0
    n_found: int = 0
    """Packets that were on their topic already, unmarked: an earlier publisher was killed before it marked them."""
    n_held: int = 0
    n_dead: int = 0
    n_gone: int = 0
    """Packets that were sent, and whose topic has been deleted since."""
    n_retracted: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """Segment of the log -> why it was held."""
    flavours: dict[Flavour, PublishReceipt] = field(default_factory=dict)
    """What was done in the flavours besides the full one."""

    def line(self) -> str:
        """Return it in words."""
        parts = [(self.n_sent, "sent"), (self.n_found, "found on the stream"), (self.n_held, "held")]
        parts += [(self.n_dead, "dead"), (self.n_retracted, "retracted")]
        parts += [(self.n_gone, "gone with a deleted topic")]
        told = [f"{n} {what}" for n, what in parts if n]
        lines = [(flavour, receipt.line()) for flavour, receipt in self.flavours.items()]
        told += [f"{flavour}: {line}" for flavour, line in lines if line != _NOTHING]
        return ", ".join(told) or _NOTHING


class Publisher:
    """Sends the alert log of the repository at ``root`` to its stream, in all flavours that its settings name.

    Raises ConfigError if there is no stream or the login is wrong, and TransientError where the brokers do not answer;
    what was not sent waits in the log.
    """

    def __init__(self, root: Path, settings: StreamSettings, flavour: Flavour = Flavour.FULL) -> None:
        """``flavour`` is that of this publisher's topics; the full one has those of the others under it."""
        self.root, self.settings, self.flavour = root, settings, flavour
        self._options = client_options(root, settings)
        self._servers = str(self._options["bootstrap.servers"])
        self._log, self._state = AlertLog(root), Publication(root, flavour)
        others = flavours_of(settings)[1:] if flavour is Flavour.FULL else ()
        self._others = [Publisher(root, settings, other) for other in others]
        self._topics = Topics(self._options, settings, readers_of=readers_of(root, settings))
        self._sender = Sender(self._options)
        self._reconciled: set[str] = set()
        self._refusing: set[str] = set()
        """Topics that refused a batch: the next packets go one by one."""
        self._name = uuid4().hex

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; what was not acknowledged is not marked."""
        self._sender.forget()
        self._state.close()
        self._log.close()
        for other in self._others:
            other.close()

    def publish(self) -> PublishReceipt:
        """Send all that waits, in order; return what was done."""
        receipt = PublishReceipt()
        with _only_publisher(self.root, self._name) as was_ours:
            self._send_waiting(receipt, was_ours=was_ours)
            for other in self._others:
                receipt.flavours[other.flavour] = PublishReceipt()
                other._send_waiting(receipt.flavours[other.flavour], was_ours=was_ours)
        return receipt

    def _send_waiting(self, receipt: PublishReceipt, *, was_ours: bool) -> None:
        if not was_ours:
            self._reconciled.clear()  # another was here, and may have been killed before it marked what it sent
        try:
            while entries := self._state.waiting(BATCH):
                chosen = self._sendable(entries, receipt) if self.flavour is Flavour.FULL else entries
                for topic, group in self._runs_of_a_topic(chosen):
                    self._send_group(topic, group, receipt)
            if self.flavour is Flavour.FULL:
                self._send_retractions(receipt)
        except BaseException:
            self._start_over()  # something may have arrived that is not marked
            raise

    def follow(
        self, *, every_s: float = 1.0, tell: Callable[[str], None] = lambda _: None, is_over: Callable[[], bool],
        then: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Publish whatever enters the log until ``is_over``; brokers that stop are waited for as long as it takes.

        ``then`` is called behind each round.
        """
        pause = every_s
        while not is_over():
            try:
                receipt = self.publish()
                then()
            except TransientError as problem:
                if pause == every_s:
                    tell(f"{problem}; waiting for the brokers")
                pause = min(2.0 * pause, 30.0)
            else:
                if pause > every_s:
                    tell("the brokers answer again: going on")
                pause = every_s
                if receipt.line() != PublishReceipt().line():
                    tell(receipt.line())
            time.sleep(pause)

    # One group

    def _sendable(self, entries: list[AlertEntry], receipt: PublishReceipt) -> list[AlertEntry]:
        """Return the packets that may go; those of images with absurdly many are held."""
        limit = self.settings.max_alerts_per_image
        sizes = {segment: self._state.segment_size(segment) for segment in {entry.segment for entry in entries}}
        released = self._state.released(entry.candid for entry in entries)
        held: dict[str, list[int]] = {}
        for entry in entries:
            if sizes[entry.segment] > limit and entry.candid not in released:
                held.setdefault(entry.segment, []).append(entry.candid)
        for segment, members in sorted(held.items()):
            reason = f"{sizes[segment]} alerts of one detector image, more than stream.max_alerts_per_image ({limit})"
            receipt.n_held += self._state.set_aside(members, Fate.HELD, reason, time=time.time())
            receipt.held[segment] = reason
        kept_back = {candid for members in held.values() for candid in members}
        return [entry for entry in entries if entry.candid not in kept_back]

    def _send_group(self, topic: str, group: list[AlertEntry], receipt: PublishReceipt) -> None:
        number = self._topics.ensure(topic, group[0].program)
        if topic not in self._reconciled:
            receipt.n_gone += self._state.recognise(topic, number)
            receipt.n_found += self._reconcile(topic)
            self._reconciled.add(topic)
            known = self._state.sent_to(topic)
            group = [entry for entry in group if entry.candid not in known]
        last = self._state.last_offsets(topic)
        is_careful = topic in self._refusing
        self._refusing.discard(topic)
        done = self._sender.send(topic, self._messages(group, receipt), is_careful=is_careful)
        if any(packet.offset <= last.get(packet.partition, -1) for packet in done.sent):
            return self._start_over()  # the topic was deleted and made anew meanwhile: read what is on it now
        receipt.n_sent += self._state.mark_sent(done.sent, time=time.time())
        if not done.is_whole:
            self._settle(topic, done, receipt, is_careful=is_careful)

    def _messages(self, group: list[AlertEntry], receipt: PublishReceipt) -> Iterator[MessageParts]:
        """Yield the packets' messages; a packet that the flavour cannot tell is a dead letter of it."""
        for entry in group:
            packet = self._log.read(entry)
            try:
                yield _parts_of(self.flavour, entry, packet)
            except DataError as problem:
                receipt.n_dead += self._state.set_aside([entry.candid], Fate.DEAD, str(problem), time=time.time())

    def _settle(self, topic: str, done: Delivery, receipt: PublishReceipt, *, is_careful: bool) -> None:
        """Bury what will never be taken, and raise what stopped the others, unless it was their neighbours."""
        self._start_over()
        verdict = done.verdict(is_careful=is_careful)
        for item in verdict.dead:
            reason = item.error.str()
            receipt.n_dead += self._state.set_aside([item.candid], Fate.DEAD, reason, time=time.time())
        if verdict.must_be_careful:
            self._refusing.add(topic)
        elif verdict.is_stopped:
            raise error_of(done.trouble, self._servers, f"topic {topic}")

    def _reconcile(self, topic: str) -> int:
        """Mark what is on a topic beyond the last mark; return how many packets that was news of."""
        packets = read_topic(self._options, topic, after=self._state.last_offsets(topic))
        found = [SentPacket(packet.candid, topic, packet.partition, packet.offset) for packet in packets]
        return self._state.mark_sent(found, time=time.time())

    def _send_retractions(self, receipt: PublishReceipt) -> None:
        for retraction in self._state.waiting_retractions():
            entry = retraction.entry
            topic = topic_of(self.settings, night=entry.day_obs, program=entry.program) + RETRACTIONS
            self._topics.ensure(topic, entry.program)
            send_retraction(self._sender, self._options, topic, retraction)
            self._state.mark_retracted([entry.candid])
            receipt.n_retracted += 1

    def _runs_of_a_topic(self, entries: list[AlertEntry]) -> Iterator[tuple[str, list[AlertEntry]]]:
        """Yield the packets by topic, each topic's in the log's order."""
        groups: dict[str, list[AlertEntry]] = {}
        for entry in entries:
            topic = topic_of(self.settings, night=entry.day_obs, program=entry.program, flavour=self.flavour)
            groups.setdefault(topic, []).append(entry)
        yield from groups.items()

    def _start_over(self) -> None:
        """Believe nothing any more: what the brokers have, they will tell."""
        self._sender.forget()
        self._reconciled.clear()
        self._topics.forget()


def _parts_of(flavour: Flavour, entry: AlertEntry, packet: bytes) -> MessageParts:
    headers = headers_of(entry.candid, flavour)
    return MessageParts(entry.candid, key_of(flavour, packet, entry.object_name), content_of(flavour, packet), headers)


@contextmanager
def _only_publisher(root: Path, name: str) -> Iterator[bool]:
    """Hold the stream of a repository, and tell whether ``name`` held it last.

    Raises TransientError if another process publishes.
    """
    with (root / FOLDER / "publish.lock").open("ab+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(f"another process publishes the alerts of {root}") from None
        file.seek(0)
        was_ours = file.read() == name.encode()
        if not was_ours:
            with suppress(OSError):  # on a full disk it stays empty: nobody was here last
                file.truncate(0)
                file.write(name.encode())
        yield was_ours


def replay(
    log: AlertLog,
    entries: Iterable[AlertEntry],
    options: Mapping[str, Any],
    topic: str,
    *,
    flavour: Flavour = Flavour.FULL,
) -> int:
    """Send packets of the log again, to a topic of the caller's choice; return their number.

    Nothing is marked: a replay is no publication. Raises TransientError or ConfigError where a packet is not taken.
    """
    producer = Producer({**options, **PACKETS_ARE_LARGE})
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    n = 0
    for n, entry in enumerate(entries, start=1):  # noqa: B007
        produce(producer, topic, _parts_of(flavour, entry, log.read(entry)), on_delivery=delivered)
        producer.poll(0)
        if failed:
            break
    if producer.flush(2 * PATIENCE_S) or failed:
        raise error_of(failed[0] if failed else None, str(options["bootstrap.servers"]), f"topic {topic}")
    return n
