"""One packet, several streams: each flavour on topics of its own, each packet once and in order, and read by others."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from confluent_kafka.serialization import MessageField, SerializationContext

from gueststar.formats.avro import decode_alert
from gueststar.model.detections import OutboxAlert
from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program, RightsPolicy
from gueststar.services.alerts import alert_app
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Fate, Publication
from gueststar.store.detections.store import DetectionStore
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.broker import LocalBroker
from gueststar.stream.clients import client_options
from gueststar.stream.publish import Publisher
from gueststar.stream.read import StreamedPacket, read_topic
from tests.unit.alerts.conftest import Survey, make_record, make_sources

pytestmark = pytest.mark.slow

NIGHTS = (20251121, 20251122)
FLAVOURS = ("lite", "rubin", "fink")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A real broker in a repository's folder."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} to run Kafka with: apt-get install {package}")
    local = LocalBroker(tmp_path_factory.mktemp("stream"))
    local.start()
    yield local
    local.stop()


@pytest.fixture
def settings(broker: LocalBroker, request: pytest.FixtureRequest) -> StreamSettings:
    """Settings whose topics are this test's own."""
    assert broker.state is not None
    form = f"{request.node.name}_{{night}}_programid{{program}}"
    return StreamSettings(
        bootstrap_servers=broker.state.bootstrap_servers, flavours=FLAVOURS, topic=f"ztf_{form}",
        lite_topic=f"lite_{form}", rubin_topic=f"rubin_{form}", fink_topic=f"fink_{form}",
    )  # fmt: skip


@pytest.fixture
def survey(tmp_path: Path) -> Iterator[Survey]:
    """Forty public alerts of two nights, and ten private ones."""
    made = Survey(tmp_path, DetectionStore.at(tmp_path, name_key=b"of the tests"), AlertLog(tmp_path), RightsPolicy())
    for mjd, n, program in ((61000.2, 20, 1), (61000.3, 10, 3), (61001.2, 20, 1)):
        record = make_record(mjd, program=program)
        made.observe(record, make_sources(record, 0.001 * np.arange(n), 20.0 + 0.003 * np.arange(n)))
    yield made
    made.store.close()
    made.log.close()


def on_topic(survey: Survey, settings: StreamSettings, name: str, night: int, program: int = 1) -> list[StreamedPacket]:
    topic = name.format(night=night, program=program)
    return list(read_topic(client_options(survey.root, settings), topic))


def assert_all_agree(survey: Survey, settings: StreamSettings) -> None:
    for flavour in (Flavour.FULL, *map(Flavour, settings.flavours)):
        for night in NIGHTS:
            for program in (Program.PUBLIC, Program.PRIVATE):
                agreement = agreement_of(survey.root, settings, night=night, program=program, flavour=flavour)
                assert agreement.is_good, agreement.line()
                assert agreement.n_on_topic == agreement.n_in_log, agreement.line()


def test_each_flavour_has_every_packet_once_and_in_order(survey: Survey, settings: StreamSettings) -> None:
    with Publisher(survey.root, settings) as publisher:
        receipt = publisher.publish()
        assert receipt.n_sent == 50
        assert {flavour: told.n_sent for flavour, told in receipt.flavours.items()} == dict.fromkeys(
            map(Flavour, FLAVOURS), 50
        )
        assert publisher.publish().line() == "nothing to send"
    assert_all_agree(survey, settings)
    full, lite = (on_topic(survey, settings, name, NIGHTS[1]) for name in (settings.topic, settings.lite_topic))
    assert [packet.candid for packet in full] == [packet.candid for packet in lite]
    assert max(len(packet.value) for packet in lite) < min(len(packet.value) for packet in full) / 4


_KILLED = """
import os, signal, sys
from pathlib import Path
from gueststar.model.flavour import Flavour
from gueststar.store.settings import StreamSettings
from gueststar.stream import publish
publish.BATCH = 7
n, mark = 0, publish.Publication.mark_sent
def die(self, sent, *, time):
    global n
    n += self._flavour is Flavour.LITE
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # acknowledged, not marked
    return mark(self, sent, time=time)
publish.Publication.mark_sent = die
publish.Publisher(Path(sys.argv[1]), StreamSettings.model_validate_json(sys.argv[2])).publish()
"""


def test_killed_between_acknowledgement_and_mark_no_flavour_has_anything_twice(
    survey: Survey, settings: StreamSettings
) -> None:
    command = [sys.executable, "-c", _KILLED, str(survey.root), settings.model_dump_json()]
    ends = [subprocess.run(command, timeout=120).returncode for _ in range(2)]
    assert ends[0] == -signal.SIGKILL
    with Publisher(survey.root, settings) as publisher:
        publisher.publish()
    assert_all_agree(survey, settings)


def test_a_flavour_that_is_asked_for_later_gets_what_was_sent_before_and_nothing_that_was_held(
    survey: Survey, settings: StreamSettings
) -> None:
    only_full = settings.model_copy(update={"flavours": (), "max_alerts_per_image": 15})
    with Publisher(survey.root, only_full) as publisher:
        assert publisher.publish().n_held == 40
    assert Publication(survey.root, Flavour.LITE).counts(NIGHTS[0]) == {(3, "waiting"): 10}
    with Publisher(survey.root, settings.model_copy(update={"max_alerts_per_image": 15})) as publisher:
        assert publisher.publish().flavours[Flavour.LITE].n_sent == 10
    assert on_topic(survey, settings, settings.lite_topic, NIGHTS[0]) == []
    assert len(on_topic(survey, settings, settings.lite_topic, NIGHTS[0], 3)) == 10


def test_a_packet_that_a_flavour_cannot_tell_is_a_dead_letter_of_it_alone(
    survey: Survey, settings: StreamSettings
) -> None:
    survey.log.append([OutboxAlert(7, "GST26strange", NIGHTS[0], 1, b"of another form")])
    with Publisher(survey.root, settings) as publisher:
        receipt = publisher.publish()
    assert (receipt.n_sent, receipt.n_dead) == (51, 0)
    assert (receipt.flavours[Flavour.LITE].n_sent, receipt.flavours[Flavour.LITE].n_dead) == (50, 1)
    state = Publication(survey.root, Flavour.LITE)
    assert state.counts(NIGHTS[0]) == {(1, "sent"): 20, (1, "dead"): 1, (3, "sent"): 10}
    ((fate, reason),) = state.reasons(NIGHTS[0])
    assert fate == Fate.DEAD
    assert "cannot be read" in reason


def test_confluents_client_reads_the_lite_stream_through_our_registry(survey: Survey, settings: StreamSettings) -> None:
    registry = pytest.importorskip("confluent_kafka.schema_registry", reason="needs confluent-kafka[avro]")
    avro = pytest.importorskip("confluent_kafka.schema_registry.avro")
    with Publisher(survey.root, settings) as publisher:
        publisher.publish()
    server = uvicorn.Server(uvicorn.Config(alert_app(survey.log, Publication(survey.root)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        read = avro.AvroDeserializer(registry.SchemaRegistryClient({"url": url}))
        messages = on_topic(survey, settings, settings.lite_topic, NIGHTS[0])
        context = SerializationContext("lite", MessageField.VALUE)
        packets = [read(message.value, context) for message in messages]
    finally:
        server.should_exit = True
        thread.join()
    logged = [decode_alert(data) for _, data in survey.log.replay(day_obs=NIGHTS[0])]
    assert packets == [{k: v for k, v in packet.items() if not k.startswith("cutout")} for packet in logged]
