from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from gueststar.cameras.check import CameraReport, check_camera
from gueststar.cameras.draw import draw_focal_plane, offsets_arcmin
from gueststar.cameras.load import camera_names, load_camera, parse_camera, to_yaml
from gueststar.cli.camera import command
from gueststar.model.camera import Camera

GAIN, NOISE, BIAS, SKY = 2.0, 6.0, 1000.0, 900.0


def small_camera(**amplifier: Any) -> Camera:
    """One detector of 200 x 160 pixels with 20 columns of overscan."""
    described = {
        "name": "A", "data_section": "[1:200,1:160]", "detector_section": "[1:200,1:160]", "gain": GAIN,
        "overscans": [{"section": "[201:220,1:160]"}], "read_noise": NOISE, "saturation": 60000, **amplifier,
    }  # fmt: skip
    nx = (
        int(described["data_section"].split(",")[0].split(":")[1])
        - int(described["data_section"][1:].split(":")[0])
        + 1
    )
    described["detector_section"] = f"[1:{nx},1:160]"
    return Camera.model_validate(
        {
            "name": "small", "site": {"name": "s", "latitude_deg": -30.0, "longitude_deg": -70.0},
            "pixel_scale_arcsec": 1.0, "filters": [{"physical_filter": "r", "band": "r", "fid": 2}],
            "detectors": [{"id": 0, "name": "D", "shape": [160, nx], "amplifiers": [described]}],
            "header": {
                "time": {"keywords": ["DATE-OBS"]},
                "observation_types": {"OBJECT": "science", "BIAS": "bias", "FLAT": "flat"},
            },
        }
    )  # fmt: skip


@pytest.fixture
def frame(tmp_path: Path) -> Callable[..., Path]:
    """Write a frame of that camera; electrons of light, and what else happened to the pixels."""

    def write(
        kind: str = "OBJECT",
        *,
        light: float = SKY,
        seed: int = 1,
        spoil: Any = None,
        **cards: Any,
    ) -> Path:
        rng = np.random.default_rng(seed)
        raw = BIAS + rng.normal(0.0, NOISE / GAIN, (160, 220))
        if light:
            raw[:, :200] += rng.poisson(light, (160, 200)) / GAIN
        if spoil is not None:
            spoil(raw)
        header = fits.Header({"IMAGETYP": kind, "EXPTIME": 30.0, "FILTER": "r", "DATE-OBS": "2024-01-10T03:00:00"})
        header.update({"RA": "05:00:00", "DEC": "-30:30:00", **cards})
        path = tmp_path / f"{kind}{seed}.fits"
        fits.PrimaryHDU(np.clip(np.round(raw), 0, 65535).astype(np.uint16), header).writeto(path, overwrite=True)
        return path

    return write


Frame = Callable[..., Path]
Run = Callable[..., Any]


def failures(report: CameraReport) -> list[str]:
    findings = [*report.pairs, *(finding for item in report.files for finding in item.findings)]
    return [finding.text for finding in findings if finding.level == "bad"]


def test_true_description_holds_on_bias_flat_and_science(frame: Frame) -> None:
    paths = [frame("BIAS", light=0), frame("FLAT", light=40000), frame("FLAT", light=40000, seed=2), frame()]
    report = check_camera(small_camera(), paths)
    assert report.is_good
    assert failures(report) == []
    assert report.pairs[0].level == "good"
    assert len(report.lines()) > 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"read_noise": 15.0}, "read_noise = 15"),
        ({"read_noise": 2.0}, "read_noise = 2"),
        ({"gain": 5.0, "read_noise": 15.0}, "gain = 5"),
        ({"overscans": [{"section": "[197:216,1:160]"}]}, "4 lines hold"),
        ({"data_section": "[1:203,1:160]", "overscans": [{"section": "[205:220,1:160]"}]}, "3 lines at the right edge"),
        ({"overscans": [{"section": "[201:230,1:160]"}]}, "too small for section"),
        ({"overscans": [], "bias_level": 1600.0}, "below"),
    ],
)  # fmt: skip
def test_wrong_description_fails_with_what_is_wrong(frame: Frame, wrong: dict[str, Any], message: str) -> None:
    paths = [frame("FLAT", light=40000), frame("FLAT", light=40000, seed=2), frame()]
    report = check_camera(small_camera(**wrong), paths)
    assert not report.is_good
    assert any(message in text for text in failures(report)), failures(report)


def test_pixels_that_end_below_the_saturation_described_are_noticed(frame: Frame) -> None:
    def clip(raw: np.ndarray) -> None:
        raw[50:80, 50:80] = 16383

    path = frame(spoil=clip)
    assert any("pixels end at 16383" in text for text in failures(check_camera(small_camera(), [path])))
    good = check_camera(small_camera(saturation=16000.0), [path])
    assert good.is_good
    assert any("2.812 % of the pixels are saturated" in line for line in good.lines())


def test_bias_that_settles_along_the_rows_is_no_unexposed_edge(frame: Frame) -> None:
    def settle(raw: np.ndarray) -> None:
        raw -= 600.0 * np.exp(-np.arange(160) / 5.0)[:, None]

    assert check_camera(small_camera(), [frame(spoil=settle)]).is_good


def test_bias_frame_without_overscan_proves_level_and_noise(frame: Frame) -> None:
    path = frame("BIAS", light=0)
    assert check_camera(small_camera(overscans=[], bias_level=BIAS), [path]).is_good
    assert not check_camera(small_camera(overscans=[], bias_level=BIAS - 100.0), [path]).is_good
    assert not check_camera(small_camera(overscans=[], bias_level=BIAS, read_noise=20.0), [path]).is_good


def test_unreadable_and_untranslatable_files_fail_and_the_rest_is_checked(frame: Frame, tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_bytes(b"<html>")
    report = check_camera(small_camera(), [tmp_path / "bad.fits", frame(DEC="+95:00:00", seed=3), frame()])
    assert [item.findings[0].level for item in report.files] == ["bad", "bad", "good"]
    assert "web page" in failures(report)[0]
    assert "no declination" in failures(report)[1]


def test_header_wcs_that_contradicts_the_focal_plane_is_bad_only_where_it_is_trusted(frame: Frame) -> None:
    camera = small_camera()
    nominal = camera.nominal_wcs(camera.detectors[0], ra=75.0, dec=-30.5)
    header = nominal.to_header()
    mirrored = {**header, "CD1_1": -header["CD1_1"]}
    trusted = camera.model_copy(update={"header": camera.header.model_copy(update={"is_wcs_trusted": True})})
    assert check_camera(trusted, [frame(**header)]).is_good
    for wrong in (mirrored, {**header, "CRVAL2": -30.0}, {**header, "CD1_1": header["CD1_1"] * 1.2}):
        assert not check_camera(trusted, [frame(**wrong)]).is_good
        loose = check_camera(camera, [frame(**wrong)])
        assert loose.is_good
        assert any("note" in line and "header WCS" in line for line in loose.lines())


def test_simcam_exposure_is_good_in_all_its_amplifiers(simcam_file: Callable[..., Path]) -> None:
    report = check_camera(load_camera("simcam"), [simcam_file(compress=True)])
    assert report.is_good, failures(report)
    assert sum("read_noise" in line for line in report.lines()) == 8


def test_focal_plane_picture_is_drawn_with_east_on_the_left(tmp_path: Path) -> None:
    for name in ("simcam", "ztf"):
        path = tmp_path / f"{name}.png"
        draw_focal_plane(load_camera(name), path)
        assert path.read_bytes()[:4] == b"\x89PNG"
    ztf = load_camera("ztf")
    west, north = offsets_arcmin(ztf, ztf.detector(0), x=np.array([1535.5]), y=np.array([1539.5]))
    assert west[0] < -180, "CCD 1 lies in the east, which is the left"
    assert north[0] < -120


@pytest.fixture
def run() -> Callable[..., Any]:
    return lambda *arguments: CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_command_lists_and_shows_cameras(run: Callable[..., Any], tmp_path: Path) -> None:
    listed = run("list")
    assert listed.exit_code == 0
    assert all(name in listed.output for name in camera_names())
    shown = run("show", "simcam", "-p", tmp_path / "a.png")
    assert shown.exit_code == 0
    assert (tmp_path / "a.png").exists()
    assert parse_camera(shown.stdout, source="shown") == load_camera("simcam")


def test_command_drafts_a_camera_that_its_own_check_accepts(
    run: Callable[..., Any], frame: Frame, tmp_path: Path
) -> None:
    cards = {"GAIN": 2.0, "DATASEC": "[1:200,1:160]", "BIASSEC": "[201:220,1:160]"}
    path, described = frame(**cards, LATITUDE=-30.2, LONGITUD=-70.8), tmp_path / "camera.yaml"
    drafted = run("new", path, "-o", described)
    assert drafted.exit_code == 0, drafted.output
    assert "assumed" in drafted.output
    checked = run("check", described, path, "-p", tmp_path / "plane.png")
    assert checked.exit_code == 0, checked.output
    assert "the description holds" in checked.output
    assert (tmp_path / "plane.png").exists()
    printed = run("new", path)
    assert parse_camera(printed.stdout, source="printed") == load_camera(described)


def test_draft_whose_site_nobody_filled_in_fails_its_check(run: Run, frame: Frame, tmp_path: Path) -> None:
    path, described = frame(GAIN=2.0), tmp_path / "camera.yaml"
    run("new", path, "-o", described)
    checked = run("check", described, path, "-p", tmp_path / "plane.png")
    assert checked.exit_code == 1
    assert "latitude_deg and longitude_deg are both 0" in checked.output


def test_command_check_ends_with_status_one_where_something_fails(
    run: Callable[..., Any], frame: Frame, tmp_path: Path
) -> None:
    described = tmp_path / "camera.yaml"
    described.write_text(to_yaml(small_camera(read_noise=30.0)), encoding="utf-8")
    checked = run("check", described, frame(), "-p", tmp_path / "plane.png")
    assert checked.exit_code == 1
    assert "FAIL" in checked.output


@pytest.mark.real_data
def test_packaged_descriptions_of_real_cameras_hold_on_their_frames(shared_data: Path) -> None:
    lowell = shared_data / "lowell42_5945"
    names = ("object/20190326.0134", "flat/20190326.0111", "flat/20190326.0112", "zero/20190326.0003")
    frames = {
        "lowell42": [lowell / f"{name}.fits.gz" for name in names],
        "microobs": sorted((shared_data / "microobs_hatp32b").glob("*.gz"))[:3],
    }  # fmt: skip
    for name, paths in frames.items():
        report = check_camera(load_camera(name), paths)
        assert report.is_good, failures(report)
        assert not any("note" in line for line in report.lines())
