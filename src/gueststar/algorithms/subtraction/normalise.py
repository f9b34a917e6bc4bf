"""Bring a score to unit variance away from sources."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.stats.select import quantile_of
from gueststar.algorithms.subtraction.match import interpolate_mesh

Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


class ScoreNoise(NamedTuple):
    """Robust scatter of a score on a coarse mesh."""

    mesh: NDArray[np.float64]
    """Scatter in boxes, ``[n_y, n_x]``."""
    median: float
    lowest: float
    highest: float


QUIET_INFLATION = 1.1
"""Noise of the score over its photon noise up to which a pixel counts as away from sources."""

_LOST = (0.05, 0.15, 0.3, 0.5, 1.0)
"""Limits of the classes of lost power in which a score's noise is measured."""
_MOST_EXCESS = 2.0
"""What is measured beyond this is no noise of filled pixels."""


def measure_score_noise(
    score: Float32Image, usable: Bools, *, box: int = 384, inflation: Float32Image | None = None
) -> ScoreNoise:
    """Return the robust standard deviation of ``score`` over usable pixels in boxes of about ``box`` pixels.

    The distance between the quartiles is used: the wings of the distribution hold sources and residuals. Given
    ``inflation``, the noise by mismatch over photon noise, pixels near sources do not count as long as a fifth of a
    box is left: there the score's noise is an estimate made to be safe, and in crowded fields such pixels rule.
    """
    ny, nx = score.shape
    n_y, n_x = max(1, round(ny / box)), max(1, round(nx / box))
    edges_y, edges_x = (np.linspace(0, size, n + 1).astype(int) for size, n in ((ny, n_y), (nx, n_x)))
    mesh = np.full((n_y, n_x), np.nan)
    for j in range(n_y):
        for i in range(n_x):
            part = np.s_[edges_y[j] : edges_y[j + 1] : 2, edges_x[i] : edges_x[i + 1] : 2]
            values = _quiet_values(score[part], usable[part], None if inflation is None else inflation[part])
            if values.size >= 200:
                mesh[j, i] = median_sigma(values)
    if not np.isfinite(mesh).any():
        mesh[:] = 1.0
    median = float(np.nanmedian(mesh))
    mesh = np.where(np.isfinite(mesh) & (mesh > 0), mesh, median if median > 0 else 1.0)
    return ScoreNoise(mesh, median, float(mesh.min()), float(mesh.max()))


def _quiet_values(score: Float32Image, usable: Bools, inflation: Float32Image | None) -> Float32Image:
    if inflation is None:
        return score[usable]
    quiet = usable & (inflation < QUIET_INFLATION)
    return score[quiet if quiet.sum() > 0.2 * usable.sum() else usable]


def median_sigma(values: Float32Image) -> float:
    """Return the standard deviation of normal deviates that has this distance between the quartiles."""
    return (quantile_of(values, 0.75) - quantile_of(values, 0.25)) / 1.349


def normalise_in_place(score: Float32Image, variance: Float32Image, excluded: Bools, noise: ScoreNoise) -> None:
    """Divide ``score`` by its interpolated scatter (0 where excluded) and multiply ``variance`` by its square."""
    factor = interpolate_mesh(noise.mesh, (score.shape[0], score.shape[1]))
    _divide(score, variance, excluded, factor)


@njit(cache=True)
def _divide(score, variance, excluded, factor):  # type: ignore[no-untyped-def]
    for y in range(score.shape[0]):
        for x in range(score.shape[1]):
            f = factor[y, x]
            score[y, x] = np.float32(0) if excluded[y, x] else score[y, x] / f
            variance[y, x] *= f * f


def excess_where_filled(score: Float32Image, lost: Float32Image, usable: Bools, *, inflation: Float32Image) -> float:
    """Return by how much the variance of a score of unit variance exceeds one, for each part of lost power.

    Where pixels are filled from their neighbours, their noise is that of the neighbours, and counts twice. By how much
    depends on seeing and on the shape of defects, so it is measured.

    Parameters
    ----------
    lost
        Part of a point source's squared profile that lies on filled pixels (`lost_power`).
    usable, inflation
        As of `measure_score_noise`.
    """
    is_quiet = usable & (lost > _LOST[0]) & (inflation < QUIET_INFLATION)
    values, parts = score[is_quiet], lost[is_quiet]
    above = below = 0.0
    for low, high in pairwise(_LOST):
        chosen = (parts > low) & (parts <= high)
        n, part = np.count_nonzero(chosen), float(parts[chosen].mean()) if chosen.any() else 0.0
        if n >= 200:
            above += n * part * (median_sigma(values[chosen]) ** 2 - 1.0)
            below += n * part**2
    return min(max(above / below, 0.0), _MOST_EXCESS) if below else 0.0


def take_off_excess_in_place(score: Float32Image, variance: Float32Image, lost: Float32Image, excess: float) -> None:
    """Divide ``score`` by its noise where power is ``lost`` to filled pixels; multiply ``variance`` by its square."""
    if excess > 0:
        _take_off_excess(score, variance, lost, np.float32(excess))


@njit(cache=True)
def _take_off_excess(score, variance, lost, excess):  # type: ignore[no-untyped-def]
    for y in range(score.shape[0]):
        for x in range(score.shape[1]):
            if lost[y, x] > 0:
                square = np.float32(1) + excess * lost[y, x]
                score[y, x] /= np.sqrt(square)
                variance[y, x] *= square
