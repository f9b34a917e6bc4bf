"""Files of products: how each is written and read, and what it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.calibrated_image import read_calibrated_image, write_and_restore, write_calibrated_image
from gueststar.formats.calibration_master import read_calibration_master, write_calibration_master
from gueststar.formats.calibration_table import read_calibration_table, write_calibration_table
from gueststar.formats.cutout_cube import read_cutout_cube, write_cutout_cube
from gueststar.formats.detrended_frame import read_detrended_frame, write_detrended_frame
from gueststar.formats.parquet import read_catalog, write_catalog
from gueststar.formats.streak_cutouts import read_streak_cutouts, write_streak_cutouts
from gueststar.model.calibration import CalibrationMaster, CalibrationTable
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.image import CalibratedImage, DetrendedFrame
from gueststar.model.streaks import StreakCutouts
from gueststar.store.products import Product


def write_image(product: Product, path: Path, image: CalibratedImage) -> CalibratedImage:
    """Write an image and return what reading its file gives; ConfigError if the product is something else."""
    if product.holds != "image":
        raise ConfigError(f"{product.name} is not stored from a {type(image).__name__}")
    return write_and_restore(path, image)


def write_product(product: Product, path: Path, value: Any) -> None:
    """Write a product's value; ConfigError if it is of the wrong type. The file appears whole or not at all."""
    match product.holds, value:
        case "image", CalibratedImage():
            write_calibrated_image(path, value)
        case "frame", DetrendedFrame():
            write_detrended_frame(path, value)
        case "calibration", CalibrationMaster():
            write_calibration_master(path, value)
        case "calibration_table", CalibrationTable():
            write_calibration_table(path, value)
        case "catalog", Catalog():
            write_catalog(path, value, None)
        case "cutouts", CandidateCutouts():
            write_cutout_cube(path, value)
        case "streak_cutouts", StreakCutouts():
            write_streak_cutouts(path, value)
        case "metrics", dict():
            with appearing_whole(path) as temporary:
                temporary.write_text(json.dumps(value, indent=1))
        case _:
            raise ConfigError(f"{product.name} is not stored from a {type(value).__name__}")


def read_product(product: Product, path: Path) -> Any:
    """Read a product's value (not of a raw file, which needs its exposure's facts)."""
    match product.holds:
        case "image":
            return read_calibrated_image(path)
        case "frame":
            return read_detrended_frame(path)
        case "calibration":
            return read_calibration_master(path)
        case "calibration_table":
            return read_calibration_table(path)
        case "catalog":
            return read_catalog(path)
        case "cutouts":
            return read_cutout_cube(path)
        case "streak_cutouts":
            return read_streak_cutouts(path)
        case "metrics":
            return json.loads(path.read_text())
        case _:
            raise ConfigError(f"{product.name} is read with SurveyRepo.get")
