"""The map of limiting magnitudes of a calibrated image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gueststar.algorithms.background.estimate import Background
from gueststar.algorithms.photocal.limiting import (
    effective_area,
    limiting_magnitude,
    mesh_edges,
    mesh_variance,
    sampled_area,
)
from gueststar.model.depth import DepthMap
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf

_PHASES = ((0.0, 0.0), (0.25, 0.25), (-0.25, 0.25), (0.25, -0.25), (-0.25, -0.25), (0.0, 0.42), (0.42, 0.0))
"""Centred, and places within a pixel over which a star's height in the filtered image is averaged."""


@dataclass(frozen=True)
class DepthConfig:
    """How the map of limiting magnitudes is made."""

    box: int = 128
    """Side of a mesh, pixels."""
    n_sigma: float = 5.0
    """Significance of a star at the limit."""


class MapDepth:
    """Say, mesh by mesh, how faint a star can be and still stand out."""

    def __init__(self, config: DepthConfig = DepthConfig()) -> None:
        self.config = config

    def run(self, pixels: MaskedImage, psf: Psf, photocal: PhotoCal, *, level_error: float = 0.0) -> DepthMap:
        """Return the map of an image on which one zero point holds.

        It follows from the variance of the usable pixels, sources included, the area of the PSF at each place, and
        ``level_error``, the error of the subtracted background (image units per pixel).
        """
        box, (ny, nx) = self.config.box, pixels.shape
        variance = mesh_variance(pixels.variance, pixels.is_usable(), box=box)
        rows, columns = (0.5 * (edges[1:] + edges[:-1]) - 0.5 for edges in (mesh_edges(ny, box), mesh_edges(nx, box)))
        x, y = (grid.ravel() for grid in np.meshgrid(columns, rows))
        area = np.array([effective_area(stamp) for stamp in psf.stamps(x=x, y=y)]).reshape(variance.shape)
        limit = limiting_magnitude(
            psf_effective_area=area * self._loss(psf), sky_variance=variance, zero_point=photocal.zero_point,
            n_sigma=self.config.n_sigma, level_error=level_error,
        )  # fmt: skip
        return DepthMap(limit.astype(np.float32), pixels.shape, self.config.n_sigma)

    @staticmethod
    def _loss(psf: Psf) -> float:
        """Return by how much the area grows because stars do not lie on the middles of pixels."""
        x, y = (psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2
        stamps = np.stack([psf.stamp(x=x, y=y, dx=dx, dy=dy) for dx, dy in _PHASES])
        return sampled_area(stamps) / effective_area(stamps[0])


def level_error_of(background: Background, box: int) -> float:
    """Return the error of the typical mesh's level: that of the median of its pixels without sources."""
    n_pixels = max(background.free_fraction, 0.01) * box**2
    return float(1.2533 * np.median(background.mesh_rms) / np.sqrt(n_pixels))
