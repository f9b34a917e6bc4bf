"""A detector's own distortion is learned from many exposures and makes up for missing stars."""

import numpy as np
import pytest

from gueststar.algorithms.astrometry.distortion import (
    Distortion,
    detector_frame,
    legendre_terms,
    legendre_to_powers,
    without_similarity,
)
from gueststar.algorithms.astrometry.learn_distortion import (
    LearnDistortionConfig,
    MatchedStars,
    combine_with_last,
    learn_distortion,
)
from gueststar.algorithms.astrometry.polynomial import design_matrix, n_terms
from gueststar.algorithms.astrometry.tangent import tangent_project
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationTable
from gueststar.model.camera import Amplifier, Detector, Filter, Site
from gueststar.model.columns import SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.distortion import DistortionField, LearnDistortion, distortion_of
from gueststar.pipelines.science.astrometry import air_for, cone_about, match_for_distortion
from tests.unit.test_astrometry import SHAPE, make_field, solve, told, true_wcs, worst_error_pixel

CONFIG = LearnDistortionConfig(min_total_stars=300)
DETECTOR = Detector(
    id=0, name="one", shape=SHAPE,
    amplifiers=(
        Amplifier(
            name="A", data_section="[1:1100,1:1000]", detector_section="[1:1100,1:1000]", gain=1.0, read_noise=5.0,
            saturation=60000.0,
        ),
    ),
)  # fmt: skip


def exposure(rng: np.random.Generator, *, cubic: float, n: int = 300, parity: int = 1) -> MatchedStars:
    wcs = true_wcs(
        cubic=cubic, rotation=30 + rng.normal(0, 0.5), ra=150 + rng.normal(0, 0.02), dec=rng.normal(0, 20),
        parity=parity,
    )  # fmt: skip
    x, y = rng.uniform(0, 1099, n), rng.uniform(0, 999, n)
    places = tangent_project(*wcs.pixel_to_sky(x=x, y=y), ra0=wcs.crval[0], dec0=wcs.crval[1])
    noise = rng.normal(0, 0.05, (2, n))
    return MatchedStars(x + noise[0], y + noise[1], 3600 * np.stack(places, axis=1), np.full(n, 0.05))


def fields(seed: int, n: int, *, cubic: float = 0.05, mjd: float = 60000.0) -> list[DistortionField]:
    rng = np.random.default_rng(seed)
    return [DistortionField(exposure(rng, cubic=cubic), mjd + 0.01 * k) for k in range(n)]


@pytest.fixture(scope="module")
def product() -> CalibrationTable:
    made = LearnDistortion(CONFIG).run(fields(0, 6), DETECTOR)
    assert made is not None
    return made


def test_the_series_and_its_form_in_powers_are_one() -> None:
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=n_terms(5))
    x, y = rng.uniform(0, 1099, 30), rng.uniform(0, 999, 30)
    direct = legendre_terms(*detector_frame(x, y, SHAPE), 5) @ coefficients
    powers = coefficients @ legendre_to_powers(SHAPE, 5, 700.0)
    there = design_matrix((x - 549.5) / 700.0, (y - 499.5) / 700.0, 5) @ powers
    np.testing.assert_allclose(there, direct, rtol=1e-10)


def test_what_exposures_share_is_learned_whatever_their_pointing_rotation_and_parity(
    product: CalibrationTable,
) -> None:
    learned = distortion_of(product)
    mirrored = learn_distortion(
        [exposure(np.random.default_rng(k), cubic=0.05, parity=-1) for k in range(6)], SHAPE, CONFIG
    )
    assert mirrored is not None
    for found in (learned, mirrored.distortion):
        truth = true_wcs(cubic=0.05, parity=-1 if found is mirrored.distortion else 1)
        x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 1099, 9), np.linspace(0, 999, 9)))
        xi, eta = tangent_project(*truth.pixel_to_sky(x=x, y=y), ra0=truth.crval[0], dec0=truth.crval[1])
        ideal = np.stack(found.to_ideal(x, y), axis=1)
        design = np.column_stack([ideal, np.ones(x.size)])
        plane = 3600 * np.stack([xi, eta], axis=1)
        left = plane - design @ np.linalg.lstsq(design, plane, rcond=None)[0]
        assert np.max(np.abs(left)) < 0.06
    facts = product.metadata
    assert facts["scatter_pixel"] == pytest.approx(0.05, rel=0.1)
    assert facts["scatter_without_pixel"] > 5 * facts["scatter_pixel"]
    assert facts["n_exposures"] == 6


def test_ten_stars_get_the_high_orders_from_the_prior(product: CalibrationTable) -> None:
    truth = true_wcs(cubic=0.05)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(12):
        field = make_field(np.random.default_rng(seed), truth, n=12)
        for is_held in errors:
            try:
                solution = solve(field, told(truth), distortion=distortion_of(product) if is_held else None)
            except DataError:
                continue
            errors[is_held].append(worst_error_pixel(solution.wcs, truth))
            assert solution.metrics.is_prior_held == is_held
    assert len(errors[True]) >= 11
    assert np.median(errors[True]) < 0.15
    assert len(errors[False]) < len(errors[True])
    assert np.median(errors[False]) > 1.0


def test_many_stars_overrule_a_prior_of_another_camera(product: CalibrationTable) -> None:
    truth = true_wcs(cubic=-0.08)
    field = make_field(np.random.default_rng(5), truth, n=800)
    solution = solve(field, told(truth), distortion=distortion_of(product))
    assert worst_error_pixel(solution.wcs, truth) < 0.1
    assert not solution.metrics.is_prior_held


def test_ideal_positions_lead_back_to_pixels(product: CalibrationTable) -> None:
    learned = distortion_of(product)
    x, y = np.random.default_rng(1).uniform(0, 1000, (2, 40))
    np.testing.assert_allclose(learned.to_pixel(*learned.to_ideal(x, y)), (x, y), atol=1e-8)


def test_the_next_night_is_joined_with_the_last_and_knows_more(product: CalibrationTable) -> None:
    task = LearnDistortion(CONFIG)
    made = task.run(fields(1, 6, mjd=60001.0), DETECTOR, previous=product)
    assert made is not None
    assert made.metadata["comparison"]["is_continued"]
    assert made.metadata["comparison"]["jump_sigma"] < 2.0
    assert made.column("terms", "dx_err")[1:].mean() < 0.8 * product.column("terms", "dx_err")[1:].mean()


def test_after_a_change_of_the_instrument_the_last_night_is_forgotten(product: CalibrationTable) -> None:
    made = LearnDistortion(CONFIG).run(fields(2, 6, cubic=-0.05, mjd=60001.0), DETECTOR, previous=product)
    assert made is not None
    assert not made.metadata["comparison"]["is_continued"]
    assert made.metadata["scatter_pixel"] == pytest.approx(0.05, rel=0.1)


def test_one_that_is_worse_than_the_last_is_refused_with_figures(product: CalibrationTable) -> None:
    """Most stars are blended with something on one side of the detector; those kept aside are not."""
    forgetful = LearnDistortionConfig(min_total_stars=300, min_exposures=1, max_jump_sigma=0.0)
    stars = exposure(np.random.default_rng(3), cubic=0.05, n=500)
    pushed = np.where(np.arange(500) % 5 == 4, 0.0, (stars.y / 500.0 - 1.0) ** 2)
    wrong = MatchedStars(stars.x + pushed, stars.y, stars.plane, stars.error)
    with pytest.raises(DataError, match=r"scatter by .* pixel with it and by .* with the last one"):
        LearnDistortion(forgetful).run([DistortionField(wrong, 60001.0)], DETECTOR, previous=product)


def test_too_little_teaches_nothing() -> None:
    assert LearnDistortion().run(fields(0, 2), DETECTOR) is None


def test_knowledge_of_long_ago_counts_less() -> None:
    zero = np.zeros((2, n_terms(3)))
    small, large = np.full_like(zero, 0.01), np.full_like(zero, 0.02)
    new, last = Distortion(SHAPE, large * 0.5, small, small), Distortion(SHAPE, zero, small, small)
    config = LearnDistortionConfig()
    fresh, _ = combine_with_last(new, last, days=1.0, config=config)
    old, _ = combine_with_last(new, last, days=3000.0, config=config)
    assert fresh.coefficients[0, 5] == pytest.approx(0.005, rel=0.1)
    assert old.coefficients[0, 5] > fresh.coefficients[0, 5]


def test_a_distortion_has_no_shift_rotation_or_scale() -> None:
    rng = np.random.default_rng(2)
    series = without_similarity(rng.normal(size=(2, n_terms(3))), SHAPE)
    np.testing.assert_allclose(without_similarity(series, SHAPE), series)
    linear = series[:, 1:3] / np.array([SHAPE[1] / 2, SHAPE[0] / 2])
    assert linear[0, 0] + linear[1, 1] == pytest.approx(0.0, abs=1e-15)
    assert linear[0, 1] - linear[1, 0] == pytest.approx(0.0, abs=1e-15)


def test_an_image_and_its_catalog_give_the_stars_that_teach() -> None:
    """What is learned from SOURCE catalogs as they are stored is what the detector does."""
    truth, scale = true_wcs(cubic=0.05), 1.2
    taught = []
    for seed in range(4):
        made = make_field(np.random.default_rng(seed), truth, n=300)
        solution = solve(made, told(truth))
        n = made.sources.n_rows
        flags = np.zeros(n, dtype=np.int32)
        flags[solution.fitted] = int(SourceFlag.ASTROMETRIC)
        ra, dec = solution.places(made.sources["x"], made.sources["y"])
        names = {column.name: np.zeros(n) for column in SOURCE.columns}
        sources = SOURCE.catalog(
            names | {name: made.sources[name] for name in ("x", "y", "x_err", "y_err")}
            | {"ra": ra, "dec": dec, "psf_flux": made.sources["flux"], "flags": flags}
        )  # fmt: skip
        glass = Filter(physical_filter="r", band="r", fid=2)
        stars = match_for_distortion(
            sources, made.reference, epoch_year=2016.0, glass=glass, air=None, pixel_scale_arcsec=scale
        )
        assert stars.x.size > 0.95 * solution.fitted.size
        taught.append(DistortionField(stars, 60000.0 + seed))
    learned = LearnDistortion(CONFIG).run(taught, DETECTOR)
    assert learned is not None
    assert learned.metadata["scatter_pixel"] == pytest.approx(0.05, rel=0.25)
    field = make_field(np.random.default_rng(9), truth, n=12)
    solution = solve(field, told(truth), distortion=distortion_of(learned))
    assert worst_error_pixel(solution.wcs, truth) < 0.25


def test_air_is_known_where_the_camera_is_placed() -> None:
    info = ExposureInfo("simcam", "science", 60310.0, 30.0, 20240101, Program.PUBLIC, "r", "r", 10.0, 20.0)
    glass = Filter(physical_filter="R_special", band="R_special", fid=2, catalog_band="r")
    there = air_for(Site(name="a", latitude_deg=30.0, longitude_deg=-110.0, height_m=2000.0), info, glass)
    assert there is not None
    assert there.zenith[1] == pytest.approx(30.0, abs=0.3)
    assert there.chromatic_arcsec > 0.0
    assert air_for(Site(name="draft", latitude_deg=0.0, longitude_deg=0.0), info, glass) is None


def test_a_cone_about_places_holds_them_at_ra_zero_too() -> None:
    ra, dec = np.array([359.9, 0.2, 0.0]), np.array([10.0, 10.1, 9.8])
    centre_ra, centre_dec, radius = cone_about(ra, dec)
    away = np.hypot(((ra - centre_ra + 180) % 360 - 180) * np.cos(np.radians(dec)), dec - centre_dec)
    assert radius == pytest.approx(away.max(), abs=0.004)
