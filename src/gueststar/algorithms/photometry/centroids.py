"""Hold fitted positions against windowed centroids: what the PSF model leaves uncertain of bright stars' places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.fit import cutouts
from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.psf.simultaneous import SourceErrors
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]

_STEP = 0.05
"""Pixels by which models are moved to measure how windowed centroids follow."""


class CentroidOffsets(NamedTuple):
    """Windowed centroid less fitted position of stars along x and y, pixels, and what noise makes of it."""

    x: Floats64
    y: Floats64
    x_err: Floats64
    y_err: Floats64


def centroid_offsets(
    scene: Scene, psf: SplinePsf, stars: SourceState, errors: SourceErrors, *, fwhm: float
) -> CentroidOffsets:
    """Return how far the Gaussian-windowed centroids of ``stars`` are from those that their fitted models have.

    The window is as wide as the PSF (``fwhm``, pixels). Both estimates hold the same photons: noise moves one against
    the other by the difference of their variances. What remains is that the star's shape is not the model's. Stars with
    masked pixels in the window should not be given.
    """
    half = min(int(np.ceil(1.5 * fwhm)), psf.half)
    ix, iy = np.rint(stars.x).astype(np.int64), np.rint(stars.y).astype(np.int64)
    dx, dy = stars.x - ix, stars.y - iy
    g = np.arange(-half, half + 1)
    u, v = g[None, None, :] - dx[:, None, None], g[None, :, None] - dy[:, None, None]
    window = np.exp(-0.5 * (u**2 + v**2) / (fwhm / 2.3548) ** 2)
    residual = cutouts(scene.residual, ix, iy, half, 0.0)
    place = {"x": stars.x, "y": stars.y, "radius": half}
    model = stars.flux[:, None, None] * shifted_stamps(psf, dx=dx, dy=dy, **place)  # type: ignore[arg-type]
    variance = cutouts(scene.sky_variance, ix, iy, half, 1.0) + scene.slope * np.maximum(model, 0.0)
    found = []
    for lever, shift, fit_err in ((u, (_STEP, 0.0), errors.x_err), (v, (0.0, _STEP), errors.y_err)):
        weight = window * lever
        ahead = shifted_stamps(psf, dx=dx + shift[0], dy=dy + shift[1], **place)  # type: ignore[arg-type]
        behind = shifted_stamps(psf, dx=dx - shift[0], dy=dy - shift[1], **place)  # type: ignore[arg-type]
        follows = stars.flux * np.sum(weight * (ahead - behind), axis=(1, 2)) / (2.0 * _STEP)
        offset = np.sum(weight * residual, axis=(1, 2)) / follows
        of_window = np.sum(weight**2 * variance, axis=(1, 2)) / follows**2
        found.append((offset, np.sqrt(np.maximum(of_window - fit_err**2, 0.0))))
    (x, x_err), (y, y_err) = found
    return CentroidOffsets(x, y, x_err, y_err)
