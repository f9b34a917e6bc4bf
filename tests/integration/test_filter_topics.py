"""What passes a filter is on its topic once, byte for byte, for its owner's eyes, whatever was killed when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException

from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication
from gueststar.store.filters.definitions import FilterRequest, FilterStore
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.readers import ReaderStore
from gueststar.store.settings import StreamSettings, SurveySettings
from gueststar.stream.broker import LocalBroker
from gueststar.stream.clients import client_options
from gueststar.stream.filter_round import run_filters
from gueststar.stream.filters import RunFilters, nights_of_owners
from gueststar.stream.publish import Publisher
from gueststar.stream.read import read_topic
from gueststar.stream.users import set_password
from tests.kafka_server import running_broker
from tests.unit.filters.packets import packet, put

pytestmark = pytest.mark.slow

ALL = (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A real broker whose readers log in."""
    with running_broker(tmp_path_factory.mktemp("stream"), is_secure=True) as local:
        yield local


class Survey:
    """A survey at ``root`` that publishes to a broker elsewhere, under names of its own."""

    def __init__(self, root: Path, broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
        assert broker.state is not None
        monkeypatch.setenv("GUESTSTAR_KAFKA_PASSWORD", broker.state.password)
        self.root, self.name = root, f"t{uuid4().hex[:8]}"
        stream = StreamSettings(
            bootstrap_servers=broker.state.bootstrap_servers, security="sasl_plaintext", username="gueststar",
            topic=f"{self.name}_{{night}}_programid{{program}}",
        )  # fmt: skip
        self.settings = SurveySettings(groups={"team": ("partnership",)}, stream=stream)
        self.readers, self.store = ReaderStore.of(root, None), FilterStore.of(root, None)

    def add(self, owner: str, condition: str, *, groups: tuple[str, ...] = (), **more: object) -> str:
        """Add a user and a filter of it; return the filter's topic."""
        self.readers.add(owner, groups)
        request = FilterRequest(owner, self.name, condition, **more)  # type: ignore[arg-type]
        self.store.add(request)
        return request.topic

    def publish(self) -> list[str]:
        with Publisher(self.root, self.settings.stream) as publisher:
            publisher.publish()
        return run_filters(self.root, self.settings)

    def on(self, topic: str) -> list[tuple[int, bytes]]:
        options = client_options(self.root, self.settings.stream)
        return [(message.candid, message.value) for message in read_topic(options, topic)]

    def of_log(self, *candids: int) -> list[tuple[int, bytes]]:
        with AlertLog(self.root) as log:
            entries = {entry.candid: entry for entry in log.entries(programs=ALL)}
            return [(candid, log.read(entries[candid])) for candid in candids]


@pytest.fixture
def survey(tmp_path: Path, broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> Survey:
    return Survey(tmp_path, broker, monkeypatch)


def test_what_passes_is_on_the_topic_as_it_is_in_the_log_and_once(survey: Survey) -> None:
    topic = survey.add("alice", "magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), packet(2), packet(3, magpsf=17.5), sent=False)
    assert survey.publish() == ["filters: 3 alerts, 2 passed, 0 over a cap", "filters: 2 sent"]
    assert survey.publish() == []
    put(survey.root, packet(4, magpsf=17.0), sent=False)
    survey.publish()
    assert survey.on(topic) == survey.of_log(1, 3, 4)


def test_messages_name_the_filter_and_its_version(survey: Survey) -> None:
    topic = survey.add("alice", "magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), sent=False)
    survey.publish()
    options = client_options(survey.root, survey.settings.stream)
    consumer = Consumer({**options, "group.id": "alice-1", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    (message,) = consumer.consume(1, timeout=30)
    consumer.close()
    headers = dict(message.headers() or ())
    assert headers["candid"] == b"1"
    assert headers["filter"] == f"alice/{survey.name}".encode()
    assert headers["filter_version"] == b"1"


def test_killed_between_acknowledgement_and_mark_nothing_is_there_twice(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = survey.add("alice", "magpsf < 18")
    put(survey.root, *(packet(k, magpsf=17.0) for k in range(1, 6)), sent=False)

    def killed(_: FilterMarks, sent: list[object], **__: object) -> int:
        if sent:
            raise KeyboardInterrupt
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(FilterMarks, "mark_sent", killed)
        with pytest.raises(KeyboardInterrupt):
            survey.publish()
    put(survey.root, packet(9, magpsf=17.0), sent=False)
    assert "found on their topics" in survey.publish()[-1]
    assert survey.on(topic) == survey.of_log(1, 2, 3, 4, 5, 9)


def test_lost_marks_are_read_from_the_topic(survey: Survey) -> None:
    topic = survey.add("alice", "magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), packet(2, magpsf=17.0), sent=False)
    survey.publish()
    for path in (survey.root / "alerts").glob("index.sqlite*"):
        path.unlink()
    with AlertLog(survey.root) as log:
        log.rebuild_index()
    survey.publish()
    assert survey.on(topic) == survey.of_log(1, 2)


def test_owners_are_told_once_what_is_taken_back(survey: Survey) -> None:
    topic = survey.add("gina", "magpsf < 18")
    put(survey.root, packet(1, magpsf=17.0), packet(2), sent=False)
    survey.publish()
    state = Publication(survey.root)
    for candid in (1, 2):
        state.retract(candid, "a ghost", time=1.0)
    state.close()
    assert survey.publish() == ["filters: 1 retracted"]
    assert survey.publish() == []
    ((candid, message),) = survey.on(topic + "_retractions")
    assert candid == 1
    assert json.loads(message)["reason"] == "a ghost"


def test_only_its_owner_reads_a_filters_topic(survey: Survey, broker: LocalBroker) -> None:
    assert broker.state is not None
    topic = survey.add("carol", "magpsf < 30", groups=("team",), programs=(Program.PARTNERSHIP,))
    survey.readers.add("dave", ["team"])
    for name in ("carol", "dave"):
        set_password(survey.root, survey.settings.stream, name, "a long password")
    put(survey.root, packet(1), program=2, sent=False)
    survey.publish()

    def read_as(name: str) -> int:
        options = {
            "bootstrap.servers": broker.state.bootstrap_servers, "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name, "sasl.password": "a long password",
            "group.id": f"{name}-1", "auto.offset.reset": "earliest",
        }  # fmt: skip
        consumer = Consumer(options)
        consumer.subscribe([topic])
        try:
            (message,) = consumer.consume(1, timeout=20)
            if message.error():
                raise KafkaException(message.error())
            return len(message.value())
        finally:
            consumer.close()

    assert read_as("carol") == len(survey.of_log(1)[0][1])
    with pytest.raises((KafkaException, ValueError)):
        read_as("dave")


def test_who_left_a_group_gets_nothing_more_of_it(survey: Survey) -> None:
    topic = survey.add("erin", "magpsf < 30", groups=("team",), programs=ALL)
    put(survey.root, packet(1), sent=False)
    put(survey.root, packet(2), program=2, sent=False)
    put(survey.root, packet(3), program=3, sent=False)
    survey.publish()
    assert survey.on(topic) == survey.of_log(1, 2)
    marks = FilterMarks(survey.root)
    survey.readers.set_groups("erin", [])
    put(survey.root, packet(4), program=2, sent=False)
    put(survey.root, packet(5), sent=False)
    survey.publish()
    marks.close()
    assert survey.on(topic) == survey.of_log(1, 2, 5)


def test_what_an_owner_may_not_see_any_more_does_not_leave_though_it_passed(survey: Survey) -> None:
    topic = survey.add("frank", "magpsf < 30", groups=("team",), programs=ALL)
    put(survey.root, packet(1), program=2)
    nights_of = nights_of_owners(survey.root, survey.settings)
    with RunFilters(survey.root, survey.store, survey.settings.filters, nights_of=nights_of) as filters:
        assert filters.run(must_be_sent=True).n_passed == 1
    survey.readers.set_groups("frank", [])
    put(survey.root, packet(2), sent=False)
    assert "1 withheld" in survey.publish()[-1]
    assert survey.on(topic) == survey.of_log(2)
