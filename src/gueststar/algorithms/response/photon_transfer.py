"""The photon-transfer curve: gain, read noise, full well and charge repulsion from flats of many levels.

After Astier et al. (2019, A&A 629, A36): charge that is already in a pixel repels what comes after it, so the variance
of a flat falls below Poisson's and neighbouring pixels become correlated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from gueststar.algorithms.response.flat_pair import PairCovariance

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhotonTransferConfig:
    """How the photon-transfer curve is fitted."""

    min_levels: int = 5
    """Fewest pairs of flats of different level."""
    min_span: float = 5.0
    """The highest level is at least this many times the lowest."""
    max_lag: int = 6
    """Covariances are measured up to this many pixels apart in x and y."""
    n_sigma: float = 5.0
    """Pairs further than this many errors from the curve are left out."""
    max_error: float = 0.02
    """The gain is not believed if its relative error is larger."""
    turnoff_fraction: float = 0.05
    """Above the level at which the variance is below the curve by more than this fraction the well is full."""


class PhotonTransfer(NamedTuple):
    """What the photon-transfer curve of one amplifier says."""

    gain: float
    """Electrons per ADU, for few electrons."""
    gain_error: float
    read_noise: float
    """Electrons."""
    repulsion: float
    """Change of a pixel's area per electron in it (a00 of Astier et al.), negative."""
    repulsion_error: float
    highest_level: float
    """Highest level that follows the curve, ADU above zero."""
    is_full_well: bool
    """Whether brighter flats depart from the curve: the well is full at ``highest_level``; else it is deeper."""
    chi2_per_dof: float
    n_levels: int
    """Pairs in the fit."""


class AreaChange(NamedTuple):
    """Relative change of a pixel's area per electron in a pixel some way off."""

    coefficients: Floats
    """``[lag_y, lag_x]``, per electron; the first is the pixel's own charge (negative)."""
    errors: Floats


def spans_a_curve(levels: Sequence[float], config: PhotonTransferConfig = PhotonTransferConfig()) -> bool:
    """Return whether pairs of these mean levels (ADU) suffice for a curve."""
    usable = np.array([level for level in levels if math.isfinite(level) and level > 0])
    return usable.size >= config.min_levels and float(usable.max() / usable.min()) >= config.min_span


def fit_photon_transfer(
    pairs: Sequence[PairCovariance], *, read_noise: float, config: PhotonTransferConfig = PhotonTransferConfig()
) -> PhotonTransfer:
    """Fit the variance of flats against their level (Astier et al. 2019, equation 16).

    ``read_noise`` (ADU, from an overscan or from biases) enters as one more point at level zero. The fit is done on the
    levels below that of the largest variance; what is left out at the top tells the full well. Raises
    ValueError with the reason where the pairs do not make a curve.
    """
    usable = sorted((p for p in pairs if math.isfinite(p.level)), key=lambda pair: pair.level)
    if not spans_a_curve([pair.level for pair in usable], config):
        levels = ", ".join(f"{pair.level:.4g}" for pair in usable) or "none"
        raise ValueError(
            f"flat pairs at levels {levels} ADU: {config.min_levels} pairs that span a factor of "
            f"{config.min_span:g} are needed"
        )
    level = np.array([pair.level for pair in usable])
    variance = np.array([pair.covariance[0, 0] for pair in usable])
    error = np.array([pair.error[0, 0] for pair in usable])
    top = int(np.argmax(variance))
    is_used = np.arange(level.size) <= top
    if is_used.sum() < config.min_levels:
        raise ValueError(f"only {int(is_used.sum())} flat pairs lie below the full well at {level[top]:.4g} ADU")
    for _ in range(4):
        fitted = _fit_curve(level[is_used], variance[is_used], error[is_used], read_noise)
        expected = _curve(fitted.x, level)
        pull = (variance - expected) / _widened(error, fitted.chi2_per_dof)
        is_kept = (np.abs(pull) <= config.n_sigma) & (np.arange(level.size) <= top)
        if is_kept.sum() < config.min_levels or np.array_equal(is_kept, is_used):
            break
        is_used = is_kept
    inverse, repulsion, noise = (float(value) for value in fitted.x)
    gain_error = float(fitted.errors[0] / inverse**2)
    if not (inverse > 0 and gain_error * inverse < config.max_error):
        raise ValueError(f"the gain is {1.0 / inverse:.4g} +- {gain_error:.2g} e-/ADU: the flats are too noisy")
    is_low = variance < expected * (1.0 - config.turnoff_fraction)
    highest = float(level[is_used].max())
    return PhotonTransfer(
        1.0 / inverse, gain_error, math.sqrt(max(noise, 0.0)) / inverse, repulsion, float(fitted.errors[1]), highest,
        bool(np.any(is_low & (level > highest))), fitted.chi2_per_dof, int(is_used.sum()),
    )  # fmt: skip


def fit_area_change(pairs: Sequence[PairCovariance], transfer: PhotonTransfer) -> AreaChange:
    """Fit covariances against level for each lag: ``C = n + a Q^2 + b Q^3`` in electrons, up to the full well.

    The cubic term takes up second-order effects where there are six levels or more. The pixel's own
    coefficient is that of the photon-transfer curve.
    """
    usable = [p for p in pairs if math.isfinite(p.level) and p.level <= 1.0001 * transfer.highest_level]
    charge = transfer.gain * np.array([pair.level for pair in usable])
    columns = [np.ones_like(charge), charge**2] + ([charge**3] if charge.size >= 6 else [])
    scale = np.array([np.max(np.abs(column)) for column in columns])
    shape = usable[0].covariance.shape
    coefficients, errors = np.zeros(shape), np.zeros(shape)
    for lag in np.ndindex(shape):
        value = transfer.gain**2 * np.array([pair.covariance[lag] for pair in usable])
        error = transfer.gain**2 * np.array([pair.error[lag] for pair in usable])
        design = np.stack(columns, axis=1) / scale / error[:, None]
        inverse = np.linalg.pinv(design.T @ design)
        solution = inverse @ (design.T @ (value / error))
        chi2 = float(np.sum((value / error - design @ solution) ** 2)) / max(charge.size - len(columns), 1)
        coefficients[lag] = solution[1] / scale[1]
        errors[lag] = math.sqrt(inverse[1, 1] * max(chi2, 1.0)) / scale[1]
    coefficients[0, 0], errors[0, 0] = transfer.repulsion, transfer.repulsion_error
    return AreaChange(coefficients, errors)


def mean_area_change(parts: Sequence[AreaChange]) -> AreaChange:
    """Average the coefficients of a detector's amplifiers, which share the silicon."""
    weights = np.array([1.0 / np.maximum(part.errors, 1e-30) ** 2 for part in parts])
    values = np.array([part.coefficients for part in parts])
    return AreaChange((weights * values).sum(axis=0) / weights.sum(axis=0), 1.0 / np.sqrt(weights.sum(axis=0)))


class _Fitted(NamedTuple):
    x: Floats
    """Inverse gain, area change per electron, read-noise variance in ADU squared."""
    errors: Floats
    chi2_per_dof: float


def _curve(parameters: Floats, level: Floats) -> Floats:
    """Return the variance in ADU squared at levels in ADU."""
    inverse, repulsion, noise = parameters
    exponent = np.clip(2.0 * repulsion * level / inverse, -50.0, 50.0)
    saturation = np.where(np.abs(exponent) > 1e-8, np.expm1(exponent) / np.where(exponent == 0, 1.0, exponent), 1.0)
    return np.asarray(level * inverse * saturation + noise)


def _fit_curve(level: Floats, variance: Floats, error: Floats, read_noise: float) -> _Fitted:
    start = float(np.median((variance - read_noise**2) / level))
    scale = np.array([max(abs(start), 1e-6), 1e-6, max(read_noise**2, 1e-3)])
    # A tenth of the read-out noise for the point at zero: overscans and flats are not read out quite alike.
    zero_error = max(0.1 * read_noise**2, 1e-3)

    def residuals(x: Floats) -> Floats:
        parameters = x * scale
        misfit = (variance - _curve(parameters, level)) / error
        return np.append(misfit, (parameters[2] - read_noise**2) / zero_error)

    found = least_squares(residuals, [1.0, -1.0, 1.0], loss="soft_l1", f_scale=3.0, method="trf")
    misfit = residuals(found.x)
    chi2 = float(np.sum(misfit**2)) / max(level.size - 2, 1)
    plain = least_squares(residuals, found.x, method="trf") if chi2 < 4.0 else found
    covariance = np.linalg.pinv(plain.jac.T @ plain.jac) * max(chi2, 1.0)
    return _Fitted(plain.x * scale, np.sqrt(np.diag(covariance)) * scale, chi2)


def _widened(error: Floats, chi2_per_dof: float) -> Floats:
    return error * math.sqrt(max(chi2_per_dof, 1.0))
