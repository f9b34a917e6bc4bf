"""The sky: a smooth level and its noise, from meshes in which sources are masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from gueststar.algorithms.background.mesh import (
    bin_pixels,
    expand_cells,
    mark_deviant,
    mesh_noise,
    mesh_statistics,
    with_margin,
)
from gueststar.algorithms.stats.robust import median_and_sigma

_SMOOTHED = 0.375
"""Noise of cells smoothed by a 3 x 3 binomial, as a fraction of that of one."""
_WITHIN = 2.0
"""Change of the sky within a mesh that is no source, as a multiple of the typical change from one to the next."""

_MOST_MASKED = 0.6
"""Sources get a margin except in meshes so crowded that more than this part would be masked."""
_UNRESOLVED = 0.03
"""Error between the middles of meshes as a fraction of the scatter that is expected within a mesh."""


@dataclass(frozen=True)
class BackgroundConfig:
    """How the sky is estimated."""

    box: int = 128
    """Side of a mesh, pixels: structure smaller than about twice this stays in the image."""
    cell: int = 4
    """Sources are searched on cells of this many pixels a side."""
    iterations: int = 4
    """Rounds of masking sources and measuring the level."""
    threshold: float = 2.5
    """Smoothed cells further than this many sigma from the level are sources."""
    min_free_fraction: float = 0.15
    """A mesh with less than this fraction of its cells free of sources is filled from its neighbours."""
    filter_size: int = 3
    """Side of the median filter over the meshes (1: none)."""


class Background(NamedTuple):
    """Sky level and noise of an image, in its unit."""

    level: NDArray[np.float32]
    """Sky of every pixel."""
    rms: NDArray[np.float32]
    """Standard deviation of the noise of one pixel of sky."""
    mesh_level: NDArray[np.float64]
    """Level of every mesh, after filling and filtering."""
    mesh_rms: NDArray[np.float64]
    """Noise of every mesh, after filling and filtering."""
    free_fraction: float
    """Fraction of the unmasked cells in which no source was found."""
    mesh_error: NDArray[np.float64]
    """Error of the level of every mesh: noise, structure that meshes do not resolve, and filling from neighbours."""

    def error_map(self, cell: int = 4) -> NDArray[np.float32]:
        """Return the error of the level of every pixel, joined from that of the meshes as the level is."""
        ny, nx = self.level.shape
        cell = max(1, min(cell, min(ny, nx) // 16))
        sizes = [(n + cell - 1) // cell for n in (ny, nx)]
        edges = [_edges_of(n, count) for n, count in zip(sizes, self.mesh_error.shape, strict=True)]
        along = [_spline_operator(part, n) for part, n in zip(edges, sizes, strict=True)]
        return np.asarray(expand_cells(_join_positive(self.mesh_error, *along), cell, ny, nx), dtype=np.float32)


def estimate_background(
    image: NDArray[np.float32],
    is_masked: NDArray[np.bool_],
    *,
    box: int | None = None,
    config: BackgroundConfig = BackgroundConfig(),
) -> Background:
    """Estimate sky level and noise of every pixel of an image.

    The image is binned into small cells; cells that stand out from the level are masked as sources
    with a margin, and the level of each mesh is the clipped median of what is left, until it
    settles. Masking both signs of deviation keeps plain noise unbiased. Meshes without free cells
    are filled from their neighbours; the grid is median filtered and joined by a natural bicubic
    spline from cell to cell (linearly within a cell), continued linearly beyond the outermost mesh
    centres. The rms comes from the scatter within cells.

    ``is_masked`` pixels and non-finite ones are ignored. ``box`` overrides ``config.box``. Raises ValueError
    if no pixel is usable.
    """
    side = box or config.box
    cell = max(1, min(config.cell, min(image.shape) // 16))
    values, variance, number = bin_pixels(image, is_masked, cell)
    is_empty = number < 0.5 * cell**2
    if is_empty.all():
        raise ValueError("no usable pixel to estimate a background from")
    edges_y, edges_x = (_mesh_edges(n, side / cell) for n in values.shape)
    splines = [_spline_operator(edges, n) for edges, n in zip((edges_y, edges_x), values.shape, strict=True)]
    area = np.outer(np.diff(edges_y), np.diff(edges_x))
    is_source = is_empty
    for iteration in range(config.iterations):
        mesh_level, mesh_sigma, n_free = mesh_statistics(values, is_source, edges_y, edges_x)
        is_good = (n_free >= config.min_free_fraction * area) & (mesh_sigma > 0)
        measured, scatter = mesh_level, mesh_sigma
        structure = _structure(measured, is_good)
        mesh_level = _filled_and_filtered(mesh_level, is_good, config.filter_size, kept=structure.share)
        mesh_sigma = _filled_and_filtered(mesh_sigma, is_good, config.filter_size)
        if iteration == config.iterations - 1:
            break
        level = _join(mesh_level, *splines)
        tolerance = np.hypot(np.maximum(mesh_sigma, 1e-6 * (1.0 + np.abs(mesh_level))), structure.within_meshes)
        sigma = _join_positive(tolerance, *splines)
        core = mark_deviant(values, is_empty, level, sigma, config.threshold)
        is_source = is_empty | with_margin(core, edges_y, edges_x, _MOST_MASKED)
    noise = mesh_noise(variance, number, is_source, edges_y, edges_x)
    mesh_rms = _filled_and_filtered(noise, noise > 0, config.filter_size)
    mesh_rms = np.maximum(mesh_rms, 1e-6 * (1.0 + np.abs(mesh_level)))
    shape = image.shape
    return Background(
        level=expand_cells(_join(mesh_level, *splines), cell, *shape),
        rms=expand_cells(_join_positive(mesh_rms, *splines), cell, *shape),
        mesh_level=mesh_level,
        mesh_rms=mesh_rms,
        free_fraction=float(np.mean(~is_source[~is_empty])),
        mesh_error=_mesh_error(measured, mesh_level, scatter, n_free, is_good, _UNRESOLVED * structure.within_meshes),
    )


def _mesh_edges(n: int, side: float) -> NDArray[np.int64]:
    """Return the bounds of nearly equal meshes that divide ``n`` cells, at least one."""
    return _edges_of(n, max(1, round(n / side)))


def _edges_of(n: int, count: int) -> NDArray[np.int64]:
    return np.round(np.linspace(0, n, count + 1)).astype(np.int64)


def _spline_operator(edges: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """Return the (n, number of meshes) matrix that carries values at mesh centres to ``n`` positions.

    A natural cubic spline within the outermost centres, its tangent beyond; linear for fewer than four meshes.
    """
    centres = (edges[1:] + np.minimum(edges[:-1], n - 1) - 1) / 2.0
    if centres.size == 1:
        return np.ones((n, 1), np.float32)
    is_cubic = centres.size >= 4
    spline = make_interp_spline(
        centres, np.eye(centres.size), k=3 if is_cubic else 1, bc_type="natural" if is_cubic else None
    )
    positions = np.arange(n, dtype=float)
    operator = np.asarray(spline(np.clip(positions, centres[0], centres[-1])))
    for end, is_beyond in ((centres[0], positions < centres[0]), (centres[-1], positions > centres[-1])):
        slope = np.asarray(spline(end, 1))
        operator[is_beyond] = spline(end) + (positions[is_beyond] - end)[:, None] * slope
    return operator.astype(np.float32)


def _join(mesh: NDArray[np.float64], along_y: NDArray[np.float32], along_x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the grid's values at every position; the mean is carried apart for the sake of float32."""
    mean = float(mesh.mean())
    joined = (along_y @ (mesh - mean).astype(np.float32)) @ along_x.T
    joined += np.float32(mean)
    return joined


def _join_positive(
    mesh: NDArray[np.float64], along_y: NDArray[np.float32], along_x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the grid's values at every position; a spline that dips between steep meshes is held positive."""
    return np.maximum(_join(mesh, along_y, along_x), np.float32(0.5 * mesh.min()))


class _Structure(NamedTuple):
    """How much of the differences between meshes is sky (nebulosity), not noise."""

    share: float
    """0: all is noise or sources; 1: neighbours go together, the meshes resolve it."""
    within_meshes: float
    """Scatter to be expected within a mesh because the sky changes over it."""


def _structure(level: NDArray[np.float64], is_good: NDArray[np.bool_]) -> _Structure:
    """Return what the covariance of neighbouring meshes tells: noise and crowding have none, nebulosity much.

    A smooth trend is taken out; single meshes (a galaxy) are clipped.
    """
    if is_good.sum() < 20 or min(level.shape) < 4:
        return _Structure(0.0, 0.0)
    off = np.where(is_good, level - _smooth_trend(level, is_good), 0.0)
    limit = 4.0 * median_and_sigma(off[is_good])[1]
    off = np.clip(off, -limit, limit)
    pairs = [
        (off[1:], off[:-1], is_good[1:] & is_good[:-1]),
        (off[:, 1:], off[:, :-1], is_good[:, 1:] & is_good[:, :-1]),
    ]
    one, other = (np.concatenate([pair[k][pair[2]] for pair in pairs]) for k in (0, 1))
    variance = float(np.mean(off[is_good] ** 2))
    if variance <= 0.0 or one.size < 20:
        return _Structure(0.0, 0.0)
    # A third of chance correlation is what few meshes of plain noise may show.
    share = float(np.clip((np.mean(one * other) / variance - 0.33) / 0.33, 0.0, 1.0))
    return _Structure(share, share * _WITHIN * float(median_and_sigma(one - other)[1]) / _SMOOTHED)


def _filled_and_filtered(
    mesh: NDArray[np.float64], is_good: NDArray[np.bool_], filter_size: int, *, kept: float = 0.0
) -> NDArray[np.float64]:
    """Return the grid with its bad meshes filled from near good ones, then median filtered.

    ``kept`` is the share of the differences from the filtered grid that is structure and stays, but for outliers. A
    smooth trend (a robust polynomial) is taken out before and put back after: a median filter would flatten slopes
    at the edges, where it has neighbours on one side only.
    """
    if not is_good.any():
        is_good = np.ones_like(is_good)
    trend = _smooth_trend(mesh, is_good)
    mesh = mesh - trend
    filled = mesh.copy()
    is_left = ~is_good
    width = 0.7
    while is_left.any():
        weight = ndimage.gaussian_filter(is_good.astype(float), width, mode="constant", truncate=3.0)
        total = ndimage.gaussian_filter(np.where(is_good, mesh, 0.0), width, mode="constant", truncate=3.0)
        can_fill = is_left & (weight > 1e-3)
        filled[can_fill] = total[can_fill] / weight[can_fill]
        is_left &= ~can_fill
        width *= 2.0
    if filter_size > 1:
        smooth = ndimage.median_filter(filled, filter_size, mode="nearest")
        off = np.where(is_good, filled - smooth, 0.0)
        limit = 4.0 * median_and_sigma(off[is_good])[1]
        filled = smooth + kept * np.where(np.abs(off) < limit, off, 0.0)
    return filled + trend


def _smooth_trend(mesh: NDArray[np.float64], is_good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the polynomial (second order, first for few meshes) that most good meshes follow."""
    ny, nx = mesh.shape
    v, u = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    if is_good.sum() >= 20 and min(ny, nx) >= 4:
        terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    elif is_good.sum() >= 6 and min(ny, nx) >= 2:
        terms = np.stack([np.ones_like(u), u, v], axis=-1)
    else:
        terms = np.ones((ny, nx, 1))
    is_kept = is_good.copy()
    for _ in range(4):
        coefficients = np.linalg.lstsq(terms[is_kept], mesh[is_kept], rcond=None)[0]
        off = np.abs(mesh - terms @ coefficients)
        is_now_kept = is_good & (off <= 4.0 * median_and_sigma(off[is_good])[1] + 3.0 * np.median(off[is_good]))
        if is_now_kept.sum() <= terms.shape[-1] or np.array_equal(is_now_kept, is_kept):
            break
        is_kept = is_now_kept
    return np.asarray(terms @ coefficients)


def _mesh_error(
    measured: NDArray[np.float64],
    level: NDArray[np.float64],
    scatter: NDArray[np.float64],
    n_free: NDArray[np.int64],
    is_good: NDArray[np.bool_],
    unresolved: float,
) -> NDArray[np.float64]:
    """Return the error of the meshes' final ``level``, given what was ``measured`` in each.

    How far measured levels lie from their median-filtered neighbourhood tells noise and structure together. Of the
    noise that of a mesh is known, from the ``scatter`` of its ``n_free`` values; filter and splines leave a third of
    its variance. Structure that the filter smoothed away stays as error whole. Meshes that were filled have the
    structure's error twice, as two steps of a random walk have. What changes within a mesh is ``unresolved``.
    """
    is_known = is_good & (n_free > 0)
    if not is_known.any():
        return np.maximum(np.abs(scatter), 1e-6)
    noise = np.where(is_known, 1.2533**2 * scatter**2 / np.maximum(n_free, 1), 0.0)
    square = np.where(is_known, (measured - level) ** 2, 0.0)
    weight = ndimage.uniform_filter(is_known.astype(float), 5, mode="constant")
    has_neighbours = weight > 1e-3
    near_noise, near_square = (
        np.where(
            has_neighbours,
            ndimage.uniform_filter(part, 5, mode="constant") / np.maximum(weight, 1e-3),
            part[is_known].mean(),
        )
        for part in (noise, square)
    )
    structure = np.maximum(near_square - near_noise, 0.0)
    own = np.where(is_known, noise, near_noise)
    variance = 0.35 * own + np.where(is_known, 1.0, 2.0) * structure + np.where(is_known, 0.0, near_square)
    return np.sqrt(np.maximum(variance + unresolved**2, 1e-12))
