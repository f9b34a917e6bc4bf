"""How sharp the sharpest stars of an image are, without a catalog."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.mode import half_sample_mode


class StarSharpness(NamedTuple):
    """What a pixel's neighbours hold when the pixel is the peak of a star."""

    neighbour_ratio: float
    """Mean of two opposite neighbours over the peak, for the sharpest stars; 0 for a point, 1 for a plateau."""
    fwhm: float
    """Typical full width at half maximum, pixels."""
    n_stars: int
    """Peaks from which this was measured; 0: assumed."""


ASSUMED = StarSharpness(neighbour_ratio=0.29, fwhm=1.5, n_stars=0)
"""For images without enough stars: as sharp as an undersampled telescope can make them."""


def measure_star_sharpness(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    *,
    significances: tuple[float, ...] = (40.0, 15.0),
    min_stars: int = 12,
    tolerance: float = 0.25,
) -> StarSharpness:
    """Measure the sharpness of star-like peaks: as narrow in x as in y, and not a single pixel.

    For a Gaussian the geometric mean of opposite neighbours over the peak is exp(-1 / 2 sigma^2)
    wherever the centre falls within the pixel, and their arithmetic mean is never less. Stars are alike and cosmic rays
    are not: peaks within ``tolerance`` of the width (in sigma) at which most lie are stars. The sharpest
    tenth of these gives the ratio, so that a PSF that varies over the field is covered. Where too few peaks stand out
    by the first of ``significances``, fainter ones are looked at; with fewer than ``min_stars`` stars `ASSUMED` is
    returned.
    """
    for significance in significances:
        ratio_x, ratio_y = _peak_ratios(image, level, rms, is_masked, significance)
        smaller, larger = np.minimum(ratio_x, ratio_y), np.maximum(ratio_x, ratio_y)
        # Tracks of cosmic rays are narrow one way only, single hits are narrower than any optics.
        is_star_like = (smaller > 0.12) & (smaller > 0.6 * larger)
        smaller, larger = smaller[is_star_like], larger[is_star_like]
        sigma = np.sqrt(-0.5 / np.log(np.clip(np.sqrt(smaller * larger), 0.01, 0.99)))
        is_star = np.abs(np.log(sigma) - half_sample_mode(np.log(sigma))) < tolerance
        if is_star.sum() >= min_stars:
            sharpest = float(np.percentile(smaller[is_star], 10.0))
            return StarSharpness(sharpest, 2.3548 * float(np.median(sigma[is_star])), int(is_star.sum()))
    return ASSUMED


@numba.njit(cache=True, error_model="numpy")
def _peak_ratios(image, level, rms, is_masked, min_significance):  # type: ignore[no-untyped-def]
    """Return, for each local maximum, the geometric mean of the neighbours along x and y over the peak."""
    ny, nx = image.shape
    limit = 20000
    ratio_x = np.zeros(limit)
    ratio_y = np.zeros(limit)
    n = 0
    for y in range(2, ny - 2):
        for x in range(2, nx - 2):
            peak = image[y, x] - level[y, x]
            if peak < min_significance * rms[y, x] or n >= limit:
                continue
            value = image[y, x]
            if (
                value < image[y, x - 1] or value < image[y, x + 1] or value < image[y - 1, x]
                or value < image[y + 1, x] or value < image[y - 1, x - 1] or value < image[y - 1, x + 1]
                or value < image[y + 1, x - 1] or value < image[y + 1, x + 1]
            ):  # fmt: skip
                continue
            if np.any(is_masked[y - 2 : y + 3, x - 2 : x + 3]):
                continue
            left, right = image[y, x - 1] - level[y, x], image[y, x + 1] - level[y, x]
            below, above = image[y - 1, x] - level[y, x], image[y + 1, x] - level[y, x]
            ratio_x[n] = math.sqrt(max(left, 0.0) * max(right, 0.0)) / peak
            ratio_y[n] = math.sqrt(max(below, 0.0) * max(above, 0.0)) / peak
            n += 1
    return ratio_x[:n], ratio_y[:n]
