"""Small packets for archives: a schema of the ZTF family with a few fields, and what they say."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import fastavro

from gueststar.model.detections import OutboxAlert

NIGHT_JD = 2461041.6
"""In the evening of 2025-12-31 (UTC); the next night is a day later."""

_CANDIDATE = {
    "type": "record",
    "name": "candidate",
    "fields": [
        {"name": "candid", "type": "long"},
        {"name": "jd", "type": "double"},
        {"name": "fid", "type": "int"},
        {"name": "programid", "type": "int"},
        {"name": "ra", "type": "double"},
        {"name": "dec", "type": "double"},
        {"name": "magpsf", "type": "float"},
        {"name": "sigmapsf", "type": "float"},
        {"name": "isdiffpos", "type": "string"},
        {"name": "rb", "type": ["null", "float"]},
    ],
}
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "namespace": "ztf",
        "name": "alert",
        "fields": [
            {"name": "objectId", "type": "string"},
            {"name": "candid", "type": "long"},
            {"name": "candidate", "type": _CANDIDATE},
            {"name": "prv_candidates", "type": ["null", {"type": "array", "items": "candidate"}]},
            {"name": "cutoutScience", "type": ["null", "bytes"]},
        ],
    }
)
"""Of a survey whose packets say a part of what ZTF's do."""


def record(candid: int, *, program: int = 1, night: int = 0, **said: Any) -> dict[str, Any]:
    """Return a packet; ``night`` counts from the first one."""
    candidate = {
        "candid": candid, "jd": NIGHT_JD + night, "fid": 1, "programid": program, "ra": 10.0, "dec": -20.0,
        "magpsf": 18.0, "sigmapsf": 0.125, "isdiffpos": "t", "rb": 0.5,
    } | said  # fmt: skip
    return {
        "objectId": said.get("object_name", f"GST26{candid:07d}"), "candid": candid, "candidate": candidate,
        "prv_candidates": None, "cutoutScience": b"a picture" * 10,
    }  # fmt: skip


def container(records: Iterable[dict[str, Any]], *, codec: str = "null", schema: Any = SCHEMA) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records, codec=codec, sync_marker=b"0123456789abcdef")
    return buffer.getvalue()


def alert(candid: int, *, program: int = 1, night: int = 0, **said: Any) -> OutboxAlert:
    told = record(candid, program=program, night=night, **said)
    return OutboxAlert(candid, told["objectId"], 20260101 + night, program, container([told]))


def alerts(candids: Sequence[int], **said: Any) -> list[OutboxAlert]:
    return [alert(candid, **said) for candid in candids]
