"""Tracklets of several nights that may be one body: those through whose places one orbit goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.algorithms.moving.fit_orbit import OrbitFit, OrbitPlaces, fit_orbit
from gueststar.algorithms.moving.observer import barycentric, observer_position
from gueststar.formats.ades import AdesObservation
from gueststar.model.camera import Site
from gueststar.pipelines.moving.astrometry import short_name

Floats = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class OrbitLinkConfig:
    """Which tracklets of two nights an orbit is tried for, and when it is one."""

    max_days: float = 8.0
    """Between the two."""
    max_stretch: float = 2.5
    """By which factor the way between them, and their rates, may differ from what the first one's rate tells."""
    max_turn_deg: float = 60.0
    """By how much the way between them, and the second's direction, may differ from the first one's direction."""
    max_mag_difference: float = 1.5
    min_places: int = 4
    """In both together."""
    min_probability: float = 1e-2
    """Of the chi-square of the orbit."""


class OrbitLink(NamedTuple):
    """Two tracklets and the orbit through them."""

    first: str
    """Name of the earlier one."""
    second: str
    n_places: int
    fit: OrbitFit


class LinkNights:
    """Find pairs of tracklets of different nights that one orbit explains."""

    def __init__(self, config: OrbitLinkConfig = OrbitLinkConfig()) -> None:
        self.config = config

    def run(
        self, first: Sequence[Row], second: Sequence[Row], observations: Sequence[AdesObservation], *, site: Site
    ) -> list[OrbitLink]:
        """Return the pairs, the likeliest first; no tracklet is in two of them.

        ``observations`` are what `TellAstrometry` makes of both nights' tracklets: mid-exposure places with errors
        along and across.
        """
        of: dict[str, list[AdesObservation]] = {}
        for one in observations:
            of.setdefault(one.tracklet, []).append(one)
        found = []
        for a, b in self._pairs(first, second):
            names = short_name(int(a["tracklet_id"])), short_name(int(b["tracklet_id"]))
            places = [*of.get(names[0], ()), *of.get(names[1], ())]
            if len(places) < self.config.min_places or any(name not in of for name in names):
                continue
            fit = orbit_through(places, site=site)
            if fit is not None and fit.probability >= self.config.min_probability:
                found.append(OrbitLink(*names, len(places), fit))
        taken: set[str] = set()
        kept = []
        for link in sorted(found, key=lambda link: (-link.fit.probability, link.first, link.second)):
            if not taken & {link.first, link.second}:
                taken |= {link.first, link.second}
                kept.append(link)
        return kept

    def _pairs(self, first: Sequence[Row], second: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
        for a in first:
            for b in second:
                if self.is_near(a, b):
                    yield a, b

    def is_near(self, a: Row, b: Row) -> bool:
        """Return whether a tracklet lies about where an earlier one was going, as fast and as bright."""
        config, days = self.config, b["mjd_tai"] - a["mjd_tai"]
        if not 0.0 < days <= config.max_days or abs(a["mag"] - b["mag"]) > config.max_mag_difference:
            return False
        start, end = unit_vectors(a["ra"], a["dec"]), unit_vectors(b["ra"], b["dec"])
        way = float(separation_arcsec(start, end)) / (days * 1440.0)
        rates = [
            way / max(a["rate_arcsec_per_min"], 1e-9),
            b["rate_arcsec_per_min"] / max(a["rate_arcsec_per_min"], 1e-9),
        ]
        if any(not 1.0 / config.max_stretch <= rate <= config.max_stretch for rate in rates):
            return False
        angles = [_direction(start, end), float(b["position_angle_deg"])]
        return all(_turn(angle, float(a["position_angle_deg"])) <= config.max_turn_deg for angle in angles)


def orbit_through(observations: Sequence[AdesObservation], *, site: Site) -> OrbitFit | None:
    """Return the two-body orbit through observations from one site; None where no ellipse fits."""
    mjd = np.array([one.mjd_tai for one in observations])
    vectors = unit_vectors([one.ra for one in observations], [one.dec for one in observations])
    angle, along, across = (np.array([getattr(one, name) for one in observations]) for name in _ERRORS)
    middle, step = float(mjd.mean()), 1e-3
    before, after = (heliocentric_observer(np.array([middle + k * step]), site)[:, 0] for k in (-1.0, 1.0))
    places = OrbitPlaces(mjd, vectors, angle, along, across, heliocentric_observer(mjd, site))
    return fit_orbit(places, observer_velocity=(after - before) / (2.0 * step))


_ERRORS = ("angle_deg", "error_along", "error_across")


def heliocentric_observer(mjd_tai: Floats, site: Site) -> Floats:
    """Return where a site was about the Sun, ``[3, n]``, au."""
    place = observer_position(
        mjd_tai, longitude_deg=site.longitude_deg, latitude_deg=site.latitude_deg, height_m=site.height_m
    )
    return np.asarray(place - barycentric("sun", mjd_tai))


def _direction(start: Floats, end: Floats) -> float:
    """Return the position angle of one unit vector from another, degrees."""
    flat = max(float(np.hypot(start[0], start[1])), 1e-12)
    east = np.array([-start[1] / flat, start[0] / flat, 0.0])
    away = end - start
    return float(np.degrees(np.arctan2(away @ east, away @ np.cross(start, east))) % 360.0)


def _turn(one: float, other: float) -> float:
    return abs((one - other + 180.0) % 360.0 - 180.0)
