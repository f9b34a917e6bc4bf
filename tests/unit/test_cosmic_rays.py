"""Cosmic rays against stars, with astroscrappy as the judge of completeness."""

import astroscrappy
import numpy as np
import pytest

from gueststar.algorithms.background.estimate import estimate_background
from gueststar.algorithms.detrend.cosmic_rays import remove_cosmic_rays_in_place
from gueststar.algorithms.detrend.groups import label_groups, pixels_with
from gueststar.algorithms.detrend.interpolate import interpolate_in_place
from gueststar.algorithms.detrend.star_sharpness import ASSUMED, measure_star_sharpness

SHAPE = (400, 420)
READ_NOISE = 8.0


def stars(rng, n, fwhm, brightest=3e5):
    """Pixel-integrated Moffat stars (beta 3.5): image, x, y, flux."""
    image = np.zeros(SHAPE)
    x, y = rng.uniform(5, SHAPE[1] - 6, n), rng.uniform(5, SHAPE[0] - 6, n)
    flux = 10.0 ** rng.uniform(2.5, np.log10(brightest), n)
    alpha = fwhm / 2.0 / np.sqrt(2.0 ** (1.0 / 3.5) - 1.0)
    half = 20
    for x0, y0, f in zip(x, y, flux, strict=True):
        rows = slice(max(round(y0) - half, 0), min(round(y0) + half + 1, SHAPE[0]))
        columns = slice(max(round(x0) - half, 0), min(round(x0) + half + 1, SHAPE[1]))
        v, u = np.mgrid[rows, columns]
        for dv in (-0.33, 0.0, 0.33):
            for du in (-0.33, 0.0, 0.33):
                r2 = (u + du - x0) ** 2 + (v + dv - y0) ** 2
                image[rows, columns] += f / 9.0 * 2.5 / (np.pi * alpha**2) * (1.0 + r2 / alpha**2) ** -3.5
    return image, x, y, flux


def tracks(rng, n):
    """Straight tracks of one to twenty pixels, some hundred electrons each."""
    image = np.zeros(SHAPE)
    for _ in range(n):
        x, y, angle = rng.uniform(10, SHAPE[1] - 10), rng.uniform(10, SHAPE[0] - 10), rng.uniform(0, np.pi)
        length, charge = rng.choice([0.5, 2.0, 6.0, 20.0]), 10.0 ** rng.uniform(2.7, 3.5)
        steps = np.arange(0.0, length, 0.2)
        columns = np.rint(x + np.cos(angle) * steps).astype(int).clip(0, SHAPE[1] - 1)
        rows = np.rint(y + np.sin(angle) * steps).astype(int).clip(0, SHAPE[0] - 1)
        np.add.at(image, (rows, columns), charge * 0.2 * max(1.0, 1.0 / length))
    return image


def exposure(seed, *, fwhm, n_stars=150, n_rays=40, sky=300.0):
    rng = np.random.default_rng(seed)
    light, x, y, flux = stars(rng, n_stars, fwhm)
    rays = tracks(rng, n_rays)
    image = rng.poisson(light + sky) + rng.normal(0.0, READ_NOISE, SHAPE) + rays
    return image.astype(np.float32), light + sky, rays, (x, y, flux)


def clean(image):
    nothing = np.zeros(image.shape, bool)
    sky = estimate_background(image, nothing)
    sharpness = measure_star_sharpness(image, sky.level, sky.rms, nothing)
    cleaned = image.copy()
    rays = remove_cosmic_rays_in_place(cleaned, sky.level, sky.rms, nothing, neighbour_ratio=sharpness.neighbour_ratio)
    mask = np.zeros(image.shape, bool)
    mask[rays.y, rays.x] = True
    return cleaned, mask, rays, sharpness


@pytest.mark.parametrize("fwhm", [1.6, 1.8, 2.5, 4.0])
def test_cores_of_stars_are_left_alone_even_undersampled(fwhm):
    image, _, _, (x, y, flux) = exposure(1, fwhm=fwhm, n_rays=0)
    _, mask, _, _ = clean(image)
    core = mask[np.rint(y[flux > 2000]).astype(int), np.rint(x[flux > 2000]).astype(int)]
    assert not core.any()
    assert mask.sum() <= 2e-4 * mask.size


@pytest.mark.parametrize("fwhm", [1.8, 2.5, 4.0])
def test_rays_are_found_as_well_as_by_astroscrappy(fwhm):
    image, truth, rays, _ = exposure(2, fwhm=fwhm)
    noise = np.sqrt(truth + READ_NOISE**2)
    is_clear = rays > 8.0 * noise
    _, mask, _, _ = clean(image)
    theirs, _ = astroscrappy.detect_cosmics(
        image, sigclip=4.5, sigfrac=0.3, objlim=5.0, gain=1.0, readnoise=READ_NOISE, satlevel=1e9
    )
    touched = rays > 0
    touched |= np.roll(touched, 1, 0) | np.roll(touched, -1, 0) | np.roll(touched, 1, 1) | np.roll(touched, -1, 1)
    assert mask[is_clear].mean() > 0.93
    assert mask[is_clear].mean() > theirs[is_clear].mean() - 0.06
    assert (mask & ~touched).sum() <= max((theirs & ~touched).sum(), 10)


def test_cleaned_pixels_are_near_what_the_sky_would_have_been():
    image, truth, rays, _ = exposure(3, fwhm=2.5, n_stars=20)
    cleaned, mask, _, _ = clean(image)
    is_sky = mask & (rays > 0) & (truth < 305.0)
    assert is_sky.sum() > 50
    assert np.abs(cleaned - truth)[is_sky].mean() < 2.0 * np.sqrt(300.0)
    np.testing.assert_array_equal(cleaned[~mask], image[~mask])


def test_number_of_rays_is_about_the_number_of_hits():
    image, _, _, _ = exposure(4, fwhm=3.0, n_stars=60, n_rays=30)
    _, _, rays, _ = clean(image)
    assert 20 <= rays.n_rays <= 40


def test_white_noise_holds_hardly_any_ray():
    rng = np.random.default_rng(5)
    image = rng.normal(1000.0, 30.0, (800, 800)).astype(np.float32)
    _, mask, _, sharpness = clean(image)
    assert sharpness == ASSUMED
    assert mask.sum() <= 40


def test_dead_pixel_does_not_make_hits_of_its_neighbours():
    rng = np.random.default_rng(6)
    image = rng.normal(1000.0, 30.0, (200, 200)).astype(np.float32)
    image[100, 50:150] = 0.0
    _, mask, _, _ = clean(image)
    assert mask[99:102, 50:150].sum() <= 1


def test_excluded_pixels_are_never_called_rays():
    rng = np.random.default_rng(7)
    image = rng.normal(100.0, 5.0, (100, 100)).astype(np.float32)
    image[40, 40] = 60_000.0
    excluded = np.zeros(image.shape, bool)
    excluded[40, 40] = True
    level, rms = np.full_like(image, 100.0), np.full_like(image, 5.0)
    rays = remove_cosmic_rays_in_place(image, level, rms, excluded, neighbour_ratio=0.5)
    assert not ((rays.y == 40) & (rays.x == 40)).any()
    assert image[40, 40] == 60_000.0


def test_width_of_stars_is_measured_without_a_catalog():
    image, _, _, _ = exposure(8, fwhm=3.0, n_rays=0)
    _, _, _, sharpness = clean(image)
    assert sharpness.fwhm == pytest.approx(3.0, rel=0.08)
    assert sharpness.n_stars > 20


def test_tracks_are_found_where_stars_are_as_sharp_as_rays():
    image, truth, rays, (x, y, flux) = exposure(10, fwhm=1.3, n_rays=60)
    x, y = x[flux > 2000], y[flux > 2000]
    is_clear = rays > 12.0 * np.sqrt(truth + READ_NOISE**2)
    _, mask, _, _ = clean(image)
    assert mask[is_clear].mean() > 0.6
    core = (
        mask[np.rint(y).astype(int), np.rint(x).astype(int)]
        & (rays == 0)[np.rint(y).astype(int), np.rint(x).astype(int)]
    )
    assert core.sum() == 0


def test_more_rays_than_stars_do_not_pass_for_the_width_of_stars():
    image, _, _, _ = exposure(9, fwhm=4.0, n_stars=60, n_rays=200)
    _, _, _, sharpness = clean(image)
    assert sharpness.fwhm == pytest.approx(4.0, rel=0.1)
    assert sharpness.neighbour_ratio > 0.75


def test_interpolation_of_a_plane_is_exact_and_says_what_it_could_not_do():
    y, x = np.mgrid[:30, :30]
    image = (2.0 * x + 3.0 * y).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    bad[10, 10] = True
    bad[16:28, 16:28] = True
    rows, columns = np.array([10, 22]), np.array([10, 22])
    image[rows, columns] = -99.0
    done = interpolate_in_place(image, bad, y=rows, x=columns)
    assert done.tolist() == [True, False]
    assert image[10, 10] == pytest.approx(50.0, abs=1e-3)
    assert image[22, 22] == -99.0


def test_groups_touch_by_corners_and_do_not_wrap_around():
    mask = np.zeros((5, 6), np.int32)
    for y, x in ((0, 5), (1, 0), (2, 2), (3, 3), (4, 2)):
        mask[y, x] = 4
    y, x = pixels_with(mask, 4)
    labels = label_groups(y, x, shape=(5, 6))
    assert labels.max() + 1 == 3
    assert len({labels[i] for i in range(5) if y[i] >= 2}) == 1
