"""The reference image of one field, detector and band, with its catalogs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.bits import MaskPlane
from gueststar.core.ids import content_id
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.instrumental_columns import PSF_STAR
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.reference.chromatic import site_air, subband_shifts
from gueststar.pipelines.reference.compare import CompareReferences
from gueststar.pipelines.reference.reference_grid import reference_grid
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference
from gueststar.pipelines.science.catalogs import (
    InstrumentalCatalogs,
    MakeCatalogs,
    calibrate_apertures,
    calibrate_sources,
    flag_halos,
    flag_psf_stars,
    with_planes,
)
from gueststar.pipelines.science.halos import MarkHalos
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.store.products import DataId


@dataclass(frozen=True)
class ReferenceEpoch:
    """One science image that goes into a reference."""

    visit: int
    mjd_start: float
    """Start of the exposure, MJD TAI."""
    mjd_tai: float
    """Its middle."""
    path: Path


@dataclass(frozen=True)
class ReferenceWork:
    """The chosen epochs of one field, detector and band."""

    job_id: int
    repo_root: Path
    field: int
    field_ra: float
    field_dec: float
    detector_id: int
    band: str
    epochs: tuple[ReferenceEpoch, ...]
    """Science images, best first."""
    settings: PipelineSettings
    previous: tuple[Path, Path] | None = None
    """Image and PSF catalog of the version that this one replaces; None: there is none."""
    chosen: tuple[dict[str, Any], ...] = ()
    """Each candidate epoch with the decision and its reason."""


def run_reference(work: ReferenceWork) -> Outcome:
    """Make one reference image and stage it with both catalogs."""
    return attempt(work.job_id, lambda: _stage_reference(work))


def _stage_reference(work: ReferenceWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    settings = work.settings
    detector = context.camera.detector(work.detector_id)
    with timer("coadd"):
        grid = reference_grid(context.camera, detector, ra=work.field_ra, dec=work.field_dec)
        epochs = [
            Epoch(str(epoch.visit), epoch.mjd_tai, _Reader(epoch.path), _shifts_of(epoch, work, context, grid))
            for epoch in work.epochs
        ]
        measure_psf = _PsfMeasurement(settings)
        reference, subbands = MakeReference(settings.reference).with_subbands(
            epochs, grid=grid, measure_psf=measure_psf
        )
        used = {int(name) for name in reference.metadata["epochs"]}
        reference = replace(reference, metadata=reference.metadata | identity_of(work, used))
    with timer("catalogs"):
        instrumental = MakeCatalogs(settings.catalogs).run(reference.pixels, reference.psf)
        serial = content_id("reference", work.field, work.band, bits=40)
        arguments = (reference.wcs, reference.photocal)
        reference, halo_metrics = _marked(work, context, reference, instrumental)
        tables = [
            flag_halos(flag_psf_stars(table, measure_psf.stars), reference.pixels.mask, fwhm=reference.psf.central_fwhm)
            for table in (instrumental.psf, instrumental.aperture)
        ]
        sources = calibrate_sources(tables[0], *arguments, visit=serial, detector=detector.id)
        apertures = calibrate_apertures(tables[1], *arguments, visit=serial, detector=detector.id)
    changes, change_metrics = _changes(work, context, reference, sources)
    metrics = reference.metadata | {
        "change": change_metrics,
        "catalogs": instrumental.metrics,
        "halos": halo_metrics,
        "choice": list(work.chosen),
        "fwhm_arcsec": reference.psf.central_fwhm * reference.wcs.pixel_scale_arcsec,
    }
    data_id = DataId(field=work.field, detector=work.detector_id, band=work.band)
    with timer("write"):
        staged = (
            context.stage("reference_image", data_id, reference),
            context.stage("reference_source", data_id, sources),
            context.stage("reference_aperture_source", data_id, apertures),
            context.stage("reference_metrics", data_id, metrics),
            *(
                (context.stage("reference_subbands", data_id, subbands.to_frame(reference.metadata["reference_id"])),)
                if subbands is not None
                else ()
            ),
            *((context.stage("reference_change", data_id, changes),) if changes is not None else ()),
        )
    return Result(staged, metrics, {"epochs": [str(epoch.path) for epoch in work.epochs]}, timer.seconds)


def _shifts_of(
    epoch: ReferenceEpoch, work: ReferenceWork, context: WorkerContext, grid: tuple[Wcs, tuple[int, int]]
) -> NDArray[np.float64] | None:
    """Return by how much the air displaces the sub-bands of an epoch; None where that is not asked for, or unknown."""
    config, (wcs, (ny, nx)) = work.settings.reference, grid
    air = site_air(context.camera.site, mjd_tai=epoch.mjd_tai, band=work.band)
    if not config.is_chromatic or air is None:
        return None
    return subband_shifts(air, wcs, x=(nx - 1) / 2, y=(ny - 1) / 2, band=work.band, n=config.subbands.n)


def _changes(
    work: ReferenceWork, context: WorkerContext, reference: CalibratedImage, sources: Catalog
) -> tuple[Catalog | None, dict[str, Any]]:
    """Return where the static sky's flux is not what the version before said, and figures; nothing without one."""
    if work.previous is None:
        return None, {}
    image, catalog = work.previous
    old = context.image(image)
    compared = CompareReferences(work.settings.reference_comparison).run(
        old, reference, old_sources=context.catalog(catalog), new_sources=sources
    )
    return compared.changes, compared.metrics | {"old_reference_id": int(old.metadata["reference_id"])}


def _marked(
    work: ReferenceWork, context: WorkerContext, reference: CalibratedImage, found: InstrumentalCatalogs
) -> tuple[CalibratedImage, dict[str, Any]]:
    """Return the reference with DETECTED and HALO set, and what was measured of halos."""
    ny, nx = reference.shape
    ra, dec = (float(value) for value in reference.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2))
    radius = 0.55 * math.hypot(nx, ny) * reference.wcs.pixel_scale_arcsec / 3600.0
    marked = MarkHalos(work.settings.halos).run(
        with_planes(reference.pixels, found.is_detected, MaskPlane.DETECTED),
        psf=reference.psf, wcs=reference.wcs, photocal=reference.photocal, sources=found.psf,
        reference=context.refcats.cone(ra=ra, dec=dec, radius_deg=radius),
        epoch_year=times.julian_year(float(np.mean([epoch.mjd_tai for epoch in work.epochs]))),
    )  # fmt: skip
    return replace(reference, pixels=marked.pixels), marked.metrics


def identity_of(work: ReferenceWork, used: set[int]) -> dict[str, Any]:
    """Return what a reference tells of itself: its place, its epochs, and an id that depends on them alone."""
    starts = [epoch.mjd_start for epoch in work.epochs if epoch.visit in used]
    visits = sorted(used)
    return {
        "reference_id": content_id(work.field, work.detector_id, work.band, *visits, bits=31),
        "field": work.field,
        "detector": work.detector_id,
        "band": work.band,
        "epochs": visits,
        "mjd_first": min(starts),
        "mjd_last": max(starts),
    }


class _Reader:
    """A call that reads one epoch when asked, so that memory holds few at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> CalibratedImage:
        from gueststar.formats.calibrated_image import read_calibrated_image

        return read_calibrated_image(self.path)


class _PsfMeasurement:
    """PSF of the co-add from its own stars."""

    def __init__(self, settings: PipelineSettings) -> None:
        self.settings = settings
        self.stars = PSF_STAR.empty()
        """Stars of the last measurement."""

    def __call__(self, pixels: MaskedImage, expected_fwhm: float) -> Psf:
        measured = MeasurePsf(self.settings.psf).run(pixels, expected_fwhm=expected_fwhm)
        self.stars = measured.stars
        return measured.psf
