"""Alert packets as Avro: ZTF schema 4.02, one object container file a packet."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache
from importlib import resources
from typing import Any

import fastavro

from gueststar.core.errors import DataError

SCHEMA_VERSION = "4.02"
"""``schemavsn`` of the packets that are written."""

_PARTS = ("cutout", "fp_hist", "prv_candidate", "candidate", "alert")
_READ_ERRORS = (ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, StopIteration)


@cache
def schema_texts(version: str = SCHEMA_VERSION) -> dict[str, str]:
    """Return the schema files by record name, parts before the whole."""
    folder = resources.files("gueststar.formats") / "schemas" / "ztf" / version
    return {name: (folder / f"{name}.avsc").read_text() for name in _PARTS}


@cache
def alert_schema(version: str = SCHEMA_VERSION) -> Any:
    """Return the parsed schema of a whole packet, its parts written in where they are first used."""
    named: dict[str, Any] = {}
    schemas = [fastavro.parse_schema(json.loads(text), named) for text in schema_texts(version).values()]
    return fastavro.parse_schema(_inlined(schemas[-1], named, set()))


def field_names(record: str, version: str = SCHEMA_VERSION) -> tuple[str, ...]:
    """Return the names of a record's fields in schema order."""
    return tuple(field["name"] for field in json.loads(schema_texts(version)[record])["fields"])


def encode_alert(packet: dict[str, Any]) -> bytes:
    """Return a packet as an Avro object container file; the same packet gives the same bytes.

    Raises DataError if a field is missing, foreign or of the wrong type.
    """
    header, sync = _container_header()
    buffer = io.BytesIO()
    try:
        fastavro.schemaless_writer(buffer, alert_schema(), packet, strict=True)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"alert {packet.get('candid')} does not fit schema {SCHEMA_VERSION}: {error}") from error
    body = buffer.getvalue()
    return b"".join((header, _zigzag(1), _zigzag(len(body)), body, sync))


def decode_alert(data: bytes) -> dict[str, Any]:
    """Return the packet in an Avro object container file, of any schema version.

    Raises DataError if the bytes are damaged or hold no packet.
    """
    try:
        records = list(fastavro.reader(io.BytesIO(data)))
    except _READ_ERRORS as error:
        raise DataError(f"alert packet of {len(data)} bytes cannot be read: {error}") from error
    if len(records) != 1 or not isinstance(records[0], dict):
        raise DataError(f"alert packet holds {len(records)} records, needs 1")
    return records[0]


def split_container(data: bytes) -> tuple[str, bytes]:
    """Return the schema (JSON, as it stands there) and the bare body of the one record in an Avro object container.

    Raises DataError if the bytes are damaged or hold anything but one record.
    """
    try:
        reader = fastavro.block_reader(io.BytesIO(data))
        blocks = list(reader)
    except _READ_ERRORS as error:
        raise DataError(f"alert packet of {len(data)} bytes cannot be read: {error}") from error
    if [block.num_records for block in blocks] != [1]:
        raise DataError(f"alert packet holds {sum(block.num_records for block in blocks)} records, needs 1")
    return str(reader.metadata["avro.schema"]), bytes(blocks[0].bytes_.getvalue())


@cache
def _container_header() -> tuple[bytes, bytes]:
    """Return the constant head of every container and its sync marker.

    The marker depends on the schema only, so that packets are the same on a rerun.
    """
    sync = hashlib.md5(json.dumps(schema_texts()).encode(), usedforsecurity=False).digest()
    buffer = io.BytesIO()
    fastavro.writer(buffer, alert_schema(), [], codec="null", sync_marker=sync)
    return buffer.getvalue(), sync


def _zigzag(value: int) -> bytes:
    """Return a non-negative Avro long."""
    rest, out = value << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _inlined(schema: Any, named: dict[str, Any], seen: set[str]) -> Any:
    """Return ``schema`` with each named record spelled out at its first use."""
    if isinstance(schema, str):
        if schema not in named or schema in seen:
            return schema
        return _inlined(named[schema], named, seen)
    if isinstance(schema, list):
        return [_inlined(part, named, seen) for part in schema]
    plain = {key: value for key, value in schema.items() if not key.startswith("__")}
    if plain["type"] == "record":
        seen.add(plain["name"])
        plain["fields"] = [dict(field, type=_inlined(field["type"], named, seen)) for field in plain["fields"]]
    elif plain["type"] == "array":
        plain["items"] = _inlined(plain["items"], named, seen)
    return plain
