"""A small sky with an analytic PSF, drawn independently of the code under test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.special import erf

from gueststar.core.bits import MaskPlane
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs

RA, DEC = 150.0, 20.0


def gaussian_pixels(dx: np.ndarray, dy: np.ndarray, sigma: float) -> np.ndarray:
    """Return the integral over pixels at offsets (dx, dy) of a round Gaussian of unit flux."""
    s = np.sqrt(2) * sigma
    gx = 0.5 * (erf((dx + 0.5) / s) - erf((dx - 0.5) / s))
    gy = 0.5 * (erf((dy + 0.5) / s) - erf((dy - 0.5) / s))
    return gx * gy


def star_pixels(dx: np.ndarray, dy: np.ndarray, fwhm: float) -> np.ndarray:
    """Return a core and a wing, so that the PSF is not a single Gaussian."""
    sigma = fwhm / 2.3548
    return 0.85 * gaussian_pixels(dx, dy, sigma) + 0.15 * gaussian_pixels(dx, dy, 2.0 * sigma)


def draw_star(image: np.ndarray, x: float, y: float, flux: float, fwhm: float, reach: int = 25) -> None:
    x0, y0 = round(x), round(y)
    rows = np.arange(max(y0 - reach, 0), min(y0 + reach + 1, image.shape[0]))
    columns = np.arange(max(x0 - reach, 0), min(x0 + reach + 1, image.shape[1]))
    if rows.size and columns.size:
        image[np.ix_(rows, columns)] += flux * star_pixels(columns[None, :] - x, rows[:, None] - y, fwhm)


def psf_model(fwhm: float, shape: tuple[int, int], side: int = 31) -> Psf:
    offsets = np.arange(side) - side // 2
    stamp = star_pixels(offsets[None, :], offsets[:, None], fwhm)
    return Psf((stamp / stamp.sum())[None].astype(np.float32), 0, shape)


@dataclass
class Sky:
    """Static stars; each image of it may have more."""

    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    """At zero point 30."""
    seed: int = 0
    extra: list[tuple[float, float, float]] = field(default_factory=list)

    @classmethod
    def random(
        cls, n: int, *, half_size_deg: float, faintest: float = 3e3, brightest: float = 3e5, seed: int = 1
    ) -> Sky:
        rng = np.random.default_rng(seed)
        ra = RA + rng.uniform(-half_size_deg, half_size_deg, n) / np.cos(np.radians(DEC))
        dec = DEC + rng.uniform(-half_size_deg, half_size_deg, n)
        return cls(ra, dec, np.exp(rng.uniform(np.log(faintest), np.log(brightest), n)))

    def image(
        self,
        *,
        shape: tuple[int, int] = (300, 320),
        fwhm: float = 2.6,
        sky: float = 400.0,
        zero_point: float = 30.0,
        rotation_deg: float = 0.0,
        parity: int = 1,
        offset: tuple[float, float] = (0.0, 0.0),
        scale_arcsec: float = 1.0,
        added: tuple[tuple[float, float, float], ...] = (),
        saturation: float = np.inf,
        seed: int = 1,
        mjd_tai: float = 60000.0,
    ) -> CalibratedImage:
        """Return a calibrated image; ``added`` are (x, y, flux in this image's electrons)."""
        ny, nx = shape
        wcs = Wcs.tangent(
            ra=RA, dec=DEC, x=(nx - 1) / 2 + offset[0], y=(ny - 1) / 2 + offset[1],
            scale_arcsec=scale_arcsec, rotation_deg=rotation_deg, parity=parity,
        )  # fmt: skip
        truth = np.zeros(shape)
        x, y = wcs.sky_to_pixel(ra=self.ra, dec=self.dec)
        gain = 10.0 ** (0.4 * (zero_point - 30.0))
        pixels_fwhm = fwhm / scale_arcsec
        for xs, ys, flux in [*zip(x, y, self.flux * gain, strict=True), *added]:
            draw_star(truth, xs, ys, flux, pixels_fwhm)
        rng = np.random.default_rng(seed)
        noisy = rng.poisson(truth + sky) - sky
        mask = np.where(noisy + sky > saturation, int(MaskPlane.SATURATED), 0).astype(np.int32)
        noisy = np.minimum(noisy, saturation - sky)
        variance = (truth + sky).astype(np.float32)
        return CalibratedImage(
            MaskedImage(noisy.astype(np.float32), variance, mask), wcs, psf_model(pixels_fwhm, shape),
            PhotoCal(zero_point, 0.01, band="r"), {"mjd_tai": mjd_tai},
        )  # fmt: skip


def with_bad_columns(image: CalibratedImage, columns: np.ndarray) -> CalibratedImage:
    """Return an image whose ``columns`` are marked as defects and hold nothing."""
    pixels, mask = image.pixels.image.copy(), image.pixels.mask.copy()
    pixels[:, columns], mask[:, columns] = 0.0, int(MaskPlane.BAD)
    return replace(image, pixels=MaskedImage(pixels, image.pixels.variance, mask))


@pytest.fixture
def sky() -> Sky:
    """About 60 stars in an image of 300 pixels of one arcsec."""
    return Sky.random(70, half_size_deg=0.046)
