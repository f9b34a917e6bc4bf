"""What packets of other surveys say they are: identifier, object, time, place, program, by a table of schema families.

The table is data (``packet_families.yaml``): a new survey is an entry in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastavro
import yaml

from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.formats.packets import Packet
from gueststar.model.rights import Program

_LARGEST_ID = 2**63 - 1
_EARLIEST_JD, _LATEST_JD = 2415020.5, 2488069.5
"""The years 1900 to 2100: a time outside of them is no time of an alert."""


@dataclass(frozen=True)
class PacketFamily:
    """Schemas of one survey whose packets say the same things in the same places; paths are tuples of field names."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    """A record that has all of these belongs to the family."""
    candid: tuple[str, ...]
    object_names: tuple[tuple[str, ...], ...]
    """The first that is neither null nor 0 names the object."""
    columns: str
    """Record whose fields can be searched."""
    history: str | None
    """List of earlier detections and upper limits."""
    forced: str | None
    """List of forced fluxes."""
    time: tuple[str, ...]
    time_zero_jd: float
    """Julian date of time 0."""
    is_tai: bool
    night_starts_h: float
    """Hours of UTC at which the night's number changes."""
    ra: tuple[str, ...]
    dec: tuple[str, ...]
    program: tuple[str, ...] | Program
    """Where packets tell their program, or the program of all."""
    leading: Mapping[int, Any]
    """Parsed schemas of a record's first fields, by the number of the whole schema."""


@dataclass(frozen=True)
class PacketIdentity:
    """What a packet says it is."""

    family: PacketFamily
    candid: int
    object_name: str
    jd: float
    """Julian date (UTC)."""
    day_obs: int
    """Night (YYYYMMDD), as its survey counts."""
    ra: float
    """Degrees, ICRS."""
    dec: float
    program: Program


@cache
def packet_families() -> tuple[PacketFamily, ...]:
    """Return the families that are known, the more particular first."""
    text = (resources.files("gueststar.formats") / "packet_families.yaml").read_text()
    return tuple(_family(name, told) for name, told in yaml.safe_load(text).items())


def leading_schemas() -> dict[int, Any]:
    """Return schemas of the first fields of records, by the numbers of the whole schemas."""
    return {number: schema for family in packet_families() for number, schema in family.leading.items()}


def identify(packet: Packet) -> PacketIdentity:
    """Return what a packet says it is; DataError names what is missing or impossible."""
    record = packet.record
    family = next((f for f in packet_families() if all(_has(record, path) for path in f.needs)), None)
    if family is None:
        known = ", ".join(family.name for family in packet_families())
        raise DataError(f"its fields are of no family that is known ({known}): {_shown(record)}")
    name = next((value for path in family.object_names if (value := _value(record, path))), None)
    if name is None:
        raise DataError(f"{'.'.join(family.object_names[0])} is {_value(record, family.object_names[0])!r}")
    jd_told = _number(record, family.time) + family.time_zero_jd
    if not _EARLIEST_JD < jd_told < _LATEST_JD:
        raise DataError(f"{'.'.join(family.time)} is {_value(record, family.time)}, no time of an alert")
    jd = times.jd_utc(jd_told - times.MJD_ZERO_JD) if family.is_tai else jd_told
    ra, dec = _number(record, family.ra), _number(record, family.dec)
    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise DataError(f"its place is RA {ra}, Dec {dec}, not on the sky")
    night = times.night_of_jd(jd, starts_h=family.night_starts_h)
    return PacketIdentity(
        family, _candid(record, family), str(name), jd, night, ra % 360.0, dec, _program(record, family)
    )


def _candid(record: Mapping[str, Any], family: PacketFamily) -> int:
    value = _value(record, family.candid)
    if not isinstance(value, int) or not 0 < value <= _LARGEST_ID:
        raise DataError(f"{'.'.join(family.candid)} is {value!r}, not an identifier")
    return value


def _program(record: Mapping[str, Any], family: PacketFamily) -> Program:
    if isinstance(family.program, Program):
        return family.program
    value = _value(record, family.program)
    if value not in (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE):
        raise DataError(f"{'.'.join(family.program)} is {value!r}, not 1, 2 or 3")
    return Program(int(value))


def _number(record: Mapping[str, Any], path: tuple[str, ...]) -> float:
    value = _value(record, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{'.'.join(path)} is {value!r}, not a number")
    return float(value)


def _value(record: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _has(record: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    value: Any = record
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _shown(record: Mapping[str, Any]) -> str:
    names = sorted(record)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _family(name: str, told: Mapping[str, Any]) -> PacketFamily:
    time, unit, scale = told["time"]
    program = told["program"]
    return PacketFamily(
        name=name,
        needs=tuple(_path(text) for text in told["needs"]),
        candid=_path(told["candid"]),
        object_names=tuple(_path(text) for text in told["object"]),
        columns=told["columns"],
        history=told.get("history"),
        forced=told.get("forced"),
        time=_path(time),
        time_zero_jd={"jd": 0.0, "mjd": times.MJD_ZERO_JD}[unit],
        is_tai={"utc": False, "tai": True}[scale],
        night_starts_h=float(told["night_starts_h"]),
        ra=_path(told["ra"]),
        dec=_path(told["dec"]),
        program=Program(program) if isinstance(program, int) else _path(program),
        leading={
            number: fastavro.parse_schema(_leading(f"{name}.leading", entry["fields"]), named_schemas={})
            for entry in told.get("leading", ())
            for number in entry["numbers"]
        },
    )


def _leading(name: str, fields: list[Any]) -> dict[str, Any]:
    """Return the Avro schema of a record that is told as a list of ``name type`` and of records."""
    told: list[dict[str, Any]] = []
    for entry in fields:
        if isinstance(entry, Mapping):
            ((inner, parts),) = entry.items()
            told.append({"name": inner, "type": _leading(f"{name}.{inner}_part", parts)})
        else:
            field, kind = entry.split()
            told.append({"name": field, "type": ["null", kind[:-1]] if kind.endswith("?") else kind})
    return {"type": "record", "name": name, "fields": told}


def _path(text: str) -> tuple[str, ...]:
    return tuple(text.split("."))
