"""Previews of the last images, made when somebody looks and kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from gueststar.core.errors import DataError, ServiceDown
from gueststar.formats.preview import preview_png
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

KEPT = 400
"""Pictures that are kept: some 150 kB each."""


class Previews:
    """Pictures of a survey's images; a file is drawn once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._repo: SurveyRepo | None = None
        self._kept: OrderedDict[Path, bytes] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        if self._repo is not None:
            self._repo.close()

    def of(self, exposure: int, detector: int, kind: str) -> bytes | None:
        """Return the picture of a detector image: science, reference or difference; None where there is none."""
        with self._one_at_a_time:
            try:
                path = self._path(exposure, detector, kind)
            except ServiceDown:
                return None
            if path is None:
                return None
            if path not in self._kept:
                try:
                    self._kept[path] = preview_png(path, is_difference=kind == "difference")
                except (DataError, OSError):  # cleaned up, or its disk is away
                    return None
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(path)
            return self._kept[path]

    def _path(self, exposure: int, detector: int, kind: str) -> Path | None:
        if self._repo is None:
            self._repo = SurveyRepo.open(self._root)
        repo = self._repo
        if kind != "reference":
            found = repo.find_one(f"{kind}_image", DataId(visit=exposure, detector=detector))
            return None if found is None else found.path
        row = repo.ledger.exposure(exposure)
        if row is None or row.info.field is None or row.info.band is None:
            return None
        found = repo.find_one("reference_image", DataId(field=row.info.field, detector=detector, band=row.info.band))
        return None if found is None else found.path
