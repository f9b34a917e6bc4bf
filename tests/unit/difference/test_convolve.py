"""Convolution with small kernels as sums of products."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from gueststar.algorithms.subtraction.convolve import add_convolved_in_place, gaussian, separated


def lopsided(half: int, sigma: float):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.exp(-0.5 * ((x + 0.4 * y) ** 2 + 1.3 * y**2) / sigma**2) * (1 + 0.2 * np.tanh(x + 2 * y))
    return (kernel * 7.0).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.7, 1.3, 4.0])
def test_a_lopsided_kernel_convolves_as_it_does_pixel_by_pixel(sigma: float) -> None:
    image = np.random.default_rng(4).uniform(1, 2, (120, 150)).astype(np.float32)
    image[60, 70] = 3000.0
    kernel = lopsided(31, sigma)
    out = np.ones((50, 81), np.float32)
    add_convolved_in_place(out, image, separated(kernel), (33, 35))
    expected = 1.0 + fftconvolve(image, kernel, mode="same")[33:83, 35:116]
    np.testing.assert_allclose(out, expected, rtol=3e-3, atol=1e-3 * expected.max())


def test_what_is_even_becomes_the_kernels_sum_times_it_to_the_edge_that_the_kernel_needs() -> None:
    kernel = lopsided(12, 1.3)
    parts = separated(kernel)
    image = np.full((40 + 2 * parts.half, 30 + 2 * parts.half), 5.0, np.float32)
    out = np.zeros((40, 30), np.float32)
    add_convolved_in_place(out, image, parts, (parts.half, parts.half))
    np.testing.assert_allclose(out, 5.0 * kernel.sum(dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.9, 2.4, 6.0])
def test_gaussians_spread_their_power_as_scipy_does_and_keep_it_positive(sigma: float) -> None:
    image = np.zeros((121, 121), np.float32)
    image[60, 60], image[40, 75] = 1e12, 3.0
    out = np.zeros((61, 61), np.float32)
    add_convolved_in_place(out, image, gaussian(sigma, 2.5, 30), (30, 30))
    expected = 2.5 * gaussian_filter(image.astype(np.float64), sigma, truncate=4.0)[30:91, 30:91]
    assert out.min() >= 0.0
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-7 * expected.max())
