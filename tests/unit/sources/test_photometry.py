import numpy as np
import pytest
import sep
from scipy.spatial import cKDTree

from gueststar.algorithms.photometry.apertures import aperture_photometry
from gueststar.algorithms.photometry.classify import star_likeness
from gueststar.algorithms.photometry.error_floor import measure_error_floor
from gueststar.algorithms.photometry.far_wing import loss_correction
from gueststar.algorithms.photometry.forced import forced_psf_photometry, stamps_at
from gueststar.algorithms.photometry.growth import measure_aperture_correction
from gueststar.algorithms.photometry.psf_fit import measure_point_sources
from gueststar.algorithms.psf.scene import fresh_scene
from gueststar.algorithms.psf.simultaneous import measure_errors
from gueststar.algorithms.psf.spline import spline_psf
from gueststar.core.bits import MaskPlane
from gueststar.pipelines.science.psf import fresh_scene_of


def spline_of(psf):
    return spline_psf(psf.coefficients, psf.order, psf.shape, psf.oversampling)


def measured(field, psf):
    pixels = field.pixels
    return measure_point_sources(
        fresh_scene_of(pixels), ~pixels.is_usable(MaskPlane.SATURATED), spline_of(psf), fwhm=psf.central_fwhm,
    )  # fmt: skip


def matched(field, found):
    distance, row = cKDTree(np.column_stack([found.state.x, found.state.y])).query(np.column_stack([field.x, field.y]))
    return distance < 1.0, row


def test_errors_of_flux_and_position_are_those_that_the_truth_shows(star_field, gaussian_psf, robust_spread) -> None:
    pulls = []
    for seed in range(4):
        field = star_field(300, seed=seed, shape=(600, 600))
        found = measured(field, gaussian_psf(1.1, (600, 600)))
        is_found, row = matched(field, found)
        row, state, errors = row[is_found], found.state, found.errors
        pulls.append(
            [
                (state.flux[row] - field.flux[is_found]) / errors.flux_err[row],
                (state.x[row] - field.x[is_found]) / errors.x_err[row],
                (state.y[row] - field.y[is_found]) / errors.y_err[row],
            ]
        )
        assert is_found.mean() > 0.97
    for values in np.concatenate(pulls, axis=1):
        assert abs(np.median(values)) < 0.12
        assert 0.92 < robust_spread(values) < 1.10


def test_fluxes_of_faint_stars_are_not_biased_by_noisy_weights(star_field, gaussian_psf) -> None:
    field = star_field(220, seed=7, shape=(900, 900), sky=100.0, log_flux=(2.9, 3.0), min_distance=30.0)
    found = measured(field, gaussian_psf(1.1, (900, 900)))
    is_found, row = matched(field, found)
    ratio = found.state.flux[row[is_found]] / field.flux[is_found]
    assert abs(np.mean(ratio) - 1.0) < 4 * np.std(ratio) / np.sqrt(ratio.size)


def test_a_star_in_the_wing_of_a_brighter_one_is_found_in_the_residual(star_field, gaussian_psf, add_gaussian) -> None:
    field = star_field(0, shape=(120, 120))
    truth = np.full((120, 120), 800.0)
    add_gaussian(truth, 60.2, 60.4, 2e5, 1.1, 1.1)
    add_gaussian(truth, 63.1, 60.9, 1e4, 1.1, 1.1)
    data = np.random.default_rng(1).poisson(truth)
    pixels = type(field.pixels)(data - 800.0, data + 25.0, np.zeros((120, 120)))
    found = measured(field._replace(pixels=pixels), gaussian_psf(1.1, (120, 120)))
    assert len(found.state.x) == 2
    faint = np.argmin(found.state.flux)
    assert found.state.flux[faint] == pytest.approx(1e4, abs=4 * found.errors.flux_err[faint])
    assert found.is_blended[faint]


def test_galaxy_is_not_shredded_and_is_known_by_its_sharpness(star_field, gaussian_psf, add_gaussian) -> None:
    truth = np.full((150, 150), 800.0)
    for x, y, width in ((40.0, 40.0, 2.4), (110.3, 50.2, 1.1), (70.0, 110.0, 3.5)):
        add_gaussian(truth, x, y, 6e4, width, width)
    data = np.random.default_rng(2).poisson(truth)
    field = star_field(0, shape=(150, 150))
    pixels = type(field.pixels)(data - 800.0, data + 25.0, np.zeros((150, 150)))
    found = measured(field._replace(pixels=pixels), gaussian_psf(1.1, (150, 150)))
    assert len(found.state.x) <= 5
    likeness = star_likeness(found.errors.sharpness, found.errors.sharpness_err)
    star = np.argmin(np.hypot(found.state.x - 110.3, found.state.y - 50.2))
    assert likeness[star] > 0.5
    assert np.all(likeness[(np.arange(len(likeness)) != star) & (found.found_in_pass == 0)] < 0.1)


def test_saturated_star_is_one_source_with_its_flux_from_the_wings(star_field, gaussian_psf) -> None:
    field = star_field(1, seed=3, shape=(100, 100), log_flux=(5.99, 6.0), saturation=30000.0)
    found = measured(field, gaussian_psf(1.1, (100, 100), radius=12))
    assert found.is_saturated[0]
    assert len(found.state.x) == 1
    assert np.hypot(found.state.x[0] - field.x[0], found.state.y[0] - field.y[0]) < 0.1
    assert found.state.flux[0] == pytest.approx(field.flux[0], rel=0.1)


def test_background_left_among_the_stars_is_found_and_removed(star_field, gaussian_psf) -> None:
    field = star_field(400, seed=5, shape=(400, 400), log_flux=(3.5, 5.0))
    shifted = type(field.pixels)(field.pixels.image - 12.0, field.pixels.variance, field.pixels.mask)
    found = measured(field._replace(pixels=shifted), gaussian_psf(1.1, (400, 400)))
    is_found, row = matched(field, found)
    pull = (found.state.flux[row] - field.flux) / found.errors.flux_err[row]
    assert abs(np.median(pull[is_found])) < 0.25


def test_forced_fluxes_on_noise_are_unbiased_and_their_errors_right(gaussian_psf, robust_spread) -> None:
    rng = np.random.default_rng(8)
    image = rng.normal(0.0, 3.0, (300, 300)).astype(np.float32)
    is_masked = rng.random(image.shape) < 0.02
    x, y = rng.uniform(0, 299, 2000), rng.uniform(0, 299, 2000)
    stamps = stamps_at(spline_of(gaussian_psf(1.3, (300, 300))), x=x, y=y, radius=6)
    forced = forced_psf_photometry(image, np.full_like(image, 9.0), is_masked, stamps, x=x, y=y)
    pull = forced.flux / forced.flux_err
    assert abs(pull.mean()) < 0.1
    assert robust_spread(pull) == pytest.approx(1.0, abs=0.06)
    assert np.median(forced.chi2) == pytest.approx(1.0, abs=0.03)
    assert forced.n_masked.max() > 0


def test_forced_flux_is_exact_without_noise_signed_and_nan_without_data(gaussian_psf, add_gaussian) -> None:
    image = np.zeros((60, 60))
    add_gaussian(image, 20.3, 30.7, -500.0, 1.3, 1.3)
    x, y = np.array([20.3, 500.0, np.nan]), np.array([30.7, 20.0, 3.0])
    stamps = stamps_at(spline_of(gaussian_psf(1.3, (60, 60), radius=12)), x=np.nan_to_num(x), y=np.nan_to_num(y))
    variance = np.ones((60, 60), dtype=np.float32)
    forced = forced_psf_photometry(image.astype(np.float32), variance, np.zeros((60, 60), dtype=bool), stamps, x=x, y=y)
    assert forced.flux[0] == pytest.approx(-500.0, rel=2e-3)
    assert np.isnan(forced.flux[1:]).all()
    assert forced.n_masked[1] > 0


@pytest.mark.parametrize("radius", [0.4, 1.0, 3.3, 8.0])
def test_apertures_agree_with_sep(radius) -> None:
    rng = np.random.default_rng(9)
    image = rng.normal(10, 1, (80, 80)).astype(np.float32)
    x, y = rng.uniform(12, 67, 40), rng.uniform(12, 67, 40)
    expected, _, _ = sep.sum_circle(image, x, y, radius, subpix=0)
    found = aperture_photometry(image, image, np.zeros(image.shape, dtype=bool), x=x, y=y, radii=(radius,))
    np.testing.assert_allclose(found.flux[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.flux_err[:, 0] ** 2, expected, rtol=1e-6)


def test_masked_pixels_in_an_aperture_are_replaced(gaussian_psf) -> None:
    image = 1e4 * gaussian_psf(1.5, (41, 41), oversampling=1, radius=20).stamp(x=20, y=20)
    is_masked = np.zeros(image.shape, dtype=bool)
    is_masked[20:22, 22] = True
    variance = np.ones_like(image)
    at = {"x": np.array([20.0]), "y": np.array([20.0]), "radii": (6.0,)}
    whole = aperture_photometry(image, variance, ~np.ones_like(is_masked), **at)
    mirrored = aperture_photometry(image, variance, is_masked, **at)
    modelled = aperture_photometry(image, variance, is_masked, model=image, **at)
    assert mirrored.flux[0, 0] == pytest.approx(whole.flux[0, 0], rel=1e-5)
    assert modelled.flux[0, 0] == pytest.approx(whole.flux[0, 0], rel=1e-5)
    assert mirrored.masked_fraction[0, 0] == pytest.approx(2 / (np.pi * 36), rel=1e-6)


def test_aperture_correction_and_floor_are_recovered() -> None:
    rng = np.random.default_rng(10)
    flux = 10 ** rng.uniform(4.5, 6.5, 400)
    psf_err, aperture_err = np.sqrt(flux + 1e5), np.sqrt(flux + 9e5)
    shared, floor = rng.normal(0, psf_err), 0.006
    psf_flux = flux + shared + rng.normal(0, floor * flux)
    aperture_flux = 0.97 * 0.95 * (flux + shared + rng.normal(0, np.sqrt(aperture_err**2 - psf_err**2)))
    place = {"x": rng.uniform(0, 500, 400), "y": rng.uniform(0, 500, 400), "shape": (500, 500)}
    found = measure_aperture_correction(
        psf_flux, psf_err, aperture_flux, 0.95 * aperture_err, np.full(400, 0.95), **place
    )  # fmt: skip
    assert found.ratio == pytest.approx(0.97, abs=4 * found.ratio_err)
    for x in (250.0, 500.0):
        assert np.sqrt(found.floor.variance(x=x, y=x, shape=(500, 500))) == pytest.approx(floor, rel=0.4)
    few = measure_aperture_correction(
        flux[:5], psf_err[:5], flux[:5], aperture_err[:5], np.ones(5), x=np.ones(5), y=np.ones(5), shape=(9, 9)
    )
    assert (few.ratio, few.floor.middle) == (1.0, 0.0)


def test_model_error_that_errors_hold_already_is_not_in_the_floor_again() -> None:
    rng = np.random.default_rng(12)
    flux = 10 ** rng.uniform(5.5, 6.5, 800)
    noise, aperture_err, model = np.sqrt(flux + 1e5), np.sqrt(flux + 9e5), 0.005
    shared = rng.normal(0, noise)
    psf_flux = flux + shared + rng.normal(0, model * flux)
    aperture_flux = flux + shared + rng.normal(0, np.sqrt(aperture_err**2 - noise**2))
    place = {"x": rng.uniform(0, 500, 800), "y": rng.uniform(0, 500, 800), "shape": (500, 500)}
    held = np.hypot(noise, model * flux)
    found = measure_aperture_correction(
        psf_flux, held, aperture_flux, aperture_err, np.ones(800), **place, psf_noise=noise
    )  # fmt: skip
    total = np.hypot(held / flux, np.sqrt(found.floor.variance(x=place["x"], y=place["y"], shape=(500, 500))))
    assert np.std((psf_flux / flux - 1.0) / total) == pytest.approx(1.0, abs=0.12)


def test_neighbours_that_are_not_seen_do_not_widen_the_floor_of_a_crowded_field() -> None:
    rng = np.random.default_rng(13)
    flux = 10 ** rng.uniform(5.5, 6.5, 1000)
    err = np.sqrt(flux + 1e5)
    shared, floor = rng.normal(0, err), 0.002
    neighbours = flux * rng.exponential(0.004, 1000) * (rng.random(1000) < 0.4)
    place = {"x": rng.uniform(0, 500, 1000), "y": rng.uniform(0, 500, 1000), "shape": (500, 500)}
    given = (flux + shared + rng.normal(0, floor * flux), err, flux + shared + neighbours, 1.001 * err, np.ones(1000))
    naive, crowded = (measure_aperture_correction(*given, **place, is_crowded=c).floor for c in (False, True))
    assert np.sqrt(naive.middle) > 1.3 * floor
    assert np.sqrt(crowded.middle) == pytest.approx(floor, rel=0.25)


def test_floor_of_errors_tells_middle_from_corners_and_ignores_outliers() -> None:
    rng = np.random.default_rng(11)
    x, y = rng.uniform(0, 999, (2, 600))
    outwards = ((x - 499.5) ** 2 + (y - 499.5) ** 2) / 499.5**2 / 2
    noise = np.full((2, 600), 0.001)
    deviation = rng.normal(0, np.sqrt(noise**2 + (0.0005**2 * (1 - outwards) + 0.003**2 * outwards)))
    deviation[:, ::50] += 0.1
    found = measure_error_floor(deviation, noise, x=x, y=y, shape=(1000, 1000))
    assert np.sqrt(found.corner) == pytest.approx(0.003, rel=0.15)
    assert np.sqrt(found.middle) < 0.001
    quiet = measure_error_floor(rng.normal(0, noise), noise, x=x, y=y, shape=(1000, 1000))
    assert quiet.variance(x=500.0, y=500.0, shape=(1000, 1000)) < 0.0004**2


def test_light_beyond_the_stamps_is_allowed_for_where_the_psf_is_wider() -> None:
    shape, half, beta, widths = (400, 400), 15, 2.5, (2.4, 3.0)
    r = np.hypot(*np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1)))
    narrow, wide = ((beta - 1) / np.pi / a**2 * (1 + (r / a) ** 2) ** -beta for a in widths)
    kept = [stamp.sum() for stamp in (0.5 * (narrow + wide), wide)]
    normal = [stamp / stamp.sum() for stamp in (narrow, wide)]
    samples = np.array([0.5 * (normal[0] + normal[1]), 0.5 * (normal[1] - normal[0]), np.zeros_like(narrow)])
    psf = spline_psf(samples.astype(np.float32), 1, shape, 1)
    factor = loss_correction(psf, x=np.array([199.5, 399.0, 199.5]), y=np.array([199.5, 199.5, 0.0]))
    np.testing.assert_allclose(factor[[0, 2]], 1.0, atol=2e-4)
    lost = kept[0] / kept[1] - 1.0
    assert 0.5 * lost < factor[1] - 1.0 < 1.5 * lost


def test_remains_of_a_cosmic_ray_are_no_source_but_a_star_beside_one_is(star_field, gaussian_psf) -> None:
    field = star_field(1, shape=(200, 200), log_flux=(4.2, 4.3), seed=5)
    pixels, psf = field.pixels, gaussian_psf(1.1, (200, 200))
    x, y = round(field.x[0]), round(field.y[0])
    image, is_struck = pixels.image.copy(), np.zeros(pixels.shape, dtype=bool)
    away = (y + 100) % 200
    image[away, 60:66] += 400.0
    is_struck[away, 62:66] = is_struck[y, x + 2 : x + 4] = True
    found = measure_point_sources(
        fresh_scene(image, pixels.variance, is_struck), np.zeros_like(is_struck), spline_of(psf),
        fwhm=psf.central_fwhm, is_struck=is_struck,
    )  # fmt: skip
    place = np.column_stack([found.state.x, found.state.y])
    assert np.hypot(*(place - [field.x[0], field.y[0]]).T).min() < 0.3
    assert np.hypot(*(place - [61, away]).T).min() > 3.0


def test_errors_that_are_known_are_kept_and_the_rest_measured_anew(star_field, gaussian_psf) -> None:
    field, psf = star_field(40, shape=(300, 300)), gaussian_psf(1.1, (300, 300))
    found = measured(field, psf)
    spline, fwhm = spline_of(psf), psf.central_fwhm
    every = measure_errors(found.scene, spline, found.state, fwhm=fwhm)
    wrong = every._replace(flux_err=np.full_like(every.flux_err, -1.0))
    is_stale = np.arange(len(found.state.x)) < 5
    some = measure_errors(found.scene, spline, found.state, fwhm=fwhm, known=wrong, is_stale=is_stale)
    np.testing.assert_array_equal(some.flux_err[is_stale], every.flux_err[is_stale])
    assert (some.flux_err[~is_stale] == -1.0).sum() > 20
