"""What a repository knows of the Solar System, in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.pipelines.alerts.solar_system import KnownObjects, SolarSystemConfig
from gueststar.store.orbits import OrbitStore
from gueststar.store.repo import SurveyRepo


def lines_of_orbits(root: Path) -> list[str]:
    """Return how many orbits there are, and of which epochs."""
    orbits = OrbitStore(root).read()
    if orbits.n_rows == 0:
        return [f"no orbits: gueststar orbits import {root} FILE"]
    epochs = orbits["epoch_mjd"]
    low, middle, high = np.quantile(epochs, (0.0, 0.5, 1.0)).tolist()
    age = times.now_mjd_tai() - middle
    limit = SolarSystemConfig().max_epoch_days
    lines = [f"{orbits.n_rows} orbits; epochs MJD {low:.0f} to {high:.0f}, median {middle:.0f} ({age:.0f} days ago)"]
    too_old = int(np.count_nonzero(np.abs(times.now_mjd_tai() - epochs) > limit))
    if too_old:
        lines.append(f"{too_old} are farther than {limit:.0f} days from today and not used: import newer ones")
    return lines


def lines_near(root: Path, *, ra: float, dec: float, time_utc: str, radius_deg: float) -> list[str]:
    """Return the known bodies within a cone at a moment, brightest first; ConfigError for a time that is none."""
    try:
        moment = times.mjd_tai_from_utc(time_utc)
    except ValueError:
        raise ConfigError(f"time {time_utc!r} cannot be read: write UTC as 2026-01-01T00:00:00") from None
    with SurveyRepo.open(root) as repo:
        known = KnownObjects(OrbitStore(root).predicted(), repo.camera.site)
    found = known.near(ra=ra, dec=dec, radius_deg=radius_deg, mjd_tai=moment)
    found = found.select(np.argsort(found["mag_v"], kind="stable"))
    rows = zip(*(found[name].tolist() for name in ("name", "ra", "dec", "mag_v", "distance_au")), strict=True)
    lines = [
        f"{name:>12s} {a:11.5f} {d:+10.5f}  V {mag:5.2f}  {distance:7.4f} au" for name, a, d, mag, distance in rows
    ]
    return lines or [f"none; of {known.n_bodies} orbits {known.n_used(moment)} are of an epoch near enough to be used"]
