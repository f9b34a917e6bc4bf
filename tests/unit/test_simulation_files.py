"""Simulated nights: files that are read back, hold what the truth says, and are the same for a seed."""

import csv
import hashlib
import re
from pathlib import Path

import galsim
import numpy as np
import pytest
import sep

from gueststar.cameras.header_wcs import in_detector_frame
from gueststar.cameras.load import load_camera
from gueststar.cameras.translate import Translation, translate
from gueststar.core.errors import ConfigError
from gueststar.core.ids import exposure_id
from gueststar.formats.parquet import read_catalog, read_metadata
from gueststar.formats.raw import read_detector, read_headers
from gueststar.model.camera import Camera, parse_section
from gueststar.model.wcs import Wcs
from gueststar.simulation.ephemeris import separation_deg
from gueststar.simulation.headers import Facts, calibration_program, example_of, primary_cards, wcs_cards
from gueststar.simulation.scenario import Scenario, load_scenario
from gueststar.simulation.simulate import simulate
from gueststar.simulation.survey import plan_survey
from gueststar.simulation.truth import wcs_of_row

PIXELS = 320


def small_camera() -> Camera:
    """simcam with two detectors of 320 x 320 pixels side by side."""
    document = load_camera("simcam").model_dump(mode="json")
    half = PIXELS // 2
    document["detectors"] = document["detectors"][:2]
    for detector in document["detectors"]:
        detector["shape"] = [PIXELS, PIXELS]
        detector["focal_plane"] |= {"x_arcsec": -180.0 if detector["id"] == 0 else 180.0, "y_arcsec": 0.0}
        for k, amplifier in enumerate(detector["amplifiers"]):
            amplifier["data_section"] = f"[1:{half},1:{PIXELS}]"
            amplifier["detector_section"] = f"[{1 + k * half}:{half + k * half},1:{PIXELS}]"
            amplifier["overscans"] = [{"section": f"[{half + 1}:{half + 20},1:{PIXELS}]"}]
    return Camera.model_validate(document)


def short_scenario() -> Scenario:
    document = load_scenario("small").model_dump(mode="json")
    document["stars"] |= {"density": 9000.0, "bright_limit": 12.5, "faint_limit": 20.0}
    document["galaxies"]["factor"] = 0.2
    document["satellites"] = {"per_night": 0.0}
    document["nights"][0]["blocks"][0] |= {"n_rounds": 2, "programs": [2, 3], "lost": [1]}
    document["nights"] = document["nights"][:1]
    document["calibrations"] = {"n_bias": 3, "n_dark": 1, "n_flat": 2}
    document["detector"] |= {"cosmic_rays_per_mpix_s": 0.0}
    return Scenario.model_validate(document)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    summary = simulate(folder, small_camera(), short_scenario(), seed=7)
    assert (summary.n_science, summary.n_lost, summary.n_calibration) == (1, 1, 6)
    return folder


def assembled(path: Path, detector_id: int) -> tuple[Translation, np.ndarray]:
    """Overscan-subtracted electrons of one detector."""
    camera = small_camera()
    raw = read_headers(path)
    translation = translate(camera, raw)
    detector = camera.detector(detector_id)
    image = np.zeros(detector.shape, dtype=np.float32)
    for part in read_detector(path, detector, translation.info).amplifiers:
        data = (part.data - np.median(part.overscans[0], axis=1)[:, None]) * part.amplifier.gain
        turned = data[:: -1 if part.amplifier.flip_y else 1, :: -1 if part.amplifier.flip_x else 1]
        image[parse_section(part.amplifier.detector_section)] = turned
    return translation, image


def calibrated(night: Path, detector_id: int) -> tuple[Translation, np.ndarray]:
    folder = next((night / "raw").iterdir())
    bias = np.median([assembled(path, detector_id)[1] for path in sorted(folder.glob("bias*"))], axis=0)
    flat = np.mean([assembled(path, detector_id)[1] - bias for path in sorted(folder.glob("flat*"))], axis=0)
    translation, image = assembled(next(folder.glob("sci*")), detector_id)
    flat /= np.median(flat)
    return translation, ((image - bias) / np.where(flat > 0.3, flat, 1.0)).astype(np.float32)


def test_headers_say_what_was_planned(night: Path) -> None:
    truth = read_catalog(night / "truth" / "exposures.parquet")
    assert list(truth["is_lost"]) == [False, True]
    translation, _ = assembled(next((night / "raw").glob("*/sci*")), 0)
    info = translation.info
    assert info.exposure_id == truth["exposure_id"][0]
    assert info.day_obs == truth["day_obs"][0]
    assert int(info.program) == 2
    assert info.field == truth["field"][0]
    assert info.mjd_tai == pytest.approx(truth["mjd_tai"][0], abs=1e-8)
    assert info.ra == pytest.approx(truth["header_ra"][0], abs=1e-5)
    assert info.airmass == pytest.approx(truth["airmass"][0], abs=1e-3)
    assert translation.detector_ids == (0, 1)
    assert translation.warnings == ()
    error = separation_deg(truth["ra"], truth["dec"], truth["header_ra"], truth["header_dec"])
    assert np.all((error * 3600 > 1.0) & (error * 60 < 3.0))


def test_kinds_of_frames_are_read_back(night: Path) -> None:
    camera = small_camera()
    for path in (night / "raw").glob("*/*"):
        info = translate(camera, read_headers(path)).info
        assert info.observation_type == {"sci": "science"}.get(path.name.split("_")[0], path.name.split("_")[0])


def test_schedule_lists_what_arrives_and_what_does_not(night: Path) -> None:
    rows = list(csv.DictReader((night / "schedule.csv").open()))
    exists = [all((night / name).exists() for name in row["files"].split()) for row in rows]
    assert exists == [True, False]


@pytest.mark.parametrize("detector_id", [0, 1])
def test_stars_have_the_light_and_the_places_of_the_truth(night: Path, detector_id: int) -> None:
    translation, image = calibrated(night, detector_id)
    images = read_catalog(night / "truth" / "detector_images.parquet")
    row = int(np.flatnonzero(images["detector"] == detector_id)[0])
    background = sep.Background(image, bw=64, bh=64)
    assert background.globalback == pytest.approx(images["sky"][row], rel=0.05)
    light = image - background.back()
    observed = read_catalog(night / "truth" / "observed" / f"{translation.info.exposure_id}.parquet")
    observed = observed.select(observed["detector"] == detector_id)
    stars = observed.select((observed["kind"] == 0) & (observed["flux"] > 5000) & ~observed["is_saturated"])
    near = [
        observed["flux"][np.hypot(observed["x"] - x, observed["y"] - y) < 25].sum() / flux < 1.02
        for x, y, flux in zip(stars["x"], stars["y"], stars["flux"], strict=True)
    ]
    inside = (np.abs(stars["x"] - PIXELS / 2) < 140) & (np.abs(stars["y"] - PIXELS / 2) < 140)
    stars = stars.select(np.array(near) & inside)
    assert stars.n_rows >= 3
    flux, _, _ = sep.sum_circle(light, stars["x"], stars["y"], 7.0, bkgann=(14.0, 20.0))
    ratio = flux / stars["flux"]
    exposures = read_catalog(night / "truth" / "exposures.parquet")
    core = galsim.Kolmogorov(fwhm=float(exposures["fwhm_arcsec"][0]))
    # Four per cent are in the aureole, spikes and ghosts, half of the aureole within the aperture.
    assert np.median(ratio) == pytest.approx(0.97 * core.drawImage(nx=15, ny=15, scale=1.0).array.sum(), abs=0.025)
    noise = np.sqrt(stars["flux"] + np.pi * 49 * background.globalrms**2) / stars["flux"]
    assert np.median(np.abs(ratio - np.median(ratio)) / noise) < 1.6
    x, y, _ = sep.winpos(light, stars["x"], stars["y"], np.full(stars.n_rows, 1.1))
    assert np.median(np.abs(x - stars["x"])) < 0.03
    assert np.median(np.abs(y - stars["y"])) < 0.03


def test_true_wcs_places_stars_to_the_turbulence(night: Path) -> None:
    images = read_catalog(night / "truth" / "detector_images.parquet")
    terms = {key: np.array(value) for key, value in read_metadata(night / "truth" / "detector_images.parquet").items()}
    observed = read_catalog(next((night / "truth" / "observed").iterdir()))
    for row in range(2):
        wcs = wcs_of_row(images, row, pv1=terms["pv1"], pv2=terms["pv2"])
        here = observed.select(observed["detector"] == images["detector"][row])
        x, y = wcs.sky_to_pixel(ra=here["ra"], dec=here["dec"])
        # Turbulence of 15 mas and chromatic refraction of as much; pixels are 1 arcsec.
        assert 0.003 < np.std(x - here["x"]) < 0.06
        assert 0.003 < np.std(y - here["y"]) < 0.06


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(night: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", small_camera(), short_scenario(), seed=7)
    assert digests(tmp_path / "again") == digests(night)
    simulate(tmp_path / "other", small_camera(), short_scenario(), seed=8)
    changed, before = digests(tmp_path / "other"), digests(night)
    # This scenario has no satellites, and its amplifiers have no flaws.
    same = {f"truth/{name}.parquet" for name in ("satellites", "amplifiers", "crosstalk")}
    assert {name for name in changed if changed[name] == before.get(name)} == same


def test_headers_of_other_cameras_are_read_back() -> None:
    document = load_camera("simcam").model_dump(mode="json")
    document["header"] |= {
        "instrument_match": {"INSTRUME": "(CAM|cam)-[0-9]+", "TELESCOP": "Big.*"},
        "observation_type": ["OBSTYPE"], "observation_types": {"object": "science", "zero": "bias"},
        "time": {"keywords": ["DATE", "UT"], "format": "isot", "scale": "utc", "point": "middle"},
        "position_unit": "decimal_hours", "program": {"keyword": "ACCESS", "values": {"open": 1, "team": 2}},
        "numbers_as_strings": True,
    }  # fmt: skip
    camera = Camera.model_validate(document)
    facts = Facts("science", 60762.25, 60.0, 2, camera.filters[0], 200.0, -10.0, 1.3, 5, "x")
    cards = primary_cards(camera, facts)
    assert cards["DATE"] == "2025-03-28"
    assert cards["UT"].startswith("06:00:0") or cards["UT"].startswith("05:59:")
    assert cards["ACCESS"] == "team"
    assert float(cards["RA"]) == pytest.approx(200.0 / 15.0)
    with pytest.raises(ConfigError, match="flat"):
        primary_cards(camera, Facts("flat", 60762.25, 5.0, 1))
    document["header"] |= {"program": {"keyword": "ACCESS", "values": {"open": 1}, "default": 1}}
    narrow = Camera.model_validate(document)
    with pytest.raises(ConfigError, match="program 3"):
        primary_cards(narrow, Facts("bias", 60762.25, 0.0, 3))


@pytest.mark.parametrize("pattern", ["simcam", "ZTF/MOSAIC.*", "DE(CAM|cam)\\d+", "(?i)foo bar", "[A-Z]+1", "a\\.b"])
def test_example_of_a_pattern_matches_it(pattern: str) -> None:
    assert re.fullmatch(pattern, example_of(pattern))


def test_header_wcs_of_an_amplifier_is_that_of_its_detector() -> None:
    camera = small_camera()
    detector = camera.detector(1)
    wcs = camera.nominal_wcs(detector, ra=200.0, dec=-10.0)
    for amplifier in detector.amplifiers:
        back = in_detector_frame(Wcs.from_header(wcs_cards(wcs, amplifier)), amplifier)
        np.testing.assert_allclose(back.cd, wcs.cd, atol=1e-15)
        np.testing.assert_allclose(back.crpix, wcs.crpix, atol=1e-9)


def test_calibration_frames_need_no_word_for_engineering() -> None:
    document = load_camera("simcam").model_dump(mode="json")
    document["header"] |= {"program": {"keyword": "ACCESS", "values": {"open": 1, "team": 2}}}
    camera = Camera.model_validate(document)
    facts = Facts("bias", 60762.25, 0.0, calibration_program(camera))
    assert "ACCESS" not in primary_cards(camera, facts)


def test_exposure_times_that_the_camera_cannot_do_are_refused() -> None:
    scenario = short_scenario().model_copy(update={"exposure_s": 5000.0})
    with pytest.raises(ConfigError, match="exposure_s = 5000"):
        plan_survey(small_camera(), scenario, seed=1)


def test_exposure_ids_are_those_of_the_start(night: Path) -> None:
    truth = read_catalog(night / "truth" / "exposures.parquet")
    start = truth["mjd_tai"] - truth["exposure_s"] / 172800.0
    assert [exposure_id(float(value)) for value in start] == list(truth["exposure_id"])
