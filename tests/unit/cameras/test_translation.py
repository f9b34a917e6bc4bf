import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from gueststar.cameras.load import camera_names, load_camera
from gueststar.cameras.translate import Translation, translate
from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile, read_headers
from gueststar.model.camera import Camera
from gueststar.model.rights import Program

Maker = Callable[[Camera, dict[str, Any]], RawFile]


@pytest.fixture
def simcam(raw_with: Maker, simcam_cards: dict[str, Any]) -> Callable[..., Translation]:
    """Translate a simcam header with some cards changed (None: removed); header_ changes the mapping."""

    def run(header: dict[str, Any] | None = None, **cards: Any) -> Translation:
        camera = load_camera("simcam")
        if header:
            mapping = camera.header.model_validate({**camera.header.model_dump(), **header})
            camera = camera.model_copy(update={"header": mapping})
        changed = {key.replace("_", "-"): value for key, value in cards.items()}
        return translate(camera, raw_with(camera, {**simcam_cards, **changed}))

    return run


Run = Callable[..., Translation]


def utc_of(translation: Translation) -> str:
    return str(Time(translation.info.mjd_start, format="mjd", scale="tai").utc.isot)


def test_every_fact_of_a_good_header_is_translated(simcam: Run) -> None:
    translation = simcam()
    info = translation.info
    assert utc_of(translation) == "2024-01-10T03:00:00.500"
    assert (info.observation_type, info.exposure_s, info.day_obs) == ("science", 30.0, 20240109)
    assert (info.physical_filter, info.band) == ("sim_r", "r")
    assert (info.ra, info.dec) == (75.0, -30.5)
    assert (info.field, info.program, info.airmass) == (412, Program.PUBLIC, 1.01)
    assert translation.detector_ids == (0, 1, 2, 3)
    assert translation.warnings == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DATE_OBS": "2096-01-10T03:00:00"}, "future"),
        ({"DATE_OBS": "2024-13-10T03:00:00"}, "month"),
        ({"DATE_OBS": "1970-01-01T00:00:00"}, "long before any CCD"),
        ({"DATE_OBS": "yesterday"}, "not a date and time"),
        ({"DATE_OBS": "2024-01-10"}, "not a date and time"),
        ({"DATE_OBS": "2024-01-10T25:00:00"}, "not a time of day"),
        ({"DATE_OBS": None}, "DATE-OBS is missing"),
        ({"DEC": "+95:00:00"}, "DEC = '[+]95:00:00' is no declination"),
        ({"DEC": "-30:75:00"}, "not sexagesimal"),
        ({"RA": "25:00:00"}, "not within 0 to 24 hours"),
        ({"RA": 75.0}, "position_unit is sexagesimal_hours"),
        ({"RA": None}, "only one is there"),
        ({"RA": None, "DEC": " "}, "tells the position"),
        ({"EXPTIME": -3.0}, "EXPTIME = -3.0 s is impossible"),
        ({"EXPTIME": 1e5}, "impossible"),
        ({"EXPTIME": None}, "exposure time"),
        ({"EXPTIME": "30.0"}, "EXPTIME = '30.0' is text, not a number; .*numbers_as_strings"),
        ({"EXPTIME": "long"}, "EXPTIME = 'long' is not a number"),
        ({"EXPTIME": True}, "EXPTIME = True is not a number"),
        ({"FILTER": "H-alpha"}, "filter 'H-alpha' is unknown"),
        ({"FILTER": None}, "tells the filter"),
        ({"IMAGETYP": "LAMP"}, "observation type 'LAMP' is unknown"),
        ({"IMAGETYP": None}, "what was observed"),
        ({"INSTRUME": "othercam"}, "not from simcam: INSTRUME = 'othercam'"),
        ({"INSTRUME": None}, "not from simcam"),
    ],
)
def test_impossible_header_is_refused_in_one_line_that_names_file_and_value(
    simcam: Run, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        simcam(**change)
    assert "made.fits" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_calibration_frames_need_no_position_and_bias_no_filter_or_exposure_time(simcam: Run) -> None:
    bias = simcam(IMAGETYP="bias", RA="nonsense", DEC=None, FILTER="H-alpha", EXPTIME=None).info
    assert (bias.ra, bias.physical_filter, bias.exposure_s) == (None, None, 0.0)
    flat = simcam(IMAGETYP="FLAT", RA=None, DEC="+95:00:00", EXPTIME=0.01).info
    assert (flat.ra, flat.band) == (None, "r")
    with pytest.raises(DataError, match="filter"):
        simcam(IMAGETYP="FLAT", FILTER="H-alpha")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-10T02:59:60", "2024-01-10T03:00:00.000"),
        ("2024-01-10T23:59:60.0", "2024-01-11T00:00:00.000"),
        ("2016-12-31T23:59:60.5", "2016-12-31T23:59:60.500"),
        ("2024-01-10T24:00:00", "2024-01-11T00:00:00.000"),
        ("2024-02-28T23:60:00", "2024-02-29T00:00:00.000"),
        ("2024-01-10 3:0:6.04", "2024-01-10T03:00:06.040"),
        ("2024/01/10T03:00:00Z", "2024-01-10T03:00:00.000"),
        ("2024-01-10T03:00:00.000-0000", "2024-01-10T03:00:00.000"),
        ("2024-01-09T20:00:00-0700", "2024-01-10T03:00:00.000"),
        ("2024-01-10 08:30:00 +05:30", "2024-01-10T03:00:00.000"),
        ("10/01/98T03:00:00", "1998-01-10T03:00:00.000"),
    ],
)
def test_times_of_day_run_over_and_zones_are_subtracted(simcam: Run, text: str, expected: str) -> None:
    translation = simcam(DATE_OBS=text)
    assert utc_of(translation) == expected
    assert any("not UT" in warning for warning in translation.warnings) == ("0700" in text or "05:30" in text)


@pytest.mark.parametrize("date", ["2024-01-10", "2024-01-10T00:00:00"])
def test_date_and_time_in_two_cards_are_joined(simcam: Run, date: str) -> None:
    mapping = {"time": {"keywords": ["DATE-OBS", "UTSTART"]}}
    assert utc_of(simcam(mapping, DATE_OBS=date, UTSTART="03:00:7.25")) == "2024-01-10T03:00:07.250"


@pytest.mark.parametrize(("point", "second"), [("start", "30.000"), ("middle", "15.000"), ("end", "00.000")])
def test_middle_and_end_of_exposure_give_its_start(simcam: Run, point: str, second: str) -> None:
    mapping = {"time": {"keywords": ["DATE-OBS"], "point": point}}
    assert utc_of(simcam(mapping, DATE_OBS="2024-01-10T03:00:30")) == f"2024-01-10T03:00:{second}"


def test_mjd_jd_and_tai_agree_with_the_date(simcam: Run) -> None:
    expected = simcam().info.mjd_start
    mjd = float(Time("2024-01-10T03:00:00.500", scale="utc").mjd)
    for mapping, value in (
        ({"keywords": ["MJD"], "format": "mjd"}, mjd),
        ({"keywords": ["JD"], "format": "jd"}, mjd + 2400000.5),
        ({"keywords": ["MJD"], "format": "mjd", "scale": "tai"}, mjd + 37.0 / 86400.0),
    ):
        found = simcam({"time": mapping}, MJD=value, JD=value).info.mjd_start
        assert abs(found - expected) * 86400.0 < 1e-4
    with pytest.raises(DataError, match="no MJD of an exposure"):
        simcam({"time": {"keywords": ["MJD"], "format": "mjd"}}, MJD=mjd + 2400000.5)


def test_local_time_shows_by_mjd_timesys_and_a_target_below_the_horizon(simcam: Run) -> None:
    assert any("+7.00 h" in text for text in simcam(DATE_OBS="2024-01-09T20:00:00", MJD_OBS=60319.125).warnings)
    assert any("TIMESYS" in text for text in simcam(TIMESYS="LOCAL").warnings)
    assert simcam(TIMESYS="UTC", MJD_OBS=60319.125).warnings == ()
    assert any("below the horizon" in text for text in simcam(DATE_OBS="2024-01-10T14:00:00").warnings)


def test_ra_in_hours_degrees_and_text_mean_the_same_sky(simcam: Run) -> None:
    for unit, ra, dec in (
        ("auto", "05:00:00", "-30:30:00"),
        ("auto", "05 00 00.0", "-30 30 00"),
        ("auto", "5h00m00s", "-30d30m00s"),
        ("auto", 75.0, -30.5),
        ("degrees", 75.0, -30.5),
        ("decimal_hours", 5.0, -30.5),
        ("auto", 75, "-30:30"),
    ):
        info = simcam({"position_unit": unit}, RA=ra, DEC=dec).info
        assert (info.ra, info.dec) == pytest.approx((75.0, -30.5)), (unit, ra)
    assert simcam({"position_unit": "auto"}, RA=360.0, DEC=0.0).info.ra == 0.0
    assert simcam({"position_unit": "auto"}, RA=-100.0, DEC=0.0).info.ra == 260.0
    with pytest.raises(DataError, match="no right ascension"):
        simcam({"position_unit": "auto"}, RA=-999.0, DEC=0.0)
    assert simcam({"position_unit": "auto"}, RA="24:00:00", DEC="-00:30:00").info.dec == -0.5
    with pytest.raises(DataError, match="decimal_hours"):
        simcam({"position_unit": "auto"}, RA=5.0, DEC=-30.5, CRVAL1=75.001)


def test_positions_of_another_equinox_are_precessed(simcam: Run) -> None:
    info = simcam(EQUINOX=1950.0).info
    expected = SkyCoord("05h00m00s", "-30d30m00s", frame="fk4", equinox="B1950").icrs
    assert SkyCoord(info.ra, info.dec, unit="deg").separation(expected).arcsec < 0.1
    assert simcam(EQUINOX=1950.0, RADESYS="ICRS").info.ra == 75.0
    assert simcam(EQUINOX="2000.0").info.ra == 75.0


def test_missing_or_absurd_airmass_is_computed_as_astropy_does(simcam: Run) -> None:
    site = load_camera("simcam").site
    place = EarthLocation(lat=site.latitude_deg, lon=site.longitude_deg, height=site.height_m)
    middle = Time("2024-01-10T03:00:15.5", scale="utc")
    true = SkyCoord(75.0, -30.5, unit="deg").transform_to(AltAz(obstime=middle, location=place))
    for value in (None, 0.0, "n/a", 99.0):
        translation = simcam(AIRMASS=value)
        assert translation.info.airmass == pytest.approx(1.0 / np.cos(true.zen.rad), abs=1e-4)
        assert any("AIRMASS" in text for text in translation.warnings) == (value is not None)


def test_program_is_private_where_its_card_is_missing_or_unknown(simcam: Run) -> None:
    assert simcam(PROGRMID=2).info.program is Program.PARTNERSHIP
    assert simcam(PROGRMID="0").info.program is Program.ENGINEERING
    for value in (None, 7, "public", " "):
        translation = simcam(PROGRMID=value)
        assert translation.info.program is Program.PRIVATE
        assert any("PROGRMID" in text for text in translation.warnings)
    named = {"program": {"keyword": "PROPOSAL", "values": {"MSIP": 1, "CIT": 3}, "default": 1}}
    assert simcam(named, PROPOSAL="MSIP").info.program is Program.PUBLIC
    assert simcam(named).info.program is Program.PUBLIC
    assert simcam(named, PROPOSAL="misp").info.program is Program.PRIVATE


def test_a_target_of_opportunity_is_told_by_the_card_that_the_description_names(simcam: Run) -> None:
    for value, is_one in (
        (1, True),
        (True, True),
        ("Yes", True),
        (0, False),
        (False, False),
        (None, False),
        ("", False),
    ):
        assert simcam(TOOFLAG=value).info.is_target_of_opportunity is is_one, value
    assert not simcam({"target_of_opportunity": None}, TOOFLAG=1).info.is_target_of_opportunity
    named = {"target_of_opportunity": {"keyword": "QUEUE", "values": ["Interrupt"]}}
    assert simcam(named, QUEUE="INTERRUPT").info.is_target_of_opportunity


def test_filters_are_known_by_name_alias_and_any_case(simcam: Run) -> None:
    assert {simcam(FILTER=name).info.physical_filter for name in ("sim_g", "g", "G", "SIM_G ")} == {"sim_g"}


def test_field_that_is_no_number_is_left_open_with_a_warning(simcam: Run) -> None:
    assert simcam(FIELD="000412").info.field == 412
    assert simcam(FIELD=None).warnings == ()
    translation = simcam(FIELD="M31")
    assert translation.info.field is None
    assert "M31" in translation.warnings[0]


def test_ztf_ccd_file_holds_its_four_quadrants(raw_with: Maker, ztf_cards: dict[str, Any]) -> None:
    camera = load_camera("ztf")
    translation = translate(camera, raw_with(camera, ztf_cards))
    assert translation.detector_ids == (20, 21, 22, 23)
    info = translation.info
    assert (info.band, info.program, info.field, info.ra) == ("r", Program.PARTNERSHIP, 668, 165.0)
    assert Time(info.mjd_start, format="mjd", scale="tai").utc.jd == pytest.approx(2458940.6524769, abs=1e-8)
    for value, message in ((17, "names no ccd"), (None, "missing")):
        with pytest.raises(DataError, match=message):
            translate(camera, raw_with(camera, {**ztf_cards, "CCD_ID": value}))


def test_ztf_mosaic_covers_47_square_degrees_with_quadrant_one_in_the_north_east() -> None:
    camera = load_camera("ztf")
    centres = {}
    for detector in camera.detectors:
        wcs = camera.nominal_wcs(detector, ra=180.0, dec=0.0)
        assert wcs.parity == -1
        ra, dec = wcs.pixel_to_sky(x=1535.5, y=1539.5)
        assert wcs.pixel_to_sky(x=1600.0, y=1600.0)[0] < ra
        assert wcs.pixel_to_sky(x=1600.0, y=1600.0)[1] < dec
        centres[detector.rcid] = (float(ra) - 180.0, float(dec))
    assert [detector.id for detector in camera.detectors] == sorted(centres) == list(range(64))
    for ccd in range(16):
        (e1, n1), (e2, n2), (e3, n3), (e4, n4) = (centres[4 * ccd + q] for q in range(4))
        assert min(e1, e4) > max(e2, e3)
        assert min(n1, n2) > max(n3, n4)
    assert centres[0][0] > 3 > -3 > centres[13][0], "CCD 1 is in the east, CCD 4 in the west"
    assert centres[0][1] < -2 < 2 < centres[48][1], "CCD 1 is in the south, CCD 13 in the north"
    area = 64 * 3072 * 3080 * (camera.pixel_scale_arcsec / 3600) ** 2
    assert 46.5 < area < 48.5


def test_simcam_detectors_do_not_overlap_and_one_is_upside_down() -> None:
    camera = load_camera("simcam")
    corners = [camera.nominal_wcs(d, ra=180, dec=0).corners(d.shape) for d in camera.detectors]
    boxes = [(ra.min(), ra.max(), dec.min(), dec.max()) for ra, dec in corners]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[1] < b[0] or b[1] < a[0] or a[3] < b[2] or b[3] < a[2]
    rotations = [d.focal_plane.rotation_deg for d in camera.detectors]
    assert sorted(rotations) == [0, 0, 0, 180]


@pytest.mark.real_data
def test_lowell_frames_of_all_kinds_are_translated(shared_data: Path) -> None:
    camera, folder = load_camera("lowell42"), shared_data / "lowell42_5945"
    for kind, name in (("science", "object"), ("flat", "flat"), ("bias", "zero")):
        for path in sorted((folder / name).iterdir()):
            translation = translate(camera, read_headers(path))
            assert translation.info.observation_type == kind
            assert translation.info.day_obs == 20190325
            assert translation.warnings == ()
            assert bool(translation.wcs) == (kind == "science")
            if kind == "flat":
                assert translation.info.band == ("V" if "0100" in path.name else "VR")


@pytest.mark.real_data
def test_lowell_wcs_of_text_and_misnamed_projection_agrees_with_wcslib(shared_data: Path) -> None:
    path = shared_data / "lowell42_5945/object/20190326.0140.fits.gz"
    wcs = translate(load_camera("lowell42"), read_headers(path)).wcs[0]
    header = fits.getheader(path)
    for key in list(header):
        if isinstance(header[key], str) and re.fullmatch(r"(CRVAL|CRPIX|CD\d_|PV\d_|EQUINOX)\d*", key):
            header[key] = float(header[key])
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    x, y = np.array([0.0, 1364.0, 700.0]), np.array([0.0, 20.0, 1369.0])
    ours, theirs = wcs.pixel_to_sky(x=x, y=y), WCS(header).all_pix2world(x + 17, y, 0)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.real_data
def test_text_numbers_and_hidden_distortion_are_refused_unless_the_camera_says_so(shared_data: Path) -> None:
    raw = read_headers(shared_data / "lowell42_5945/object/20190326.0140.fits.gz")
    camera = load_camera("lowell42")
    for switch in ("numbers_as_strings", "tan_means_tpv"):
        strict = camera.model_copy(update={"header": camera.header.model_copy(update={switch: False})})
        with pytest.raises(DataError, match=switch):
            translate(strict, raw)
        loose = camera.header.model_copy(update={switch: False, "is_wcs_trusted": False})
        assert translate(camera.model_copy(update={"header": loose}), raw).wcs == {}


@pytest.mark.real_data
def test_microobservatory_uses_universal_time_and_a_site_in_the_west(shared_data: Path) -> None:
    path = shared_data / "microobs_hatp32b/HATP-32171220013343.FITS.gz"
    raw = read_headers(path)
    translation = translate(load_camera("microobs"), raw)
    assert utc_of(translation) == "2017-12-20T01:33:43.317"
    assert translation.info.day_obs == 20171219
    altitude = np.degrees(np.arcsin(1 / translation.info.airmass))
    assert altitude == pytest.approx(raw.primary["TELALT"], abs=0.2)
    assert translation.warnings == ()


@pytest.mark.real_data
def test_users_own_camera_file_reads_a_bench_quadrant(shared_data: Path) -> None:
    camera = load_camera(Path(__file__).parents[3] / "benchmarks/cameras/quadrant.yaml")
    translation = translate(camera, read_headers(shared_data / "bench_hl/sci00_raw.fits.fz"))
    assert translation.info.program is Program.PUBLIC
    assert translation.info.dec == pytest.approx(39.9766, abs=1e-4)
    assert Time(translation.info.mjd_start, format="mjd", scale="tai").utc.mjd == pytest.approx(60400.2)


def test_header_wcs_follows_the_pixels_through_trim_and_mirror(raw_with: Maker, simcam_cards: dict[str, Any]) -> None:
    camera = load_camera("simcam")
    camera = camera.model_copy(update={"header": camera.header.model_copy(update={"is_wcs_trusted": True})})
    nominal = {d.id: camera.nominal_wcs(d, ra=75.0, dec=-30.5) for d in camera.detectors}
    raw = raw_with(camera, simcam_cards)
    for extension in raw.images:
        detector = camera.detector(int(extension.name[1]) - 1)
        if extension.name.endswith("B"):
            # Only the right amplifier, which reads mirrored, carries the WCS of its raw frame.
            header = nominal[detector.id].to_header()
            header["CRPIX1"] = 1024 + 1 - header["CRPIX1"]
            header["CD1_1"], header["CD2_1"] = -header["CD1_1"], -header["CD2_1"]
            extension.header.update(header)
    found = translate(camera, raw).wcs
    for key, wcs in nominal.items():
        x, y = np.array([0.0, 1023.0, 300.0]), np.array([5.0, 900.0, 1023.0])
        np.testing.assert_allclose(found[key].pixel_to_sky(x=x, y=y), wcs.pixel_to_sky(x=x, y=y), atol=1e-10)


def test_all_packaged_cameras_know_every_kind_of_frame_they_may_meet() -> None:
    for name in camera_names():
        mapping = load_camera(name).header
        kinds = set(mapping.observation_types.values()) | {mapping.default_observation_type}
        assert "science" in kinds
