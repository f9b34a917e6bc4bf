"""What the camera does to light besides imaging it: fringes, the shutter's travel, reflections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Camera, Detector
from gueststar.simulation.bright_stars import add_ghost_in_place
from gueststar.simulation.detector import DetectorTruth
from gueststar.simulation.optics import OBSTRUCTION, Optics, focal_plane_position
from gueststar.simulation.random_fields import wave_field
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

SECOND_LINES = 0.35
"""Strength of the second pattern over the first: lines of another molecule, which vary on their own."""


def fringe_patterns(truth: DetectorTruth) -> Image:
    """Return the detector's two fringe patterns ``[2, y, x]``, of amplitude one.

    They are the interference of two wavelengths in a layer whose thickness changes smoothly.
    """
    random = generator_for(truth.seed, "fringes", truth.detector.id)
    ny, nx = truth.detector.shape
    u, v = np.linspace(-1, 1, nx), np.linspace(-1, 1, ny)
    thickness = 2.5 * wave_field(random, scale=2.0, n_waves=20).on_grid(u, v)
    thickness += 3.0 * random.normal() * u + 3.0 * random.normal() * v[:, None] + 4.0 * (u**2 + v[:, None] ** 2)
    phases = random.uniform(0, 2 * np.pi, 2)
    waves = [np.cos(2 * np.pi * scale * thickness + phase) for scale, phase in zip((1.0, 1.13), phases, strict=True)]
    return np.asarray(waves, dtype=np.float32)


def fringe_strengths(seed: int, exposure: int) -> tuple[float, float]:
    """Return how strong the two patterns are in one exposure, relative to the plan's amplitude."""
    random = generator_for(seed, "airglow", exposure)
    return float(random.lognormal(0.0, 0.25)), SECOND_LINES * float(random.lognormal(0.0, 0.5))


def sky_fringes(truth: DetectorTruth, band: str, exposure: int) -> Image | None:
    """Return what the sky of one exposure is to be multiplied by; None: a band without fringes."""
    amplitude = truth.plan.fringes.get(band, 0.0)
    if amplitude == 0.0:
        return None
    first, second = fringe_strengths(truth.seed, exposure)
    patterns = fringe_patterns(truth)
    return np.asarray(1.0 + amplitude * (first * patterns[0] + second * patterns[1]), dtype=np.float32)


def shutter_delay(truth: DetectorTruth) -> Image:
    """Return by how much longer than told every pixel is exposed, seconds."""
    radius2 = truth.field[0] ** 2 + truth.field[1] ** 2
    return np.asarray(truth.plan.shutter_delay_s + truth.plan.shutter_travel_s * (1.0 - radius2), dtype=np.float32)


def expose_through_shutter_in_place(light: Image, truth: DetectorTruth, exposure_s: float) -> None:
    """Scale light to the true exposure of every pixel."""
    if truth.plan.shutter_delay_s == 0.0 and truth.plan.shutter_travel_s == 0.0:
        return
    light *= np.maximum(1.0 + shutter_delay(truth) / np.float32(exposure_s), 0.0)


def add_reflections_in_place(
    electrons: Image, camera: Camera, optics: Optics, detector: Detector, *, x: Floats, y: Floats, flux: Floats,
    noise: float,
) -> None:  # fmt: skip
    """Add the ghosts of stars at pixel positions that may lie far off the detector."""
    if not optics.plan.reflections or x.size == 0:
        return
    to_arcsec = 3600.0 * optics.field_radius_deg
    star = focal_plane_position(camera, optics, detector, x, y) * to_arcsec
    corner = focal_plane_position(camera, optics, detector, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    corner *= to_arcsec
    step = np.stack([corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]], axis=1)
    for plan in optics.plan.reflections:
        radius = plan.radius_arcsec / camera.pixel_scale_arcsec
        level = flux * plan.fraction / (np.pi * radius**2 * (1.0 - OBSTRUCTION**2))
        ghost = plan.scale * star + np.array(plan.offset_arcsec)[:, None]
        at_x, at_y = np.linalg.solve(step, ghost - corner[:, :1])
        for row in np.flatnonzero(level > 0.02 * noise):
            add_ghost_in_place(electrons, at_x[row], at_y[row], level[row], radius)
