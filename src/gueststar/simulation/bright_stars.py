"""What bright stars throw beyond their stamps: far aureole, diffraction spikes and pupil ghosts."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.simulation.optics import OBSTRUCTION
from gueststar.simulation.point_spread import HALO_BETA, PsfField, taper

Floats = NDArray[np.float64]

SPIKE_CORE_PIXELS = 4.0
"""Spikes fall as the inverse square of the distance beyond this; nearer they are flat."""


def add_far_light_in_place(
    image: NDArray[np.float32], *, x: Floats, y: Floats, flux: Floats, psf: PsfField, noise: float,
    spike_fraction: float, spike_angle_deg: float, ghost_fraction: float, ghost_radius: float,
) -> None:  # fmt: skip
    """Add to ``image`` what reaches beyond the stamps, down to a fiftieth of ``noise`` per pixel.

    ``flux`` is that of each whole star, electrons; ``ghost_radius`` in pixels. The ghost lies on the far side
    of the image's middle, at a fifth of the star's distance from the star.
    """
    least = 0.02 * noise
    at_edge = psf.halo_fraction * _halo(0.36 * psf.size, psf.halo_scale) + psf.wing / (0.36 * psf.size) ** (11 / 3)
    spike_peak = spike_fraction / (8.0 * SPIKE_CORE_PIXELS)
    ghost_area = np.pi * ghost_radius**2 * (1.0 - OBSTRUCTION**2)
    weights = taper(np.arange(psf.size, dtype=np.float64), psf.size)
    bright = np.flatnonzero(flux * max(at_edge, spike_peak / 9.0, ghost_fraction / ghost_area) > least)
    for index in bright:
        halo_reach = psf.halo_scale * (flux[index] * psf.halo_fraction * 0.16 / psf.halo_scale**2 / least) ** (1 / 3)
        spike_reach = SPIKE_CORE_PIXELS * np.sqrt(flux[index] * spike_peak / 2.0 / least)
        wing_reach = (flux[index] * psf.wing / least) ** (3 / 11)
        halo, wing = flux[index] * psf.halo_fraction, flux[index] * psf.wing
        reach = max(halo_reach, wing_reach)
        _add_halo(image, x[index], y[index], halo, psf.halo_scale, wing, reach, weights)
        if spike_fraction > 0:
            amplitude = flux[index] * spike_peak
            _add_spikes(image, x[index], y[index], amplitude, spike_reach, np.radians(spike_angle_deg))
        if flux[index] * ghost_fraction / ghost_area > least:
            ny, nx = image.shape
            ghost_x = x[index] - 0.2 * (x[index] - nx / 2)
            ghost_y = y[index] - 0.2 * (y[index] - ny / 2)
            add_ghost_in_place(image, ghost_x, ghost_y, flux[index] * ghost_fraction / ghost_area, ghost_radius)


@numba.njit(cache=True)
def _halo(radius, scale):  # type: ignore[no-untyped-def]
    return (HALO_BETA - 1.0) / (np.pi * scale**2) * (1.0 + (radius / scale) ** 2) ** -HALO_BETA


@numba.njit(cache=True)
def _add_halo(image, x, y, flux, scale, wing, reach, weights):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for j in range(max(0, int(y - reach)), min(ny, int(y + reach) + 2)):
        for i in range(max(0, int(x - reach)), min(nx, int(x + reach) + 2)):
            radius = np.sqrt((j - y) ** 2 + (i - x) ** 2)
            if radius > reach:
                continue
            inside = 0.0
            if radius < weights.size - 1:
                low = int(radius)
                inside = weights[low] + (radius - low) * (weights[low + 1] - weights[low])
            if inside < 1.0:
                image[j, i] += (flux * _halo(radius, scale) + wing * radius ** (-11.0 / 3.0)) * (1.0 - inside)


@numba.njit(cache=True)
def _add_spikes(image, x, y, amplitude, reach, angle):  # type: ignore[no-untyped-def]
    """Two crossing lines of width sigma = 1 pixel; the light of all four arms sums to 8 core radii x amplitude."""
    ny, nx = image.shape
    for arm in range(2):
        cosine, sine = np.cos(angle + arm * 0.5 * np.pi), np.sin(angle + arm * 0.5 * np.pi)
        for j in range(max(0, int(y - reach)), min(ny, int(y + reach) + 2)):
            for i in range(max(0, int(x - reach)), min(nx, int(x + reach) + 2)):
                across = (j - y) * cosine - (i - x) * sine
                if abs(across) > 4.0:
                    continue
                along = abs((i - x) * cosine + (j - y) * sine)
                if along > reach:
                    continue
                fall = SPIKE_CORE_PIXELS / max(along, SPIKE_CORE_PIXELS)
                image[j, i] += 0.3989422804 * np.exp(-0.5 * across * across) * amplitude * fall * fall


@numba.njit(cache=True)
def add_ghost_in_place(image, x, y, level, radius):  # type: ignore[no-untyped-def]
    """Add the pupil out of focus: an annulus of ``level`` per pixel, its edges a pixel soft."""
    ny, nx = image.shape
    for j in range(max(0, int(y - radius) - 2), min(ny, int(y + radius) + 3)):
        for i in range(max(0, int(x - radius) - 2), min(nx, int(x + radius) + 3)):
            distance = np.sqrt((j - y) ** 2 + (i - x) ** 2)
            outer = min(max(radius + 1.0 - distance, 0.0), 2.0) / 2.0
            inner = min(max(distance - OBSTRUCTION * radius + 1.0, 0.0), 2.0) / 2.0
            image[j, i] += level * outer * inner
