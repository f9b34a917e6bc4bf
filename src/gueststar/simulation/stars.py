"""Stars of the simulated sky."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation.ephemeris import unit_vector
from gueststar.simulation.galaxy_model import draw_stars
from gueststar.simulation.scenario import StarPlan
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.tiles import (
    IDS_PER_TILE,
    TILE_AREA_DEG2,
    SkyDisc,
    discs_near,
    is_in_any,
    tile_centre,
    tiles_touching,
    uniform_positions,
)

Floats = NDArray[np.float64]

STAR = Schema(
    "true_star",
    (
        Column("source_id", "i8", "", "identifier in the simulation"),
        Column("ra", "f8", "deg", "right ascension, ICRS, at epoch 2016.0"),
        Column("dec", "f8", "deg", "declination at epoch 2016.0"),
        Column("pm_ra", "f8", "mas/yr", "proper motion in right ascension, cos dec included"),
        Column("pm_dec", "f8", "mas/yr", "proper motion in declination"),
        Column("mag_g", "f8", "mag", "AB magnitude above the air; mean for variables"),
        Column("mag_r", "f8", "mag", "AB magnitude"),
        Column("mag_i", "f8", "mag", "AB magnitude"),
        Column("mag_z", "f8", "mag", "AB magnitude"),
    ),
)

STAR_EPOCH = 2016.0
"""Julian year of the positions in the table of stars."""

_ICRS_TO_GALACTIC = np.array(
    [
        [-0.0548755604162154, -0.8734370902348850, -0.4838350155487132],
        [0.4941094278755837, -0.4448296299600112, 0.7469822444972189],
        [-0.8676661490190047, -0.1980763734312015, 0.4559837761750669],
    ]
)


def make_stars(plan: StarPlan, *, discs: tuple[SkyDisc, ...], seed: int) -> Catalog:
    """Return the stars in ``discs``."""
    parts = [STAR.empty()]
    for tile in tiles_touching(discs):
        found = _stars_of_tile(plan, tile, seed)
        parts.append(found.select(is_in_any(discs_near(tile, discs), found["ra"], found["dec"])))
    return concatenate(parts)


def galactic(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return galactic longitude and latitude, degrees."""
    vector = _ICRS_TO_GALACTIC @ unit_vector(ra, dec)
    longitude = np.degrees(np.arctan2(vector[1], vector[0])) % 360.0
    return longitude, np.degrees(np.arcsin(np.clip(vector[2], -1, 1)))


def _stars_of_tile(plan: StarPlan, tile: int, seed: int) -> Catalog:
    random = generator_for(seed, "stars", tile)
    ra0, dec0 = tile_centre(tile)
    longitude, latitude = (float(v) for v in galactic(np.array(ra0), np.array(dec0)))
    number = None
    if plan.density == "high_latitude":
        longitude, latitude = 120.0, 60.0
    elif plan.density == "plane":
        longitude, latitude = 70.0, 4.0
    elif plan.density != "auto":
        number = float(plan.density)
    drawn = draw_stars(
        random, longitude=longitude, latitude=latitude, area_deg2=TILE_AREA_DEG2,
        bright=plan.bright_limit, faint=plan.faint_limit, number_to_20=number,
    )  # fmt: skip
    n = drawn.distance_pc.size
    ra, dec = uniform_positions(tile, n, random)
    pm_ra, pm_dec = _equatorial_motion(ra, dec, drawn.motion_l, drawn.motion_b)
    mags = {f"mag_{band}": drawn.mags[k] for k, band in enumerate("griz")}
    identifiers = tile * IDS_PER_TILE + np.arange(n)
    return STAR.catalog({"source_id": identifiers, "ra": ra, "dec": dec, "pm_ra": pm_ra, "pm_dec": pm_dec, **mags})


def _equatorial_motion(ra: Floats, dec: Floats, motion_l: Floats, motion_b: Floats) -> tuple[Floats, Floats]:
    a, d = np.radians(ra), np.radians(dec)
    pole = _ICRS_TO_GALACTIC[2]
    east = np.array([-np.sin(a), np.cos(a), np.zeros_like(a)])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    # Direction of galactic north projected on the sky at each star.
    angle = np.arctan2(pole @ east, pole @ north)
    pm_ra = motion_l * np.cos(angle) + motion_b * np.sin(angle)
    return pm_ra, motion_b * np.cos(angle) - motion_l * np.sin(angle)


def positions_at(stars: Catalog, julian_year: float) -> tuple[Floats, Floats]:
    """Return (ra, dec), degrees, of stars moved to an epoch."""
    years = julian_year - STAR_EPOCH
    dec = stars["dec"] + stars["pm_dec"] * years / 3.6e6
    ra = stars["ra"] + stars["pm_ra"] * years / 3.6e6 / np.cos(np.radians(stars["dec"]))
    return ra % 360.0, np.clip(dec, -90.0, 90.0)
