"""PSF models carried onto other grids and averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.warp.coadd import Matching
from gueststar.algorithms.warp.matching import matching_kernels, mismatch_of, nyquist_transform
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


class WarpedNodes(NamedTuple):
    """A PSF as it is on a new grid, at the centres of its cells."""

    covered: NDArray[np.bool_]
    """Cells, row after row, whose centre lies on the PSF's image."""
    stamps: NDArray[np.float32]
    """``[n_covered, side, side]``"""
    order: int
    """Of the PSF's polynomial."""


def warped_nodes(
    psfs: Sequence[Psf], position_maps: Sequence[PositionMap], *, taps: int = 3, nodes: int = 6
) -> list[WarpedNodes]:
    """Return PSFs of images on one new grid at the centres of ``nodes`` x ``nodes`` cells, stamps of one size."""
    x, y = cell_centres(position_maps[0].shape, (nodes, nodes))
    side = max(_target_side(psf, m.scale) for psf, m in zip(psfs, position_maps, strict=True))
    return [
        WarpedNodes(*_warped_stamps(psf, position_map, x, y, side, taps), psf.order)
        for psf, position_map in zip(psfs, position_maps, strict=True)
    ]


def mean_warped_psf(
    psfs: Sequence[Psf], position_maps: Sequence[PositionMap], weights: Floats, *, taps: int = 3, nodes: int = 6
) -> Psf:
    """Return the weighted mean of PSFs of images on one new grid; each counts where its image reaches."""
    return mean_of_nodes(warped_nodes(psfs, position_maps, taps=taps, nodes=nodes), weights, position_maps[0].shape)


def mean_of_nodes(warped: Sequence[WarpedNodes], weights: Floats, shape: tuple[int, int]) -> Psf:
    """Return the weighted mean of PSFs on one grid as a model over it; each counts at the cells that it covers.

    Raises DataError when no cell is covered.
    """
    nodes = math.isqrt(warped[0].covered.size)
    x, y = cell_centres(shape, (nodes, nodes))
    side = warped[0].stamps.shape[-1]
    total, weight = np.zeros((x.size, side, side)), np.zeros(x.size)
    for (covered, stamps, _), w in zip(warped, weights, strict=True):
        total[covered] += w * stamps
        weight[covered] += w
    known = weight > 0
    if not known.any():
        raise DataError("no part of the target image lies on the source image")
    stamps = (total[known] / weight[known, None, None]).astype(np.float32)
    order = max(item.order for item in warped)
    while order > 0 and known.sum() < (order + 1) * (order + 2):
        order -= 1
    return Psf(fit_psf_polynomial(stamps, x=x[known], y=y[known], shape=shape, order=order), order, shape)


def matching_to_median(
    warped: Sequence[WarpedNodes], shape: tuple[int, int], *, fwhm: float, regularisation: float = 1e-4
) -> Matching:
    """Return the kernels that give the median of epochs each epoch's PSF, ``fwhm`` (pixels) the widest of them.

    The median of the images has the median PSF, pixel by pixel. Where an epoch does not reach a cell's centre, the
    kernel of its nearest cell is taken.
    """
    nodes, n = math.isqrt(warped[0].covered.size), len(warped)
    half = int(np.clip(round(2.2 * fwhm), 5, 12))
    side = warped[0].stamps.shape[-1]
    stamps = np.full((n, nodes * nodes, side, side), np.nan, np.float32)
    for k, item in enumerate(warped):
        stamps[k, item.covered] = item.stamps
    kernels = np.zeros((n, nodes * nodes, 2 * half + 1, 2 * half + 1), np.float32)
    kernels[:, :, half, half] = 1.0
    for cell in np.flatnonzero(np.any([item.covered for item in warped], axis=0)):
        median = np.nanmedian(stamps[:, cell], axis=0)
        median /= median.sum()
        known = np.array([item.covered[cell] for item in warped])
        own = np.broadcast_to(median, (int(known.sum()), side, side))
        kernels[known, cell] = matching_kernels(own, stamps[known, cell], half=half, regularisation=regularisation)
    for k, item in enumerate(warped):
        kernels[k] = kernels[k][_nearest_covered(item.covered, nodes)]
    grid = kernels.reshape(n, nodes, nodes, 2 * half + 1, 2 * half + 1)
    aliased = np.array([nyquist_transform(item.stamps) if item.covered.any() else 0.0 for item in warped])
    return Matching(grid, mismatch_of(grid), aliased, (shape[0] / nodes, shape[1] / nodes))


def widest_of(warped: Sequence[WarpedNodes], shape: tuple[int, int], fwhms: Floats) -> WarpedNodes:
    """Return one PSF for the whole grid that every epoch can be given without being sharpened.

    That of the widest epoch at the middle of the grid, made round and even: each cell has the same.
    """
    from scipy.signal import convolve2d  # on first use: it brings scipy.stats, which takes a second

    widest = warped[int(np.argmax(fwhms))]
    number = int(np.argsort(_distance_from_middle(widest.covered))[0])
    stamp = widest.stamps[number]
    even = np.mean([np.rot90(stamp, k) for k in range(4)], axis=0)
    side = stamp.shape[0]
    offset = np.arange(side) - side // 2
    wider = np.exp(-0.5 * (offset / 0.35) ** 2)  # ellipticity of others lies within its width
    even = convolve2d(even, np.outer(wider, wider) / wider.sum() ** 2, mode="same")
    stamps = np.repeat((even / even.sum())[None].astype(np.float32), widest.covered.size, axis=0)
    return WarpedNodes(np.ones(widest.covered.size, np.bool_), stamps, 0)


def kernels_to(
    warped: Sequence[WarpedNodes], target: WarpedNodes, *, fwhm: float, regularisation: float = 1e-4
) -> NDArray[np.float32]:
    """Return ``[n, n_y, n_x, k, k]``: the kernels that give each epoch the PSF ``target``, ``fwhm`` (pixels) wide."""
    nodes = math.isqrt(target.covered.size)
    half = int(np.clip(round(2.2 * fwhm), 5, 12))
    kernels = np.zeros((len(warped), nodes * nodes, 2 * half + 1, 2 * half + 1), np.float32)
    kernels[:, :, half, half] = 1.0
    for k, item in enumerate(warped):
        if item.covered.any():
            wanted = target.stamps[item.covered]
            kernels[k, item.covered] = matching_kernels(item.stamps, wanted, half=half, regularisation=regularisation)
            kernels[k] = kernels[k][_nearest_covered(item.covered, nodes)]
    return kernels.reshape(len(warped), nodes, nodes, 2 * half + 1, 2 * half + 1)


def _distance_from_middle(covered: NDArray[np.bool_]) -> Floats:
    """Return the squared distance of each covered cell from the middle of the grid, in cells."""
    nodes = math.isqrt(covered.size)
    row, column = np.divmod(np.flatnonzero(covered), nodes)
    return np.asarray((row - (nodes - 1) / 2) ** 2 + (column - (nodes - 1) / 2) ** 2)


def _nearest_covered(covered: NDArray[np.bool_], nodes: int) -> NDArray[np.intp]:
    """Return the number of the nearest covered cell of every cell; its own where there is none."""
    if not covered.any():
        return np.arange(covered.size)
    row, column = np.divmod(np.arange(covered.size), nodes)
    known = np.flatnonzero(covered)
    distance = (row[:, None] - row[known]) ** 2 + (column[:, None] - column[known]) ** 2
    return known[np.argmin(distance, axis=1)]


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
