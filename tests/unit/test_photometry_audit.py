"""What the zero point must bear: variables, blends, wrong matches, few stars, no colours, another band's catalog."""

import numpy as np
import pytest

from gueststar.algorithms.photocal.mixture import SlopePrior, densest, fit_mixture
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.photocal import PhotoCal
from gueststar.pipelines.science.astrometry import AstrometryMatches
from gueststar.pipelines.science.photometry import PhotometrySolution, SolvePhotometry

R = Filter(physical_filter="r", band="r", fid=2)
SHAPE = (1000, 1200)
ZERO_POINT, COLOUR_TERM = 26.0, -0.1


def solve(
    rng: np.random.Generator, n: int, *, variables: float = 0.0, blends: float = 0.0, strangers: float = 0.0,
    colour_rms: float = 0.4, band: str = "r", gradient: float = 0.0, without: tuple[str, ...] = (),
) -> PhotometrySolution:  # fmt: skip
    """Solve stars seen through r; some vary by 0.15 mag, hold a neighbour's light too, or are another star's match."""
    colour = rng.normal(0.6, colour_rms, n)
    mag_r, snr = rng.uniform(14, 18, n), rng.uniform(30, 300, n)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    off = gradient * (x / SHAPE[1] - 0.5) + rng.normal(0.0, 0.005, n)
    order = rng.permutation(n)
    first, second, third = (int(share * n) for share in (variables, blends, strangers))
    off[order[:first]] += rng.normal(0.0, 0.15, first)
    off[order[first : first + second]] += rng.uniform(0.05, 0.75, second)
    off[order[first + second : first + second + third]] += rng.uniform(-2.0, 2.0, third)
    flux = 10 ** (0.4 * (ZERO_POINT + COLOUR_TERM * colour + off - mag_r)) * (1 + rng.normal(0, 1, n) / snr)
    nothing = np.full(n, np.nan)
    columns = {c.name: np.zeros(n) for c in REFCAT.columns} | {
        "ra": rng.uniform(10, 11, n), "dec": rng.uniform(-1, 0, n), "mag_i": nothing, "mag_z": nothing,
        "mag_r": mag_r + rng.normal(0, 0.01, n), "mag_g": mag_r + colour + rng.normal(0, 0.014, n),
        "mag_r_err": np.full(n, 0.01), "mag_g_err": np.full(n, 0.014), **dict.fromkeys(without, nothing),
    }  # fmt: skip
    rows = np.arange(n)
    sources = Catalog({"x": x, "y": y, "flux": flux, "flux_err": flux / snr, "flags": np.zeros(n, np.int32)})
    glass = R.model_copy(update={"catalog_band": band})
    return SolvePhotometry().run(
        sources, AstrometryMatches(rows, rows, np.zeros(n)), REFCAT.catalog(columns), filter=glass, shape=SHAPE
    )


def errors(n: int, seeds: int = 40, **kind: float) -> np.ndarray:
    """Return (error, stated error) of zero points in mmag."""
    cals = [solve(np.random.default_rng(seed), n, **kind).photocal for seed in range(seeds)]
    return 1e3 * np.array([(cal.zero_point - ZERO_POINT, cal.zero_point_err) for cal in cals])


@pytest.mark.parametrize(
    ("kind", "bias"),
    [
        ({}, 0.8), ({"variables": 0.2}, 1.0), ({"blends": 0.1}, 1.0), ({"strangers": 0.3}, 1.0),
        ({"variables": 0.2, "blends": 0.1}, 1.5), ({"variables": 0.2, "blends": 0.1, "strangers": 0.3}, 4.0),
    ],
)  # fmt: skip
def test_variables_blends_and_wrong_matches_do_not_move_the_zero_point(kind: dict[str, float], bias: float) -> None:
    found = errors(400, seeds=25, **kind)
    assert abs(found[:, 0].mean()) < bias
    assert 0.6 < np.std(found[:, 0] / found[:, 1]) < 1.5


@pytest.mark.parametrize("kind", [{}, {"strangers": 0.2}])
def test_five_stars_give_a_zero_point_with_an_honest_error(kind: dict[str, float]) -> None:
    found = errors(6 if kind else 5, seeds=100, colour_rms=0.3, **kind)
    assert np.median(np.abs(found[:, 0])) < 20.0
    assert np.mean(np.abs(found[:, 0]) < 2.0 * found[:, 1]) > 0.88


def test_a_gradient_is_taken_out_although_a_third_of_the_stars_is_wrong() -> None:
    solution = solve(np.random.default_rng(3), 600, gradient=0.08, strangers=0.3, blends=0.05)
    assert solution.spatial is not None
    left, right = solution.spatial(x=[0.0, SHAPE[1] - 1.0], y=[500.0, 500.0])
    assert right - left == pytest.approx(0.08, abs=0.01)
    assert solution.photocal.zero_point == pytest.approx(ZERO_POINT, abs=0.004)


def test_without_colours_the_zero_point_is_that_of_the_stars_mean_colour() -> None:
    cal = solve(np.random.default_rng(4), 400, without=("mag_g",)).photocal
    assert cal.colour_name == ""
    assert cal.zero_point == pytest.approx(ZERO_POINT + 0.6 * COLOUR_TERM, abs=0.006)


def test_a_catalog_band_that_is_not_the_filters_is_told() -> None:
    right = solve(np.random.default_rng(5), 300)
    wrong = solve(np.random.default_rng(5), 300, band="g")
    assert not right.metrics.is_band_doubtful
    assert wrong.metrics.is_band_doubtful
    assert wrong.metrics.colour_term_excess == pytest.approx(COLOUR_TERM + 1.0, abs=0.03)


def test_the_error_of_zero_point_and_colour_term_is_carried_to_any_colour() -> None:
    off = []
    for seed in range(100):
        cal = solve(np.random.default_rng(seed), 60).photocal
        found = np.array([cal.zero_point + colour * cal.colour_term for colour in (0.0, 0.6, 1.5)])
        truth = ZERO_POINT + COLOUR_TERM * np.array([0.0, 0.6, 1.5])
        off.append((found - truth) / cal.magnitude_error([0.0, 0.6, 1.5]))
    assert np.all(np.abs(np.std(off, axis=0) - 1.0) < 0.2)
    assert cal.magnitude_error(0.6) < 0.7 * cal.magnitude_error(0.0)
    assert float(PhotoCal(25.0, 0.02).magnitude_error(1.0)) == pytest.approx(0.02)


def test_a_shortest_interval_finds_where_most_stars_are() -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.normal(3.0, 0.01, 40), rng.uniform(0.0, 10.0, 60)])
    middle, half_width = densest(values, share=0.35)
    assert middle == pytest.approx(3.0, abs=0.01)
    assert half_width < 0.03


def test_a_mixture_finds_the_slope_of_the_minority_that_agrees() -> None:
    rng = np.random.default_rng(7)
    colour = rng.normal(0.6, 0.4, 300)
    target = 1.0 - 0.9 * colour + rng.normal(0.0, 0.01, 300)
    target[:150] += rng.uniform(-2.0, 2.0, 150)
    found = fit_mixture(
        np.stack([np.ones(300), colour], axis=1), target, np.full(300, 1e-4), slope=SlopePrior(0.0, 0.2)
    )
    assert found.parameters == pytest.approx([1.0, -0.9], abs=0.01)
    assert (found.membership[150:] > 0.5).mean() > 0.95
    assert (found.membership[:150] > 0.5).mean() < 0.2
