"""Topics: one a night and program, made before the first packet, open to whom the survey names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from gueststar.model.rights import Program
from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import error_of

TIMEOUT_S = 30.0

RETRACTIONS = "_retractions"
"""What the name of a topic's retractions ends with."""


def topic_of(settings: StreamSettings, *, night: int, program: int) -> str:
    """Return the topic of a night and program; ValueError for engineering data, which have none."""
    if Program(program) is Program.ENGINEERING:
        raise ValueError("engineering exposures are published nowhere")
    return settings.topic.format(night=night, program=program)


class Topics:
    """Makes topics, once each."""

    def __init__(self, options: Mapping[str, Any], settings: StreamSettings) -> None:
        self._admin = AdminClient(dict(options))
        self._settings, self._servers = settings, str(options["bootstrap.servers"])
        self._known: set[str] = set()

    def ensure(self, name: str, program: int) -> None:
        """Make a topic of a program, and its access list where the brokers have such lists.

        Raises ConfigError where we may not, TransientError where the brokers do not answer.
        """
        if name in self._known:
            return
        settings = self._settings
        wanted = NewTopic(
            name, num_partitions=settings.partitions, replication_factor=settings.replication,
            config={"cleanup.policy": "delete"},
        )  # fmt: skip
        self._done(self._admin.create_topics([wanted], operation_timeout=TIMEOUT_S), f"topic {name}")
        readers = settings.readers.get(Program(program).name.lower(), ())  # type: ignore[call-overload]
        lists = [binding for reader in readers for binding in _read_access(name, reader)]
        if lists:
            self._done(self._admin.create_acls(lists), f"access list of {name}", but=(KafkaError.SECURITY_DISABLED,))
        self._known.add(name)

    def _done(self, futures: Mapping[Any, Future[Any]], what: str, *, but: Iterable[int] = ()) -> None:
        harmless = {KafkaError.TOPIC_ALREADY_EXISTS, *but}
        for future in futures.values():
            try:
                future.result(timeout=2 * TIMEOUT_S)
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.code() not in harmless:
                    raise error_of(error, self._servers, what) from None
            except TimeoutError:
                raise error_of(None, self._servers, what) from None


def _read_access(topic: str, reader: str) -> list[AclBinding]:
    def allow(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
        return AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{reader}", "*", operation, AclPermissionType.ALLOW
        )

    return [
        allow(ResourceType.TOPIC, topic, AclOperation.READ),
        allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE),
        allow(ResourceType.GROUP, "*", AclOperation.READ),
    ]
