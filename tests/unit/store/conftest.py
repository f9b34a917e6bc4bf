"""A tiny camera, its raw files, and products to store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from gueststar.core.bits import MaskPlane
from gueststar.model.camera import Amplifier, Camera, Detector, Filter, FocalPlanePosition, Site
from gueststar.model.exposure import ExposureInfo
from gueststar.model.header import HeaderMapping, TimeMapping
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.rights import Program
from gueststar.model.wcs import Wcs
from gueststar.store.repo import SurveyRepo

SHAPE = (48, 64)


def _detector(number: int) -> Detector:
    ny, nx = SHAPE
    section = f"[1:{nx},1:{ny}]"
    return Detector(
        id=number,
        name=f"C{number // 2 + 1}Q{number % 2 + 1}",
        ccd=number // 2 + 1,
        quadrant=number % 2 + 1,
        shape=SHAPE,
        focal_plane=FocalPlanePosition(x_arcsec=(number % 2 - 0.5) * 70, y_arcsec=(number // 2 - 0.5) * 55),
        amplifiers=(
            Amplifier(
                name="A", data_section=section, detector_section=section, extension=number % 2 + 1,
                gain=1.6, read_noise=5.0, saturation=60000,
            ),
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def camera() -> Camera:
    """Two CCDs of two quadrants, each CCD a file of two extensions."""
    return Camera(
        name="tinycam",
        site=Site(name="hill", latitude_deg=33.0, longitude_deg=-116.9, height_m=1700.0),
        pixel_scale_arcsec=1.0,
        filters=(
            Filter(physical_filter="tiny g", band="g", fid=1, aliases=("g",), catalog_band="g"),
            Filter(physical_filter="tiny r", band="r", fid=2, aliases=("r",)),
        ),
        detectors=tuple(_detector(number) for number in range(4)),
        header=HeaderMapping(
            instrument_match={"INSTRUME": "TinyCam"},
            observation_types={"OBJECT": "science", "ZERO": "bias", "DARK": "dark", "DOMEFLAT": "flat"},
            time=TimeMapping(keywords=("DATE-OBS",)),
            detector_keyword="CCDNUM",
        ),
    )


@pytest.fixture(scope="session")
def empty_survey(tmp_path_factory: pytest.TempPathFactory, camera: Camera) -> Path:
    """A folder with a new, empty repository on SQLite; to be copied."""
    root = tmp_path_factory.mktemp("template") / "survey"
    SurveyRepo.create(root, camera).close()
    return root


@pytest.fixture
def repo(tmp_path: Path, empty_survey: Path) -> Any:
    """An empty repository on SQLite."""
    shutil.copytree(empty_survey, tmp_path / "survey")
    with SurveyRepo.open(tmp_path / "survey") as opened:
        yield opened


@pytest.fixture
def write_raw(tmp_path: Path) -> Callable[..., Path]:
    """Write a raw file of one CCD; keyword arguments are cards (None removes one)."""

    def write(name: str = "raw.fits", *, seed: int = 0, **cards: Any) -> Path:
        rng = np.random.default_rng(seed)
        header = fits.Header()
        values: dict[str, Any] = {
            "INSTRUME": "TinyCam", "IMAGETYP": "OBJECT", "DATE-OBS": "2023-02-25T06:30:00.00", "EXPTIME": 30.0,
            "FILTER": "g", "RA": 150.0, "DEC": 20.0, "CCDNUM": 1, "OBJECT": "field one",
        }  # fmt: skip
        values |= {key.replace("_", "-"): value for key, value in cards.items()}
        for key, value in values.items():
            if value is not None:
                header[key] = value
        pixels = [rng.poisson(400.0, SHAPE).astype(np.uint16) for _ in range(2)]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = fits.CompImageHDU if name.endswith(".fz") else fits.ImageHDU
        fits.HDUList([fits.PrimaryHDU(header=header), *(kind(plane) for plane in pixels)]).writeto(path)
        return path

    return write


@pytest.fixture(scope="session")
def exposure() -> Callable[..., ExposureInfo]:
    """Make the facts of an exposure; ``number`` moves it in time."""

    def make(number: int = 0, **changes: Any) -> ExposureInfo:
        facts: dict[str, Any] = {
            "camera": "tinycam", "observation_type": "science", "mjd_start": 60000.25 + number * 0.001,
            "exposure_s": 30.0, "day_obs": 20230224, "program": Program.PUBLIC, "physical_filter": "tiny g",
            "band": "g", "ra": 150.0, "dec": 20.0,
        }  # fmt: skip
        return ExposureInfo(**{**facts, **changes})

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[..., CalibratedImage]:
    """Make a calibrated image of white noise of 10 electrons."""

    def make(seed: int = 0, shape: tuple[int, int] = SHAPE, **metadata: Any) -> CalibratedImage:
        rng = np.random.default_rng(seed)
        mask = np.zeros(shape, dtype=np.int32)
        mask[3, 4] = int(MaskPlane.SATURATED | MaskPlane.CLIPPED)
        pixels = MaskedImage(
            rng.normal(0.0, 10.0, shape).astype(np.float32),
            (100.0 + rng.normal(0.0, 1.0, shape)).astype(np.float32),
            mask,
        )
        stamp = np.zeros((3, 5, 5), dtype=np.float32)
        stamp[0, 2, 2], stamp[1, 2, 1], stamp[2, 1, 2] = 1.0, 0.1, -0.1
        photocal = PhotoCal(26.123456789012345, 0.0123, 0.02, -0.05, 0.004, "g-r", "g", 321, 0.6, 0.3)
        wcs = Wcs.tangent(ra=150.1, dec=20.2, x=30.5, y=20.5, scale_arcsec=1.01, rotation_deg=3.0)
        return CalibratedImage(pixels, wcs, Psf(stamp, 1, shape), photocal, metadata)

    return make
