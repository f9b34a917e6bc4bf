"""Access lists of topics, from the same groups and releases as every other way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import AclBinding, AclOperation, ResourcePatternType, ResourceType  # type: ignore[attr-defined]

from gueststar.model.readers import ANONYMOUS
from gueststar.model.rights import Program
from gueststar.store.readers import ReaderStore, User, reader_of, sight_of
from gueststar.store.settings import StreamSettings, SurveySettings, read_settings
from gueststar.stream.clients import client_options
from gueststar.stream.topics import (
    EVERYBODY,
    RETRACTIONS,
    ReadersOf,
    Topics,
    allow,
    group_access,
    named_readers,
    read_access,
)


class NightTopic(NamedTuple):
    """What the name of a topic says."""

    name: str
    night: int
    program: Program


def readers_of(root: Path, stream: StreamSettings) -> ReadersOf:
    """Return who may read a topic of a program: whom ``stream.readers`` names, and the survey's users by their groups.

    The topics of a night whose packets have become public are for the readers of public topics too.
    """
    path = root / "survey.yaml"
    if not path.exists():
        return lambda program, _: named_readers(stream, program)
    settings = read_settings(path)
    members = {program: {*named_readers(stream, program)} for program in Program}
    for user in _users(root, settings):
        for program in reader_of(settings, user).programs | {Program.PUBLIC}:
            members[program].add(user.name)
    released = sight_of(settings, ANONYMOUS).packet_nights()

    def of_topic(program: Program, name: str) -> list[str]:
        is_public = any(released.allows(program, day_obs=topic.night) for topic in night_topics({name}, stream))
        return sorted(members[program] | (members[Program.PUBLIC] if is_public else set()))

    return of_topic


def bring_up_to_date(root: Path, settings: SurveySettings, *, is_dry: bool = False) -> list[str]:
    """Make the access lists of a survey's topics what groups and releases say now; return what changed, as lines.

    Topics of nights whose packets have become public are opened to whom the public topics are open; who left a group
    is shut out. Other topics, and what the publisher itself may do, are left alone. Raises ConfigError where we may
    not, TransientError where the brokers do not answer.
    """
    stream = settings.stream
    topics = Topics(client_options(root, stream), stream)
    found = topics.known_lists()
    if found is None:
        return ["the brokers have no access lists: whoever reaches them reads every topic"]
    names, bindings = found
    known = readers_of(root, stream)
    ours = list(night_topics(names, stream))
    lists = [read_access(topic.name, reader) for topic in ours for reader in known(topic.program, topic.name)]
    groups = [group_access(user.name) for user in _users(root, settings)]
    wanted = {_key(binding): binding for binding in [*chain.from_iterable(lists), *groups]}
    there = {_key(binding): binding for binding in bindings if _is_ours(binding, {topic.name for topic in ours})}
    everything = {_key(binding) for binding in bindings}
    add = [binding for key, binding in wanted.items() if key not in everything]
    remove = [binding for key, binding in there.items() if key not in wanted]
    if not is_dry:
        topics.change_lists(add=add, remove=remove)
    would = "would be " if is_dry else ""
    lines = [f"{would}shut: {_told(binding)}" for binding in remove] + [f"{would}opened: {_told(b)}" for b in add]
    return sorted(set(lines)) or [f"the access lists of {len(ours)} topics are as they should be"]


def night_topics(names: set[str], stream: StreamSettings) -> Iterator[NightTopic]:
    """Yield the topics that are nights of a survey, of whatever form of packet, with those of their retractions."""
    forms = [value for value in stream.model_dump().values() if isinstance(value, str) and "{night}" in value]
    for form in forms:
        pattern = (
            re.escape(form).replace(r"\{night\}", r"(?P<night>\d{8})").replace(r"\{program\}", r"(?P<program>[1-3])")
        )
        for name in sorted(names):
            if match := re.fullmatch(f"{pattern}({RETRACTIONS})?", name):
                yield NightTopic(name, int(match["night"]), Program(int(match["program"])))


def _users(root: Path, settings: SurveySettings) -> list[User]:
    store = ReaderStore.of(root, settings.database)
    try:
        return store.users()
    finally:
        store.close()


def _is_ours(binding: AclBinding, topics: set[str]) -> bool:
    """Return whether an entry is one that this module keeps: on our topics, or the old one that opened all groups."""
    if binding.restype == ResourceType.TOPIC:
        return binding.name in topics and binding.operation in (AclOperation.READ, AclOperation.DESCRIBE)
    everybodys = allow(ResourceType.GROUP, "*", AclOperation.READ, EVERYBODY, pattern=ResourcePatternType.LITERAL)
    return _key(binding)[:5] == _key(everybodys)[:5]


def _key(binding: AclBinding) -> tuple[str, ...]:
    parts = (binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.operation,
             binding.host, binding.permission_type)  # fmt: skip
    return tuple(str(part) for part in parts)


def _told(binding: AclBinding) -> str:
    reader = binding.principal.removeprefix("User:")
    what = "consumer groups" if binding.restype == ResourceType.GROUP else "topic"
    return f"{what} {binding.name} for {'everybody' if reader == EVERYBODY else reader}"
