"""The schemas that we publish, by the numbers under which messages name them; and messages that name one.

A message without embedded schema is a zero byte, the schema's number (four bytes, big-endian) and the record: the form
of Confluent's serializers, which Rubin's stream uses too. Numbers and versions never change their meaning.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import fastavro

from gueststar.core.errors import DataError
from gueststar.formats.avro import OWN_FIELDS, alert_schema, lite_schema, rubin_schema, schema_text
from gueststar.formats.avro_encoder import MISFITS, RecordEncoder, misfit
from gueststar.formats.rubin_packet import rubin_packet

_HEAD = struct.Struct(">bI")


@dataclass(frozen=True)
class RegisteredSchema:
    """One version of a schema that we publish."""

    id: int
    """What messages name it by."""
    subject: str
    """What it is a version of."""
    version: int
    """From 1, in order of publication."""
    schema: Callable[[], Any]
    """Returns the parsed schema."""

    @property
    def text(self) -> str:
        """The schema as JSON."""
        return schema_text(self.schema())


REGISTERED = (
    RegisteredSchema(40200, "ztf-alert", 1, partial(alert_schema, "4.02")),
    RegisteredSchema(40201, "ztf-alert-lite", 1, partial(lite_schema, "4.02")),
    RegisteredSchema(40210, "ztf-alert", 2, partial(alert_schema, "4.02.1")),
    RegisteredSchema(40211, "ztf-alert-lite", 2, partial(lite_schema, "4.02.1")),
    RegisteredSchema(41000, "rubin-alert", 1, rubin_schema),
)
"""All that was ever published: new ones are added, old ones stay."""

LITE = 40211
"""Number of the schema of packets without cut-outs."""

RUBIN = 41000
"""Number of the schema of packets in the form of Rubin's alerts; in Rubin's own registry it has another."""


def schema_with_id(number: int) -> RegisteredSchema:
    """Return a registered schema; DataError if there is none of that number."""
    found = next((schema for schema in REGISTERED if schema.id == number), None)
    if found is None:
        raise DataError(f"no schema has the number {number}")
    return found


def encode_message(number: int, record: dict[str, Any]) -> bytes:
    """Return a record as a message that names its schema.

    Raises DataError if a field is missing, foreign or of the wrong type.
    """
    try:
        return _HEAD.pack(0, number) + _encoder(number)(record)
    except MISFITS as problem:
        reason = misfit(schema_with_id(number).schema(), record) or problem
        raise DataError(f"a record does not fit schema {number}: {reason}") from problem


def decode_message(data: bytes) -> dict[str, Any]:
    """Return the record of a message; DataError if it is damaged or names a schema that we do not know."""
    try:
        magic, number = _HEAD.unpack_from(data)
        if magic != 0:
            raise DataError(f"a message of {len(data)} bytes begins with {magic}, not with 0")
        record = fastavro.schemaless_reader(io.BytesIO(data[_HEAD.size :]), schema_with_id(number).schema(), None)
    except (struct.error, EOFError, IndexError, ValueError, OverflowError) as problem:
        raise DataError(f"a message of {len(data)} bytes cannot be read: {problem}") from problem
    if not isinstance(record, dict):
        raise DataError(f"a message of {len(data)} bytes holds no record")
    return record


@cache
def _encoder(number: int) -> RecordEncoder:
    return RecordEncoder(schema_with_id(number).schema())


def rubin_message(packet: dict[str, Any]) -> bytes:
    """Return a whole packet (decoded) as a message in the form of Rubin's alerts; raises DataError if it cannot be."""
    return encode_message(RUBIN, rubin_packet(packet))


def lite_message(packet: dict[str, Any]) -> bytes:
    """Return a whole packet (decoded; of 4.02, too) as a message without cut-outs."""
    told = {name: value for name, value in packet.items() if not name.startswith("cutout")}
    return encode_message(LITE, dict.fromkeys(OWN_FIELDS) | told)
