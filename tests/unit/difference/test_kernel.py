"""The kernel that takes one image to the PSF of another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve

from gueststar.algorithms.subtraction.kernel import MatchingKernel, fit_kernel

from .conftest import draw_star

STEP, N = 40, 14


def fitted(truth: np.ndarray, flux: np.ndarray, *, spoilt: int = 0) -> MatchingKernel:
    """Return the kernel fitted to stars of ``flux``; the first ``spoilt`` have become brighter by half."""
    rng = np.random.default_rng(4)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, N**2) for axis in np.meshgrid(*2 * [STEP * np.arange(N) + STEP / 2]))
    sharp, changed = np.zeros((2, N * STEP, N * STEP))
    for k, star in enumerate(zip(x, y, flux, strict=True)):
        draw_star(sharp, *star, 2.2)
        draw_star(changed, *star[:2], star[2] * (1.5 if k < spoilt else 1.0), 2.2)
    images = (rng.normal(image, 20.0).astype(np.float32) for image in (sharp, convolve(changed, truth)))
    variance = (800.0 + 0.1 * sharp).astype(np.float32)
    kernel = fit_kernel(*images, variance, x=x, y=y, half=4, box=7)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("spoilt", [0, 8])
def test_bright_stars_choose_how_smooth_a_kernel_is(spoilt: int) -> None:
    truth = np.random.default_rng(7).dirichlet(np.full(25, 0.6)).reshape(5, 5)
    flux = np.where(np.arange(N**2) % 5 == 0, 1e6, 5e3)
    kernel = fitted(truth, flux, spoilt=spoilt)
    assert kernel.strength < 1e-5
    found = kernel.stamps(x=np.array([300.0]), y=np.array([300.0]))[0]
    np.testing.assert_allclose(found[2:-2, 2:-2], truth, atol=0.04)


def test_where_all_stars_are_faint_the_kernel_is_smooth() -> None:
    yy, xx = np.mgrid[-2:3, -2:3]
    truth = np.exp(-(xx**2 + yy**2) / 2.0)
    assert fitted(truth / truth.sum(), np.full(N**2, 3e3)).strength > 1e-5
