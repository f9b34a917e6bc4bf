"""PSF models carried onto other grids and averaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.warp.position_map import PositionMap, map_jacobians, map_positions
from gueststar.algorithms.warp.psf import fit_psf_polynomial, warp_psf_stamps
from gueststar.core.errors import DataError
from gueststar.model.psf import Psf

Floats = NDArray[np.float64]
MAX_HALF_SIDE = 50
"""Largest half-side of a warped stamp, pixels."""


def warp_psf(psf: Psf, position_map: PositionMap, *, taps: int = 3, nodes: int = 6) -> Psf:
    """Return ``psf`` as it is after its image was resampled by ``position_map``, as a model on the new grid.

    Raises DataError when no part of the new grid lies on the old image.
    """
    return mean_warped_psf([psf], [position_map], np.ones(1), taps=taps, nodes=nodes)


def mean_warped_psf(
    psfs: list[Psf], position_maps: list[PositionMap], weights: Floats, *, taps: int = 3, nodes: int = 6
) -> Psf:
    """Return the weighted mean of PSFs of images on one new grid; each counts where its image reaches."""
    shape = position_maps[0].shape
    x, y = cell_centres(shape, (nodes, nodes))
    side = max(_target_side(psf, m.scale) for psf, m in zip(psfs, position_maps, strict=True))
    total, weight = np.zeros((x.size, side, side)), np.zeros(x.size)
    for psf, position_map, w in zip(psfs, position_maps, weights, strict=True):
        covered, stamps = _warped_stamps(psf, position_map, x, y, side, taps)
        total[covered] += w * stamps
        weight[covered] += w
    known = weight > 0
    if not known.any():
        raise DataError("no part of the target image lies on the source image")
    stamps = (total[known] / weight[known, None, None]).astype(np.float32)
    order = max(psf.order for psf in psfs)
    while order > 0 and known.sum() < (order + 1) * (order + 2):
        order -= 1
    return Psf(fit_psf_polynomial(stamps, x=x[known], y=y[known], shape=shape, order=order), order, shape)


def _warped_stamps(
    psf: Psf, position_map: PositionMap, x: Floats, y: Floats, side: int, taps: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return which nodes lie on the PSF's image, and the stamps there."""
    source_x, source_y = map_positions(position_map, x=x, y=y)
    jacobians = map_jacobians(position_map, x=x, y=y)
    ny, nx = psf.shape
    with np.errstate(invalid="ignore"):
        covered = (source_x > -1) & (source_y > -1) & (source_x < nx) & (source_y < ny)
    covered &= np.isfinite(jacobians).all(axis=(1, 2))
    if not covered.any():
        return covered, np.zeros((0, side, side), np.float32)
    stamps = psf.stamps(x=source_x[covered], y=source_y[covered])
    return covered, warp_psf_stamps(stamps, jacobians[covered], side=side, taps=taps)


def _target_side(psf: Psf, scale: float) -> int:
    half = psf.coefficients.shape[1] / 2 / psf.oversampling
    return 2 * int(np.clip(round(half / scale), 5, MAX_HALF_SIDE)) + 1
