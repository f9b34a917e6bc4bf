"""What the air does to positions: refraction that differs over the field, and with the colour of a star."""

from __future__ import annotations

import math
from typing import NamedTuple

import erfa  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sky = tuple[float, float]

BANDS: dict[str, tuple[float, float]] = {
    "u": (360.0, 60.0), "g": (478.0, 137.0), "r": (620.0, 139.0), "i": (756.0, 130.0), "z": (880.0, 105.0),
    "y": (965.0, 65.0), "B": (440.0, 95.0), "V": (550.0, 88.0), "R": (650.0, 150.0), "I": (800.0, 150.0),
    "VR": (610.0, 210.0), "clear": (620.0, 380.0),
}  # fmt: skip
"""Band -> mean wavelength and width (of a box that passes as much), nm."""

_DEFAULT_BAND = (600.0, 150.0)
_LOWEST_ZENITH_DISTANCE_DEG = 82.0
"""Nearer to the horizon the formula fails; the differential refraction is then that of this distance."""
_HIGHEST_ZENITH_DISTANCE_DEG = 85.0
"""A telescope that seems to look lower has a wrong clock or site: nothing is corrected."""
_SCALE_HEIGHT_M = 8400.0
_MODEL_ERROR = 0.5
"""Relative error of the chromatic refraction foretold: filters, detectors and spectra differ from boxes and lines."""
_LEAST_ERROR_ARCSEC, _UNKNOWN_ERROR_ARCSEC = 0.004, 0.1


class Air(NamedTuple):
    """The air above a telescope at one moment, in one band."""

    zenith: Sky
    """(ra, dec), degrees ICRS."""
    a_arcsec: float
    """Refraction is ``a tan z + b tan**3 z``, z the observed zenith distance."""
    b_arcsec: float
    chromatic_arcsec: float
    """How much nearer to the zenith a star appears that is bluer by 1 mag, where tan z = 1, as foretold."""
    chromatic_err_arcsec: float


def air_above(
    *, mjd_utc: float, latitude_deg: float, longitude_deg: float, height_m: float, band: str, colour: tuple[str, str]
) -> Air:
    """Return the standard air (10 C, half humid) above a site (east-positive) at a time.

    ``band`` is the filter's and ``colour`` the two bands of the catalog's colour (`BANDS`).
    """
    pressure = 1013.25 * math.exp(-height_m / _SCALE_HEIGHT_M)
    wavelength, width = BANDS.get(band, _DEFAULT_BAND)
    a, b = _constants(pressure, wavelength)
    step = 10.0
    slope = (_constants(pressure, wavelength - step)[0] - _constants(pressure, wavelength + step)[0]) / (2.0 * step)
    chromatic, error = 0.0, _UNKNOWN_ERROR_ARCSEC
    if band in BANDS and all(name in BANDS for name in colour) and colour[0] != colour[1]:
        chromatic = slope * _wavelength_shift(width, colour)
        error = _MODEL_ERROR * abs(chromatic) + _LEAST_ERROR_ARCSEC
    zenith = _zenith(mjd_utc, latitude_deg, longitude_deg, height_m)
    return Air(zenith, a, b, chromatic, error)


def _constants(pressure_hpa: float, wavelength_nm: float) -> tuple[float, float]:
    a, b = erfa.refco(pressure_hpa, 10.0, 0.5, wavelength_nm / 1000.0)
    return math.degrees(float(a)) * 3600.0, math.degrees(float(b)) * 3600.0


def _wavelength_shift(width_nm: float, colour: tuple[str, str]) -> float:
    """Return the change of the mean wavelength (nm) for a star redder by 1 mag.

    The spectrum's slope, ln F per nm, times the variance of a box filter (Plazas & Bernstein 2012, PASP 124, 1113,
    do the same with spectra).
    """
    apart = BANDS[colour[1]][0] - BANDS[colour[0]][0]
    return width_nm**2 / 12.0 * 0.4 * math.log(10.0) / apart


def _zenith(mjd_utc: float, latitude_deg: float, longitude_deg: float, height_m: float) -> Sky:
    ra, dec = erfa.atoc13(
        "A", 0.0, 0.0, 2400000.5, mjd_utc, 0.0, math.radians(longitude_deg), math.radians(latitude_deg), height_m,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.5,
    )  # fmt: skip
    return math.degrees(float(ra)) % 360.0, math.degrees(float(dec))


def subband_refraction_arcsec(air: Air, band: str, n: int) -> Floats:
    """Return how much nearer to the zenith than the band's mean light that of ``n`` equal sub-bands appears.

    Arcsec where tan z = 1, the bluest (largest) first; all zero for a band of unknown wavelength.
    """
    if band not in BANDS:
        return np.zeros(n)
    wavelength, width = BANDS[band]
    centres = wavelength + width * ((np.arange(n) + 0.5) / n - 0.5)
    standard = _constants(1013.25, wavelength)[0]
    return np.array([air.a_arcsec * (_constants(1013.25, float(nm))[0] / standard - 1.0) for nm in centres])


def zenith_distance_deg(air: Air, place: Sky) -> float:
    """Return the true zenith distance of a place (ra, dec)."""
    cosine = float(_direction(np.array([place[0]]), np.array([place[1]]))[0] @ _direction(*map(np.array, air.zenith)))
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))


def believable(air: Air | None, place: Sky) -> Air | None:
    """Return the air, or None where a place would lie at or below the horizon: time or site must be wrong."""
    return None if air is None or zenith_distance_deg(air, place) > _HIGHEST_ZENITH_DISTANCE_DEG else air


def towards_zenith(air: Air, place: Sky) -> Floats:
    """Return the direction to the zenith at a place, (east, north), with length tan z (bounded near the horizon)."""
    ra, dec, ra0, dec0 = (math.radians(v) for v in (*air.zenith, *place))
    east = math.cos(dec) * math.sin(ra - ra0)
    north = math.cos(dec0) * math.sin(dec) - math.sin(dec0) * math.cos(dec) * math.cos(ra - ra0)
    distance = min(zenith_distance_deg(air, place), _LOWEST_ZENITH_DISTANCE_DEG)
    return np.array([east, north]) / max(math.hypot(east, north), 1e-12) * math.tan(math.radians(distance))


def refract(air: Air, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return where the air makes places (degrees) appear."""
    observed = true = _zenith_distances(air, ra, dec)
    for _ in range(5):
        observed = true - _refraction(air, observed)
    return _moved(air, ra, dec, true - observed)


def unrefract(air: Air, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return where places truly are (degrees) that appear at ``ra``, ``dec``."""
    return _moved(air, ra, dec, -_refraction(air, _zenith_distances(air, ra, dec)))


def _refraction(air: Air, observed: Floats) -> Floats:
    """Return the refraction, radian, at observed zenith distances, radian; beyond the lowest it goes on straight."""
    lowest = math.radians(_LOWEST_ZENITH_DISTANCE_DEG)
    t = np.tan(np.minimum(observed, lowest))
    value = air.a_arcsec * t + air.b_arcsec * t**3
    slope = (air.a_arcsec + 3.0 * air.b_arcsec * t**2) * (1.0 + t**2)
    return np.asarray(np.radians((value + slope * np.maximum(observed - lowest, 0.0)) / 3600.0))


def _zenith_distances(air: Air, ra: Floats, dec: Floats) -> Floats:
    zenith, places = _direction(*map(np.array, air.zenith)), _direction(ra, dec)
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(places, zenith), axis=-1), places @ zenith))


def _moved(air: Air, ra: Floats, dec: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Return places moved by ``angle`` (radian) along the great circle to the zenith."""
    zenith, places = _direction(*map(np.array, air.zenith)), _direction(ra, dec)
    across = zenith - (places @ zenith)[..., None] * places
    length = np.linalg.norm(across, axis=-1)[..., None]
    unit = across / np.where(length > 1e-12, length, 1.0)
    moved = np.cos(angle)[..., None] * places + np.sin(angle)[..., None] * unit
    x, y, z = np.moveaxis(moved, -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _direction(ra: Floats, dec: Floats) -> Floats:
    """Return unit vectors ``[..., 3]``."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
