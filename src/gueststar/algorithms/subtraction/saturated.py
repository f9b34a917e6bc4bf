"""Give saturated stars their cores back, as the PSF says from their wings."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.detection.saturated import connected_regions
from gueststar.algorithms.subtraction.fine_psf import FinePsf, render_value, stamp_at
from gueststar.algorithms.subtraction.match import PolynomialField
from gueststar.algorithms.subtraction.stars import StarFits, fit_stars

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def find_saturated_cores(saturated: Bools, *, min_pixels: int = 2) -> tuple[Floats, Floats]:
    """Return (x, y) of the thickest place of each connected group of saturated pixels."""
    x, y = [], []
    for rows, columns in connected_regions(saturated, min_pixels=min_pixels):
        top, left = int(rows.min()) - 1, int(columns.min()) - 1
        core = np.zeros((int(rows.max()) - top + 2, int(columns.max()) - left + 2), dtype=bool)
        core[rows - top, columns - left] = True
        depth = ndimage.distance_transform_edt(core)
        deep_rows, deep_columns = np.nonzero(depth >= 0.9 * depth.max())
        x.append(left + float(np.median(deep_columns)))
        y.append(top + float(np.median(deep_rows)))
    return np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)


def fit_saturated(
    image: Float32Image, variance: Float32Image, usable: Bools, psf: FinePsf, *, x: Floats, y: Floats
) -> StarFits:
    """Fit the PSF to the usable pixels about saturated cores, over the whole of its stamp."""
    return fit_stars(
        image, variance, usable, psf, x=x, y=y, radius=psf.half, with_background=False, max_shift=4.0, min_usable=0.25
    )


def restore_cores(
    science: Float32Image,
    reference: Float32Image,
    fits: tuple[StarFits, StarFits],
    psfs: tuple[FinePsf, FinePsf],
    *,
    saturated: Bools,
    flux_ratio: PolynomialField,
) -> tuple[Float32Image, Float32Image, Bools]:
    """Return both images with the PSF of fitted stars at ``saturated`` pixels, and where they were written.

    A star takes one place and one flux in both, the means of its two fits, as it is the wings' mismatch that
    makes them differ. Only stars fitted on both images are restored.
    """
    ours, theirs = fits
    good = np.isfinite(ours.x) & np.isfinite(theirs.x) & (ours.flux > 0) & (theirs.flux > 0)
    x, y = (ours.x[good] + theirs.x[good]) / 2, (ours.y[good] + theirs.y[good]) / 2
    ratio = 1.0 + flux_ratio(x, y)
    flux = (ours.flux[good] + theirs.flux[good] * ratio) / 2
    images, written = [], []
    for image, psf, f in ((science, psfs[0], flux), (reference, psfs[1], flux / ratio)):
        restored, where = image.copy(), np.zeros(image.shape, bool)
        _write(restored, saturated, where, psf.stamps, psf.cell[0], psf.cell[1], psf.half, x, y, f)
        images.append(restored)
        written.append(where)
    return images[0], images[1], written[0] & written[1]


@njit(cache=True)
def _write(image, cores, written, stamps, cell_y, cell_x, half, x, y, flux):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    value = np.empty((2 * half + 1, 2 * half + 1))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])), int(np.rint(y[k]))
        render_value(stamp_at(stamps, cell_y, cell_x, x[k], y[k]), x[k] - x0, y[k] - y0, half, value)
        for j in range(max(y0 - half, 0), min(y0 + half + 1, ny)):
            for i in range(max(x0 - half, 0), min(x0 + half + 1, nx)):
                if cores[j, i]:
                    if not written[j, i]:
                        image[j, i] = 0.0
                        written[j, i] = True
                    image[j, i] += flux[k] * value[j - y0 + half, i - x0 + half]
