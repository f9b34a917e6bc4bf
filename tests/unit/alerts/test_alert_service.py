"""Packets and cut-outs are served by candid to those who may see them, and schemas to Confluent's own client."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import fastavro
import numpy as np
import pytest
import uvicorn
from astropy.io import fits
from confluent_kafka.serialization import MessageField, SerializationContext
from matplotlib.image import imread
from starlette.requests import Request
from starlette.testclient import TestClient

from gueststar.core.errors import DataError
from gueststar.formats.avro import alert_schema, decode_alert, lite_schema
from gueststar.formats.cutouts import decode_cutout
from gueststar.formats.schema_registry import (
    LITE,
    REGISTERED,
    decode_message,
    encode_message,
    lite_message,
    rubin_message,
)
from gueststar.model.readers import Reader, Scope, Sight
from gueststar.model.rights import Program, RightsPolicy
from gueststar.services.alerts import alert_app
from gueststar.services.gate import Gate
from gueststar.store.alerts.publication import Fate, Publication
from tests.unit.alerts.conftest import Survey, make_record, make_sources


@pytest.fixture
def survey(make_survey: Callable[..., Survey]) -> Survey:
    """A public and a private alert."""
    made = make_survey()
    for mjd, program in ((61000.2, 1), (61001.2, 3)):
        record = make_record(mjd, program=program)
        made.observe(record, make_sources(record, np.array([0.005]), np.array([20.01])))
    return made


@pytest.fixture
def client(survey: Survey) -> TestClient:
    return TestClient(alert_app(survey.log, Publication(survey.root)))


def packet_of(survey: Survey, program: Program) -> tuple[int, bytes, dict[str, Any]]:
    ((entry, data),) = survey.log.replay(programs=(program,))
    return entry.candid, data, decode_alert(data)


def test_a_packet_is_served_as_it_was_sent(survey: Survey, client: TestClient) -> None:
    candid, data, packet = packet_of(survey, Program.PUBLIC)
    answer = client.get(f"/alerts/{candid}.avro")
    assert (answer.status_code, answer.content) == (200, data)
    assert "immutable" in answer.headers["cache-control"]
    told = client.get(f"/alerts/{candid}.json").json()
    assert told["candid"] == str(candid), "a browser's numbers end at 2**53"
    assert told["candidate"]["magpsf"] == packet["candidate"]["magpsf"]
    assert not [key for key in told if key.startswith("cutout")]


def test_cutouts_open_as_fits_and_as_pictures(survey: Survey, client: TestClient) -> None:
    candid, _, packet = packet_of(survey, Program.PUBLIC)
    for kind, key in (("science", "cutoutScience"), ("template", "cutoutTemplate"), ("difference", "cutoutDifference")):
        pixels = decode_cutout(packet[key]["stampData"])
        answer = client.get(f"/alerts/{candid}/cutouts/{kind}.fits")
        with fits.open(io.BytesIO(answer.content)) as file:
            np.testing.assert_array_equal(file[0].data, pixels)
        assert client.get(f"/alerts/{candid}/cutouts/{kind}.fits.gz").content == packet[key]["stampData"]
        picture = imread(io.BytesIO(client.get(f"/alerts/{candid}/cutouts/{kind}.png?zoom=2").content))
        assert picture.shape[:2] == (126, 126)
    bright = imread(io.BytesIO(client.get(f"/alerts/{candid}/cutouts/difference.png?zoom=1").content))[..., 0]
    assert np.unravel_index(bright.argmax(), bright.shape) == (31, 31)


def test_what_a_reader_may_not_see_is_answered_like_what_does_not_exist(survey: Survey, client: TestClient) -> None:
    candid, data, _ = packet_of(survey, Program.PRIVATE)
    ways = ("{}.avro", "{}.json", "{}/cutouts/science.fits", "{}/cutouts/science.png")
    hidden = [client.get("/alerts/" + way.format(candid)) for way in ways]
    absent = [client.get("/alerts/" + way.format(candid + 1)) for way in ways]
    assert {answer.status_code for answer in hidden + absent} == {404}
    for one, other in zip(hidden, absent, strict=True):
        assert one.text.replace(str(candid), "") == other.text.replace(str(candid + 1), "")
        assert set(one.headers) == set(other.headers)
    seen = TestClient(alert_app(survey.log, Publication(survey.root), cast("Gate", _Admitting()))).get(
        f"/alerts/{candid}.avro"
    )
    assert seen.content == data
    assert seen.headers["cache-control"] == "private, no-store"


def test_what_is_held_back_from_the_stream_leaves_by_no_other_way(survey: Survey, client: TestClient) -> None:
    candid, _, _ = packet_of(survey, Program.PUBLIC)
    state = Publication(survey.root)
    for fate in (Fate.HELD, Fate.DROPPED):
        state.set_aside([candid], fate, "too many", time=0.0)
        assert client.get(f"/alerts/{candid}.avro").status_code == 404
    state.close()


class _Admitting:
    """A gate that takes everybody for a reader of the private program."""

    async def sight(self, request: Request, scope: Scope) -> Sight:
        assert scope is Scope.ALERTS
        return Sight(Reader.of_programs([Program.PRIVATE]), RightsPolicy(), 0.0)


def test_requests_that_make_no_sense_are_refused_in_words(survey: Survey, client: TestClient) -> None:
    candid, _, _ = packet_of(survey, Program.PUBLIC)
    assert client.get(f"/alerts/{candid}/cutouts/science.jpg").status_code == 404
    assert client.get(f"/alerts/{candid}/cutouts/moon.png").status_code == 404
    assert "1 to 20" in client.get(f"/alerts/{candid}/cutouts/science.png?zoom=1000").json()["error"]
    assert client.get("/alerts/99999999999999999999999.avro").status_code == 404
    assert client.get("/alerts/../../etc/passwd").status_code == 404
    assert client.post(f"/alerts/{candid}.avro").status_code == 405


def test_the_registry_answers_in_its_own_form(client: TestClient) -> None:
    assert client.get("/subjects").json() == sorted({schema.subject for schema in REGISTERED})
    assert client.get("/subjects/ztf-alert-lite/versions").json() == [1, 2]
    for version, expected in (("1", (40201, 1)), ("2", (LITE, 2)), ("latest", (LITE, 2))):
        told = client.get(f"/subjects/ztf-alert-lite/versions/{version}").json()
        assert (told["id"], told["version"]) == expected
        assert fastavro.parse_schema(json.loads(told["schema"]))["name"] == "ztf.alert"
    assert client.get(f"/schemas/ids/{LITE}/versions").json() == [{"subject": "ztf-alert-lite", "version": 2}]
    for path, code in (
        ("/subjects/x/versions", 40401), ("/subjects/ztf-alert/versions/7", 40402), ("/schemas/ids/1", 40403),
        ("/subjects/ztf-alert/versions/new", 42202),
    ):  # fmt: skip
        answer = client.get(path)
        assert answer.json()["error_code"] == code
        assert answer.status_code == code // 100
    assert client.post("/subjects/ztf-alert/versions", json={"schema": "{}"}).status_code == 405


@pytest.fixture
def address(survey: Survey) -> Iterator[str]:
    """The service on a free port of the loopback."""
    server = uvicorn.Server(uvicorn.Config(alert_app(survey.log, Publication(survey.root)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_confluents_deserializer_reads_a_lite_message_by_the_registry(survey: Survey, address: str) -> None:
    registry = pytest.importorskip("confluent_kafka.schema_registry", reason="needs confluent-kafka[avro]")
    avro = pytest.importorskip("confluent_kafka.schema_registry.avro")
    _, _, packet = packet_of(survey, Program.PUBLIC)
    client = registry.SchemaRegistryClient({"url": address})
    assert client.get_subjects() == sorted({schema.subject for schema in REGISTERED})
    assert client.get_latest_version("ztf-alert-lite").schema_id == LITE
    context = SerializationContext("lite_20251121_programid1", MessageField.VALUE)
    deserialize = avro.AvroDeserializer(client)
    read = deserialize(lite_message(packet), context)
    assert read == {key: value for key, value in packet.items() if not key.startswith("cutout")}
    assert deserialize(rubin_message(packet), context) == decode_message(rubin_message(packet))


def test_a_reader_of_whole_packets_finds_a_lite_one_without_cutouts(survey: Survey) -> None:
    _, data, packet = packet_of(survey, Program.PUBLIC)
    message = lite_message(packet)
    assert len(message) < len(data) / 5
    assert decode_message(message) == {key: value for key, value in packet.items() if not key.startswith("cutout")}
    whole = fastavro.schemaless_reader(io.BytesIO(message[5:]), lite_schema(), alert_schema())
    assert whole == packet | dict.fromkeys(("cutoutScience", "cutoutTemplate", "cutoutDifference"))
    for damaged in (b"", message[:3], message[:40], b"\1" + message[1:], b"\0\0\0\0\1" + message[5:]):
        with pytest.raises(DataError):
            decode_message(damaged)
    with pytest.raises(DataError, match="schemavsn is missing"):
        encode_message(LITE, {"candid": 1})
