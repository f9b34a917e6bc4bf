"""The sky that a field's detectors cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Camera, Detector
from gueststar.model.wcs import Wcs
from gueststar.simulation.ephemeris import separation_deg
from gueststar.simulation.tiles import SkyDisc

Floats = NDArray[np.float64]

_WIDEST_DEG = 20.0
"""No camera reaches farther from its boresight."""


@dataclass(frozen=True, eq=False)
class Footprint:
    """The detectors of a camera on a field, as nominally placed."""

    centre: tuple[float, float]
    """Boresight (ra, dec), degrees."""
    detectors: tuple[Detector, ...]
    wcs: tuple[Wcs, ...]
    margin: float
    """Pixels at the edges that may be missed by dithers and pointing errors."""

    def contains(self, ra: Floats, dec: Floats) -> NDArray[np.bool_]:
        """Return which positions fall on a detector, farther than the margin from its edges."""
        inside = np.zeros(np.shape(ra), dtype=bool)
        near = np.flatnonzero(separation_deg(ra, dec, *self.centre) < _WIDEST_DEG)
        for detector, wcs in zip(self.detectors, self.wcs, strict=True):
            x, y = wcs.sky_to_pixel(ra=ra[near], dec=dec[near])
            x0, y0, x1, y1 = self._limits(detector)
            inside[near] |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        return inside

    def discs(self, margin_deg: float) -> tuple[SkyDisc, ...]:
        """Return a disc about each detector that reaches ``margin_deg`` beyond its corners."""
        discs = []
        for detector, wcs in zip(self.detectors, self.wcs, strict=True):
            ny, nx = detector.shape
            ra, dec = wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
            half = 0.5 * np.hypot(nx, ny) * wcs.pixel_scale_arcsec / 3600.0
            discs.append(SkyDisc(float(ra), float(dec), float(half) + margin_deg))
        return tuple(discs)

    def random_positions(self, n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Return ``n`` positions that are uniform over the detectors without their margins, degrees."""
        limits = np.array([self._limits(detector) for detector in self.detectors])
        area = (limits[:, 2] - limits[:, 0]) * (limits[:, 3] - limits[:, 1])
        on = random.choice(len(self.detectors), size=n, p=area / area.sum())
        x = limits[on, 0] + random.random(n) * (limits[on, 2] - limits[on, 0])
        y = limits[on, 1] + random.random(n) * (limits[on, 3] - limits[on, 1])
        ra, dec = np.empty(n), np.empty(n)
        for k, wcs in enumerate(self.wcs):
            ra[on == k], dec[on == k] = wcs.pixel_to_sky(x=x[on == k], y=y[on == k])
        return ra, dec

    def _limits(self, detector: Detector) -> tuple[float, float, float, float]:
        ny, nx = detector.shape
        margin = min(self.margin, 0.2 * min(ny, nx))
        return margin, margin, nx - 1 - margin, ny - 1 - margin


def make_footprint(
    camera: Camera, detectors: tuple[Detector, ...], *, ra: float, dec: float, margin_arcsec: float
) -> Footprint:
    """Return the footprint of a pointing on some detectors."""
    wcs = tuple(camera.nominal_wcs(detector, ra=ra, dec=dec) for detector in detectors)
    return Footprint((ra, dec), detectors, wcs, margin_arcsec / camera.pixel_scale_arcsec)
