"""Orbits of known Solar-System bodies from the files in which they are given away.

Understood are MPCORB.DAT of the Minor Planet Center, replies of JPL's Small-Body Database (SBDB) query service (JSON),
tables with SBDB's column names (CSV, Parquet, FITS, ECSV) and the asteroids of our own simulations; gzip or not.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.named_table import read_named_table
from gueststar.model.catalog import Catalog
from gueststar.model.orbit_columns import ORBIT

_COLUMNS: dict[str, tuple[str, ...]] = {
    "title": ("full_name", "name", "designation", "pdes"),
    "a": ("a",), "e": ("e",), "inclination": ("i", "inclination"), "node": ("om", "node"),
    "perihelion": ("w", "peri", "perihelion"), "mean_anomaly": ("ma", "mean_anomaly"),
    "epoch_mjd": ("epoch_mjd", "epoch"), "absolute_magnitude": ("H", "absolute_magnitude"), "slope": ("G",),
}  # fmt: skip
"""Our column -> names it has in tables; ``epoch`` is a Julian date where it is above a million."""
_ELEMENTS = ("a", "e", "inclination", "node", "perihelion", "mean_anomaly", "epoch_mjd")
_JD_OFFSET = 2400000.5
_GZIP = b"\x1f\x8b"
_ROWS_START = re.compile(rb"^-{80,}\s*$", re.MULTILINE)
_NUMBERED = re.compile(r"\(?(\d+)\)?(?:\s+\D.*)?$")
_IN_BRACKETS = re.compile(r"^\((\D.*|.*\s.*)\)$")
_PROVISIONAL = re.compile(r"^\d{4} (?:[A-Z]{2}\d*|P-L|T-[123])$")
_MJD_ZERO = date(1858, 11, 17)
_SLOPE = 0.15


@dataclass(frozen=True)
class OrbitReading:
    """Orbits, and how many rows were none."""

    catalog: Catalog
    """`ORBIT` rows."""
    n_left_out: int
    """Rows without a complete elliptic orbit (comets on parabolas among them)."""


def read_orbits(path: str | Path) -> OrbitReading:
    """Return the orbits of a file; raises DataError if none of the formats is recognised or no orbit is complete."""
    path = Path(path)
    try:
        content = path.read_bytes()
        plain = gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError) as problem:
        raise DataError(f"{path} cannot be read: {problem}") from problem
    if plain.lstrip()[:1] == b"{":
        columns = _from_sbdb(plain, path)
    elif _is_mpcorb(plain):
        columns = _from_mpcorb(plain)
    else:
        columns = _from_table(path)
    return _reading(columns, path)


def _from_sbdb(content: bytes, path: Path) -> dict[str, list[Any]]:
    try:
        document = json.loads(content)
        fields, rows = list(document["fields"]), document["data"]
        return _chosen({name: [row[k] for row in rows] for k, name in enumerate(fields)}, path)
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        raise DataError(f"{path} is not a reply of the SBDB query service with orbital elements: {problem}") from None


def _from_table(path: Path) -> dict[str, list[Any]]:
    table = read_named_table(path)
    return _chosen({name: values.tolist() for name, values in table.columns.items()}, path)


def _chosen(table: Mapping[str, Sequence[Any]], path: Path) -> dict[str, list[Any]]:
    """Return our columns of a table that has some of the known names."""
    chosen = {ours: next((n for n in names if n in table), None) for ours, names in _COLUMNS.items()}
    if missing := [ours for ours in ("title", *_ELEMENTS) if chosen[ours] is None]:
        wanted = " or ".join(_COLUMNS[missing[0]])
        raise DataError(f"{path} has no column {wanted}; it has {', '.join(list(table)[:20])}")
    n = len(next(iter(table.values()))) if table else 0
    return {ours: list(table[name]) if name is not None else [None] * n for ours, name in chosen.items()}


def _is_mpcorb(content: bytes) -> bool:
    """Return whether lines look like MPCORB's: an eccentricity and a semi-major axis at their places."""
    lines = _lines_of(content)
    first = next((line for line in lines if len(line) > 103), b"")
    return bool(re.fullmatch(rb"\s*0\.\d+\s*", first[70:79])) and bool(re.fullmatch(rb"\s*\d+\.\d+\s*", first[92:103]))


def _lines_of(content: bytes) -> Iterator[bytes]:
    head = _ROWS_START.search(content[:100_000])
    yield from content[head.end() if head else 0 :].splitlines()


def _from_mpcorb(content: bytes) -> dict[str, list[Any]]:
    """Return the columns of MPCORB lines (format: minorplanetcenter.net/iau/info/MPOrbitFormat.html)."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    places = {
        "absolute_magnitude": (8, 13), "slope": (14, 19), "mean_anomaly": (26, 35), "perihelion": (37, 46),
        "node": (48, 57), "inclination": (59, 68), "e": (70, 79), "a": (92, 103),
    }  # fmt: skip
    for raw in _lines_of(content):
        if len(raw) <= 103:
            continue
        line = raw.decode("ascii", "replace")
        for name, (first, last) in places.items():
            columns[name].append(line[first:last].strip() or None)
        columns["epoch_mjd"].append(_packed_date(line[20:25]))
        columns["title"].append(line[166:194].strip() or line[:7].strip())
    return columns


def _packed_date(text: str) -> float | None:
    """Return the MJD of a packed date such as K2555 (2025-05-05); None if it is none."""
    try:
        year = 100 * int(text[0], 36) + int(text[1:3])
        return float((date(year, int(text[3], 36), int(text[4], 36)) - _MJD_ZERO).days)
    except (ValueError, IndexError):
        return None


def _reading(columns: Mapping[str, list[Any]], path: Path) -> OrbitReading:
    values = {name: _numbers(columns[name]) for name in (*_ELEMENTS, "absolute_magnitude", "slope")}
    values["epoch_mjd"] = np.where(values["epoch_mjd"] > 1e6, values["epoch_mjd"] - _JD_OFFSET, values["epoch_mjd"])
    values["slope"] = np.where(np.isfinite(values["slope"]), values["slope"], _SLOPE)
    is_whole = np.all([np.isfinite(values[name]) for name in _ELEMENTS], axis=0)
    with np.errstate(invalid="ignore"):
        is_good = is_whole & (values["e"] >= 0.0) & (values["e"] < 1.0) & (values["a"] > 0.0)
    if not is_good.any():
        raise DataError(f"{path} holds no complete elliptic orbit")
    titles = np.array([" ".join(str(title).split()) for title in columns["title"]])[is_good]
    kept = {name: array[is_good] for name, array in values.items()}
    catalog = ORBIT.catalog({"name": np.array([short_name(t) for t in titles]), "title": titles, **kept})
    return OrbitReading(catalog, int(np.count_nonzero(~is_good)))


def _numbers(values: Iterable[Any]) -> NDArray[np.float64]:
    """Return numbers, NaN for what is none."""

    def number(value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            return float("nan")

    return np.array([number(value) for value in values], dtype=np.float64)


def short_name(title: str) -> str:
    """Return how alerts name a body: its number, else its provisional designation without spaces.

    ``433 Eros (A898 PA)`` is 433, ``(2020 KY11)`` 2020KY11, ``1P/Halley`` stays.
    """
    if found := _IN_BRACKETS.match(title):
        title = found.group(1)
    if not _PROVISIONAL.match(title) and (found := _NUMBERED.match(title)):
        return found.group(1)
    return title.partition(" (")[0].replace(" ", "")
