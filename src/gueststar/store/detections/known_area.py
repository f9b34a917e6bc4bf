"""What is known of the sky around one detector's pointing of one field: the working set of association.

It is read from the detection store's tables once, and from then on kept current by what was committed since; between
processes it lies as a mapped file in the survey's cache. It is never the record: missing, damaged, from another store
or from before an image was withdrawn, it is read anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from gueststar.algorithms.association.footprint import enclosing_circle, enlarged, is_inside, overlaps
from gueststar.core.errors import DataError
from gueststar.formats.arrow import arrow_bytes, catalog_from_arrow
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.detections import KNOWN_OBJECT, OBJECT_PART
from gueststar.model.visit import VISIT, VisitRecord, corner_arrays
from gueststar.store.detections import reads
from gueststar.store.detections.cache_files import read_cache_file, write_cache_file
from gueststar.store.detections.tables import STATE

MARGIN_ARCSEC = 120.0
"""How far a new area reaches beyond the footprint: pointings of one field differ by about as much."""

_SLACK_ARCSEC = 30.0
"""Objects are looked for so far beyond the area: one whose mean place moved out of it must be seen to have moved."""

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class KnownArea:
    """All that was known in an area after commit number ``sequence``."""

    corners: Corners
    """(ra, dec) of four corners, degrees."""
    sequence: int
    n_withdrawn: int
    objects: Catalog
    """`KNOWN_OBJECT` rows in the area, by number."""
    parts: Catalog
    """`OBJECT_PART` rows of these objects, by object and program."""
    visits: Catalog
    """`VISIT` rows of all committed images that overlap the area."""

    def holds(self, corners: Corners) -> bool:
        """Return whether a footprint lies within the area."""
        return bool(is_inside(self.corners[0][None], self.corners[1][None], *corners).all())


class KnownAreas:
    """Areas by field and detector, in mapped files under ``folder`` (None: read from the tables every time)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._written: dict[Path, tuple[int, int]] = {}
        """Files as this process wrote them (inode and time): their checksums need not be computed."""

    def around(self, connection: Connection, record: VisitRecord, *, margin_arcsec: float) -> KnownArea:
        """Return an area that holds an image and a margin, as it is now."""
        wanted = enlarged(*record.corners, margin_arcsec)
        state = connection.execute(select(STATE.c.last_sequence, STATE.c.n_withdrawn)).one()
        path = self._path(record)
        if path is None:
            return _read(connection, wanted, *state)
        before = load_area(path, is_checked=_signature(path) != self._written.get(path))
        if before is None or before.n_withdrawn != state.n_withdrawn or before.sequence > state.last_sequence:
            area = _read(connection, enlarged(*record.corners, MARGIN_ARCSEC + margin_arcsec), *state)
        elif not before.holds(wanted):
            area = _read(connection, enlarged(*record.corners, _wider_margin(before, wanted)), *state)
        else:
            area = _brought_up(connection, before, state.last_sequence)
        if area is not before:
            save_area(path, area)
            self._written[path] = _signature(path)
        return area

    def _path(self, record: VisitRecord) -> Path | None:
        if self._folder is None or record.field == 0:
            return None
        return self._folder / f"field_{record.field:06d}" / f"detector_{record.detector:03d}.arrow"


def save_area(path: Path, area: KnownArea) -> None:
    """Write an area to its file."""
    facts = {
        "ra": area.corners[0].tolist(), "dec": area.corners[1].tolist(),
        "sequence": area.sequence, "n_withdrawn": area.n_withdrawn,
    }  # fmt: skip
    write_cache_file(path, facts, [arrow_bytes(catalog) for catalog in (area.objects, area.parts, area.visits)])


def load_area(path: Path, *, is_checked: bool = True) -> KnownArea | None:
    """Return the area that a file holds; None if there is no such file or it is not whole (if that ``is_checked``)."""
    cached = read_cache_file(path, is_checked=is_checked)
    if cached is None or len(cached.parts) != 3:
        return None
    try:
        objects, parts, visits = (
            catalog_from_arrow(part, schema)
            for part, schema in zip(cached.parts, (KNOWN_OBJECT, OBJECT_PART, VISIT), strict=True)
        )
    except DataError:
        return None  # columns of another version
    facts = cached.facts
    corners = np.array(facts["ra"]), np.array(facts["dec"])
    return KnownArea(corners, facts["sequence"], facts["n_withdrawn"], objects, parts, visits)


def _signature(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns


def _wider_margin(before: KnownArea, wanted: Corners) -> float:
    """Return a margin within which the next pointings will lie as well, if they differ as the last two did."""
    old, new = enclosing_circle(*before.corners), enclosing_circle(*wanted)
    both = enclosing_circle(np.array([old.ra, new.ra]), np.array([old.dec, new.dec]))
    return max(MARGIN_ARCSEC, min(3.0 * both.radius_arcsec, new.radius_arcsec))


def _read(connection: Connection, corners: Corners, sequence: int, n_withdrawn: int) -> KnownArea:
    objects = _objects_in(connection, corners)
    parts = _sorted_parts(reads.parts_of(connection, objects["dia_object_id"]))
    visits = reads.visits_in(connection, corners)
    return KnownArea(corners, sequence, n_withdrawn, objects, parts, visits)


def _brought_up(connection: Connection, area: KnownArea, sequence: int) -> KnownArea:
    """Return an area with what was committed since it was read."""
    if sequence == area.sequence:
        return area
    visits = reads.visits_since(connection, area.sequence)
    if visits.n_rows:
        visits = visits.select(overlaps(*corner_arrays(visits), *area.corners))
    if visits.n_rows == 0:
        return replace(area, sequence=sequence)
    changed = _objects_in(connection, area.corners, after_sequence=area.sequence, slack_arcsec=_SLACK_ARCSEC)
    ids = changed["dia_object_id"]
    inside = changed.select(is_inside(area.corners[0][None], area.corners[1][None], changed["ra"], changed["dec"])[0])
    objects = concatenate([area.objects.select(~np.isin(area.objects["dia_object_id"], ids)), inside])
    renewed = reads.parts_of(connection, inside["dia_object_id"])
    parts = concatenate([area.parts.select(~np.isin(area.parts["dia_object_id"], ids)), renewed])
    newer = set(_images(visits))
    old = area.visits.select(np.array([image not in newer for image in _images(area.visits)], dtype=bool))
    return KnownArea(
        area.corners, sequence, area.n_withdrawn,
        objects.select(np.argsort(objects["dia_object_id"], kind="stable")), _sorted_parts(parts),
        concatenate([old, visits]),
    )  # fmt: skip


def _objects_in(
    connection: Connection, corners: Corners, *, after_sequence: int = -1, slack_arcsec: float = 0.0
) -> Catalog:
    """Return the `KNOWN_OBJECT` rows that changed after a commit in and (with slack) around an area, by number."""
    circle = enclosing_circle(*corners)
    wider = circle._replace(radius_arcsec=circle.radius_arcsec + slack_arcsec)
    found = reads.objects_in_circle(connection, wider, after_sequence=after_sequence)
    if slack_arcsec == 0.0:
        found = found.select(is_inside(corners[0][None], corners[1][None], found["ra"], found["dec"])[0])
    return found.select(np.argsort(found["dia_object_id"], kind="stable"))


def _images(visits: Catalog) -> list[tuple[int, int]]:
    return list(zip(visits["visit"].tolist(), visits["detector"].tolist(), strict=True))


def _sorted_parts(parts: Catalog) -> Catalog:
    return parts.select(np.lexsort((parts["program"], parts["dia_object_id"])))
