"""Stars broadened by charge that was moved step by step come back to their size; nothing else changes."""

import numpy as np
import pytest

from gueststar.algorithms.response.brighter_fatter import (
    BrighterFatterConfig,
    correct_brighter_fatter_in_place,
    make_kernel,
)
from gueststar.algorithms.response.photon_transfer import AreaChange
from gueststar.simulation.charge import area_changes, collect_with_repulsion

STRENGTH, SKY = 2e-6, 500.0


@pytest.fixture
def rng():
    return np.random.default_rng(6)


@pytest.fixture(scope="module")
def kernel():
    truth = area_changes(STRENGTH, 6)
    return make_kernel(AreaChange(truth, np.full(truth.shape, 1e-8)))


def star(flux, size=41):
    y, x = np.mgrid[:size, :size] - size // 2
    sigma = 3.0 / 2.355
    light = flux * np.exp(-((x - 0.2) ** 2 + (y + 0.3) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2) + SKY
    return light.astype(np.float32)


def width(image):
    """Return the squared size within a Gaussian of 2 pixels."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    light = np.exp(-(x**2 + y**2) / 8.0) * (image - SKY)
    x0, y0 = (light * x).sum() / light.sum(), (light * y).sum() / light.sum()
    return (light * ((x - x0) ** 2 + (y - y0) ** 2)).sum() / light.sum()


def collected(rng, light, n=24):
    return np.mean([collect_with_repulsion(light, STRENGTH, rng) for _ in range(n)], axis=0).astype(np.float32)


def test_a_bright_star_gets_back_its_size(rng, kernel):
    light = star(1e6)
    image = collected(rng, light)
    broadening = width(image) / width(light) - 1.0
    before = image.sum(dtype=np.float64)
    correct_brighter_fatter_in_place(image, kernel)
    assert broadening > 0.015
    assert abs(width(image) / width(light) - 1.0) < 0.15 * broadening
    assert image.sum(dtype=np.float64) == pytest.approx(before, rel=1e-7)


def test_quiet_parts_of_an_image_are_not_touched_and_no_charge_is_lost_at_their_borders(rng, kernel):
    image = rng.normal(SKY, 20.0, (200, 230)).astype(np.float32)
    image[60:101, 60:101] += star(1e6) - np.float32(SKY)
    corrected = image.copy()
    largest = correct_brighter_fatter_in_place(corrected, kernel)
    assert largest > 100.0
    assert np.array_equal(corrected[160:, 160:], image[160:, 160:])
    assert corrected.sum(dtype=np.float64) == pytest.approx(image.sum(dtype=np.float64), rel=1e-7)
    everywhere = image.copy()
    correct_brighter_fatter_in_place(everywhere, kernel, config=BrighterFatterConfig(min_change=0.0))
    np.testing.assert_allclose(corrected, everywhere, atol=0.5)


def test_even_light_stays_as_it_is(kernel):
    image = np.full((96, 96), 40_000.0, np.float32)
    correct_brighter_fatter_in_place(image, kernel, config=BrighterFatterConfig(min_change=0.0))
    np.testing.assert_allclose(image[10:-10, 10:-10], 40_000.0, rtol=1e-5)


def test_the_kernels_laplacian_is_the_area_change_and_sums_to_nothing(kernel):
    laplacian = kernel[2:, 1:-1] + kernel[:-2, 1:-1] + kernel[1:-1, 2:] + kernel[1:-1, :-2] - 4.0 * kernel[1:-1, 1:-1]
    centre = laplacian.shape[0] // 2
    assert laplacian[centre, centre] == pytest.approx(-STRENGTH, rel=0.05)
    assert laplacian[centre, centre + 1] == pytest.approx(area_changes(STRENGTH, 1)[0, 1], rel=0.1)


def test_without_a_significant_effect_there_is_no_kernel():
    with pytest.raises(ValueError, match="not significant"):
        make_kernel(AreaChange(np.array([[-1e-7, 1e-8], [1e-8, 0.0]]), np.full((2, 2), 1e-7)))


def test_pixels_without_a_value_stay_and_do_not_spread(kernel):
    image = star(1e6)
    image[5, 5] = np.nan
    correct_brighter_fatter_in_place(image, kernel)
    assert np.isnan(image[5, 5])
    assert np.isfinite(image).sum() == image.size - 1
