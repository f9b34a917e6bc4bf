import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from gueststar.algorithms.psf.evaluate import evaluate_stamp, moved_stamps
from gueststar.algorithms.warp.fill import fill_masked
from gueststar.algorithms.warp.lanczos import warp_pixels
from gueststar.algorithms.warp.position_map import build_position_map, map_jacobians, map_positions
from gueststar.core.bits import MaskPlane
from gueststar.pipelines.difference._registration import sky_transform
from gueststar.pipelines.difference._warped_psf import warp_psf


def turning(angle_deg, *, scale=1.0, parity=1, centre=(150.0, 150.0)):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))

    def transform(x, y):
        u, v = parity * (np.asarray(x) - centre[0]), np.asarray(y) - centre[1]
        return centre[0] + scale * (c * u - s * v), centre[1] + scale * (s * u + c * v)

    return transform


def planes(image, variance=1.0):
    return image.astype(np.float32), np.full(image.shape, variance, np.float32), np.zeros(image.shape, np.int32)


def gaussian(shape, x, y, flux, sigma):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2))


def lanczos_weights(phase):
    """The six weights for a place ``phase`` after the third pixel."""
    t = np.arange(-2, 4).reshape(6, *np.ndim(phase) * (1,)) - phase
    weights = np.sinc(t) * np.sinc(t / 3)
    return weights / weights.sum(axis=0)


def test_position_map_follows_strong_distortion_to_a_thousandth_of_a_pixel() -> None:
    def bent(x, y):
        r2 = ((x - 500) / 500) ** 2 + ((y - 400) / 500) ** 2
        return x + 30 * (x - 500) / 500 * r2, y + 30 * (y - 400) / 500 * r2 + 5 * np.sin(x / 150)

    built = build_position_map(bent, (801, 1001))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1000, 500), rng.uniform(0, 800, 500)
    np.testing.assert_allclose(map_positions(built, x=x, y=y), bent(x, y), atol=1e-3)
    h = 1e-3
    slope = (bent(x + h, y)[0] - bent(x - h, y)[0]) / (2 * h)
    np.testing.assert_allclose(map_jacobians(built, x=x, y=y)[:, 0, 0], slope, atol=1e-3)


@pytest.mark.parametrize(("angle", "scale", "parity"), [(0.3, 1.0, 1), (180.0, 1.0, 1), (37.0, 0.8, -1), (5.0, 1.4, 1)])
def test_flux_and_place_of_a_star_survive_any_warp(angle: float, scale: float, parity: int) -> None:
    source = gaussian((300, 300), 160.3, 141.8, 1e5, 1.7)
    transform = turning(angle, scale=scale, parity=parity)
    warped = warp_pixels(*planes(source), build_position_map(transform, (300, 300))).image.astype(np.float64)
    y, x = np.mgrid[0:300, 0:300]
    total = warped.sum()
    assert abs(total / 1e5 - 1) < 2e-3
    back = transform((warped * x).sum() / total, (warped * y).sum() / total)
    assert np.hypot(back[0] - 160.3, back[1] - 141.8) < 0.015


def test_whole_pixel_shift_copies_pixels_and_part_of_the_rows_is_part_of_the_whole() -> None:
    image = np.random.default_rng(2).normal(size=(80, 90)).astype(np.float32)
    built = build_position_map(lambda x, y: (x + 7.0, y + 3.0), (60, 70))
    warped = warp_pixels(*planes(image), built)
    np.testing.assert_allclose(warped.image, image[3:63, 7:77], atol=1e-5)
    part = warp_pixels(*planes(image), built, rows=(20, 41))
    np.testing.assert_array_equal(part.image, warped.image[20:41])


def test_warp_agrees_with_a_fifth_order_spline_on_a_smooth_image() -> None:
    image = sum(gaussian((200, 200), x, y, 1e4, 2.2) for x, y in ((60, 70), (120.4, 90.2), (100, 150.7)))
    transform = turning(12.0, centre=(100.0, 100.0))
    warped = warp_pixels(*planes(image), build_position_map(transform, (200, 200)))
    y, x = np.mgrid[0:200, 0:200].astype(float)
    sx, sy = transform(x, y)
    inside = warped.mask == 0
    assert np.abs(warped.image - map_coordinates(image, [sy, sx], order=5))[inside].max() < 5e-3 * image.max()


def test_variance_is_that_of_sums_and_single_pixels_scatter_less_by_the_recorded_factor() -> None:
    noise = np.random.default_rng(3).normal(0, 2.0, (700, 700))
    built = build_position_map(turning(3.0, centre=(350.0, 350.0)), (700, 700))
    warped = warp_pixels(*planes(noise, 4.0), built)
    inner = np.s_[60:640, 60:640]
    assert (warped.mask[inner] == 0).all()
    pixels = warped.image[inner].astype(np.float64)
    sums = pixels.reshape(58, 10, 58, 10).sum(axis=(1, 3))
    assert sums.var() / 100 == pytest.approx(warped.variance[inner].mean(), rel=0.07)
    assert warped.variance[inner].mean() / pixels.var() == pytest.approx(warped.correlated_noise_factor, rel=0.05)


def test_masked_pixels_stay_near_their_place_and_what_the_source_misses_is_no_data() -> None:
    image, variance, mask = planes(np.full((100, 100), 5.0))
    image[50, 50], mask[50, 50] = 1e6, int(MaskPlane.COSMIC_RAY)
    image[20, 20] = np.nan
    warped = warp_pixels(image, variance, mask, build_position_map(lambda x, y: (x + 0.4, y - 0.3), (100, 120)))
    hit = (warped.mask & int(MaskPlane.COSMIC_RAY)) != 0
    assert 4 <= hit.sum() <= 16
    assert np.all(np.hypot(*(np.argwhere(hit) - [50.3, 49.6]).T) < 3.5)
    assert warped.mask[20, 20] & int(MaskPlane.NO_DATA)
    clear = (warped.mask & int(MaskPlane.NO_DATA)) == 0
    np.testing.assert_allclose(warped.image[clear], 5.0, rtol=1e-4)
    assert not clear[:, 101:].any()
    assert np.all(warped.variance[~clear] >= 0)
    assert np.all(warped.variance[clear] > 0)


def test_a_saturated_core_does_not_ring() -> None:
    image, variance, mask = planes(np.zeros((60, 60)))
    image[28:33, 28:33], mask[28:33, 28:33] = 6e4, int(MaskPlane.SATURATED)
    warped = warp_pixels(image, variance, mask, build_position_map(lambda x, y: (x + 0.5, y + 0.5), (60, 60)))
    assert warped.image.min() >= 0.0


def test_each_pixel_is_the_sum_of_six_by_six_weighted_ones_up_to_the_last_column() -> None:
    image = np.random.default_rng(8).normal(100.0, 10.0, (40, 45)).astype(np.float32)
    shift_x, shift_y = 0.37, 0.61
    at = build_position_map(lambda x, y: (x + shift_x, y + shift_y), (40, 45))
    warped = warp_pixels(image, np.ones_like(image), np.zeros(image.shape, np.int32), at)
    wx, wy = lanczos_weights(shift_x), lanczos_weights(shift_y)
    for y, x in ((2, 2), (20, 30), (36, 41), (36, 38), (2, 41)):  # (36, 41): the last place where the kernel fits
        expected = wy @ image[y - 2 : y + 4, x - 2 : x + 4] @ wx
        np.testing.assert_allclose(warped.image[y, x], expected, rtol=5e-6)
    assert (warped.mask[:, 42:] & int(MaskPlane.NO_DATA)).all()


@pytest.mark.parametrize(
    ("angle", "parity"), [(0.0, 1), (0.3, 1), (-1.2, 1), (1.5, 1), (180.6, 1), (0.4, -1), (89.0, 1)]
)
def test_rows_made_at_once_and_pixel_by_pixel_take_the_image_about_the_very_position(angle: float, parity: int) -> None:
    stars = np.random.default_rng(11).uniform(20, 280, (60, 2))
    image = sum(gaussian((300, 300), x, y, 1e4, 1.7) for x, y in stars)
    transform = turning(angle, scale=1.003, parity=parity)
    warped = warp_pixels(*planes(image), build_position_map(transform, (300, 300)))
    inside = warped.mask == 0
    assert inside.mean() > 0.8
    y, x = np.nonzero(inside)
    sx, sy = transform(x.astype(float), y.astype(float))
    ix, iy = sx.astype(int), sy.astype(int)
    wx, wy = lanczos_weights(sx - ix), lanczos_weights(sy - iy)
    expected = sum(wy[b] * wx[a] * image[iy + b - 2, ix + a - 2] for b in range(6) for a in range(6))
    assert np.abs(warped.image[inside] - 1.003**2 * expected).max() < 4e-4 * image.max()


def test_variance_between_pixels_is_never_below_zero() -> None:
    image, variance, mask = planes(np.zeros((60, 200)))
    variance[::2] = 0.0
    transform = turning(1.0, centre=(100.0, 30.0))
    warped = warp_pixels(image, variance, mask, build_position_map(transform, (60, 200)))
    assert warped.variance.min() >= 0.0


def test_stamps_moved_together_are_those_moved_one_by_one() -> None:
    rng = np.random.default_rng(9)
    y, x = np.mgrid[-7:8, -7:8]
    stamps = np.exp(-0.5 * (x**2 + y**2) / rng.uniform(1.0, 6.0, (5, 1, 1))).astype(np.float32)
    shifts = ((0.13, 0.37), (0.63, -0.13), (-0.87, 0.87), (0.0, 0.0))
    together = moved_stamps(stamps, shifts)
    for k, stamp in enumerate(stamps):
        for s, (dx, dy) in enumerate(shifts):
            alone = evaluate_stamp(stamp[None], 0, (1, 1), 1, x=0.0, y=0.0, dx=dx, dy=dy)
            np.testing.assert_allclose(together[k, s], alone, atol=1e-6 * stamp.max())


def test_coarser_pixels_average_and_do_not_alias() -> None:
    stripes = np.tile([0.0, 2.0], (300, 150))
    built = build_position_map(lambda x, y: (3.0 * x, 3.0 * y), (100, 100))
    warped = warp_pixels(*planes(stripes), built)
    inner = warped.image[10:-10, 10:-10]
    np.testing.assert_allclose(inner, 9.0, rtol=0.02)


def test_warped_psf_is_what_warped_stars_look_like(sky) -> None:
    science = sky.image(fwhm=2.5)
    for rotation, parity, scale in ((90.0, 1, 1.0), (20.0, -1, 1.0), (0.0, 1, 0.8)):
        other = sky.image(shape=(420, 420), fwhm=2.5, rotation_deg=rotation, parity=parity, scale_arcsec=scale, seed=5)
        built = build_position_map(sky_transform(science.wcs, other.wcs), science.shape)
        psf = warp_psf(other.psf, built)
        warped = warp_pixels(other.pixels.image, other.pixels.variance, other.pixels.mask, built).image
        x, y = science.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
        alone = [k for k in np.argsort(-sky.flux) if np.sort(np.hypot(x - x[k], y - y[k]))[1] > 20]
        k = next(k for k in alone if 20 < x[k] < 300 and 20 < y[k] < 280)
        x0, y0 = round(x[k]), round(y[k])
        stamp = psf.stamp(x=x0, y=y0, dx=x[k] - x0, dy=y[k] - y0, side=17)
        cut = warped[y0 - 8 : y0 + 9, x0 - 8 : x0 + 9]
        flux = (cut * stamp).sum() / (stamp**2).sum()
        assert flux == pytest.approx(sky.flux[k], rel=0.02)
        assert np.abs(cut - flux * stamp).max() < 0.006 * cut.max() + 4 * np.sqrt(cut.max())


def test_filling_bridges_holes_of_any_size_smoothly() -> None:
    y, x = np.mgrid[0:120, 0:130]
    plane = (2.0 * x - y).astype(np.float32)
    bad = np.zeros(plane.shape, bool)
    bad[30:34, 40:44] = bad[60:90, 50:80] = bad[5, 5] = True
    filled = fill_masked(np.where(bad, np.float32(np.nan), plane), bad)
    np.testing.assert_array_equal(filled[~bad], plane[~bad])
    assert np.abs(filled - plane)[30:34, 40:44].max() < 6
    assert np.abs(filled - plane)[60:90, 50:80].max() < 40
    np.testing.assert_array_equal(fill_masked(plane, np.ones_like(bad)), 0 * plane)
