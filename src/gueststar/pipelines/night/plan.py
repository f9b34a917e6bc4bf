"""What is to be done for a night: jobs from what the ledger and the repository hold.

Planning is idempotent: a job that is done stays done, one that was held is asked again when what it lacked is
there, and inputs are resolved to files here so that workers never open the registry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gueststar.model.calibration import KINDS, CalibrationKind
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.engine.outcome import FurtherJob
from gueststar.pipelines.night.calibrations.frames import CalibrationWork
from gueststar.pipelines.night.calibrations.known import CalibrationFinder
from gueststar.pipelines.night.calibrations.learning import LearningWork
from gueststar.pipelines.night.calibrations.making import LearnedImage
from gueststar.pipelines.night.chain import ChainWork
from gueststar.pipelines.night.difference import DifferenceWork
from gueststar.pipelines.night.entry import EnteredScienceWork
from gueststar.pipelines.night.entry_difference import EnteredDifferenceWork
from gueststar.pipelines.night.known_references import KnownReference, KnownReferences
from gueststar.pipelines.night.reference import ReferenceEpoch, ReferenceWork
from gueststar.pipelines.night.reference_standing import ReferenceStandings, Standing
from gueststar.pipelines.night.science import ScienceWork
from gueststar.pipelines.night.settings import DIFFERENCE, SCIENCE, PipelineSettings
from gueststar.pipelines.night.transparency import ClearSkies
from gueststar.pipelines.overrides import as_plain
from gueststar.store.ledger import ExposureRow, Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

REQUIRED_KINDS: tuple[CalibrationKind, ...] = ("bias", "flat")
"""Science waits for these where the camera takes such frames at all; a missing dark is told in the metrics."""


def _kinds_before(kind: CalibrationKind) -> list[CalibrationKind]:
    """Return the kinds that are made before one, which it may need."""
    names = list(KINDS)
    return names[: names.index(kind)]


Place = tuple[int, int]
"""Exposure and detector."""

ImageWork = ScienceWork | EnteredScienceWork | ChainWork
"""Work on a detector image, perhaps as far as its difference."""

Entered = dict[str, dict[Place, Job]]
"""Jobs that a user's own products are the inputs of: stage -> (exposure, detector) -> job."""


def is_entered(job: Job) -> bool:
    """Return whether a job's input is a product that a user brought."""
    return isinstance(job.inputs, dict) and "entered" in job.inputs


class CalibratedFiles(NamedTuple):
    """What there is of a night's calibrated images."""

    infos: Mapping[int, ExposureInfo]
    """By exposure."""
    paths: Mapping[str, Mapping[DataId, Path]]
    """By product and data id."""
    raws: Mapping[tuple[int | None, int | None], Path]
    """By exposure and detector."""


class Planner:
    """Plans the work of nights on one repository."""

    def __init__(
        self,
        repo: SurveyRepo,
        settings: PipelineSettings,
        *,
        do_retry: bool = False,
        renew_before: float | None = None,
    ) -> None:
        self.repo, self.ledger, self.settings = repo, repo.ledger, settings
        self.do_retry, self.renew_before = do_retry, renew_before
        self.facts: dict[str, Any] = {}
        """What every job that is submitted is told besides its own: priority, max_attempts."""
        self._released: set[int] = set()
        self.look_again()

    def _open_job(
        self, kind: str, key: dict[str, Any], *, is_ready: bool = True, is_renewed: bool = False, **facts: Any
    ) -> int | None:
        """Submit a job and return its id if it should run now, else None.

        One that was done before ``renew_before`` runs once more if it ``is_renewed`` when a night is processed again.
        """
        job_id = self.ledger.submit(kind, key, **self.facts, **facts)
        job = self.ledger.job(job_id)
        assert job is not None
        asked_again = (JobState.FAILED, JobState.QUARANTINED) if self.do_retry else ()
        config = facts.get("config")
        before = self.renew_before if is_renewed else None
        if before is not None and self.ledger.redo(job_id, before=before, config=config):
            return job_id
        is_wanted = job.state in asked_again or (job.state is JobState.HELD and is_ready)
        if is_wanted and job_id not in self._released:  # once a run, or a job that cannot succeed would loop
            self._released.add(job_id)
            self.ledger.release(job_id, config)
            return job_id
        return job_id if job.state is JobState.PENDING else None

    _finder: CalibrationFinder
    _raw_known: dict[int, dict[int | None, Path]]
    _references_known: KnownReferences
    _kinds: tuple[CalibrationKind, ...] | None
    _glasses: set[str | None] | None
    _skies: dict[int, ClearSkies]

    def calibrations(self, night: int, kind: CalibrationKind) -> list[CalibrationWork]:
        """Return the products of one kind to be made from a night's calibration frames."""
        made_from = self.settings.fringe.made_from if kind == "fringe" else KINDS[kind].made_from
        if made_from == "science":  # those are learned from, once they are calibrated
            return []
        groups: dict[tuple[int, str | None], list[ExposureRow]] = defaultdict(list)
        for row in self.ledger.exposures(day_obs=night, observation_type=made_from):
            for detector in row.detectors:
                groups[detector, row.info.physical_filter if KINDS[kind].is_per_filter else None].append(row)
        work = []
        for (detector, glass), rows in sorted(groups.items(), key=str):
            key = {"kind": kind, "night": night, "detector": detector, "filter": glass, "frames": [r.id for r in rows]}
            config = as_plain(getattr(self.settings, kind))
            job = self._open_job("calibration", key, detector=detector, day_obs=night, config=config)
            if job is None:
                continue
            frames = ((self._raw_path(r.id, detector), r.info) for r in rows)
            middle = rows[len(rows) // 2].info
            work.append(
                CalibrationWork(
                    job_id=job, repo_root=self.repo.root, kind=kind, day_obs=night, detector_id=detector,
                    frames=tuple(frames), settings=self.settings, physical_filter=glass,
                    calibrations=self._finder.paths(detector, middle, _kinds_before(kind)),
                    previous=self._previous(kind, detector, night, glass),
                )
            )  # fmt: skip
        return work

    def _raw_path(self, exposure: int, detector: int) -> Path:
        """Return the raw file of a detector of an exposure; it is asked for once, for all detectors and kinds."""
        if exposure not in self._raw_known:
            found = self.repo.find("raw", exposure=exposure)
            self._raw_known[exposure] = {ref.data_id.detector: ref.path for ref in found}
        known = self._raw_known[exposure].get(detector)
        return known or self.repo.path("raw", DataId(exposure=exposure, detector=detector))

    def _previous(self, kind: CalibrationKind, detector: int, night: int, glass: str | None) -> Path | None:
        """Return the newest product of an earlier night; one of this night an interrupted run may have made."""
        for found in self.repo.calibration_history(kind, detector, glass):
            if int(found.run.split("/")[1]) < night:
                return found.path
        return None

    def learning(self, night: int, kind: CalibrationKind, files: CalibratedFiles | None = None) -> list[LearningWork]:
        """Return the products of one kind to be learned from a night's calibrated images.

        Who asks for one kind after the other hands the ``files`` of the night's `calibrated_files` in.
        """
        groups: dict[tuple[int, str | None], list[LearnedImage]] = defaultdict(list)
        for image in self._learned_images(self.calibrated_files(night) if files is None else files):
            glass = image.info.physical_filter if KINDS[kind].is_per_filter else None
            groups[image.detector, glass].append(image)
        work = []
        for (detector, glass), images in sorted(groups.items(), key=str):
            frames = [image.info.exposure_id for image in images]
            key = {"kind": kind, "night": night, "detector": detector, "filter": glass, "frames": frames}
            config = as_plain(getattr(self.settings, kind))
            job = self._open_job(
                "learning", key, is_renewed=not KINDS[kind].is_applied, detector=detector, day_obs=night, config=config
            )
            if job is not None:
                work.append(
                    LearningWork(
                        job_id=job, repo_root=self.repo.root, kind=kind, day_obs=night, detector_id=detector,
                        images=tuple(images), settings=self.settings, physical_filter=glass,
                        previous=self._previous(kind, detector, night, glass),
                    )
                )  # fmt: skip
        return work

    def calibrated_files(self, night: int) -> CalibratedFiles:
        """Return the raw files, calibrated images and catalogs of a night's science exposures."""
        products = ("science_image", "source", "aperture_source")
        return CalibratedFiles(
            {row.id: row.info for row in self.ledger.exposures(day_obs=night, observation_type="science")},
            {name: {ref.data_id: ref.path for ref in self.repo.find(name, day_obs=night)} for name in products},
            {(ref.data_id.exposure, ref.data_id.detector): ref.path for ref in self.repo.find("raw", day_obs=night)},
        )

    def _learned_images(self, files: CalibratedFiles) -> list[LearnedImage]:
        """Return the night's calibrated images, in order of exposure."""
        (infos, paths, raws), images = files, list[LearnedImage]()
        for data_id in sorted(set.intersection(*map(set, paths.values()))):
            visit, detector = data_id.visit, data_id.detector
            if visit is None or detector is None or visit not in infos:
                continue
            images.append(
                LearnedImage(
                    info=infos[visit], detector=detector, raw=raws.get((visit, detector)),
                    image=paths["science_image"][data_id], sources=paths["source"][data_id],
                    apertures=paths["aperture_source"][data_id],
                    calibrations=self._finder.paths(detector, infos[visit]),
                )
            )  # fmt: skip
        return images

    def _entered(self, night: int) -> Entered:
        """Return the jobs of a night that a user's own products are the inputs of."""
        return self._entered_of(self.ledger.jobs(day_obs=night))

    @staticmethod
    def _entered_of(jobs: Iterable[Job]) -> Entered:
        found: Entered = defaultdict(dict)
        for job in jobs:
            if is_entered(job) and job.exposure_id is not None and job.detector is not None:
                found[job.kind][job.exposure_id, job.detector] = job
        return found

    def science(self, night: int, *, is_chained: bool = False) -> list[ImageWork]:
        """Return the detector images of a night that are to be calibrated, or (a user's own) to be completed.

        With ``is_chained``, those are to be compared with their reference in the same go that have one by now which
        the night's images will not change: what comes of it is what the stages make one after the other.
        """
        self._forget()
        entered, works = self._entered(night), []
        standings = ReferenceStandings(self.repo, self.settings, until=night)
        for row in self.ledger.exposures(day_obs=night, observation_type="science"):
            for detector in row.detectors:
                is_steady = is_chained and standings.keeps(row.info.field, detector, row.info.band)
                works.append(self._science(row, detector, entered, is_chained=is_steady))
        return [work for work in works if work is not None]

    def science_of(self, row: ExposureRow, detector: int, *, is_chained: bool) -> ImageWork | None:
        """Return the work on one detector image, by what was known when `look_again` was called last.

        With ``is_chained``, it is to be compared in the same go with the reference that there is now, if any. None
        where it is done, held, or not a science image.
        """
        entered = self._entered_of(self.ledger.jobs(exposure_id=row.id))
        return self._science(row, detector, entered, is_chained=is_chained)

    def look_again(self) -> None:
        """Forget which calibrations and references there are, which frames were received and what clear skies gave."""
        self._finder = CalibrationFinder(self.repo)
        self._forget()

    def _forget(self) -> None:
        """Forget what may have changed; the finder of calibrations knows of itself what this process certified."""
        self._references_known, self._raw_known = KnownReferences(self.repo), {}
        self._kinds, self._glasses, self._skies = None, None, {}

    def _science(self, row: ExposureRow, detector: int, entered: Entered, *, is_chained: bool) -> ImageWork | None:
        night, key = row.info.day_obs, {"exposure": row.id, "detector": detector}
        if (own := entered["science"].get((row.id, detector))) is not None:
            if self._open_job("science", key) is None:
                return None
            return EnteredScienceWork(info=row.info, **self._entered_work(own))
        if self._is_entered_later(row.id, detector, entered):
            return None
        job = self._open_job(
            "science", key, is_renewed=True, exposure_id=row.id, detector=detector, day_obs=night,
            config=self.settings.part(SCIENCE),
        )  # fmt: skip
        if job is None:
            return None
        found = self._finder.paths(detector, row.info)
        if missing := self.missing_kinds(row, found):
            self.ledger.hold(job, f"no valid {' or '.join(missing)} master at the time of the exposure")
            return None
        raw = self._raw_path(row.id, detector)
        expected = self._clear_skies(night).expected(row.info, detector)
        work = ScienceWork(
            job, self.repo.root, raw, row.info, detector, self.settings, calibrations=found,
            expected_zero_point=expected,
        )  # fmt: skip
        is_left = is_chained and (row.id, detector) not in entered["difference"]
        return (self._chained(night, row, work) if is_left else None) or work

    def ask_science(self, row: ExposureRow) -> None:
        """Write down that the detector images of an exposure are to be calibrated, whenever that can be."""
        entered = self._entered_of(self.ledger.jobs(exposure_id=row.id))
        for detector in row.detectors:
            if self._is_entered_later(row.id, detector, entered):
                continue
            key = {"exposure": row.id, "detector": detector}
            facts: dict[str, Any] = {"exposure_id": row.id, "detector": detector, "day_obs": row.info.day_obs}
            self.ledger.submit("science", key, config=self.settings.part(SCIENCE), **self.facts, **facts)

    def _is_entered_later(self, exposure: int, detector: int, entered: Entered) -> bool:
        """Return whether a user's own product enters after the science stage, and there is no raw file."""
        is_later = any((exposure, detector) in places for stage, places in entered.items() if stage != "science")
        return is_later and not self.repo.exists("raw", DataId(exposure=exposure, detector=detector))

    def ask_again(self) -> None:
        """Let jobs that were held be planned once more: what they lack may be there by now."""
        self._released.clear()
        self.look_again()

    def has_some_calibrations(self, row: ExposureRow) -> bool:
        """Return whether any detector of an exposure has the products that it needs."""
        return not all(self.missing_kinds(row, self._finder.paths(detector, row.info)) for detector in row.detectors)

    def missing_kinds(self, row: ExposureRow, found: Iterable[CalibrationKind]) -> list[CalibrationKind]:
        """Return the kinds of products that an exposure needs besides those that were found for it."""
        if self._kinds is None:
            self._kinds = tuple(kind for kind in REQUIRED_KINDS if self.ledger.exposures(observation_type=kind))
        return [kind for kind in self._kinds if kind not in found and self._has_frames(kind, row)]

    def _chained(self, night: int, row: ExposureRow, work: ScienceWork) -> ChainWork | None:
        """Return a science image's work with that of its difference; None where there is none to make (yet)."""
        key = {"visit": row.id, "detector": work.detector_id}
        further = FurtherJob(
            self.ledger.job_id("difference", key), "difference", key, exposure_id=row.id, detector=work.detector_id,
            day_obs=night, config=self.settings.part(DIFFERENCE),
        )  # fmt: skip
        if not self.repo.camera.has_sky or not self._is_to_be_made(further.job_id):
            return None
        reference = self.reference_of(row, work.detector_id)
        if reference is None:
            return None
        return ChainWork(work, further, reference.image, reference.sources, self._subbands(reference.data_id))

    def _is_to_be_made(self, job_id: int) -> bool:
        """Return whether a difference would be made once its science image and reference are there."""
        job = self.ledger.job(job_id)
        if job is None or job.state in (JobState.PENDING, JobState.HELD):
            return True
        if job.state is JobState.DONE:
            return self.renew_before is not None and (job.finished or 0.0) < self.renew_before
        return self.do_retry and job.state is not JobState.RUNNING and job_id not in self._released

    def adopt(self, job: FurtherJob) -> bool:
        """Enter a job that a worker did of itself as one that runs; False if the ledger says that it is not to be."""
        opened = self._open_job(
            job.kind, dict(job.key), is_renewed=True, exposure_id=job.exposure_id, detector=job.detector,
            day_obs=job.day_obs, config=job.config,
        )  # fmt: skip
        return opened is not None and self.ledger.start(opened)

    def _clear_skies(self, night: int) -> ClearSkies:
        """Return what a clear sky gives, from earlier nights only.

        What becomes of an exposure must not depend on which of its own night's were done before it.
        """
        if night not in self._skies:
            config = self.settings.photometry.transparency
            self._skies[night] = ClearSkies(self.ledger, self.repo.camera.site, night, config=config)
        return self._skies[night]

    def _has_frames(self, kind: CalibrationKind, row: ExposureRow) -> bool:
        """Return whether frames for this master were ever received: without any, the camera does without it."""
        if kind != "flat":
            return True
        if self._glasses is None:
            self._glasses = {flat.info.physical_filter for flat in self.ledger.exposures(observation_type="flat")}
        return row.info.physical_filter in self._glasses

    def references_at(self, night: int, field: int, band: str) -> list[ReferenceWork]:
        """Return the references of one field and band that can be made, or deepened, in a night."""
        rows = self.ledger.exposures(observation_type="science", field=field, band=band)
        return self._references(night, {(field, detector, band) for row in rows for detector in row.detectors})

    def references(self, night: int) -> list[ReferenceWork]:
        """Return the references that can be made, or deepened, now that this night's images are there."""
        places = set()
        for row in self.ledger.exposures(day_obs=night, observation_type="science"):
            if row.info.field is not None and row.info.band is not None:
                places |= {(row.info.field, detector, row.info.band) for detector in row.detectors}
        return self._references(night, places)

    def _references(self, night: int, places: Iterable[tuple[int, int, str]]) -> list[ReferenceWork]:
        standings = ReferenceStandings(self.repo, self.settings, until=night)
        found = (self._reference(night, place, standings.of(*place)) for place in sorted(places))
        return [work for work in found if work is not None]

    def _reference(self, night: int, place: tuple[int, int, str], standing: Standing) -> ReferenceWork | None:
        if not standing.is_due:
            return None
        field, detector, band = place
        visits = [int(name) for name in standing.selection.used]
        key = {"field": field, "detector": detector, "band": band, "epochs": sorted(visits)}
        job = self._open_job(
            "reference", key, detector=detector, day_obs=night, config=as_plain(self.settings.reference)
        )
        where = self.ledger.field(field)
        if job is None or where is None:
            return None
        decisions = standing.selection.decisions
        return ReferenceWork(
            job_id=job,
            repo_root=self.repo.root,
            field=field,
            field_ra=where.ra,
            field_dec=where.dec,
            detector_id=detector,
            band=band,
            settings=self.settings,
            epochs=tuple(self._epoch(visit, detector) for visit in visits),
            previous=self._previous_reference(standing.metrics.data_id) if standing.metrics else None,
            chosen=tuple({"visit": int(d.name), "is_used": d.is_used, "reason": d.reason} for d in decisions),
        )

    def _previous_reference(self, data_id: DataId) -> tuple[Path, Path]:
        """Return the image and the PSF catalog of a reference as it is now."""
        return self.repo.path("reference_image", data_id), self.repo.path("reference_source", data_id)

    def _epoch(self, visit: int, detector: int) -> ReferenceEpoch:
        row = self.ledger.exposure(visit)
        assert row is not None
        path = self.repo.path("science_image", DataId(visit=visit, detector=detector))
        return ReferenceEpoch(visit, row.info.mjd_start, row.info.mjd_tai, path)

    def _entered_work(self, job: Job) -> dict[str, Any]:
        """Return what work on any of a user's own images is told."""
        inputs = job.inputs
        return {
            "job_id": job.id, "repo_root": self.repo.root, "settings": self.settings, "detector_id": job.detector,
            "path": self.repo.root / inputs["file"], "origin": inputs["origin"], "cards": inputs["cards"],
            "companions": {name: self.repo.root / path for name, path in inputs["companions"].items()},
        }  # fmt: skip

    def _entered_difference(self, job: Job) -> EnteredDifferenceWork | None:
        row = self.ledger.exposure(job.exposure_id or 0)
        if row is None or job.inputs["entered"] != "difference_image":
            return None  # a catalog's rows are stored where they are taken in
        if self._open_job("difference", job.key) is None:
            return None
        science = self.repo.find_one("science_image", DataId(visit=row.id, detector=job.detector))
        place = DataId(field=row.info.field, detector=job.detector, band=row.info.band)
        is_placed = row.info.field is not None and row.info.band is not None
        sources = self.repo.find_one("reference_source", place) if is_placed else None
        return EnteredDifferenceWork(
            info=row.info, **self._entered_work(job), science=science.path if science else None,
            reference_sources=sources.path if sources else None,
        )  # fmt: skip

    def differences(self, night: int) -> list[DifferenceWork | EnteredDifferenceWork]:
        """Return a user's own differences, and the science images of a night that have a reference.

        Those that have none are held with the reason.
        """
        if not self.repo.camera.has_sky:
            return []
        self._forget()
        entered = self._entered(night)["difference"]
        work: list[DifferenceWork | EnteredDifferenceWork] = [
            own for job in entered.values() if (own := self._entered_difference(job)) is not None
        ]
        for row in self.ledger.exposures(day_obs=night, observation_type="science"):
            for job in self.ledger.jobs(kind="science", exposure_id=row.id):
                if job.state is JobState.DONE and job.detector is not None and (row.id, job.detector) not in entered:
                    found = self._difference(row, job.detector)
                    work += [found] if found else []
        return work

    def difference_of(self, row: ExposureRow, detector: int) -> DifferenceWork | EnteredDifferenceWork | None:
        """Return the work on the difference of one image that is calibrated; None where it is done or held."""
        if not self.repo.camera.has_sky:
            return None
        own = self._entered_of(self.ledger.jobs(exposure_id=row.id))["difference"].get((row.id, detector))
        return self._difference(row, detector) if own is None else self._entered_difference(own)

    def hold_difference(self, row: ExposureRow, detector: int, reason: str) -> None:
        """Ask for the difference of an image and set it aside, so that the account tells why there is none."""
        key = {"visit": row.id, "detector": detector}
        facts: dict[str, Any] = {"exposure_id": row.id, "detector": detector, "day_obs": row.info.day_obs}
        job = self.ledger.job(self.ledger.submit("difference", key, **self.facts, **facts))
        if job is not None and job.state in (JobState.PENDING, JobState.HELD):
            self.ledger.hold(job.id, reason)

    def _difference(self, row: ExposureRow, detector: int) -> DifferenceWork | None:
        reference = self.reference_of(row, detector)
        job = self._open_job(
            "difference", {"visit": row.id, "detector": detector}, is_ready=reference is not None,
            is_renewed=reference is not None, exposure_id=row.id, detector=detector, day_obs=row.info.day_obs,
            config=self.settings.part(DIFFERENCE),
        )  # fmt: skip
        if job is None:
            return None
        if reference is None:
            self.ledger.hold(job, self._why_no_reference(row, detector))
            return None
        data_id = DataId(visit=row.id, detector=detector)
        return DifferenceWork(
            job_id=job,
            repo_root=self.repo.root,
            info=row.info,
            detector_id=detector,
            science=self.repo.path("science_image", data_id),
            reference=reference.image, reference_sources=reference.sources,
            settings=self.settings, subbands=self._subbands(reference.data_id),
        )  # fmt: skip

    def reference_of(self, row: ExposureRow, detector: int) -> KnownReference | None:
        """Return the reference of an exposure's place and band, if there was one when `look_again` was called last."""
        return self._references_known.of(row.info, detector)

    def _subbands(self, reference: DataId) -> Path | None:
        """Return the sub-bands of a reference; None where they are not asked for or it was made without."""
        if not self.settings.reference.is_chromatic:
            return None
        found = self.repo.find_one("reference_subbands", reference)
        return found.path if found else None

    def _why_no_reference(self, row: ExposureRow, detector: int) -> str:
        if row.info.field is None or row.info.band is None:
            return "the exposure belongs to no field"
        standings = ReferenceStandings(self.repo, self.settings, until=row.info.day_obs)
        selection = standings.of(row.info.field, detector, row.info.band).selection
        n_good = sum(decision.reason.startswith("good") for decision in selection.decisions)
        return (
            f"no reference yet of field {row.info.field}, detector {detector}, {row.info.band}: "
            f"{n_good} good epochs of {self.settings.reference_selection.min_epochs}"
        )

    def tracklets_key(self, night: int) -> dict[str, Any]:
        """Return the identity of linking a night: it is done anew when more visits were associated."""
        done = self.ledger.jobs(kind="association", day_obs=night, state=JobState.DONE)
        return {"night": night, "associated": sorted([job.exposure_id, job.detector] for job in done)}

    def associations(self, night: int) -> list[Job]:
        """Return the difference jobs of a night whose candidates are still to be associated, by time."""
        waiting = []
        for job in self.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE):
            key = {"visit": job.exposure_id, "detector": job.detector}
            opened = self._open_job(
                "association", key, exposure_id=job.exposure_id, detector=job.detector, day_obs=night
            )
            if opened is not None:
                waiting.append(job)
        return sorted(waiting, key=lambda job: (job.exposure_id or 0, job.detector or 0))
