"""The detection store: objects, detections and forced fluxes of all visits, and the outbox of alerts.

Association depends on order: a visit is read against what was committed before it and is committed
once, together with its alerts. Several processes may work at once; who was overtaken by a commit over
the same sky is told so and associates again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, func, select, update
from sqlalchemy.exc import IntegrityError

from gueststar.algorithms.association.footprint import enclosing_circle
from gueststar.core.errors import ConfigError, TransientError
from gueststar.core.ids import MAX_OBJECT_NAMES, keyed_id
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.detections import CommitReceipt, History, OutboxAlert, VisitCommit, WorkingSet
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VISIT, VisitRecord
from gueststar.store import detection_commit, detection_reads
from gueststar.store.catalog_rows import catalog_of
from gueststar.store.detection_tables import LAYOUT, OBJECTS, OUTBOX, SOURCES, STATE, VISITS, create_tables
from gueststar.store.sql import connect, reading, sqlite_url, told_as_transient, transaction

FILE_NAME = "detections.sqlite"
"""Name of the SQLite file in a repository."""

_MOST_ATTEMPTS = 100


class DetectionStore:
    """Detections of one survey, in a SQLite file of its repository or on a PostgreSQL server."""

    def __init__(self, url: str, *, name_key: bytes | None = None) -> None:
        """Open the store at a database URL, creating its tables when new.

        ``name_key`` is the secret from which identifiers and names of objects are made; a new store
        draws one if it is None, an old one keeps its own (another one given is a ConfigError).
        """
        self._engine: Engine = connect(url)
        self._reader: Engine = reading(self._engine)
        with told_as_transient():
            create_tables(self._engine)
        self._name_key = self._agreed_key(name_key)

    @classmethod
    def at(cls, root: Path, *, name_key: bytes | None = None) -> DetectionStore:
        """Open the store of the repository at ``root``, in a SQLite file."""
        root.mkdir(parents=True, exist_ok=True)
        return cls(sqlite_url(root / FILE_NAME), name_key=name_key)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    # Before the association

    def working_set(self, record: VisitRecord, *, margin_arcsec: float = 10.0) -> WorkingSet:
        """Return the objects in and around an image's footprint."""
        circle = enclosing_circle(*record.corners)
        wider = circle._replace(radius_arcsec=circle.radius_arcsec + margin_arcsec)
        with transaction(self._reader) as connection:
            sequence = int(connection.execute(select(STATE.c.last_sequence)).scalar_one())
            objects = detection_reads.objects_in_circle(connection, wider)
            parts = detection_reads.parts_of(connection, objects["dia_object_id"].tolist())
        return WorkingSet(sequence, objects, parts)

    def new_object_ids(self, dia_source_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the identifiers of objects that these detections are the first of."""
        numbers = [keyed_id(self._name_key, "dia_object", i) for i in dia_source_ids.tolist()]
        return np.array(numbers, dtype=np.int64)

    def name_numbers(self, object_ids: Sequence[int]) -> dict[int, int]:
        """Return the number in each object's name: as stored, or one that no other object has.

        Numbers come from a keyed hash of the identifier, not from a counter: they tell neither how many
        objects there are nor in which order they were found.
        """
        with transaction(self._reader) as connection:
            ids = [int(i) for i in object_ids]
            named = select(OBJECTS.c.dia_object_id, OBJECTS.c.name_number).where(OBJECTS.c.dia_object_id.in_(ids))
            numbers = {int(i): int(number) for i, number in connection.execute(named)}
            return numbers | self._free_numbers(connection, [i for i in ids if i not in numbers])

    def history(
        self, record: VisitRecord, dia_sources: Catalog, *, radius_arcsec: float = 5.0, window_days: float = 30.0
    ) -> History:
        """Return what lies behind the detections of a visit: everything within ``radius_arcsec`` before it."""
        ra, dec, start = dia_sources["ra"], dia_sources["dec"], record.mjd_start
        object_ids = sorted({int(i) for i in dia_sources["dia_object_id"] if i})
        window = {"after": start - window_days, "before": start}
        with transaction(self._reader) as connection:
            visits = detection_reads.visits_over(connection, record, margin_arcsec=4.0 * radius_arcsec)
            return History(
                detection_reads.sources_near(connection, ra, dec, radius_arcsec, **window),
                detection_reads.counts_near(connection, ra, dec, radius_arcsec, before=start),
                visits.select(visits["mjd_start"] < start),
                detection_reads.forced_of(connection, object_ids, **window),
            )

    def forced_of_visit(self, visit: int, detector: int) -> Catalog:
        """Return the `FORCED_SOURCE` rows committed with a detector image, by object."""
        with transaction(self._reader) as connection:
            return detection_reads.forced_of_visit(connection, visit, detector)

    # The commit

    def receipt(self, visit: int, detector: int) -> CommitReceipt | None:
        """Return what was committed of a visit and detector; None if nothing was."""
        with transaction(self._reader) as connection:
            return detection_commit.receipt_of(connection, visit, detector)

    def commit_visit(self, change: VisitCommit) -> CommitReceipt:
        """Make a visit's detections, objects and alerts permanent, all together and once.

        A visit and detector that was committed before is left alone, and its receipt returned
        (``is_new`` is False). Raises TransientError when an overlapping image was committed since
        ``change.base_sequence``: read the working set again and associate anew.
        """
        try:
            with transaction(self._engine) as connection:
                return detection_commit.commit(connection, change)
        except IntegrityError as problem:
            raise TransientError(f"visit {change.record.visit} detector {change.record.detector} was not committed: {problem.orig}") from problem  # fmt: skip  # noqa: E501

    def withdraw_visit(self, visit: int, detector: int) -> int:
        """Take a visit and detector out again, so that it can be reprocessed; return its number of detections.

        Alerts that left stay as they are; a detection that gets the same candid again is not sent twice.
        """
        with transaction(self._engine) as connection:
            return detection_commit.withdraw(connection, visit, detector)

    # The outbox

    def waiting_batches(self) -> Iterator[tuple[int, tuple[OutboxAlert, ...]]]:
        """Yield (sequence, alerts) of each commit whose alerts are not in the log yet, in order."""
        last = 0
        while True:
            with transaction(self._reader) as connection:
                waiting = (OUTBOX.c.is_sent.is_(False)) & (OUTBOX.c.sequence > last)
                sequence = connection.execute(select(func.min(OUTBOX.c.sequence)).where(waiting)).scalar()
                if sequence is None:
                    return
                last = int(sequence)
                mine = (OUTBOX.c.sequence == last) & (OUTBOX.c.is_sent.is_(False))
                rows = connection.execute(select(OUTBOX).where(mine).order_by(OUTBOX.c.candid)).all()
            alerts = tuple(OutboxAlert(r.candid, r.object_name, r.day_obs, r.program, bytes(r.payload)) for r in rows)
            yield last, alerts

    def mark_sent(self, sequence: int) -> None:
        """Record that the alerts of a commit are in the log, and drop their packets here."""
        with transaction(self._engine) as connection:
            connection.execute(update(OUTBOX).where(OUTBOX.c.sequence == sequence).values(is_sent=True, payload=None))

    def n_waiting(self) -> int:
        """Return how many alerts are not in the log yet."""
        with transaction(self._reader) as connection:
            return int(connection.execute(select(func.count()).where(OUTBOX.c.is_sent.is_(False))).scalar_one())

    # Other questions

    def sources_of_night(self, day_obs: int) -> Catalog:
        """Return the `DIA_SOURCE` rows of a night, all programs: for Solar-System products, whose input is free."""
        columns = [SOURCES.c[item.name] for item in DIA_SOURCE.columns]
        query = select(*columns).where(SOURCES.c.day_obs == day_obs).order_by(SOURCES.c.dia_source_id)
        with transaction(self._reader) as connection:
            return catalog_of(connection.execute(query).all(), DIA_SOURCE)

    def seen_before(self, day_obs: int) -> NDArray[np.int64]:
        """Return the objects of a night's detections that were detected on an earlier night too, of all programs."""
        tonight = select(SOURCES.c.dia_object_id).where(SOURCES.c.day_obs == day_obs, SOURCES.c.dia_object_id != 0)
        earlier = select(SOURCES.c.dia_object_id).where(
            SOURCES.c.day_obs < day_obs, SOURCES.c.dia_object_id.in_(tonight)
        )
        with self._reader.begin() as connection:
            return np.array(sorted(connection.execute(earlier.distinct()).scalars()), dtype=np.int64)

    def light_curve(self, dia_object_id: int, *, reader: Program, policy: RightsPolicy, at_mjd_tai: float) -> Catalog:
        """Return an object's `DIA_SOURCE` rows, by time, that a reader of one program may see at a moment."""
        columns = [*(SOURCES.c[item.name] for item in DIA_SOURCE.columns), SOURCES.c.day_obs]
        query = select(*columns).where(SOURCES.c.dia_object_id == dia_object_id).order_by(SOURCES.c.mjd_tai)

        def may_see(row: Row[Any]) -> bool:
            return policy.may_appear(
                Program(row.program), in_stream=reader, item_day_obs=row.day_obs, at_mjd_tai=at_mjd_tai
            )

        with transaction(self._reader) as connection:
            return catalog_of([row[:-1] for row in connection.execute(query) if may_see(row)], DIA_SOURCE)

    def visits_of_night(self, day_obs: int) -> Catalog:
        """Return the `VISIT` rows of a night, by time."""
        query = select(*(VISITS.c[item.name] for item in VISIT.columns)).where(VISITS.c.day_obs == day_obs)
        with transaction(self._reader) as connection:
            return catalog_of(connection.execute(query.order_by(VISITS.c.mjd_start, VISITS.c.detector)).all(), VISIT)

    def _agreed_key(self, wanted: bytes | None) -> bytes:
        with transaction(self._engine) as connection:
            row = connection.execute(select(STATE.c.name_key, STATE.c.layout)).first()
        if row is None:
            return self._first_key(wanted if wanted is not None else secrets.token_bytes(32))
        if row.layout != LAYOUT:
            raise ConfigError(f"the detection store has layout {row.layout}; this version reads layout {LAYOUT}")
        key = bytes.fromhex(row.name_key)
        if wanted is not None and wanted != key:
            raise ConfigError("the detection store was made with another name_key; leave it out to use the stored one")
        return key

    def _first_key(self, key: bytes) -> bytes:
        try:
            with transaction(self._engine) as connection:
                connection.execute(STATE.insert().values(id=1, layout=LAYOUT, last_sequence=0, name_key=key.hex()))
        except IntegrityError:  # another process was first
            with transaction(self._reader) as connection:
                return bytes.fromhex(connection.execute(select(STATE.c.name_key)).scalar_one())
        return key

    def _free_numbers(self, connection: Connection, object_ids: list[int]) -> dict[int, int]:
        """Return numbers that are neither stored nor given twice; where hashes collide, hash again."""
        numbers: dict[int, int] = {}
        for attempt in range(_MOST_ATTEMPTS):
            pending = [i for i in object_ids if i not in numbers]
            if not pending:
                return numbers
            proposed = {i: keyed_id(self._name_key, "name", i, attempt) % MAX_OBJECT_NAMES for i in pending}
            stored = select(OBJECTS.c.name_number).where(OBJECTS.c.name_number.in_(list(proposed.values())))
            taken = set(connection.execute(stored).scalars()) | set(numbers.values())
            for object_id, number in proposed.items():
                if number not in taken:
                    numbers[object_id] = number
                    taken.add(number)
        raise ConfigError("names of objects are used up: seven letters do not tell more objects apart")
