"""A small survey of one pointing whose every exposure and detection is told by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gueststar.core import ids
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE, FORCED_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.model.wcs import Wcs
from gueststar.pipelines.alerts.candidate import ReferenceFacts
from gueststar.pipelines.alerts.visit import AlertVisit, AlertVisitConfig, VisitOutcome, VisitProducts
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore

NIGHT_ZERO = 61000
REFERENCE = ReferenceFacts(mjd_first=60900.1, mjd_last=60950.2, n_exposures=12)


def make_record(
    mjd: float,
    *,
    program: int = 1,
    rcid: int = 3,
    ra: float = 359.99,
    dec: float = 20.0,
    side: int = 1000,
    band_id: int = 2,
) -> VisitRecord:
    """Describe an exposure that looked at (ra, dec) with square pixels of one arcsec."""
    wcs = Wcs.tangent(ra=ra, dec=dec, x=(side - 1) / 2, y=(side - 1) / 2, scale_arcsec=1.0)
    corner_ra, corner_dec = wcs.corners((side, side))
    corners = {f"ra_{k + 1}": float(corner_ra[k]) for k in range(4)}
    corners |= {f"dec_{k + 1}": float(corner_dec[k]) for k in range(4)}
    return VisitRecord(
        visit=ids.exposure_id(mjd), detector=rcid, rcid=rcid, mjd_start=mjd, exposure_s=30.0,
        day_obs=20251121 + int(mjd - NIGHT_ZERO), program=program, band_id=band_id, field=7,
        limiting_mag=20.5, zero_point=26.0, zero_point_err=0.01, zero_point_rms=0.02, colour_term=0.1,
        colour_term_err=0.01, n_calibrators=300, median_colour=0.7, rms_colour=0.3, fwhm=2.1, difference_fwhm=2.0,
        difference_noise=12.0, background=900.0, noise=30.0, astrometric_rms_ra=0.05, astrometric_rms_dec=0.06,
        reference_id=42, principal_investigator="Yang Weide", difference_name="difference.fits",
        reliability_version="trees-1", **corners,
    )  # fmt: skip


def make_sources(record: VisitRecord, ra: np.ndarray, dec: np.ndarray, **columns: object) -> Catalog:
    """Measure detections at given places: 15 sigma, point-like, reliable, unless told otherwise."""
    n = len(ra)
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in DIA_SOURCE.columns}
    numbers = [ids.wire_candid(record.pid, is_positive=True, serial=k) for k in range(n)]
    values |= {
        "dia_source_id": np.array(numbers, dtype=np.int64),
        "visit": np.full(n, record.visit), "detector": np.full(n, record.detector),
        "mjd_tai": np.full(n, record.mjd_tai), "band_id": np.full(n, record.band_id),
        "program": np.full(n, record.program), "ra": np.asarray(ra, float), "dec": np.asarray(dec, float),
        "x": np.full(n, 500.0), "y": np.full(n, 500.0),
        "ra_err": np.full(n, 0.1), "dec_err": np.full(n, 0.1), "is_positive": np.ones(n, dtype=bool),
        "snr": np.full(n, 15.0), "psf_flux": np.full(n, 45_000.0), "psf_flux_err": np.full(n, 3000.0),
        "ap_flux": np.full(n, 44_000.0), "ap_flux_err": np.full(n, 4000.0),
        "ap_big_flux": np.full(n, 46_000.0), "ap_big_flux_err": np.full(n, 6000.0),
        "fwhm": np.full(n, 2.1), "a_image": np.full(n, 0.9), "b_image": np.full(n, 0.85),
        "class_star": np.full(n, 0.95), "sum_ratio": np.full(n, 0.97), "n_negative": np.full(n, 2),
        "reliability": np.full(n, 0.9), "chi2": np.full(n, 1.1), "edge_distance": np.full(n, 300.0),
        "reference_distance": np.full(n, np.nan), "reference_mag": np.full(n, np.nan),
    }  # fmt: skip
    return DIA_SOURCE.catalog(values | {name: np.broadcast_to(v, n) for name, v in columns.items()})


def make_cutouts(sources: Catalog) -> CandidateCutouts:
    """Cut white noise around each detection."""
    rng = np.random.default_rng(1)
    stamps = rng.normal(0.0, 12.0, (sources.n_rows, 3, 63, 63)).astype(np.float32)
    stamps[:, 2, 31, 31] = np.where(sources["is_positive"], 200.0, -200.0)
    return CandidateCutouts(sources["dia_source_id"], stamps)


def make_forced(record: VisitRecord, objects: Catalog) -> Catalog:
    """Measure a flux at each object that depends on the place and the image only."""
    n = objects.n_rows
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in FORCED_SOURCE.columns}
    values |= {
        "dia_object_id": objects["dia_object_id"], "visit": np.full(n, record.visit),
        "detector": np.full(n, record.detector), "mjd_tai": np.full(n, record.mjd_tai),
        "band_id": np.full(n, record.band_id), "program": np.full(n, record.program),
        "psf_flux": 1e4 * (objects["dec"] % 1.0) + record.mjd_start % 1.0,
        "psf_flux_err": np.full(n, 900.0), "limiting_mag": np.full(n, 20.4),
    }  # fmt: skip
    return FORCED_SOURCE.catalog(values)


def measure_earlier(image: tuple[int, int], ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure fluxes that depend on the place and the image only."""
    return 1e4 * (dec % 1.0) + 10.0 * (image[0] % 97) + image[1], np.full(len(ra), 900.0)


@dataclass
class Survey:
    """A detection store and an alert log, fed with told exposures."""

    root: Path
    store: DetectionStore
    log: AlertLog
    policy: RightsPolicy
    now: float = 0.0
    config: AlertVisitConfig = field(default_factory=AlertVisitConfig)

    def observe(self, record: VisitRecord, sources: Catalog, **products: object) -> VisitOutcome:
        """Associate, alert and commit one exposure at the moment after it."""
        run = AlertVisit(
            self.store,
            self.log,
            policy=self.policy,
            clock=lambda: self.now or record.mjd_tai + 0.01,
            config=self.config,
        )
        return run.run(
            VisitProducts(
                record, sources, make_cutouts(sources), REFERENCE,
                **{
                    "measure_forced": lambda objects: make_forced(record, objects),
                    "measure_earlier": measure_earlier, **products,
                },
            )
        )  # fmt: skip


@pytest.fixture
def make_survey(tmp_path: Path) -> Callable[..., Survey]:
    """A factory of surveys, each in a folder of its own."""
    made: list[Survey] = []

    def make(policy: RightsPolicy | None = None) -> Survey:
        root = tmp_path / f"survey{len(made)}"
        store = DetectionStore.at(root, name_key=b"a key of the tests")
        made.append(Survey(root, store, AlertLog(root), policy or RightsPolicy()))
        return made[-1]

    yield make
    for survey in made:
        survey.store.close()
        survey.log.close()


ALL_PROGRAMS = tuple(Program)
