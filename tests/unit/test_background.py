"""The sky under stars and galaxies."""

import numpy as np
import pytest
import sep
from scipy.ndimage import gaussian_filter

from gueststar.algorithms.background.estimate import BackgroundConfig, estimate_background
from gueststar.algorithms.background.mesh import bin_pixels, expand_cells

SHAPE = (512, 640)


def noisy(rng, truth):
    return rng.poisson(truth).astype(np.float32)


def with_stars(rng, truth, *, n, fwhm=2.5, brightest=2e5, faintest=100.0):
    """Add Moffat stars (beta 3) with a power law of fluxes."""
    ny, nx = truth.shape
    image = truth.copy()
    alpha = fwhm / 2.0 / np.sqrt(2.0 ** (1.0 / 3.0) - 1.0)
    flux = faintest * (1.0 - rng.random(n) * (1.0 - (brightest / faintest) ** -0.7)) ** (-1.0 / 0.7)
    for x, y, f in zip(rng.uniform(0, nx, n), rng.uniform(0, ny, n), flux, strict=True):
        half = 30
        rows = slice(max(int(y) - half, 0), min(int(y) + half + 1, ny))
        columns = slice(max(int(x) - half, 0), min(int(x) + half + 1, nx))
        v, u = np.mgrid[rows, columns]
        image[rows, columns] += f * 2.0 / (np.pi * alpha**2) * (1.0 + ((u - x) ** 2 + (v - y) ** 2) / alpha**2) ** -3.0
    return image


def no_mask(image):
    return np.zeros(image.shape, bool)


def test_plain_noise_is_unbiased_and_its_rms_is_right():
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 30.0, SHAPE).astype(np.float32)
    sky = estimate_background(image, no_mask(image))
    assert abs(sky.level.mean() - 1000.0) < 0.01 * 30.0
    assert np.abs(sky.level - 1000.0).max() < 0.15 * 30.0
    assert sky.rms.mean() == pytest.approx(30.0, rel=0.01)
    assert sky.level.dtype == np.float32
    assert sky.level.shape == image.shape


def test_gradient_is_followed_to_the_corners():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    truth = 1000.0 + 0.3 * x - 0.2 * y + 3e-4 * x * y
    sky = estimate_background(noisy(rng, truth), np.zeros(SHAPE, bool))
    assert np.abs(sky.level - truth).max() < 0.25 * np.sqrt(1000.0)


def test_constant_added_is_constant_found_and_scale_scales():
    rng = np.random.default_rng(3)
    image = noisy(rng, with_stars(rng, np.full(SHAPE, 400.0), n=300))
    first = estimate_background(image, no_mask(image))
    second = estimate_background(image + np.float32(5000.0), no_mask(image))
    third = estimate_background(image * np.float32(3.0), no_mask(image))
    np.testing.assert_allclose(second.level, first.level + 5000.0, atol=0.3)
    np.testing.assert_allclose(third.level, 3.0 * first.level, atol=0.6)


@pytest.mark.parametrize(("n", "tolerance"), [(300, 0.03), (3000, 0.08)])
def test_stars_bias_the_sky_less_than_sep(n, tolerance):
    rng = np.random.default_rng(4)
    image = noisy(rng, with_stars(rng, np.full(SHAPE, 1000.0), n=n))
    sigma = np.sqrt(1000.0)
    bias = float(np.mean(estimate_background(image, no_mask(image)).level)) - 1000.0
    bias_of_sep = float(np.mean(sep.Background(image, bw=128, bh=128).back())) - 1000.0
    assert abs(bias) < tolerance * sigma
    assert abs(bias) < abs(bias_of_sep)


def test_galaxy_smaller_than_a_mesh_is_not_subtracted():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(x - 300.0, (y - 250.0) / 0.6)
    truth = np.full(SHAPE, 800.0)
    galaxy = 2000.0 * np.exp(-radius / 9.0)
    sky = estimate_background(noisy(rng, truth + galaxy), np.zeros(SHAPE, bool))
    assert np.abs(sky.level - truth)[220:280, 270:330].max() < 0.2 * np.sqrt(800.0)


def test_masked_and_missing_pixels_do_not_count():
    rng = np.random.default_rng(6)
    image = rng.normal(100.0, 5.0, SHAPE).astype(np.float32)
    mask = no_mask(image)
    image[100:300, 100:400] = 1e6
    mask[100:300, 100:400] = True
    image[50, 60:90] = np.nan
    sky = estimate_background(image, mask)
    assert np.isfinite(sky.level).all()
    assert np.abs(sky.level - 100.0).max() < 2.0


@pytest.mark.parametrize("shape", [(64, 50), (129, 700), (33, 257), (7, 9)])
def test_odd_and_small_shapes_work(shape):
    rng = np.random.default_rng(7)
    image = rng.normal(50.0, 2.0, shape).astype(np.float32)
    sky = estimate_background(image, no_mask(image), box=64)
    assert sky.level.shape == shape
    assert sky.level.mean() == pytest.approx(50.0, abs=1.0)


def test_constant_image_has_that_level():
    image = np.full((200, 200), 12.5, np.float32)
    sky = estimate_background(image, no_mask(image))
    np.testing.assert_allclose(sky.level, 12.5, rtol=1e-5)
    assert (sky.rms > 0).all()


def test_image_without_usable_pixels_is_refused():
    with pytest.raises(ValueError, match="no usable pixel"):
        estimate_background(np.zeros((50, 50), np.float32), np.ones((50, 50), bool))


def test_bins_are_plain_means_and_variances():
    rng = np.random.default_rng(8)
    image = rng.normal(1e4, 3.0, (10, 13)).astype(np.float32)
    mask = rng.random(image.shape) < 0.2
    mean, variance, number = bin_pixels(image, mask, 4)
    part = image[4:8, 8:12][~mask[4:8, 8:12]].astype(float)
    assert number[1, 2] == part.size
    assert mean[1, 2] == pytest.approx(part.mean(), abs=1e-2)
    assert variance[1, 2] == pytest.approx(part.var(ddof=1), rel=1e-2)
    assert mean.shape == (3, 4)


def test_expanding_a_plane_of_cells_gives_the_plane():
    cells = np.add.outer(np.arange(5.0), 2.0 * np.arange(7.0)).astype(np.float32)
    image = expand_cells(cells, 4, 18, 26)
    y, x = np.mgrid[:18, :26]
    np.testing.assert_allclose(image, (y + 0.5) / 4 - 0.5 + 2.0 * ((x + 0.5) / 4 - 0.5), atol=1e-4)


def test_more_iterations_change_little():
    rng = np.random.default_rng(9)
    image = noisy(rng, with_stars(rng, np.full(SHAPE, 1000.0), n=1000))
    short = estimate_background(image, no_mask(image), config=BackgroundConfig(iterations=4))
    long = estimate_background(image, no_mask(image), config=BackgroundConfig(iterations=8))
    assert np.abs(short.level - long.level).mean() < 0.05 * np.sqrt(1000.0)


def test_error_of_the_level_is_that_of_noise_where_there_is_nothing_else():
    errors, off = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image = rng.normal(900.0, 30.0, (768, 768)).astype(np.float32)
        found = estimate_background(image, np.zeros(image.shape, bool), box=96)
        errors.append(np.median(found.error_map()))
        off.append(found.level[96:-96, 96:-96] - 900.0)
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(np.mean(errors), rel=0.35)


def test_smooth_nebulosity_is_sky_and_its_error_is_told():
    rng = np.random.default_rng(3)
    side = 1024
    cloud = gaussian_filter(rng.normal(size=(side, side)), 130.0, mode="wrap")
    sky = 900.0 + 60.0 * cloud / cloud.std()
    image = rng.normal(sky, 30.0).astype(np.float32)
    found = estimate_background(image, np.zeros(image.shape, bool), box=96)
    off = found.level - sky
    assert np.std(off) < 0.15 * sky.std()
    assert np.std(off / found.error_map()) < 3.0
    assert found.free_fraction > 0.9
