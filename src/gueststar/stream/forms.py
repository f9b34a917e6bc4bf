"""Forms of a message: the packet as it is, or as clients want it that look for its schema elsewhere."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from gueststar.formats.avro import split_container
from gueststar.stream.read import CANDID

Headers = list[tuple[str, str | bytes | None]]


class Form(StrEnum):
    """How a packet is put into a message."""

    CONTAINER = "container"
    """Value: the packet as it is, its schema within; key: the object's name."""
    KEYED = "schema-in-key"
    """Value: the packet without its schema; key: the schema as JSON. Clients of Fink read this form."""


class MessageParts(NamedTuple):
    """What a message is made of."""

    key: str
    value: bytes
    headers: Headers


def message_of(packet: bytes, *, candid: int, object_name: str, form: Form = Form.CONTAINER) -> MessageParts:
    """Return a packet as a message; raises DataError for bytes that are no Avro container where it must be opened.

    The header ``candid`` is the packet's number; by ``_format`` clients of Hopskotch know a container as Avro.
    """
    headers: Headers = [(CANDID, str(candid).encode())]
    if form is Form.CONTAINER:
        return MessageParts(object_name, packet, [*headers, ("_format", b"avro")])
    schema, body = split_container(packet)
    return MessageParts(schema, body, headers)
