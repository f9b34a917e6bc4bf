"""How faint an image goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.stats.select import median_of

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SAMPLED_SIDE = 32
"""Of each mesh at most so many rows and columns are looked at."""


def limiting_magnitude(
    *, psf_effective_area: ArrayLike, sky_variance: ArrayLike, zero_point: ArrayLike, n_sigma: float = 5.0,
    level_error: ArrayLike = 0.0,
) -> Floats:  # fmt: skip
    """Return the magnitude of a point source whose PSF flux is ``n_sigma`` times its error.

    ``psf_effective_area`` is the noise-equivalent area A = 1 / sum(p**2) in pixels, ``sky_variance`` the
    variance of a pixel without sources (image units squared), ``level_error`` the error of the background that was
    subtracted (image units per pixel), which enters a flux A times; arrays give maps. NaN where the variance or the
    area is not positive.
    """
    area = np.asarray(psf_effective_area, dtype=np.float64)
    white = np.asarray(sky_variance, dtype=np.float64) * area
    variance = white + (area * np.asarray(level_error, dtype=np.float64)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.asarray(zero_point) - 2.5 * np.log10(n_sigma * np.sqrt(variance))
    return np.where((white > 0) & np.isfinite(variance), limit, np.nan)


def effective_area(psf: NDArray[np.floating]) -> float:
    """Return the noise-equivalent area, pixels, of a PSF stamp: (sum p)**2 / sum p**2."""
    values = np.asarray(psf, dtype=np.float64)
    return float(values.sum() ** 2 / (values**2).sum())


def sampled_area(stamps: NDArray[np.floating]) -> float:
    """Return the noise-equivalent area for detection, from stamps ``[n, k, k]`` of one star at phases within a pixel.

    The first is centred and is the filter. A matched filter is looked at on whole pixels, where a star that lies
    between them shows the mean over phases of its height only: that much more flux is needed.
    """
    values = np.asarray(stamps, dtype=np.float64)
    height = np.einsum("nij,ij->n", values, values[0]) / np.sum(values[0] ** 2)
    return float(effective_area(values[0]) / np.mean(height) ** 2)


def mesh_edges(size: int, box: int) -> NDArray[np.intp]:
    """Return the bounds of the nearly equal meshes of about ``box`` pixels that divide ``size`` pixels."""
    count = max(1, round(size / box))
    return np.round(np.linspace(0, size, count + 1)).astype(np.intp)


def mesh_variance(variance: NDArray[np.float32], is_usable: Bools, *, box: int, min_usable: float = 0.1) -> Floats:
    """Return the median variance of the usable pixels of each mesh; NaN where fewer than a share are usable.

    The noise of the sources is in it: where they cover half of a mesh they set its limit.
    """
    rows, columns = (mesh_edges(n, box) for n in variance.shape)
    out = np.full((rows.size - 1, columns.size - 1), np.nan)
    for j in range(rows.size - 1):
        for i in range(columns.size - 1):
            step_y, step_x = (
                max(1, (edges[k + 1] - edges[k]) // _SAMPLED_SIDE) for edges, k in ((rows, j), (columns, i))
            )
            part = np.s_[rows[j] : rows[j + 1] : step_y, columns[i] : columns[i + 1] : step_x]
            good = is_usable[part]
            if good.any() and good.mean() >= min_usable:
                out[j, i] = median_of(variance[part][good])
    return out
