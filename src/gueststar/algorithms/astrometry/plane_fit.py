"""Weighted, clipped fits of a plane map's correction, with the systematic floor and the order found from the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.polynomial import PlaneMap, design_matrix, n_terms, order_of, raise_order
from gueststar.algorithms.astrometry.verification import fit_similarity

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MEDIAN_CHI2 = 0.4549364
"""Median of chi-square with one degree of freedom."""


class PlaneFit(NamedTuple):
    """A fitted map and how well it fits."""

    plane_map: PlaneMap
    residuals: Floats
    """``[n, 2]`` star minus map, arcsec."""
    is_used: Bools
    floor: float
    """Error per axis (arcsec) beyond the given errors that the scatter asks for."""
    order: int
    """Order of the correction to the starting map."""
    n_parameters: float
    """Free parameters, as far as a prior leaves them free."""
    precision: Floats | None = None
    """Of the prior of the correction's coefficients (xi before eta); None: none was used."""


def fit_plane_map(x: Floats, y: Floats, plane: Floats, *, x0: float, y0: float, unit: float, order: int) -> PlaneMap:
    """Return the least-squares map of pixel positions to plane coordinates ``[n, 2]`` (arcsec)."""
    u, v = (x - x0) / unit, (y - y0) / unit
    coefficients, *_ = np.linalg.lstsq(design_matrix(u, v, order), plane, rcond=None)
    return PlaneMap(np.array(coefficients.T, dtype=np.float64), x0, y0, unit)


def fit_correction(
    prior: PlaneMap, x: Floats, y: Floats, stars: Floats, variance: Floats,
    *, order: int, minimum_floor: float, clip_sigma: float, iterations: int = 6,
) -> PlaneFit:  # fmt: skip
    """Fit ``stars - prior`` by polynomials of ``order``; terms of the prior beyond it stay as they are.

    ``variance`` is ``[n, 2]`` (arcsec squared). The floor makes the median squared residual what
    a normal distribution gives; pairs beyond ``clip_sigma`` on either axis are left out, round by round.
    """
    u, v = prior.scaled(x, y)
    design = design_matrix(u, v, order)
    target = stars - prior(x, y)
    used = np.ones(x.size, dtype=bool)
    floor = max(minimum_floor, float(np.sqrt(np.median((target - np.median(target, axis=0)) ** 2))))
    for _ in range(iterations):
        coefficients = _solve(design, target, variance + floor**2, used)
        residuals = target - design @ coefficients.T
        free = n_terms(order) / max(int(used.sum()), 1)
        floor = systematic_floor(residuals[used], variance[used], minimum=minimum_floor, fitted_fraction=free)
        now = np.all(residuals**2 < clip_sigma**2 * (variance + floor**2), axis=1)
        if now.sum() < n_terms(order) or np.array_equal(now, used):
            break
        used = now
    full = raise_order(prior.coefficients, order)
    full[:, : coefficients.shape[1]] += coefficients
    fitted = PlaneMap(full, prior.x0, prior.y0, prior.unit)
    return PlaneFit(fitted, residuals, used, floor, order, 2.0 * n_terms(order))


def fit_held(
    prior: PlaneMap, x: Floats, y: Floats, stars: Floats, variance: Floats,
    *, precision: Floats, minimum_floor: float, clip_sigma: float, iterations: int = 6,
) -> PlaneFit:  # fmt: skip
    """Fit a correction to the prior map whose coefficients are held near zero by ``precision`` (inverse covariance).

    What the matches do not tell stays as the prior has it. ``precision`` is ``[2 n_terms, 2 n_terms]`` (xi before
    eta, arcsec); the rest is as in `fit_correction`.
    """
    start = fit_similar(prior, x, y, stars, variance, minimum_floor=minimum_floor, clip_sigma=clip_sigma)
    n = precision.shape[0] // 2
    design = design_matrix(*prior.scaled(x, y), order_of(np.zeros(n)))
    target = stars - prior(x, y)
    used, floor = start.is_used, start.floor
    if used.sum() < 3:
        used = np.ones(x.size, dtype=bool)
    for _ in range(iterations):
        normal = _joint_normal(design, variance + floor**2, used)
        right = (design[used].T @ (target[used] / (variance[used] + floor**2))).T.ravel()
        ridge = 1e-12 * np.trace(normal) / normal.shape[0] * np.eye(2 * n)
        inverse = np.linalg.inv(normal + precision + ridge)
        coefficients = (inverse @ right).reshape(2, n)
        n_parameters = float(np.trace(inverse @ normal))
        residuals = target - design @ coefficients.T
        free = n_parameters / max(2.0 * used.sum(), 1.0)
        floor = systematic_floor(residuals[used], variance[used], minimum=minimum_floor, fitted_fraction=free)
        now = np.all(residuals**2 < clip_sigma**2 * (variance + floor**2), axis=1)
        if now.sum() < 3 or np.array_equal(now, used):
            break
        used = now
    full = raise_order(prior.coefficients, order_of(coefficients))
    full[:, :n] += coefficients
    fitted = PlaneMap(full, prior.x0, prior.y0, prior.unit)
    return PlaneFit(fitted, residuals, used, floor, order_of(coefficients), n_parameters, precision)


def _joint_normal(design: Floats, variance: Floats, used: Bools) -> Floats:
    """Return the normal matrix of both axes' coefficients."""
    n = design.shape[1]
    normal = np.zeros((2 * n, 2 * n))
    for axis in (0, 1):
        part = slice(axis * n, (axis + 1) * n)
        normal[part, part] = (design[used] / variance[used, axis][:, None]).T @ design[used]
    return normal


def fit_similar(
    prior: PlaneMap, x: Floats, y: Floats, stars: Floats, variance: Floats, *, minimum_floor: float, clip_sigma: float
) -> PlaneFit:
    """Fit a shift, a rotation and a scale to the prior map: all that few matches can bear (order 0)."""
    matrix, shift = fit_similarity(prior(x, y), stars)
    fitted = prior.transformed(matrix, shift)
    residuals = stars - fitted(x, y)
    floor = systematic_floor(residuals, variance, minimum=minimum_floor, fitted_fraction=2.0 / max(x.size, 1))
    used = np.all(residuals**2 < clip_sigma**2 * (variance + floor**2), axis=1)
    return PlaneFit(fitted, residuals, used, floor, 0, 4.0)


def _solve(design: Floats, target: Floats, variance: Floats, used: Bools) -> Floats:
    """Return ``[2, n_terms]`` by weighted normal equations (the variables are scaled to about 1)."""
    rows = []
    for axis in (0, 1):
        weighted = design[used] / variance[used, axis][:, None]
        normal = weighted.T @ design[used]
        ridge = 1e-12 * np.trace(normal) / normal.shape[0] * np.eye(normal.shape[0])
        rows.append(np.linalg.solve(normal + ridge, weighted.T @ target[used, axis]))
    return np.array(rows)


def largest_error(fit: PlaneFit, x: Floats, y: Floats, variance: Floats, shape: tuple[int, int]) -> float:
    """Return the largest formal error per axis (arcsec) of a fitted map over the detector.

    It follows from the errors, the number and the spread of the pairs that were used; what the
    model cannot describe is not in it.
    """
    used, prior = fit.is_used, fit.plane_map
    total = variance[used].mean(axis=1) + fit.floor**2
    if fit.precision is not None:
        return _largest_held_error(fit, fit.precision, x, y, variance, shape)
    grid = np.meshgrid(np.linspace(0, shape[1] - 1, 5), np.linspace(0, shape[0] - 1, 5))
    u, v = prior.scaled(grid[0].ravel(), grid[1].ravel())
    at_u, at_v = prior.scaled(x[used], y[used])
    if fit.order == 0:
        weight = 1.0 / total
        u0, v0 = (float((weight * a).sum() / weight.sum()) for a in (at_u, at_v))
        lever = ((u - u0) ** 2 + (v - v0) ** 2) / max(
            float((weight * ((at_u - u0) ** 2 + (at_v - v0) ** 2)).sum()), 1e-30
        )
        return float(np.sqrt(np.max(1.0 / weight.sum() + lever)))
    design = design_matrix(at_u, at_v, fit.order)
    covariance = np.linalg.pinv((design / total[:, None]).T @ design)
    there = design_matrix(u, v, fit.order)
    return float(np.sqrt(np.max(np.einsum("ij,jk,ik->i", there, covariance, there))))


def _largest_held_error(
    fit: PlaneFit, precision: Floats, x: Floats, y: Floats, variance: Floats, shape: tuple[int, int]
) -> float:
    design = design_matrix(*fit.plane_map.scaled(x, y), fit.order)
    normal = _joint_normal(design, variance + fit.floor**2, fit.is_used)
    covariance = np.linalg.inv(normal + precision + 1e-12 * np.trace(normal) / normal.shape[0] * np.eye(len(normal)))
    grid = np.meshgrid(np.linspace(0, shape[1] - 1, 5), np.linspace(0, shape[0] - 1, 5))
    there = design_matrix(*fit.plane_map.scaled(grid[0].ravel(), grid[1].ravel()), fit.order)
    n = there.shape[1]
    parts = (covariance[:n, :n], covariance[n:, n:])
    return float(np.sqrt(max(np.max(np.einsum("ij,jk,ik->i", there, part, there)) for part in parts)))


def systematic_floor(residuals: Floats, variance: Floats, *, minimum: float, fitted_fraction: float = 0.0) -> float:
    """Return the extra error per axis that makes the normalised residuals' median what it should be."""
    if residuals.size == 0:
        return minimum
    squares = residuals**2 / max(1.0 - fitted_fraction, 0.2)
    low, high = minimum**2, minimum**2 + 4.0 * float(np.median(squares)) / _MEDIAN_CHI2
    if np.median(squares / (variance + low)) <= _MEDIAN_CHI2:
        return minimum
    return float(np.sqrt(_halved(squares.ravel(), np.broadcast_to(variance, squares.shape).ravel(), low, high)))


@njit(cache=True, error_model="numpy")
def _halved(squares: Floats, variance: Floats, low: float, high: float) -> float:
    """Return the extra variance, between two bounds, that brings the median of squares over variances to its value."""
    for _ in range(14):
        middle = 0.5 * (low + high)
        if _is_median_above(squares, variance + middle, _MEDIAN_CHI2):
            low = middle
        else:
            high = middle
    return high


@njit(cache=True, error_model="numpy")
def _is_median_above(squares: Floats, variance: Floats, limit: float) -> bool:
    """Return whether the median of squares over variances is above a limit, by counting where that tells."""
    n_above = 0
    for k in range(squares.size):
        n_above += squares[k] / variance[k] > limit
    if 2 * n_above == squares.size:  # the median is the mean of one above and one that is not
        return bool(np.median(squares / variance) > limit)
    return 2 * n_above > squares.size


def allowed_order(x: Floats, y: Floats, shape: tuple[int, int], config: AstrometryConfig) -> int:
    """Return the highest order that the number and the spread of the matches allow (0: a shift only)."""
    order = 0
    for candidate in range(1, config.max_order + 1):
        enough = x.size >= (3.0 if candidate == 1 else config.matches_per_coefficient) * n_terms(candidate)
        if not enough or _occupancy(x, y, shape, candidate + 1) < (0.5 if candidate == 1 else 0.9):
            break
        order = candidate
    return order


def _occupancy(x: Floats, y: Floats, shape: tuple[int, int], n: int) -> float:
    """Return the fraction of n x n cells of the detector that hold a match."""
    column = np.clip((x + 0.5) / shape[1] * n, 0, n - 1).astype(np.int64)
    row = np.clip((y + 0.5) / shape[0] * n, 0, n - 1).astype(np.int64)
    return np.unique(row * n + column).size / n**2


def fit_order(
    prior: PlaneMap, x: Floats, y: Floats, stars: Floats, variance: Floats,
    *, order: int, minimum_floor: float, clip_sigma: float,
) -> PlaneFit:  # fmt: skip
    """Return the correction of one order; 0 is a shift, a rotation and a scale."""
    options: dict[str, Any] = {"minimum_floor": minimum_floor, "clip_sigma": clip_sigma}
    if order == 0:
        return fit_similar(prior, x, y, stars, variance, **options)
    return fit_correction(prior, x, y, stars, variance, order=order, **options)


def choose_order(
    prior: PlaneMap, x: Floats, y: Floats, stars: Floats, variance: Floats,
    *, order: int, minimum_floor: float, clip_sigma: float,
) -> PlaneFit:  # fmt: skip
    """Return the fit of the order, 0 to ``order``, with the least Bayesian information criterion.

    All orders are judged on the matches and the floor of the highest, the least biased one.
    """
    options: dict[str, Any] = {"minimum_floor": minimum_floor, "clip_sigma": clip_sigma}
    fits = [fit_order(prior, x, y, stars, variance, order=k, **options) for k in range(order + 1)]
    best = fits[-1]
    used, total = best.is_used, variance + best.floor**2
    n = 2 * int(used.sum())

    def criterion(fit: PlaneFit) -> float:
        chi2 = float((np.minimum(fit.residuals[used] ** 2, 100.0 * total[used]) / total[used]).sum())
        return chi2 + fit.n_parameters * float(np.log(max(n, 2)))

    return min(fits, key=criterion)
