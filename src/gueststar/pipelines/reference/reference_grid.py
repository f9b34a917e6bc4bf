"""The grid of a reference image: fixed for a field and a detector, whatever the epochs."""

from __future__ import annotations

from dataclasses import replace

from gueststar.model.camera import Camera, Detector
from gueststar.model.wcs import Wcs


def reference_grid(
    camera: Camera, detector: Detector, *, ra: float, dec: float, padding: int = 100, rotation_deg: float = 0.0
) -> tuple[Wcs, tuple[int, int]]:
    """Return the undistorted WCS and (ny, nx) of the reference of one detector for the field centred at (ra, dec).

    The tangent point is the detector's nominal centre, the orientation its own, so that science images hardly
    turn on it; ``padding`` pixels on each side take up dithers and pointing errors.
    """
    wcs = camera.nominal_wcs(detector, ra=ra, dec=dec, rotation_deg=rotation_deg)
    ny, nx = detector.shape
    return replace(wcs, crpix=(wcs.crpix[0] + padding, wcs.crpix[1] + padding)), (ny + 2 * padding, nx + 2 * padding)
