"""The references that there are: asked of the registry once for a field and band, not for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gueststar.model.exposure import ExposureInfo
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


@dataclass(frozen=True)
class KnownReference:
    """Of one place: field, detector and band."""

    data_id: DataId
    image: Path
    sources: Path
    """Its PSF catalog."""


class KnownReferences:
    """Finds the reference of an image's place; what is made later is found by another one of these."""

    def __init__(self, repo: SurveyRepo) -> None:
        self.repo = repo
        self._known: dict[tuple[int, str], Mapping[int | None, KnownReference]] = {}

    def of(self, info: ExposureInfo, detector: int) -> KnownReference | None:
        """Return the reference that an image is to be compared with, or None."""
        if info.field is None or info.band is None:
            return None
        key = info.field, info.band
        if key not in self._known:
            self._known[key] = self._ask(*key)
        return self._known[key].get(detector)

    def _ask(self, field: int, band: str) -> dict[int | None, KnownReference]:
        images = {ref.data_id: ref.path for ref in self.repo.find("reference_image", field=field, band=band)}
        if not images:
            return {}
        sources = {ref.data_id: ref.path for ref in self.repo.find("reference_source", field=field, band=band)}
        both = images.keys() & sources.keys()
        return {place.detector: KnownReference(place, images[place], sources[place]) for place in both}
