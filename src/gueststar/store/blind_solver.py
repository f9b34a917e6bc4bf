"""Astrometry.net's solver, an outside program, behind one door: where an image lies, from its stars alone."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError, MissingInput, TransientError
from gueststar.formats.astrometry_net import (
    BlindSolution,
    read_blind_solution,
    write_star_catalog,
    write_star_list,
)
from gueststar.model.catalog import Catalog

Floats = NDArray[np.float64]

_SOLVER, _INDEXER = "solve-field", "build-astrometry-index"
_MEND = "install Debian's astrometry.net, or the program of https://astrometry.net"
_DEPTHS = (10, 20, 30, 40, 50, 70, 100, 150, 200)
"""So many of the brightest stars are tried, one after the other."""
_GRACE_S = 30.0
"""Beyond its limit of CPU the solver is waited for so long."""

_QUADS = ((0.1, 0.25), (0.25, 0.5), (0.5, 0.9))
"""Sizes of the figures of four stars that are indexed, in units of the image's shorter side."""
_CELLS_ARCMIN = 3520.0
"""Cells a side of the HEALPix base for figures of 1 arcmin, as in the solver's own indexes."""


class BlindSolver:
    """Finds images in the whole sky by index files; needs Astrometry.net's programs."""

    def __init__(self, folders: Sequence[str | Path], *, cpu_limit_s: float = 60.0) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self.cpu_limit_s = cpu_limit_s

    def indexes(self) -> tuple[Path, ...]:
        """Return the index files in the folders."""
        return tuple(path for folder in self.folders for path in sorted(folder.glob("index-*.fits")))

    def solve(
        self, *, x: Floats, y: Floats, flux: Floats, shape: tuple[int, int], scale_arcsec: tuple[float, float]
    ) -> BlindSolution:
        """Return where stars (0-based positions) of an image of ``shape`` (ny, nx) lie.

        ``scale_arcsec`` bounds the pixel scale. Raises MissingInput where program or index files lack and DataError
        where no place fits.
        """
        program, indexes = _program(_SOLVER), self.indexes()
        if not indexes:
            folders = ", ".join(map(str, self.folders))
            raise MissingInput(
                f"no index files for blind solving in {folders}: gueststar refcat index, or Debian's "
                "astrometry-data-tycho2 for fields above 20 arcmin"
            )
        with tempfile.TemporaryDirectory(prefix="gueststar-blind-") as name:
            folder = Path(name)
            order = np.argsort(-flux, kind="stable")[: _DEPTHS[-1]]
            write_star_list(folder / "stars.xyls", x=x[order], y=y[order], flux=flux[order])
            settings = [f"cpulimit {self.cpu_limit_s:.0f}", "depths " + " ".join(map(str, _DEPTHS))]
            (folder / "solver.cfg").write_text("\n".join([*settings, *(f"index {path}" for path in indexes)]) + "\n")
            _run(
                [
                    program, "--config", "solver.cfg", "--no-plots", "--no-tweak", "--no-remove-lines",
                    "--uniformize", "0", "--crpix-center", "--width", str(shape[1]), "--height", str(shape[0]),
                    "--scale-units", "arcsecperpix", "--scale-low", f"{scale_arcsec[0]:.6f}",
                    "--scale-high", f"{scale_arcsec[1]:.6f}", "--x-column", "X", "--y-column", "Y",
                    "--sort-column", "FLUX", "--dir", str(folder), "stars.xyls",
                ],
                folder, self.cpu_limit_s + _GRACE_S,
            )  # fmt: skip
            if not (folder / "stars.solved").exists():
                raise DataError(
                    f"no place in the sky fits the {order.size} brightest stars at {scale_arcsec[0]:.3f} to "
                    f"{scale_arcsec[1]:.3f} arcsec a pixel, by {len(indexes)} index files"
                )
            return read_blind_solution(folder / "stars.wcs", folder / "stars.match", shape)


def build_indexes(catalog: Catalog, magnitude: Floats, folder: Path, *, name: str, side_arcmin: float) -> list[Path]:
    """Make index files of a REFCAT catalog for images whose shorter side is ``side_arcmin``; return those made.

    They replace files of the same name. MissingInput where the program lacks, DataError where it finds no
    figures of stars.
    """
    program = _program(_INDEXER)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory(prefix="gueststar-index-", dir=folder) as temporary:
        table = Path(temporary) / "stars.fits"
        write_star_catalog(table, catalog, magnitude)
        for number, (low, high) in enumerate(_QUADS):
            target = f"index-{name}-{number}.fits"
            size = (low * side_arcmin, high * side_arcmin)
            _run(
                [
                    program, "-i", str(table), "-o", target, "-N", str(max(int(_CELLS_ARCMIN / size[0]), 1)),
                    "-l", f"{size[0]:.4f}", "-u", f"{size[1]:.4f}", "-S", "MAG", "-E", "-M", "-I",
                    str(100 + number), "-t", temporary, "-j", "0.5",
                ],
                Path(temporary), 3600.0,
            )  # fmt: skip
            if (Path(temporary) / target).is_file():
                made.append((Path(temporary) / target).rename(folder / target))
    if not made:
        raise DataError(f"no index could be made of the {catalog.n_rows} stars of {name}")
    return made


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingInput(f"the program {name} is not installed: {_MEND}")
    return found


def _run(command: list[str], folder: Path, limit_s: float) -> None:
    """Run an outside program; whether it did its work is told by the files it leaves."""
    try:
        subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise DataError(f"{Path(command[0]).name} did not end within {limit_s:.0f} s") from None
    except OSError as problem:
        raise TransientError(f"{Path(command[0]).name} cannot be run: {problem}") from None
