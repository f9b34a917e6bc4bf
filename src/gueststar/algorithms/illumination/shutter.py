"""How much longer or shorter than told each pixel is exposed, from flats of several exposure times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.background.mesh import bin_pixels, expand_cells
from gueststar.algorithms.stats.robust import median_and_sigma

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShutterConfig:
    """How the shutter's travel is measured."""

    block: int = 16
    """Side of the blocks that are averaged, pixels."""
    smoothing: float = 1.0
    """Sigma of the Gaussian over blocks, after a median of 3 x 3."""
    min_ratio: float = 4.0
    """The longest exposure must be so many times the shortest."""


class ShutterMap(NamedTuple):
    """Time by which the true exposure exceeds the told one."""

    seconds: NDArray[np.float32]
    """At every pixel."""
    error: NDArray[np.float32]
    """1 sigma of its departure from the mean, seconds."""
    mean: float
    """Over the detector, weighted by its response, seconds."""
    mean_error: float
    """From how well the frames' levels follow a straight line: the lamp's drift is in it."""
    structure: float
    """Scatter over the detector beyond the noise, seconds."""
    significance: float
    """Of the structure or of the mean, whichever is clearer, in sigma."""


def block_levels(
    image: NDArray[np.float32], is_masked: NDArray[np.bool_], *, block: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and its variance over blocks of usable pixels; NaN where less than a quarter is usable."""
    mean, variance, number = bin_pixels(image, is_masked, block)
    is_known = number >= 0.25 * block**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(is_known, mean, np.nan), np.where(is_known, variance / number, np.nan)


def fit_shutter(
    levels: NDArray[np.floating],
    variances: NDArray[np.floating],
    exposures_s: Floats,
    *,
    shape: tuple[int, int],
    config: ShutterConfig = ShutterConfig(),
) -> ShutterMap:
    """Fit ``level = brightness x response x (exposure + delay)`` to blocks of flats ``[n, by, bx]``.

    ``levels`` are electrons per pixel of each frame's blocks as `block_levels` gives them. The mean delay is that of a
    straight line through the frames' mean levels: it assumes a steady lamp, and its error holds the lamp's scatter.
    Given it, every frame's brightness follows, and the delay of each block relative to the mean does not depend on
    the lamp at all (Stetson 1989, in Highlights of Astronomy 8, 635). ValueError if the exposures do not span
    ``min_ratio`` or there are fewer than three.
    """
    times = np.asarray(exposures_s, dtype=np.float64)
    if times.size < 3 or times.max() < config.min_ratio * times.min():
        raise ValueError(
            f"{times.size} flats of {times.min():g} to {times.max():g} s; needs 3 and a ratio of {config.min_ratio:g}"
        )
    in_all = np.isfinite(levels).all(axis=0)
    if not in_all.any():
        raise ValueError("no block is usable in all flats")
    means = np.array([level[in_all].mean(dtype=np.float64) for level in levels])
    mean, mean_error = _mean_delay(means, times)
    brightness = means / (times + mean)
    values = levels / brightness[:, None, None]
    noise = np.maximum(variances, 1e-12) / brightness[:, None, None] ** 2
    weight = np.where(np.isfinite(values), 1.0 / noise, 0.0)
    filled = np.where(np.isfinite(values), values, 0.0)
    t = (times + mean)[:, None, None]
    s, st, stt = weight.sum(0), (weight * t).sum(0), (weight * t * t).sum(0)
    sv, stv = (weight * filled).sum(0), (weight * t * filled).sum(0)
    determinant = s * stt - st * st
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (s * stv - st * sv) / determinant
        delay = (stt * sv - st * stv) / determinant / slope
        error = np.sqrt(stt / determinant) / slope
    return _smoothed(delay, error, np.where(in_all, slope, 0.0), mean, mean_error, shape, config)


def _mean_delay(means: Floats, times: Floats) -> tuple[float, float]:
    """Return the delay of the frames as a whole and its error, lamp drift included."""
    weight = 1.0 / np.maximum(means, 1e-9) ** 2  # the lamp's scatter is a fraction of the level
    design = np.stack([times, np.ones_like(times)], axis=1)
    inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
    slope, offset = inverse @ (design.T @ (weight * means))
    residual = (means - design @ np.array([slope, offset])) * np.sqrt(weight)
    spread = float(np.sum(residual**2)) / max(times.size - 2, 1)
    return float(offset / slope), float(np.sqrt(inverse[1, 1] * spread) / slope)


def _smoothed(
    delay: Floats, error: Floats, response: Floats, mean: float, mean_error: float, shape: tuple[int, int],
    config: ShutterConfig,
) -> ShutterMap:  # fmt: skip
    """Return the map whose mean, weighted by the response as the frames' levels are, is the measured one."""
    is_known = np.isfinite(delay) & np.isfinite(error)
    if not is_known.any():
        raise ValueError("no block of the flats is usable")
    filled = np.where(is_known, delay, np.median(delay[is_known]))
    noise = float(np.median(error[is_known]))
    spread = median_and_sigma(delay[is_known])[1]
    trend = _trend(filled, is_known)
    smooth = ndimage.median_filter(filled - trend, 3, mode="nearest")
    smooth = ndimage.gaussian_filter(smooth, config.smoothing, mode="nearest") + trend
    smooth -= np.average(smooth, weights=np.maximum(np.where(is_known, response, 0.0), 0.0))
    structure = float(np.sqrt(max(np.var(smooth) - (0.4 * noise) ** 2, 0.0)))
    chi2 = (spread / noise) ** 2 if noise > 0 else 0.0
    significance = max((chi2 - 1.0) * np.sqrt(is_known.sum() / 2.0), abs(mean) / max(mean_error, 1e-12))
    return ShutterMap(
        seconds=expand_cells((smooth + mean).astype(np.float32), config.block, *shape),
        error=expand_cells(np.where(is_known, 0.5 * error, noise).astype(np.float32), config.block, *shape),
        mean=mean, mean_error=mean_error, structure=structure, significance=float(significance),
    )  # fmt: skip


def _trend(delay: Floats, is_known: NDArray[np.bool_]) -> Floats:
    """Return the polynomial of fourth order that the blocks follow: filters of the rest do not flatten its rim."""
    v, u = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in delay.shape), indexing="ij")
    terms = np.stack([u**i * v**j for i in range(5) for j in range(5 - i)], axis=-1)
    used = is_known & (np.abs(delay - np.median(delay)) < 6.0 * max(median_and_sigma(delay[is_known])[1], 1e-12))
    if used.sum() < 4 * terms.shape[-1]:
        return np.zeros_like(delay)
    coefficients = np.linalg.lstsq(terms[used], delay[used], rcond=None)[0]
    return np.asarray(terms @ coefficients)


@numba.njit(cache=True)
def correct_exposure_in_place(image, seconds, exposure_s):  # type: ignore[no-untyped-def]
    """Multiply by told over true exposure time; pixels whose true time would not be positive stay."""
    told = np.float32(exposure_s)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            true = told + seconds[y, x]
            if true > np.float32(0.1) * told:
                image[y, x] *= told / true
