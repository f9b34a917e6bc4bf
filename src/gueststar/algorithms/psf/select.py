"""Choose the stars from which the PSF is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.detection.peaks import Peaks
from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.psf.moments import Shapes, measure_shapes
from gueststar.algorithms.stats.mode import half_sample_mode

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class SelectConfig:
    """How PSF stars are chosen."""

    min_snr: float = 30.0
    """Least signal to noise of a PSF star."""
    relaxed_snr: float = 10.0
    """The same where there are fewer than ``enough`` stars."""
    enough: int = 20
    """With fewer stars than this the limits are relaxed."""
    max_stars: int = 600
    """Most stars used, spread evenly over the image."""
    size_tolerance: tuple[float, float] = (0.06, 0.15)
    """Least and largest half width of the size locus, as a fraction of the size; twice its scatter in between."""
    max_neighbour: float = 0.2
    """Largest flux of a neighbour within two FWHM, as a fraction of the star's."""
    looked_at_per_star: int = 4
    """Peaks that are measured for each star that may be used; the faintest beyond are not looked at."""
    cells: int = 8
    """The image is divided into cells x cells parts for an even spread."""


class Selection(NamedTuple):
    """Stars of the size locus."""

    rows: NDArray[np.int64]
    """Rows of the peaks that were chosen, the most significant first."""
    shapes: Shapes
    """Their moments."""
    sigma: float
    """Typical size of a star: standard deviation of its matched Gaussian, pixels."""
    n_candidates: int
    """Peaks that were bright and clean enough to be looked at."""


def select_stars(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    peaks: Peaks,
    *,
    fwhm: float,
    config: SelectConfig = SelectConfig(),
) -> Selection:
    """Return peaks that look like single unsaturated stars, by their place in the size-brightness plane.

    ``fwhm`` (pixels) need only be right to a factor of two. Stars share one size, which may change slowly over
    the image; galaxies and blends are larger, cosmic rays smaller. Peaks with masked pixels in the core
    (saturation included) and with bright close neighbours are left out. With few stars the limits on
    brightness are relaxed; the result may be empty.
    """
    sigma = fwhm / 2.3548
    chosen = _select(image, sky_variance, is_masked, peaks, sigma, config.min_snr, config)
    if chosen.rows.size < config.enough:
        relaxed = _select(image, sky_variance, is_masked, peaks, sigma, config.relaxed_snr, config)
        chosen = relaxed if relaxed.rows.size > chosen.rows.size else chosen
    return chosen


def spread_evenly(x: Floats64, y: Floats64, *, shape: tuple[int, int], cells: int, limit: int) -> NDArray[np.int64]:
    """Return up to ``limit`` rows, taking from each cell of the image in turn, earlier rows first."""
    cell_x = np.clip((x * cells / shape[1]).astype(int), 0, cells - 1)
    cell_y = np.clip((y * cells / shape[0]).astype(int), 0, cells - 1)
    cell = cell_y * cells + cell_x
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], cell[order])
    turn = np.empty(x.size, dtype=np.int64)
    turn[order] = np.arange(x.size) - first
    return np.sort(np.argsort(turn, kind="stable")[:limit])


def _select(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    peaks: Peaks,
    sigma: float,
    min_snr: float,
    config: SelectConfig,
) -> Selection:
    bright = np.flatnonzero(peaks.score >= min_snr)
    size = (image.shape[0], image.shape[1])
    looked_at = config.looked_at_per_star * config.max_stars
    bright = bright[spread_evenly(peaks.x[bright], peaks.y[bright], shape=size, cells=config.cells, limit=looked_at)]
    bright = bright[_is_isolated(peaks, bright, radius=2.0 * 2.3548 * sigma, fraction=config.max_neighbour)]
    shapes = measure_shapes(image, sky_variance, is_masked, x=peaks.x[bright], y=peaks.y[bright], sigma=sigma)
    is_clean = (shapes.n_masked == 0) & np.isfinite(shapes.sigma) & (shapes.flux > 0)
    bright, shapes = bright[is_clean], shapes.select(is_clean)
    if bright.size == 0:
        return Selection(bright, shapes, sigma, 0)
    typical, is_star = _on_locus(shapes, size, config.size_tolerance)
    stars, shapes = bright[is_star], shapes.select(is_star)
    kept = spread_evenly(shapes.x, shapes.y, shape=size, cells=config.cells, limit=config.max_stars)
    return Selection(stars[kept], shapes.select(kept), typical, int(bright.size))


def _is_isolated(peaks: Peaks, index: NDArray[np.int64], *, radius: float, fraction: float) -> NDArray[np.bool_]:
    if index.size == 0:
        return np.zeros(0, dtype=bool)
    tree = cKDTree(np.column_stack([peaks.x, peaks.y]))
    near = tree.query_ball_point(np.column_stack([peaks.x[index], peaks.y[index]]), radius)
    return np.array(
        [
            all(n == i or peaks.score[n] < fraction * peaks.score[i] for n in group)
            for i, group in zip(index, near, strict=True)
        ]
    )


def _on_locus(shapes: Shapes, shape: tuple[int, int], limits: tuple[float, float]) -> tuple[float, NDArray[np.bool_]]:
    """Return the typical size and which sources have it, allowing for a smooth trend over the image."""
    size, snr = np.log(shapes.sigma), shapes.flux / shapes.flux_err
    brightest = np.argsort(-snr, kind="stable")[: max(25, min(300, size.size // 2))]
    mode = half_sample_mode(size[brightest])
    near = np.abs(size[brightest] - mode)
    scatter = 1.4826 * float(np.median(near[near < 2.0 * limits[1]]))
    tolerance = float(np.clip(2.0 * scatter, *limits))
    # An error of the size of about 0.7 / SNR is what a Gaussian in white noise has.
    width = np.sqrt(tolerance**2 + (2.0 / snr) ** 2)
    is_star = np.abs(size - mode) < 3.0 * width
    trend = np.full(size.size, mode)
    for _ in range(4):
        n = int(is_star.sum())
        order = 2 if n >= 60 else 1 if n >= 20 else 0
        terms = polynomial_terms(*normalised(shapes.x, shapes.y, shape), order).T
        if n:
            weight = 1.0 / width[is_star]
            solution = np.linalg.lstsq(terms[is_star] * weight[:, None], size[is_star] * weight, rcond=None)[0]
            trend = terms @ solution
        is_star = np.abs(size - trend) < width
    typical = float(np.exp(np.median(trend[is_star]))) if is_star.any() else float(np.exp(mode))
    return typical, is_star
