"""How the reference of each place stands: the epochs it was made of, and those that would make a better one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from gueststar.model.rights import Program
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.reference.select_epochs import EpochQuality, EpochSelection, SelectEpochs
from gueststar.store.ledger import ExposureRow, Job, JobState
from gueststar.store.product_files import read_product
from gueststar.store.products import ProductRef, product_named
from gueststar.store.repo import SurveyRepo

DEEPEN_FACTOR = 2
"""A reference is made anew when this many times its epochs are good: more often gains little depth."""


@dataclass(frozen=True)
class Standing:
    """Of one place: field, detector and band."""

    selection: EpochSelection
    """Which calibrated images are good enough."""
    metrics: ProductRef | None
    """Of the reference that there is."""
    n_have: int
    """Epochs that it is made of; 0 without one."""
    n_wanted: int
    """Epochs from which on a new one is better."""

    @property
    def is_due(self) -> bool:
        """Whether a reference, or a better one, can be made now."""
        n_used = len(self.selection.used)
        return self.selection.is_enough and n_used >= self.n_wanted and n_used > self.n_have

    def may_become_due(self, n_received: int, *, min_epochs: int, max_epochs: int) -> bool:
        """Whether the images received suffice to make, or deepen, the reference, if all those not refused are good."""
        decisions = self.selection.decisions
        n_refused = sum(not (one.is_used or one.reason.startswith("good")) for one in decisions)
        most = min(n_received - n_refused, max_epochs)
        return most >= max(self.n_wanted, min_epochs) and most > self.n_have


class ReferenceStandings:
    """Looks up how references stand, a field and band at a time, once.

    ``until``: night whose images, and those of earlier ones, count: what is made after a night must not depend on how
    far the next one has come.
    """

    def __init__(self, repo: SurveyRepo, settings: PipelineSettings, *, until: int) -> None:
        self.repo, self.settings, self.until = repo, settings.reference_selection, until
        self._select = SelectEpochs(self.settings)
        self._known: dict[tuple[int, str], tuple[Mapping[int, Standing], Mapping[int, int]]] = {}

    def of(self, field: int, detector: int, band: str) -> Standing:
        """Return how the reference of a place stands."""
        return self._look(field, band)[0].get(detector) or self._standing([], None)

    def keeps(self, field: int | None, detector: int, band: str | None) -> bool:
        """Return whether the images received of a place are too few to deepen its reference, all being good."""
        if field is None or band is None:
            return True
        n_received = self._look(field, band)[1].get(detector, 0)
        limits = {"min_epochs": self.settings.min_epochs, "max_epochs": self.settings.max_epochs}
        return not self.of(field, detector, band).may_become_due(n_received, **limits)

    def _look(self, field: int, band: str) -> tuple[Mapping[int, Standing], Mapping[int, int]]:
        if (field, band) not in self._known:
            self._known[field, band] = self._ask(field, band)
        return self._known[field, band]

    def _ask(self, field: int, band: str) -> tuple[Mapping[int, Standing], Mapping[int, int]]:
        """Return the standing, and the number of images received, by detector."""
        taken = self.repo.ledger.exposures(observation_type="science", field=field, band=band)
        rows = {row.id: row for row in taken if row.info.day_obs <= self.until}
        received: dict[int, int] = defaultdict(int)
        for row in rows.values():
            for detector in row.detectors:
                received[detector] += 1
        epochs: dict[int, list[EpochQuality]] = defaultdict(list)
        for job in self.repo.ledger.jobs(kind="science", exposures=rows):
            row = rows[job.exposure_id or 0]
            is_good = job.state is JobState.DONE and row.info.program is not Program.ENGINEERING
            if is_good and job.detector is not None:
                epochs[job.detector].append(_quality(row, job))
        have = {ref.data_id.detector: ref for ref in self.repo.find("reference_metrics", field=field, band=band)}
        detectors = sorted(set(received) | set(epochs) | {one for one in have if one is not None})
        return {one: self._standing(epochs[one], have.get(one)) for one in detectors}, received

    def _standing(self, epochs: list[EpochQuality], metrics: ProductRef | None) -> Standing:
        epochs = sorted(epochs, key=lambda epoch: epoch.mjd_tai)
        selection = self._select.run(epochs, pixel_scale_arcsec=self.repo.camera.pixel_scale_arcsec)
        n_have = 0
        if metrics is not None:
            n_have = int(read_product(product_named("reference_metrics"), metrics.path)["n_epochs"])
        return Standing(selection, metrics, n_have, min(DEEPEN_FACTOR * n_have, self.settings.max_epochs))


def _quality(row: ExposureRow, job: Job) -> EpochQuality:
    def value(name: str) -> float:
        found = job.metrics.get(name)
        return float(found) if isinstance(found, int | float) else float("nan")

    return EpochQuality(
        name=str(row.id),
        mjd_tai=row.info.mjd_tai,
        fwhm_arcsec=value("fwhm_arcsec"),
        limiting_mag=value("limiting_mag"),
        zero_point=value("zero_point"),
        exposure_s=row.info.exposure_s,
        astrometric_rms_arcsec=value("astrometric_rms_mas") / 1000.0,
        background=value("sky_electrons"),
    )
