"""The night's candidates become objects and alerts: one detector image at a time, in the order of time."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.footprint import enclosing_circle
from gueststar.algorithms.stats.select import median_of
from gueststar.core import times
from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.formats.calibrated_image import ImageFrame, read_frame
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.candidate import ReferenceFacts
from gueststar.pipelines.alerts.solar_system import KnownObjects, match_known_objects
from gueststar.pipelines.alerts.visible import Image
from gueststar.pipelines.alerts.visit import AlertVisit, VisitOutcome, VisitProducts
from gueststar.pipelines.difference.cutouts import cut_candidates
from gueststar.pipelines.difference.forced import DifferenceForcedConfig, ImageFacts, MeasureOnDifference
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.difference import likely_alerts
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import Job
from gueststar.store.orbits import OrbitStore
from gueststar.store.products import DataId, StagedProduct
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import rights_policy

Floats = NDArray[np.float64]

NEIGHBOUR_MARGIN_DEG = 90.0 / 3600.0
"""How far around an image catalog neighbours of candidates are looked for."""


_SAMPLING = 4
"""Every so many rows and columns are looked at for the noise of an image."""


class AssociateVisit:
    """Associates the candidates of detector images and writes their alerts, each image exactly once."""

    def __init__(self, repo: SurveyRepo, settings: PipelineSettings) -> None:
        self.repo, self.settings = repo, settings
        gc.freeze()  # code and tables loaded so far are no garbage: looking through them would cost 50 ms an image
        self.context = WorkerContext.of(repo.root)
        self.refcats = self.context.refcats
        self.log = AlertLog(repo.root)
        self.known_objects = KnownObjects(
            OrbitStore(repo.root).predicted(), repo.camera.site, settings.alerts.solar_system
        )
        self.earlier = EarlierMeasurement(repo, self.context, settings.forced)
        self.store = DetectionStore.of_survey(repo.root, repo.settings.database)
        self.alert_visit = AlertVisit(
            self.store, self.log, policy=rights_policy(repo.settings), clock=times.now_mjd_tai, config=settings.alerts
        )

    def run(self, job_id: int, difference: Job) -> Outcome:
        """Return what became of the candidates of one difference job."""
        return attempt(job_id, lambda: self._associate(difference))

    def _associate(self, job: Job) -> Result:
        assert job.exposure_id is not None
        assert job.detector is not None
        if "visit_record" in job.metrics:
            return self._associate_catalog(job)
        timer = StepTimer()
        data_id = DataId(visit=job.exposure_id, detector=job.detector)
        with timer("read"):
            path = self.repo.path("difference_image", data_id)
            difference = self.context.image(path)
            stored = self.repo.find_one("science_image", data_id)  # none where a user's own difference entered alone
            science = read_frame(stored.path) if stored else _frame_of(difference)
            candidates = self.repo.get("dia_source", data_id)
            cutouts = self.repo.get("candidate_cutouts", data_id)
        record = self._record(job, science, difference, path.name)
        measure = ForcedMeasurement(difference, record, self.settings.forced)
        with timer("depth"):
            depth = measure.measure.depth(difference)
        with timer("neighbours"):
            reference_sources, refcat = self._reference_sources(job), self._neighbours(science)
            known = self._known_objects(record)
        products = VisitProducts(
            record=record, dia_sources=candidates, cutouts=cutouts, reference=self._reference_facts(job),
            reference_sources=reference_sources, refcat=refcat, solar_system=self._matched(candidates, known),
            measure_forced=measure, measure_earlier=self.earlier, depth=depth,
            is_target_of_opportunity=self._is_target_of_opportunity(job),
        )  # fmt: skip
        outcome = self.alert_visit.run(products, timer=timer)
        metrics = _metrics_of(outcome, known)
        # As committed, not as measured a moment ago: a run killed since the commit would have left no product.
        with timer("write"):
            forced = self.store.forced_of_visit(record.visit, record.detector)
            staged: tuple[StagedProduct, ...] = ()
            if forced.n_rows:
                staged = (self.repo.stage("forced_source", data_id, forced),)
        return Result(staged, metrics, {"reference": record.reference_id}, timer.seconds)

    def _associate_catalog(self, job: Job) -> Result:
        """Associate detections that a user's catalog brought: there are no images to cut from or measure on."""
        timer = StepTimer()
        record = VisitRecord(**job.metrics["visit_record"])
        with timer("read"):
            candidates = self.repo.get("dia_source", DataId(visit=record.visit, detector=record.detector))
        likely = likely_alerts(candidates, self.settings)
        ra, dec = record.corners
        circle = enclosing_circle(ra, dec)
        with timer("neighbours"):
            known = self._known_objects(record)
            products = VisitProducts(
                record=record,
                dia_sources=candidates,
                cutouts=cut_candidates(likely, None, None, None),
                reference=self._reference_facts(job),
                reference_sources=self._reference_sources(job),
                refcat=self.refcats.known_stars(
                    ra=circle.ra, dec=circle.dec, radius_deg=circle.radius_arcsec / 3600.0 + NEIGHBOUR_MARGIN_DEG
                ),
                solar_system=self._matched(candidates, known),
                measure_earlier=self.earlier,
                is_target_of_opportunity=self._is_target_of_opportunity(job),
            )
        outcome = self.alert_visit.run(products, timer=timer)
        return Result((), _metrics_of(outcome, known), {}, timer.seconds)

    def _reference_sources(self, job: Job) -> Catalog | None:
        """Return the sources of the survey's reference of the place; None where it has none."""
        row = self.repo.ledger.exposure(job.exposure_id or 0)
        if row is None:
            raise DataError(f"the ledger has no exposure {job.exposure_id}")
        if row.info.field is None or row.info.band is None:
            return None
        place = DataId(field=row.info.field, detector=job.detector, band=row.info.band)
        found = self.repo.find_one("reference_source", place)
        return None if found is None else self.context.catalog(found.path)

    def _is_target_of_opportunity(self, job: Job) -> bool:
        row = self.repo.ledger.exposure(job.exposure_id or 0)
        return row is not None and row.info.is_target_of_opportunity

    def _reference_facts(self, job: Job) -> ReferenceFacts:
        """Return what packets tell of the reference that was subtracted (a newer one may exist by now)."""
        facts = job.metrics["reference"]
        return ReferenceFacts(
            mjd_first=_number(facts["mjd_first"]),
            mjd_last=_number(facts["mjd_last"]),
            n_exposures=int(facts["n_exposures"]),
        )

    def _neighbours(self, science: ImageFrame) -> Catalog:
        ny, nx = science.shape
        ra, dec = science.wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
        radius = 0.5 * float(np.hypot(nx, ny)) * science.wcs.pixel_scale_arcsec / 3600.0 + NEIGHBOUR_MARGIN_DEG
        return self.refcats.known_stars(ra=float(ra), dec=float(dec), radius_deg=radius)

    def _known_objects(self, record: VisitRecord) -> Catalog:
        """Return the known Solar-System objects in and about an image (`KNOWN_OBJECT` rows)."""
        config, (ra, dec) = self.settings.alerts.solar_system, record.corners
        circle = enclosing_circle(ra, dec)
        return self.known_objects.near(
            ra=circle.ra, dec=circle.dec, radius_deg=(circle.radius_arcsec + config.max_arcsec) / 3600.0,
            mjd_tai=record.mjd_tai, faintest_mag=record.limiting_mag + config.max_beyond_limit_mag,
        )  # fmt: skip

    def _matched(self, dia_sources: Catalog, known: Catalog) -> Catalog:
        """Return those near detections (`SOLAR_SYSTEM_MATCH` rows)."""
        return match_known_objects(dia_sources, known, max_arcsec=self.settings.alerts.solar_system.max_arcsec)

    def _record(self, job: Job, science: ImageFrame, difference: CalibratedImage, name: str) -> VisitRecord:
        row = self.repo.ledger.exposure(job.exposure_id or 0)
        if row is None or job.detector is None:
            raise DataError(f"the ledger has no exposure {job.exposure_id}")
        info, detector = row.info, self.repo.camera.detector(job.detector)
        glass = self.repo.camera.filter_named(info.physical_filter or "")
        if glass is None:
            raise DataError(f"exposure {row.id} has filter {info.physical_filter!r}, unknown to {info.camera}")
        corners = np.stack(science.wcs.corners(science.shape), axis=1).tolist()
        photocal, metrics, noise = science.photocal, science.metadata["metrics"], _noise_of(difference)
        astrometry = metrics.get("astrometry", {})
        (ra_1, dec_1), (ra_2, dec_2), (ra_3, dec_3), (ra_4, dec_4) = corners
        return VisitRecord(
            visit=row.id, detector=detector.id, mjd_start=info.mjd_start, exposure_s=info.exposure_s,
            day_obs=info.day_obs, program=int(info.program), band_id=glass.fid, rcid=detector.rcid,
            ra_1=ra_1, dec_1=dec_1, ra_2=ra_2, dec_2=dec_2, ra_3=ra_3, dec_3=dec_3, ra_4=ra_4, dec_4=dec_4,
            limiting_mag=float(job.metrics["difference_limiting_mag"]),
            zero_point=photocal.zero_point, zero_point_err=photocal.zero_point_err,
            zero_point_rms=photocal.zero_point_rms, colour_term=photocal.colour_term,
            colour_term_err=photocal.colour_term_err, n_calibrators=photocal.n_calibrators,
            median_colour=photocal.median_colour, rms_colour=photocal.rms_colour,
            pixel_scale=science.wcs.pixel_scale_arcsec, field=info.field or 0,
            fwhm=science.psf.central_fwhm, difference_fwhm=difference.psf.central_fwhm,
            difference_noise=noise, noise=_number(metrics.get("sky_rms_electrons", noise)),
            background=float(metrics["sky_electrons"]),
            astrometric_rms_ra=_number(astrometry.get("rms_ra_mas")) / 1000.0,
            astrometric_rms_dec=_number(astrometry.get("rms_dec_mas")) / 1000.0,
            reference_id=int(job.metrics["reference"]["reference_id"]),
            principal_investigator=info.principal_investigator,
            difference_name=name,
            reliability_version=str(job.metrics["vetting"]["version"]),
            network_version=str(job.metrics["vetting"].get("network_version", "")),
        )  # fmt: skip


def _metrics_of(outcome: VisitOutcome, known: Catalog) -> dict[str, Any]:
    receipt = outcome.receipt
    return {
        "n_alerts": receipt.n_alerts,
        "n_new_objects": receipt.n_new_objects,
        "is_late": receipt.is_late,
        "not_alerted": outcome.not_alerted,
        "n_solar_system_objects": known.n_rows,
    }


def _number(value: Any) -> float:
    """Return a figure of the ledger as a float, NaN where it was not known."""
    return float("nan") if value is None else float(value)


def _frame_of(image: CalibratedImage) -> ImageFrame:
    return ImageFrame(image.shape, image.wcs, image.psf, image.photocal, image.metadata)


def _noise_of(image: CalibratedImage) -> float:
    part = np.s_[::_SAMPLING, ::_SAMPLING]
    variance = image.pixels.variance[part][(image.pixels.mask[part] & int(UNUSABLE)) == 0]
    return float(np.sqrt(np.float32(median_of(variance)))) if variance.size else 0.0


class ForcedMeasurement:
    """Measures fluxes at known objects on one difference image."""

    def __init__(
        self, difference: CalibratedImage, record: VisitRecord, config: DifferenceForcedConfig | None = None
    ) -> None:
        self.difference, self.measure = difference, MeasureOnDifference(config or DifferenceForcedConfig())
        self.facts = ImageFacts(record.visit, record.detector, record.mjd_tai, record.band_id, record.program)

    def __call__(self, objects: Catalog) -> Catalog:
        """Return `FORCED_SOURCE` rows of those objects that lie on the image."""
        return self.measure.run(
            self.difference, self.facts, object_ids=objects["dia_object_id"], ra=objects["ra"], dec=objects["dec"]
        )


class EarlierMeasurement:
    """Measures fluxes on stored difference images of earlier exposures."""

    def __init__(self, repo: SurveyRepo, context: WorkerContext, config: DifferenceForcedConfig) -> None:
        self.repo, self.context, self.measure = repo, context, MeasureOnDifference(config)

    def __call__(self, image: Image, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return flux and error (nJy) at places (degrees); NaN where they are not known.

        An image that is there no more, or cannot be read, tells nothing: it is not the one that is being worked on.
        """
        visit, detector = image
        stored = self.repo.find_one("difference_image", DataId(visit=visit, detector=detector))
        unknown = np.full(len(ra), np.nan)
        if stored is None:  # a user's own catalog
            return unknown, unknown
        try:
            difference = self.context.image_around(stored.path, ra=ra, dec=dec)
        except DataError:
            return unknown, unknown
        return self.measure.fluxes(difference, ra=ra, dec=dec)
