"""Local maxima of a score image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detection.lit import local_maxima


class Peaks(NamedTuple):
    """Local maxima, the most significant first."""

    x: NDArray[np.float64]
    """Position, pixels, refined by a parabola through the neighbours."""
    y: NDArray[np.float64]
    score: NDArray[np.float32]
    """Value at the peak pixel (negative for negative peaks)."""

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Peaks:
        """Return the peaks that a boolean or integer array picks."""
        return Peaks(self.x[index], self.y[index], self.score[index])


def detect_peaks(
    score: NDArray[np.float32],
    threshold: float,
    *,
    is_negative: bool = False,
    border: int = 0,
    max_peaks: int = 2_000_000,
) -> Peaks:
    """Return the pixels of ``score`` that reach ``threshold`` and exceed their eight neighbours.

    ``is_negative`` looks for minima at or below ``-threshold``. Pixels within ``border`` of the edge are
    not looked at; NaN is never a peak. Of equal neighbours the first in reading order is taken. If there are
    more than ``max_peaks``, the most significant are returned.
    """
    sign = np.float32(-1.0 if is_negative else 1.0)
    yi, xi = local_maxima(score, threshold, sign=float(sign), border=border)
    value = sign * score[yi, xi]
    order = np.argsort(-value, kind="stable")[:max_peaks]
    xi, yi, value = xi[order], yi[order], value[order]
    x, y = refine_peaks(score, xi, yi, sign=float(sign))
    return Peaks(x, y, (sign * value).astype(np.float32))


def refine_peaks(
    score: NDArray[np.float32], xi: NDArray[np.integer], yi: NDArray[np.integer], *, sign: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sub-pixel (x, y) of peak pixels, by a parabola through the neighbours along each axis."""
    ny, nx = score.shape
    is_inside = (xi > 0) & (xi < nx - 1) & (yi > 0) & (yi < ny - 1)
    xs, ys = np.clip(xi, 1, nx - 2), np.clip(yi, 1, ny - 2)
    x, y = xi.astype(np.float64), yi.astype(np.float64)
    if min(ny, nx) < 3:
        return x, y
    middle = sign * score[ys, xs].astype(np.float64)
    dx = _vertex(sign * score[ys, xs - 1].astype(np.float64), middle, sign * score[ys, xs + 1].astype(np.float64))
    dy = _vertex(sign * score[ys - 1, xs].astype(np.float64), middle, sign * score[ys + 1, xs].astype(np.float64))
    return x + np.where(is_inside, dx, 0.0), y + np.where(is_inside, dy, 0.0)


def _vertex(
    before: NDArray[np.float64], middle: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    curvature = before + after - 2.0 * middle
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = 0.5 * (before - after) / curvature
    return np.where(np.isfinite(offset) & (curvature < 0), np.clip(offset, -0.5, 0.5), 0.0)
