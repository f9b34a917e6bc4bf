"""On what artificial sources lie: the brightness of the static sky there, and the distance to bright stars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.core.bits import MaskPlane
from gueststar.model.image import CalibratedImage
from gueststar.pipelines.injection.place import ArtificialSources, Positions

Floats = NDArray[np.float64]

SEEN_SNR = 3.0
"""Light of less significance within the disc is not told from the sky."""


class Surroundings(NamedTuple):
    """Arrays of the length of the artificial sources."""

    surface_mag: Floats
    """Brightness of the static sky within one FWHM (a disc of that diameter), AB mag per square arcsec; NaN: only noise
    is seen there, or the brightness is not known."""
    bright_star_arcsec: Floats
    """Distance to the nearest bright star; NaN: there is none."""


class MeasureSurroundings:
    """Tell on what artificial sources lie."""

    def run(
        self, sources: ArtificialSources, static: CalibratedImage, *, bright_stars: Positions | None
    ) -> Surroundings:
        """Return the surroundings on ``static``: the warped reference, or the image before anything was put in."""
        n = sources.x.size
        distance = np.full(n, np.nan)
        if bright_stars is not None and bright_stars[0].size and n:
            pixels, _ = cKDTree(np.column_stack(bright_stars)).query(np.column_stack([sources.x, sources.y]))
            distance = np.asarray(pixels) * static.wcs.pixel_scale_arcsec
        return Surroundings(_surface_mag(sources, static), distance)


def _surface_mag(sources: ArtificialSources, static: CalibratedImage) -> Floats:
    pixels = static.pixels
    half = max(1, round(0.5 * static.psf.central_fwhm))
    offsets = np.arange(-half, half + 1)
    in_disc = np.hypot(*np.meshgrid(offsets, offsets)) <= max(1.0, 0.5 * static.psf.central_fwhm)
    row, column = np.nonzero(in_disc)
    dy, dx = row - half, column - half
    ny, nx = static.shape
    rows = np.clip(np.rint(sources.y).astype(int)[:, None] + dy, 0, ny - 1)
    columns = np.clip(np.rint(sources.x).astype(int)[:, None] + dx, 0, nx - 1)
    # A saturated core is bright, whatever its value: it is shown by its own pixels.
    known = (pixels.mask[rows, columns] & int(MaskPlane.NO_DATA | MaskPlane.BAD)) == 0
    count = np.maximum(known.sum(axis=1), 1)
    light = np.where(known, pixels.image[rows, columns], 0.0).sum(axis=1)
    noise = np.sqrt(np.where(known, pixels.variance[rows, columns], 0.0).sum(axis=1))
    area = count * static.wcs.pixel_scale_arcsec**2
    is_seen = known.any(axis=1) & (light > SEEN_SNR * noise)
    return np.where(is_seen, static.photocal.magnitude(light / area), np.nan)
