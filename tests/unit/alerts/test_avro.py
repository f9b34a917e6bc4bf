"""Packets are what consumers of ZTF schema 4.02 expect, byte for byte the same on a rerun."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from gueststar.core.errors import DataError
from gueststar.formats.avro import OWN_FIELDS, alert_schema, decode_alert, encode_alert, field_names
from gueststar.formats.cutouts import cut_stamp, decode_cutout, encode_cutout
from tests.unit.alerts.conftest import make_record, make_sources


@pytest.fixture
def packet(make_survey) -> dict:
    survey = make_survey()
    for mjd in (61000.2, 61001.2):
        record = make_record(mjd)
        survey.observe(record, make_sources(record, np.array([0.005]), np.array([20.01])))
    return decode_alert(list(survey.log.replay())[-1][1])


def test_a_packet_survives_the_round_trip_through_an_independent_reader(packet: dict) -> None:
    data = encode_alert(packet)
    reader = fastavro.reader(io.BytesIO(data))
    (again,) = list(reader)
    assert again == packet
    assert reader.writer_schema["name"] == "ztf.alert"
    assert reader.codec == "null"
    assert encode_alert(packet) == data, "no random sync marker, no time stamp"


def test_a_field_that_is_missing_foreign_or_of_the_wrong_type_is_refused(packet: dict) -> None:
    candidate = packet["candidate"]
    lacking = {name: value for name, value in candidate.items() if name != "rb"}
    for broken in (lacking, candidate | {"colour": 1.0}, candidate | {"fid": "r"}, candidate | {"jd": None}):
        with pytest.raises(DataError, match="does not fit"):
            encode_alert(packet | {"candidate": broken})


def record_types(schema: dict) -> dict[str, dict[str, set[str]]]:
    """Return the types of each field of each record, unions as sets."""
    found: dict[str, dict[str, set[str]]] = {}

    def visit(node: object) -> None:
        if isinstance(node, list):
            for part in node:
                visit(part)
        elif isinstance(node, dict) and node.get("type") == "record":
            name = node["name"].split(".")[-1]
            found[name] = {}
            for field in node["fields"]:
                types = field["type"] if isinstance(field["type"], list) else [field["type"]]
                found[name][field["name"]] = {t for t in types if isinstance(t, str)}
                visit(field["type"])
        elif isinstance(node, dict):
            visit(node.get("items"))

    visit(schema)
    return found


@pytest.mark.real_data
def test_fields_and_types_are_those_of_real_packets(shared_data: Path) -> None:
    ours = record_types(alert_schema())
    assert tuple(ours["alert"])[-2:] == OWN_FIELDS, "behind all that ZTF's readers know"
    assert [len(ours[name]) for name in ("alert", "candidate", "prv_candidate", "fp_hist", "cutout")] == [
        10 + len(OWN_FIELDS),
        103,
        57,
        29,
        2,
    ]
    real_path = sorted((shared_data / "alerts_ztf" / "kowalski_20200202").glob("*.avro"))[0]
    with real_path.open("rb") as file:
        real = record_types(fastavro.reader(file).writer_schema)
    assert list(real["candidate"]) == list(ours["candidate"])
    for name, types in real["candidate"].items():
        assert ours["candidate"][name] == types, name
    with (shared_data / "alerts_ztf" / "fink_2026" / "part-3-305711.avro").open("rb") as file:
        newest = record_types(fastavro.reader(file).writer_schema)
    for name in ("candidate",):
        assert set(newest[name]) == set(ours[name])
        for field, types in newest[name].items():
            assert types - {"null"} == ours[name][field] - {"null"}, field
    assert set(newest["prv_candidates"]) == set(ours["prv_candidate"])


@pytest.mark.real_data
def test_real_packets_decode_and_fit_our_records(shared_data: Path) -> None:
    paths = sorted((shared_data / "alerts_ztf" / "kowalski_20200202").glob("*.avro"))
    assert paths
    for path in paths:
        real = decode_alert(path.read_bytes())
        ours = {
            "schemavsn": "4.02", "publisher": "test", "objectId": real["objectId"], "candid": real["candid"],
            "candidate": {name: real["candidate"][name] for name in field_names("candidate")},
            "prv_candidates": [
                {name: item[name] for name in field_names("prv_candidate")} for item in real["prv_candidates"] or []
            ],
            "fp_hists": None, "rbhist": None, "nrbhist": None,
        } | {name: real[name] for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference")}  # fmt: skip
        again = decode_alert(encode_alert(ours))
        assert again["candidate"] == real["candidate"]
        assert decode_cutout(real["cutoutDifference"]["stampData"]).shape == (63, 63)


@pytest.mark.real_data
def test_damaged_packets_are_data_errors(shared_data: Path) -> None:
    for path in sorted((shared_data / "alerts_ztf" / "corrupt_packets").glob("*.avro")):
        with pytest.raises(DataError):
            decode_alert(path.read_bytes())
    with pytest.raises(DataError):
        decode_alert(b"")


def test_a_cutout_is_a_standard_fits_image_with_nan_beyond_the_edge() -> None:
    image = np.arange(100 * 80, dtype=np.float32).reshape(100, 80)
    stamp = cut_stamp(image, x=3.4, y=96.6)
    assert stamp.shape == (63, 63)
    assert stamp[31, 31] == image[97, 3]
    assert np.isnan(stamp[:, :28]).all()
    assert np.isfinite(stamp[31, 28:]).all()
    assert np.isnan(stamp[34:]).all()
    data = encode_cutout(stamp)
    assert data == encode_cutout(stamp)
    assert data[4:8] == b"\0\0\0\0", "no time stamp"
    with fits.open(io.BytesIO(gzip.decompress(data))) as file:
        file.verify("exception")
        np.testing.assert_array_equal(file[0].data, stamp)
    np.testing.assert_array_equal(decode_cutout(data), stamp)
    with pytest.raises(DataError):
        decode_cutout(data[:500])
    assert np.isnan(cut_stamp(image, x=-500.0, y=5.0)).all()


def test_the_head_of_every_packet_is_the_same_in_all_processes() -> None:
    code = "from gueststar.formats.avro import schema_text, alert_schema, _container_header; import sys; "
    code += "sys.stdout.buffer.write(_container_header()[0] + schema_text(alert_schema()).encode())"
    heads = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3", "4")
    }
    assert len(heads) == 1
