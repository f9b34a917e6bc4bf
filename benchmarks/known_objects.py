"""How wrong two-body places become with the age of the orbits, and what it costs to ask for them.

``python benchmarks/known_objects.py [ORBITS]``: the orbits of a file (`gueststar orbits import` names the formats), or
an invented main belt. The truth is an integration with the pull of Venus to Saturn.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from gueststar.algorithms.moving.observer import barycentric
from gueststar.algorithms.moving.orbits import GAUSS, Elements, heliocentric
from gueststar.formats.orbit_table import read_orbits
from gueststar.model.camera import Site
from gueststar.model.orbit_columns import ORBIT
from gueststar.pipelines.alerts.solar_system import KnownObjects

AGES = (30, 100, 200, 400)
"""Days since the epoch."""
N_INTEGRATED = 200
N_ASKED = 1_000_000
PLANETS = {
    "venus": 1 / 408523.7, "earth": 1 / 332946.05, "moon": 1 / 27068700.0, "mars": 1 / 3098708.0,
    "jupiter": 1 / 1047.3486, "saturn": 1 / 3497.898,
}  # fmt: skip
"""Masses in those of the Sun."""


def main_belt(n: int, epoch_mjd: float) -> Elements:
    """Return invented orbits of the main belt."""
    rng = np.random.default_rng(1)
    angles = rng.uniform(0.0, 360.0, (3, n))
    return Elements(
        rng.uniform(2.1, 3.3, n), rng.rayleigh(0.1, n).clip(max=0.4), rng.rayleigh(7.0, n), *angles,
        np.full(n, epoch_mjd), rng.uniform(12.0, 18.0, n),
    )  # fmt: skip


def planets_about(epoch_mjd: float) -> dict[str, CubicSpline]:
    """Return heliocentric places of the planets, au, by days since the epoch."""
    days = np.arange(-5.0, max(AGES) + 6.0, 0.5)
    sun = barycentric("sun", epoch_mjd + days)
    return {name: CubicSpline(days, (barycentric(name, epoch_mjd + days) - sun).T) for name in PLANETS}


def integrated(elements: Elements, epoch_mjd: float) -> np.ndarray:
    """Return heliocentric places ``[n_ages, 3, n]`` by integration from the epoch."""
    step = 1e-3
    places = [heliocentric(elements, epoch_mjd + k * step) for k in (-1, 0, 1)]
    n, planets = elements.a.size, planets_about(epoch_mjd)
    state = np.concatenate([places[1].ravel(), ((places[2] - places[0]) / (2 * step)).ravel()])

    def motion(day: float, y: np.ndarray) -> np.ndarray:
        r = y[: 3 * n].reshape(3, n)
        pull = -r / (r**2).sum(axis=0) ** 1.5
        for name, mass in PLANETS.items():
            at = planets[name](day)
            away = at[:, None] - r
            pull += mass * (away / (away**2).sum(axis=0) ** 1.5 - (at / (at @ at) ** 1.5)[:, None])
        return np.concatenate([y[3 * n :], (GAUSS**2 * pull).ravel()])

    found = solve_ivp(motion, (0.0, max(AGES)), state, method="DOP853", t_eval=AGES, rtol=1e-11, atol=1e-13)
    return found.y[: 3 * n].T.reshape(len(AGES), 3, n)


def print_errors(elements: Elements, epoch_mjd: float) -> None:
    """Print how far two-body places are from integrated ones as the Earth sees them."""
    true = integrated(elements, epoch_mjd)
    print(f"{elements.a.size} orbits; error on the sky, arcsec")
    print("   days since the epoch   median      90 %      99 %")
    for age, place in zip(AGES, true, strict=True):
        mjd = epoch_mjd + age
        to_earth = barycentric("sun", mjd) - barycentric("earth", mjd)
        one, other = (v + to_earth[:, None] for v in (place, heliocentric(elements, mjd)))
        across = np.linalg.norm(np.cross(one.T, other.T), axis=1)
        error = np.degrees(np.arctan2(across, (one * other).sum(axis=0))) * 3600.0
        print(f"   {age:20d}" + "".join(f"{value:10.2f}" for value in np.quantile(error, (0.5, 0.9, 0.99))))


def print_costs(epoch_mjd: float) -> None:
    """Print the CPU of the first image of half a day and of those after it."""
    elements = main_belt(N_ASKED, epoch_mjd)
    names = np.arange(N_ASKED).astype(str)
    orbits = ORBIT.catalog({"name": names, "title": names, "slope": np.full(N_ASKED, 0.15), **elements._asdict()})
    known = KnownObjects(orbits, Site(name="Palomar", latitude_deg=33.36, longitude_deg=-116.86, height_m=1700.0))
    for what in ("first image of half a day", "the next"):
        start = time.process_time()
        found = known.near(ra=180.0, dec=0.0, radius_deg=0.7, mjd_tai=epoch_mjd + 0.1)
        took = time.process_time() - start
        print(f"{N_ASKED} orbits, {what}: {took * 1000:.0f} ms of CPU, {found.n_rows} found")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Print errors and costs."""
    if len(sys.argv) > 1:
        read = read_orbits(sys.argv[1]).catalog
        epoch = float(np.median(read["epoch_mjd"]))
        read = read.select(np.flatnonzero((read["epoch_mjd"] == epoch) & (read["a"] < 6.0)))
        read = read.select(np.random.default_rng(1).choice(read.n_rows, min(N_INTEGRATED, read.n_rows), replace=False))
        print_errors(Elements(*(read[name] for name in Elements._fields)), epoch)
    else:
        epoch = 60000.0
        print_errors(main_belt(N_INTEGRATED, epoch), epoch)
    print_costs(epoch)


if __name__ == "__main__":
    main()
