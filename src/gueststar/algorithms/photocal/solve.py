"""The whole photometric solution of one detector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.config import PhotometryConfig
from gueststar.algorithms.photocal.spatial import ZeroPointMap, cell_structure, spatial_terms
from gueststar.algorithms.photocal.zero_point import Calibrators, ZeroPointFit, fit_zero_point

Floats = NDArray[np.float64]

_BIC_GAIN = 6.0
"""A change over the detector must lower the Bayesian information criterion by so much (strong evidence)."""
_N_FOLDS = 5
"""Parts of the calibrators that are foretold from the others in turn."""
_MIN_SIGNIFICANCE = 2.0
"""A change over the detector must be so many times its own error (rms over the detector)."""


@dataclass(frozen=True, eq=False)
class ZeroPointSolution:
    """A zero point, its change over the detector if that is significant, and the structure left without it."""

    fit: ZeroPointFit
    spatial: ZeroPointMap | None
    structure: float
    """Rms from place to place (mag) of the residuals of a constant zero point, beyond noise."""


def solve_zero_point(
    stars: Calibrators, *, x: Floats, y: Floats, shape: tuple[int, int], config: PhotometryConfig
) -> ZeroPointSolution:
    """Return the best solution of calibrators at (x, y) pixels on a detector of ``shape``.

    A change of the zero point over the detector is taken, order by order, as far as the data prove it: the information
    criterion asks for it, calibrators that were left out are foretold better with it, and it exceeds
    its own error.
    """
    options: dict[str, Any] = {
        "colour_prior": config.colour_term_prior,
        "colour_prior_err": config.colour_term_prior_err,
        "clip_sigma": config.clip_sigma,
    }
    constant = fit_zero_point(stars, **options)
    used = constant.is_used
    structure = cell_structure(
        x=x[used], y=y[used], residuals=constant.residuals[used], variance=constant.total_variance[used], shape=shape
    )
    best, best_map = constant, None
    best_error: float | None = None
    for order in range(1, config.spatial_order + 1):
        terms = spatial_terms(x=x, y=y, shape=shape, order=order)
        if constant.is_used.sum() < config.calibrators_per_spatial_term * (terms.shape[1] + 1):
            break
        fit = fit_zero_point(replace(stars, spatial=terms), **options)
        spatial = ZeroPointMap(fit.parameters[2:], shape, order, fit.covariance[2:, 2:])
        is_proven = _criterion(fit, used) < _criterion(best, used) - _BIC_GAIN
        is_large = spatial.rms >= max(config.min_spatial_rms, _MIN_SIGNIFICANCE * spatial.rms_error)
        if not (is_proven and is_large):
            continue
        if best_error is None:
            best_error = _prediction_error(stars, used, constant.total_variance, options)
        error = _prediction_error(replace(stars, spatial=terms), used, constant.total_variance, options)
        if error < best_error:
            best, best_map, best_error = fit, spatial, error
    return ZeroPointSolution(best, best_map, structure)


def _prediction_error(stars: Calibrators, used: NDArray[np.bool_], variance: Floats, options: dict[str, Any]) -> float:
    """Return the mean squared residual, in units of ``variance``, of calibrators that the fit did not see."""
    rows = np.flatnonzero(used)
    if rows.size < 2 * _N_FOLDS:
        return float("inf")
    fold = np.arange(rows.size) % _N_FOLDS
    squares = np.empty(rows.size)
    for k in range(_N_FOLDS):
        fit = fit_zero_point(stars.select(rows[fold != k]), **options)
        left_out = rows[fold == k]
        squares[fold == k] = stars.select(left_out).residuals(fit.parameters) ** 2 / variance[left_out]
    return float(np.minimum(squares, 25.0).mean())


def _criterion(fit: ZeroPointFit, used: NDArray[np.bool_]) -> float:
    """Return the Bayesian information criterion over one common set of calibrators (outliers bounded)."""
    variance = fit.total_variance[used]
    chi2 = np.minimum(fit.residuals[used] ** 2 / variance, 25.0)
    return float((chi2 + np.log(variance)).sum() + fit.parameters.size * np.log(max(used.sum(), 2)))
