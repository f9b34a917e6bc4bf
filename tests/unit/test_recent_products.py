"""Calibration products that a process keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gueststar.formats.calibration_master import write_calibration_master
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.image import MaskedImage
from gueststar.pipelines.night.calibrations.known import RecentProducts


def write_bias(path: Path, level: float) -> None:
    shape = (32, 48)
    pixels = MaskedImage(np.full(shape, level, np.float32), np.ones(shape, np.float32), np.zeros(shape, np.int32))
    write_calibration_master(path, CalibrationMaster("bias", 0, pixels, 60400.0, 10))


def test_a_product_is_read_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    write_bias(tmp_path / "bias.fits", 10.0)
    recent = RecentProducts()
    first = recent.read("bias", tmp_path / "bias.fits")
    assert recent.read("bias", tmp_path / "bias.fits") is first
    write_bias(tmp_path / "bias.fits", 500.0)
    again = recent.read("bias", tmp_path / "bias.fits")
    assert isinstance(again, CalibrationMaster)
    assert abs(float(np.median(again.pixels.image)) - 500.0) < 0.1


def test_the_oldest_products_are_forgotten_when_memory_is_used_up(tmp_path: Path) -> None:
    paths = [tmp_path / f"bias{k}.fits" for k in range(3)]
    for path in paths:
        write_bias(path, 10.0)
    recent = RecentProducts(max_bytes=2 * 32 * 48 * 12)
    kept = [recent.read("bias", path) for path in paths]
    assert recent.read("bias", paths[2]) is kept[2]
    assert recent.read("bias", paths[1]) is kept[1]
    assert recent.read("bias", paths[0]) is not kept[0]
