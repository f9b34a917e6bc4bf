"""What is in the simulated sky, and where it stands."""

import gzip
import json
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body_barycentric
from astropy.time import Time
from astropy.utils import iers

from gueststar.algorithms.moving.orbits import Elements, elements_of_motion, heliocentric
from gueststar.cameras.load import load_camera
from gueststar.core.errors import ConfigError
from gueststar.simulation import ephemeris
from gueststar.simulation.asteroids import elements_of, make_asteroids, read_orbits
from gueststar.simulation.atmosphere import refraction_stretch
from gueststar.simulation.footprint import Footprint, make_footprint
from gueststar.simulation.galaxies import light_offsets, make_galaxies
from gueststar.simulation.galaxy_model import draw_stars
from gueststar.simulation.orbits import apparent_places, turned_to
from gueststar.simulation.random_fields import wave_field
from gueststar.simulation.refcat import make_refcat
from gueststar.simulation.scenario import (
    AsteroidPlan,
    GalaxyPlan,
    RefcatPlan,
    StarPlan,
    TransientPlan,
    VariablePlan,
    load_scenario,
)
from gueststar.simulation.sky import sky_magnitude
from gueststar.simulation.stars import make_stars, positions_at
from gueststar.simulation.survey import plan_survey
from gueststar.simulation.tiles import SkyDisc
from gueststar.simulation.transients import light_curve, make_transients, transient_magnitudes
from gueststar.simulation.variables import magnitude_changes, make_variables

CAMERA = load_camera("simcam")
SITE = CAMERA.site
DISC = (SkyDisc(186.0, -3.0, 0.4),)


def footprint() -> Footprint:
    return make_footprint(CAMERA, CAMERA.detectors, ra=186.0, dec=-3.0, margin_arcsec=60.0)


def test_altitudes_agree_with_astropy() -> None:
    place = EarthLocation.from_geodetic(SITE.longitude_deg, SITE.latitude_deg, SITE.height_m)
    moments = 60762.0 + np.arange(0.0, 1.0, 0.13)
    with iers.conf.set_temp("auto_download", False):
        time = Time(moments, format="mjd", scale="tai")
        star = SkyCoord(186.0, -3.0, unit="deg").transform_to(AltAz(obstime=time, location=place))
    ours = ephemeris.topocentric_place(SITE, ra=186.0, dec=-3.0, mjd_tai=moments)
    assert np.abs(ours.altitude - star.alt.deg).max() < 0.01
    direction = ephemeris.unit_vector(186.0, -3.0)
    rough = [np.degrees(np.arcsin(ephemeris.zenith_direction(SITE, m) @ direction)) for m in moments]
    assert np.abs(rough - star.alt.deg).max() < 0.03


def test_two_body_motion_follows_mars() -> None:
    # Mean elements of Mars at J2000 (Standish & Williams, JPL approximate positions).
    mars = Elements(
        *(np.array([v]) for v in (1.52371034, 0.09339410, 1.84969142, 49.55953891, -73.50316850, 19.39019754, 51544.5)),
        np.array([0.0]),
    )
    for days in (-40.0, 0.0, 60.0):
        time = Time(51544.5 + days, format="mjd", scale="tdb")
        true = (get_body_barycentric("mars", time) - get_body_barycentric("sun", time)).xyz.to_value("au")
        assert np.linalg.norm(heliocentric(mars, 51544.5 + days)[:, 0] - true) < 2e-3


def test_turned_orbit_stands_where_it_should() -> None:
    n = 5
    elements = Elements(
        np.array([2.3, 2.7, 3.1, 1.9, 5.2]), np.array([0.1, 0.2, 0.15, 0.05, 0.04]), np.full(n, 3.0), np.zeros(n),
        np.zeros(n), np.linspace(0, 300, n), np.full(n, 60000.0), np.full(n, 15.0),
    )  # fmt: skip
    ra, dec = 186.0 + np.linspace(-0.2, 0.2, n), -3.0 + np.linspace(-0.2, 0.2, n)
    turned = turned_to(elements, ra=ra, dec=dec, site=SITE, mjd_tai=60768.2, is_rising=np.arange(n) % 2 == 0)
    seen = apparent_places(turned, site=SITE, mjd_tai=60768.2)
    assert ephemeris.separation_deg(seen.ra, seen.dec, ra, dec).max() * 3600 < 0.1
    np.testing.assert_array_equal(turned.a, elements.a)
    np.testing.assert_array_equal(turned.e, elements.e)


def test_asteroids_are_in_the_field_with_the_rates_of_the_belt() -> None:
    asteroids = make_asteroids(
        AsteroidPlan(n=8), footprints=(footprint(),), site=SITE, moments={(1, 0): 60768.2}, seed=2
    )
    assert asteroids.n_rows == 8
    seen = [apparent_places(elements_of(asteroids), site=SITE, mjd_tai=60768.2 + dt) for dt in (0.0, 1 / 24)]
    assert footprint().contains(seen[0].ra, seen[0].dec).all()
    rate = ephemeris.separation_deg(seen[0].ra, seen[0].dec, seen[1].ra, seen[1].dec) * 60.0
    assert np.all((rate > 0.02) & (rate < 5.0))
    assert 0.3 < np.median(rate) < 1.0


def test_real_orbits_are_read_and_moved_into_the_field(tmp_path: Path) -> None:
    fields = ["full_name", "H", "epoch_mjd", "e", "a", "i", "om", "w", "ma"]
    rng = np.random.default_rng(3)
    rows = [
        [f" {k} Body", "12.5", "59800", "0.1", str(2.2 + 0.01 * k), "3.0", str(om), str(w), "10.0"]
        for k, (om, w) in enumerate(rng.uniform(0, 360, (60, 2)))
    ]
    rows.append(["incomplete", None, "59800", "0.1", "2.5", "3.0", "1.0", "1.0", "10.0"])
    path = tmp_path / "orbits.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"fields": fields, "data": rows}).encode()))
    assert read_orbits(path)[0].a.size == 60
    plan = AsteroidPlan(n=2, orbits=str(path), magnitudes=(10.0, 22.0))
    found = make_asteroids(plan, footprints=(footprint(),), site=SITE, moments={(0, 0): 60768.2}, seed=2)
    seen = apparent_places(elements_of(found), site=SITE, mjd_tai=60768.2)
    assert found.n_rows >= 1
    assert footprint().contains(seen.ra, seen.dec).all()
    path.write_text("{}")
    with pytest.raises(ConfigError, match="SBDB"):
        read_orbits(path)


def test_star_counts_are_those_of_the_galaxy() -> None:
    def counts(longitude: float, latitude: float) -> tuple[float, float]:
        drawn = draw_stars(
            np.random.default_rng(1), longitude=longitude, latitude=latitude, area_deg2=0.5, bright=9.0, faint=20.0
        )
        return drawn.distance_pc.size / 0.5, float(np.median(drawn.mags[0] - drawn.mags[1]))

    pole, plane = counts(0.0, 89.0), counts(70.0, 4.0)
    # SDSS and Gaia see some 2,000 stars per square degree to r = 20 at the pole, 100,000 in the disc.
    assert 1500 < pole[0] < 3500
    assert 60_000 < plane[0] < 250_000
    assert 0.5 < pole[1] < 1.1


def test_the_sky_does_not_depend_on_how_much_of_it_is_asked_for() -> None:
    small = make_stars(StarPlan(faint_limit=18.0), discs=DISC, seed=3)
    large = make_stars(StarPlan(faint_limit=18.0), discs=(SkyDisc(186.3, -3.1, 1.2),), seed=3)
    assert np.isin(small["source_id"], large["source_id"]).all()
    other = make_stars(StarPlan(faint_limit=18.0), discs=DISC, seed=4)
    assert not np.isin(small["ra"], other["ra"]).any()


def test_a_density_by_number_is_met() -> None:
    stars = make_stars(StarPlan(density=5000.0, faint_limit=20.0, bright_limit=5.0), discs=DISC, seed=3)
    assert stars.n_rows == pytest.approx(5000.0 * np.pi * 0.4**2, rel=0.08)


def test_proper_motions_are_applied_on_the_sky() -> None:
    stars = make_stars(StarPlan(faint_limit=18.0), discs=(SkyDisc(10.0, 70.0, 0.4),), seed=3)
    ra, dec = positions_at(stars, 2026.0)
    start = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    east, north = start.spherical_offsets_to(SkyCoord(ra, dec, unit="deg"))
    np.testing.assert_allclose(east.to_value(u.mas), 10 * stars["pm_ra"], atol=2.0)
    np.testing.assert_allclose(north.to_value(u.mas), 10 * stars["pm_dec"], atol=2.0)


def test_transients_follow_the_light_of_their_hosts() -> None:
    galaxies = make_galaxies(GalaxyPlan(faint_limit=20.0), discs=DISC, seed=5)
    random = np.random.default_rng(1)
    ellipse = []
    for _ in range(30):
        east, north = light_offsets(galaxies, random)
        angle = np.radians(galaxies["position_angle"])
        along, across = east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)
        ellipse.append(np.hypot(along, across / galaxies["axis_ratio"]) / galaxies["disc_radius"])
    disc_like = galaxies["bulge_fraction"] < 0.05
    # Half of the light of a disc is within its half-light radius.
    assert np.mean(np.array(ellipse)[:, disc_like] < 1.0) == pytest.approx(0.5, abs=0.05)


def test_nothing_shines_before_it_explodes() -> None:
    galaxies = make_galaxies(GalaxyPlan(faint_limit=20.0), discs=DISC, seed=5)
    plan = TransientPlan(n=20, n_first_night=5)
    nights = [60762.2, 60768.2]
    found = make_transients(plan, galaxies, footprints=(footprint(),), nights=nights, seed=1)
    assert found.n_rows == 25
    before = transient_magnitudes(found, mjd_tai=nights[0] - 10.0)
    assert np.all(np.isinf(before))
    second = found["drawn_for_night"] == 1
    at_night = transient_magnitudes(found, mjd_tai=nights[1])[1]
    np.testing.assert_allclose(at_night[second], found["mag_r_drawn"][second], atol=1e-6)
    assert np.all(np.isinf(transient_magnitudes(found, mjd_tai=nights[0])[1][second]))
    assert footprint().contains(found["ra"], found["dec"]).mean() > 0.9


def test_light_curve_peaks_at_its_rise_time() -> None:
    age = np.linspace(0.0, 60.0, 601)
    flux = light_curve(age, np.full(601, 18.0))
    assert flux[0] == 0.0
    assert age[np.argmax(flux)] == pytest.approx(18.0)
    assert flux.max() == pytest.approx(1.0)


def test_variables_vary_and_are_stars_of_the_table() -> None:
    stars = make_stars(StarPlan(faint_limit=20.0), discs=DISC, seed=3)
    variables = make_variables(VariablePlan(n=12), stars, footprints=(footprint(),), seed=3)
    assert np.isin(variables["source_id"], stars["source_id"]).all()
    curve = np.array([magnitude_changes(variables, mjd_tai=60762.0 + t, band="r") for t in np.linspace(0, 3, 600)])
    steady = variables["kind"] != "flare"
    span = np.ptp(curve, axis=0)
    assert np.all(span[steady] > 0.7 * variables["amplitude"][steady])
    assert np.all(span <= 1.1 * variables["amplitude"] + 0.05)
    np.testing.assert_array_equal(curve[7], magnitude_changes(variables, mjd_tai=60762.0 + 3 * 7 / 599, band="r"))


def test_reference_catalog_errors_are_honest() -> None:
    stars = make_stars(StarPlan(faint_limit=22.0), discs=(SkyDisc(186.0, -3.0, 0.8),), seed=3)
    galaxies = make_galaxies(GalaxyPlan(faint_limit=20.5), discs=DISC, seed=3)
    variables = make_variables(VariablePlan(n=20), stars, footprints=(footprint(),), seed=3)
    refcat = make_refcat(RefcatPlan(epoch=2016.0), stars, galaxies, variables, seed=3)
    point = refcat.select(~refcat["is_extended"])
    order = np.argsort(stars["source_id"])
    rows = order[np.searchsorted(stars["source_id"], point["ref_id"], sorter=order)]
    for band in "griz":
        pull = (point[f"mag_{band}"] - stars[f"mag_{band}"][rows]) / point[f"mag_{band}_err"]
        assert np.std(pull) == pytest.approx(1.0, abs=0.05)
    shift = (point["dec"] - stars["dec"][rows]) * 3.6e6 / point["dec_err"]
    assert np.std(shift) == pytest.approx(1.0, abs=0.05)
    flagged = np.isin(variables["source_id"], refcat["ref_id"][refcat["is_variable"]])
    assert 0 < flagged.sum() < variables.n_rows
    faint = stars["mag_r"] > 21.5
    assert not np.isin(stars["source_id"][faint], point["ref_id"]).any()


def test_every_exposure_is_taken_in_the_dark_of_a_field_that_is_up() -> None:
    for seed in (1, 2):
        visits = plan_survey(CAMERA, load_scenario("demo"), seed=seed)
        moments = np.array([visit.mjd_tai for visit in visits])
        assert ephemeris.sun_altitude(SITE, moments).max() < -15.0
        place = ephemeris.topocentric_place(SITE, ra=visits[0].field.ra, dec=visits[0].field.dec, mjd_tai=moments)
        assert place.airmass.max() < 2.0
        gaps = np.diff([visit.mjd_start for visit in visits]) * 86400.0
        assert gaps.min() >= visits[0].exposure_s + 15.0 - 1e-3


def test_a_field_that_is_down_is_refused_with_its_altitude() -> None:
    scenario = load_scenario("small")
    field = scenario.fields[0].model_copy(update={"ra": 10.0, "dec": 60.0})
    with pytest.raises(ConfigError, match="altitude"):
        plan_survey(CAMERA, scenario.model_copy(update={"fields": (field,)}), seed=1)


def test_moonlight_brightens_the_sky_near_the_full_moon() -> None:
    # 2025-04-13 was full Moon.
    arguments = {"ra": 186.0, "dec": -3.0, "mjd_tai": 60778.2, "band": "r", "extinction": 0.1}
    dark = sky_magnitude(SITE, **arguments, has_moon=False)
    lit = sky_magnitude(SITE, **arguments, has_moon=True)
    assert 20.5 < dark < 21.3
    assert 1.0 < dark - lit < 5.0


def test_refraction_compresses_the_sky_towards_the_zenith() -> None:
    stretch = refraction_stretch(zenith_distance_deg=60.0, parallactic_deg=0.0)
    # d(R tan z)/dz = R sec^2 z: 45 arcsec * 4 per radian along the zenith direction.
    assert (stretch[1, 1] - 1) * 206265 == pytest.approx(180.0, rel=0.01)
    assert (stretch[0, 0] - 1) * 206265 == pytest.approx(45.0, rel=0.01)
    assert stretch[0, 1] == pytest.approx(0.0, abs=1e-12)


def test_random_field_has_unit_variance_and_one_value_a_place() -> None:
    field = wave_field(np.random.default_rng(2), scale=0.3)
    x, y = np.linspace(-10, 10, 300), np.linspace(-10, 10, 280)
    grid = field.on_grid(x, y)
    assert grid.shape == (280, 300)
    assert grid.std() == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(field.at(x[:5], y[7] + np.zeros(5)), grid[7, :5], atol=1e-9)


def test_near_earth_bodies_pass_through_the_field_at_the_rates_that_are_asked_for() -> None:
    plan = AsteroidPlan(n=0, n_near_earth=12, near_earth_rates=(3.0, 15.0))
    found = make_asteroids(plan, footprints=(footprint(),), site=SITE, moments={(1, 0): 60768.2}, seed=2)
    assert found.n_rows == 12
    minute = 1.0 / 1440.0
    before, seen, after = (
        apparent_places(elements_of(found), site=SITE, mjd_tai=60768.2 + k * minute) for k in (-0.5, 0.0, 0.5)
    )
    east = (after.ra - before.ra) * np.cos(np.radians(seen.dec)) * 3600.0
    rate = np.hypot(east, (after.dec - before.dec) * 3600.0)
    assert rate.min() > 3.0 * 0.95
    assert rate.max() < 15.0 * 1.05
    assert rate.max() > 8.0
    mags = seen.mag_v - 0.22
    assert np.all((mags > 15.9) & (mags < 19.6))


def test_an_orbit_of_a_motion_has_that_motion() -> None:
    rng = np.random.default_rng(3)
    n = 40
    angles = rng.uniform(1.0, 359.0, (3, n))
    orbits = Elements(
        rng.uniform(0.8, 4.0, n), rng.uniform(0.02, 0.8, n), rng.uniform(0.5, 170.0, n), *angles,
        np.full(n, 60000.0), np.full(n, 18.0),
    )  # fmt: skip
    step = 1e-4
    before, here, after = (heliocentric(orbits, 60000.0 + k * step) for k in (-1.0, 0.0, 1.0))
    found = elements_of_motion(
        here, (after - before) / (2 * step), epoch_mjd=60000.0, absolute_magnitude=orbits.absolute_magnitude
    )
    assert found.a == pytest.approx(orbits.a, rel=1e-5)
    assert found.e == pytest.approx(orbits.e, abs=1e-5)
    later = 60000.0 + 200.0
    assert np.abs(heliocentric(found, later) - heliocentric(orbits, later)).max() < 1e-3
