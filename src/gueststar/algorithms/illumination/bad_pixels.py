"""Bad pixels re-derived from data in use: darks, flats of two levels, and what science images leave over."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.stats.robust import median_and_sigma

Bools = NDArray[np.bool_]
Float32Image = NDArray[np.float32]


@dataclass(frozen=True)
class BadPixelConfig:
    """When a pixel, or a piece of a column, is a defect."""

    significance: float = 6.0
    """Departure from the surroundings, in units of its error..."""
    min_noises: float = 0.5
    """...and of the noise that one image has per pixel: what drowns in it harms no measurement."""
    column_significance: float = 3.0
    """The same for the median of each of several neighbouring runs of pixels along the readout axis..."""
    column_min_noises: float = 0.15
    """...and of the noise of one pixel: a source covers many pixels of a column."""
    run: int = 32
    """Length of such a run, pixels."""
    min_runs: int = 3
    """Fewest neighbouring runs that must depart for a piece of a column to be bad."""
    column_fraction: float = 0.4
    """A run of which more than this fraction of the pixels is bad is bad as a whole."""
    ratio_range: tuple[float, float] = (0.93, 1.07)
    """Response in bright flats over that in faint ones outside which a pixel is a defect (traps, wells that leak)."""
    window: int = 15
    """Side of the surroundings of a pixel, pixels."""
    column_window: int = 7
    """Columns about one with which it is compared: few, for fringes and background change from column to column too."""
    max_score: int = 3
    """A pixel that was found so often stays bad for as many makings in which it is not."""


class BadPixels(NamedTuple):
    """Defects by what showed them."""

    is_pixel: Bools
    """Single pixels."""
    is_column: Bools
    """Pieces of columns."""

    @property
    def is_bad(self) -> Bools:
        """Either."""
        return np.asarray(self.is_pixel | self.is_column)


def find_bad_pixels(
    departure: Float32Image,
    error: Float32Image,
    *,
    noise: float,
    readout_axis: str = "y",
    config: BadPixelConfig = BadPixelConfig(),
) -> BadPixels:
    """Return the pixels and pieces of columns that depart from their surroundings.

    ``departure`` is a stack (dark rate, or what science images of many pointings leave over) in any unit and
    ``error`` its standard error, ``noise`` the noise of a pixel of one image in that unit. Pixels that are not finite,
    or whose error is not positive, are left alone. A piece of a column is bad if ``min_runs`` neighbouring runs along
    ``readout_axis`` depart together in their medians (traps and warm columns may be far below the noise of a pixel).
    """
    along_y = readout_axis == "y"
    values, sigma = (departure, error) if along_y else (departure.T, error.T)
    is_known = np.isfinite(values) & (sigma > 0)
    filled = np.where(is_known, values, np.float32(np.median(values[is_known]) if is_known.any() else 0.0))
    residual = filled - _surroundings(filled, config.window)
    usual = median_and_sigma(residual[is_known])[1]
    limit = np.maximum(config.significance * np.maximum(sigma, usual), config.min_noises * noise)
    is_pixel = is_known & (np.abs(residual) > limit)
    is_column = _bad_runs(residual, is_pixel, is_known, noise, config)
    return BadPixels(is_pixel, is_column) if along_y else BadPixels(is_pixel.T, is_column.T)


def find_unlike_response(
    bright: Float32Image,
    faint: Float32Image,
    error: Float32Image,
    *,
    readout_axis: str = "y",
    config: BadPixelConfig = BadPixelConfig(),
) -> BadPixels:
    """Return the pixels whose response in bright light is not that in faint light, other than their surroundings'.

    ``bright`` and ``faint`` are flats of median one, ``error`` that of their ratio. A trap holds back charge until
    it is full: its pixel, or the column behind it, is low in faint light.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (bright / faint).astype(np.float32)
    is_known = np.isfinite(ratio) & (bright > 0.1) & (faint > 0.1)
    if not is_known.any():
        return BadPixels(np.zeros(ratio.shape, dtype=bool), np.zeros(ratio.shape, dtype=bool))
    ratio = np.where(is_known, ratio, np.float32(np.median(ratio[is_known])))
    ratio = np.where(is_known, ratio / _surroundings(ratio, config.window), np.float32(np.nan))
    low, high = config.ratio_range
    noise = min(1.0 - low, high - 1.0) / max(config.min_noises, 1e-6)
    found = find_bad_pixels(ratio, error, noise=noise, readout_axis=readout_axis, config=config)
    is_out = is_known & ((ratio < low) | (ratio > high)) & (np.abs(ratio - 1.0) > config.significance * error)
    return BadPixels(np.asarray(found.is_pixel | is_out), found.is_column)


def updated_scores(is_bad: Bools, previous: NDArray[np.floating] | None, *, max_score: int) -> NDArray[np.float32]:
    """Return how often each pixel was found lately: one more if it is now, one less if not, 0 to ``max_score``.

    Pixels of score 1 and above are bad: a new defect counts at once, one that was seen for long is forgotten slowly.
    """
    before = np.zeros(is_bad.shape, np.float32) if previous is None else previous.astype(np.float32)
    return np.asarray(np.clip(before + np.where(is_bad, 1, -1), 0, max_score), dtype=np.float32)


def _bad_runs(residual: Float32Image, is_pixel: Bools, is_known: Bools, noise: float, config: BadPixelConfig) -> Bools:
    """Return pieces of columns (down the first axis) of which several runs depart alike."""
    ny, nx = residual.shape
    n_runs = max(1, ny // config.run)
    bounds = np.linspace(0, ny, n_runs + 1).astype(int)
    values = np.where(is_known, residual, np.nan)
    medians, share = np.zeros((n_runs, nx)), np.zeros((n_runs, nx))
    for i, (first, last) in enumerate(pairwise(bounds)):
        enough = is_known[first:last].sum(axis=0) >= 0.3 * (last - first)
        medians[i, enough] = np.nanmedian(values[first:last, enough], axis=0)
        share[i] = is_pixel[first:last].mean(axis=0)
    medians -= ndimage.median_filter(medians, size=(1, config.column_window), mode="nearest")
    usual = median_and_sigma(medians)[1]
    is_found = np.zeros((n_runs, nx), dtype=bool)
    for sign in (1.0, -1.0):
        is_found |= _departing_together(sign * medians, usual, noise, config)
    is_found |= share > config.column_fraction
    return np.repeat(is_found, np.diff(bounds), axis=0)


def _departing_together(medians: NDArray[np.float64], usual: float, noise: float, config: BadPixelConfig) -> Bools:
    """Return the runs ``[run, column]`` that, with neighbours in their column, lie above the others.

    Means over ever longer stretches are searched, each against its own noise, so that a whole column is found at a
    fraction of the noise of a run; of a stretch, runs that do not take part are left out at its ends.
    """
    n_runs = medians.shape[0]
    is_found = np.zeros(medians.shape, dtype=bool)
    length = min(config.min_runs, n_runs)
    lengths = sorted({length, min(2 * length, n_runs), min(4 * length, n_runs), n_runs})
    for length in lengths:
        # As strict as every run of the shortest stretch departing by column_significance, whatever the length.
        limit = config.column_significance * np.sqrt(min(config.min_runs, n_runs)) * usual / np.sqrt(length)
        limit = max(limit, config.column_min_noises * noise)
        mean = ndimage.uniform_filter1d(medians, length, axis=0, mode="constant") if length > 1 else medians
        is_centre = mean > limit
        if length < n_runs:
            half = length // 2
            is_centre[:half] = is_centre[n_runs - half :] = False
        reach = ndimage.maximum_filter1d(np.where(is_centre, mean, 0.0), length, axis=0)
        is_found |= (reach > 0) & (medians > 0.5 * reach)
    return np.asarray(is_found | ndimage.binary_closing(is_found, structure=np.ones((3, 1), dtype=bool)))


def _surroundings(image: Float32Image, window: int) -> Float32Image:
    """Return medians along rows, then along columns: neither a pixel nor a column moves them."""
    across = ndimage.median_filter(image, size=(1, window), mode="nearest")
    return np.asarray(ndimage.median_filter(across, size=(window, 1), mode="nearest"))
