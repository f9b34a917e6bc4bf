"""Columns of archived packets: what the archive is searched by.

Every row has the columns of `PLACES`; packets of the ZTF family add the candidate's fields and the features of history
(`gueststar.formats.alert_table`), those of other families the numbers, words and truths of their own record. NULL is
what is not known, by the rules of that table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core.errors import DataError
from gueststar.formats.alert_table import alert_table, alert_table_schema
from gueststar.formats.packet_families import PacketFamily, PacketIdentity, identify
from gueststar.formats.packets import Packet

PLACES = pa.schema(
    [
        pa.field("serial", pa.int64(), nullable=False, metadata={"doc": "place in the order of arrival"}),
        pa.field("candid", pa.int64(), nullable=False, metadata={"doc": "identifier of the alert"}),
        pa.field("objectId", pa.string(), nullable=False, metadata={"doc": "name of its object"}),
        pa.field("night", pa.int64(), nullable=False, metadata={"doc": "night YYYYMMDD, as its survey counts"}),
        pa.field("programid", pa.int64(), nullable=False, metadata={"doc": "program that it belongs to"}),
        pa.field("jd", pa.float64(), metadata={"doc": "Julian date (UTC)", "unit": "d"}),
        pa.field("ra", pa.float64(), metadata={"doc": "right ascension, ICRS", "unit": "deg"}),
        pa.field("dec", pa.float64(), metadata={"doc": "declination, ICRS", "unit": "deg"}),
        pa.field("healpix_29", pa.int64(), metadata={"doc": "nested HEALPix number of order 29"}),
    ]
)
"""Columns of every row, whatever packets say."""

_KINDS = {
    "float": pa.float64(), "double": pa.float64(), "int": pa.int64(), "long": pa.int64(), "boolean": pa.bool_(),
    "string": pa.string(),
}  # fmt: skip


@dataclass(frozen=True)
class ArchivedPacket:
    """A packet, and what the log says of it."""

    serial: int
    candid: int
    object_name: str
    night: int
    program: int
    packet: Packet | None
    """None where its bytes could not be read."""


def packet_columns(rows: Sequence[ArchivedPacket]) -> pa.Table:
    """Return the columns of packets, in order of arrival."""
    told = [_identity(row) for row in rows]
    families = {identity.family.name: identity.family for identity in told if identity is not None}
    parts = [_places(rows, told)] if not families else []
    for name, family in families.items():
        chosen = [k for k, identity in enumerate(told) if identity is not None and identity.family.name == name]
        mine = [rows[k] for k in chosen]
        parts.append(_with_fields(_places(mine, [told[k] for k in chosen]), _fields_of(mine, family)))
    if families and (lost := [k for k, identity in enumerate(told) if identity is None]):
        parts.append(_places([rows[k] for k in lost], [None] * len(lost)))
    return joined(parts).sort_by("serial")


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables one after the other, with the columns of all; of one name and two kinds, the first keeps its own.

    Whole numbers and fractions go together as fractions. What is of another kind altogether becomes NULL.
    """
    fields: dict[str, pa.Field] = {}
    for table in tables:
        for field in table.schema:
            known = fields.setdefault(field.name, field)
            if known.type == pa.int64() and field.type == pa.float64():
                fields[field.name] = field
    schema = pa.schema(list(fields.values()))
    return pa.concat_tables([_cast(table, schema) for table in tables])


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        if column.type != field.type:
            is_kin = {column.type, field.type} == {pa.int64(), pa.float64()}
            column = column.cast(field.type, safe=False) if is_kin else pa.nulls(len(table), field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _identity(row: ArchivedPacket) -> PacketIdentity | None:
    if row.packet is None:
        return None
    try:
        return identify(row.packet)
    except DataError:
        return None


def _places(rows: Sequence[ArchivedPacket], told: Sequence[PacketIdentity | None]) -> pa.Table:
    is_known = np.array([identity is not None for identity in told], dtype=bool)
    jd, ra, dec = (
        np.array([0.0 if identity is None else getattr(identity, name) for identity in told], dtype=np.float64)
        for name in ("jd", "ra", "dec")
    )
    unknown = ~is_known
    columns = [
        pa.array([row.serial for row in rows], pa.int64()),
        pa.array([row.candid for row in rows], pa.int64()),
        pa.array([row.object_name for row in rows], pa.string()),
        pa.array([row.night for row in rows], pa.int64()),
        pa.array([row.program for row in rows], pa.int64()),
        pa.array(jd, mask=unknown),
        pa.array(ra, mask=unknown),
        pa.array(dec, mask=unknown),
        pa.array(healpix_29(ra, dec) if len(ra) else np.zeros(0, dtype=np.int64), mask=unknown),
    ]
    return pa.Table.from_arrays(columns, schema=PLACES)


def _with_fields(places: pa.Table, fields: pa.Table) -> pa.Table:
    for name in fields.column_names:
        if name not in PLACES.names:
            places = places.append_column(fields.schema.field(name), fields[name])
    return places


def _fields_of(rows: Sequence[ArchivedPacket], family: PacketFamily) -> pa.Table:
    """Return the plain fields of the record that a family's alerts are searched by."""
    if family.name == "ztf":
        return _alert_table([row.packet.record for row in rows if row.packet is not None])
    records = [row.packet.record[family.columns] for row in rows if row.packet is not None]
    kinds: dict[str, pa.DataType] = {}
    for schema in {id(row.packet.schema): row.packet.schema for row in rows if row.packet is not None}.values():
        for name, kind in _plain_fields(schema, family.columns).items():
            kinds.setdefault(name, kind)
    arrays = [_column([record.get(name) for record in records], kind) for name, kind in kinds.items()]
    return pa.Table.from_arrays(arrays, schema=pa.schema(list(kinds.items())))


def _alert_table(records: list[dict[str, Any]]) -> pa.Table:
    """Return the table of packets of the ZTF family; one that does not fit it has NULL in all columns."""
    try:
        return alert_table(records)
    except DataError:
        if len(records) == 1:
            schema = alert_table_schema()
            return pa.Table.from_arrays([pa.nulls(1, field.type) for field in schema], schema=schema)
    return pa.concat_tables([_alert_table([record]) for record in records])


def _plain_fields(schema: Mapping[str, Any], record: str) -> dict[str, pa.DataType]:
    kind = next(_without_null(field["type"]) for field in schema["fields"] if field["name"] == record)
    if isinstance(kind, str):
        kind = schema["__named_schemas"][kind]
    told = {field["name"]: _without_null(field["type"]) for field in kind["fields"]}
    return {name: _KINDS[what] for name, what in told.items() if isinstance(what, str) and what in _KINDS}


def _without_null(kind: Any) -> Any:
    if isinstance(kind, list):
        rest = [part for part in kind if part != "null"]
        return rest[0] if rest else "null"
    return kind


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.float64():
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return pa.array(numbers, mask=~np.isfinite(numbers))
    return pa.array(values, kind)
