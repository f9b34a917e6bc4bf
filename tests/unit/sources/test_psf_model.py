import numpy as np
import pytest
from scipy.special import erf

from gueststar.algorithms.psf.groups import group_sources
from gueststar.algorithms.psf.profile import drawn_on_grid, fit_moffat, mean_profile, moffat_of
from gueststar.algorithms.psf.select import spread_evenly
from gueststar.algorithms.psf.spline import (
    add_change,
    make_scratch,
    shifted_stamps,
    spline_psf,
    spline_samples,
    with_tiles,
)
from gueststar.algorithms.stats.mode import half_sample_mode
from gueststar.core.errors import DataError
from gueststar.model.image import MaskedImage
from gueststar.pipelines.science.psf import MeasurePsf


def gaussian_stamp(side: int, sigma: float, dx: float, dy: float) -> np.ndarray:
    g = np.arange(side) - side // 2
    line = [(erf((g - d + 0.5) / np.sqrt(2) / sigma) - erf((g - d - 0.5) / np.sqrt(2) / sigma)) / 2 for d in (dx, dy)]
    return np.outer(line[1], line[0])


@pytest.mark.parametrize(("sigma", "oversampling", "tolerance"), [(0.6, 3, 2e-3), (0.9, 2, 2e-3), (2.0, 1, 2e-3)])
def test_shifted_stamp_is_the_psf_integrated_over_the_shifted_pixels(
    gaussian_psf, sigma, oversampling, tolerance
) -> None:
    psf = gaussian_psf(sigma, (100, 100), oversampling=oversampling, radius=12)
    for dx, dy in ((0.0, 0.0), (0.31, -0.47), (-0.5, 0.5), (2.2, -1.4)):
        stamp = psf.stamp(x=3.0, y=90.0, dx=dx, dy=dy)
        expected = gaussian_stamp(25, sigma, dx, dy)
        assert np.abs(stamp - expected).max() < tolerance * expected.max()


def test_stamps_sum_to_one_and_keep_their_centre_when_cropped_or_padded(gaussian_psf) -> None:
    psf = gaussian_psf(1.0, (50, 50), radius=10)
    stamps = psf.stamps(x=np.array([0.0, 49.0]), y=np.array([49.0, 0.0]))
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1.0, rtol=1e-6)
    small, large = psf.stamp(x=1, y=1, side=7), psf.stamp(x=1, y=1, side=31)
    np.testing.assert_array_equal(small, large[12:19, 12:19])
    assert psf.central_fwhm == pytest.approx(2.3548 * np.sqrt(1.0 + 1 / 12), rel=0.01)


def test_spline_passes_through_the_samples() -> None:
    samples = np.random.default_rng(1).normal(size=(3, 21, 21)).astype(np.float32)
    np.testing.assert_allclose(spline_samples(spline_psf(samples, 1, (10, 10), 2)), samples, atol=2e-5)


def test_tiles_hold_the_psf_of_their_middle(gaussian_psf) -> None:
    rng = np.random.default_rng(2)
    samples = np.concatenate([gaussian_psf(1.0, (640, 640)).coefficients, 1e-3 * rng.normal(size=(2, 41, 41))])
    psf = with_tiles(spline_psf(samples.astype(np.float32), 1, (640, 640), 2), tile=64)
    assert psf.tiles.shape[:2] == (10, 10)
    u, v = 2 * (3.5 * 64 - 0.5) / 639 - 1, 2 * (7.5 * 64 - 0.5) / 639 - 1
    np.testing.assert_allclose(psf.tiles[7, 3], np.tensordot([1.0, u, v], psf.coefficients, axes=1), atol=1e-6)


def test_groups_are_linked_by_distance_and_large_ones_are_cut() -> None:
    x = np.array([0.0, 1.0, 2.0, 50.0, 51.0, 90.0])
    groups = group_sources(x=x, y=np.zeros(6), flux=np.array([1.0, 2, 3, 900, 5, 40]), link=1.5, max_size=8)
    found = [set(groups.members[a:b]) for a, b in zip(groups.starts[:-1], groups.starts[1:], strict=True)]
    assert found == [{0, 1, 2}, {3, 4}, {5}]
    assert groups.members[groups.starts[1]] == 3
    chain = np.cumsum(np.tile([1.0, 1.2], 30))
    cut = group_sources(x=chain, y=np.zeros(60), flux=np.ones(60), link=1.5, max_size=4)
    assert np.diff(cut.starts).max() <= 4
    assert sorted(cut.members) == list(range(60))


def test_moffat_profile_is_recovered_from_noisy_rings() -> None:
    truth = moffat_of(3.0, 2.8)
    rng = np.random.default_rng(3)
    r = rng.uniform(0, 15, 20000)
    value = truth.at(r) + rng.normal(0, 0.003, r.size)
    rings = mean_profile(r, value, np.full(r.size, 0.003**-2), fwhm=2.5, reach=15.0)
    found = fit_moffat(rings, fwhm=2.5)
    assert found.fwhm == pytest.approx(3.0, rel=0.02)
    assert found.beta == pytest.approx(2.8, rel=0.1)
    drawn = drawn_on_grid(rings.radius, rings.value, found, side=61, oversampling=2)
    assert drawn[::2, ::2].sum() == pytest.approx(1.0, rel=0.01)


def test_mode_is_that_of_the_clump_not_of_the_tail() -> None:
    rng = np.random.default_rng(4)
    sample = np.concatenate([rng.normal(1.0, 0.02, 60), rng.uniform(1.0, 3.0, 100), rng.uniform(0.3, 1, 20)])
    assert half_sample_mode(sample) == pytest.approx(1.0, abs=0.03)


def test_stars_are_taken_from_all_parts_of_the_image() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.uniform(0, 100, 900), rng.uniform(100, 1000, 100)])
    y = rng.uniform(0, 1000, 1000)
    kept = spread_evenly(x, y, shape=(1000, 1000), cells=4, limit=200)
    assert kept.size == 200
    assert np.count_nonzero(x[kept] > 250) > 70


def test_varying_psf_is_recovered_to_a_thousandth_of_its_size(star_field) -> None:
    field = star_field(250, shape=(700, 700), spread=0.2, log_flux=(4.0, 5.5), min_distance=12.0)
    result = MeasurePsf().run(field.pixels, expected_fwhm=3.5)
    assert result.metrics["order"] >= 2
    for x, width in ((60.0, 1.1 * (1 + 0.2 * (60 / 700 - 0.5))), (640.0, 1.1 * (1 + 0.2 * (640 / 700 - 0.5)))):
        expected = 2.3548 * np.sqrt(width**2 + 1 / 12)
        assert result.psf.fwhm(x=x, y=350.0) == pytest.approx(expected, rel=0.01)
    size = result.metrics["size_difference"]
    assert abs(size["mean"]) < max(1e-3, 3 * size["mean_err"])
    stamp = result.psf.stamp(x=350.0, y=350.0)
    g = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    assert abs((stamp.sum(axis=0) * g).sum()) < 0.02
    assert stamp.min() > -2e-4


def test_undersampled_psf_is_recovered_on_a_finer_grid(star_field) -> None:
    field = star_field(120, sigma=0.6, shape=(500, 500), log_flux=(4.0, 5.3), min_distance=10.0)
    result = MeasurePsf().run(field.pixels, expected_fwhm=2.0)
    assert result.psf.oversampling >= 2
    for dx, dy in ((0.0, 0.0), (0.5, 0.25)):
        found = result.psf.stamp(x=250.0, y=250.0, dx=dx, dy=dy, side=7)
        expected = gaussian_stamp(7, 0.6, dx, dy)
        assert np.abs(found - expected).max() < 0.02 * expected.max()


def test_galaxies_cosmic_rays_and_saturated_stars_are_not_psf_stars(star_field, add_gaussian) -> None:
    field = star_field(60, shape=(600, 600), log_flux=(4.0, 6.2), min_distance=25.0, saturation=30000.0)
    rng = np.random.default_rng(6)
    image = field.pixels.image.astype(np.float64)
    galaxies = rng.uniform(20, 580, (25, 2))
    for x, y in galaxies:
        add_gaussian(image, x, y, 1e5, 2.5, 1.8)
    rays = rng.integers(20, 580, (25, 2))
    image[rays[:, 1], rays[:, 0]] += 5000.0
    pixels = MaskedImage(image, field.pixels.variance + np.abs(image - field.pixels.image), field.pixels.mask)
    stars = MeasurePsf().run(pixels, expected_fwhm=2.5).stars
    distance = np.hypot(stars["x"][:, None] - field.x, stars["y"][:, None] - field.y)
    assert np.all(distance.min(axis=1) < 1.0)
    peak = field.flux / (2 * np.pi * 1.1**2)
    assert not np.any(peak[distance.argmin(axis=1)] > 40000.0)


@pytest.mark.parametrize(("n", "kind"), [(1, "profile"), (2, "profile"), (3, "pixel"), (6, "pixel"), (10, "pixel")])
def test_few_stars_give_a_constant_psf(star_field, n, kind) -> None:
    field = star_field(n, shape=(200, 200), log_flux=(4.5, 5.0), min_distance=20.0)
    result = MeasurePsf().run(field.pixels, expected_fwhm=3.5)
    assert (result.metrics["kind"], result.metrics["order"]) == (kind, 0)
    assert result.psf.central_fwhm == pytest.approx(2.3548 * np.sqrt(1.1**2 + 1 / 12), rel=0.06)


def test_an_image_without_stars_is_refused_with_figures(star_field) -> None:
    with pytest.raises(DataError, match="no star for the PSF: 0 detections"):
        MeasurePsf().run(star_field(0).pixels, expected_fwhm=2.5)


def test_light_and_centre_of_a_star_do_not_depend_on_its_place_within_the_pixel(star_field) -> None:
    """With a PSF that varies, in the corners too, where stars of each phase are few."""
    field = star_field(90, shape=(400, 400), sigma=0.75, spread=0.15, min_distance=12.0)
    psf = MeasurePsf().run(field.pixels, expected_fwhm=1.8).psf
    assert psf.order >= 1
    assert psf.oversampling == 2
    phases = np.array([0.0, 0.25, 0.5])
    for x, y in ((10.0, 10.0), (390.0, 15.0), (200.0, 200.0)):
        at = {"x": np.full(3, x), "y": np.full(3, y), "dx": phases, "dy": np.zeros(3)}
        stamps = shifted_stamps(psf.spline, **at).astype(float)
        g = np.arange(stamps.shape[1]) - stamps.shape[1] // 2
        total = stamps.sum(axis=(1, 2))
        centre = (stamps.sum(axis=1) @ g) / total - phases
        np.testing.assert_allclose(total / total[0], 1.0, atol=2e-3)
        np.testing.assert_allclose(centre - centre[0], 0.0, atol=2e-3)


@pytest.mark.parametrize("oversampling", [1, 2, 3])
@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("pixel", [(40, 30), (2, 57)])
def test_a_star_moved_within_its_pixel_leaves_what_taking_it_away_and_putting_it_back_leaves(
    gaussian_psf, oversampling: int, is_exact: bool, pixel: tuple[int, int]
) -> None:
    psf = with_tiles(gaussian_psf(1.3, (60, 80), oversampling=oversampling).spline)
    scratch, radius = make_scratch(psf.coefficients.shape[0], psf.half, psf.oversampling), 7
    image = np.random.default_rng(8).normal(0.0, 1.0, (60, 80)).astype(np.float32)
    before, (ix, iy) = image.copy(), pixel
    old, new = (0.49, -0.31), (-0.47, 0.44)
    add_change(
        psf, ix + old[0], iy + old[1], np.float32(900.0), ix + new[0], iy + new[1], np.float32(1000.0),
        ix, iy, radius, is_exact, scratch, image,
    )  # fmt: skip
    dx, dy = np.array([old[0], new[0]]), np.array([old[1], new[1]])
    stamps = shifted_stamps(psf, x=np.array([ix, ix]), y=np.array([iy, iy]), dx=dx, dy=dy, radius=radius)
    wide = np.zeros((60 + 2 * radius, 80 + 2 * radius))
    wide[iy : iy + 2 * radius + 1, ix : ix + 2 * radius + 1] = 900.0 * stamps[0] - 1000.0 * stamps[1]
    np.testing.assert_allclose(image - before, wide[radius:-radius, radius:-radius], atol=2e-4)


def test_groups_of_sources_that_have_no_place_are_refused() -> None:
    nowhere = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match="finite"):
        group_sources(x=nowhere, y=np.zeros(2), flux=np.ones(2), link=3.0, max_size=8)
