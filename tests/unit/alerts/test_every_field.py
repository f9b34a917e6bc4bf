"""Every field of a packet is its truth or the sentinel that its rule declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gueststar.algorithms.vetting.earlier import reliability_with_earlier
from gueststar.core import times
from gueststar.core.ids import candid_parts
from gueststar.formats.avro import decode_alert, field_names
from gueststar.formats.ztf_fields import ALWAYS_IN_A_LIMIT, MISSING, MISSING_FLUX, field_rules
from gueststar.model.columns import REFCAT, SOURCE
from tests.unit.alerts.conftest import REFERENCE, Survey, make_record, make_sources

RA, DEC = 0.005, 20.01
NIGHTS = (61000.2, 61003.2, 61005.3)
RECORDS = ("candidate", "prv_candidate", "fp_hist")
MEASURED = {
    "x": 511.25, "y": 487.5, "psf_flux": -45_000.0, "psf_flux_err": 3000.0, "chi2": 1.25, "ap_flux": -40_000.0,
    "ap_flux_err": 4000.0, "ap_big_flux": -50_000.0, "ap_big_flux_err": 6000.0, "sky": 25.0, "fwhm": 2.5,
    "a_image": 1.2, "b_image": 0.8, "class_star": 0.75, "edge_distance": 321.0, "n_negative": 3, "n_bad": 1,
    "sum_ratio": 0.875, "snr": -15.5, "reliability": 0.8125, "stamp_reliability": 0.6875, "is_positive": False,
}  # fmt: skip
NJY_PER_ELECTRON = 10 ** (0.4 * (31.4 - 26.0))
"""At the zero point of the told visits."""


def magnitude(flux: float) -> float:
    return 31.4 - 2.5 * math.log10(flux)


def magnitude_error(flux: float, error: float) -> float:
    return 2.5 / math.log(10.0) * error / flux


def stars() -> Any:
    """Return three catalog objects at 1, 4 and 20 arcsec and a bright star at 60, all with four magnitudes."""
    offsets = np.array([4.0, 1.0, 20.0, 60.0])
    values = {column.name: np.zeros(4, dtype=column.dtype) for column in REFCAT.columns}
    values |= {
        "ref_id": np.array([12, 11, 13, 14]), "ra": np.full(4, RA), "dec": DEC + offsets / 3600.0,
        "epoch": np.full(4, 2025.0), "is_extended": offsets == 4.0, "star_score": np.full(len(offsets), np.nan),
        "mag_g": np.array([18.5, 18.0, 19.0, 12.5]), "mag_r": np.array([17.75, 17.25, 18.25, 12.0]),
        "mag_i": np.array([17.5, 17.0, 18.0, 12.0]), "mag_z": np.array([17.25, 16.75, 17.75, 12.0]),
    }  # fmt: skip
    return REFCAT.catalog(values)


def reference_sources() -> Any:
    values = {column.name: np.zeros(1, dtype=column.dtype) for column in SOURCE.columns}
    values |= {
        "ra": [RA], "dec": [DEC + 2.0 / 3600], "mag": [19.5], "mag_err": [0.0625], "chi2": [1.44], "sharpness": [0.25],
    }  # fmt: skip
    return SOURCE.catalog({name: np.asarray(value) for name, value in values.items()})


def observe(survey: Survey, *, knows_all: bool) -> None:
    """A negative detection, a night with nothing, and the detection again."""
    measured = (
        MEASURED
        if knows_all
        else {
            "ap_flux": 500.0,
            "fwhm": np.nan,
            "stamp_reliability": np.nan,
            "is_positive": False,
            "psf_flux": -45_000.0,
        }
    )
    around = {"refcat": stars(), "reference_sources": reference_sources()} if knows_all else {}
    for night, mjd in enumerate(NIGHTS):
        record = make_record(mjd)
        places = (np.array([RA]), np.array([DEC])) if night != 1 else (np.zeros(0), np.zeros(0))
        sources = make_sources(record, *places, **(measured if night != 1 else {}))
        if night != 1 and knows_all:  # numbered as a negative detection is
            sources = sources.replace(dia_source_id=sources["dia_source_id"] - 5000)
        survey.observe(record, sources, **around)


@pytest.fixture
def told(make_survey: Callable[..., Survey]) -> dict[str, Any]:
    """The second packet of a detection of which everything is known."""
    survey = make_survey()
    observe(survey, knows_all=True)
    return decode_alert(list(survey.log.replay())[-1][1])


def detection_truth(mjd: float) -> dict[str, Any]:
    """Return what a packet must tell of the detection on one night, in both records."""
    record = make_record(mjd)
    pid = candid_parts(record.pid * 10**6 + 10_000).pid
    magpsf, magap, magapbig = magnitude(45_000.0), magnitude(40_000.0), magnitude(50_000.0)
    return exposure_truth(mjd) | {
        "candid": pid * 10**6 + 10_000, "isdiffpos": "f", "tblid": 0, "xpos": 512.25, "ypos": 488.5,
        "ra": RA, "dec": DEC, "magpsf": magpsf, "sigmapsf": magnitude_error(45_000.0, 3000.0), "chipsf": 1.25,
        "magap": magap, "sigmagap": magnitude_error(40_000.0, 4000.0), "distnr": 2.0, "magnr": 19.5, "sigmagnr": 0.0625,
        "chinr": 1.2, "sharpnr": 0.25, "sky": 25.0 / NJY_PER_ELECTRON, "magdiff": magap - magpsf, "fwhm": 2.5,
        "classtar": 0.75, "mindtoedge": 321.0, "magfromlim": 20.5 - magap, "seeratio": 2.0 / 2.5, "aimage": 1.2,
        "bimage": 0.8, "aimagerat": 0.48, "bimagerat": 0.32, "elong": 1.5, "nneg": 3, "nbad": 1, "rb": 0.8125,
        "sumrat": 0.875, "magapbig": magapbig, "sigmagapbig": magnitude_error(50_000.0, 6000.0),
        "ranr": RA, "decnr": DEC + 2.0 / 3600, "scorr": 15.5,
    }  # fmt: skip


def exposure_truth(mjd: float) -> dict[str, Any]:
    """Return what every item of the history must tell of its exposure."""
    night, fraction = divmod(times.jd_utc(mjd) - 2400000.5 - 57754, 1.0)
    return {
        "jd": times.jd_utc(mjd), "fid": 2, "pid": int(night) * 10**9 + int(fraction * 1e5) * 10**4 + 3 * 100 + 15,
        "diffmaglim": 20.5, "pdiffimfilename": "difference.fits", "programpi": "Yang Weide", "programid": 1,
        "nid": int(night), "rcid": 3, "field": 7, "magzpsci": 26.0, "magzpsciunc": 0.01, "magzpscirms": 0.02,
        "clrcoeff": 0.1, "clrcounc": 0.01, "rbversion": "trees-1",
    }  # fmt: skip


def candidate_truth() -> dict[str, Any]:
    filtered = 45_000.0 / (10 ** (0.4 * (31.4 - 20.5)) / 5)
    pixel = 200.0 / 12.0
    objects = {1: (11, 18.0, 17.25, 17.0, 16.75, 1.0, 1.0), 2: (12, 18.5, 17.75, 17.5, 17.25, 0.0, 4.0)}
    objects[3] = (13, 19.0, 18.25, 18.0, 17.75, 1.0, 20.0)
    names = ("objectidps", "sgmag", "srmag", "simag", "szmag", "sgscore", "distpsnr")
    near = {f"{name}{k}": value for k, row in objects.items() for name, value in zip(names, row, strict=True)}
    first, last = times.jd_utc(NIGHTS[0]), times.jd_utc(NIGHTS[-1])
    return detection_truth(NIGHTS[-1]) | near | {
        "ssdistnr": MISSING, "ssmagnr": MISSING, "ssnamenr": "null", "ndethist": 2, "ncovhist": 3,
        "jdstarthist": first, "jdendhist": last, "tooflag": 0, "nmtchps": 3, "rfid": 42,
        "jdstartref": times.jd_utc(REFERENCE.mjd_first), "jdendref": times.jd_utc(REFERENCE.mjd_last),
        "nframesref": 12, "dsnrms": pixel, "ssnrms": filtered, "dsdiff": pixel - filtered, "nmatches": 300,
        "zpclrcov": -0.7 * 0.01**2, "zpmed": 26.0 + 0.1 * 0.7, "clrmed": 0.7, "clrrms": 0.3, "neargaia": 1.0,
        "neargaiabright": 60.0, "maggaia": gaia_g_of(17.25, 17.0), "maggaiabright": gaia_g_of(12.0, 12.0),
        "exptime": 30.0, "drb": 0.6875, "drbversion": "none",
    }  # fmt: skip


def gaia_g_of(r: float, i: float) -> float:
    """Return G by the relation of Riello et al. 2021 (table C.2)."""
    colour = r - i
    return r - 0.01664 + 0.2662 * colour - 0.649 * colour**2 + 0.08227 * colour**3


def forced_truth() -> dict[str, Any]:
    """Return what the record of the empty night tells; its flux is the one that the test's survey measured."""
    mjd = NIGHTS[1]
    flux = 1e4 * (DEC % 1.0) + mjd % 1.0
    exposure = exposure_truth(mjd)
    told = {name: exposure[name] for name in field_names("fp_hist") if name in exposure}
    return told | {
        "rfid": 42, "sciinpseeing": 2.1, "scibckgnd": 900.0, "scisigpix": 30.0, "exptime": 30.0, "adpctdif1": 0.05,
        "adpctdif2": 0.06, "forcediffimflux": flux / NJY_PER_ELECTRON, "forcediffimfluxunc": 900.0 / NJY_PER_ELECTRON,
        "procstatus": "0", "distnr": 2.0, "ranr": RA, "decnr": DEC + 2.0 / 3600, "magnr": 19.5, "sigmagnr": 0.0625,
        "chinr": 1.2, "sharpnr": 0.25,
    }  # fmt: skip


def assert_tells(record: dict[str, Any], truth: dict[str, Any], names: tuple[str, ...]) -> None:
    assert set(truth) == set(names), "the truth of every field is told"
    for name in names:
        value, true = record[name], truth[name]
        if not isinstance(true, float):
            assert value == true, name
            continue
        tolerance = 1e-9 if name in ("ra", "dec", "ranr", "decnr") else 1e-8 if name.startswith("jd") else 0.0
        assert value == pytest.approx(true, rel=0.0 if tolerance else 2e-4, abs=tolerance or 1e-6), name


def test_every_field_of_a_candidate_has_its_truth(told: dict[str, Any]) -> None:
    assert_tells(told["candidate"], candidate_truth(), field_names("candidate"))


def test_every_field_of_an_earlier_detection_and_of_an_upper_limit_has_its_truth(told: dict[str, Any]) -> None:
    earlier, limit = told["prv_candidates"]
    unknown = dict.fromkeys(("ssdistnr", "ssmagnr", "ssnamenr"))
    assert_tells(earlier, detection_truth(NIGHTS[0]) | unknown, field_names("prv_candidate"))
    blank = dict.fromkeys(field_names("prv_candidate"))
    assert_tells(limit, blank | exposure_truth(NIGHTS[1]), field_names("prv_candidate"))


def test_every_field_of_a_forced_flux_has_its_truth(told: dict[str, Any]) -> None:
    (forced,) = told["fp_hists"]
    assert_tells(forced, forced_truth(), field_names("fp_hist"))


def test_fields_of_our_own_have_their_truth(told: dict[str, Any]) -> None:
    """The forced flux of the empty night and the detection of the first one have a say."""
    flux = 1e4 * (DEC % 1.0) + NIGHTS[1] % 1.0
    earlier = np.array([[flux, MEASURED["psf_flux"]]]), np.array([[900.0, MEASURED["psf_flux_err"]]])
    truth = reliability_with_earlier(
        np.array([MEASURED["reliability"]]), flux=np.array([MEASURED["psf_flux"]]), is_positive=np.array([False]),
        is_near_bright=np.array([False]), earlier_flux=earlier[0], earlier_flux_err=earlier[1],
    )  # fmt: skip
    assert told["rbhist"] == pytest.approx(truth[0], abs=1e-6)
    assert told["rbhist"] > told["candidate"]["rb"]
    assert told["nrbhist"] == 2


def test_identifiers_decode_and_a_rerun_gives_the_same_bytes(make_survey: Callable[..., Survey]) -> None:
    runs = []
    for _ in range(2):
        survey = make_survey()
        observe(survey, knows_all=True)
        runs.append([data for _, data in survey.log.replay()])
    assert runs[0] == runs[1]
    for data in runs[0]:
        packet = decode_alert(data)
        parts = candid_parts(packet["candid"])
        c = packet["candidate"]
        assert (parts.pid, parts.serial, parts.is_positive) == (c["pid"], c["tblid"], c["isdiffpos"] == "t")
        assert c["pid"] // 10**9 == c["nid"]
        assert c["pid"] % 10**4 // 100 == c["rcid"]


def unknown_items(make_survey: Callable[..., Survey]) -> Iterator[tuple[str, dict[str, Any]]]:
    survey = make_survey()
    observe(survey, knows_all=False)
    packet = decode_alert(list(survey.log.replay())[-1][1])
    yield "candidate", packet["candidate"]
    yield from (("prv_candidate", item) for item in packet["prv_candidates"])
    yield from (("fp_hist", item) for item in packet["fp_hists"])


def test_what_is_not_known_is_the_sentinel_that_is_declared(make_survey: Callable[..., Survey]) -> None:
    seen: set[tuple[str, str]] = set()
    for record, item in unknown_items(make_survey):
        rules = {rule.name: rule for rule in field_rules(record)}
        assert set(rules) == set(item)
        for name, value in item.items():
            if value is None or value in (MISSING, MISSING_FLUX, "null"):
                assert value in rules[name].unknown, (record, name, value)
                seen.add((record, name))
    around = {"distnr", "ranr", "decnr", "magnr", "sgscore1", "szmag3", "objectidps2", "neargaia", "maggaiabright"}
    assert {("candidate", name) for name in around | {"magap", "fwhm", "seeratio", "drb", "ssnamenr"}} <= seen
    assert ("fp_hist", "distnr") in seen


def test_the_rules_cover_every_field_and_nothing_else() -> None:
    sizes = {record: len(list(field_rules(record))) for record in ("alert", *RECORDS, "cutout")}
    assert sizes == {"alert": 12, "candidate": 103, "prv_candidate": 57, "fp_hist": 29, "cutout": 2}
    for record in RECORDS:
        for rule in field_rules(record):
            assert rule.meaning
            assert bool(rule.unknown) == bool(rule.reason)
    always = {rule.name for rule in field_rules("prv_candidate") if None not in rule.unknown}
    assert always == set(ALWAYS_IN_A_LIMIT)
