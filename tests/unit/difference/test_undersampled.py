"""Pixels too coarse for the seeing: fluxes on the difference do not depend on where in a pixel a star lies."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.subtraction.fine_psf import FACTOR, interleaved
from gueststar.algorithms.subtraction.measure import forced_flux
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import fine_psf_of, stamps_at_phases
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

SHAPE = (320, 330)
SKY = 100.0


def sampled(fwhm: float, *, half: int = 8, per_pixel: int = 3) -> Psf:
    """Return a Gaussian PSF integrated over pixels, with several samples a pixel."""
    fine, sigma = 9, fwhm / 2.3548
    g = np.arange(-(half + 1) * fine, (half + 1) * fine + 1) / fine
    line = np.exp(-0.5 * (g / sigma) ** 2)
    line = np.convolve(line, np.ones(fine) / fine, mode="same")  # the pixel
    line = line[fine : -fine : fine // per_pixel]
    stamp = np.outer(line, line)
    return Psf((stamp / stamp.sum() * per_pixel**2)[None].astype(np.float32), 0, SHAPE, per_pixel)


def drawn(psf: Psf, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> np.ndarray:
    light = np.zeros(SHAPE)
    for stamp, px, py, f in zip(
        psf.placed_stamps(x=x, y=y), np.rint(x).astype(int), np.rint(y).astype(int), flux, strict=True
    ):
        half = stamp.shape[0] // 2
        light[py - half : py + half + 1, px - half : px + half + 1] += f * stamp
    return light


def image(light: np.ndarray, psf: Psf, rng: np.random.Generator) -> CalibratedImage:
    noise = rng.normal(0.0, np.sqrt(SKY), SHAPE)
    pixels = MaskedImage(light + noise, np.full(SHAPE, SKY), np.zeros(SHAPE))
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=150.0, y=150.0, scale_arcsec=1.0)
    return CalibratedImage(pixels, wcs, psf, PhotoCal(27.0, 0.01, band="r"))


@pytest.mark.parametrize("method", ["proper", "kernel"])
def test_new_stars_have_the_same_flux_at_every_phase_within_a_pixel(method: str) -> None:
    rng = np.random.default_rng(8)
    sharp, soft = sampled(1.5), sampled(2.4)
    x, y = (rng.uniform(15, 300, 150) for _ in range(2))
    flux = 10 ** rng.uniform(3.5, 4.8, 150)
    grid_y, grid_x = (g.ravel().astype(float) for g in np.mgrid[30:300:30, 30:300:30])
    new_x, new_y = (g + rng.uniform(-0.5, 0.5, g.size) for g in (grid_x, grid_y))
    static = drawn(sharp, x, y, flux)
    added = static + drawn(sharp, new_x, new_y, np.full(new_x.size, 800.0))
    reference = image(drawn(soft, x, y, flux), soft, np.random.default_rng(2))
    config = DifferenceConfig(method=method, background_box=0)
    without, made = (
        MakeDifference(config).run(image(light, sharp, np.random.default_rng(1)), reference).difference
        for light in (static, added)
    )
    response = made.pixels.image - without.pixels.image
    found, _ = forced_flux(
        response, np.ones_like(response), np.ones(SHAPE, bool), fine_psf_of(made.psf), x=new_x, y=new_y, radius=4
    )
    ratio = found / 800.0
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    assert np.std(ratio) < 0.012
    phase = np.hypot(new_x - np.rint(new_x), new_y - np.rint(new_y))
    assert np.median(ratio[phase > 0.5]) == pytest.approx(np.median(ratio[phase < 0.25]), abs=0.01)


def test_samples_at_phases_interleave_to_the_model_itself() -> None:
    psf = sampled(1.5, per_pixel=3)
    place = np.array([100.0])
    woven = interleaved(stamps_at_phases(psf, x=place, y=place, n=3))[0]
    model = psf.samples(x=place, y=place)[0]
    inner = slice(3, -3)
    assert np.allclose(woven[inner, inner], model[inner, inner], atol=2e-4)
    assert fine_psf_of(psf).stamps.shape[-1] == FACTOR * 2 * 8 + 1
