"""Bring reference catalogs into a repository: from tables, from index files, from images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gueststar.cameras.header_wcs import detector_wcs
from gueststar.cameras.translate import translate
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.astrometry_index import read_index_stars
from gueststar.formats.named_table import read_named_table
from gueststar.formats.raw import read_detector, read_headers
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.calibration import Calibrations
from gueststar.model.camera import Camera, Detector
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.pipelines.electronics import seen_detectors
from gueststar.pipelines.refcat import MakeRefcatFromImages, TrustedImage
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import MakeCatalogs
from gueststar.pipelines.science.detrend import Detrend
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.store.refcats import RefcatInfo, RefcatStore

TableFormat = Literal["table", "astrometry-index"]
Report = Callable[[str], None]


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    info: RefcatInfo
    n_read: int
    mapping: dict[str, str]
    """Our column -> where it came from; empty for index files."""
    n_dropped: int = 0
    """Rows without a position."""


def import_refcat(
    store: RefcatStore, path: Path, *, name: str | None = None, columns: Mapping[str, str] | None = None,
    epoch: float | None = None, table_format: TableFormat = "table", replace: bool = False,
) -> ImportReport:  # fmt: skip
    """Read a table or an Astrometry.net index file and store it under ``name`` (default: the file's name)."""
    chosen = name or _name_of(path)
    if table_format == "astrometry-index":
        catalog = read_index_stars(path)
        metadata = {"origin": path.name, "is_calibrated": False, "magnitudes": "V of the index in the place of r, Vega"}
        return ImportReport(
            store.import_catalog(chosen, catalog, metadata=metadata, replace=replace), catalog.n_rows, {}
        )
    reading = refcat_from_table(read_named_table(path), columns=columns, epoch=epoch)
    metadata = {"origin": path.name, "columns": reading.mapping, "is_calibrated": _has_magnitudes(reading.catalog)}
    info = store.import_catalog(chosen, reading.catalog, metadata=metadata, replace=replace)
    return ImportReport(info, reading.catalog.n_rows, reading.mapping, reading.n_dropped)


FindCalibrations = Callable[[Detector, ExposureInfo], Calibrations]
"""From a detector and an exposure to the calibrations that are valid then."""


def refcat_from_images(
    store: RefcatStore, camera: Camera, paths: Sequence[Path], *, name: str = "from-images", report: Report = print,
    calibrations: FindCalibrations = lambda detector, info: Calibrations(),
) -> RefcatInfo:  # fmt: skip
    """Make a catalog of the stars on raw science frames whose header WCS the camera trusts, and store it.

    Frames are calibrated with the ``calibrations`` there are. Those that cannot be used are reported and left out;
    DataError if none is left.
    """
    if not camera.header.is_wcs_trusted:
        raise ConfigError(f"camera {camera.name} does not trust its headers' WCS: header.is_wcs_trusted is false")
    images = []
    for path in paths:
        try:
            images += _trusted_images(camera, path, calibrations)
        except DataError as error:
            report(f"left out: {error}")
    made = MakeRefcatFromImages(_detector_of_stars(camera)).run(images)
    return store.import_catalog(name, made.catalog, metadata=made.metadata, replace=True)


def _name_of(path: Path) -> str:
    """Return a catalog name made of a file's name."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0].lower()
    return re.sub(r"[^a-z0-9_.-]+", "-", stem).strip("-_.") or "refcat"


def _has_magnitudes(catalog: Catalog) -> bool:
    return any(bool(np.isfinite(catalog[f"mag_{band}"]).any()) for band in "griz")


def _trusted_images(camera: Camera, path: Path, calibrations: FindCalibrations) -> list[TrustedImage]:
    raw = read_headers(path)
    translation = translate(camera, raw)
    info = translation.info
    glass = camera.filter_named(info.physical_filter or "")
    if info.observation_type != "science" or glass is None:
        raise DataError(f"{path.name} is no science frame in a known filter ({info.observation_type})")
    images = []
    for detector_id in translation.detector_ids:
        detector = camera.detector(detector_id)
        wcs = detector_wcs(camera, raw, detector)
        if wcs is None:
            raise DataError(f"{path.name} holds no WCS")
        known = calibrations(detector, info)
        raw_pixels = read_detector(path, detector, info, others=seen_detectors(known, detector, camera))
        pixels = Detrend().run(raw_pixels, known).pixels
        pixels = SubtractBackground().run(pixels).pixels
        name = f"{path.name}[{detector.name}]"
        images.append(TrustedImage(name, pixels, wcs, glass.catalog_band, info.exposure_s, info.epoch_year))
    return images


def _detector_of_stars(camera: Camera) -> Callable[[MaskedImage], Catalog]:
    expected = camera.typical_fwhm_arcsec / camera.pixel_scale_arcsec

    def detect(pixels: MaskedImage) -> Catalog:
        measured = MeasurePsf().run(pixels, expected_fwhm=expected)
        return MakeCatalogs().run(pixels, measured.psf).psf

    return detect
