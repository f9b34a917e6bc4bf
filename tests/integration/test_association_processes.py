"""Several processes associate one night at once; what is stored is what one of them would have stored in order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gueststar.core.errors import ConfigError
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from gueststar.store.sql import SCHEMA, connect
from tests.unit.alerts.mosaic import KEY, N_DETECTORS, contents, night_of, take, taken

from ..postgres_server import running_server

SEED, N_EXPOSURES, N_WRITERS = 11, 2, 3


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/together.sqlite"
        return
    with running_server() as server:
        yield server.url


_WRITE = """
import sys
from pathlib import Path
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import CACHE_FOLDER, DetectionStore
from tests.unit.alerts.mosaic import KEY, night_of, take
url, folder, seed, n_exposures, share, n_writers = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
store, log = DetectionStore(url, name_key=KEY, cache=folder / CACHE_FOLDER), AlertLog(folder)
take(store, log, night_of(seed, n_exposures)[share::n_writers])
"""
"""Takes every third image, by time: each writer begins at another detector, and waits for other exposures."""


def test_three_writers_at_once_store_what_one_in_order_stores(url: str, tmp_path: Path) -> None:
    images = night_of(SEED, N_EXPOSURES)
    assert len(images) == N_DETECTORS * N_EXPOSURES
    alone = taken(tmp_path / "alone", images)
    store = DetectionStore(url, name_key=KEY)
    store.expect([record for record, _ in images])
    words = [sys.executable, "-c", _WRITE, url, str(tmp_path / "together"), str(SEED), str(N_EXPOSURES)]
    here = Path(__file__).parents[2]
    writers = [subprocess.Popen([*words, str(share), str(N_WRITERS)], cwd=here) for share in range(N_WRITERS)]
    assert [writer.wait(300) for writer in writers] == [0] * N_WRITERS
    together = contents(store)
    store.close()
    for name, rows in alone.items():
        assert together[name] == rows, name
    log = AlertLog(tmp_path / "together")
    logged = log.rebuild_index()
    log.close()
    assert logged == len(together["alerts"]) > 0


def without_plain_flux(held: dict[str, Any]) -> dict[str, Any]:
    rows = [tuple(pair for pair in row if pair[0] != "plain_flux") for row in held["dia_source"]]
    return held | {"dia_source": rows}


def test_a_store_of_an_older_layout_grows_and_keeps_its_detections(url: str, tmp_path: Path) -> None:
    images = night_of(SEED, 1)
    store = DetectionStore(url, name_key=KEY)
    log = AlertLog(tmp_path)
    take(store, log, images)
    before = without_plain_flux(contents(store))
    store.close()
    with connect(url).begin() as connection:
        schema = f"{SCHEMA}." if connection.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"ALTER TABLE {schema}dia_source DROP COLUMN plain_flux")
        connection.exec_driver_sql(f"UPDATE {schema}detection_state SET layout = 2")
    for _ in range(2):
        store = DetectionStore(url, name_key=KEY)
        rows = store.sources_of_night(images[0][0].day_obs)
        assert rows.n_rows == sum(sources.n_rows for _, sources in images) > 0
        assert np.isnan(rows["plain_flux"]).all()
        assert without_plain_flux(contents(store)) == before
        store.close()
    with connect(url).begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema}detection_state SET layout = 1")
    with pytest.raises(ConfigError, match="layout 1"):
        DetectionStore(url, name_key=KEY)
    log.close()
