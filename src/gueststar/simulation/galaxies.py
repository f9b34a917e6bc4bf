"""Galaxies of the simulated sky: discs and bulges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation.scenario import GalaxyPlan
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.tiles import (
    IDS_PER_TILE,
    TILE_AREA_DEG2,
    SkyDisc,
    discs_near,
    is_in_any,
    tiles_touching,
    uniform_positions,
)

Floats = NDArray[np.float64]

GALAXY = Schema(
    "true_galaxy",
    (
        Column("source_id", "i8", "", "identifier in the simulation"),
        Column("ra", "f8", "deg", "right ascension, ICRS"),
        Column("dec", "f8", "deg", "declination"),
        Column("mag_g", "f8", "mag", "total AB magnitude above the air"),
        Column("mag_r", "f8", "mag", "total AB magnitude"),
        Column("mag_i", "f8", "mag", "total AB magnitude"),
        Column("mag_z", "f8", "mag", "total AB magnitude"),
        Column("bulge_fraction", "f8", "", "light in the bulge (Sersic n = 4), the rest in the disc (n = 1)"),
        Column("disc_radius", "f8", "arcsec", "half-light radius of the disc along its major axis"),
        Column("bulge_radius", "f8", "arcsec", "half-light radius of the bulge along its major axis"),
        Column("axis_ratio", "f8", "", "minor over major axis"),
        Column("position_angle", "f8", "deg", "of the major axis, from north through east"),
    ),
)

_BRIGHTEST = 13.0
_COUNT_MAGS = np.array([11.0, 14.0, 16.0, 18.0, 20.0, 22.0, 24.0, 26.0])
_COUNT_LOGS = np.array([-1.9, -0.1, 1.1, 2.15, 3.1, 3.95, 4.6, 5.05])
"""log10 of galaxies per magnitude and square degree in r (Yasuda et al. 2001; Metcalfe et al. 2001)."""


def make_galaxies(plan: GalaxyPlan, *, discs: tuple[SkyDisc, ...], seed: int) -> Catalog:
    """Return the galaxies in ``discs``."""
    parts = [GALAXY.empty()]
    for tile in tiles_touching(discs):
        found = _galaxies_of_tile(plan, tile, seed)
        parts.append(found.select(is_in_any(discs_near(tile, discs), found["ra"], found["dec"])))
    return concatenate(parts)


def _galaxies_of_tile(plan: GalaxyPlan, tile: int, seed: int) -> Catalog:
    random = generator_for(seed, "galaxies", tile)
    grid = np.linspace(_BRIGHTEST, plan.faint_limit, 400)
    density = 10.0 ** np.interp(grid, _COUNT_MAGS, _COUNT_LOGS) * plan.factor
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    n = int(random.poisson(cumulative[-1] * TILE_AREA_DEG2))
    mag_r = np.interp(random.random(n) * cumulative[-1], cumulative, grid)
    ra, dec = uniform_positions(tile, n, random)
    bulge = _bulge_fractions(random, n)
    radius = _radii(random, mag_r)
    inclination = random.random(n)
    thickness = 0.2 + 0.6 * bulge
    colours = _colours(random, mag_r, bulge)
    return GALAXY.catalog(
        {
            "source_id": tile * IDS_PER_TILE + IDS_PER_TILE // 2 + np.arange(n),
            "ra": ra, "dec": dec,
            "mag_g": mag_r + colours[0], "mag_r": mag_r,
            "mag_i": mag_r - colours[1], "mag_z": mag_r - colours[1] - colours[2],
            "bulge_fraction": bulge, "disc_radius": radius,
            "bulge_radius": np.where(bulge > 0.6, radius, 0.35 * radius),
            "axis_ratio": np.sqrt(inclination**2 * (1.0 - thickness**2) + thickness**2),
            "position_angle": random.random(n) * 180.0,
        }
    )  # fmt: skip


def _bulge_fractions(random: np.random.Generator, n: int) -> Floats:
    """A quarter ellipticals, the rest spirals of all Hubble types."""
    is_elliptical = random.random(n) < 0.25
    return np.where(is_elliptical, random.uniform(0.7, 1.0, n), random.beta(1.0, 3.0, n) * 0.6)


def _radii(random: np.random.Generator, mag_r: Floats) -> Floats:
    """Half-light radii, arcsec, log-normal about the mean of SDSS and deeper surveys (Shen et al. 2003)."""
    median = 10.0 ** (0.53 - 0.135 * (mag_r - 18.0))
    return np.asarray(np.clip(median * 10.0 ** (0.17 * random.normal(size=mag_r.size)), 0.12, 60.0))


def _colours(random: np.random.Generator, mag_r: Floats, bulge: Floats) -> Floats:
    """Return g-r, r-i, i-z: a red and a blue sequence that redden towards r = 20 with redshift."""
    redshift_effect = 0.06 * np.clip(mag_r - 16.0, 0.0, 4.0)
    g_r = np.where(bulge > 0.6, 0.80, 0.48) + redshift_effect + random.normal(0, 0.10, mag_r.size)
    r_i = 0.12 + 0.33 * g_r + random.normal(0, 0.05, mag_r.size)
    i_z = 0.02 + 0.28 * g_r + random.normal(0, 0.05, mag_r.size)
    return np.array([g_r, r_i, i_z])


def light_offsets(galaxies: Catalog, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return one offset per galaxy, arcsec towards east and north, drawn from its light."""
    n = galaxies.n_rows
    in_bulge = random.random(n) < galaxies["bulge_fraction"]
    radius_disc = np.interp(random.random(n), *_light_curve_of_growth(1.0)) * galaxies["disc_radius"]
    radius_bulge = np.interp(random.random(n), *_light_curve_of_growth(4.0)) * galaxies["bulge_radius"]
    radius = np.where(in_bulge, radius_bulge, radius_disc)
    angle = random.random(n) * 2 * np.pi
    major, minor = radius * np.cos(angle), radius * np.sin(angle) * galaxies["axis_ratio"]
    turn = np.radians(galaxies["position_angle"])
    return major * np.sin(turn) + minor * np.cos(turn), major * np.cos(turn) - minor * np.sin(turn)


def _light_curve_of_growth(index: float) -> tuple[Floats, Floats]:
    """Return (enclosed light, radius in half-light radii) of a Sersic profile, to 99 per cent."""
    b = 2.0 * index - 1.0 / 3.0 + 0.009876 / index
    radius = np.geomspace(1e-3, 30.0, 400)
    light = np.cumsum(np.exp(-b * radius ** (1.0 / index)) * radius**2)
    light = light / light[-1]
    keep = light < 0.99
    return light[keep] / 0.99, radius[keep]
