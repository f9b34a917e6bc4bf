"""A user's own calibrated or difference image: any FITS image with a WCS and a zero point.

Zero points are found under the names that ZTF, DECam, LCO, SCAMP and others write. What the file does not
tell is estimated and said so in ``notes``: variance from the local noise and the gain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.fits_planes import open_fits
from gueststar.formats.wcs_header import wcs_from_header
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs

ZERO_POINT = ("ZP", "MAGZP", "MAGZERO", "MAGZPT", "ZEROPNT", "ZPTMAG", "PHOT_ZP", "PHOTZP", "L1ZP")
"""Cards with the AB magnitude of one image unit, in the order of preference."""

ZERO_POINT_ERR = ("ZPERR", "MAGZPUNC", "MAGZPERR", "ZPTSIGMA", "L1ZPERR", "PHOTZPER")
ZERO_POINT_RMS = ("ZPRMS", "MAGZPRMS", "ZPTRMS")
COLOUR_TERM = ("CLRTERM", "CLRCOEFF")
COLOUR_TERM_ERR = ("CLRTERR", "CLRCOUNC")
COLOUR_NAME = ("CLRNAME", "PCOLOR")
GAIN = ("GAIN", "EGAIN", "CCDGAIN", "GAINEFF")
SATURATION = ("SATURATE", "SATURVAL", "SATLEVEL")

UNKNOWN_ZERO_POINT_ERR = 0.05
"""Error assumed of a zero point that comes without one, mag."""

VARIANCE_HDUS = {"VARIANCE": "variance", "VAR": "variance", "WEIGHT": "weight", "WHT": "weight", "IVAR": "weight",
                 "INVVAR": "weight", "ERR": "sigma", "ERROR": "sigma", "SIGMA": "sigma", "UNCERT": "sigma"}  # fmt: skip
"""Names of extensions that tell the noise, and how."""

MASK_HDUS = ("MASK", "DQ", "BPM", "FLAGS")
"""Names of extensions whose non-zero pixels are bad."""


@dataclass(frozen=True, eq=False)
class ForeignImage:
    """An image as far as its file tells; pixels in electrons."""

    pixels: MaskedImage
    wcs: Wcs
    photocal: PhotoCal
    notes: tuple[str, ...]
    """What was assumed or estimated."""


def read_foreign_image(path: Path | str, *, exposure_s: float, band: str = "") -> ForeignImage:
    """Read a user's image; DataError names what is missing.

    ``exposure_s`` turns rates (BUNIT per second) into counts.
    """
    with open_fits(path) as hdus:
        science = _science_hdu(hdus, path)
        header = {**dict(hdus[0].header), **dict(science.header)}
        image = np.ascontiguousarray(science.data, dtype=np.float32)
        scale, notes = _electrons_per_unit(header, exposure_s)
        mask = _mask_of(hdus, header, image)
        stated = _stated_variance(hdus, image.shape)
        wcs = wcs_from_header(header, image.shape)
        photocal = _photocal_of(header, path, scale=scale, band=band)
    if photocal.zero_point_err == UNKNOWN_ZERO_POINT_ERR:
        notes.append(f"the zero point has no error: {UNKNOWN_ZERO_POINT_ERR} mag assumed")
    electrons = image * np.float32(scale)
    if stated is None:
        variance = estimated_variance(electrons, mask)
        notes.append("variance estimated from the local noise and the gain")
    else:
        variance = (stated * np.float32(scale) ** 2).astype(np.float32)
    is_void = ~np.isfinite(electrons) | ~np.isfinite(variance) | (variance <= 0)
    mask = np.where(is_void, mask | int(MaskPlane.NO_DATA), mask).astype(np.int32)
    clean = np.where(is_void, np.float32(0.0), electrons).astype(np.float32)
    variance = np.where(is_void, np.float32(np.inf), variance).astype(np.float32)
    return ForeignImage(MaskedImage(clean, variance, mask), wcs, photocal, tuple(notes))


def estimated_variance(electrons: NDArray[np.float32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return sky variance, from differences of neighbours, plus the photon noise of what lies above the sky."""
    good = electrons[(mask == 0) & np.isfinite(electrons)]
    if good.size < 100:
        raise DataError(f"only {good.size} usable pixels: the noise cannot be estimated")
    step = np.where((mask == 0) & np.isfinite(electrons), electrons, np.nan)
    difference = step[:, 1:] - step[:, :-1]
    difference = difference[np.isfinite(difference)]
    sky_variance = float((1.4826 * np.median(np.abs(difference - np.median(difference)))) ** 2 / 2.0)
    if sky_variance <= 0.0:
        raise DataError("neighbouring pixels do not differ: the noise cannot be estimated")
    above = np.clip(np.nan_to_num(electrons) - float(np.median(good)), 0.0, None)
    return np.asarray(sky_variance + above, dtype=np.float32)


def _science_hdu(hdus: fits.HDUList, path: Path | str) -> Any:
    images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]
    named = [hdu for hdu in images if hdu.name.upper() in ("SCI", "SCIENCE", "IMAGE")]
    if not images:
        raise DataError(f"{path}: holds no two-dimensional image")
    return (named or images)[0]


def _electrons_per_unit(header: Mapping[str, Any], exposure_s: float) -> tuple[float, list[str]]:
    unit = str(header.get("BUNIT", "")).lower().replace(" ", "")
    is_rate = any(word in unit for word in ("/s", "s-1", "persec", "s^-1", "s**-1"))
    is_electrons = re.match(r"e(-|/|lec|$)|photon", unit) is not None
    notes = []
    gain = 1.0 if is_electrons else _number(header, GAIN)
    if gain is None or gain <= 0:
        notes.append("no gain in the header: 1 electron per unit assumed")
        gain = 1.0
    return gain * (exposure_s if is_rate else 1.0), notes


def _photocal_of(header: Mapping[str, Any], path: Path | str, *, scale: float, band: str) -> PhotoCal:
    zero_point = _number(header, ZERO_POINT)
    if zero_point is None:
        raise DataError(f"{path}: has no zero point; one of the cards {', '.join(ZERO_POINT)} must hold it")
    error = _number(header, ZERO_POINT_ERR)
    return PhotoCal(
        zero_point=zero_point + 2.5 * float(np.log10(scale)),
        zero_point_err=UNKNOWN_ZERO_POINT_ERR if error is None else error,
        zero_point_rms=_number(header, ZERO_POINT_RMS) or 0.0,
        colour_term=_number(header, COLOUR_TERM) or 0.0,
        colour_term_err=_number(header, COLOUR_TERM_ERR) or 0.0,
        colour_name="".join(str(next((header[key] for key in COLOUR_NAME if key in header), "")).split()),
        band=band,
    )


def _mask_of(hdus: fits.HDUList, header: Mapping[str, Any], image: NDArray[np.float32]) -> NDArray[np.int32]:
    mask = np.zeros(image.shape, dtype=np.int32)
    for name in MASK_HDUS:
        if name in hdus and hdus[name].is_image and hdus[name].shape == image.shape:
            mask[np.asarray(hdus[name].data) != 0] |= int(MaskPlane.BAD)
            break
    saturation = _number(header, SATURATION)
    if saturation is not None and saturation > 0:
        with np.errstate(invalid="ignore"):
            mask[image >= saturation] |= int(MaskPlane.SATURATED)
    mask[~np.isfinite(image)] |= int(MaskPlane.NO_DATA)
    return mask


def _stated_variance(hdus: fits.HDUList, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    for name, means in VARIANCE_HDUS.items():
        if name in hdus and hdus[name].is_image and hdus[name].shape == shape:
            plane = np.asarray(hdus[name].data, dtype=np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                return {"variance": plane, "weight": 1.0 / plane, "sigma": plane**2}[means].astype(np.float32)
    return None


def _number(header: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return None
