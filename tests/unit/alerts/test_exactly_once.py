"""Commits and alerts happen exactly once, whatever is killed and however often it is tried."""

from __future__ import annotations

import multiprocessing
import random
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from gueststar.core.errors import ConfigError, DataError, TransientError
from gueststar.model.detections import OutboxAlert, VisitCommit
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog, drain_outbox
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.conftest import make_record, make_sources

N_VISITS, N_ALERTS = 10, 6
EVERYTHING = tuple(Program)


def payload_of(candid: int) -> bytes:
    return str(candid).encode() * 500


def commit_one(store: DetectionStore, serial: int, *, program: int = 1) -> VisitCommit:
    record = make_record(61000.1 + 0.01 * serial, program=program)
    sources = make_sources(record, 0.005 + 0.002 * np.arange(N_ALERTS), np.full(N_ALERTS, 20.0))
    ids = store.new_object_ids(np.arange(1, N_ALERTS + 1))
    sources = sources.replace(dia_object_id=ids)
    alerts = tuple(
        OutboxAlert(int(c), f"GST25aaaaaa{'abcdef'[k]}", record.day_obs, program, payload_of(int(c)))
        for k, c in enumerate(sources["dia_source_id"])
    )
    return VisitCommit(record, sources, name_numbers=store.name_numbers(ids.tolist()), alerts=alerts)


def work(root: Path, is_ready: Event | None = None) -> None:
    """Commit every visit and drain, from whatever state the last process left."""
    store, log = DetectionStore.at(root, name_key=b"key"), AlertLog(root)
    if is_ready is not None:
        is_ready.set()
    for serial in range(N_VISITS):
        store.commit_visit(commit_one(store, serial))
        drain_outbox(store, log)
    store.close()
    log.close()


def test_every_alert_is_in_the_log_once_though_the_process_is_killed_again_and_again(tmp_path: Path) -> None:
    fork, chance = multiprocessing.get_context("fork"), random.Random(5)
    for _ in range(10):
        is_ready = fork.Event()
        process = fork.Process(target=work, args=(tmp_path, is_ready))
        process.start()
        assert is_ready.wait(60)
        process.join(chance.uniform(0.0, 0.08))
        process.kill()
        process.join()
    work(tmp_path)
    store, log = DetectionStore.at(tmp_path), AlertLog(tmp_path)
    expected = sorted(int(c) for s in range(N_VISITS) for c in commit_one(store, s).dia_sources["dia_source_id"])
    entries = log.entries(programs=EVERYTHING)
    assert sorted(entry.candid for entry in entries) == expected
    assert all(data == payload_of(entry.candid) for entry, data in log.replay(programs=EVERYTHING))
    assert store.n_waiting() == 0
    assert sum(store.visits_of_night(n).n_rows for n in (20251121,)) == N_VISITS
    assert log.rebuild_index() == len(expected), "the files alone tell the same"
    objects = store.working_set(make_record(61001.0)).objects
    assert set(objects["n_dia_sources"].tolist()) == {N_VISITS}
    store.close()
    log.close()


def test_a_second_commit_of_the_same_image_changes_nothing(tmp_path: Path) -> None:
    store = DetectionStore.at(tmp_path)
    change = commit_one(store, 0)
    first, second = store.commit_visit(change), store.commit_visit(change)
    assert (first.is_new, second.is_new) == (True, False)
    assert (second.sequence, second.n_dia_sources, second.n_alerts) == (first.sequence, N_ALERTS, N_ALERTS)
    assert store.sources_of_night(20251121).n_rows == N_ALERTS
    store.close()


def test_who_was_overtaken_over_the_same_sky_must_associate_again(tmp_path: Path) -> None:
    store = DetectionStore.at(tmp_path)
    before = store.working_set(make_record(61000.1)).sequence
    store.commit_visit(commit_one(store, 0))
    late = commit_one(store, 1)
    with pytest.raises(TransientError, match="associate again"):
        store.commit_visit(
            VisitCommit(late.record, late.dia_sources, name_numbers=late.name_numbers, base_sequence=before)
        )
    elsewhere = make_record(61000.3, ra=100.0)
    store.commit_visit(VisitCommit(elsewhere, make_sources(elsewhere, np.zeros(0), np.zeros(0)), base_sequence=before))
    store.close()


def test_an_image_that_comes_late_is_taken_and_marked(tmp_path: Path) -> None:
    store = DetectionStore.at(tmp_path)
    assert not store.commit_visit(commit_one(store, 5)).is_late
    assert store.commit_visit(commit_one(store, 3)).is_late
    assert not store.commit_visit(commit_one(store, 7)).is_late
    store.close()


def test_a_withdrawn_image_leaves_no_trace_and_its_alerts_are_not_sent_twice(tmp_path: Path) -> None:
    store, log = DetectionStore.at(tmp_path), AlertLog(tmp_path)
    store.commit_visit(commit_one(store, 0))
    before = store.working_set(make_record(61001.0))
    change = commit_one(store, 1)
    store.commit_visit(change)
    drain_outbox(store, log)
    assert store.withdraw_visit(change.record.visit, change.record.detector) == N_ALERTS
    after = store.working_set(make_record(61001.0))
    for table in ("objects", "parts"):
        was, now = getattr(before, table), getattr(after, table)
        for name in was:
            np.testing.assert_allclose(now[name], was[name], rtol=1e-12)
    assert store.receipt(change.record.visit, change.record.detector) is None
    assert store.commit_visit(change).n_alerts == 0
    assert drain_outbox(store, log) == 0
    assert len(log.entries()) == 2 * N_ALERTS
    first = commit_one(store, 0).record
    store.withdraw_visit(first.visit, first.detector)
    store.withdraw_visit(change.record.visit, change.record.detector)
    assert store.working_set(make_record(61001.0)).objects.n_rows == 0
    store.close()
    log.close()


def test_the_log_shows_a_reader_no_other_program_than_asked_for(tmp_path: Path) -> None:
    store, log = DetectionStore.at(tmp_path), AlertLog(tmp_path)
    for serial, program in enumerate((1, 2, 3)):
        store.commit_visit(commit_one(store, serial, program=program))
    drain_outbox(store, log)
    assert {entry.program for entry in log.entries()} == {1}
    assert {entry.program for entry in log.entries(programs=(Program.PARTNERSHIP,))} == {2}
    private = log.entries(programs=(Program.PRIVATE,))[0]
    assert log.find(private.candid) is None
    assert log.find(private.candid, programs=EVERYTHING) == private
    by_object = log.entries(programs=EVERYTHING, object_name=private.object_name)
    assert [entry.program for entry in by_object] == [1, 2, 3]
    store.close()
    log.close()


def test_names_collide_for_no_two_objects(tmp_path: Path) -> None:
    store = DetectionStore.at(tmp_path, name_key=b"key")
    ids = store.new_object_ids(np.arange(1, 20_001))
    numbers = store.name_numbers(ids.tolist())
    assert len(set(numbers.values())) == 20_000
    assert store.name_numbers(ids[:5].tolist()) == {int(i): numbers[int(i)] for i in ids[:5]}
    steps = np.diff([numbers[int(i)] for i in ids])
    assert 0.4 < np.mean(steps > 0) < 0.6, "names do not count"
    store.close()


def test_a_store_keeps_its_key_and_refuses_rows_of_another_image(tmp_path: Path) -> None:
    DetectionStore.at(tmp_path, name_key=b"one").close()
    with pytest.raises(ConfigError, match="name_key"):
        DetectionStore.at(tmp_path, name_key=b"two")
    store = DetectionStore.at(tmp_path)
    mine, other = make_record(61000.1), make_record(61000.2)
    with pytest.raises(DataError, match="another image"):
        store.commit_visit(VisitCommit(mine, make_sources(other, np.array([0.0]), np.array([20.0]))))
    store.close()
