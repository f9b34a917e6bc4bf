"""Fringe patterns from many images of different pointings: how many there are, and what each looks like.

Fringes are light of the sky's emission lines that interferes within a thinned detector. Their pattern belongs to
the detector, their strength to the sky: one pattern per group of lines that vary together. Seen against that, stars
differ from pointing to pointing, and noise from image to image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.background.mesh import bin_pixels, expand_cells, grow_by_one
from gueststar.algorithms.illumination.fringe_fit import flattened
from gueststar.algorithms.stats.robust import median_and_sigma

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]

_FACTOR_ROUNDS = 100
"""Rounds in which the loadings and the shared variance of the images settle."""


@dataclass(frozen=True)
class FringePatternConfig:
    """How fringe patterns are found in a set of images."""

    cell: int = 4
    """Side of the cells on which images are compared, pixels."""
    window: int = 256
    """Structure wider than this, pixels, is sky."""
    max_patterns: int = 3
    """Most patterns that are looked for."""
    min_significance: float = 5.0
    """A pattern must stand above what noise alone would share between images by so many sigma."""
    clip_sigma: float = 4.0
    """Cells, and pixels of single images, further than this from what the patterns foretell are left out."""
    smoothing: float = 2.0
    """Sigma of the Gaussian that smooths the patterns, pixels, applied twice so that waves of 8 sigma keep 93 %
    of their amplitude and those of 12 sigma 98 %; 0: not at all."""


class FringePatterns(NamedTuple):
    """Patterns that images share; empty (``[0, y, x]``) if they share nothing beyond noise."""

    patterns: NDArray[np.float32]
    """``[k, y, x]``, as fractions of the level; the first is scaled so that its mean strength is 1."""
    variance: Float32Image
    """Of the first pattern, before smoothing; 0 where no image was usable."""
    strengths: Floats
    """``[n, k]`` of the patterns in each image."""
    significances: Floats
    """Of each pattern, in sigma of what noise would share; one more than ``k``: that of the next, not taken."""
    n_used: NDArray[np.int16]
    """Images in use at every pixel."""

    @property
    def rms(self) -> Floats:
        """Robust scatter of each pattern over the detector, fraction of the level."""
        return np.array([median_and_sigma(pattern[self.n_used > 0])[1] for pattern in self.patterns])


def find_fringe_patterns(
    images: Sequence[Float32Image],
    levels: Sequence[float],
    *,
    config: FringePatternConfig = FringePatternConfig(),
) -> FringePatterns:
    """Return the patterns that ``images`` share, relative to their ``levels`` (of sky or lamp).

    Pixels that are not usable or show a source are NaN. The images should be of different pointings: what stays on
    the same pixels, stars included, is taken for a pattern. At least three are needed, else ValueError. Images are
    compared on cells less their wider surroundings; how many patterns there are is told by the eigenvalues of what
    they share, against the largest that noise would give (Wigner 1955); loadings by iterated principal factors
    (Harman 1976, ch. 8), which leave each image's own noise out. Then every pixel's share of each pattern is fitted
    to all images with clipping.
    """
    if len(images) < 3:
        raise ValueError(f"{len(images)} images, at least 3 are needed to tell fringes from sky")
    cells, is_free = _compared_cells(images, levels, config)
    strengths, significances, cell_noise = _loadings(cells, is_free, config)
    shape = images[0].shape
    if strengths.shape[1] == 0:
        empty = np.zeros((0, *shape), np.float32)
        none = np.zeros(shape, np.int16)
        return FringePatterns(empty, np.zeros(shape, np.float32), strengths, significances, none)
    flat = np.empty((len(images), *shape), np.float32)
    for row, (image, level) in enumerate(zip(images, levels, strict=True)):
        flat[row] = _less_surroundings(image, config) / np.float32(level)
    weights = 1.0 / np.maximum(cell_noise, 1e-12) ** 2
    patterns, variance, n_used = _fit_pixels(flat, strengths, weights, config.clip_sigma)
    patterns = _smoothed(patterns, n_used > 0, config.smoothing)
    return FringePatterns(patterns, variance, strengths, significances, n_used)


def shift_patterns(flat: Float32Image, *, sigma: float) -> NDArray[np.float32]:
    """Return ``[2, y, x]`` what a shift of the light by one pixel in y, in x, does to an image divided by its flat.

    Derivatives of Gaussians, relative to the flat; 0 where the flat is not positive.
    """
    is_lit = np.isfinite(flat) & (flat > 0)
    light = np.where(is_lit, flat, np.float32(0.0))
    slopes = [ndimage.gaussian_filter(light, sigma, order=order) for order in ((1, 0), (0, 1))]
    return np.stack([np.divide(slope, light, out=np.zeros_like(slope), where=is_lit) for slope in slopes])


def _compared_cells(
    images: Sequence[Float32Image], levels: Sequence[float], config: FringePatternConfig
) -> tuple[Floats, Bools]:
    """Return the images' cells ``[n, m]`` less their surroundings, and which are free of sources."""
    size = max(3, config.window // config.cell)
    values, free = [], []
    for image, level in zip(images, levels, strict=True):
        cells, _, number = bin_pixels(image, np.zeros(image.shape, np.bool_), config.cell)
        cells = cells / np.float32(level)
        is_free = number >= 0.5 * config.cell**2
        for _ in range(3):
            flat = flattened(cells, is_free, size)
            noise = median_and_sigma(flat[is_free])[1]
            is_free &= ~grow_by_one(is_free & (np.abs(flat) > config.clip_sigma * noise))
        values.append(flattened(cells, is_free, size).ravel())
        free.append(is_free.ravel())
    return np.array(values), np.array(free)


def _loadings(cells: Floats, is_free: Bools, config: FringePatternConfig) -> tuple[Floats, Floats, Floats]:
    """Return strengths ``[n, k]``, the significance of each pattern and of the next, and the noise of each image."""
    n = cells.shape[0]
    common = is_free.astype(np.float64) @ is_free.astype(np.float64).T
    shared = np.divide(cells @ cells.T, common, out=np.zeros((n, n)), where=common > 0)
    total = np.diag(shared).copy()
    strengths, significances = np.zeros((n, 0)), []
    while True:
        noise = np.sqrt(np.maximum(total - (strengths**2).sum(axis=1), 0.05 * total))
        rest = (shared - strengths @ strengths.T) * np.sqrt(common) / np.outer(noise, noise)
        np.fill_diagonal(rest, 0.0)
        largest = float(np.linalg.eigvalsh(rest)[-1])
        significances.append(largest - 2.0 * np.sqrt(n))
        n_more = strengths.shape[1] + 1
        if significances[-1] < config.min_significance or n_more > min(config.max_patterns, n - 1):
            break
        strengths = _principal_factors(shared, n_more)
    return _oriented(strengths), np.array(significances), noise


def _principal_factors(shared: Floats, n_factors: int) -> Floats:
    """Return loadings ``[n, k]`` whose products explain what the images share off the diagonal."""
    reduced = shared.copy()
    for _ in range(_FACTOR_ROUNDS):
        values, vectors = np.linalg.eigh(reduced)
        loadings = vectors[:, -n_factors:] * np.sqrt(np.maximum(values[-n_factors:], 0.0))
        own = np.minimum((loadings**2).sum(axis=1), np.diag(shared))
        moved = np.max(np.abs(own - np.diag(reduced)))
        np.fill_diagonal(reduced, own)
        if moved < 1e-6 * np.max(np.diag(shared)):
            break
    return np.asarray(loadings[:, ::-1])


def _oriented(strengths: Floats) -> Floats:
    """Return loadings with the first of mean one and the others of root mean square one."""
    scaled = strengths.copy()
    for k in range(strengths.shape[1]):
        mean = strengths[:, k].mean()
        size = mean if k == 0 and abs(mean) > 0.3 * np.std(strengths[:, k]) else np.sqrt(np.mean(strengths[:, k] ** 2))
        scaled[:, k] /= size
    return scaled


def _less_surroundings(image: Float32Image, config: FringePatternConfig) -> Float32Image:
    """Return an image less its mean over the window; NaN stays."""
    cells, _, number = bin_pixels(image, np.zeros(image.shape, np.bool_), config.cell)
    is_free = number >= 0.5 * config.cell**2
    size = max(3, config.window // config.cell)
    wide = (np.where(is_free, cells, 0.0) - flattened(cells, is_free, size)).astype(np.float32)
    wide[~is_free] = _near(wide, is_free)
    return np.asarray(image - expand_cells(wide, config.cell, *image.shape), dtype=np.float32)


def _near(values: Float32Image, is_known: Bools) -> Float32Image:
    """Return, for the unknown cells in order, the value of the nearest known one (0 if there is none)."""
    if not is_known.any():
        return np.zeros(int((~is_known).sum()), np.float32)
    place = ndimage.distance_transform_edt(~is_known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(place[:, ~is_known])], dtype=np.float32)


def _fit_pixels(
    flat: NDArray[np.float32], strengths: Floats, weights: Floats, clip_sigma: float
) -> tuple[NDArray[np.float32], Float32Image, NDArray[np.int16]]:
    noise = np.array([median_and_sigma(image)[1] for image in flat])
    return _fit_pixels_compiled(flat, strengths, weights / weights.mean(), noise, clip_sigma)


@numba.njit(cache=True)
def _fit_pixels_compiled(flat, strengths, weights, noise, clip_sigma):  # type: ignore[no-untyped-def]
    n, ny, nx = flat.shape
    k = strengths.shape[1]
    patterns = np.zeros((k, ny, nx), np.float32)
    variance = np.zeros((ny, nx), np.float32)
    n_used = np.zeros((ny, nx), np.int16)
    values, is_in = np.empty(n), np.empty(n, np.bool_)
    kept = np.empty(n)
    for y in range(ny):
        for x in range(nx):
            m = 0
            for i in range(n):
                values[i] = flat[i, y, x]
                is_in[i] = np.isfinite(values[i])
                if is_in[i]:
                    kept[m] = values[i] / strengths[i, 0] if abs(strengths[i, 0]) > 0.2 else 0.0
                    m += 1
            if m < k + 1:
                continue
            share = np.zeros(k)
            share[0] = np.median(kept[:m])
            normal = np.zeros((k, k))
            for _ in range(3):
                normal[:] = 0.0
                right = np.zeros(k)
                count = 0
                for i in range(n):
                    if not is_in[i]:
                        continue
                    foretold = 0.0
                    for a in range(k):
                        foretold += share[a] * strengths[i, a]
                    if abs(values[i] - foretold) > clip_sigma * noise[i]:
                        continue
                    count += 1
                    for a in range(k):
                        right[a] += weights[i] * strengths[i, a] * values[i]
                        for b in range(k):
                            normal[a, b] += weights[i] * strengths[i, a] * strengths[i, b]
                if count < k + 1:
                    break
                for a in range(k):
                    normal[a, a] *= 1.0 + 1e-9
                share = np.linalg.solve(normal, right)
                n_used[y, x] = count
            if n_used[y, x] == 0:
                continue
            for a in range(k):
                patterns[a, y, x] = share[a]
            spread = 0.0
            for i in range(n):
                if is_in[i]:
                    spread += (weights[i] * strengths[i, 0] * noise[i]) ** 2
            variance[y, x] = spread / normal[0, 0] ** 2
    return patterns, variance, n_used


def _smoothed(patterns: NDArray[np.float32], is_known: Bools, sigma: float) -> NDArray[np.float32]:
    """Return the patterns smoothed over known pixels, and filled from near ones where nothing is known.

    What the Gaussian takes is smoothed again and put back (twicing, Tukey 1977, ch. 16): it flattens crests less.
    """
    if sigma <= 0:
        return patterns
    weight = np.maximum(ndimage.gaussian_filter(is_known.astype(np.float32), sigma), np.float32(1e-3))

    def smooth(values: Float32Image) -> Float32Image:
        return np.asarray(ndimage.gaussian_filter(np.where(is_known, values, np.float32(0.0)), sigma) / weight)

    first = [smooth(pattern) for pattern in patterns]
    return np.stack([once + smooth(pattern - once) for once, pattern in zip(first, patterns, strict=True)])
