"""Questions to the detection store: what is near here, what is known of it, who looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Connection, Select, Table, column, func, select, values

from gueststar.algorithms.association.footprint import Circle, enclosing_circle, enlarged, overlaps
from gueststar.algorithms.association.sky_index import circle_ranges, index_ranges, separation_arcsec, unit_vectors
from gueststar.model.catalog import Catalog, Schema
from gueststar.model.columns import DIA_OBJECT, FORCED_SOURCE
from gueststar.model.detections import HISTORY_FORCED, HISTORY_SOURCE, NARROW_SOURCE, OBJECT_PART
from gueststar.model.visit import VISIT, VisitRecord, corner_arrays
from gueststar.store.catalog_rows import catalog_of
from gueststar.store.detection_tables import FORCED, OBJECTS, PARTS, SOURCES, VISITS

_CHUNK = 500


def objects_in_circle(connection: Connection, circle: Circle) -> Catalog:
    """Return the `DIA_OBJECT` rows in a circle."""
    query = _selected(OBJECTS, DIA_OBJECT)
    rows = _within_ranges(connection, query, OBJECTS, circle_ranges(circle.ra, circle.dec, circle.radius_arcsec))
    found = catalog_of(rows, DIA_OBJECT)
    centre = unit_vectors(circle.ra, circle.dec)
    distance = separation_arcsec(unit_vectors(found["ra"], found["dec"]), centre)
    return found.select(distance <= circle.radius_arcsec)


def parts_of(connection: Connection, object_ids: Sequence[int]) -> Catalog:
    """Return the `OBJECT_PART` rows of objects."""
    return _by_ids(connection, _selected(PARTS, OBJECT_PART), PARTS.c.dia_object_id, object_ids, OBJECT_PART)


def sources_near(
    connection: Connection,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    radius_arcsec: float,
    *,
    after: float,
    before: float,
) -> Catalog:
    """Return the `HISTORY_SOURCE` rows near positions of exposures that began between two MJDs."""
    query = _selected(SOURCES, HISTORY_SOURCE).where(SOURCES.c.mjd_start > after, SOURCES.c.mjd_start < before)
    return _near(connection, query, HISTORY_SOURCE, ra, dec, radius_arcsec)


def counts_near(
    connection: Connection, ra: NDArray[np.float64], dec: NDArray[np.float64], radius_arcsec: float, *, before: float
) -> Catalog:
    """Return the `NARROW_SOURCE` rows near positions of exposures that began before an MJD."""
    query = _selected(SOURCES, NARROW_SOURCE).where(SOURCES.c.mjd_start < before)
    return _near(connection, query, NARROW_SOURCE, ra, dec, radius_arcsec)


def visits_over(
    connection: Connection, record: VisitRecord, *, after_sequence: int = 0, margin_arcsec: float = 0.0
) -> Catalog:
    """Return the `VISIT` rows of committed images that overlap an image and a margin, itself left out."""
    corner_ra, corner_dec = enlarged(*record.corners, margin_arcsec)
    circle = enclosing_circle(corner_ra, corner_dec)
    widest = float(connection.execute(select(func.max(VISITS.c.radius_arcsec))).scalar() or 0.0)
    query = _selected(VISITS, VISIT).where(VISITS.c.sequence > after_sequence)
    ranges = circle_ranges(circle.ra, circle.dec, circle.radius_arcsec + widest)
    found = catalog_of(_within_ranges(connection, query, VISITS, ranges), VISIT)
    is_other = (found["visit"] != record.visit) | (found["detector"] != record.detector)
    if found.n_rows == 0:
        return found
    return found.select(is_other & overlaps(*corner_arrays(found), corner_ra, corner_dec))


def forced_of(connection: Connection, object_ids: Sequence[int], *, after: float, before: float) -> Catalog:
    """Return the `HISTORY_FORCED` rows of objects between two MJDs (middle of the exposure)."""
    is_its_visit = (FORCED.c.visit == VISITS.c.visit) & (FORCED.c.detector == VISITS.c.detector)
    columns = [FORCED.c[item.name] for item in FORCED_SOURCE.columns]
    query = select(*columns, VISITS.c.sequence).join_from(FORCED, VISITS, is_its_visit)
    query = query.where(FORCED.c.mjd_tai > after, FORCED.c.mjd_tai < before)
    return _by_ids(connection, query, FORCED.c.dia_object_id, object_ids, HISTORY_FORCED)


def _selected(table: Table, schema: Schema) -> Select[Any]:
    return select(*(table.c[item.name] for item in schema.columns))


def _near(
    connection: Connection,
    query: Select[Any],
    schema: Schema,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    radius: float,
) -> Catalog:
    if len(ra) == 0:
        return schema.empty()
    return catalog_of(_within_ranges(connection, query, SOURCES, index_ranges(ra, dec, radius)), schema)


def _within_ranges(
    connection: Connection, query: Select[Any], table: Table, ranges: list[tuple[int, int]]
) -> list[Any]:
    """Return the rows whose ``healpix_29`` lies in one of the ranges (one index search a range)."""
    rows: list[Any] = []
    for start in range(0, len(ranges), _CHUNK):
        wanted = values(column("first", BigInteger), column("last", BigInteger), name="wanted", literal_binds=True)
        part = wanted.data(ranges[start : start + _CHUNK]).cte("wanted")
        rows += connection.execute(query.join_from(part, table, table.c.healpix_29.between(part.c.first, part.c.last)))
    return rows


def _by_ids(connection: Connection, query: Select[Any], key: Any, ids: Sequence[int], schema: Schema) -> Catalog:
    rows: list[Any] = []
    for start in range(0, len(ids), _CHUNK):
        rows += connection.execute(query.where(key.in_([int(i) for i in ids[start : start + _CHUNK]])))
    return catalog_of(rows, schema)
