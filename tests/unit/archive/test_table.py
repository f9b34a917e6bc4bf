"""The table of an alert log is what its packets say, whatever is killed, damaged or merged meanwhile."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pyarrow as pa
import pytest

from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch
from gueststar.store.alerts.table import AlertTable, TableConfig, TableFile, _mergeable
from tests.unit.archive.packets import alerts

SMALL = TableConfig(rows_a_file=64, merged_at_once=4, rows_a_group=8, packets_at_once=7)
EVERYONE = tuple(Program)


def told(root: Path) -> list[int]:
    with AlertLog(root) as log, AlertSearch(log) as search:
        return sorted(search.run(AlertQuery(programs=EVERYONE))["candid"].to_pylist())


def test_the_table_has_each_packet_once_however_it_was_completed(tmp_path: Path) -> None:
    with AlertLog(tmp_path) as log:
        table, chance, candid = AlertTable(log, SMALL), random.Random(1), 1
        while candid < 200:
            n = chance.choice([1, 2, 5, 30])
            log.append(alerts(range(candid, candid + n)))
            candid += n
            table.complete()
        assert table.missing() == []
        assert len(table.files()) < 15, "small files are merged"
        assert sum(file.n_serials for file in table.files()) == candid - 1
        assert all(file.n_serials <= SMALL.rows_a_file for file in table.files())
    assert told(tmp_path) == list(range(1, candid))


def test_a_packet_is_written_again_a_few_times_in_its_life_and_not_with_each_commit() -> None:
    config, written, files, n = TableConfig(rows_a_file=4096, merged_at_once=8), 0, list[TableFile](), 3000
    for serial in range(1, n + 1):
        files.append(TableFile(serial, serial, Path(str(serial))))
        written += 1
        while group := _mergeable(files, config):
            files = [f for f in files if f not in group]
            files.append(TableFile(group[0].first, group[-1].last, Path("merged")))
            files.sort()
            written += group[-1].last - group[0].first + 1
    assert len(files) < 40
    assert written < 8 * n


def test_files_that_are_damaged_lost_or_left_over_do_not_matter(tmp_path: Path) -> None:
    with AlertLog(tmp_path) as log:
        table = AlertTable(log, TableConfig(merged_at_once=50))
        for first in range(1, 61, 3):
            log.append(alerts(range(first, first + 3)))
            table.complete()
        files = table.files()
        assert len(files) == 20
        files[0].path.write_bytes(b"PAR1 and nothing")
        files[1].path.unlink()
        whole = files[2]
        left_by_a_merge = table.folder / f"{whole.first:010d}-{whole.first + 1:010d}.parquet"
        left_by_a_merge.write_bytes(whole.path.read_bytes())
        (table.folder / ".0000000001-0000000002.77-abc.parquet").write_bytes(b"half")
    assert told(tmp_path) == list(range(1, 61))
    with AlertLog(tmp_path) as log:
        log.append(alerts([61]))
    assert told(tmp_path) == list(range(1, 62))
    assert not left_by_a_merge.exists()
    assert not list((tmp_path / "alerts" / "table").glob(".00*"))


def test_a_packet_that_cannot_be_read_is_found_by_what_the_log_knows_of_it(tmp_path: Path) -> None:
    with AlertLog(tmp_path) as log, AlertSearch(log) as search:
        log.append([OutboxAlert(5, "GST26strange", 20260101, 1, b"no packet"), *alerts([6])])
        assert search.run(AlertQuery(object_name="GST26strange", columns=["candid", "magpsf"])).to_pylist() == [
            {"candid": 5, "magpsf": None}
        ]
        assert search.run(AlertQuery(where="magpsf > 0"))["candid"].to_pylist() == [6]


def _work(root: Path, first: int) -> None:
    with AlertLog(root) as log:
        table = AlertTable(log, SMALL)
        for candid in range(first, first + 60, 3):
            log.append(alerts(range(candid, candid + 3)))
            table.complete(at_least=5, do_wait=candid % 2 == 0)


def test_processes_that_write_at_once_and_are_killed_leave_a_table_that_completes_itself(tmp_path: Path) -> None:
    fork, chance = multiprocessing.get_context("fork"), random.Random(3)
    AlertLog(tmp_path).close()
    for attempt in range(5):
        processes = [fork.Process(target=_work, args=(tmp_path, 1000 * k)) for k in (1, 2)]
        for process in processes:
            process.start()
        if attempt < 4:
            time.sleep(chance.uniform(0.05, 0.35))
            for process in processes:
                process.kill()
        for process in processes:
            process.join()
    assert told(tmp_path) == [*range(1000, 1060), *range(2000, 2060)]


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_search_goes_on_while_files_are_merged_away_under_it(tmp_path: Path, is_merged: bool) -> None:
    with AlertLog(tmp_path) as log, AlertSearch(log) as search:
        table = AlertTable(log, TableConfig(merged_at_once=4))
        for first in range(1, 10, 3):
            log.append(alerts(range(first, first + 3)))
            table.complete()
        assert search.run(AlertQuery()).num_rows == 9
        if is_merged:
            log.append(alerts([10]))
            table.complete()
            assert len(table.files()) == 1
        search._files = search.table.files()  # as if the listing had been made after the merge, the view before
        assert search.run(AlertQuery()).num_rows == 9 + is_merged


def test_columns_of_versions_go_together(tmp_path: Path) -> None:
    from gueststar.formats.packet_columns import joined

    old = pa.table({"a": pa.array([1]), "b": pa.array(["x"])})
    new = pa.table({"a": pa.array([1.5]), "b": pa.array([2]), "c": pa.array([True])})
    both = joined([old, new])
    assert both.to_pylist() == [{"a": 1.0, "b": "x", "c": None}, {"a": 1.5, "b": None, "c": True}]
