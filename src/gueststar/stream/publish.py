"""Publication: what the alert log holds goes to its topic, each packet once and in order.

The log is durable before anything is sent. The publisher sends in the log's order with an idempotent producer, and
marks a packet as sent when the brokers acknowledged it. Killed between acknowledgement and mark, or after any failure,
it first reads from the topic what arrived beyond the last mark: the topic itself says what is there, so nothing is sent
twice. One publisher works on a repository at a time.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from gueststar.core.errors import TransientError
from gueststar.store.alerts.log import FOLDER, AlertLog
from gueststar.store.alerts.publication import Fate, Publication, SentPacket
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.settings import StreamSettings
from gueststar.stream.access import readers_of
from gueststar.stream.clients import client_options, error_of
from gueststar.stream.read import CANDID, read_topic
from gueststar.stream.topics import RETRACTIONS, Topics, topic_of

BATCH = 500
"""Packets read from the log, sent and marked together: what a killed publisher reads back at most."""
PATIENCE_S = 60.0
"""How long one attempt waits for the brokers' acknowledgement; those that stay away are tried again later."""
PACKETS_ARE_LARGE = {
    "enable.idempotence": True, "enable.gapless.guarantee": True, "acks": "all",
    "compression.type": "zstd", "linger.ms": 20, "batch.size": 2**20, "message.max.bytes": 4_000_000,
    "queue.buffering.max.kbytes": 131072, "message.timeout.ms": int(1000 * PATIENCE_S),
}  # fmt: skip
"""What a producer of packets of 70 kB with much in common is made with."""

_NEVER = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
"""Errors of one message that no repetition mends: it is a dead letter."""


@dataclass
class PublishReceipt:
    """What one round of publishing did."""

    n_sent: int = 0
    n_found: int = 0
    """Packets that were on their topic already, unmarked: an earlier publisher was killed before it marked them."""
    n_held: int = 0
    n_dead: int = 0
    n_retracted: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """Segment of the log -> why it was held."""

    def line(self) -> str:
        """Return it in words."""
        parts = [(self.n_sent, "sent"), (self.n_found, "found on the stream"), (self.n_held, "held")]
        parts += [(self.n_dead, "dead"), (self.n_retracted, "retracted")]
        return ", ".join(f"{n} {what}" for n, what in parts if n) or "nothing to send"


class _Undelivered(NamedTuple):
    candid: int
    error: KafkaError


class Publisher:
    """Sends the alert log of the repository at ``root`` to its stream.

    Raises ConfigError if there is no stream or the login is wrong, and TransientError where the brokers do not answer;
    what was not sent waits in the log.
    """

    def __init__(self, root: Path, settings: StreamSettings) -> None:
        self.root, self.settings = root, settings
        self._options = client_options(root, settings)
        self._servers = str(self._options["bootstrap.servers"])
        self._log, self._state = AlertLog(root), Publication(root)
        self._topics = Topics(self._options, settings, readers_of=readers_of(root, settings))
        self._producer: Producer | None = None
        self._reconciled: set[str] = set()
        self._trouble: KafkaError | None = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; what was not acknowledged is not marked."""
        self._forget_producer()
        self._state.close()
        self._log.close()

    def publish(self) -> PublishReceipt:
        """Send all that waits, in order; return what was done."""
        receipt = PublishReceipt()
        with _only_publisher(self.root):
            while entries := self._state.waiting(BATCH):
                for topic, group in _runs_of_a_topic(self._sendable(entries, receipt), self.settings):
                    self._send_group(topic, group, receipt)
            self._send_retractions(receipt)
        return receipt

    def follow(
        self, *, every_s: float = 1.0, tell: Callable[[str], None] = lambda _: None, is_over: Callable[[], bool]
    ) -> None:
        """Publish whatever enters the log until ``is_over``; brokers that stop are waited for as long as it takes."""
        pause = every_s
        while not is_over():
            try:
                receipt = self.publish()
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
        for segment in sorted(name for name, size in sizes.items() if size > limit):
            reason = f"{sizes[segment]} alerts of one detector image, more than stream.max_alerts_per_image ({limit})"
            members = [entry.candid for entry in entries if entry.segment == segment]
            receipt.n_held += self._state.set_aside(members, Fate.HELD, reason, time=time.time())
            receipt.held[segment] = reason
        return [entry for entry in entries if sizes[entry.segment] <= limit]

    def _send_group(self, topic: str, group: list[AlertEntry], receipt: PublishReceipt) -> None:
        self._topics.ensure(topic, group[0].program)
        if topic not in self._reconciled:
            receipt.n_found += self._reconcile(topic)
            self._reconciled.add(topic)
            known = self._state.sent_to(topic)
            group = [entry for entry in group if entry.candid not in known]
        messages = ((entry.candid, self._log.read(entry), entry.object_name) for entry in group)
        sent, undelivered = self._send(topic, messages)
        receipt.n_sent += self._state.mark_sent(sent, time=time.time())
        dead = [item for item in undelivered if item.error.code() in _NEVER]
        for candid, error in dead:
            receipt.n_dead += self._state.set_aside([candid], Fate.DEAD, error.str(), time=time.time())
        if len(undelivered) > len(dead):
            self._forget_producer()
            if not dead:  # else the others fell with it, for the sake of order, and go at once
                raise error_of(self._trouble or undelivered[0].error, self._servers, f"topic {topic}")

    def _reconcile(self, topic: str) -> int:
        """Mark what is on a topic beyond the last mark; return how many packets that was news of."""
        packets = read_topic(self._options, topic, after=self._state.last_offsets(topic))
        found = [SentPacket(packet.candid, topic, packet.partition, packet.offset) for packet in packets]
        return self._state.mark_sent(found, time=time.time())

    def _send(
        self, topic: str, messages: Iterable[tuple[int, bytes, str]]
    ) -> tuple[list[SentPacket], list[_Undelivered]]:
        """Send messages and wait for all acknowledgements; return those that came, and the errors of the others."""
        producer, sent, undelivered = self._connected(), list[SentPacket](), list[_Undelivered]()

        def note(candid: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, message: Message) -> None:
                if error is None:
                    sent.append(SentPacket(candid, topic, int(message.partition() or 0), int(message.offset() or 0)))
                else:
                    undelivered.append(_Undelivered(candid, error))

            return delivered

        for candid, value, key in messages:
            headers: list[tuple[str, str | bytes | None]] = [(CANDID, str(candid).encode())]
            try:
                _produce(producer, topic, value, key=key, headers=headers, on_delivery=note(candid))
            except KafkaException as problem:
                undelivered.append(_Undelivered(candid, problem.args[0]))
            producer.poll(0)
        producer.flush(2 * PATIENCE_S)
        return sent, undelivered

    def _send_retractions(self, receipt: PublishReceipt) -> None:
        for retraction in self._state.waiting_retractions():
            entry = retraction.entry
            topic = topic_of(self.settings, night=entry.day_obs, program=entry.program) + RETRACTIONS
            self._topics.ensure(topic, entry.program)
            there = {packet.candid for packet in read_topic(self._options, topic)}
            if entry.candid not in there:
                _, undelivered = self._send(topic, [(entry.candid, retraction.message(), entry.object_name)])
                if undelivered:
                    self._forget_producer()
                    raise error_of(self._trouble or undelivered[0].error, self._servers, f"topic {topic}")
            self._state.mark_retracted([entry.candid])
            receipt.n_retracted += 1

    def _connected(self) -> Producer:
        """Return the producer; TransientError or ConfigError where the brokers cannot be reached."""
        if self._producer is None:
            self._trouble = None
            options: dict[str, Any] = {**self._options, **PACKETS_ARE_LARGE, "error_cb": self._hear}
            self._producer = Producer(options)
        return self._producer

    def _hear(self, error: KafkaError) -> None:
        self._trouble = error

    def _forget_producer(self) -> None:
        """Drop the producer with all it still wanted to send: what became of that, the topic will tell."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=True)
            self._producer.flush(1.0)
        self._producer = None
        self._reconciled.clear()


def _produce(producer: Producer, topic: str, value: bytes, **rest: Any) -> None:
    """Hand a message to the producer, waiting while its queue is full."""
    while True:
        try:
            producer.produce(topic, value, **rest)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _runs_of_a_topic(entries: list[AlertEntry], settings: StreamSettings) -> Iterator[tuple[str, list[AlertEntry]]]:
    """Yield the packets by topic, each topic's in the log's order."""
    groups: dict[str, list[AlertEntry]] = {}
    for entry in entries:
        topic = topic_of(settings, night=entry.day_obs, program=entry.program)
        groups.setdefault(topic, []).append(entry)
    yield from groups.items()


@contextmanager
def _only_publisher(root: Path) -> Iterator[None]:
    """Hold the stream of a repository; TransientError if another process publishes."""
    with (root / FOLDER / "publish.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(f"another process publishes the alerts of {root}") from None
        yield


def replay(log: AlertLog, entries: Iterable[AlertEntry], options: Mapping[str, Any], topic: str) -> int:
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
        headers: list[tuple[str, str | bytes | None]] = [(CANDID, str(entry.candid).encode())]
        _produce(producer, topic, log.read(entry), key=entry.object_name, headers=headers, on_delivery=delivered)
        producer.poll(0)
        if failed:
            break
    if producer.flush(2 * PATIENCE_S) or failed:
        raise error_of(failed[0] if failed else None, str(options["bootstrap.servers"]), f"topic {topic}")
    return n
