"""Star lists and fine PSFs of images, as the difference tasks share them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.spline import shifted_stamps
from gueststar.algorithms.subtraction.fine_psf import (
    FACTOR,
    FinePsf,
    cell_centres,
    fine_psf_from_phases,
    make_fine_psf,
)
from gueststar.algorithms.subtraction.stars import StarFits, find_isolated_stars, fit_stars
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.model.image import CalibratedImage
from gueststar.model.psf import Psf

NOT_FOR_STARS = UNUSABLE | MaskPlane.SUSPECT
"""Planes whose pixels must not lie in a star that is used to compare images."""


@lru_cache(maxsize=8)  # the same few models are asked for by every step; a model is known by itself, not its values
def fine_psf_of(psf: Psf, *, cells: int = 6) -> FinePsf:
    """Return a PSF's stamps, finely sampled, on ``cells`` x ``cells`` parts of its image; nobody may alter them."""
    x, y = cell_centres(psf.shape, (cells, cells))
    if psf.oversampling == 1:
        return make_fine_psf(psf.stamps(x=x, y=y), psf.shape, (cells, cells))
    return fine_psf_from_phases(stamps_at_phases(psf, x=x, y=y, n=FACTOR), psf.shape, (cells, cells))


def stamps_at_phases(psf: Psf, *, x: NDArray[np.float64], y: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Return image samples ``[n, n, places, k, k]`` of stars centred (a, b) / n pixels from the stamps' middle."""
    sums = psf.stamp_sums(x=x, y=y)[:, None, None]
    none = np.zeros(x.size)
    return np.stack(
        [
            np.stack([shifted_stamps(psf.spline, x=x, y=y, dx=none + a / n, dy=none + b / n) / sums for a in range(n)])
            for b in range(n)
        ]
    )


def isolated_stars_of(
    image: CalibratedImage, *, snr: float, max_stars: int, where: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (x, y) of isolated bright peaks of an image, or of the pixels ``where`` alone."""
    usable = image.pixels.is_usable(NOT_FOR_STARS)
    return find_isolated_stars(
        image.pixels.image, image.pixels.variance, usable if where is None else usable & where,
        fwhm=image.psf.central_fwhm, snr=snr, max_stars=max_stars,
    )  # fmt: skip


def fit_same_stars(
    science: CalibratedImage, reference_warped: CalibratedImage, *, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[StarFits, StarFits]:
    """Return PSF fits of stars at (x, y) on two images of one grid: of those that are on both."""
    fits = []
    for image in (science, reference_warped):
        pixels, radius = image.pixels, max(4, round(1.5 * image.psf.central_fwhm))
        usable = pixels.is_usable(NOT_FOR_STARS)
        fits.append(fit_stars(pixels.image, pixels.variance, usable, fine_psf_of(image.psf), x=x, y=y, radius=radius))
    good = are_on_both(*fits)
    return fits[0].where(good), fits[1].where(good)


def are_on_both(ours: StarFits, theirs: StarFits, *, least_snr: float = 5.0) -> NDArray[np.bool_]:
    """Return which stars were fitted on both images, and are significant on both.

    Stars are sought on one image. What is new there, a transient, an artificial source or a cosmic ray, is nothing on
    the other: a fit to its noise would tell any ratio of fluxes, and where stars are few these are many.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.isfinite(ours.x) & np.isfinite(theirs.x)
            & (ours.flux > least_snr * ours.flux_err) & (theirs.flux > least_snr * theirs.flux_err)
        )  # fmt: skip
