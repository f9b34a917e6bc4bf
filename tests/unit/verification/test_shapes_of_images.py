"""What the PSF leaves of stars on images: nothing where they are of the model's shape, else the difference."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.verification.ellipticity import correlations
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.model.columns import SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.operations.metrics.shapes import star_residuals

from .conftest import filled

SIDE, N = 600, 120


def gaussian(xx: float, yy: float, *, half: int = 12) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    stamp = np.exp(-0.5 * (x**2 / xx + y**2 / yy))
    return (stamp / stamp.sum()).astype(np.float32)


def picture(star: np.ndarray, model: np.ndarray) -> tuple[CalibratedImage, object]:
    """Return an image of stars of one shape whose PSF model is another, and its catalog."""
    rng = np.random.default_rng(4)
    x, y = rng.integers(20, SIDE - 20, N), rng.integers(20, SIDE - 20, N)
    image = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    for column, row in zip(x, y, strict=True):
        image[row - 12 : row + 13, column - 12 : column + 13] += 2e5 * star
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=300.0, y=300.0, scale_arcsec=1.0)
    pixels = MaskedImage(image, np.ones_like(image), np.zeros((SIDE, SIDE), np.int32))
    flags = np.where(np.arange(N) % 4 == 0, int(SourceFlag.PSF_RESERVED), int(SourceFlag.PSF_STAR)).astype("i4")
    flags[-10:] |= int(SourceFlag.SATURATED)
    sources = filled(SOURCE, N, x=x.astype(float), y=y.astype(float), flags=flags, psf_flux=np.full(N, 2e5))
    return CalibratedImage(pixels, wcs, Psf(model[None], 0, (SIDE, SIDE)), PhotoCal(26.0, 0.01), {}), sources


def test_stars_of_the_models_shape_leave_nothing() -> None:
    image, sources = picture(gaussian(4.0, 5.0), gaussian(4.0, 5.0))
    found = star_residuals(image, sources, 1.0)
    assert 60 < np.isfinite(found.e1).sum() <= N - 10  # saturated ones do not count
    assert abs(np.nanmedian(found.e1)) < 1e-3
    assert abs(np.nanmedian(found.e2)) < 1e-3
    assert found.x_arcmin.max() < SIDE / 60.0


def test_a_model_of_another_ellipticity_leaves_the_difference_correlated_at_all_distances() -> None:
    image, sources = picture(gaussian(4.4, 4.6), gaussian(4.0, 5.0))
    found = star_residuals(image, sources, 1.0)
    expected = (4.4 - 4.6) / 9.0 - (4.0 - 5.0) / 9.0
    assert np.nanmedian(found.e1) == pytest.approx(expected, rel=0.05)
    near = correlations(found, low_arcmin=0.0, high_arcmin=1.0)
    far = correlations(found, low_arcmin=5.0, high_arcmin=np.inf)
    assert near.e11 == pytest.approx(expected**2, rel=0.3)
    assert far.e11 == pytest.approx(expected**2, rel=0.3)


def test_masked_pixels_and_empty_catalogs_do_no_harm() -> None:
    image, sources = picture(gaussian(4.0, 5.0), gaussian(4.0, 5.0))
    image.pixels.mask[:, :300] |= int(MaskPlane.BAD)
    found = star_residuals(image, sources, 1.0)
    known = np.isfinite(found.e1)
    assert np.all(found.x_arcmin[known] > 300 / 60.0 - 0.2)
    assert star_residuals(image, SOURCE.empty(), 1.0).e1.size == 0
