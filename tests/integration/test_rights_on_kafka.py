"""A real Kafka that wants logins: topics are open to whom groups and releases open them, and to nobody else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from gueststar.core.errors import ConfigError
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.readers import ReaderStore
from gueststar.store.settings import Release, SurveySettings, write_settings
from gueststar.stream.access import bring_up_to_date
from gueststar.stream.broker import LocalBroker
from gueststar.stream.publish import Publisher
from gueststar.stream.users import set_password

pytestmark = pytest.mark.slow

NIGHT, LATER = 20260101, 20260102
SECRET = b"a packet of the private program"
LOGINS = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A survey's folder with a secure broker, alerts of two nights, and logins of three users."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} to run Kafka with: apt-get install {package}")
    root = tmp_path_factory.mktemp("rights")
    settings = SurveySettings()
    write_settings(root / "survey.yaml", settings)
    users = ReaderStore.of(root, None)
    users.add("alice", ["partnership"])
    users.add("bob", [])
    users.add("carol", ["private"])
    users.close()
    broker = LocalBroker(root)
    broker.start(is_secure=True)
    for name in LOGINS:
        set_password(root, settings.stream, name, f"password of {name}")
    AlertLog(root).append(
        OutboxAlert(10 * night + program, f"GST26{program:07d}", night, program, SECRET if program == 3 else b"other")
        for night in (NIGHT, LATER)
        for program in (1, 2, 3)
    )
    with Publisher(root, settings.stream) as publisher:
        assert publisher.publish().n_sent == 6
    yield root
    broker.stop()


def readable(root: Path, name: str) -> set[tuple[int, int]]:
    """Return (night, program) of the topics that a login gets packets from."""
    return {(night, p) for night in (NIGHT, LATER) for p in (1, 2, 3) if _packets(root, name, topic(night, p))}


def topic(night: int, program: int) -> str:
    return f"ztf_{night}_programid{program}"


def _options(root: Path, name: str) -> dict[str, object]:
    state = LocalBroker(root).state
    assert state is not None
    return {
        "bootstrap.servers": state.bootstrap_servers, "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name, "sasl.password": f"password of {name}",
    }  # fmt: skip


def _packets(root: Path, name: str, topic: str) -> list[bytes]:
    consumer = Consumer({
        **_options(root, name), "group.id": f"{name}-{time.monotonic_ns()}", "auto.offset.reset": "earliest",
        "enable.partition.eof": True, "topic.metadata.refresh.interval.ms": 300,
    })  # fmt: skip
    consumer.subscribe([topic])
    got, end = [], time.monotonic() + 20.0
    try:
        while time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if (error := message.error()) is None:
                got.append(message.value())
            elif error.name() == "_PARTITION_EOF":
                return got
            elif error.name() in ("TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART"):
                return []
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    raise AssertionError(f"{name} heard nothing of {topic}")


def test_groups_and_releases_open_topics_and_shut_them(survey: Path) -> None:
    both = {(NIGHT, 1), (LATER, 1)}
    assert readable(survey, "alice") == both | {(NIGHT, 2), (LATER, 2)}
    assert readable(survey, "bob") == both
    seen = AdminClient(_options(survey, "bob")).list_topics(timeout=15.0).topics.keys()
    assert {name for name in seen if name.startswith("ztf_")} == {topic(NIGHT, 1), topic(LATER, 1)}, "nor their names"
    assert _packets(survey, "carol", topic(NIGHT, 3)) == [SECRET]

    release = Release(program="partnership", until_night=NIGHT, date="2026-01-02T00:00:00")
    settings = SurveySettings(releases=(release,))
    write_settings(survey / "survey.yaml", settings)
    dry = bring_up_to_date(survey, settings, is_dry=True)
    assert any(line == f"would be opened: topic {topic(NIGHT, 2)} for everybody" for line in dry)
    assert not _packets(survey, "bob", topic(NIGHT, 2))
    bring_up_to_date(survey, settings)
    assert _packets(survey, "bob", topic(NIGHT, 2)) == [b"other"]
    assert not _packets(survey, "bob", topic(LATER, 2))
    assert bring_up_to_date(survey, settings) == ["the access lists of 6 topics are as they should be"]

    users = ReaderStore.of(survey, None)
    users.set_groups("alice", [])
    users.close()
    told = bring_up_to_date(survey, settings)
    assert f"shut: topic {topic(LATER, 2)} for alice" in told
    assert not _packets(survey, "alice", topic(LATER, 2))
    assert _packets(survey, "alice", topic(NIGHT, 2)), "that one is everybody's"


def test_closed_alerts_are_not_sent_to_a_topic_that_others_may_read(survey: Path) -> None:
    settings = SurveySettings()
    with Publisher(survey, settings.stream) as publisher:
        publisher._topics.ensure("for_a_friend", Program.PUBLIC)
    refusal = r"for readers of the private program, but its access list admits \*"
    with Publisher(survey, settings.stream) as publisher, pytest.raises(ConfigError, match=refusal):
        publisher._topics.ensure("for_a_friend", Program.PRIVATE)


def test_a_login_sees_nothing_of_other_logins_groups(survey: Path) -> None:
    _packets(survey, "carol", topic(NIGHT, 3))
    bob = AdminClient(_options(survey, "bob"))  # kept: with the client its futures end
    listed = bob.list_consumer_groups(request_timeout=15.0).result(timeout=20.0)
    assert not [group.group_id for group in listed.valid if group.group_id.startswith("carol")]
    asked = bob.describe_consumer_groups(["carol-1"], request_timeout=15.0)
    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION_FAILED"):
        asked["carol-1"].result(timeout=20.0)
