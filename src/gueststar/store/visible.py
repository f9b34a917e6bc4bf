"""A survey as one reader may see it: the same verbs, less what is not for him.

Every way out opens the survey with `open_as`. An operator gets the survey itself; anybody else gets a `VisibleSurvey`,
in which exposures that he may not see do not exist: no row, no job, no product, no count. What is not known to be safe
(a new kind of product, a new metric, the reason of a failure) is left out until it is named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import ColumnElement, Connection

from gueststar.core.errors import AccessDenied, DataError
from gueststar.model.metrics import METRICS
from gueststar.model.readers import OPERATOR, Reader, Sight
from gueststar.store.ledger import Account, Event, ExposureRow, Field, FileRow, Job, JobState, Ledger
from gueststar.store.products import DataId, ProductRef, product_named
from gueststar.store.readers import reader_named, sight_of
from gueststar.store.repo import SurveyRepo

PRODUCTS_SHOWN = frozenset(
    {
        "raw", "science_image", "detrended_frame", "source", "aperture_source", "science_metrics",
        "difference_image", "dia_source", "candidate_cutouts", "streak", "streak_cutouts",
        "reference_image", "reference_source", "reference_aperture_source",
    }
)  # fmt: skip
"""Products of readers, besides calibrations. Not among them: ``forced_source``, which has rows for objects that only
other programs know; what lists the epochs of references; artificial sources."""

JOBS_SHOWN = frozenset({"science", "difference", "association", "entry"})
"""Kinds of work on one exposure. Others (references, precovery, tracklets) name exposures of all programs."""

_MIXED_METRICS = frozenset({"cloud_extinction_mag", "cpu_s", "peak_rss_mb"})
METRICS_SHOWN = frozenset({metric.name for metric in METRICS} - _MIXED_METRICS) | {
    "corners", "visit_record", "streaks", "not_alerted",
}  # fmt: skip
"""Metrics that follow from the exposure itself. Not among them: how many objects were new, what work cost, extinction
by clouds: they depend on exposures of all programs."""


_Row = TypeVar("_Row", FileRow, Job)


class VisibleLedger(Ledger):
    """The ledger, less all rows of exposures that a reader may not see; it cannot be written to."""

    def __init__(self, url: str, sight: Sight) -> None:
        super().__init__(url)
        self.sight = sight

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Refuse."""
        _refuse(self.sight.reader)
        yield

    def of_operator(self) -> Ledger:
        """Refuse."""
        _refuse(self.sight.reader)

    def _exposures(self, conditions: list[ColumnElement[bool]]) -> list[ExposureRow]:
        """Return visible exposures: every question for exposures ends here. When they came is not told."""
        return [replace(row, reason="", received=0.0) for row in super()._exposures(conditions) if self._may_see(row)]

    def nights(self) -> list[int]:
        """Return the nights with visible exposures, in order."""
        return sorted({row.info.day_obs for row in self.exposures()})

    def is_visible(self, exposure_id: int | None) -> bool:
        """Return whether an exposure exists for this reader."""
        return exposure_id is not None and self.exposure(exposure_id) is not None

    def pixel_checksums(self, exposure_id: int) -> dict[int, str]:
        """Return detector -> checksum of a visible exposure; empty for others."""
        return super().pixel_checksums(exposure_id) if self.is_visible(exposure_id) else {}

    def files(self, **constraints: Any) -> list[FileRow]:
        """Return received files of visible exposures, without the folders they came from."""
        rows = super().files(**constraints)
        return [
            replace(row, path=Path(row.path).name, reason="", received=0.0, last_seen=0.0)
            for row in self._of_visible(rows)
        ]

    def fields(self) -> list[Field]:
        """Return the fields of visible exposures."""
        seen = {row.info.field for row in self.exposures()}
        return [field for field in super().fields() if field.id in seen]

    def field(self, field_id: int) -> Field | None:
        """Return a field on which there is a visible exposure, or None."""
        return super().field(field_id) if self.exposures(field=field_id) else None

    def jobs(self, **constraints: Any) -> list[Job]:
        """Return work on visible exposures, reduced to what follows from each exposure itself."""
        return [_reduced(job) for job in self._of_visible(super().jobs(**constraints)) if job.kind in JOBS_SHOWN]

    def job(self, job_id: int) -> Job | None:
        """Return one job, or None if it is not there for this reader."""
        job = super().job(job_id)
        is_shown = job is not None and job.kind in JOBS_SHOWN and self.is_visible(job.exposure_id)
        return _reduced(job) if job is not None and is_shown else None

    def measurements(self, kind: str, name: str, *, before: int, n_nights: int) -> list[tuple[int, int, int, float]]:
        """Return measurements on visible exposures."""
        if kind not in JOBS_SHOWN or name not in METRICS_SHOWN:
            return []
        rows = super().measurements(kind, name, before=before, n_nights=n_nights)
        return [row for row in rows if self.is_visible(row[0])]

    def job_counts(self, *, day_obs: int | None = None) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs on visible exposures by (kind, state)."""
        counts: dict[tuple[str, JobState], int] = {}
        for job in self.jobs(day_obs=day_obs):
            counts[job.kind, job.state] = counts.get((job.kind, job.state), 0) + 1
        return counts

    def events(self, *, what: str | None = None, subject: str | None = None, since: float | None = None) -> list[Event]:
        """Return nothing: the diary is the operator's."""
        return []

    def balance(self, day_obs: int | None = None, *, observation_type: str | None = "science") -> Account:
        """Refuse: the balance is that of all exposures."""
        _refuse(self.sight.reader)

    def _may_see(self, row: ExposureRow) -> bool:
        return self.sight.may_see(row.info.program, day_obs=row.info.day_obs)

    def _of_visible(self, rows: list[_Row]) -> list[_Row]:
        seen: dict[int | None, bool] = {}
        for row in rows:
            if row.exposure_id not in seen:
                seen[row.exposure_id] = self.is_visible(row.exposure_id)
        return [row for row in rows if seen[row.exposure_id]]


class VisibleSurvey(SurveyRepo):
    """A survey, less all that a reader may not see; it cannot be written to."""

    def __init__(self, repo: SurveyRepo, sight: Sight) -> None:
        self.root, self.camera, self.settings, self._known_fields = repo.root, repo.camera, repo.settings, set()
        self._sight = sight
        self.ledger: VisibleLedger = VisibleLedger(repo.ledger.url, sight)

    @property
    def sight(self) -> Sight:
        """What the reader may see."""
        return self._sight

    def read(self, ref: ProductRef) -> Any:
        """Return the value of a stored product; DataError for one that is not for this reader.

        Of the epochs of a reference image those are listed that are visible.
        """
        if not self._is_shown(ref.product, ref.data_id):
            raise DataError(f"there is no {ref.product} of {ref.data_id}")
        value = super().read(ref)
        if ref.product == "reference_image":
            visible = [epoch for epoch in value.metadata["epochs"] if self.ledger.is_visible(int(epoch))]
            return replace(value, metadata={**value.metadata, "epochs": visible})
        return value

    def find(self, product: str, *, run: str | None = None, **constraints: Any) -> list[ProductRef]:
        """Return the products that meet constraints and are for this reader."""
        if not _is_for_readers(product):
            return []
        found = super().find(product, run=run, **constraints)
        return [ref for ref in found if self._is_shown(ref.product, ref.data_id)]

    def find_one(self, product: str, data_id: DataId, *, run: str | None = None) -> ProductRef | None:
        """Return where the current version of a product is; None if there is none for this reader."""
        return super().find_one(product, data_id, run=run) if self._is_shown(product, data_id) else None

    def _is_shown(self, product: str, data_id: DataId) -> bool:
        keys = product_named(product).keys
        exposure = data_id.visit if "visit" in keys else data_id.exposure if "exposure" in keys else None
        has_exposure = "visit" in keys or "exposure" in keys
        return _is_for_readers(product) and (not has_exposure or self.ledger.is_visible(exposure))

    # What changes the survey

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(self._sight.reader)

    stage = commit = put = ingest_raw = add_exposure = keep_entered = certify = _refuse
    only_writer = sweep = sweep_staging = _refuse


def seen_by(repo: SurveyRepo, reader: Reader) -> SurveyRepo:
    """Return the survey as a reader may see it now; an operator sees the survey itself."""
    return repo if reader.is_operator else VisibleSurvey(repo, sight_of(repo.settings, reader))


@contextmanager
def open_as(root: Path | str, reader: Reader | str | None = None) -> Iterator[SurveyRepo]:
    """Open the survey at ``root`` for a reader or a user's name; None is the operator.

    Raises ConfigError for a name that is no user's.
    """
    with SurveyRepo.open(root) as repo:
        who = reader_named(repo.root, repo.settings, reader) if isinstance(reader, str) else reader or OPERATOR
        seen = seen_by(repo, who)
        try:
            yield seen
        finally:
            if seen is not repo:
                seen.close()


def _is_for_readers(product: str) -> bool:
    return product in PRODUCTS_SHOWN or product_named(product).is_calibration


def _reduced(job: Job) -> Job:
    metrics = {name: value for name, value in job.metrics.items() if name in METRICS_SHOWN}
    if version := job.metrics.get("vetting", {}).get("version"):
        metrics["vetting"] = {"version": version}
    entered = job.inputs.get("entered") if isinstance(job.inputs, dict) else None
    return replace(
        job, key={}, reason=job.reason if job.kind == "science" else "", error_kind="", traceback="", metrics=metrics,
        config={}, inputs={"entered": entered} if entered else None, worker="", submitted=0.0, started=None,
        finished=None, cpu_s=None, peak_rss_mb=None, attempts=0,
    )  # fmt: skip


def _refuse(reader: Reader) -> NoReturn:
    raise AccessDenied(f"{reader.name} reads the survey and cannot change it: leave --as out")
