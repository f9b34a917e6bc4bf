import numpy as np
import pytest
from scipy.signal import fftconvolve

from gueststar.algorithms.detection.footprints import find_footprints
from gueststar.algorithms.detection.matched_filter import Subtracted, matched_filter, separable_terms
from gueststar.algorithms.detection.noise import split_variance
from gueststar.algorithms.detection.peaks import detect_peaks
from gueststar.algorithms.detection.saturated import find_saturated_cores

GRID = np.arange(-5, 6)
KERNEL = np.exp(-0.5 * (GRID[:, None] ** 2 + GRID**2) / 1.1**2).astype(np.float32)
KERNEL /= KERNEL.sum()
TILTED = np.exp(-0.5 * ((GRID[:, None] + 0.6 * GRID) ** 2 / 1.2 + GRID**2 / 2.0)).astype(np.float32)
TILTED /= TILTED.sum()


@pytest.mark.parametrize("kernel", [KERNEL, TILTED])
def test_score_of_white_noise_has_unit_variance_beside_masked_pixels_and_edges(kernel) -> None:
    rng = np.random.default_rng(1)
    sigma = np.where(np.arange(500) < 250, 2.0, 7.0).astype(np.float32)
    image = rng.normal(0.0, 1.0, (500, 500)).astype(np.float32) * sigma
    is_masked = rng.random(image.shape) < 0.1
    filtered = matched_filter(image, np.broadcast_to(sigma**2, image.shape).copy(), is_masked, kernel)
    assert abs(filtered.score.std() - 1.0) < 0.02
    for part in (np.s_[:6], np.s_[:, -6:], np.s_[:, 240:260]):
        assert abs(filtered.score[part].std() - 1.0) < 0.1


def test_score_and_flux_agree_with_the_formula_evaluated_by_fft() -> None:
    rng = np.random.default_rng(2)
    image, variance = rng.normal(0, 5, (60, 71)).astype(np.float32), rng.uniform(10, 40, (60, 71)).astype(np.float32)
    is_masked = rng.random(image.shape) < 0.05
    weight = np.where(is_masked, 0.0, 1.0 / variance)
    flipped = KERNEL[::-1, ::-1].astype(np.float64)
    information = fftconvolve(weight, flipped**2, mode="same")
    expected = fftconvolve(image * weight, flipped, mode="same") / np.sqrt(information)
    filtered = matched_filter(image, variance, is_masked, KERNEL)
    np.testing.assert_allclose(filtered.score, expected, atol=2e-4)
    np.testing.assert_allclose(filtered.information, information, rtol=1e-3)


def test_a_grid_of_equal_kernels_gives_the_same_score_as_one_kernel() -> None:
    image = np.random.default_rng(3).normal(0, 1, (101, 97)).astype(np.float32)
    variance, is_masked = np.ones_like(image), np.zeros(image.shape, dtype=bool)
    one = matched_filter(image, variance, is_masked, KERNEL)
    many = matched_filter(image, variance, is_masked, np.broadcast_to(KERNEL, (3, 2, 11, 11)).copy())
    np.testing.assert_allclose(many.score, one.score, atol=1e-5)


def test_separable_terms_rebuild_an_elongated_kernel() -> None:
    terms = separable_terms(TILTED)
    rebuilt = np.einsum("rj,ri->ji", terms[:, 0], terms[:, 1])
    assert np.sum((rebuilt - TILTED) ** 2) < 0.005 * np.sum(TILTED**2)


def test_wholly_masked_pixels_have_no_score() -> None:
    image = np.full((40, 40), np.nan, dtype=np.float32)
    filtered = matched_filter(image, np.zeros_like(image), np.zeros(image.shape, dtype=bool), KERNEL)
    assert not filtered.score.any()
    assert detect_peaks(filtered.score, 5.0).x.size == 0


def test_peaks_are_found_between_pixels_with_their_sign() -> None:
    y, x = np.indices((50, 60))
    image = 9.0 * np.exp(-((x - 20.3) ** 2 + (y - 30.8) ** 2) / 8) - 7.0 * np.exp(
        -((x - 44.6) ** 2 + (y - 9.1) ** 2) / 8
    )
    positive, negative = (detect_peaks(image.astype(np.float32), 3.0, is_negative=sign) for sign in (False, True))
    np.testing.assert_allclose([positive.x, positive.y], [[20.3], [30.8]], atol=0.03)
    np.testing.assert_allclose([negative.x, negative.y], [[44.6], [9.1]], atol=0.03)
    assert positive.score[0] > 8
    assert negative.score[0] < -6


def test_a_plateau_has_one_peak_and_the_border_is_left_out() -> None:
    score = np.zeros((20, 20), dtype=np.float32)
    score[5:7, 5:8] = 6.0
    score[0, 10] = 9.0
    assert detect_peaks(score, 5.0).x.size == 2
    assert detect_peaks(score, 5.0, border=1).x.size == 1


def test_footprints_part_at_saddles_and_noise_does_not_part_them() -> None:
    y, x = np.indices((60, 60))
    pair = 40 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 18) + 25 * np.exp(-((x - 31) ** 2 + (y - 30) ** 2) / 18)
    pair[10:13, 45:48] = 8.0
    noisy = (pair + np.random.default_rng(4).normal(0, 0.5, pair.shape)).astype(np.float32)
    found = find_footprints(noisy, 4.0, min_contrast=3.0)
    assert found.peaks.x.size == 3
    np.testing.assert_array_equal(found.is_blended, [True, True, False])
    owner = {(y, x): peak for y, x, peak in zip(*found.lit, found.owner, strict=True)}
    assert owner[30, 19] == 0
    assert owner[30, 32] == 1
    assert found.area.sum() == np.count_nonzero(noisy >= 4.0)
    np.testing.assert_array_equal(found.is_detected(), noisy >= 4.0)
    assert find_footprints(noisy, 4.0, min_contrast=100.0).peaks.x.size == 2


def test_no_pixel_above_threshold_gives_empty_footprints() -> None:
    found = find_footprints(np.zeros((30, 30), dtype=np.float32), 5.0)
    assert found.peaks.x.size == found.area.size == found.parent.size == 0


def test_variance_is_split_into_sky_and_poisson_noise_of_the_sources() -> None:
    rng = np.random.default_rng(5)
    y, x = np.indices((200, 200))
    sky = 300.0 + x
    image = rng.poisson(sky + 5e3 * np.exp(-((x - 100) ** 2 + (y - 90) ** 2) / 50)) - sky
    noise = split_variance(
        image.astype(np.float32), (image + sky).astype(np.float32), np.zeros(image.shape, dtype=bool)
    )
    assert noise.slope == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(noise.sky_variance, sky, rtol=0.15)
    flat = split_variance(image.astype(np.float32), np.full((200, 200), 400, np.float32), np.zeros((200, 200), bool))
    assert flat.slope == pytest.approx(0.0, abs=1e-6)


def test_centre_of_a_saturated_star_ignores_its_bleed_trail() -> None:
    y, x = np.indices((80, 80))
    is_saturated = np.hypot(x - 33, y - 41) < 5
    is_saturated[20:75, 32:35] = True
    is_saturated[5, 5] = True
    cores = find_saturated_cores(is_saturated)
    np.testing.assert_allclose([cores.x, cores.y], [[33], [41]], atol=0.6)
    assert cores.radius[0] == pytest.approx(5.0, abs=1.0)


def test_noise_of_subtracted_models_counts_in_the_score() -> None:
    rng = np.random.default_rng(4)
    shape = (60, 70)
    original = rng.gamma(2.0, 300.0, shape).astype(np.float32)
    model = (0.9 * original).astype(np.float32)
    residual, sky = original - model, np.full(shape, 100.0, np.float32)
    is_masked = rng.random(shape) < 0.05
    found = matched_filter(residual, sky, is_masked, KERNEL, subtracted=Subtracted(original, 1.5, 0.02))
    variance = sky + 1.5 * model + (0.02 * model) ** 2
    expected = matched_filter(residual, variance, is_masked, KERNEL)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-3, atol=1e-4)


def test_saturated_regions_that_touch_at_corners_or_bend_back_are_one() -> None:
    is_saturated = np.zeros((40, 40), dtype=bool)
    is_saturated[5:15, 5] = is_saturated[5:15, 9] = is_saturated[15, 5:10] = True
    is_saturated[30, 30] = is_saturated[31, 31] = True
    is_saturated[2, 39] = is_saturated[3, 0] = True
    cores = find_saturated_cores(is_saturated)
    assert cores.x.size == 2
    assert np.count_nonzero(cores.labels == 1) == 25
    assert np.count_nonzero(cores.labels == 2) == 2
