from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.polynomial import PlaneMap, design_matrix, n_terms, substitute
from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.astrometry.quality import linear_change
from gueststar.algorithms.astrometry.selection import select_bright
from gueststar.algorithms.astrometry.tangent import identity_tpv, tangent_deproject, tangent_project
from gueststar.algorithms.astrometry.tpv_conversion import tpv_from_plane_map
from gueststar.algorithms.astrometry.verification import SearchVolume, verify
from gueststar.algorithms.astrometry.voting import Hypothesis, search_grid, vote
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import AstrometrySolution, SolveAstrometry

SHAPE = (1000, 1100)
SCALE = 1.2


@dataclass(frozen=True)
class Field:
    """A made sky on a detector, with its truth."""

    truth: Wcs
    reference: Catalog
    sources: Catalog
    star_of_source: np.ndarray


def true_wcs(
    *, ra: float = 150.0, dec: float = 2.0, rotation: float = 30.0, parity: int = 1, cubic: float = 0.0
) -> Wcs:
    plain = Wcs.tangent(ra=ra, dec=dec, x=549.5, y=499.5, scale_arcsec=SCALE, rotation_deg=rotation, parity=parity)
    pv1, pv2 = identity_tpv(), identity_tpv()
    pv1[[4, 5, 7, 9]] = 0.3 * cubic, -0.2 * cubic, cubic, cubic
    pv2[[4, 5, 7, 9]] = -0.1 * cubic, 0.2 * cubic, cubic, cubic
    return Wcs(plain.crval, plain.crpix, plain.cd, pv1, pv2)


def make_field(
    rng: np.random.Generator, truth: Wcs, *, n: int = 400, error: float = 0.05, spurious: int = 0
) -> Field:  # fmt: skip
    """Stars over more than the detector; magnitudes rise as 10**(0.3 m); 10 % are lacking on either side."""
    total, reference_error_mas = int(4 * n), 10.0
    x, y = rng.uniform(-550, 1650, total), rng.uniform(-500, 1500, total)
    mag = 20.0 + np.maximum(np.log10(rng.uniform(size=total)) / 0.3, -8.0)
    ra, dec = truth.pixel_to_sky(x=x, y=y)
    known = np.flatnonzero(rng.uniform(size=total) < 0.9)
    columns = {c.name: np.zeros(known.size) for c in REFCAT.columns}
    shift = rng.normal(0, reference_error_mas / 3.6e6, (2, known.size))
    columns |= {
        "ref_id": known,
        "ra": (ra[known] + shift[0] / np.cos(np.radians(dec[known]))) % 360, "dec": dec[known] + shift[1],
        "ra_err": np.full(known.size, reference_error_mas), "dec_err": np.full(known.size, reference_error_mas),
        "mag_r": mag[known], "epoch": np.full(known.size, 2016.0),
    }  # fmt: skip
    seen = np.flatnonzero((x > 0) & (x < 1099) & (y > 0) & (y < 999) & (rng.uniform(size=total) < 0.9))
    xs = np.r_[x[seen] + rng.normal(0, error, seen.size), rng.uniform(0, 1100, spurious)]
    ys = np.r_[y[seen] + rng.normal(0, error, seen.size), rng.uniform(0, 1000, spurious)]
    flux = 10 ** (
        -0.4 * (np.r_[mag[seen], rng.choice(mag, spurious)] - 25.0 + rng.normal(0, 0.2, seen.size + spurious))
    )
    sigma = np.full(xs.size, error)
    sources = Catalog({"x": xs, "y": ys, "x_err": sigma, "y_err": sigma, "flux": flux})
    return Field(truth, REFCAT.catalog(columns), sources, np.r_[seen, np.full(spurious, -1)])


def told(truth: Wcs, *, off_arcmin: float = 1.0, turn: float = 1.0, stretch: float = 0.99, parity: int = 1) -> Wcs:
    """Return a wrong, undistorted start."""
    x, y = 549.5 + 60 * off_arcmin / SCALE * 0.8, 499.5 - 60 * off_arcmin / SCALE * 0.6
    ra, dec = truth.pixel_to_sky(x=x, y=y)
    return Wcs.tangent(
        ra=float(ra), dec=float(dec), x=549.5, y=499.5,
        scale_arcsec=SCALE * stretch, rotation_deg=30.0 + turn, parity=parity,
    )  # fmt: skip


def solve(field: Field, start: Wcs, **tolerances: object) -> AstrometrySolution:
    return SolveAstrometry().run(
        field.sources, start=start, shape=SHAPE, reference=field.reference, epoch_year=2016.0, **tolerances
    )  # type: ignore[arg-type]


def worst_error_pixel(wcs: Wcs, truth: Wcs) -> float:
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 1099, 9), np.linspace(0, 999, 9)))
    there = truth.sky_to_pixel(**dict(zip(("ra", "dec"), wcs.pixel_to_sky(x=x, y=y), strict=True)))
    return float(np.max(np.hypot(there[0] - x, there[1] - y)))


def test_a_wrong_pointing_is_mended_and_the_matches_are_the_right_stars() -> None:
    field = make_field(np.random.default_rng(1), true_wcs(cubic=0.02))
    solution = solve(field, told(field.truth))
    assert worst_error_pixel(solution.wcs, field.truth) < 0.05
    star = field.star_of_source[solution.matches.source]
    assert np.mean(field.reference["ref_id"][solution.matches.reference] == star) > 0.99
    metrics = solution.metrics
    assert metrics.pointing_offset_arcsec == pytest.approx(60.0, abs=0.5)
    assert metrics.scale_ratio == pytest.approx(1 / 0.99, abs=1e-3)
    assert abs(metrics.rotation_deg) == pytest.approx(1.0, abs=0.02)
    assert metrics.rms_ra_mas == pytest.approx(np.hypot(50 * SCALE, 10), rel=0.2)
    assert metrics.reduced_chi2 == pytest.approx(1.0, abs=0.2)
    assert metrics.log10_false_probability < -30


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("turn", [90.0, 211.0])
def test_any_rotation_and_either_parity_are_found(turn: float, parity: int) -> None:
    field = make_field(np.random.default_rng(2), true_wcs(parity=parity, cubic=0.01))
    start = told(field.truth, off_arcmin=4.0, turn=turn, stretch=1.04)
    solution = solve(field, start, rotation_tolerance_deg=180.0, is_parity_known=False)
    assert worst_error_pixel(solution.wcs, field.truth) < 0.1
    assert solution.metrics.is_mirrored == (parity == -1)
    assert solution.wcs.parity == parity


@pytest.mark.parametrize(("ra", "dec"), [(0.001, 40.0), (359.999, -70.0), (77.0, 89.97), (10.0, -89.99)])
def test_right_ascension_zero_and_the_poles_are_like_any_place(ra: float, dec: float) -> None:
    field = make_field(np.random.default_rng(3), true_wcs(ra=ra, dec=dec))
    solution = solve(field, told(field.truth), rotation_tolerance_deg=180.0)
    assert worst_error_pixel(solution.wcs, field.truth) < 0.05


def test_ten_stars_suffice_and_the_prior_distortion_is_kept() -> None:
    truth = true_wcs(cubic=0.05)
    solved = 0
    for seed in range(10):
        field = make_field(np.random.default_rng(seed), truth, n=10)
        start = Wcs(told(truth).crval, truth.crpix, truth.cd * 0.995, truth.pv1, truth.pv2)
        solution = solve(field, start)
        solved += worst_error_pixel(solution.wcs, truth) < 0.5
    assert solved == 10


def test_three_spurious_detections_a_star_do_not_mislead() -> None:
    field = make_field(np.random.default_rng(4), true_wcs(), spurious=1200)
    solution = solve(field, told(field.truth))
    assert worst_error_pixel(solution.wcs, field.truth) < 0.05
    matched = field.star_of_source[solution.matches.source]
    assert np.mean(matched >= 0) > 0.97


def test_another_field_is_refused_with_figures() -> None:
    field = make_field(np.random.default_rng(10), true_wcs())
    other = make_field(np.random.default_rng(50), true_wcs())
    with pytest.raises(DataError, match="can be believed: at best .* false-match probability 1e"):
        solve(Field(field.truth, other.reference, field.sources, field.star_of_source), told(field.truth))


def test_too_little_is_refused_in_words() -> None:
    field = make_field(np.random.default_rng(5), true_wcs())
    few = Field(field.truth, field.reference, field.sources.select(np.arange(3)), field.star_of_source)
    with pytest.raises(DataError, match="3 sources and .* catalog stars are too few"):
        solve(few, told(field.truth))
    nothing = Field(field.truth, REFCAT.empty(), field.sources, field.star_of_source)
    with pytest.raises(DataError, match="0 catalog stars are too few"):
        solve(nothing, told(field.truth))


def test_matches_in_a_corner_do_not_make_a_solution_for_the_whole_detector() -> None:
    field = make_field(np.random.default_rng(6), true_wcs(), n=2000)
    corner = (field.sources["x"] < 220) & (field.sources["y"] < 200)
    cut = Field(field.truth, field.reference, field.sources.select(corner), field.star_of_source[corner])
    with pytest.raises(DataError, match=r"refused: .* sources match, .*they cover \d% of the detector"):
        solve(cut, told(field.truth))


def test_proper_motions_bring_the_catalog_to_the_night() -> None:
    rng = np.random.default_rng(7)
    field = make_field(rng, true_wcs())
    moving = field.reference.replace(
        pm_ra=rng.normal(0, 300, field.reference.n_rows), pm_dec=rng.normal(0, 300, field.reference.n_rows)
    )
    now_ra, now_dec = propagate_positions(
        ra=moving["ra"], dec=moving["dec"], pm_ra=-moving["pm_ra"], pm_dec=-moving["pm_dec"], years=10.0
    )
    then = Field(
        field.truth,
        moving.replace(ra=now_ra, dec=now_dec, epoch=moving["epoch"] - 10.0),
        field.sources,
        field.star_of_source,
    )
    assert solve(then, told(field.truth)).metrics.reduced_chi2 == pytest.approx(1.0, abs=0.2)


def test_proper_motion_at_the_pole_goes_over_it() -> None:
    ra, dec = propagate_positions(
        ra=[30.0, 120.0], dec=[89.9999, 0.0], pm_ra=[0.0, 3.6e6], pm_dec=[3.6e5 * 2, 0.0], years=1.0
    )
    assert ra[0] == pytest.approx(210.0)
    assert dec[0] == pytest.approx(89.8001, abs=1e-6)
    assert (ra[1], dec[1]) == (pytest.approx(121.0, abs=1e-3), pytest.approx(0.0, abs=1e-12))


def test_votes_find_shift_rotation_and_scale_among_strangers() -> None:
    rng = np.random.default_rng(8)
    stars = rng.uniform(-1000, 1000, (120, 2))
    turn = np.radians(25.0)
    matrix = 1.03 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.concatenate([(stars[:40] - [80.0, -30.0]) @ np.linalg.inv(matrix).T, rng.uniform(-1000, 1000, (40, 2))])
    grid = search_grid(radius=1400.0, bin_size=25.0, max_shift=200.0, max_rotation=np.pi, scale_tolerance=0.05)
    volume = SearchVolume(200.0, np.pi, 0.05, 1, 1400.0)
    verdicts = [
        verify(h, points, cKDTree(stars), radius=40.0, min_radius=2.0, volume=volume)
        for h in vote(points, stars, grid, n_best=20)
    ]
    best = min(verdicts, key=lambda v: v.log10_false_probability)
    np.testing.assert_allclose(best.matrix, matrix, atol=1e-6)
    np.testing.assert_allclose(best.shift, [80.0, -30.0], atol=1e-3)
    assert best.n_matched >= 40
    assert best.log10_false_probability < -40


def test_the_false_match_probability_is_no_smaller_than_chance_makes_it() -> None:
    """Of random pointings judged alone, at most about the stated fraction look that sure."""
    rng = np.random.default_rng(9)
    volume = SearchVolume(20.0, 0.02, 0.02, 1, 1000.0)
    sure = []
    for _ in range(300):
        points, stars = rng.uniform(-1000, 1000, (60, 2)), rng.uniform(-1000, 1000, (150, 2))
        verdict = verify(
            Hypothesis(0, 0.0, 1.0, 0.0, 0.0, False),
            points,
            cKDTree(stars),
            radius=20.0,
            min_radius=20.0,
            volume=volume,
        )
        sure.append(verdict.log10_false_probability < -2.0)
    assert np.mean(sure) < 0.015


def test_bright_stars_are_taken_from_everywhere() -> None:
    rng = np.random.default_rng(11)
    x, y = (
        np.r_[rng.normal(375, 5, 500), rng.uniform(0, 1000, 300)],
        np.r_[rng.normal(375, 5, 500), rng.uniform(0, 1000, 300)],
    )
    magnitude = np.r_[np.full(500, 10.0), np.full(300, 15.0)]
    chosen = select_bright(x, y, magnitude, n=60, cell=250.0, min_distance=1.0)
    assert chosen.size == 60
    assert np.sum(chosen < 500) <= 24


def test_substitution_is_exact() -> None:
    rng = np.random.default_rng(12)
    coefficients = rng.normal(size=(2, n_terms(5)))
    matrix, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
    s, t = rng.uniform(-1, 1, 20), rng.uniform(-1, 1, 20)
    u, v = matrix @ np.stack([s, t]) + shift[:, None]
    direct = design_matrix(u, v, 5) @ coefficients.T
    np.testing.assert_allclose(
        design_matrix(s, t, 5) @ substitute(coefficients, matrix, shift).T, direct, rtol=1e-9, atol=1e-9
    )


def test_tpv_form_is_the_plane_map_itself() -> None:
    rng = np.random.default_rng(13)
    coefficients = rng.normal(0, 0.3, (2, n_terms(5)))
    coefficients[:, 1:3] = [[-600.0, 40.0], [35.0, 610.0]]
    plane = PlaneMap(coefficients, 549.5, 499.5, 742.0)
    terms = tpv_from_plane_map(plane)
    wcs = Wcs((33.0, -45.0), terms.crpix, terms.cd, terms.pv1, terms.pv2)
    x, y = rng.uniform(0, 1100, 30), rng.uniform(0, 1000, 30)
    xi, eta = plane(x, y).T / 3600.0
    expected = tangent_deproject(xi, eta, ra0=33.0, dec0=-45.0)
    np.testing.assert_allclose(wcs.pixel_to_sky(x=x, y=y), expected, rtol=0, atol=1e-12)
    linear = tpv_from_plane_map(PlaneMap(coefficients[:, :3], 549.5, 499.5, 742.0))
    again = Wcs((33.0, -45.0), linear.crpix, linear.cd, linear.pv1, linear.pv2)
    assert again.to_header()["CTYPE1"] == "RA---TAN"
    back = np.array(tangent_project(*again.pixel_to_sky(x=x, y=y), ra0=33.0, dec0=-45.0)).T * 3600.0
    np.testing.assert_allclose(back, PlaneMap(coefficients[:, :3], 549.5, 499.5, 742.0)(x, y), atol=1e-6)


def test_linear_change_tells_rotation_scale_and_shear() -> None:
    turn = np.radians(12.0)
    matrix = 1.1 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([1.01, 1.0])
    change = linear_change(np.eye(2), matrix)
    assert change.rotation_deg == pytest.approx(12.0)
    assert change.scale == pytest.approx(1.1 * np.sqrt(1.01))
    assert change.shear == pytest.approx(0.01)
