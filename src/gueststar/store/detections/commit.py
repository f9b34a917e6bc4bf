"""The one transaction that makes a visit's detections, objects and alerts permanent."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, select, update

from gueststar.algorithms.association.footprint import enclosing_circle, overlaps
from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core import times
from gueststar.core.errors import DataError, OutOfTurn, TransientError
from gueststar.formats.depth_map import encode_depth
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.detections import CommitReceipt, VisitCommit
from gueststar.model.visit import VisitRecord, corner_arrays
from gueststar.store.detections.bulk import insert_rows, upsert_rows
from gueststar.store.detections.forced_blocks import ForcedBlocks
from gueststar.store.detections.object_sums import merged_parts, objects_from, parts_from
from gueststar.store.detections.reads import name_numbers_of, parts_of, visits_over, visits_since
from gueststar.store.detections.tables import DEPTHS, EXPECTED, OBJECTS, OUTBOX, PARTS, SOURCES, STATE, VISITS

_SUMMED = ("ra", "dec", "ra_err", "dec_err", "mjd_tai", "program")


def receipt_of(connection: Connection, visit: int, detector: int) -> CommitReceipt | None:
    """Return what an earlier commit of this image made permanent; None if there was none."""
    row = connection.execute(select(VISITS).where(VISITS.c.visit == visit, VISITS.c.detector == detector)).first()
    if row is None:
        return None
    return CommitReceipt(
        visit, detector, row.sequence, row.n_dia_sources, row.n_new_objects, row.n_alerts, row.is_late, is_new=False
    )


def commit(connection: Connection, change: VisitCommit, forced_blocks: ForcedBlocks) -> CommitReceipt:
    """Write a visit within the transaction that is open on ``connection``; a repeated one changes nothing.

    Raises TransientError if the working set is no longer what it was, OutOfTurn if an earlier image of this place is
    expected, DataError if rows do not belong to the visit.
    """
    record = change.record
    sequence = int(connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()) + 1
    if known := receipt_of(connection, record.visit, record.detector):
        return known
    _check(change)
    check_turn(connection, record)
    if change.base_sequence is not None:
        _check_base(connection, record, change.base_sequence)
    is_late = visits_over(connection, record, after_mjd=record.mjd_start).n_rows > 0
    connection.execute(update(STATE).values(last_sequence=sequence))
    _insert_sources(connection, change)
    n_new = _add_to_objects(connection, change, sequence)
    if change.forced is not None and change.forced.n_rows:
        forced_blocks.insert(connection, change.forced, sequence=sequence, day_obs=record.day_obs)
    if change.depth is not None:
        payload = encode_depth(change.depth)
        connection.execute(DEPTHS.insert().values(visit=record.visit, detector=record.detector, payload=payload))
    n_alerts = _insert_alerts(connection, change, sequence)
    counts = {"n_dia_sources": change.dia_sources.n_rows, "n_new_objects": n_new, "n_alerts": n_alerts}
    _insert_visit(connection, record, sequence=sequence, is_late=is_late, **counts)
    forget(connection, record.visit, record.detector)
    return CommitReceipt(record.visit, record.detector, sequence, is_late=is_late, is_new=True, **counts)


def add_forced(
    connection: Connection, forced: Catalog, forced_blocks: ForcedBlocks, *, visit: int, detector: int
) -> int:
    """Add fluxes that were measured after an image was committed; return the number under which they are known."""
    sequence = int(connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()) + 1
    day_obs = connection.execute(
        select(VISITS.c.day_obs).where(VISITS.c.visit == visit, VISITS.c.detector == detector)
    ).scalar()
    if day_obs is None:
        raise DataError(f"visit {visit} detector {detector} was not associated: fluxes forced on it belong to no image")
    connection.execute(update(STATE).values(last_sequence=sequence))
    forced_blocks.insert(connection, forced, sequence=sequence, day_obs=int(day_obs))
    return sequence


def expect(connection: Connection, records: list[VisitRecord]) -> None:
    """Write down that images are on their way; those that are committed or expected already are left alone."""
    connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()  # one writer at a time
    for record in records:
        here = (EXPECTED.c.visit == record.visit) & (EXPECTED.c.detector == record.detector)
        if connection.execute(select(EXPECTED.c.visit).where(here)).first() is not None:
            continue
        if receipt_of(connection, record.visit, record.detector) is None:
            names = [column.name for column in EXPECTED.columns]
            connection.execute(EXPECTED.insert().values({name: getattr(record, name) for name in names}))


def forget(connection: Connection, visit: int, detector: int) -> None:
    """Expect an image no longer."""
    connection.execute(delete(EXPECTED).where(EXPECTED.c.visit == visit, EXPECTED.c.detector == detector))


def check_turn(connection: Connection, record: VisitRecord) -> None:
    """Raise OutOfTurn while an earlier exposure that overlaps an image is expected."""
    earlier = connection.execute(
        select(EXPECTED).where(EXPECTED.c.mjd_start < record.mjd_start, EXPECTED.c.visit != record.visit)
    ).all()
    if not earlier:
        return
    corners = corner_arrays(Catalog({name: np.array([r._mapping[name] for r in earlier]) for name in earlier[0]._fields}))  # fmt: skip  # noqa: E501
    if np.any(is_before := overlaps(*corners, *record.corners)):
        first = earlier[int(np.argmax(is_before))]
        raise OutOfTurn(f"visit {record.visit} detector {record.detector} waits for visit {first.visit} detector {first.detector}, which is earlier")  # fmt: skip  # noqa: E501


def _check_base(connection: Connection, record: VisitRecord, base_sequence: int) -> None:
    """Raise TransientError if images of other exposures over this place were committed after a number.

    Detectors of one exposure do not see each other's detections, so that their order does not matter.
    """
    newer = visits_since(connection, base_sequence)
    newer = newer.select(newer["visit"] != record.visit)
    if newer.n_rows and (n := int(np.count_nonzero(overlaps(*corner_arrays(newer), *record.corners)))):
        raise TransientError(f"visit {record.visit} detector {record.detector}: {n} overlapping images were committed since its objects were read; associate again")  # fmt: skip  # noqa: E501


def withdraw(connection: Connection, visit: int, detector: int, forced_blocks: ForcedBlocks) -> int:
    """Take a committed image out again, objects recomputed without it; return its number of detections.

    Alerts that were put into the outbox stay as they are: what was sent cannot be unsent, and the same
    candid is never sent twice.
    """
    connection.execute(select(STATE.c.last_sequence).with_for_update()).scalar_one()
    here = (SOURCES.c.visit == visit) & (SOURCES.c.detector == detector)
    objects = connection.execute(select(SOURCES.c.dia_object_id).where(here, SOURCES.c.dia_object_id != 0)).scalars()
    object_ids = sorted({int(i) for i in objects})
    images = _images_over(connection, visit, detector)
    removed = connection.execute(delete(SOURCES).where(here)).rowcount
    forced_blocks.remove_image(connection, visit, detector)
    for table in (VISITS, DEPTHS):
        connection.execute(delete(table).where(table.c.visit == visit, table.c.detector == detector))
    gone = [object_id for object_id in object_ids if not _recompute_object(connection, object_id)]
    if gone:
        forced_blocks.remove_objects(connection, images, gone)
    connection.execute(update(STATE).values(n_withdrawn=STATE.c.n_withdrawn + 1))
    return int(removed)


def _images_over(connection: Connection, visit: int, detector: int) -> set[tuple[int, int]]:
    """Return the images (visit, detector) that overlap a committed one."""
    row = connection.execute(select(VISITS).where(VISITS.c.visit == visit, VISITS.c.detector == detector)).first()
    if row is None:
        return set()
    record = VisitRecord(**{f.name: row._mapping[f.name] for f in fields(VisitRecord)})
    over = visits_over(connection, record, margin_arcsec=10.0)
    return set(zip(over["visit"].tolist(), over["detector"].tolist(), strict=True))


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
    extended: dict[str, NDArray[Any]] = (
        dict(sources)
        | {
            "mjd_start": np.full(n, record.mjd_start), "day_obs": np.full(n, record.day_obs),
            "reference_ra": reference_ra, "reference_dec": reference_dec,
            "field": np.full(n, record.field), "rcid": np.full(n, record.rcid),
            "healpix_29": healpix_29(sources["ra"], sources["dec"]),
        }
    )  # fmt: skip
    insert_rows(connection, SOURCES, extended)


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
    known = name_numbers_of(connection, object_ids)
    numbers = known | {i: number for i, number in change.name_numbers.items() if i not in known}
    if missing := [i for i in object_ids.tolist() if i not in numbers]:
        raise DataError(f"visit {change.record.visit}: new objects without a name number: {missing[:3]}")
    added = parts_from(sources, object_ids, group, first=(sequence, _year(change.record)))
    parts = merged_parts(parts_of(connection, object_ids), added)
    mine = parts.select(parts["program"] == change.record.program)
    upsert_rows(connection, PARTS, mine, kept=("first_sequence", "named_year"))
    _write_objects(connection, parts, numbers, sequence)
    return len(object_ids) - len(known)


def _write_objects(connection: Connection, parts: Catalog, numbers: dict[int, int], sequence: int) -> None:
    objects, index = objects_from(parts)
    name_numbers = np.array([numbers[i] for i in objects["dia_object_id"].tolist()], dtype=np.int64)
    columns: dict[str, NDArray[Any]] = dict(objects)
    columns |= {"name_number": name_numbers, "healpix_29": index, "sequence": np.full(len(index), sequence)}
    upsert_rows(connection, OBJECTS, columns, kept=("name_number",))  # its index stays untouched


def _recompute_object(connection: Connection, object_id: int) -> bool:
    """Sum an object up again from the detections that are left; remove it and return False if there are none."""
    rows = connection.execute(
        select(*(SOURCES.c[name] for name in _SUMMED)).where(SOURCES.c.dia_object_id == object_id)
    ).all()
    before = parts_of(connection, [object_id])
    connection.execute(delete(PARTS).where(PARTS.c.dia_object_id == object_id))
    if not rows:
        connection.execute(delete(OBJECTS).where(OBJECTS.c.dia_object_id == object_id))
        return False
    left = Catalog({name: np.array(values) for name, values in zip(_SUMMED, zip(*rows, strict=True), strict=True)})
    firsts = zip(before["first_sequence"].tolist(), before["named_year"].tolist(), strict=True)
    first_of = dict(zip(before["program"].tolist(), firsts, strict=True))
    merged = concatenate(
        [
            parts_from(mine, np.array([object_id]), np.zeros(mine.n_rows, dtype=np.intp), first=first_of[program])
            for program in np.unique(left["program"]).tolist()
            for mine in [left.select(left["program"] == program)]
        ]
    )
    insert_rows(connection, PARTS, merged)
    sequence = int(connection.execute(select(func.max(STATE.c.last_sequence))).scalar_one())
    _write_objects(connection, merged, name_numbers_of(connection, [object_id]), sequence)
    return True


def _year(record: VisitRecord) -> int:
    return int(times.isot_utc(record.mjd_start)[:4])
