"""Detrended frames as multi-extension FITS: IMAGE, VARIANCE, MASK, METADATA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from gueststar.formats import fits_planes
from gueststar.model.image import DetrendedFrame, MaskedImage


def write_detrended_frame(path: Path | str, frame: DetrendedFrame) -> None:
    """Write a frame, losslessly; the file appears whole or not at all."""
    header = fits.Header()
    header["ORIGIN"] = "gueststar"
    for key, value in fits_planes.scalar_cards(frame.metadata).items():
        header[key] = value
    pixels = frame.pixels
    hdus: list[Any] = [
        fits.PrimaryHDU(header=header),
        fits_planes.float_plane("IMAGE", pixels.image, {"BUNIT": "electron"}, step=None),
        fits_planes.float_plane("VARIANCE", pixels.variance, {}, step=None),
        fits_planes.integer_plane("MASK", pixels.mask, fits_planes.mask_cards()),
        fits_planes.metadata_hdu(frame.metadata),
    ]
    fits_planes.write_hdus(path, hdus)


def read_detrended_frame(path: Path | str) -> DetrendedFrame:
    """Read a frame that `write_detrended_frame` wrote; DataError if it is not one."""
    with fits_planes.PlanesFile(path) as file:
        image, variance = (file.pixels(name, np.float32) for name in ("IMAGE", "VARIANCE"))
        return DetrendedFrame(MaskedImage(image, variance, file.mask()), file.metadata())
