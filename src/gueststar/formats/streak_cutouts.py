"""Pictures of one detector's streaks in one FITS file: a table of whose they are, and an image of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.model.streaks import StreakCutouts


def write_streak_cutouts(path: Path, cutouts: StreakCutouts) -> None:
    """Write pictures of streaks; the file appears whole or not at all."""
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name="streak_id", format="K", array=cutouts.streak_id),
            fits.Column(name="pixels_per_column", format="E", array=cutouts.pixels_per_column),
        ],
        name="STREAKS",
    )
    hdus: list[fits.hdu.base.ExtensionHDU] = [fits.PrimaryHDU(), table]
    for number, stamp in enumerate(cutouts.stamps):
        image = fits.ImageHDU(stamp, name=f"STREAK{number}")
        image.header["PLANES"] = ("difference,science", "order of the planes")
        image.header["BUNIT"] = "electron"
        hdus.append(image)
    with appearing_whole(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def read_streak_cutouts(path: Path) -> StreakCutouts:
    """Read what `write_streak_cutouts` wrote; raises DataError for a file that is something else."""
    try:
        with fits.open(path) as file:
            table = file["STREAKS"].data
            ids = np.asarray(table["streak_id"], dtype=np.int64)
            scales = np.asarray(table["pixels_per_column"], dtype=np.float32)
            stamps = tuple(np.asarray(file[f"STREAK{k}"].data, dtype=np.float32) for k in range(ids.size))
    except (OSError, KeyError) as problem:
        raise DataError(f"{path} is not a file of streaks' cut-outs: {problem}") from problem
    return StreakCutouts(ids, stamps, scales)
