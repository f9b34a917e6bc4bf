"""Noise of mismatch: power that is spread, everywhere and where the reference is poor."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gueststar.algorithms.subtraction.mismatch import MismatchNoise, RegionNoise, mismatch_variance


def stars(fwhm: float, shape: tuple[int, int]):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = np.zeros(shape)
    for u, v, flux in zip(
        rng.uniform(0, shape[1], 12), rng.uniform(0, shape[0], 12), rng.uniform(1, 9, 12), strict=True
    ):
        light += flux * np.exp(-0.5 * ((x - u) ** 2 + (y - v) ** 2) / (fwhm / 2.3548) ** 2)
    return light.astype(np.float32)


@pytest.mark.parametrize("corner", [(32, 32), (33, 40), (34, 31)])
@pytest.mark.parametrize("shape", [(70, 81), (81, 70)])
def test_power_is_spread_as_gaussians_do_whatever_corner_and_shape(corner, shape) -> None:
    s_r, widths = stars(3.2, (150, 160)), (0.0, 1.0, 2.0, 4.0)
    common = MismatchNoise(0.0, 0.0, widths, (1e-3, 2e-3, 3e-3, 4e-3))
    poor = MismatchNoise(0.0, 0.0, widths, (4e-3, 0.0, 2e-3, 1e-3))
    times = np.random.default_rng(4).uniform(0, 3, shape).astype(np.float32)
    part = np.s_[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    spread = [gaussian_filter(s_r.astype(float) ** 2, width, truncate=4.0)[part] for width in widths]
    own = sum(share * plane for share, plane in zip(common.powers, spread, strict=True))
    more = sum(share * plane for share, plane in zip(poor.powers, spread, strict=True))
    for often, expected in ((None, own), (times, own + times * more)):
        found = mismatch_variance(s_r, RegionNoise(common, poor), often, corner=corner, shape=shape)
        assert found.shape == shape
        np.testing.assert_allclose(found, expected, rtol=0.03, atol=0.01 * expected.max())
        assert found.sum(dtype=float) == pytest.approx(expected.sum(), rel=5e-3)


def test_a_shift_leaves_the_square_of_the_gradient() -> None:
    y, x = np.mgrid[:60, :70]
    ramp = (3.0 * x - 2.0 * y).astype(np.float32)
    noise = RegionNoise(MismatchNoise(0.1, 0.2, (), ()))
    found = mismatch_variance(ramp, noise, None, corner=(10, 12), shape=(30, 31))
    np.testing.assert_allclose(found, (0.1 * 3.0) ** 2 + (0.2 * 2.0) ** 2, rtol=1e-5)
