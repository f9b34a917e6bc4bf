"""What is told to the Minor Planet Center: mid-exposure places, trails with errors along and across."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.core.errors import DataError
from gueststar.core.times import mjd_tai_from_utc
from gueststar.formats.ades import AdesHeader, AdesObservation, ades_text
from gueststar.model.catalog import concatenate
from gueststar.model.columns import DIA_SOURCE
from gueststar.pipelines.moving.astrometry import AstrometryConfig, TellAstrometry, short_name
from gueststar.pipelines.moving.tracklets import LinkTracklets
from gueststar.pipelines.night.movers import tracklet_rows
from tests.unit.alerts.test_tracklets import night
from tests.unit.alerts.test_trails import START, trail

HEADER = AdesHeader("T09", "A. Curie", ("A. Curie", "B. Abel"), ("A. Curie",), "Reflector", 1.2)


def table(text: str) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if not line.startswith(("#", "!"))]
    names = [name.strip() for name in lines[0].split("|")]
    return [dict(zip(names, map(str.strip, line.split("|")), strict=True)) for line in lines[1:]]


def test_a_file_has_the_header_and_the_fields_of_the_standard() -> None:
    mjd = mjd_tai_from_utc("2026-03-01T04:05:06.789")
    text = ades_text(HEADER, [AdesObservation("AB12", mjd, -0.5, -12.25, 0.2, 0.1, mag=19.123, mag_err=0.05, band="r")],
                     catalog="Gaia3")  # fmt: skip
    assert text.startswith("# version=2022\n# observatory\n! mpcCode T09\n# submitter\n! name A. Curie\n# observers\n")
    assert "! aperture 1.2\n" in text
    (row,) = table(text)
    assert row["obsTime"] == "2026-03-01T04:05:06.789Z"
    assert (row["trkSub"], row["stn"], row["astCat"], row["mode"]) == ("AB12", "T09", "Gaia3", "CCD")
    assert (float(row["ra"]), float(row["dec"])) == (359.5, -12.25)
    assert (row["mag"], row["band"], row["rmsRA"], row["rmsDec"], row["rmsCorr"]) == (
        "19.12", "r", "0.100", "0.200", "0.000",
    )  # fmt: skip
    with pytest.raises(DataError, match="eight letters"):
        ades_text(HEADER, [AdesObservation("too_long_a_name", mjd, 0, 0, 1, 1)], catalog="UNK")


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_errors_of_a_trail_are_those_of_drawn_places(angle: float) -> None:
    rng = np.random.default_rng(1)
    along, across = rng.normal(0.0, 0.6, 200_000), rng.normal(0.0, 0.1, 200_000)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    east, north = along * sine - across * cosine, along * cosine + across * sine
    error_ra, error_dec, correlation = AdesObservation("A", 60000.0, 0.0, 0.0, 0.6, 0.1, angle).errors()
    assert (error_ra, error_dec) == pytest.approx((east.std(), north.std()), rel=0.02)
    assert correlation == pytest.approx(np.corrcoef(east, north)[0, 1], abs=0.02)


def test_tracklets_are_told_with_trails_marked_and_lone_ones_when_asked() -> None:
    rng = np.random.default_rng(5)
    mover = (50.0, 20.0, 30.0, 120.0)
    times = START + np.array([0.0, 15.0]) / 1440.0
    sources = night(rng, [mover], ra=50.0, dec=20.0, n_false=0, times=times)
    streaks = [trail(rng, mover, 24.0, number=1), trail(rng, mover, 40.0, number=2),
               trail(rng, (80.0, 0.0, 45.0, 10.0), 0.0, number=3)]  # fmt: skip
    streaks[2]["reliability"] = 0.99
    for row in streaks:
        row["position_angle_deg"] = 120.0 if row["streak_id"] < 3 else 10.0
    rows = tracklet_rows(LinkTracklets().run(sources, streaks=streaks))
    told = table(ades_text(HEADER, TellAstrometry().run(rows, sources, streaks, bands={2: "r"}), catalog="UNK"))
    assert [row["notes"] for row in told] == ["", "", "t", "t"]
    assert len({row["trkSub"] for row in told}) == 1
    assert told[2]["exp"] == "30"
    assert told[2]["remarks"].startswith("trailed 1")
    assert float(told[2]["rmsCorr"]) < -0.5, "along the trail is less sure"
    middle = 0.5 * (streaks[0]["ra_1"] + streaks[0]["ra_2"])
    assert float(told[2]["ra"]) == pytest.approx(middle, abs=1e-6)
    every = TellAstrometry(AstrometryConfig(is_lone_trail_told=True)).run(rows, sources, streaks, bands={})
    lone = [one for one in every if one.notes == "at"]
    assert [one.mjd_tai for one in lone] == [streaks[2]["mjd_begin"], streaks[2]["mjd_end"]]


def test_a_night_without_movers_is_a_header() -> None:
    nothing = concatenate([DIA_SOURCE.empty()])
    assert table(ades_text(HEADER, TellAstrometry().run([], nothing, [], bands={}), catalog="UNK")) == []


def test_names_of_tracklets_are_short_and_distinct() -> None:
    names = {short_name(number) for number in np.random.default_rng(2).integers(0, 2**62, 5000).tolist()}
    assert len(names) == 5000
    assert all(len(name) == 8 and name.isalnum() for name in names)
