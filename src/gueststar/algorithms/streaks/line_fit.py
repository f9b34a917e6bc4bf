"""The fit of a PSF-convolved line of even brightness: both ends, to a fraction of a pixel, with their errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.line_model import edge_at, make_tables
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.subtraction.fine_psf import FinePsf
from gueststar.algorithms.subtraction.stars import cholesky_solve

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Pixels(NamedTuple):
    """A difference image as the fits need it."""

    image: Float32Image
    variance: Float32Image
    """Such that fits on the scale of the PSF have the right error, noise of mismatch included."""
    usable: Bools
    noise_ratio: float
    """Variance of single pixels over that of the variance plane."""


@njit(cache=True)
def trusted_pixels(variance, inflation, mask, score, spoiled):  # type: ignore[no-untyped-def]
    """Return a variance with the noise of mismatch in it, and where pixels may be used.

    These are those with no bit ``spoiled`` (of the mask's type) in the mask, that the score does not leave out.
    """
    total, usable = np.empty(variance.shape, np.float32), np.empty(variance.shape, np.bool_)
    for y in range(variance.shape[0]):
        own, factor, bits, level = variance[y], inflation[y], mask[y], score[y]
        into, is_usable = total[y], usable[y]
        for x in range(own.size):
            into[x] = own[x] * (factor[x] * factor[x])
        for x in range(own.size):
            is_usable[x] = ((bits[x] & spoiled) == 0) & (level[x] != np.float32(0))
    return total, usable


class LineFit(NamedTuple):
    """A line of even brightness convolved with the PSF."""

    segment: Segment
    """From end to end; where an end is not seen, as far as the segment given."""
    flux_per_pixel: float
    """Flux of a pixel of length, image units."""
    flux_per_pixel_err: float
    end_err: tuple[float, float]
    """Errors of both ends along the line, pixels; NaN where the end was held."""
    across_err: tuple[float, float]
    """Errors of both ends across the line, pixels."""
    angle_err: float
    """Error of its direction, radians."""
    length_err: float
    """NaN unless both ends were fitted."""
    chi2: float
    """Per degree of freedom, single pixels."""
    n_pixels: int


def fit_line(
    pixels: Pixels, psf: FinePsf, segment: Segment, *, is_end_free: tuple[bool, bool], reach: float, clip: float = 4.0
) -> LineFit | None:
    """Fit flux and ends of a line by Gauss-Newton steps, starting from ``segment``; None if there is no fit.

    Ends that are not free keep their place along the line. Pixels within ``reach`` of the line, and as far beyond its
    free ends, take part; those more than ``clip`` sigma (and a third of the model) off are left out. The PSF is
    turned into the line anew when its direction has changed.
    """
    found = None
    for _ in range(3):
        if segment.length < 1.0:
            return None
        tables = make_tables(psf, segment, reach=reach)
        result = _fit(
            *pixels[:3], pixels.noise_ratio, tables.point, tables.edge, tables.slope, tables.reach,
            segment.x1, segment.y1, segment.x2, segment.y2, is_end_free[0], is_end_free[1], clip,
        )  # fmt: skip
        state, covariance, chi2, n = result
        if n < 8 or not np.isfinite(state).all() or not np.isfinite(covariance).all():
            return found
        before = segment.direction
        segment = segment.moved(start=state[3], end=state[4], across_start=state[1], across_end=state[2])
        found = _line_fit(segment, state, covariance, chi2, int(n), is_end_free)
        ux, uy = segment.direction
        if abs(before[0] * uy - before[1] * ux) * min(segment.length, 400.0) < 0.1:
            break
    return found


def _line_fit(
    segment: Segment, state: Floats, covariance: Floats, chi2: float, n: int, is_end_free: tuple[bool, bool]
) -> LineFit:
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    ends = tuple(float(sigma[3 + k]) if is_end_free[k] else float("nan") for k in range(2))
    turned = covariance[1, 1] + covariance[2, 2] - 2.0 * covariance[1, 2]
    length = covariance[3, 3] + covariance[4, 4] - 2.0 * covariance[3, 4]
    return LineFit(
        segment, float(state[0]), float(sigma[0]), (ends[0], ends[1]), (float(sigma[1]), float(sigma[2])),
        float(np.sqrt(max(turned, 0.0)) / max(segment.length, 1.0)),
        float(np.sqrt(max(length, 0.0))) if all(is_end_free) else float("nan"),
        chi2, n,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _accumulate(  # type: ignore[no-untyped-def]
    image, variance, usable, noise_ratio, point, edge, slopes, reach, frame, state, clip, matrix, vector
):
    """Fill the normal equations of (flux, across start, across end, start, end); return merit, chi-square and pixels.

    The merit is by how much the model lowers chi-square, in which pixels that are left out count as far as they may
    be off: it can be compared between models that leave out different pixels.
    """
    x0, y0, ux, uy, span = frame[0], frame[1], frame[2], frame[3], frame[4]
    flux, c1, c2, t1, t2 = state[0], state[1], state[2], state[3], state[4]
    matrix[:] = 0.0
    vector[:] = 0.0
    row = np.empty(5)
    ny, nx = image.shape
    bend = (c2 - c1) / span
    # The corners of what takes part, and how the distance from the line changes with the column.
    low, high = t1 - reach, t2 + reach
    y_low, y_high = y0 + low * uy + (c1 + bend * low) * ux, y0 + high * uy + (c1 + bend * high) * ux
    per_column = -uy - bend * ux
    merit, chi2, n = 0.0, 0.0, 0
    n_nodes = edge.shape[0]
    first_row, last_row = int(min(y_low, y_high) - reach - 1.0), int(max(y_low, y_high) + reach) + 1
    for y in range(max(first_row, 0), min(last_row, ny - 1) + 1):
        dy = y - y0
        left, right = 0.0, nx - 1.0
        if abs(per_column) > 0.01:
            middle, half = x0 + (c1 + dy * (bend * uy - ux)) / per_column, (reach + 1.0) / abs(per_column)
            left, right = max(left, middle - half), min(right, middle + half)
        if abs(ux) > 0.01:
            start, stop = x0 + (low - dy * uy) / ux, x0 + (high - dy * uy) / ux
            left, right = max(left, min(start, stop) - 1.0), min(right, max(start, stop) + 1.0)
        for x in range(int(left), int(max(right, -1.0)) + 1):
            t = (x - x0) * ux + (y - y0) * uy
            s = t / span
            o = -(x - x0) * uy + (y - y0) * ux - c1 - (c2 - c1) * s
            if abs(o) > reach or t < low or t > high or not usable[y, x]:
                continue
            v = variance[y, x]
            if not v > 0:
                continue
            node = min(max(int((t - t1) / max(t2 - t1, 1.0) * n_nodes), 0), n_nodes - 1)
            e1, s1, p1 = edge_at(point, edge, slopes, node, t - t1, o)
            e2, s2, p2 = edge_at(point, edge, slopes, node, t - t2, o)
            model = e1 - e2
            residual = image[y, x] - flux * model
            value, most = image[y, x], np.inf
            if clip > 0:
                most = clip * np.sqrt(v * noise_ratio) + 0.33 * abs(flux * model)
            merit += (min(residual**2, most**2) - min(value**2, most**2)) / v
            if abs(residual) > most:
                continue
            slope, w = -flux * (s1 - s2), 1.0 / v
            row[0], row[1], row[2], row[3], row[4] = model, slope * (1.0 - s), slope * s, -flux * p1, flux * p2
            chi2 += w * residual * residual / noise_ratio
            n += 1
            for a in range(5):
                weighted = w * row[a]
                vector[a] += weighted * residual
                for b in range(a + 1):
                    matrix[a, b] += weighted * row[b]
    for a in range(5):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return merit, chi2, n


@njit(cache=True, error_model="numpy")
def _hold(matrix, vector, start_free, end_free):  # type: ignore[no-untyped-def]
    for a, free in ((3, start_free), (4, end_free)):
        if not free:
            matrix[a, :] = 0.0
            matrix[:, a] = 0.0
            matrix[a, a] = 1.0
            vector[a] = 0.0


@njit(cache=True, error_model="numpy")
def _improve_in_place(  # type: ignore[no-untyped-def]
    image, variance, usable, noise_ratio, point, edge, slopes, reach, frame, state, start_free, end_free, clip,
    matrix, vector
):  # fmt: skip
    """Take damped Gauss-Newton steps until the fit gets no better; return its chi-square and pixels.

    ``matrix`` and ``vector`` are left as the normal equations there.
    """
    damping, best_merit, best, best_chi2, best_n = 1e-3, np.inf, state.copy(), 0.0, 0
    best_matrix, best_vector = matrix.copy(), vector.copy()
    for step in range(14):
        merit, chi2, n = _accumulate(
            image, variance, usable, noise_ratio, point, edge, slopes, reach, frame, state, clip, matrix, vector
        )
        is_better = merit < best_merit and n >= 8
        if step == 0 or is_better:
            best_chi2, best_n = chi2, n
            best_matrix[:], best_vector[:] = matrix, vector
        if is_better:
            is_settled = best_merit - merit < 1e-4 * abs(merit)
            best_merit, damping = merit, damping * 0.3
            best[:] = state
            if is_settled:
                break
        else:
            damping = max(damping, 1e-3) * 8.0
            if damping > 100.0:
                break
            state[:] = best
            matrix[:], vector[:] = best_matrix, best_vector
        _hold(matrix, vector, start_free, end_free)
        for a in range(5):
            matrix[a, a] *= 1.0 + damping
        change = cholesky_solve(matrix, vector)
        if not np.isfinite(change).all():
            break
        state[0] += change[0]
        most = 2.0 + 0.05 * frame[4]
        for a in (1, 2):
            state[a] += min(max(change[a], -1.0), 1.0)
        for a in (3, 4):
            state[a] += min(max(change[a], -most), most)
        if state[4] - state[3] < 1.0:
            middle = 0.5 * (state[3] + state[4])
            state[3], state[4] = middle - 0.5, middle + 0.5
    state[:] = best
    matrix[:], vector[:] = best_matrix, best_vector
    return best_chi2, best_n


@njit(cache=True, error_model="numpy")
def _fit(  # type: ignore[no-untyped-def]
    image, variance, usable, noise_ratio, point, edge, slopes, reach, x1, y1, x2, y2, start_free, end_free, clip
):
    """Return (flux, moves of both ends across, places of both ends along), covariance, chi-square and pixels."""
    span = np.hypot(x2 - x1, y2 - y1)
    frame = np.array([x1, y1, (x2 - x1) / span, (y2 - y1) / span, span])
    state = np.array([0.0, 0.0, 0.0, 0.0, span])
    matrix, vector = np.zeros((5, 5)), np.zeros(5)
    _accumulate(image, variance, usable, noise_ratio, point, edge, slopes, reach, frame, state, -1.0, matrix, vector)
    if matrix[0, 0] <= 0:
        return state, np.full((5, 5), np.nan), 0.0, 0
    state[0] = vector[0] / matrix[0, 0]
    # All pixels at first, so that a start beside the streak finds it; then without those that are no part of it.
    chi2, n = 0.0, 0
    for robust in (-1.0, clip):
        chi2, n = _improve_in_place(
            image, variance, usable, noise_ratio, point, edge, slopes, reach, frame, state, start_free, end_free,
            robust, matrix, vector,
        )  # fmt: skip
    _hold(matrix, vector, start_free, end_free)
    covariance = np.full((5, 5), np.nan)
    if n >= 8:
        covariance = _inverse(matrix)
    # The moves across are given where the frame begins and ends; carry them to the fitted ends.
    moved = state.copy()
    moved[1] = state[1] + (state[2] - state[1]) * state[3] / span
    moved[2] = state[1] + (state[2] - state[1]) * state[4] / span
    return moved, covariance, chi2 / max(n - 5, 1), n


@njit(cache=True, error_model="numpy")
def _inverse(matrix):  # type: ignore[no-untyped-def]
    inverse = np.empty((5, 5))
    unit = np.zeros(5)
    for a in range(5):
        unit[:] = 0.0
        unit[a] = 1.0
        inverse[:, a] = cholesky_solve(matrix.copy(), unit)
    return inverse
