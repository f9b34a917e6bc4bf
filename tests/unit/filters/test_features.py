"""What the ready-made features of a history say, against what the test told or another code computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from gueststar.algorithms.alerts.history_features import FEATURES
from gueststar.algorithms.alerts.sky_frames import ecliptic, galactic
from gueststar.core.errors import DataError
from gueststar.formats.alert_table import alert_table, alert_table_schema, features_of
from gueststar.formats.avro import decode_alert

from .packets import detection, flux, limit, packet


def features(told: dict[str, Any]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in features_of([told]).items()}


def test_an_alert_without_a_past_tells_only_itself() -> None:
    found = features(packet())
    assert found["n_det_30d"] == found["n_det_1d"] == found["n_nights_30d"] == found["n_filters_30d"] == 1
    assert found["days_since_first"] == 0
    assert found["peak_mag"] == 19.0
    assert found["amplitude"] == 0
    unknown = ("days_since_previous", "rise_rate", "colour_g_r", "last_limit_mag", "offset_arcsec", "forced_snr_r")
    assert all(np.isnan(found[name]) for name in unknown)


def test_what_earlier_images_make_of_a_detection_can_be_asked_for_and_is_null_where_no_packet_tells_it() -> None:
    ours = packet() | {"rbhist": 0.75, "nrbhist": 2}
    off = packet() | dict.fromkeys(("rbhist", "nrbhist"))
    table = alert_table([ours, packet(), off])
    assert table["rbhist"].to_pylist() == [0.75, None, None], "ZTF's packets have no such field"
    assert table["nrbhist"].to_pylist() == [2, None, None]
    assert alert_table_schema().field("rbhist").metadata[b"doc"]
    with pytest.raises(DataError, match="rbhist is not of its kind"):
        alert_table([packet() | {"rbhist": "likely"}])


def test_detections_are_counted_by_window_and_sign() -> None:
    past = [detection(days, isdiffpos=sign) for days, sign in ((0.5, "t"), (3, "f"), (20, "1"), (29, "0"), (40, "t"))]
    found = features(packet(past=past))
    assert (found["n_det_1d"], found["n_det_7d"], found["n_det_30d"]) == (2, 3, 5)
    assert (found["n_positive_30d"], found["n_negative_30d"]) == (3, 2)
    assert found["n_nights_30d"] == 5
    assert found["days_since_first"] == pytest.approx(29)
    assert found["days_since_previous"] == pytest.approx(0.5)


def test_limits_before_the_first_detection_are_told_apart_from_the_last_ones() -> None:
    found = features(packet(past=[detection(2), limit(1, 20.1), limit(5, 20.8), limit(3.5, 20.6)]))
    assert (found["last_limit_mag"], found["days_since_limit"]) == pytest.approx((20.1, 1))
    assert (found["first_limit_mag"], found["days_limit_to_first"]) == pytest.approx((20.6, 1.5))
    assert found["n_limits_30d"] == 3


def test_the_rise_is_the_slope_that_polyfit_finds() -> None:
    rng = np.random.default_rng(2)
    days, errors = np.array([6.0, 4.9, 3.0, 2.1, 1.0]), np.array([0.1, 0.05, 0.2, 0.04, 0.08])
    mags = 18.0 + 0.3 * days + rng.normal(0, 0.3, 5)
    past = [detection(d, m, sigmapsf=e) for d, m, e in zip(days, mags, errors, strict=True)]
    past += [detection(12.0, 25.0), detection(0.5, 15.0, isdiffpos="f"), detection(0.4, 15.0, fid=1)]
    found = features(packet(past=past))
    x, y, e = (np.append(a, b) for a, b in ((-days, 0.0), (mags, 19.0), (errors, 0.1)))
    (slope, _), covariance = np.polyfit(x, y, 1, w=1 / e, cov="unscaled")
    chi2 = np.sum((y - np.polyval(np.polyfit(x, y, 1, w=1 / e), x)) ** 2 / e**2) / 4
    assert found["rise_rate"] == found["rise_rate_r"] == pytest.approx(-slope, rel=1e-9)
    assert found["rise_rate_err"] == pytest.approx(np.sqrt(covariance[0, 0] * max(chi2, 1)), rel=1e-9)
    assert np.isnan(found["rise_rate_g"])


def test_two_detections_within_an_hour_tell_no_rise() -> None:
    assert np.isnan(features(packet(past=[detection(0.02, 19.5)]))["rise_rate"])


def test_the_colour_is_that_of_the_last_night_with_both_filters() -> None:
    past = [detection(5.0, 18.0, fid=1), detection(5.1, 18.5), detection(1.05, 19.2, fid=1), detection(1.0, 19.0)]
    found = features(packet(past=[*past, detection(1.1, 18.8)]))
    assert found["colour_g_r"] == pytest.approx(19.2 - 18.9)
    assert found["colour_g_r_err"] == pytest.approx(np.hypot(0.1, 0.1 / np.sqrt(2)))
    assert found["days_since_g_r"] == pytest.approx(1.05)


def test_forced_fluxes_are_stacked_at_one_zero_point_without_the_bad_ones() -> None:
    past = [detection(2)]
    forced = [flux(d, 100.0, 50.0) for d in (5, 4, 3, 1)]
    forced += [flux(6, 40.0, 20.0, magzpsci=26.0 - 2.5 * np.log10(2.5))]  # the same flux at another zero point
    forced += [flux(3, 1e6, 1.0, procstatus="56,57"), flux(3, -99999.0, -99999.0), flux(2.5, 1e6, 1.0, fid=1)]
    found = features(packet(past=past, forced=forced))
    assert found["n_forced_30d"] == 6
    assert found["forced_snr_r"] == pytest.approx(2 * np.sqrt(5))
    assert found["forced_snr_before"] == pytest.approx(2 * np.sqrt(4))


def test_hosts_are_galaxies_and_movers_are_known_ones() -> None:
    fields = {"distpsnr1": 0.5, "sgscore1": 0.98, "srmag1": 17.0, "distpsnr2": 4.0, "sgscore2": 0.1, "srmag2": 18.5}
    found = features(packet(**fields, distpsnr3=-999.0, sgscore3=-999.0, ssdistnr=3.0))
    assert (found["host_distance"], found["host_score"], found["host_mag_r"]) == (4.0, 0.1, 18.5)
    assert found["star_distance"] == 0.5
    assert found["is_mover"] == 1
    assert features(packet(ssdistnr=-999.0))["is_mover"] == 0  # looked for, none found
    assert np.isnan(features(packet(ssdistnr=None))["is_mover"])


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9999, 41.0), (12.0, 89.9999)])
def test_the_offset_knows_no_special_place(ra: float, dec: float) -> None:
    here = SkyCoord(ra, dec, unit="deg")
    there = [here.directional_offset_by(angle * units.deg, 3 * units.arcsec) for angle in (80, 100)]
    past = [detection(1 + k, ra=p.ra.deg, dec=p.dec.deg) for k, p in enumerate(there)]
    assert features(packet(past=past, ra=ra, dec=dec))["offset_arcsec"] == pytest.approx(
        3 * np.cos(np.radians(10)), 1e-4
    )


def test_galactic_and_ecliptic_places_are_those_of_astropy() -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 50), np.degrees(np.arcsin(rng.uniform(-1, 1, 50)))
    places = SkyCoord(ra, dec, unit="deg")
    ours, theirs = galactic(ra, dec), places.galactic
    assert SkyCoord(*ours, unit="deg").separation(SkyCoord(theirs.l, theirs.b)).arcsec.max() < 0.05
    theirs = places.transform_to(BarycentricMeanEcliptic(equinox="J2000"))
    assert SkyCoord(*ecliptic(ra, dec), unit="deg").separation(SkyCoord(theirs.lon, theirs.lat)).arcsec.max() < 0.1


def test_a_batch_gives_each_packet_what_it_gives_alone() -> None:
    packets = [packet(k, past=[detection(0.3 * j + 0.1, 18 + 0.1 * j) for j in range(k)]) for k in range(1, 6)]
    together = features_of(packets)
    for row, one in enumerate(packets):
        for name, value in features(one).items():
            np.testing.assert_equal(together[name][row], value)


def test_whatever_a_packet_says_for_unknown_is_null_in_the_table() -> None:
    table = alert_table(
        [packet(1, magnr=-999.0, objectidps1=-999, drb=None, distnr=float("nan")), packet(2, magnr=17.5)]
    )
    assert table.schema.equals(alert_table_schema())
    rows = table.to_pylist()
    assert [row["magnr"] for row in rows] == [None, 17.5]
    unknown = ("objectidps1", "drb", "distnr", "ssnamenr", "ssdistnr", "rise_rate", "exptime")
    assert all(rows[0][name] is None for name in unknown)
    assert rows[0]["candid"] == 1
    assert rows[0]["n_det_30d"] == 1
    assert rows[0]["is_positive"] is True


def test_a_packet_without_a_place_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"packet 7: candidate.ra is None"):
        alert_table([packet(7, ra=None)])


def test_no_packets_give_an_empty_table() -> None:
    assert alert_table([]).num_rows == 0


def test_features_have_names_of_their_own() -> None:
    names = alert_table_schema().names
    assert len({name.lower() for name in names}) == len(names)
    assert {f.name for f in FEATURES} <= set(names)


@pytest.mark.real_data
def test_real_packets_of_all_versions_make_one_table(shared_data: Path) -> None:
    files = [f for f in sorted((shared_data / "alerts_ztf").glob("*/*.avro")) if f.parent.name[:4] in ("ampe", "kowa")]
    packets = [decode_alert(path.read_bytes()) for path in files]
    rows = alert_table(packets).to_pylist()
    for told, row in zip(packets, rows, strict=True):
        past = [p for p in told["prv_candidates"] or () if 0 <= told["candidate"]["jd"] - p["jd"] <= 30]
        assert row["candid"] == told["candid"]
        assert row["objectId"] == told["objectId"]
        assert row["n_det_30d"] == 1 + sum(p["candid"] is not None for p in past)
        assert row["n_limits_30d"] == sum(p["candid"] is None for p in past)
