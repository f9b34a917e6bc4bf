"""Packets of the least that a table needs, told by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gueststar.formats.avro import OWN_FIELDS, encode_alert, schema_texts
from gueststar.model.detections import OutboxAlert
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication, SentPacket

JD = 2461000.75
"""When the alert of a told packet was taken."""


def packet(candid: int = 1, *, past: list[dict[str, Any]] | None = None, forced: Any = None, **fields: Any) -> Any:
    """Return a packet with a candidate of 19 mag in r, and a history."""
    candidate = {
        "candid": candid, "jd": JD, "fid": 2, "ra": 10.0, "dec": 41.0, "magpsf": 19.0, "sigmapsf": 0.1,
        "isdiffpos": "t", "rb": 0.9, "ssdistnr": -999.0, "ssnamenr": "null", "programid": 1,
    }  # fmt: skip
    return {
        "objectId": f"GST25{'a' * 6}{'abcdefghij'[candid % 10]}", "candid": candid, "candidate": candidate | fields,
        "prv_candidates": past, "fp_hists": forced,
    }  # fmt: skip


def detection(days: float, mag: float = 19.0, *, candid: int = 99, **fields: Any) -> dict[str, Any]:
    """Return an earlier detection, ``days`` before the alert."""
    told = {"candid": candid, "jd": JD - days, "fid": 2, "ra": 10.0, "dec": 41.0, "magpsf": mag, "sigmapsf": 0.1}
    return told | {"isdiffpos": "t", "rb": 0.8} | fields


def limit(days: float, mag: float = 20.5) -> dict[str, Any]:
    """Return an earlier exposure without a detection."""
    return {"candid": None, "jd": JD - days, "fid": 2, "diffmaglim": mag}


def flux(days: float, value: float, error: float, *, procstatus: str = "0", **fields: Any) -> dict[str, Any]:
    """Return a forced flux."""
    told = {"jd": JD - days, "fid": 2, "forcediffimflux": value, "forcediffimfluxunc": error, "magzpsci": 26.0}
    return told | {"procstatus": procstatus} | fields


def encoded(told: dict[str, Any]) -> bytes:
    """Return a told packet as it lies in the log: fields that the test does not tell are empty."""
    empty = dict.fromkeys(("cutoutScience", "cutoutTemplate", "cutoutDifference", *OWN_FIELDS))
    whole = {"schemavsn": "4.02", "publisher": "test"} | empty | told
    whole["candidate"] = _filled("candidate", told["candidate"])
    whole["prv_candidates"] = [_filled("prv_candidate", item) for item in told["prv_candidates"] or ()] or None
    whole["fp_hists"] = [_filled("fp_hist", item) for item in told["fp_hists"] or ()] or None
    return encode_alert(whole)


def _filled(record: str, told: dict[str, Any]) -> dict[str, Any]:
    empty = {"string": "", "float": -999.0, "double": -999.0, "int": 0, "long": 0}
    fields = json.loads(schema_texts()[record])["fields"]
    return {f["name"]: told.get(f["name"], empty[f["type"]] if isinstance(f["type"], str) else None) for f in fields}


def put(
    root: Path, *told: dict[str, Any], night: int = 20251121, program: int = 1, sent: bool = True
) -> list[int]:  # fmt: skip
    """Put packets into the log of a survey as one detector image's, sent to the stream or not; return their candids."""
    log, state = AlertLog(root), Publication(root)
    log.append(OutboxAlert(p["candid"], p["objectId"], night, program, encoded(p)) for p in told)
    candids = [p["candid"] for p in told]
    if sent:
        mark(root, *candids)
    state.close()
    log.close()
    return candids


def mark(root: Path, *candids: int) -> None:
    """Mark alerts as sent to the main stream."""
    state = Publication(root)
    state.mark_sent([SentPacket(candid, "main", 0, candid) for candid in candids], time=1.0)
    state.close()
