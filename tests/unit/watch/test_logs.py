"""What the machinery writes down can be found again by exposure, night and detector, and by nobody else."""

from __future__ import annotations

import json
import logging
import stat
from contextlib import suppress

import pytest

from gueststar.operations.watch.logs import HumanLines, LogFilter, follow_log, human_line, read_log, start_logging
from gueststar.store import log_files
from gueststar.store.log_files import end_log, on_unit, write_log

log = logging.getLogger("gueststar.tests.logs")


@pytest.fixture(autouse=True)
def _as_before():
    logger = logging.getLogger("gueststar")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    for handler in set(logger.handlers) - set(before[0]):
        end_log(handler)  # of whatever kind
    logger.level, logger.propagate = before[1:]


def test_a_line_says_what_it_is_about_and_is_found_by_it(tmp_path):
    write_log(tmp_path)
    with on_unit(night=20260101, exposure=12, detector=3):
        log.info("begun", extra={"attempt": 1, "job": 99})
        with on_unit(exposure=13, detector=None):
            log.warning("too few stars: %d", 4)
    log.info("nothing in particular")
    (line,) = read_log(tmp_path, LogFilter(exposure=12))
    assert {key: line[key] for key in log_files.KEYS if key in line} == {
        "night": 20260101, "exposure": 12, "detector": 3, "attempt": 1, "job": 99,
    }  # fmt: skip
    assert line["time"].endswith("Z")
    assert len(list(read_log(tmp_path, LogFilter(night=20260101)))) == 2
    (warning,) = read_log(tmp_path, LogFilter(level="warning"))
    assert (warning["message"], warning["exposure"], warning["detector"]) == ("too few stars: 4", 13, 3)
    assert "exposure 13 detector 3: too few stars: 4" in human_line(warning)


def test_a_traceback_is_kept_with_its_line(tmp_path):
    write_log(tmp_path)
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("it failed")
    (line,) = read_log(tmp_path)
    assert line["level"] == "error"
    assert "ValueError: odd" in line["exc_info"]


def test_only_the_operator_can_read_the_files(tmp_path):
    write_log(tmp_path)
    log.info("x")
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "logs").iterdir()} == {0o600}


def test_lines_of_several_processes_come_in_the_order_of_time_also_where_files_were_set_aside(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()

    def line(second, text):
        return json.dumps({"time": f"2026-01-01T00:00:{second:02d}.000Z", "level": "info", "message": text}) + "\n"

    (folder / "operator.jsonl.2").write_text(line(1, "a"))
    (folder / "operator.jsonl.1").write_text(line(3, "c"))
    (folder / "operator.jsonl").write_text(line(5, "e") + '{"time": "2026-01-01T00:0')
    (folder / "worker-host-0.jsonl").write_text(line(2, "b") + line(4, "d") + line(6, "f"))
    assert [found["message"] for found in read_log(tmp_path)] == list("abcdef")
    assert [found["message"] for found in read_log(tmp_path, last=2)] == ["e", "f"]


def test_lines_can_be_followed_while_they_are_written_and_files_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "MOST_BYTES", 400)
    write_log(tmp_path)
    log.info("before")
    n = 0

    def write_some():
        nonlocal n
        if n == 6:
            raise KeyboardInterrupt
        log.info("line %d", n)
        n += 1

    seen = []
    with suppress(KeyboardInterrupt):
        for line in follow_log(tmp_path, LogFilter(), wait=write_some):
            seen.append(line["message"])
    assert seen == [f"line {number}" for number in range(6)]
    assert len(list((tmp_path / "logs").iterdir())) > 1


def test_a_disk_that_is_full_does_not_stop_the_work(tmp_path):
    handler = write_log(tmp_path)
    handler.stream = open("/dev/full", "w")  # noqa: SIM115
    log.info("it goes on")
    with suppress(OSError):
        handler.stream.close()
    handler.stream = None


def test_a_process_that_turns_to_another_survey_writes_no_more_into_the_first(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name)
        log.info("in %s", name)
    assert [line["message"] for line in read_log(tmp_path / "a")] == ["in a"]
    assert [line["message"] for line in read_log(tmp_path / "b")] == ["in b"]


def test_a_unit_of_work_says_which_one_it_is(tmp_path):
    from types import SimpleNamespace

    from gueststar.core.errors import DataError
    from gueststar.pipelines.engine.contract import Call
    from gueststar.pipelines.engine.inline import InlineEngine
    from gueststar.pipelines.engine.outcome import attempt

    def refuse():
        raise DataError("too few stars")

    write_log(tmp_path)
    work = SimpleNamespace(info=SimpleNamespace(exposure_id=12, day_obs=20260101), detector_id=3)
    with InlineEngine() as engine:
        list(engine.run([Call(7, lambda work: attempt(7, refuse), (work,))]))
    (line,) = read_log(tmp_path, LogFilter(exposure=12, detector=3, level="warning"))
    assert (line["job"], line["night"], line["message"]) == (7, 20260101, "failed: too few stars")


def test_a_terminal_gets_lines_for_a_person(tmp_path, capsys):
    start_logging(tmp_path)
    start_logging(tmp_path)
    log.info("received", extra={"exposure": 12})
    assert capsys.readouterr().err.count("INFO     exposure 12: received") == 1
    assert HumanLines().format(logging.makeLogRecord({"msg": "x", "levelname": "INFO", "created": 0.0})) == (
        "1970-01-01 00:00:00 INFO     x"
    )
