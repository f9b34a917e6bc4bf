"""The reference image of one field, detector and band, with its catalogs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gueststar.core.ids import content_id
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.night.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.reference.reference_grid import reference_grid
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_apertures, calibrate_sources
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
        epochs = [Epoch(str(epoch.visit), epoch.mjd_tai, _Reader(epoch.path)) for epoch in work.epochs]
        reference = MakeReference(settings.reference).run(epochs, grid=grid, measure_psf=_PsfMeasurement(settings))
        used = {int(name) for name in reference.metadata["epochs"]}
        reference = replace(reference, metadata=reference.metadata | identity_of(work, used))
    with timer("catalogs"):
        instrumental = MakeCatalogs(settings.catalogs).run(reference.pixels, reference.psf)
        serial = content_id("reference", work.field, work.band, bits=40)
        arguments = (reference.wcs, reference.photocal)
        sources = calibrate_sources(instrumental.psf, *arguments, visit=serial, detector=detector.id)
        apertures = calibrate_apertures(instrumental.aperture, *arguments, visit=serial, detector=detector.id)
    metrics = reference.metadata | {
        "catalogs": instrumental.metrics,
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
        )
    return Result(staged, metrics, {"epochs": [str(epoch.path) for epoch in work.epochs]}, timer.seconds)


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

    def __call__(self, pixels: MaskedImage, expected_fwhm: float) -> Psf:
        return MeasurePsf(self.settings.psf).run(pixels, expected_fwhm=expected_fwhm).psf
