"""A deep, crowded image against a catalog of few stars with poor magnitudes (a small telescope and Tycho-2)."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.background.estimate import estimate_background
from gueststar.algorithms.photometry.growth import measure_aperture_correction
from gueststar.core.bits import SourceFlag
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import AstrometryMatches, SolveAstrometry
from gueststar.pipelines.science.photometry import SolvePhotometry

SHAPE = (500, 650)


def refcat(ra: np.ndarray, dec: np.ndarray, mag: np.ndarray, *, mag_err: float) -> Catalog:
    n = ra.size
    columns = {c.name: np.full(n, np.nan if c.name.startswith("mag_") else 0.0) for c in REFCAT.columns}
    columns |= {"ref_id": np.arange(n), "ra": ra, "dec": dec, "mag_r": mag, "mag_r_err": np.full(n, mag_err)}
    return REFCAT.catalog(columns | {"epoch": np.full(n, 2000.0)})


def test_blended_stars_are_fitted_where_the_unblended_ones_are_not_in_the_catalog() -> None:
    rng = np.random.default_rng(5)
    wcs = Wcs.tangent(ra=31.0, dec=46.0, x=324.5, y=249.5, scale_arcsec=5.0)
    n, n_known = 2000, 45
    x, y = rng.uniform(0, 650, n), rng.uniform(0, 500, n)
    flux = np.sort(10 ** rng.uniform(2, 6, n))[::-1]
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    flags = np.where(np.arange(n) < n_known, int(SourceFlag.BLENDED), 0)
    flags[:6] = 0
    error = np.full(n, 0.05)
    sources = Catalog(
        {
            "x": x + rng.normal(0, 0.05, n), "y": y + rng.normal(0, 0.05, n), "x_err": error, "y_err": error,
            "flux": flux, "flags": flags,
        }
    )  # fmt: skip
    known = refcat(ra[:n_known], dec[:n_known], 20.0 - 2.5 * np.log10(flux[:n_known]), mag_err=0.3)
    solved = SolveAstrometry().run(
        sources, start=wcs, shape=SHAPE, reference=known, epoch_year=2000.0, pointing_tolerance_arcmin=5.0
    )
    assert solved.metrics.n_fitted > 40


def test_a_rough_catalog_gives_a_zero_point_with_a_large_error() -> None:
    rng = np.random.default_rng(6)
    n = 40
    mag = rng.uniform(8, 12, n)
    flux = 10 ** (-0.4 * (mag - 25.0 + rng.normal(0, 0.3, n)))
    sources = Catalog(
        {"x": rng.uniform(0, 650, n), "y": rng.uniform(0, 500, n), "flux": flux, "flux_err": 0.005 * flux}
    )
    known = refcat(31.0 + rng.uniform(-0.4, 0.4, n), 46.0 + rng.uniform(-0.3, 0.3, n), mag, mag_err=0.3)
    rows = np.arange(n)
    glass = Filter(physical_filter="Clear", band="clear", fid=6, catalog_band="r", colour=("g", "r"))
    solved = SolvePhotometry().run(
        sources, AstrometryMatches(rows, rows, np.zeros(n)), known, filter=glass, shape=SHAPE
    )
    assert 0.03 < solved.photocal.zero_point_err < 0.08
    assert abs(solved.photocal.zero_point - 25.0) < 4.0 * solved.photocal.zero_point_err


def test_the_flux_floor_is_found_where_all_errors_overlap() -> None:
    """PSF fluxes whose errors exceed the apertures' leave no error for their ratio: the floor is the scatter."""
    rng = np.random.default_rng(7)
    n = 50
    ratio = 1.0 + rng.normal(0, 0.01, n)
    flux = np.full(n, 1e5)
    corrected = measure_aperture_correction(
        flux, 0.02 * flux, ratio * flux, 0.002 * flux, np.ones(n), x=np.arange(n), y=np.zeros(n), shape=(n, n)
    )
    assert np.sqrt(corrected.floor.middle) == pytest.approx(0.01, rel=0.4)


def test_noise_stays_positive_beside_much_noisier_pixels() -> None:
    """The spline through the meshes' noise must not dip below zero beside a steep change (a vignetted edge)."""
    rng = np.random.default_rng(8)
    noise = np.where(np.arange(1000) > 250, 100.0, 1.0)
    image = rng.normal(1000.0, noise, (1000, 1000))
    found = estimate_background(image.astype(np.float32), np.zeros(image.shape, dtype=bool), box=128)
    assert (found.rms > 0).all()
