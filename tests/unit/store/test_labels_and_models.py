"""People's labels are kept with who and when, served to a browser, and feed training; models can be rolled back."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest
import uvicorn
from matplotlib.image import imread

from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.cutouts import CUTOUT_SIDE
from gueststar.formats.reliability_model import default_reliability_model
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.labels import DetectionKind
from gueststar.operations.labelling import labelled_by_people
from gueststar.operations.reliability import model_lines, model_named
from gueststar.services.labelling import labelling_app
from gueststar.services.labelling_desk import LabellingDesk
from gueststar.store.labels import DetectionLabel, LabelStore
from gueststar.store.products import DataId
from gueststar.store.reliability_models import ReliabilityModels

FIRST = 353_189_730_015_015_000  # beyond what a browser's numbers hold exactly


@pytest.fixture
def labels(tmp_path):
    return LabelStore.of(tmp_path, None)


@pytest.fixture
def desk(repo, exposure):
    """A desk with six scored detections of one image, two of which keep no cut-outs."""
    visit = repo.add_exposure(exposure(), [1]).exposure_id
    data_id = DataId(visit=visit, detector=1)
    values = {column.name: np.ones(6, dtype=column.dtype) for column in DIA_SOURCE.columns}
    values |= {
        "dia_source_id": FIRST + np.arange(6), "visit": np.full(6, visit), "detector": np.ones(6),
        "reliability": [0.01, 0.95, 0.55, 0.3, 0.2, 0.001], "mjd_tai": np.full(6, 60000.5), "flags": np.full(6, 4),
        "fwhm": np.full(6, 3.0), "sharpness": np.zeros(6), "reference_distance": np.full(6, np.nan),
    }  # fmt: skip
    repo.put("dia_source", data_id, DIA_SOURCE.catalog(values))
    stamps = np.random.default_rng(1).normal(size=(4, 3, CUTOUT_SIDE, CUTOUT_SIDE)).astype(np.float32)
    repo.put("candidate_cutouts", data_id, CandidateCutouts(FIRST + np.arange(1, 5), stamps))
    night = repo.ledger.exposure(visit).info.day_obs
    job = repo.ledger.submit("difference", {"visit": visit}, exposure_id=visit, detector=1, day_obs=night)
    repo.ledger.start(job)
    repo.ledger.finish(job, {"vetting": {"version": "m1"}})
    return LabellingDesk(repo, LabelStore.of(repo.root, None), person="ada", clock=lambda: 60001.0)


@pytest.fixture
def client(desk):
    """A real HTTP client of a real server."""
    server = uvicorn.Server(uvicorn.Config(labelling_app(desk, key="a key"), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as one:
        assert one.get("/").status_code == 401, "nothing without the key"
        assert one.get("/next").status_code == 401
        assert "key" not in str(one.get("/", params={"key": "a key"}).url), "from now on a cookie holds it"
        yield one
    server.should_exit = True
    thread.join()


def label(key, kind, person="ada", mjd=60000.0):
    return DetectionLabel(key, 7, 1, kind, person, mjd, 0.4, "m1")


def test_the_last_label_counts_and_every_one_stays_on_record(labels):
    labels.add(label(1, DetectionKind.NOISE))
    labels.add(label(1, DetectionKind.VARIABLE, person="bea", mjd=60002.0))
    assert labels.current()[1].kind is DetectionKind.VARIABLE
    assert labels.current()[1].person == "bea"
    assert labels.retract_last("bea").dia_source_id == 1
    assert labels.current()[1].kind is DetectionKind.NOISE
    assert labels.retract_last("bea") is None
    assert [(one.kind, gone) for one, gone in labels.history(1)] == [
        (DetectionKind.NOISE, False), (DetectionKind.VARIABLE, True),
    ]  # fmt: skip
    assert labels.history(1)[0][0] == label(1, DetectionKind.NOISE)


def test_the_least_sure_detection_comes_first_and_a_labelled_one_never_again(desk):
    assert desk.next() == FIRST + 2
    desk.label(FIRST + 2, DetectionKind.MOVER)
    assert desk.next() == FIRST + 3
    assert desk.next(skipped=frozenset({FIRST + 3})) == FIRST + 4
    assert desk.progress()["waiting"] == 3
    assert desk.undo() == FIRST + 2
    assert desk.next() == FIRST + 2
    stored = desk.labels.history(FIRST + 2)[0][0]
    assert (stored.person, stored.mjd_tai, stored.model_version) == ("ada", 60001.0, "m1")
    with pytest.raises(DataError, match="no cut-outs"):
        desk.label(FIRST, DetectionKind.NOISE)


def test_a_browser_sees_a_detection_labels_it_and_takes_it_back(client, desk):
    page = client.get("/").text
    assert all(f'data-key="{key}"' in page for key in "1234bcgtpednu")
    assert "http://" not in page
    assert "https://" not in page  # works without a network
    token = page.split('const token = "')[1].split('"')[0]
    found = client.get("/next").json()
    assert found["id"] == str(FIRST + 2)
    assert found["facts"]["flags"] == "bad pixel"
    assert found["facts"]["nearest reference source"] == "none within reach"
    assert "reliability" not in found["facts"]
    picture = imread(io.BytesIO(client.get(f"/detections/{found['id']}/cutouts.png").content), format="png")
    assert picture.shape[:2] == (5 * CUTOUT_SIDE, 5 * (3 * CUTOUT_SIDE + 4))
    own = {"X-Labelling-Token": token}
    answer = client.post(f"/detections/{found['id']}/label", json={"kind": 11}, headers=own)
    assert answer.json()["cosmic ray"] == 1
    assert desk.labels.current()[FIRST + 2].kind is DetectionKind.COSMIC_RAY
    assert client.get("/next").json()["id"] == str(FIRST + 3)
    assert client.post("/undo", json={}, headers=own).json()["id"] == found["id"]
    assert client.get("/next").json()["id"] == found["id"]


def test_other_pages_names_and_classes_are_refused(client, desk):
    where = f"/detections/{FIRST + 2}/label"
    assert client.post(where, json={"kind": 1}).status_code == 403
    assert client.post("/undo", json={}).status_code == 403
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/detections/5").status_code == 404
    token = client.get("/").text.split('const token = "')[1].split('"')[0]
    assert client.post(where, json={"kind": 99}, headers={"X-Labelling-Token": token}).status_code == 400
    assert desk.labels.current() == {}


def test_labels_become_training_rows_with_their_cutouts(desk):
    with pytest.raises(DataError, match="vet page"):
        labelled_by_people(desk.repo.root)
    desk.label(FIRST + 1, DetectionKind.TRANSIENT)
    desk.label(FIRST + 4, DetectionKind.BAD_PIXEL)
    rows = labelled_by_people(desk.repo.root)
    assert dict(zip(rows.rows["dia_source_id"].tolist(), rows.is_real.tolist(), strict=True)) == {
        FIRST + 1: True, FIRST + 4: False,
    }  # fmt: skip
    assert rows.rows["kind"].tolist() == [DetectionKind.TRANSIENT, DetectionKind.BAD_PIXEL]
    assert rows.views.n == 2
    assert not np.allclose(rows.views.near[0], rows.views.near[1])


def test_a_model_is_added_used_and_rolled_back(tmp_path):
    models, shipped = ReliabilityModels(tmp_path), default_reliability_model()
    assert models.in_use() is None
    assert models.versions() == (shipped.version,)
    other = replace(shipped, version="second", training={**shipped.training, "digest": "abc"})
    models.add(other)
    models.add(other)
    models.use("second", person="ada", mjd_tai=60000.0)
    assert ReliabilityModels(tmp_path).in_use().version == "second"
    assert ReliabilityModels(tmp_path).in_use().network_version == shipped.network_version
    models.use(shipped.version, person="bea", mjd_tai=60001.0)
    assert models.in_use() is shipped
    lines = model_lines(tmp_path)
    assert lines[0].startswith(f"* {shipped.version}")
    assert lines[1].startswith("  second")
    assert "by bea" in lines[-1]
    assert model_named("second", tmp_path).version == "second"
    assert model_named("shipped") is shipped


def test_unknown_names_and_other_models_of_one_name_are_refused(tmp_path):
    models, shipped = ReliabilityModels(tmp_path), default_reliability_model()
    with pytest.raises(ConfigError, match="no reliability model third"):
        models.use("third", person="ada")
    models.add(replace(shipped, version="second", training={"digest": "abc"}))
    with pytest.raises(ConfigError, match="another reliability model second"):
        models.add(replace(shipped, version="second", training={"digest": "def"}))
    with pytest.raises(ConfigError, match="no name"):
        models.add(replace(shipped, version="../second"))
