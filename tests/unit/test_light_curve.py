import numpy as np
import pytest

from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.columns import SOURCE
from gueststar.pipelines.lightcurves.light_curve import Epoch, MakeLightCurve


def epoch(k: int, *, dip: float = 0.0, cloud: float = 0.0) -> Epoch:
    rng = np.random.default_rng(k)
    n = 40
    ra, dec = 0.001 + np.linspace(0, 0.05, n), -30.0 + np.linspace(0, 0.05, n)[::-1]
    mag = np.linspace(12.0, 14.0, n) + cloud + rng.normal(0, 0.004, n)
    mag[0] += dip
    flux = 10 ** (0.4 * (31.4 - mag))
    columns = {column.name: np.zeros(n) for column in SOURCE.columns}
    columns |= {"ra": (ra - 0.0015) % 360, "dec": dec, "psf_flux": flux, "psf_flux_err": 0.004 * flux}
    return Epoch(k, 0, 60000.0 + k, "r", SOURCE.catalog(columns))


def curve(epochs: list[Epoch]) -> Catalog:
    first = epochs[0].sources
    return MakeLightCurve().run(epochs, ra=float(first["ra"][0]), dec=float(first["dec"][0]))


def test_a_dip_shows_through_clouds() -> None:
    clouds = np.random.default_rng(2).uniform(0, 1, 30)
    epochs = [epoch(k, dip=0.02 if 10 <= k < 20 else 0.0, cloud=float(clouds[k])) for k in range(30)]
    made = curve(epochs)
    depth = np.median(made["relative_mag"][10:20]) - np.median(np.delete(made["relative_mag"], range(10, 20)))
    assert depth == pytest.approx(0.02, abs=0.005)
    assert made["n_comparison"][0] > 20


def test_a_place_without_a_source_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="no source within"):
        MakeLightCurve().run([epoch(0)], ra=200.0, dec=10.0)


def test_epochs_come_out_in_the_order_of_time() -> None:
    made = curve([epoch(5), epoch(1), epoch(3)])
    assert list(made["visit"]) == [1, 3, 5]
