import numpy as np
import pytest

from gueststar.algorithms.photocal.calibrators import is_isolated
from gueststar.algorithms.photocal.limiting import effective_area, limiting_magnitude
from gueststar.algorithms.photocal.spatial import ZeroPointMap, spatial_terms
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.pipelines.science.astrometry import AstrometryMatches
from gueststar.pipelines.science.photometry import PhotometrySolution, SolvePhotometry

R = Filter(physical_filter="r", band="r", fid=2)
SHAPE = (1000, 1200)


def simulate(
    rng: np.random.Generator, n: int, *, zero_point: float = 26.0, colour_term: float = -0.1, scatter: float = 0.0,
    outliers: int = 0, tilt: float = 0.0, colour_rms: float = 0.4, filter: Filter = R,
    without: tuple[str, ...] = (), expected: float | None = None, flags: int = 0,
) -> PhotometrySolution:  # fmt: skip
    """Solve stars whose instrumental magnitudes follow the model."""
    colour = rng.normal(0.6, colour_rms, n)
    mag_r, snr = rng.uniform(14, 18, n), rng.uniform(30, 300, n)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    here = zero_point + tilt * (x / SHAPE[1] - 0.5)
    truth = 10 ** (0.4 * (here + colour_term * colour + rng.normal(0, scatter, n) - mag_r))
    truth[:outliers] *= 2.0
    flux = truth * (1 + rng.normal(0, 1, n) / snr)
    errors = {"mag_r_err": 0.01, "mag_g_err": 0.015}
    columns = {c.name: np.zeros(n) for c in REFCAT.columns} | {
        "ra": rng.uniform(10, 11, n), "dec": rng.uniform(-1, 0, n),
        "mag_r": mag_r + rng.normal(0, 0.01, n), "mag_g": mag_r + colour + rng.normal(0, 0.015, n),
        "mag_i": np.full(n, np.nan), "mag_z": np.full(n, np.nan), **{k: np.full(n, v) for k, v in errors.items()},
    }  # fmt: skip
    columns |= {name: np.full(n, np.nan) for name in without}
    rows = np.arange(n)
    sources = Catalog({"x": x, "y": y, "flux": flux, "flux_err": truth / snr, "flags": np.full(n, flags)})
    return SolvePhotometry().run(
        sources, AstrometryMatches(rows, rows, np.zeros(n)), REFCAT.catalog(columns), filter=filter, shape=SHAPE,
        expected_zero_point=expected,
    )  # fmt: skip


@pytest.mark.parametrize(("n", "scatter", "outliers"), [(8, 0.0, 0), (20, 0.02, 2), (200, 0.02, 10)])
def test_zero_point_and_colour_term_err_by_what_they_say(n: int, scatter: float, outliers: int) -> None:
    pulls = []
    for seed in range(100):
        cal = simulate(np.random.default_rng(seed), n, scatter=scatter, outliers=outliers).photocal
        pulls.append([(cal.zero_point - 26.0) / cal.zero_point_err, (cal.colour_term + 0.1) / cal.colour_term_err])
    spread = np.std(pulls, axis=0)
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 0.3)
    assert np.all((spread > 0.75) & (spread < 1.2)), spread


def test_intrinsic_scatter_is_found_and_outliers_do_not_calibrate() -> None:
    solution = simulate(np.random.default_rng(1), 500, scatter=0.05, outliers=25)
    assert solution.metrics.intrinsic_scatter == pytest.approx(0.05, abs=0.006)
    assert solution.metrics.n_calibrators >= 460
    assert not np.isin(solution.calibrators, np.arange(25)).any()


def test_few_stars_of_one_colour_leave_the_colour_term_open_and_the_error_wide() -> None:
    solution = simulate(np.random.default_rng(2), 8, colour_rms=0.005, colour_term=0.0)
    assert solution.photocal.colour_term_err > 0.15
    assert solution.photocal.zero_point_err > 0.08
    assert abs(solution.photocal.zero_point - 26.0) < 3 * solution.photocal.zero_point_err


def test_a_catalog_of_one_band_calibrates_without_a_colour() -> None:
    solution = simulate(np.random.default_rng(3), 100, colour_term=0.0, without=("mag_g",))
    assert solution.photocal.colour_name == ""
    assert solution.photocal.zero_point == pytest.approx(26.0, abs=0.01)


def test_a_zero_point_that_changes_over_the_detector_is_mapped_and_a_constant_one_is_not() -> None:
    tilted = simulate(np.random.default_rng(4), 400, tilt=0.1)
    assert tilted.spatial is not None
    assert tilted.spatial.order == 1
    left, right = tilted.spatial(x=[0.0, SHAPE[1] - 1.0], y=[500.0, 500.0])
    assert right - left == pytest.approx(0.1, abs=0.01)
    assert tilted.photocal.zero_point == pytest.approx(26.0, abs=0.01)
    assert simulate(np.random.default_rng(4), 400).spatial is None


def test_clouds_are_told_by_a_low_zero_point_or_a_patchy_one() -> None:
    assert simulate(np.random.default_rng(5), 400, expected=26.5).metrics.is_cloudy
    assert simulate(np.random.default_rng(5), 400, tilt=0.4).metrics.is_cloudy
    assert not simulate(np.random.default_rng(5), 400, expected=26.1).metrics.is_cloudy


def test_poor_calibrations_are_refused_with_figures() -> None:
    with pytest.raises(DataError, match="only 4 of 4 matched stars can calibrate in r"):
        simulate(np.random.default_rng(6), 4)
    with pytest.raises(DataError, match="only 0 of 50"):
        simulate(np.random.default_rng(6), 50, flags=int(SourceFlag.SATURATED))
    with pytest.raises(DataError, match="only 0 of 50 matched stars can calibrate in i .*0 have a magnitude"):
        simulate(np.random.default_rng(6), 50, filter=R.model_copy(update={"catalog_band": "i"}))
    with pytest.raises(DataError, match="scatter by"):
        simulate(np.random.default_rng(6), 50, scatter=0.6)
    with pytest.raises(ConfigError, match="no band 'V'"):
        simulate(np.random.default_rng(6), 50, filter=R.model_copy(update={"catalog_band": "V"}))


def test_map_has_zero_mean_over_the_detector() -> None:
    y, x = (g.ravel().astype(float) for g in np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]])
    terms = spatial_terms(x=x, y=y, shape=SHAPE, order=2)
    np.testing.assert_allclose(terms.mean(axis=0), 0.0, atol=1e-5)
    assert ZeroPointMap(np.zeros(5), SHAPE, 2)(x=3.0, y=4.0) == 0.0


def test_limiting_magnitude_is_where_a_psf_flux_is_five_sigma_in_white_noise() -> None:
    rng = np.random.default_rng(7)
    yy, xx = np.mgrid[-12:13, -12:13]
    psf = np.exp(-(xx**2 + yy**2) / (2 * 1.7**2))
    psf /= psf.sum()
    noise = rng.normal(0, 4.0, (4000, *psf.shape))
    flux_sigma = np.std((noise * psf).sum(axis=(1, 2)) / (psf**2).sum())
    limit = limiting_magnitude(psf_effective_area=effective_area(psf), sky_variance=16.0, zero_point=25.0)
    assert float(limit) == pytest.approx(25.0 - 2.5 * np.log10(5 * flux_sigma), abs=0.03)
    limits = limiting_magnitude(psf_effective_area=10.0, sky_variance=[1.0, 0.0], zero_point=25.0)
    assert np.isfinite(limits).tolist() == [True, False]


def test_crowded_stars_are_known_from_the_catalog() -> None:
    ra, dec = np.array([0.0001, 359.9999, 5.0, 5.001]), np.array([10.0, 10.0, 0.0, 0.0])
    mag = np.array([15.0, 16.0, 15.0, 18.0])
    isolated = is_isolated(ra=ra, dec=dec, magnitude=mag, rows=np.arange(4), radius_arcsec=5.0)
    assert isolated.tolist() == [False, False, True, False]
