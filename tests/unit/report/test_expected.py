"""Schedules and observing logs: what is read from them, and what of it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table

from gueststar.core.errors import DataError
from gueststar.core.times import unix_of
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.report.expected import Expected, expected_lines, expected_of
from gueststar.pipelines.expectations import take_schedule
from gueststar.store.expected import Expectations
from gueststar.store.repo import SurveyRepo

from .conftest import NIGHT, utc

Expose = Callable[..., ExposureInfo]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def log_of(path: Path, minutes: list[float], *, name: str = "log.csv", more: str = "r,1") -> Path:
    rows = [f"{utc(m)},{more}" for m in minutes]
    return write(path / name, "\n".join(["DATE-OBS,Filter,FieldID", *rows]) + "\n")


def compared(repo: SurveyRepo, *, now: float = 1.9e9) -> Expected:
    return expected_of(repo, NIGHT, [row.info for row in repo.ledger.exposures(day_obs=NIGHT)], now=now)


def test_what_the_log_tells_and_did_not_come_is_missing_with_its_times(
    repo: SurveyRepo, expose: Expose, tmp_path: Path
) -> None:
    for minute in (0, 1, 2, 40, 41):
        expose(minute)
    take_schedule(repo, log_of(tmp_path, [0, 1, 2, 10, 11, 12, 40, 90]))
    told = compared(repo)
    assert (told.source, told.n_expected, told.n_matched) == ("log", 8, 4)
    assert [gap.n for gap in told.gaps] == [3, 1]
    assert told.gaps[0].begin == utc(10)
    assert len(told.unexpected) == 1
    assert "4 received, 4 missing, 1 unexpected" in expected_lines(told)[0]


def test_an_exposure_in_another_filter_is_not_the_one_that_was_expected(
    repo: SurveyRepo, expose: Expose, tmp_path: Path
) -> None:
    expose(0, physical_filter="sim_g", band="g")
    take_schedule(repo, log_of(tmp_path, [0]))
    told = compared(repo)
    assert (told.n_matched, len(told.missing), len(told.unexpected)) == (0, 1, 1)


def test_a_plan_may_slip_and_each_exposure_answers_for_one_entry(
    repo: SurveyRepo, expose: Expose, tmp_path: Path
) -> None:
    for minute in (20, 21, 22):
        expose(minute)
    take_schedule(repo, log_of(tmp_path, [0, 1, 2, 3], name="plan.csv"))
    told = compared(repo)
    assert (told.source, told.n_matched, len(told.missing)) == ("schedule", 3, 1)


def test_what_is_planned_for_later_is_not_missing(repo: SurveyRepo, expose: Expose, tmp_path: Path) -> None:
    now = float(unix_of(expose(0).mjd_start)) + 300.0
    take_schedule(repo, log_of(tmp_path, [0, 2, 30, 60], name="plan.csv"))
    told = compared(repo, now=now)
    assert (told.n_matched, len(told.missing), told.n_not_due) == (1, 1, 2)


def test_visits_at_any_time_of_the_night_are_counted(repo: SurveyRepo, expose: Expose, tmp_path: Path) -> None:
    expose(5)
    take_schedule(repo, write(tmp_path / "queue.csv", f"night,field,filter\n{NIGHT},1,r\n{NIGHT},1,r\n{NIGHT},1,g\n"))
    told = compared(repo)
    assert (told.n_expected, told.n_matched, len(told.missing)) == (3, 1, 2)
    assert told.gaps == ()


def test_where_there_is_a_log_it_tells_what_of_the_plan_was_not_taken(
    repo: SurveyRepo, expose: Expose, tmp_path: Path
) -> None:
    expose(0)
    take_schedule(repo, log_of(tmp_path, [0, 1, 2], name="plan.csv"))
    take_schedule(repo, log_of(tmp_path, [0], name="taken.csv"), source="log")
    told = compared(repo)
    assert (told.source, told.n_expected, len(told.missing), told.n_not_taken) == ("log", 1, 0, 2)


def test_the_cameras_own_number_tells_an_exposure_whatever_the_time(
    repo: SurveyRepo, expose: Expose, tmp_path: Path
) -> None:
    info = expose(0)
    take_schedule(repo, write(tmp_path / "log.csv", f"expid,utc\n{info.exposure_id},{utc(9)}\n"))
    assert compared(repo).n_matched == 1


def test_without_a_list_gaps_of_a_steady_cadence_are_told_and_nothing_is_missing(
    repo: SurveyRepo, expose: Expose
) -> None:
    for minute in (*range(12), *range(40, 52)):
        expose(float(minute))
    told = compared(repo)
    assert not told.is_known
    assert told.missing == ()
    assert [round(gap.minutes, 1) for gap in told.gaps] == [28.5]
    assert "no list tells" in expected_lines(told)[0]


def test_an_unsteady_cadence_has_no_gaps(repo: SurveyRepo, expose: Expose) -> None:
    for k in range(20):
        expose(float(k * k))
    assert compared(repo).gaps == ()


# Reading lists


@pytest.mark.parametrize("kind", ["csv", "semicolons", "ecsv", "json", "json object"])
def test_the_same_list_is_read_from_every_format(repo: SurveyRepo, tmp_path: Path, kind: str) -> None:
    rows = [
        {"Time UTC": utc(m), "Field ID": 12, "RA": 150.5, "DEC": -2.25, "Filt": "g", "EXPTIME": 30, "ProgramID": 2}
        for m in (0, 1)
    ]
    if kind == "ecsv":
        path = tmp_path / "log.ecsv"
        Table(rows=rows).write(path)
    elif kind.startswith("json"):
        path = write(tmp_path / "log.json", json.dumps(rows if kind == "json" else {"site": "x", "exposures": rows}))
    else:
        sign = "," if kind == "csv" else ";"
        text = [sign.join(rows[0]), *(sign.join(map(str, row.values())) for row in rows)]
        path = write(tmp_path / "log.csv", "# from the scheduler\n" + "\n".join(text))
    taken = take_schedule(repo, path)
    assert (taken.source, taken.nights, taken.n_new) == ("log", {NIGHT: 2}, 2)
    first = Expectations(repo.ledger).of_night(NIGHT)[0]
    assert (first.field, first.ra, first.dec, first.physical_filter) == (12, 150.5, -2.25, "sim_g")
    assert (first.exposure_s, first.program, first.observation_type) == (30.0, Program.PARTNERSHIP, "science")


def test_sexagesimal_places_are_hours_and_degrees(repo: SurveyRepo, tmp_path: Path) -> None:
    take_schedule(repo, write(tmp_path / "plan.csv", f"utc,ra,dec\n{utc(0)},10:02:00.0,-02:15:00\n"))
    row = Expectations(repo.ledger).of_night(NIGHT)[0]
    assert (row.ra, row.dec) == (pytest.approx(150.5), pytest.approx(-2.25))


@pytest.mark.parametrize("column", ["mjd", "jd", "observationStartMJD"])
def test_numbers_of_days_are_times_too(repo: SurveyRepo, tmp_path: Path, column: str) -> None:
    from gueststar.core import times

    from .conftest import START

    value = {"mjd": times.mjd_utc(START), "jd": times.jd_utc(START), "observationStartMJD": START}[column]
    take_schedule(repo, write(tmp_path / "plan.csv", f"{column}\n{value!r}\n"))
    assert Expectations(repo.ledger).of_night(NIGHT)[0].mjd_start == pytest.approx(START, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("utc,filter\n2025-04-03T03:36:00,V\n", r"line 2, column filter: 'V' is no filter of simcam, which has g"),
        ("utc,field\n2025-04-03T03:36:00,M31\n", r"line 2, column field: 'M31' is no whole number"),
        ("utc\n\n# noon\nyesterday\n", r"line 4, column utc: 'yesterday' is no date and time"),
        ("utc\n2025-04-03T03:36:00-07:00\n", r"line 2, column utc: .* has a time zone"),
        ("utc,ra,dec\n2025-04-03T03:36:00,361,0\n", r"line 2, column ra: '361' is outside 0..360"),
        ("utc,field\n2025-04-03T03:36:00\n", r"line 2: 1 values, and 2 columns"),
        ("utc,program\n2025-04-03T03:36:00,secret\n", r"column program: 'secret' is no program; one of 0 engineering"),
        ("seeing,airmass\n1,2\n", r"no column tells when"),
        ("", r"holds no exposures"),
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused_whole_with_file_line_and_column(
    repo: SurveyRepo, tmp_path: Path, text: str, said: str
) -> None:
    path = write(tmp_path / "plan.csv", text)
    with pytest.raises(DataError, match=f"plan.csv.*{said}"):
        take_schedule(repo, path)
    assert Expectations(repo.ledger).nights() == []


def test_a_list_handed_in_again_replaces_what_it_said(repo: SurveyRepo, tmp_path: Path) -> None:
    assert take_schedule(repo, log_of(tmp_path, [0, 1, 2], name="plan.csv")).n_new == 3
    assert take_schedule(repo, log_of(tmp_path, [0, 1, 2], name="plan.csv")).n_new == 0
    assert take_schedule(repo, log_of(tmp_path, [0, 5], name="plan.csv")).n_new == 1
    assert len(Expectations(repo.ledger).of_night(NIGHT)) == 2
    take_schedule(repo, log_of(tmp_path, [7], name="other.csv"))
    assert len(Expectations(repo.ledger).of_night(NIGHT)) == 3
    take_schedule(repo, log_of(tmp_path, [8], name="third.csv"), replaces=True)
    assert len(Expectations(repo.ledger).of_night(NIGHT)) == 1


def test_types_that_the_survey_does_not_take_are_left_out_and_told(repo: SurveyRepo, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", f"utc,imagetyp\n{utc(0)},OBJECT\n{utc(1)},focus\n{utc(2)},Bias\n")
    taken = take_schedule(repo, path)
    assert taken.notes == ("1 of type 'focus' left out: the survey does not take these",)
    kinds = [row.observation_type for row in Expectations(repo.ledger).of_night(NIGHT)]
    assert kinds == ["science", "bias"]
