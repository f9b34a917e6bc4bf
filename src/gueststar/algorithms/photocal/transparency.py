"""How transparent the air was: zero points against those of the survey's clear nights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SLOPE_NOISE = 0.02
"""Scatter of clear zero points about a straight line in airmass, mag, for the fit of the extinction."""


@dataclass(frozen=True)
class TransparencyConfig:
    """What the zero point of a clear sky is learned from."""

    n_nights: int = 20
    """Latest nights of the survey that count: mirrors get dusty."""
    min_exposures: int = 3
    """Of a night, to be judged; and in all, to know anything."""
    good_night_tolerance: float = 0.10
    """A night is good if its median lies within this of the survey's clear level, mag..."""
    good_night_scatter: float = 0.05
    """...and its exposures scatter by less than this."""
    extinction: tuple[tuple[str, float], ...] = (("u", 0.5), ("g", 0.19), ("r", 0.11), ("i", 0.07), ("z", 0.06))
    """Extinction of clear air by band, mag per airmass, as expected beforehand."""
    default_extinction: float = 0.12
    """Of other bands."""
    extinction_err: float = 0.04
    """How sure that is; with clear exposures at different airmasses the data decide."""

    def extinction_of(self, band: str) -> float:
        """Return the extinction expected in a band, mag per airmass."""
        return dict(self.extinction).get(band, self.default_extinction)


@dataclass(frozen=True)
class ClearSky:
    """Zero points of one detector and filter under a clear sky."""

    zero_point: float
    """AB magnitude of one electron per second at airmass 1."""
    scatter: float
    """Of clear exposures about this, mag (standard deviation)."""
    extinction: float
    """Magnitudes per airmass."""
    n_exposures: int
    """Clear ones that it rests on."""

    def expected(self, *, airmass: ArrayLike, exposure_s: ArrayLike) -> Floats:
        """Return the expected AB magnitude of one electron per exposure."""
        seconds = np.maximum(np.asarray(exposure_s, dtype=np.float64), 1e-3)
        return self.zero_point - self.extinction * (np.asarray(airmass) - 1.0) + 2.5 * np.log10(seconds)


def learn_clear_sky(
    *, zero_point: Floats, airmass: Floats, night: NDArray[np.integer], extinction: float,
    config: TransparencyConfig = TransparencyConfig(),
) -> ClearSky | None:  # fmt: skip
    """Return what a clear sky gives, from exposures' zero points per second; None if too few are known.

    Clouds only take light away. So the clear level is where the upper part of all exposures lies; nights whose
    median is near it and that are steady are good, and their median counts, the others' does not.
    Without a good night the upper part itself counts. ``extinction`` is the prior, magnitudes per airmass.
    """
    known = np.isfinite(zero_point) & np.isfinite(airmass)
    zero_point, airmass, night = zero_point[known], airmass[known], night[known]
    if zero_point.size < config.min_exposures:
        return None
    overhead = zero_point + extinction * (airmass - 1.0)
    top = float(np.quantile(overhead, 0.9))
    nights = [overhead[night == number] for number in np.unique(night)]
    level = max(
        (float(np.median(values)) for values in nights if _is_good(values, top, config)),
        key=lambda median: -abs(median - top),
        default=top,
    )
    is_clear = np.abs(overhead - level) < 2.0 * config.good_night_scatter
    if is_clear.sum() < config.min_exposures:
        return ClearSky(level, float("nan"), extinction, int(is_clear.sum()))
    slope = _fitted_extinction(zero_point[is_clear], airmass[is_clear], extinction, config)
    overhead = zero_point[is_clear] + slope * (airmass[is_clear] - 1.0)
    return ClearSky(float(np.median(overhead)), float(np.std(overhead, ddof=1)), slope, int(is_clear.sum()))


def _is_good(values: Floats, top: float, config: TransparencyConfig) -> bool:
    if values.size < config.min_exposures:
        return False
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    return abs(median - top) < config.good_night_tolerance and spread < config.good_night_scatter


def _fitted_extinction(zero_point: Floats, airmass: Floats, prior: float, config: TransparencyConfig) -> float:
    """Return the slope of clear zero points in airmass, held by the prior."""
    lever = airmass - airmass.mean()
    information = float((lever**2).sum()) / _SLOPE_NOISE**2
    measured = -float((lever * (zero_point - zero_point.mean())).sum()) / _SLOPE_NOISE**2
    weight = 1.0 / config.extinction_err**2
    return (measured + weight * prior) / (information + weight)
