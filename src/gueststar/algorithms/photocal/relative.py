"""How the zero points of many exposures of the same stars differ, and how that changes over the detector.

Padmanabhan et al. (2008, ApJ 674, 1217), "ubercalibration": every measurement is its star's magnitude plus its
exposure's zero point (here with a smooth term in position); all stars and exposures are solved at once by least
squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gueststar.algorithms.photocal.spatial import spatial_terms

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_BIC_GAIN_PER_IMAGE = 2.0
"""A change over the detector must lower the Bayesian information criterion by so much for every exposure."""


@dataclass(frozen=True)
class RelativeConfig:
    """How a night's exposures are brought onto one relative scale."""

    zero_point_prior: float = 0.1
    """How far zero points are expected to be off, mag: it only fixes the common level."""
    spatial_order: int = 2
    """Highest order of the change of an exposure's zero point over the detector; 0: none."""
    spatial_prior: float = 0.02
    """How large such changes are expected to be, mag per term: what all exposures share belongs to the stars."""
    stars_per_spatial_term: int = 15
    """Measurements that an exposure needs for each coefficient, in the median."""
    clip_sigma: float = 4.0
    """Measurements further from the solution count less."""
    variable_chi: float = 3.0
    """Stars whose robust scatter exceeds their errors (and the floor) by this factor do not take part."""
    min_measurements: int = 2
    """Of a star that takes part."""
    rounds: int = 15
    """Most rounds of solving, weighing and looking for variables."""


class Measurements(NamedTuple):
    """One row a detection."""

    image: Indices
    star: Indices
    x: Floats
    """Pixels."""
    y: Floats
    magnitude: Floats
    error: Floats

    def select(self, chosen: Bools | Indices) -> Measurements:
        """Return some of the rows."""
        return Measurements(
            self.image[chosen], self.star[chosen], self.x[chosen], self.y[chosen], self.magnitude[chosen],
            self.error[chosen],
        )  # fmt: skip


class RelativeSolution(NamedTuple):
    """Corrections of exposures, and their stars."""

    offset: Floats
    """``[n_images]`` to subtract from magnitudes, mag; NaN for an exposure without comparison stars."""
    offset_err: Floats
    """Against the mean of all exposures."""
    coefficients: Floats
    """``[n_images, k]`` of `spatial_terms` to subtract as well."""
    order: int
    """Of the change over the detector; 0: none is applied."""
    mean: Floats
    """``[n_stars]`` magnitudes on the common scale; NaN for stars without a measurement."""
    mean_err: Floats
    rms: Floats
    """``[n_stars]`` robust scatter of the corrected measurements; NaN for fewer than three."""
    n: Indices
    """``[n_stars]`` measurements."""
    is_comparison: Bools
    """``[n_stars]`` took part."""
    floor: float
    """Scatter of comparison stars beyond their errors, mag."""

    def correction(self, rows: Measurements, shape: tuple[int, int]) -> Floats:
        """Return what to subtract from the magnitudes of measurements."""
        terms = spatial_terms(x=rows.x, y=rows.y, shape=shape, order=self.order)
        return np.asarray(self.offset[rows.image] + (terms * self.coefficients[rows.image]).sum(axis=1))


def solve_relative(
    rows: Measurements,
    *,
    n_images: int,
    n_stars: int,
    shape: tuple[int, int],
    config: RelativeConfig = RelativeConfig(),
) -> RelativeSolution:
    """Return the solution of measurements on detector images of one ``shape``, robust against variables and bad rows.

    Higher orders of the change over the detector are tried as long as the information criterion asks for them.
    """
    best: RelativeSolution | None = None
    best_merit = np.inf
    for order in range(config.spatial_order + 1):
        n_terms = (order + 1) * (order + 2) // 2
        per_image = float(np.median(np.bincount(rows.image, minlength=n_images)))
        if best is not None and per_image < config.stars_per_spatial_term * n_terms:
            break
        found, merit = _solve_order(rows, order, n_images, n_stars, shape, config)
        if best is None or merit < best_merit - _BIC_GAIN_PER_IMAGE * n_images:
            best, best_merit = found, merit
    assert best is not None
    return best


def _solve_order(
    rows: Measurements, order: int, n_images: int, n_stars: int, shape: tuple[int, int], config: RelativeConfig
) -> tuple[RelativeSolution, float]:
    """Return the solution with changes of one order, and its information criterion."""
    terms = spatial_terms(x=rows.x, y=rows.y, shape=shape, order=order)
    design = _design(rows.image, terms, n_images)
    k = 1 + terms.shape[1]
    prior = np.tile(np.r_[config.zero_point_prior, np.full(k - 1, config.spatial_prior)], n_images)
    count = np.bincount(rows.star, minlength=n_stars)
    is_comparison, floor = count >= config.min_measurements, 0.003
    robust = np.ones(rows.star.size)
    parameters = _first_offsets(rows, n_images, n_stars, k)
    mean = np.zeros(n_stars)
    for round_number in range(config.rounds):
        residual = rows.magnitude - design @ parameters
        mean = _star_means(residual, rows, robust / (rows.error**2 + floor**2), n_stars)
        residual = residual - mean[rows.star]
        before = floor
        floor = _floor(residual[is_comparison[rows.star]], rows.select(is_comparison[rows.star]), n_stars)
        pull = residual / np.hypot(rows.error, floor)
        robust = 1.0 / (1.0 + (pull / config.clip_sigma) ** 4)
        if round_number:
            is_comparison = (count >= config.min_measurements) & ~_is_variable(pull, rows, count, config)
        weight = robust * is_comparison[rows.star] / (rows.error**2 + floor**2)
        step, covariance = _solve(design, rows, weight, prior, n_stars)
        change = float(np.max(np.abs(step - parameters)))
        parameters = step
        if round_number > 2 and change < 1e-5 and abs(before - floor) < 1e-5:
            break
    merit = _criterion(pull[is_comparison[rows.star]], rows.error[is_comparison[rows.star]], floor, n_images * k)
    return _finished(rows, design, parameters, covariance, robust, is_comparison, floor, order, k, n_stars), merit


def _design(image: Indices, terms: Floats, n_images: int) -> sparse.csr_matrix:
    """Return the matrix ``[rows, n_images * k]`` of zero points and their changes."""
    k = 1 + terms.shape[1]
    columns = k * image[:, None] + np.arange(k)
    values = np.concatenate([np.ones((image.size, 1)), terms], axis=1)
    row = np.repeat(np.arange(image.size), k)
    return sparse.csr_matrix((values.ravel(), (row, columns.ravel())), shape=(image.size, n_images * k))


def _first_offsets(rows: Measurements, n_images: int, n_stars: int, k: int) -> Floats:
    """Return each image's median departure from the stars' medians, taken in turn a few times."""
    offset, middle = np.zeros(n_images), np.zeros(n_stars)
    for _ in range(5):
        middle = _medians(rows.magnitude - offset[rows.image], rows.star, n_stars)
        offset = _medians(rows.magnitude - middle[rows.star], rows.image, n_images)
        offset -= np.median(offset)
    parameters = np.zeros((n_images, k))
    parameters[:, 0] = offset
    return parameters.ravel()


def _medians(values: Floats, group: Indices, n: int) -> Floats:
    """Return the median of each group; 0 for an empty one."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=n)
    start = np.cumsum(count) - count
    filled = count > 0
    ordered, out = values[order], np.zeros(n)
    low, high = start[filled] + (count[filled] - 1) // 2, start[filled] + count[filled] // 2
    out[filled] = 0.5 * (ordered[low] + ordered[high])
    return out


def _star_means(values: Floats, rows: Measurements, weight: Floats, n_stars: int) -> Floats:
    total = np.bincount(rows.star, weights=weight, minlength=n_stars)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(rows.star, weights=weight * values, minlength=n_stars) / total


def _solve(
    design: sparse.csr_matrix, rows: Measurements, weight: Floats, prior: Floats, n_stars: int
) -> tuple[Floats, Floats]:
    """Return the exposures' parameters and their covariance; the stars are eliminated."""
    total = np.bincount(rows.star, weights=weight, minlength=n_stars)
    inverse = np.where(total > 0, 1.0 / np.where(total > 0, total, 1.0), 0.0)
    member = sparse.csr_matrix((weight, (rows.star, np.arange(rows.star.size))), shape=(n_stars, rows.star.size))
    cross = (member @ design).toarray()
    weighted = design.multiply(weight[:, None]).tocsr()
    normal = (weighted.T @ design).toarray() - cross.T @ (inverse[:, None] * cross)
    normal[np.diag_indices_from(normal)] += 1.0 / prior**2
    star_sums = np.bincount(rows.star, weights=weight * rows.magnitude, minlength=n_stars)
    right = weighted.T @ rows.magnitude - cross.T @ (inverse * star_sums)
    covariance = np.linalg.inv(normal)
    return np.asarray(covariance @ right), np.asarray(covariance)


def _floor(residual: Floats, rows: Measurements, n_stars: int) -> float:
    """Return the scatter beyond the errors, from the better measured half of the measurements."""
    if residual.size < 10:
        return 0.0
    count = np.bincount(rows.star, minlength=n_stars)[rows.star]
    freed = count / np.maximum(count - 1.0, 0.5)
    good = rows.error <= np.median(rows.error)
    squares = residual[good] ** 2 * freed[good]
    return float(np.sqrt(max(np.median(squares - 0.455 * rows.error[good] ** 2) / 0.455, 0.0)))


def _is_variable(pull: Floats, rows: Measurements, count: Indices, config: RelativeConfig) -> Bools:
    typical = _medians(np.abs(pull), rows.star, count.size)
    return (count >= 3) & (1.4826 * typical > config.variable_chi)


def _criterion(pull: Floats, error: Floats, floor: float, n_parameters: int) -> float:
    """Return the Bayesian information criterion, outliers bounded."""
    chi2 = np.minimum(pull**2, 16.0) + np.log(error**2 + floor**2)
    return float(chi2.sum() + n_parameters * np.log(max(pull.size, 2)))


def _finished(
    rows: Measurements, design: sparse.csr_matrix, parameters: Floats, covariance: Floats, robust: Floats,
    is_comparison: Bools, floor: float, order: int, k: int, n_stars: int,
) -> RelativeSolution:  # fmt: skip
    corrected = rows.magnitude - design @ parameters
    weight = robust / (rows.error**2 + floor**2)
    mean = _star_means(corrected, rows, weight, n_stars)
    count = np.bincount(rows.star, minlength=n_stars)
    rms = 1.4826 * _medians(np.abs(corrected - mean[rows.star]), rows.star, n_stars)
    # Of n values the mean has taken one degree of freedom.
    rms = np.where(count > 2, rms * np.sqrt(count / np.maximum(count - 1.0, 1.0)), np.nan)
    by_image = parameters.reshape(-1, k)
    among_offsets = covariance[::k, ::k]
    relative = np.eye(among_offsets.shape[0]) - 1.0 / among_offsets.shape[0]  # the common level is no error of these
    errors = np.sqrt(np.diag(relative @ among_offsets @ relative))
    known = np.bincount(rows.image, weights=is_comparison[rows.star], minlength=by_image.shape[0]) > 0
    total = np.bincount(rows.star, weights=weight, minlength=n_stars)
    with np.errstate(divide="ignore"):
        mean_err = np.where(total > 0, 1.0 / np.sqrt(total), np.nan)
    return RelativeSolution(
        np.where(known, by_image[:, 0], np.nan), np.where(known, errors, np.nan), by_image[:, 1:], order, mean,
        mean_err, rms, count, is_comparison, floor,
    )  # fmt: skip
