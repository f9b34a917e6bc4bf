"""How far the light of bright stars reaches: their wings measured, and the pixels that they outshine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.stats.select import median_of_line

Bools = NDArray[np.bool_]
Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]

_MOST_SAMPLES = 512
"""Pixels looked at in a ring."""
_MEDIAN_ERROR = 1.2533
"""Error of a median over that of a mean."""
_ITERATIONS = 5


class WingProfile(NamedTuple):
    """Fraction of a star's light per pixel against the distance from it: a power law between and beyond its points."""

    radius: Floats
    """Pixels, rising."""
    level: Floats
    """Falling, positive."""
    outer_slope: float
    """Of the logarithm of the level against that of the radius beyond the last point."""
    n_stars: int
    """On which the profile was measured; 0: it is that of the PSF's stamp."""

    def reach(self, level: Floats) -> Floats:
        """Return the distance at which the profile falls to each ``level``; 0 where it is below it all over."""
        target = np.log(np.maximum(np.asarray(level, dtype=np.float64), 1e-300))
        radius, own = np.log(self.radius), np.log(self.level)
        inside = np.interp(-target, -own, radius)
        beyond = radius[-1] + (target - own[-1]) / self.outer_slope
        return np.where(target > own[0], 0.0, np.exp(np.where(target < own[-1], beyond, inside)))

    def at(self, radius: Floats) -> Floats:
        """Return the level at distances, that of the first point nearer in."""
        r = np.log(np.maximum(radius, 1e-3))
        inside = np.interp(r, np.log(self.radius), np.log(self.level))
        beyond = np.log(self.level[-1]) + self.outer_slope * (r - np.log(self.radius[-1]))
        return np.exp(np.where(radius > self.radius[-1], beyond, inside))


def stamp_profile(stamp: NDArray[np.floating], *, least_radius: float) -> tuple[Floats, Floats]:
    """Return radii and mean levels of a PSF stamp (unit sum) in rings, ``least_radius`` to nine tenths of its reach."""
    half = stamp.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(x, y)
    edges = np.geomspace(least_radius, max(0.9 * half, 1.3 * least_radius), 6)
    ring = np.digitize(distance, edges)
    rows = [(distance[ring == k].mean(), float(stamp[ring == k].mean())) for k in range(1, 6) if (ring == k).any()]
    kept = [(r, level) for r, level in rows if level > 0]
    return np.array([r for r, _ in kept]), np.array([level for _, level in kept])


def measure_wings(
    image: Float32Image,
    is_usable: Bools,
    *,
    x: Floats,
    y: Floats,
    flux: Floats,
    sky_rms: float,
    stamp: NDArray[np.floating],
    fwhm: float,
    slope_range: tuple[float, float] = (2.0, 4.0),
    n_sigma: float = 5.0,
) -> WingProfile:
    """Return the wings of stars of known ``flux`` at (x, y) on a background-subtracted image.

    In rings about each star the median is taken, which neighbours hardly move, what the wings of the other
    stars add is taken off, then the mean over the stars, weighted by their signal to noise, outliers clipped.
    Rings are believed as long as they fall and stand ``n_sigma`` above noise, with a hundredth of ``sky_rms`` for the
    background's error. Where no star shows its wings the profile is that of the PSF's ``stamp`` (unit sum).
    Beyond the last ring it falls as the last rings do, with a power within ``slope_range``: aureoles fall
    about as the inverse square to cube (King 1971, PASP 83, 199).
    """
    own = stamp_profile(stamp, least_radius=1.5 * fwhm)
    if own[0].size < 2:  # a stamp that ends in zeros
        own = np.array([0.5 * fwhm, 2.0 * fwhm]), float(stamp.max()) * np.array([1.0, 0.01])
    profile = _profile(*own, 0, slope_range)
    if x.size == 0:
        return profile
    radii = np.geomspace(2.0 * fwhm, 40.0 * fwhm, 14)
    medians, counts = _ring_medians(image, is_usable, x, y, radii)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    for _ in range(_ITERATIONS):
        level, error = _stacked(medians - _light_of_others(profile, distance, flux, radii), counts, flux, sky_rms)
        n_seen = _n_believed(level, error, n_sigma)
        if n_seen < 2:
            return _profile(*own, 0, slope_range)
        inner = (own[0] < 0.9 * radii[0]) & (own[1] > level[0])
        profile = _profile(
            np.append(own[0][inner], radii[:n_seen]), np.append(own[1][inner], level[:n_seen]), x.size, slope_range
        )
    return profile


def measure_reach(
    image: Float32Image,
    is_usable: Bools,
    profile: WingProfile,
    *,
    x: Floats,
    y: Floats,
    flux: Floats,
    level: float,
    radii: Floats,
) -> Floats:
    """Return how far from each star the median of rings stays above ``level`` (image units), out to which of ``radii``.

    What other stars' wings add is taken off. A ghost, which no profile foretells, shows here if it surrounds the star.
    """
    if x.size == 0:
        return np.zeros(0)
    medians, counts = _ring_medians(image, is_usable, x, y, radii)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    own = medians - _light_of_others(profile, distance, flux, radii)
    is_lit = ((own > level) & (counts >= 16)) | (counts < 16)
    n_lit = np.where(is_lit.all(axis=1), radii.size, np.argmin(is_lit, axis=1))
    is_seen = np.cumsum(counts >= 16, axis=1)[np.arange(x.size), np.maximum(n_lit - 1, 0)] > 0
    return np.where((n_lit > 0) & is_seen, radii[np.minimum(n_lit, radii.size - 1)], 0.0)


def _profile(radius: Floats, level: Floats, n_stars: int, slope_range: tuple[float, float]) -> WingProfile:
    falling = np.minimum.accumulate(level) * (1.0 - 1e-9 * np.arange(level.size))
    last = slice(max(0, radius.size - 4), None)
    slope = -float(np.polyfit(np.log(radius[last]), np.log(falling[last]), 1)[0])
    return WingProfile(radius, falling, -float(np.clip(slope, *slope_range)), n_stars)


def _n_believed(level: Floats, error: Floats, n_sigma: float) -> int:
    """Return how many rings from the first are seen and fall as stars' wings do, faster than 1 / r."""
    is_good = level > n_sigma * error
    is_good[1:] &= level[1:] < 0.75 * level[:-1]
    return int(np.argmin(is_good)) if not is_good.all() else is_good.size


def _light_of_others(profile: WingProfile, distance: Floats, flux: Floats, radii: Floats) -> Floats:
    """Return about what the wings of the other stars add to each star's rings ``[star, ring]``."""
    added = np.zeros((flux.size, radii.size))
    at_stars, at_rings = profile.at(distance), profile.at(radii)
    for k in range(radii.size):
        share = np.where(distance < radii[k], at_rings[k], at_stars)
        np.fill_diagonal(share, 0.0)
        added[:, k] = share @ flux
    return added


def _stacked(levels: Floats, counts: Floats, flux: Floats, sky_rms: float) -> tuple[Floats, Floats]:
    """Return the weighted clipped mean over the stars of each ring's fraction of light per pixel, and its error."""
    level = levels / flux[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = sky_rms * np.hypot(_MEDIAN_ERROR / np.sqrt(counts), 0.01)
        error = np.where(counts >= 16, noise, np.inf) / flux[:, None]
        weight = np.where(np.isfinite(level), 1.0 / error**2, 0.0)
    level = np.nan_to_num(level)
    for _ in range(3):
        mean = (weight * level).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
        # Stars differ in their wings (spikes, neighbours) by much more than noise: half of the level counts as scatter.
        limit = 3.0 * np.hypot(error, 0.5 * np.abs(mean))
        weight = np.where(np.abs(level - mean) < limit, weight, 0.0)
    with np.errstate(divide="ignore"):
        return mean, 1.0 / np.sqrt(weight.sum(axis=0))


@njit(cache=True, error_model="numpy")
def _ring_medians(image, is_usable, x, y, radii):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    medians = np.full((x.size, radii.size), np.nan)
    counts = np.zeros((x.size, radii.size))
    values = np.empty(_MOST_SAMPLES, np.float32)
    right, up = np.empty(_MOST_SAMPLES), np.empty(_MOST_SAMPLES)
    for r in range(radii.size):
        n = min(_MOST_SAMPLES, int(2.0 * np.pi * radii[r]))
        for a in range(n):
            angle = 2.0 * np.pi * (a + 0.5) / n
            right[a], up[a] = radii[r] * np.cos(angle), radii[r] * np.sin(angle)
        for k in range(x.size):
            m = 0
            for a in range(n):
                i, j = int(np.rint(x[k] + right[a])), int(np.rint(y[k] + up[a]))
                if 0 <= i < nx and 0 <= j < ny and is_usable[j, i]:
                    values[m] = image[j, i]
                    m += 1
            if m > 0:
                medians[k, r], counts[k, r] = median_of_line(values[:m]), m
    return medians, counts


@njit(cache=True)
def mark_discs_in_place(mask, x, y, radius, bit):  # type: ignore[no-untyped-def]
    """Set ``bit`` where a pixel's centre lies within ``radius`` (each its own) of a position, on or off the image."""
    ny, nx = mask.shape
    for k in range(x.size):
        r = radius[k]
        for j in range(max(0, int(np.ceil(y[k] - r))), min(ny, int(np.floor(y[k] + r)) + 1)):
            half = np.sqrt(max(r * r - (j - y[k]) ** 2, 0.0))
            for i in range(max(0, int(np.ceil(x[k] - half))), min(nx, int(np.floor(x[k] + half)) + 1)):
                mask[j, i] |= bit
