from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gueststar.core.errors import DataError
from gueststar.formats.parquet import read_catalog, read_metadata, write_catalog
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT, SOURCE


def some_refcat(n: int) -> Catalog:
    rng = np.random.default_rng(3)
    return REFCAT.catalog({c.name: rng.uniform(0, 100, n) for c in REFCAT.columns})


def test_a_catalog_comes_back_with_its_values_types_and_schema(tmp_path: Path) -> None:
    catalog = some_refcat(100)
    write_catalog(tmp_path / "deep" / "a.parquet", catalog, {"origin": "test", "n": 3})
    again = read_catalog(tmp_path / "deep" / "a.parquet")
    assert again.schema is REFCAT
    for name, values in catalog.items():
        np.testing.assert_array_equal(again[name], values)
        assert again[name].dtype == values.dtype
    assert read_metadata(tmp_path / "deep" / "a.parquet") == {"origin": "test", "n": 3}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.parquet"]


def test_units_and_meanings_travel_with_the_file(tmp_path: Path) -> None:
    write_catalog(tmp_path / "a.parquet", SOURCE.empty())
    field = pq.read_schema(tmp_path / "a.parquet").field("psf_flux")
    assert field.metadata == {b"unit": b"nJy", b"doc": b"flux by PSF fit"}
    assert read_catalog(tmp_path / "a.parquet").n_rows == 0


def test_a_catalog_without_a_known_schema_keeps_text_and_non_finite_values(tmp_path: Path) -> None:
    catalog = Catalog(
        {"name": np.array(["Vega", ""]), "mag": np.array([np.nan, np.inf]), "good": np.array([True, False])}
    )
    write_catalog(tmp_path / "a.parquet", catalog)
    again = read_catalog(tmp_path / "a.parquet")
    assert again["name"].tolist() == ["Vega", ""]
    np.testing.assert_array_equal(again["mag"], [np.nan, np.inf])
    assert again["good"].dtype == bool


def test_a_foreign_file_reads_missing_floats_as_nan_and_refuses_missing_integers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1.5, None]), "b": pa.array([1, 2])}), tmp_path / "a.parquet")
    again = read_catalog(tmp_path / "a.parquet")
    assert np.isnan(again["a"][1])
    assert again["b"].tolist() == [1, 2]
    pq.write_table(pa.table({"b": pa.array([1, None])}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column b has 1 missing"):
        read_catalog(tmp_path / "b.parquet")


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet"):
        read_catalog(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="does not exist"):
        read_catalog(tmp_path / "b.parquet")
    write_catalog(tmp_path / "c.parquet", Catalog({"x": np.zeros(2)}))
    with pytest.raises(DataError, match="lacks the columns"):
        read_catalog(tmp_path / "c.parquet", SOURCE)
    with pytest.raises(DataError, match="plain columns"):
        write_catalog(tmp_path / "d.parquet", Catalog({"x": np.zeros((2, 2))}))
    assert not (tmp_path / "d.parquet").exists()
