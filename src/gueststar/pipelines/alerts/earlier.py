"""What the earlier images that a packet's stream may show make of the reliability of its detection.

Of each place the latest images count, those of the detection's band first. A flux there is the one that was forced at
the object, else that of a detection at the place; only where neither is known, the score leaves a doubt and no bright
star is near (there earlier images decide nothing) is it measured, on the image itself. A known Solar-System object was
elsewhere before, so that no image is asked about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.match import MatchConfig
from gueststar.algorithms.vetting.earlier import EarlierConfig, reliability_with_earlier, tells
from gueststar.core.bits import SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.forced_history import BAD, told_forced
from gueststar.pipelines.alerts.history import covering, detected_at
from gueststar.pipelines.alerts.visible import Image, VisibleHistory, image_at, images_of

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

MeasureEarlier = Callable[[Image, Floats, Floats], tuple[Floats, Floats]]
"""From an image and places (ra, dec, degrees) to fluxes and errors there (nJy), NaN where they are not known."""


@dataclass(frozen=True)
class EarlierImagesConfig:
    """Which earlier images are asked about a detection."""

    max_images: int = 3
    """The latest so many images over a place count; 0: none are asked, and packets do not tell of it."""
    enough: int = 2
    """Fluxes that are not known are measured until a detection has so many that tell something."""
    doubtful_above: float = 0.02
    """Fluxes are measured for detections with a score above this."""
    doubtful_below: float = 0.97
    """Fluxes are measured for detections with a score below this; others are judged by what is known without."""
    known_object_arcsec: float = 5.0
    """No image is asked about a detection with a known Solar-System object within this distance."""
    judgement: EarlierConfig = field(default_factory=EarlierConfig)
    """What is known of real and false detections before."""


class Standing(NamedTuple):
    """Detections after a look at what came before them."""

    reliability: Floats
    """Probability of being real."""
    n_images: NDArray[np.int64]
    """Earlier images that had a say; where none had, the reliability is that of the detection's own image."""


class JudgeByEarlier:
    """Judge the detections of one visit by what its stream may show of the images before."""

    def __init__(self, config: EarlierImagesConfig = EarlierImagesConfig(), *, match: MatchConfig) -> None:
        self.config, self._match = config, match

    def run(
        self,
        triggers: Catalog,
        record: VisitRecord,
        seen: VisibleHistory,
        *,
        known_since: Mapping[int, int],
        measure: MeasureEarlier | None,
        solar_system: Catalog | None = None,
    ) -> Standing | None:
        """Return the standing of each trigger (`DIA_SOURCE` rows of ``record``); None if no images are to be asked.

        ``known_since`` is the commit from which on the stream knows each object: fluxes forced before are not told.
        ``solar_system`` are the `SOLAR_SYSTEM_MATCH` rows of the triggers.
        """
        if self.config.max_images <= 0:
            return None
        moves = np.zeros(triggers.n_rows, dtype=bool)
        if solar_system is not None:
            near = solar_system["distance"] <= self.config.known_object_arcsec
            moves = np.isin(triggers["dia_source_id"], solar_system["dia_source_id"][near])
        fluxes = _Fluxes.at(triggers, record, seen, of=~moves, max_images=self.config.max_images)
        fluxes.fill_forced(triggers, seen, known_since)
        fluxes.fill_detected(seen.detections, detected_at(triggers, seen.detections, self._match))
        is_near_bright = (triggers["flags"] & int(SourceFlag.NEAR_BRIGHT_STAR)) != 0
        if measure is not None:
            score = triggers["reliability"]
            is_doubtful = (score > self.config.doubtful_above) & (score < self.config.doubtful_below)
            fluxes.fill_measured(triggers, is_doubtful & ~is_near_bright, measure, enough=self.config.enough)
        reliability = reliability_with_earlier(
            triggers["reliability"].astype(np.float64), flux=triggers["psf_flux"].astype(np.float64),
            is_positive=triggers["is_positive"], is_near_bright=is_near_bright,
            earlier_flux=fluxes.flux, earlier_flux_err=fluxes.flux_err, config=self.config.judgement,
        )  # fmt: skip
        return Standing(reliability, np.count_nonzero(tells(fluxes.flux, fluxes.flux_err), axis=1))


@dataclass(frozen=True, eq=False)
class _Fluxes:
    """Fluxes ``[n_triggers, n_images]`` on the images that count, filled in step by step."""

    images: list[Image]
    """Those that count for any trigger, the most telling first."""
    is_asked: Bools
    """Which of them count for which trigger."""
    is_known: Bools
    """Of which the flux is known, be it that nothing could be measured."""
    flux: Floats
    """nJy; NaN where it tells nothing."""
    flux_err: Floats

    @classmethod
    def at(cls, triggers: Catalog, record: VisitRecord, seen: VisibleHistory, *, of: Bools, max_images: int) -> _Fluxes:
        """Return the images to be asked about each trigger, none of those not in ``of``; no flux is known yet."""
        visits = seen.visits.select(np.flatnonzero(seen.is_recent))
        is_other_band = visits["band_id"] != record.band_id
        order = np.lexsort((visits["detector"], visits["visit"], -visits["mjd_start"], is_other_band))
        visits = visits.select(order)
        covers = covering(visits, triggers) & of
        is_asked = covers & (np.cumsum(covers, axis=0) <= max_images)
        counts = np.flatnonzero(is_asked.any(axis=1))
        shape = (triggers.n_rows, len(counts))
        unknown = np.full(shape, np.nan)
        return cls(
            images_of(visits.select(counts)), is_asked[counts].T, np.zeros(shape, dtype=bool), unknown, unknown.copy()
        )

    def fill_forced(self, triggers: Catalog, seen: VisibleHistory, known_since: Mapping[int, int]) -> None:
        """Take the fluxes that were forced at the triggers' objects."""
        for row, object_id in enumerate(triggers["dia_object_id"].tolist()):
            for i in told_forced(seen, object_id, known_since):
                self._fill(row, seen.forced, i)

    def fill_detected(self, detections: Catalog, detected: list[list[int]]) -> None:
        """Take the fluxes of the detections at the triggers' places."""
        for row, rows in enumerate(detected):
            for i in rows:
                self._fill(row, detections, i)

    def _fill(self, row: int, catalog: Catalog, i: int) -> None:
        image = image_at(catalog, i)
        if image not in self.images:
            return
        column = self.images.index(image)
        if not self.is_asked[row, column] or self.is_known[row, column]:
            return
        self.is_known[row, column] = True
        if not catalog["flags"][i] & int(BAD):
            self.flux[row, column], self.flux_err[row, column] = catalog["psf_flux"][i], catalog["psf_flux_err"][i]

    def fill_measured(self, triggers: Catalog, is_doubtful: Bools, measure: MeasureEarlier, *, enough: int) -> None:
        """Measure at the places of doubtful triggers, image by image, until each has enough."""
        for column, image in enumerate(self.images):
            n_told = np.count_nonzero(tells(self.flux, self.flux_err), axis=1)
            is_wanted = is_doubtful & self.is_asked[:, column] & ~self.is_known[:, column] & (n_told < enough)
            rows = np.flatnonzero(is_wanted)
            if rows.size:
                self.is_known[rows, column] = True
                self.flux[rows, column], self.flux_err[rows, column] = measure(
                    image, triggers["ra"][rows], triggers["dec"][rows]
                )
