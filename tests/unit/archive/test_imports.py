"""Packets of other surveys go through the archive byte for byte; what is damaged is refused with a reason."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

import fastavro
import pytest
from click.testing import CliRunner

from gueststar.cli.alerts import command
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.packet_families import identify, leading_schemas
from gueststar.formats.packets import WIRE_HEADER, packets_in, parsed_schema, read_packet
from gueststar.model.rights import Program
from gueststar.store.alerts.imports import ImportReceipt, PacketImport, refusals, surveys_of
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch
from tests.unit.archive.packets import SCHEMA, container, record

EVERYONE = tuple(Program)
LSST = {
    "type": "record", "name": "lsst.v9_0.alert", "fields": [
        {"name": "diaSourceId", "type": "long"},
        {"name": "observation_reason", "type": ["null", "string"]},
        {"name": "target_name", "type": ["null", "string"]},
        {"name": "diaSource", "type": {"type": "record", "name": "diaSource", "fields": [
            {"name": "diaSourceId", "type": "long"}, {"name": "visit", "type": "long"},
            {"name": "detector", "type": "int"}, {"name": "diaObjectId", "type": ["null", "long"]},
            {"name": "ssObjectId", "type": ["null", "long"]}, {"name": "parentDiaSourceId", "type": ["null", "long"]},
            {"name": "midpointMjdTai", "type": "double"}, {"name": "ra", "type": "double"},
            {"name": "raErr", "type": ["null", "float"]}, {"name": "dec", "type": "double"},
            {"name": "decErr", "type": ["null", "float"]}, {"name": "psfFlux", "type": ["null", "float"]}]}},
    ],
}  # fmt: skip
"""The beginning of a schema of 98 fields."""


def take(root: Path, *paths: Path, **options: object) -> ImportReceipt:
    with PacketImport(root, **options) as taking:  # type: ignore[arg-type]
        return taking.take(paths)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def message(number: int, **said: object) -> bytes:
    source = {
        "diaSourceId": 77, "visit": 5, "detector": 3, "diaObjectId": None, "ssObjectId": 0, "parentDiaSourceId": None,
        "midpointMjdTai": 61000.6, "ra": 12.0, "raErr": None, "dec": -30.0, "decErr": None, "psfFlux": -55.5,
    } | said  # fmt: skip
    buffer = BytesIO(WIRE_HEADER.pack(0, number))
    buffer.seek(0, 2)
    told = {"diaSourceId": 77, "observation_reason": "a field", "target_name": None, "diaSource": source}
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(json.loads(json.dumps(LSST))), told)
    return buffer.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "bzip2", "xz"])
def test_a_file_of_many_packets_becomes_packets_whose_records_are_the_same_bytes(codec: str) -> None:
    records = [record(candid, magpsf=float(candid)) for candid in (5, 6, 7)]
    packets = list(packets_in(container(records, codec=codec)))
    assert [packet.record["candid"] for packet in packets] == [5, 6, 7]
    for packet, told in zip(packets, records, strict=True):
        assert list(fastavro.reader(BytesIO(packet.payload))) == [told]
        buffer = BytesIO()
        fastavro.schemaless_writer(buffer, SCHEMA, told)
        assert buffer.getvalue() in packet.payload
        assert read_packet(packet.payload).payload == packet.payload, "one packet stays what it is"
    assert [p.payload for p in packets_in(container(records, codec=codec))] == [p.payload for p in packets]


def test_every_truncation_of_a_packet_and_bytes_behind_it_are_refused() -> None:
    whole = container([record(5)])
    for size in range(len(whole)):
        with pytest.raises(DataError):
            identify(read_packet(whole[:size]))
    with pytest.raises(DataError, match="damaged"):
        read_packet(whole + b"\x00")
    with pytest.raises(DataError, match="no Avro"):
        read_packet(b"SIMPLE  =                    T")


def test_packets_that_cannot_be_what_they_say_are_refused_with_the_field(tmp_path: Path) -> None:
    wrong = {
        "candidate.programid is 0": {"programid": 0}, "not on the sky": {"dec": 91.0}, "candidate.jd": {"jd": 3.0},
        "not on the sky ": {"ra": -1.0}, "candidate.ra is nan": {"ra": float("nan")},
    }  # fmt: skip
    for k, (reason, said) in enumerate(wrong.items()):
        (refusal,) = take(tmp_path, written(tmp_path / f"{k}.avro", container([record(5, **said)]))).refused
        assert reason.strip() in refusal.reason
    other = fastavro.parse_schema({"type": "record", "name": "x", "fields": [{"name": "a", "type": "int"}]})
    (refusal,) = take(tmp_path, written(tmp_path / "x.avro", container([{"a": 1}], schema=other))).refused
    assert "no family that is known (ztf, winter, lsst): a" in refusal.reason
    assert len(refusals(tmp_path)) == len(wrong) + 1
    assert surveys_of(tmp_path) == []


def test_taking_again_changes_nothing_and_other_bytes_of_one_candid_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro", container([record(5), record(6)]))
    assert take(tmp_path, path).n_new == {"ztf": 2}
    again = take(tmp_path, path)
    assert (again.n_new, again.n_known, again.refused) == ({}, {"ztf": 2}, [])
    (refusal,) = take(tmp_path, written(tmp_path / "b.avro", container([record(5, magpsf=1.0)]))).refused
    assert refusal.reason == "alert 5 is in the archive of ztf with other bytes"
    assert take(tmp_path, tmp_path / "b.avro", survey="other").n_new == {"other": 1}, "surveys do not share candids"
    assert refusals(tmp_path) == [], "what was taken in the end is not refused any more"
    assert surveys_of(tmp_path) == ["other", "ztf"]


def test_imported_packets_are_no_alerts_of_the_survey(tmp_path: Path) -> None:
    from gueststar.store.alerts.publication import Publication

    take(tmp_path, written(tmp_path / "a.avro", container([record(5)])))
    assert AlertLog(tmp_path).entries(programs=EVERYONE) == []
    assert Publication(tmp_path).waiting(10) == []
    with pytest.raises(ConfigError, match="no name of a survey"):
        AlertLog(tmp_path, survey="../alerts")


def test_a_message_without_its_schema_is_kept_whole_and_found_by_its_first_fields(tmp_path: Path) -> None:
    data = message(900)
    receipt = take(tmp_path, written(tmp_path / "m.avro", data))
    assert receipt.n_new == {"lsst": 1}
    with AlertLog(tmp_path, survey="lsst") as log, AlertSearch(log) as search:
        (entry,) = log.entries()
        assert log.read(entry) == data
        (found,) = search.run(AlertQuery(where="cone(12, -30, 1)", columns="all")).to_pylist()
        assert (found["candid"], found["objectId"], found["visit"]) == (77, "77", 5)
        assert found["jd"] == pytest.approx(2461000.5 + 0.6 - 37.0 / 86400.0, abs=1e-7), "UTC"
        assert "psfFlux" not in found
    schema = json.dumps(LSST)
    assert take(tmp_path, tmp_path / "m.avro", schemas={900: schema}).n_known == {"lsst": 1}
    with AlertLog(tmp_path, survey="lsst") as log, AlertSearch(log) as search:
        assert search.run(AlertQuery(where="psfFlux < 0"))["candid"].to_pylist() == [77]
    with pytest.raises(DataError, match="bytes behind"):
        read_packet(data + b"\x00", schemas={900: parsed_schema(schema)})
    with pytest.raises(DataError, match="number 12345, is not known"):
        read_packet(message(12345), leading=leading_schemas())


def test_tar_files_and_folders_are_looked_into_and_the_command_tells_each_refusal(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with tarfile.open(folder / "ztf_public_20260101.tar.gz", "w:gz") as archive:
        for name, data in (("5.avro", container([record(5)])), ("6.avro", container([record(6)])[:-9])):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    written(folder / "7.avro", container([record(7)]))
    written(folder / "notes.txt", b"not looked at")
    repo = tmp_path / "repo"
    repo.mkdir()
    result = CliRunner().invoke(command, ["import", str(repo), str(folder)])
    assert result.exit_code == 1
    assert "ztf: 2 new, 0 already there" in result.output
    assert "ztf_public_20260101.tar.gz:6.avro: damaged" in result.output
    assert "6.avro" in CliRunner().invoke(command, ["refused", str(repo)]).output
    shown = json.loads(CliRunner().invoke(command, ["show", str(repo), "7", "--survey", "ztf"]).output)
    assert shown["candidate"]["candid"] == 7


@pytest.mark.real_data
def test_real_packets_of_three_surveys_come_back_byte_for_byte_and_corrupt_ones_are_refused(
    shared_data: Path, tmp_path: Path
) -> None:
    folders = [shared_data / name for name in ("alerts_ztf", "alerts_lsst", "alerts_other")]
    files = [path for folder in folders for path in sorted(folder.rglob("*.avro"))]
    corrupt = [path for path in files if "corrupt" in str(path)]
    receipt = take(tmp_path, *folders)
    assert sorted(Path(refusal.name) for refusal in receipt.refused) == corrupt
    assert all(refusal.reason and "\n" not in refusal.reason for refusal in receipt.refused)
    kept: dict[bytes, int] = {}
    for survey in surveys_of(tmp_path):
        with AlertLog(tmp_path, survey=survey) as log, AlertSearch(log) as search:
            for entry, payload in log.replay(programs=EVERYONE):
                kept[payload] = entry.candid
            told = search.run(AlertQuery(programs=EVERYONE))
            assert told.num_rows == len(log.entries(programs=EVERYONE))
            assert told["ra"].null_count == 0
    n_packets = 0
    for path in (path for path in files if path not in corrupt):
        data = path.read_bytes()
        packets = list(packets_in(data, leading=leading_schemas()))
        n_packets += len(packets)
        if len(packets) == 1:
            assert data in kept
        assert all(packet.payload in kept for packet in packets)
    assert len(kept) == n_packets > 100
