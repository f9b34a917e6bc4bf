"""Cut-outs of one detector image's candidates in one FITS file: a cube and the table of whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.model.cutouts import PLANES, CandidateCutouts


def write_cutout_cube(path: Path, cutouts: CandidateCutouts) -> None:
    """Write cut-outs; the file appears whole or not at all.

    They are not compressed: gzip gains a tenth on noise and writes the time of day, so that the same cut-outs would
    not be the same file.
    """
    ids = fits.BinTableHDU.from_columns(
        [fits.Column(name="dia_source_id", format="K", array=cutouts.dia_source_id)], name="CANDIDATES"
    )
    hdus: list[fits.hdu.base.ExtensionHDU] = [fits.PrimaryHDU(), ids]
    if cutouts.dia_source_id.size:
        n, planes, side, _ = cutouts.stamps.shape
        flat = cutouts.stamps.reshape(n * planes, side, side)
        cube = fits.ImageHDU(flat, name="STAMPS")
        cube.header["PLANES"] = (",".join(PLANES), "order of the planes")
        cube.header["BUNIT"] = "electron"
        hdus.append(cube)
    with appearing_whole(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def read_cutout_ids(path: Path) -> NDArray[np.int64]:
    """Return whose cut-outs a file holds, without reading them; raises DataError for a file that is something else."""
    try:
        with fits.open(path, memmap=True) as file:
            return np.asarray(file["CANDIDATES"].data["dia_source_id"], dtype=np.int64)
    except (OSError, KeyError) as problem:
        raise DataError(f"{path} is not a file of cut-outs: {problem}") from problem


def read_cutout_cube(path: Path) -> CandidateCutouts:
    """Read what `write_cutout_cube` wrote; raises DataError for a file that is something else."""
    try:
        with fits.open(path) as file:
            ids = np.asarray(file["CANDIDATES"].data["dia_source_id"], dtype=np.int64)
            if ids.size == 0:
                return CandidateCutouts(ids, np.zeros((0, len(PLANES), 1, 1), dtype=np.float32))
            flat = np.asarray(file["STAMPS"].data, dtype=np.float32)
    except (OSError, KeyError) as problem:
        raise DataError(f"{path} is not a file of cut-outs: {problem}") from problem
    return CandidateCutouts(ids, flat.reshape(ids.size, len(PLANES), *flat.shape[1:]))
