"""Lists of exposures, planned (schedules) or taken (observing logs), as CSV, ECSV or JSON.

Columns are known by the names that observatories use for them (`COLUMNS`); letter case, spaces, dashes and
underscores do not count. What else stands in a list is left alone.
"""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gueststar.core.errors import DataError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "time": (
        "time", "time_utc", "utc", "ut", "date_obs", "dateobs", "obsdate", "obs_date", "datetime", "date_time", "start",
        "start_time", "time_start", "obs_start", "t_start", "date",
    ),
    "mjd": ("mjd", "mjd_utc", "mjd_start", "obsmjd", "mjd_obs", "expmjd", "t_min"),
    "mjd_tai": ("mjd_tai", "mjd_start_tai", "tai", "observation_start_mjd"),
    "jd": ("jd", "jd_utc", "jd_start", "obsjd"),
    "night": ("night", "day_obs", "dayobs", "obsnight", "obs_night"),
    "exposure_id": (
        "exposure_id", "exposure", "expid", "exp_id", "id", "visit", "visit_id", "obsid", "obs_id", "observation_id",
    ),
    "field": ("field", "field_id", "fieldid", "field_number"),
    "ra": ("ra", "ra_deg", "radeg", "field_ra", "right_ascension", "s_ra"),
    "dec": ("dec", "dec_deg", "decdeg", "decl", "field_dec", "declination", "s_dec"),
    "filter": ("filter", "filt", "physical_filter", "filter_name", "filtercode", "band"),
    "exposure_s": ("exposure_s", "exptime", "exposure_time", "exp_time", "texp", "t_exptime", "visit_exposure_time"),
    "program": ("program", "programid", "program_id", "programme", "propid", "prop_id"),
    "type": ("type", "observation_type", "obstype", "obs_type", "imagetyp", "image_type", "imtype"),
}  # fmt: skip
"""What a column means -> names it goes by, the surest first."""


@dataclass(frozen=True)
class ListedExposure:
    """One entry of a list, as written."""

    where: str
    """Which one, for messages: line 12, entry 3."""
    values: dict[str, Any]
    """Meaning of the column (a key of `COLUMNS`) -> text or number; what is empty is left out."""


@dataclass(frozen=True)
class ExposureListFile:
    """What a file holds."""

    entries: tuple[ListedExposure, ...]
    names: dict[str, str]
    """Meaning -> the column's name in the file."""
    ignored: tuple[str, ...]
    """Columns whose meaning is not known."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a JSON file says beside its entries: night, source."""


def read_exposure_list(path: Path) -> ExposureListFile:
    """Read a list; DataError that names file and line where it cannot be read."""
    suffix = path.suffix.lower()
    readers = {".csv": _read_csv, ".ecsv": _read_ecsv, ".json": _read_json}
    if suffix not in readers:
        raise DataError(f"{path}: a list of exposures is a .csv, .ecsv or .json file")
    try:
        return readers[suffix](path)
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: byte {problem.start} is no UTF-8 text") from None


def is_exposure_list(path: Path) -> bool:
    """Return whether a file is named as lists are."""
    return path.suffix.lower() in (".csv", ".ecsv", ".json") and not path.name.startswith(".")


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.strip().lower())


def _meanings(path: Path, names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return meaning -> column and the columns without one; DataError where nothing tells when or what."""
    given = {_plain(name): name for name in reversed(names)}
    found = {}
    for meaning, aliases in COLUMNS.items():
        column = next((given[_plain(alias)] for alias in aliases if _plain(alias) in given), None)
        if column is not None:
            found[meaning] = column
    if not found.keys() & {"time", "mjd", "mjd_tai", "jd", "night", "exposure_id"}:
        raise DataError(
            f"{path}: no column tells when ({', '.join(COLUMNS['time'][:6])}, mjd, jd, night);"
            f" it has {', '.join(names)}"
        )
    return found, tuple(name for name in names if name not in found.values())


def _entry(where: str, row: Mapping[str, Any], names: Mapping[str, str]) -> ListedExposure:
    values = {meaning: row.get(column) for meaning, column in names.items()}
    kept = {key: value.strip() if isinstance(value, str) else value for key, value in values.items()}
    return ListedExposure(where, {key: value for key, value in kept.items() if not _is_empty(value)})


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("", "nan", "none", "null", "--", "n/a")
    return value is None or value != value


def _read_csv(path: Path) -> ExposureListFile:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [(number, line) for number, line in enumerate(file, start=1)]
    told = [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not told:
        raise DataError(f"{path} holds no exposures")
    delimiter = max(",;\t|", key=told[0][1].count)
    rows = list(csv.reader((line for _, line in told), delimiter=delimiter, skipinitialspace=True))
    header = [name.strip() for name in rows[0]]
    names, ignored = _meanings(path, header)
    entries = []
    for (number, _), row in zip(told[1:], rows[1:], strict=False):
        if len(row) != len(header):
            raise DataError(f"{path} line {number}: {len(row)} values, and {len(header)} columns")
        entries.append(_entry(f"line {number}", dict(zip(header, row, strict=True)), names))
    return ExposureListFile(tuple(entries), names, ignored)


def _read_ecsv(path: Path) -> ExposureListFile:
    from astropy.table import Table
    from astropy.units import UnitConversionError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(path, format="ascii.ecsv")
    except (ValueError, TypeError, KeyError, IndexError) as problem:
        raise DataError(f"{path} is no ECSV table: {' '.join(str(problem).split())[:200]}") from None
    names, ignored = _meanings(path, list(table.colnames))
    columns: dict[str, list[Any]] = {}
    for meaning, name in names.items():
        try:
            columns[name] = _as_list(table[name], _UNITS.get(meaning))
        except UnitConversionError as problem:
            raise DataError(f"{path}, column {name}: {problem}") from None
    with path.open(encoding="utf-8") as file:
        lines = [number for number, line in enumerate(file, start=1) if line.strip() and not line.startswith("#")]
    entries = [
        _entry(f"line {number}", {name: values[row] for name, values in columns.items()}, names)
        for row, number in zip(range(len(table)), lines[1:], strict=False)
    ]
    return ExposureListFile(tuple(entries), names, ignored, {str(k).lower(): v for k, v in table.meta.items()})


_UNITS = {"ra": "deg", "dec": "deg", "exposure_s": "s", "mjd": "d", "mjd_tai": "d", "jd": "d"}


def _as_list(column: Any, unit: str | None) -> list[Any]:
    """Return a column as plain values, in the unit that its meaning has here; times as ISO texts in UTC."""
    from astropy.time import Time

    if isinstance(column, Time):
        return [str(value) for value in column.utc.isot]
    if unit is not None and getattr(column, "unit", None) is not None:
        from astropy.units import Quantity

        return [float(value) for value in Quantity(column).to_value(unit)]
    return [None if value is None else value for value in column.tolist()]


def _read_json(path: Path) -> ExposureListFile:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as problem:
        raise DataError(f"{path} line {problem.lineno}: {problem.msg}") from None
    facts: dict[str, Any] = {}
    if isinstance(told, dict):
        lists = [name for name, value in told.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path} must hold one list of exposures; it has {len(lists)}: {', '.join(lists) or 'none'}"
            )
        facts = {str(name).lower(): value for name, value in told.items() if name != lists[0]}
        told = told[lists[0]]
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise DataError(f'{path} is no list of exposures: each must be an object such as {{"time": ..., "field": ...}}')
    if not told:
        raise DataError(f"{path} holds no exposures")
    columns = list(dict.fromkeys(str(name) for row in told for name in row))
    names, ignored = _meanings(path, [*columns, *(name for name in ("night",) if "night" in facts)])
    entries = tuple(_entry(f"entry {number}", {**facts, **row}, names) for number, row in enumerate(told, start=1))
    return ExposureListFile(entries, names, ignored, facts)
