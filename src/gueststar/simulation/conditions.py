"""The truth of one exposure: pointing, image width, clouds, sky and zero point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.core import ids
from gueststar.model.camera import Camera
from gueststar.simulation import ephemeris
from gueststar.simulation.atmosphere import (
    DEFAULT_EXTINCTION,
    EXTINCTION,
    cloud_sequence,
    correlated_sequence,
    seeing_sequence,
)
from gueststar.simulation.optics import aberrations_of
from gueststar.simulation.point_spread import PsfState
from gueststar.simulation.scenario import OpticsPlan, Scenario
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.sky import SkyPattern, sky_magnitude, sky_pattern
from gueststar.simulation.survey import Visit

Floats = NDArray[np.float64]

TYPICAL_SKY = 20.8
"""Sky for which a camera's typical depth is meant, AB per square arcsecond."""
BAND_ZERO_POINT = {"g": 0.25, "r": 0.0, "i": -0.35, "z": -0.95}
"""Zero point of a band over that in r, for a CCD behind aluminium mirrors."""


@dataclass(frozen=True)
class Conditions:
    """What is true of one exposure and not known to the pipelines."""

    visit: Visit
    header_ra: float
    """Commanded boresight, which headers carry, degrees."""
    header_dec: float
    ra: float
    """True boresight."""
    dec: float
    rotation_deg: float
    zenith_distance_deg: float
    parallactic_deg: float
    airmass: float
    extinction_mag: float
    """By clear air."""
    cloud_mag: float
    """Mean extinction by clouds."""
    zero_point: float
    """AB magnitude of a source of colour 0 that gives one electron in the exposure, clouds left out."""
    sky_mag: float
    """AB magnitudes per square arcsecond at the boresight, as seen (air and clouds included)."""
    sky_pattern: SkyPattern
    psf: PsfState

    @property
    def exposure_id(self) -> int:
        """Identifier from the start time, as the pipelines will make it."""
        return ids.exposure_id(self.visit.mjd_start)


def make_conditions(
    camera: Camera, scenario: Scenario, visits: tuple[Visit, ...], *, seed: int
) -> tuple[Conditions, ...]:
    """Return the truth of every visit, night by night."""
    result: list[Conditions] = []
    for night in sorted({visit.night for visit in visits}):
        result += _conditions_of_night(camera, scenario, [v for v in visits if v.night == night], seed)
    return tuple(result)


def base_zero_point(camera: Camera, scenario: Scenario, band: str) -> float:
    """Return the AB magnitude of one electron per second above the air.

    Where the scenario does not say: such that a typical exposure in r (30 s, typical width, a dark sky) reaches
    the camera's typical depth at 5 sigma.
    """
    if band in scenario.optics.zero_points:
        return scenario.optics.zero_points[band]
    sigma = camera.typical_fwhm_arcsec / 2.355 / camera.pixel_scale_arcsec
    pixels = 4.0 * np.pi * max(sigma, 0.4) ** 2
    noise = float(np.median([a.read_noise for d in camera.detectors for a in d.amplifiers]))
    trial = np.linspace(15.0, 36.0, 2101)
    signal = 30.0 * 10.0 ** (0.4 * (trial - camera.typical_depth_mag))
    sky = 30.0 * 10.0 ** (0.4 * (trial - TYPICAL_SKY)) * camera.pixel_scale_arcsec**2
    ratio = signal / np.sqrt(pixels * (sky + noise**2))
    return float(np.interp(5.0, ratio, trial)) + BAND_ZERO_POINT.get(band, 0.0)


def _conditions_of_night(camera: Camera, scenario: Scenario, visits: list[Visit], seed: int) -> list[Conditions]:
    night = visits[0].night
    place = ephemeris.topocentric_place(
        camera.site, ra=[v.field.ra for v in visits], dec=[v.field.dec for v in visits],
        mjd_tai=[v.mjd_tai for v in visits],
    )  # fmt: skip
    minutes = np.array([1440.0 * (v.mjd_tai - visits[0].mjd_tai) for v in visits])
    air = scenario.atmosphere
    width = seeing_sequence(
        air, generator_for(seed, "seeing", night), minutes=minutes, airmass=place.airmass,
        bands=[v.glass.band for v in visits], median_arcsec=air.fwhm_arcsec or camera.typical_fwhm_arcsec,
    )  # fmt: skip
    clouds = cloud_sequence(generator_for(seed, "clouds", night), minutes=minutes, weather=[v.weather for v in visits])
    focus = correlated_sequence(generator_for(seed, "focus", night), minutes, 90.0)
    drift = float(generator_for(seed, "zero point", night).normal(0.0, 0.015))
    result = []
    for k, visit in enumerate(visits):
        item = _conditions_of(
            camera, scenario, visit, seed, fwhm=float(width[k]), cloud_mag=float(clouds[k]),
            focus=float(focus[k]), zero_point_drift=drift, zenith=90.0 - float(place.altitude[k]),
            parallactic=float(place.parallactic[k]), airmass=float(place.airmass[k]),
        )  # fmt: skip
        result.append(item)
    return result


def _conditions_of(
    camera: Camera, scenario: Scenario, visit: Visit, seed: int, *, fwhm: float, cloud_mag: float, focus: float,
    zero_point_drift: float, zenith: float, parallactic: float, airmass: float,
) -> Conditions:  # fmt: skip
    key = ids.exposure_id(visit.mjd_start)
    random = generator_for(seed, "conditions", key)
    optics, band = scenario.optics, visit.glass.band
    header_ra, header_dec = _moved(visit.field.ra, visit.field.dec, optics.dither_arcsec * random.normal(size=2))
    error = pointing_error_arcsec(camera, optics) * np.clip(random.normal(size=2), -2.5, 2.5)
    ra, dec = _moved(header_ra, header_dec, error)
    extinction = EXTINCTION.get(band, DEFAULT_EXTINCTION) * airmass
    zero_point = base_zero_point(camera, scenario, band) + 2.5 * np.log10(visit.exposure_s)
    clear_sky = sky_magnitude(
        camera.site, ra=ra, dec=dec, mjd_tai=visit.mjd_tai, band=band, extinction=extinction / airmass,
        has_moon=scenario.atmosphere.has_moon,
    )  # fmt: skip
    dark_sky = sky_magnitude(
        camera.site, ra=ra, dec=dec, mjd_tai=visit.mjd_tai, band=band, extinction=extinction / airmass, has_moon=False
    )
    moonlit = 1.0 - 10.0 ** (0.4 * (clear_sky - dark_sky))
    motion = 0.15 * random.normal(size=(2, 2)) * fwhm / 2.355
    covariance = motion @ motion.T
    turned = _rotation_error_deg(camera, optics) * np.clip(random.normal(), -2.5, 2.5)
    # Clouds scatter town and Moon: the sky brightens by a third of what they take from the stars.
    sky = clear_sky - 0.33 * min(cloud_mag, 2.0) * (0.3 + moonlit)
    pattern = sky_pattern(random, moonlit_fraction=float(moonlit), cloud_mag=cloud_mag)
    aberrations = aberrations_of(optics, seed=seed, exposure=key, focus_drift=focus)
    guiding = (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1]))
    return Conditions(
        visit, header_ra, header_dec, ra, dec, float(turned), zenith, parallactic, airmass, float(extinction),
        cloud_mag, float(zero_point - extinction + zero_point_drift), float(sky), pattern,
        PsfState(fwhm, guiding, aberrations),
    )  # fmt: skip


def pointing_error_arcsec(camera: Camera, plan: OpticsPlan) -> float:
    """Return the rms per axis of the difference between header and truth."""
    if plan.pointing_error_arcsec is not None:
        return plan.pointing_error_arcsec
    return camera.pointing_tolerance_arcmin * 60.0 / 6.0


def _rotation_error_deg(camera: Camera, plan: OpticsPlan) -> float:
    if plan.rotation_error_deg is not None:
        return plan.rotation_error_deg
    return camera.rotation_tolerance_deg / 60.0


def _moved(ra: float, dec: float, offset_arcsec: Floats) -> tuple[float, float]:
    moved = float(np.clip(dec + offset_arcsec[1] / 3600.0, -90.0, 90.0))
    return float((ra + offset_arcsec[0] / 3600.0 / max(np.cos(np.radians(moved)), 1e-3)) % 360.0), moved
