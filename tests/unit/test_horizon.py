import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_sun
from astropy.time import Time

from gueststar.algorithms.astrometry.horizon import airmass_at, altitude_deg, sun_position


@pytest.mark.parametrize("when", ["2018-03-01T05:00:00", "2024-01-10T03:00:00", "2028-07-01T12:00:00"])
def test_altitude_agrees_with_astropy_to_half_an_arcminute(when: str) -> None:
    time = Time(when, scale="utc")
    rng = np.random.default_rng(5)
    for _ in range(5):
        lat, lon = rng.uniform(-89, 89), rng.uniform(-180, 180)
        ra, dec = rng.uniform(0, 360), rng.uniform(-90, 90)
        frame = AltAz(obstime=time, location=EarthLocation(lat=lat, lon=lon, height=1500.0))
        expected = SkyCoord(ra, dec, unit="deg").transform_to(frame).alt.deg
        found = altitude_deg(ra=ra, dec=dec, mjd_utc=time.mjd, latitude_deg=lat, longitude_deg=lon, height_m=1500.0)
        assert found == pytest.approx(expected, abs=0.01)


def test_sun_is_where_astropy_has_it() -> None:
    for when in ("2019-03-20T21:58:00", "2023-12-22T03:27:00"):
        time = Time(when, scale="utc")
        sun = get_sun(time)
        found = SkyCoord(*sun_position(time.mjd), unit="deg")
        assert found.separation(SkyCoord(sun.ra, sun.dec)).arcsec < 60


def test_airmass_is_one_overhead_two_at_thirty_degrees_and_finite_at_the_horizon() -> None:
    assert airmass_at(90.0) == pytest.approx(1.0, abs=1e-4)
    assert airmass_at(30.0) == pytest.approx(2.0, abs=0.01)
    assert 30 < airmass_at(0.0) < 40
    with pytest.raises(ValueError, match="below the horizon"):
        airmass_at(-1.0)
