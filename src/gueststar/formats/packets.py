"""Alert packets of any survey: found in what lies in a file or a message, and read by the schema that they bring.

Two forms are known. An Avro object container file holds its schema and, as a rule, one packet; broker teams also
store many in one. A message in the wire format of Confluent's schema registry is a zero byte, the number of a schema
(big-endian uint32), and the record: whoever reads it must have the schema.

Avro 1.11 specification, "Object Container Files"; Confluent, "Wire format".
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastavro

from gueststar.core.errors import DataError

MAGIC = b"Obj\x01"
WIRE_HEADER = struct.Struct(">bI")
_SYNC = 16
_LONGEST_VARINT = 10

Schemas = Mapping[int, Any]
"""Parsed schemas by the number that messages name."""

_READ_ERRORS = (
    ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, StopIteration, AttributeError, RecursionError,
    struct.error, zlib.error, lzma.LZMAError, MemoryError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class Packet:
    """One packet: its bytes as they are kept and sent again, and what they say."""

    payload: bytes
    record: dict[str, Any]
    schema: Any
    """Parsed schema of the writer."""
    is_whole: bool = True
    """False: only the leading fields could be read, because the schema was not there."""


@dataclass(frozen=True)
class _Container:
    metadata: bytes
    sync: bytes
    schema: Any
    codec: str
    start: int
    """Of the first block."""


def read_packet(payload: bytes, *, schemas: Schemas | None = None, leading: Schemas | None = None) -> Packet:
    """Return the one packet in ``payload``.

    ``schemas`` are those of messages in the wire format; ``leading`` are schemas of the first fields of such records,
    for when the whole one is not known. Raises DataError if the bytes are damaged or hold not one packet.
    """
    packets = list(packets_in(payload, schemas=schemas, leading=leading))
    if len(packets) != 1:
        raise DataError(f"{len(packets)} packets, not one")
    return packets[0]


def packets_in(payload: bytes, *, schemas: Schemas | None = None, leading: Schemas | None = None) -> Iterator[Packet]:
    """Yield the packets in a file or message.

    A container of one packet is that packet, byte for byte. Of a container of many, each packet becomes a container
    of its own: the same schema and metadata, the same bytes of the record, no compression. Raises DataError as
    `read_packet` does; nothing is yielded of a container before all of it was read.
    """
    try:
        if payload[:4] == MAGIC:
            yield from _packets_of_container(payload)
        elif len(payload) > WIRE_HEADER.size and payload[0] == 0:
            yield _packet_of_message(payload, schemas or {}, leading or {})
        else:
            raise DataError(f"no Avro: it begins with {payload[:8].hex(' ') or 'nothing'}")
    except _READ_ERRORS as problem:
        told = str(problem) or type(problem).__name__
        raise DataError(f"damaged: {told}") from problem


def schema_of(payload: bytes, *, schemas: Schemas | None = None, leading: Schemas | None = None) -> Any:
    """Return the parsed schema of a packet, without reading the packet; DataError where there is none."""
    try:
        if payload[:4] == MAGIC:
            return _container(payload).schema
        _, number = WIRE_HEADER.unpack_from(payload)
        return (schemas or {}).get(number) or (leading or {})[number]
    except _READ_ERRORS as problem:
        raise DataError(f"damaged: {problem}") from problem


def parsed_schema(text: str) -> Any:
    """Return a schema for reading; DataError if it is none."""
    try:
        return fastavro.parse_schema(json.loads(text), named_schemas={})
    except (*_READ_ERRORS, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as problem:
        raise DataError(f"no Avro schema: {problem}") from problem


def schema_text_of_file(path: Path) -> str:
    """Return a schema file as one text, with the schemas that it names (beside it, ``<name>.avsc``) written in.

    Raises DataError if one is not there or none at all.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        return json.dumps(_plain(fastavro.schema.load_schema(path)))
    except (*_READ_ERRORS, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as problem:
        raise DataError(f"{path}: no Avro schema: {problem}") from problem
    except fastavro.repository.base.SchemaRepositoryError as problem:
        raise DataError(f"{path}: a schema that it names is not beside it: {problem}") from problem


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if not key.startswith("__")}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema


def _packets_of_container(payload: bytes) -> list[Packet]:
    container = _container(payload)
    records = [record for block in _blocks(payload, container) for record in _records(block, container.schema)]
    if len(records) == 1:
        return [Packet(payload, records[0][0], container.schema)]
    return [Packet(_container_of(body, container), record, container.schema) for record, body in records]


def _packet_of_message(payload: bytes, schemas: Schemas, leading: Schemas) -> Packet:
    _, number = WIRE_HEADER.unpack_from(payload)
    known = schemas.get(number)
    schema = known if known is not None else leading.get(number)
    if schema is None:
        raise DataError(f"its schema, number {number}, is not known: give it with --schema {number}=FILE.avsc")
    stream = io.BytesIO(payload)
    stream.seek(WIRE_HEADER.size)
    record = _mapping(fastavro.schemaless_reader(stream, schema, None))
    if known is not None and stream.tell() != len(payload):
        raise DataError(f"damaged: {len(payload) - stream.tell()} bytes behind the record of schema {number}")
    return Packet(payload, record, schema, is_whole=known is not None)


def _container(payload: bytes) -> _Container:
    at = len(MAGIC)
    metadata: dict[str, bytes] = {}
    while True:
        count, at = _long(payload, at)
        if count == 0:
            break
        if count < 0:
            count = -count
            _, at = _long(payload, at)
        for _ in range(count):
            key, at = _bytes(payload, at)
            metadata[key.decode()], at = _bytes(payload, at)
    sync = payload[at : at + _SYNC]
    if len(sync) != _SYNC or "avro.schema" not in metadata:
        raise DataError("damaged: its header is cut short")
    schema = _schema_of(metadata["avro.schema"])
    return _Container(payload[:at], sync, schema, metadata.get("avro.codec", b"null").decode(), at + _SYNC)


@lru_cache(maxsize=64)
def _schema_of(text: bytes) -> Any:
    return parsed_schema(text.decode())


def _blocks(payload: bytes, container: _Container) -> Iterator[tuple[int, bytes]]:
    """Yield (number of records, their bytes) of each block."""
    expand, at = _expander(container.codec), container.start
    while at < len(payload):
        count, at = _long(payload, at)
        body, at = _bytes(payload, at)
        if count < 0 or payload[at : at + _SYNC] != container.sync:
            raise DataError(f"damaged: no sync marker at byte {at}")
        at += _SYNC
        yield count, expand(body)


def _records(block: tuple[int, bytes], schema: Any) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the records of a block, each with its bytes; DataError unless they are all of it."""
    count, body = block
    stream = io.BytesIO(body)
    for _ in range(count):
        start = stream.tell()
        record = _mapping(fastavro.schemaless_reader(stream, schema, None))
        yield record, body[start : stream.tell()]
    if stream.tell() != len(body):
        raise DataError(f"damaged: {len(body) - stream.tell()} bytes behind the last record")


def _container_of(body: bytes, source: _Container) -> bytes:
    """Return a container of one record, with the header of the container that it lay in."""
    metadata = source.metadata
    if source.codec != "null":
        metadata = _with_null_codec(metadata)
    sync = hashlib.md5(metadata, usedforsecurity=False).digest()  # of the header only: the same again is the same
    return b"".join((metadata, sync, b"\x02", _varint(len(body)), body, sync))


def _with_null_codec(metadata: bytes) -> bytes:
    pairs, at = dict[bytes, bytes](), len(MAGIC)
    while (found := _long(metadata, at))[0]:
        count, at = found
        if count < 0:
            count = -count
            _, at = _long(metadata, at)
        for _ in range(count):
            key, at = _bytes(metadata, at)
            pairs[key], at = _bytes(metadata, at)
    pairs[b"avro.codec"] = b"null"
    written = b"".join(_varint(len(part)) + part for pair in pairs.items() for part in pair)
    return MAGIC + _varint(len(pairs)) + written + b"\x00"


def _expander(codec: str) -> Callable[[bytes], bytes]:
    if codec == "null":
        return bytes
    if codec == "deflate":
        return lambda data: zlib.decompress(data, -15)
    if codec == "bzip2":
        return bz2.decompress
    if codec == "xz":
        return lzma.decompress
    if codec in ("snappy", "zstandard", "lz4"):
        return lambda data: _expanded_by_arrow(data, codec)
    raise DataError(f"its codec {codec!r} is not known")


def _expanded_by_arrow(data: bytes, codec: str) -> bytes:
    import pyarrow as pa

    if codec == "snappy":  # four bytes of CRC-32 behind it, the length before it
        size, _ = _unsigned(data, 0)
        expanded = pa.Codec("snappy").decompress(data[:-4], decompressed_size=size, asbytes=True)
        if zlib.crc32(expanded) != int.from_bytes(data[-4:], "big"):
            raise DataError("damaged: a block's checksum differs")
        return bytes(expanded)
    stream = pa.input_stream(io.BytesIO(data), compression={"zstandard": "zstd", "lz4": "lz4"}[codec])
    return bytes(stream.read())


def _mapping(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"it holds a {type(record).__name__}, not a record")
    return record


def _long(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DataError("damaged: a number has no end")


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(data, at)
    if size < 0 or at + size > len(data):
        raise DataError(f"damaged: it is cut short at {len(data)} bytes")
    return data[at : at + size], at + size


def _varint(value: int) -> bytes:
    """Return a non-negative Avro long."""
    rest, out = value << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
