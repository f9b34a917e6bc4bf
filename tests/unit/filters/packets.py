"""Packets of the least that a table needs, told by the test."""

from __future__ import annotations

from typing import Any

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
