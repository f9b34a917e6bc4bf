"""Which streaks belong together, and what they are."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.streaks.kind import judge_kind
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.streaks.tracks import SkyStreak, link_streaks
from gueststar.model.wcs import Wcs

FRAME = Wcs.tangent(ra=150.0, dec=30.0, x=0.0, y=0.0, scale_arcsec=1.0)


def streak(
    number: int, visit: int, mjd: float, ends: tuple[float, float, float, float], *, is_complete: bool
) -> SkyStreak:
    """Return a streak whose ends are given in arcsec on the sky about (150, 30), of an exposure of 30 s."""
    ra, dec = FRAME.pixel_to_sky(x=np.array(ends[::2]), y=np.array(ends[1::2]))
    return SkyStreak(
        number, visit, mjd, mjd + 30.0 / 86400.0, (float(ra[0]), float(ra[1])), (float(dec[0]), float(dec[1])),
        1e-4, 0.2, is_complete,
    )  # fmt: skip


def test_a_satellite_that_crosses_two_detectors_is_one_path() -> None:
    pieces = [
        streak(1, 7, 60000.0, (0, 0, 1000, 300), is_complete=False),
        streak(2, 7, 60000.0, (1100, 330, 2100, 630), is_complete=False),
        streak(3, 7, 60000.0, (0, 400, 1000, 690), is_complete=False),  # parallel, not the same
    ]
    tracks = link_streaks(pieces)
    assert [(t.streak_ids, t.link) for t in tracks] == [((1, 2), "continued")]
    assert tracks[0].rate == pytest.approx(np.hypot(2100, 630) / 30.0, rel=0.01)


def test_an_asteroid_seen_in_two_exposures_is_linked_and_its_sense_of_motion_known() -> None:
    rate = 0.5  # arcsec/s to the left; the streaks are drawn to the right
    first = streak(1, 7, 60000.0, (0, 0, 15, 5), is_complete=True)
    dt = 60.0
    moved = -rate * dt * np.array([15.0, 5.0]) / np.hypot(15, 5) * np.hypot(15, 5) / 30.0 / rate
    second = streak(2, 8, 60000.0 + dt / 86400.0, (moved[0], moved[1], moved[0] + 15, moved[1] + 5), is_complete=True)
    tracks = link_streaks([first, second])
    assert [t.streak_ids for t in tracks] == [(1, 2)]
    assert tracks[0].rate == pytest.approx(np.hypot(15, 5) / 30.0, rel=0.02)
    assert tracks[0].is_forward is False


def test_streaks_of_different_bodies_in_two_exposures_are_not_linked() -> None:
    first = streak(1, 7, 60000.0, (0, 0, 15, 5), is_complete=True)
    elsewhere = streak(2, 8, 60000.0 + 60.0 / 86400.0, (80, 0, 95, 5), is_complete=True)
    slower = streak(3, 8, 60000.0 + 60.0 / 86400.0, (30, 10, 36, 12), is_complete=True)
    assert link_streaks([first, elsewhere, slower]) == []


def test_what_stays_on_its_pixels_is_no_body() -> None:
    on_chip = Segment(100.0, 200.0, 160.0, 215.0)
    first = streak(1, 7, 60000.0, (0, 0, 60, 15), is_complete=True)._replace(pixels=on_chip)
    moved = Segment(101.0, 201.5, 158.0, 216.0)
    later = streak(2, 8, 60000.0 + 600.0 / 86400.0, (900, 0, 960, 15), is_complete=True)._replace(pixels=moved)
    crossing = Segment(120.0, 170.0, 140.0, 250.0)
    other = streak(3, 8, 60000.0 + 600.0 / 86400.0, (910, 0, 930, 80), is_complete=True)._replace(pixels=crossing)
    tracks = link_streaks([first, later, other])
    assert [(t.streak_ids, t.link) for t in tracks] == [((1, 2), "same pixels")]
    assert link_streaks([first, later._replace(detector=1)]) == []


PLAIN = {"flux_scatter": 0.05, "flux_scatter_snr": 1.0, "broadening": 0.1, "broadening_err": 0.2}


@pytest.mark.parametrize(
    ("length", "seen", "changes", "kind"),
    [
        (30.0, (True, True), {}, "asteroid"),
        (3000.0, (False, False), {}, "satellite"),
        (450.0, (True, True), {}, "satellite"),  # geostationary: 15 arcsec/s for 30 s
        (30.0, (True, False), {}, "unclear"),
        (30.0, (True, True), {"flux_scatter": 0.6, "flux_scatter_snr": 12.0}, "satellite"),
        (30.0, (True, True), {"broadening": 2.0}, "satellite"),
    ],
)
def test_kind_follows_rate_ends_brightness_and_width(
    length: float, seen: tuple[bool, bool], changes: dict[str, float], kind: str
) -> None:
    motion = judge_kind(length_arcsec=length, exposure_s=30.0, is_end_seen=seen, **(PLAIN | changes))
    assert motion.kind == kind
    assert motion.rate == pytest.approx(length / 30.0)
    assert motion.is_lower_limit is not all(seen)
