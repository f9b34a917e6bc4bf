"""Images of stars with a known PSF, for the tests of detection, PSF and photometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from gueststar.core.bits import MaskPlane
from gueststar.model.image import MaskedImage
from gueststar.model.psf import Psf


class Field(NamedTuple):
    pixels: MaskedImage
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]


def pixel_gaussian(offsets: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    scale = np.sqrt(2.0) * sigma
    return (erf((offsets + 0.5) / scale) - erf((offsets - 0.5) / scale)) / 2.0


def make_gaussian_psf(sigma: float, shape: tuple[int, int], *, oversampling: int = 2, radius: int = 10) -> Psf:
    k = 2 * radius * oversampling + 1
    line = pixel_gaussian((np.arange(k) - k // 2) / oversampling, sigma)
    return Psf(np.outer(line, line)[None].astype(np.float32), 0, shape, oversampling)


def add_gaussian_in_place(
    image: NDArray[np.float64], x: float, y: float, flux: float, sigma_x: float, sigma_y: float
) -> None:
    half = int(np.ceil(7 * max(sigma_x, sigma_y)))
    ix, iy = round(x), round(y)
    ys = np.arange(max(iy - half, 0), min(iy + half + 1, image.shape[0]))
    xs = np.arange(max(ix - half, 0), min(ix + half + 1, image.shape[1]))
    image[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] += flux * np.outer(
        pixel_gaussian(ys - y, sigma_y), pixel_gaussian(xs - x, sigma_x)
    )


def make_star_field(
    n: int,
    *,
    seed: int = 1,
    shape: tuple[int, int] = (400, 400),
    sigma: float = 1.1,
    sky: float = 800.0,
    log_flux: tuple[float, float] = (3.2, 5.3),
    spread: float = 0.0,
    min_distance: float = 0.0,
    saturation: float = np.inf,
) -> Field:
    """Return Poisson-noisy stars; ``spread`` widens the PSF linearly along x by that fraction over the image."""
    rng = np.random.default_rng(seed)
    x, y = _places(rng, n, shape, min_distance)
    flux = 10 ** rng.uniform(*log_flux, n)
    truth = np.full(shape, sky)
    for a, b, f in zip(x, y, flux, strict=True):
        width = sigma * (1.0 + spread * (a / shape[1] - 0.5))
        add_gaussian_in_place(truth, a, b, f, width, width)
    data = rng.poisson(truth) + rng.normal(0.0, 5.0, shape)
    mask = np.where(data > saturation, int(MaskPlane.SATURATED), 0)
    image = np.minimum(data, saturation) - sky
    return Field(MaskedImage(image, np.maximum(data, 0.5 * sky) + 25.0, mask), x, y, flux)


def _places(
    rng: np.random.Generator, n: int, shape: tuple[int, int], min_distance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places: list[tuple[float, float]] = []
    while len(places) < n:
        x, y = rng.uniform(12, shape[1] - 12), rng.uniform(12, shape[0] - 12)
        if all(np.hypot(x - a, y - b) >= min_distance for a, b in places):
            places.append((x, y))
    table = np.array(places).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def measure_robust_spread(values: NDArray[np.float64]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


@pytest.fixture
def star_field() -> Callable[..., Field]:
    return make_star_field


@pytest.fixture
def gaussian_psf() -> Callable[..., Psf]:
    return make_gaussian_psf


@pytest.fixture
def add_gaussian() -> Callable[..., None]:
    return add_gaussian_in_place


@pytest.fixture
def robust_spread() -> Callable[..., float]:
    return measure_robust_spread
