"""A trail is two places at two times: it is linked with what it predicts, and is a tracklet by itself."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.algorithms.moving.motion import fit_motion
from gueststar.algorithms.moving.trails import is_on_trail
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import DIA_SOURCE
from gueststar.pipelines.moving.tracklets import LinkTracklets
from tests.unit.alerts.test_tracklets import detections, moved, night

EXPOSURE_S = 30.0
START = 61000.2


def trail(
    rng: np.random.Generator, mover: tuple[float, float, float, float], minutes: float, *,
    number: int, along: float = 0.3, across: float = 0.1, mag: float = 18.0,
) -> dict[str, Any]:  # fmt: skip
    """Return the streak of a mover (ra, dec, arcsec/min, position angle) in an exposure about some minutes later."""
    half = EXPOSURE_S / 120.0
    ends = [np.array(moved(*mover, minutes + k * half)) for k in (-1.0, 1.0)]
    sine, cosine = np.sin(np.radians(mover[3])), np.cos(np.radians(mover[3]))
    for end in ends:
        a, c = rng.normal(0.0, along), rng.normal(0.0, across)
        end += np.array([(a * sine - c * cosine) / np.cos(np.radians(end[1])), a * cosine + c * sine]) / 3600.0
    if rng.random() < 0.5:
        ends.reverse()
    (ra_1, dec_1), (ra_2, dec_2) = ends
    length = float(separation_arcsec(unit_vectors(ra_1, dec_1), unit_vectors(ra_2, dec_2)))
    begin = START + minutes / 1440.0 - EXPOSURE_S / 172800.0
    return {
        "streak_id": number, "visit": round(minutes * 10), "detector": 1, "mjd_begin": begin,
        "mjd_end": begin + EXPOSURE_S / 86400.0, "ra_1": ra_1 % 360.0, "dec_1": dec_1, "ra_2": ra_2 % 360.0,
        "dec_2": dec_2, "is_end_1_seen": True, "is_end_2_seen": True, "along_1_err": along, "along_2_err": along,
        "across_1_err": across, "across_2_err": across, "length": length, "length_err": along * np.sqrt(2.0),
        "length_fwhm": length / 2.0, "rate": length / EXPOSURE_S, "mag": mag, "snr": 15.0, "reliability": 0.9,
        "kind": "asteroid", "band_id": 2,
    }  # fmt: skip


def empty() -> Catalog:
    return DIA_SOURCE.empty()


@pytest.mark.parametrize(("ra", "dec"), [(359.99, 10.0), (120.0, -60.0), (30.0, 84.0)])
def test_trails_of_one_body_are_linked_and_tell_its_sense(ra: float, dec: float) -> None:
    rng = np.random.default_rng(3)
    movers = [(ra, dec, 12.0, 77.0), (ra, dec + 0.05, 40.0, 260.0), (ra, dec - 0.1, 120.0, 5.0)]
    rows = [
        trail(rng, mover, minutes, number=10 * k + n)
        for k, mover in enumerate(movers) for n, minutes in enumerate((0.0, 12.0, 31.0))
    ]  # fmt: skip
    found = LinkTracklets().run(empty(), streaks=rows)
    table = found.tracklets
    assert sorted(table["n_trailed"].tolist()) == [3, 3, 3]
    assert table["is_sense_known"].all()
    assert table["false_probability"].max() < 0.01
    for rate, angle, members in zip(
        table["rate_arcsec_per_min"], table["position_angle_deg"], found.members, strict=True
    ):
        mover = movers[members.streak_ids[0] // 10]
        assert {number // 10 for number in members.streak_ids} == {movers.index(mover)}
        assert rate == pytest.approx(mover[2], rel=0.01)
        assert angle == pytest.approx(mover[3], abs=2.5 if dec > 80.0 else 1.0)  # it turns along the path
        by_id = {row["streak_id"]: row for row in rows}
        for number, is_forward in zip(members.streak_ids, members.is_forward, strict=True):
            row = by_id[number]
            order = (1, 2) if is_forward else (2, 1)
            step = [unit_vectors(row[f"ra_{k}"], row[f"dec_{k}"]) for k in order]
            ahead = unit_vectors(*moved(mover[0], mover[1], mover[2], mover[3], 1000.0))
            assert separation_arcsec(step[1], ahead) < separation_arcsec(step[0], ahead)


def test_a_trail_is_linked_with_point_detections_of_other_exposures() -> None:
    rng = np.random.default_rng(5)
    mover = (50.0, 20.0, 9.0, 120.0)
    times = START + np.array([0.0, 15.0, 33.0]) / 1440.0
    sources = night(rng, [mover], ra=50.0, dec=20.0, n_false=8, times=times)
    rows = [trail(rng, mover, 24.0, number=1)]
    found = LinkTracklets().run(sources, streaks=rows)
    best = found.tracklets.select(np.flatnonzero(found.tracklets["n_trailed"] == 1))
    assert best["n_detections"].tolist() == [4]
    assert best["is_sense_known"].all()
    assert best["rate_arcsec_per_min"][0] == pytest.approx(9.0, rel=0.01)
    assert best["position_angle_deg"][0] == pytest.approx(120.0, abs=0.5)


def test_one_trail_is_a_tracklet_whose_sense_is_not_known() -> None:
    rng = np.random.default_rng(7)
    pulls = []
    for number in range(200):
        (row,) = [trail(rng, (80.0, -30.0, 25.0, 40.0), 0.0, number=number)]
        found = LinkTracklets().run(empty(), streaks=[row])
        assert not found.tracklets["is_sense_known"].any()
        assert found.tracklets["false_probability"][0] == pytest.approx(0.1)
        pulls.append((found.tracklets["rate_arcsec_per_min"][0] - 25.0) / found.tracklets["rate_err"][0])
        angle = found.tracklets["position_angle_deg"][0] % 180.0
        assert angle == pytest.approx(40.0, abs=5.0 * float(found.tracklets["position_angle_err"][0]))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.25)


def test_unrelated_trails_and_detections_are_not_linked() -> None:
    rng = np.random.default_rng(11)
    n_linked = 0
    times = START + np.array([0.0, 20.0, 41.0]) / 1440.0
    for _ in range(20):
        rows = [
            trail(rng, (50.0 + 0.4 * rng.random(), 0.4 * rng.random(), rng.uniform(8, 60), rng.uniform(0, 360)),
                  minutes, number=n)
            for n, minutes in enumerate((0.0, 0.0, 20.0, 20.0, 41.0, 41.0))
        ]  # fmt: skip
        sources = night(rng, [], ra=50.2, dec=0.2, n_false=30, times=times)
        found = LinkTracklets().run(sources, streaks=rows).tracklets
        n_linked += int(((found["n_trailed"] > 0) & (found["n_detections"] > 1)).sum())
    assert n_linked <= 3  # of 120 trails


def test_pieces_of_a_trail_are_no_detections_of_their_own() -> None:
    rng = np.random.default_rng(2)
    mover = (50.0, 0.0, 40.0, 90.0)
    rows = [trail(rng, mover, 0.0, number=1), trail(rng, mover, 20.0, number=2)]
    pieces = concatenate(
        [detections(START + m / 1440.0, *np.array([moved(*mover, m + d) for d in (-0.2, 0.0, 0.2)]).T) for m in (0, 20)]
    )
    found = LinkTracklets().run(pieces, streaks=rows)
    assert found.metrics["n_candidates"] == 0
    assert found.tracklets["n_detections"].tolist() == [2]


def test_satellites_and_what_stays_on_its_pixels_are_no_trails() -> None:
    rng = np.random.default_rng(2)
    good = trail(rng, (50.0, 0.0, 40.0, 90.0), 0.0, number=1)
    link = LinkTracklets()
    assert link.run(empty(), streaks=[good]).metrics["n_trails"] == 1
    for change in ({"kind": "satellite"}, {"is_end_1_seen": False}, {"reliability": 0.2}, {"rate": 40.0}):
        assert link.run(empty(), streaks=[good | change]).metrics["n_trails"] == 0
    fixed = [{"link": "same pixels", "streak_ids": [1]}]
    assert link.run(empty(), streaks=[good], tracks=fixed).tracklets.n_rows == 0


def test_a_path_bent_by_parallax_is_still_one_body() -> None:
    rng = np.random.default_rng(9)
    mover = (50.0, 20.0, 15.0, 120.0)
    rows = [trail(rng, mover, minutes, number=n) for n, minutes in enumerate((0.0, 25.0, 50.0, 80.0))]
    for row in rows:  # 2e-4 of the velocity in a minute, across it
        minutes = (row["mjd_begin"] - START) * 1440.0
        aside = 0.5 * 2e-4 * 15.0 * minutes**2 / 3600.0
        for end in (1, 2):
            row[f"dec_{end}"] += aside * 0.866
            row[f"ra_{end}"] += aside * 0.5 / np.cos(np.radians(20.0))
    assert LinkTracklets().run(empty(), streaks=rows).tracklets["n_trailed"].tolist() == [4]


def test_a_night_of_many_trails_is_linked_fast() -> None:
    rng = np.random.default_rng(13)
    rows = [
        trail(rng, (50 + rng.random(), rng.random(), rng.uniform(8, 60), rng.uniform(0, 360)), 0.8 * m, number=m + n)
        for m in range(0, 200, 5) for n in range(5)
    ]  # fmt: skip
    sources = night(rng, [], ra=50.5, dec=0.5, n_false=100, times=START + 4.0 * np.arange(40) / 1440.0)
    sources = sources.replace(reliability=np.where(np.arange(sources.n_rows) % 5 == 0, 0.9, 0.0))
    start = time.process_time()
    LinkTracklets().run(sources, streaks=rows)
    assert time.process_time() - start < 8.0


def test_a_fit_with_errors_along_and_across_is_that_of_a_turned_frame() -> None:
    rng = np.random.default_rng(1)
    mjd = START + np.array([0.0, 0.3, 20.0, 20.3]) / 1440.0
    pulls = []
    for _ in range(300):
        places = np.array([moved(10.0, 60.0, 20.0, 35.0, (t - mjd[0]) * 1440.0) for t in mjd])
        along, across = rng.normal(0.0, 0.5, 4), rng.normal(0.0, 0.05, 4)
        sine, cosine = np.sin(np.radians(35.0)), np.cos(np.radians(35.0))
        ra = places[:, 0] + (along * sine + across * cosine) / 3600.0 / np.cos(np.radians(places[:, 1]))
        dec = places[:, 1] + (along * cosine - across * sine) / 3600.0
        motion = fit_motion(unit_vectors(ra, dec), mjd, np.full(4, 0.5), np.full(4, 0.05), along_deg=35.0)
        pulls.append(
            ((motion.rate - 20.0) / motion.rate_err, (motion.position_angle - 35.0) / motion.position_angle_err)
        )
    assert np.std(pulls, axis=0) == pytest.approx([1.0, 1.0], abs=0.15)


def test_what_lies_on_an_arc_is_told_from_what_lies_beyond_its_ends() -> None:
    first, second = unit_vectors(10.0, 80.0), unit_vectors(10.1, 80.0)
    places = unit_vectors(np.array([10.05, 10.0, 9.99, 10.05]), np.array([80.0, 80.0, 80.0, 80.002]))
    assert is_on_trail(places, first, second, width_arcsec=3.0).tolist() == [True, True, False, False]
