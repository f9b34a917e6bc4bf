"""Several processes associate one night at once; what is stored is what one of them would have stored in order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.mosaic import KEY, N_DETECTORS, contents, night_of, taken

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
