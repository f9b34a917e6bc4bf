"""Pixels that do not respond as their neighbours do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.stats.stack import Stack

FloatImage = NDArray[np.floating]


class Columns(NamedTuple):
    """How a detector is read out: a bad column runs where charge moves, and ends where other amplifiers begin."""

    axis: int = 0
    """Along which charge moves."""
    parts: tuple[slice, ...] = (slice(None),)
    """Of that axis, each read out by amplifiers of its own."""


ONE_READOUT = Columns()
"""Columns of all rows, read out by one row of amplifiers."""


@dataclass(frozen=True)
class DefectConfig:
    """When a pixel of a calibration master is a defect."""

    significance: float = 10.0
    """Bias and dark: further than this from its surroundings, in units of the scatter of the master..."""
    min_read_noises: float = 3.0
    """...and further than this many times the read noise (bias) or the noise of the dark (see ``exposure_s``)."""
    column_significance: float = 8.0
    """A column is bad if its median is off those of near columns by this many sigma of such medians..."""
    column_fraction: float = 0.3
    """...or if more than this fraction of its pixels are defects."""
    flat_range: tuple[float, float] = (0.6, 1.4)
    """Flat: response relative to the surroundings outside which a pixel is dead or hot; less divides out."""
    max_rejected_fraction: float = 0.4
    """A pixel is unstable if more than this fraction of the frames was rejected there."""
    window: int = 15
    """Side of the surroundings, pixels."""


def find_offset_defects(
    master: FloatImage, *, noise: float, both_signs: bool, columns: Columns = ONE_READOUT,
    config: DefectConfig = DefectConfig(),
) -> NDArray[np.bool_]:  # fmt: skip
    """Return the pixels and columns of a bias or dark master that stand out of their surroundings.

    ``noise`` is what one frame's noise is in the unit of the master: offsets that drown in it subtract well and
    are no defects. With ``both_signs`` False (dark) only what is warmer counts.
    """
    filled = np.where(np.isfinite(master), master, np.float32(np.nanmedian(master)))
    residual = filled - _median_around(filled, config.window)
    is_bad: NDArray[np.bool_] = ~np.isfinite(master)
    up, marked = np.moveaxis(residual, columns.axis, 0), np.moveaxis(is_bad, columns.axis, 0)
    for part in columns.parts:
        marked[part] |= _stands_out(up[part], noise=noise, both_signs=both_signs, config=config)
    return is_bad


def _stands_out(residual: FloatImage, *, noise: float, both_signs: bool, config: DefectConfig) -> NDArray[np.bool_]:
    medians = np.median(residual, axis=0)
    within = residual - medians  # amplifiers have column patterns that subtract well
    floor = config.min_read_noises * noise
    is_bad = _size(within, both_signs) > max(config.significance * _scatter(within), floor)
    usual = median_and_sigma(medians)[1]
    is_column = _size(medians - np.median(medians), both_signs) > max(config.column_significance * usual, floor)
    is_column |= is_bad.mean(axis=0) > config.column_fraction
    return np.asarray(is_bad | is_column[None, :])


def find_flat_defects(
    flat: FloatImage, *, columns: Columns = ONE_READOUT, config: DefectConfig = DefectConfig()
) -> NDArray[np.bool_]:
    """Return the pixels and columns of a flat (median one) that respond unlike those around them.

    Vignetting, dust and the usual differences between pixels divide out and are no defects. Pixels that are
    not finite or not positive are.
    """
    is_dead = ~np.isfinite(flat) | (flat <= 0)
    surroundings = _median_around(np.where(is_dead, np.nanmedian(flat), flat), config.window)
    low, high = config.flat_range
    is_bad = is_dead | (flat < low * surroundings) | (flat > high * surroundings)
    marked = np.moveaxis(is_bad, columns.axis, 0)
    for part in columns.parts:
        marked[part] |= marked[part].mean(axis=0) > config.column_fraction
    return np.asarray(is_bad)


def find_unstable(stack: Stack, *, config: DefectConfig = DefectConfig()) -> NDArray[np.bool_]:
    """Return the pixels at which the frames of a stack do not agree with one another, or none was usable."""
    n_all = stack.n_used.astype(np.int32) + stack.n_rejected
    return (stack.n_used == 0) | (stack.n_rejected > config.max_rejected_fraction * n_all)


def _median_around(image: FloatImage, window: int) -> FloatImage:
    """Return medians along columns of medians along rows: neither a bad pixel nor a bad column moves them."""
    across = ndimage.median_filter(image, size=(1, window), mode="nearest")
    return np.asarray(ndimage.median_filter(across, size=(window, 1), mode="nearest"))


def _size(values: FloatImage, both_signs: bool) -> FloatImage:
    return np.abs(values) if both_signs else values


def _scatter(residual: FloatImage) -> float:
    """Return the robust scatter of a sample of pixels."""
    return median_and_sigma(residual.ravel()[:: max(residual.size // 400_000, 1)])[1]
