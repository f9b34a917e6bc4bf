"""The one transaction that makes a visit's detections, objects and alerts permanent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, delete, select, update

from gueststar.algorithms.association.footprint import enclosing_circle
from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core import times
from gueststar.core.errors import DataError, TransientError
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.detections import CommitReceipt, VisitCommit
from gueststar.model.visit import VisitRecord
from gueststar.store.catalog_rows import rows_of
from gueststar.store.detection_reads import parts_of, visits_over
from gueststar.store.detection_tables import FORCED, OBJECTS, OUTBOX, PARTS, SOURCES, STATE, VISITS
from gueststar.store.object_sums import merged_parts, object_rows, parts_from

_SUMMED = ("ra", "dec", "ra_err", "dec_err", "mjd_tai", "program")


def receipt_of(connection: Connection, visit: int, detector: int) -> CommitReceipt | None:
    """Return what an earlier commit of this image made permanent; None if there was none."""
    row = connection.execute(select(VISITS).where(VISITS.c.visit == visit, VISITS.c.detector == detector)).first()
    if row is None:
        return None
    return CommitReceipt(
        visit, detector, row.sequence, row.n_dia_sources, row.n_new_objects, row.n_alerts, row.is_late, is_new=False
    )


def commit(connection: Connection, change: VisitCommit) -> CommitReceipt:
    """Write a visit within the transaction that is open on ``connection``; a repeated one changes nothing.

    Raises TransientError if the working set is no longer what it was, DataError if rows do not belong to
    the visit.
    """
    record = change.record
    sequence = int(connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()) + 1
    if known := receipt_of(connection, record.visit, record.detector):
        return known
    _check(change)
    if change.base_sequence is not None:
        newer = visits_over(connection, record, after_sequence=change.base_sequence).n_rows
        if newer:
            raise TransientError(f"visit {record.visit} detector {record.detector}: {newer} overlapping images were committed since its objects were read; associate again")  # fmt: skip  # noqa: E501
    earlier = visits_over(connection, record)
    is_late = bool(np.any(earlier["mjd_start"] > record.mjd_start))
    connection.execute(update(STATE).values(last_sequence=sequence))
    _insert_sources(connection, change)
    n_new = _add_to_objects(connection, change, sequence)
    if change.forced is not None and change.forced.n_rows:
        connection.execute(FORCED.insert(), rows_of(change.forced))
    n_alerts = _insert_alerts(connection, change, sequence)
    counts = {"n_dia_sources": change.dia_sources.n_rows, "n_new_objects": n_new, "n_alerts": n_alerts}
    _insert_visit(connection, record, sequence=sequence, is_late=is_late, **counts)
    return CommitReceipt(record.visit, record.detector, sequence, is_late=is_late, is_new=True, **counts)


def withdraw(connection: Connection, visit: int, detector: int) -> int:
    """Take a committed image out again, objects recomputed without it; return its number of detections.

    Alerts that were put into the outbox stay as they are: what was sent cannot be unsent, and the same
    candid is never sent twice.
    """
    connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()
    here = (SOURCES.c.visit == visit) & (SOURCES.c.detector == detector)
    objects = connection.execute(select(SOURCES.c.dia_object_id).where(here, SOURCES.c.dia_object_id != 0)).scalars()
    object_ids = sorted({int(i) for i in objects})
    removed = connection.execute(delete(SOURCES).where(here)).rowcount
    connection.execute(delete(FORCED).where(FORCED.c.visit == visit, FORCED.c.detector == detector))
    connection.execute(delete(VISITS).where(VISITS.c.visit == visit, VISITS.c.detector == detector))
    for object_id in object_ids:
        _recompute_object(connection, object_id)
    return int(removed)


def _check(change: VisitCommit) -> None:
    sources, record = change.dia_sources, change.record
    if np.any(sources["visit"] != record.visit) or np.any(sources["detector"] != record.detector):
        raise DataError(f"visit {record.visit} detector {record.detector}: dia_sources of another image among its own")
    if np.any(sources["program"] != record.program):
        raise DataError(f"visit {record.visit} detector {record.detector}: dia_sources of another program than {record.program}")  # fmt: skip  # noqa: E501
    if np.any(sources["dia_source_id"] <= 0) or np.unique(sources["dia_source_id"]).size != sources.n_rows:
        raise DataError(f"visit {record.visit} detector {record.detector}: dia_source_id must be positive and unique")


def _insert_visit(connection: Connection, record: VisitRecord, **facts: Any) -> None:
    circle = enclosing_circle(*record.corners)
    place = {"healpix_29": int(healpix_29(circle.ra, circle.dec)[0]), "radius_arcsec": circle.radius_arcsec}
    connection.execute(VISITS.insert(), [asdict(record) | place | facts])


def _insert_sources(connection: Connection, change: VisitCommit) -> None:
    sources, record = change.dia_sources, change.record
    if sources.n_rows == 0:
        return
    unknown = np.full(sources.n_rows, np.nan)
    reference_ra, reference_dec = change.reference_positions or (unknown, unknown)
    n = sources.n_rows
    extended = Catalog(
        dict(sources)
        | {
            "mjd_start": np.full(n, record.mjd_start), "day_obs": np.full(n, record.day_obs),
            "reference_ra": reference_ra, "reference_dec": reference_dec,
            "field": np.full(n, record.field), "rcid": np.full(n, record.rcid),
            "healpix_29": healpix_29(sources["ra"], sources["dec"]),
        }
    )  # fmt: skip
    connection.execute(SOURCES.insert(), rows_of(extended))


def _insert_alerts(connection: Connection, change: VisitCommit, sequence: int) -> int:
    if not change.alerts:
        return 0
    wanted = [alert.candid for alert in change.alerts]
    known = set(connection.execute(select(OUTBOX.c.candid).where(OUTBOX.c.candid.in_(wanted))).scalars())
    where = {"sequence": sequence, "visit": change.record.visit, "detector": change.record.detector}
    rows = [asdict(alert) | where | {"is_sent": False} for alert in change.alerts if alert.candid not in known]
    if rows:
        connection.execute(OUTBOX.insert(), rows)
    return len(rows)


def _add_to_objects(connection: Connection, change: VisitCommit, sequence: int) -> int:
    """Add the visit's detections to their objects; return how many objects are new."""
    sources = change.dia_sources.select(change.dia_sources["dia_object_id"] != 0)
    if sources.n_rows == 0:
        return 0
    object_ids, group = np.unique(sources["dia_object_id"], return_inverse=True)
    wanted = [int(i) for i in object_ids]
    known = set(
        connection.execute(select(OBJECTS.c.dia_object_id).where(OBJECTS.c.dia_object_id.in_(wanted))).scalars()
    )
    if missing := [i for i in wanted if i not in known and i not in change.name_numbers]:
        raise DataError(f"visit {change.record.visit}: new objects without a name number: {missing[:3]}")
    added = parts_from(sources, object_ids, group, first=(sequence, _year(change.record)))
    parts = merged_parts(parts_of(connection, wanted), added)
    _replace_parts(connection, wanted, parts)
    rows = object_rows(parts)
    fresh = [row | {"name_number": change.name_numbers[i]} for i, row in rows.items() if i not in known]
    _update_objects(connection, [row for i, row in rows.items() if i in known])
    if fresh:
        connection.execute(OBJECTS.insert(), fresh)
    return len(fresh)


def _recompute_object(connection: Connection, object_id: int) -> None:
    """Sum an object up again from the detections that are left; remove it if there are none."""
    rows = connection.execute(
        select(*(SOURCES.c[name] for name in _SUMMED)).where(SOURCES.c.dia_object_id == object_id)
    ).all()
    if not rows:
        for table in (FORCED, PARTS, OBJECTS):
            connection.execute(delete(table).where(table.c.dia_object_id == object_id))
        return
    left = Catalog({name: np.array(values) for name, values in zip(_SUMMED, zip(*rows, strict=True), strict=True)})
    before = parts_of(connection, [object_id])
    firsts = zip(before["first_sequence"].tolist(), before["named_year"].tolist(), strict=True)
    first_of = dict(zip(before["program"].tolist(), firsts, strict=True))
    parts = [
        parts_from(mine, np.array([object_id]), np.zeros(mine.n_rows, dtype=np.intp), first=first_of[program])
        for program in np.unique(left["program"]).tolist()
        for mine in [left.select(left["program"] == program)]
    ]
    merged = concatenate(parts)
    _replace_parts(connection, [object_id], merged)
    _update_objects(connection, list(object_rows(merged).values()))


def _replace_parts(connection: Connection, object_ids: list[int], parts: Catalog) -> None:
    connection.execute(delete(PARTS).where(PARTS.c.dia_object_id.in_(object_ids)))
    connection.execute(PARTS.insert(), rows_of(parts))


def _update_objects(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    names = [name for name in rows[0] if name != "dia_object_id"]
    statement = update(OBJECTS).where(OBJECTS.c.dia_object_id == bindparam("which"))
    statement = statement.values({name: bindparam(f"new_{name}") for name in names})
    parameters = [{"which": row["dia_object_id"]} | {f"new_{name}": row[name] for name in names} for row in rows]
    connection.execute(statement, parameters)


def _year(record: VisitRecord) -> int:
    return int(times.isot_utc(record.mjd_start)[:4])
