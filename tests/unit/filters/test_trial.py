"""A dry run says what the stream would have done, and the commands say so in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gueststar.cameras.load import load_camera
from gueststar.cli.main import group
from gueststar.core.errors import ConfigError
from gueststar.formats.cutouts import encode_cutout
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.operations.filter_page import write_filter_page
from gueststar.operations.filter_trial import FilterTrial, nights_from, try_filter
from gueststar.operations.report.filters import FilterDesk, filter_lines, filters_of, open_filters
from gueststar.store.alerts.log import AlertLog
from gueststar.store.filters.definitions import FilterRequest, FilterState
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.readers import ReaderStore
from gueststar.store.repo import SurveyRepo
from gueststar.stream.filters import RunFilters, nights_of_owners

from .packets import JD, packet, put

NIGHTS = PacketNights.of_programs((Program.PUBLIC, Program.PARTNERSHIP))


@pytest.fixture
def survey(tmp_path: Path, made: Path) -> Path:
    """A survey with alerts of three nights: 12 public ones, 2 partnership ones, 1 private."""
    return Path(shutil.copytree(made, tmp_path / "survey"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "survey"
    SurveyRepo.create(root, load_camera("simcam")).close()
    rng = np.random.default_rng(1)
    stamp = encode_cutout(rng.normal(0, 10, (63, 63)).astype(np.float32))
    cutouts = {name: {"fileName": "x.fits.gz", "stampData": stamp} for name in ("cutoutScience", "cutoutDifference")}
    for night in range(3):
        told = [
            packet(10 * night + k, jd=JD + night, magpsf=16.0 + k, rb=None if k == 3 else 0.5 + 0.1 * k) | cutouts
            for k in range(1, 5)
        ]
        put(root, *told, night=20251121 + night)
    put(root, packet(91), packet(92), program=2)
    put(root, packet(93), program=3)
    return root


def trial_of(root: Path, condition: str, **more: object) -> FilterTrial:
    told = {"nights": NIGHTS, "first_night": None, "last_night": None} | more
    programs = (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE)
    with AlertLog(root) as log:
        return try_filter(log, FilterRequest("alice", "trial", condition, programs, cap=2), **told)  # type: ignore[arg-type]


def test_a_trial_counts_by_night_what_the_owner_may_see(survey: Path) -> None:
    trial = trial_of(survey, "magpsf < 19 AND rb > 0.4")
    assert [(t.night, t.n_seen, t.n_passed, t.n_unknown) for t in trial.nights] == [
        (20251121, 6, 2, 0), (20251122, 4, 2, 0), (20251123, 4, 2, 0)
    ]  # fmt: skip
    assert trial.alerts["candid"].to_pylist() == [1, 2, 11, 12, 21, 22]
    assert [(c.text, c.n_true, c.n_unknown) for c in trial.clauses] == [("(magpsf < 19)", 6, 0), ("(rb > 0.4)", 11, 3)]
    assert trial_of(survey, "magpsf < 30", first_night=20251122, last_night=20251122).nights[0].n_capped == 2


def test_a_trial_says_what_the_stream_then_does(survey: Path) -> None:
    ReaderStore.of(survey, None).add("alice", [])
    condition = "magpsf < 18.5 OR rb / (rb - 0.9) > 0"
    trial = trial_of(survey, condition, nights=PacketNights.of_programs((Program.PUBLIC,)))
    with open_filters(survey) as desk:
        desk.store.add(FilterRequest("alice", "mine", condition, cap=2))
        settings = desk.repo.settings
        with RunFilters(survey, desk.store, settings.filters, nights_of=nights_of_owners(survey, settings)) as filters:
            filters.run(must_be_sent=False)
        waiting = [entry.candid for entry, _ in desk.marks.waiting("filter_alice_mine", 100)]
    assert sorted(waiting) == sorted(trial.alerts["candid"].to_pylist())


def test_a_page_shows_cutouts_of_what_passes_evenly_in_time(survey: Path, tmp_path: Path) -> None:
    trial = trial_of(survey, "magpsf < 30 AND objectId <> '<b>'")
    with AlertLog(survey) as log:
        n = write_filter_page(tmp_path / "page.html", trial, log, nights=NIGHTS, n_alerts=3)
    page = (tmp_path / "page.html").read_text()
    assert n == 3
    assert page.count("data:image/png;base64,") == 3
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_nights_are_one_or_a_range() -> None:
    assert nights_from(None) == (None, None)
    assert nights_from("20251121") == (20251121, 20251121)
    assert nights_from("20251121:20251130") == (20251121, 20251130)
    with pytest.raises(ConfigError, match="not 'today'"):
        nights_from("today")


def test_a_filter_begins_with_what_comes_after_it_was_added(survey: Path) -> None:
    ReaderStore.of(survey, None).add("alice", [])
    with open_filters(survey) as desk:
        desk.add(FilterRequest("alice", "mine", "magpsf < 30"))
        assert desk.marks.unlooked(100, must_be_sent=False) == []


def test_an_owner_asks_for_no_program_that_he_may_not_see(survey: Path) -> None:
    with open_filters(survey) as desk:
        with pytest.raises(ConfigError, match="there is no user alice"):
            desk.add(FilterRequest("alice", "mine", "magpsf < 30"))
        ReaderStore.of(survey, None).add("alice", [])
        with pytest.raises(ConfigError, match="alice may see no private alerts"):
            desk.add(FilterRequest("alice", "mine", "magpsf < 30", (Program.PUBLIC, Program.PRIVATE)))


def run(desk: FilterDesk) -> None:
    settings = desk.repo.settings
    nights_of = nights_of_owners(desk.repo.root, settings)
    with RunFilters(desk.repo.root, desk.store, settings.filters, nights_of=nights_of) as filters:
        filters.run(must_be_sent=False)


def test_the_report_tells_what_passed_what_did_not_and_what_is_paused(survey: Path) -> None:
    with open_filters(survey) as desk:
        desk.add(FilterRequest("operator", "mine", "magpsf < 19", cap=1))
        desk.add(FilterRequest("operator", "other", "drb > 0.5"))
        put(survey, *(packet(100 + k, magpsf=17.0 + k) for k in range(4)), night=20251201)
        run(desk)
        desk.set_state("operator", "other", FilterState.PAUSED, reason="too noisy")
        lines = filter_lines(filters_of(desk.repo, 20251201))
    assert lines == [
        "filters (2):",
        "  operator/mine: 2 of 4 passed, 1 over the cap, 1 waiting",
        "  operator/other: 0 of 4 passed, 4 not known; paused: too noisy",
    ]


def test_the_commands_add_try_list_show_and_remove(survey: Path, tmp_path: Path) -> None:
    def gueststar(*words: object) -> str:
        done = CliRunner().invoke(group, ["filter", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    page = tmp_path / "page.html"
    told = gueststar("test", survey, "magpsf < 19 AND rb > 0.4", "--nights", "20251122", "--page", page)
    assert "2 alerts of 2 objects would have been sent" in told
    assert page.exists()
    assert gueststar("add", survey, "operator", "bright", "magpsf < 18").endswith("topic filter_operator_bright\n")
    assert "operator/bright version 1 active: nothing passed yet" in gueststar("list", survey)
    gueststar("pause", survey, "operator", "bright", "--reason", "holidays")
    assert "paused (holidays)" in gueststar("list", survey)
    gueststar("resume", survey, "operator", "bright")
    gueststar("remove", survey, "operator", "bright")
    assert gueststar("list", survey) == ""
    assert json.loads(gueststar("show", survey, "operator", "bright"))["versions"][0]["state"] == "removed"
    assert "rise_rate_g" in gueststar("fields", "rise")


def test_marks_of_a_million_alerts_are_not_read_again(survey: Path) -> None:
    marks = FilterMarks(survey)
    marks.look_past()
    assert marks.unlooked(10, must_be_sent=False) == []
    put(survey, packet(500))
    assert [entry.candid for entry in marks.unlooked(10, must_be_sent=False)] == [500]
    marks.close()
