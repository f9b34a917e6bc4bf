"""The labelling page goes night by night and page by page, however many candidates there are."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from starlette.testclient import TestClient

from gueststar.core.errors import DataError
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.labels import DetectionKind
from gueststar.services.labelling import labelling_app
from gueststar.services.labelling_desk import LabellingDesk
from gueststar.services.labelling_queue import Choice, Order
from gueststar.store.labels import LabelStore
from gueststar.store.products import DataId

N_NIGHTS, N_PER_NIGHT, MANY = 4, 100, 2500


def desk_over(repo, exposure, n_per_night: int) -> LabellingDesk:
    """Return a desk over four nights of scored detections, one image a night, cut-outs of one pixel."""
    random = np.random.default_rng(3)
    for night in range(N_NIGHTS):
        visit = repo.add_exposure(exposure(mjd_start=61000.2 + night, day_obs=20251121 + night), [1]).exposure_id
        ids = visit * 10_000 + np.arange(n_per_night)
        values = {column.name: np.ones(n_per_night, dtype=column.dtype) for column in DIA_SOURCE.columns}
        values |= {
            "dia_source_id": ids, "visit": np.full(n_per_night, visit), "detector": np.ones(n_per_night),
            "reliability": random.random(n_per_night), "mjd_tai": np.full(n_per_night, 61000.2 + night),
        }  # fmt: skip
        data_id = DataId(visit=visit, detector=1)
        repo.put("dia_source", data_id, DIA_SOURCE.catalog(values))
        repo.put("candidate_cutouts", data_id, CandidateCutouts(ids, np.zeros((n_per_night, 3, 1, 1), np.float32)))
        day_obs = repo.ledger.exposure(visit).info.day_obs
        job = repo.ledger.submit("difference", {"visit": visit}, exposure_id=visit, detector=1, day_obs=day_obs)
        repo.ledger.start(job)
        repo.ledger.finish(job, {"vetting": {"version": "m1"}})
    return LabellingDesk(repo, LabelStore.of(repo.root, None), person="ada", clock=lambda: 61030.0)


@pytest.fixture
def desk(repo, exposure) -> LabellingDesk:
    """A desk over four nights of 100 detections each."""
    return desk_over(repo, exposure, N_PER_NIGHT)


def test_ten_thousand_candidates_are_paged_in_bounded_memory_and_time(repo, exposure) -> None:
    desk = desk_over(repo, exposure, MANY)
    desk.next()  # what is imported at the first call
    tracemalloc.start()
    seen: set[str] = set()
    start = time.process_time()
    for night in desk.queue.nights():
        first = desk.page(Choice(night=night))
        assert first["night"] == night
        assert first["n"] == MANY
        seen |= {
            one["id"]
            for k in range(first["pages"])
            for one in desk.page(Choice(night=night), number=k + 1)["detections"]
        }
    spent, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == N_NIGHTS * MANY
    assert peak < 20e6
    assert desk.queue.of_night.cache_info().currsize <= 3 < N_NIGHTS
    assert spent < 8.0  # 420 pages, of which a person asks for one at a time


def test_the_newest_night_comes_first_and_the_one_before_when_it_is_done(desk) -> None:
    newest, before = list(desk.queue.nights())[:2]
    page = desk.page()
    assert (page["night"], page["page"], page["pages"]) == (newest, 1, 5)
    assert len(page["detections"]) == 24
    assert page["nights"][:2] == [newest, before]
    key = desk.next()
    assert str(key) == page["detections"][0]["id"]
    for one in desk.queue.of_night(newest).dia_source_id.tolist():
        desk.label(one, DetectionKind.NOISE)
    assert desk.queue.find(desk.next())[0].night == before
    assert desk.page()["night"] == before
    assert desk.progress(Choice(night=newest)) | {"waiting": 0, "noise": N_PER_NIGHT} == desk.progress(
        Choice(night=newest)
    )


def test_pages_follow_score_and_class(desk) -> None:
    high = desk.page(Choice(order=Order.HIGH, low=0.4, high=0.6))
    scores = [float(one["score"]) for one in high["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= 0.6
    assert "score" not in desk.page()["detections"][0], "it would lead the eye"
    key = desk.next(Choice(order=Order.LOW))
    desk.label(key, DetectionKind.VARIABLE)
    assert desk.next(Choice(order=Order.LOW)) != key
    assert desk.next(Choice(label="variable")) == key
    assert [one["id"] for one in desk.page(Choice(label="variable"))["detections"]] == [str(key)]
    assert desk.page(Choice(label="ghost"))["n"] == 0
    assert desk.next(Choice(label="ghost")) is None
    assert desk.page(Choice(label="any"))["n"] == N_PER_NIGHT


def test_a_browser_asks_for_pages_with_the_same_choice_as_for_the_next(desk) -> None:
    with TestClient(labelling_app(desk, key="k"), base_url="http://127.0.0.1") as client:
        assert client.get("/page").status_code == 401
        html = client.get("/", params={"key": "k"}).text
        assert all(f'data-key="{key}"' in html for key in "1234bcgtpednus[]")
        asked = {"order": "low", "label": "unlabelled", "night": "", "low": "0.2", "high": "1", "page": "2"}
        page = client.get("/page", params=asked).json()
        assert page["page"] == 2
        first = client.get("/page", params=asked | {"page": "1"}).json()["detections"][0]
        assert client.get("/next", params=asked).json()["id"] == first["id"]
        for wrong in ({"order": "best"}, {"label": "unicorn"}, {"night": "today"}):
            assert client.get("/page", params=wrong).status_code == 404
        assert client.get("/page", params={"night": "20990101"}).json()["detections"] == []


def test_a_choice_that_is_none_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match="unicorn"):
        Choice.of({"label": "unicorn"})
