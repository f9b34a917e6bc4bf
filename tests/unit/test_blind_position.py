"""The boresight follows from any detector's place in the sky; too few stars and mirrored skies are told."""

from typing import Any

import numpy as np
import pytest

from gueststar.cameras.load import camera_names, load_camera
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.blind_position import boresight_of
from gueststar.store.blind_solver import BlindSolver


@pytest.mark.parametrize(("ra", "dec", "rotation"), [(10.0, 30.0, 0.0), (359.9, -60.0, 75.0), (200.0, 78.0, -170.0)])
def test_every_detector_of_every_camera_leads_back_to_the_boresight(ra: float, dec: float, rotation: float) -> None:
    for name in camera_names():
        camera = load_camera(name)
        for detector in camera.detectors[:4]:
            wcs = camera.nominal_wcs(detector, ra=ra, dec=dec, rotation_deg=rotation)
            found = boresight_of(wcs, camera, detector)
            away = np.hypot(((found[0] - ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec)), found[1] - dec)
            assert away < 1e-5
            assert (found[2] - rotation + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=1e-3)


def test_a_mirrored_sky_is_told_with_the_mend() -> None:
    camera = load_camera(camera_names()[0])
    detector = camera.detectors[0]
    wcs = camera.nominal_wcs(detector, ra=10.0, dec=20.0)
    mirrored = Wcs(wcs.crval, wcs.crpix, wcs.cd @ np.diag([-1.0, 1.0]), wcs.pv1, wcs.pv2)
    with pytest.raises(DataError, match=r"mirrored .* set focal_plane\.parity"):
        boresight_of(mirrored, camera, detector)


def test_without_index_files_the_mend_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "solve-field"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    stars = {"x": np.zeros(9), "y": np.zeros(9), "flux": np.ones(9), "shape": (10, 10), "scale_arcsec": (1.0, 1.1)}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingInput, match=r"solve-field is not installed: install Debian's astrometry\.net"):
        BlindSolver([tmp_path]).solve(**stars)
    monkeypatch.setenv("PATH", str(bin_folder))
    with pytest.raises(MissingInput, match="no index files .* gueststar refcat index"):
        BlindSolver([tmp_path]).solve(**stars)
