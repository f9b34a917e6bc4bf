"""A mosaic of four detectors without gaps, exposed with small offsets: what is at the edges is seen on both sides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.algorithms.association.footprint import is_inside
from gueststar.model.catalog import Catalog
from gueststar.model.detections import CommitReceipt
from gueststar.model.rights import RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.visit import AlertVisit, VisitProducts
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections import tables
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.conftest import (
    NIGHT_ZERO,
    REFERENCE,
    make_cutouts,
    make_forced,
    make_record,
    make_sources,
    measure_earlier,
)

KEY = b"a key of the tests"
N_DETECTORS = 4
_SIDE = 120
_COMMIT_NUMBERS = ("sequence", "first_sequence", "last_sequence", "is_late")

Image = tuple[VisitRecord, Catalog]


def night_of(seed: int, n_exposures: int) -> list[Image]:
    """Return the images of a night's exposures, by time: stars everywhere, above all at the inner edges."""
    rng = np.random.default_rng(seed)
    ra, dec = 359.999 + rng.uniform(-100, 100, 60) / 3600, 20.0 + rng.uniform(-100, 100, 60) / 3600
    ra[:12], dec[12:24] = 359.999 + rng.normal(0, 0.4, 12) / 3600, 20.0 + rng.normal(0, 0.4, 12) / 3600
    return [image for k in range(n_exposures) for image in _exposure(rng, k, ra, dec)]


def _exposure(rng: np.random.Generator, serial: int, ra: np.ndarray, dec: np.ndarray) -> Iterable[Image]:
    shift, mjd = rng.uniform(-2, 2, 2) / 3600, NIGHT_ZERO + 0.1 + 0.002 * serial
    for detector in range(N_DETECTORS):
        across, up = detector % 2 - 0.5, detector // 2 - 0.5
        record = make_record(
            mjd, rcid=detector, side=_SIDE, ra=359.999 + shift[0] + across * _SIDE / 3600 / np.cos(np.radians(20.0)),
            dec=20.0 + shift[1] + up * _SIDE / 3600, program=1 + serial % 2,
        )  # fmt: skip
        # Each detector measures for itself: a star on an edge is found on either side, at places that differ.
        seen = rng.random(len(ra)) < 0.8
        at_ra, at_dec = ra + rng.normal(0, 0.3, len(ra)) / 3600, dec + rng.normal(0, 0.3, len(ra)) / 3600
        corner_ra, corner_dec = record.corners
        seen &= is_inside(corner_ra[None], corner_dec[None], at_ra, at_dec)[0]
        yield record, make_sources(record, at_ra[seen], at_dec[seen])


def take(store: DetectionStore, log: AlertLog, images: Iterable[Image]) -> list[CommitReceipt]:
    """Associate, alert and commit images in the order in which they come."""
    run = AlertVisit(store, log, policy=RightsPolicy(), clock=lambda: NIGHT_ZERO + 1.0)
    return [
        run.run(
            VisitProducts(
                record, sources, make_cutouts(sources), REFERENCE,
                measure_forced=lambda objects, record=record: make_forced(record, objects),
                measure_earlier=measure_earlier,
            )
        ).receipt
        for record, sources in images
    ]  # fmt: skip


def taken(folder: Path, images: Iterable[Image], *, url: str | None = None) -> dict[str, Any]:
    """Return what a store of its own holds after images were taken in an order."""
    store = DetectionStore(url, name_key=KEY) if url else DetectionStore.at(folder, name_key=KEY)
    log = AlertLog(folder)
    take(store, log, images)
    held = contents(store)
    store.close()
    log.close()
    return held


def contents(store: DetectionStore) -> dict[str, Any]:
    """Return all rows of a store, to the bit, but for the numbers of commits; forced fluxes image by image."""
    held: dict[str, Any] = {}
    with store._engine.begin() as connection:
        for table in (tables.SOURCES, tables.OBJECTS, tables.PARTS, tables.VISITS):
            rows = connection.execute(table.select()).all()
            names = [name for name in table.columns.keys() if name not in _COMMIT_NUMBERS]  # noqa: SIM118
            held[table.name] = sorted((tuple((n, r._mapping[n]) for n in names) for r in rows), key=str)
        images = connection.execute(tables.VISITS.select()).all()
        outbox = connection.execute(tables.OUTBOX.select()).all()
    held["alerts"] = sorted((r.candid, r.object_name) for r in outbox)
    held["forced"] = {}
    for image in images:
        rows = store.forced_of_visit(image.visit, image.detector)
        held["forced"][image.visit, image.detector] = {name: rows[name].tolist() for name in rows}
    return held
