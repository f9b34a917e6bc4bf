"""Clear skies learned from zero points, and zero points that change over the detector."""

import numpy as np
import pytest

from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.algorithms.photocal.transparency import learn_clear_sky
from gueststar.model.image import MaskedImage
from gueststar.model.instrumental_columns import INSTRUMENTAL_APERTURE, INSTRUMENTAL_SOURCE
from gueststar.pipelines.science.photometry import level_zero_point
from tests.unit.test_photometry_solution import SHAPE, simulate

TRUE, SLOPE = 25.30, 0.14


def nights(rng, *, n_nights: int = 8, per_night: int = 20, cloudy: tuple[int, ...] = (), dust: float = 0.0):
    """Return zero points per second, airmasses, nights and the clouds in front."""
    night = np.repeat(np.arange(n_nights), per_night)
    airmass = rng.uniform(1.0, 2.0, night.size)
    cloud = np.where(np.isin(night, cloudy), 0.6 * np.exp(0.5 * rng.normal(size=night.size)), 0.0)
    noise = rng.normal(0.0, 0.008, night.size) + 0.01 * rng.normal(size=n_nights)[night]
    return TRUE - SLOPE * (airmass - 1.0) - cloud - dust * night + noise, airmass, night, cloud


@pytest.mark.parametrize("cloudy", [(), (1, 3, 4), (0, 1, 2, 3, 4, 5)])
def test_clear_sky_is_learned_though_many_nights_are_cloudy(cloudy: tuple[int, ...]) -> None:
    zero_point, airmass, night, cloud = nights(np.random.default_rng(1), cloudy=cloudy)
    clear = learn_clear_sky(zero_point=zero_point, airmass=airmass, night=night, extinction=0.11)
    assert clear is not None
    assert clear.zero_point == pytest.approx(TRUE, abs=0.02)
    assert clear.extinction == pytest.approx(SLOPE, abs=0.015)
    lost = clear.expected(airmass=airmass, exposure_s=1.0) - zero_point
    assert np.std(lost - cloud) < 0.02
    assert np.array_equal(lost > 0.1, cloud > 0.1)


def test_extinction_is_the_priors_where_airmass_hardly_changes() -> None:
    rng = np.random.default_rng(2)
    zero_point, _, night, _ = nights(rng)
    airmass = rng.uniform(1.10, 1.12, night.size)
    clear = learn_clear_sky(zero_point=zero_point, airmass=airmass, night=night, extinction=0.11)
    assert clear is not None
    assert clear.extinction == pytest.approx(0.11, abs=0.02)


def test_expected_zero_point_grows_with_exposure_time() -> None:
    zero_point, airmass, night, _ = nights(np.random.default_rng(3))
    clear = learn_clear_sky(zero_point=zero_point, airmass=airmass, night=night, extinction=0.11)
    assert clear is not None
    difference = clear.expected(airmass=1.0, exposure_s=100.0) - clear.expected(airmass=1.0, exposure_s=10.0)
    assert difference == pytest.approx(2.5)


def test_too_little_history_teaches_nothing() -> None:
    zero_point, airmass, night, _ = nights(np.random.default_rng(4))
    for rows in (slice(0, 0), slice(0, 2)):
        few = {"zero_point": zero_point[rows], "airmass": airmass[rows], "night": night[rows]}
        assert learn_clear_sky(**few, extinction=0.1) is None


def test_fluxes_agree_all_over_the_detector_once_the_zero_point_is_level() -> None:
    rng = np.random.default_rng(5)
    tilt = 0.12
    spatial = simulate(rng, 600, scatter=0.01, tilt=tilt).spatial
    assert spatial is not None
    n = 400
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    seen = 1e4 * 10 ** (0.4 * tilt * (x / SHAPE[1] - 0.5))
    tables = []
    for schema in (INSTRUMENTAL_SOURCE, INSTRUMENTAL_APERTURE):
        columns = {c.name: np.zeros(n) for c in schema.columns} | {"x": x, "y": y}
        columns |= {c.name: seen for c in schema.columns if "flux" in c.name and "err" not in c.name}
        tables.append(schema.catalog(columns))
    slope = (np.arange(SHAPE[1]) + 0.5) / SHAPE[1] - 0.5
    image = np.broadcast_to(10 ** (0.4 * tilt * slope), SHAPE).astype(np.float32)
    pixels = MaskedImage(image, image**2, np.zeros(SHAPE, np.int32))
    levelled = level_zero_point(pixels, tables[0], tables[1], spatial)
    for flux, error in (
        (levelled.sources["flux"], levelled.sources["flux_err"]),
        (levelled.apertures["total_flux"], levelled.apertures["total_flux_err"]),
    ):
        assert np.std(flux) / 1e4 < 0.005
        assert 0.3 < np.sqrt(np.mean(((flux - 1e4) / error) ** 2)) < 3.0
    assert np.ptp(levelled.pixels.image) < 0.02
    np.testing.assert_allclose(levelled.pixels.variance, levelled.pixels.image**2, rtol=1e-4)
    unchanged = level_zero_point(pixels, tables[0], tables[1], None)
    assert unchanged.pixels is pixels


def test_map_on_the_image_is_that_at_its_places() -> None:
    rng = np.random.default_rng(6)
    spatial = ZeroPointMap(rng.normal(0, 0.02, 9), (30, 41), 3)
    y, x = np.mgrid[:30, :41]
    np.testing.assert_allclose(spatial.factor_image(), spatial.factor(x=x, y=y), rtol=1e-5)
    assert spatial(x=x, y=y).mean() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("n", [80, 400])
def test_an_even_zero_point_is_left_alone(n: int) -> None:
    taken = [simulate(np.random.default_rng(seed), n, scatter=0.02).spatial is not None for seed in range(25)]
    assert np.mean(taken) < 0.05


def test_error_of_the_map_is_what_it_says() -> None:
    pulls = []
    for seed in range(25):
        spatial = simulate(np.random.default_rng(seed), 300, scatter=0.02, tilt=0.1).spatial
        assert spatial is not None
        x = np.array([50.0, 600.0, 1150.0])
        truth = 0.1 * (x / SHAPE[1] - 0.5)
        pulls.append((spatial(x=x, y=500.0) - truth) / spatial.error(x=x, y=500.0))
    assert np.std(np.array(pulls)[:, [0, 2]]) == pytest.approx(1.0, abs=0.3)
