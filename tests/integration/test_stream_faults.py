"""What goes wrong with disks, clocks, people and brokers: nothing is lost, nothing is sent twice, all is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from gueststar.core.errors import ConfigError, GueststarError, TransientError
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Fate, Publication
from gueststar.store.settings import StreamSettings
from gueststar.stream import publish as publishing
from gueststar.stream import sending
from gueststar.stream.agreement import Agreement, agreement_of
from gueststar.stream.broker import LocalBroker
from gueststar.stream.clients import client_options
from gueststar.stream.publish import Publisher
from gueststar.stream.sending import Delivery, Sender
from tests.kafka_server import NIGHT, packets, running_broker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with running_broker(tmp_path_factory.mktemp("stream")) as local:
        yield local


@pytest.fixture
def settings(broker: LocalBroker, request: pytest.FixtureRequest) -> StreamSettings:
    """Settings whose topics are this test's own."""
    assert broker.state is not None
    name = f"{request.node.name[:60]}_{{night}}_programid{{program}}"
    return StreamSettings(bootstrap_servers=broker.state.bootstrap_servers, topic=name)


def topic_of(settings: StreamSettings) -> str:
    return settings.topic.format(night=NIGHT, program=1)


def agreed(root: Path, settings: StreamSettings, n: int) -> Agreement:
    """Return how topic and log compare, after checking that they agree on ``n`` packets."""
    agreement = agreement_of(root, settings, night=NIGHT, program=Program.PUBLIC)
    assert agreement.is_good, agreement.line()
    assert agreement.n_on_topic == n, agreement.line()
    return agreement


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small file system of its own on a folder; skip where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file until its disk has no byte left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def delete_topic(settings: StreamSettings, name: str) -> None:
    admin = AdminClient(client_options(Path(), settings))
    for future in admin.delete_topics([name]).values():
        future.result(30)


def test_a_full_disk_stops_the_marks_and_nothing_is_sent_twice_when_there_is_room(
    settings: StreamSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "8m") as root:
        log = AlertLog(root)
        log.append(packets(40))
        filler = root / "filler"

        def send_and_fill(self: Sender, *given: Any, **rest: Any) -> Delivery:
            done = send(self, *given, **rest)
            fill(filler)
            return done

        with Publisher(root, settings) as publisher, monkeypatch.context() as patch:
            send = Sender.send
            patch.setattr(Sender, "send", send_and_fill)
            for _ in range(2):  # the same publisher tries again, as `--follow` does
                with pytest.raises(TransientError, match="full"):
                    publisher.publish()
            with pytest.raises((TransientError, OSError)):
                log.append(packets(20, first=101))
            patch.undo()
            filler.unlink()
            receipt = publisher.publish()
            assert (receipt.n_found, receipt.n_sent) == (40, 0)
            assert log.append(packets(20, first=101)) == 20
            assert publisher.publish().n_sent == 20
        agreed(root, settings, 60)
        log.close()


def test_a_broker_whose_disk_is_full_gets_the_rest_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sending.PACKETS_ARE_LARGE, "message.timeout.ms", 4000)
    monkeypatch.setattr("gueststar.stream.topics.TIMEOUT_S", 2.0)
    monkeypatch.setattr("gueststar.stream.read.TIMEOUT_S", 5.0)
    with small_disk(tmp_path / "disk", "24m") as disk, running_broker(disk) as local:
        settings = StreamSettings(bootstrap_servers=local.state.bootstrap_servers)  # type: ignore[union-attr]
        AlertLog(tmp_path).append(packets(500, size=60_000))
        with Publisher(tmp_path, settings) as publisher:
            with pytest.raises(TransientError, match="log keeps everything"):
                publisher.publish()
            subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
            local.stop(is_sudden=True)
            local.start()
            receipt = publisher.publish()
            assert receipt.n_found + receipt.n_sent <= 500
        agreed(tmp_path, settings, 500)


def test_a_clock_that_is_set_back_or_runs_ahead_changes_nothing(
    settings: StreamSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, now, produce, shift = AlertLog(tmp_path), time.time, sending.produce, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + shift)

    def stamped(*given: Any, **rest: Any) -> None:  # librdkafka asks the clock itself
        produce(*given, timestamp=int(1000 * time.time()), **rest)

    monkeypatch.setattr(sending, "produce", stamped)
    with Publisher(tmp_path, settings) as publisher:
        for first, hours in ((10, 30.0), (20, -2.0), (30, -9000.0), (40, 0.0)):
            shift = 3600.0 * hours
            log.append(packets(10, first=first))
            assert publisher.publish().line() == "10 sent"
    for leftover in (tmp_path / "alerts").glob("index.sqlite*"):  # and no mark helps the next one
        leftover.unlink()
    AlertLog(tmp_path).rebuild_index()
    shift = -3600.0 * 24000
    with Publisher(tmp_path, settings) as publisher:
        assert publisher.publish().line() == "40 found on the stream"
    agreed(tmp_path, settings, 40)


_KILLED = """
import os, sys
from pathlib import Path
from gueststar.store.settings import StreamSettings
from gueststar.stream import publish
publish.Publication.mark_sent = lambda self, sent, *, time: os.kill(os.getpid(), 9) if sent else 0
with publish.Publisher(Path(sys.argv[1]), StreamSettings.model_validate_json(sys.argv[2])) as publisher:
    publisher.publish()
"""


def test_of_two_publishers_one_works_and_the_other_finds_what_it_left_unmarked(
    settings: StreamSettings, tmp_path: Path
) -> None:
    log = AlertLog(tmp_path)
    log.append(packets(20))
    with Publisher(tmp_path, settings) as publisher:
        assert publisher.publish().n_sent == 20
        log.append(packets(30, first=21))
        command = [sys.executable, "-c", _KILLED, str(tmp_path), settings.model_dump_json()]
        assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
        receipt = publisher.publish()
        assert (receipt.n_found, receipt.n_sent) == (30, 0)
        with (
            publishing._only_publisher(tmp_path, "somebody else"),
            pytest.raises(TransientError, match="another process publishes"),
        ):
            publisher.publish()
    agreed(tmp_path, settings, 50)


def test_a_topic_that_an_operator_deleted_is_told_and_sent_again_only_on_request(
    settings: StreamSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, state = AlertLog(tmp_path), Publication(tmp_path)
    log.append(packets(30))
    with Publisher(tmp_path, settings) as publisher:
        publisher.publish()
        monkeypatch.setitem(sending.PACKETS_ARE_LARGE, "topic.metadata.propagation.max.ms", 2000)
        publisher._sender.forget()
        delete_topic(settings, topic_of(settings))
        log.append(packets(10, first=31))
        receipt = _published(publisher)
        assert (receipt.n_gone, receipt.n_sent) == (30, 10)
    assert state.counts(NIGHT) == {(1, "gone"): 30, (1, "sent"): 10}
    assert list(state.reasons(NIGHT)) == [("gone", f"topic {topic_of(settings)} was deleted after they were sent")]
    agreed(tmp_path, settings, 10)
    assert state.release(NIGHT, fate=Fate.GONE) == 30
    with Publisher(tmp_path, settings) as publisher:
        assert publisher.publish().n_sent == 30
    agreed(tmp_path, settings, 40)


def _published(publisher: Publisher) -> publishing.PublishReceipt:
    """Publish until the brokers have understood that a topic is gone; return what was done in all."""
    total = publishing.PublishReceipt()
    for _ in range(5):
        try:
            receipt = publisher.publish()
        except TransientError:
            continue
        total.n_gone += receipt.n_gone
        total.n_sent += receipt.n_sent
        return total
    raise AssertionError("it never worked")


def test_a_topic_deleted_and_made_anew_behind_the_publisher_does_not_confuse_it(
    settings: StreamSettings, tmp_path: Path
) -> None:
    name, admin = topic_of(settings), AdminClient(client_options(Path(), settings))
    log = AlertLog(tmp_path)
    log.append(packets(5))
    with Publisher(tmp_path, settings) as publisher:
        publisher.publish()
        delete_topic(settings, name)
        time.sleep(0.5)
        for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
            future.result(30)
        log.append(packets(20, first=6))
        _published(publisher)
        log.append(packets(5, first=26))
        _published(publisher)
    counts = Publication(tmp_path).counts(NIGHT)
    assert counts == {(1, "gone"): 5, (1, "sent"): 25}
    agreed(tmp_path, settings, 25)


def test_brokers_that_take_small_batches_only_lose_only_what_is_itself_too_large(
    settings: StreamSettings, tmp_path: Path
) -> None:
    admin = AdminClient(client_options(Path(), settings))
    small = NewTopic(topic_of(settings), 1, 1, config={"max.message.bytes": "100000"})
    for future in admin.create_topics([small]).values():
        future.result(30)
    log = AlertLog(tmp_path)
    log.append([*packets(20, size=60_000), *packets(1, first=21, size=200_000), *packets(20, first=22, size=60_000)])
    with Publisher(tmp_path, settings) as publisher:
        receipt = publisher.publish()
    assert (receipt.n_sent, receipt.n_dead) == (40, 1)
    (((fate, reason), n),) = Publication(tmp_path).reasons(NIGHT).items()
    assert (fate, n) == ("dead", 1)
    assert "too large" in reason
    agreed(tmp_path, settings, 40)


def test_what_was_held_goes_when_a_person_lets_it_go(settings: StreamSettings, tmp_path: Path) -> None:
    few = settings.model_copy(update={"max_alerts_per_image": 20})
    log = AlertLog(tmp_path)
    log.append(packets(21))
    log.append(packets(5, first=100))
    with Publisher(tmp_path, few) as publisher:
        receipt = publisher.publish()
        assert (receipt.n_sent, receipt.n_held) == (5, 21)
        assert Publication(tmp_path).release(NIGHT) == 21
        assert Publication(tmp_path).counts(NIGHT) == {(1, "sent"): 5, (1, "waiting"): 21}
        assert publisher.publish().n_sent == 21
        assert publisher.publish().line() == "nothing to send"
    agreed(tmp_path, few, 26)


def test_brokers_that_delete_by_age_have_not_lost_anything(settings: StreamSettings, tmp_path: Path) -> None:
    from confluent_kafka import TopicPartition

    log = AlertLog(tmp_path)
    log.append(packets(30))
    with Publisher(tmp_path, settings) as publisher:
        publisher.publish()
        admin = AdminClient(client_options(Path(), settings))
        for future in admin.delete_records([TopicPartition(topic_of(settings), 0, 12)]).values():
            future.result(30)
        log.append(packets(10, first=31))
        assert publisher.publish().n_sent == 10
    agreement = agreed(tmp_path, settings, 28)
    assert agreement.n_expired == 12
    assert "12 not kept by the brokers" in agreement.line()


def test_a_wrong_password_is_one_clear_line_and_everything_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gueststar.stream.topics.TIMEOUT_S", 2.0)
    root = tmp_path / "secure"
    root.mkdir()
    with running_broker(root, is_secure=True) as local:
        state = local.state
        assert state is not None
        settings = StreamSettings(
            bootstrap_servers=state.bootstrap_servers, security="sasl_plaintext", username="gueststar"
        )
        AlertLog(tmp_path).append(packets(3))
        for wrong, what in (("wrong", "uthentication"), (None, "GUESTSTAR_KAFKA_PASSWORD")):
            with monkeypatch.context() as patch:
                patch.setenv("GUESTSTAR_KAFKA_PASSWORD", wrong) if wrong else patch.delenv(
                    "GUESTSTAR_KAFKA_PASSWORD", raising=False
                )
                with pytest.raises(ConfigError, match=what) as told, Publisher(tmp_path, settings) as publisher:
                    publisher.publish()
                assert "\n" not in str(told.value)
        monkeypatch.setenv("GUESTSTAR_KAFKA_PASSWORD", state.password)
        no_tls: list[tuple[type[GueststarError], str, dict[str, str]]] = [
            (TransientError, "SSL handshake failed", {"security": "sasl_ssl"}),
            (ConfigError, "/nowhere/ca.pem is not there", {"security": "sasl_ssl", "ca_file": "/nowhere/ca.pem"}),
        ]
        for kind, what, broken in no_tls:
            with (
                pytest.raises(kind, match=what) as told,
                Publisher(tmp_path, settings.model_copy(update=broken)) as publisher,
            ):
                publisher.publish()
            assert "\n" not in str(told.value)
        assert Publication(tmp_path).counts(NIGHT) == {(1, "waiting"): 3}
        with Publisher(tmp_path, settings) as publisher:
            assert publisher.publish().n_sent == 3
        assert client_options(tmp_path, settings)["sasl.password"] == state.password
    assert os.environ.get("GUESTSTAR_KAFKA_PASSWORD") == state.password
