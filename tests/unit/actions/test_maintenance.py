"""The databases are checked, copied and tidied up, but never while a night runs."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
from importlib import resources
from pathlib import Path

from gueststar.store.settings import SurveySettings
from gueststar.store.upkeep import check_file, sqlite_files
from tests.unit.actions.conftest import NIGHT, NOON


def test_every_database_has_a_sound_copy_that_others_can_check(act, repo) -> None:
    done = act("maintenance")
    assert done.state == "done", done.text
    folder = Path(done.data["backups"])
    assert folder == repo.root / "backups" / "20230225"
    assert {path.name for path in sqlite_files(repo.root)} <= {path.name for path in folder.iterdir()}
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
    with sqlite3.connect(folder / "ledger.sqlite3") as copy:
        assert copy.execute("SELECT count(*) FROM ledger_versions").fetchone()[0] >= 1
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.sqlite*"))
    assert not list(folder.glob("*-wal"))


def test_copies_go_to_the_archive_where_there_is_one_and_the_oldest_go(act, repo, tmp_path) -> None:
    (tmp_path / "tape").mkdir()
    repo.settings = SurveySettings(operation={"disks": {"archive": tmp_path / "tape"}})
    for day in range(4):
        act("maintenance", now=NOON + day * 86400, keep_backups=2)
    kept = sorted(path.name for path in (tmp_path / "tape" / "databases").iterdir())
    assert kept == ["20230227", "20230228"]


def test_room_that_is_empty_inside_a_database_is_given_back(act, repo) -> None:
    for number in range(300):
        repo.ledger.event("filler", str(number), "x" * 4000)
    with sqlite3.connect(repo.root / "ledger.sqlite3") as connection:
        connection.execute("DELETE FROM events")
    connection.close()
    done = act("maintenance")
    ledger = next(row for row in done.data["databases"] if row["name"] == "ledger.sqlite3")
    assert ledger["bytes_after"] < ledger["bytes_before"] - 1_000_000
    assert repo.ledger.events() == []


def test_a_damaged_database_is_told_and_neither_touched_nor_copied_over_the_last_sound_copy(act, repo) -> None:
    act("maintenance")
    path = repo.root / "labels.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE label (x TEXT)")
        connection.executemany("INSERT INTO label VALUES (?)", [("y" * 2000,)] * 100)
    connection.close()
    content = bytearray(path.read_bytes())
    content[8192:40960] = os.urandom(32768)
    path.write_bytes(content)
    assert check_file(path)
    found = act("maintenance", now=NOON + 86400, keep_backups=1)
    assert found.state == "failed"
    assert "labels.sqlite3 is DAMAGED" in found.text
    assert [c.subject for c in found.conditions if c.is_wrong] == ["labels.sqlite3"]
    assert path.read_bytes() == bytes(content)
    assert not (Path(found.data["backups"]) / "labels.sqlite3").exists()
    assert (repo.root / "backups" / "20230225").exists(), "the last sound copies stay while something is damaged"


def test_planned_work_waits_while_a_night_runs(act, repo, exposure) -> None:
    job = repo.ledger.submit("science", {"n": 1})
    repo.ledger.start(job)
    refused = act("maintenance")
    assert refused.state == "nothing"
    assert "1 units of work are running" in refused.text
    assert act("maintenance", even_at_night=True).state == "done"
    repo.ledger.finish(job)
    assert act("maintenance").state == "done"


def test_an_exposure_received_just_now_means_that_a_night_runs(act, repo, exposure) -> None:
    repo.ledger.add_exposure(exposure(day_obs=NIGHT + 1))
    with sqlite3.connect(repo.root / "ledger.sqlite3") as connection:
        connection.execute("UPDATE exposures SET received = ?", (NOON - 600,))
    connection.close()
    assert "received 10 minutes ago" in act("maintenance").text
    assert act("maintenance", now=NOON + 7200).state == "done"


def test_while_the_sun_is_down_planned_work_waits_unless_a_downtime_was_planned(act, repo) -> None:
    midnight = NOON - 43200
    assert "the sun is at -" in act("maintenance", now=midnight).text
    rules = resources.files("gueststar.operations.rules").joinpath("default.yaml").read_text()
    planned = "maintenance: [{start: 2023-02-25 07:00, end: 2023-02-25 09:00, reason: new disks}]"
    (repo.root / "rules.yaml").write_text(rules.replace("maintenance: []", planned))
    assert act("maintenance", now=midnight).state == "done"
    assert act("maintenance", now=midnight + 7200).state == "nothing"


def test_logs_that_were_put_aside_are_compressed_and_those_in_use_are_not(act, repo) -> None:
    logs = repo.root / "logs"
    logs.mkdir()
    for name, days in (("operator.jsonl", 9), ("operator.jsonl.1", 9), ("operator.jsonl.2", 0.5)):
        (logs / name).write_text("line\n" * 1000)
        os.utime(logs / name, (NOON - days * 86400,) * 2)
    done = act("maintenance")
    assert done.data["n_logs_compressed"] == 1
    names = sorted(path.name for path in logs.iterdir())
    assert names == ["operator.jsonl", "operator.jsonl.1.20230216T200000.gz", "operator.jsonl.2"]


def test_a_dry_run_of_maintenance_says_what_it_would_do(act, repo) -> None:
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sqlite_files(repo.root)}
    told = act("maintenance", is_dry=True)
    assert "ledger.sqlite3" in told.text
    assert not (repo.root / "backups").exists()
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sqlite_files(repo.root)}
