"""Which detections wait to be labelled: night by night, the newest first, so that memory holds a few nights only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.formats.cutout_cube import read_cutout_ids
from gueststar.formats.parquet import read_catalog
from gueststar.model.catalog import Schema
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.labels import DetectionKind
from gueststar.store.labels import DetectionLabel, LabelStore
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

NIGHTS_KEPT = 3
"""Nights whose lists are held in memory."""

PAGE_SIZE = 24

_QUEUED = Schema("queued", (DIA_SOURCE["dia_source_id"], DIA_SOURCE["reliability"]))


class Order(StrEnum):
    """In which order a night's detections come."""

    DOUBT = "doubt"
    """Those first that the model is least sure of."""
    NEWEST = "newest"
    """The last exposure first."""
    HIGH = "high"
    """The highest score first."""
    LOW = "low"
    """The lowest score first."""


UNLABELLED, ANY = "unlabelled", "any"


@dataclass(frozen=True)
class Choice:
    """Which detections are asked for."""

    night: int | None = None
    """Survey night; None: the newest that has any, then the one before it."""
    order: Order = Order.DOUBT
    label: str = UNLABELLED
    """``unlabelled``, ``any``, or the title of the class that a label gives."""
    low: float = 0.0
    """Least score."""
    high: float = 1.0
    """Highest score."""

    @classmethod
    def of(cls, asked: Any) -> Choice:
        """Return the choice that a request's parameters name; DataError for what is none."""
        try:
            night = asked.get("night") or None
            choice = cls(
                None if night is None else int(night), Order(asked.get("order") or Order.DOUBT),
                asked.get("label") or UNLABELLED, float(asked.get("low") or 0.0), float(asked.get("high") or 1.0),
            )  # fmt: skip
        except ValueError as problem:
            raise DataError(f"there are no such detections: {problem}") from None
        if choice.label not in (UNLABELLED, ANY, *(kind.title for kind in DetectionKind)):
            raise DataError(f"there is no class {choice.label!r}")
        return choice


EVERY_NIGHT = Choice()
"""Unlabelled detections of all nights, the newest night first and in it those that the model is least sure of."""


@dataclass(frozen=True, eq=False)
class NightCandidates:
    """The detections of one night that have cut-outs and a score, by exposure and detector."""

    night: int
    dia_source_id: NDArray[np.int64]
    visit: NDArray[np.int64]
    detector: NDArray[np.int32]
    reliability: NDArray[np.float32]
    version: NDArray[np.str_]
    """Of the model that scored them."""

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.dia_source_id.size)

    def row_of(self, dia_source_id: int) -> int | None:
        """Return the row of a detection; None if it is of another night."""
        rows = np.flatnonzero(self.dia_source_id == dia_source_id)
        return int(rows[0]) if rows.size else None

    def ordered(self, order: Order) -> NDArray[np.intp]:
        """Return all rows in an order; equals stay by exposure and detector."""
        keys = {
            Order.DOUBT: np.abs(self.reliability - 0.5), Order.NEWEST: -self.visit,
            Order.HIGH: -self.reliability, Order.LOW: self.reliability,
        }  # fmt: skip
        return np.argsort(keys[order], kind="stable")


class LabellingQueue:
    """The detections of a survey that may be labelled, as one reader may see them."""

    def __init__(self, repo: SurveyRepo, labels: LabelStore, *, nights_kept: int = NIGHTS_KEPT) -> None:
        self.repo, self.labels = repo, labels
        self.of_night = lru_cache(maxsize=nights_kept)(self._read_night)

    def nights(self, choice: Choice = EVERY_NIGHT) -> Iterator[int]:
        """Yield the nights of a choice, the newest first."""
        nights = self.repo.ledger.nights()
        yield from ([choice.night] if choice.night in nights else []) if choice.night else reversed(nights)

    def rows(self, night: int, choice: Choice) -> NDArray[np.intp]:
        """Return the rows of a night that a choice asks for, in its order."""
        mine = self.of_night(night)
        ordered = mine.ordered(choice.order)
        scores = mine.reliability[ordered]
        ordered = ordered[(scores >= choice.low) & (scores <= choice.high)]
        if choice.label == ANY:
            return ordered
        given = self.labels_of(night)
        wanted = [key for key, label in given.items() if choice.label in (UNLABELLED, label.kind.title)]
        is_wanted = np.isin(mine.dia_source_id[ordered], np.array(wanted, dtype=np.int64))
        return ordered[~is_wanted if choice.label == UNLABELLED else is_wanted]

    def labels_of(self, night: int) -> dict[int, DetectionLabel]:
        """Return the labels that hold of a night's detections, by dia_source_id."""
        mine = self.of_night(night)
        found = self.labels.current(visits=np.unique(mine.visit).tolist())
        on_desk = set(mine.dia_source_id.tolist()) if found else set()
        return {key: label for key, label in found.items() if key in on_desk}

    def find(self, dia_source_id: int) -> tuple[NightCandidates, int]:
        """Return the night and the row of a detection; DataError if it is on no night that may be seen."""
        for night in self.nights():
            mine = self.of_night(night)
            row = mine.row_of(dia_source_id)
            if row is not None:
                return mine, row
        raise DataError(f"detection {dia_source_id} has no cut-outs on this desk")

    def _read_night(self, night: int) -> NightCandidates:
        cutouts = {
            (r.data_id.visit, r.data_id.detector): r.path for r in self.repo.find("candidate_cutouts", day_obs=night)
        }
        sources = {(r.data_id.visit, r.data_id.detector): r.path for r in self.repo.find("dia_source", day_obs=night)}
        jobs = self.repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE)
        of_image = {(job.exposure_id, job.detector): job for job in sorted(jobs, key=lambda job: job.id)}
        parts: list[tuple[NDArray[Any], ...]] = []
        for (visit, detector), job in sorted(of_image.items(), key=lambda item: item[1].id):
            if (visit, detector) not in cutouts or (visit, detector) not in sources:
                continue
            rows = read_catalog(sources[visit, detector], _QUEUED)
            is_shown = np.isin(rows["dia_source_id"], read_cutout_ids(cutouts[visit, detector]))
            rows = rows.select(is_shown & np.isfinite(rows["reliability"]))
            version, n = str(job.metrics.get("vetting", {}).get("version", "")), rows.n_rows
            parts.append((
                rows["dia_source_id"], np.full(n, visit or 0, np.int64), np.full(n, detector or 0, np.int32),
                rows["reliability"].astype(np.float32), np.full(n, version),
            ))  # fmt: skip
        if not parts:
            nothing = np.zeros(0, np.int64)
            return NightCandidates(
                night, nothing, nothing, nothing.astype(np.int32), nothing.astype(np.float32), nothing.astype(str)
            )
        return NightCandidates(night, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))
