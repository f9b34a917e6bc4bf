"""A simulated night on two real brokers: the survey's own, which asks for logins, and an open one with copies."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gueststar.formats.avro import decode_alert
from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import StreamSettings
from gueststar.stream.broker import LocalBroker
from gueststar.stream.publish import replay
from gueststar.stream.topics import Topics, topic_of
from gueststar.stream.users import set_password
from tests.end_to_end._survey import gueststar, make_survey
from tests.kafka_server import running_broker

READERS = Path(__file__).parent / "readers"
SCENARIO = Path(__file__).parent / "night.yaml"
READER, PASSWORD = "alice", "correct horse battery"

Counts = dict[int, list[int | None]]
"""candid -> photopoints (its own with them), upper limits, forced fluxes (None: the client does not look)."""


@dataclass(frozen=True)
class Stream:
    """One broker with the night on it."""

    servers: str
    user: str | None
    topic: str
    keyed_topic: str


@dataclass(frozen=True)
class Night:
    """A processed night of public alerts."""

    root: Path
    night: int
    packets: dict[int, dict[str, Any]]
    """As our log holds them, by candid."""
    files: Path
    tar: Path
    secure: Stream
    plain: Stream

    @property
    def counts(self) -> Counts:
        """What the log's packets hold."""
        return {candid: counts_of(packet) for candid, packet in self.packets.items()}


def counts_of(packet: dict[str, Any]) -> list[int | None]:
    """Return photopoints, upper limits and forced fluxes of a packet."""
    history = packet["prv_candidates"] or []
    n_seen = sum(item["candid"] is not None for item in history)
    return [1 + n_seen, len(history) - n_seen, len(packet["fp_hists"] or [])]


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Two nights of one detector, processed while the survey's own broker listens; the second is read."""
    folder = tmp_path_factory.mktemp("consumers")
    root, sky = folder / "survey", folder / "sky"
    gueststar("simulate", sky, "--scenario", SCENARIO, "--detectors", "0", "--seed", "5", "--quiet")
    make_survey(root, sky, *sorted(sky.glob("raw/*/*")))
    path = root / "survey.yaml"
    described = yaml.safe_load(path.read_text())
    described["stream"] |= {"flavours": ["fink"], "readers": {"public": ["*"], "partnership": [READER]}}
    path.write_text(yaml.safe_dump(described))
    plain_root = folder / "plain"
    plain_root.mkdir()
    with running_broker(root, is_secure=True) as own, running_broker(plain_root) as other:
        with SurveyRepo.open(root) as repo:
            settings = repo.settings.stream
            set_password(root, settings, READER, PASSWORD)
        gueststar("process", root, "--workers", "1")
        yield _published(folder, root, settings, own, other)


def _published(folder: Path, root: Path, settings: StreamSettings, own: LocalBroker, other: LocalBroker) -> Night:
    log = AlertLog(root)
    entries = log.entries()
    last = max(entry.day_obs for entry in entries)
    entries = [entry for entry in entries if entry.day_obs == last]
    topic = topic_of(settings, night=last, program=Program.PUBLIC)
    keyed = topic_of(settings, night=last, program=Program.PUBLIC, flavour=Flavour.FINK)
    assert own.state is not None
    assert other.state is not None
    options = {"bootstrap.servers": other.state.bootstrap_servers}
    for name, flavour in ((topic, Flavour.FULL), (keyed, Flavour.FINK)):
        Topics(options, settings).ensure(name, Program.PUBLIC)
        assert replay(log, entries, options, name, flavour=flavour) == len(entries)
    files, tar = folder / "packets", folder / "night.tar"
    gueststar("alerts", "export", root, tar, "--night", last)
    with tarfile.open(tar) as archive:
        archive.extractall(files, filter="data")
    return Night(
        root, last, {entry.candid: decode_alert(log.read(entry)) for entry in entries}, files, tar,
        Stream(own.state.bootstrap_servers, READER, topic, keyed),
        Stream(other.state.bootstrap_servers, None, topic, keyed),
    )  # fmt: skip


def environment(name: str) -> Path:
    """Return the Python of a client's environment; skip where it was not made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gueststar" / "consumers"
    python = Path(os.environ.get("GUESTSTAR_CONSUMERS") or cache) / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment {name} of that client: sh scripts/make_consumer_environments.sh (make consumers)")
    return python


def read_by(script: str, python: Path, night: Night, stream: Stream) -> tuple[Counts, dict[str, Any]]:
    """Run a reader script in its environment; return what it saw, and its notes."""
    asked = {
        "servers": stream.servers, "topic": stream.topic, "keyed_topic": stream.keyed_topic, "user": stream.user,
        "password": PASSWORD, "n": len(night.packets), "files": str(night.files), "tar": str(night.tar),
    }  # fmt: skip
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(python), str(READERS / f"{script}.py"), json.dumps(asked)],
        capture_output=True, text=True, timeout=300, env=clean | {"HOME": str(night.root.parent)},
    )  # fmt: skip
    assert done.returncode == 0, f"{script}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    return {int(candid): counts for candid, counts in told["packets"].items()}, told["notes"]


def counts_in_database(night: Night) -> dict[int, tuple[int, int]]:
    """Return what the detection store itself says of public alerts.

    For each candid: photopoints of its object within 30 days, and images that could have told a limit.
    """
    detections = """
        select count(*) from dia_source s join visit v on v.visit = s.visit and v.detector = s.detector
        where v.program = 1 and s.dia_object_id = ? and s.mjd_start > ? - 30 and s.mjd_start <= ?"""
    images = "select count(*) from visit where program = 1 and mjd_start > ? - 30 and mjd_start < ?"
    with sqlite3.connect(f"file:{night.root / 'detections.sqlite'}?mode=ro", uri=True) as database:
        found = {}
        for candid in night.packets:
            own = "select dia_object_id, mjd_start from dia_source where dia_source_id = ?"
            object_id, start = database.execute(own, (candid,)).fetchone()
            n_seen = database.execute(detections, (object_id, start, start)).fetchone()[0]
            n_images = database.execute(images, (start, start)).fetchone()[0]
            found[candid] = (n_seen, n_images)
    return found
