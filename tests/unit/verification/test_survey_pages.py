"""Pages on weeks and on the survey: they count what there is, and a reader's page knows of nothing else."""

from __future__ import annotations

import email
import email.policy
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner

from gueststar.cli.survey import command
from gueststar.core.errors import ConfigError
from gueststar.operations.actions.contract import ActionContext
from gueststar.operations.actions.survey_pages import coverage_maps, weekly_report
from gueststar.operations.survey_pages import night_summary, pictures
from gueststar.operations.survey_pages.html import render_survey
from gueststar.operations.survey_pages.night_summary import summarise_nights
from gueststar.operations.survey_pages.report import as_json, make_survey_report
from gueststar.store.operation_settings import MailSettings
from gueststar.store.repo import SurveyRepo
from gueststar.store.visible import open_as

from .conftest import CENTRE, NIGHTS, Known, make_survey


@pytest.fixture
def own(known: Known, tmp_path: Path) -> Path:
    """A copy of the survey that a test may write into."""
    return Path(shutil.copytree(known.root, tmp_path / "own"))


def test_the_page_counts_exposures_nights_depth_and_alerts(survey: SurveyRepo) -> None:
    report = make_survey_report(survey)
    assert report.totals["exposures"] == 16
    assert report.totals["exposures_by_program"] == {"public": 12, "private": 4}
    assert report.totals["alerts_by_program"] == {"public": 12 * 2 + 4, "private": 4 * 3}
    assert report.totals["unexplained"] == 0
    assert {(item.field, item.band, item.n, item.n_nights) for item in report.coverage} == {(7, "g", 8, 2), (7, "r", 8, 2)}  # fmt: skip  # noqa: E501
    green = next(item for item in report.coverage if item.band == "g")
    depths = 20.5 + 0.01 * np.arange(0, 16, 2)
    assert green.depth == pytest.approx(np.median([np.median(depths[:4])] * 4 + [np.median(depths[4:])] * 4))
    assert green.coadd_depth == pytest.approx(1.25 * np.log10(np.sum(10 ** (0.8 * depths))), abs=0.01)
    assert (green.ra, green.dec) == (pytest.approx(CENTRE[0]), pytest.approx(CENTRE[1]))
    assert report.totals["bytes"]["source"] > 0


def test_weeks_leave_out_what_was_before(survey: SurveyRepo) -> None:
    assert make_survey_report(survey, weeks=1).first == NIGHTS[0]
    assert make_survey_report(survey, until=NIGHTS[0]).totals["exposures"] == 8
    with pytest.raises(ConfigError, match="no science exposures"):
        make_survey_report(survey, until=20250101)


def test_fields_without_reference_are_told(survey: SurveyRepo) -> None:
    states = make_survey_report(survey).references
    assert {state.band for state in states} == {"g", "r"}
    assert all(state.n_made == 0 and state.depth is None and state.lacks for state in states)


def test_a_reference_of_every_detector_is_as_deep_as_its_epochs(own: Path) -> None:
    with SurveyRepo.open(own) as repo:
        for detector in (item.id for item in repo.camera.detectors):
            job = repo.ledger.submit("reference", {"field": 7, "detector": detector, "band": "g", "epochs": [1] * 9})
            repo.ledger.start(job)
            repo.ledger.finish(job, {"n_epochs": 9})
        state = next(item for item in make_survey_report(repo).references if item.band == "g")
    assert state.lacks == ""
    assert state.n_epochs == 9
    assert state.depth == pytest.approx(20.57 + 1.25 * np.log10(9), abs=0.05)


def test_the_page_of_a_reader_is_that_of_a_survey_without_private_exposures(known: Known) -> None:
    with open_as(known.root, "anonymous") as seen:
        report = make_survey_report(seen)
        page = render_survey(report, {})
    told = as_json(report)
    assert told["totals"]["exposures"] == 12
    assert told["totals"]["alerts_by_program"] == {"public": 28}
    assert {(item["band"], item["n"]) for item in told["coverage"]} == {("g", 8), ("r", 4)}
    assert told["references"] == told["metrics"] == []
    assert not {"states", "bytes", "cpu_hours", "unexplained"} & told["totals"].keys()
    for night in told["nights"]:
        assert night["received_s"] is night["alert_s"] is night["unexplained"] is None
        assert night["bytes"] == {}
        assert night["cpu_s"] == 0.0
        assert night["states"] == {}
    assert "private" not in json.dumps(told)
    assert "as anonymous may see it" in page
    assert "private" not in page


def test_a_survey_that_never_took_private_exposures_has_the_same_page(known: Known, tmp_path: Path) -> None:
    never = make_survey(tmp_path / "survey", do_private=False)
    pages = []
    for root in (known.root, never.root):
        with open_as(root, "anonymous") as seen:
            pages.append(as_json(make_survey_report(seen)))
    assert pages[0] == pages[1]


def test_reading_for_a_reader_leaves_nothing_behind(own: Path) -> None:
    shutil.rmtree(own / night_summary.FOLDER, ignore_errors=True)
    with open_as(own, "anonymous") as seen:
        make_survey_report(seen)
    assert not (own / night_summary.FOLDER).exists()


def test_kept_summaries_are_made_anew_when_work_was_done(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_summary, "RECENT", 0)
    with SurveyRepo.open(own) as repo:
        before = summarise_nights(repo, NIGHTS)
        path = own / night_summary.FOLDER / f"{NIGHTS[0]}.json"
        changed = before[0].model_copy(update={"open_s": -1.0})
        path.write_text(changed.model_dump_json())
        assert summarise_nights(repo, NIGHTS)[0].open_s == -1.0  # it was taken as it was kept
        repo.ledger.submit("science", {"visit": "another"}, day_obs=NIGHTS[0])
        assert summarise_nights(repo, NIGHTS)[0].open_s == before[0].open_s
        path.write_text("{")
        assert summarise_nights(repo, NIGHTS)[0].open_s == before[0].open_s


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (180.0, 10.0), (179.5, -30.0), (10.0, 89.0), (200.0, -90.0)])
def test_fields_are_drawn_within_the_map_also_at_its_edge_and_the_poles(ra: float, dec: float) -> None:
    for outline in pictures._outlines(ra, dec, 3.0):
        assert np.all(np.abs(outline[:, 0]) <= np.pi)
        assert np.all(np.abs(outline[:, 1]) <= np.pi / 2)
        assert np.all(np.isfinite(outline))


def test_the_map_keeps_areas_as_mollweides_does() -> None:
    from matplotlib.projections.geo import MollweideAxes

    rng = np.random.default_rng(2)
    angles = np.stack([rng.uniform(-np.pi, np.pi, 500), np.arcsin(rng.uniform(-1, 1, 500))], axis=1)
    angles[:4, 1] = (np.pi / 2, -np.pi / 2, 0.0, 1.57)
    theirs = MollweideAxes.MollweideTransform(75).transform(angles)
    assert pictures.mollweide(angles) == pytest.approx(theirs, abs=2e-3)


class Inbox:
    """What a mail server got."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope)
        return "250 OK"


def test_the_weekly_page_is_kept_and_mailed(own: Path) -> None:
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(inbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        with SurveyRepo.open(own) as repo:
            mail = MailSettings(server="127.0.0.1", port=port, reports_to=("team@example.org",))
            operation = repo.settings.operation.model_copy(update={"mail": mail})
            repo.settings = repo.settings.model_copy(update={"operation": operation})
            result = weekly_report(ActionContext(repo, NIGHTS[1], 0.0))
    finally:
        server.stop()
    assert result.state == "done"
    sent = email.message_from_bytes(inbox.messages[0].content, policy=email.policy.default)
    assert "16 exposures" in str(sent["Subject"])
    page = sent.get_body(("html",))
    assert page is not None
    assert "cid:exposures_g.png" in page.get_content()
    assert "exposures_g.png" in {part.get_filename() for part in sent.walk()}
    assert (own / "pages" / "weekly" / f"{NIGHTS[1]}.html").read_text().startswith("<!doctype html>")
    assert json.loads((own / "pages" / "weekly" / f"{NIGHTS[1]}.json").read_text())["totals"]["exposures"] == 16


def test_maps_are_drawn_only_where_the_night_has_enough(own: Path) -> None:
    with SurveyRepo.open(own) as repo:
        few = coverage_maps(ActionContext(repo, NIGHTS[0], 0.0, {"min_exposures": 9}))
        assert few.state == "nothing"
        assert "8 science exposures" in few.text
        dry = coverage_maps(ActionContext(repo, NIGHTS[0], 0.0, {"min_exposures": 1}, is_dry=True))
        assert dry.state == "nothing"
        assert not (own / "pages").exists()
        done = coverage_maps(ActionContext(repo, NIGHTS[0], 0.0, {"min_exposures": 1}))
        assert done.state == "done"
        with pytest.raises(ConfigError, match="coverage_maps"):
            coverage_maps(ActionContext(repo, NIGHTS[0], 0.0, {"enough": 1}))
    drawn = sorted(path.stem for path in (own / "pages" / "coverage").glob("*.png"))
    assert {"exposures_g", "depth_r", "last_visit_g"} <= set(drawn)


def test_the_command_writes_the_page_and_asks_who_reads(known: Known, tmp_path: Path) -> None:
    words = ["report", str(known.root), "--html", str(tmp_path / "page.html"), "--weeks", "2"]
    told = CliRunner().invoke(command, words, catch_exceptions=False).output
    assert "16 exposures in 2 nights" in told
    assert (tmp_path / "page.html").stat().st_size > 10_000
    seen = CliRunner().invoke(command, ["report", str(known.root), "--as", "anonymous", "--json", "-"])
    assert json.loads(seen.output)["totals"]["exposures"] == 12
