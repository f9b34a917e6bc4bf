"""Alerts in the form of Rubin's tell the same facts as the packets they are made of, and no more."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from gueststar.core import ids, times
from gueststar.core.errors import DataError
from gueststar.formats.avro import decode_alert, rubin_field_names, rubin_schema
from gueststar.formats.cutouts import decode_cutout
from gueststar.formats.rubin_packet import object_number, rubin_packet
from gueststar.formats.schema_registry import RUBIN, decode_message, rubin_message, schema_with_id
from tests.unit.alerts.conftest import Survey, make_record
from tests.unit.alerts.test_every_field import DEC, MEASURED, NIGHTS, NJY_PER_ELECTRON, RA, observe


@pytest.fixture
def packet(make_survey: Callable[..., Survey]) -> dict[str, Any]:
    """The second packet of a negative detection of which everything is known."""
    survey = make_survey()
    observe(survey, knows_all=True)
    return decode_alert(list(survey.log.replay())[-1][1])


def told(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def test_a_detection_tells_signed_fluxes_and_its_exposure(packet: dict[str, Any]) -> None:
    record, visit = rubin_packet(packet), make_record(NIGHTS[-1])
    source = told(record["diaSource"])
    number = ids.object_name_parts(packet["objectId"]).number + 1
    expected = {
        "diaSourceId": packet["candid"], "visit": visit.visit, "diaObjectId": number, "midpointMjdTai": visit.mjd_tai,
        "ra": RA, "dec": DEC, "x": MEASURED["x"], "y": MEASURED["y"], "psfFlux": MEASURED["psf_flux"],
        "psfFluxErr": MEASURED["psf_flux_err"], "apFlux": MEASURED["ap_flux"], "apFluxErr": MEASURED["ap_flux_err"],
        "snr": 15.5, "extendedness": 0.25, "reliability": MEASURED["reliability"], "isNegative": True, "band": "r",
        "timeProcessedMjdTai": NIGHTS[-1] + 30.0 / 86400.0, "detector": 3, "centroid_flag": False, "apFlux_flag": False,
        "psfFlux_flag": False, "pixelFlags_bad": True,
    }  # fmt: skip
    assert set(source) == set(expected)
    for name, value in expected.items():
        tolerance = {"rel": 0.0, "abs": 1e-8} if "Mjd" in name or name in ("ra", "dec") else {"rel": 1e-5}
        assert source[name] == (pytest.approx(value, **tolerance) if isinstance(value, float) else value), name
    (earlier,) = record["prvDiaSources"]
    assert earlier["visit"] == make_record(NIGHTS[0]).visit
    assert earlier["midpointMjdTai"] == pytest.approx(make_record(NIGHTS[0]).mjd_tai, abs=1e-8)


def test_forced_fluxes_and_the_object_tell_their_means(packet: dict[str, Any]) -> None:
    record = rubin_packet(packet)
    (forced,) = record["prvDiaForcedSources"]
    measured = packet["fp_hists"][0]
    assert forced["psfFlux"] == pytest.approx(measured["forcediffimflux"] * NJY_PER_ELECTRON, rel=1e-6)
    assert forced["psfFluxErr"] == pytest.approx(900.0, rel=1e-6)
    assert (forced["visit"], forced["band"]) == (make_record(NIGHTS[1]).visit, "r")
    seen = told(record["diaObject"])
    assert (seen["nDiaSources"], seen["r_psfFluxNdata"], seen["g_psfFluxNdata"]) == (2, 2, 0)
    assert seen["r_psfFluxMean"] == pytest.approx(-45_000.0, rel=1e-5)
    assert seen["r_psfFluxMeanErr"] == pytest.approx(3000.0 / np.sqrt(2.0), rel=1e-5)
    assert seen["r_fpFluxMean"] == pytest.approx(forced["psfFlux"])
    assert "g_psfFluxMean" not in seen
    assert seen["firstDiaSourceMjdTai"] < seen["lastDiaSourceMjdTai"]
    assert (seen["ra"], seen["dec"]) == pytest.approx((RA, DEC), abs=1e-9)


def test_an_object_on_the_meridian_of_zero_keeps_its_place(packet: dict[str, Any]) -> None:
    earlier, limit = packet["prv_candidates"]
    around = packet | {
        "candidate": packet["candidate"] | {"ra": 359.9999},
        "prv_candidates": [earlier | {"ra": 0.0003}, limit],
    }  # fmt: skip
    assert rubin_packet(around)["diaObject"]["ra"] == pytest.approx(0.0001, abs=1e-9)


def test_cutouts_are_plain_fits_and_the_difference_has_the_sign_of_the_flux(packet: dict[str, Any]) -> None:
    record = rubin_packet(packet)
    for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
        with fits.open(io.BytesIO(record[name])) as file:
            file.verify("exception")
            pixels = decode_cutout(packet[name]["stampData"])
            np.testing.assert_array_equal(file[0].data, -pixels if name == "cutoutDifference" else pixels)
    assert decode_cutout(record["cutoutDifference"])[31, 31] == -200.0


def test_what_is_not_known_is_null(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    observe(survey, knows_all=False)
    record = rubin_packet(decode_alert(list(survey.log.replay())[-1][1]))
    source = record["diaSource"]
    assert (source["apFlux"], source["apFluxErr"], source["apFlux_flag"]) == (None, None, True)
    numbers = [value for value in source.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()
    assert not {-999.0, -99999.0} & set(numbers)
    assert (record["ssSource"], record["mpc_orbits"]) == (None, None)


def test_a_message_survives_and_is_the_same_again(packet: dict[str, Any]) -> None:
    message = rubin_message(packet)
    assert message == rubin_message(packet)
    read = decode_message(message)
    assert tuple(read) == rubin_field_names("alert")
    assert read["diaSource"]["diaSourceId"] == packet["candid"]
    assert schema_with_id(RUBIN).schema() is rubin_schema()
    with pytest.raises(DataError, match="Rubin's form"):
        rubin_message({"candid": 1, "candidate": {}})


def test_objects_have_one_number_in_all_streams() -> None:
    assert object_number("GST25aaaaaab") == object_number("GST26aaaaaab") == 2
    assert object_number("somebody else's") != object_number("another's")


def test_names_of_our_images_tell_visit_and_detector(packet: dict[str, Any]) -> None:
    named = {"pdiffimfilename": "difference_image_92985125050_7-33ed9f5085ca.fits"}
    source = rubin_packet(packet | {"candidate": packet["candidate"] | named})["diaSource"]
    assert (source["visit"], source["detector"]) == (92985125050, 7)


@pytest.mark.real_data
def test_fields_and_types_are_those_of_a_real_packet(shared_data: Path) -> None:
    """A real packet of schema 9.0, whose records 10.0 changed little: what both have is of one type."""
    import pyarrow.parquet

    schema = pyarrow.parquet.ParquetFile(shared_data / "alerts_lsst" / "rubin_sample_data_10_0.parquet").schema_arrow
    assert set(rubin_field_names("alert")) <= set(schema.names)
    for name, record in (("diaSource", "diaSource"), ("diaObject", "diaObject"), ("ssSource", "ssSource")):
        real = {field.name for field in schema.field(name).type}
        assert set(rubin_field_names(record)) == real, name


_THEIRS = """
import io, json, sys
import fastavro
from lsst.alert.packet import Schema
from lsst.alert.packet.schema import get_schema_path
from pathlib import Path
theirs = Schema.from_file(str(Path(get_schema_path(10, 0)) / "lsst.v10_0.alert.avsc"))
record = theirs.deserialize(Path(sys.argv[1]).read_bytes()[5:])
assert theirs.validate(record)
ours = fastavro.parse_schema(json.loads(Path(sys.argv[2]).read_text()))
again = fastavro.schemaless_reader(io.BytesIO(theirs.serialize(record)), ours, None)
with open(sys.argv[3], "wb") as file:
    theirs.store_alerts(file, [record])
with open(sys.argv[3], "rb") as file:
    _, (stored,) = theirs.retrieve_alerts(file)
assert again == record == stored
print(record["diaSourceId"], record["diaSource"]["psfFlux"], len(record["prvDiaSources"]))
"""


def test_rubins_own_library_reads_and_writes_our_messages(packet: dict[str, Any], tmp_path: Path) -> None:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = Path(os.environ.get("GUESTSTAR_LSST_PYTHON") or caches / "gueststar/consumers/lsst/bin/python")
    if not python.exists():
        pytest.skip("no environment with lsst-alert-packet: scripts/make_consumer_environments.sh makes it")
    (tmp_path / "message").write_bytes(rubin_message(packet))
    (tmp_path / "schema.json").write_text(schema_with_id(RUBIN).text)
    command = [python, "-c", _THEIRS, *(tmp_path / name for name in ("message", "schema.json", "stored.avro"))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    candid, flux, n_earlier = done.stdout.split()
    assert (int(candid), int(n_earlier)) == (packet["candid"], 1)
    assert float(flux) == pytest.approx(-45_000.0, rel=1e-5)
    assert times.isot_utc(rubin_packet(packet)["diaSource"]["midpointMjdTai"]).startswith("2025-11-26")
    with (tmp_path / "stored.avro").open("rb") as file:
        (again,) = fastavro.reader(file, reader_schema=rubin_schema())
    assert again == decode_message((tmp_path / "message").read_bytes())
