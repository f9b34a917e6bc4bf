"""Calibrated images as multi-extension FITS: IMAGE, VARIANCE, MASK, PSF, METADATA, DEPTH and COVERAGE.

The rounding of the pixels is a sixteenth of the median noise, so it adds 0.02 % to the noise of a pixel
and, being white and unbiased, nothing measurable to a flux.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.formats import fits_planes
from gueststar.model.depth import DepthMap
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]

STEPS_PER_SIGMA = 16.0
"""Quantisation steps of the image per sigma of its median noise."""

VARIANCE_STEP = 0.02
"""Quantisation step of the variance as a fraction of its first percentile."""

SAMPLED = 200_000
"""About how many pixels these are measured on."""

MOST_STEPS = 2.0**30
"""Steps of the variance beyond which a pixel has no weight."""

PHOTOCAL_CARDS = {
    "zero_point": ("ZP", "AB magnitude of one image unit"),
    "zero_point_err": ("ZPERR", "its error"),
    "zero_point_rms": ("ZPRMS", "scatter of the calibrators, mag"),
    "colour_term": ("CLRTERM", "m = ZP - 2.5 log10(flux) + CLRTERM * colour"),
    "colour_term_err": ("CLRTERR", "its error"),
    "colour_name": ("CLRNAME", "which catalog colour"),
    "band": ("CATBAND", "catalog band of the magnitudes"),
    "n_calibrators": ("NCALIB", "number of calibrators"),
    "median_colour": ("CLRMED", "median colour of the calibrators"),
    "rms_colour": ("CLRRMS", "scatter of their colours"),
    "zero_point_colour_cov": ("ZPCLRCOV", "covariance of ZP and CLRTERM"),
}
"""PhotoCal field -> FITS keyword and its comment."""


def write_calibrated_image(path: Path | str, image: CalibratedImage) -> None:
    """Write an image; the file appears whole or not at all."""
    _write(path, image, None)


def write_and_restore(path: Path | str, image: CalibratedImage) -> CalibratedImage:
    """Write an image and return, without decoding, what `read_calibrated_image` makes of the file, to the bit."""
    shape = image.shape
    pixels, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _write(path, image, (pixels, variance))
    mask = np.ascontiguousarray(image.pixels.mask, dtype=np.int32)
    with fits_planes.PlanesFile(path) as file:
        return _image_of(file, pixels, variance, mask, image.coverage)


def _write(path: Path | str, image: CalibratedImage, restored: tuple[Float32Image, Float32Image] | None) -> None:
    """Write an image; ``restored`` are filled with what reading its pixels and their variance gives."""
    pixels, sky = image.pixels, image.wcs.to_header()
    into_pixels, into_variance = restored or (None, None)
    unit = {"BUNIT": ("electron", "background-subtracted")}
    image_step, variance_step = _steps_of(pixels)
    hdus: list[Any] = [
        fits.PrimaryHDU(header=_primary_header(image)),
        fits_planes.float_plane(
            "IMAGE",
            pixels.image,
            {**sky, **unit, **_photocal_cards(image.photocal)},
            step=image_step,
            restored=into_pixels,
        ),
        fits_planes.float_plane(
            "VARIANCE",
            _within_reach(pixels.variance, variance_step),
            {**sky, "BUNIT": "electron**2"},
            step=variance_step,
            restored=into_variance,
        ),
        fits_planes.integer_plane("MASK", pixels.mask, {**sky, **fits_planes.mask_cards()}),
        _psf_hdu(image.psf),
        fits_planes.metadata_hdu(image.metadata),
    ]
    if image.depth is not None:
        hdus.append(_depth_hdu(image.depth))
    if image.coverage is not None:
        hdus.append(fits_planes.integer_plane("COVERAGE", image.coverage, sky))
    fits_planes.write_hdus(path, hdus)


def read_calibrated_image(path: Path | str) -> CalibratedImage:
    """Read an image that `write_calibrated_image` wrote; DataError if it is not one.

    A variance that was not finite reads as infinite (no weight).
    """
    with fits_planes.PlanesFile(path) as file:
        coverage = file.pixels("COVERAGE", np.int16) if "COVERAGE" in file else None
        planes = (file.pixels("IMAGE", np.float32), file.pixels("VARIANCE", np.float32), file.mask())
        return _image_of(file, *planes, coverage)


def _image_of(
    file: fits_planes.PlanesFile,
    image: Float32Image,
    variance: Float32Image,
    mask: NDArray[np.int32],
    coverage: NDArray[np.int16] | None,
) -> CalibratedImage:
    """Return the image of a file whose planes are given."""
    np.copyto(variance, np.inf, where=np.isnan(variance))
    pixels, header = MaskedImage(image, variance, mask), file.hdu("IMAGE").header
    return CalibratedImage(
        pixels,
        Wcs.from_header(header),
        _psf_of(file.hdu("PSF")),
        _photocal_of(header, file.path),
        file.metadata(),
        coverage,
        _depth_of(file.hdu("DEPTH"), pixels.shape) if "DEPTH" in file else None,
    )


class ImageFrame(NamedTuple):
    """An image without its pixels: all that is known of them in few bytes."""

    shape: tuple[int, int]
    """(ny, nx)."""
    wcs: Wcs
    psf: Psf
    photocal: PhotoCal
    metadata: dict[str, Any]


def read_frame(path: Path | str) -> ImageFrame:
    """Read an image that `write_calibrated_image` wrote, but for its pixels; DataError if it is not one."""
    with fits_planes.PlanesFile(path) as file:
        header = file.hdu("IMAGE").header
        axes = "ZNAXIS" if header.get("ZIMAGE") is True else "NAXIS"
        shape = int(header[f"{axes}2"]), int(header[f"{axes}1"])
        return ImageFrame(
            shape, Wcs.from_header(header), _psf_of(file.hdu("PSF")), _photocal_of(header, path), file.metadata()
        )


def read_around(path: Path | str, *, ra: Floats, dec: Floats) -> CalibratedImage:
    """Read what of an image is needed to fit its PSF at some places (degrees): the compressed tiles around them.

    All pixels farther away are 0 and have no variance, so that they count as masked. DataError as
    `read_calibrated_image`.
    """
    with fits_planes.PlanesFile(path) as file:
        psf, wcs = _psf_of(file.hdu("PSF")), Wcs.from_header(file.hdu("IMAGE").header)
        reach = psf.coefficients.shape[1] // (2 * psf.oversampling) + 2
        x, y = wcs.sky_to_pixel(ra=ra, dec=dec)
        ny, nx = psf.shape
        with np.errstate(invalid="ignore"):
            on = (x > -reach) & (y > -reach) & (x < nx + reach) & (y < ny + reach)
        places = zip(np.rint(x[on]).astype(int).tolist(), np.rint(y[on]).astype(int).tolist(), strict=True)
        near = [(row - reach, row + reach, column - reach, column + reach) for column, row in places]
        image, variance = (file.pixels(name, np.float32, near=near) for name in ("IMAGE", "VARIANCE"))
        return CalibratedImage(
            MaskedImage(image, variance, file.mask(near=near)), wcs, psf,
            _photocal_of(file.hdu("IMAGE").header, file.path), file.metadata(),
        )  # fmt: skip


def is_calibrated_image(path: Path | str) -> bool:
    """Return whether a FITS file is one that `write_calibrated_image` wrote; DataError if it is no FITS."""
    with fits_planes.PlanesFile(path) as file:
        return all(name in file for name in ("IMAGE", "VARIANCE", "MASK", "PSF", fits_planes.METADATA_HDU))


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read only the metadata of a stored image or calibration master."""
    with fits_planes.PlanesFile(path) as file:
        return file.metadata()


def _steps_of(pixels: MaskedImage) -> tuple[float | None, float | None]:
    """Return the steps of image and variance, from a regular sample of usable pixels: they need not be exact."""
    for every in (max(1, int(np.sqrt(pixels.image.size / SAMPLED))), 1):
        variance, mask = pixels.variance[::every, ::every], pixels.mask[::every, ::every]
        sample = variance[((mask & int(UNUSABLE)) == 0) & np.isfinite(variance) & (variance > 0)]
        if sample.size:
            noise, low = float(np.sqrt(np.median(sample))), float(np.percentile(sample, 1))
            return noise / STEPS_PER_SIGMA, low * VARIANCE_STEP
    return None, None


def _within_reach(variance: Float32Image, step: float | None) -> Float32Image:
    """Return a variance with those too great for 32 bits of its step as infinite: a pixel of no weight either way.

    A few such pixels, on the brightest stars of a difference, would else keep the whole plane from being compressed.
    """
    if step is None or variance.max(initial=0.0) <= MOST_STEPS * step:
        return variance
    return np.where(variance > MOST_STEPS * step, np.float32(np.inf), variance)


def _primary_header(image: CalibratedImage) -> fits.Header:
    header = fits.Header()
    header["ORIGIN"] = "gueststar"
    for key, value in {**fits_planes.scalar_cards(image.metadata), **_photocal_cards(image.photocal)}.items():
        header[key] = value
    return header


def _photocal_cards(photocal: PhotoCal) -> dict[str, tuple[Any, str]]:
    return {key: (getattr(photocal, name), comment) for name, (key, comment) in PHOTOCAL_CARDS.items()}


def _photocal_of(header: fits.Header, path: Path | str) -> PhotoCal:
    if "ZP" not in header:
        raise DataError(f"{path}: IMAGE has no ZP card")
    cards = {item.name: PHOTOCAL_CARDS[item.name][0] for item in fields(PhotoCal)}
    stated = {name: header[card] for name, card in cards.items() if card in header}
    return PhotoCal(**stated)


def _psf_hdu(psf: Psf) -> fits.ImageHDU:
    hdu = fits.ImageHDU(psf.coefficients, name="PSF")
    hdu.header["PSFORDER"] = (psf.order, "terms u^i v^j with i + j <= PSFORDER")
    hdu.header["OVERSAMP"] = (psf.oversampling, "stamp samples per image pixel, one axis")
    hdu.header["PSFNX"] = (psf.shape[1], "u = 2 x / (PSFNX - 1) - 1, x from 0")
    hdu.header["PSFNY"] = (psf.shape[0], "v = 2 y / (PSFNY - 1) - 1, y from 0")
    return hdu


def _depth_hdu(depth: DepthMap) -> fits.ImageHDU:
    hdu = fits.ImageHDU(depth.limit, name="DEPTH")
    hdu.header["BUNIT"] = ("mag", "limiting AB magnitude of a star, mesh by mesh")
    hdu.header["DEPTHSIG"] = (depth.n_sigma, "significance at the limit")
    return hdu


def _depth_of(hdu: Any, shape: tuple[int, int]) -> DepthMap:
    return DepthMap(np.ascontiguousarray(hdu.data, dtype=np.float32), shape, float(hdu.header["DEPTHSIG"]))


def _psf_of(hdu: Any) -> Psf:
    coefficients: NDArray[np.float32] = np.ascontiguousarray(hdu.data, dtype=np.float32)
    shape = (int(hdu.header["PSFNY"]), int(hdu.header["PSFNX"]))
    return Psf(coefficients, int(hdu.header["PSFORDER"]), shape, int(hdu.header["OVERSAMP"]))
