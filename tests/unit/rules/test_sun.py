"""The sun is where astropy says, and nights begin and end as it sinks and rises."""

from __future__ import annotations

import time

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import AltAz, EarthLocation, get_sun
from astropy.time import Time
from astropy.utils import iers

from gueststar.core import times
from gueststar.model.camera import Site
from gueststar.operations.rules.sun import (
    NightTimes,
    night_after,
    noon_before,
    sun_altitude_deg,
    sun_altitudes_deg,
    survey_night,
)

from .conftest import CAMERA, book_of, clock_rule, unix

SITES = [
    CAMERA.site,
    Site(name="Palomar", latitude_deg=33.3563, longitude_deg=-116.865, height_m=1712.0),
    Site(name="Dome A", latitude_deg=-80.37, longitude_deg=77.35, height_m=4087.0),
    Site(name="Siding Spring", latitude_deg=-31.2733, longitude_deg=149.0612, height_m=1165.0),
]
ARCTIC = Site(name="Longyearbyen", latitude_deg=78.2, longitude_deg=15.6)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_the_altitude_agrees_with_astropy_to_a_hundredth_of_a_degree(site: Site) -> None:
    moments = unix("2017-06-01T00:00Z") + np.arange(0.0, 9 * 365.25 * 86400.0, 11.37 * 86400.0)
    place = EarthLocation.from_geodetic(site.longitude_deg * u.deg, site.latitude_deg * u.deg, site.height_m * u.m)
    with iers.conf.set_temp("auto_download", False):
        when = Time(moments, format="unix")
        theirs = get_sun(when).transform_to(AltAz(obstime=when, location=place)).alt.deg
    assert np.abs(sun_altitudes_deg(site, moments) - theirs).max() < 0.01


def test_one_altitude_takes_less_than_a_millisecond() -> None:
    sun_altitude_deg(CAMERA.site, 1.7e9)
    start = time.perf_counter()
    for n in range(100):
        sun_altitude_deg(CAMERA.site, 1.7e9 + n)
    assert (time.perf_counter() - start) / 100 < 1e-3


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_the_night_is_that_of_the_survey_and_changes_at_its_noon(site: Site) -> None:
    for night in (20251231, 20260110, 20260720):
        noon = noon_before(site, night)
        assert survey_night(site, noon + 1.0) == night
        assert survey_night(site, noon - 1.0) == night_after(night, -1)
        mjd = times.mjd_tai_from_mjd_utc((noon + 1.0) / 86400.0 + 40587.0)
        assert times.day_obs(mjd, longitude_deg=site.longitude_deg) == night


@pytest.mark.parametrize("altitude", [-18.0, -12.0, -6.0, 0.0])
def test_at_both_ends_of_the_night_the_sun_has_the_altitude(altitude: float) -> None:
    nights = NightTimes(CAMERA.site)
    begins, ends = (nights.edge(20260110, edge, altitude_deg=altitude) for edge in ("begins", "ends"))
    assert noon_before(CAMERA.site, 20260110) < begins < ends < noon_before(CAMERA.site, 20260111)
    assert sun_altitudes_deg(CAMERA.site, [begins, ends]) == pytest.approx([altitude] * 2, abs=1e-3)
    assert sun_altitude_deg(CAMERA.site, (begins + ends) / 2.0) < altitude


def test_where_the_sun_never_sets_there_is_no_night_and_nothing_fires() -> None:
    nights = NightTimes(ARCTIC)
    assert nights.edge(20260621, "begins", altitude_deg=-12.0) is None
    assert nights.last_edge(unix("2026-06-21T12:00Z"), "ends", altitude_deg=-12.0) is None
    book = book_of(clock_rule("night_ends"), site=ARCTIC)
    from gueststar.operations.rules.contract import SurveyFacts

    assert book.due(SurveyFacts(now=unix("2026-06-21T12:00Z"), night=20260621), {}) == []


def test_where_the_sun_never_rises_the_night_lasts_from_noon_to_noon() -> None:
    nights = NightTimes(ARCTIC)
    assert nights.edge(20261221, "begins", altitude_deg=0.0) == noon_before(ARCTIC, 20261221)
    assert nights.edge(20261221, "ends", altitude_deg=0.0) == noon_before(ARCTIC, 20261222)


def test_the_shortest_night_of_a_year_is_found() -> None:
    """Where the sun sinks below for minutes only, a coarse look misses it."""
    site, lowest = Site(name="Dundee", latitude_deg=54.56, longitude_deg=0.0001), -12.0
    lengths = []
    for day in range(1, 31):
        found = NightTimes(site).edge(20260600 + day, "begins", altitude_deg=lowest)
        if found is not None:
            end = NightTimes(site).edge(20260600 + day, "ends", altitude_deg=lowest)
            lengths.append(end - found)
            assert sun_altitude_deg(site, (found + end) / 2.0) < lowest
    assert len(lengths) in range(1, 31)
    assert min(lengths) < 5400.0


def test_a_camera_without_a_site_has_nights_by_the_time_of_its_longitude() -> None:
    nights = NightTimes(Site(name="draft", latitude_deg=0.0, longitude_deg=0.0))
    assert nights.edge(20260110, "begins", altitude_deg=-12.0) == unix("2026-01-10T18:00Z")
    assert nights.edge(20260110, "ends", altitude_deg=-12.0) == unix("2026-01-11T06:00Z")
