"""What the PSF model leaves of the stars' shapes, correlated over distance: TE1 to TE4 of LPM-17 section 3.3.5.

E1, E2 and Ex are the means of de1 de1', de2 de2' and de1 de2' over pairs of stars, where de is the ellipticity of a
star less that of the model. TE1 limits the median over images within 1 arcmin, TE2 beyond 5 arcmin; TE3 and TE4 are
exceeded by no more than TEF (15) per cent of the images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.moments import measure_shapes
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.verification.estimate import Estimate, measured, nothing

Floats = NDArray[np.float64]

LEAST_PAIRS = 20
"""Of stars of one image."""


class Residuals(NamedTuple):
    """Ellipticities of stars less those of the model at their places."""

    x_arcmin: Floats
    y_arcmin: Floats
    e1: Floats
    e2: Floats


class Correlations(NamedTuple):
    """Mean products of residuals of pairs of one image."""

    e11: float
    e22: float
    e12: float
    n: int
    """Pairs."""


def shape_residuals(
    stamps: NDArray[np.float32], variances: NDArray[np.float32], models: NDArray[np.float32], *, fwhm: float
) -> tuple[Floats, Floats]:
    """Return (e1, e2) of stars less those of their models, by adaptive moments; NaN where they do not settle.

    ``[n, side, side]`` stamps in electrons without sky, their noise variance, and the model at the star's phase; stars
    are within a pixel of the middle. Pixels that are not finite are masked.
    """
    star, model = _ellipticities(stamps, variances, fwhm), _ellipticities(models, np.ones_like(models), fwhm)
    return star[0] - model[0], star[1] - model[1]


def without_outliers(residuals: Residuals, *, n_sigma: float = 5.0) -> Residuals:
    """Return the residuals of stars near those of most: a neighbour within a star's stamp spoils its moments."""
    kept = np.isfinite(residuals.e1) & np.isfinite(residuals.e2)
    for values in (residuals.e1, residuals.e2):
        if kept.any():
            middle, sigma = median_and_sigma(values[kept])
            kept &= ~(np.abs(values - middle) > n_sigma * max(sigma, 1e-9))
    return Residuals._make(values[kept] for values in residuals)


def _ellipticities(stamps: NDArray[np.float32], variances: NDArray[np.float32], fwhm: float) -> tuple[Floats, Floats]:
    n, side, _ = stamps.shape
    tall = np.ascontiguousarray(stamps.reshape(n * side, side), dtype=np.float32)
    lost = ~np.isfinite(tall)
    shapes = measure_shapes(
        np.where(lost, np.float32(0), tall), np.ascontiguousarray(variances.reshape(n * side, side)), lost,
        x=np.full(n, float(side // 2)), y=side // 2 + side * np.arange(n, dtype=np.float64), sigma=fwhm / 2.3548,
    )  # fmt: skip
    trace = shapes.xx + shapes.yy
    return (shapes.xx - shapes.yy) / trace, 2.0 * shapes.xy / trace


def correlations(residuals: Residuals, *, low_arcmin: float, high_arcmin: float) -> Correlations:
    """Return the mean products of pairs whose distance is within limits; NaN without pairs."""
    known = np.isfinite(residuals.e1) & np.isfinite(residuals.e2)
    x, y, e1, e2 = (values[known] for values in residuals)
    one, two = np.triu_indices(x.size, k=1)
    distance = np.hypot(x[one] - x[two], y[one] - y[two])
    chosen = (distance >= low_arcmin) & (distance < high_arcmin)
    one, two = one[chosen], two[chosen]
    if one.size == 0:
        return Correlations(np.nan, np.nan, np.nan, 0)
    cross = 0.5 * (e1[one] * e2[two] + e2[one] * e1[two])
    return Correlations(float(np.mean(e1[one] * e1[two])), float(np.mean(e2[one] * e2[two])), float(np.mean(cross)),
                        int(one.size))  # fmt: skip


def typical_correlation(images: list[Correlations]) -> Estimate:
    """Return TE1 or TE2: the size of the median over images, of the largest of E1, E2 and Ex. ``n`` are images.

    Its error is that of the mean over the images: where it exceeds the value, this is noise.
    """
    used = _enough(images)
    if len(used) == 0:
        return nothing(0, f"no image has {LEAST_PAIRS} pairs of stars at this distance")
    medians = np.abs(np.median(used, axis=0))
    worst = int(np.argmax(medians))
    error = float(np.std(used[:, worst], ddof=1) / np.sqrt(len(used))) if len(used) > 1 else np.nan
    return measured(float(medians[worst]), error, len(used))


def exceeded_correlation(images: list[Correlations], *, percent: float = 15.0) -> Estimate:
    """Return TE3 or TE4: what the largest of E1, E2 and Ex exceeds in ``percent`` of the images. ``n`` are images."""
    used = _enough(images)
    if len(used) < 3:
        return nothing(
            len(used), f"{len(used)} images have {LEAST_PAIRS} pairs of stars at this distance, 3 are needed"
        )
    worst = np.abs(used).max(axis=1)
    error = 1.2533 * float(np.std(worst, ddof=1) / np.sqrt(len(used)))
    return measured(float(np.quantile(worst, 1.0 - percent / 100.0)), error, len(used))


def _enough(images: list[Correlations]) -> Floats:
    rows = [(item.e11, item.e22, item.e12) for item in images if item.n >= LEAST_PAIRS]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
