"""Ghosts of bright stars, where the camera's description foretells them, marked on an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.astrometry.tangent import identity_tpv
from gueststar.algorithms.illumination.ghosts import GhostOptics, mark_annuli_in_place, predict_ghosts
from gueststar.core.bits import MaskPlane
from gueststar.model.camera import Camera, Detector, Ghost
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import brightness_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GhostConfig:
    """Which ghosts are marked."""

    level: float = 0.5
    """A ghost is marked if its light per pixel is so many times the noise of the sky."""
    margin_pixels: float = 3.0
    """By how much it is marked larger than foretold, and its hole smaller."""


class SkyDisc(NamedTuple):
    """A piece of the sky, degrees."""

    ra: float
    dec: float
    radius_deg: float


class MarkedImage(NamedTuple):
    """An image with GHOST set, and what was marked."""

    pixels: MaskedImage
    metrics: dict[str, Any]


class MarkGhosts:
    """Foretell the ghosts of catalog stars, those off the detector too, and mark the bright ones."""

    def __init__(self, config: GhostConfig = GhostConfig()) -> None:
        self.config = config

    def regions(self, camera: Camera, detector: Detector, wcs: Wcs) -> list[SkyDisc]:
        """Return the pieces of the sky whose stars may throw a ghost of each family on this detector."""
        ny, nx = detector.shape
        linear = _linear_wcs(wcs, detector)
        frame = _FocalPlane(camera, detector)
        middle = frame.to_arcsec(x=np.array([(nx - 1) / 2]), y=np.array([(ny - 1) / 2]))
        half = 0.5 * float(np.hypot(nx, ny)) * camera.pixel_scale_arcsec
        regions = []
        for ghost in camera.ghosts:
            centre = (middle - np.array(ghost.offset_arcsec)[:, None]) / ghost.scale
            x, y = frame.to_pixel(centre)
            ra, dec = linear.pixel_to_sky(x=x, y=y)
            radius = (half + ghost.radius_arcsec) / abs(ghost.scale) / 3600.0
            regions.append(SkyDisc(float(ra[0]), float(dec[0]), radius))
        return regions

    def run(
        self,
        pixels: MaskedImage,
        *,
        camera: Camera,
        detector: Detector,
        wcs: Wcs,
        photocal: PhotoCal,
        stars: list[Catalog],
        epoch_year: float,
        sky_rms: float,
    ) -> MarkedImage:
        """Return ``pixels`` with GHOST set where a ghost outshines ``level`` times ``sky_rms`` (image units).

        ``stars`` are the reference stars (REFCAT) of each of `regions`, in the order of ``camera.ghosts``.
        """
        mask, counts = pixels.mask.copy(), {}
        for ghost, found in zip(camera.ghosts, stars, strict=True):
            counts[ghost.name] = self._mark(mask, ghost, found, camera, detector, wcs, photocal, epoch_year, sky_rms)
        fraction = float(((mask & int(MaskPlane.GHOST)) != 0).mean())
        metrics = {"n_ghosts": counts, "ghost_fraction": fraction}
        return MarkedImage(MaskedImage(pixels.image, pixels.variance, mask), metrics)

    def _mark(
        self, mask: NDArray[np.int32], ghost: Ghost, stars: Catalog, camera: Camera, detector: Detector, wcs: Wcs,
        photocal: PhotoCal, epoch_year: float, sky_rms: float,
    ) -> int:  # fmt: skip
        """Mark the ghosts of one family; return how many were bright enough."""
        flux = photocal.flux(brightness_of(stars, photocal.band or "r"))
        pixel_area = camera.pixel_scale_arcsec**2
        optics = GhostOptics(
            ghost.scale, ghost.offset_arcsec, ghost.radius_arcsec, ghost.obstruction, ghost.shear, ghost.fraction
        )
        area = np.pi * ghost.radius_arcsec**2 * (1.0 - ghost.obstruction**2)
        bright = np.flatnonzero(flux * ghost.fraction / area * pixel_area > self.config.level * sky_rms)
        if bright.size == 0:
            return 0
        stars, flux = stars.select(bright), flux[bright]
        ra, dec = propagate_positions(
            ra=stars["ra"], dec=stars["dec"], pm_ra=stars["pm_ra"], pm_dec=stars["pm_dec"],
            years=epoch_year - np.asarray(stars["epoch"], dtype=np.float64),
        )  # fmt: skip
        x, y = _linear_wcs(wcs, detector).sky_to_pixel(ra=ra, dec=dec)
        frame = _FocalPlane(camera, detector)
        west, north = frame.to_arcsec(x=x, y=y)
        found = predict_ghosts(x=west, y=north, flux=flux, optics=optics)
        scale = camera.pixel_scale_arcsec
        at_x, at_y = frame.to_pixel(np.array([found.x, found.y]))
        hole_x, hole_y = frame.to_pixel(np.array([found.hole_x, found.hole_y]))
        margin = self.config.margin_pixels
        outer, inner = found.outer / scale + margin, np.maximum(found.inner / scale - margin, 0.0)
        mark_annuli_in_place(mask, at_x, at_y, hole_x, hole_y, outer, inner, int(MaskPlane.GHOST))
        ny, nx = mask.shape
        is_on = (at_x > -outer) & (at_x < nx + outer) & (at_y > -outer) & (at_y < ny + outer)
        return int(is_on.sum())


class _FocalPlane:
    """Pixels of a detector and arcsec from the optical axis in the focal plane (west, north at rotation 0)."""

    def __init__(self, camera: Camera, detector: Detector) -> None:
        place = detector.focal_plane
        frame = Wcs.tangent(
            ra=0.0, dec=0.0, x=0.0, y=0.0, scale_arcsec=camera.pixel_scale_arcsec, rotation_deg=place.rotation_deg,
            parity=place.parity,
        )  # fmt: skip
        self.matrix = 3600.0 * np.array([[-1.0, 0.0], [0.0, 1.0]]) @ np.asarray(frame.cd)
        axis = camera.optical_axis_arcsec
        self.middle = np.array([[place.x_arcsec - axis[0]], [place.y_arcsec - axis[1]]])
        self.centre = np.array([[(detector.shape[1] - 1) / 2], [(detector.shape[0] - 1) / 2]])

    def to_arcsec(self, *, x: Floats, y: Floats) -> Floats:
        """Return (west, north) ``[2, n]``."""
        return np.asarray(self.matrix @ (np.array([x, y]) - self.centre) + self.middle)

    def to_pixel(self, arcsec: Floats) -> Floats:
        """Return (x, y) ``[2, n]``."""
        return np.asarray(np.linalg.solve(self.matrix, arcsec - self.middle) + self.centre)


def _linear_wcs(wcs: Wcs, detector: Detector) -> Wcs:
    """Return the tangent-plane WCS about the detector's centre that goes on undistorted to any distance."""
    ny, nx = detector.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    ra, dec = (float(value) for value in wcs.pixel_to_sky(x=x, y=y))
    step = 0.25 * min(nx, ny)
    columns = []
    for dx, dy in ((step, 0.0), (0.0, step)):
        ends = [wcs.pixel_to_sky(x=x + sign * dx, y=y + sign * dy) for sign in (1.0, -1.0)]
        east = (float(ends[0][0]) - float(ends[1][0]) + 180.0) % 360.0 - 180.0
        columns.append([east * np.cos(np.radians(dec)), float(ends[0][1]) - float(ends[1][1])])
    cd = np.array(columns).T / (2.0 * step)
    return Wcs((ra, dec), (x, y), cd, identity_tpv(), identity_tpv())
