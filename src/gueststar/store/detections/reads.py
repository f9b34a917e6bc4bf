"""Questions to the detection store: what is near here, what is known of it, who looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, Table, func, select

from gueststar.algorithms.association.footprint import Circle, enclosing_circle, enlarged, overlaps
from gueststar.algorithms.association.match import nearest
from gueststar.algorithms.association.sky_index import circle_ranges, index_ranges, separation_arcsec, unit_vectors
from gueststar.formats.depth_map import decode_depth
from gueststar.model.catalog import Catalog, Schema
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.depth import DepthMap
from gueststar.model.detections import COMMITTED_VISIT, HISTORY_SOURCE, KNOWN_OBJECT, NARROW_SOURCE, OBJECT_PART
from gueststar.model.visit import VISIT, VisitRecord, corner_arrays
from gueststar.store.detections.bulk import wanted_numbers, wanted_ranges
from gueststar.store.detections.catalog_rows import catalog_of
from gueststar.store.detections.tables import DEPTHS, OBJECTS, PARTS, SOURCES, VISITS


def objects_in_circle(connection: Connection, circle: Circle, *, after_sequence: int = -1) -> Catalog:
    """Return the `KNOWN_OBJECT` rows in a circle that commits after a number have changed."""
    query = _selected(OBJECTS, KNOWN_OBJECT)
    if after_sequence >= 0:
        query = query.where(OBJECTS.c.sequence > after_sequence)
    rows = _within_ranges(connection, query, OBJECTS, circle_ranges(circle.ra, circle.dec, circle.radius_arcsec))
    found = catalog_of(rows, KNOWN_OBJECT)
    centre = unit_vectors(circle.ra, circle.dec)
    distance = separation_arcsec(unit_vectors(found["ra"], found["dec"]), centre)
    return found.select(distance <= circle.radius_arcsec)


def parts_of(connection: Connection, object_ids: Sequence[int] | NDArray[np.int64]) -> Catalog:
    """Return the `OBJECT_PART` rows of objects."""
    return _by_ids(connection, _selected(PARTS, OBJECT_PART), PARTS, PARTS.c.dia_object_id, object_ids, OBJECT_PART)


def name_numbers_of(connection: Connection, object_ids: Sequence[int] | NDArray[np.int64]) -> dict[int, int]:
    """Return the number in the name of each of these objects that is stored."""
    wanted = wanted_numbers(connection, object_ids)
    query = select(OBJECTS.c.dia_object_id, OBJECTS.c.name_number)
    query = query.join_from(wanted, OBJECTS, OBJECTS.c.dia_object_id == wanted.c.number)
    return {int(i): int(number) for i, number in connection.execute(query)}


def sources_before(
    connection: Connection, ra: NDArray[np.float64], dec: NDArray[np.float64], radius_arcsec: float, *, before: float
) -> Catalog:
    """Return the `NARROW_SOURCE` rows within a radius of positions, of exposures that began before an MJD."""
    if len(ra) == 0:
        return NARROW_SOURCE.empty()
    query = _selected(SOURCES, NARROW_SOURCE).where(SOURCES.c.mjd_start < before)
    found = catalog_of(_within_ranges(connection, query, SOURCES, index_ranges(ra, dec, radius_arcsec)), NARROW_SOURCE)
    _, distance = nearest(found["ra"], found["dec"], ra, dec, k=1, max_arcsec=radius_arcsec)
    return found.select(np.isfinite(distance[:, 0]))


def sources_of(connection: Connection, dia_source_ids: NDArray[np.int64]) -> Catalog:
    """Return the `HISTORY_SOURCE` rows of detections, by number."""
    query, key = _selected(SOURCES, HISTORY_SOURCE), SOURCES.c.dia_source_id
    found = _by_ids(connection, query, SOURCES, key, dia_source_ids, HISTORY_SOURCE)
    return found.select(np.argsort(found["dia_source_id"], kind="stable"))


def visits_over(
    connection: Connection, record: VisitRecord, *, margin_arcsec: float = 0.0, after_mjd: float | None = None
) -> Catalog:
    """Return the `VISIT` rows of committed images that overlap an image and a margin, itself left out."""
    found = visits_in(connection, enlarged(*record.corners, margin_arcsec), after_mjd=after_mjd)
    return found.select((found["visit"] != record.visit) | (found["detector"] != record.detector))


def visits_in(
    connection: Connection, corners: tuple[NDArray[np.float64], NDArray[np.float64]], *, after_mjd: float | None = None
) -> Catalog:
    """Return the `VISIT` rows of committed images, begun after an MJD if given, that overlap an area."""
    circle = enclosing_circle(*corners)
    widest = float(connection.execute(select(func.max(VISITS.c.radius_arcsec))).scalar() or 0.0)
    query = _selected(VISITS, VISIT)
    if after_mjd is not None:
        query = query.where(VISITS.c.mjd_start > after_mjd)
    ranges = circle_ranges(circle.ra, circle.dec, circle.radius_arcsec + widest)
    found = catalog_of(_within_ranges(connection, query, VISITS, ranges), VISIT)
    return found.select(overlaps(*corner_arrays(found), *corners)) if found.n_rows else found


def visits_since(connection: Connection, sequence: int) -> Catalog:
    """Return the `VISIT` rows of all images that were committed after a number."""
    query = _selected(VISITS, VISIT).where(VISITS.c.sequence > sequence).order_by(VISITS.c.sequence)
    return catalog_of(connection.execute(query).all(), VISIT)


def sources_of_visit(connection: Connection, visit: int, detectors: Sequence[int]) -> Catalog:
    """Return the `DIA_SOURCE` rows with an object on some detectors of one exposure."""
    query = _selected(SOURCES, DIA_SOURCE).where(SOURCES.c.visit == visit, SOURCES.c.detector.in_(list(detectors)))
    return catalog_of(connection.execute(query.where(SOURCES.c.dia_object_id != 0)).all(), DIA_SOURCE)


def founded_on(connection: Connection, day_obs: int) -> tuple[Catalog, Catalog]:
    """Return the images of a night by commit (`COMMITTED_VISIT` rows) and the `OBJECT_PART` rows that they began."""
    query = _selected(VISITS, COMMITTED_VISIT).where(VISITS.c.day_obs == day_obs).order_by(VISITS.c.sequence)
    images = catalog_of(connection.execute(query).all(), COMMITTED_VISIT)
    if images.n_rows == 0:
        return images, OBJECT_PART.empty()
    first, last = int(images["sequence"].min()), int(images["sequence"].max())
    parts = _selected(PARTS, OBJECT_PART).where(PARTS.c.first_sequence.between(first, last))
    found = catalog_of(connection.execute(parts).all(), OBJECT_PART)
    return images, found.select(np.isin(found["first_sequence"], images["sequence"]))


def sequences_of(connection: Connection, visits: NDArray[np.int64]) -> dict[tuple[int, int], int]:
    """Return the number of the commit of each image (visit, detector) of some visits."""
    wanted = wanted_numbers(connection, np.unique(visits))
    query = select(VISITS.c.visit, VISITS.c.detector, VISITS.c.sequence)
    query = query.join_from(wanted, VISITS, VISITS.c.visit == wanted.c.number)
    return {(int(v), int(d)): int(s) for v, d, s in connection.execute(query)}


def objects_of(connection: Connection, object_ids: Sequence[int] | NDArray[np.int64]) -> Catalog:
    """Return the `KNOWN_OBJECT` rows of objects, by number."""
    key = OBJECTS.c.dia_object_id
    found = _by_ids(connection, _selected(OBJECTS, KNOWN_OBJECT), OBJECTS, key, object_ids, KNOWN_OBJECT)
    return found.select(np.argsort(found["dia_object_id"], kind="stable"))


def object_with_number(connection: Connection, name_number: int) -> int | None:
    """Return the object whose name has this number; None if there is none."""
    found = connection.execute(select(OBJECTS.c.dia_object_id).where(OBJECTS.c.name_number == name_number)).scalar()
    return None if found is None else int(found)


def depths_of(connection: Connection, images: set[tuple[int, int]]) -> dict[tuple[int, int], DepthMap]:
    """Return the maps of limiting magnitudes of images (visit, detector), where they are known."""
    wanted = wanted_numbers(connection, sorted({visit for visit, _ in images}))
    query = select(DEPTHS).join_from(wanted, DEPTHS, DEPTHS.c.visit == wanted.c.number)
    rows = connection.execute(query)
    return {(r.visit, r.detector): decode_depth(bytes(r.payload)) for r in rows if (r.visit, r.detector) in images}


def _selected(table: Table, schema: Schema) -> Select[Any]:
    return select(*(table.c[item.name] for item in schema.columns))


def _within_ranges(
    connection: Connection, query: Select[Any], table: Table, ranges: list[tuple[int, int]]
) -> list[Any]:
    """Return the rows whose ``healpix_29`` lies in one of the ranges (one index search a range)."""
    if not ranges:
        return []
    wanted = wanted_ranges(connection, ranges)
    is_within = table.c.healpix_29.between(wanted.c.first, wanted.c.last)
    return list(connection.execute(query.join_from(wanted, table, is_within)).all())


def _by_ids(
    connection: Connection, query: Select[Any], table: Table, key: Any, ids: Sequence[int] | NDArray[np.int64],
    schema: Schema,
) -> Catalog:  # fmt: skip
    if len(ids) == 0:
        return schema.empty()
    wanted = wanted_numbers(connection, ids)
    return catalog_of(connection.execute(query.join_from(wanted, table, key == wanted.c.number)).all(), schema)
