"""Orbits through real astrometry: that of a good station lies on them as well as the station is good."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from gueststar.core.times import mjd_tai_from_utc
from gueststar.formats.ades import AdesObservation
from gueststar.model.camera import Site
from gueststar.pipelines.moving.orbits import orbit_through

STATION, N_BODIES, ERROR_ARCSEC = "F51", 6, 0.15


@pytest.fixture(scope="module")
def arcs(shared_data: Path) -> list[list[AdesObservation]]:
    """Six places or more of one asteroid within nine days, from one station."""
    rows: dict[str, list[AdesObservation]] = defaultdict(list)
    with gzip.open(shared_data / "mpc_observations" / "mpc_ades_real_observations.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["stn"] == STATION and row["obsTime"] > "2012":
                mjd = mjd_tai_from_utc(row["obsTime"].rstrip("Z"))
                place = (float(row["ra"]), float(row["dec"]))
                rows[row["provID"]].append(AdesObservation("A", mjd, *place, ERROR_ARCSEC, ERROR_ARCSEC))
                if len(rows) > 2 * N_BODIES:
                    break
    found = []
    for name in sorted(rows):
        mine = sorted(rows[name], key=lambda one: one.mjd_tai)
        spans = [[o for o in mine if 0.0 <= o.mjd_tai - first.mjd_tai < 9.0] for first in mine]
        good = [s for s in spans if len(s) >= 6 and s[-1].mjd_tai - s[0].mjd_tai > 1.0]
        found += good[:1]
    return found[:N_BODIES]


@pytest.fixture(scope="module")
def site(shared_data: Path) -> Site:
    with gzip.open(shared_data / "mpc_observations" / "ObsCodes.json.gz") as file:
        code = json.load(file)[STATION]
    latitude = np.degrees(np.arctan2(code["sin"] / 0.99330562, code["cos"]))
    longitude = (code["Longitude"] + 180.0) % 360.0 - 180.0
    return Site(name=STATION, latitude_deg=float(latitude), longitude_deg=longitude, height_m=3000.0)


def test_real_places_lie_on_orbits_of_the_main_belt(arcs: list[list[AdesObservation]], site: Site) -> None:
    assert len(arcs) >= 5
    for places in arcs:
        fit = orbit_through(places, site=site)
        assert fit is not None
        assert fit.rms_arcsec < 0.3
        assert fit.probability > 1e-3
        assert 1.5 < fit.elements.a[0] < 4.5
        assert fit.elements.inclination[0] < 40.0


def test_places_of_two_asteroids_lie_on_none(arcs: list[list[AdesObservation]], site: Site) -> None:
    one, other = arcs[0], arcs[1]
    shift = (one[0].ra - other[0].ra, one[0].dec - other[0].dec, one[0].mjd_tai - other[0].mjd_tai)
    moved = [
        AdesObservation("A", o.mjd_tai + shift[2] + 3.0, o.ra + shift[0], o.dec + shift[1], ERROR_ARCSEC, ERROR_ARCSEC)
        for o in other
    ]
    fit = orbit_through([*one, *moved], site=site)
    assert fit is None or fit.probability < 1e-3
