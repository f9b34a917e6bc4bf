"""What the labelling page shows and stores: the queue of detections, their cut-outs and facts, labels and undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.core import times
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.formats.cutout_cube import read_cutout_ids
from gueststar.formats.cutout_picture import triplet_png
from gueststar.formats.parquet import read_catalog
from gueststar.model.catalog import Catalog, Schema
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.labels import DetectionKind
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.store.labels import DetectionLabel, LabelStore
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


@dataclass(frozen=True)
class Waiting:
    """A detection that may be labelled."""

    dia_source_id: int
    visit: int
    detector: int
    reliability: float
    model_version: str

    @property
    def doubt(self) -> float:
        """How unsure the model is: 1 at a score of one half, 0 at the ends."""
        return 1.0 - 2.0 * abs(self.reliability - 0.5)


_QUEUED = Schema("queued", (DIA_SOURCE["dia_source_id"], DIA_SOURCE["reliability"]))


class LabellingDesk:
    """One person's desk over the detections of a repository that have cut-outs."""

    def __init__(
        self, repo: SurveyRepo, labels: LabelStore, *, person: str, night: int | None = None,
        clock: Callable[[], float] = times.now_mjd_tai,
    ) -> None:  # fmt: skip
        self.repo, self.labels, self.person, self.clock = repo, labels, person, clock
        jobs = repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE)
        cutouts = {(ref.data_id.visit, ref.data_id.detector): ref.path for ref in repo.find("candidate_cutouts")}
        sources = {(ref.data_id.visit, ref.data_id.detector): ref.path for ref in repo.find("dia_source")}
        waiting = []
        for job in sorted(jobs, key=lambda job: job.id):
            key = (job.exposure_id, job.detector)
            if key in cutouts and key in sources:
                waiting += _waiting(job, sources[key], cutouts[key])
        self._waiting = {one.dia_source_id: one for one in sorted(waiting, key=lambda one: -one.doubt)}
        self._image = lru_cache(maxsize=16)(self._read)

    def next(self, *, skipped: frozenset[int] = frozenset()) -> int | None:
        """Return the unlabelled detection that the model is least sure of; None if all are labelled or skipped."""
        labelled = self.labels.current()
        return next((key for key in self._waiting if key not in labelled and key not in skipped), None)

    def progress(self) -> dict[str, int]:
        """Return how many detections are waiting, and how many labels of each class there are of them."""
        current = {key: label for key, label in self.labels.current().items() if key in self._waiting}
        counts = {kind.title: 0 for kind in DetectionKind if kind is not DetectionKind.UNKNOWN}
        for label in current.values():
            counts[label.kind.title] += 1
        return {"waiting": sum(key not in current for key in self._waiting), "labelled": len(current), **counts}

    def facts(self, dia_source_id: int) -> dict[str, str]:
        """Return what is known of a detection, for a reader."""
        row, _ = self._of(dia_source_id)
        return facts_of(row)

    def picture(self, dia_source_id: int) -> bytes:
        """Return its cut-outs as a PNG."""
        _, stamps = self._of(dia_source_id)
        return triplet_png(stamps)

    def scores(self, dia_source_id: int) -> dict[str, float | None]:
        """Return the scores of a detection: all together, and cut-outs alone."""
        row, _ = self._of(dia_source_id)
        found = {name: float(row[name][0]) for name in ("reliability", "stamp_reliability")}
        return {name: value if np.isfinite(value) else None for name, value in found.items()}

    def label(self, dia_source_id: int, kind: DetectionKind) -> None:
        """Store what the person says that a detection is; DataError for a detection that is not on the desk."""
        one = self._known(dia_source_id)
        self.labels.add(
            DetectionLabel(
                dia_source_id, one.visit, one.detector, kind, self.person, self.clock(), one.reliability,
                one.model_version,
            )
        )  # fmt: skip

    def undo(self) -> int | None:
        """Take back the person's last label and return whose it was; None if there is none."""
        taken = self.labels.retract_last(self.person)
        return None if taken is None else taken.dia_source_id

    def _known(self, dia_source_id: int) -> Waiting:
        if dia_source_id not in self._waiting:
            raise DataError(f"detection {dia_source_id} has no cut-outs on this desk")
        return self._waiting[dia_source_id]

    def _of(self, dia_source_id: int) -> tuple[Catalog, Any]:
        one = self._known(dia_source_id)
        rows, cutouts = self._image(one.visit, one.detector)
        return rows.select(np.flatnonzero(rows["dia_source_id"] == dia_source_id)), cutouts.of(dia_source_id)

    def _read(self, visit: int, detector: int) -> tuple[Catalog, CandidateCutouts]:
        data_id = DataId(visit=visit, detector=detector)
        return self.repo.get("dia_source", data_id), self.repo.get("candidate_cutouts", data_id)


def _waiting(job: Job, sources: Path, cutouts: Path) -> list[Waiting]:
    rows = read_catalog(sources, _QUEUED)
    rows = rows.select(np.isin(rows["dia_source_id"], read_cutout_ids(cutouts)) & np.isfinite(rows["reliability"]))
    version = str(job.metrics.get("vetting", {}).get("version", ""))
    return [
        Waiting(key, int(job.exposure_id or 0), int(job.detector or 0), score, version)
        for key, score in zip(rows["dia_source_id"].tolist(), rows["reliability"].tolist(), strict=True)
    ]


def facts_of(row: Catalog) -> dict[str, str]:
    """Return one `DIA_SOURCE` row as facts for a reader, scores left out: they would lead the eye."""
    one = {name: values[0].item() for name, values in row.items()}
    flux = abs(one["psf_flux"])
    flags = SourceFlag(one["flags"])
    shown = {
        "detection": f"{one['dia_source_id']}",
        "visit, detector": f"{one['visit']}, {one['detector']}",
        "time": f"{times.isot_utc(one['mjd_tai'])[:19]} UTC",
        "place": f"x {one['x']:.1f}, y {one['y']:.1f}; {one['ra']:.5f} {one['dec']:+.5f}",
        "change": "brighter than the reference" if one["is_positive"] else "fainter than the reference",
        "magnitude": f"{NJY_ZERO_POINT - 2.5 * np.log10(flux):.2f}" if flux > 0 else "?",
        "significance": f"{abs(one['snr']):.1f} sigma",
        "chi-square of the PSF": f"{one['chi2']:.2f}",
        "FWHM": f"{one['fwhm']:.2f} px",
        "axis ratio": f"{one['b_image'] / one['a_image']:.2f}" if one["a_image"] > 0 else "?",
        "nearest reference source": _at(one["reference_distance"], one["reference_mag"]),
        "nearest bright star": _at(one["bright_distance"], one["bright_mag"]),
        "to the edge": f"{one['edge_distance']:.0f} px",
        "bad pixels of 25": f"{one['n_bad']}",
        "flags": ", ".join(flag.name.lower().replace("_", " ") for flag in flags if flag.name) or "none",
    }
    return {name: value.replace("nan", "?") for name, value in shown.items()}


def _at(distance: float, mag: float) -> str:
    return f"{distance:.1f}″, {mag:.1f} mag" if np.isfinite(distance) else "none within reach"
