"""Cosmic rays that cross stars are followed under their light once the stars are subtracted."""

import numpy as np
import pytest

from gueststar.algorithms.photometry.psf_fit import measure_point_sources
from gueststar.algorithms.psf.scene import fresh_scene
from gueststar.algorithms.psf.spline import shifted_stamps, spline_psf

SHAPE = (200, 220)
SKY_VARIANCE = 400.0


def gaussian_psf(fwhm):
    half, sampling = 14, 2
    g = np.arange(-half * sampling, half * sampling + 1) / sampling
    stamp = np.exp(-0.5 * (g[:, None] ** 2 + g**2) / (fwhm / 2.3548) ** 2)
    return spline_psf((stamp / stamp.sum() * sampling**2)[None].astype(np.float32), 0, SHAPE, sampling)


def star_field(psf, seed):
    rng = np.random.default_rng(seed)
    gy, gx = np.mgrid[20 : SHAPE[0] - 20 : 40, 20 : SHAPE[1] - 20 : 40]
    x, y = gx.ravel() + rng.uniform(-0.5, 0.5, gx.size), gy.ravel() + rng.uniform(-0.5, 0.5, gx.size)
    flux = np.geomspace(3e4, 4e5, gx.size)[rng.permutation(gx.size)]
    light = np.zeros(SHAPE)
    ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
    stamps = shifted_stamps(psf, x=x, y=y, dx=x - ix, dy=y - iy)
    for stamp, u, v, f in zip(stamps, ix, iy, flux, strict=True):
        light[v - 14 : v + 15, u - 14 : u + 15] += f * stamp
    image = rng.poisson(np.maximum(light, 0.0)) + rng.normal(0.0, np.sqrt(SKY_VARIANCE), SHAPE)
    return image.astype(np.float32), light, x, y, flux


def measure(image, light, psf, known, fwhm):
    variance = (SKY_VARIANCE + light).astype(np.float32)
    nothing = np.zeros(SHAPE, bool)
    return measure_point_sources(fresh_scene(image, variance, known), nothing, psf, fwhm=fwhm, is_struck=known)


@pytest.mark.parametrize("fwhm", [1.7, 2.4, 4.0])
def test_no_pixel_of_a_star_is_taken_for_a_ray_beside_one(fwhm):
    psf = gaussian_psf(fwhm)
    image, light, x, y, _ = star_field(psf, 1)
    known = np.zeros(SHAPE, bool)
    known[np.rint(y).astype(int) + 2, np.rint(x).astype(int) + 1] = True  # as if a ray had ended at every star
    found = measure(image, light, psf, known, fwhm)
    assert found.ray_y.size <= 1


def test_ray_is_followed_over_a_star_and_its_flux_is_right_again():
    fwhm = 2.4
    psf = gaussian_psf(fwhm)
    image, light, x, y, flux = star_field(psf, 2)
    rays, known = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for u, v in zip(np.rint(x[::4]).astype(int), np.rint(y[::4]).astype(int), strict=True):
        rays[v + 2, u - 9 : u + 6] = True
        known[v + 2, u - 9 : u - 3] = True
    image[rays] += 3000.0
    found = measure(image, light, psf, known, fwhm)
    is_found = known.copy()
    is_found[found.ray_y, found.ray_x] = True
    assert is_found[rays].mean() > 0.85
    assert (is_found & ~rays).sum() <= 3
    assert (found.scene.residual[found.ray_y, found.ray_x] > 5.0 * np.sqrt(SKY_VARIANCE)).mean() > 0.9
    distance = np.hypot(found.state.x[:, None] - x, found.state.y[:, None] - y)
    own = distance.argmin(axis=0)
    assert np.median(np.abs(found.state.flux[own] / flux - 1.0)[::4]) < 0.01


def test_ray_is_followed_across_a_pixel_that_it_left_dark():
    fwhm = 2.4
    psf = gaussian_psf(fwhm)
    image, light, x, y, _ = star_field(psf, 3)
    rays, known = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for u, v in zip(np.rint(x[::4]).astype(int), np.rint(y[::4]).astype(int), strict=True):
        rays[v + 3, u - 9 : u + 2] = True
        rays[v + 3, u - 3] = False
        known[v + 3, u - 9 : u - 3] = True
    image[rays] += 2500.0
    found = measure(image, light, psf, known, fwhm)
    is_found = known.copy()
    is_found[found.ray_y, found.ray_x] = True
    assert is_found[rays].mean() > 0.9
    assert (is_found & ~rays).sum() <= 3


def test_rays_are_not_sought_on_diffraction_spikes():
    fwhm = 2.4
    psf = gaussian_psf(fwhm)
    image, light, x, y, _ = star_field(psf, 4)
    spike, known = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for u, v in zip(np.rint(x[::4]).astype(int), np.rint(y[::4]).astype(int), strict=True):
        spike[v + 2, u - 9 : u + 6] = True
        known[v + 2, u - 9 : u - 5] = True
    image[spike] += 1500.0
    variance, nothing = (SKY_VARIANCE + light).astype(np.float32), np.zeros(SHAPE, bool)
    found = measure_point_sources(
        fresh_scene(image, variance, known), nothing, psf, fwhm=fwhm, is_struck=known, is_spike=spike
    )  # fmt: skip
    assert not spike[found.ray_y, found.ray_x].any()
