"""How uniform the zero points of a survey's images are, and how far its scale is from a catalog's.

LPM-17 section 3.3.2: PA3 is the width of the distribution of internal zero-point errors, of which no more than PF2 per
cent exceed PA4; PA5 is the error of colours between filters, PA6 that of the transformation to a physical scale. The
internal error of an image is taken from the stars that it shares with others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.verification.estimate import Estimate, measured, nothing
from gueststar.algorithms.verification.photometric import quantile
from gueststar.algorithms.verification.stars import Detections, mean_magnitudes, seen_often

Floats = NDArray[np.float64]

LEAST_IMAGES = 5
"""With fewer images nothing is said."""

LEAST_STARS = 10
"""Of an image that takes part."""


class ImageOffsets(NamedTuple):
    """Zero points of images against the others."""

    offset_mmag: Floats
    """By how much an image makes its stars fainter than the others do; images with too few stars are left out."""
    error_mmag: Floats
    """From the scatter of its stars."""


def image_offsets(rows: Detections, *, rounds: int = 5) -> ImageOffsets:
    """Return the zero points of images against each other, from stars seen at least twice.

    Means of stars and offsets of images are found in turn; medians keep variable stars from counting.
    """
    often = seen_often(rows, at_least=2)
    n_images = often.n_images
    offset, error = np.zeros(n_images), np.full(n_images, np.nan)
    order = np.argsort(often.image, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(often.image, minlength=n_images))[:-1]) if n_images else []
    enough = np.array([part.size >= LEAST_STARS for part in parts], dtype=bool)
    for _ in range(rounds):
        corrected = often._replace(mag=often.mag - offset[often.image])
        away = often.mag - mean_magnitudes(corrected)[often.star]
        for image in np.flatnonzero(enough):
            values = away[parts[image]]
            offset[image] = np.median(values)
            spread = 1.4826 * np.median(np.abs(values - offset[image]))
            error[image] = 1.2533 * spread / np.sqrt(values.size)
    offset = offset[enough] - np.mean(offset[enough]) if enough.any() else offset[:0]
    return ImageOffsets(1000.0 * offset, 1000.0 * error[enough] if enough.size else error[:0])


def uniformity(offsets: ImageOffsets) -> Estimate:
    """Return PA3 in mmag: the rms of the images' zero points, less what noise brings. ``n`` are images."""
    n = offsets.offset_mmag.size
    if n < LEAST_IMAGES:
        return nothing(n, f"{n} images share stars with others, {LEAST_IMAGES} are needed")
    total = float(np.sum(offsets.offset_mmag**2) / (n - 1))
    value = np.sqrt(max(total - float(np.mean(offsets.error_mmag**2)), 0.0))
    return measured(float(value), float(np.sqrt(total / (2.0 * (n - 1)))), n)


def uniformity_outliers(offsets: ImageOffsets, *, limit_mmag: float) -> Estimate:
    """Return PF2: per cent of images whose zero point is off by more than PA4. ``n`` are images."""
    n = offsets.offset_mmag.size
    if n < LEAST_IMAGES:
        return nothing(n, f"{n} images share stars with others, {LEAST_IMAGES} are needed")
    share = float(np.mean(np.abs(offsets.offset_mmag) > limit_mmag))
    return measured(100.0 * share, 100.0 * float(np.sqrt(max(share * (1 - share), 0.25 / n) / n)), n)


def uniformity_limit(offsets: ImageOffsets, *, percent: float) -> Estimate:
    """Return PA4 in mmag: by how much ``percent`` of the zero points are off at least. ``n`` are images."""
    n = offsets.offset_mmag.size
    if n < LEAST_IMAGES:
        return nothing(n, f"{n} images share stars with others, {LEAST_IMAGES} are needed")
    return measured(*quantile(np.abs(offsets.offset_mmag), 1.0 - percent / 100.0), n)


def scale_error(difference_mag: Floats) -> Estimate:
    """Return PA5 or PA6 in mmag: the size of the median difference from a catalog (of colours, of magnitudes)."""
    good = difference_mag[np.isfinite(difference_mag)]
    if good.size < LEAST_STARS:
        return nothing(int(good.size), f"{good.size} stars are in the reference catalog, {LEAST_STARS} are needed")
    middle = float(np.median(good))
    spread = 1.4826 * float(np.median(np.abs(good - middle)))
    return measured(1000.0 * abs(middle), 1000.0 * 1.2533 * spread / np.sqrt(good.size), int(good.size))
