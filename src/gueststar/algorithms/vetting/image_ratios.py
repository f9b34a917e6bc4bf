"""A detection against the noise of the whole difference image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class ImageRatios(NamedTuple):
    """Signal to noise at the place of each detection, from one noise for the whole image."""

    pixel: Floats
    """The pixel over the standard deviation of pixels."""
    filtered: Floats
    """The PSF-filtered image over its standard deviation."""


def image_ratios(
    image: NDArray[np.float32], *, x: Floats, y: Floats, sign: Floats, sigma: float, psf_stamp: NDArray[np.float32]
) -> ImageRatios:
    """Return the ratios at the pixels nearest to (x, y), times ``sign`` (+1, or -1 for negative detections).

    ``sigma`` is the standard deviation of background pixels; that of the filtered image is sigma times
    the root of the PSF's summed squares. Pixels outside the image, or not finite, count as 0.
    """
    half = psf_stamp.shape[0] // 2
    column, row = np.rint(x).astype(np.intp) + half, np.rint(y).astype(np.intp) + half
    padded = np.pad(np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0), half)
    offsets = np.arange(-half, half + 1)
    rows = np.clip(row[:, None, None] + offsets[None, :, None], 0, padded.shape[0] - 1)
    columns = np.clip(column[:, None, None] + offsets[None, None, :], 0, padded.shape[1] - 1)
    stamps = padded[rows, columns].astype(np.float64)
    weights = psf_stamp.astype(np.float64)
    scale = np.asarray(sign, dtype=np.float64) / max(sigma, 1e-30)
    filtered = np.einsum("nij,ij->n", stamps, weights) / np.sqrt(np.sum(weights**2))
    return ImageRatios(stamps[:, half, half] * scale, filtered * scale)
