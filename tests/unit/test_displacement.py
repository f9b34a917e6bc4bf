"""What the air displaces coherently is taken out of positions; nothing is taken out of white noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from gueststar.algorithms.astrometry.displacement import (
    DisplacementConfig,
    measure_displacement,
)
from gueststar.model.catalog import Catalog
from tests.unit.test_astrometry import make_field, solve, told, true_wcs

SHAPE = (2000, 2100)
CONFIG = DisplacementConfig()


def smooth_field(rng: np.random.Generator, *, rms: float, length: float) -> np.ndarray:
    """Return ``[2, ny, nx]`` of Gaussian correlation, which is not the one that is assumed."""
    cells = np.stack([gaussian_filter(rng.normal(size=(260, 260)), length / 10.0) for _ in range(2)])
    return rms * cells / cells.std(axis=(1, 2), keepdims=True)


def at(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([map_coordinates(plane, [y / 10.0 + 20, x / 10.0 + 20], order=1) for plane in field], axis=1)


def stars(rng: np.random.Generator, n: int, noise: float, field: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y = rng.uniform(0, SHAPE[1] - 1, n), rng.uniform(0, SHAPE[0] - 1, n)
    sigma = noise * np.exp(rng.normal(0.5, 0.7, n))
    residuals = at(field, x, y) + rng.normal(size=(n, 2)) * sigma[:, None]
    return x, y, residuals, np.stack([sigma**2, sigma**2], axis=1)


def test_a_coherent_field_is_found_with_its_length_and_its_error() -> None:
    rng = np.random.default_rng(0)
    field = smooth_field(rng, rms=0.015, length=120.0)
    found = measure_displacement(*stars(rng, 1500, 0.004, field), SHAPE, CONFIG)
    assert found is not None
    x, y = rng.uniform(50, 1950, (2, 400))
    left = found.at(x, y) - at(field, x, y)
    assert left.std() < 0.4 * 0.015
    pull = (left / found.error_at(x, y)[:, None]).std()
    assert 0.6 < pull < 1.2  # this field is smoother than any that is assumed
    assert found.correlation.variance**0.5 == pytest.approx(0.015, rel=0.25)
    assert 120.0 < found.correlation.half_distance < 300.0  # the cells' kernel makes 200
    assert found.gain > 0.5


def test_nothing_is_taken_out_of_white_noise() -> None:
    still = np.zeros((2, 260, 260))
    taken = [
        measure_displacement(*stars(np.random.default_rng(seed), 600, 0.01, still), SHAPE, CONFIG) for seed in range(20)
    ]
    assert sum(found is not None for found in taken) == 0


def test_few_stars_are_left_as_they_are() -> None:
    rng = np.random.default_rng(1)
    field = smooth_field(rng, rms=0.02, length=200.0)
    assert measure_displacement(*stars(rng, 60, 0.004, field), SHAPE, CONFIG) is None


def test_stars_that_are_in_no_catalog_gain_too() -> None:
    rng = np.random.default_rng(2)
    truth = true_wcs()
    made = make_field(rng, truth, n=1500, error=0.005)
    field = smooth_field(rng, rms=0.03, length=150.0)
    x, y = made.sources["x"], made.sources["y"]
    shift = at(field, x, y)
    sources = Catalog(dict(made.sources) | {"x": x + shift[:, 0], "y": y + shift[:, 1]})
    moved = type(made)(truth, made.reference, sources, made.star_of_source)
    solution = solve(moved, told(truth))
    assert solution.displacement is not None
    unknown = ~np.isin(made.star_of_source, made.reference["ref_id"])
    assert unknown.sum() > 100
    scatter = []
    for ra, dec in (
        solution.wcs.pixel_to_sky(x=sources["x"], y=sources["y"]), solution.places(sources["x"], sources["y"]),
    ):  # fmt: skip
        there = truth.sky_to_pixel(ra=ra, dec=dec)
        off = np.stack([there[0] - x, there[1] - y])[:, unknown]
        scatter.append(off.std())
    assert scatter[1] < 0.6 * scatter[0]
    assert solution.metrics.displacement_gain is not None
