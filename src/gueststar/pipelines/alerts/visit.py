"""One detector image of one visit, from vetted detections to alerts in the log: associate, tell, commit, send."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gueststar.core.errors import OutOfTurn, TransientError
from gueststar.formats.avro import encode_alert
from gueststar.model.catalog import Catalog
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.depth import DepthMap
from gueststar.model.detections import CommitReceipt, OutboxAlert, VisitCommit, WorkingSet
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.associate import AssociateSources, Association, AssociationConfig
from gueststar.pipelines.alerts.candidate import ReferenceFacts
from gueststar.pipelines.alerts.earlier import JudgeByEarlier, MeasureEarlier
from gueststar.pipelines.alerts.history import Places
from gueststar.pipelines.alerts.neighbours import with_reference
from gueststar.pipelines.alerts.packet import AlertConfig, BuildAlerts, Neighbourhood
from gueststar.pipelines.alerts.solar_system import SolarSystemConfig
from gueststar.pipelines.alerts.view import known_since, object_names, objects_in_footprint, tiers_of_view
from gueststar.pipelines.alerts.visible import VisibleHistory
from gueststar.pipelines.engine.outcome import StepTimer
from gueststar.store.alerts.log import AlertLog, drain_outbox
from gueststar.store.detections.store import DetectionStore

_PAUSE_S = 0.02

MeasureForced = Callable[[Catalog], Catalog]
"""From objects (`DIA_OBJECT` rows) to fluxes at their places on the visit's difference image (`FORCED_SOURCE`)."""


@dataclass(frozen=True)
class AlertVisitConfig:
    """How a visit's detections become alerts."""

    association: AssociationConfig = field(default_factory=AssociationConfig)
    alerts: AlertConfig = field(default_factory=AlertConfig)
    solar_system: SolarSystemConfig = field(default_factory=SolarSystemConfig)
    """Which known Solar-System objects are told."""
    most_attempts: int = 5
    """How often a visit is associated anew when overlapping images overtake it."""
    most_wait_s: float = 300.0
    """How long an image waits for earlier ones over the same sky that were announced."""


@dataclass(frozen=True, eq=False)
class VisitProducts:
    """What the image pipelines hand over."""

    record: VisitRecord
    dia_sources: Catalog
    """`DIA_SOURCE` rows, scored."""
    cutouts: CandidateCutouts
    """Of every detection that may be alerted."""
    reference: ReferenceFacts
    reference_sources: Catalog | None = None
    """`SOURCE` rows of the reference image."""
    refcat: Catalog | None = None
    """`REFCAT` rows out to 90 arcsec around the image."""
    solar_system: Catalog | None = None
    """`SOLAR_SYSTEM_MATCH` rows."""
    measure_forced: MeasureForced | None = None
    measure_earlier: MeasureEarlier | None = None
    """Fluxes on earlier difference images; asked only of those that the visit's stream may show."""
    depth: DepthMap | None = None
    """Limiting magnitudes of the difference image, place by place."""
    is_target_of_opportunity: bool = False


@dataclass(frozen=True)
class VisitOutcome:
    """What became of a visit's detections."""

    receipt: CommitReceipt
    not_alerted: dict[str, int]
    """How many detections made no alert, by reason; empty for a visit that had been committed before."""


class AlertVisit:
    """Associate a visit's detections, build its alerts, commit all at once, and send what is committed.

    Visits over the same sky belong in order of time; one that comes late is taken and marked as late.
    """

    def __init__(
        self,
        store: DetectionStore,
        log: AlertLog,
        *,
        policy: RightsPolicy,
        clock: Callable[[], float],
        config: AlertVisitConfig = AlertVisitConfig(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``clock`` returns the current moment, MJD TAI; ``sleep`` lets seconds pass."""
        self._store, self._log, self._policy, self._clock = store, log, policy, clock
        self._config, self._sleep = config, sleep
        self._associate = AssociateSources(config.association)
        self._build = BuildAlerts(config.alerts)
        self._judge = JudgeByEarlier(config.alerts.earlier, match=config.alerts.history.match)

    def run(self, products: VisitProducts, *, timer: StepTimer | None = None) -> VisitOutcome:
        """Return what was committed; a visit that was committed before only has its waiting alerts sent.

        Raises OutOfTurn if an announced earlier image over the same sky does not come in time.
        """
        record, timer = products.record, timer or StepTimer()
        known = self._store.receipt(record.visit, record.detector)
        outcome = VisitOutcome(known, {}) if known is not None else self._commit(products, timer)
        with timer("send"):
            drain_outbox(self._store, self._log)
        return outcome

    def _commit(self, products: VisitProducts, timer: StepTimer) -> VisitOutcome:
        self._wait_for_turn(products.record)
        for _ in range(self._config.most_attempts - 1):
            try:
                return self._attempt(products, timer)
            except TransientError:
                self._wait_for_turn(products.record)
        return self._attempt(products, timer)

    def _wait_for_turn(self, record: VisitRecord) -> None:
        waited = 0.0
        while True:
            try:
                return self._store.check_turn(record)
            except OutOfTurn:
                if waited >= self._config.most_wait_s:
                    raise
            self._sleep(_PAUSE_S)
            waited += _PAUSE_S

    def _attempt(self, products: VisitProducts, timer: StepTimer) -> VisitOutcome:
        record, store = products.record, self._store
        with timer("objects"):
            working_set = store.working_set(record)
        with timer("match"):
            sources, reference_ra, reference_dec = with_reference(products.dia_sources, products.reference_sources)
            tiers = tiers_of_view(working_set, Program(record.program), self._policy)
            association = self._associate.run(sources, tiers, new_object_ids=store.new_object_ids)
            numbers = self._name_numbers(association, working_set)
        with timer("forced"):
            forced = _forced(products, tiers)
        places = (reference_ra, reference_dec)
        alerts, not_alerted = self._alerts(products, association, working_set, numbers, places, timer)
        new_numbers = {int(i): numbers[int(i)] for i in association.new_object_ids}
        with timer("commit"):
            receipt = store.commit_visit(
                VisitCommit(
                    record, association.dia_sources, places, forced, new_numbers, alerts,
                    base_sequence=working_set.sequence, depth=products.depth,
                )
            )  # fmt: skip
        return VisitOutcome(receipt, not_alerted)

    def _name_numbers(self, association: Association, working_set: WorkingSet) -> dict[int, int]:
        """Return the number in the name of each object that has a detection."""
        known = working_set.objects["dia_object_id"]
        is_seen = np.isin(known, association.dia_sources["dia_object_id"])
        numbers = dict(zip(known[is_seen].tolist(), working_set.name_numbers[is_seen].tolist(), strict=True))
        return numbers | self._store.name_numbers(association.new_object_ids.tolist())

    def _history(self, record: VisitRecord, triggers: Catalog, visits: Catalog) -> VisibleHistory:
        """Return what lies behind the triggers as far as packets that leave now may show it."""
        config, now = self._config.alerts.history, self._clock()
        history = self._store.history(
            record, triggers, visits=visits, radius_arcsec=config.match.max_arcsec, window_days=config.window_days
        )
        return VisibleHistory.of(history, record, policy=self._policy, at_mjd_tai=now, window_days=config.window_days)

    def _alerts(
        self,
        products: VisitProducts,
        association: Association,
        working_set: WorkingSet,
        numbers: dict[int, int],
        places: Places,
        timer: StepTimer,
    ) -> tuple[tuple[OutboxAlert, ...], dict[str, int]]:
        record, sources, build = products.record, association.dia_sources, self._build
        chosen, reasons = build.select(sources, record)
        if len(chosen) == 0:
            return (), reasons
        triggers = sources.select(chosen)
        mine = working_set.parts.select(np.isin(working_set.parts["dia_object_id"], triggers["dia_object_id"]))
        names = object_names(
            triggers["dia_object_id"], mine, record, numbers,
            policy=self._policy, prefix=self._config.alerts.name_prefix,
        )  # fmt: skip
        around = Neighbourhood(
            products.reference, places, products.refcat, products.solar_system, products.is_target_of_opportunity
        )
        with timer("history"):
            seen = self._history(record, triggers, working_set.visits)
            since = known_since(mine, Program(record.program), self._policy)
        with timer("earlier"):
            standing = self._judge.run(
                triggers, record, seen,
                known_since=since, measure=products.measure_earlier, solar_system=products.solar_system,
            )  # fmt: skip
        with timer("packets"):
            batch = build.run(
                sources, record, names=names, cutouts=products.cutouts, seen=seen, neighbourhood=around,
                known_since=since, standing=standing,
            )  # fmt: skip
            return tuple(
                OutboxAlert(packet["candid"], packet["objectId"], record.day_obs, record.program, encode_alert(packet))
                for packet in batch.packets
            ), reasons


def _forced(products: VisitProducts, tiers: Sequence[Catalog]) -> Catalog | None:
    if products.measure_forced is None:
        return None
    objects = objects_in_footprint(tiers, products.record)
    return products.measure_forced(objects) if objects.n_rows else None
