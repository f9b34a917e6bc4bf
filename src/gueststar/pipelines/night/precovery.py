"""New objects are looked for on the images from before they were known: fluxes forced on earlier differences.

A unit of work is one earlier image, with all that the night found on it. Nothing waits for it: alerts are out before,
and the next packets tell what it measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.footprint import is_inside
from gueststar.core import times
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.detections import Founding
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import corner_arrays
from gueststar.pipelines.alerts.view import tiers_of_view
from gueststar.pipelines.difference.forced import ImageFacts, MeasureOnDifference
from gueststar.pipelines.engine.outcome import Outcome, Result, StepTimer, attempt
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import rights_policy

JOB_KIND = "precovery"


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is to be measured on one earlier image."""

    facts: ImageFacts
    objects: tuple[Catalog, ...] = ()
    """`DIA_OBJECT` rows at the places that the image's stream gives them, by the image that founded them."""
    founded_on: tuple[tuple[int, int], ...] = ()
    """Those images (visit, detector)."""


@dataclass(frozen=True, eq=False)
class PrecoveryWork:
    """One earlier image and the places to be measured on it."""

    job_id: int
    repo_root: Path
    database: str | None
    difference: Path
    facts: ImageFacts
    object_ids: NDArray[np.int64]
    ra: NDArray[np.float64] = field(repr=False)
    dec: NDArray[np.float64] = field(repr=False)
    settings: PipelineSettings = field(repr=False)


def plan_precoveries(repo: SurveyRepo, settings: PipelineSettings, night: int) -> list[PrecoveryWork]:
    """Return the images from before the night's new objects were known, each with what is still to be measured."""
    if settings.precovery.window_days <= 0:
        return []
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    foundings = store.foundings(night, window_days=settings.precovery.window_days)
    store.close()
    wanted = places_wanted(foundings, policy=rights_policy(repo.settings), at_mjd_tai=times.now_mjd_tai())
    works = []
    for (visit, detector), what in sorted(wanted.items()):
        data_id = DataId(visit=visit, detector=detector)
        stored = repo.find_one("difference_image", data_id)
        if stored is None:  # a user's own catalog
            continue
        done = {tuple(image) for job in repo.ledger.jobs(kind=JOB_KIND, exposure_id=visit, detector=detector)
                if job.state is JobState.DONE for image in job.key["founded_on"]}  # fmt: skip
        left = [k for k, image in enumerate(what.founded_on) if image not in done]
        if not left:
            continue
        key: dict[str, Any] = {"visit": visit, "detector": detector}
        key["founded_on"] = sorted(list(what.founded_on[k]) for k in left)
        job = repo.ledger.submit(JOB_KIND, key, exposure_id=visit, detector=detector, day_obs=night)
        objects = concatenate([what.objects[k] for k in left])
        works.append(
            PrecoveryWork(
                job, repo.root, repo.settings.database, stored.path, what.facts,
                objects["dia_object_id"], objects["ra"], objects["dec"], settings,
            )
        )  # fmt: skip
    return works


def places_wanted(
    foundings: list[Founding], *, policy: RightsPolicy, at_mjd_tai: float
) -> dict[tuple[int, int], Wanted]:
    """Return, by image (visit, detector), the objects that lie on it and were not known when it was committed.

    An image is asked only for what a stream found that may show the image; an object's place is the one that the
    image's own stream gives it, as on images that come after it is known.
    """
    wanted: dict[tuple[int, int], Wanted] = {}
    for founding in foundings:
        stream, images = Program(int(founding.image["program"][0])), founding.candidates
        founded_on = (int(founding.image["visit"][0]), int(founding.image["detector"][0]))
        placed: dict[int, Catalog] = {}
        for row in range(images.n_rows):
            program, night = int(images["program"][row]), int(images["day_obs"][row])
            if not policy.may_appear(Program(program), in_stream=stream, item_day_obs=night, at_mjd_tai=at_mjd_tai):
                continue
            if program not in placed:
                placed[program] = concatenate(tiers_of_view(founding.known, Program(program), policy))
            image, objects = images.select(np.array([row])), placed[program]
            on = objects.select(is_inside(*corner_arrays(image), objects["ra"], objects["dec"])[0])
            if on.n_rows == 0:
                continue
            key = int(image["visit"][0]), int(image["detector"][0])
            before = wanted.get(key, Wanted(_facts_of(image)))
            wanted[key] = Wanted(before.facts, (*before.objects, on), (*before.founded_on, founded_on))
    return wanted


def run_precovery(work: PrecoveryWork) -> Outcome:
    """Measure and store; every failure becomes an outcome."""
    return attempt(work.job_id, lambda: _precover(work))


def _precover(work: PrecoveryWork) -> Result:
    context, timer = WorkerContext.of(work.repo_root), StepTimer()
    with timer("read"):
        difference = context.image(work.difference)
    with timer("forced"):
        forced = MeasureOnDifference(work.settings.forced).run(
            difference, work.facts, object_ids=work.object_ids, ra=work.ra, dec=work.dec
        )
    if forced.n_rows == 0:
        return Result((), {"n_forced": 0}, {"difference": str(work.difference)}, timer.seconds)
    visit, detector = work.facts.visit, work.facts.detector
    with timer("write"):
        store = DetectionStore.of_survey(work.repo_root, work.database)
        store.add_forced(forced, visit=visit, detector=detector)
        everything = store.forced_of_visit(visit, detector)
        store.close()
        staged = context.stage("forced_source", DataId(visit=visit, detector=detector), everything)
    return Result((staged,), {"n_forced": forced.n_rows}, {"difference": str(work.difference)}, timer.seconds)


def _facts_of(image: Catalog) -> ImageFacts:
    middle = float(image["mjd_start"][0] + image["exposure_s"][0] / 172800.0)
    visit, detector, band_id, program = (int(image[name][0]) for name in ("visit", "detector", "band_id", "program"))
    return ImageFacts(visit, detector, middle, band_id, program)
