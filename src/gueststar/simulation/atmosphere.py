"""The air: seeing through the night, extinction, clouds, refraction and wander of positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.model.wcs import Wcs
from gueststar.simulation.random_fields import WaveField, wave_field
from gueststar.simulation.scenario import AtmospherePlan, Weather
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

EXTINCTION = {"g": 0.20, "r": 0.11, "i": 0.07, "z": 0.06}
"""Magnitudes per airmass of clear air."""
DEFAULT_EXTINCTION = 0.12
SEEING_FACTOR = {"g": 1.07, "r": 1.0, "i": 0.95, "z": 0.92}
"""Image width over that in r: wavelength**-0.2."""
COLOUR_REFRACTION_ARCSEC = {"g": 0.040, "r": 0.012, "i": 0.005, "z": 0.003}
"""Shift towards the zenith per magnitude of g - i bluer than 1, for tan z = 1."""
REFRACTION_ARCSEC = 45.0
"""Refraction at a zenith distance of 45 degrees at an altitude of about 2 km."""

_CLOUDS = {"clear": (0.0, 0.0, 0.0), "thin_clouds": (0.15, 0.5, 0.25), "bad": (0.9, 0.55, 0.35)}
"""Weather -> (median extinction, scatter of its logarithm, spatial structure over the mean)."""


def correlated_sequence(random: np.random.Generator, minutes: Floats, correlation_minutes: float) -> Floats:
    """Return a stationary Gaussian sequence of unit variance at times that rise (Ornstein-Uhlenbeck)."""
    values = np.zeros(minutes.size)
    for k in range(minutes.size):
        memory = np.exp(-(minutes[k] - minutes[k - 1]) / correlation_minutes) if k else 0.0
        values[k] = memory * values[k - 1] + np.sqrt(1.0 - memory**2) * random.normal()
    return values


def seeing_sequence(
    plan: AtmospherePlan, random: np.random.Generator, *, minutes: Floats, airmass: Floats, bands: list[str],
    median_arcsec: float,
) -> Floats:  # fmt: skip
    """Return the delivered image width of each exposure, arcsec."""
    wave = correlated_sequence(random, minutes, plan.fwhm_correlation_minutes)
    factor = np.array([SEEING_FACTOR.get(band, 1.0) for band in bands])
    return np.asarray(median_arcsec * np.exp(plan.fwhm_scatter * wave) * airmass**0.6 * factor)


def cloud_sequence(random: np.random.Generator, *, minutes: Floats, weather: list[Weather]) -> Floats:
    """Return the mean extinction by clouds of each exposure, magnitudes."""
    wave = correlated_sequence(random, minutes, 25.0)
    median = np.array([_CLOUDS[name][0] for name in weather])
    scatter = np.array([_CLOUDS[name][1] for name in weather])
    return np.asarray(median * np.exp(scatter * wave))


@dataclass(frozen=True, eq=False)
class Air:
    """The air in front of one exposure."""

    cloud_mag: float
    """Mean extinction by clouds."""
    cloud_structure: float
    """Rms of the clouds' extinction over its mean."""
    clouds: WaveField
    wander_pixels: float
    """Rms displacement per axis."""
    wander_x: WaveField
    wander_y: WaveField

    def cloud_extinction(self, field: Floats) -> Floats:
        """Return the clouds' extinction, magnitudes, at focal-plane positions in field radii ``[2, ...]``."""
        if self.cloud_mag == 0.0:
            return np.zeros(field.shape[1:])
        return np.asarray(self.cloud_mag * np.exp(self.cloud_structure * self.clouds.at(field[0], field[1])))

    def displacement(self, field: Floats) -> Floats:
        """Return the turbulent displacement of sources ``[2, ...]``, pixels."""
        return self.wander_pixels * np.array(
            [self.wander_x.at(field[0], field[1]), self.wander_y.at(field[0], field[1])]
        )


def make_air(
    plan: AtmospherePlan, *, seed: int, exposure: int, weather: Weather, cloud_mag: float, exposure_s: float,
    pixel_scale_arcsec: float, field_radius_deg: float,
) -> Air:  # fmt: skip
    """Return the air of one exposure."""
    random = generator_for(seed, "air", exposure)
    scale = plan.wander_scale_arcmin / 60.0 / field_radius_deg
    return Air(
        cloud_mag, _CLOUDS[weather][2], wave_field(random, scale=1.2, slope=3.3),
        plan.wander_mas / 1000.0 * np.sqrt(30.0 / exposure_s) / pixel_scale_arcsec,
        wave_field(random, scale=2 * scale), wave_field(random, scale=2 * scale),
    )  # fmt: skip


def refraction_stretch(*, zenith_distance_deg: float, parallactic_deg: float) -> Floats:
    """Return the 2 x 2 matrix on the tangent plane (xi east, eta north) of differential refraction.

    Refraction crowds the sky by R sec**2 z along the direction to the zenith and by R across it, so that a
    pixel sees that much more of it.
    """
    constant = np.radians(REFRACTION_ARCSEC / 3600.0)
    along = 1.0 + constant / np.cos(np.radians(min(zenith_distance_deg, 80.0))) ** 2
    angle = np.radians(parallactic_deg)
    towards = np.array([np.sin(angle), np.cos(angle)])
    across = 1.0 + constant
    return np.asarray(across * np.eye(2) + (along - across) * np.outer(towards, towards))


def colour_shift(
    wcs: Wcs, *, band: str, colour_g_i: Floats, zenith_distance_deg: float, parallactic_deg: float
) -> Floats:
    """Return the displacement ``[2, n]``, pixels, that differential chromatic refraction gives sources of a colour."""
    amount = COLOUR_REFRACTION_ARCSEC.get(band, 0.01) * np.tan(np.radians(min(zenith_distance_deg, 80.0)))
    shift_arcsec = amount * (1.0 - np.clip(colour_g_i, -1.0, 4.0))
    angle = np.radians(parallactic_deg)
    towards = np.linalg.solve(wcs.cd, np.array([np.sin(angle), np.cos(angle)]) / 3600.0)
    return np.asarray(towards[:, None] * shift_arcsec)
