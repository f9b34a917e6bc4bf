"""What the PSF model of stored images leaves of the shapes of their stars."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.verification.ellipticity import (
    Correlations,
    Residuals,
    correlations,
    shape_residuals,
    without_outliers,
)
from gueststar.core.bits import USES, SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage
from gueststar.store.products import ProductRef
from gueststar.store.repo import SurveyRepo

MAX_STARS = 400
"""Of an image, the brightest."""


def image_correlations(
    repo: SurveyRepo, image: ProductRef, sources: ProductRef, limits_arcmin: tuple[tuple[float, float], ...]
) -> list[Correlations]:
    """Return the correlations of shape residuals of an image, one for each range of distances.

    Stars are those by which the PSF was made and those kept aside to test it, unblended: distances below an arcminute
    have too few pairs of the latter alone.
    """
    residuals = star_residuals(repo.read(image), repo.read(sources), repo.camera.pixel_scale_arcsec)
    return [correlations(residuals, low_arcmin=low, high_arcmin=high) for low, high in limits_arcmin]


def star_residuals(image: CalibratedImage, sources: Catalog, pixel_scale_arcsec: float) -> Residuals:
    """Return places (arcmin) and ellipticity residuals of the PSF stars of an image, outliers left out."""
    flags = np.asarray(sources["flags"])
    chosen = ((flags & int(SourceFlag.PSF_STAR | SourceFlag.PSF_RESERVED)) != 0) & ((flags & ~int(USES)) == 0)
    stars = sources.select(chosen)
    stars = stars.select(np.argsort(-np.asarray(stars["psf_flux"]))[:MAX_STARS])
    fwhm = image.psf.central_fwhm
    half = int(np.ceil(2.5 * fwhm))
    x, y = np.asarray(stars["x"], dtype=np.float64), np.asarray(stars["y"], dtype=np.float64)
    ny, nx = image.shape
    inside = (np.rint(x) >= half) & (np.rint(y) >= half) & (np.rint(x) < nx - half) & (np.rint(y) < ny - half)
    x, y = x[inside], y[inside]
    if x.size == 0:
        return Residuals(x, y, x, y)
    pixels, variance = _stamps(image, x, y, half)
    models = image.psf.placed_stamps(x=x, y=y, side=2 * half + 1)
    e1, e2 = shape_residuals(pixels, variance, models.astype(np.float32), fwhm=fwhm)
    scale = pixel_scale_arcsec / 60.0
    return without_outliers(Residuals(x * scale, y * scale, e1, e2))


def _stamps(
    image: CalibratedImage, x: NDArray[np.float64], y: NDArray[np.float64], half: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return stamps about the nearest pixels, NaN where pixels are not usable, and their variances."""
    offsets = np.arange(-half, half + 1)
    rows = np.rint(y).astype(np.intp)[:, None, None] + offsets[None, :, None]
    columns = np.rint(x).astype(np.intp)[:, None, None] + offsets[None, None, :]
    usable = image.pixels.is_usable()[rows, columns]
    stamps = np.where(usable, image.pixels.image[rows, columns], np.float32(np.nan))
    return stamps, np.where(usable, image.pixels.variance[rows, columns], np.float32(1.0))
