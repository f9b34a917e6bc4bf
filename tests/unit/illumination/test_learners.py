"""Products learned from the stored images and catalogs of a night."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gueststar.cameras.load import load_camera, to_yaml
from gueststar.formats.calibrated_image import write_calibrated_image
from gueststar.formats.calibration_master import write_calibration_master
from gueststar.formats.parquet import write_catalog
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT, SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.rights import Program
from gueststar.pipelines.night.calibrations.learning import LEARNERS
from gueststar.pipelines.night.calibrations.making import LearnedImage, Learning, NothingMade
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.refcats import RefcatStore

SIDE, SKY, N_STARS = 256, 900.0, 700
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float64)
FRINGES = np.sin(2 * np.pi * np.hypot(X - 60, Y + 100) / 30)
RANDOM = np.random.default_rng(3)
STAR_RA, STAR_DEC = 150.0 + RANDOM.uniform(-0.08, 0.08, N_STARS), 2.0 + RANDOM.uniform(-0.08, 0.08, N_STARS)
STAR_MAG, STAR_COLOUR = RANDOM.uniform(14, 17, N_STARS), RANDOM.uniform(0.0, 1.5, N_STARS)


def response(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.03 * (2 * x / SIDE - 1) + 0.02 * (2 * y / SIDE - 1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that workers can read: a camera whose r filter fringes, and a reference catalog."""
    root = tmp_path_factory.mktemp("repo")
    camera = load_camera("simcam")
    filters = tuple(f.model_copy(update={"has_fringes": f.band == "r"}) for f in camera.filters)
    detector = camera.detectors[0]
    half, section = SIDE // 2, f"[1:{SIDE // 2},1:{SIDE}]"
    amplifiers = tuple(
        a.model_copy(update={"data_section": section, "detector_section": f"[{1 + i * half}:{(1 + i) * half},1:{SIDE}]",
                             "overscans": ()})
        for i, a in enumerate(detector.amplifiers)
    )  # fmt: skip
    small = detector.model_copy(update={"shape": (SIDE, SIDE), "amplifiers": amplifiers})
    changed = camera.model_copy(update={"filters": filters, "detectors": (small,)})
    (root / "camera.yaml").write_text(to_yaml(changed))
    columns: dict[str, Any] = {c.name: np.zeros(N_STARS, dtype=c.dtype) for c in REFCAT.columns}
    columns |= {"ref_id": np.arange(N_STARS), "ra": STAR_RA, "dec": STAR_DEC, "epoch": np.full(N_STARS, 2023.0)}
    columns |= {"mag_r": STAR_MAG, "mag_g": STAR_MAG + STAR_COLOUR}
    columns |= {f"mag_{band}_err": np.full(N_STARS, 0.01) for band in "gr"}
    RefcatStore(root / "refcats").import_catalog("truth", REFCAT.catalog(columns))
    return root


def night(
    root: Path, folder: Path, *, n: int = 8, band: str = "r", fringe: float = 0.02, warm: float = 0.0,
    metrics: dict[str, Any] | None = None, calibrations: dict[str, Path] | None = None, size: float = 1.0,
) -> Learning:  # fmt: skip
    """Write a night's images and catalogs and return what a learner gets."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = WorkerContext(root)
    detector = context.camera.detector(0)
    psf = Psf(np.ones((1, 9, 9), np.float32) / 81, 0, (SIDE, SIDE))
    images = []
    for number in range(n):
        random = np.random.default_rng(100 + number)
        place = (150.0 + random.uniform(-0.02, 0.02), 2.0 + random.uniform(-0.02, 0.02))
        wcs = replace(context.camera.nominal_wcs(detector, ra=place[0], dec=place[1]), crval=place)
        pixels = random.normal(0, np.sqrt(SKY), (SIDE, SIDE)) + fringe * random.uniform(0.7, 1.3) * SKY * FRINGES
        pixels[40, 50] += warm
        image = MaskedImage(pixels.astype(np.float32), np.full((SIDE, SIDE), SKY, np.float32), np.zeros((SIDE, SIDE)))
        photocal = PhotoCal(27.0, 0.01, colour_term=0.05, colour_name="g-r", band="r")
        told = {"sky_electrons": SKY, "detrend": {"calibrations": {}}, "photometry": {}} | (metrics or {})
        path = folder / f"{number}.fits"
        write_calibrated_image(path, CalibratedImage(image, wcs, psf, photocal, {"metrics": told}))
        x, y = wcs.sky_to_pixel(ra=STAR_RA, dec=STAR_DEC)
        on = np.flatnonzero((x > 0) & (x < SIDE - 1) & (y > 0) & (y < SIDE - 1))
        magnitude = (STAR_MAG - 0.05 * STAR_COLOUR)[on] + size * response(x[on], y[on]) + random.normal(0, 0.02)
        write_catalog(folder / f"{number}.parquet", _sources(wcs, x[on], y[on], magnitude, random), None)
        info = ExposureInfo(
            "simcam", "science", 60000.0 + 0.01 * number, 30.0, 20230225, Program.PUBLIC,
            physical_filter=f"sim_{band}", band=band, ra=place[0], dec=place[1],
        )  # fmt: skip
        images.append(
            LearnedImage(info, 0, path, path, folder / f"{number}.parquet", folder / "none", calibrations or {})  # type: ignore[arg-type]
        )
    return Learning(tuple(images), detector, context, None, PipelineSettings())


def _sources(wcs: Any, x: Any, y: Any, magnitude: Any, random: np.random.Generator) -> Catalog:
    columns: dict[str, Any] = {c.name: np.zeros(x.size, dtype=c.dtype) for c in SOURCE.columns}
    noisy = magnitude + random.normal(0, 0.005, x.size)
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    flux = 10.0 ** (0.4 * (31.4 - noisy))
    columns |= {"x": x, "y": y, "ra": ra, "dec": dec, "mag": noisy, "mag_err": np.full(x.size, 0.005)}
    return SOURCE.catalog(columns | {"psf_flux": flux, "psf_flux_err": 0.005 * flux})


def test_a_filter_that_fringes_gets_its_pattern_and_another_does_not(repository: Path, tmp_path: Path) -> None:
    made = LEARNERS["fringe"](night(repository, tmp_path / "r"))
    assert isinstance(made, CalibrationMaster)
    assert np.corrcoef(made.pixels.image.ravel(), FRINGES.ravel())[0, 1] > 0.9
    other = LEARNERS["fringe"](night(repository, tmp_path / "g", n=1, band="g"))
    assert isinstance(other, NothingMade)
    assert "does not say" in other.reason


def test_fringes_that_were_taken_out_are_put_back_before_they_are_learned_again(
    repository: Path, tmp_path: Path
) -> None:
    first = LEARNERS["fringe"](night(repository, tmp_path / "a"))
    assert isinstance(first, CalibrationMaster)
    write_calibration_master(tmp_path / "fringe.fits", first)
    told = {
        "detrend": {
            "calibrations": {"fringe": {"mjd_tai": first.mjd_tai}},
            "fringe": {"is_removed": True, "amplitudes": [SKY]},
        }
    }
    clean = night(
        repository, tmp_path / "b", fringe=0.0, metrics=told, calibrations={"fringe": tmp_path / "fringe.fits"}
    )
    again = LEARNERS["fringe"](clean)
    assert isinstance(again, CalibrationMaster)
    assert np.corrcoef(again.pixels.image.ravel(), first.pixels.image.ravel())[0, 1] > 0.9
    unknown = night(repository, tmp_path / "c", fringe=0.0, metrics=told)
    assert isinstance(LEARNERS["fringe"](unknown), NothingMade)


def test_the_response_to_stars_is_learned_with_colour_and_levelling_taken_into_account(
    repository: Path, tmp_path: Path
) -> None:
    # The images were levelled by a slope of 0.01 mag in x, which stands in the metrics and no longer in the fluxes.
    told = {"photometry": {"spatial_order": 1, "spatial_coefficients": [0.01, 0.0]}}
    made = LEARNERS["illumination"](night(repository, tmp_path / "r", metrics=told))
    assert isinstance(made, CalibrationMaster)
    found = -2.5 * np.log10(made.pixels.image)
    expected = response(X, Y) - 0.01 * (2 * X / SIDE - 1)
    assert np.std(found - found.mean() - expected) < 0.003
    assert isinstance(LEARNERS["illumination"](night(repository, tmp_path / "few", n=2)), NothingMade)
    even = LEARNERS["illumination"](night(repository, tmp_path / "even", size=0.0))
    assert isinstance(even, NothingMade)


def test_a_warm_pixel_of_all_images_is_learned(repository: Path, tmp_path: Path) -> None:
    fringed = LEARNERS["defects"](night(repository, tmp_path / "r", warm=200.0))
    assert isinstance(fringed, NothingMade)  # what fringes leave on the pixels would be taken for defects
    made = LEARNERS["defects"](night(repository, tmp_path / "g", band="g", fringe=0.0, warm=200.0))
    assert isinstance(made, CalibrationMaster)
    assert made.pixels.mask[40, 50] != 0
    assert (made.pixels.mask != 0).mean() < 2e-3


def test_images_that_a_user_calibrated_teach_nothing(repository: Path, tmp_path: Path) -> None:
    learning = night(repository, tmp_path / "r", n=6)
    entered = learning._replace(images=tuple(replace(image, raw=None) for image in learning.images))
    for kind in ("fringe", "illumination", "defects"):
        assert isinstance(LEARNERS[kind](entered), NothingMade)  # type: ignore[index]
