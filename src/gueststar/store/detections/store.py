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

from gueststar.algorithms.association.footprint import enlarged, is_inside, overlaps
from gueststar.core.errors import ConfigError, TransientError
from gueststar.core.ids import MAX_OBJECT_NAMES, keyed_id
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import DIA_OBJECT, DIA_SOURCE
from gueststar.model.detections import (
    COMMITTED_VISIT,
    CommitReceipt,
    Founding,
    History,
    OutboxAlert,
    VisitCommit,
    WorkingSet,
)
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VISIT, VisitRecord, corner_arrays
from gueststar.store.detections import commit, reads
from gueststar.store.detections.bulk import wanted_numbers
from gueststar.store.detections.catalog_rows import catalog_of
from gueststar.store.detections.forced_blocks import ForcedBlocks
from gueststar.store.detections.known_area import KnownAreas
from gueststar.store.detections.object_sums import without_sources
from gueststar.store.detections.tables import LAYOUT, OBJECTS, OUTBOX, SOURCES, STATE, VISITS, create_tables
from gueststar.store.sql import connect, reading, sqlite_url, told_as_transient, transaction

FILE_NAME = "detections.sqlite"
"""Name of the SQLite file in a repository."""

CACHE_FOLDER = "cache/association"
"""Folder of a repository for files that save work, never the record."""

_FOUND_MARGIN_ARCSEC = 10.0
"""An object's mean place may lie this far beyond the image that founded it."""

_MOST_ATTEMPTS = 100
_ROWS_AT_ONCE = 20_000


class DetectionStore:
    """Detections of one survey, in a SQLite file of its repository or on a PostgreSQL server."""

    def __init__(self, url: str, *, name_key: bytes | None = None, cache: Path | None = None) -> None:
        """Open the store at a database URL, creating its tables when new.

        ``name_key`` is the secret from which identifiers and names of objects are made; a new store
        draws one if it is None, an old one keeps its own (another one given is a ConfigError). In the folder ``cache``
        lie files that save reading the tables again; it may be deleted at any time.
        """
        self._engine: Engine = connect(url)
        self._reader: Engine = reading(self._engine)
        with told_as_transient():
            create_tables(self._engine)
        self._name_key = self._agreed_key(name_key)
        mine = cache / f"{keyed_id(self._name_key, 'cache'):016x}" if cache else None  # another store: another folder
        self._areas = KnownAreas(mine)
        self._forced = ForcedBlocks(mine / "forced" if mine else None)

    @classmethod
    def of_survey(cls, root: Path, database: str | None) -> DetectionStore:
        """Open the store of the repository at ``root``: on the database server that its settings name, or in a file."""
        return cls(database, cache=root / CACHE_FOLDER) if database else cls.at(root)

    @classmethod
    def at(cls, root: Path, *, name_key: bytes | None = None) -> DetectionStore:
        """Open the store of the repository at ``root``, in a SQLite file, its cache beside it."""
        root.mkdir(parents=True, exist_ok=True)
        return cls(sqlite_url(root / FILE_NAME), name_key=name_key, cache=root / CACHE_FOLDER)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    # Before the association

    def working_set(self, record: VisitRecord, *, margin_arcsec: float = 20.0) -> WorkingSet:
        """Return what is known in and around an image's footprint, as it was before its exposure.

        What other detectors of the same exposure added is left out, so that their order does not matter.
        """
        corners = enlarged(*record.corners, margin_arcsec)
        with transaction(self._reader) as connection:
            area = self._areas.around(connection, record, margin_arcsec=margin_arcsec)
            visits = area.visits.select(overlaps(*corner_arrays(area.visits), *corners)) if area.visits.n_rows else area.visits  # fmt: skip  # noqa: E501
            inside = is_inside(corners[0][None], corners[1][None], area.objects["ra"], area.objects["dec"])[0]
            objects = area.objects.select(inside)
            parts = area.parts.select(np.isin(area.parts["dia_object_id"], objects["dia_object_id"]))
            is_same = visits["visit"] == record.visit
            if is_same.any():
                detectors = [d for d in visits["detector"][is_same].tolist() if d != record.detector]
                sources = reads.sources_of_visit(connection, record.visit, detectors)
                objects, parts = without_sources(objects, parts, sources)
        is_self = is_same & (visits["detector"] == record.detector)
        known = Catalog({column.name: objects[column.name] for column in DIA_OBJECT.columns}, DIA_OBJECT)
        return WorkingSet(area.sequence, known, parts, objects["name_number"], visits.select(~is_self))

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
            numbers = reads.name_numbers_of(connection, ids)
            return numbers | self._free_numbers(connection, [i for i in ids if i not in numbers])

    def history(
        self, record: VisitRecord, dia_sources: Catalog, *, visits: Catalog | None = None,
        radius_arcsec: float = 5.0, window_days: float = 30.0,
    ) -> History:  # fmt: skip
        """Return what lies behind the detections of a visit: everything within ``radius_arcsec`` before it.

        ``visits`` are those of its working set, read again if None.
        """
        ra, dec, start = dia_sources["ra"], dia_sources["dec"], record.mjd_start
        with transaction(self._reader) as connection:
            if visits is None:
                visits = reads.visits_over(connection, record, margin_arcsec=4.0 * radius_arcsec)
            before = visits.select(visits["mjd_start"] < start)
            recent = before.select(before["mjd_start"] > start - window_days)
            images = set(zip(recent["visit"].tolist(), recent["detector"].tolist(), strict=True))
            narrow = reads.sources_before(connection, ra, dec, radius_arcsec, before=start)
            is_recent = narrow["mjd_start"] > start - window_days
            return History(
                reads.sources_of(connection, narrow["dia_source_id"][is_recent]),
                narrow,
                before,
                self._forced.of_objects(connection, images, dia_sources["dia_object_id"]),
                reads.depths_of(connection, images),
            )

    def forced_of_visit(self, visit: int, detector: int) -> Catalog:
        """Return the `FORCED_SOURCE` rows of a detector image, by object."""
        with transaction(self._reader) as connection:
            return self._forced.of_image(connection, visit, detector)

    # The commit

    def receipt(self, visit: int, detector: int) -> CommitReceipt | None:
        """Return what was committed of a visit and detector; None if nothing was."""
        with transaction(self._reader) as connection:
            return commit.receipt_of(connection, visit, detector)

    def commit_visit(self, change: VisitCommit) -> CommitReceipt:
        """Make a visit's detections, objects and alerts permanent, all together and once.

        A visit and detector that was committed before is left alone, and its receipt returned
        (``is_new`` is False). Raises TransientError when an overlapping image was committed since
        ``change.base_sequence``: read the working set again and associate anew.
        """
        try:
            with transaction(self._engine) as connection:
                receipt = commit.commit(connection, change, self._forced)
        except IntegrityError as problem:
            raise TransientError(f"visit {change.record.visit} detector {change.record.detector} was not committed: {problem.orig}") from problem  # fmt: skip  # noqa: E501
        self._forced.prune(change.record.day_obs)
        return receipt

    def add_forced(self, forced: Catalog, *, visit: int, detector: int) -> int:
        """Add fluxes (`FORCED_SOURCE` rows) measured on an image after its commit; return the number of the addition.

        Raises DataError if the image was not committed.
        """
        with transaction(self._engine) as connection:
            return commit.add_forced(connection, forced, self._forced, visit=visit, detector=detector)

    def foundings(self, day_obs: int, *, window_days: float) -> list[Founding]:
        """Return what streams first saw on the images of a night, with the images of ``window_days`` before."""
        with transaction(self._reader) as connection:
            images, parts = reads.founded_on(connection, day_obs)
            found = []
            for row in range(images.n_rows):
                image = images.select(np.array([row]))
                mine = parts["dia_object_id"][parts["first_sequence"] == image["sequence"][0]]
                if mine.size:
                    candidates = self._unaware(connection, image, window_days)
                    found.append(Founding(image, self._known(connection, mine), candidates))
        return found

    def _known(self, connection: Connection, object_ids: NDArray[np.int64]) -> WorkingSet:
        objects = reads.objects_of(connection, object_ids)
        known = Catalog({column.name: objects[column.name] for column in DIA_OBJECT.columns}, DIA_OBJECT)
        return WorkingSet(0, known, reads.parts_of(connection, object_ids), objects["name_number"])

    @staticmethod
    def _unaware(connection: Connection, image: Catalog, window_days: float) -> Catalog:
        """Return the images over the same place committed before or with one, and those of the same exposure."""
        corners = corner_arrays(image)
        area = enlarged(corners[0][0], corners[1][0], _FOUND_MARGIN_ARCSEC)
        visits = reads.visits_in(connection, area, after_mjd=float(image["mjd_start"][0]) - window_days)
        sequence_of = reads.sequences_of(connection, visits["visit"])
        sequences = np.array([sequence_of[v, d] for v, d in zip(visits["visit"].tolist(), visits["detector"].tolist(), strict=True)], dtype=np.int64)  # fmt: skip  # noqa: E501
        is_unaware = (sequences <= image["sequence"][0]) | (visits["visit"] == image["visit"][0])
        return Catalog(dict(visits) | {"sequence": sequences}, COMMITTED_VISIT).select(is_unaware)

    def object_named(self, name_number: int) -> WorkingSet | None:
        """Return what is known of the object whose name has this number, of all programs; None if there is none."""
        with transaction(self._reader) as connection:
            object_id = reads.object_with_number(connection, name_number)
            return None if object_id is None else self._known(connection, np.array([object_id]))

    def expect(self, records: Sequence[VisitRecord]) -> None:
        """Announce images that are on their way: later ones over the same sky are committed after them.

        So several processes may work on a night at once, and the result is the one of working in order of time. An
        image that will not come after all is to be given up with `forget`.
        """
        with transaction(self._engine) as connection:
            commit.expect(connection, list(records))

    def forget(self, visit: int, detector: int) -> None:
        """Expect an image no longer."""
        with transaction(self._engine) as connection:
            commit.forget(connection, visit, detector)

    def check_turn(self, record: VisitRecord) -> None:
        """Raise OutOfTurn while an earlier exposure over the same sky is expected."""
        with transaction(self._reader) as connection:
            commit.check_turn(connection, record)

    def withdraw_visit(self, visit: int, detector: int) -> int:
        """Take a visit and detector out again, so that it can be reprocessed; return its number of detections.

        Alerts that left stay as they are; a detection that gets the same candid again is not sent twice.
        """
        with transaction(self._engine) as connection:
            return commit.withdraw(connection, visit, detector, self._forced)

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

    def n_waiting(self, day_obs: int | None = None) -> int:
        """Return how many alerts (of one night, if given) are not in the log yet."""
        query = select(func.count()).where(OUTBOX.c.is_sent.is_(False))
        if day_obs is not None:
            query = query.where(OUTBOX.c.day_obs == day_obs)
        with transaction(self._reader) as connection:
            return int(connection.execute(query).scalar_one())

    # Other questions

    def sources_of_night(self, day_obs: int) -> Catalog:
        """Return the `DIA_SOURCE` rows of a night, all programs: for Solar-System products, whose input is free."""
        columns = [SOURCES.c[item.name] for item in DIA_SOURCE.columns]
        query = select(*columns).where(SOURCES.c.day_obs == day_obs).order_by(SOURCES.c.dia_source_id)
        with transaction(self._reader) as connection:
            # Part by part: as rows, a million detections would take gigabytes.
            parts = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query).partitions(_ROWS_AT_ONCE)
            return concatenate([DIA_SOURCE.empty(), *(catalog_of(rows, DIA_SOURCE) for rows in parts)])

    def n_sources_of_night(self, day_obs: int) -> int:
        """Return how many detections a night has, of all programs."""
        query = select(func.count()).select_from(SOURCES).where(SOURCES.c.day_obs == day_obs)
        with transaction(self._reader) as connection:
            return int(connection.execute(query).scalar_one())

    def stored_name_numbers(self, object_ids: NDArray[np.int64]) -> dict[int, int]:
        """Return the number in the name of each of these objects that is stored."""
        with transaction(self._reader) as connection:
            return reads.name_numbers_of(connection, object_ids)

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
            raise ConfigError(f"the detection store has layout {row.layout}, this version reads {LAYOUT}: process the nights into a new repository")  # fmt: skip  # noqa: E501
        key = bytes.fromhex(row.name_key)
        if wanted is not None and wanted != key:
            raise ConfigError("the detection store was made with another name_key; leave it out to use the stored one")
        return key

    def _first_key(self, key: bytes) -> bytes:
        try:
            with transaction(self._engine) as connection:
                connection.execute(
                    STATE.insert().values(id=1, layout=LAYOUT, last_sequence=0, n_withdrawn=0, name_key=key.hex())
                )
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
            wanted = wanted_numbers(connection, list(proposed.values()))
            stored = select(OBJECTS.c.name_number).join_from(wanted, OBJECTS, OBJECTS.c.name_number == wanted.c.number)
            taken = set(connection.execute(stored).scalars()) | set(numbers.values())
            for object_id, number in proposed.items():
                if number not in taken:
                    numbers[object_id] = number
                    taken.add(number)
        raise ConfigError("names of objects are used up: seven letters do not tell more objects apart")
