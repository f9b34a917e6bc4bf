"""The noise of a co-add is what its variance and its correlation say."""

import numpy as np
import pytest

from gueststar.algorithms.warp.noise import noise_correlation, variance_of_sum
from gueststar.algorithms.warp.position_map import build_position_map
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference

SIDE = 512


def gaussian(fwhm: float, half: int = 10) -> np.ndarray:
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / (fwhm / 2.3548)) ** 2)
    return np.outer(line, line) / line.sum() ** 2


def blank(k: int, rng: np.random.Generator, *, rotation_deg: float) -> CalibratedImage:
    """Return white noise of its own level."""
    sigma = 15.0 + 2.0 * k
    pixels = MaskedImage(
        rng.normal(0, sigma, (SIDE, SIDE)).astype(np.float32), np.full((SIDE, SIDE), sigma**2), np.zeros((SIDE, SIDE))
    )
    x, y = (SIDE - 1) / 2 + rng.uniform(-3, 3, 2)
    wcs = Wcs.tangent(ra=80.0, dec=-30.0, x=x, y=y, scale_arcsec=1.0, rotation_deg=rotation_deg)
    psf = Psf(gaussian(2.5)[None].astype(np.float32), 0, (SIDE, SIDE))
    return CalibratedImage(pixels, wcs, psf, PhotoCal(27.0 + 0.1 * k, 0.01, band="r"))


@pytest.mark.parametrize("rotation_deg", [0.0, 0.4])
def test_sums_and_psf_fluxes_on_a_co_add_scatter_as_predicted_to_three_per_cent(rotation_deg: float) -> None:
    rng = np.random.default_rng(5)
    ratios: dict[str, list[float]] = {}
    grid = Wcs.tangent(ra=80.0, dec=-30.0, x=SIDE / 2, y=SIDE / 2, scale_arcsec=1.0), (SIDE, SIDE)
    for _ in range(3):
        images = [blank(k, rng, rotation_deg=rotation_deg * k) for k in range(5)]
        epochs = [Epoch(f"e{k}", 60000.0 + k, lambda image=image: image) for k, image in enumerate(images)]
        reference = MakeReference().run(epochs, grid=grid)
        correlation = np.array(reference.metadata["noise_correlation"])
        inner = np.s_[24:-24, 24:-24]
        values, variance = reference.pixels.image[inner].astype(float), reference.pixels.variance[inner].mean()
        yy, xx = np.mgrid[-5:6, -5:6]
        weights = {
            "pixel": np.ones((1, 1)), "aperture": (np.hypot(xx, yy) < 4.2).astype(float),
            **{f"PSF {fwhm}": gaussian(fwhm) / (gaussian(fwhm) ** 2).sum() for fwhm in (1.8, 2.5, 4.0)},
        }  # fmt: skip
        for name, weight in weights.items():
            predicted = variance * variance_of_sum(weight, correlation)
            size = np.array(values.shape) + 64
            filtered = np.fft.irfft2(np.fft.rfft2(values, size) * np.fft.rfft2(weight, size), size)
            h = weight.shape[0]
            ratios.setdefault(name, []).append(filtered[h : values.shape[0], h : values.shape[1]].var() / predicted)
    for name, found in ratios.items():
        assert np.mean(found) == pytest.approx(1.0, abs=0.03), name


def test_whole_pixel_shifts_leave_noise_white_and_the_power_is_kept() -> None:
    for dx, is_white in ((3.0, True), (0.5, False)):
        moved = build_position_map(lambda x, y, dx=dx: (x + dx, y + 2.0), (200, 200))
        found = noise_correlation(moved)
        assert found.sum() == pytest.approx(1.0, abs=0.01)
        assert (found[6, 6] == pytest.approx(1.0, abs=1e-6)) == is_white
    half = build_position_map(lambda x, y: (2.0 * x, 2.0 * y), (100, 100))
    assert noise_correlation(half).sum() == pytest.approx(1.0, abs=0.02)
