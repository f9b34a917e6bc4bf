"""New things: supernovae in galaxies and on their own, and fast transients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation.footprint import Footprint
from gueststar.simulation.galaxies import light_offsets
from gueststar.simulation.scenario import TransientPlan
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

TRANSIENT = Schema(
    "true_transient",
    (
        Column("source_id", "i8", "", "identifier in the simulation"),
        Column("kind", "U16", "", "sn_ia, sn_ii or fast"),
        Column("ra", "f8", "deg", "right ascension, ICRS"),
        Column("dec", "f8", "deg", "declination"),
        Column("host_id", "i8", "", "source_id of the host galaxy; 0: none"),
        Column("host_offset", "f8", "arcsec", "distance from the host's centre; NaN without host"),
        Column("first_light_mjd_tai", "f8", "day", "moment of explosion"),
        Column("rise_d", "f8", "day", "from first light to maximum"),
        Column("peak_mag_r", "f8", "mag", "r magnitude at maximum"),
        Column("colour_at_peak", "f8", "mag", "g-r at maximum"),
        Column("reddening_per_d", "f8", "mag/day", "change of g-r with time"),
        Column("drawn_for_night", "i4", "", "index of the night for which its magnitude was drawn"),
        Column("mag_r_drawn", "f8", "mag", "r magnitude in the middle of that night"),
    ),
)

TRANSIENT_IDS = 8_000_000_000_000_000_000
"""First identifier of transients."""


class _Kind(NamedTuple):
    name: str
    share: float
    rise_d: tuple[float, float]
    colour: float
    reddening: float


_KINDS = (
    _Kind("sn_ia", 0.55, (16.0, 20.0), -0.05, 0.03),
    _Kind("sn_ii", 0.25, (6.0, 14.0), 0.10, 0.02),
    _Kind("fast", 0.20, (0.3, 2.0), -0.20, 0.06),
)


def make_transients(
    plan: TransientPlan, galaxies: Catalog, *, footprints: tuple[Footprint, ...], nights: list[float], seed: int
) -> Catalog:
    """Return the transients of all fields; ``nights`` are the middles of the nights, MJD TAI.

    Between two nights ``plan.n`` explode in every field (fewer where less than five days lie between); in the
    days before and in the first night ``plan.n_first_night``.
    """
    parts = [TRANSIENT.empty()]
    for number, footprint in enumerate(footprints):
        hosts = galaxies.select(galaxies["mag_r"] < 21.0)
        hosts = hosts.select(footprint.contains(hosts["ra"], hosts["dec"]))
        for night, middle in enumerate(nights):
            random = generator_for(seed, "transients", number, night)
            days = middle - nights[night - 1] if night else 5.0
            n = round(plan.n * min(days / 5.0, 1.0)) if night else plan.n_first_night
            since = nights[night - 1] + 0.2 if night else middle - 4.0
            first_light = random.uniform(since, middle - 0.05 if night else middle + 0.05, n)
            start = number * 1_000_000 + night * 10_000
            drawn = _draw(plan, hosts, footprint, first_light, middle, random)
            drawn["source_id"] = TRANSIENT_IDS + start + np.arange(n)
            drawn["drawn_for_night"] = np.full(n, night)
            parts.append(TRANSIENT.catalog(drawn))
    return concatenate(parts)


def _draw(
    plan: TransientPlan,
    hosts: Catalog,
    footprint: Footprint,
    first_light: Floats,
    middle: float,
    random: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    n = first_light.size
    kind = random.choice(len(_KINDS), size=n, p=[k.share for k in _KINDS])
    low, high = np.array([k.rise_d for k in _KINDS])[kind].T
    rise = random.uniform(low, high)
    age = np.maximum(middle - first_light, 0.05)
    # Neither so early nor so late in its life that the maximum would be far brighter than what is wanted.
    rise = np.clip(rise, age / 2.5, 4.0 * age)
    # What lights up after the middle of the first night has its magnitude at 0.05 days of age.
    wanted = random.uniform(*plan.magnitudes, n)
    ra, dec, host, offset = _places(plan, hosts, footprint, n, random)
    return {
        "kind": np.array([k.name for k in _KINDS])[kind],
        "ra": ra, "dec": dec, "host_id": host, "host_offset": offset,
        "first_light_mjd_tai": first_light, "rise_d": rise,
        "peak_mag_r": wanted + 2.5 * np.log10(light_curve(age, rise)),
        "colour_at_peak": np.array([k.colour for k in _KINDS])[kind] + random.normal(0, 0.1, n),
        "reddening_per_d": np.array([k.reddening for k in _KINDS])[kind],
        "mag_r_drawn": wanted,
    }  # fmt: skip


def _places(
    plan: TransientPlan, hosts: Catalog, footprint: Footprint, n: int, random: np.random.Generator
) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    ra, dec = footprint.random_positions(n, random)
    host, offset = np.zeros(n, dtype=np.int64), np.full(n, np.nan)
    hosted = np.flatnonzero(random.random(n) < plan.hosted_fraction)
    if hosted.size and hosts.n_rows:
        light = 10.0 ** (-0.4 * hosts["mag_r"])
        chosen = random.choice(hosts.n_rows, size=hosted.size, p=light / light.sum())
        picked = hosts.select(chosen)
        east, north = light_offsets(picked, random)
        host[hosted], offset[hosted] = picked["source_id"], np.hypot(east, north)
        dec[hosted] = picked["dec"] + north / 3600.0
        ra[hosted] = picked["ra"] + east / 3600.0 / np.cos(np.radians(picked["dec"]))
    return ra % 360.0, dec, host, offset


def light_curve(age_d: Floats, rise_d: Floats) -> Floats:
    """Return the flux over that at maximum: a rise as the square of the age, an exponential decline.

    ``(t / p)**2 exp(2 (1 - t / p))`` with the maximum at age p; 0 before first light.
    """
    phase = np.maximum(age_d, 0.0) / rise_d
    return np.asarray(phase**2 * np.exp(2.0 * (1.0 - phase)))


def transient_magnitudes(transients: Catalog, *, mjd_tai: float) -> Floats:
    """Return g, r, i, z ``[4, n]`` at a time; infinite before first light."""
    age = mjd_tai - transients["first_light_mjd_tai"]
    flux = light_curve(age, transients["rise_d"])
    with np.errstate(divide="ignore"):
        mag_r = transients["peak_mag_r"] - 2.5 * np.log10(flux)
    g_r = transients["colour_at_peak"] + transients["reddening_per_d"] * (age - transients["rise_d"])
    g_r = np.clip(g_r, -0.5, 1.2)
    return np.array([mag_r + g_r, mag_r, mag_r - 0.1 - 0.3 * g_r, mag_r - 0.15 - 0.5 * g_r])
