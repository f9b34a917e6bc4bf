"""The status tells how the survey fares, to the operator and nobody else, whatever is down."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from dataclasses import replace

import httpx
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from gueststar.core import times
from gueststar.core.errors import AccessDenied
from gueststar.model.exposure import ExposureInfo
from gueststar.model.readers import ANONYMOUS, Scope
from gueststar.model.rights import Program
from gueststar.operations.watch.alarms import raise_alarm
from gueststar.operations.watch.facts import Standing
from gueststar.operations.watch.kinds import ALARM_KINDS
from gueststar.operations.watch.look import Look, look_at
from gueststar.operations.watch.monitoring import write_monitoring
from gueststar.operations.watch.page import Glance
from gueststar.operations.watch.prometheus import Figures
from gueststar.operations.watch.terminal import sparkline, status_of
from gueststar.operations.watch.watcher import Watcher
from gueststar.services.gate import Gate
from gueststar.services.peers import is_own
from gueststar.services.status import status_app
from gueststar.store.alarms import Alarms
from gueststar.store.ledger import ExposureState
from gueststar.store.operator_state import OperatorState, WorkerState, write_operator_state
from gueststar.store.pulse import Pulse
from gueststar.store.readers import ReaderStore, sight_of
from gueststar.store.visible import VisibleLedger
from tests.unit.watch.conftest import settings_with

NIGHT = 20270115
NOW = 1_800_000_000.0
MJD = times.mjd_tai_from_mjd_utc(NOW / 86400.0 + 40587.0)


class Fixed:
    def __init__(self, now=NOW):
        self.time = now

    def now(self):
        return self.time


def add_exposure(ledger, *, minutes_ago, state):
    info = ExposureInfo(
        camera="simcam", observation_type="science", mjd_start=MJD - minutes_ago / 1440.0, exposure_s=30.0,
        day_obs=NIGHT, program=Program.PUBLIC, physical_filter="r", band="r", ra=10.0, dec=5.0, field=7,
    )  # fmt: skip
    number = ledger.add_exposure(info, detectors={0: "a", 1: "b"}, received=NOW - 60.0 * minutes_ago + 40.0)
    for detector in (0, 1):
        job = ledger.submit(
            "science", {"exposure": number, "detector": detector}, exposure_id=number, detector=detector, day_obs=NIGHT
        )  # fmt: skip
        if state != "waiting":
            ledger.start(job)
            if state == "done":
                ledger.finish(job, {"fwhm_arcsec": 2.0 + detector}, cpu_s=1.5)
            else:
                ledger.fail(job, "too few stars", "DataError")
    ledger.settle_exposure(number)
    return number


def beating(survey, **more):
    state = {
        "pid": os.getpid(), "host": socket.gethostname(), "version": "1", "started": NOW - 99, "beat": NOW,
        "clock": NOW, "night": NIGHT, "mode": "running", "queued": {"tonight": 4}, "running": 1,
        "workers": (WorkerState(name="0", pid=5, job=9, what="science of exposure 1", since=NOW - 5, memory_mb=600.0),),
    }  # fmt: skip
    write_operator_state(survey.root, OperatorState(**{**state, **more}))


@pytest.fixture
def night(survey):
    states = ("done", "done", "failed", "waiting")
    survey.numbers = [
        add_exposure(survey.ledger, minutes_ago=12 - 3 * i, state=state) for i, state in enumerate(states)
    ]
    beating(survey)
    return survey


@pytest.fixture
def watcher(night):
    made = Watcher(night.root, machine=Fixed())
    yield made
    made.close()


def shown(facts):
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(status_of(facts))
    return console.export_text()


def test_the_night_is_counted_by_what_became_of_its_exposures(watcher, night):
    facts = watcher.facts()
    assert facts.exposures == {ExposureState.PROCESSED: 2, ExposureState.FAILED: 1, ExposureState.RECEIVED: 1}
    assert facts.oldest_waiting == (night.numbers[3], NOW - 140.0, 1)
    assert [(row.field, row.band, row.received, row.processed, row.failed) for row in facts.fields] == [
        (7, "r", 4, 2, 1)
    ]
    assert {(one.kind, one.state.value): (one.n, one.cpu_s) for one in facts.work} == {
        ("science", "done"): (4, 6.0), ("science", "failed"): (2, 0.0), ("science", "pending"): (2, 0.0),
    }  # fmt: skip
    assert [one.id for one in facts.recent] == night.numbers[::-1]
    assert [unit.metrics["fwhm_arcsec"] for unit in facts.recent[3].units] == [2.0, 3.0]
    assert facts.recent[0].finished is None
    assert facts.queue == {"daytime": 2}
    rows = Pulse(night.ledger).latencies(NIGHT, since=0.0)
    assert sorted((row[0], row[3]) for row in rows) == [
        (night.numbers[0], NOW - 680.0),
        (night.numbers[1], NOW - 500.0),
    ]


def test_the_terminal_shows_what_matters(watcher, night):
    raise_alarm(night, "disk_low", "archive", "3 GB free", "warning", now=NOW - 120)
    text = shown(watcher.facts())
    for words in ("running", "disk_low archive: 3 GB free (2 min)", "4 received: 1 failed, 2 processed", "daytime",
                  "science of exposure 1", "600 MB", "science 4 (2 failed, 2 pending)"):  # fmt: skip
        assert words in text


def test_how_it_stands_is_the_exit_status(watcher, night):
    assert watcher.facts().standing is Standing.FINE
    raise_alarm(night, "disk_low", "", "", "warning", now=NOW)
    assert watcher.facts().standing is Standing.ALARMS
    beating(night, pid=2**22 + 12345)
    assert watcher.facts().standing is Standing.SILENT
    beating(night, beat=NOW - 100.0)
    assert watcher.facts().standing is Standing.SILENT


def test_a_rehearsals_clock_is_not_taken_for_a_dead_operator(night):
    beating(night, clock=1_000_000_000.0)
    watcher = Watcher(night.root, machine=Fixed(NOW + 3.0))
    facts = watcher.facts()
    assert not facts.is_operator_gone
    assert facts.now == 1_000_000_003.0


def test_the_status_is_there_while_the_database_is_not_and_says_so(night):
    (night.root / "ledger.sqlite3").rename(night.root / "elsewhere")
    watcher = Watcher(night.root, machine=Fixed())
    facts = watcher.facts()
    assert "is not there" in facts.database
    text = shown(facts)
    assert "what follows is what is known without it" in " ".join(text.split())
    assert "4 tonight" in text
    assert not (night.root / "ledger.sqlite3").exists()


def test_the_command_answers_with_values_and_its_status(night):
    from gueststar.cli.status import command

    told = CliRunner().invoke(command, [str(night.root), "--json"])
    assert told.exit_code in (1, 3), told.output  # this process's clock is not the night's
    assert json.loads(told.output)["survey"] == "tiny"


def test_a_reader_is_not_told_how_the_survey_fares(night):
    with pytest.raises(AccessDenied):
        Pulse(VisibleLedger(night.ledger.url, sight_of(night.settings, ANONYMOUS)))


def test_a_look_raises_what_is_wrong_tells_it_and_settles_it_when_it_is_right(night, hook):
    night.operate_with(settings_with(hook=hook))
    look = Look(night.root, clock=Fixed(), machine=Fixed())
    write_operator_state(night.root, OperatorState(
        pid=os.getpid(), host=socket.gethostname(), version="1", started=0, beat=NOW, clock=NOW, night=NIGHT,
        mode="waiting", why="no room",
    ))  # fmt: skip
    look.turn()
    look.courier.close()
    assert ("operator_waiting", "") in {(alarm.kind, alarm.subject) for alarm in Alarms(night.ledger).open()}
    assert any(posted["kind"] == "operator_waiting" for posted in hook.posted)
    beating(night)
    look.turn()
    look.courier.close()
    assert "operator_waiting" not in {alarm.kind for alarm in Alarms(night.ledger).open()}


def test_figures_are_what_prometheus_takes_for_right_and_are_named_with_their_units(watcher):
    figures = Figures(watcher.facts)
    text, kind = figures.text()
    assert kind.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for one in families.values()
        for sample in one.samples
    }
    assert values["gueststar_operator_up",] == 1
    assert values["gueststar_exposures_received_total",] == 4
    assert values["gueststar_night_exposures", "failed"] == 1
    assert values["gueststar_cpu_seconds_total", "science"] == 6.0
    assert values["gueststar_queue_units", "daytime"] == 2
    assert values["gueststar_worker_resident_memory_bytes", "0"] == 6e8
    assert values["gueststar_disk_free_bytes", "sandbox"] > 1e6
    for name, family in families.items():
        assert name.startswith("gueststar_")
        assert family.documentation
        assert not name.endswith(("_ms", "_gb", "_mb", "_minutes", "_days"))


def test_what_is_drawn_and_alarmed_by_elsewhere_is_among_the_figures(watcher, tmp_path):
    text, _kind = Figures(lambda: replace(watcher.facts(), has_stream=True)).text()
    known = {sample.name for one in text_string_to_metric_families(text.decode()) for sample in one.samples}
    known |= {one.name for one in text_string_to_metric_families(text.decode())}
    paths = {path.name: path for path in write_monitoring(tmp_path, port=8081)}
    rules = yaml.safe_load(paths["alert_rules.yaml"].read_text())["groups"][0]["rules"]
    panels = json.loads(paths["dashboard.json"].read_text())["panels"]
    shown = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in shown for name in re.findall(r"gueststar_\w+", expression)}
    assert named - known == set()
    advised = {word for rule in rules for word in re.findall(r"[a-z]+_[a-z]+", rule["annotations"]["description"])}
    assert advised <= ALARM_KINDS.keys()
    assert yaml.safe_load(paths["scrape.yaml"].read_text())["scrape_configs"][0]["static_configs"][0]["targets"] == [
        "127.0.0.1:8081"
    ]


def test_latencies_are_counted_once_however_often_figures_are_asked_for(watcher):
    from gueststar.operations.watch.facts import Latency

    usual = watcher.facts()
    now = [usual]
    figures = Figures(lambda: now[0])
    figures.text()
    now[0] = replace(usual, latencies=(Latency(1, NOW + 5, 20.0, 100.0), Latency(2, NOW + 6, None, 400.0)))
    for _ in range(3):
        text, _kind = figures.text()
    families = text_string_to_metric_families(text.decode())
    samples = [sample for family in families for sample in family.samples if not sample.labels]
    found = {sample.name: sample.value for sample in samples}
    assert found["gueststar_processing_latency_seconds_count"] == 2
    assert found["gueststar_processing_latency_seconds_sum"] == 500.0
    assert found["gueststar_receipt_latency_seconds_count"] == 1


def test_bars_run_from_zero_to_the_largest():
    assert sparkline([0.0, 5.0, 10.0]) == "▁▄█"
    assert sparkline([]) == ""
    assert len(sparkline(list(np.arange(100.0)))) == 30


# The page


@pytest.fixture
def app(watcher, night):
    night.settings = night.settings.model_copy(update={"groups": {"operators": (), "public": ()}})
    from gueststar.store.settings import write_settings

    write_settings(night.root / "survey.yaml", night.settings)
    glance = Glance(watcher, clock=Fixed())
    return status_app(
        facts=glance.told, figures=Figures(glance.facts).text, preview=lambda *which: b"PNG" if which[0] == 1 else None,
        open_gate=lambda: Gate(night.root),
    )  # fmt: skip


async def _get(app, path, *, client=("127.0.0.1", 1), host="127.0.0.1:8081", **headers):
    transport = httpx.ASGITransport(app=app, client=client)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as asking:
        return await asking.get(path, headers=headers)


def get(app, path, **how):
    import asyncio

    return asyncio.run(_get(app, path, **how))


@pytest.fixture
def _ours(monkeypatch):
    monkeypatch.setattr("gueststar.services.status.is_own", lambda *_: True)


@pytest.mark.usefixtures("_ours")
def test_the_page_its_facts_pictures_and_figures_are_there_for_the_operator(app):
    page = get(app, "/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "").replace("X-", "")  # nothing from elsewhere
    facts = get(app, "/facts.json").json()
    assert facts["exposures"] == {"processed": 2, "failed": 1, "received": 1}
    assert get(app, "/previews/1/0/science.png").content == b"PNG"
    assert get(app, "/previews/9/0/science.png").status_code == 404
    assert get(app, "/previews/1/0/mask.png").status_code == 404
    assert get(app, "/metrics").text.startswith("# HELP gueststar_")


@pytest.mark.usefixtures("_ours")
@pytest.mark.parametrize(
    "how",
    [
        {"client": ("10.0.0.5", 1)},
        {"X-Forwarded-For": "10.0.0.5"},
        {"Forwarded": "for=10.0.0.5"},
        {"host": "survey.example.org"},
        {"client": ("::ffff:10.0.0.5", 1)},
    ],
)
def test_whoever_comes_from_elsewhere_sees_nothing_without_a_token(app, how):
    for path in ("/", "/facts.json", "/facts.events", "/metrics", "/previews/1/0/science.png"):
        answer = get(app, path, **how)
        assert answer.status_code == 401
        assert "tiny" not in answer.text


def test_another_user_of_this_machine_sees_figures_only(app, monkeypatch):
    monkeypatch.setattr("gueststar.services.status.is_own", lambda *_: False)
    assert get(app, "/facts.json").status_code == 401
    assert get(app, "/metrics").status_code == 200


def test_a_token_opens_it_to_the_operators_group_only(app, night):
    store = ReaderStore.of(night.root, None)
    store.add("anna", ["operators"])
    store.add("bert", ["public"])
    tokens = {name: store.new_token(name, scopes=[Scope.WATCH], days=1) for name in ("anna", "bert")}
    other = store.new_token("anna", scopes=[Scope.ALERTS], days=1)
    store.close()
    away = {"client": ("10.0.0.5", 1)}

    def asked(token):
        return get(app, "/facts.json", Authorization=f"Bearer {token}", **away).status_code

    assert (asked(tokens["anna"]), asked(tokens["bert"]), asked(other), asked("gst_x")) == (200, 403, 403, 401)
    password = base64.b64encode(f"me:{tokens['anna']}".encode()).decode()
    assert get(app, "/", Authorization=f"Basic {password}", **away).status_code == 200
    assert get(app, "/", Authorization="Basic %%%", **away).status_code == 401


@pytest.mark.usefixtures("_ours")
def test_what_a_header_says_cannot_become_part_of_the_page(app, night):
    night.ledger.record_file("x", "y", "refused", reason="<script>alert(1)</script>")
    raise_alarm(night, "test", "</script><script>alert(2)</script>", "", "notice", now=NOW)
    page = get(app, "/").text
    assert "<script>alert" not in page


def test_a_connection_over_loopback_is_known_by_its_user():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert is_own(*client.getsockname())
        assert not is_own("127.0.0.1", 1)
        assert not is_own("10.0.0.1", client.getsockname()[1])


def test_a_dry_look_changes_nothing(night):
    lines = list(look_at(night.root, is_dry=True))
    assert any(line.startswith("critical: operator_silent") for line in lines)
    assert Alarms(night.ledger).open() == []
    assert any("messages sent" in line for line in look_at(night.root))
    assert Alarms(night.ledger).open() != []
