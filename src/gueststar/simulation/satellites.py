"""Trails of artificial satellites across the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.model.wcs import Wcs
from gueststar.simulation.rendering import Sources
from gueststar.simulation.scenario import SatellitePlan
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

SATELLITE = Schema(
    "true_satellite",
    (
        Column("exposure_id", "i8", "", "the exposure it crosses"),
        Column("ra_1", "f8", "deg", "one end of the trail, right ascension"),
        Column("dec_1", "f8", "deg", "declination"),
        Column("ra_2", "f8", "deg", "the other end"),
        Column("dec_2", "f8", "deg", "declination"),
        Column("mag", "f8", "mag", "AB magnitude of the satellite, in the exposure's band"),
        Column("speed", "f8", "deg/s", "angular speed"),
        Column("modulation", "f8", "", "relative amplitude of its brightness changes along the trail"),
        Column("modulation_arcmin", "f8", "arcmin", "length of one such change"),
    ),
)

_SEGMENT_PIXELS = 24.0


def make_satellites(
    plan: SatellitePlan, *, exposure_id: int, expected: float, ra: float, dec: float, radius_deg: float, seed: int
) -> Catalog:
    """Return the trails of one exposure; ``expected`` is their mean number."""
    random = generator_for(seed, "satellites", exposure_id)
    n = int(random.poisson(expected))
    frame = Wcs.tangent(ra=ra, dec=dec, x=0.0, y=0.0, scale_arcsec=3600.0)
    angle, offset = random.uniform(0, np.pi, n), random.uniform(-0.8, 0.8, n) * radius_deg
    start, stop = np.full(n, -1.3 * radius_deg), np.full(n, 1.3 * radius_deg)
    # One in five enters the Earth's shadow, or leaves it, within the field.
    stop = np.where(random.random(n) < 0.2, random.uniform(-0.6, 0.6, n) * radius_deg, stop)
    ends = [
        frame.pixel_to_sky(
            x=along * np.cos(angle) - offset * np.sin(angle), y=along * np.sin(angle) + offset * np.cos(angle)
        )
        for along in (start, stop)
    ]
    return SATELLITE.catalog(
        {
            "exposure_id": np.full(n, exposure_id),
            "ra_1": ends[0][0], "dec_1": ends[0][1], "ra_2": ends[1][0], "dec_2": ends[1][1],
            "mag": random.uniform(*plan.magnitudes, n), "speed": random.uniform(0.2, 0.8, n),
            "modulation": random.uniform(0.0, 0.5, n) * (random.random(n) < 0.4),
            "modulation_arcmin": random.uniform(1.0, 20.0, n),
        }
    )  # fmt: skip


def trail_sources(
    satellites: Catalog, *, wcs: Wcs, shape: tuple[int, int], zero_point: float, exposure_s: float
) -> Sources:
    """Return the trails on one detector as short straight pieces that join up.

    ``zero_point`` is the magnitude that gives one electron in the whole exposure of ``exposure_s``.
    """
    ny, nx = shape
    pieces = [np.zeros((0, 5))]
    scale = wcs.pixel_scale_arcsec
    for k in range(satellites.n_rows):
        line = _line_on_detector(satellites, k, wcs)
        steps = np.diff(line, axis=0)
        middle = line[:-1] + 0.5 * steps
        length = np.hypot(steps[:, 0], steps[:, 1])
        per_second = 10.0 ** (0.4 * (zero_point - satellites["mag"][k])) / exposure_s
        flux = per_second * length * scale / 3600.0 / satellites["speed"][k]
        phase = 2 * np.pi * np.cumsum(length) * scale / 60.0 / satellites["modulation_arcmin"][k]
        flux = flux * (1.0 + satellites["modulation"][k] * np.sin(phase))
        margin = 60
        near = (np.abs(middle[:, 0] - nx / 2) < nx / 2 + margin) & (np.abs(middle[:, 1] - ny / 2) < ny / 2 + margin)
        pieces.append(np.column_stack([middle, flux, steps])[near])
    table = np.concatenate(pieces)
    n = len(table)
    return Sources(
        table[:, 0], table[:, 1], table[:, 2], np.zeros((n, 3)), np.zeros(n), np.ones(n), table[:, 3:5].copy()
    )


def _line_on_detector(satellites: Catalog, k: int, wcs: Wcs) -> Floats:
    """Return points ``[m, 2]`` (x, y) along a great circle, about 24 pixels apart."""
    ra1, dec1, ra2, dec2 = (float(satellites[name][k]) for name in ("ra_1", "dec_1", "ra_2", "dec_2"))
    frame = Wcs.tangent(ra=ra1, dec=dec1, x=0.0, y=0.0, scale_arcsec=3600.0)
    end_x, end_y = frame.sky_to_pixel(ra=ra2, dec=dec2)
    n = max(2, int(np.hypot(end_x, end_y) * 3600.0 / wcs.pixel_scale_arcsec / _SEGMENT_PIXELS))
    fraction = np.linspace(0.0, 1.0, n + 1)
    ra, dec = frame.pixel_to_sky(x=fraction * end_x, y=fraction * end_y)
    return np.column_stack(wcs.sky_to_pixel(ra=ra, dec=dec))
