"""The Kafka library's lines go to our log: a trouble once, and nothing to standard error."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import client_options
from gueststar.stream.kafka_log import KAFKA_LOG, OncePerTrouble

NOWHERE = StreamSettings(bootstrap_servers="127.0.0.1:9")


@pytest.fixture
def options() -> Mapping[str, Any]:
    """What clients of brokers that are away are made with; their troubles have not been told yet."""
    for told in list(KAFKA_LOG.filters):
        KAFKA_LOG.removeFilter(told)
    KAFKA_LOG.addFilter(OncePerTrouble())
    return client_options(Path(), NOWHERE)


def test_brokers_that_are_away_are_one_line_for_all_clients_and_none_on_standard_error(
    options: Mapping[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    producers = [Producer({**options}), Producer({**options})]
    admin = AdminClient({**options})
    for _ in range(25):
        for client in (*producers, admin):
            client.poll(0.03)
    told = [record.getMessage() for record in caplog.records if record.name == KAFKA_LOG.name]
    assert sum("Connection refused" in line for line in told) == 1
    assert "rdkafka" not in capfd.readouterr().err


def line(text: str, client: str = "producer-1") -> logging.LogRecord:
    return logging.LogRecord(KAFKA_LOG.name, logging.ERROR, "", 0, "%s [%s] %s", ("FAIL", client, text), None)


def test_another_trouble_is_told_and_the_same_one_of_another_moment_is_not() -> None:
    is_told = OncePerTrouble().filter
    assert is_told(line("[thrd:a:1/bootstrap]: a:1: Connect failed: refused (after 0ms in state CONNECT)"))
    assert not is_told(line("[thrd:a:1/1]: a:1: Connect failed: refused (after 7ms in state CONNECT)", "producer-2"))
    assert is_told(line("[thrd:b:1/1]: b:1: Connect failed: refused (after 7ms in state CONNECT)"))
