import time
from pathlib import Path

import numpy as np
import pytest

from gueststar.core.errors import ConfigError, DataError
from gueststar.core.healpix import separation_deg
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.store import refcats
from gueststar.store.refcats import RefcatStore


def stars(ra: np.ndarray, dec: np.ndarray, *, first_id: int = 0) -> Catalog:
    n = ra.size
    columns = {c.name: np.zeros(n) for c in REFCAT.columns}
    return REFCAT.catalog(columns | {"ra": ra % 360.0, "dec": dec, "ref_id": first_id + np.arange(n)})


def all_sky(rng: np.random.Generator, n: int) -> Catalog:
    return stars(rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n))))


def patch(rng: np.random.Generator, n: int, *, ra: float, dec: float, half: float, first_id: int = 0) -> Catalog:
    return stars(ra + rng.uniform(-half, half, n), dec + rng.uniform(-half, half, n), first_id=first_id)


def ids_near(catalog: Catalog, ra: float, dec: float, radius: float) -> list[int]:
    near = separation_deg(ra=catalog["ra"], dec=catalog["dec"], ra0=ra, dec0=dec) <= radius
    return sorted(catalog["ref_id"][near].tolist())


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[RefcatStore, Catalog]:
    catalog = all_sky(np.random.default_rng(1), 40_000)
    store = RefcatStore(tmp_path_factory.mktemp("refcats"))
    store.import_catalog("whole", catalog)
    return store, catalog


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [
        (0.0, 0.0, 2.0),
        (359.99, 40.0, 5.0),
        (123.0, 90.0, 4.0),
        (10.0, -89.9, 3.0),
        (45.0, 41.8, 0.3),
        (200.0, 5.0, 70.0),
    ],
)
def test_a_cone_holds_what_brute_force_finds(
    sky: tuple[RefcatStore, Catalog], ra: float, dec: float, radius: float
) -> None:
    store, catalog = sky
    assert sorted(store.cone(ra=ra, dec=dec, radius_deg=radius)["ref_id"].tolist()) == ids_near(
        catalog, ra, dec, radius
    )


def test_merging_keeps_old_rows_replaces_same_ids_and_may_be_done_twice(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    store = RefcatStore(tmp_path)
    first, second = (
        patch(rng, 500, ra=0.0, dec=10.0, half=2.0),
        patch(rng, 300, ra=2.0, dec=10.0, half=2.0, first_id=1000),
    )
    store.import_catalog("a", first, metadata={"origin": "one"})
    again = first.replace(mag_r=np.full(500, 15.0))
    for _ in range(2):
        store.import_catalog("a", again)
        info = store.import_catalog("a", second, metadata={"more": 1})
    assert info.n_rows == 800
    assert info.metadata == {"origin": "one", "more": 1}
    found = store.cone(ra=0.0, dec=10.0, radius_deg=10.0)
    assert found.n_rows == 800
    assert np.all(found["mag_r"][found["ref_id"] < 500] == 15.0)
    assert store.import_catalog("a", second, replace=True).n_rows == 300


def test_dense_fields_are_split_into_smaller_shards_and_later_rows_find_their_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refcats, "_MAX_ROWS", 200)
    rng = np.random.default_rng(3)
    store = RefcatStore(tmp_path)
    dense = patch(rng, 3000, ra=100.0, dec=0.0, half=0.4)
    store.import_catalog("a", dense)
    wide = patch(rng, 2000, ra=100.0, dec=0.0, half=3.0, first_id=10_000)
    info = store.import_catalog("a", wide)
    assert max(info.shards.values()) <= 200
    assert info.n_rows == 5000
    expected = sorted(ids_near(dense, 100.2, 0.1, 0.5) + ids_near(wide, 100.2, 0.1, 0.5))
    assert sorted(store.cone(ra=100.2, dec=0.1, radius_deg=0.5)["ref_id"].tolist()) == expected


def test_a_failed_import_leaves_the_old_catalog_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    store = RefcatStore(tmp_path)
    catalog = patch(rng, 100, ra=50.0, dec=0.0, half=1.0)
    store.import_catalog("a", catalog)
    with pytest.raises(DataError, match="1 positions are off the sky, first row 3"):
        store.import_catalog("a", catalog.replace(dec=np.where(np.arange(100) == 3, 91.0, 0.0)))
    with pytest.raises(DataError, match="lacks the columns"):
        store.import_catalog("a", Catalog({"ra": np.zeros(1), "dec": np.zeros(1)}))
    assert store.info("a").n_rows == 100
    assert RefcatStore(tmp_path).cone(ra=50.0, dec=0.0, radius_deg=3.0).n_rows == 100
    assert len(list((tmp_path / ".versions").iterdir())) == 1


def test_the_catalog_that_covers_the_place_is_chosen_calibrated_ones_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    store = RefcatStore(tmp_path)
    with pytest.raises(ConfigError, match="no reference catalog: bring one"):
        store.cone(ra=0.0, dec=0.0, radius_deg=1.0)
    store.import_catalog("deep", patch(rng, 5000, ra=10.0, dec=0.0, half=0.5), metadata={"is_calibrated": False})
    store.import_catalog("south", patch(rng, 100, ra=10.0, dec=-50.0, half=0.5))
    assert store.choose(ra=10.0, dec=0.0, radius_deg=0.5) == "deep"
    store.import_catalog("shallow", patch(rng, 100, ra=10.0, dec=0.0, half=0.5))
    assert store.choose(ra=10.0, dec=0.0, radius_deg=0.5) == "shallow"
    store.import_catalog("few", patch(rng, 5, ra=10.0, dec=0.0, half=0.5))
    store.import_catalog("far", patch(rng, 9000, ra=12.0, dec=0.0, half=0.5), metadata={"is_calibrated": False})
    store.remove("shallow")
    assert store.choose(ra=10.0, dec=0.0, radius_deg=0.5) == "deep"
    store.remove("few")
    store.remove("far")
    assert store.names() == ("deep", "south")
    with pytest.raises(ConfigError, match=r"no reference catalog 'x' \(there: deep, south\)"):
        store.cone(ra=0.0, dec=0.0, radius_deg=1.0, name="x")
    store.remove("deep")
    assert store.names() == ("south",)


def test_coverage_says_where_there_are_stars(tmp_path: Path) -> None:
    store = RefcatStore(tmp_path)
    store.import_catalog("a", patch(np.random.default_rng(6), 20_000, ra=0.0, dec=30.0, half=3.0))
    assert store.covered_fraction(ra=0.0, dec=30.0, radius_deg=1.0, name="a") == 1.0
    assert store.covered_fraction(ra=40.0, dec=30.0, radius_deg=1.0, name="a") == 0.0
    assert 0.2 < store.covered_fraction(ra=3.4, dec=30.0, radius_deg=1.0, name="a") < 0.8
    sky_area = store.coverage("a").size * 41252.96 / (12 * 4**7)
    assert sky_area == pytest.approx(36 * np.cos(np.radians(30)), rel=0.25)


@pytest.mark.slow
def test_fifteen_thousand_stars_are_read_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    store = RefcatStore(tmp_path)
    store.import_catalog("a", patch(np.random.default_rng(7), 300_000, ra=150.0, dec=2.0, half=2.0))
    store.cone(ra=150.0, dec=2.0, radius_deg=0.5)
    begin = time.process_time()
    found = store.cone(ra=150.0, dec=2.0, radius_deg=0.5)
    assert found.n_rows == pytest.approx(14_700, rel=0.03)
    assert time.process_time() - begin < 0.1
