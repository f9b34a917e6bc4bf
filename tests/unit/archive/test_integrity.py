"""What is derived is mended, what is lost is named; a full disk loses nothing and is told in a line."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gueststar.cli.alerts import command
from gueststar.core.errors import ServiceDown
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.integrity import Findings, VerifyLog
from gueststar.store.alerts.log import ENTRIES, AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch
from gueststar.store.alerts.segments import AlertEntry, read_segment
from gueststar.store.alerts.table import AlertTable
from gueststar.store.sql import transaction
from tests.unit.archive.packets import alert, alerts

EVERYONE = tuple(Program)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AlertLog]:
    with AlertLog(tmp_path) as made:
        for first in (11, 1, 21):
            made.append([*alerts(range(first, first + 3)), alert(first + 5, program=2)])
        AlertTable(made).complete()
        yield made


def verify(log: AlertLog) -> Findings:
    return VerifyLog(log).run(log.folder.parent)


def entries(log: AlertLog) -> list[AlertEntry]:
    return log.entries(programs=EVERYONE)


def test_a_whole_log_is_whole(log: AlertLog) -> None:
    findings = verify(log)
    assert findings.line() == "12 packets in 6 segments: whole"


def test_an_index_that_is_gone_is_made_anew_in_the_order_of_arrival(log: AlertLog) -> None:
    before = entries(log)
    assert [entry.candid for entry in before][:4] == [11, 12, 13, 16], "not in order of candid"
    with transaction(log._engine) as connection:
        connection.execute(ENTRIES.delete())
    findings = verify(log)
    assert findings.is_whole
    assert len(findings.mended) == 1
    assert entries(log) == before


def test_rows_of_the_index_that_are_wrong_or_missing_are_mended(log: AlertLog) -> None:
    before = entries(log)
    with transaction(log._engine) as connection:
        connection.execute(ENTRIES.delete().where(ENTRIES.c.candid == 12))
        connection.execute(ENTRIES.update().where(ENTRIES.c.candid == 1).values(offset=7, program=1))
        connection.execute(ENTRIES.update().where(ENTRIES.c.candid == 6).values(program=1))
    findings = verify(log)
    assert len(findings.mended) >= 3
    assert findings.is_whole
    assert entries(log) == before
    assert verify(log).line().endswith("whole")


def test_a_table_that_tells_other_things_than_the_index_is_made_again(log: AlertLog) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    (file,) = AlertTable(log).files()
    table = pq.read_table(file.path)
    column = pc.if_else(pc.equal(table["programid"], 2), 1, table["programid"]).cast("int64")
    pq.write_table(
        table.set_column(table.column_names.index("programid"), table.schema.field("programid"), column), file.path
    )
    findings = verify(log)
    assert findings.is_whole
    assert "did not agree" in findings.mended[0]
    with AlertSearch(log) as search:
        assert search.run(AlertQuery()).num_rows == 9


def test_packets_whose_bytes_changed_or_are_gone_are_named(log: AlertLog) -> None:
    changed, short, gone = (next(e for e in entries(log) if e.candid == c) for c in (2, 21, 16))
    path = log.folder / changed.segment
    data = bytearray(path.read_bytes())
    data[changed.offset + 400] ^= 1
    path.write_bytes(data)
    with (log.folder / short.segment).open("rb+") as file:
        file.truncate(short.offset + 100)
    (log.folder / gone.segment).unlink()
    result = CliRunner().invoke(command, ["verify", str(log.folder.parent)])
    assert result.exit_code == 1
    told = result.output
    assert "packet 2: its bytes are not those that were written" in told
    assert "its first" in told
    for candid in (16, 22, 23):
        assert f"packet {candid} is gone" in told
    others = {1, 3, 6, 11, 12, 13, 26}
    assert all(log.read(entry) for entry in entries(log) if entry.candid in others)


def test_a_publication_of_what_the_log_does_not_have_is_told(log: AlertLog) -> None:
    from gueststar.store.alerts.publication import Publication, SentPacket

    Publication(log.folder.parent).mark_sent([SentPacket(999, "t", 0, 1)], time=1.0)
    assert "packet 999 was sent, and the log has it not" in verify(log).lost[0]


def test_what_the_index_says_of_a_segment_is_what_its_file_tells(log: AlertLog) -> None:
    told = log._write_segment(alerts([41, 42, 43]), 13)
    read = read_segment(log.folder / told[0]["segment"], log.folder)
    assert read.damage is None
    assert [row.values() for row in read.rows] == told


def test_a_segment_of_a_commit_that_died_before_the_index_is_taken_up_once(log: AlertLog) -> None:
    again = alerts([31, 32])
    assert len(log._write_segment(again, 13)) == 2
    assert log.append(again) == 2
    assert verify(log).is_whole
    assert [entry.candid for entry in entries(log)][-2:] == [31, 32]
    assert log.rebuild_index() == 14


# Disk full


def test_a_full_disk_is_told_in_one_line_and_the_same_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, is_full = os.fsync, True

    def full(descriptor: int) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with AlertLog(tmp_path) as log:
        with pytest.raises(ServiceDown, match="No space left on device; make room, nothing was lost") as caught:
            log.append(alerts([1, 2]))
        assert "\n" not in str(caught.value)
        assert entries(log) == []
        assert [path for path in log.folder.rglob("*") if path.suffix == ".tar"] == []
        is_full = False
        assert log.append(alerts([1, 2])) == 2
        assert verify(log).line() == "2 packets in 1 segments: whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "gueststar-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("file systems can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_loses_nothing_and_doubles_nothing(small_disk: Path) -> None:
    batches = [
        [OutboxAlert(a.candid, a.object_name, a.day_obs, a.program, a.payload + os.urandom(20_000)) for a in batch]
        for batch in (alerts(range(first, first + 5)) for first in range(1, 200, 5))
    ]
    log = AlertLog(small_disk)
    with pytest.raises(ServiceDown, match="make room|does not work now"):
        list(map(log.append, batches))
    n_done = len(entries(log)) // 5
    assert 2 < n_done < len(batches)
    in_log = [entry.candid for entry in entries(log)]
    assert in_log == [a.candid for batch in batches[:n_done] for a in batch]
    with AlertSearch(log) as search:  # there is no room for a table: the search does without
        assert search.run(AlertQuery()).num_rows == len(in_log)
        assert len(search.entries(AlertQuery())) == len(in_log)
    log.close()
    more = subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], capture_output=True)
    assert more.returncode == 0
    with AlertLog(small_disk) as log:
        for batch in batches:
            log.append(batch)
        assert [entry.candid for entry in entries(log)] == [a.candid for batch in batches for a in batch]
        payloads = [a.payload for batch in batches for a in batch]
        assert [log.read(entry) for entry in entries(log)] == payloads
        findings = verify(log)
        assert findings.is_whole
        with AlertSearch(log) as search:
            assert search.run(AlertQuery()).num_rows == len(entries(log))
