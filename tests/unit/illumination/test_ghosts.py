"""Ghosts of bright stars, foretold from catalog and camera file."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from gueststar.algorithms.illumination.ghosts import GhostOptics, mark_annuli_in_place, predict_ghosts
from gueststar.cameras.load import load_camera
from gueststar.core.bits import MaskPlane
from gueststar.model.camera import Camera, Ghost
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.pipelines.science.ghosts import MarkGhosts

GHOST = Ghost(name="corrector", scale=-1.0, radius_arcsec=30.0, obstruction=0.4, fraction=0.01)


def camera(**changes: object) -> Camera:
    return load_camera("simcam").model_copy(update={"ghosts": (GHOST,), **changes})


def stars(ra: list[float], dec: list[float], magnitude: list[float]) -> Catalog:
    n = len(ra)
    columns = {c.name: np.zeros(n, dtype=c.dtype) for c in REFCAT.columns}
    columns |= {name: np.full(n, np.nan) for name in columns if name.startswith("mag_")}
    columns |= {"ra": np.array(ra), "dec": np.array(dec), "mag_r": np.array(magnitude), "epoch": np.full(n, 2020.0)}
    return REFCAT.catalog(columns)


def marked(ra: float, dec: float, magnitude: float, detector_id: int, rotation_deg: float = 0.0) -> np.ndarray:
    """Return the GHOST pixels of one star on one detector; the boresight is at (150, 2)."""
    cam = camera()
    detector = cam.detector(detector_id)
    wcs = cam.nominal_wcs(detector, ra=150.0, dec=2.0, rotation_deg=rotation_deg)
    blank = np.zeros(detector.shape, np.float32)
    pixels = MaskedImage(blank, blank + 100.0, np.zeros(detector.shape, np.int32))
    photocal = PhotoCal(zero_point=28.0, zero_point_err=0.01, band="r")
    found = MarkGhosts().run(
        pixels, camera=cam, detector=detector, wcs=wcs, photocal=photocal, stars=[stars([ra], [dec], [magnitude])],
        epoch_year=2020.0, sky_rms=10.0,
    )  # fmt: skip
    return (found.pixels.mask & int(MaskPlane.GHOST)) != 0


@pytest.mark.parametrize("rotation", [0.0, 90.0, 37.0])
def test_the_ghost_lies_across_the_axis_on_another_detector_whatever_the_rotation(rotation: float) -> None:
    cam = camera()
    detectors = cam.detectors
    wcs = [cam.nominal_wcs(d, ra=150.0, dec=2.0, rotation_deg=rotation) for d in detectors]
    ra, dec = (float(v) for v in wcs[0].pixel_to_sky(x=300.0, y=700.0))
    hits = [marked(ra, dec, 8.0, d.id, rotation) for d in detectors]
    assert [bool(hit.any()) for hit in hits].count(True) == 1
    place = next(i for i, hit in enumerate(hits) if hit.any())
    y, x = np.nonzero(hits[place])
    at_ra, at_dec = wcs[place].pixel_to_sky(x=x.mean(), y=y.mean())
    east, north = (ra - 150.0) * np.cos(np.radians(2.0)), dec - 2.0
    assert (float(at_ra) - 150.0) * np.cos(np.radians(2.0)) == pytest.approx(-east, abs=2.0 / 3600.0)
    assert float(at_dec) - 2.0 == pytest.approx(-north, abs=2.0 / 3600.0)


def test_the_ghost_is_an_annulus_of_the_size_that_the_file_tells() -> None:
    cam = camera()
    wcs = cam.nominal_wcs(cam.detector(0), ra=150.0, dec=2.0)
    ra, dec = (float(v) for v in wcs.pixel_to_sky(x=500.0, y=500.0))
    hit = marked(2 * 150.0 - ra, 2 * 2.0 - dec, 8.0, 0)
    area = np.pi * ((30.0 + 3.0) ** 2 - (12.0 - 3.0) ** 2)
    assert hit.sum() == pytest.approx(area, rel=0.03)
    y, x = np.nonzero(hit)
    assert not hit[round(y.mean()), round(x.mean())]


def test_faint_stars_have_no_ghost() -> None:
    cam = camera()
    ra, dec = (float(v) for v in cam.nominal_wcs(cam.detector(0), ra=150.0, dec=2.0).pixel_to_sky(x=500.0, y=500.0))
    assert not marked(300.0 - ra, 4.0 - dec, 15.0, 0).any()


def test_stars_are_asked_for_where_their_ghosts_would_come_from() -> None:
    cam = camera()
    detector = cam.detector(0)
    wcs = cam.nominal_wcs(detector, ra=150.0, dec=2.0)
    (disc,) = MarkGhosts().regions(cam, detector, wcs)
    ra, dec = wcs.pixel_to_sky(x=511.5, y=511.5)
    assert disc.ra == pytest.approx(300.0 - float(ra), abs=1e-3)
    assert disc.dec == pytest.approx(4.0 - float(dec), abs=1e-3)
    assert disc.radius_deg * 3600.0 > 724.0


def test_a_shear_moves_the_hole_and_the_light_is_conserved() -> None:
    optics = GhostOptics(-0.5, (3.0, 0.0), 20.0, 0.5, 0.1, 0.02)
    found = predict_ghosts(x=np.array([100.0]), y=np.array([0.0]), flux=np.array([1e6]), optics=optics)
    assert (found.x[0], found.hole_x[0]) == (pytest.approx(-47.0), pytest.approx(-37.0))
    assert found.brightness[0] * np.pi * (20.0**2 - 10.0**2) == pytest.approx(2e4)


def test_marking_counts_only_new_pixels_and_stops_at_the_rim() -> None:
    mask = np.zeros((50, 50), np.int32)
    one = (np.array([0.0]), np.array([25.0]), np.array([0.0]), np.array([25.0]), np.array([10.0]), np.array([0.0]))
    n = mark_annuli_in_place(mask, *one, 4)
    assert n == (mask == 4).sum() > 100
    assert mark_annuli_in_place(mask, *one, 4) == 0


def test_a_ghost_that_does_not_move_with_its_star_is_refused() -> None:
    with pytest.raises(ValidationError, match="is sky"):
        Ghost(name="pupil", scale=0.0, radius_arcsec=100.0, fraction=0.01)
