"""The PSF as a round profile: where single pixels know too little."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats64 = NDArray[np.float64]


class Moffat(NamedTuple):
    """A round Moffat (1969) profile ``(1 + (r / alpha)**2)**-beta``, in pixels."""

    alpha: float
    beta: float

    def at(self, r: Floats64) -> Floats64:
        """Return the profile, one in the middle."""
        return np.asarray((1.0 + (r / self.alpha) ** 2) ** -self.beta)

    @property
    def fwhm(self) -> float:
        """Full width at half maximum, pixels."""
        return float(2.0 * self.alpha * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0))


def moffat_of(fwhm: float, beta: float = 3.5) -> Moffat:
    """Return the profile of a given width; 3.5 is typical of good seeing with some aureole."""
    return Moffat(fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0)), beta)


def moffat_stamp(fwhm: float, *, beta: float = 3.5, reach_fwhm: float = 4.0) -> NDArray[np.float32]:
    """Return a round Moffat profile integrated over pixels, ``[k, k]`` with an odd side, sum one."""
    half, fine = max(5, round(reach_fwhm * fwhm)), 7
    step = (np.arange((2 * half + 1) * fine) - fine // 2) / fine - half
    drawn = moffat_of(fwhm, beta).at(np.hypot(step[:, None], step[None, :]))
    side = 2 * half + 1
    stamp = drawn.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return np.asarray(stamp / stamp.sum(), dtype=np.float32)


class Annuli(NamedTuple):
    """Mean profile in rings."""

    radius: Floats64
    value: Floats64
    error: Floats64


def mean_profile(radius: Floats64, value: Floats64, weight: Floats64, *, fwhm: float, reach: float) -> Annuli:
    """Return weighted, clipped means of ``value`` in rings from the middle to ``reach`` pixels.

    ``weight`` is an inverse variance, zero for pixels to leave out. Rings are a tenth of the FWHM wide in
    the core and widen outwards.
    """
    core = np.arange(0.0, 1.5 * fwhm, 0.1 * fwhm)
    edges = np.concatenate([core, np.geomspace(1.5 * fwhm, max(reach, 2 * fwhm), 14)])
    total, mean, middle, scatter = _clipped_rings(radius, value, weight, edges)
    is_full = total > 0
    return Annuli(middle[is_full], mean[is_full], np.maximum(scatter[is_full], 1.0) / np.sqrt(total[is_full]))


@njit(cache=True, error_model="numpy")
def _clipped_rings(radius, value, weight, edges):  # type: ignore[no-untyped-def]
    """Return, ring by ring, sums of weights, weighted means of values and radii, and how far pixels scatter.

    What is beyond four times the scatter (four errors, where that is less) is left out, twice.
    """
    n_rings = edges.size - 1
    ring_of = np.empty(radius.size, np.int64)
    for k in range(radius.size):
        ring = np.searchsorted(edges, radius[k], "right") - 1
        ring_of[k] = ring if weight[k] > 0 and ring < n_rings else -1
    total, mean, middle, scatter = _ring_sums(ring_of, weight, value, radius, n_rings)
    for _ in range(2):
        for k in range(radius.size):
            i = ring_of[k]
            if i >= 0 and weight[k] * (value[k] - mean[i]) ** 2 >= (4.0 * max(scatter[i], 1.0)) ** 2:
                ring_of[k] = -1
        total, mean, middle, scatter = _ring_sums(ring_of, weight, value, radius, n_rings)
    return total, mean, middle, scatter


@njit(cache=True, error_model="numpy")
def _ring_sums(ring_of, weight, value, radius, n_rings):  # type: ignore[no-untyped-def]
    """Return, ring by ring, the sum of weights, both means, and the scatter in errors."""
    n, total, chi2 = np.zeros(n_rings, np.int64), np.zeros(n_rings), np.zeros(n_rings)
    values, radii = np.zeros(n_rings), np.zeros(n_rings)
    for k in range(ring_of.size):
        i, w = ring_of[k], weight[k]
        if i >= 0:
            n[i] += 1
            total[i] += w
            values[i] += w * value[k]
            radii[i] += w * radius[k]
    mean = values / total
    for k in range(ring_of.size):
        i = ring_of[k]
        if i >= 0:
            chi2[i] += weight[k] * (value[k] - mean[i]) ** 2
    return total, mean, radii / total, np.sqrt(chi2 / n)


def fit_moffat(rings: Annuli, *, fwhm: float) -> Moffat:
    """Return the Moffat profile that fits the rings within three FWHM, starting from ``fwhm``."""
    start = moffat_of(fwhm)
    is_used = rings.radius < 3.0 * fwhm
    r, value = rings.radius[is_used], rings.value[is_used]
    peak = float(np.max(value, initial=0.0))
    if r.size < 4 or peak <= 0:
        return start
    sigma = np.hypot(rings.error[is_used], 0.02 * np.abs(value) + 1e-3 * peak)

    def residuals(p: Floats64) -> Floats64:
        return np.asarray((p[0] * Moffat(np.exp(p[1]), np.exp(p[2])).at(r) - value) / sigma)

    bounds = ([0.1 * peak, np.log(0.3 * start.alpha), np.log(1.2)], [5 * peak, np.log(5 * start.alpha), np.log(10.0)])
    found = least_squares(
        residuals, [peak, np.log(start.alpha), np.log(start.beta)], bounds=bounds, loss="soft_l1", max_nfev=60
    )
    return Moffat(float(np.exp(found.x[1])), float(np.exp(found.x[2])))


def smooth_profile(rings: Annuli, moffat: Moffat, *, trust: float = 0.5) -> tuple[Floats64, Floats64]:
    """Return (radius, value) of the rings drawn towards the Moffat profile where they are noisy.

    The Moffat profile, scaled to the core, is taken to be right to the fraction ``trust``.
    """
    shape = moffat.at(rings.radius)
    core = rings.radius < moffat.fwhm
    w = 1.0 / np.maximum(rings.error, 1e-30) ** 2
    scale = np.sum((w * shape * rings.value)[core]) / max(np.sum((w * shape**2)[core]), 1e-300)
    expected = max(scale, 1e-30) * shape
    prior = 1.0 / (trust * expected) ** 2
    value = (w * rings.value + prior * expected) / (w + prior)
    # Beyond the core a profile falls: what rises again is noise.
    return rings.radius, np.maximum(np.minimum.accumulate(value), 0.0)


def radius_of_light(radius: Floats64, value: Floats64, *, outside: float) -> float:
    """Return the radius that leaves the share ``outside`` of a round profile's light beyond it."""
    r = np.linspace(0.0, radius[-1], 400)
    light = np.cumsum(np.interp(r, radius, value) * r)
    if not light[-1] > 0:
        return 0.0
    return float(np.interp(1.0 - outside, light / light[-1], r))


def drawn_on_grid(
    radius: Floats64, value: Floats64, moffat: Moffat, *, side: int, oversampling: int
) -> NDArray[np.float64]:
    """Return ``[side, side]`` samples of the round profile, their pixel-sampled sum one."""
    g = (np.arange(side) - side // 2) / oversampling
    r = np.hypot(g[:, None], g[None, :])
    # The ratio to the Moffat profile is interpolated, which is smooth where the profile is steep.
    ratio = np.interp(r, radius, value / moffat.at(radius))
    drawn = ratio * moffat.at(r)
    return np.asarray(drawn * oversampling**2 / drawn.sum())
