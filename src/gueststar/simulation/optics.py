"""The telescope: where the light goes, where it is lost, and how it is blurred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import identity_tpv
from gueststar.model.camera import Camera, Detector
from gueststar.model.wcs import Wcs
from gueststar.simulation.scenario import OpticsPlan
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

OBSTRUCTION = 0.4
"""Diameter of the central obstruction over that of the pupil."""


@dataclass(frozen=True)
class Optics:
    """The optics as built: the same in every exposure of a seed."""

    plan: OpticsPlan
    field_radius_deg: float
    """From the boresight to the farthest corner."""
    pv1: Floats
    """True distortion, TPV terms about the boresight."""
    pv2: Floats
    placements: dict[int, tuple[float, float, float]]
    """Detector id -> offset from its nominal place (x, y in arcsec) and rotation, degrees."""
    spike_angle_deg: float
    """Of the first diffraction spike, from +x of an unrotated detector."""


def make_optics(camera: Camera, plan: OpticsPlan, *, seed: int) -> Optics:
    """Return the optics of one simulated telescope."""
    random = generator_for(seed, "optics")
    radius = max(field_radius_deg(camera), 1e-3)
    pv1, pv2 = identity_tpv(), identity_tpv()
    cubic = plan.distortion / radius**2
    # Radial cubic: (1 + k r^2) on both axes; powers are of (own, other) axis.
    for pv in (pv1, pv2):
        pv[7] = cubic * random.normal(1.0, 0.03)
        pv[9] = cubic * random.normal(1.0, 0.03)
        pv[[4, 5, 6]] = 0.1 * plan.distortion / radius * random.normal(size=3)
        pv[[8, 10]] = 0.03 * cubic * random.normal(size=2)
    placements = {}
    for detector in camera.detectors:
        offset = plan.misplacement_pixels * camera.pixel_scale_arcsec * random.normal(size=2)
        turn = 0.02 * random.normal() * (plan.misplacement_pixels > 0)
        placements[detector.id] = (float(offset[0]), float(offset[1]), float(turn))
    return Optics(plan, radius, pv1, pv2, placements, float(random.uniform(20.0, 70.0)))


def field_radius_deg(camera: Camera) -> float:
    """Return the angle from the boresight to the farthest detector corner."""
    farthest = 0.0
    for detector in camera.detectors:
        half = 0.5 * np.hypot(*detector.shape) * camera.pixel_scale_arcsec
        centre = np.hypot(detector.focal_plane.x_arcsec, detector.focal_plane.y_arcsec)
        farthest = max(farthest, float(centre + half))
    return farthest / 3600.0


def true_wcs(
    camera: Camera, optics: Optics, detector: Detector, *, ra: float, dec: float, rotation_deg: float,
    stretch: Floats | None = None,
) -> Wcs:  # fmt: skip
    """Return the WCS of one detector for the true boresight and rotation.

    All detectors share the boresight as tangent point and the distortion about it; ``stretch`` is a 2 x 2
    matrix that acts on the tangent plane (xi, eta) last (differential refraction).
    """
    dx, dy, turn = optics.placements[detector.id]
    place = detector.focal_plane
    frame = Wcs.tangent(ra=ra, dec=dec, x=0.0, y=0.0, scale_arcsec=1.0, rotation_deg=rotation_deg)
    local = Wcs.tangent(
        ra=ra, dec=dec, x=0.0, y=0.0, scale_arcsec=camera.pixel_scale_arcsec,
        rotation_deg=rotation_deg + place.rotation_deg + turn, parity=place.parity,
    )  # fmt: skip
    centre = frame.cd @ np.array([place.x_arcsec + dx, place.y_arcsec + dy])
    cd = local.cd
    if stretch is not None:
        cd, centre = stretch @ cd, stretch @ centre
    ny, nx = detector.shape
    crpix = np.array([(nx - 1) / 2, (ny - 1) / 2]) - np.linalg.solve(cd, centre)
    return Wcs((ra % 360.0, dec), (float(crpix[0]), float(crpix[1])), cd, optics.pv1, optics.pv2)


def focal_plane_position(camera: Camera, optics: Optics, detector: Detector, x: Floats, y: Floats) -> Floats:
    """Return positions ``[2, ...]`` in the focal plane in units of the field radius (x west, y north at rotation 0)."""
    place = detector.focal_plane
    ny, nx = detector.shape
    unit = Wcs.tangent(
        ra=0.0, dec=0.0, x=0.0, y=0.0, scale_arcsec=3600.0 * camera.pixel_scale_arcsec,
        rotation_deg=place.rotation_deg, parity=place.parity,
    )  # fmt: skip
    u, v = np.asarray(x) - (nx - 1) / 2, np.asarray(y) - (ny - 1) / 2
    west = -(unit.cd[0, 0] * u + unit.cd[0, 1] * v) + place.x_arcsec
    north = unit.cd[1, 0] * u + unit.cd[1, 1] * v + place.y_arcsec
    return np.array([west, north]) / (3600.0 * optics.field_radius_deg)


def pixel_area(optics: Optics, field: Floats) -> Floats:
    """Return the solid angle of a pixel over its nominal value, at positions from `focal_plane_position`."""
    radius2 = field[0] ** 2 + field[1] ** 2
    return np.asarray(1.0 + 4.0 * optics.plan.distortion * radius2)


def vignetting(optics: Optics, field: Floats) -> Floats:
    """Return the transmission, 1 on the axis, at positions from `focal_plane_position`."""
    radius2 = field[0] ** 2 + field[1] ** 2
    return np.asarray(1.0 - optics.plan.vignetting * (0.4 * radius2 + 0.6 * radius2**2))


@dataclass(frozen=True)
class Aberrations:
    """The state of the optics in one exposure: blur at the corner of the field, arcsec (rms of the ray cone)."""

    defocus: float
    """Over the whole field."""
    tilt: tuple[float, float]
    """Defocus that changes sign over the field."""
    curvature: float
    """Defocus rising with the square of the field angle."""
    astigmatism: float
    astigmatism_constant: tuple[float, float]
    coma: float
    coma_constant: tuple[float, float]

    def rays(self, field: Floats) -> tuple[Floats, Floats]:
        """Return where rays of the pupil land, arcsec ``[n_rays]`` in focal-plane axes, at one field position.

        Geometrical optics (seeing is far wider than diffraction): the transverse aberrations of defocus,
        astigmatism and coma. The centroid is at zero.
        """
        rho, phi = _PUPIL
        x, y = float(field[0]), float(field[1])
        radius2, direction = x * x + y * y, np.arctan2(y, x)
        focus = self.defocus + self.tilt[0] * x + self.tilt[1] * y + self.curvature * radius2
        dx, dy = focus * rho * np.cos(phi), focus * rho * np.sin(phi)
        a1 = self.astigmatism * radius2 * np.cos(2 * direction) + self.astigmatism_constant[0]
        a2 = self.astigmatism * radius2 * np.sin(2 * direction) + self.astigmatism_constant[1]
        dx += rho * (a1 * np.cos(phi) + a2 * np.sin(phi))
        dy += rho * (a2 * np.cos(phi) - a1 * np.sin(phi))
        c1 = self.coma * x + self.coma_constant[0]
        c2 = self.coma * y + self.coma_constant[1]
        dx += rho**2 * (c1 * (2 + np.cos(2 * phi)) + c2 * np.sin(2 * phi)) / 2
        dy += rho**2 * (c2 * (2 - np.cos(2 * phi)) + c1 * np.sin(2 * phi)) / 2
        return dx - dx.mean(), dy - dy.mean()


def _pupil_points() -> tuple[Floats, Floats]:
    edges = np.linspace(OBSTRUCTION**2, 1.0, 7)
    radii = np.sqrt(0.5 * (edges[1:] + edges[:-1]))
    angles = (np.arange(20) + 0.5) * 2 * np.pi / 20
    rho, phi = np.meshgrid(radii, angles)
    return rho.ravel(), phi.ravel()


_PUPIL = _pupil_points()


def aberrations_of(plan: OpticsPlan, *, seed: int, exposure: int, focus_drift: float) -> Aberrations:
    """Return the aberrations of one exposure: those of the telescope plus small random changes.

    ``focus_drift`` (about unit variance) moves slowly through the night.
    """
    fixed, now = generator_for(seed, "optics state"), generator_for(seed, "aberrations", exposure)
    size = plan.aberration_arcsec

    def pair(random: np.random.Generator, scale: float) -> tuple[float, float]:
        values = scale * random.normal(size=2)
        return float(values[0]), float(values[1])

    tilt = np.array(pair(fixed, 0.35 * size)) + np.array(pair(now, 0.08 * size))
    astigmatism, coma = pair(fixed, 0.15 * size), pair(fixed, 0.25 * size)
    return Aberrations(
        defocus=size * (0.35 * focus_drift), tilt=(float(tilt[0]), float(tilt[1])),
        curvature=0.6 * size, astigmatism=0.45 * size, astigmatism_constant=astigmatism,
        coma=0.7 * size, coma_constant=coma,
    )  # fmt: skip
