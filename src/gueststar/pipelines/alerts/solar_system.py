"""Known Solar-System objects in an image: who is there, how bright, and which detections lie near one.

All orbits are looked at once in half a day, roughly; only those that may be in the image are followed exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.match import nearest
from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.moving.observer import barycentric, observer_position
from gueststar.algorithms.moving.orbits import Elements, seen_from
from gueststar.model.camera import Site
from gueststar.model.catalog import Catalog, Column, Schema
from gueststar.pipelines.alerts.neighbours import SOLAR_SYSTEM_MATCH

Floats = NDArray[np.float64]

KNOWN_OBJECT = Schema(
    "known_object",
    (
        Column("name", "U40", "", "number, or provisional designation without spaces"),
        Column("ra", "f8", "deg", "predicted astrometric right ascension, topocentric, ICRS"),
        Column("dec", "f8", "deg", "predicted declination"),
        Column("mag_v", "f4", "mag", "predicted V magnitude; NaN if H is unknown"),
        Column("distance_au", "f4", "au", "from the observer"),
        Column("sun_distance_au", "f4", "au", "from the Sun"),
        Column("phase_angle", "f4", "deg", "Sun-object-observer"),
    ),
)
"""Known Solar-System objects about an image at the middle of its exposure."""

_BIN_DAYS = 0.5
_SPREAD = 1.5
"""How much farther a body may go in half a bin than it goes on average: those near the Earth turn."""
_MARGIN_DEG = 0.1
_AT_ONCE = 50_000
_TDB_MINUS_TAI_DAYS = 32.184 / 86400.0


@dataclass(frozen=True)
class SolarSystemConfig:
    """Which known objects are told."""

    max_arcsec: float = 30.0
    """A known object is told of a detection within this distance."""
    max_epoch_days: float = 200.0
    """Orbits whose epoch is farther from the exposure are not used: two bodies are not enough."""
    max_beyond_limit_mag: float = 3.0
    """Objects that are predicted this much fainter than the image's limit are not told."""


class _Rough(NamedTuple):
    """Where all bodies are in one bin of time."""

    vectors: NDArray[np.float32]
    """``[n, 3]`` at its middle."""
    reach_deg: NDArray[np.float32]
    """``[n]``: how far each may be from there within the bin."""


class KnownObjects:
    """The known bodies of the Solar System as a site sees them; ``orbits`` are `ORBIT` or `PREDICTED` rows."""

    def __init__(self, orbits: Catalog, site: Site, config: SolarSystemConfig = SolarSystemConfig()) -> None:
        self.config = config
        self._names, self._slope = orbits["name"].astype(np.bytes_), orbits["slope"]
        self._elements = Elements(*(orbits[name] for name in Elements._fields))
        self._site = site
        self._rough: dict[int, _Rough] = {}

    @property
    def n_bodies(self) -> int:
        """Number of bodies."""
        return int(self._elements.a.size)

    def n_used(self, mjd_tai: float) -> int:
        """Return how many orbits are of an epoch near enough to a moment to be used."""
        return int(np.count_nonzero(self._is_fresh(mjd_tai)))

    def _is_fresh(self, mjd_tai: float) -> NDArray[np.bool_]:
        return np.asarray(np.abs(mjd_tai - self._elements.epoch_mjd) <= self.config.max_epoch_days)

    def near(
        self, *, ra: float, dec: float, radius_deg: float, mjd_tai: float, faintest_mag: float = np.inf
    ) -> Catalog:
        """Return `KNOWN_OBJECT` rows within a cone (degrees, ICRS) at a moment, bodies of unknown H included.

        Two-body motion with light time, topocentric; how wrong that is after some time from the orbits' epoch is
        in the documentation.
        """
        rough = self._at(mjd_tai)
        (centre,) = unit_vectors(np.array([ra]), np.array([dec]))
        chord = np.sqrt(((rough.vectors - centre) ** 2).sum(axis=1))
        away = np.degrees(2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0)))
        rows = np.flatnonzero((away <= radius_deg + rough.reach_deg) & self._is_fresh(mjd_tai))
        found = self._seen(rows, mjd_tai)
        is_inside = _separation_deg(found["ra"], found["dec"], centre) <= radius_deg
        return found.select(is_inside & ~(found["mag_v"] > faintest_mag))

    def _seen(self, rows: NDArray[np.intp], mjd_tai: float) -> Catalog:
        if len(rows) == 0:
            return KNOWN_OBJECT.empty()
        seen = seen_from(
            self._elements.select(rows), observer=self._observer(mjd_tai), sun=barycentric("sun", mjd_tai),
            mjd=mjd_tai + _TDB_MINUS_TAI_DAYS, slope=self._slope[rows],
        )  # fmt: skip
        return KNOWN_OBJECT.catalog({"name": self._names[rows].astype(np.str_), **seen._asdict()})

    def _at(self, mjd_tai: float) -> _Rough:
        """Return the rough places for the bin that holds a moment; the last two bins are remembered."""
        number = int(np.floor(mjd_tai / _BIN_DAYS))
        if number not in self._rough:
            if len(self._rough) > 1:
                del self._rough[next(iter(self._rough))]
            self._rough[number] = self._made(number)
        return self._rough[number]

    def _made(self, number: int) -> _Rough:
        """Look at all bodies at the ends and the middle of a bin, some at a time: a million at once would need 1 GB."""
        n = self._elements.a.size
        vectors, reach = np.empty((n, 3), dtype=np.float32), np.empty(n, dtype=np.float32)
        for first in range(0, n, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            some = Elements(*(values[part] for values in self._elements))
            start, middle, end = (self._directions(some, (number + at) * _BIN_DAYS) for at in (0.0, 0.5, 1.0))
            farthest = np.sqrt(np.maximum(((start - middle) ** 2).sum(axis=1), ((end - middle) ** 2).sum(axis=1)))
            vectors[part], reach[part] = middle, np.degrees(farthest) * _SPREAD + _MARGIN_DEG
        return _Rough(vectors, reach)

    def _directions(self, elements: Elements, mjd_tai: float) -> Floats:
        seen = seen_from(
            elements, observer=self._observer(mjd_tai), sun=barycentric("sun", mjd_tai),
            mjd=mjd_tai + _TDB_MINUS_TAI_DAYS,
        )  # fmt: skip
        return unit_vectors(seen.ra, seen.dec)

    def _observer(self, mjd_tai: float) -> Floats:
        site = self._site
        return observer_position(
            mjd_tai, longitude_deg=site.longitude_deg, latitude_deg=site.latitude_deg, height_m=site.height_m
        )


def match_known_objects(dia_sources: Catalog, known: Catalog, *, max_arcsec: float) -> Catalog:
    """Return `SOLAR_SYSTEM_MATCH` rows: the nearest known object of each detection that has one within reach."""
    index, distance = nearest(
        dia_sources["ra"], dia_sources["dec"], known["ra"], known["dec"], k=1, max_arcsec=max_arcsec
    )
    rows = np.flatnonzero(index[:, 0] >= 0)
    of = index[rows, 0]
    columns: Mapping[str, NDArray[np.generic]] = {
        "dia_source_id": dia_sources["dia_source_id"][rows], "distance": distance[rows, 0], "mag": known["mag_v"][of],
        "name": known["name"][of],
    }  # fmt: skip
    return SOLAR_SYSTEM_MATCH.catalog(columns)


def _separation_deg(ra: Floats, dec: Floats, centre: Floats) -> Floats:
    chord = np.sqrt(((unit_vectors(ra, dec) - centre) ** 2).sum(axis=1))
    return np.degrees(2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0)))
