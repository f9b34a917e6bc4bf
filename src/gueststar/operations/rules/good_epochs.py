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

_OVERLAP_S = 60.0
"""Images that were written down this long before the last look are looked at again."""


class GoodEpochs:
    """Counts the good epochs of fields and bands that got new images."""

    def __init__(self, repo: SurveyRepo, *, clock: Callable[[], float] = time.time) -> None:
        """``clock`` is the machine's, by which the ledger writes down when work was finished."""
        self._clock = clock
        self._facts = OperationFacts(repo.ledger)
        self._scale = repo.camera.pixel_scale_arcsec
        settings = PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
        self._select = SelectEpochs(settings.reference_selection)
        self._counts: dict[tuple[int, str], int] = {}
        self.nights: dict[tuple[int, str], int] = {}
        """Field and band -> night of the newest calibrated image."""
        self._looked: float | None = None

    def counts(self) -> dict[tuple[int, str], int]:
        """Return field and band -> good epochs of the detector that has most, of all that were counted so far."""
        now = self._clock()
        after = now - LOOK_BACK_S if self._looked is None else min(self._looked, now) - _OVERLAP_S
        for place in self._facts.places_calibrated(after=after):
            self._counts[place] = self._count(*place)
        self._looked = now
        return dict(self._counts)

    def _count(self, field: int, band: str) -> int:
        by_detector: dict[int, list[EpochQuality]] = defaultdict(list)
        images = self._facts.calibrated_images(field, band)
        self.nights[field, band] = max(image.day_obs for image in images)
        for image in images:
            by_detector[image.detector].append(quality_of(image))
        return max((self._good(epochs) for epochs in by_detector.values()), default=0)

    def _good(self, epochs: list[EpochQuality]) -> int:
        decisions = self._select.run(epochs, pixel_scale_arcsec=self._scale).decisions
        return sum(item.is_used or item.reason.startswith("good") for item in decisions)


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
