"""Files of products: how each is written and read, and what it is called."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gueststar.core import ids, times
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
from gueststar.model.camera import Camera
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.image import CalibratedImage, DetrendedFrame
from gueststar.model.streaks import StreakCutouts
from gueststar.store.products import PRODUCTS_RUN, SUFFIXES, DataId, Product, StagedProduct, product_named


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


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_path(product: Product, data_id: DataId, *, sha256: str, group: str) -> str:
    """Return where a product's file lies in the products folder; it depends on the content."""
    words = [str(value).replace("/", "-") for value in data_id.values(product).values()]
    name = "_".join([product.name, *words])
    return f"{product.name}/{group}/{name}-{sha256[:12]}{SUFFIXES[product.holds]}"


def path_of_staged(staged: StagedProduct, camera: Camera, *, run: str = PRODUCTS_RUN) -> str:
    """Return where a staged product's file will lie in the products folder once it is committed to a collection."""
    product, own_run = product_named(staged.product), staged.run or run
    group = group_of(product, staged.data_id, camera, run=own_run)
    return stored_path(product, staged.data_id, sha256=staged.sha256, group=group)


def group_of(product: Product, data_id: DataId, camera: Camera, *, run: str) -> str:
    """Return the folder of a product within its kind: its night, its field, or (calibrations) its run."""
    if product.is_calibration:
        return run.split("/")[1] if "/" in run else run
    if data_id.visit is not None:
        return str(night_of_exposure(data_id.visit, camera))
    return f"field_{data_id.field:06d}"


def night_of_exposure(exposure_id: int, camera: Camera) -> int:
    """Return the survey night of an exposure, from its id alone."""
    return times.day_obs(ids.exposure_start(exposure_id), longitude_deg=camera.site.longitude_deg)
