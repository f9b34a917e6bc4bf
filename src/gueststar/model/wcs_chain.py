"""World coordinates as a chain of steps: pixels, ideal pixels, focal plane, tangent plane, sky; and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.plane_fit import fit_plane_map
from gueststar.algorithms.astrometry.refraction import Air, refract, unrefract
from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.algorithms.astrometry.tpv_conversion import tpv_from_plane_map
from gueststar.core.errors import DataError
from gueststar.model.camera import Camera, Detector
from gueststar.model.wcs import Wcs

Floats = NDArray[np.float64]

_TOLERANCE_MAS = 1.0


class Step(Protocol):
    """A map of a plane (or the sky) and its inverse; a chain's maker sees that neighbours fit."""

    def forward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Map towards the sky."""

    def backward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Map towards the pixels."""


@dataclass(frozen=True)
class DistortionStep:
    """Detector pixels to ideal pixels."""

    distortion: Distortion

    def forward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return ideal pixels."""
        return self.distortion.to_ideal(a, b)

    def backward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return detector pixels."""
        return self.distortion.to_pixel(a, b)


@dataclass(frozen=True, eq=False)
class LinearStep:
    """``matrix (p - origin) + shift``: pixels to a focal plane, a focal plane to a tangent plane."""

    matrix: Floats
    origin: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def forward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return the mapped places."""
        m, (u, v) = self.matrix, (a - self.origin[0], b - self.origin[1])
        return m[0, 0] * u + m[0, 1] * v + self.shift[0], m[1, 0] * u + m[1, 1] * v + self.shift[1]

    def backward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return the places that are mapped there."""
        m, (u, v) = np.linalg.inv(self.matrix), (a - self.shift[0], b - self.shift[1])
        return m[0, 0] * u + m[0, 1] * v + self.origin[0], m[1, 0] * u + m[1, 1] * v + self.origin[1]


@dataclass(frozen=True)
class TangentStep:
    """The tangent plane about (ra, dec), arcsec east and north, to the sky, degrees."""

    ra: float
    dec: float

    def forward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return (ra, dec)."""
        return tangent_deproject(a / 3600.0, b / 3600.0, ra0=self.ra, dec0=self.dec)

    def backward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return the plane's places; NaN on the far hemisphere."""
        xi, eta = tangent_project(a, b, ra0=self.ra, dec0=self.dec)
        return 3600.0 * xi, 3600.0 * eta


@dataclass(frozen=True)
class AirStep:
    """The sky as it is seen to the sky as it is."""

    air: Air

    def forward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return true places."""
        return unrefract(self.air, a, b)

    def backward(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return apparent places."""
        return refract(self.air, a, b)


@dataclass(frozen=True)
class WcsChain:
    """Steps from pixels to the sky, in this order; chains join with ``|``."""

    steps: tuple[Step, ...]

    def __or__(self, other: WcsChain) -> WcsChain:
        return WcsChain(self.steps + other.steps)

    def pixel_to_sky(self, *, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return (ra, dec), degrees, of 0-based pixel positions."""
        a, b = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (x, y))
        for step in self.steps:
            a, b = step.forward(a, b)
        return a.reshape(np.shape(x)), b.reshape(np.shape(y))

    def sky_to_pixel(self, *, ra: ArrayLike, dec: ArrayLike) -> tuple[Floats, Floats]:
        """Return 0-based pixel positions of places on the sky, degrees."""
        a, b = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (ra, dec))
        for step in reversed(self.steps):
            a, b = step.backward(a, b)
        return a.reshape(np.shape(ra)), b.reshape(np.shape(dec))

    def to_wcs(self, shape: tuple[int, int]) -> Wcs:
        """Return the chain as a TPV solution for a detector of ``shape`` (ny, nx), which files can hold.

        Raises DataError where that is off by more than 1 mas somewhere on the detector.
        """
        ny, nx = shape
        x0, y0 = (nx - 1) / 2.0, (ny - 1) / 2.0
        ra0, dec0 = (float(v) for v in self.pixel_to_sky(x=x0, y=y0))
        x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, nx - 1, 25), np.linspace(0, ny - 1, 25)))
        plane = 3600.0 * np.stack(tangent_project(*self.pixel_to_sky(x=x, y=y), ra0=ra0, dec0=dec0), axis=1)
        fitted = fit_plane_map(x, y, plane, x0=x0, y0=y0, unit=max(float(np.hypot(x0, y0)), 1.0), order=5)
        worst = 1000.0 * float(np.max(np.hypot(*(fitted(x, y) - plane).T)))
        if not worst <= _TOLERANCE_MAS:
            raise DataError(f"the chain of {len(self.steps)} steps does not fit TPV: {worst:.3g} mas off somewhere")
        terms = tpv_from_plane_map(fitted)
        return Wcs((ra0, dec0), terms.crpix, terms.cd, terms.pv1, terms.pv2)


def detector_chain(
    camera: Camera, detector: Detector, *, ra: float, dec: float, rotation_deg: float = 0.0,
    distortion: Distortion | None = None, air: Air | None = None,
) -> WcsChain:  # fmt: skip
    """Return the chain of one detector for a boresight: distortion, place in the focal plane, pointing, air.

    All detectors share the tangent plane of the boresight; ``rotation_deg`` turns the camera as in `Wcs.tangent`.
    With ``air`` the boresight is the apparent one, in whose plane the camera is rigid.
    """
    ny, nx = detector.shape
    place = detector.focal_plane
    own = Wcs.tangent(
        ra=0.0, dec=0.0, x=0.0, y=0.0, scale_arcsec=camera.pixel_scale_arcsec, rotation_deg=place.rotation_deg,
        parity=place.parity,
    )  # fmt: skip
    # The focal plane's first axis runs west, as detectors are placed; the tangent plane's runs east.
    to_focal_plane = LinearStep(
        np.diag([-1.0, 1.0]) @ own.cd * 3600.0, ((nx - 1) / 2.0, (ny - 1) / 2.0), (place.x_arcsec, place.y_arcsec)
    )
    turn = Wcs.tangent(ra=0.0, dec=0.0, x=0.0, y=0.0, scale_arcsec=1.0, rotation_deg=rotation_deg)
    pointing: tuple[Step, ...] = (LinearStep(turn.cd * 3600.0), TangentStep(ra, dec))
    pixels: tuple[Step, ...] = () if distortion is None else (DistortionStep(distortion),)
    above: tuple[Step, ...] = () if air is None else (AirStep(air),)
    return WcsChain((*pixels, to_focal_plane, *pointing, *above))
