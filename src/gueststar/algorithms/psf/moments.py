"""Sizes and ellipticities by moments under a Gaussian weight matched to the object.

Bernstein & Jarvis (2002, AJ 123, 583) explain the method; the weight is kept round here, and the moments are
corrected for it as if the object were a Gaussian.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]

ITERATIONS = 12
"""Steps towards the matched weight."""

NARROWEST = 0.8
"""Least width of the weight, pixels: a narrower one is not sampled well enough by the pixels."""

WEIGHT_REACH = 3.5
"""How far out a weight is taken into account, in its widths."""

_MOST_GROWTH = 16.0
"""How much wider, squared, a weight may get than it started."""


class Shapes(NamedTuple):
    """Weighted moments, arrays of one length; NaN where they did not settle."""

    x: Floats64
    y: Floats64
    flux: Floats64
    """Total flux of the matched Gaussian."""
    flux_err: Floats64
    xx: Floats64
    """Second moments, corrected for the weight, pixels squared."""
    yy: Floats64
    xy: Floats64
    n_masked: NDArray[np.int64]
    """Masked pixels within twice the starting width."""

    @property
    def sigma(self) -> Floats64:
        """Size: the square root of the mean of xx and yy, pixels."""
        return np.sqrt(0.5 * (self.xx + self.yy))

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Shapes:
        """Return some of the rows."""
        return Shapes._make(values[index] for values in self)


def measure_shapes(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    *,
    x: Floats64,
    y: Floats64,
    sigma: float,
) -> Shapes:
    """Return centroids, fluxes and second moments of sources near (x, y).

    The round Gaussian weight starts with width ``sigma`` (pixels) and follows the object between half and
    four times that; masked pixels are left out.
    """
    n = len(x)
    out = np.full((7, n), np.nan)
    n_masked = np.zeros(n, dtype=np.int64)
    _shapes(
        image,
        sky_variance,
        is_masked,
        np.asarray(x, dtype=np.float64),
        np.asarray(y, dtype=np.float64),
        float(sigma),
        out,
        n_masked,
    )
    return Shapes._make([*out, n_masked])


@njit(cache=True, error_model="numpy")
def _shapes(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    x: Floats64,
    y: Floats64,
    sigma: float,
    out: Floats64,
    n_masked: NDArray[np.int64],
) -> None:
    along_x, sums = np.empty(widest_side(sigma)), np.empty(7)
    for n in range(x.size):
        cx, cy, w2, is_settled = _matched_weight(
            image, sky_variance, is_masked, x[n], y[n], sigma, True, 1e-4, along_x, sums
        )
        if is_settled:
            _weighted_sums(image, sky_variance, is_masked, cx, cy, w2, along_x, sums)
            out[4, n], out[5, n], out[6, n] = _true_moments(sums, w2)
            out[0, n], out[1, n] = cx, cy
            # Under a weight of width w, a Gaussian of width s keeps w^2 / (w^2 + s^2) of its flux.
            size = 0.5 * (out[4, n] + out[5, n])
            out[2, n], out[3, n] = (1.0 + size / w2) * sums[0], (1.0 + size / w2) * np.sqrt(sums[6])
        n_masked[n] = _count_masked(is_masked, x[n], y[n], 2 * sigma)


@njit(cache=True, error_model="numpy", _nrt=False)
def matched_moments(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    x: float,
    y: float,
    sigma: float,
    along_x: Floats64,
    sums: Floats64,
) -> tuple[float, float, float]:
    """Return (xx, yy, xy) about a held centre, as `measure_shapes` does; NaN where they do not settle.

    ``along_x`` and ``sums`` are work arrays of `widest_side` and of 7 values.
    """
    cx, cy, w2, is_settled = _matched_weight(image, sky_variance, is_masked, x, y, sigma, False, 1e-3, along_x, sums)
    if not is_settled:
        return np.nan, np.nan, np.nan
    _weighted_sums(image, sky_variance, is_masked, cx, cy, w2, along_x, sums)
    return _true_moments(sums, w2)


@njit(cache=True, error_model="numpy", _nrt=False)
def widest_weight(sigma: float) -> float:
    """Return how far from its centre the widest weight reaches that starts with width ``sigma``, pixels."""
    return WEIGHT_REACH * np.sqrt(max(_MOST_GROWTH * sigma * sigma, NARROWEST**2))


@njit(cache=True, error_model="numpy", _nrt=False)
def widest_side(sigma: float) -> int:
    """Return the side in pixels of the box that holds the widest weight that starts with width ``sigma``."""
    return 2 * int(np.ceil(widest_weight(sigma))) + 1


@njit(cache=True, error_model="numpy", _nrt=False)
def _matched_weight(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    x: float,
    y: float,
    sigma: float,
    is_centred: bool,
    tolerance: float,
    along_x: Floats64,
    sums: Floats64,
) -> tuple[float, float, float, bool]:
    """Return centre and squared width of the round Gaussian that matches the object, and whether there is one."""
    cx, cy, w2 = x, y, max(sigma, NARROWEST) ** 2
    for _ in range(ITERATIONS):
        _weighted_sums(image, sky_variance, is_masked, cx, cy, w2, along_x, sums)
        if not sums[0] > 0:
            return cx, cy, w2, False
        dx, dy = sums[1] / sums[0], sums[2] / sums[0]
        if is_centred:
            # Twice the weighted offset is the full one where the weight matches.
            cx, cy = cx + 2 * dx, cy + 2 * dy
        xx, yy = sums[3] / sums[0] - dx * dx, sums[4] / sums[0] - dy * dy
        if abs(cx - x) > 2 * sigma or abs(cy - y) > 2 * sigma or not (xx > 0 and yy > 0):
            return cx, cy, w2, False
        size = 0.5 * (xx + yy)
        matched = size * w2 / (w2 - size) if size < 0.95 * w2 else 20.0 * w2
        before = w2
        w2 = min(max(matched, 0.25 * sigma * sigma, NARROWEST**2), _MOST_GROWTH * sigma * sigma)
        is_still = not is_centred or dx * dx + dy * dy < 1e-6
        if is_still and abs(w2 - before) < tolerance * w2:
            break
    return cx, cy, w2, True


@njit(cache=True, error_model="numpy", _nrt=False)
def _true_moments(sums: Floats64, w2: float) -> tuple[float, float, float]:
    """Return the moments corrected for the weight: its inverse is taken from the inverse of the measured ones."""
    dx, dy = sums[1] / sums[0], sums[2] / sums[0]
    xx, yy, xy = sums[3] / sums[0] - dx * dx, sums[4] / sums[0] - dy * dy, sums[5] / sums[0] - dx * dy
    det = xx * yy - xy * xy
    a, b, c = yy / det - 1 / w2, xx / det - 1 / w2, -xy / det
    true_det = a * b - c * c
    if a > 0 and b > 0 and true_det > 0:
        return b / true_det, a / true_det, -c / true_det
    return np.nan, np.nan, np.nan


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _weighted_sums(
    image: NDArray[np.float32],
    sky_variance: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    cx: float,
    cy: float,
    w2: float,
    along_x: Floats64,
    sums: Floats64,
) -> None:
    """Write sums of weight times value, x, y, xx, yy, xy about (cx, cy), and of weight squared times variance.

    ``along_x`` is a work array of `widest_side` values. Sums may be taken in any order; nothing is assumed of NaN.
    """
    sums[:] = 0.0
    radius = int(np.ceil(WEIGHT_REACH * np.sqrt(w2)))
    ix, iy = int(np.rint(cx)), int(np.rint(cy))
    x0, x1 = max(0, ix - radius), min(image.shape[1], ix + radius + 1)
    n = max(x1 - x0, 0)
    for i in range(n):
        along_x[i] = np.exp(-0.5 * (x0 + i - cx) ** 2 / w2)
    for j in range(max(0, iy - radius), min(image.shape[0], iy + radius + 1)):
        line, noise, lost = image[j, x0:x1], sky_variance[j, x0:x1], is_masked[j, x0:x1]
        s0, s1, s2, var = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            w, dx = 0.0 if lost[i] else along_x[i], x0 + i - cx
            f = 0.0 if lost[i] else w * line[i]
            s0 += f
            s1 += f * dx
            s2 += f * dx * dx
            var += 0.0 if lost[i] else w * w * noise[i]
        dy = j - cy
        along_y = np.exp(-0.5 * dy * dy / w2)
        sums[0] += along_y * s0
        sums[1] += along_y * s1
        sums[2] += along_y * s0 * dy
        sums[3] += along_y * s2
        sums[4] += along_y * s0 * dy * dy
        sums[5] += along_y * s1 * dy
        sums[6] += along_y * along_y * var


@njit(cache=True, error_model="numpy", _nrt=False)
def _count_masked(is_masked: NDArray[np.bool_], x: float, y: float, radius: float) -> int:
    count, r = 0, int(np.ceil(radius))
    ix, iy = int(np.rint(x)), int(np.rint(y))
    for j in range(iy - r, iy + r + 1):
        for i in range(ix - r, ix + r + 1):
            if (i - x) ** 2 + (j - y) ** 2 > radius * radius:
                continue
            if j < 0 or i < 0 or j >= is_masked.shape[0] or i >= is_masked.shape[1] or is_masked[j, i]:
                count += 1
    return count
