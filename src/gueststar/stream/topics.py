"""Topics: one a night and program, made before the first packet, open to whom the survey names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from gueststar.core.errors import GueststarError
from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program
from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import error_of, worst_of

TIMEOUT_S = 30.0

_NEW_TOPIC = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
"""Settings of a new topic. Times are the brokers': they refuse messages of a publisher whose clock is far ahead."""

RETRACTIONS = "_retractions"
"""What the name of a topic's retractions ends with."""


def topic_of(settings: StreamSettings, *, night: int, program: int, flavour: Flavour = Flavour.FULL) -> str:
    """Return the topic of a night and program; ValueError for engineering data, which have none."""
    if Program(program) is Program.ENGINEERING:
        raise ValueError("engineering exposures are published nowhere")
    name = {Flavour.LITE: settings.lite_topic, Flavour.RUBIN: settings.rubin_topic}.get(flavour, settings.topic)
    return name.format(night=night, program=program)


class Topics:
    """Makes topics, and tells which is which."""

    def __init__(self, options: Mapping[str, Any], settings: StreamSettings) -> None:
        self._heard: list[KafkaError] = []
        self._settings, self._servers = settings, str(options["bootstrap.servers"])
        hearing: dict[str, Any] = {**options, "error_cb": self._heard.append}
        try:
            self._admin = AdminClient(hearing)
        except KafkaException as problem:
            raise error_of(problem.args[0], self._servers, "the client of the brokers") from None
        self._known: dict[str, str] = {}

    def ensure(self, name: str, program: int) -> str:
        """Make a topic of a program, and its access list where the brokers have such lists; return its own number.

        A topic that was deleted and made anew under the same name has another number. Raises ConfigError where we may
        not, TransientError where the brokers do not answer.
        """
        if name not in self._known:
            self._make(name, program)
            self._known[name] = self._number_of(name)
        return self._known[name]

    def forget(self) -> None:
        """Ask the brokers again from now on: a topic may be gone."""
        self._known.clear()

    def _make(self, name: str, program: int) -> None:
        settings = self._settings
        wanted = NewTopic(
            name, num_partitions=settings.partitions, replication_factor=settings.replication, config=_NEW_TOPIC
        )
        self._done(self._admin.create_topics([wanted], operation_timeout=TIMEOUT_S), f"topic {name}")
        readers = settings.readers.get(Program(program).name.lower(), ())  # type: ignore[call-overload]
        lists = [binding for reader in readers for binding in _read_access(name, reader)]
        if lists:
            self._done(self._admin.create_acls(lists), f"access list of {name}", but=(KafkaError.SECURITY_DISABLED,))

    def _number_of(self, name: str) -> str:
        """Return the brokers' number of a topic; one that was just made may take a moment to be known."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            (future,) = self._admin.describe_topics(TopicCollection([name])).values()
            try:
                return str(future.result(timeout=2 * TIMEOUT_S).topic_id)
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > end:
                    raise self._error(error, f"topic {name}") from None
                time.sleep(0.1)
            except TimeoutError:
                raise self._error(None, f"topic {name}") from None

    def _done(self, futures: Mapping[Any, Future[Any]], what: str, *, but: Iterable[int] = ()) -> None:
        harmless = {KafkaError.TOPIC_ALREADY_EXISTS, *but}
        for future in futures.values():
            try:
                future.result(timeout=2 * TIMEOUT_S)
            except KafkaException as problem:
                error: KafkaError = problem.args[0]
                if error.code() not in harmless:
                    raise self._error(error, what) from None
            except TimeoutError:
                raise self._error(None, what) from None

    def _error(self, error: KafkaError | None, what: str) -> GueststarError:
        """Return an error as one of ours; a login that was refused shows in the background, and as a time-out here."""
        self._admin.poll(0.0)
        return error_of(worst_of([*self._heard, error] if error else self._heard), self._servers, what)


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
