from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from gueststar.cameras.draft import Draft, draft_camera
from gueststar.cameras.load import load_camera, parse_camera
from gueststar.cameras.translate import translate
from gueststar.core.errors import DataError
from gueststar.formats.raw import read_detector, read_headers
from gueststar.model.camera import Camera, parse_section

Writer = Callable[..., Path]

TRUTH = np.arange(60 * 80, dtype=np.float32).reshape(60, 80) % 977 + 1000


def write(path: Path, *images: tuple[np.ndarray, dict[str, Any]], primary: dict[str, Any] | None = None) -> Path:
    def header(cards: dict[str, Any]) -> fits.Header:
        return fits.Header(
            [(key, *value) if isinstance(value, tuple) else (key, value) for key, value in cards.items()]
        )

    if primary is None:
        ((pixels, cards),) = images
        fits.PrimaryHDU(pixels.astype(np.uint16), header(cards)).writeto(path)
    else:
        hdus = [fits.ImageHDU(pixels.astype(np.uint16), header(cards)) for pixels, cards in images]
        fits.HDUList([fits.PrimaryHDU(header=header(primary)), *hdus]).writeto(path)
    return path


def assembled(camera: Camera, path: Path, detector_id: int = 0) -> np.ndarray:
    """Put a detector together as the description says."""
    detector = camera.detector(detector_id)
    raw = read_detector(path, detector, translate(camera, read_headers(path)).info)
    image = np.full(detector.shape, np.nan)
    for pixels in raw.amplifiers:
        data = pixels.data[:: -1 if pixels.amplifier.flip_y else 1, :: -1 if pixels.amplifier.flip_x else 1]
        image[parse_section(pixels.amplifier.detector_section)] = data
    return image


def sureness(draft: Draft, key: str) -> str:
    return dict(draft.guesses)[key].sureness


EXPOSURE: dict[str, Any] = {
    "INSTRUME": "Imager 4", "TELESCOP": "T1", "DATE-OBS": ("2023-05-06T04:00:01.5", "UT start of exposure"),
    "EXPTIME": 60.0, "FILTER": "SDSS-r", "OBSTYPE": "science", "RA": "13:30:00", "DEC": "+20:00:00",
    "LATITUDE": 31.7, "LONGITUD": -110.9, "OBSERVAT": "Somewhere", "AIRMASS": 1.1,
}  # fmt: skip


def test_single_image_with_sections_is_drafted_and_read_back(tmp_path: Path) -> None:
    raw = np.pad(TRUTH, ((0, 0), (5, 20)), constant_values=700)
    raw[:, 85:] += np.random.default_rng(1).normal(0, 4, (60, 20))
    cards = {"DATASEC": "[6:85,1:60]", "BIASSEC": "[88:105,1:60]", "GAIN": 1.5, "SATURATE": 50000}
    path = write(tmp_path / "a.fits", (raw, {**EXPOSURE, **cards}))
    draft = draft_camera([path])
    camera = draft.camera
    assert parse_camera(draft.text, source="draft") == camera
    assert camera.name == "imager_4"
    np.testing.assert_array_equal(assembled(camera, path), TRUTH)
    amplifier = camera.detectors[0].amplifiers[0]
    assert (amplifier.gain, amplifier.saturation) == (1.5, 50000)
    assert amplifier.read_noise == pytest.approx(6.0, rel=0.1)
    assert amplifier.bias_level == pytest.approx(700, abs=1)
    info = translate(camera, read_headers(path)).info
    assert (info.band, info.ra, info.dec, info.exposure_s) == ("r", 202.5, 20.0, 60.0)
    assert sureness(draft, "detectors.0.amplifiers.0.read_noise") == "inferred"
    assert sureness(draft, "header.time.point") == "read"
    assert sureness(draft, "header.program.default") == "assumed"


def test_guessed_values_carry_a_comment_and_read_ones_do_not(tmp_path: Path) -> None:
    draft = draft_camera([write(tmp_path / "a.fits", (TRUTH, EXPOSURE))])
    lines = {line.strip().split(":")[0]: line for line in draft.text.splitlines()}
    assert "# assumed" in lines["gain"]
    assert "FILL IN" in lines["gain"]
    assert "#" not in lines["latitude_deg"]
    assert len(draft.lines()) == len(draft.guesses) + len(draft.doubts)


def test_amateur_header_of_maxim_is_understood(tmp_path: Path) -> None:
    cards = {
        "INSTRUME": "SBIG STL-1001", "TELESCOP": "12 inch", "DATE-OBS": "2023-05-06T04:00:01", "EXPTIME": 60.0,
        "EXPOSURE": 60.0, "XPIXSZ": 24.0, "FOCALLEN": 2000.0, "IMAGETYP": "Light Frame", "FILTER": "Clear",
        "OBJCTRA": "13 30 00", "OBJCTDEC": "+20 00 00", "SITELAT": "+31 42 00", "SITELONG": "110 54 00", "EGAIN": 2.2,
    }  # fmt: skip
    path = write(tmp_path / "a.fits", (TRUTH, cards))
    camera = draft_camera([path]).camera
    assert camera.pixel_scale_arcsec == pytest.approx(206.265 * 24 / 2000, abs=1e-3)
    assert camera.site.longitude_deg == pytest.approx(-110.9), "the target was up, so it counts west positive"
    assert camera.detectors[0].amplifiers[0].gain == 2.2
    assert camera.rotation_tolerance_deg == 180.0
    assert not camera.is_parity_known
    info = translate(camera, read_headers(path)).info
    assert (info.observation_type, info.band, info.ra) == ("science", "clear", 202.5)


def test_two_amplifiers_in_one_image_are_told_by_suffixed_cards(tmp_path: Path) -> None:
    left, right = TRUTH[:, :40], TRUTH[:, 40:]
    bias = np.full((60, 8), 500)
    ccd = {
        "CCDNUM": 7, "DATASECA": "[9:48,1:60]", "DATASECB": "[49:88,1:60]", "BIASSECA": "[1:8,1:60]",
        "BIASSECB": "[89:96,1:60]", "CCDSECA": "[1:40,1:60]", "CCDSECB": "[41:80,1:60]", "GAINA": 4.1, "GAINB": 4.3,
        "RDNOISEA": 6.1, "RDNOISEB": 6.3, "SATURATA": 41000, "SATURATB": 42000,
    }  # fmt: skip
    raw = np.hstack([bias, left, right, bias])
    path = write(tmp_path / "a.fits", (raw, ccd), (raw, {**ccd, "CCDNUM": 9}), primary=EXPOSURE)
    camera = draft_camera([path]).camera
    assert [detector.name for detector in camera.detectors] == ["7", "9"]
    np.testing.assert_array_equal(assembled(camera, path, 1), TRUTH)
    assert [(a.gain, a.read_noise, a.saturation) for a in camera.detectors[0].amplifiers] == [
        (4.1, 6.1, 41000), (4.3, 6.3, 42000)
    ]  # fmt: skip


def test_four_amplifiers_in_extensions_are_assembled_by_reversed_detector_sections(tmp_path: Path) -> None:
    quarters = {
        "[1:40,1:30]": TRUTH[:30, :40],
        "[80:41,1:30]": TRUTH[:30, 40:][:, ::-1],
        "[1:40,60:31]": TRUTH[30:, :40][::-1],
        "[80:41,60:31]": TRUTH[30:, 40:][::-1, ::-1],
    }
    images = [
        (
            np.hstack([data, np.full((30, 10), 400)]),
            {"DETSEC": section, "DATASEC": "[1:40,1:30]", "BIASSEC": "[41:50,1:30]"},
        )
        for section, data in quarters.items()
    ]
    path = write(tmp_path / "a.fits", *images, primary=EXPOSURE)
    camera = draft_camera([path]).camera
    assert len(camera.detectors) == 1
    np.testing.assert_array_equal(assembled(camera, path), TRUTH)


def test_binned_detector_sections_are_scaled(tmp_path: Path) -> None:
    halves = [("[1:80,1:120]", TRUTH[:, :40]), ("[160:81,1:120]", TRUTH[:, 40:][:, ::-1])]
    images = [(data, {"CCDNAME": "east", "CCDSEC": section, "CCDSUM": "2 2"}) for section, data in halves]
    path = write(tmp_path / "a.fits", *images, primary=EXPOSURE)
    camera = draft_camera([path]).camera
    np.testing.assert_array_equal(assembled(camera, path), TRUTH)


def test_overscans_in_extensions_of_their_own_are_paired(tmp_path: Path) -> None:
    images = [(TRUTH + number, {}) for number in range(4)] + [(np.full((60, 6), 300 + n), {}) for n in range(4)]
    path = write(tmp_path / "a.fits", *images, primary={**EXPOSURE, "CCD_ID": 3})
    camera = draft_camera([path]).camera
    assert [detector.id for detector in camera.detectors] == [8, 9, 10, 11]
    assert {detector.ccd for detector in camera.detectors} == {3}
    translation = translate(camera, read_headers(path))
    assert translation.detector_ids == (8, 9, 10, 11)
    raw = read_detector(path, camera.detector(10), translation.info)
    assert raw.amplifiers[0].data[0, 0] == TRUTH[0, 0] + 2
    assert raw.amplifiers[0].overscans[0].mean() == 302


def test_mosaic_is_laid_out_by_the_wcs_of_its_extensions(tmp_path: Path) -> None:
    simcam = load_camera("simcam")
    images = []
    for detector in simcam.detectors:
        header = simcam.nominal_wcs(detector, ra=202.5, dec=20.0).to_header()
        header["CRPIX1"] -= 472
        header["CRPIX2"] -= 482
        images.append((TRUTH, {**header, "EXTNAME": detector.name}))
    path = write(tmp_path / "a.fits", *images, primary=EXPOSURE)
    camera = draft_camera([path]).camera
    for drafted, true in zip(camera.detectors, simcam.detectors, strict=True):
        assert drafted.name == true.name
        ra, dec = simcam.nominal_wcs(true, ra=202.5, dec=20.0).pixel_to_sky(x=472 + 39.5, y=482 + 29.5)
        found = camera.nominal_wcs(drafted, ra=202.5, dec=20.0).pixel_to_sky(x=39.5, y=29.5)
        assert np.hypot(found[0] - ra, found[1] - dec) * 3600 < 0.2
        assert (drafted.focal_plane.rotation_deg - true.focal_plane.rotation_deg) % 360 == pytest.approx(0, abs=0.1)


def test_mirrored_halves_are_joined_where_their_wcs_runs_on(tmp_path: Path) -> None:
    simcam = load_camera("simcam")
    images = []
    for detector in simcam.detectors:
        wcs = simcam.nominal_wcs(detector, ra=202.5, dec=20.0).to_header()
        right = {**wcs, "CRPIX1": 81 - wcs["CRPIX1"] + 944, "CD1_1": -wcs["CD1_1"], "CD2_1": -wcs["CD2_1"]}
        wcs["CRPIX1"] -= 944
        bias = np.full((60, 6), 300 + detector.id)
        cards = {"DATASEC": "[1:40,1:60]"}
        images.append((np.hstack([TRUTH[:, :40], bias]), {**wcs, **cards, "EXTNAME": f"{detector.name}A"}))
        images.append((np.hstack([TRUTH[:, :39:-1], bias]), {**right, **cards, "EXTNAME": f"{detector.name}B"}))
    path = write(tmp_path / "a.fits", *images, primary=EXPOSURE)
    camera = draft_camera([path]).camera
    assert [detector.name for detector in camera.detectors] == ["D1", "D2", "D3", "D4"]
    assert [amplifier.flip_x for amplifier in camera.detectors[0].amplifiers] == [False, True]
    for number in range(4):
        np.testing.assert_array_equal(assembled(camera, path, number), TRUTH)
    assert {detector.focal_plane.parity for detector in camera.detectors} == {1}
    assert all(amplifier.overscans for detector in camera.detectors for amplifier in detector.amplifiers)


def test_universal_time_is_preferred_to_local_time(tmp_path: Path) -> None:
    local = {**EXPOSURE, "DATE-OBS": "2023-05-05T21:00:01", "MJD-OBS": 60070.16668}
    draft = draft_camera([write(tmp_path / "a.fits", (TRUTH, local))])
    assert draft.camera.header.time.keywords == ("MJD-OBS",)
    assert any("7.00 h" in doubt for doubt in draft.doubts)
    zoned = {**EXPOSURE, "DATE-OBS": "2023-05-05T21:00:01-0700", "UT-OBS": "2023-05-06T04:00:01"}
    draft = draft_camera([write(tmp_path / "b.fits", (TRUTH, zoned))])
    assert draft.camera.header.time.keywords == ("UT-OBS",)
    split = {**EXPOSURE, "DATE-OBS": "2023-05-06", "UTSTART": ("04:00:01", "end of exposure")}
    time = draft_camera([write(tmp_path / "c.fits", (TRUTH, split))]).camera.header.time
    assert (time.keywords, time.point) == (("DATE-OBS", "UTSTART"), "end")


def test_right_ascension_in_hours_is_noticed_by_the_wcs(tmp_path: Path) -> None:
    simcam = load_camera("simcam")
    wcs = simcam.nominal_wcs(simcam.detectors[0], ra=202.5, dec=20.0).to_header()
    path = write(tmp_path / "a.fits", (TRUTH, {**EXPOSURE, **wcs, "RA": 13.5, "DEC": 20.0}))
    camera = draft_camera([path]).camera
    assert camera.header.position_unit == "decimal_hours"
    assert translate(camera, read_headers(path)).info.ra == pytest.approx(202.5)


def test_further_files_add_filters_and_kinds_of_frames(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{band}.fits", (TRUTH, {**EXPOSURE, "FILTER": band})) for band in ("Bessell V", "i'", "r.00")
    ]
    paths.append(write(tmp_path / "z.fits", (TRUTH, {**EXPOSURE, "OBSTYPE": "internal flat"})))
    camera = draft_camera(paths).camera
    assert {item.physical_filter: item.band for item in camera.filters} == {
        "Bessell V": "V", "i'": "i", "r.00": "r", "SDSS-r": "r",
    }  # fmt: skip
    for path, kind in zip(paths, ("science", "science", "science", "flat"), strict=True):
        assert translate(camera, read_headers(path)).info.observation_type == kind


def test_bare_image_still_gives_a_description_that_loads(tmp_path: Path) -> None:
    draft = draft_camera([write(tmp_path / "a.fits", (TRUTH, {}))])
    assert draft.camera.detectors[0].shape == TRUTH.shape
    assert draft.text.count("FILL IN") >= 4


def test_file_without_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.PrimaryHDU().writeto(path)
    with pytest.raises(DataError, match="holds no image"):
        draft_camera([path])


@pytest.mark.real_data
def test_drafts_of_real_cameras_agree_with_the_packaged_descriptions(shared_data: Path) -> None:
    frames = {
        "lowell42": ("lowell42_5945/object/20190326.0128.fits.gz", "lowell42_5945/flat/20190326.0100.fits.gz"),
        "microobs": ("microobs_hatp32b/HATP-32171220013343.FITS.gz",),
    }
    for name, paths in frames.items():
        packaged = load_camera(name)
        drafted = draft_camera([shared_data / path for path in paths]).camera
        assert drafted.pixel_scale_arcsec == pytest.approx(packaged.pixel_scale_arcsec, rel=0.01)
        assert drafted.site.longitude_deg == packaged.site.longitude_deg
        raw = read_headers(shared_data / paths[0])
        ours, theirs = translate(drafted, raw).info, translate(packaged, raw).info
        for fact in ("mjd_start", "exposure_s", "day_obs", "observation_type", "physical_filter", "ra", "dec"):
            assert getattr(ours, fact) == getattr(theirs, fact), fact
        if name == "lowell42":
            for key in ("data_section", "overscans"):
                assert getattr(drafted.detectors[0].amplifiers[0], key) == getattr(
                    packaged.detectors[0].amplifiers[0], key
                )
