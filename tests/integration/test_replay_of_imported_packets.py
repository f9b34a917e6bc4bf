"""Real packets of other surveys go from files through the archive to a real Kafka, byte for byte and in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gueststar.cli.alerts import command
from gueststar.core.errors import ConfigError
from gueststar.store.alerts.imports import surveys_of
from gueststar.store.alerts.log import AlertLog
from gueststar.stream.broker import LocalBroker
from gueststar.stream.read import read_topic

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} to run Kafka with: apt-get install {package}")
    local = LocalBroker(tmp_path_factory.mktemp("stream"))
    yield local.start().bootstrap_servers
    local.stop()


@pytest.fixture(scope="module")
def archive(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the packets and no survey."""
    folder = tmp_path_factory.mktemp("archive")
    files = [str(shared_data / name) for name in ("alerts_ztf", "alerts_lsst", "alerts_other")]
    result = CliRunner().invoke(command, ["import", str(folder), *files])
    assert result.exit_code == 1, "some of them are corrupt"
    assert surveys_of(folder) == ["lsst", "winter", "ztf"]
    return folder


def replayed(archive: Path, servers: str, topic: str, *options: str) -> list[bytes]:
    result = CliRunner().invoke(command, ["replay", str(archive), topic, "--to", servers, *options])
    if result.exception is not None:
        raise result.exception
    packets = [packet.value for packet in read_topic({"bootstrap.servers": servers}, topic)]
    assert f"{len(packets)} alerts sent to {topic}" in result.output
    return packets


@pytest.mark.parametrize("survey", ["lsst", "winter", "ztf"])
def test_what_was_imported_is_replayed_byte_for_byte(archive: Path, servers: str, survey: str) -> None:
    with AlertLog(archive, survey=survey) as log:
        expected = [data for _, data in log.replay()]
    assert replayed(archive, servers, f"again_{survey}", "--survey", survey) == expected


def test_a_replay_begins_where_it_is_told_and_takes_what_a_search_finds(archive: Path, servers: str) -> None:
    with AlertLog(archive, survey="ztf") as log:
        entries = log.entries()
        data = {entry.candid: log.read(entry) for entry in entries}
    ztf = ("--survey", "ztf")
    behind = [data[entry.candid] for entry in entries[50:]]
    assert replayed(archive, servers, "from_a_place", *ztf, "--from", "51") == behind
    assert replayed(archive, servers, "behind_a_candid", *ztf, "--after", str(entries[49].candid)) == behind
    night = [data[entry.candid] for entry in entries if entry.day_obs == 20200202]
    assert replayed(archive, servers, "since", *ztf, "--since", "2020-02-01", "--until", "2020-02-03") == night
    assert replayed(archive, servers, "first", *ztf, "--night", "20200202", "--limit", "2") == night[:2]
    found = replayed(archive, servers, "found", *ztf, "--where", "magpsf < 17 AND rb > 0.8")
    assert 0 < len(found) < len(entries)
    assert set(found) < set(data.values())


def test_brokers_of_others_are_reached_as_a_file_of_client_settings_says(
    archive: Path, servers: str, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"# of a friend\nbootstrap.servers={servers}\nsecurity.protocol = plaintext\n")
    result = CliRunner().invoke(
        command, ["replay", str(archive), "with_file", "--client", str(file), "--survey", "lsst"]
    )
    assert result.output == "1 alerts sent to with_file\n"
    file.write_text("bootstrap.servers\n")
    wrong = CliRunner().invoke(command, ["replay", str(archive), "t", "--client", str(file), "--survey", "lsst"])
    assert isinstance(wrong.exception, ConfigError)
    assert "not of the form name=value" in str(wrong.exception)
