"""How a plain Butler reads and writes the survey's products (`butler.get` outside of gueststar)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from lsst.daf.butler import FormatterV2
from lsst.resources import ResourcePath

from gueststar.formats.calibrated_image import read_calibrated_image, write_calibrated_image
from gueststar.formats.calibration_master import read_calibration_master, write_calibration_master
from gueststar.formats.calibration_table import read_calibration_table, write_calibration_table
from gueststar.formats.cutout_cube import read_cutout_cube, write_cutout_cube
from gueststar.formats.detrended_frame import read_detrended_frame, write_detrended_frame
from gueststar.formats.parquet import read_catalog, write_catalog
from gueststar.formats.streak_cutouts import read_streak_cutouts, write_streak_cutouts


class CalibratedImageFormatter(FormatterV2):
    """CalibratedImage as multi-extension FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the image."""
        return read_calibrated_image(path)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the image."""
        write_calibrated_image(Path(uri.ospath), in_memory_dataset)


class DetrendedFrameFormatter(FormatterV2):
    """DetrendedFrame as multi-extension FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the frame."""
        return read_detrended_frame(path)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the frame."""
        write_detrended_frame(Path(uri.ospath), in_memory_dataset)


class CalibrationMasterFormatter(FormatterV2):
    """CalibrationMaster as multi-extension FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the master."""
        return read_calibration_master(path)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the master."""
        write_calibration_master(Path(uri.ospath), in_memory_dataset)


class CalibrationTableFormatter(FormatterV2):
    """CalibrationTable as multi-extension FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the tables."""
        return read_calibration_table(path)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the tables."""
        write_calibration_table(Path(uri.ospath), in_memory_dataset)


class CutoutsFormatter(FormatterV2):
    """CandidateCutouts as FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the cut-outs."""
        return read_cutout_cube(Path(path))

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the cut-outs."""
        write_cutout_cube(Path(uri.ospath), in_memory_dataset)


class StreakCutoutsFormatter(FormatterV2):
    """StreakCutouts as FITS."""

    default_extension: ClassVar[str] = ".fits"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the cut-outs."""
        return read_streak_cutouts(Path(path))

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the cut-outs."""
        write_streak_cutouts(Path(uri.ospath), in_memory_dataset)


class CatalogFormatter(FormatterV2):
    """Catalog as Parquet."""

    default_extension: ClassVar[str] = ".parquet"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the catalog."""
        return read_catalog(path)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the catalog."""
        write_catalog(uri.ospath, in_memory_dataset)


class MetricsFormatter(FormatterV2):
    """Metrics as JSON."""

    default_extension: ClassVar[str] = ".json"
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the metrics."""
        return json.loads(Path(path).read_text())

    def to_bytes(self, in_memory_dataset: Any) -> bytes:
        """Return the metrics as JSON."""
        return json.dumps(in_memory_dataset).encode()


class RawFormatter(FormatterV2):
    """Raw files: a plain Butler gets their headers; pixels need the camera, so `SurveyRepo.get` reads them."""

    default_extension: ClassVar[str] = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = frozenset(
        {".fits", ".fit", ".fts", ".fz", ".gz", ".bz2", ".tif", ".tiff"}
    )
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the headers."""
        from gueststar.formats.raw import read_headers

        return read_headers(Path(path))
