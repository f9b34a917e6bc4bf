"""A batch of alert packets as one Arrow table: candidate fields under their ZTF names, ours, the features of history.

This table is what conditions are asked of, in the stream and in the archive. A value that is not known is NULL in it,
however a packet says so: ``null``, a field that its schema version lacks, the number -999, the name ``"null"``, or a
number that is not finite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gueststar.algorithms.alerts.history_features import (
    FEATURES,
    Alerts,
    Detections,
    Feature,
    ForcedFluxes,
    Limits,
    history_features,
    picked,
)
from gueststar.core.errors import DataError
from gueststar.formats.avro import OWN_FIELDS, schema_texts

UNKNOWN = -999
"""What packets say for a number that is not known."""
UNKNOWN_NAME = "null"

_LOST_FLUX = -99998.0
"""Forced fluxes below were not measured."""
_BAD_PIXELS = "56"
_ZERO_POINT = 25.0
"""Forced fluxes are brought to this zero point before they are stacked."""
_TYPES = {"double": pa.float64(), "float": pa.float64(), "int": pa.int64(), "long": pa.int64(), "string": pa.string()}
_FEATURE_TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}

Floats = NDArray[np.float64]
Records = Sequence[dict[str, Any]]


@cache
def alert_table_schema() -> pa.Schema:
    """Return the columns of the table: ``objectId``, fields of candidate and of our own, features; docs as metadata."""
    fields = [_field("objectId", pa.string(), "Name of the object", "")]
    texts = schema_texts()
    own = [field for field in json.loads(texts["alert"])["fields"] if field["name"] in OWN_FIELDS]
    for field in (*json.loads(texts["candidate"])["fields"], *own):
        kind = field["type"] if isinstance(field["type"], str) else next(k for k in field["type"] if k != "null")
        fields.append(_field(field["name"], _TYPES[kind], field.get("doc", ""), ""))
    fields += [_field(f.name, _FEATURE_TYPES[f.kind], f.doc, f.unit) for f in FEATURES]
    return pa.schema(fields)


def _field(name: str, kind: pa.DataType, doc: str, unit: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc, "unit": unit})


def alert_table(packets: Records) -> pa.Table:
    """Return the table of decoded packets (cut-outs are not needed), one row a packet, in their order.

    Packets of different schema versions may be mixed. Raises DataError for one without the place, time, filter or
    identity that every packet has, or with a value of a wrong kind.
    """
    schema = alert_table_schema()
    candidates = [_candidate_of(packet) for packet in packets]
    columns: list[pa.Array] = [pa.array([packet["objectId"] for packet in packets], pa.string())]
    n_own = len(schema) - len(FEATURES)
    for field in list(schema)[1:n_own]:
        records = packets if field.name in OWN_FIELDS else candidates
        columns.append(_column([record.get(field.name) for record in records], field))
    features = features_of(packets)
    columns += [_feature_column(features[feature.name], feature) for feature in FEATURES]
    return pa.Table.from_arrays(columns, schema=schema)


def features_of(packets: Records) -> dict[str, Floats]:
    """Return the features of decoded packets by name, NaN where unknown."""
    alerts = _alerts([_candidate_of(packet) for packet in packets])
    items, group = _flat(packet.get("prv_candidates") for packet in packets)
    own = np.array([packet["candidate"]["candid"] for packet in packets], dtype=np.int64)
    found = np.array([_candid(item) for item in items], dtype=np.int64)
    is_detection = (found > 0) & (found != own[group] if len(items) else True)
    detections = Detections(group[is_detection], *_detections(list(compress(items, is_detection))))
    unseen = list(compress(items, found <= 0))
    limits = Limits(group[found <= 0], _numbers(unseen, "jd"), _numbers(unseen, "diffmaglim"))
    return history_features(
        alerts,
        detections,
        picked(limits, np.isfinite(limits.mag)),
        _forced(*_flat(packet.get("fp_hists") for packet in packets)),
    )


def _candidate_of(packet: dict[str, Any]) -> dict[str, Any]:
    candidate = packet.get("candidate")
    if not isinstance(candidate, dict) or not isinstance(packet.get("objectId"), str):
        raise DataError(f"packet {packet.get('candid')} holds no objectId or no candidate")
    for name in ("candid", "jd", "fid", "ra", "dec"):
        if not isinstance(candidate.get(name), int | float):
            raise DataError(f"packet {packet.get('candid')}: candidate.{name} is {candidate.get(name)!r}, not a number")
    return candidate


def _alerts(candidates: Records) -> Alerts:
    distance = _numbers(candidates, "ssdistnr")
    is_told = np.array([candidate.get("ssdistnr") is not None for candidate in candidates], dtype=bool)
    return Alerts(
        jd=_numbers(candidates, "jd"),
        filter_number=np.array([candidate["fid"] for candidate in candidates], dtype=np.int64),
        ra=_numbers(candidates, "ra"),
        dec=_numbers(candidates, "dec"),
        mag=_numbers(candidates, "magpsf"),
        mag_err=_numbers(candidates, "sigmapsf"),
        is_positive=_signs(candidates),
        reliability=_numbers(candidates, "rb"),
        first_jd=_numbers(candidates, "jdstarthist"),
        mover_arcsec=np.where(np.isnan(distance) & is_told, np.inf, distance),
        neighbour_arcsec=_of_three(candidates, "distpsnr"),
        neighbour_score=_of_three(candidates, "sgscore"),
        neighbour_mag=_of_three(candidates, "srmag"),
    )


def _of_three(candidates: Records, name: str) -> Floats:
    return np.column_stack([_numbers(candidates, f"{name}{k}") for k in (1, 2, 3)])


def _detections(items: Records) -> tuple[Any, ...]:
    numbers = [_numbers(items, name) for name in ("ra", "dec", "magpsf", "sigmapsf")]
    return (_numbers(items, "jd"), _integers(items, "fid"), *numbers, _signs(items), _numbers(items, "rb"))


def _forced(items: Records, group: NDArray[np.intp]) -> ForcedFluxes:
    """Return the usable fluxes, brought to one zero point."""
    flux, error = _numbers(items, "forcediffimflux"), _numbers(items, "forcediffimfluxunc")
    scale = 10.0 ** (0.4 * (_ZERO_POINT - _numbers(items, "magzpsci")))
    is_clean = np.array([_BAD_PIXELS not in str(item.get("procstatus")).split(",") for item in items], dtype=bool)
    is_usable = is_clean & np.isfinite(flux * scale) & (flux > _LOST_FLUX) & (error > 0)
    fluxes = ForcedFluxes(group, _numbers(items, "jd"), _integers(items, "fid"), flux * scale, error * scale)
    return picked(fluxes, is_usable)


def _flat(lists: Iterable[Records | None]) -> tuple[list[dict[str, Any]], NDArray[np.intp]]:
    """Return the items of many lists one after the other, and from which list each is."""
    parts = [part or () for part in lists]
    group = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return [item for part in parts for item in part], group


def _numbers(records: Records, name: str) -> Floats:
    """Return a field as numbers, NaN where it is not known."""
    try:
        values = np.array([record.get(name) for record in records], dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise DataError(f"a packet's {name} is not a number: {problem}") from None
    values[values == UNKNOWN] = np.nan
    return values


def _integers(records: Records, name: str) -> NDArray[np.int64]:
    """Return a field that is always told as integers."""
    values = _numbers(records, name)
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def _signs(records: Records) -> Floats:
    """Return 1 for detections brighter than the reference, 0 for fainter ones, NaN where it is not told."""
    told = {"t": 1.0, "1": 1.0, True: 1.0, "f": 0.0, "0": 0.0, False: 0.0}
    return np.array([told.get(record.get("isdiffpos"), np.nan) for record in records], dtype=np.float64)


def _candid(item: dict[str, Any]) -> int:
    """Return the candid of an item; 0 for an upper limit."""
    return item.get("candid") or 0


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    """Return a candidate field as an Arrow column, NULL where it is not known."""
    try:
        if field.type == pa.float64():
            numbers = np.array(values, dtype=np.float64)
            return pa.array(numbers, mask=~np.isfinite(numbers) | (numbers == UNKNOWN))
        lost = UNKNOWN_NAME if field.type == pa.string() else UNKNOWN
        return pa.array([None if value == lost else value for value in values], field.type)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as problem:
        raise DataError(f"a packet's {field.name} is not of its kind ({field.type}): {problem}") from None


def _feature_column(values: Floats, feature: Feature) -> pa.Array:
    is_unknown = ~np.isfinite(values)
    if feature.kind == "number":
        return pa.array(values, mask=is_unknown)
    plain = np.where(is_unknown, 0.0, values)
    return pa.array(plain.astype(np.int64) if feature.kind == "integer" else plain != 0.0, mask=is_unknown)
