"""Alert packets as Avro: ZTF schema 4.02 and two fields of our own behind it, one object container file a packet."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache
from importlib import resources
from typing import Any

import fastavro

from gueststar.core.errors import DataError
from gueststar.formats.avro_encoder import MISFITS, RecordEncoder, misfit, zigzag

ZTF_VERSION = "4.02"
"""``schemavsn`` of the packets that are written: ZTF's version, of which all fields but our own are."""

SCHEMA_VERSION = "4.02.1"
"""Version of the schema that is written. Ours are added behind ZTF's, where readers that know 4.02 alone never look."""

OWN_FIELDS = ("rbhist", "nrbhist")
"""Fields of a packet that ZTF's schema does not have; null by default."""

RUBIN_VERSION = "10.0"
"""Version of Rubin's alert schema whose form our Rubin flavour has."""

_RUBIN_PARTS = ("mpc_orbits", "ssSource", "diaObject", "diaForcedSource", "diaSource", "alert")
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
    return _whole(tuple(schema_texts(version).values()))


@cache
def lite_schema(version: str = SCHEMA_VERSION) -> Any:
    """Return the parsed schema of a packet without cut-outs: the same record, its cut-outs left out."""
    parts = [text for name, text in schema_texts(version).items() if name not in ("cutout", "alert")]
    folder = resources.files("gueststar.formats") / "schemas" / "ztf_lite" / version
    return _whole((*parts, (folder / "alert.avsc").read_text()))


@cache
def rubin_schema(version: str = RUBIN_VERSION) -> Any:
    """Return the parsed schema of a packet in the form of Rubin's alerts."""
    return _whole(tuple(_rubin_text(name, version) for name in _RUBIN_PARTS))


def rubin_field_names(record: str, version: str = RUBIN_VERSION) -> tuple[str, ...]:
    """Return the names of a record's fields in the form of Rubin's alerts, in schema order."""
    return tuple(field["name"] for field in json.loads(_rubin_text(record, version))["fields"])


def _rubin_text(record: str, version: str) -> str:
    return (resources.files("gueststar.formats") / "schemas" / "rubin" / version / f"{record}.avsc").read_text()


def schema_text(schema: Any) -> str:
    """Return a parsed schema as JSON, what fastavro keeps for itself left out.

    Keys are sorted: fastavro's own order changes from process to process, and this text stands in packets.
    """
    plain = {key: value for key, value in schema.items() if not key.startswith("__")}
    return json.dumps(plain, sort_keys=True)


def field_names(record: str, version: str = SCHEMA_VERSION) -> tuple[str, ...]:
    """Return the names of a record's fields in schema order."""
    return tuple(field["name"] for field in json.loads(schema_texts(version)[record])["fields"])


def encode_alert(packet: dict[str, Any]) -> bytes:
    """Return a packet as an Avro object container file; the same packet gives the same bytes.

    Raises DataError if a field is missing, foreign or of the wrong type.
    """
    header, sync = _container_header()
    body = encode_body(packet)
    return b"".join((header, zigzag(1), zigzag(len(body)), body, sync))


def encode_body(packet: dict[str, Any]) -> bytes:
    """Return a packet as Avro without header: what a container or a message of a registry's stream holds.

    Raises DataError if a field is missing, foreign or of the wrong type.
    """
    try:
        return _encoder()(packet)
    except MISFITS as problem:
        reason = misfit(alert_schema(), packet) or problem
        raise DataError(f"alert {packet.get('candid')} does not fit schema {SCHEMA_VERSION}: {reason}") from problem


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

    Both depend on the schema only, so that packets are the same on a rerun, in any process.
    """
    sync = hashlib.md5(json.dumps(schema_texts()).encode(), usedforsecurity=False).digest()
    entries = {"avro.codec": b"null", "avro.schema": schema_text(alert_schema()).encode()}
    metadata = b"".join(
        zigzag(len(part)) + part for name, value in entries.items() for part in (name.encode(), value)
    )  # fmt: skip
    return b"Obj\x01" + zigzag(len(entries)) + metadata + zigzag(0) + sync, sync


@cache
def _encoder() -> RecordEncoder:
    return RecordEncoder(alert_schema())


def _whole(texts: tuple[str, ...]) -> Any:
    """Return the parsed schema of the last text, the parts before it written in where they are first used."""
    named: dict[str, Any] = {}
    schemas = [fastavro.parse_schema(json.loads(text), named) for text in texts]
    return fastavro.parse_schema(_inlined(schemas[-1], named, set()))


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
