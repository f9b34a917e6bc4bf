"""Bring a score to unit variance away from sources."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


class ScoreNoise(NamedTuple):
    """Robust scatter of a score on a coarse mesh."""

    mesh: NDArray[np.float64]
    """Scatter in boxes, ``[n_y, n_x]``."""
    median: float
    lowest: float
    highest: float


def measure_score_noise(score: Float32Image, usable: Bools, *, box: int = 384) -> ScoreNoise:
    """Return the robust standard deviation of ``score`` over usable pixels in boxes of about ``box`` pixels.

    Half the distance between the 16th and the 84th percentile about the median would be pulled by crowds of
    residuals; the half-width that holds the central half of the pixels is used (0.6745 sigma).
    """
    ny, nx = score.shape
    n_y, n_x = max(1, round(ny / box)), max(1, round(nx / box))
    edges_y, edges_x = (np.linspace(0, size, n + 1).astype(int) for size, n in ((ny, n_y), (nx, n_x)))
    mesh = np.full((n_y, n_x), np.nan)
    for j in range(n_y):
        for i in range(n_x):
            part = np.s_[edges_y[j] : edges_y[j + 1] : 2, edges_x[i] : edges_x[i + 1] : 2]
            values = score[part][usable[part]]
            if values.size >= 200:
                low, high = np.percentile(values, [25, 75])
                mesh[j, i] = (high - low) / 1.349
    if not np.isfinite(mesh).any():
        mesh[:] = 1.0
    median = float(np.nanmedian(mesh))
    mesh = np.where(np.isfinite(mesh) & (mesh > 0), mesh, median if median > 0 else 1.0)
    return ScoreNoise(mesh, median, float(mesh.min()), float(mesh.max()))


def noise_factor(noise: ScoreNoise, shape: tuple[int, int]) -> Float32Image:
    """Return the scatter interpolated linearly to every pixel of an image of ``shape``."""
    axes = []
    for n, size in zip(noise.mesh.shape, shape, strict=True):
        centres = (np.arange(n) + 0.5) * size / n - 0.5
        axes.append(np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(n)], axis=1))
    return np.asarray(axes[0].astype(np.float32) @ noise.mesh.astype(np.float32) @ axes[1].T.astype(np.float32))
