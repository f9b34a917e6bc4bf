"""Calibration tables as multi-extension FITS: one binary table each, METADATA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats import fits_planes
from gueststar.formats.calibration_master import calibration_cards
from gueststar.model.calibration import CalibrationTable, Table


def write_calibration_table(path: Path | str, product: CalibrationTable) -> None:
    """Write calibration tables; the file appears whole or not at all."""
    hdus: list[Any] = [fits.PrimaryHDU(header=calibration_cards(product))]
    hdus += [_hdu_of(name, table) for name, table in product.tables.items()]
    fits_planes.write_hdus(path, [*hdus, fits_planes.metadata_hdu(product.metadata)])


def read_calibration_table(path: Path | str) -> CalibrationTable:
    """Read tables that `write_calibration_table` wrote; DataError if the file is not one."""
    with fits_planes.PlanesFile(path) as file:
        header = file.hdus[0].header
        if "CALKIND" not in header or fits_planes.METADATA_HDU not in file:
            raise DataError(f"{path}: not a calibration table (no CALKIND card or no METADATA extension)")
        return CalibrationTable(
            kind=header["CALKIND"],
            detector_id=int(header["DETECTOR"]),
            tables={hdu.header["TABNAME"]: _table_of(hdu) for hdu in file.hdus[1:] if "TABNAME" in hdu.header},
            mjd_tai=float(header["MJD-TAI"]),
            n_frames=int(header["NFRAMES"]),
            physical_filter=header.get("FILTER"),
            metadata=file.metadata(),
        )


def _hdu_of(name: str, table: Table) -> fits.BinTableHDU:
    lengths = {column: len(values) for column, values in table.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"calibration table {name}: columns must be equally long, they are {lengths}")
    dtype = [(column, values.dtype, values.shape[1:]) for column, values in table.items()]
    rows = np.empty(next(iter(lengths.values())), dtype=dtype)
    for column, values in table.items():
        rows[column] = values
    hdu = fits.BinTableHDU(rows, name=name.upper())
    hdu.header["TABNAME"] = (name, "name of this table")
    return hdu


def _table_of(hdu: Any) -> dict[str, NDArray[Any]]:
    return {name: _native(np.asarray(hdu.data[name])) for name in hdu.columns.names}


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="))
