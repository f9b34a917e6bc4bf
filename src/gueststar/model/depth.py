"""How faint an image goes, place by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Limiting magnitudes of point sources in equal meshes that tile a detector image."""

    limit: NDArray[np.float32]
    """``[my, mx]`` AB magnitude whose PSF flux is ``n_sigma`` times its error; NaN: no usable pixel in the mesh."""
    shape: tuple[int, int]
    """(ny, nx) of the image."""
    n_sigma: float = 5.0

    def __post_init__(self) -> None:
        if self.limit.ndim != 2 or self.limit.size == 0:
            raise DataError(f"a depth map needs two dimensions and at least one mesh, got {self.limit.shape}")

    def at(self, *, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return the limit at pixel positions, linear between the meshes' middles; NaN in a mesh without one."""
        from scipy import ndimage

        at_x, at_y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        (my, mx), (ny, nx) = self.limit.shape, self.shape
        column, row = (at_x + 0.5) * mx / nx - 0.5, (at_y + 0.5) * my / ny - 0.5
        is_known = np.isfinite(self.limit)
        if not is_known.any():
            return np.full(at_x.shape, np.nan)
        nearest = ndimage.distance_transform_edt(~is_known, return_distances=False, return_indices=True)
        filled = self.limit.astype(np.float64)[tuple(nearest)]
        found = ndimage.map_coordinates(filled, [row.ravel(), column.ravel()], order=1, mode="nearest")
        cell = np.clip(np.rint(row), 0, my - 1).astype(int), np.clip(np.rint(column), 0, mx - 1).astype(int)
        return np.where(is_known[cell], found.reshape(at_x.shape), np.nan)

    def nearest(self, *, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return the limit of the mesh in which each pixel position lies; NaN beyond the image and where unknown."""

        at_x, at_y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        (my, mx), (ny, nx) = self.limit.shape, self.shape
        with np.errstate(invalid="ignore"):
            is_on = (at_x >= -0.5) & (at_x < nx - 0.5) & (at_y >= -0.5) & (at_y < ny - 0.5)
        column = np.where(is_on, (at_x + 0.5) * mx / nx, 0).astype(np.intp)
        row = np.where(is_on, (at_y + 0.5) * my / ny, 0).astype(np.intp)
        return np.where(is_on, self.limit[np.minimum(row, my - 1), np.minimum(column, mx - 1)], np.nan)

    def quantile(self, share: float) -> float | None:
        """Return the limit that a ``share`` of the meshes does not reach; None if none is known."""
        known = self.limit[np.isfinite(self.limit)]
        return float(np.quantile(known, share)) if known.size else None

    @property
    def median(self) -> float | None:
        """The limit of the typical mesh; None if none is known."""
        return self.quantile(0.5)
