"""Foreign clients, each in its own environment, read a whole night from real brokers: all count the same."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import fastavro
import pytest

from gueststar.model.rights import Program
from gueststar.store.repo import SurveyRepo
from gueststar.stream.agreement import agreement_of

from .conftest import PASSWORD, Night, Stream, counts_in_database, counts_of, environment, read_by

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("which", ["plain", "secure"])
"""The open broker, and the one that wants a login."""


def stream_of(night: Night, which: str) -> Stream:
    return night.secure if which == "secure" else night.plain


def test_the_night_is_worth_counting_and_the_log_agrees_with_topic_and_database(night: Night) -> None:
    photopoints, limits, forced = (
        sum(counts[i] or 0 for counts in night.counts.values()) - (len(night.packets) if i == 0 else 0)
        for i in range(3)
    )
    assert len(night.packets) >= 8
    assert min(photopoints, limits, forced) > 5
    in_database = counts_in_database(night)
    for candid, (n_seen, n_limits, _) in night.counts.items():
        assert n_seen == in_database[candid][0]
        assert n_limits is not None
        assert n_seen is not None
        assert n_seen - 1 + n_limits <= in_database[candid][1]
    with SurveyRepo.open(night.root) as repo:
        agreement = agreement_of(night.root, repo.settings.stream, night=night.night, program=Program.PUBLIC)
    assert agreement.is_good, agreement.line()
    assert agreement.n_on_topic == len(night.packets)


@BOTH
def test_confluent_kafka_and_fastavro(night: Night, which: str) -> None:
    counts, notes = read_by("confluent", environment("kafka"), night, stream_of(night, which))
    assert counts == night.counts
    assert notes["schemas"] == [["ztf.alert", "null", "4.02"]]
    assert notes["headers"] == ["_format", "candid"]


@BOTH
def test_aiokafka(night: Night, which: str) -> None:
    counts, _ = read_by("aio", environment("kafka"), night, stream_of(night, which))
    assert counts == night.counts


@BOTH
def test_fink_client(night: Night, which: str) -> None:
    counts, notes = read_by("fink", environment("fink"), night, stream_of(night, which))
    assert counts == night.counts
    assert notes["n_rows"] == len(night.packets)


@BOTH
def test_ampel(night: Night, which: str) -> None:
    counts, notes = read_by("ampel_ztf", environment("ampel"), night, stream_of(night, which))
    assert {candid: seen[:2] for candid, seen in counts.items()} == {c: n[:2] for c, n in night.counts.items()}
    assert notes["n_complete"] == len(night.packets), "no key is missing or null that its filters ask for"
    assert notes["n_shaped"] == sum((seen[0] or 0) + (seen[1] or 0) for seen in counts.values())


@BOTH
def test_hop_client(night: Night, which: str) -> None:
    counts, _ = read_by("hopskotch", environment("hop"), night, stream_of(night, which))
    assert counts == night.counts


@BOTH
def test_pittgoogle_client(night: Night, which: str) -> None:
    counts, notes = read_by("pitt", environment("pittgoogle"), night, stream_of(night, which))
    assert counts == night.counts
    assert notes["n_rows"] >= len(night.packets)


@BOTH
def test_lsst_alert_packet(night: Night, which: str) -> None:
    counts, notes = read_by("rubin", environment("lsst"), night, stream_of(night, which))
    assert counts == night.counts
    assert notes["n_valid"] == len(night.packets)


@BOTH
def test_apaches_own_avro(night: Night, which: str) -> None:
    counts, notes = read_by("apache", environment("apache"), night, stream_of(night, which))
    assert counts == night.counts
    assert notes["names"] == ["ztf.alert"]


@BOTH
def test_kcat(night: Night, which: str) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("no kcat: apt-get install kcat")
    stream = stream_of(night, which)
    login = {
        "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": stream.user,
        "sasl.password": PASSWORD,
    }  # fmt: skip
    options = [word for key, value in login.items() for word in ("-X", f"{key}={value}")] if stream.user else []
    command = ["kcat", "-C", "-q", "-e", "-b", stream.servers, "-t", stream.topic, "-o", "beginning", *options]
    done = subprocess.run([*command, "-f", "%R%s"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counts, rest = {}, io.BytesIO(done.stdout)
    while size := rest.read(4):
        (packet,) = fastavro.reader(io.BytesIO(rest.read(int.from_bytes(size, "big"))))
        assert isinstance(packet, dict)
        counts[packet["candid"]] = counts_of(packet)
    assert counts == night.counts


def test_a_reader_without_the_right_password_gets_nothing(night: Night) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("no kcat: apt-get install kcat")
    stream = night.secure
    options = ["security.protocol=sasl_plaintext", "sasl.mechanism=SCRAM-SHA-512", "sasl.username=alice"]
    words = [word for option in [*options, "sasl.password=wrong"] for word in ("-X", option)]
    command = ["kcat", "-C", "-e", "-m", "5", "-b", stream.servers, "-t", stream.topic, "-o", "beginning", *words]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.stdout == b""
    assert b"uthentication failed" in done.stderr


@pytest.mark.parametrize("form", [r"^ztf_.*_programid1$", r"^ztf_\d{8}_programid1$"], ids=["AMPEL", "Lasair"])
def test_topics_are_named_as_brokers_look_for_them(night: Night, form: str) -> None:
    assert re.match(form, night.plain.topic)


def test_names_of_objects_fit_what_brokers_take_apart(night: Night) -> None:
    for packet in night.packets.values():
        name = packet["objectId"]
        assert re.fullmatch(r"[A-Z]{3}(1[7-9]|2\d|3[0-2])[a-z]{7}", name), "AMPEL's numbers know the years 17 to 32"
        assert packet["candidate"]["candid"] == packet["candid"]


def test_cutouts_are_named_and_packed_as_brokers_unpack_them(night: Night) -> None:
    for candid, packet in night.packets.items():
        pid = packet["candidate"]["pid"]
        names = [packet[f"cutout{which}"]["fileName"] for which in ("Science", "Template", "Difference")]
        assert names[:2] == [f"candid{candid}_pid{pid}_targ_sci.fits.gz", f"candid{candid}_ref.fits.gz"]
        assert re.fullmatch(rf"candid{candid}_pid{pid}_targ_(scimref|refmsci)\.fits\.gz", names[2])
        for which in ("Science", "Template", "Difference"):
            unpacked = zlib.decompress(packet[f"cutout{which}"]["stampData"], 16 + zlib.MAX_WBITS)
            assert unpacked.startswith(b"SIMPLE  =")


def test_each_message_is_one_container_of_one_record_without_compression(night: Night) -> None:
    for path in sorted(Path(night.files).glob("*.avro")):
        reader = fastavro.reader(io.BytesIO(path.read_bytes()))
        assert reader.metadata["avro.codec"] == "null"
        assert len(list(reader)) == 1
