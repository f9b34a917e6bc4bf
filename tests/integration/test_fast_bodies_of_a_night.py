"""Bodies that pass near the Earth, on their orbits, from the pixels of a night's exposures to tracklets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.algorithms.streaks.artificial import render_streak
from gueststar.algorithms.streaks.trace import Segment
from gueststar.model.camera import Site
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import fine_psf_of
from gueststar.pipelines.difference.detect import DetectionContext
from gueststar.pipelines.difference.score import ScoreDifference
from gueststar.pipelines.difference.streaks import FindStreaks
from gueststar.pipelines.moving.streak_tracks import LinkStreaks, listed
from gueststar.pipelines.moving.tracklets import LinkTracklets, Tracklets
from gueststar.simulation.orbits import apparent_places, passing_by
from tests.unit.streaks._sky import gaussian_psf

SITE = Site(name="here", latitude_deg=-30.17, longitude_deg=-70.8, height_m=2200.0)
SHAPE = (768, 768)
PSF = gaussian_psf(2.5, SHAPE)
WCS = Wcs.tangent(ra=190.0, dec=-4.0, x=384.0, y=384.0, scale_arcsec=1.2)
START, EXPOSURE_S = 60768.2, 60.0
TIMES = START + np.array([-9.0, 0.0, 11.0]) / 1440.0
RATES = np.array([14.0, 18.0, 25.0, 33.0])
ANGLES = np.array([20.0, 115.0, 200.0, 290.0])
PIXELS = np.array([[200.0, 220.0], [300.0, 520.0], [520.0, 480.0], [560.0, 250.0]])


@pytest.fixture(scope="module")
def orbits() -> Any:
    ra, dec = WCS.pixel_to_sky(x=PIXELS[:, 0], y=PIXELS[:, 1])
    return passing_by(
        ra=ra, dec=dec, rate=RATES, position_angle=ANGLES, speed_km_s=np.full(4, 8.0), site=SITE, mjd_tai=START
    )


@pytest.fixture(scope="module")
def rows(orbits: Any) -> list[dict[str, Any]]:
    """What the search finds on the night's three exposures."""
    random, found = np.random.default_rng(4), []
    for visit, mjd in enumerate(TIMES):
        half = EXPOSURE_S / 172800.0
        ends = [apparent_places(orbits, site=SITE, mjd_tai=mjd + k * half) for k in (-1.0, 1.0)]
        (x1, y1), (x2, y2) = (WCS.sky_to_pixel(ra=end.ra, dec=end.dec) for end in ends)
        image = random.normal(size=SHAPE).astype(np.float32)
        for k in range(4):
            line = Segment(float(x1[k]), float(y1[k]), float(x2[k]), float(y2[k]))
            if all(10 < value < 758 for value in line):
                streak = render_streak(fine_psf_of(PSF), line, shape=SHAPE)
                image += streak * (30.0 / np.sqrt(np.sum(streak**2)))
        pixels = MaskedImage(image, np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.int32))
        science = CalibratedImage(pixels, WCS, PSF, PhotoCal(27.0, 0.01, band="r"))
        context = DetectionContext(visit + 1, 0, 0, mjd - half, mjd, 2, 1)
        streaks = FindStreaks().run(ScoreDifference().run(science), science, None, context=context)
        found += listed(streaks.catalog, min_reliability=0.6)
    return found


def linked(rows: list[dict[str, Any]]) -> Tracklets:
    return LinkTracklets().run(DIA_SOURCE.empty(), streaks=rows, tracks=LinkStreaks().run(rows))


def test_every_body_that_was_seen_again_is_one_tracklet_with_its_motion(
    rows: list[dict[str, Any]], orbits: Any
) -> None:
    table = linked(rows).tracklets
    again = table.select(table["n_trailed"] >= 2)
    assert again.n_rows == 4
    assert sorted(again["n_trailed"].tolist())[-1] == 3
    for k in range(4):
        row = next(row for row in range(4) if abs(again["rate_arcsec_per_min"][row] / RATES[k] - 1.0) < 0.06)
        assert again["is_sense_known"][row]
        turned = (again["position_angle_deg"][row] - ANGLES[k] + 180.0) % 360.0 - 180.0
        assert abs(turned) < 2.0
        seen = apparent_places(orbits, site=SITE, mjd_tai=float(again["mjd_tai"][row]))
        away = separation_arcsec(
            unit_vectors(again["ra"][row], again["dec"][row]), unit_vectors(seen.ra[k], seen.dec[k])
        )
        assert away < 1.5


def test_on_one_exposure_each_is_a_tracklet_that_may_go_either_way(rows: list[dict[str, Any]]) -> None:
    alone = linked([row for row in rows if row["visit"] == 2]).tracklets
    assert alone["n_trailed"].tolist() == [1, 1, 1, 1]
    assert not alone["is_sense_known"].any()
    assert sorted(alone["rate_arcsec_per_min"]) == pytest.approx(sorted(RATES), rel=0.06)
    for angle in ANGLES % 180.0:
        assert np.min(np.abs((alone["position_angle_deg"] - angle + 90.0) % 180.0 - 90.0)) < 3.0
