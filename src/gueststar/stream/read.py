"""Reading topics back: which packets are there, and whether they are those of the alert log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from gueststar.stream.clients import error_of, worst_of

TIMEOUT_S = 15.0
SETTLE_S = 0.3
"""Two looks at a partition's end this far apart must agree: what a publisher that died sent last may still arrive."""
CANDID = "candid"
"""Header of a message that holds the packet's candid."""


class StreamedPacket(NamedTuple):
    """One message on a topic."""

    candid: int
    partition: int
    offset: int
    value: bytes


def read_topic(
    options: Mapping[str, Any], topic: str, *, after: Mapping[int, int] | None = None
) -> Iterator[StreamedPacket]:
    """Yield what is on a topic, partition by partition, behind the offsets ``after`` (without any: from the start).

    A topic that is not there yields nothing. Raises TransientError where the brokers do not answer.
    """
    servers, after = str(options["bootstrap.servers"]), after or {}
    with _reader_of(options, topic) as consumer:
        for partition in _partitions(consumer, servers, topic):
            end = _settled_end(consumer, TopicPartition(topic, partition))
            start = after.get(partition, -1) + 1
            if start < end:
                consumer.assign([TopicPartition(topic, partition, start or OFFSET_BEGINNING)])
                yield from _until(consumer, end, servers, topic)


def first_offsets(options: Mapping[str, Any], topic: str) -> dict[int, int]:
    """Return the first offset that the brokers still keep of each partition; empty where there is no such topic."""
    with _reader_of(options, topic) as consumer:
        return {
            partition: int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)[0])
            for partition in _partitions(consumer, str(options["bootstrap.servers"]), topic)
        }


@contextmanager
def _reader_of(options: Mapping[str, Any], topic: str) -> Iterator[Consumer]:
    """Give a reader of its own group that leaves no traces; Kafka's errors become ours."""
    heard: list[KafkaError] = []
    consumer = Consumer(
        {**options, "group.id": f"gueststar-{uuid4()}", "enable.auto.commit": False, "auto.offset.reset": "earliest",
         "enable.partition.eof": False, "allow.auto.create.topics": False,
         "error_cb": heard.append}
    )  # fmt: skip
    try:
        yield consumer
    except KafkaException as problem:
        consumer.poll(0.0)  # so that the reason is heard
        reason = worst_of(heard) or problem.args[0]
        raise error_of(reason, str(options["bootstrap.servers"]), f"topic {topic}") from None
    finally:
        consumer.close()


def _partitions(consumer: Consumer, servers: str, topic: str) -> list[int]:
    """Return a topic's partitions; none where there is no such topic."""
    found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error is None:
        return sorted(found.partitions)
    if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return []
    raise error_of(found.error, servers, f"topic {topic}")


def _settled_end(consumer: Consumer, partition: TopicPartition) -> int:
    _, end = consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
    while True:
        time.sleep(SETTLE_S)
        _, later = consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
        if later == end:
            return int(end)
        end = later


def _until(consumer: Consumer, end: int, servers: str, topic: str) -> Iterator[StreamedPacket]:
    last_heard = time.monotonic()
    while time.monotonic() - last_heard < TIMEOUT_S:
        for message in consumer.consume(500, timeout=1.0):
            last_heard = time.monotonic()
            if (error := message.error()) is not None:
                raise error_of(error, servers, f"topic {topic}")
            offset = message.offset()
            assert offset is not None
            if (packet := _packet_of(message, offset)) is not None:
                yield packet
            if offset >= end - 1:
                return
        if _is_behind(consumer, end):
            return
    raise error_of(None, servers, f"topic {topic}")


def _is_behind(consumer: Consumer, end: int) -> bool:
    """Return whether everything before ``end`` was read: the last offsets may hold no messages."""
    (place,) = consumer.position(consumer.assignment())
    return bool(place.offset >= end)


def _packet_of(message: Message, offset: int) -> StreamedPacket | None:
    """Return a message as a packet; None for one that is not ours."""
    headers = dict(message.headers() or ())
    candid, value = headers.get(CANDID), message.value()
    if candid is None or value is None:
        return None
    text = candid.decode() if isinstance(candid, bytes) else str(candid)
    return StreamedPacket(int(text), int(message.partition() or 0), offset, bytes(value))
