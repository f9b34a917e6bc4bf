"""The air moves stars as independent formulae say, and the solution takes it out."""

import erfa
import numpy as np
import pytest

from gueststar.algorithms.astrometry.proper_motion import earth_position, propagate_positions
from gueststar.algorithms.astrometry.refraction import Air, air_above, refract, towards_zenith, unrefract
from gueststar.algorithms.astrometry.refraction import zenith_distance_deg as distance_of
from gueststar.core import times
from gueststar.model.wcs import Wcs
from gueststar.simulation.atmosphere import refraction_stretch
from tests.unit.test_astrometry import SCALE, SHAPE, Field, make_field, solve, told, true_wcs, worst_error_pixel

MJD, LATITUDE, LONGITUDE, HEIGHT = 60310.3, 33.36, -116.86, 1700.0


def air(band: str = "r", colour: tuple[str, str] = ("g", "r")) -> Air:
    return air_above(
        mjd_utc=MJD, latitude_deg=LATITUDE, longitude_deg=LONGITUDE, height_m=HEIGHT, band=band, colour=colour
    )


@pytest.mark.parametrize("away", [10.0, 45.0, 70.0])
def test_stars_rise_as_erfa_makes_them_rise(away: float) -> None:
    """erfa.atco13 goes from ICRS to observed with its own path; azimuth stays, altitude is raised."""
    above = air()
    ra, dec = np.array([above.zenith[0] + 0.6 * away]), np.array([above.zenith[1] - 0.5 * away])
    seen = refract(above, ra, dec)
    pressure = 1013.25 * np.exp(-HEIGHT / 8400.0)

    def zenith_distance(ra: float, dec: float, hpa: float) -> float:
        found = erfa.atco13(
            np.radians(ra), np.radians(dec), 0, 0, 0, 0, 2400000.5, MJD, 0, np.radians(LONGITUDE), np.radians(LATITUDE),
            HEIGHT, 0, 0, hpa, 10.0, 0.5, 0.62,
        )  # fmt: skip
        return float(np.degrees(found[1]))

    true = zenith_distance(ra[0], dec[0], 0.0)
    assert distance_of(above, (ra[0], dec[0])) == pytest.approx(true, abs=0.01)
    ours = 3600 * (true - zenith_distance(seen[0][0], seen[1][0], 0.0))
    assert ours == pytest.approx(3600 * (true - zenith_distance(ra[0], dec[0], pressure)), abs=0.02)
    np.testing.assert_allclose(unrefract(above, *seen), (ra, dec), atol=1e-9)


def test_blue_light_is_refracted_more_and_colour_matters_most_in_the_blue() -> None:
    shifts = [air(band).chromatic_arcsec for band in ("g", "r", "i", "z")]
    assert np.all(np.diff(shifts) < 0)
    assert 0.01 < shifts[1] < 0.04
    assert air("unheard of").chromatic_arcsec == 0.0
    assert air("unheard of").chromatic_err_arcsec > air("r").chromatic_err_arcsec


def seen_through(field: Field, above: Air, *, chromatic: float, rng: np.random.Generator) -> Field:
    """The same sky as it is seen: the catalog keeps true places, which here are those before the air."""
    reference = field.reference
    ra, dec = unrefract(above, reference["ra"], reference["dec"])
    colour = rng.normal(0.6, 0.4, reference.n_rows)
    centre = (float(np.median(ra)), float(np.median(dec)))
    shift = chromatic * (np.median(colour) - colour)[:, None] * towards_zenith(above, centre) / 3600.0
    ra, dec = ra - shift[:, 0] / np.cos(np.radians(dec)), dec - shift[:, 1]
    return Field(
        field.truth, reference.replace(ra=ra % 360, dec=dec, mag_g=reference["mag_r"] + colour), field.sources,
        field.star_of_source,
    )  # fmt: skip


def low_wcs(above: Air) -> Wcs:
    return true_wcs(ra=(above.zenith[0] + 70.0) % 360.0, dec=above.zenith[1] - 20.0)


def test_ten_stars_at_a_low_altitude_are_not_sheared_by_the_air() -> None:
    above = air()
    truth = low_wcs(above)
    assert distance_of(above, truth.crval) > 55.0
    worst: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        field = seen_through(make_field(rng, truth, n=12, error=0.02), above, chromatic=0.0, rng=rng)
        for is_told in worst:
            solution = solve(field, told(truth, stretch=1.0, turn=0.1), air=above if is_told else None)
            x, y = np.array([0.0, 1099.0, 0.0, 1099.0]), np.array([0.0, 0.0, 999.0, 999.0])
            seen = refract(above, *solution.wcs.pixel_to_sky(x=x, y=y))
            there = truth.sky_to_pixel(ra=seen[0], dec=seen[1])
            worst[is_told].append(float(np.max(np.hypot(there[0] - x, there[1] - y))))
    assert np.median(worst[True]) < 0.5 * np.median(worst[False])


def test_the_shift_by_colour_is_measured_and_taken_out() -> None:
    above = air("g")
    truth = low_wcs(above)
    rng = np.random.default_rng(3)
    field = seen_through(make_field(rng, truth, n=1500, error=0.02), above, chromatic=0.09, rng=rng)
    plain = solve(field, told(truth), colour=("g", "r"))
    better = solve(field, told(truth), colour=("g", "r"), air=above)
    assert better.metrics.chromatic_mas == pytest.approx(90.0, abs=4 * better.metrics.chromatic_err_mas)
    assert better.metrics.chromatic_err_mas < 5.0
    assert better.metrics.reduced_chi2 == pytest.approx(1.0, abs=0.1)
    assert plain.metrics.reduced_chi2 > 1.5
    assert plain.metrics.chromatic_mas is None


def test_the_simulated_air_stretches_the_sky_as_the_corrected_one_does() -> None:
    """The simulation has formulae of its own."""
    above = air()
    place = ((above.zenith[0] + 50.0) % 360.0, above.zenith[1])
    direction = towards_zenith(above, place)
    stretch = refraction_stretch(
        zenith_distance_deg=distance_of(above, place),
        parallactic_deg=float(np.degrees(np.arctan2(direction[0], direction[1]))),
    )
    step = 0.05
    ra = place[0] + np.array([step, -step, 0, 0]) / np.cos(np.radians(place[1]))
    dec = place[1] + np.array([0, 0, step, -step])
    seen = np.array(refract(above, ra, dec))
    d_ra = (seen[0, 0] - seen[0, 1]) * np.cos(np.radians(place[1])), (seen[0, 2] - seen[0, 3])
    ours = np.linalg.inv([[d_ra[0], 0], [0, seen[1, 2] - seen[1, 3]]]) * 2 * step
    assert ours[0, 0] - ours[1, 1] == pytest.approx(stretch[0, 0] - stretch[1, 1], abs=6e-5)


def test_parallax_is_that_of_an_independent_code() -> None:
    """erfa.pmpx gives the direction to a star from the observer's place."""
    epoch = 2024.37
    earth = earth_position(epoch)
    for ra, dec in ((10.0, 80.0), (200.0, -30.0), (359.9, 1.0)):
        ours = propagate_positions(
            ra=[ra], dec=[dec], pm_ra=[100.0], pm_dec=[-50.0], years=8.0, parallax=[300.0], earth_au=earth
        )
        vector = erfa.pmpx(
            np.radians(ra), np.radians(dec), np.radians(100.0 / 3.6e6) / np.cos(np.radians(dec)),
            np.radians(-50.0 / 3.6e6), 0.3, 0.0, 8.0, earth,
        )  # fmt: skip
        expected = np.degrees(erfa.c2s(vector))
        assert ours[0][0] == pytest.approx(expected[0] % 360.0, abs=3e-9 / np.cos(np.radians(dec)))
        assert ours[1][0] == pytest.approx(expected[1], abs=3e-9)
    assert times.julian_year(51544.5) == 2000.0


def test_air_at_the_zenith_changes_nothing_but_the_scale() -> None:
    above = air()
    truth = true_wcs(ra=above.zenith[0], dec=above.zenith[1])
    field = make_field(np.random.default_rng(5), truth)
    solution = solve(field, told(truth), air=above)
    assert worst_error_pixel(solution.wcs, truth) < 0.05
    assert solution.metrics.zenith_distance_deg < 0.1
    assert SHAPE[0] * SCALE > 0


def test_a_telescope_that_looks_below_the_horizon_has_a_wrong_clock_and_no_refraction() -> None:
    above = air()
    truth = true_wcs(ra=(above.zenith[0] + 130.0) % 360.0, dec=-10.0)
    field = make_field(np.random.default_rng(6), truth, n=12, error=0.02)
    plain, doubtful = solve(field, told(truth)), solve(field, told(truth), air=above)
    np.testing.assert_array_equal(doubtful.wcs.cd, plain.wcs.cd)
    assert doubtful.metrics.zenith_distance_deg is None
