"""From the shutter to the alert: which step took how long, for whom, and what was late."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from gueststar.core import ids
from gueststar.core.times import unix_of
from gueststar.model.detections import OutboxAlert
from gueststar.model.exposure import ExposureInfo
from gueststar.operations.report.latency import ImageTimes, Latency, latency_lines, latency_of, summarise
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication, SentPacket
from gueststar.store.ledger import FileStatus
from gueststar.store.repo import SurveyRepo
from gueststar.store.tables import EXPOSURES, FILES, JOBS

from .conftest import NIGHT

Expose = Callable[..., ExposureInfo]
BASE = ImageTimes(1, 0, 0.0, 60.0, 160.0, None, 0, 0, 40.0, False, False)


def close(info: ExposureInfo) -> float:
    """Return when the shutter closed, Unix."""
    return float(unix_of(info.mjd_start)) + info.exposure_s


def receive(repo: SurveyRepo, info: ExposureInfo, seconds: float) -> None:
    """Set when an exposure came, after its shutter closed."""
    with repo.ledger.writing() as connection:
        mine = EXPOSURES.c.id == info.exposure_id
        connection.execute(update(EXPOSURES).where(mine).values(received=close(info) + seconds))


def work(repo: SurveyRepo, info: ExposureInfo, kind: str, begin: float, end: float, **metrics: object) -> None:
    """Write a job that ran between two times after the shutter."""
    key = {"exposure": info.exposure_id, "detector": 0}
    job = repo.ledger.submit(kind, key, exposure_id=info.exposure_id, detector=0, day_obs=NIGHT)
    repo.ledger.start(job)
    repo.ledger.finish(job, metrics)
    with repo.ledger.writing() as connection:
        times = {"started": close(info) + begin, "finished": close(info) + end}
        connection.execute(update(JOBS).where(JOBS.c.id == job).values(**times))


def told(repo: SurveyRepo) -> Latency:
    rows = repo.ledger.exposures(day_obs=NIGHT)
    found = latency_of(repo, NIGHT, rows, repo.ledger.jobs(day_obs=NIGHT))
    assert found is not None
    return found


def test_each_step_is_told_from_the_ledger(repo: SurveyRepo, expose: Expose) -> None:
    info = expose(0)
    receive(repo, info, 50.0)
    work(repo, info, "science", 60.0, 63.0)
    work(repo, info, "difference", 65.0, 70.0)
    work(repo, info, "association", 80.0, 81.0, n_alerts=3)
    (image,) = told(repo).images
    assert image.steps == pytest.approx({"transfer": 50.0, "queue": 22.0, "work": 9.0, "publication": 0.0}, abs=1e-3)
    assert image.processing_s == pytest.approx(31.0, abs=1e-3)


def test_stages_that_ran_in_one_go_are_not_counted_twice(repo: SurveyRepo, expose: Expose) -> None:
    info = expose(0)
    receive(repo, info, 10.0)
    for kind in ("science", "difference"):
        work(repo, info, kind, 20.0, 30.0)
    work(repo, info, "association", 30.0, 31.0, n_alerts=0)
    assert told(repo).images[0].worked_s == pytest.approx(11.0, abs=1e-3)


def test_what_was_processed_again_keeps_its_latency_and_says_that_its_steps_are_not_known(
    repo: SurveyRepo, expose: Expose
) -> None:
    info = expose(0)
    receive(repo, info, 10.0)
    work(repo, info, "science", 90000.0, 90010.0)
    work(repo, info, "association", 30.0, 1000.0, n_alerts=0)
    latency = told(repo)
    assert latency.images[0].processing_s == pytest.approx(990.0, abs=1e-3)
    assert math.isnan(latency.images[0].worked_s)
    assert latency.late[0].step == "not known: it was processed again since"


def test_a_file_a_detector_is_received_on_its_own_time(repo: SurveyRepo, expose: Expose) -> None:
    info = expose(0)
    info = replace(info, mjd_start=info.mjd_start + 0.01)
    repo.ledger.add_exposure(info, detectors={0: "aaa", 1: "bbb"})
    for checksum, seconds in (("aaa", 20.0), ("bbb", 700.0)):
        row = repo.ledger.record_file(
            f"/landing/{checksum}.fits", checksum, FileStatus.INGESTED, pixel_checksum=checksum,
            exposure_id=info.exposure_id, day_obs=NIGHT,
        )  # fmt: skip
        with repo.ledger.writing() as connection:
            connection.execute(update(FILES).where(FILES.c.id == row).values(received=close(info) + seconds))
    mine = [image for image in told(repo).images if image.exposure == info.exposure_id]
    assert [round(image.transfer_s) for image in mine] == [20, 700]
    assert [image.is_backlog for image in mine] == [False, True]


def test_alerts_count_when_the_brokers_have_them(repo: SurveyRepo, expose: Expose) -> None:
    repo.settings = repo.settings.model_copy(
        update={"stream": repo.settings.stream.model_copy(update={"bootstrap_servers": "nowhere:9092"})}
    )
    info = expose(0)
    receive(repo, info, 10.0)
    work(repo, info, "association", 30.0, 31.0, n_alerts=2)
    pid = ids.wire_pid(info.mjd_start, repo.camera.detectors_by_id[0].rcid)
    candids = [ids.wire_candid(pid, is_positive=True, serial=k) for k in range(2)]
    with AlertLog(repo.root) as log:
        log.append([OutboxAlert(candid, f"GST{k}", NIGHT, 1, b"packet") for k, candid in enumerate(candids)])
    state = Publication(repo.root)
    state.mark_sent([SentPacket(candids[0], "topic", 0, 0)], time=close(info) + 40.0)
    latency = told(repo)
    assert (latency.images[0].n_unsent, latency.n_waiting) == (1, 1)
    state.mark_sent([SentPacket(candids[1], "topic", 0, 1)], time=close(info) + 95.0)
    state.close()
    (image,) = told(repo).images
    assert image.steps["publication"] == pytest.approx(64.0, abs=1e-3)
    assert image.processing_s == pytest.approx(85.0, abs=1e-3)


def test_percentiles_are_of_the_durations_and_ninety_five_in_a_hundred_must_keep_the_limit() -> None:
    images = [replace(BASE, exposure=k, received=6.0 * k, alerted=6.0 * k + 10.0) for k in range(1, 101)]
    latency = summarise(images, required_s=570.0, goal_s=300.0)
    transfer = latency.tonight[0]
    assert (transfer.p50, transfer.p99) == (pytest.approx(303.0), pytest.approx(594.06))
    assert (transfer.within_goal, transfer.within_required, transfer.is_met) == (0.5, 0.95, True)
    assert not summarise(images, required_s=560.0, goal_s=300.0).tonight[0].is_met


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"received": 2000.0, "alerted": 2100.0}, "received late"),
        ({"alerted": 1800.0}, "queued"),
        ({"alerted": 1800.0, "is_retried": True}, "queued, and tried more than once"),
        ({"alerted": 1800.0, "worked_s": 1700.0}, "worked on"),
        ({"published": 1800.0, "n_alerts": 2}, "published late"),
    ],
)
def test_a_late_exposure_names_the_step_that_took_longest(changes: dict[str, object], step: str) -> None:
    (late,) = summarise([replace(BASE, **changes)], required_s=600.0, goal_s=300.0).late  # type: ignore[arg-type]
    assert late.step == step


def test_the_backlog_does_not_spoil_the_nights_own_figures() -> None:
    images = [replace(BASE, exposure=1), replace(BASE, exposure=2, received=9000.0, alerted=9100.0, is_backlog=True)]
    latency = summarise(images, required_s=600.0, goal_s=300.0)
    assert latency.p95_s == pytest.approx(160.0)
    assert latency.backlog[-1].p95 == pytest.approx(9100.0)


def test_images_taken_in_days_later_have_no_latency() -> None:
    latency = summarise([replace(BASE, received=1e7, alerted=1.1e7)], required_s=600.0, goal_s=300.0)
    assert (latency.n_afterwards, latency.tonight, latency.late) == (1, (), ())
    assert "more than a day after" in latency_lines(latency)[0]


def test_nothing_is_told_of_a_night_without_science(repo: SurveyRepo, tmp_path: Path) -> None:
    assert latency_of(repo, NIGHT, [], []) is None
