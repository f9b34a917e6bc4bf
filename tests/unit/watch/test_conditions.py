"""What of the facts is an alarm: told by small nights in which one thing is wrong."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import click
import pytest

import gueststar
from gueststar.cameras.load import load_camera
from gueststar.cli.main import group
from gueststar.core.errors import ConfigError
from gueststar.operations.watch import kinds
from gueststar.operations.watch.conditions import Limits, conditions_of, limits_of, n_replaced
from gueststar.operations.watch.disks import DiskFacts, disk_facts, trouble_with
from gueststar.operations.watch.facts import Facts, Sample
from gueststar.operations.watch.history import KEPT_S, read_history, with_sample, write_history
from gueststar.operations.watch.kinds import ALARM_KINDS
from gueststar.store.ledger_rows import ExposureState, JobState
from gueststar.store.operation_settings import LandingPlace, OperationSettings
from gueststar.store.operator_state import OperatorState
from gueststar.store.pulse import ExposurePulse, UnitPulse

NOW = 1_800_000_000.0
USUAL = Limits()
CAMERA = load_camera("simcam")


def operator(**more):
    state = {"pid": 1, "host": "h", "version": "1", "started": 0.0, "beat": NOW, "clock": NOW, "night": 20270115}
    return OperatorState(**{**state, "mode": "running", **more})


def facts(**more):
    usual = Facts("s", NOW, OperationSettings(), operator(), 1.0, False, night=20270115, sun_altitude_deg=-40.0)
    return replace(usual, **more)


def wrong(told, limits=USUAL):
    return {(one.kind, one.subject) for one in conditions_of(told, CAMERA, limits) if one.is_wrong}


def right(told):
    return {(one.kind, one.subject) for one in conditions_of(told, CAMERA) if not one.is_wrong}


def exposure(number, *, state=JobState.DONE, reason="", **metrics):
    units = tuple(UnitPulse(d, "science", state, reason, metrics) for d in range(4))
    return ExposurePulse(
        number, 20270115, 0.0, 30.0, "science", 1, 1, "r", ExposureState.PROCESSED, "", NOW - 60, NOW, 4, units
    )  # fmt: skip


def samples(waiting, **more):
    n = len(waiting)
    return tuple(Sample(NOW - 60.0 * (n - 1 - i), w, 0, 10, more.get("alerts", 0), 1) for i, w in enumerate(waiting))


def test_nothing_is_wrong_in_a_night_that_goes_well():
    assert wrong(facts()) == set()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ({"is_operator_gone": True, "beat_age_s": 300.0}, "operator_silent"),
        ({"operator": operator(mode="waiting", why="no room")}, "operator_waiting"),
        ({"operator": operator(mode="paused"), "queue": {"tonight": 3}}, "operator_paused"),
        ({"database": "the database does not work now"}, "database_away"),
        ({"disks": (DiskFacts("sandbox", Path("/r"), 5.0, 100.0, 20.0),)}, "disk_low"),
        ({"disks": (DiskFacts("sandbox", Path("/r"), 0.5, 100.0, 20.0),)}, "disk_full"),
        ({"disks": (DiskFacts("sandbox", Path("/r"), 50.0, 100.0, 20.0, "is read-only"),)}, "repository_away"),
        ({"disks": (DiskFacts("archive", Path("/a"), 5.0, 100.0, 20.0),)}, "archive_low"),
        ({"disks": (DiskFacts("archive", Path("/a"), None, None, 20.0, "does not answer"),)}, "archive_away"),
        ({"oldest_waiting": (12, NOW - 700.0, 3)}, "exposure_late"),
        ({"quarantined": (("science", "odd", 2),)}, "quarantined"),
        ({"recent": tuple(exposure(i, state=JobState.FAILED, reason="no stars") for i in range(4))}, "many_failures"),
        ({"recent": tuple(exposure(i, fwhm_arcsec=12.0) for i in range(5))}, "image_quality_poor"),
        ({"recent": tuple(exposure(i, cloud_extinction_mag=1.2) for i in range(5))}, "zero_point_low"),
        ({"last_files": 15 * (("refused", "no date"),) + 5 * (("ingested", ""),)}, "files_refused"),
        ({"exposures": {ExposureState.PROCESSED: 9}, "last_received": NOW - 3600.0}, "no_exposures"),
        ({"expected": 9, "last_expected": NOW - 600.0, "last_received": NOW - 3600.0}, "no_exposures"),
        ({"expected": 9, "last_expected": NOW - 600.0}, "no_exposures"),
        ({"has_stream": True, "stream": {"held": 2500}}, "alerts_held"),
        ({"has_stream": True, "stream": {"waiting": 5}, "history": samples(15 * [0], alerts=5)}, "alerts_waiting"),
        ({"history": samples([10 * i for i in range(21)])}, "backlog_growing"),
        ({"orbits_age_days": 30.0}, "ephemerides_old"),
        ({"certificates": {"ca.pem": NOW + 86400.0}}, "certificate_ending"),
        ({"messages_waiting": 1, "messages_trouble": "away", "message_since": NOW - 4000.0}, "message_waiting"),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong_is_one_alarm(what, kind):
    found = {name for name, _ in wrong(facts(**what))}
    allowed = {kind, "disk_low"} if kind == "disk_full" else {kind}
    assert kind in found
    assert found <= allowed


@pytest.mark.parametrize(
    "what",
    [
        {"exposures": {ExposureState.PROCESSED: 9}, "last_received": NOW - 3600.0, "sun_altitude_deg": 5.0},  # day
        {"expected": 9, "last_expected": NOW - 20000.0, "last_received": NOW - 20000.0},  # the list ended
        {"recent": tuple(exposure(i, fwhm_arcsec=12.0) for i in range(4))},  # not often enough
        {"recent": (exposure(0), *(exposure(i, fwhm_arcsec=12.0) for i in range(9)))[:5]},
        {"has_stream": True, "stream": {"waiting": 5}, "history": samples(3 * [0], alerts=5)},  # not long enough
        {"history": samples([50] * 21)},  # full, but steady
        {"history": samples([10 * i for i in range(3)])},  # too short to tell
        {"operator": operator(mode="stopping"), "is_operator_gone": True},  # ended on purpose
        {"operator": None, "is_operator_gone": True, "beat_age_s": None},  # it never ran
        {"recent": tuple(exposure(i, state=JobState.HELD, reason="no reference yet") for i in range(9))},
    ],
)
def test_what_is_as_it_should_be_is_no_alarm(what):
    assert wrong(facts(**what)) == set()


def test_while_the_database_is_down_nothing_is_said_of_what_only_it_knows():
    away = facts(database="away")
    told = {kind for kind, _ in wrong(away) | right(away)}
    assert not told & {"exposure_late", "many_failures", "quarantined", "no_exposures"}


def test_a_landing_place_that_is_away_is_named_and_settled_when_it_is_back():
    settings = OperationSettings(landing=(LandingPlace(path=Path("/a")), LandingPlace(path=Path("/b"))))
    told = facts(settings=settings, landing_away={"/b": "Stale file handle"})
    assert wrong(told) == {("landing_away", "/b")}
    assert ("landing_away", "/a") in right(told)


def test_workers_that_are_replaced_are_counted_but_not_a_new_operators_workers():
    history = [
        Sample(NOW + i, 0, 0, 0, 0, pid, workers)
        for i, (pid, workers) in enumerate(
            [(1, (("0", 10), ("1", 11))), (1, (("0", 10), ("1", 12))), (1, (("0", 13), ("1", 12))), (2, (("0", 20),))]
        )
    ]
    assert n_replaced(history) == 2
    assert wrong(facts(history=tuple(history)), Limits(workers_replaced=1)) == {("worker_killed", "")}


def test_limits_are_changed_by_name_and_a_wrong_name_is_told():
    assert limits_of({"no_exposure_min": 5.0}).no_exposure_min == 5.0
    with pytest.raises(ConfigError, match=r"limits.no_exposures_min: no such limit"):
        limits_of({"no_exposures_min": 5.0})


def test_samples_are_kept_for_hours_and_survive_a_new_process_and_a_clock_that_is_set_back(tmp_path):
    history = ()
    for minute in range(500):
        history = with_sample(history, Sample(NOW + 60.0 * minute, minute, 0, 0, 0, 1, (("0", 5),)))
    assert len(history) == KEPT_S / 60
    write_history(tmp_path, history)
    assert read_history(tmp_path) == history
    assert with_sample(history, Sample(NOW, 1, 0, 0, 0, 1)) == (Sample(NOW, 1, 0, 0, 0, 1),)
    (tmp_path / "operator/history.json").write_text("[{")
    assert read_history(tmp_path) == ()


def test_a_disk_that_is_not_there_is_told_not_raised(tmp_path):
    assert disk_facts("archive", tmp_path / "gone", 1.0).trouble == "No such file or directory"
    assert disk_facts("sandbox", tmp_path, 1.0).free_gb > 0
    assert trouble_with(tmp_path) == ""
    assert trouble_with(tmp_path / "gone") == "No such file or directory"


def _kinds_raised():
    """Yield (file, kind) of every alarm that the code raises with its kind written out."""
    names = {"raise_alarm": 1, "settle_alarm": 1, "Condition": 0, "wrong": 0, "right": 0, "_told": 0}
    for path in sorted((Path(gueststar.__file__).parent / "operations").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            at = names.get(name)
            if at is None or len(node.args) <= at or (name in ("wrong", "right") and len(node.args) < 2):
                continue
            if name == "Condition" and "actions" not in path.parts:
                continue
            if isinstance(node.args[at], ast.Constant) and isinstance(node.args[at].value, str):
                yield path.name, node.args[at].value


def test_every_alarm_that_is_raised_is_in_the_playbook():
    unknown = {(name, kind) for name, kind in _kinds_raised() if kind not in ALARM_KINDS}
    assert not unknown, "say in gueststar/operations/watch/kinds.py what it means and what to do"


def test_every_alarm_says_what_it_means_and_what_to_do():
    for kind in ALARM_KINDS.values():
        assert kind.meaning.endswith(".")
        assert kind.what_to_do.endswith(".")


def test_no_kind_is_told_twice_and_the_commands_that_are_named_exist():
    assert len({kind.name for kind in kinds._KINDS}) == len(kinds._KINDS)
    text = " ".join(kind.what_to_do for kind in ALARM_KINDS.values())
    for words in re.findall(r"`gueststar ([^`]+)`", text):
        context, found = click.Context(group), group
        for word in words.split():
            if not isinstance(found, click.Group):
                break
            found = found.get_command(context, word)
            assert found is not None, f"gueststar {words}: there is no {word}"
