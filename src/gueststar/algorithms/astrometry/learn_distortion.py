"""The distortion of a detector from the stars of many exposures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.distortion import (
    Distortion,
    detector_frame,
    legendre_terms,
    without_similarity,
)
from gueststar.algorithms.astrometry.polynomial import n_terms
from gueststar.algorithms.astrometry.verification import fit_similarity
from gueststar.algorithms.stats.robust import median_and_sigma

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class LearnDistortionConfig:
    """How a distortion is learned, and when it is believed."""

    order: int = 5
    """Total order of the series (TPV: 5)."""
    min_exposures: int = 3
    """Fewer exposures than this teach nothing."""
    min_stars: int = 60
    """Stars an exposure needs to be used."""
    min_total_stars: int = 600
    """Stars that all exposures together need; a lower order is taken where there are fewer per coefficient."""
    stars_per_coefficient: float = 20.0
    """Of all exposures together, per coefficient of an axis."""
    max_stars: int = 3000
    """Brightest stars of an exposure that are used."""
    clip_sigma: float = 4.0
    """Stars farther than this from the model are left out."""
    default_change_pixel: float = 0.02
    """Change of a coefficient from exposure to exposure where fewer than four exposures tell it."""
    drift_pixel: float = 0.003
    """Change of a coefficient in 30 days, by which older knowledge loses weight."""
    max_jump_sigma: float = 6.0
    """If the new and the last distortion differ by more (rms over the coefficients), the last one is forgotten:
    the instrument was changed."""
    max_worse: float = 1.05
    """Refused if stars that were kept aside fit worse than with the last one by a larger factor."""


class MatchedStars(NamedTuple):
    """The stars of one exposure: pixels, and places in a tangent plane as seen through the air, brightest first."""

    x: Floats
    y: Floats
    plane: Floats
    """``[n, 2]``, any unit and orientation."""
    error: Floats
    """Of the difference, per axis, pixels."""


class Learned(NamedTuple):
    """A distortion and what it rests on."""

    distortion: Distortion
    n_exposures: int
    n_stars: int
    rms_pixel: float
    """Per axis, of the stars used, about distortion and similarity."""


def learn_distortion(
    exposures: list[MatchedStars], shape: tuple[int, int], config: LearnDistortionConfig
) -> Learned | None:
    """Return the distortion that exposures share, each with its own shift, rotation and scale.

    None if exposures or stars are too few (``min_exposures``, ``min_stars``, ``min_total_stars``).
    """
    usable = [_brightest(stars, config.max_stars) for stars in exposures if stars.x.size >= config.min_stars]
    total = sum(stars.x.size for stars in usable)
    if len(usable) < config.min_exposures or total < config.min_total_stars:
        return None
    order = config.order
    while order > 1 and total < config.stars_per_coefficient * n_terms(order):
        order -= 1
    zero = np.zeros((2, n_terms(order)))
    state = Distortion(shape, zero, zero, zero)
    fields = [_Field(stars, shape, order, config.clip_sigma) for stars in usable]
    for _ in range(5):
        for field in fields:
            field.look(state)
        normal = np.sum([field.normal for field in fields], axis=0)
        right = np.sum([field.right for field in fields], axis=0)
        solution = np.linalg.pinv(normal, rcond=1e-10, hermitian=True) @ right
        step = without_similarity(solution.reshape(2, -1), shape)
        state = Distortion(shape, state.coefficients + step, zero, zero)
    for field in fields:
        field.look(state)
    formal = np.sqrt(np.clip(np.diag(np.linalg.pinv(normal, rcond=1e-10, hermitian=True)), 0.0, None)).reshape(2, -1)
    change = _change(fields, zero.shape, config)
    error = np.hypot(formal, change / np.sqrt(len(fields)))
    rms = float(np.sqrt(np.mean(np.concatenate([field.residuals[field.is_used] for field in fields]) ** 2)))
    return Learned(Distortion(shape, state.coefficients, error, change), len(fields), total, rms)


def _brightest(stars: MatchedStars, n: int) -> MatchedStars:
    return MatchedStars(*(values[:n] for values in stars))


class _Field:
    """One exposure's part in the common solution, its own similarity taken out."""

    def __init__(self, stars: MatchedStars, shape: tuple[int, int], order: int, clip_sigma: float) -> None:
        self.stars, self.shape, self.clip_sigma = stars, shape, clip_sigma
        self.places = np.stack([stars.x, stars.y], axis=1)
        self.terms = legendre_terms(*detector_frame(stars.x, stars.y, shape), order)
        self.is_mirrored = _is_mirrored(self.places, stars.plane)
        self.is_used = np.ones(stars.x.size, dtype=bool)

    def look(self, distortion: Distortion) -> None:
        """Set residuals (pixels, less similarity), the stars used and the normal equations for the series."""
        ideal = self.places + distortion.displacement(self.stars.x, self.stars.y)
        self.residuals = residuals_of(ideal, self.stars.plane, is_mirrored=self.is_mirrored)
        size = np.hypot(*self.residuals.T)
        _, sigma = median_and_sigma(self.residuals.ravel())
        floor = np.hypot(sigma, self.stars.error)
        self.is_used = size < np.sqrt(2.0) * self.clip_sigma * floor
        weight = 1.0 / floor[self.is_used] ** 2
        design = np.kron(np.eye(2), self.terms[self.is_used])
        both = np.concatenate([weight, weight])
        own = _similarity_terms(ideal[self.is_used])
        target = self.residuals[self.is_used].T.ravel()
        cross = design.T @ (both[:, None] * own)
        inner = np.linalg.inv(own.T @ (both[:, None] * own))
        self.normal = design.T @ (both[:, None] * design) - cross @ inner @ cross.T
        self.right = design.T @ (both * target) - cross @ inner @ (own.T @ (both * target))


def residuals_of(ideal: Floats, plane: Floats, *, is_mirrored: bool) -> Floats:
    """Return ``[n, 2]``, pixels: where the plane's stars lie in the detector's frame, less the ideal positions.

    Shift, rotation and scale are fitted (robustly).
    """
    flip = np.array([-1.0 if is_mirrored else 1.0, 1.0])
    matrix, shift = fit_similarity(plane * flip, ideal)
    return np.asarray(plane * flip @ matrix.T + shift - ideal)


def _is_mirrored(places: Floats, plane: Floats) -> bool:
    a, b = places - places.mean(axis=0), plane - plane.mean(axis=0)
    return bool(np.linalg.det(np.linalg.lstsq(a, b, rcond=None)[0]) < 0.0)


def _similarity_terms(places: Floats) -> Floats:
    """Return ``[2 n, 4]``: what a shift, a change of scale and a rotation do to x, then to y."""
    x, y = (places - places.mean(axis=0)).T / 1000.0
    one, zero = np.ones(x.size), np.zeros(x.size)
    return np.concatenate([np.stack([one, zero, x, -y], axis=1), np.stack([zero, one, y, x], axis=1)])


def _change(fields: list[_Field], form: tuple[int, ...], config: LearnDistortionConfig) -> Floats:
    """Return the scatter of the coefficients from exposure to exposure, less what the stars' errors make of it."""
    enough = [f for f in fields if f.is_used.sum() >= 5 * form[1]]
    if len(enough) < 4:
        return np.full(form, config.default_change_pixel)
    own, variance = [], []
    for field in enough:
        inverse = np.linalg.pinv(field.normal, rcond=1e-10, hermitian=True)
        own.append((inverse @ field.right).reshape(form))
        variance.append(np.diag(inverse).reshape(form))
    excess = np.mean(np.square(own), axis=0) * len(enough) / (len(enough) - 1) - np.mean(variance, axis=0)
    # A few exposures tell each scatter badly: it is drawn to the mean over its order.
    powers = np.array([i + j for j_order in range(20) for i, j in _pairs(j_order)][: form[1]])
    smooth = np.empty(form)
    for order in np.unique(powers):
        smooth[:, powers == order] = np.mean(np.clip(excess[:, powers == order], 0.0, None))
    n = len(enough)
    return np.sqrt(np.clip((np.clip(excess, 0.0, None) * n + 4.0 * smooth) / (n + 4.0), 1e-8, None))


def _pairs(order: int) -> list[tuple[int, int]]:
    return [(order - j, j) for j in range(order + 1)]


class Comparison(NamedTuple):
    """How a new distortion stands against the last one."""

    jump_sigma: float
    """Rms difference of the coefficients over its expected size."""
    difference_pixel: float
    """Rms over the detector."""
    is_continued: bool
    """The last one's knowledge is in the result."""


def combine_with_last(
    new: Distortion, last: Distortion, *, days: float, config: LearnDistortionConfig
) -> tuple[Distortion, Comparison]:
    """Return the new distortion joined with the last by their errors, the last grown older by ``days``.

    Where they differ by more than ``max_jump_sigma`` the new one stands alone.
    """
    if last.coefficients.shape != new.coefficients.shape or last.shape != new.shape:
        return new, Comparison(float("inf"), float("nan"), False)
    aged = last.error**2 + config.drift_pixel**2 * abs(days) / 30.0
    difference = without_similarity(new.coefficients - last.coefficients, new.shape)
    variance = new.error**2 + aged
    jump = float(np.sqrt(np.mean((difference**2 / variance)[:, 1:])))
    apart = float(np.sqrt(np.mean(difference[:, 1:] ** 2 * mean_squares(new.order)[1:])) * np.sqrt(n_terms(new.order)))
    if jump > config.max_jump_sigma:
        return new, Comparison(jump, apart, False)
    weight = aged / variance
    coefficients = without_similarity(weight * new.coefficients + (1.0 - weight) * last.coefficients, new.shape)
    error = np.sqrt(new.error**2 * aged / variance)
    change = np.sqrt((new.change**2 + last.change**2) / 2.0)
    return Distortion(new.shape, coefficients, error, change), Comparison(jump, apart, True)


def mean_squares(order: int) -> Floats:
    """Return the mean squares of the terms over the detector."""
    return np.array([1.0 / ((2 * i + 1) * (2 * j + 1)) for k in range(order + 1) for i, j in _pairs(k)])


def scatter_with(distortion: Distortion, exposures: list[MatchedStars]) -> float:
    """Return the robust scatter per axis (pixels) of exposures' stars about a distortion and own similarities."""
    left = []
    for stars in exposures:
        places = np.stack([stars.x, stars.y], axis=1)
        ideal = places + distortion.displacement(stars.x, stars.y)
        left.append(residuals_of(ideal, stars.plane, is_mirrored=_is_mirrored(places, stars.plane)).ravel())
    return median_and_sigma(np.concatenate(left))[1]
