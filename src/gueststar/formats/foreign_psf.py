"""The PSF that a user's image tells of: a stamp in an extension, or a width in a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits

from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.core.errors import DataError
from gueststar.model.psf import Psf

FWHM_PIXELS = ("PSFFWHM", "PSF_FWHM", "FWHM", "SEEING")
"""Cards with the full width at half maximum of point sources on the image, pixels."""

FWHM_ARCSEC = ("FWHMSEC", "FWHMARCS", "L1FWHM")
"""The same in arcsec."""

PLAUSIBLE_PIXELS = (0.8, 60.0)
"""Widths outside are no widths of a PSF."""


def psf_of_file(
    hdus: fits.HDUList,
    header: Mapping[str, Any],
    shape: tuple[int, int],
    *,
    pixel_scale: float | None,
    is_width_enough: bool,
) -> tuple[Psf | None, str]:
    """Return the PSF of an image and a note on what was assumed; None where the file tells nothing.

    An extension ``PSF`` holds a stamp sampled at the image's pixels, centred on its middle one; its sum does not
    matter. A width alone (where ``is_width_enough``) is taken for that of a round Moffat profile of exponent 3.5.
    """
    for hdu in hdus:
        if hdu.name.upper() == "PSF" and hdu.is_image and hdu.header.get("NAXIS") == 2:
            return _from_stamp(np.asarray(hdu.data, dtype=np.float64), shape), ""
    fwhm, key = _fwhm_pixels(header, pixel_scale) if is_width_enough else (None, "")
    if fwhm is None:
        return None, ""
    if not PLAUSIBLE_PIXELS[0] <= fwhm <= PLAUSIBLE_PIXELS[1]:
        raise DataError(f"{key} = {header[key]} means a PSF {fwhm:.2f} pixels wide, which is impossible")
    stamp = moffat_stamp(fwhm)
    return Psf(stamp[None], 0, shape), f"PSF taken as a round Moffat profile {fwhm:.2f} pixels wide ({key})"


def _from_stamp(stamp: np.ndarray, shape: tuple[int, int]) -> Psf:
    if stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise DataError(f"the PSF extension is {stamp.shape}; it must be square with an odd side")
    total = float(stamp.sum())
    if not (np.isfinite(total) and total > 0):
        raise DataError(f"the PSF extension sums to {total}")
    return Psf((stamp / total).astype(np.float32)[None], 0, shape)


def _fwhm_pixels(header: Mapping[str, Any], pixel_scale: float | None) -> tuple[float | None, str]:
    for keys, per_pixel in ((FWHM_PIXELS, 1.0), (FWHM_ARCSEC, pixel_scale)):
        for key in keys:
            value = header.get(key)
            if per_pixel and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value) / per_pixel, key
    return None, ""
