"""Sending: messages to one topic in order, and what the brokers said of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from gueststar.store.alerts.publication import Retraction, SentPacket
from gueststar.stream.clients import error_of, worst_of
from gueststar.stream.flavours import Headers
from gueststar.stream.read import CANDID, read_topic

PATIENCE_S = 60.0
"""How long one attempt waits for the brokers' acknowledgement; those that stay away are tried again later."""

PACKETS_ARE_LARGE = {
    "enable.idempotence": True, "enable.gapless.guarantee": True, "acks": "all",
    "compression.type": "zstd", "compression.level": 1, "linger.ms": 20, "batch.size": 2**20,
    "message.max.bytes": 4_000_000, "queue.buffering.max.kbytes": 131072,
    "message.timeout.ms": int(1000 * PATIENCE_S),
}  # fmt: skip
"""What a producer of packets of 70 kB with much in common is made with."""

ONE_BY_ONE = {"enable.gapless.guarantee": False, "linger.ms": 0}
"""How it differs where each packet is waited for before the next."""

NEVER = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
"""Errors of one message that no repetition mends."""

_MOST_REPORTS = 10
"""How often a producer that gave up is asked for what it knows."""


class MessageParts(NamedTuple):
    """A packet as a message."""

    candid: int
    key: str
    value: bytes
    headers: Headers


class Undelivered(NamedTuple):
    """A message that is not acknowledged."""

    candid: int
    error: KafkaError
    is_local: bool = False
    """The client itself refused it."""


class Verdict(NamedTuple):
    """What follows from a delivery that is not whole."""

    dead: list[Undelivered]
    """What will never be taken."""
    must_be_careful: bool
    """The next messages must go one by one: which one was refused is not known."""
    is_stopped: bool
    """What stopped the others was not their neighbours."""


@dataclass
class Delivery:
    """What became of some messages."""

    sent: list[SentPacket] = field(default_factory=list)
    """Acknowledged, in order."""
    undelivered: list[Undelivered] = field(default_factory=list)
    """Refused, or not acknowledged in time; those that were not tried after them are in neither list."""
    is_given_up: bool = False
    """The producer stopped at a batch that was refused, so that nothing overtakes it."""
    trouble: KafkaError | None = None
    """What stopped it, as plainly as the client heard it."""

    @property
    def is_whole(self) -> bool:
        """Whether every message is acknowledged."""
        return not (self.undelivered or self.is_given_up)

    def verdict(self, *, is_careful: bool) -> Verdict:
        """Return what follows for messages that were sent one by one (``is_careful``) or together."""
        refused = [item for item in self.undelivered if item.error.code() in NEVER]
        dead = [item for item in refused if item.is_local or is_careful]
        if self.is_given_up or (not is_careful and any(not item.is_local for item in refused)):
            return Verdict(dead, must_be_careful=True, is_stopped=False)
        is_stopped = len(refused) < len(self.undelivered) and (is_careful or not refused)
        return Verdict(dead, must_be_careful=False, is_stopped=is_stopped)


class Sender:
    """Sends messages with a producer that neither doubles nor reorders them."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._producer: Producer | None = None
        self._is_careful = False
        self._heard: list[KafkaError] = []

    def send(self, topic: str, messages: Iterable[MessageParts], *, is_careful: bool = False) -> Delivery:
        """Send messages and wait for all acknowledgements.

        ``is_careful``: one by one, each acknowledged before the next is sent. Brokers judge the size of a batch, so a
        small limit hits all packets in it; alone, each is judged by itself.
        """
        producer, done = self._connected(is_careful), Delivery()
        for message in messages:
            try:
                produce(producer, topic, message, on_delivery=_note(done, topic, message.candid))
            except KafkaException as problem:
                done.undelivered.append(Undelivered(message.candid, problem.args[0], is_local=True))
            done.is_given_up = not _heeded(producer, 2 * PATIENCE_S if is_careful else 0.0)
            if done.is_given_up or (is_careful and any(item.error.code() not in NEVER for item in done.undelivered)):
                break
        done.is_given_up |= not _heeded(producer, 2 * PATIENCE_S)
        done.trouble = worst_of([*self._heard, *(item.error for item in done.undelivered)])
        return done

    def forget(self) -> None:
        """Drop the producer with all it still wanted to send."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=True)
            with suppress(KafkaException, SystemError):
                self._producer.flush(1.0)
        self._producer = None

    def _connected(self, is_careful: bool) -> Producer:
        if self._producer is not None and self._is_careful != is_careful:
            self.forget()
        if self._producer is None:
            self._heard.clear()
            options: dict[str, Any] = {**self._options, **PACKETS_ARE_LARGE, "error_cb": self._heard.append}
            self._producer = Producer(options | ONE_BY_ONE if is_careful else options)
            self._is_careful = is_careful
        return self._producer


def send_retraction(sender: Sender, options: Mapping[str, Any], topic: str, retraction: Retraction) -> None:
    """Put a retraction on an existing topic unless it is on it; raises as `error_of` where it is not taken."""
    entry = retraction.entry
    if entry.candid in {packet.candid for packet in read_topic(options, topic)}:
        return
    headers: Headers = [(CANDID, str(entry.candid).encode()), ("_format", b"json")]
    done = sender.send(topic, [MessageParts(entry.candid, entry.object_name, retraction.message(), headers)])
    if not done.is_whole:
        raise error_of(done.trouble, str(options["bootstrap.servers"]), f"topic {topic}")


def produce(producer: Producer, topic: str, message: MessageParts, **rest: Any) -> None:
    """Hand a message to the producer, waiting while its queue is full."""
    while True:
        try:
            producer.produce(topic, message.value, key=message.key, headers=message.headers, **rest)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _note(done: Delivery, topic: str, candid: int) -> Callable[[KafkaError | None, Message], None]:
    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            done.sent.append(SentPacket(candid, topic, int(message.partition() or 0), int(message.offset() or 0)))
        else:
            done.undelivered.append(Undelivered(candid, error))

    return delivered


def _heeded(producer: Producer, timeout_s: float) -> bool:
    """Let the producer report for so long at most (0: what is there); return whether it still works.

    One that may leave no gap gives up at the first batch that brokers refuse. Then it reports only what it knows.
    """
    try:
        producer.flush(timeout_s) if timeout_s else producer.poll(0)
    except (KafkaException, SystemError):  # its way to tell, which leaves reports unread
        producer.purge(in_queue=True, in_flight=True, blocking=True)
        for _ in range(_MOST_REPORTS):
            with suppress(KafkaException, SystemError):
                producer.flush(1.0)
                break
        return False
    return True
