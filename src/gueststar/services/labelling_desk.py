"""What the labelling page shows and stores: pages of detections, their cut-outs and facts, labels and undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.bits import SourceFlag
from gueststar.formats.cutout_picture import triplet_png
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.labels import DetectionKind
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.services.labelling_queue import EVERY_NIGHT, PAGE_SIZE, Choice, LabellingQueue, Order
from gueststar.store.labels import DetectionLabel, LabelStore
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

_IMAGES_KEPT = 4
"""Detector images whose cut-outs are held in memory."""


class LabellingDesk:
    """One person's desk over the detections of a repository that have cut-outs.

    It goes through the nights one by one, the newest first; what a person chooses to see besides (`Choice`) holds for
    the next detection as for the pages.
    """

    def __init__(
        self, repo: SurveyRepo, labels: LabelStore, *, person: str,
        clock: Callable[[], float] = times.now_mjd_tai,
    ) -> None:  # fmt: skip
        self.repo, self.labels, self.person, self.clock = repo, labels, person, clock
        self.queue = LabellingQueue(repo, labels)
        self._image = lru_cache(maxsize=_IMAGES_KEPT)(self._read)

    def next(self, choice: Choice = EVERY_NIGHT, *, skipped: frozenset[int] = frozenset()) -> int | None:
        """Return the first detection of a choice; by default the unlabelled one that the model is least sure of.

        None if all are labelled or skipped.
        """
        for night in self.queue.nights(choice):
            ids = self.queue.of_night(night).dia_source_id[self.queue.rows(night, choice)]
            found = next((key for key in ids.tolist() if key not in skipped), None)
            if found is not None:
                return int(found)
        return None

    def page(self, choice: Choice = EVERY_NIGHT, *, number: int = 1, size: int = PAGE_SIZE) -> dict[str, Any]:
        """Return one page of a night's detections: their numbers and labels, and scores where the order tells them."""
        night, rows = self._night_of(choice)
        n_pages = max(-(-rows.size // size), 1)
        number = min(max(number, 1), n_pages)
        shown: list[dict[str, Any]] = []
        if night is not None:
            mine, given = self.queue.of_night(night), self.queue.labels_of(night)
            for row in rows[(number - 1) * size : number * size].tolist():
                key = int(mine.dia_source_id[row])
                item = {"id": str(key), "label": given[key].kind.title if key in given else None}
                if choice.order in (Order.HIGH, Order.LOW):
                    item["score"] = f"{mine.reliability[row]:.3f}"
                shown.append(item)
        nights = list(self.queue.nights())
        return {
            "night": night,
            "nights": nights,
            "page": number,
            "pages": n_pages,
            "n": int(rows.size),
            "detections": shown,
        }

    def progress(self, choice: Choice = EVERY_NIGHT) -> dict[str, Any]:
        """Return how many detections of a choice's night are waiting, and how many labels of each class it has."""
        night, _ = self._night_of(choice)
        current = {} if night is None else self.queue.labels_of(night)
        counts = {kind.title: 0 for kind in DetectionKind if kind is not DetectionKind.UNKNOWN}
        for label in current.values():
            counts[label.kind.title] += 1
        n = 0 if night is None else self.queue.of_night(night).n
        return {"night": night, "waiting": n - len(current), "labelled": len(current), **counts}

    def _night_of(self, choice: Choice) -> tuple[int | None, NDArray[np.intp]]:
        """Return the newest night that has what a choice asks for, with its rows; where none has, the newest one."""
        newest: int | None = None
        for night in self.queue.nights(choice):
            rows = self.queue.rows(night, choice)
            if rows.size:
                return night, rows
            if newest is None and self.queue.of_night(night).n:
                newest = night
        return newest, np.zeros(0, dtype=np.intp)

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
        mine, row = self.queue.find(dia_source_id)
        self.labels.add(
            DetectionLabel(
                dia_source_id, int(mine.visit[row]), int(mine.detector[row]), kind, self.person, self.clock(),
                float(mine.reliability[row]), str(mine.version[row]),
            )
        )  # fmt: skip

    def undo(self) -> int | None:
        """Take back the person's last label and return whose it was; None if there is none."""
        taken = self.labels.retract_last(self.person)
        return None if taken is None else taken.dia_source_id

    def _of(self, dia_source_id: int) -> tuple[Catalog, Any]:
        mine, row = self.queue.find(dia_source_id)
        rows, cutouts = self._image(int(mine.visit[row]), int(mine.detector[row]))
        return rows.select(np.flatnonzero(rows["dia_source_id"] == dia_source_id)), cutouts.of(dia_source_id)

    def _read(self, visit: int, detector: int) -> tuple[Catalog, CandidateCutouts]:
        data_id = DataId(visit=visit, detector=detector)
        return self.repo.get("dia_source", data_id), self.repo.get("candidate_cutouts", data_id)


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
