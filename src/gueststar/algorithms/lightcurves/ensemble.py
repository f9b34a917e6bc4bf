"""Relative photometry: each epoch's zero point from all stars at once.

Honeycutt (1992, PASP 104, 435): the magnitude of star s at epoch e is its mean plus the epoch's offset. Both
are found by weighted least squares over all stars, with variable stars and bad measurements down-weighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EnsembleConfig:
    """How epochs are brought together."""

    floor_mag: float = 0.003
    """Error added in quadrature to every measurement, mag."""
    min_epochs: float = 0.5
    """Share of the epochs at which a comparison star must be measured."""
    clip_sigma: float = 4.0
    """Measurements further from their star's mean are left out of their epoch's offset."""
    iterations: int = 12
    """Alternations between star means and epoch offsets."""
    max_rms_ratio: float = 3.0
    """Stars whose scatter exceeds their errors by more than this are variable, and no comparison stars."""


class Ensemble(NamedTuple):
    """Offsets of epochs and means of stars."""

    offset: Floats
    """``[n_epochs]`` to subtract from magnitudes, mag; NaN where no comparison star was measured."""
    offset_err: Floats
    mean: Floats
    """``[n_stars]`` weighted mean corrected magnitude; NaN for a star without measurement."""
    rms: Floats
    """``[n_stars]`` robust scatter of the corrected magnitudes."""
    is_comparison: NDArray[np.bool_]
    """``[n_stars]`` whether the star took part."""
    excess: float
    """Scatter of the better measured half of the comparison stars beyond their errors, mag: what errors leave out."""


def solve_ensemble(mag: Floats, error: Floats, config: EnsembleConfig = EnsembleConfig()) -> Ensemble:
    """Return epoch offsets and star means for magnitudes ``[n_epochs, n_stars]``, NaN where not measured.

    The offsets are free up to a constant, fixed so that their median is zero.
    """
    total = np.hypot(error, config.floor_mag)
    weight = np.where(np.isfinite(mag) & np.isfinite(total), 1.0 / total**2, 0.0)
    value = np.where(weight > 0, mag, 0.0)
    is_comparison = np.mean(weight > 0, axis=0) >= config.min_epochs
    offset = _first_offsets(np.where(weight > 0, mag, np.nan))
    used = weight * is_comparison
    for iteration in range(config.iterations):
        mean = _ratio(np.sum(weight * (value - offset[:, None]), axis=0), np.sum(weight, axis=0))
        residual = np.where(weight > 0, value - mean[None, :] - offset[:, None], 0.0)
        is_near = np.abs(residual) < config.clip_sigma * np.where(weight > 0, total, np.inf)
        used = weight * is_comparison * is_near
        step = _ratio(np.sum(used * (value - mean[None, :]), axis=1), np.sum(used, axis=1))
        offset = np.where(np.isfinite(step), step - np.nanmedian(step), offset)
        if iteration >= 2:  # before that the means still hold the epochs' offsets
            is_comparison &= ~_is_variable(residual, total, weight, config)
    corrected = np.where(weight > 0, value - offset[:, None], np.nan)
    mean = _ratio(np.sum(weight * (value - offset[:, None]), axis=0), np.sum(weight, axis=0))
    rms = 1.4826 * np.nanmedian(np.abs(corrected - mean[None, :]), axis=0) if mag.shape[0] else mean
    sum_used = np.sum(used, axis=1)
    offset_err = np.where(sum_used > 0, 1.0 / np.sqrt(np.where(sum_used > 0, sum_used, 1.0)), np.nan)
    offset = np.where(sum_used > 0, offset, np.nan)
    return Ensemble(offset, offset_err, mean, rms, is_comparison, _excess(rms, error, is_comparison))


def _first_offsets(mag: Floats) -> Floats:
    """Return each epoch's median departure from the stars' medians; zero where nothing was measured."""
    is_measured = np.isfinite(mag)
    stars, epochs = is_measured.any(axis=0), is_measured.any(axis=1)
    offset = np.zeros(mag.shape[0])
    if stars.any():
        departure = mag[:, stars] - np.nanmedian(mag[:, stars], axis=0)
        offset[epochs] = np.nanmedian(departure[epochs], axis=1)
    return offset


def _excess(rms: Floats, error: Floats, is_comparison: NDArray[np.bool_]) -> float:
    is_known = np.isfinite(error).any(axis=0) & is_comparison & np.isfinite(rms)
    if not is_known.any():
        return 0.0
    typical, scatter = np.nanmedian(error[:, is_known], axis=0), rms[is_known]
    better = typical <= np.median(typical)
    return float(np.sqrt(max(np.median(scatter[better] ** 2 - typical[better] ** 2), 0.0)))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def _is_variable(residual: Floats, error: Floats, weight: Floats, config: EnsembleConfig) -> NDArray[np.bool_]:
    is_measured = weight > 0
    pulls = np.where(is_measured, np.abs(residual) / np.where(is_measured, error, 1.0), np.nan)
    seen = is_measured.any(axis=0)
    is_variable = np.zeros(weight.shape[1], dtype=bool)
    is_variable[seen] = 1.4826 * np.nanmedian(pulls[:, seen], axis=0) > config.max_rms_ratio
    return is_variable
