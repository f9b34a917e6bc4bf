"""The repository on a real PostgreSQL server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from gueststar.core.errors import ConfigError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Amplifier, Camera, Detector, Filter, Site
from gueststar.model.exposure import ExposureInfo
from gueststar.model.header import HeaderMapping, TimeMapping
from gueststar.model.image import MaskedImage
from gueststar.model.rights import Program
from gueststar.store.filters.definitions import FilterRequest, FilterState, FilterStore, has_filters
from gueststar.store.ledger_rows import ExposureState, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

from ..postgres_server import PostgresServer, running_server

_SHAPE = (16, 24)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A new server; skips where none is installed."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def camera() -> Camera:
    section = f"[1:{_SHAPE[1]},1:{_SHAPE[0]}]"
    amplifier = Amplifier(
        name="A", data_section=section, detector_section=section, gain=1.0, read_noise=5.0, saturation=6e4
    )
    return Camera(
        name="pgcam",
        site=Site(name="hill", latitude_deg=33.0, longitude_deg=-116.9),
        pixel_scale_arcsec=1.0,
        filters=(Filter(physical_filter="pg g", band="g", fid=1),),
        detectors=tuple(Detector(id=d, name=f"D{d}", shape=_SHAPE, amplifiers=(amplifier,)) for d in range(3)),
        header=HeaderMapping(time=TimeMapping(keywords=("DATE-OBS",))),
    )


@pytest.fixture(scope="module")
def repo(postgres: PostgresServer, camera: Camera, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SurveyRepo]:
    root = tmp_path_factory.mktemp("pg") / "survey"
    SurveyRepo.create(root, camera, postgres.url).close()
    with SurveyRepo.open(root) as opened:
        yield opened


def _info(number: int) -> ExposureInfo:
    return ExposureInfo(
        "pgcam", "science", 60000.25 + number * 0.001, 30.0, 20230224, Program.PUBLIC, "pg g", "g", 150.0, 20.0
    )


def test_products_are_stored_found_and_versioned(repo):
    info = repo.add_exposure(_info(0), range(3))
    staged = [repo.stage("science_metrics", DataId(visit=info.exposure_id, detector=d), {"d": d}) for d in range(3)]
    first = repo.commit(staged)
    assert repo.commit(staged) == first
    assert [ref.data_id.detector for ref in repo.find("science_metrics", day_obs=20230224)] == [0, 1, 2]
    which = DataId(visit=info.exposure_id, detector=1)
    repo.put("science_metrics", which, {"d": "new"})
    assert repo.get("science_metrics", which) == {"d": "new"}
    reference = DataId(field=info.field, detector=1, band="g")
    repo.put("reference_metrics", reference, {"n": 5})
    assert repo.get("reference_metrics", reference) == {"n": 5}


def test_masters_are_valid_nearest_in_time(repo):
    rng = np.random.default_rng(1)
    planes = (rng.normal(0, 5, _SHAPE), np.full(_SHAPE, 25.0), np.zeros(_SHAPE))
    pixels = MaskedImage(planes[0].astype("f4"), planes[1].astype("f4"), planes[2].astype("i4"))
    for mjd in (60000.0, 60002.0):
        ref = repo.put("bias", DataId(detector=1), CalibrationMaster("bias", 1, pixels, mjd, 5))
        repo.certify("bias", DataId(detector=1), mjd - 10, mjd + 10, run=ref.run)
    times = [repo.read(repo.find_calibration("bias", 1, mjd)).mjd_tai for mjd in (59999.0, 60000.9, 60001.1)]
    assert times == [60000.0, 60000.0, 60002.0]


def test_the_ledger_keeps_its_promises(repo):
    info = repo.add_exposure(_info(5), [0])
    ledger = repo.ledger
    job = ledger.submit("detector", {"visit": info.exposure_id}, exposure_id=info.exposure_id, day_obs=20230224)
    assert ledger.submit("detector", {"visit": info.exposure_id}) == job
    assert ledger.start(job)
    assert not ledger.start(job)
    assert ledger.reset_running() == 1
    assert ledger.start(job)
    ledger.finish(job, {"x": 1.5})
    assert ledger.job(job).metrics == {"x": 1.5}
    assert ledger.job(job).state is JobState.DONE
    assert ledger.settle_exposure(info.exposure_id) is ExposureState.PROCESSED
    ledger.event("note", "x", "text", n=1)
    assert ledger.events(what="note")[0].data == {"n": 1}
    assert ledger.balance(20230224).processed == 1


_WRITER = """
import sys
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
repo, visit, detector = SurveyRepo.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(5):
    repo.put("science_metrics", DataId(visit=visit, detector=detector), {"n": number})
    repo.ledger.submit("shared", {"n": number})
"""


def test_two_writers_at_once_lose_nothing(repo):
    info = repo.add_exposure(_info(8), range(3))
    arguments = [str(repo.root), str(info.exposure_id)]
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, *arguments, str(d)]) for d in (0, 1)]
    assert [writer.wait(240) for writer in writers] == [0, 0]
    for detector in (0, 1):
        assert repo.get("science_metrics", DataId(visit=info.exposure_id, detector=detector)) == {"n": 4}
    assert len(repo.ledger.jobs(kind="shared")) == 5


def test_a_database_that_holds_a_survey_takes_no_second_one(repo, postgres, camera, tmp_path):
    with pytest.raises(ConfigError, match="already holds a survey"):
        SurveyRepo.create(tmp_path / "second", camera, postgres.url)


def test_a_database_without_the_extension_and_the_right_to_make_it_is_told(repo, postgres, camera, tmp_path):
    from sqlalchemy import make_url, text

    from gueststar.store.sql import connect

    engine = connect(postgres.url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE poor LOGIN"))
        connection.execute(text("CREATE DATABASE bare"))
    engine.dispose()
    poor = make_url(postgres.url).set(username="poor", database="bare").render_as_string()
    with pytest.raises(ConfigError, match="CREATE EXTENSION btree_gist"):
        SurveyRepo.create(tmp_path / "poor", camera, poor)
    nowhere = make_url(postgres.url).set(database="nowhere").render_as_string()
    with pytest.raises(ConfigError, match="cannot be prepared.*nowhere"):
        SurveyRepo.create(tmp_path / "gone", camera, nowhere)


def test_filters_are_kept_with_their_versions(repo):
    store = FilterStore.of(repo.root, repo.settings.database)
    for condition in ("magpsf < 18", "magpsf < 19"):
        store.add(FilterRequest("alice", "bright", condition), first_serial=5)
    store.set_state("alice", "bright", FilterState.PAUSED, reason="a test")
    first, last = store.versions("alice", "bright")
    assert (first.state, last.state, last.reason, last.first_serial) == ("replaced", "paused", "a test", 5)
    assert has_filters(repo.root, repo.settings.database)
    assert not (repo.root / "filters.sqlite3").exists()
    store.close()
