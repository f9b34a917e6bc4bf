"""Streaks on white noise, with the PSF known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from gueststar.algorithms.detection.matched_filter import matched_filter
from gueststar.algorithms.streaks.line_fit import Pixels
from gueststar.algorithms.streaks.trace import Segment
from gueststar.model.psf import Psf


def gaussian_psf(fwhm: float, shape: tuple[int, int], half: int = 12) -> Psf:
    """Return a Gaussian PSF integrated over pixels."""
    sigma = fwhm / 2.3548
    edges = (np.arange(-half, half + 2) - 0.5) / (sigma * np.sqrt(2.0))
    profile = 0.5 * np.diff(erf(edges))
    stamp = np.outer(profile, profile)
    return Psf((stamp / stamp.sum())[None].astype(np.float32), 0, shape)


def streak_image(psf: Psf, segment: Segment) -> NDArray[np.float64]:
    """Return a line of unit flux as the PSF shows it: PSFs a quarter of a pixel apart."""
    n = int(np.ceil(segment.length * 4))
    s = (np.arange(n) + 0.5) / n
    x, y = segment.x1 + s * (segment.x2 - segment.x1), segment.y1 + s * (segment.y2 - segment.y1)
    stamps = psf.placed_stamps(x=x, y=y)
    half = stamps.shape[1] // 2
    ny, nx = psf.shape
    image = np.zeros((ny + 4 * half, nx + 4 * half))
    for stamp, i, j in zip(stamps, np.rint(x).astype(int) + 2 * half, np.rint(y).astype(int) + 2 * half, strict=True):
        if half <= i < nx + 3 * half and half <= j < ny + 3 * half:
            image[j - half : j + half + 1, i - half : i + half + 1] += stamp / n
    return image[2 * half : 2 * half + ny, 2 * half : 2 * half + nx]


def with_snr(image: NDArray[np.float64], snr: float) -> NDArray[np.float64]:
    """Return an image scaled so that its total signal to noise on unit noise is ``snr``."""
    return image * (snr / np.sqrt(np.sum(image**2)))


def noisy(signal: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(signal + random.normal(size=signal.shape), np.float32)


def score_of(image: NDArray[np.float32], psf: Psf, bad: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return the significance of a point source at each pixel of an image of unit noise, 0 where bad."""
    bad = np.zeros(image.shape, bool) if bad is None else bad
    kernel = psf.stamps(x=np.array([psf.shape[1] / 2]), y=np.array([psf.shape[0] / 2]))[None]
    score = matched_filter(image, np.ones_like(image), bad, kernel).score
    return np.where(bad, np.float32(0), score)


def unit_pixels(image: NDArray[np.float32], bad: NDArray[np.bool_] | None = None) -> Pixels:
    usable = np.ones(image.shape, bool) if bad is None else ~bad
    return Pixels(image, np.ones_like(image), usable, 1.0)
