"""Topics: one a night and program, made before the first packet, open to whom the survey names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from gueststar.core.errors import ConfigError, GueststarError
from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program
from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import error_of, worst_of

TIMEOUT_S = 30.0

ReadersOf = Callable[[Program, str], Iterable[str]]
"""From a program and the name of a topic to the Kafka users that may read it."""

EVERYBODY, EVERYBODYS_GROUPS = "*", "public"
"""Every user that can log in, and what the names of consumer groups begin with that are open to all."""

_NEW_TOPIC = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
"""Settings of a new topic. Times are the brokers': they refuse messages of a publisher whose clock is far ahead."""

RETRACTIONS = "_retractions"
"""What the name of a topic's retractions ends with."""


def topic_of(settings: StreamSettings, *, night: int, program: int, flavour: Flavour = Flavour.FULL) -> str:
    """Return the topic of a night and program; ValueError for engineering data, which have none."""
    if Program(program) is Program.ENGINEERING:
        raise ValueError("engineering exposures are published nowhere")
    names = {
        Flavour.FULL: settings.topic, Flavour.LITE: settings.lite_topic, Flavour.RUBIN: settings.rubin_topic,
        Flavour.FINK: settings.fink_topic,
    }  # fmt: skip
    return names[flavour].format(night=night, program=program)


_READING = (AclOperation.READ, AclOperation.ALL, AclOperation.ANY)


class Topics:
    """Makes topics, and tells which is which."""

    def __init__(
        self, options: Mapping[str, Any], settings: StreamSettings, *, readers_of: ReadersOf | None = None
    ) -> None:
        """``readers_of`` tells who may read a program's topics; without it, whom ``settings.readers`` names."""
        self._heard: list[KafkaError] = []
        self._settings, self._servers = settings, str(options["bootstrap.servers"])
        hearing: dict[str, Any] = {**options, "error_cb": self._heard.append}
        try:
            self._admin = AdminClient(hearing)
        except KafkaException as problem:
            raise error_of(problem.args[0], self._servers, "the client of the brokers") from None
        self._known: dict[str, str] = {}
        self._readers_of = readers_of or (lambda program, _: named_readers(settings, program))

    def ensure(self, name: str, program: int) -> str:
        """Make a topic of a program, and its access list where the brokers have such lists; return its own number.

        A topic that was deleted and made anew under the same name has another number. Raises ConfigError where we may
        not, and for a topic of that name which others may read already; TransientError where the brokers do not answer.
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
        self._check_closed(name, Program(program))
        lists = [
            binding for reader in self._readers_of(Program(program), name) for binding in read_access(name, reader)
        ]
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

    def _check_closed(self, name: str, program: Program) -> None:
        """Raise ConfigError if a topic that is not for everybody may be read by more than its program's readers."""
        if program is Program.PUBLIC:
            return
        any_of: Any = None
        on_topic = AclBindingFilter(
            ResourceType.TOPIC, name, ResourcePatternType.MATCH, any_of, any_of, AclOperation.ANY,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        found = self._lists(on_topic) or []
        admitted = {binding.principal.removeprefix("User:") for binding in found if binding.operation in _READING}
        if others := admitted - {*self._readers_of(program, name)}:
            raise ConfigError(
                f"topic {name} is for readers of the {program.name.lower()} program, but its access list admits "
                f"{', '.join(sorted(others))}: choose another topic, or gueststar user access mends the lists"
            )

    def let_use_groups(self, reader: str) -> None:
        """Let a reader use consumer groups of his name, where the brokers have access lists."""
        self._done(
            self._admin.create_acls([group_access(reader)]), f"access list of {reader}",
            but=(KafkaError.SECURITY_DISABLED,),
        )  # fmt: skip

    def known_lists(self) -> tuple[set[str], list[AclBinding]] | None:
        """Return the names of all topics, and all entries of access lists; None where the brokers have no such lists.

        Raises ConfigError where we may not ask, TransientError where the brokers do not answer.
        """
        any_of: Any = None
        found = self._lists(
            AclBindingFilter(
                ResourceType.ANY, any_of, ResourcePatternType.ANY, any_of, any_of, AclOperation.ANY,
                AclPermissionType.ANY,
            )
        )  # fmt: skip
        return None if found is None else (set(self._admin.list_topics(timeout=TIMEOUT_S).topics), found)

    def _lists(self, which: AclBindingFilter) -> list[AclBinding] | None:
        try:
            return list(self._admin.describe_acls(which).result(timeout=TIMEOUT_S))
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.SECURITY_DISABLED:
                return None
            raise self._error(problem.args[0], "access lists") from None

    def change_lists(self, *, add: Iterable[AclBinding], remove: Iterable[AclBinding]) -> None:
        """Add and remove entries of access lists; what is removed goes first."""
        if gone := [_filter_of(binding) for binding in remove]:
            self._done(self._admin.delete_acls(gone), "access lists")
        if new := list(add):
            self._done(self._admin.create_acls(new), "access lists")

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


def named_readers(settings: StreamSettings, program: Program) -> tuple[str, ...]:
    """Return whom the settings name as readers of a program's topics; * is every user."""
    return settings.readers.get(program.name.lower(), ())  # type: ignore[call-overload]


def read_access(topic: str, reader: str) -> list[AclBinding]:
    """Return what lets a reader read a topic, and use consumer groups whose names begin with his (`group_access`)."""
    return [
        allow(ResourceType.TOPIC, topic, AclOperation.READ, reader),
        allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, reader),
        group_access(reader),
    ]


def group_access(reader: str) -> AclBinding:
    """Return what lets a reader use consumer groups whose names begin with his name and ``-`` (all: with ``public-``).

    Who may use a group may also ask what its members read: groups of partners are not for others to look into.
    """
    prefix = f"{EVERYBODYS_GROUPS if reader == EVERYBODY else reader}-"
    return allow(ResourceType.GROUP, prefix, AclOperation.READ, reader, pattern=ResourcePatternType.PREFIXED)


def allow(
    kind: ResourceType, name: str, operation: AclOperation, reader: str, *,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:  # fmt: skip
    """Return an entry of an access list."""
    return AclBinding(kind, name, pattern, f"User:{reader}", "*", operation, AclPermissionType.ALLOW)


def _filter_of(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
        binding.operation, binding.permission_type,
    )  # fmt: skip
