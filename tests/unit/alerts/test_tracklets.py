"""Moving things are linked, standing ones are not."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gueststar.algorithms.association.sky_index import separation_arcsec, sky_positions, unit_vectors
from gueststar.algorithms.moving.motion import extrapolate, fit_motion
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import DIA_SOURCE
from gueststar.pipelines.moving.tracklets import LinkTracklets


def detections(mjd: float, ra: np.ndarray, dec: np.ndarray, *, error: float = 0.15, mag: float = 19.0) -> Catalog:
    n = len(ra)
    flux = 10 ** (0.4 * (31.4 - np.broadcast_to(mag, n)))
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in DIA_SOURCE.columns}
    values |= {
        "dia_source_id": np.arange(n) + round(mjd * 1e6) * 1000, "mjd_tai": np.full(n, mjd), "ra": ra % 360.0,
        "dec": dec, "ra_err": np.full(n, error), "dec_err": np.full(n, error), "is_positive": np.ones(n, dtype=bool),
        "psf_flux": flux, "psf_flux_err": flux * 0.05, "reliability": np.full(n, 0.9),
        "reference_distance": np.full(n, np.nan), "band_id": np.full(n, 2),
    }  # fmt: skip
    return DIA_SOURCE.catalog(values)


def moved(ra: float, dec: float, rate: float, angle: float, minutes: float) -> tuple[float, float]:
    """Move along the great circle that starts in the direction ``angle``."""
    start, step, theta = unit_vectors(ra, dec), np.radians(rate * minutes / 3600.0), np.radians(angle)
    east = np.array([-np.sin(np.radians(ra)), np.cos(np.radians(ra)), 0.0])
    direction = np.cos(theta) * np.cross(start, east) + np.sin(theta) * east
    new_ra, new_dec = sky_positions(np.cos(step) * start + np.sin(step) * direction)
    return float(new_ra), float(new_dec)


def night(
    rng: np.random.Generator,
    movers: list[tuple[float, float, float, float]],
    *,
    ra: float,
    dec: float,
    n_false: int,
    times: np.ndarray,
) -> Catalog:
    made = []
    for mjd in times:
        places = [moved(*mover, (mjd - times[0]) * 1440.0) for mover in movers]
        places += [
            (ra + 0.5 * (rng.random() - 0.5) / np.cos(np.radians(dec)), dec + 0.5 * (rng.random() - 0.5))
            for _ in range(n_false)
        ]
        true_ra, true_dec = np.array(places).T
        noise = rng.normal(0.0, 0.15 / 3600.0, (2, len(places)))
        made.append(detections(float(mjd), true_ra + noise[0] / np.cos(np.radians(dec)), true_dec + noise[1]))
    return concatenate(made)


@pytest.mark.parametrize(("ra", "dec"), [(359.99, 10.0), (120.0, -60.0), (30.0, 84.0)])
def test_movers_are_linked_with_their_rate_and_direction_and_little_else(ra: float, dec: float) -> None:
    rng = np.random.default_rng(5)
    truth = [(0.1, 45.0), (0.6, 200.0), (3.0, 300.0), (12.0, 80.0)]
    movers = [(ra + (0.1 * k - 0.15) / np.cos(np.radians(dec)), dec - 0.1 + 0.05 * k, *t) for k, t in enumerate(truth)]
    times = 61000.2 + np.array([0.0, 31.0, 64.0, 90.0]) / 1440.0
    found = LinkTracklets().run(night(rng, movers, ra=ra, dec=dec, n_false=15, times=times))
    table = found.tracklets
    recovered = sorted(zip(table["rate_arcsec_per_min"], table["position_angle_deg"], strict=True))
    assert len(recovered) == len(truth)
    for (rate, angle), (true_rate, true_angle) in zip(recovered, sorted(truth), strict=True):
        assert rate == pytest.approx(true_rate, rel=0.02, abs=0.01)
        assert angle == pytest.approx(true_angle, abs=8.0 if true_rate < 0.5 else 2.5)
    assert set(table["n_detections"].tolist()) == {4}
    assert np.all(table["false_probability"] < 0.05)
    used = [member for members in found.members for member in members.dia_source_ids]
    assert len(used) == len(set(used))


def test_standing_sources_and_unrelated_detections_make_no_tracklets() -> None:
    rng = np.random.default_rng(8)
    n_found = 0
    for _ in range(5):
        times = 61000.2 + np.array([0.0, 25.0, 52.0]) / 1440.0
        standing = [(100.0 + 0.02 * k, 5.0 + 0.01 * k, 0.0, 0.0) for k in range(12)]
        n_found += len(LinkTracklets().run(night(rng, standing, ra=100.1, dec=5.1, n_false=12, times=times)).members)
    assert n_found <= 1


def test_shared_detections_go_to_the_longer_tracklet() -> None:
    times = 61000.2 + np.array([0.0, 20.0, 40.0, 60.0]) / 1440.0
    rng = np.random.default_rng(2)
    crossing = [(50.0, 0.0, 1.0, 90.0), (50.0 + 40.0 / 3600, -20.0 / 3600, 1.0, 0.0)]
    whole = night(rng, crossing, ra=50.0, dec=0.0, n_false=0, times=times)
    found = LinkTracklets().run(whole)
    used = [member for members in found.members for member in members.dia_source_ids]
    assert len(used) == len(set(used))
    assert found.tracklets["n_detections"].max() == 4


def test_a_link_of_uneven_brightness_is_refused() -> None:
    times = 61000.2 + np.array([0.0, 20.0, 40.0]) / 1440.0
    rows = []
    for k, mjd in enumerate(times):
        place = moved(50.0, 0.0, 1.0, 90.0, (mjd - times[0]) * 1440.0)
        rows.append(detections(float(mjd), np.array([place[0]]), np.array([place[1]]), mag=19.0 + 1.5 * (k == 1)))
    assert LinkTracklets().run(concatenate(rows)).members == ()


def test_flagged_known_and_host_detections_are_not_linked() -> None:
    times = 61000.2 + np.array([0.0, 20.0, 40.0]) / 1440.0
    whole = night(np.random.default_rng(1), [(50.0, 0.0, 1.0, 90.0)], ra=50.0, dec=0.0, n_false=0, times=times)
    link = LinkTracklets()
    assert len(link.run(whole).members) == 1
    assert link.run(whole.replace(reference_distance=np.full(3, 0.5))).members == ()
    assert link.run(whole.replace(reliability=np.full(3, 0.01))).members == ()
    objects = np.array([7, 8, 9])
    assert link.run(whole.replace(dia_object_id=objects), earlier_objects=objects[:1]).members == ()
    assert link.run(DIA_SOURCE.empty()).tracklets.n_rows == 0


def test_extrapolation_follows_the_great_circle() -> None:
    a, b = unit_vectors(10.0, 80.0), unit_vectors(30.0, 81.0)
    for fraction in (0.0, 1.0, 2.0, -0.5):
        point = extrapolate(a, b, np.asarray(fraction))
        assert separation_arcsec(point, a) == pytest.approx(abs(fraction) * separation_arcsec(a, b), rel=1e-9, abs=1e-6)
        assert np.dot(point, np.cross(a, b)) == pytest.approx(0.0, abs=1e-12)


def test_the_fit_of_motion_has_honest_errors() -> None:
    rng = np.random.default_rng(4)
    mjd = 61000.0 + np.array([0.0, 0.02, 0.05])
    pulls, chi2 = [], []
    for _ in range(300):
        places = np.array([moved(0.0, 45.0, 1.5, 130.0, (t - mjd[0]) * 1440.0) for t in mjd])
        noise = rng.normal(0.0, 0.2 / 3600.0, (3, 2))
        vectors = unit_vectors(places[:, 0] + noise[:, 0] / np.cos(np.radians(45.0)), places[:, 1] + noise[:, 1])
        motion = fit_motion(vectors, mjd, np.full(3, 0.2), np.full(3, 0.2))
        pulls.append((motion.rate - 1.5) / motion.rate_err)
        chi2.append(motion.chi2)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
    assert np.mean(chi2) == pytest.approx(2.0, abs=0.3)


def test_a_night_full_of_artefacts_is_linked_in_bounded_time_and_says_so() -> None:
    rng = np.random.default_rng(3)
    times = 61000.2 + 6.0 * np.arange(14) / 1440.0
    mover = (50.0, 0.0, 0.5, 120.0)
    whole = night(rng, [mover], ra=50.0, dec=0.0, n_false=200, times=times)
    start = time.process_time()
    found = LinkTracklets().run(whole)
    assert time.process_time() - start < 20.0
    assert found.metrics["n_bounded_exposures"] > 6
    assert 1.0 < found.metrics["least_reach_arcsec"] < 20.0 * 180.0
    longest = found.tracklets.select(found.tracklets["n_detections"] >= 11)
    assert longest.n_rows == 1
    assert longest["rate_arcsec_per_min"][0] == pytest.approx(0.5, rel=0.02)


def test_a_night_of_few_detections_is_searched_whole() -> None:
    times = 61000.2 + np.array([0.0, 31.0, 64.0, 90.0]) / 1440.0
    whole = night(np.random.default_rng(5), [(50.0, 0.0, 1.0, 90.0)], ra=50.0, dec=0.0, n_false=15, times=times)
    found = LinkTracklets().run(whole)
    assert found.metrics["n_bounded_exposures"] == 0
    assert found.metrics["least_reach_arcsec"] is None
