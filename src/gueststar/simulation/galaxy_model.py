"""Star counts of the Galaxy: discs and halo, luminosity function, dust, colours and motions.

Densities after Juric et al. (2008, ApJ 673, 864); main-sequence colours by its photometric parallax
(eq. 2) and stellar locus (eq. 4); luminosity function after Wielen, Jahreiss & Krueger (1983) and
Bochanski et al. (2010); extinction coefficients of Schlafly & Finkbeiner (2011).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUN_RADIUS_PC, SUN_HEIGHT_PC = 8000.0, 25.0
CIRCULAR_SPEED = 230.0
"""Rotation speed of the Galaxy, km/s, taken as flat."""
SUN_PECULIAR = np.array([11.1, 12.2, 7.3])
"""Motion of the Sun towards the centre, along the rotation, to the north, km/s (Schoenrich et al. 2010)."""

EXTINCTION_PER_EBV = {"g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263}
EBV_PER_PC = 0.3e-3
"""Reddening per parsec in the plane near the Sun."""
DUST_HEIGHT_PC, DUST_LENGTH_PC = 110.0, 3500.0

_MAGNITUDES = np.arange(-1.0, 17.01, 0.25)
_LUMINOSITY = np.interp(
    _MAGNITUDES,
    np.arange(-1.0, 17.1, 1.0),
    0.8e-3
    * np.array([0.008, 0.04, 0.15, 0.45, 1.0, 1.9, 2.8, 3.2, 3.1, 4.2, 6.0, 7.5, 7.6, 6.0, 4.5, 3.5, 3.0, 2.5, 2.0]),
)
"""Stars per cubic parsec and magnitude of M_r in the solar neighbourhood."""
_GIANTS = np.where(_MAGNITUDES < 3.6, 1.0e-4 * 10 ** (0.25 * (_MAGNITUDES - 1.0)), 0.0) + 2.0e-4 * np.exp(
    -0.5 * ((_MAGNITUDES - 0.6) / 0.25) ** 2
)


class Component(NamedTuple):
    """One population of the Galaxy."""

    name: str
    local_fraction: float
    """Density at the Sun over the thin disc's."""
    is_old: bool
    """Main sequence ends at M_r = 3.8."""
    giants: float
    """Giants over those of the thin disc."""
    lag: float
    """Asymmetric drift, km/s."""
    dispersion: tuple[float, float, float]
    """Velocity dispersions towards the centre, along rotation, to the north, km/s."""


COMPONENTS = (
    Component("thin disc", 1.0, False, 1.0, 12.0, (34.0, 21.0, 18.0)),
    Component("thick disc", 0.10, True, 1.5, 50.0, (60.0, 45.0, 38.0)),
    Component("halo", 0.005, True, 2.0, 210.0, (141.0, 90.0, 90.0)),
)


class Draw(NamedTuple):
    """Stars drawn on a line of sight."""

    mags: Floats
    """Apparent g, r, i, z ``[4, n]``, AB."""
    motion_l: Floats
    """Proper motion along galactic longitude (cos b included), mas/yr."""
    motion_b: Floats
    distance_pc: Floats


def draw_stars(
    random: np.random.Generator, *, longitude: float, latitude: float, area_deg2: float, bright: float, faint: float,
    number_to_20: float | None = None,
) -> Draw:  # fmt: skip
    """Return the stars of a small patch in galactic direction (longitude, latitude), degrees.

    ``number_to_20`` fixes the density of stars brighter than r = 20, per square degree.
    """
    expected, apparent, distance = _expected_counts(longitude, latitude, area_deg2)
    if number_to_20 is not None:
        expected = expected * number_to_20 * area_deg2 / max(expected[:, apparent < 20.0].sum(), 1e-9)
    weights = np.where((apparent > bright - 1) & (apparent < faint + 1), expected, 0.0)
    n = int(random.poisson(weights.sum()))
    cells = random.choice(weights.size, size=n, p=weights.ravel() / weights.sum())
    kind, at_distance, at_magnitude = np.unravel_index(cells, weights.shape)
    step = np.log(distance[1] / distance[0])
    distances = distance[at_distance] * np.exp(step * (random.random(n) - 0.5))
    absolute = _MAGNITUDES[at_magnitude] + 0.25 * (random.random(n) - 0.5)
    is_giant = (kind % 2) == 1
    mags = _absolute_mags(absolute, is_giant, random) + 5.0 * np.log10(distances / 10.0)
    reddening = np.interp(distances, distance, _reddening(longitude, latitude, distance))
    mags = mags + np.array([[EXTINCTION_PER_EBV[b]] for b in "griz"]) * reddening
    keep = (mags[1] > bright) & (mags[1] < faint)
    motions = _motions(random, kind // 2, distances, longitude, latitude)
    return Draw(mags[:, keep], motions[0][keep], motions[1][keep], distances[keep])


def _expected_counts(longitude: float, latitude: float, area_deg2: float) -> tuple[Floats, Floats, Floats]:
    distance = np.geomspace(15.0, 80000.0, 110)
    step = np.log(distance[1] / distance[0])
    volume = area_deg2 * np.radians(1.0) ** 2 * distance**3 * step
    density = _densities(longitude, latitude, distance)
    functions = []
    for component in COMPONENTS:
        dwarfs = np.where(_MAGNITUDES < 3.8, 0.0, _LUMINOSITY) if component.is_old else _LUMINOSITY
        functions += [dwarfs, component.giants * _GIANTS]
    counts = np.array(
        [np.outer(density[index // 2] * volume, function * 0.25) for index, function in enumerate(functions)]
    )
    extinction = EXTINCTION_PER_EBV["r"] * _reddening(longitude, latitude, distance)
    apparent = _MAGNITUDES[None, :] + (5.0 * np.log10(distance / 10.0) + extinction)[:, None]
    return counts, apparent, distance


def _densities(longitude: float, latitude: float, distance: Floats) -> Floats:
    radius, height = _cylindrical(longitude, latitude, distance)
    above = np.abs(height)
    thin = np.exp((SUN_RADIUS_PC - radius) / 2600.0 - (above - SUN_HEIGHT_PC) / 300.0)
    thick = np.exp((SUN_RADIUS_PC - radius) / 3600.0 - (above - SUN_HEIGHT_PC) / 900.0)
    halo = (SUN_RADIUS_PC / np.sqrt(radius**2 + (height / 0.64) ** 2 + 500.0**2)) ** 2.77
    return np.array([c.local_fraction * d for c, d in zip(COMPONENTS, (thin, thick, halo), strict=True)])


def _cylindrical(longitude: float, latitude: float, distance: Floats) -> tuple[Floats, Floats]:
    along = distance * np.cos(np.radians(latitude))
    x = SUN_RADIUS_PC - along * np.cos(np.radians(longitude))
    radius = np.hypot(x, along * np.sin(np.radians(longitude)))
    return radius, SUN_HEIGHT_PC + distance * np.sin(np.radians(latitude))


def _reddening(longitude: float, latitude: float, distance: Floats) -> Floats:
    radius, height = _cylindrical(longitude, latitude, distance)
    density = EBV_PER_PC * np.exp(-np.abs(height) / DUST_HEIGHT_PC - (radius - SUN_RADIUS_PC) / DUST_LENGTH_PC)
    steps = np.diff(distance, prepend=0.0)
    return np.asarray(np.cumsum(density * steps))


def _absolute_mags(absolute: Floats, is_giant: NDArray[np.bool_], random: np.random.Generator) -> Floats:
    g_r, r_i, i_z = main_sequence_colours(absolute)
    giant_g_r = np.clip(0.75 - 0.07 * (absolute - 0.5), 0.4, 1.4)
    g_r = np.where(is_giant, giant_g_r, g_r) + random.normal(0, 0.025, absolute.size)
    r_i = np.where(is_giant, 0.38 * giant_g_r - 0.01, r_i) + random.normal(0, 0.015, absolute.size)
    i_z = np.where(is_giant, 0.2 * giant_g_r - 0.02, i_z) + random.normal(0, 0.015, absolute.size)
    return np.array([absolute + g_r, absolute, absolute - r_i, absolute - r_i - i_z])


_RI_GRID = np.linspace(-0.25, 2.4, 400)
_MR_GRID = np.where(
    _RI_GRID < 0,
    3.2 + 16.0 * _RI_GRID,
    3.2 + 13.30 * _RI_GRID - 11.50 * _RI_GRID**2 + 5.40 * _RI_GRID**3 - 0.70 * _RI_GRID**4,
)


def main_sequence_colours(absolute: Floats) -> tuple[Floats, Floats, Floats]:
    """Return g-r, r-i and i-z of main-sequence stars of absolute magnitude M_r."""
    r_i = np.interp(absolute, _MR_GRID, _RI_GRID)
    g_r = 1.39 * (1.0 - np.exp(-4.9 * r_i**3 - 2.45 * r_i**2 - 1.68 * r_i - 0.050))
    return g_r, r_i, 0.02 + 0.53 * r_i


def _motions(
    random: np.random.Generator, component: NDArray[np.int64], distance: Floats, longitude: float, latitude: float
) -> tuple[Floats, Floats]:
    lon, lat = np.radians(longitude), np.radians(latitude)
    dispersion = np.array([c.dispersion for c in COMPONENTS])[component].T
    lag = np.array([c.lag for c in COMPONENTS])[component]
    x = distance * np.cos(lat) * np.cos(lon)
    y = distance * np.cos(lat) * np.sin(lon)
    angle = np.arctan2(y, SUN_RADIUS_PC - x)
    speed = CIRCULAR_SPEED - lag
    velocity = random.normal(size=(3, distance.size)) * dispersion
    velocity += np.array([speed * np.sin(angle), speed * np.cos(angle), np.zeros_like(angle)])
    velocity -= (SUN_PECULIAR + np.array([0.0, CIRCULAR_SPEED, 0.0]))[:, None]
    towards_l = np.array([-np.sin(lon), np.cos(lon), 0.0])
    towards_b = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    scale = 1000.0 / (4.74047 * distance)
    return scale * (towards_l @ velocity), scale * (towards_b @ velocity)
