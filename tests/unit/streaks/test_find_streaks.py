"""The task: from science image and reference to a table of streaks, pictures of them, and flagged detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gueststar.algorithms.streaks.artificial import render_streak
from gueststar.algorithms.streaks.trace import Segment
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.formats.parquet import read_catalog, write_catalog
from gueststar.formats.streak_cutouts import read_streak_cutouts, write_streak_cutouts
from gueststar.model.columns import DIA_SOURCE, STREAK
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import fine_psf_of
from gueststar.pipelines.difference.detect import DetectionContext
from gueststar.pipelines.difference.streaks import FindStreaks, Streaks
from gueststar.pipelines.difference.subtract import MakeDifference
from tests.unit.streaks._sky import gaussian_psf, streak_image

SHAPE = (360, 400)
PSF = gaussian_psf(2.5, SHAPE)
WCS = Wcs.tangent(ra=80.0, dec=-20.0, x=200.0, y=180.0, scale_arcsec=1.2)
CONTEXT = DetectionContext(5, 3, 0, 60000.0, 60000.0 + 15.0 / 86400.0, 2, 1)  # 30 s
SLOW = Segment(60.0, 300.0, 115.0, 320.0)
FAST = Segment(-50.0, 40.0, 450.0, 120.0)


def scene(segments: list[tuple[Segment, float]], *, metadata: dict | None = None) -> tuple[CalibratedImage, ...]:  # type: ignore[type-arg]
    """Return science image and reference with a few static stars; streaks have the given flux per pixel."""
    random = np.random.default_rng(12)
    images = []
    for sky in (400.0, 40.0):
        image = random.normal(0.0, np.sqrt(sky), SHAPE)
        stars = np.random.default_rng(2)
        for _ in range(40):
            x, y = (int(v) for v in stars.uniform(20, (SHAPE[1] - 20, SHAPE[0] - 20)))
            image[y - 12 : y + 13, x - 12 : x + 13] += stars.uniform(2e3, 4e4) * PSF.stamp(x=0.0, y=0.0)
        images.append(image)
    for segment, flux in segments:
        images[0] += flux * segment.length * streak_image(PSF, segment)
    return tuple(
        CalibratedImage(
            MaskedImage(
                np.asarray(image, np.float32), np.full(SHAPE, sky, np.float32), np.zeros(SHAPE, np.int32)
            ),
            WCS, PSF, PhotoCal(27.0, 0.01, band="r"), metadata or {},
        )
        for image, sky in zip(images, (400.0, 40.0), strict=True)
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> tuple[Streaks, CalibratedImage]:
    science, reference = scene([(SLOW, 120.0), (FAST, 80.0)])
    result = MakeDifference().run(science, reference)
    return FindStreaks().run(result, science, reference, context=CONTEXT), science


def test_a_satellite_and_an_asteroid_are_found_and_told_apart(found: tuple[Streaks, CalibratedImage]) -> None:
    rows = found[0].catalog
    likely = rows.select(rows["reliability"] > 0.5)
    assert sorted(likely["kind"].tolist()) == ["asteroid", "satellite"]
    assert found[0].metrics["n_streaks"] == 2
    assert found[0].metrics["n_negative"] == 0


def test_place_length_rate_and_flux_are_those_of_the_streak(found: tuple[Streaks, CalibratedImage]) -> None:
    rows = found[0].catalog
    row = rows.select(rows["kind"] == "asteroid")
    ra, dec = WCS.pixel_to_sky(x=np.array([SLOW.x1, SLOW.x2]), y=np.array([SLOW.y1, SLOW.y2]))
    order = [1, 2] if abs(row["x_1"][0] - SLOW.x1) < 20 else [2, 1]
    for k, end in enumerate(order):
        off = np.hypot(row[f"dec_{end}"][0] - dec[k], (row[f"ra_{end}"][0] - ra[k]) * np.cos(np.radians(-20.0))) * 3600
        assert off < 3.5 * np.hypot(row[f"along_{end}_err"][0], row[f"across_{end}_err"][0])
        assert row[f"along_{end}_err"][0] < 1.5
    assert row["length"][0] == pytest.approx(SLOW.length * 1.2, abs=float(4.0 * row["length_err"][0]))
    assert row["rate"][0] == pytest.approx(row["length"][0] / 30.0)
    assert row["mjd_end"][0] - row["mjd_begin"][0] == pytest.approx(30.0 / 86400.0, abs=1e-9)
    flux = 120.0 * SLOW.length * found[1].photocal.njy_per_unit
    assert row["flux"][0] == pytest.approx(flux, abs=float(4.0 * row["flux_err"][0]))
    assert row["is_end_1_seen"][0]
    assert row["is_end_2_seen"][0]


def test_detections_on_a_satellite_are_flagged_and_others_are_not(found: tuple[Streaks, CalibratedImage]) -> None:
    sources = {c.name: np.zeros(3, c.dtype) for c in DIA_SOURCE.columns}
    sources["x"], sources["y"] = np.array([200.0, 200.0, 87.0]), np.array([80.0, 200.0, 310.0])
    flagged = FindStreaks().flagged(DIA_SOURCE.catalog(sources), found[0].catalog, fwhm=2.5)["flags"]
    assert (flagged & int(SourceFlag.SATELLITE) != 0).tolist() == [True, False, False]


def test_table_and_pictures_come_back_from_their_files(found: tuple[Streaks, CalibratedImage], tmp_path: Path) -> None:
    streaks = found[0]
    write_catalog(tmp_path / "streak.parquet", streaks.catalog)
    back = read_catalog(tmp_path / "streak.parquet")
    assert back.schema is STREAK
    assert back["kind"].tolist() == streaks.catalog["kind"].tolist()
    write_streak_cutouts(tmp_path / "cutouts.fits", streaks.cutouts)
    cutouts = read_streak_cutouts(tmp_path / "cutouts.fits")
    assert cutouts.streak_id.tolist() == streaks.cutouts.streak_id.tolist()
    for one, other in zip(cutouts.stamps, streaks.cutouts.stamps, strict=True):
        np.testing.assert_array_equal(one, other)
    stamp = cutouts.stamps[0][0]
    middle = stamp.shape[0] // 2
    profile = np.nanmean(stamp, axis=1)
    assert abs(int(np.argmax(profile)) - middle) <= 1  # the streak lies along the middle row


def test_a_trail_masked_on_the_science_image_is_listed_once() -> None:
    trail = {"metrics": {"detrend": {"satellite_trails": [[0.0, 48.0, 399.0, 112.0, 8.0, 3.0]]}}}
    science, reference = scene([(FAST, 80.0)], metadata=trail)
    pixels = science.pixels
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    on = np.abs(y - (48.0 + 64.0 * x / 399.0)) < 9.0
    mask = np.where(on, int(MaskPlane.SATELLITE), 0).astype(np.int32)
    science = CalibratedImage(
        MaskedImage(pixels.image, pixels.variance, mask), science.wcs, science.psf, science.photocal, trail
    )
    result = MakeDifference().run(science, reference)
    rows = FindStreaks().run(result, science, reference, context=CONTEXT).catalog
    likely = rows.select(rows["reliability"] > 0.5)
    assert likely.n_rows == 1
    assert likely["is_masked_trail"][0]
    assert likely["kind"][0] == "satellite"
    assert likely["reference"][0] == 0.0


def test_two_renderings_of_a_streak_agree() -> None:
    segment = Segment(100.3, 120.9, 250.2, 200.4)
    ours = render_streak(fine_psf_of(PSF), segment, shape=SHAPE)
    independent = streak_image(PSF, segment) * segment.length
    assert np.max(np.abs(ours - independent)) < 0.01 * independent.max()
    assert ours.sum() == pytest.approx(segment.length, rel=0.005)
