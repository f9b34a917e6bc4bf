"""Detections find their objects, anywhere on the sphere."""

from __future__ import annotations

import time

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from gueststar.algorithms.association.footprint import enclosing_circle, enlarged, is_inside, overlaps
from gueststar.algorithms.association.match import MatchConfig, count_within, match_positions, match_radius, nearest
from gueststar.algorithms.association.mean_position import mean_position, sum_positions
from gueststar.algorithms.association.sky_index import (
    circle_ranges,
    healpix_29,
    index_ranges,
    separation_arcsec,
    sky_positions,
    unit_vectors,
)
from gueststar.model.wcs import Wcs

FIELDS = [(0.0, 0.0), (359.999, -30.0), (123.4, 89.99), (200.0, -89.999), (45.0, 60.0)]


def around(rng: np.random.Generator, ra: float, dec: float, n: int, radius_deg: float) -> tuple[np.ndarray, np.ndarray]:
    centre = unit_vectors(ra, dec)
    vectors = centre + np.radians(radius_deg) * rng.uniform(-1, 1, (n, 3))
    return sky_positions(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_separations_agree_with_astropy(ra: float, dec: float) -> None:
    rng = np.random.default_rng(1)
    ra_1, dec_1 = around(rng, ra, dec, 50, 0.1)
    ra_2, dec_2 = around(rng, ra, dec, 50, 0.1)
    ours = separation_arcsec(unit_vectors(ra_1, dec_1), unit_vectors(ra_2, dec_2))
    theirs = SkyCoord(ra_1, dec_1, unit="deg").separation(SkyCoord(ra_2, dec_2, unit="deg")).arcsec
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_every_detection_finds_its_object_and_no_object_is_taken_twice(ra: float, dec: float) -> None:
    rng = np.random.default_rng(2)
    object_ra, object_dec = around(rng, ra, dec, 400, 0.2)
    vectors = unit_vectors(object_ra, object_dec)
    moved = vectors + np.radians(0.2 / 3600.0) * rng.normal(size=vectors.shape)
    order = rng.permutation(400)[:300]
    source_ra, source_dec = sky_positions(moved[order])
    error = np.full(300, 0.2)
    matches = match_positions(source_ra, source_dec, error, object_ra, object_dec, np.full(400, 0.05))
    assert len(set(matches.index_2.tolist())) == len(matches.index_2)
    assert len(set(matches.index_1.tolist())) == len(matches.index_1)
    right = order[matches.index_1] == matches.index_2
    assert right.mean() > 0.99
    assert len(matches.index_1) >= 295
    assert np.all(matches.probability > 0.9)


def test_the_nearer_of_two_detections_gets_the_object() -> None:
    matches = match_positions(
        np.array([10.0, 10.0]), np.array([0.6 / 3600, 0.2 / 3600]), np.full(2, 0.1),
        np.array([10.0]), np.array([0.0]), np.full(1, 0.1),
    )  # fmt: skip
    assert matches.index_1.tolist() == [1]


def test_the_radius_has_a_floor_and_a_ceiling_and_bears_unknown_errors() -> None:
    config = MatchConfig(floor_arcsec=1.0, n_sigma=3.5, max_arcsec=5.0)
    errors = np.array([0.0, np.nan, 1.0, 100.0])
    np.testing.assert_allclose(match_radius(errors, np.zeros(4), config), [1.0, 1.0, np.hypot(1.0, 3.5), 5.0])


def test_nothing_matches_nothing() -> None:
    none, one = np.zeros(0), np.zeros(1)
    assert len(match_positions(none, none, none, one, one, one).index_1) == 0
    assert len(match_positions(one, one, one, none, none, none).index_1) == 0
    assert nearest(one, one, none, none, k=3, max_arcsec=5.0)[0].tolist() == [[-1, -1, -1]]


def test_a_crowded_field_of_18000_objects_is_matched_fast() -> None:
    rng = np.random.default_rng(3)
    ra, dec = around(rng, 270.0, -30.0, 18_000, 0.4)
    start = time.process_time()
    matches = match_positions(ra[:2000], dec[:2000], np.full(2000, 0.1), ra, dec, np.full(18_000, 0.1))
    assert time.process_time() - start < 0.5
    assert len(matches.index_1) == 2000


def test_nearest_and_count_agree_with_brute_force() -> None:
    rng = np.random.default_rng(4)
    ra_1, dec_1 = around(rng, 0.0, 89.9, 30, 0.05)
    ra_2, dec_2 = around(rng, 0.0, 89.9, 200, 0.05)
    all_pairs = separation_arcsec(unit_vectors(ra_1, dec_1)[:, None], unit_vectors(ra_2, dec_2)[None])
    _, distance = nearest(ra_1, dec_1, ra_2, dec_2, k=3, max_arcsec=60.0)
    expected = np.sort(all_pairs, axis=1)[:, :3]
    np.testing.assert_allclose(distance, np.where(expected <= 60.0, expected, np.nan), rtol=1e-7)
    assert (
        count_within(ra_1, dec_1, ra_2, dec_2, radius_arcsec=30.0).tolist() == (all_pairs <= 30.0).sum(axis=1).tolist()
    )


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_index_ranges_cover_all_that_is_near(ra: float, dec: float) -> None:
    rng = np.random.default_rng(5)
    for radius in (1.0, 5.0, 40.0, 1800.0):
        point_ra, point_dec = around(rng, ra, dec, 400, radius / 3600.0)
        near = separation_arcsec(unit_vectors(point_ra, point_dec), unit_vectors(ra, dec)) <= radius
        numbers = healpix_29(point_ra, point_dec)[near]
        for ranges in (index_ranges(np.array([ra]), np.array([dec]), radius), circle_ranges(ra, dec, radius)):
            covered = np.zeros(len(numbers), dtype=bool)
            for first, last in ranges:
                covered |= (numbers >= first) & (numbers <= last)
            assert covered.all()


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_a_footprint_holds_just_the_points_that_fall_on_its_pixels(ra: float, dec: float) -> None:
    rng = np.random.default_rng(6)
    wcs = Wcs.tangent(ra=ra, dec=dec, x=300.0, y=200.0, scale_arcsec=2.0, rotation_deg=30.0, parity=-1)
    corner_ra, corner_dec = wcs.corners((400, 600))
    point_ra, point_dec = around(rng, ra, dec, 2000, 0.3)
    x, y = wcs.sky_to_pixel(ra=point_ra, dec=point_dec)
    on_image = (x > -0.5) & (x < 599.5) & (y > -0.5) & (y < 399.5)
    assert 100 < on_image.sum() < 1900
    np.testing.assert_array_equal(is_inside(corner_ra[None], corner_dec[None], point_ra, point_dec)[0], on_image)
    circle = enclosing_circle(corner_ra, corner_dec)
    assert circle.radius_arcsec == pytest.approx(np.hypot(400, 600) * 2.0 / 2, rel=0.01)


def test_footprints_that_touch_do_not_overlap_and_enlarged_ones_do() -> None:
    def square(ra: float) -> tuple[np.ndarray, np.ndarray]:
        return Wcs.tangent(ra=ra, dec=0.0, x=99.5, y=99.5, scale_arcsec=1.0).corners((200, 200))

    here = square(0.0)
    others = [square(offset / 3600.0) for offset in (0.0, 150.0, -199.0, 210.0, -300.0)]
    many = np.stack([o[0] for o in others]), np.stack([o[1] for o in others])
    assert overlaps(*many, *here).tolist() == [True, True, True, False, False]
    assert overlaps(*many, *enlarged(*here, 20.0)).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(("ra", "dec"), FIELDS)
def test_mean_positions_add_up_and_have_honest_errors(ra: float, dec: float) -> None:
    rng = np.random.default_rng(7)
    centre, n, sigma = unit_vectors(ra, dec), 400, 0.3
    vectors = centre + np.radians(sigma / 3600.0) * rng.normal(size=(n * 25, 3))
    all_ra, all_dec = sky_positions(vectors)
    error = np.full(n * 25, sigma)
    group = np.repeat(np.arange(n), 25)
    whole = sum_positions(all_ra, all_dec, error, error, group, n)
    half = np.arange(n * 25) % 2 == 0
    parts = [sum_positions(all_ra[h], all_dec[h], error[h], error[h], group[h], n) for h in (half, ~half)]
    for total, one, other in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(total, one + other, rtol=1e-12)
    mean = mean_position(whole)
    off = separation_arcsec(unit_vectors(mean.ra, mean.dec), centre)
    assert np.sqrt(np.mean(off**2) / 2) == pytest.approx(sigma / 5.0, rel=0.1)
    np.testing.assert_allclose(mean.ra_err, sigma / 5.0, rtol=1e-6)
