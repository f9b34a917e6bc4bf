"""Everything that is in the sky of a survey, and what of it an exposure sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.model.camera import Camera, Detector, Filter
from gueststar.model.catalog import Catalog
from gueststar.simulation.asteroids import asteroid_magnitudes, elements_of, make_asteroids
from gueststar.simulation.conditions import pointing_error_arcsec
from gueststar.simulation.footprint import make_footprint
from gueststar.simulation.galaxies import make_galaxies
from gueststar.simulation.orbits import apparent_places
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.stars import make_stars, positions_at
from gueststar.simulation.survey import Visit
from gueststar.simulation.transients import make_transients, transient_magnitudes
from gueststar.simulation.variables import magnitude_changes, make_variables

Floats = NDArray[np.float64]

KINDS = ("star", "galaxy", "transient", "asteroid", "variable")
"""Names of the kind codes 0, 1, 2... of observed sources."""


@dataclass(frozen=True, eq=False)
class Universe:
    """The tables of the simulated sky."""

    stars: Catalog
    galaxies: Catalog
    variables: Catalog
    transients: Catalog
    asteroids: Catalog


@dataclass(frozen=True, eq=False)
class Scene:
    """The sources above the air at one moment; arrays of equal length."""

    source_id: NDArray[np.int64]
    kind: NDArray[np.int16]
    """Index into `KINDS`."""
    ra: Floats
    dec: Floats
    mags: Floats
    """g, r, i, z ``[4, n]``; infinite: not there (yet)."""
    ra_end: Floats
    """Position at the end of the exposure minus that at its start, arcsec on the sky; 0 for what stands still."""
    dec_end: Floats
    galaxy: NDArray[np.int64]
    """Row in the table of galaxies; -1: a point."""


def make_universe(
    camera: Camera, detectors: tuple[Detector, ...], scenario: Scenario, visits: tuple[Visit, ...], *, seed: int
) -> Universe:
    """Return the sky about ``detectors`` in all fields of ``visits``."""
    fields = {visit.field.id: visit.field for visit in visits}
    numbers = {identifier: number for number, identifier in enumerate(sorted(fields))}
    places = [(fields[i].ra, fields[i].dec) for i in sorted(fields)]
    missed = 2.0 * (pointing_error_arcsec(camera, scenario.optics) + scenario.optics.dither_arcsec)
    footprints = tuple(make_footprint(camera, detectors, ra=ra, dec=dec, margin_arcsec=missed) for ra, dec in places)
    wide = tuple(disc for footprint in footprints for disc in footprint.discs(scenario.refcat.margin_deg))
    stars = make_stars(scenario.stars, discs=wide, seed=seed)
    galaxies = make_galaxies(scenario.galaxies, discs=wide, seed=seed)
    nights = sorted({visit.night for visit in visits})
    middles = [float(np.mean([v.mjd_tai for v in visits if v.night == night])) for night in nights]
    moments = {
        (night, numbers[field]): float(np.mean([v.mjd_tai for v in visits if v.night == night and v.field.id == field]))
        for night, field in sorted({(v.night, v.field.id) for v in visits})
    }
    return Universe(
        stars, galaxies, make_variables(scenario.variables, stars, footprints=footprints, seed=seed),
        make_transients(scenario.transients, galaxies, footprints=footprints, nights=middles, seed=seed),
        make_asteroids(scenario.asteroids, footprints=footprints, site=camera.site, moments=moments, seed=seed),
    )  # fmt: skip


def scene_of(universe: Universe, camera: Camera, visit: Visit) -> Scene:
    """Return all sources as they are in the middle of an exposure."""
    year, moment = times.julian_year(visit.mjd_tai), visit.mjd_tai
    stars, galaxies, transients = universe.stars, universe.galaxies, universe.transients
    star_ra, star_dec = positions_at(stars, year)
    star_mags = np.array([stars[f"mag_{band}"] for band in "griz"])
    star_kind = np.zeros(stars.n_rows, dtype=np.int16)
    order = np.argsort(stars["source_id"])
    rows = order[np.searchsorted(stars["source_id"], universe.variables["source_id"], sorter=order)]
    for k, band in enumerate("griz"):
        star_mags[k, rows] += magnitude_changes(universe.variables, mjd_tai=moment, band=band)
    star_kind[rows] = KINDS.index("variable")
    galaxy_mags = np.array([galaxies[f"mag_{band}"] for band in "griz"])
    elements = elements_of(universe.asteroids)
    half = visit.exposure_s / 172800.0
    before, seen, after = (
        apparent_places(elements, site=camera.site, mjd_tai=moment + part * half) for part in (-1.0, 0.0, 1.0)
    )
    n = (stars.n_rows, galaxies.n_rows, transients.n_rows, elements.a.size)
    still = np.zeros(sum(n[:3]))
    east = ((after.ra - before.ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(seen.dec)) * 3600.0
    return Scene(
        np.concatenate([t["source_id"] for t in (stars, galaxies, transients, universe.asteroids)]),
        np.concatenate([star_kind, *(np.full(m, code, dtype=np.int16) for code, m in enumerate(n) if code)]),
        np.concatenate([star_ra, galaxies["ra"], transients["ra"], seen.ra]),
        np.concatenate([star_dec, galaxies["dec"], transients["dec"], seen.dec]),
        np.concatenate(
            [star_mags, galaxy_mags, transient_magnitudes(transients, mjd_tai=moment), asteroid_magnitudes(seen.mag_v)],
            axis=1,
        ),
        np.concatenate([still, east]), np.concatenate([still, (after.dec - before.dec) * 3600.0]),
        np.concatenate([np.full(n[0], -1), np.arange(n[1]), np.full(n[2] + n[3], -1)]),
    )  # fmt: skip


def magnitude_through(mags: Floats, glass: Filter, colour_terms: dict[str, float]) -> Floats:
    """Return magnitudes in the instrument's system: ``catalog - term * colour``.

    The sign is that of `gueststar.model.photocal.PhotoCal`, so that a calibration finds the scenario's terms.
    """
    band = {name: k for k, name in enumerate("griz")}
    catalog = mags[band.get(glass.catalog_band, 1)]
    first, second = (mags[band.get(name, 1)] for name in glass.colour)
    with np.errstate(invalid="ignore"):
        colour = np.where(np.isfinite(catalog), first - second, 0.0)
    return np.asarray(catalog - colour_terms.get(glass.catalog_band, 0.0) * colour)
