"""Packets hold what consumers of the ZTF stream read, with true meanings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from gueststar.core.times import jd_utc
from gueststar.formats.avro import decode_alert, field_names
from gueststar.formats.cutouts import decode_cutout
from gueststar.model.columns import REFCAT, SOURCE
from gueststar.model.rights import Program
from tests.unit.alerts.conftest import Survey, make_record, make_sources

DECENT_FILTER_KEYS = (
    "fwhm", "elong", "magdiff", "nbad", "distpsnr1", "sgscore1", "distpsnr2", "sgscore2", "distpsnr3", "sgscore3",
    "isdiffpos", "ra", "dec", "rb", "ssdistnr",
)  # fmt: skip
"""What AMPEL's DecentFilter wants not null in a candidate."""

LIMIT_FIELDS = {
    "jd", "fid", "pid", "diffmaglim", "pdiffimfilename", "programpi", "programid", "nid", "rcid", "field",
    "magzpsci", "magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc", "rbversion",
}  # fmt: skip
"""What is not null in all upper limits of 714 real packets."""


def packets_of(survey: Survey, programs: tuple[Program, ...] = tuple(Program)) -> list[dict]:
    return [decode_alert(data) for _, data in survey.log.replay(programs=programs)]


def test_a_transient_is_told_with_its_detections_limits_and_counts(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    place = np.array([0.005]), np.array([20.01])
    nights = (61000.2, 61003.2, 61005.3, 61008.2, 61040.3)
    for night, mjd in enumerate(nights):
        record = make_record(mjd)
        seen = place if night not in (1, 3) else (np.zeros(0), np.zeros(0))
        survey.observe(record, make_sources(record, *seen))
    packets = packets_of(survey)
    assert [p["candidate"]["ndethist"] for p in packets] == [1, 2, 3]
    assert [p["candidate"]["ncovhist"] for p in packets] == [1, 3, 5]
    assert len({p["objectId"] for p in packets}) == 1
    third = packets[1]
    assert [item["candid"] is None for item in third["prv_candidates"]] == [False, True]
    assert third["candidate"]["jdstarthist"] == pytest.approx(jd_utc(nights[0]), abs=1e-8)
    assert third["candidate"]["jdendhist"] == third["candidate"]["jd"] == pytest.approx(jd_utc(nights[2]), abs=1e-8)
    last = packets[2]
    assert last["prv_candidates"] is None, "everything is more than 30 days old"
    assert [round(item["jd"] - jd_utc(nights[2]), 3) for item in packets[1]["fp_hists"]] == [-2.1]


def test_no_field_of_a_candidate_is_null_and_upper_limits_hold_the_fields_of_real_ones(
    make_survey: Callable[..., Survey],
) -> None:
    survey = make_survey()
    for mjd, n in ((61000.2, 0), (61001.2, 2), (61002.2, 2)):
        record = make_record(mjd)
        survey.observe(record, make_sources(record, np.array([0.005, 359.95])[:n], np.array([20.01, 20.03])[:n]))
    for packet in packets_of(survey):
        candidate = packet["candidate"]
        assert tuple(candidate) == field_names("candidate")
        assert not [name for name, value in candidate.items() if value is None]
        assert all(math.isfinite(value) for value in candidate.values() if isinstance(value, float))
        assert all(candidate[name] is not None for name in DECENT_FILTER_KEYS)
        limits = [item for item in packet["prv_candidates"] if item["candid"] is None]
        assert limits
        for item in limits:
            assert {name for name, value in item.items() if value is not None} == LIMIT_FIELDS
            assert item["diffmaglim"] > 0
        for item in packet["fp_hists"] or []:
            assert not [name for name, value in item.items() if value is None]


def test_identifiers_follow_the_numbering_of_real_packets(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    record = make_record(61001.46310)
    survey.observe(record, make_sources(record, np.array([0.005, 0.01]), np.array([20.01, 20.02])))
    for k, packet in enumerate(packets_of(survey)):
        candidate = packet["candidate"]
        night, fraction = divmod(jd_utc(record.mjd_start) - 2400000.5 - 57754, 1.0)
        assert candidate["nid"] == int(night)
        assert candidate["pid"] == int(night) * 10**9 + int(fraction * 1e5) * 10**4 + 3 * 100 + 15
        assert candidate["candid"] == packet["candid"] == candidate["pid"] * 10**6 + 15000 + k
        assert candidate["tblid"] == k
        assert len(packet["objectId"]) == 12
        assert packet["objectId"][:5] == "GST25"
        assert packet["objectId"][5:].isalpha()


def test_a_negative_detection_has_the_magnitude_of_its_absolute_flux_and_a_positive_cutout(
    make_survey: Callable[..., Survey],
) -> None:
    survey = make_survey()
    record = make_record(61000.2)
    sources = make_sources(
        record, np.array([0.005]), np.array([20.01]), is_positive=False, psf_flux=-45_000.0, ap_flux=-44_000.0,
        ap_big_flux=1000.0, snr=-15.0,
    )  # fmt: skip
    survey.observe(record, sources)
    (packet,) = packets_of(survey)
    candidate = packet["candidate"]
    assert candidate["isdiffpos"] == "f"
    assert candidate["magpsf"] == pytest.approx(31.4 - 2.5 * math.log10(45_000), abs=1e-4)
    assert candidate["magapbig"] == -999.0, "a flux of the wrong sign has no magnitude"
    assert candidate["scorr"] == 15.0
    assert packet["cutoutDifference"]["fileName"].endswith("_targ_refmsci.fits.gz")
    assert decode_cutout(packet["cutoutDifference"]["stampData"])[31, 31] == 200.0
    assert candidate["dsnrms"] == pytest.approx(200.0 / 12.0, rel=1e-5)
    flux_err = 10 ** (0.4 * (31.4 - 20.5)) / 5
    assert candidate["ssnrms"] == pytest.approx(45_000 / flux_err, rel=1e-5)


def test_neighbours_are_the_three_nearest_and_the_nearest_stars(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    record = make_record(61000.2)
    offsets = np.array([4.0, 1.0, 20.0, 29.0, 60.0])
    n = len(offsets)
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in REFCAT.columns}
    values |= {
        "ref_id": np.arange(n) + 100, "ra": np.full(n, 0.005), "dec": 20.01 + offsets / 3600.0,
        "epoch": np.full(n, 2016.0), "mag_g": np.full(n, 18.0), "mag_r": np.array([17.5, 17.5, 17.5, 17.5, 12.0]),
        "mag_i": np.full(n, np.nan), "mag_z": np.full(n, np.nan), "is_extended": offsets == 4.0,
        "star_score": np.full(n, np.nan),
    }  # fmt: skip
    reference = {column.name: np.zeros(1, dtype=column.dtype) for column in SOURCE.columns}
    reference |= {"ra": np.array([0.005]), "dec": np.array([20.01 + 2.0 / 3600]), "mag": np.array([19.5])}
    survey.observe(
        record, make_sources(record, np.array([0.005]), np.array([20.01])),
        refcat=REFCAT.catalog(values), reference_sources=SOURCE.catalog(reference),
    )  # fmt: skip
    (packet,) = packets_of(survey)
    c = packet["candidate"]
    assert [c[f"objectidps{k}"] for k in (1, 2, 3)] == [101, 100, 102]
    assert [c[f"distpsnr{k}"] for k in (1, 2, 3)] == pytest.approx([1.0, 4.0, 20.0], abs=1e-3)
    assert [c[f"sgscore{k}"] for k in (1, 2, 3)] == [1.0, 0.0, 1.0]
    assert (c["nmtchps"], c["simag1"]) == (4, -999.0)
    assert (c["neargaia"], c["neargaiabright"]) == pytest.approx((1.0, 60.0), abs=1e-3)
    assert c["distnr"] == pytest.approx(2.0, abs=1e-3)
    assert (c["magnr"], c["decnr"]) == (19.5, pytest.approx(20.01 + 2.0 / 3600))


def test_a_graded_score_is_told_where_the_catalog_has_one_and_a_galaxy_is_no_star_of_gaia(
    make_survey: Callable[..., Survey],
) -> None:
    survey = make_survey()
    record = make_record(61000.2)
    offsets, n = np.array([1.0, 4.0, 20.0]), 3
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in REFCAT.columns}
    values |= {
        "ref_id": np.arange(n), "ra": np.full(n, 0.005), "dec": 20.01 + offsets / 3600.0, "epoch": np.full(n, 2025.0),
        "mag_r": np.full(n, 12.0), "is_extended": offsets == 1.0, "star_score": np.array([0.25, 0.75, np.nan]),
    }  # fmt: skip
    survey.observe(record, make_sources(record, np.array([0.005]), np.array([20.01])), refcat=REFCAT.catalog(values))
    (packet,) = packets_of(survey)
    c = packet["candidate"]
    assert [c[f"sgscore{k}"] for k in (1, 2, 3)] == [0.25, 0.75, 1.0]
    assert (c["neargaia"], c["neargaiabright"]) == pytest.approx((4.0, 4.0), abs=1e-3)


def test_detections_that_fail_the_cuts_are_stored_but_not_alerted(make_survey: Callable[..., Survey]) -> None:
    from gueststar.core.bits import SourceFlag

    survey = make_survey()
    record = make_record(61000.2)
    ra, dec = 0.005 + 0.01 * np.arange(5), np.full(5, 20.01)
    sources = make_sources(
        record, ra, dec, reliability=np.array([0.9, 0.05, np.nan, 0.9, 0.9]),
        flags=np.array([0, 0, 0, int(SourceFlag.SATELLITE), int(SourceFlag.BAD_PIXEL)]),
    )  # fmt: skip
    outcome = survey.observe(record, sources)
    assert outcome.not_alerted == {"not scored": 1, "low reliability": 1, "flagged": 1}
    assert outcome.receipt.n_alerts == 2, "a defect in the core is no reason"
    assert survey.store.sources_of_night(record.day_obs).n_rows == 5


def test_engineering_exposures_make_no_alerts(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    record = make_record(61000.2, program=0)
    outcome = survey.observe(record, make_sources(record, np.array([0.005]), np.array([20.01])))
    assert outcome.receipt.n_alerts == 0
    assert outcome.not_alerted == {"engineering program": 1}
