"""Places of one body lie on one orbit; places of two bodies do not."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.association.sky_index import sky_positions, unit_vectors
from gueststar.algorithms.moving.fit_orbit import OrbitPlaces, fit_orbit, moved
from gueststar.algorithms.moving.motion import fit_motion
from gueststar.algorithms.moving.orbits import Elements, heliocentric
from gueststar.formats.ades import AdesObservation
from gueststar.model.camera import Site
from gueststar.pipelines.moving.astrometry import short_name
from gueststar.pipelines.moving.orbits import LinkNights
from gueststar.simulation import ephemeris
from gueststar.simulation.orbits import apparent_places, passing_by

SITE = Site(name="here", latitude_deg=-30.17, longitude_deg=-70.8, height_m=2200.0)
START = 60768.2


def places_of(orbit, mjd, rng, *, along: float = 0.3, across: float = 0.1, angle: float = 40.0) -> OrbitPlaces:
    seen = [apparent_places(orbit, site=SITE, mjd_tai=float(t)) for t in mjd]
    ra, dec = np.array([s.ra[0] for s in seen]), np.array([s.dec[0] for s in seen])
    a, c = rng.normal(0.0, along, mjd.size), rng.normal(0.0, across, mjd.size)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    vectors = unit_vectors(
        ra + (a * sine - c * cosine) / 3600.0 / np.cos(np.radians(dec)), dec + (a * cosine + c * sine) / 3600.0
    )
    return with_observer(mjd, vectors, angle, along, across)


def with_observer(mjd, vectors, angle, along, across) -> OrbitPlaces:
    observer = np.array([helio(float(t)) for t in mjd]).T
    n = mjd.size
    return OrbitPlaces(mjd, vectors, np.full(n, angle), np.full(n, along), np.full(n, across), observer)


def helio(mjd: float) -> np.ndarray:
    return np.asarray(ephemeris.observer_position(SITE, mjd) - ephemeris.sun_position(mjd))


def velocity_at(mjd: np.ndarray) -> np.ndarray:
    t = float(mjd.mean())
    return (helio(t + 1e-3) - helio(t - 1e-3)) / 2e-3


def body(rate: float, angle: float, *, ra: float = 190.0):
    return passing_by(
        ra=np.array([ra]), dec=np.array([-4.0]), rate=np.array([rate]), position_angle=np.array([angle]),
        speed_km_s=np.array([9.0]), site=SITE, mjd_tai=START,
    )  # fmt: skip


NIGHTS = START + np.array([0.0, 0.015, 0.03, 0.99, 1.005, 1.02, 2.0])


@pytest.mark.parametrize(("rate", "angle"), [(2.0, 300.0), (8.0, 120.0), (20.0, 200.0)])
def test_places_of_three_nights_tell_the_distance_of_a_near_body(rate: float, angle: float) -> None:
    orbit = body(rate, angle)
    assert orbit.e[0] < 1.0
    fit = fit_orbit(places_of(orbit, NIGHTS, np.random.default_rng(3)), observer_velocity=velocity_at(NIGHTS))
    assert fit is not None
    assert fit.probability > 1e-3
    assert fit.rms_arcsec < 0.8
    true = apparent_places(orbit, site=SITE, mjd_tai=float(NIGHTS.mean()))
    assert fit.distance_au == pytest.approx(float(true.distance_au[0]), rel=0.15)


def test_a_body_moves_along_its_conic() -> None:
    rng = np.random.default_rng(5)
    n = 30
    orbits = Elements(
        rng.uniform(0.8, 4.0, n), rng.uniform(0.0, 0.9, n), rng.uniform(0.0, 170.0, n),
        *rng.uniform(0.0, 360.0, (3, n)),
        np.full(n, START), np.full(n, 18.0),
    )  # fmt: skip
    days, step = np.array([-9.0, 0.0, 3.0, 20.0]), 1e-4
    for k in range(n):
        one = orbits.select(np.array([k]))
        before, here, after = (heliocentric(one, START + d)[:, 0] for d in (-step, 0.0, step))
        true = np.concatenate([heliocentric(one, START + d) for d in days], axis=1)
        assert moved(here, (after - before) / (2 * step), days) == pytest.approx(true, abs=3e-6)


def test_places_of_two_bodies_lie_on_no_orbit() -> None:
    rng = np.random.default_rng(3)
    one, other = body(8.0, 120.0), body(8.6, 124.0)
    first, second = places_of(one, NIGHTS[:3], rng), places_of(other, NIGHTS[3:], rng)
    vectors = np.concatenate([first.vectors, second.vectors + np.array([0.0, 0.002, 0.002])])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fit = fit_orbit(with_observer(NIGHTS, vectors, 40.0, 0.3, 0.1), observer_velocity=velocity_at(NIGHTS))
    assert fit is None or fit.probability < 1e-3


def test_tracklets_of_two_nights_are_linked_by_their_orbit_and_strangers_are_not() -> None:
    rng = np.random.default_rng(8)
    tracklets: list[list[dict]] = [[], []]
    told = []
    bodies = [body(3.0, 290.0), body(5.0, 250.0, ra=190.4), body(2.0, 300.0, ra=190.2)]
    for night, start in enumerate((START, START + 1.0)):
        for k, orbit in enumerate(bodies[:2] if night == 0 else bodies[::2]):
            mjd = start + np.array([0.0, 0.02, 0.04])
            places = places_of(orbit, mjd, rng, along=0.15, across=0.15)
            number = 10 * night + k
            ra, dec = sky_positions(places.vectors)
            told += [
                AdesObservation(short_name(number), t, a, d, 0.15, 0.15) for t, a, d in zip(mjd, ra, dec, strict=True)
            ]
            motion = fit_motion(places.vectors, mjd, np.full(3, 0.15), np.full(3, 0.15))
            tracklets[night].append({
                "tracklet_id": number, "mjd_tai": motion.mjd, "ra": motion.ra, "dec": motion.dec, "mag": 18.0,
                "rate_arcsec_per_min": motion.rate, "position_angle_deg": motion.position_angle,
            })  # fmt: skip
    links = LinkNights().run(*tracklets, told, site=SITE)
    assert [(link.first, link.second) for link in links] == [(short_name(0), short_name(10))]
    assert links[0].fit.rms_arcsec < 0.5
