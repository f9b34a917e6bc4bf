"""The response to stars over a detector, from the same stars at many places of it (the star flat).

A flat of a lamp, a screen or the twilight is lit unlike the stars are focused: stray light, pixels of unequal solid
angle and the lamp's own gradient all make it wrong for stars on large scales (Manfroid 1995, A&AS 113, 587; Magnier &
Cuillandre 2004, PASP 116, 449; Regnault et al. 2009, A&A 506, 999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gueststar.algorithms.photocal.spatial import ZeroPointMap, spatial_terms
from gueststar.algorithms.stats.robust import median_and_sigma

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class StarFlatConfig:
    """How the response to stars is solved for."""

    max_order: int = 4
    """Highest total order of the Legendre polynomials over the detector."""
    observations_per_term: int = 30
    """Measurements that one coefficient needs."""
    error_floor_mag: float = 0.003
    """Added in quadrature to the error of every measurement."""
    catalog_floor_mag: float = 0.02
    """Added in quadrature to the error of a catalog magnitude: once a star, however often it was measured."""
    clip_sigma: float = 4.0
    """Measurements further than this from the solution are left out (variables, blends)."""
    iterations: int = 5
    """Rounds of clipping."""
    min_improvement: float = 10.0
    """By how much the Bayesian information criterion must fall for a higher order."""


class StarFlat(NamedTuple):
    """Response to stars over a detector."""

    response: ZeroPointMap
    """How much fainter (mag, zero mean) stars are measured at a place than on the detector's average."""
    zero_points: Floats
    """Of every exposure, mag: measured less true magnitude, relative if no catalog magnitudes were given."""
    n_stars: int
    """Stars in use."""
    n_observations: int
    """Measurements in use."""
    scatter_before: float
    """Robust scatter of the measurements about star and exposure before the response is taken out, mag."""
    scatter_after: float
    """The same after, mag."""
    chi2_per_dof: float
    """Of the solution, before errors were scaled by it."""

    @property
    def rms(self) -> float:
        """Of the response over the detector, mag."""
        return self.response.rms

    @property
    def rms_error(self) -> float:
        """Of its error over the detector, mag."""
        return self.response.rms_error


class Observations(NamedTuple):
    """Measurements of stars; arrays of equal length."""

    x: Floats
    """Pixels."""
    y: Floats
    """Pixels."""
    magnitude: Floats
    """Instrumental, of the exposure as it was flat-fielded, colour terms taken out."""
    error: Floats
    """1 sigma, mag."""
    star: Integers
    """Number of the star, from 0."""
    exposure: Integers
    """Number of the exposure, from 0."""

    def select(self, rows: NDArray[np.bool_]) -> Observations:
        """Return some of the measurements."""
        x, y, magnitude, error = (values[rows] for values in self[:4])
        return Observations(x, y, magnitude, error, self.star[rows], self.exposure[rows])


def solve_star_flat(
    observations: Observations,
    *,
    catalog_magnitude: Floats,
    catalog_error: Floats,
    shape: tuple[int, int],
    config: StarFlatConfig = StarFlatConfig(),
) -> StarFlat:
    """Solve for star magnitudes, exposure zero points and the response of the detector together.

    ``catalog_magnitude`` and its error are by number of the star; NaN where the catalog has none. They are used as one
    more measurement of the star, made elsewhere: without them shifts of the pointing alone cannot tell a slope of the
    response from zero points that change with the pointing, and the error says so. The order is that of the
    lowest Bayesian information criterion. The covariance is scaled by chi square where that exceeds one. ValueError
    where fewer measurements than ``observations_per_term`` are finite.
    """
    is_good = np.isfinite(observations.magnitude) & np.isfinite(observations.error) & (observations.error > 0)
    data = observations.select(is_good)
    if data.x.size < config.observations_per_term:
        raise ValueError(f"{data.x.size} measurements of stars, at least {config.observations_per_term} are needed")
    n_stars = int(catalog_magnitude.size)
    prior = np.where(np.isfinite(catalog_magnitude + catalog_error), catalog_magnitude, 0.0)
    trust = np.where(
        np.isfinite(catalog_magnitude + catalog_error), 1.0 / (catalog_error**2 + config.catalog_floor_mag**2), 0.0
    )
    best: tuple[float, _Solution] | None = None
    for order in range(config.max_order + 1):
        n_terms = (order + 1) * (order + 2) // 2 - 1
        if data.x.size < config.observations_per_term * (n_terms + 1):
            break
        keep = None if best is None else best[1].is_used
        solution = _solve(data, prior, trust, n_stars, shape, order, keep, config)
        criterion = solution.chi2 + n_terms * np.log(solution.n)
        if best is None or criterion < best[0] - config.min_improvement:
            best = (criterion, solution)
    assert best is not None
    return _summary(data, best[1], shape, config)


class _Solution(NamedTuple):
    order: int
    terms: Floats
    zero_points: Floats
    coefficients: Floats
    covariance: Floats
    stars: Floats
    is_used: NDArray[np.bool_]
    chi2: float
    n: int
    dof: int


def _solve(
    data: Observations, prior: Floats, trust: Floats, n_stars: int, shape: tuple[int, int], order: int,
    is_used: NDArray[np.bool_] | None, config: StarFlatConfig,
) -> _Solution:  # fmt: skip
    """Return the solution of one order; measurements once clipped at a lower order get another chance."""
    terms = spatial_terms(x=data.x, y=data.y, shape=shape, order=order)
    n_exposures = int(data.exposure.max()) + 1
    rows = np.arange(data.x.size)
    in_exposure = sparse.csr_matrix((np.ones(rows.size), (rows, data.exposure)), (rows.size, n_exposures))
    design = np.hstack([in_exposure.toarray(), terms])
    variance = data.error**2 + config.error_floor_mag**2
    used = np.ones(rows.size, dtype=bool) if is_used is None else is_used
    for _ in range(config.iterations):
        weight = used / variance
        values, inverse, stars = _eliminated(design, data, weight, prior, trust, n_stars)
        residual = data.magnitude - stars[data.star] - design @ values
        pull = residual / np.sqrt(variance)
        excess = max(1.0, median_and_sigma(pull[used])[1])
        now_used = np.abs(pull) < config.clip_sigma * excess
        if np.array_equal(now_used, used):
            break
        used = now_used
    seen = np.bincount(data.star[used], minlength=n_stars) > 0
    chi2 = float(np.sum(used * residual**2 / variance) + np.sum(seen * trust * (stars - prior) ** 2))
    n = int(used.sum() + (seen & (trust > 0)).sum())
    covariance = inverse[n_exposures:, n_exposures:]
    return _Solution(
        order, terms, values[:n_exposures], values[n_exposures:], covariance, stars, used, chi2,
        n, max(n - int(seen.sum()) - values.size, 1),
    )  # fmt: skip


def _eliminated(
    design: Floats, data: Observations, weight: Floats, prior: Floats, trust: Floats, n_stars: int
) -> tuple[Floats, Floats, Floats]:
    """Return parameters of the design, their covariance, and star magnitudes, the stars eliminated first.

    Each star's magnitude is the weighted mean of what its measurements and the catalog say, given the others, so that
    the normal matrix has only the size of exposures and terms.
    """
    rows = np.arange(data.x.size)
    by_star = sparse.csr_matrix((weight, (data.star, rows)), (n_stars, rows.size))
    total = np.asarray(by_star.sum(axis=1)).ravel() + trust
    inverse_total = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    carried = np.asarray(by_star @ design)
    heard = np.asarray(by_star @ data.magnitude) + trust * prior
    normal = design.T @ (weight[:, None] * design) - carried.T @ (inverse_total[:, None] * carried)
    right = design.T @ (weight * data.magnitude) - carried.T @ (inverse_total * heard)
    normal[np.diag_indices_from(normal)] += 1e-6 * max(float(np.trace(normal)) / normal.shape[0], 1e-300)
    inverse = np.linalg.inv(normal)
    values = inverse @ right
    return values, inverse, inverse_total * (heard - carried @ values)


def _summary(data: Observations, found: _Solution, shape: tuple[int, int], config: StarFlatConfig) -> StarFlat:
    scale = max(1.0, found.chi2 / found.dof)
    response = ZeroPointMap(found.coefficients, shape, found.order, found.covariance * scale)
    used = found.is_used
    left = data.magnitude - found.stars[data.star] - found.zero_points[data.exposure]
    with_map = left - found.terms @ found.coefficients
    return StarFlat(
        response=response,
        zero_points=found.zero_points,
        n_stars=int(np.unique(data.star[used]).size),
        n_observations=int(used.sum()),
        scatter_before=median_and_sigma(left[used])[1],
        scatter_after=median_and_sigma(with_map[used])[1],
        chi2_per_dof=found.chi2 / found.dof,
    )
