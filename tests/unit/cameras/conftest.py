"""Raw files as real cameras write them, made for one test each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from gueststar.cameras.load import load_camera
from gueststar.formats.raw import RawExtension, RawFile
from gueststar.model.camera import Camera, parse_section

SIMCAM_CARDS: dict[str, Any] = {
    "INSTRUME": "simcam",
    "IMAGETYP": "OBJECT",
    "DATE-OBS": "2024-01-10T03:00:00.500",
    "EXPTIME": 30.0,
    "FILTER": "r",
    "RA": "05:00:00.0",
    "DEC": "-30:30:00",
    "AIRMASS": 1.01,
    "FIELD": 412,
    "PROGRMID": 1,
    "OBJECT": "survey",
}
ZTF_CARDS: dict[str, Any] = {
    "INSTRUME": "ZTF/MOSAIC",
    "IMGTYPE": "object",
    "OBSJD": 2458940.6524769,
    "EXPTIME": 30.0,
    "FILTERID": 2,
    "FILTER": "FILTER_ZTF_R",
    "RAD": 165.0,
    "DECD": 33.35,
    "FIELDID": 668,
    "PROGRMID": 2,
    "PROGRMPI": "Kulkarni",
    "CCD_ID": 6,
}


def header_with(cards: dict[str, Any]) -> fits.Header:
    header = fits.Header()
    for key, value in cards.items():
        if value is not None:
            header[key] = value
    return header


@pytest.fixture
def raw_with() -> Callable[..., RawFile]:
    """Make a raw file of headers alone, as `read_headers` would return it."""

    def make(camera: Camera, cards: dict[str, Any]) -> RawFile:
        shapes: dict[int | str, list[int]] = {}
        for detector in camera.detectors:
            for amplifier in detector.amplifiers:
                places = [(amplifier.extension, amplifier.data_section)]
                places += [(o.extension or amplifier.extension, o.section) for o in amplifier.overscans]
                for extension, section in places:
                    rows, columns = parse_section(section)
                    shape = shapes.setdefault(extension, [0, 0])
                    shape[:] = max(shape[0], rows.stop), max(shape[1], columns.stop)
        present = {key: value for key, value in cards.items() if value is not None}
        if list(shapes) == [0]:
            return RawFile(Path("made.fits"), present, (RawExtension(0, "", present, tuple(shapes[0])),))
        images = [
            RawExtension(index, name if isinstance(name, str) else "", {"NAXIS": 2}, (shape[0], shape[1]))
            for index, (name, shape) in enumerate(sorted(shapes.items(), key=str), start=1)
        ]
        return RawFile(Path("made.fits"), present, (RawExtension(0, "", present, None), *images))

    return make


@pytest.fixture
def simcam_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a simcam exposure whose pixels tell extension, row and column."""

    def write(name: str = "exposure.fits", *, compress: bool = False, **changes: Any) -> Path:
        hdus = fits.HDUList([fits.PrimaryHDU(header=header_with({**SIMCAM_CARDS, **changes}))])
        rng = np.random.default_rng(7)
        for detector in load_camera("simcam").detectors:
            for amplifier in detector.amplifiers:
                pixels = rng.normal(1000.0, 3.0, (1024, 544))
                pixels[:, :512] += 100.0 * (detector.id + 1) + np.arange(512) / 8.0
                kind = fits.CompImageHDU if compress else fits.ImageHDU
                hdus.append(kind(pixels.astype(np.uint16), name=str(amplifier.extension)))
        path = tmp_path / name
        hdus.writeto(path, overwrite=True)
        return path

    return write


@pytest.fixture
def ztf_file(tmp_path: Path) -> Callable[..., Path]:
    """Write one CCD of a ZTF exposure: four quadrants, then their overscans, tile-compressed."""

    def write(name: str = "ztf_c06_o.fits.fz", **changes: Any) -> Path:
        hdus = fits.HDUList([fits.PrimaryHDU(header=header_with({**ZTF_CARDS, **changes}))])
        for quadrant in range(1, 5):
            hdus.append(fits.CompImageHDU(np.full((3080, 3072), 2000 + quadrant, np.uint16)))
        for quadrant in range(1, 5):
            hdus.append(fits.CompImageHDU(np.full((3080, 30), 1000 + quadrant, np.uint16)))
        path = tmp_path / name
        hdus.writeto(path)
        return path

    return write


@pytest.fixture
def simcam_cards() -> dict[str, Any]:
    return dict(SIMCAM_CARDS)


@pytest.fixture
def ztf_cards() -> dict[str, Any]:
    return dict(ZTF_CARDS)
