"""Calibration masters as multi-extension FITS: IMAGE, VARIANCE, MASK, METADATA; further planes LAYER1, LAYER2..."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.formats import fits_planes
from gueststar.model.calibration import KINDS, CalibrationMaster, CalibrationProduct
from gueststar.model.image import MaskedImage

STEPS_PER_SIGMA = 16.0
"""Quantisation steps per sigma of the master's own median noise."""

VARIANCE_STEP = 0.02
"""Quantisation step of the variance as a fraction of its first percentile."""


def write_calibration_master(path: Path | str, master: CalibrationMaster) -> None:
    """Write a master; the file appears whole or not at all."""
    pixels = master.pixels
    image_step, variance_step = _steps_of(pixels)
    unit = KINDS[master.kind].unit
    hdus: list[Any] = [
        fits.PrimaryHDU(header=calibration_cards(master)),
        fits_planes.float_plane("IMAGE", pixels.image, {"BUNIT": unit}, step=image_step),
        fits_planes.float_plane("VARIANCE", pixels.variance, {}, step=variance_step),
        fits_planes.integer_plane("MASK", pixels.mask, fits_planes.mask_cards()),
        fits_planes.metadata_hdu(master.metadata),
    ]
    for number, layer in enumerate(() if master.layers is None else master.layers, start=1):
        hdus.append(fits_planes.float_plane(f"LAYER{number}", layer, {"BUNIT": unit}, step=image_step))
    fits_planes.write_hdus(path, hdus)


def read_calibration_master(path: Path | str) -> CalibrationMaster:
    """Read a master that `write_calibration_master` wrote; DataError if it is not one."""
    with fits_planes.PlanesFile(path) as file:
        header = file.hdu("PRIMARY").header
        image, variance = (file.pixels(name, np.float32) for name in ("IMAGE", "VARIANCE"))
        return CalibrationMaster(
            kind=header["CALKIND"],
            detector_id=int(header["DETECTOR"]),
            pixels=MaskedImage(image, variance, file.mask()),
            mjd_tai=float(header["MJD-TAI"]),
            n_frames=int(header["NFRAMES"]),
            physical_filter=header.get("FILTER"),
            metadata=file.metadata(),
            layers=_layers_of(file),
        )


def _layers_of(file: fits_planes.PlanesFile) -> NDArray[np.float32] | None:
    planes = [file.pixels(name, np.float32) for name in file.names() if name.startswith("LAYER")]
    return np.stack(planes) if planes else None


def read_master_time(path: Path | str) -> float:
    """Read only the mean time of a master's frames, MJD TAI."""
    return float(fits.getheader(path, 0)["MJD-TAI"])


def _steps_of(pixels: MaskedImage) -> tuple[float | None, float | None]:
    known = pixels.variance[np.isfinite(pixels.variance) & (pixels.variance > 0)]
    if known.size == 0:
        return None, None
    sample = known[:: max(1, known.size // 100_000)]
    return float(np.sqrt(np.median(sample))) / STEPS_PER_SIGMA, float(np.percentile(sample, 1)) * VARIANCE_STEP


def calibration_cards(master: CalibrationProduct) -> fits.Header:
    """Return the primary header of a calibration product."""
    header = fits.Header()
    header["ORIGIN"] = "gueststar"
    header["CALKIND"] = (master.kind, "kind of calibration product")
    header["DETECTOR"] = (master.detector_id, "detector id of the camera")
    header["MJD-TAI"] = (master.mjd_tai, "[d] mean time of the frames")
    header["NFRAMES"] = (master.n_frames, "frames in the stack")
    if master.physical_filter is not None:
        header["FILTER"] = master.physical_filter
    for key, value in fits_planes.scalar_cards(master.metadata).items():
        header[key] = value
    return header
