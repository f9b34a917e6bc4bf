"""What association costs in a crowded field: 18,000 known objects in view, up to a million in the field.

Run: python benchmarks/association.py [--objects N ...] [--postgres] [--folder FOLDER]
A store is filled with objects on a mosaic of detectors (0.85 degrees wide, 18,000 objects each) that were seen ten
times each in the month before, forced fluxes on every image and all. Then one detector's next exposures are taken:
1,000 detections of known objects and 40 new ones, none or 100 alerts with cut-outs, forced fluxes at all 18,000 places
of a 3080 x 3072 difference image. Seconds of CPU of this process for each step of `AlertVisit` (on PostgreSQL the
server's own beside it), the median of the exposures after the first.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core import ids
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE, FORCED_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.depth import DepthMap
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.rights import RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.model.wcs import Wcs
from gueststar.pipelines.alerts.candidate import ReferenceFacts
from gueststar.pipelines.alerts.visit import AlertVisit, VisitProducts
from gueststar.pipelines.engine.outcome import StepTimer
from gueststar.pipelines.night.association import ForcedMeasurement
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections import tables
from gueststar.store.detections.bulk import insert_rows
from gueststar.store.detections.commit import _insert_visit
from gueststar.store.detections.object_sums import objects_from, parts_from
from gueststar.store.detections.store import CACHE_FOLDER, DetectionStore

PER_DETECTOR, N_BEFORE, N_SEEN, N_NEW = 18_000, 10, 1_000, 40
SHAPE, SCALE = (3080, 3072), 1.0
NIGHT = 61_000
STEPS = ("objects", "match", "forced", "history", "earlier", "packets", "commit", "send")


@dataclass(frozen=True)
class Pointing:
    """One detector's place on the mosaic."""

    detector: int
    wcs: Wcs

    @classmethod
    def number(cls, detector: int) -> Pointing:
        column, row = detector % 8, detector // 8
        return cls(detector, Wcs.tangent(ra=150.0 + 0.9 * column, dec=-2.0 + 0.9 * row, x=(SHAPE[1] - 1) / 2,
                                         y=(SHAPE[0] - 1) / 2, scale_arcsec=SCALE))  # fmt: skip

    def record(self, mjd: float) -> VisitRecord:
        ra, dec = self.wcs.corners(SHAPE)
        corners = {f"ra_{k + 1}": float(ra[k]) for k in range(4)} | {f"dec_{k + 1}": float(dec[k]) for k in range(4)}
        return VisitRecord(
            visit=ids.exposure_id(mjd), detector=self.detector, rcid=self.detector, mjd_start=mjd, exposure_s=30.0,
            day_obs=20251021 + int(mjd - NIGHT), program=1, band_id=1, field=1, limiting_mag=20.5, zero_point=26.0,
            reference_id=1, difference_noise=10.0, **corners,
        )  # fmt: skip

    def objects(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.detector)
        return self.wcs.pixel_to_sky(x=rng.uniform(0, SHAPE[1] - 1, n), y=rng.uniform(0, SHAPE[0] - 1, n))


def detections(
    record: VisitRecord, ra: np.ndarray, dec: np.ndarray, rng: np.random.Generator, *, n_alerts: int = 0
) -> Catalog:
    n = len(ra)
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in DIA_SOURCE.columns}
    serial = np.arange(n)
    candid = record.pid * 1_000_000 + np.where(serial < 5000, 15_000, 10_000) + serial % 5000
    values |= {
        "dia_source_id": candid, "visit": np.full(n, record.visit), "detector": np.full(n, record.detector),
        "mjd_tai": np.full(n, record.mjd_tai), "band_id": np.full(n, 1), "program": np.full(n, 1),
        "ra": ra + rng.normal(0, 0.1 / 3600, n), "dec": dec + rng.normal(0, 0.1 / 3600, n),
        "x": np.full(n, 500.0), "y": np.full(n, 500.0),
        "ra_err": np.full(n, 0.1), "dec_err": np.full(n, 0.1), "is_positive": serial < 5000, "snr": np.full(n, 9.0),
        "psf_flux": np.full(n, 3e4), "psf_flux_err": np.full(n, 3e3), "fwhm": np.full(n, 2.0),
        "a_image": np.ones(n), "b_image": np.ones(n), "reliability": np.where(serial < n_alerts, 0.9, 0.2),
    }  # fmt: skip
    return DIA_SOURCE.catalog(values)


def fill(store: DetectionStore, pointing: Pointing, first_name: int) -> None:
    """Put ten exposures of one detector into the store, as commits in order would have left it."""
    ra, dec = pointing.objects(PER_DETECTOR)
    rng = np.random.default_rng(1000 + pointing.detector)
    object_ids = ids.content_id("objects", pointing.detector, bits=40) * 100_000 + np.arange(PER_DETECTOR)
    object_ids = rng.permutation(object_ids)
    everything = []
    with store._engine.begin() as connection:
        state = connection.execute(tables.STATE.select()).one()
        for k in range(N_BEFORE):
            record = pointing.record(NIGHT + 2.9 * k + 0.2)
            sources = detections(record, ra, dec, rng)
            numbers = (record.pid * 100_000 + np.arange(PER_DETECTOR)).astype(
                np.int64
            )  # beyond what a candid can count
            sources = sources.replace(dia_object_id=object_ids, dia_source_id=numbers)
            everything.append(sources)
            nan, n = np.full(PER_DETECTOR, np.nan), PER_DETECTOR
            more = {"mjd_start": np.full(n, record.mjd_start), "day_obs": np.full(n, record.day_obs),
                    "reference_ra": nan, "reference_dec": nan, "field": np.full(n, 1), "rcid": np.full(n, record.rcid),
                    "healpix_29": healpix_29(sources["ra"], sources["dec"])}  # fmt: skip
            insert_rows(connection, tables.SOURCES, dict(sources) | more)
            sequence = state.last_sequence + k + 1
            _insert_visit(
                connection, record, sequence=sequence, is_late=False, n_dia_sources=n, n_new_objects=0, n_alerts=0
            )
            values = {column.name: np.zeros(n, dtype=column.dtype) for column in FORCED_SOURCE.columns}
            forced = FORCED_SOURCE.catalog(
                values | {"dia_object_id": object_ids, "visit": np.full(n, record.visit),
                          "detector": np.full(n, record.detector), "mjd_tai": np.full(n, record.mjd_tai),
                          "program": np.ones(n), "psf_flux": rng.normal(0, 3e3, n), "psf_flux_err": np.full(n, 3e3)}
            )  # fmt: skip
            if k:
                store._forced.insert(connection, forced, sequence=sequence, day_obs=record.day_obs)
        whole = Catalog({c: np.concatenate([s[c] for s in everything]) for c in everything[0]})
        unique, group = np.unique(whole["dia_object_id"], return_inverse=True)
        parts = parts_from(whole, unique, group, first=(state.last_sequence + 1, 2025))
        insert_rows(connection, tables.PARTS, parts)
        objects, index = objects_from(parts)
        insert_rows(connection, tables.OBJECTS, dict(objects) | {
            "name_number": first_name + np.arange(PER_DETECTOR), "healpix_29": index,
            "sequence": np.full(PER_DETECTOR, state.last_sequence + N_BEFORE)})  # fmt: skip
        connection.execute(tables.STATE.update().values(last_sequence=state.last_sequence + N_BEFORE))


def fill_all(store: DetectionStore, n_detectors: int) -> float:
    """Fill a store; its indexes of detections are made afterwards. Return seconds."""
    begin, indexes = time.monotonic(), list(tables.SOURCES.indexes)
    with store._engine.begin() as connection:
        for index in indexes:
            index.drop(connection)
    for k in range(n_detectors):
        fill(store, Pointing.number(k), k * PER_DETECTOR)
        if sys.stderr.isatty():
            print(f"\r{k + 1} of {n_detectors} detectors", end="", file=sys.stderr)
    with store._engine.begin() as connection:
        for index in indexes:
            index.create(connection)
    return time.monotonic() - begin


def difference_image(pointing: Pointing) -> CalibratedImage:
    rng = np.random.default_rng(5)
    ny, nx = SHAPE
    pixels = MaskedImage(rng.standard_normal(SHAPE, dtype=np.float32) * 10, np.full(SHAPE, 100.0, np.float32),
                         np.zeros(SHAPE, np.int32))  # fmt: skip
    y, x = np.indices((31, 31)) - 15
    core = np.exp(-0.5 * (x**2 + y**2) / 0.9**2)
    coefficients = np.stack([core / core.sum(), *(np.zeros((5, 31, 31)))]).astype(np.float32)
    return CalibratedImage(pixels, pointing.wcs, Psf(coefficients, 2, (ny, nx)), PhotoCal(26.0, 0.01))


def server_cpu() -> float:
    """Return CPU seconds of all PostgreSQL server processes that are there."""
    total = 0.0
    for process in psutil.process_iter(["name", "cpu_times"]):
        if process.info["name"] == "postgres" and process.info["cpu_times"]:
            total += process.info["cpu_times"].user + process.info["cpu_times"].system
    return total


def measure(
    store: DetectionStore, log: AlertLog, n_exposures: int, *, n_alerts: int, start: float, is_served: bool
) -> None:
    """Take the next exposures of detector 0 and print what each step costs."""
    pointing = Pointing.number(0)
    ra, dec = pointing.objects(PER_DETECTOR)
    image, rng = difference_image(pointing), np.random.default_rng(8)
    visit = AlertVisit(store, log, policy=RightsPolicy(), clock=lambda: NIGHT + 40.0)
    stamps = rng.normal(0.0, 12.0, (n_alerts, 3, 63, 63)).astype(np.float32)
    rows: list[dict[str, float]] = []
    gc.freeze()  # as `AssociateVisit` does
    served = server_cpu()
    for k in range(n_exposures):
        record = pointing.record(NIGHT + 28.0 + start + 0.1 * k)
        seen = rng.choice(PER_DETECTOR, N_SEEN, replace=False)
        new_ra, new_dec = pointing.wcs.pixel_to_sky(x=rng.uniform(50, 3000, N_NEW), y=rng.uniform(50, 3000, N_NEW))
        sources = detections(record, np.append(ra[seen], new_ra), np.append(dec[seen], new_dec), rng, n_alerts=n_alerts)
        forced = ForcedMeasurement(image, record)
        timer = StepTimer()
        begin = time.process_time()
        with timer("depth"):
            depth: DepthMap = forced.measure.depth(image)
        products = VisitProducts(
            record, sources, CandidateCutouts(sources["dia_source_id"][:n_alerts], stamps),
            ReferenceFacts(NIGHT - 100.0, NIGHT - 50.0, 20), measure_forced=forced, depth=depth,
        )  # fmt: skip
        outcome = visit.run(products, timer=timer)
        rows.append(dict.fromkeys(STEPS, 0.0) | timer.seconds | {"sum": time.process_time() - begin})
        assert outcome.receipt.n_alerts == n_alerts
    names = ("depth", *STEPS, "sum")
    print(f"{n_alerts} alerts:\n| exposure | " + " | ".join(names) + " |")
    for k, row in enumerate(rows[:2]):
        print(f"| {k + 1} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |")
    middle = {name: statistics.median(row[name] for row in rows[1:]) for name in names}
    print("| median | " + " | ".join(f"{middle[name]:.3f}" for name in names) + " |")
    if is_served:
        print(f"the server's processes: {(server_cpu() - served) / n_exposures:.3f} s an exposure")


def run(n_objects: int, folder: Path, url: str | None) -> None:
    n_detectors = max(1, round(n_objects / PER_DETECTOR))
    root = folder / f"association_{n_detectors}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    store = (
        DetectionStore(url, name_key=b"k", cache=root / CACHE_FOLDER) if url else DetectionStore.at(root, name_key=b"k")
    )
    log = AlertLog(root)
    seconds = fill_all(store, n_detectors)
    n, size = n_detectors * PER_DETECTOR, sum(p.stat().st_size for p in root.glob("*.sqlite*")) / 1e9
    print(f"\n{n:,} objects, {n * N_BEFORE:,} detections ({seconds:.0f} s to fill{'' if url else f', {size:.1f} GB'}), "
          f"{'PostgreSQL' if url else 'SQLite'}", flush=True)  # fmt: skip
    measure(store, log, 6, n_alerts=0, start=0.0, is_served=url is not None)
    measure(store, log, 6, n_alerts=100, start=0.6, is_served=url is not None)
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (filling included)", flush=True
    )
    store.close()
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[18_000, 180_000])
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own")
    parser.add_argument("--folder", type=Path, help="where the stores are made; a temporary one, removed, unless given")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for n_objects in options.objects:
            with ExitStack() as one:
                url = None
                if options.postgres:
                    from tests.postgres_server import running_server

                    url = one.enter_context(running_server()).url
                pid = os.fork()  # a process of its own: its peak memory is its own
                if pid == 0:
                    run(n_objects, folder, url)
                    sys.stdout.flush()
                    os._exit(0)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
