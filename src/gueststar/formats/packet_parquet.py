"""Packets as Parquet: one row each, the candidate's fields as columns, histories as lists of records.

The columns are those of the packets' own schema under its own names, every value as the packet has it (sentinels too);
cut-outs are left out unless asked for. ``night`` and ``_healpix_29`` (the key of HATS catalogues) are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.packet_families import PacketFamily, identify, packet_families
from gueststar.formats.packets import Packet

HEALPIX = "_healpix_29"
_ROWS_A_GROUP = 4096
_CUTOUT = "cutout"
_SIMPLE = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
    "double": pa.float64(), "bytes": pa.binary(), "string": pa.string(), "enum": pa.string(), "fixed": pa.binary(),
}  # fmt: skip
_LOGICAL = {
    "timestamp-millis": pa.timestamp("ms", tz="UTC"), "timestamp-micros": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
}  # fmt: skip


def packet_schema(schemas: Sequence[Any], *, do_cutouts: bool = False) -> pa.Schema:
    """Return the columns of packets of some Avro schemas (parsed), versions of one survey's.

    A field whose versions cannot go together is text.
    """
    kinds: dict[str, list[pa.Field]] = {"night": [pa.field("night", pa.int64())]}
    for schema in schemas:
        for field in _flat_fields(schema, do_cutouts=do_cutouts):
            kinds.setdefault(field.name, []).append(field)
    kinds[HEALPIX] = [pa.field(HEALPIX, pa.int64())]
    return pa.schema([_common_field(versions) for versions in kinds.values()])


def _common_field(versions: list[pa.Field]) -> pa.Field:
    try:
        return pa.unify_schemas([pa.schema([field]) for field in versions], promote_options="permissive").field(0)
    except pa.ArrowException:
        return pa.field(versions[0].name, pa.string())


def packet_rows(packets: Iterable[Packet]) -> Iterator[dict[str, Any]]:
    """Yield packets as rows of `packet_schema`; more is in them than the schema may want."""
    for packet in packets:
        identity = identify(packet)
        inner = packet.record[identity.family.columns]
        place = int(healpix_29(identity.ra, identity.dec)[0])
        yield {**inner, **packet.record, "night": identity.day_obs, HEALPIX: place}


def write_packets(
    path: Path, packets: Iterable[Packet], schema: pa.Schema, *, rows_a_group: int = _ROWS_A_GROUP
) -> int:
    """Write packets to ``path``, whole or not at all; the same packets give the same file. Return their number."""
    n = 0
    with appearing_whole(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for rows in _in_groups(packet_rows(packets), rows_a_group):
            _as_text_in_place(rows, schema)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=rows_a_group)
            n += len(rows)
    return n


def _as_text_in_place(rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    words = [field.name for field in schema if field.type == pa.string()]
    for row in rows:
        for name in words:
            if (value := row.get(name)) is not None and not isinstance(value, str):
                row[name] = str(value)


def _in_groups(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _flat_fields(schema: Mapping[str, Any], *, do_cutouts: bool) -> list[pa.Field]:
    """Return the fields of a packet; those of the record that the family is searched by are columns of their own."""
    named, family = schema.get("__named_schemas", {}), _family_of(schema)
    fields: dict[str, pa.Field] = {}
    for field in schema["fields"]:
        if field["name"] == family.columns:
            record = _resolved(field["type"], named)
            for inner in record["fields"]:
                fields.setdefault(inner["name"], _field(inner, named))
        elif do_cutouts or not field["name"].lower().startswith(_CUTOUT):
            fields[field["name"]] = _field(field, named)
    return list(fields.values())


def _family_of(schema: Mapping[str, Any]) -> PacketFamily:
    names = {field["name"] for field in schema["fields"]}
    for family in packet_families():
        if family.columns in names and {path[0] for path in family.needs} <= names:
            return family
    raise DataError(f"schema {schema.get('name')} is of no family that is known")


def _field(field: Mapping[str, Any], named: Mapping[str, Any]) -> pa.Field:
    return pa.field(field["name"], _arrow_type(field["type"], named))


def _resolved(kind: Any, named: Mapping[str, Any]) -> Any:
    """Return a type without NULL and with its name looked up."""
    if isinstance(kind, list):
        rest = [part for part in kind if part != "null"]
        if len(rest) > 1:
            raise DataError(f"a field that is one of {rest} has no kind of column")
        kind = rest[0] if rest else "null"
    return named[kind] if isinstance(kind, str) and kind in named else kind


def _arrow_type(kind: Any, named: Mapping[str, Any]) -> pa.DataType:
    kind = _resolved(kind, named)
    if isinstance(kind, str):
        return _SIMPLE[kind]
    if (logical := _LOGICAL.get(kind.get("logicalType", ""))) is not None:
        return logical
    if kind["type"] in ("record", "error"):
        return pa.struct([_field(field, named) for field in kind["fields"]])
    if kind["type"] == "array":
        return pa.list_(_arrow_type(kind["items"], named))
    if kind["type"] == "map":
        return pa.map_(pa.string(), _arrow_type(kind["values"], named))
    return _arrow_type(kind["type"], named)
