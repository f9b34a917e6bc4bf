"""The plan of observations: where the fields are and when each exposure is taken, as the site's sky allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.time import Time
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.model.camera import Camera, Filter, Site
from gueststar.simulation import ephemeris
from gueststar.simulation.scenario import FieldPlan, Preference, Scenario, VisitBlock, Weather
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.stars import galactic

Floats = NDArray[np.float64]

HIGHEST_SUN_DEG = -15.0
HIGHEST_AIRMASS = 3.0


@dataclass(frozen=True)
class SurveyField:
    """A predefined pointing, degrees ICRS."""

    id: int
    ra: float
    dec: float


@dataclass(frozen=True)
class Visit:
    """One planned science exposure."""

    serial: int
    """Number in the survey, from 0, in order of time."""
    night: int
    """Index of the night, from 0."""
    day_obs: int
    mjd_start: float
    """MJD TAI."""
    exposure_s: float
    glass: Filter
    program: int
    field: SurveyField
    weather: Weather
    is_lost: bool
    """Scheduled, but no file arrives."""

    @property
    def mjd_tai(self) -> float:
        """Middle of the exposure."""
        return self.mjd_start + self.exposure_s / 172800.0


def plan_survey(camera: Camera, scenario: Scenario, *, seed: int) -> tuple[Visit, ...]:
    """Return the science exposures in order of time.

    ConfigError where the site cannot do it: the Sun is up, the field is low, or two exposures overlap.
    """
    visits: list[Visit] = []
    fields = place_fields(camera.site, scenario, seed=seed)
    for index, night in enumerate(scenario.nights):
        middle = middle_of_night(camera.site, scenario, night.day)
        for block in night.blocks:
            visits += _visits_of_block(camera, scenario, block, fields, index, middle, block.weather or night.weather)
    visits.sort(key=lambda visit: visit.mjd_start)
    _check_visible(camera.site, visits)
    overhead = scenario.overhead_s
    moved: list[Visit] = []
    for serial, visit in enumerate(visits):
        start = visit.mjd_start
        if moved and moved[-1].night == visit.night:
            start = max(start, moved[-1].mjd_start + (moved[-1].exposure_s + overhead) / 86400.0)
        moved.append(Visit(**{**visit.__dict__, "serial": serial, "mjd_start": start}))
    return tuple(moved)


def middle_of_night(site: Site, scenario: Scenario, day: int) -> float:
    """Return the Sun's lower culmination of a night, MJD TAI (to a minute)."""
    first = Time(scenario.first_night.isoformat(), scale="utc").mjd
    guess = first + day + 1.0 - site.longitude_deg / 360.0
    around = times.mjd_tai_from_mjd_utc(guess) + np.arange(-60, 61) / 1440.0
    return float(around[np.argmin(ephemeris.sun_altitude(site, around))])


def find_filter(camera: Camera, name: str) -> Filter:
    """Return the camera's filter of this name, alias or band; ConfigError if there is none."""
    found = camera.filter_named(name) or next((f for f in camera.filters if f.band == name), None)
    if found is None:
        names = [f.physical_filter for f in camera.filters]
        raise ConfigError(
            f"camera {camera.name} has no filter {name!r}, only {', '.join(names)}: "
            f"name one with --filter {name}={names[0]}"
        )
    return found


def _visits_of_block(
    camera: Camera, scenario: Scenario, block: VisitBlock, fields: dict[int, SurveyField], night: int, middle: float,
    weather: Weather,
) -> list[Visit]:  # fmt: skip
    exposure_s = block.exposure_s or scenario.exposure_s
    shortest, longest = camera.exposure_range_s
    if not shortest <= exposure_s <= longest:
        raise ConfigError(
            f"exposure_s = {exposure_s:g} is outside the range {shortest:g} to {longest:g} of {camera.name}"
        )
    visits: list[Visit] = []
    for turn in range(block.n_rounds):
        start = middle + block.start_h / 24.0 + turn * block.every_minutes / 1440.0
        for k, (field, name) in enumerate((f, n) for f in block.fields for n in block.filters):
            begin = round((start + k * (exposure_s + scenario.overhead_s) / 86400.0) * 864000.0) / 864000.0
            number = len(visits)
            visits.append(
                Visit(
                    0, night, times.day_obs(begin, longitude_deg=camera.site.longitude_deg), begin, exposure_s,
                    find_filter(camera, name), block.programs[number % len(block.programs)], fields[field], weather,
                    number in block.lost,
                )
            )  # fmt: skip
    return visits


def _check_visible(site: Site, visits: list[Visit]) -> None:
    moments = np.array([visit.mjd_tai for visit in visits])
    suns = ephemeris.sun_altitude(site, moments)
    place = ephemeris.topocentric_place(
        site, ra=[v.field.ra for v in visits], dec=[v.field.dec for v in visits], mjd_tai=moments
    )
    for visit, sun, airmass, altitude in zip(visits, suns, place.airmass, place.altitude, strict=True):
        when = times.isot_utc(visit.mjd_start)
        if sun > HIGHEST_SUN_DEG:
            raise ConfigError(f"field {visit.field.id} at {when} UTC: the Sun is at {sun:.1f} deg; change start_h")
        if not airmass < HIGHEST_AIRMASS:
            raise ConfigError(
                f"field {visit.field.id} (ra {visit.field.ra:.2f}, dec {visit.field.dec:.2f}) at {when} UTC "
                f"is at altitude {altitude:.0f} deg; change start_h or the field"
            )


def place_fields(site: Site, scenario: Scenario, *, seed: int) -> dict[int, SurveyField]:
    """Return the fields by id; those without a position are put where the site sees them in all their visits."""
    placed: dict[int, SurveyField] = {}
    for plan in scenario.fields:
        if plan.near is not None:
            origin = placed[plan.near]
            dec = origin.dec + plan.offset_deg[1]
            ra = (origin.ra + plan.offset_deg[0] / np.cos(np.radians(dec))) % 360.0
        elif plan.ra is not None and plan.dec is not None:
            ra, dec = plan.ra, plan.dec
        else:
            ra, dec = _choose_place(site, scenario, plan, seed)
        placed[plan.id] = SurveyField(plan.id, float(ra), float(dec))
    return placed


def _choose_place(site: Site, scenario: Scenario, plan: FieldPlan, seed: int) -> tuple[float, float]:
    """Return the place on a jittered grid with the best airmass, preference and distance from the Moon."""
    moments = _moments_of_field(site, scenario, plan.id)
    random = generator_for(seed, "field", plan.id)
    declinations = np.degrees(np.arcsin(np.linspace(-0.985, 0.985, 60)))
    ra, dec = (grid.ravel() for grid in np.meshgrid(np.arange(0, 360, 3.0), declinations))
    ra, dec = (ra + random.uniform(-1.2, 1.2, ra.size)) % 360.0, dec + random.uniform(-0.8, 0.8, dec.size)
    worst = np.zeros(ra.size)
    nearest_moon = np.full(ra.size, 180.0)
    directions = ephemeris.unit_vector(ra, dec)
    for moment in moments:
        altitude = np.degrees(np.arcsin(ephemeris.zenith_direction(site, moment) @ directions))
        worst = np.maximum(worst, np.where(altitude > 20.0, ephemeris.airmass_of(altitude), 9.0))
        moon = ephemeris.moon_state(site, moment)
        if moon.altitude > 0:
            away = ephemeris.separation_deg(ra, dec, float(moon.ra), float(moon.dec))
            nearest_moon = np.minimum(nearest_moon, away)
    score = worst + 2.0 * np.clip(1.0 - nearest_moon / 50.0, 0.0, 1.0) + _dislike(plan.choose, ra, dec)
    best = int(np.argmin(score))
    if worst[best] > 2.5:
        raise ConfigError(f"field {plan.id}: no place stays above airmass 2.5 in all its visits; shorten the night")
    return float(ra[best]), float(dec[best])


def _moments_of_field(site: Site, scenario: Scenario, field_id: int) -> list[float]:
    moments = []
    for night in scenario.nights:
        middle = middle_of_night(site, scenario, night.day)
        for block in night.blocks:
            if field_id in block.fields:
                last = block.start_h / 24.0 + (block.n_rounds - 1) * block.every_minutes / 1440.0
                moments += [middle + block.start_h / 24.0, middle + last]
    moments = sorted(set(moments))
    return moments or [middle_of_night(site, scenario, scenario.nights[0].day)]


def _dislike(preference: Preference, ra: Floats, dec: Floats) -> Floats:
    latitude = np.abs(galactic(ra, dec)[1])
    if preference == "plane":
        return np.asarray(np.abs(latitude - 3.0) / 3.0)
    dislike = np.clip(45.0 - latitude, 0.0, 45.0) / 10.0
    if preference == "ecliptic":
        ecliptic = SkyCoord(ra, dec, unit="deg").transform_to(BarycentricMeanEcliptic(equinox="J2000")).lat.deg
        dislike += np.abs(ecliptic) / 5.0
    return np.asarray(dislike)
