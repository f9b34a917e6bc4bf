"""Hold the PSF model against stars that were kept aside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.fit import StarFits
from gueststar.algorithms.psf.moments import measure_shapes

Floats64 = NDArray[np.float64]


class ShapeDifferences(NamedTuple):
    """Stars against the model at their place and phase, arrays of one length; NaN where moments did not settle."""

    size: Floats64
    """Trace of the model's second moments, pixels squared."""
    size_difference: Floats64
    """(T_star - T_model) / T_model."""
    e1_difference: Floats64
    e2_difference: Floats64


def compare_shapes(fits: StarFits, *, fwhm: float) -> ShapeDifferences:
    """Return differences of adaptive moments between stars (neighbours subtracted) and their fitted models."""
    star, model = _stack_shapes(fits.data, fits, fwhm), _stack_shapes(fits.model, fits, fwhm)
    size = model[0]
    return ShapeDifferences(size, star[0] / size - 1.0, star[1] - model[1], star[2] - model[2])


def summary(values: Floats64) -> dict[str, float | int | None]:
    """Return robust mean, its error and the scatter of a sample, as plain values (None when there are too few)."""
    good = values[np.isfinite(values)]
    for _ in range(3):
        if good.size < 3:
            return {"n": int(good.size), "mean": None, "mean_err": None, "rms": None}
        centre = np.median(good)
        spread = max(1.4826 * float(np.median(np.abs(good - centre))), 1e-12)
        good = good[np.abs(good - centre) < 4.0 * spread]
    mean, rms = float(np.mean(good)), float(np.std(good))
    return {"n": int(good.size), "mean": mean, "mean_err": rms / float(np.sqrt(good.size)), "rms": rms}


def by_brightness(flux: Floats64, values: Floats64, *, n_bins: int = 4) -> list[dict[str, float | int | None]]:
    """Return summaries in bins of equal numbers of stars, the brightest first, each with its median flux."""
    return [{"flux": float(np.median(flux[part])), **summary(values[part])} for part in _equal_bins(-flux, n_bins)]


def by_distance(distance: Floats64, values: Floats64, *, n_bins: int = 3) -> list[dict[str, float | int | None]]:
    """Return summaries in bins of equal numbers of stars, those in the middle of the image first.

    Each bin tells the median ``distance`` from the middle, pixels.
    """
    bins = _equal_bins(distance, n_bins)
    return [{"distance": float(np.median(distance[part])), **summary(values[part])} for part in bins]


def _equal_bins(key: Floats64, n_bins: int) -> list[NDArray[np.int64]]:
    return [part for part in np.array_split(np.argsort(key, kind="stable"), n_bins) if part.size]


def _stack_shapes(stamps: NDArray[np.float32], fits: StarFits, fwhm: float) -> tuple[Floats64, Floats64, Floats64]:
    """Return T, e1 and e2 of each stamp; the stamps are laid side by side in one tall image for that."""
    n, side, _ = stamps.shape
    tall = np.ascontiguousarray(stamps.reshape(n * side, side))
    lost = ~np.isfinite(fits.sky_variance.reshape(n * side, side))
    variance = np.where(lost, np.float32(1), fits.sky_variance.reshape(n * side, side))
    shapes = measure_shapes(
        np.where(lost, np.float32(0), tall), variance, np.zeros_like(lost),
        x=side // 2 + fits.x - np.rint(fits.x),
        y=side // 2 + fits.y - np.rint(fits.y) + side * np.arange(n),
        sigma=fwhm / 2.3548,
    )  # fmt: skip
    trace = shapes.xx + shapes.yy
    is_whole = ~_has_lost_core(lost.reshape(n, side, side), fwhm)
    trace = np.where(is_whole, trace, np.nan)
    return trace, (shapes.xx - shapes.yy) / trace, 2.0 * shapes.xy / trace


def _has_lost_core(lost: NDArray[np.bool_], fwhm: float) -> NDArray[np.bool_]:
    middle, reach = lost.shape[1] // 2, int(np.ceil(1.5 * fwhm))
    core = slice(max(middle - reach, 0), middle + reach + 1)
    return np.asarray(lost[:, core, core].any(axis=(1, 2)))
