"""How far an amplifier's counts are from proportional to light, from flats of many exposure times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from gueststar.core.bits import MaskPlane

Floats = NDArray[np.float64]

TABLE_SIZE = 2048
"""Entries of the table by which images are corrected."""


@dataclass(frozen=True)
class LinearityConfig:
    """How non-linearity is measured."""

    min_levels: int = 6
    """Fewest different exposure times."""
    min_span: float = 8.0
    """The longest exposure is at least this many times the shortest."""
    min_reach: float = 0.5
    """The brightest usable flat reaches at least this fraction of the counts between zero and saturation."""
    n_knots: int = 7
    """Knots of the spline, the one at zero included; fewer where there are fewer levels."""
    lamp_drift_per_hour: float = 0.005
    """By how much the lamp may brighten or fade in an hour (one sigma), which the flats may tell better."""
    shutter_error_s: float = 0.02
    """By how much all exposures may be longer or shorter than the header says (one sigma), seconds."""
    roughness: float = 0.001
    """By how much third differences of the correction between knots may differ from zero (one sigma, fraction of the
    highest level): what a few flats say of bumps is weighed against a parabola."""
    max_error: float = 0.003
    """A correction known no better than this fraction of the counts is not believed."""
    min_significance: float = 4.0
    """A curve whose departure from a line is less than this many sigma is taken for a line."""
    n_sigma: float = 5.0
    """Flats further than this from the fit are left out."""


class FlatLevels(NamedTuple):
    """Mean levels of one amplifier in a series of flats of the same light."""

    level: Floats
    """ADU above zero."""
    error: Floats
    """Photon and read-out noise of these means, ADU."""
    exposure_s: Floats
    hours: Floats
    """Time of each flat, hours, from any start."""


class Linearity(NamedTuple):
    """What to add to an amplifier's counts to make them proportional to light."""

    knots: Floats
    """Counts above zero, ADU; the first is zero, the last the highest that was measured."""
    correction: Floats
    """To be added at the knots, ADU; zero at the first two, so that faint light keeps its scale."""
    error: Floats
    """Standard errors of the corrections, ADU."""
    largest_error: float
    """Largest standard error of the corrected counts from the faintest flat up, as a fraction of them."""
    is_significant: bool
    """Whether the amplifier is known to depart from a line at all; if not, nothing is corrected."""
    lamp_scatter: float
    """Fraction by which the light varied from flat to flat beyond the fit."""
    lamp_drift_per_hour: float
    chi2_per_dof: float
    n_levels: int
    """Flats in the fit."""

    @property
    def highest_level(self) -> float:
        """Highest level at which the response was measured, ADU above zero."""
        return float(self.knots[-1])


class LinearityTable(NamedTuple):
    """A correction in steps of equal size, for images."""

    factor: NDArray[np.float32]
    """By which counts are to be multiplied; linear between the entries."""
    step: float
    """Counts between entries, ADU."""
    highest_level: float
    """Above this the last factor is used, and the pixel is SUSPECT."""


def fit_linearity(flats: FlatLevels, *, saturation: float, config: LinearityConfig = LinearityConfig()) -> Linearity:
    """Fit a cubic spline that makes flats' levels proportional to their exposure times.

    The model is ``m + s(m) = R (t + dt) (1 + c T)`` with measured level m, exposure time t, time of day T: the spline s
    with s(0) = 0 and no correction at the second knot (the scale belongs to the gain), the lamp's brightness R
    and its drift c, and the shutter's error dt, the last two held by their priors. Flats of one exposure time that
    differ by more than noise show how steady the lamp is, and every flat's error grows by that. ``saturation``
    is in ADU above zero; levels at or above 0.97 of it are left out. Raises ValueError with the reason where the flats
    cannot tell.
    """
    is_used = np.isfinite(flats.level) & (flats.level > 0) & (flats.exposure_s > 0) & (flats.level < 0.97 * saturation)
    _require_ladder(flats, is_used, saturation, config)
    knots = _knots(flats, is_used, config)
    scatter = _repeat_scatter(flats, is_used)
    for _ in range(5):
        fit = _solve(flats, is_used, knots, scatter, config)
        pull = fit.residual / np.hypot(flats.error, scatter * flats.level)
        limit = config.n_sigma * math.sqrt(max(fit.chi2_per_dof, 1.0))
        is_kept = is_used & (np.abs(pull) <= limit)
        if np.array_equal(is_kept, is_used):
            break
        is_used = is_kept
        _require_ladder(flats, is_used, saturation, config)
    widening = math.sqrt(max(fit.chi2_per_dof, 1.0))
    error = fit.error * widening
    worst = max(float(np.max(error[1:] / knots[1:])), widening * fit.faint_error)
    if worst > config.max_error:
        raise ValueError(
            f"the correction is known to {worst:.2%} of the counts, {config.max_error:.2%} is needed: take more flats, "
            "or exposure times in mixed order so that the lamp's drift shows"
        )
    significance = float(np.max(np.abs(fit.correction[2:]) / error[2:]))
    return Linearity(
        knots, fit.correction, error, worst, significance >= config.min_significance, widening * scatter,
        fit.drift, fit.chi2_per_dof, int(is_used.sum()),
    )  # fmt: skip


def correction_at(linearity: Linearity, level: Floats) -> Floats:
    """Return what is to be added to counts (ADU above zero), the highest level's fraction beyond it; 0 below zero."""
    spline = CubicSpline(linearity.knots, linearity.correction)
    inside = np.clip(level, 0.0, linearity.highest_level)
    beyond = np.maximum(level, linearity.highest_level) / linearity.highest_level
    return np.asarray(spline(inside) * beyond)


def table_of(linearity: Linearity) -> LinearityTable | None:
    """Return the table by which images are corrected; None where there is nothing to correct."""
    if not linearity.is_significant:
        return None
    level = np.linspace(0.0, linearity.highest_level, TABLE_SIZE)
    factor = np.ones(TABLE_SIZE)
    factor[1:] += correction_at(linearity, level[1:]) / level[1:]
    factor[0] = factor[1]
    return LinearityTable(factor.astype(np.float32), float(level[1]), linearity.highest_level)


def linearise_in_place(
    counts: NDArray[np.float32], table: LinearityTable, mask: NDArray[np.int32] | None = None
) -> None:
    """Make counts (ADU above zero) proportional to light; mark those above the measured range SUSPECT in ``mask``.

    Counts below zero and pixels that are not finite stay as they are.
    """
    none = np.zeros((0, 0), np.int32)
    _linearise(
        counts, table.factor, np.float32(1.0 / table.step), np.float32(table.highest_level),
        none if mask is None else mask, int(MaskPlane.SUSPECT),
    )  # fmt: skip


def measured_counts(counts: Floats, table: LinearityTable) -> Floats:
    """Return the counts (ADU above zero) that an amplifier writes for counts proportional to light.

    The inverse of `linearise_in_place`; counts below zero stay.
    """
    written = table.step * np.arange(table.factor.size)
    true = written * table.factor
    inside = np.interp(counts, true, written)
    return np.where(counts > true[-1], counts / table.factor[-1], np.where(counts > 0, inside, counts))


class _Solution(NamedTuple):
    correction: Floats
    error: Floats
    faint_error: float
    residual: Floats
    drift: float
    chi2_per_dof: float


def _require_ladder(flats: FlatLevels, is_used: NDArray[np.bool_], saturation: float, config: LinearityConfig) -> None:
    times = np.unique(np.round(flats.exposure_s[is_used], 4))
    if times.size < config.min_levels or times.max() < config.min_span * times.min():
        shown = ", ".join(f"{t:g}" for t in times) or "none"
        raise ValueError(
            f"flats of exposure times {shown} s: {config.min_levels} that span a factor of {config.min_span:g} are "
            "needed"
        )
    reach = float(flats.level[is_used].max()) / saturation
    if reach < config.min_reach:
        raise ValueError(f"the brightest flat reaches {reach:.0%} of saturation, {config.min_reach:.0%} is needed")


def _knots(flats: FlatLevels, is_used: NDArray[np.bool_], config: LinearityConfig) -> Floats:
    """Return evenly spaced knots from zero to the top of the ladder, none without flats near it."""
    level = flats.level[is_used]
    n_times = np.unique(np.round(flats.exposure_s[is_used], 4)).size
    count = min(config.n_knots, max(4, n_times - 1))
    top = float(level.max())
    even = np.linspace(0.0, top, count)
    is_near = [np.any(np.abs(level - knot) < 0.75 * even[1]) for knot in even]
    knots = even[np.array([True, *is_near[1:]])]
    if knots.size < 4:
        raise ValueError("the flats' levels lie too far apart for a curve: spread them evenly up to saturation")
    return knots


def _repeat_scatter(flats: FlatLevels, is_used: NDArray[np.bool_]) -> float:
    """Return by which fraction flats of one exposure time differ beyond their noise."""
    squares, n_free = 0.0, 0
    times = np.round(flats.exposure_s, 4)
    for t in np.unique(times[is_used]):
        same = np.flatnonzero(is_used & (times == t))
        if same.size > 1:
            relative = flats.level[same] / flats.level[same].mean() - 1.0
            noise = float(np.mean((flats.error[same] / flats.level[same]) ** 2))
            squares += float(np.sum(relative**2)) - (same.size - 1) * noise
            n_free += same.size - 1
    return math.sqrt(max(squares / n_free, 0.0)) if n_free else 0.0


def _solve(
    flats: FlatLevels, is_used: NDArray[np.bool_], knots: Floats, scatter: float, config: LinearityConfig
) -> _Solution:
    """Solve the linear equations of the model, priors as further rows."""
    n_free = knots.size - 2
    hours = flats.hours - flats.hours[is_used].mean()
    basis = CubicSpline(knots, np.eye(knots.size))(flats.level)[:, 2:]
    rate = float(np.median(flats.level[is_used] / flats.exposure_s[is_used]))
    # Unknowns: corrections at the free knots, R, R dt, R c.
    design = np.column_stack([-basis, flats.exposure_s, np.ones_like(hours), flats.exposure_s * hours])
    weight = np.where(is_used, 1.0 / np.maximum(np.hypot(flats.error, scatter * flats.level), 1e-6), 0.0)
    bumps = np.diff(np.eye(knots.size), n=3, axis=0)[:, 2:] / (config.roughness * knots[-1])
    priors = np.zeros((2 + len(bumps), n_free + 3))
    priors[2:, :n_free] = bumps
    priors[0, n_free + 1] = 1.0 / max(rate * config.shutter_error_s, 1e-12)
    priors[1, n_free + 2] = 1.0 / max(rate * config.lamp_drift_per_hour, 1e-12)
    matrix = np.vstack([design * weight[:, None], priors])
    scale = np.linalg.norm(matrix, axis=0)
    solution, *_ = np.linalg.lstsq(matrix / scale, np.append(flats.level * weight, np.zeros(len(priors))), rcond=1e-12)
    covariance = np.linalg.pinv((matrix / scale).T @ (matrix / scale))
    solution, sigma = solution / scale, np.sqrt(np.diag(covariance)) / scale
    faintest = int(np.argmin(np.where(is_used, flats.level, np.inf)))
    weights = np.append(basis[faintest] / scale[:n_free], np.zeros(3))
    faint_error = math.sqrt(float(weights @ covariance @ weights)) / float(flats.level[faintest])
    residual = np.where(is_used, flats.level - design @ solution, 0.0)
    chi2 = float(np.sum((residual * weight) ** 2)) / max(int(is_used.sum()) - n_free - 1, 1)
    pad = np.zeros(2)
    return _Solution(
        np.concatenate([pad, solution[:n_free]]), np.concatenate([pad, sigma[:n_free]]), faint_error, residual,
        float(solution[n_free + 2] / solution[n_free]), chi2,
    )  # fmt: skip


@numba.njit(cache=True)
def _linearise(counts, factor, inverse_step, highest, mask, suspect):  # type: ignore[no-untyped-def]
    ny, nx = counts.shape
    last = factor.size - 1
    has_mask = mask.size > 0
    for y in range(ny):
        for x in range(nx):
            value = counts[y, x]
            if not value > np.float32(0.0):
                continue
            if value >= highest:
                counts[y, x] = value * factor[last]
                if has_mask and value > highest:
                    mask[y, x] |= suspect
                continue
            place = value * inverse_step
            index = min(int(place), last - 1)
            part = place - np.float32(index)
            counts[y, x] = value * (factor[index] + part * (factor[index + 1] - factor[index]))
