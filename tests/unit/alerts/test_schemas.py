"""Schemas are frozen, the encoder writes what fastavro writes, and readers of other versions understand our packets."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gueststar.core.errors import DataError
from gueststar.formats.avro import OWN_FIELDS, alert_schema, decode_alert, encode_alert, encode_body
from gueststar.formats.avro_encoder import RecordEncoder, zigzag
from gueststar.formats.schema_registry import decode_message, lite_message
from tests.unit.alerts.conftest import Survey
from tests.unit.alerts.test_every_field import observe

FROZEN = {
    "rubin/10.0/alert.avsc": "0edbe9880a3a7f2b",
    "rubin/10.0/diaForcedSource.avsc": "fac4f0fe54b03825",
    "rubin/10.0/diaObject.avsc": "b7138be8e0fdb1e3",
    "rubin/10.0/diaSource.avsc": "01633f66e039f45a",
    "rubin/10.0/mpc_orbits.avsc": "407c3ffc4b770da3",
    "rubin/10.0/ssSource.avsc": "fad7467f5189421c",
    "ztf/4.02/alert.avsc": "3aca64a53018a3d7",
    "ztf/4.02/candidate.avsc": "ad12c9cc7782c333",
    "ztf/4.02/cutout.avsc": "ddc9e9d77d6c8ab3",
    "ztf/4.02/fp_hist.avsc": "12f928cf620e62aa",
    "ztf/4.02/prv_candidate.avsc": "548d9652dc4e047a",
    "ztf/4.02.1/alert.avsc": "2ef9c0f9305a344d",
    "ztf/4.02.1/candidate.avsc": "ad12c9cc7782c333",
    "ztf/4.02.1/cutout.avsc": "ddc9e9d77d6c8ab3",
    "ztf/4.02.1/fp_hist.avsc": "12f928cf620e62aa",
    "ztf/4.02.1/prv_candidate.avsc": "548d9652dc4e047a",
    "ztf_lite/4.02/alert.avsc": "829d2ab04e170204",
    "ztf_lite/4.02.1/alert.avsc": "79f41894160b1a72",
}
"""BLAKE2b (8 bytes) of the schema files. A published version never changes: what is new is a new version."""


def schema_files() -> Iterator[tuple[str, bytes]]:
    root = Path(str(resources.files("gueststar.formats") / "schemas"))
    for path in sorted(root.rglob("*.avsc")):
        yield str(path.relative_to(root)), path.read_bytes()


def test_published_schemas_never_change() -> None:
    found = {name: hashlib.blake2b(data, digest_size=8).hexdigest() for name, data in schema_files()}
    assert found == FROZEN


@pytest.fixture
def packet(make_survey: Callable[..., Survey]) -> dict[str, Any]:
    survey = make_survey()
    observe(survey, knows_all=True)
    return decode_alert(list(survey.log.replay())[-1][1])


def fastavro_body(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value)
    return buffer.getvalue()


def test_the_encoder_writes_the_bytes_of_fastavro(packet: dict[str, Any]) -> None:
    assert encode_body(packet) == fastavro_body(alert_schema(), packet)
    bare = packet | dict.fromkeys(("prv_candidates", "fp_hists", "cutoutScience", "cutoutTemplate", "cutoutDifference"))
    assert encode_body(bare) == fastavro_body(alert_schema(), bare)
    assert encode_body(bare | {"fp_hists": []}) == fastavro_body(alert_schema(), bare | {"fp_hists": []})


SCHEMA = fastavro.parse_schema(
    {
        "type": "record", "name": "outer", "fields": [
            {"name": "a", "type": "float"}, {"name": "b", "type": ["null", "float"]},
            {"name": "c", "type": ["double", "null"]}, {"name": "n", "type": ["null", "int"]},
            {"name": "l", "type": "long"}, {"name": "s", "type": ["null", "string"]}, {"name": "raw", "type": "bytes"},
            {"name": "ok", "type": ["null", "boolean"]}, {"name": "x", "type": ["null", "float"]},
            {"name": "y", "type": ["null", "float"]},
            {"name": "inner", "type": {"type": "record", "name": "inner", "fields": [{"name": "d", "type": "double"}]}},
            {"name": "more", "type": ["null", {"type": "array", "items": "inner"}]},
        ],
    }
)  # fmt: skip
INNER = st.fixed_dictionaries({"d": st.floats(allow_nan=False)})
OUTER = st.fixed_dictionaries(
    {
        "a": st.floats(width=32, allow_nan=False), "b": st.none() | st.floats(width=32, allow_nan=False),
        "c": st.none() | st.floats(allow_nan=False), "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "l": st.integers(-(2**63), 2**63 - 1), "s": st.none() | st.text(), "raw": st.binary(),
        "ok": st.none() | st.booleans(), "x": st.none() | st.floats(width=32, allow_nan=False),
        "y": st.none() | st.floats(width=32, allow_nan=False), "inner": INNER,
        "more": st.none() | st.lists(INNER, max_size=4),
    }
)  # fmt: skip
ENCODE = RecordEncoder(SCHEMA)


@settings(max_examples=150, deadline=None)
@given(OUTER)
def test_any_record_is_encoded_as_fastavro_does(record: dict[str, Any]) -> None:
    assert ENCODE(record) == fastavro_body(SCHEMA, record)


def test_the_limits_of_numbers_are_kept() -> None:
    assert [zigzag(n) for n in (0, -1, 1, -64, 64)] == [b"\0", b"\1", b"\2", b"\x7f", b"\x80\x01"]
    good = {
        "a": 1.0, "b": None, "c": math.inf, "n": 1, "l": 1, "s": "", "raw": b"", "ok": None, "x": None, "y": 2.0,
        "inner": {"d": 0.0}, "more": None,
    }  # fmt: skip
    assert ENCODE(good) == fastavro_body(SCHEMA, good)
    for name, value in (("l", 2**63), ("n", 2**31), ("a", 1e300)):
        with pytest.raises(OverflowError):
            ENCODE(good | {name: value})


def test_a_misfit_is_told_by_its_path_in_one_line(packet: dict[str, Any]) -> None:
    candidate = packet["candidate"]
    for broken, words in (
        ({name: value for name, value in candidate.items() if name != "rb"}, "candidate.rb is missing"),
        (candidate | {"colour": 1.0}, "candidate.colour is no field"),
        (candidate | {"fid": "r"}, "candidate.fid is 'r', needs int"),
        (candidate | {"jd": None}, "candidate.jd is None, needs double"),
    ):
        with pytest.raises(DataError, match=words):
            encode_alert(packet | {"candidate": broken})
    with pytest.raises(DataError, match=r"fp_hists\[0\]\.jd is None"):
        encode_alert(packet | {"fp_hists": [packet["fp_hists"][0] | {"jd": None}]})


def with_field(schema: Any, record: str, field: dict[str, Any]) -> Any:
    """Return a plain copy of a schema whose record has one more field."""
    plain = json.loads(json.dumps({k: v for k, v in copy.deepcopy(schema).items() if not k.startswith("__")}))

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for part in node:
                visit(part)
        elif isinstance(node, dict):
            if node.get("type") == "record" and node["name"] == record:
                node["fields"].append(field)
            for value in node.values():
                visit(value)

    visit(plain)
    return fastavro.parse_schema(plain)


def test_readers_and_writers_of_the_next_version_understand_each_other(packet: dict[str, Any]) -> None:
    ours = alert_schema()
    newer = with_field(ours, "ztf.alert.candidate", {"name": "colour", "type": ["null", "float"], "default": None})
    read_by_newer = fastavro.schemaless_reader(io.BytesIO(encode_body(packet)), ours, newer)
    assert read_by_newer == packet | {"candidate": packet["candidate"] | {"colour": None}}
    told = packet | {"candidate": packet["candidate"] | {"colour": 0.5}}
    assert fastavro.schemaless_reader(io.BytesIO(fastavro_body(newer, told)), newer, ours) == packet


def test_readers_of_4_02_read_our_packets_as_they_stand_and_we_read_theirs(packet: dict[str, Any]) -> None:
    body, ztf = encode_body(packet), alert_schema("4.02")
    known = {name: value for name, value in packet.items() if name not in OWN_FIELDS}
    assert None not in (packet["rbhist"], packet["nrbhist"])
    assert fastavro.schemaless_reader(io.BytesIO(body), alert_schema(), ztf) == known
    assert fastavro.schemaless_reader(io.BytesIO(body), ztf, None) == known, "also who believes it to be 4.02"
    theirs = fastavro_body(ztf, known)
    assert body.startswith(theirs)
    read = fastavro.schemaless_reader(io.BytesIO(theirs), ztf, alert_schema())
    assert read == known | dict.fromkeys(OWN_FIELDS)
    told = decode_message(lite_message(known))
    assert told == {name: value for name, value in read.items() if not name.startswith("cutout")}


@pytest.mark.real_data
def test_a_reader_of_ztf_3_3_reads_our_packets(shared_data: Path, packet: dict[str, Any]) -> None:
    with (shared_data / "alerts_ztf" / "template_schema_ZTF_3p3.avro").open("rb") as file:
        old = fastavro.reader(file).writer_schema
    (read,) = fastavro.reader(io.BytesIO(encode_alert(packet)), reader_schema=old)
    assert set(read) == set(packet) - {"fp_hists", *OWN_FIELDS}
    assert read["candidate"] == packet["candidate"]
    for told, ours in zip(read["prv_candidates"], packet["prv_candidates"], strict=True):
        assert told.items() <= ours.items()


@pytest.mark.real_data
def test_our_reader_reads_real_packets_of_older_versions(shared_data: Path) -> None:
    paths = [shared_data / "alerts_ztf" / "template_schema_ZTF_3p3.avro"]
    paths += sorted((shared_data / "alerts_ztf" / "kowalski_20200202").glob("*.avro"))
    for path in paths:
        data = path.read_bytes()
        real = decode_alert(data)
        (read,) = fastavro.reader(io.BytesIO(data), reader_schema=alert_schema())
        assert read["fp_hists"] is None
        assert read["candidate"] == {name: real["candidate"][name] for name in read["candidate"]}
        assert read["cutoutScience"] == real["cutoutScience"]
        assert encode_body(read), "and what was read can be written again"
