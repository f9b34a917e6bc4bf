"""People are told what is wrong once, again when it lasts, and when it is over; whatever is down meanwhile."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from gueststar.core.errors import AccessDenied, ConfigError, ServiceDown, TransientError
from gueststar.model.readers import ANONYMOUS
from gueststar.operations.watch.alarms import CALM_S, Courier, deliver, raise_alarm, settle_alarm
from gueststar.operations.watch.outbox import waiting
from gueststar.operations.watch.places import folders
from gueststar.operations.watch.quiet import is_quiet
from gueststar.operations.watch.spool import NAME as SPOOL
from gueststar.operations.watch.spool import spooled
from gueststar.store.alarms import Alarms
from gueststar.store.ledger import Ledger
from gueststar.store.operation_settings import AlarmSettings
from gueststar.store.readers import sight_of
from gueststar.store.visible import VisibleLedger
from tests.unit.watch.conftest import settings_with

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC).timestamp()


class Postman:
    """Takes what is sent, or refuses."""

    def __init__(self):
        self.headings, self.is_away = [], False

    def __call__(self, _settings, message):
        if self.is_away:
            raise TransientError("the server is away")
        self.headings.append(message.heading)


class DownLedger(Ledger):
    """A ledger whose database stopped."""

    def __init__(self, ledger):
        self.ledger = ledger

    def writing(self):
        raise ServiceDown("the database does not work now")

    reading = writing


@pytest.fixture
def postman():
    return Postman()


@pytest.fixture
def watched(survey, hook):
    survey.operate_with(settings_with(hook=hook))
    return survey


def test_an_alarm_is_one_row_however_often_it_is_seen_and_is_sent_once(watched, postman):
    for second in range(5):
        raise_alarm(watched, "disk_low", "archive", f"{second} GB free", "warning", now=NOON + second)
        deliver(watched, NOON + second, send=postman)
    (alarm,) = Alarms(watched.ledger).open()
    assert (alarm.n_seen, alarm.text, alarm.opened, alarm.last_seen) == (5, "4 GB free", NOON, NOON + 4)
    assert postman.headings == ["[tiny] WARNING: disk_low archive"]


def test_two_subjects_are_two_alarms(watched, postman):
    raise_alarm(watched, "disk_low", "archive", "", "warning", now=NOON)
    raise_alarm(watched, "disk_low", "sandbox", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    assert len(postman.headings) == 2


def test_an_alarm_that_lasts_is_sent_again_after_its_hours_unless_somebody_takes_care_of_it(watched, postman):
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    for hours in (0, 5.9, 6.1, 12.0, 12.2):
        deliver(watched, NOON + 3600 * hours, send=postman)
    assert postman.headings == ["[tiny] WARNING: disk_low"] + 2 * ["[tiny] still WARNING: disk_low"]
    Alarms(watched.ledger).acknowledge(1, "jane")
    deliver(watched, NOON + 3600 * 40, send=postman)
    assert len(postman.headings) == 3


def test_an_alarm_that_becomes_worse_is_news_also_to_whoever_takes_care_of_it(watched, postman):
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    Alarms(watched.ledger).acknowledge(1, "jane")
    raise_alarm(watched, "disk_low", "", "", "critical", now=NOON + 60)
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON + 61)
    deliver(watched, NOON + 62, send=postman)
    assert postman.headings[1:] == ["[tiny] CRITICAL: disk_low"]


def test_people_hear_that_it_is_over_once_it_stays_so(watched, postman):
    raise_alarm(watched, "broker_waiting", "", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    settle_alarm(watched, "broker_waiting", "", now=NOON + 60)
    deliver(watched, NOON + 61, send=postman)
    raise_alarm(watched, "broker_waiting", "", "", "warning", now=NOON + 70)  # it comes and goes: no second message
    deliver(watched, NOON + 71, send=postman)
    assert len(postman.headings) == 1
    settle_alarm(watched, "broker_waiting", "", now=NOON + 100)
    for wait in (CALM_S + 1, CALM_S + 100, CALM_S + 10000):
        deliver(watched, NOON + 100 + wait, send=postman)
    assert postman.headings[1:] == ["[tiny] over: broker_waiting"]
    assert len(Alarms(watched.ledger).since(0.0)) == 1


def test_what_was_over_before_anybody_was_told_is_told_to_nobody(watched, postman):
    watched.operate_with(settings_with(quiet_hours=("11:00", "13:00")))
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    settle_alarm(watched, "disk_low", "", now=NOON + 60)
    deliver(watched, NOON + 7200, send=postman)
    assert postman.headings == []


def test_quiet_hours_hold_back_all_but_critical_alarms_until_they_end(watched, hook, postman):
    watched.operate_with(settings_with(hook=hook, quiet_hours=("22:00", "07:00"), time_zone="America/Los_Angeles"))
    night = datetime(2026, 1, 11, 10, tzinfo=UTC).timestamp()  # two in the morning there
    raise_alarm(watched, "disk_low", "", "", "warning", now=night)
    raise_alarm(watched, "database_away", "", "", "critical", now=night)
    deliver(watched, night, send=postman)
    assert postman.headings == ["[tiny] CRITICAL: database_away"]
    deliver(watched, night + 5 * 3600 + 1, send=postman)
    assert postman.headings[1:] == ["[tiny] WARNING: disk_low"]


@pytest.mark.parametrize(
    ("night", "quiet_h"), [((2026, 1, 10), 9.0), ((2026, 3, 8), 8.0), ((2026, 11, 1), 10.0)]
)  # fmt: skip
def test_quiet_hours_follow_the_clock_on_the_wall_also_when_it_is_changed(night, quiet_h):
    settings = AlarmSettings(quiet_hours=("22:00", "07:00"), time_zone="America/Los_Angeles")
    noon_before = datetime(*night, tzinfo=UTC) - timedelta(hours=4)
    minutes = [is_quiet(settings, noon_before.timestamp() + 60 * minute) for minute in range(24 * 60)]
    assert sum(minutes) / 60 == quiet_h


def test_quiet_hours_are_read_as_yaml_gives_them_and_a_wrong_one_is_refused():
    assert AlarmSettings(quiet_hours=(1320, "7:00")).quiet_hours == ("22:00", "07:00")
    with pytest.raises(ValidationError, match="no time of day"):
        AlarmSettings(quiet_hours=("25:00", "07:00"))
    with pytest.raises(ValidationError, match="no time zone"):
        AlarmSettings(time_zone="Mars/Olympus")


def test_what_cannot_be_delivered_waits_and_leaves_later_as_one_message(watched, postman):
    postman.is_away = True
    for disk in range(5):
        raise_alarm(watched, "disk_low", str(disk), "", "warning", now=NOON)
    told = deliver(watched, NOON, send=postman)
    assert (told.n_sent, told.n_waiting, told.trouble) == (0, 5, "the server is away")
    assert waiting(watched.root)[0].trouble == "the server is away"
    postman.is_away = False
    assert deliver(watched, NOON + 5, send=postman).n_waiting == 5  # not yet: the server is given time
    assert deliver(watched, NOON + 60, send=postman).n_waiting == 0
    assert postman.headings == ["5 messages, the first: [tiny] WARNING: disk_low 0"]


def test_messages_lie_where_only_the_operator_reads_them(watched, postman):
    postman.is_away = True
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    folder = watched.root / "operator/outbox"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_while_the_database_is_down_critical_alarms_leave_and_all_are_remembered(watched, postman):
    ledger, watched.ledger = watched.ledger, DownLedger(watched.ledger)
    for second in range(3):
        raise_alarm(watched, "database_away", "", "gone", "critical", now=NOON + second)
        raise_alarm(watched, "disk_low", "", "", "warning", now=NOON + second)
        deliver(watched, NOON + second, send=postman)
    settle_alarm(watched, "landing_away", "camera", now=NOON + 4)
    assert postman.headings == ["[tiny] CRITICAL: database_away"]
    assert len(spooled(watched.root)) == 3
    watched.ledger = ledger
    deliver(watched, NOON + 10, send=postman)
    assert postman.headings[1:] == ["[tiny] WARNING: disk_low"]
    assert not (watched.root / "operator" / SPOOL).exists()
    assert [(alarm.kind, alarm.opened) for alarm in Alarms(ledger).open()] == [
        ("database_away", NOON), ("disk_low", NOON),
    ]  # fmt: skip


def test_a_repository_that_is_full_or_away_does_not_keep_its_own_alarm_from_leaving(watched, postman):
    watched.ledger = DownLedger(watched.ledger)
    (watched.root / "operator").write_text("a folder cannot be made here")
    for second in range(3):
        raise_alarm(watched, "repository_away", "/r", "is read-only", "critical", now=NOON + second)
        deliver(watched, NOON + second, send=postman)
    assert postman.headings == ["[tiny] CRITICAL: repository_away /r"]
    spare = folders(watched.root)[1]
    assert stat.S_IMODE(spare.stat().st_mode) == 0o700
    shutil.rmtree(spare)


def test_an_alarm_whose_sending_cannot_be_written_down_is_not_sent_every_minute(watched, postman, monkeypatch):
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)

    def fail(*_, **__):
        raise ServiceDown("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Alarms, "mark_sent", fail)
        for minute in range(3):
            deliver(watched, NOON + 60 * minute, send=postman)
    assert postman.headings == []
    deliver(watched, NOON + 300, send=postman)
    assert len(postman.headings) == 1


def test_a_line_that_was_cut_off_does_not_lose_the_others(watched, postman):
    watched.ledger, ledger = DownLedger(watched.ledger), watched.ledger
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    with (watched.root / "operator" / SPOOL).open("a") as file:
        file.write('{"verb": "see", "ki')
    watched.ledger = ledger
    deliver(watched, NOON, send=postman)
    assert [alarm.kind for alarm in Alarms(ledger).open()] == ["disk_low"]


def test_both_ways_out_are_used_and_one_that_fails_does_not_repeat_the_other(survey, mail_server, hook):
    survey.operate_with(settings_with(mail_server, hook))
    hook.status = 503
    raise_alarm(survey, "disk_low", "archive", "3 GB free", "warning", now=NOON)
    told = deliver(survey, NOON)
    assert (told.n_sent, told.n_waiting) == (1, 1)
    assert "503" in told.trouble
    assert "secret" not in told.trouble
    hook.status = 200
    assert deliver(survey, NOON + 60).n_waiting == 0
    assert len(mail_server.messages) == len(hook.posted) == 1
    posted = hook.posted[0]
    assert (posted["kind"], posted["subject"], posted["state"]) == ("disk_low", "archive", "open")
    assert "What to do" in posted["text"]


def test_a_courier_does_not_hold_up_the_loop(watched):
    import threading

    is_allowed = threading.Event()
    courier = Courier(send=lambda *_: (is_allowed.wait(10), None)[1])
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    courier.turn(watched, NOON)
    courier.turn(watched, NOON + 1)
    assert len(waiting(watched.root)) == 1
    is_allowed.set()
    courier.close()
    assert waiting(watched.root) == []


def test_a_clock_that_is_set_back_neither_silences_nor_loses(watched, postman):
    raise_alarm(watched, "disk_low", "", "", "warning", now=NOON)
    deliver(watched, NOON, send=postman)
    day = 86400
    deliver(watched, NOON - day, send=postman)
    settle_alarm(watched, "disk_low", "", now=NOON - day)
    deliver(watched, NOON + CALM_S + 1, send=postman)
    assert postman.headings[1:] == ["[tiny] still WARNING: disk_low", "[tiny] over: disk_low"]


def test_an_alarm_that_is_not_open_cannot_be_closed_or_acknowledged(watched):
    for attempt in (lambda alarms: alarms.close(7, now=NOON), lambda alarms: alarms.acknowledge(7, "jane")):
        with pytest.raises(ConfigError, match="no open alarm 7"):
            attempt(Alarms(watched.ledger))


def test_a_reader_is_told_of_no_alarm(watched):
    with pytest.raises(AccessDenied):
        Alarms(VisibleLedger(watched.ledger.url, sight_of(watched.settings, ANONYMOUS)))
