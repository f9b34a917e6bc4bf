"""What else the account tells: landing places, recipes, the diary, disks, trends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gueststar.cli.night import command as night_command
from gueststar.core.errors import ConfigError
from gueststar.model.exposure import ExposureInfo
from gueststar.model.metrics import Grade
from gueststar.model.readers import ANONYMOUS
from gueststar.model.rights import Program
from gueststar.operations.report.disk import Disk, disk_of, size_text
from gueststar.operations.report.night_report import as_json, make_report
from gueststar.operations.report.text import report_lines
from gueststar.operations.report.timeline import MOST, Entry, grouped_entries
from gueststar.operations.report.trends import summary_of, trend_lines, trends_from, trends_of
from gueststar.operations.rules.contract import Decision, Recipe
from gueststar.operations.rules.record import write_decision
from gueststar.operations.why import story_of
from gueststar.pipelines.expectations import take_schedule
from gueststar.store.alarms import Alarms
from gueststar.store.ledger import FileStatus
from gueststar.store.operation_settings import LandingPlace, OperationSettings
from gueststar.store.repo import SurveyRepo
from gueststar.store.visible import seen_by

from .conftest import NIGHT, utc
from .test_latency import close

Expose = Callable[..., ExposureInfo]


@pytest.fixture
def landing(repo: SurveyRepo, tmp_path: Path) -> Path:
    place = tmp_path / "landing"
    place.mkdir()
    operation = OperationSettings(landing=(LandingPlace(path=place),))
    repo.settings = repo.settings.model_copy(update={"operation": operation})
    return place


def drop(path: Path, time: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"pixels")
    os.utime(path, (time, time))
    return path


def test_files_that_lie_in_landing_places_are_part_of_the_account(
    repo: SurveyRepo, expose: Expose, landing: Path
) -> None:
    info = expose(0)
    repo.ledger.hold(_job(repo, info), "no reference catalog covers it")
    assert make_report(repo, NIGHT).is_explained
    taken, left = (drop(landing / "20250402" / name, close(info)) for name in ("a.fits.fz", "b.fits.fz"))
    repo.ledger.record_file(str(taken), "aaa", FileStatus.INGESTED, exposure_id=info.exposure_id, day_obs=NIGHT)
    for other in ("notes.txt", ".half.fits", "c.fits.part"):
        drop(landing / other, close(info))
    drop(landing / "old.fits", close(info) - 3e5)
    report = make_report(repo, NIGHT)
    assert [(found.n, found.examples) for found in report.landing] == [(1, ("b.fits.fz",))]
    assert not report.is_explained
    assert any("1 files lie in" in line for line in report_lines(report))
    assert "was not taken in yet" in story_of(repo, left.name)[0]


def test_a_landing_place_that_is_away_is_told(repo: SurveyRepo, expose: Expose, landing: Path) -> None:
    expose(0)
    landing.rmdir()
    assert "cannot be looked into" in make_report(repo, NIGHT).landing[0].line()


def _job(repo: SurveyRepo, info: ExposureInfo, kind: str = "science", detector: int = 0) -> int:
    key = {"exposure": info.exposure_id, "detector": detector}
    job = repo.ledger.submit(kind, key, exposure_id=info.exposure_id, detector=detector, day_obs=info.day_obs)
    repo.ledger.start(job)
    return job


def test_a_night_of_which_all_was_lost_has_a_report(repo: SurveyRepo, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"utc\n{utc(0)}\n{utc(1)}\n")
    take_schedule(repo, log)
    page = tmp_path / "night.html"
    words = ["report", str(repo.root), "--night", str(NIGHT), "--html", str(page)]
    gueststar = CliRunner().invoke(night_command, words)
    assert gueststar.exit_code == 0, gueststar.output
    assert "2 exposures expected by the observing log: 0 received, 2 missing" in gueststar.output
    assert "2 missing" in page.read_text()


# Recipes


def test_exposures_that_were_processed_less_far_are_told_with_the_reason(repo: SurveyRepo, expose: Expose) -> None:
    whole, crowded = expose(0), expose(1, field=7, program=Program.PRIVATE)
    for info, recipe, why in ((whole, Recipe.ALERTS, ""), (crowded, Recipe.IMAGES, "the sky is too crowded")):
        write_decision(repo.ledger, info.exposure_id, Decision("tonight", recipe, why=why), now=close(info))
        repo.ledger.finish(_job(repo, info), {"fwhm_arcsec": 2.0})
    report = make_report(repo, NIGHT)
    assert report.fallbacks == (("images", "the sky is too crowded", 1),)
    assert {share.name: share.recipes for share in report.by_field} == {"1": {"alerts": 1}, "7": {"images": 1}}
    assert "1 exposures to images only: the sky is too crowded" in report_lines(report)


# What was done


def test_the_diary_tells_what_was_done_and_alike_entries_as_one(repo: SurveyRepo, expose: Expose) -> None:
    infos = [expose(float(minute)) for minute in range(3)]
    for info in infos:
        write_decision(repo.ledger, info.exposure_id, Decision("tonight", Recipe.ALERTS), now=close(info))
    repo.ledger.event(
        "rule", "matching", "source matching is not part of this version", night=NIGHT, state="unavailable"
    )
    repo.ledger.event("recovered", text="3 jobs go on", night=NIGHT)
    repo.ledger.event("recovered", text="another night's", night=20200101)
    Alarms(repo.ledger).see("disk_low", "repository", "warning", "2 GB free", now=close(infos[0]))
    Alarms(repo.ledger).settle("disk_low", "repository", now=close(infos[0]) + 600.0)
    timeline = make_report(repo, NIGHT).timeline
    assert timeline is not None
    told = {entry.what: entry for entry in timeline.entries}
    assert told["rule tonight"].n == 3
    assert told["recovered"].text == "3 jobs go on"
    assert "after 10 minutes" in told["alarm over"].text
    assert timeline.unavailable == ("matching: source matching is not part of this version",)


def test_units_that_were_given_up_keep_their_traceback_folded(repo: SurveyRepo, expose: Expose) -> None:
    job = _job(repo, expose(0))
    for attempt in range(3):
        if attempt:
            repo.ledger.start(job)
        repo.ledger.fail(job, "out of memory", "Bug", is_retryable=True, traceback="Traceback: line 7")
    timeline = make_report(repo, NIGHT).timeline
    assert timeline is not None
    (entry,) = timeline.quarantined
    assert ("after 3 attempts: out of memory" in entry.text, entry.details) == (True, "Traceback: line 7")
    assert any(entry.what == "retry" and "tried 2 more times" in entry.text for entry in timeline.entries)
    failed = next(entry for entry in timeline.entries if entry.what == "failed attempt")
    assert (failed.n, failed.text) == (3, "science: out of memory")
    number = repo.ledger.exposures(day_obs=NIGHT)[0].id
    assert sum("failed 20" in line and line.endswith("out of memory") for line in story_of(repo, str(number))) == 3


def test_a_night_with_too_many_entries_is_told_by_their_kinds() -> None:
    entries = [Entry(float(k), "ingest warning", f"file {k}") for k in range(MOST + 1)]
    (only,) = grouped_entries(entries)
    assert (only.n, only.time, only.last) == (MOST + 1, 0.0, float(MOST))


# Trends


def test_a_night_is_judged_by_thresholds_and_its_zero_point_by_the_nights_before(repo: SurveyRepo) -> None:
    def night(fwhm: float, zero_point: float) -> dict[str, dict[str, list[float]]]:
        return {
            "fwhm_arcsec": {"sim_r": [10, fwhm, fwhm, fwhm]},
            "zero_point": {"sim_r": [10, zero_point, zero_point, zero_point]},
        }

    typical = repo.camera.typical_fwhm_arcsec
    summaries = [night(typical, 26.0)] * 3 + [{}, night(9.0 * typical, 25.5)]
    trends = trends_from([1, 2, 3, 4, 5], summaries, repo.camera)
    assert trends is not None
    width, zero = trends.rows
    assert [None if v is None else v.grade for v in width.values] == [Grade.GOOD] * 3 + [None, Grade.POOR]
    assert [None if v is None else v.grade for v in zero.values] == [Grade.UNKNOWN] * 3 + [None, Grade.POOR]
    assert trend_lines(trends)[1].endswith("ooo.!")


def test_medians_of_nights_are_remembered_until_the_night_changes(repo: SurveyRepo, expose: Expose) -> None:
    earlier = [expose(float(k), day_obs=NIGHT - 1) for k in range(2)]
    repo.ledger.finish(_job(repo, earlier[0]), {"fwhm_arcsec": 2.0, "zero_point": float("nan")})
    expose(1440.0)
    assert summary_of(repo, NIGHT - 1)["fwhm_arcsec"] == {"sim_r": [1, 2.0, 2.0, 2.0]}
    for width in (2.0, 3.0):
        trends = trends_of(repo, NIGHT)
        assert trends is not None
        value = trends.rows[0].values[0]
        assert value is not None
        assert value.median == pytest.approx(width)
        repo.ledger.finish(_job(repo, earlier[1]), {"fwhm_arcsec": 4.0})


# Disks


@pytest.mark.parametrize(("free", "grade"), [(400e9, "good"), (60e9, "fair"), (22e9, "poor"), (10e9, "poor")])
def test_a_disk_is_judged_by_the_nights_that_it_lasts(free: float, grade: str) -> None:
    disk = Disk("repository", "/r", int(free), 10**12, 20e9, 2e9)
    assert disk.grade == grade


def test_products_are_summed_by_kind_and_night_and_folders_are_not_read_twice(repo: SurveyRepo) -> None:
    for night, name in ((NIGHT, "a.fits"), (NIGHT, "b.fits"), (NIGHT - 1, "c.fits")):
        path = repo.root / "products" / "science_image" / str(night) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    for _ in range(2):
        use = disk_of(repo, NIGHT)
        assert (use.of_night, dict(use.by_kind)["science_image"]) == (2000, 3000)
        assert use.disks[0].per_night == pytest.approx(1500.0)
    assert (size_text(1.5e9), size_text(999.0), size_text(float("nan"))) == ("1.5 GB", "999 B", "unknown")


# Who may know it


def test_a_reader_is_told_nothing_of_what_is_the_operators(repo: SurveyRepo, expose: Expose, tmp_path: Path) -> None:
    public, private = expose(0), expose(1, program=Program.PRIVATE)
    for info in (public, private):
        repo.ledger.finish(_job(repo, info), {"fwhm_arcsec": 2.0})
    log = tmp_path / "log.csv"
    log.write_text(f"utc,exposure_id\n{utc(0)},{public.exposure_id}\n{utc(99)},4711\n")
    take_schedule(repo, log)
    seen = seen_by(repo, ANONYMOUS)
    report = make_report(seen, NIGHT)
    operators = (report.expected, report.latency, report.timeline, report.disk, report.trends)
    assert (operators, report.landing, report.fallbacks) == ((None,) * 5, (), ())
    assert [share.name for share in report.by_program] == ["public"]
    assert not {"expected", "latency", "timeline", "disk", "landing"} & as_json(report).keys()
    told = "\n".join(story_of(seen, str(public.exposure_id)) + story_of(seen, str(NIGHT)))
    assert "expected" not in told
    assert "shutter closed" not in told
    with pytest.raises(ConfigError):
        story_of(seen, "4711")
    seen.close()


# Why


def test_why_tells_who_expected_an_exposure_that_never_came(repo: SurveyRepo, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"utc,expid,field,filter\n{utc(5)},4711,12,r\n")
    take_schedule(repo, log)
    (line,) = story_of(repo, "4711")
    assert line.startswith(f"expected at {utc(5)} UTC of night {NIGHT} by the log log.csv (field 12, through sim_r)")
    assert line.endswith("and never received")
    assert "1 missing" in " ".join(story_of(repo, str(NIGHT)))


def test_why_tells_the_way_of_an_exposure_step_by_step(repo: SurveyRepo, expose: Expose, tmp_path: Path) -> None:
    from .test_latency import receive, work

    info = expose(0)
    receive(repo, info, 50.0)
    work(repo, info, "science", 60.0, 63.0)
    work(repo, info, "association", 80.0, 81.0, n_alerts=3)
    log = tmp_path / "log.csv"
    log.write_text(f"utc\n{utc(0)}\n")
    take_schedule(repo, log)
    told = [line.strip() for line in story_of(repo, str(info.exposure_id))]
    assert any(line.startswith(f"expected at {utc(0)} UTC") for line in told)
    assert any("(50.0 s later)" in line for line in told)
    assert any(line.endswith("(27.0 s queued, 4.0 s worked on)") for line in told)
    assert "from the shutter to the alert: 81.0 s" in told


def test_why_of_a_rule_tells_its_firings(repo: SurveyRepo) -> None:
    repo.ledger.event("rule", "sandbox", "2 GB freed", night=NIGHT, state="done")
    assert story_of(repo, "sandbox")[1].endswith(f"night {NIGHT}: 2 GB freed (done)")
