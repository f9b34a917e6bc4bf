"""Alerts on a real Kafka: each once and in order, whatever stops or is killed; closed topics stay closed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException

from gueststar.core.errors import ConfigError, TransientError
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.broker import LocalBroker
from gueststar.stream.clients import client_options
from gueststar.stream.publish import Publisher, replay
from gueststar.stream.read import read_topic
from gueststar.stream.users import set_password
from tests.kafka_server import NIGHT, packets, running_broker

pytestmark = pytest.mark.slow

TOPIC = f"ztf_{NIGHT}_programid1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A real broker in a repository's folder."""
    with running_broker(tmp_path_factory.mktemp("stream")) as local:
        yield local


@pytest.fixture
def settings(broker: LocalBroker) -> StreamSettings:
    assert broker.state is not None
    return StreamSettings(bootstrap_servers=broker.state.bootstrap_servers)


def on_topic(settings: StreamSettings, topic: str, root: Path) -> list[int]:
    return [packet.candid for packet in read_topic(client_options(root, settings), topic)]


def in_order(root: Path) -> list[int]:
    return [entry.candid for entry in AlertLog(root).entries(day_obs=NIGHT)]


@pytest.fixture
def named(settings: StreamSettings, request: pytest.FixtureRequest) -> StreamSettings:
    """Settings whose topics are this test's own."""
    return settings.model_copy(update={"topic": f"{request.node.name}_{{night}}_programid{{program}}"})


def topic_in(settings: StreamSettings, program: int = 1) -> str:
    return settings.topic.format(night=NIGHT, program=program)


def test_each_program_has_its_topic_and_what_is_on_it_is_what_the_log_holds(
    named: StreamSettings, tmp_path: Path
) -> None:
    log = AlertLog(tmp_path)
    log.append([*packets(30), *packets(10, first=100, program=2), *packets(5, first=200, program=3)])
    with Publisher(tmp_path, named) as publisher:
        assert publisher.publish().n_sent == 45
        assert publisher.publish().line() == "nothing to send"
    for program, n in ((Program.PUBLIC, 30), (Program.PARTNERSHIP, 10), (Program.PRIVATE, 5)):
        agreement = agreement_of(tmp_path, named, night=NIGHT, program=program)
        assert agreement.is_good, agreement.line()
        assert agreement.n_on_topic == n
    assert on_topic(named, topic_in(named), tmp_path) == in_order(tmp_path)


def test_a_publisher_that_lost_its_marks_finds_on_the_topic_what_it_had_sent(
    named: StreamSettings, tmp_path: Path
) -> None:
    log = AlertLog(tmp_path)
    log.append(packets(40))
    with Publisher(tmp_path, named) as publisher:
        publisher.publish()
    log.append(packets(10, first=41))
    for leftover in (tmp_path / "alerts").glob("index.sqlite*"):
        leftover.unlink()
    assert AlertLog(tmp_path).rebuild_index() == 50
    with Publisher(tmp_path, named) as publisher:
        receipt = publisher.publish()
    assert (receipt.n_found, receipt.n_sent) == (40, 10)
    assert agreement_of(tmp_path, named, night=NIGHT, program=Program.PUBLIC).is_good


_KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from gueststar.store.settings import StreamSettings
from gueststar.stream import publish
publish.BATCH = 40
def die(self, sent, *, time):
    global n
    n += 1
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # acknowledged, not marked
    return mark(self, sent, time=time)
n, mark = 0, publish.Publication.mark_sent
publish.Publication.mark_sent = die
settings = StreamSettings.model_validate_json(sys.argv[2])
publish.Publisher(Path(sys.argv[1]), settings).publish()
"""


def test_killed_between_acknowledgement_and_mark_nothing_is_sent_twice(named: StreamSettings, tmp_path: Path) -> None:
    AlertLog(tmp_path).append(packets(200))
    command = [sys.executable, "-c", _KILLED, str(tmp_path), named.model_dump_json()]
    ends = [subprocess.run(command, timeout=120).returncode for _ in range(3)]
    assert ends[0] == -signal.SIGKILL
    with Publisher(tmp_path, named) as publisher:
        publisher.publish()
    agreement = agreement_of(tmp_path, named, night=NIGHT, program=Program.PUBLIC)
    assert agreement.is_good, agreement.line()
    assert on_topic(named, topic_in(named), tmp_path) == in_order(tmp_path)


def test_a_broker_that_is_killed_in_a_burst_is_waited_for_and_gets_each_packet_once(
    broker: LocalBroker, named: StreamSettings, tmp_path: Path
) -> None:
    log, told, is_over = AlertLog(tmp_path), list[str](), threading.Event()
    log.append(packets(300, size=60_000))
    with Publisher(tmp_path, named) as publisher:
        worker = threading.Thread(
            target=lambda: publisher.follow(every_s=0.2, tell=told.append, is_over=is_over.is_set)
        )
        worker.start()
        try:
            time.sleep(0.5)
            broker.stop(is_sudden=True)
            log.append(packets(100, first=1001))
            time.sleep(3.0)
            broker.start()
            end = time.monotonic() + 150.0
            while Publication(tmp_path).counts(NIGHT).get((1, "sent"), 0) < 400 and time.monotonic() < end:
                time.sleep(0.5)
        finally:
            is_over.set()
            worker.join()
    agreement = agreement_of(tmp_path, named, night=NIGHT, program=Program.PUBLIC)
    assert agreement.is_good, agreement.line()
    assert agreement.n_on_topic == 400


def test_brokers_that_do_not_answer_are_named_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gueststar.stream.topics.TIMEOUT_S", 2.0)
    AlertLog(tmp_path).append(packets(3))
    with (
        Publisher(tmp_path, StreamSettings(bootstrap_servers="127.0.0.1:9")) as publisher,
        pytest.raises(TransientError, match=r"127\.0\.0\.1:9.*log keeps everything"),
    ):
        publisher.publish()
    assert Publication(tmp_path).counts(NIGHT) == {(1, "waiting"): 3}


def test_an_image_with_absurdly_many_alerts_is_held_whole_until_a_person_decides(
    named: StreamSettings, tmp_path: Path
) -> None:
    few = named.model_copy(update={"max_alerts_per_image": 20})
    log = AlertLog(tmp_path)
    log.append(packets(21))  # one commit: one image
    log.append(packets(5, first=100))
    with Publisher(tmp_path, few) as publisher:
        receipt = publisher.publish()
        assert (receipt.n_sent, receipt.n_held) == (5, 21)
        assert "21 alerts of one detector image" in next(iter(receipt.held.values()))
        assert Publication(tmp_path).release(NIGHT, is_dropped=True) == 21
        assert publisher.publish().n_sent == 0
    assert len(on_topic(few, topic_in(few), tmp_path)) == 5


def test_a_packet_that_brokers_never_take_is_a_dead_letter_and_stops_no_other(
    named: StreamSettings, tmp_path: Path
) -> None:
    log = AlertLog(tmp_path)
    log.append([*packets(2), *packets(1, first=3, size=5_000_000), *packets(2, first=4)])
    with Publisher(tmp_path, named) as publisher:
        receipt = publisher.publish()
    assert (receipt.n_sent, receipt.n_dead) == (4, 1)
    ((fate, reason),) = Publication(tmp_path).reasons(NIGHT)
    assert fate == "dead"
    assert "too large" in reason.lower()


def test_a_retraction_reaches_readers_once_and_only_of_what_was_sent(named: StreamSettings, tmp_path: Path) -> None:
    AlertLog(tmp_path).append(packets(3))
    state = Publication(tmp_path)
    state.retract(2, "a satellite", time=time.time())
    with Publisher(tmp_path, named) as publisher:
        assert publisher.publish().n_retracted == 1
        assert publisher.publish().n_retracted == 0
    (message,) = read_topic(client_options(tmp_path, named), topic_in(named) + "_retractions")
    told = json.loads(message.value)
    assert (told["candid"], told["objectId"], told["reason"]) == (2, "GST260000002", "a satellite")


def test_a_replay_gives_the_same_bytes_in_the_same_order_from_any_point(named: StreamSettings, tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    log.append(packets(30))
    entries = log.entries(day_obs=NIGHT)[10:]
    options = client_options(tmp_path, named)
    with Publisher(tmp_path, named) as publisher:
        publisher._topics.ensure(f"again_{TOPIC}", 1)
    assert replay(log, entries, options, f"again_{TOPIC}") == 20
    assert [packet.value for packet in read_topic(options, f"again_{TOPIC}")] == [log.read(e) for e in entries]


def test_readers_see_the_topics_of_their_programs_and_no_others(tmp_path: Path, broker: LocalBroker) -> None:
    secure = LocalBroker(tmp_path)
    state = secure.start(is_secure=True)
    try:
        settings = StreamSettings(readers={"public": ("*",), "partnership": ("alice",)})
        for name in ("alice", "bob"):
            set_password(tmp_path, settings, name, f"password of {name}")
        AlertLog(tmp_path).append([*packets(3), *packets(2, first=10, program=2), *packets(1, first=20, program=3)])
        with Publisher(tmp_path, settings) as publisher:
            assert publisher.publish().n_sent == 6
        seen = {
            (name, program): _n_read(state.bootstrap_servers, name, f"ztf_{NIGHT}_programid{program}")
            for name in ("alice", "bob")
            for program in (1, 2, 3)
        }
        assert seen == {
            ("alice", 1): 3, ("alice", 2): 2, ("alice", 3): None,
            ("bob", 1): 3, ("bob", 2): None, ("bob", 3): None,
        }  # fmt: skip
        with pytest.raises(ConfigError, match="login"):
            list(read_topic(_login(state.bootstrap_servers, "bob", "wrong password"), TOPIC))
    finally:
        secure.stop()


def _login(servers: str, name: str, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": servers, "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": name, "sasl.password": password,
    }  # fmt: skip


def _n_read(servers: str, name: str, topic: str) -> int | None:
    """Return how many packets a reader gets from a topic; None if it may not read it."""
    consumer = Consumer(
        {**_login(servers, name, f"password of {name}"), "group.id": f"{name}-{topic}",
         "auto.offset.reset": "earliest", "enable.partition.eof": True}
    )  # fmt: skip
    consumer.subscribe([topic])
    n, end = 0, time.monotonic() + 30.0
    try:
        while time.monotonic() < end:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is None:
                n += 1
            elif error.name() == "_PARTITION_EOF":
                return n
            elif error.name() in ("TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART"):
                return None
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    raise AssertionError(f"{name} got no answer about {topic}")
