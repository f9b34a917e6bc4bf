"""What we ship for Prometheus and Grafana, loaded into the real Prometheus; the dashboard's form, and its questions."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from gueststar.cameras.load import load_camera
from gueststar.operations.watch.monitoring import write_monitoring
from gueststar.operations.watch.prometheus import Figures
from gueststar.operations.watch.watcher import Watcher
from gueststar.services.status import status_app
from gueststar.store.repo import SurveyRepo
from gueststar.stream.broker import free_ports

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("watched") / "survey"
    SurveyRepo.create(root, load_camera("simcam")).close()
    return root


@pytest.fixture
def shipped(tmp_path: Path) -> dict[str, Path]:
    return {path.name: path for path in write_monitoring(tmp_path, port=8081)}


def promtool(*words: object, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, input=text, timeout=60)


@needs_promtool
def test_prometheus_takes_our_rules_and_our_configuration(shipped: dict[str, Path]) -> None:
    rules = promtool("check", "rules", "--lint=all", "--lint-fatal", shipped["alert_rules.yaml"])
    assert rules.returncode == 0, rules.stderr.decode()
    config = promtool("check", "config", shipped["scrape.yaml"])
    assert config.returncode == 0, config.stderr.decode()


@needs_promtool
def test_prometheus_finds_nothing_to_complain_of_in_our_figures(root: Path) -> None:
    watcher = Watcher(root)
    text, _kind = Figures(watcher.facts).text()
    watcher.close()
    checked = promtool("check", "metrics", text=text)
    assert checked.returncode == 0, checked.stderr.decode()


FIRES = (
    ("GueststarAway", {'up{job="gueststar"}': "0x30"}, "4m"),
    ("GueststarOperatorSilent", {"gueststar_operator_up": "1 0x30"}, "5m"),
    ("GueststarDatabaseAway", {"gueststar_database_up": "0x30"}, "5m"),
    ("GueststarLate", {"gueststar_oldest_waiting_age_seconds": "500+60x30"}, "10m"),
    ("GueststarBacklogGrows", {'gueststar_queue_units{priority="tonight"}': "200+10x120"}, "90m"),
    ("GueststarAlertsWait", {'gueststar_night_alerts{fate="waiting"}': "3x60"}, "20m"),
    ("GueststarDiskFillsUp", {'gueststar_disk_free_bytes{disk="sandbox"}': "1e12-2e9x600",
                              'gueststar_disk_mark_bytes{disk="sandbox"}': "2e10x600"}, "400m"),
    ("GueststarDiskAway", {'gueststar_disk_up{disk="archive"}': "0x30"}, "5m"),
    ("GueststarAlarmOpen", {'gueststar_alarms_open{severity="critical"}': "1x30"}, "8m"),
    ("GueststarMessagesWait", {"gueststar_messages_waiting": "2x90"}, "70m"),
    ("GueststarSlow", {'gueststar_processing_latency_seconds_bucket{le="600"}': "0+10x120",
                       'gueststar_processing_latency_seconds_bucket{le="1800"}': "0+20x120",
                       'gueststar_processing_latency_seconds_bucket{le="+Inf"}': "0+20x120"}, "90m"),
)  # fmt: skip
"""Alarm, the series by which it fires, and when it does at the latest."""


@needs_promtool
def test_each_alarm_fires_by_what_it_is_for_and_none_in_a_quiet_night(shipped: dict[str, Path]) -> None:
    rules = yaml.safe_load(shipped["alert_rules.yaml"].read_text())["groups"][0]["rules"]
    assert sorted(rule["alert"] for rule in rules) == sorted(name for name, _, _ in FIRES)
    labels = {rule["alert"]: rule["labels"] for rule in rules}
    cases = []
    for name, series, at in FIRES:
        firing = {"exp_labels": {**labels[name], **_labels_left(name, series)}}
        told = next(rule["annotations"] for rule in rules if rule["alert"] == name)
        disk = firing["exp_labels"].get("disk", "")
        firing["exp_annotations"] = {
            key: text.replace("{{ $labels.disk }}", disk).replace("{{ $value }}", "1") for key, text in told.items()
        }
        cases.append(_case(series, {name: [firing]}, at))
    quiet = {
        'up{job="gueststar"}': "1x90", "gueststar_operator_up": "1x90", "gueststar_database_up": "1x90",
        'gueststar_queue_units{priority="tonight"}': "3x90", "gueststar_messages_waiting": "0x90",
        'gueststar_disk_free_bytes{disk="sandbox"}': "1e12x90", 'gueststar_disk_mark_bytes{disk="sandbox"}': "2e10x90",
        "gueststar_oldest_waiting_age_seconds": "50x90", 'gueststar_alarms_open{severity="critical"}': "0x90",
    }  # fmt: skip
    cases.append(_case(quiet, {name: [] for name, _, _ in FIRES}, "80m"))
    path = shipped["alert_rules.yaml"].with_name("test.yaml")
    path.write_text(yaml.safe_dump({"rule_files": ["alert_rules.yaml"], "evaluation_interval": "1m", "tests": cases}))
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout.decode() + tested.stderr.decode()


def _case(series: dict[str, str], fires: dict[str, list[Any]], at: str) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": name, **({"exp_alerts": expected} if expected else {})}
            for name, expected in fires.items()
        ],
    }


def _labels_left(name: str, series: dict[str, str]) -> dict[str, str]:
    """Labels of the series that the alarm keeps: sums keep none."""
    if name in ("GueststarBacklogGrows", "GueststarSlow"):
        return {}
    return dict(re.findall(r'(\w+)="([^"]*)"', next(iter(series))))


@contextmanager
def page_of(root: Path) -> Iterator[int]:
    """The real status page's figures, over HTTP."""
    watcher = Watcher(root)
    app = status_app(facts=dict, figures=Figures(watcher.facts).text, preview=lambda *_: None)
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10.0)
        watcher.close()


@contextmanager
def prometheus_watching(folder: Path, port: int) -> Iterator[str]:
    """A real Prometheus with our rules, that scrapes every second."""
    paths = {path.name: path for path in write_monitoring(folder, port=port)}
    config = yaml.safe_load(paths["scrape.yaml"].read_text())
    config["scrape_configs"][0]["scrape_interval"] = "1s"
    paths["scrape.yaml"].write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={paths['scrape.yaml']}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={address}"], stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"http://{address}/api/v1"
    finally:
        process.terminate()
        process.wait(20)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < end, f"not within 30 s: {what}"
        time.sleep(0.2)


@needs_prometheus
def test_a_real_prometheus_scrapes_us_and_answers_every_question_of_the_dashboard(root: Path, tmp_path: Path) -> None:
    with page_of(root) as port, prometheus_watching(tmp_path, port) as api, httpx.Client(timeout=5.0) as asking:

        def answer(expression: str) -> list[Any]:
            try:
                told = asking.get(f"{api}/query", params={"query": expression}).json()
            except httpx.TransportError:  # it starts
                return []
            assert told["status"] == "success", told
            return list(told["data"]["result"])

        until(lambda: [one["value"][1] for one in answer('up{job="gueststar"}')] == ["1"], "it scraped our page")
        for expression in questions(json.loads((tmp_path / "dashboard.json").read_text())):
            answer(expression)
        assert [one["value"][1] for one in answer("gueststar_database_up")] == ["1"]
        groups = asking.get(f"{api}/rules").json()["data"]["groups"]
        assert len(groups[0]["rules"]) == len(FIRES)
        assert {rule["health"] for rule in groups[0]["rules"]} <= {"ok", "unknown"}


def questions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_has_the_form_that_grafana_reads(shipped: dict[str, Path]) -> None:
    board = json.loads(shipped["dashboard.json"].read_text())
    assert board["schemaVersion"] >= 36  # datasources are objects since
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", board["uid"])
    sources = {variable["name"] for variable in board["templating"]["list"] if variable["type"] == "datasource"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["datasource"]["type"] == "prometheus"
        assert re.fullmatch(r"\$\{(\w+)\}", panel["datasource"]["uid"])[1] in sources  # type: ignore[index]
        place = panel["gridPos"]
        mine = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not mine & cells
        assert max(x for x, _ in mine) < 24
        cells |= mine
        names = [target["refId"] for target in panel["targets"]]
        assert names
        assert len(set(names)) == len(names)
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {"steps": [{"value": None}]})["steps"][:1]:
            assert step["value"] is None  # the lowest step has no lower end
