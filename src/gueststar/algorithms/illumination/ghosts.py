"""Where the optics throw ghosts of bright stars, and how bright they are."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class GhostOptics(NamedTuple):
    """One family of reflections, in the focal plane."""

    scale: float
    """Distance of the ghost from the optical axis over that of the star: 1 on the star, -1 on the other side."""
    offset: tuple[float, float]
    """Of all its ghosts, arcsec (reflections by a tilted surface)."""
    radius: float
    """Outer, arcsec, of a star on the axis: the pupil out of focus."""
    obstruction: float
    """Inner over outer radius: the secondary's shadow."""
    shear: float
    """Displacement of the inner hole over that of the star from the axis (pupil walk), arcsec per arcsec."""
    fraction: float
    """Light of the star that is in its ghost."""


class Ghosts(NamedTuple):
    """Annuli in the focal plane, arcsec from the optical axis; arrays of equal length."""

    x: Floats
    y: Floats
    hole_x: Floats
    hole_y: Floats
    outer: Floats
    inner: Floats
    brightness: Floats
    """Flux per square arcsec, in the unit of the stars' flux."""


def predict_ghosts(*, x: Floats, y: Floats, flux: Floats, optics: GhostOptics) -> Ghosts:
    """Return the ghosts of stars at ``x``, ``y`` (arcsec from the optical axis, focal plane)."""
    area = np.pi * optics.radius**2 * (1.0 - optics.obstruction**2)
    at_x, at_y = optics.scale * x + optics.offset[0], optics.scale * y + optics.offset[1]
    same = np.full(np.shape(x), optics.radius)
    return Ghosts(
        at_x, at_y, at_x + optics.shear * x, at_y + optics.shear * y, same, optics.obstruction * same,
        np.asarray(flux * optics.fraction / area, dtype=np.float64),
    )  # fmt: skip


@numba.njit(cache=True)
def mark_annuli_in_place(mask, x, y, hole_x, hole_y, outer, inner, bit):  # type: ignore[no-untyped-def]
    """Set ``bit`` within discs (pixels) but for their holes; return the number of pixels that were marked."""
    ny, nx = mask.shape
    n = 0
    for i in range(x.size):
        for row in range(max(0, int(y[i] - outer[i])), min(ny, int(y[i] + outer[i]) + 2)):
            for column in range(max(0, int(x[i] - outer[i])), min(nx, int(x[i] + outer[i]) + 2)):
                if (row - y[i]) ** 2 + (column - x[i]) ** 2 > outer[i] ** 2:
                    continue
                if (row - hole_y[i]) ** 2 + (column - hole_x[i]) ** 2 < inner[i] ** 2:
                    continue
                n += (mask[row, column] & bit) == 0
                mask[row, column] |= bit
    return n
