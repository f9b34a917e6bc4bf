"""Solar-System bodies in the fields, on orbits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.moving.orbits import Elements
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats import orbit_table
from gueststar.model.camera import Site
from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation import ephemeris
from gueststar.simulation.footprint import Footprint
from gueststar.simulation.orbits import apparent_places, passing_by, turned_to
from gueststar.simulation.scenario import AsteroidPlan
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

ASTEROID = Schema(
    "true_asteroid",
    (
        Column("source_id", "i8", "", "identifier in the simulation"),
        Column("name", "U40", "", "designation of the orbit that was used"),
        Column("a", "f8", "au", "semi-major axis"),
        Column("e", "f8", "", "eccentricity"),
        Column("inclination", "f8", "deg", "to the ecliptic of J2000"),
        Column("node", "f8", "deg", "longitude of the ascending node"),
        Column("perihelion", "f8", "deg", "argument of perihelion"),
        Column("mean_anomaly", "f8", "deg", "at the epoch"),
        Column("epoch_mjd", "f8", "day", "epoch of the mean anomaly, MJD TAI"),
        Column("absolute_magnitude", "f8", "mag", "H in V, G = 0.15"),
        Column("is_moved", "?", "", "the orbit was changed to bring the body into the field"),
        Column("night", "i4", "", "index of the night in which it was put into a field"),
        Column("field", "i4", "", "number of the field, from 0, into which it was put"),
    ),
)

ASTEROID_IDS = 8_500_000_000_000_000_000
"""First identifier of asteroids."""

NEAR_EARTH_IDS = 8_600_000_000_000_000_000
"""First identifier of those that pass near the Earth."""

V_TO_BAND = {"g": 0.28, "r": -0.22, "i": -0.40, "z": -0.38}
"""Colour of an average (S and C type) asteroid: band minus V."""

_BUILT_IN = np.array(
    [
        # a, e, inclination; inner, middle and outer belt, Hungarias, Hildas, Trojans, and near-Earth bodies
        [2.19, 0.16, 5.1], [2.24, 0.12, 3.3], [2.29, 0.20, 6.8], [2.34, 0.09, 7.0], [2.41, 0.18, 2.4],
        [2.45, 0.22, 11.9], [2.55, 0.14, 12.4], [2.58, 0.09, 4.4], [2.61, 0.25, 13.1], [2.66, 0.17, 8.3],
        [2.70, 0.07, 5.6], [2.77, 0.13, 9.6], [2.79, 0.21, 16.0], [2.87, 0.05, 2.1], [2.98, 0.11, 9.9],
        [3.02, 0.07, 10.3], [3.09, 0.15, 1.5], [3.13, 0.18, 14.7], [3.16, 0.12, 0.6], [3.20, 0.21, 17.3],
        [1.93, 0.07, 22.0], [1.90, 0.09, 20.5], [3.96, 0.16, 7.2], [5.20, 0.06, 10.9], [5.15, 0.10, 4.9],
        [1.46, 0.22, 10.8], [1.92, 0.44, 6.2], [2.26, 0.50, 9.4], [2.64, 0.56, 12.2], [1.63, 0.33, 16.4],
    ]
)  # fmt: skip
"""Sizes and shapes of orbits with the spread of the known population."""


def make_asteroids(
    plan: AsteroidPlan,
    *,
    footprints: tuple[Footprint, ...],
    site: Site,
    moments: dict[tuple[int, int], float],
    seed: int,
) -> Catalog:
    """Return ``plan.n`` bodies for each (night, footprint number) of ``moments``, there at that time (MJD TAI)."""
    parts = [ASTEROID.empty()]
    known = read_orbits(plan.orbits) if plan.orbits is not None else None
    for (night, number), moment in sorted(moments.items()):
        random = generator_for(seed, "asteroids", night, number)
        if known is None:
            elements, names, is_moved = _invented(plan, footprints[number], site, moment, random)
        else:
            elements, names, is_moved = _real(plan, footprints[number], site, moment, random, known)
        n = elements.a.size
        identifiers = ASTEROID_IDS + (night * 10_000 + number) * 10_000 + np.arange(n)
        parts.append(_table(elements, names, is_moved, identifiers, night, number))
        if plan.n_near_earth:
            random = generator_for(seed, "near-earth", night, number)
            passing = _near_earth(plan, footprints[number], site, moment, random)
            n = passing.a.size
            identifiers = NEAR_EARTH_IDS + (night * 10_000 + number) * 10_000 + np.arange(n)
            names = np.array([f"near-earth {row}" for row in range(n)])
            parts.append(_table(passing, names, np.ones(n, dtype=bool), identifiers, night, number))
    return concatenate(parts)


def _table(
    elements: Elements, names: NDArray[np.str_], is_moved: NDArray[np.bool_], identifiers: NDArray[np.int64],
    night: int, number: int,
) -> Catalog:  # fmt: skip
    n = elements.a.size
    origin = {"night": np.full(n, night), "field": np.full(n, number)}
    return ASTEROID.catalog(
        {"source_id": identifiers, "name": names, "is_moved": is_moved, **origin, **elements._asdict()}
    )


def elements_of(asteroids: Catalog) -> Elements:
    """Return the orbits of a table of asteroids."""
    return Elements(*(asteroids[name] for name in Elements._fields))


def asteroid_magnitudes(mag_v: Floats) -> Floats:
    """Return g, r, i, z ``[4, n]`` of V magnitudes."""
    return np.array([mag_v + V_TO_BAND[band] for band in "griz"])


def _invented(
    plan: AsteroidPlan, footprint: Footprint, site: Site, mjd: float, random: np.random.Generator
) -> tuple[Elements, NDArray[np.str_], NDArray[np.bool_]]:
    """Draw orbits from the built-in table, put them into the field and give them their magnitude there."""
    rows = np.concatenate([random.permutation(len(_BUILT_IN)) for _ in range(plan.n * 4 // len(_BUILT_IN) + 1)])
    n = rows.size
    a, e, inclination = _BUILT_IN[rows].T
    a = a * random.normal(1.0, 0.004, n)
    start = Elements(
        a, e, inclination, np.zeros(n), np.zeros(n), random.uniform(0, 360, n), np.full(n, mjd), np.full(n, 15.0)
    )
    ra, dec = footprint.random_positions(n, random)
    with np.errstate(invalid="ignore"):
        turned = turned_to(start, ra=ra, dec=dec, site=site, mjd_tai=mjd, is_rising=random.random(n) < 0.5)
        seen = apparent_places(turned, site=site, mjd_tai=mjd)
    good = np.flatnonzero(np.isfinite(seen.ra) & (seen.distance_au > 0.05) & (seen.phase_angle < 60.0))[: plan.n]
    wanted = random.uniform(*plan.magnitudes, n) - V_TO_BAND["r"]
    bright = turned._replace(absolute_magnitude=15.0 + wanted - seen.mag_v)
    names = np.array([f"built-in {row}" for row in rows])
    return bright.select(good), names[good], np.ones(good.size, dtype=bool)


def _near_earth(
    plan: AsteroidPlan, footprint: Footprint, site: Site, mjd: float, random: np.random.Generator
) -> Elements:
    """Draw bodies that pass by with the speeds on the sky that are wanted, and give them their magnitude there."""
    n = 6 * plan.n_near_earth
    ra, dec = footprint.random_positions(n, random)
    low, high = np.log(plan.near_earth_rates)
    rate = np.exp(random.uniform(low, high, n))
    passing = passing_by(
        ra=ra, dec=dec, rate=rate, position_angle=random.uniform(0.0, 360.0, n),
        speed_km_s=random.uniform(4.0, 14.0, n), site=site, mjd_tai=mjd,
    )  # fmt: skip
    is_bound = (passing.a > 0) & (passing.e < 0.95)
    with np.errstate(invalid="ignore"):
        seen = apparent_places(passing.select(is_bound), site=site, mjd_tai=mjd)
    wanted = random.uniform(*plan.near_earth_magnitudes, seen.ra.size) - V_TO_BAND["r"]
    bright = passing.select(is_bound)._replace(absolute_magnitude=20.0 + wanted - seen.mag_v)
    return bright.select(np.flatnonzero(np.isfinite(seen.mag_v))[: plan.n_near_earth])


def _real(
    plan: AsteroidPlan, footprint: Footprint, site: Site, mjd: float, random: np.random.Generator,
    known: tuple[Elements, NDArray[np.str_]],
) -> tuple[Elements, NDArray[np.str_], NDArray[np.bool_]]:  # fmt: skip
    """Take the real bodies that are in the field; then others, their mean anomaly shifted to bring them there."""
    elements, names = known
    seen = apparent_places(elements, site=site, mjd_tai=mjd)
    there = np.flatnonzero(footprint.contains(seen.ra, seen.dec))[: plan.n]
    chosen, labels, moved = [elements.select(there)], [names[there]], [np.zeros(there.size, dtype=bool)]
    missing = plan.n - there.size
    for index in random.permutation(elements.a.size):
        if missing <= 0:
            break
        shifted = _shifted_into(elements.select(np.array([index])), footprint, site, mjd)
        if shifted is None:
            continue
        magnitude = float(apparent_places(shifted, site=site, mjd_tai=mjd).mag_v[0]) + V_TO_BAND["r"]
        if plan.magnitudes[0] - 1.0 <= magnitude <= plan.magnitudes[1] + 1.0:
            chosen.append(shifted)
            labels.append(names[[index]])
            moved.append(np.array([True]))
            missing -= 1
    together = Elements(*(np.concatenate(values) for values in zip(*chosen, strict=True)))
    return together, np.concatenate(labels), np.concatenate(moved)


def _shifted_into(one: Elements, footprint: Footprint, site: Site, mjd: float) -> Elements | None:
    """Return the orbit with a mean anomaly that brings the body into the field; None: its path passes by."""
    centre_ra, centre_dec = footprint.centre
    anomalies = np.linspace(0.0, 360.0, 144, endpoint=False)
    for step in (2.5, 0.05, 0.001):
        many = Elements(*(np.repeat(values, anomalies.size) for values in one))._replace(mean_anomaly=anomalies)
        seen = apparent_places(many, site=site, mjd_tai=mjd)
        inside = np.flatnonzero(footprint.contains(seen.ra, seen.dec))
        if inside.size:
            return many.select(inside[[inside.size // 2]])
        away = ephemeris.separation_deg(seen.ra, seen.dec, centre_ra, centre_dec)
        best = int(np.argmin(away))
        if step == 2.5 and away[best] > 6.0:
            return None
        anomalies = many.mean_anomaly[best] + np.linspace(-step, step, 101)
    return None


def read_orbits(path: str | Path) -> tuple[Elements, NDArray[np.str_]]:
    """Read orbits from a file of `gueststar.formats.orbit_table`; ConfigError if it is none.

    Rows without a complete elliptic orbit and absolute magnitude are left out.
    """
    try:
        found = orbit_table.read_orbits(path).catalog
    except DataError as error:
        raise ConfigError(str(error)) from None
    is_good = (found["e"] < 0.98) & np.isfinite(found["absolute_magnitude"])
    if not is_good.any():
        raise ConfigError(f"{path} holds no complete elliptic orbit")
    found = found.select(is_good)
    return Elements(*(found[name] for name in Elements._fields)), np.array([title[:40] for title in found["title"]])
