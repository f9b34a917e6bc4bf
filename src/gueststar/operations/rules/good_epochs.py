"""How many exposures of a field are fit for a reference, band by band; counted anew only where images were added."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.reference.select_epochs import EpochQuality, SelectEpochs
from gueststar.store.operation_facts import CalibratedImage, OperationFacts
from gueststar.store.repo import SurveyRepo

LOOK_BACK_S = 3 * 86400.0
"""When first asked, fields are counted that got images so recently."""

AT_ONCE = 10
"""Fields and bands that are counted in one go; the rest is counted when it is asked again."""

N_DETECTORS = 4
"""Of a camera of more detectors, so many are looked at."""

_OVERLAP_S = 60.0
"""Images that were written down this long before the last look are looked at again."""


class GoodEpochs:
    """Counts the good epochs of fields and bands that got new images, some at a time."""

    def __init__(self, repo: SurveyRepo, *, clock: Callable[[], float] = time.time) -> None:
        """``clock`` is the machine's, by which the ledger writes down when work was finished."""
        self._clock = clock
        self._facts = OperationFacts(repo.ledger)
        self._scale = repo.camera.pixel_scale_arcsec
        self._detectors = _spread([detector.id for detector in repo.camera.detectors])
        settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
        self._select = SelectEpochs(settings.reference_selection)
        self._counts: dict[tuple[int, str], int] = {}
        self._waiting: dict[tuple[int, str], None] = {}
        self.nights: dict[tuple[int, str], int] = {}
        """Field and band -> night of the newest calibrated image."""
        self._looked: float | None = None

    def counts(self) -> dict[tuple[int, str], int]:
        """Return field and band -> good epochs of the detector that has most, of all that were counted so far."""
        now = self._clock()
        after = now - LOOK_BACK_S if self._looked is None else min(self._looked, now) - _OVERLAP_S
        self._waiting |= dict.fromkeys(self._facts.places_calibrated(after=after))
        self._looked = now
        for place in list(self._waiting)[:AT_ONCE]:
            del self._waiting[place]
            self._count(*place)
        return dict(self._counts)

    def _count(self, field: int, band: str) -> None:
        by_detector: dict[int, list[EpochQuality]] = defaultdict(list)
        images = self._facts.calibrated_images(field, band, detectors=self._detectors)
        for image in images:
            by_detector[image.detector].append(quality_of(image))
        if images:
            self.nights[field, band] = max(image.day_obs for image in images)
            self._counts[field, band] = max(map(self._good, by_detector.values()))

    def _good(self, epochs: list[EpochQuality]) -> int:
        decisions = self._select.run(epochs, pixel_scale_arcsec=self._scale).decisions
        return sum(item.is_used or item.reason.startswith("good") for item in decisions)


def _spread(detectors: list[int]) -> list[int]:
    """Return detectors from all over the camera."""
    ordered = sorted(detectors)
    n = min(N_DETECTORS, len(ordered))
    return [ordered[round(k * (len(ordered) - 1) / max(n - 1, 1))] for k in range(n)]


def quality_of(image: CalibratedImage) -> EpochQuality:
    """Return what the choice of a reference's epochs asks of an image; NaN for what was not measured."""

    def value(name: str) -> float:
        found = image.metrics.get(name)
        return float(found) if isinstance(found, int | float) else float("nan")

    return EpochQuality(
        name=str(image.exposure_id), mjd_tai=image.mjd_start + image.exposure_s / 2.0 / 86400.0,
        fwhm_arcsec=value("fwhm_arcsec"), limiting_mag=value("limiting_mag"), zero_point=value("zero_point"),
        exposure_s=image.exposure_s, astrometric_rms_arcsec=value("astrometric_rms_mas") / 1000.0,
        background=value("sky_electrons"),
    )  # fmt: skip
