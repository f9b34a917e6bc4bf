"""Small pictures of whole images, for those who watch: averaged over blocks, stretched, as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gueststar.formats.fits_planes import PlanesFile

_SAMPLED = 20_000
"""About how many blocks the stretch is measured on."""

_SOFTENING = 2.0
"""Sigmas of a block below which the inverse hyperbolic sine is nearly linear."""

_NO_DATA = (60, 12, 12)
"""Red, green, blue of blocks without data."""


def preview_png(path: Path | str, *, side: int = 320, is_difference: bool = False) -> bytes:
    """Return the picture of a stored image, its longer side about ``side`` blocks long, y upwards.

    Grey runs from the sky to bright stars by inverse hyperbolic sine; of a difference it is symmetric about zero.
    Raises DataError for a file that is no image of ours.
    """
    with PlanesFile(path) as file:
        pixels = file.pixels("IMAGE", np.float32)
    return png_of(block_means(pixels, max(1, round(max(pixels.shape) / side))), is_difference=is_difference)


def block_means(pixels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return the means of blocks of ``block`` pixels a side, of the finite ones; NaN where there is none.

    Rows and columns that do not fill a block are left out, unless the image is smaller than one.
    """
    block = max(1, min(block, *pixels.shape))
    ny, nx = pixels.shape[0] // block, pixels.shape[1] // block
    parts = pixels[: ny * block, : nx * block].reshape(ny, block, nx, block)
    # Rows first: the memory is read once, in order. Sums of 32 bits are exact enough for a picture.
    means = parts.sum(axis=1).sum(axis=2) / np.float32(block * block)
    for y, x in np.argwhere(~np.isfinite(means)):
        one = parts[y, :, x, :]
        known = one[np.isfinite(one)]
        means[y, x] = known.mean() if known.size else np.nan
    return np.asarray(means, dtype=np.float32)


def png_of(plane: NDArray[np.float32], *, is_difference: bool = False) -> bytes:
    """Return an image as a PNG, y upwards; what is not finite is dark red."""
    from matplotlib.image import imsave

    grey = _grey(plane, is_difference=is_difference)
    is_known = np.isfinite(grey)
    shown = np.repeat(np.where(is_known, 255.0 * grey, 0.0).astype(np.uint8)[..., None], 3, axis=2)
    shown[~is_known] = _NO_DATA
    buffer = io.BytesIO()
    imsave(buffer, shown[::-1], format="png", pil_kwargs={"compress_level": 2})
    return buffer.getvalue()


def _grey(plane: NDArray[np.float32], *, is_difference: bool) -> NDArray[np.float32]:
    """Return values from 0 to 1, NaN where there are no data."""
    sample = plane.ravel()[:: max(1, plane.size // _SAMPLED)]
    known = sample[np.isfinite(sample)].astype(np.float64)
    if known.size == 0:
        return np.full(plane.shape, np.nan, dtype=np.float32)
    level = float(np.median(known))
    sigma = max(1.4826 * float(np.median(np.abs(known - level))), 1e-12)
    scaled = np.arcsinh((plane - (0.0 if is_difference else level)) / (_SOFTENING * sigma))
    bright = float(np.percentile(np.abs(known - level), 99.7)) / sigma
    high = np.arcsinh(max(bright, 8.0) / _SOFTENING)
    low = -high if is_difference else np.arcsinh(-2.5 / _SOFTENING)
    return np.asarray(np.clip((scaled - low) / (high - low), 0.0, 1.0), dtype=np.float32)
