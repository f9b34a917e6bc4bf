"""Brightness of the sky: airglow, moonlight and twilight, and how it varies over the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Site
from gueststar.simulation import ephemeris

Floats = NDArray[np.float64]

DARK_SKY = {"g": 22.0, "r": 21.1, "i": 20.3, "z": 19.3}
"""Moonless sky at the zenith of a good site, AB magnitudes per square arcsecond."""
DEFAULT_DARK_SKY = 21.0
V_OFFSET = {"g": 0.25, "r": -0.20, "i": -0.35, "z": -0.40}
"""AB magnitude minus V of moonlight."""


def sky_magnitude(
    site: Site, *, ra: float, dec: float, mjd_tai: float, band: str, extinction: float, has_moon: bool
) -> float:
    """Return the sky's brightness, AB magnitudes per square arcsecond.

    Moonlight after Krisciunas & Schaefer (1991, PASP 103, 1033); airglow rises with the airmass.
    """
    place = ephemeris.topocentric_place(site, ra=ra, dec=dec, mjd_tai=mjd_tai)
    zenith = 90.0 - float(place.altitude)
    path = (1.0 - 0.96 * np.sin(np.radians(zenith)) ** 2) ** -0.5
    dark = 10.0 ** (-0.4 * DARK_SKY.get(band, DEFAULT_DARK_SKY))
    total = dark * path * 10.0 ** (-0.4 * extinction * (path - 1.0))
    if has_moon:
        total += _moonlight(site, ra=ra, dec=dec, mjd_tai=mjd_tai, band=band, extinction=extinction, path=path)
    total += dark * _twilight(float(ephemeris.sun_altitude(site, mjd_tai)))
    return float(-2.5 * np.log10(total))


def _moonlight(
    site: Site, *, ra: float, dec: float, mjd_tai: float, band: str, extinction: float, path: float
) -> float:
    moon = ephemeris.moon_state(site, mjd_tai)
    altitude = float(moon.altitude)
    if altitude <= 0.0:
        return 0.0
    phase = float(moon.phase_angle)
    separation = max(float(ephemeris.separation_deg(ra, dec, moon.ra, moon.dec)), 0.3)
    illuminance = 10.0 ** (-0.4 * (3.84 + 0.026 * phase + 4e-9 * phase**4))
    scattering = 10.0**5.36 * (1.06 + np.cos(np.radians(separation)) ** 2) + 10.0 ** (6.15 - separation / 40.0)
    if separation < 10.0:
        scattering += 6.2e7 / separation**2
    moon_path = (1.0 - 0.96 * np.cos(np.radians(altitude)) ** 2) ** -0.5
    # Eq. 15: nanolamberts of moonlight that is scattered into the line of sight.
    nanolamberts = scattering * illuminance * 10.0 ** (-0.4 * extinction * moon_path)
    nanolamberts *= 1.0 - 10.0 ** (-0.4 * extinction * path)
    if nanolamberts <= 0.0:
        return 0.0
    v_magnitude = (20.7233 - np.log(nanolamberts / 34.08)) / 0.92104
    return float(10.0 ** (-0.4 * (v_magnitude + V_OFFSET.get(band, 0.0))))


def _twilight(sun_altitude_deg: float) -> float:
    """Return twilight in units of the dark sky: negligible below -18 degrees, tenfold for every 2.5 degrees above."""
    return float(0.1 * 10.0 ** (0.4 * min(max(sun_altitude_deg, -30.0) + 18.0, 30.0)))


@dataclass(frozen=True)
class SkyPattern:
    """How the sky varies over the camera, relative to its mean."""

    slope: tuple[float, float]
    """Per field radius, towards west and north at rotation 0."""
    curvature: float

    def at(self, field: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return the factor on the mean sky at focal-plane positions in field radii ``[2, ...]``."""
        radius2 = field[0] ** 2 + field[1] ** 2
        return np.asarray(1.0 + self.slope[0] * field[0] + self.slope[1] * field[1] + self.curvature * (radius2 - 0.4))


def sky_pattern(random: np.random.Generator, *, moonlit_fraction: float, cloud_mag: float) -> SkyPattern:
    """Return the pattern of one exposure: steeper under the Moon and under clouds."""
    size = 0.006 + 0.03 * moonlit_fraction + 0.02 * min(cloud_mag, 1.0)
    slope = size * random.normal(size=2)
    return SkyPattern((float(slope[0]), float(slope[1])), float(0.5 * size * random.normal()))
