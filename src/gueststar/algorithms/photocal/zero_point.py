"""Zero point, colour term and intrinsic scatter, robustly and with honest errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.mixture import SlopePrior, fit_mixture

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Calibrators:
    """What calibrating stars say.

    A star's catalog magnitude less its instrumental one is the zero point plus colour term times
    colour. The catalog's errors are those of the band and of the two bands of the colour; where one is the
    band itself, its error counts once.
    """

    difference: Floats
    """Catalog minus instrumental magnitude."""
    variance: Floats
    """Of the instrumental magnitude."""
    band_variance: Floats
    """Of the catalog magnitude in the band."""
    colour: Floats
    """Catalog colour; zeros if none is used."""
    colour_variances: tuple[Floats, Floats]
    """Of the colour's first and second band."""
    band_in_colour: int = 0
    """1 or 2 if the band is the colour's first or second, else 0."""
    spatial: Floats | None = None
    """``[n, k]`` further terms: the shape of the zero point over the detector."""

    @property
    def design(self) -> Floats:
        """The terms of zero point, colour and place ``[n, 2 + k]``."""
        terms = np.stack([np.ones(self.difference.size), self.colour], axis=1)
        return terms if self.spatial is None else np.hstack([terms, self.spatial])

    def residuals(self, parameters: Floats) -> Floats:
        """Return how far the stars are from a solution, mag."""
        return np.asarray(self.difference - self.design @ parameters)

    def select(self, rows: NDArray[np.intp]) -> Calibrators:
        """Return some of the stars."""
        first, second = self.colour_variances
        return Calibrators(
            self.difference[rows], self.variance[rows], self.band_variance[rows], self.colour[rows],
            (first[rows], second[rows]), self.band_in_colour, None if self.spatial is None else self.spatial[rows],
        )  # fmt: skip

    def total_variance(self, colour_term: float) -> Floats:
        """Return the variance of ``difference - colour_term * colour``."""
        first, second = colour_term**2 * self.colour_variances[0], colour_term**2 * self.colour_variances[1]
        if self.band_in_colour == 1:
            return self.variance + (1.0 - colour_term) ** 2 * self.band_variance + second
        if self.band_in_colour == 2:
            return self.variance + (1.0 + colour_term) ** 2 * self.band_variance + first
        return self.variance + self.band_variance + first + second


@dataclass(frozen=True, eq=False)
class ZeroPointFit:
    """The solution; the first two parameters are zero point and colour term."""

    parameters: Floats
    covariance: Floats
    intrinsic_scatter: float
    """Scatter beyond the given errors, mag."""
    residuals: Floats
    """Of all calibrators, mag."""
    total_variance: Floats
    """Of all calibrators, with the intrinsic scatter."""
    is_used: Bools

    @property
    def rms(self) -> float:
        """Return the scatter of the used calibrators about the solution, mag."""
        return float(np.sqrt(np.mean(self.residuals[self.is_used] ** 2)))


def fit_zero_point(
    stars: Calibrators, *, colour_prior: float, colour_prior_err: float, clip_sigma: float, iterations: int = 12
) -> ZeroPointFit:
    """Fit the calibrators by least squares with clipping and a fitted intrinsic scatter.

    Variables, blends and wrong matches may be more than half of the stars: a mixture tells where the calibrators
    lie (`fit_mixture`), and only then are stars clipped against the solution. The colour term has a normal prior.
    Errors are widened for the few degrees of freedom from which the scatter is known (Student's t). At least one
    calibrator is needed.
    """
    n = stars.difference.size
    design, slope = stars.design, SlopePrior(colour_prior, colour_prior_err)
    start = fit_mixture(design, stars.difference, stars.total_variance(colour_prior), slope=slope)
    parameters, scatter = start.parameters, start.scatter
    for iteration in range(iterations):
        variance = stars.total_variance(parameters[1])
        residuals = stars.difference - design @ parameters
        total = variance + scatter**2
        used = residuals**2 < clip_sigma**2 * total
        if used.sum() < min(n, 3):
            used = np.argsort(residuals**2 / total, kind="stable").argsort() < min(n, 3)
        if iteration:
            scatter = _intrinsic_scatter(residuals[used], variance[used], design.shape[1], clip_sigma)
            total = variance + scatter**2
        parameters, covariance = _solve(design, stars.difference, np.where(used, 1.0, 0.0) / total, *slope)
    residuals = stars.difference - design @ parameters
    freedom = int(used.sum()) - design.shape[1] + 1
    if freedom > 2:
        covariance = covariance * (freedom / (freedom - 2.0))
    return ZeroPointFit(parameters, covariance, scatter, residuals, total, used)


def _solve(
    design: Floats, target: Floats, weight: Floats, colour_prior: float, colour_prior_err: float
) -> tuple[Floats, Floats]:
    normal = (design * weight[:, None]).T @ design
    right = (design * weight[:, None]).T @ target
    normal[1, 1] += 1.0 / colour_prior_err**2
    right[1] += colour_prior / colour_prior_err**2
    covariance = np.linalg.pinv(normal, hermitian=True)
    return covariance @ right, np.asarray(covariance)


def _intrinsic_scatter(residuals: Floats, variance: Floats, n_parameters: int, clip_sigma: float) -> float:
    """Return the extra scatter that makes chi-square its degrees of freedom, allowing for the clipped tails."""
    tail = 2.0 * clip_sigma * np.exp(-(clip_sigma**2) / 2.0) / np.sqrt(2.0 * np.pi)
    freedom = max(residuals.size - n_parameters + 1, 1) * (1.0 - tail)
    return _find_scatter(lambda extra: float((residuals**2 / (variance + extra)).sum()) / freedom, residuals)


def _find_scatter(excess: Callable[[float], float], residuals: Floats) -> float:
    """Return the root of the variance at which the falling function ``excess`` is 1; 0 if it is below 1 at 0."""
    if excess(0.0) <= 1.0:
        return 0.0
    low, high = 0.0, 1e-12 + 10.0 * float(np.max(residuals**2))
    for _ in range(50):
        middle = np.sqrt(low * high) if low > 0 else high / 100.0
        if high - low < 1e-4 * high:
            break
        if excess(middle) > 1.0:
            low = middle
        else:
            high = middle
    return float(np.sqrt(high))
