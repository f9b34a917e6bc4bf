"""A user's own calibrated or difference image: any FITS image with the planes that another pipeline wrote beside it.

Zero points are found under the names that ZTF, DECam, LCO, SCAMP and others write. What the file does not
tell is left open (WCS, zero point, PSF) or estimated and said so in ``notes`` (variance).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.fits_planes import mask_of, open_fits
from gueststar.formats.foreign_psf import psf_of_file
from gueststar.formats.wcs_header import has_celestial_axes, wcs_from_header
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs

Role = Literal["science", "difference"]

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

PLANES: dict[str, tuple[str, ...]] = {
    "science": ("SCI", "SCIENCE", "NEW", "TARGET"),
    "reference": ("REF", "REFERENCE", "TEMPLATE", "TMPL"),
    "difference": ("DIFFERENCE", "DIFF", "SUB"),
    "variance": ("VARIANCE", "VAR"),
    "weight": ("WEIGHT", "WHT", "IVAR", "INVVAR"),
    "sigma": ("ERR", "ERROR", "SIGMA", "UNCERT"),
    "mask": ("MASK", "DQ", "BPM", "FLAGS"),
}
"""What a plane is -> names of the extension that holds it. Non-zero pixels of a mask are bad."""

_ANY = ("IMAGE",)
_NO_PIXELS = ("PSF", "COVERAGE")


@dataclass(frozen=True, eq=False)
class ForeignImage:
    """An image as far as its file tells; pixels in electrons."""

    pixels: MaskedImage
    wcs: Wcs | None
    """None: the file holds none."""
    photocal: PhotoCal | None
    """None: the file holds no zero point."""
    psf: Psf | None
    """From a PSF extension or (differences, on which it cannot be measured) a FWHM card; None: to be measured."""
    notes: tuple[str, ...]
    """What was assumed or estimated."""
    beside: Mapping[str, MaskedImage] = field(default_factory=dict)
    """``science`` and ``reference`` planes that came with a difference image, in its unit turned to electrons."""
    is_variance_estimated: bool = False
    """Whether the variance is from the local noise and the gain: no plane told it."""


def read_foreign_image(
    path: Path | str,
    *,
    exposure_s: float,
    band: str = "",
    role: Role = "science",
    cards: Mapping[str, Any] | None = None,
    companions: Mapping[str, Path] | None = None,
) -> ForeignImage:
    """Read a user's image; DataError names what cannot be used.

    ``exposure_s`` turns rates (BUNIT per second) into counts. ``cards`` stand in for those that the file
    lacks; ``companions`` are files that hold a plane (a key of `PLANES`) which this one lacks.
    """
    with open_fits(path) as hdus, _opened(companions or {}) as others:
        chosen, note = _image_hdu(hdus, role, path)
        header = {**(cards or {}), **dict(hdus[0].header), **dict(chosen.header)}
        planes = _planes_beside(hdus, chosen, others)
        image = np.ascontiguousarray(chosen.data, dtype=np.float32)
        scale, notes = _electrons_per_unit(header, exposure_s)
        notes += [note] if note else []
        wcs = wcs_from_header(header, image.shape) if has_celestial_axes(header) else None
        photocal = _photocal_of(header, scale=scale, band=band)
        psf, psf_note = psf_of_file(
            hdus, header, image.shape, pixel_scale=wcs.pixel_scale_arcsec if wcs else None,
            is_width_enough=role == "difference",
        )  # fmt: skip
        mask = _mask_of(planes.get("mask"), header, image)
        pixels, is_estimated = _pixels(image, mask, _stated_variance(planes, image.shape), scale)
        beside: dict[str, MaskedImage] = {
            name: _pixels(np.ascontiguousarray(planes[name].data, np.float32), mask & _VOID, None, scale)[0]
            for name in ("science", "reference")
            if role == "difference" and name in planes and planes[name].data.shape == image.shape
        }
    notes += [psf_note] if psf_note else []
    notes += ["variance estimated from the local noise and the gain"] if is_estimated else []
    if photocal is not None and photocal.zero_point_err == UNKNOWN_ZERO_POINT_ERR:
        notes.append(f"the zero point has no error: {UNKNOWN_ZERO_POINT_ERR} mag assumed")
    return ForeignImage(pixels, wcs, photocal, psf, tuple(notes), beside, is_estimated)


_VOID = int(MaskPlane.NO_DATA)


def _pixels(
    image: NDArray[np.float32], mask: NDArray[np.int32], stated: NDArray[np.float32] | None, scale: float
) -> tuple[MaskedImage, bool]:
    """Return the pixels in electrons, and whether their variance had to be estimated."""
    electrons = image * np.float32(scale)
    if stated is None:
        variance = estimated_variance(electrons, mask)
    else:
        variance = (stated * np.float32(scale) ** 2).astype(np.float32)
    is_void = ~np.isfinite(electrons) | ~np.isfinite(variance) | (variance <= 0)
    mask = np.where(is_void, mask | _VOID, mask).astype(np.int32)
    clean = np.where(is_void, np.float32(0.0), electrons).astype(np.float32)
    variance = np.where(is_void, np.float32(np.inf), variance).astype(np.float32)
    return MaskedImage(clean, variance, mask), stated is None


@contextmanager
def _opened(companions: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Open companion files one inside the other and yield the image of each by what it is."""
    if not companions:
        yield {}
        return
    (name, path), *rest = companions.items()
    with open_fits(path) as hdus, _opened(dict(rest)) as others:
        images = _images_of(hdus)
        if not images:
            raise DataError(f"{path}: holds no two-dimensional image")
        yield {name: images[0], **others}


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


def _images_of(hdus: fits.HDUList) -> list[Any]:
    """Return the extensions that hold a two-dimensional image."""
    return [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]


def _image_hdu(hdus: fits.HDUList, role: Role, path: Path | str) -> tuple[Any, str]:
    """Return the extension that holds the image itself, and a note; DataError where several have its name."""
    images = _images_of(hdus)
    if not images:
        raise DataError(f"{path}: holds no two-dimensional image")
    wanted = (*PLANES["difference"], *_ANY, *PLANES["science"]) if role == "difference" else (*PLANES["science"], *_ANY)
    for name in wanted:
        named = [hdu for hdu in images if hdu.name.upper() == name]
        if len(named) > 1:
            raise DataError(f"{path}: holds {len(named)} images named {name}; one file a detector is needed")
        if named:
            return named[0], ""
    auxiliary = {name for names in PLANES.values() for name in names} | set(_NO_PIXELS)
    plain = [hdu for hdu in images if hdu.name.upper() not in auxiliary]
    chosen = plain or images
    note = f"the first of {len(chosen)} images was taken: none is named {', '.join(wanted)}" if len(chosen) > 1 else ""
    return chosen[0], note


def _planes_beside(hdus: fits.HDUList, chosen: Any, companions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other planes by what they are; a companion file goes before an extension."""
    images = [hdu for hdu in _images_of(hdus) if hdu is not chosen]
    found = {}
    for meaning, names in PLANES.items():
        named = [hdu for name in names for hdu in images if hdu.name.upper() == name]
        if named:
            found[meaning] = named[0]
    return {**found, **companions}


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


def _photocal_of(header: Mapping[str, Any], *, scale: float, band: str) -> PhotoCal | None:
    zero_point = _number(header, ZERO_POINT)
    if zero_point is None:
        return None
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


def _mask_of(plane: Any, header: Mapping[str, Any], image: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the mask: bits that ``MP_`` cards name (as Rubin's pipelines write them), else non-zero is bad."""
    mask = np.zeros(image.shape, dtype=np.int32)
    if plane is not None and plane.data.shape == image.shape:
        if any(key.upper().startswith("MP_") for key in plane.header):
            mask |= mask_of(plane)
        else:
            mask[np.asarray(plane.data) != 0] |= int(MaskPlane.BAD)
    saturation = _number(header, SATURATION)
    if saturation is not None and saturation > 0:
        with np.errstate(invalid="ignore"):
            mask[image >= saturation] |= int(MaskPlane.SATURATED)
    mask[~np.isfinite(image)] |= int(MaskPlane.NO_DATA)
    return mask


def _stated_variance(planes: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    for means in ("variance", "weight", "sigma"):
        if means in planes and planes[means].data.shape == shape:
            plane = np.asarray(planes[means].data, dtype=np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                return {"variance": plane, "weight": 1.0 / plane, "sigma": plane**2}[means].astype(np.float32)
    return None


def _number(header: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return None
