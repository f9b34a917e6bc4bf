"""What the log says of units of work that ended, from the operator's side: which attempt it was, where, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gueststar.core.errors import ServiceDown
from gueststar.operations.operator.queue import Unit
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.ledger import Ledger

LOG = logging.getLogger(__name__)


def tell_of_units(ledger: Ledger, ended: Iterable[tuple[Unit, Outcome]]) -> None:
    """Write a line for each unit; for those that did not succeed the ledger is asked which attempt it was."""
    for unit, outcome in ended:
        about: dict[str, object] = {"exposure": unit.exposure or None, "detector": unit.detector}
        about |= {"job": outcome.job_id, "worker": outcome.worker or None}
        if outcome.state == "done":
            LOG.info("%s: done in %.1f s", unit.words(), outcome.wall_s, extra=about)
            continue
        try:
            job = ledger.job(outcome.job_id)
        except ServiceDown:  # it is told all the same
            job = None
        if job is not None:
            about |= {"attempt": job.attempts, "night": job.day_obs}
        attempts = "" if job is None else f" (attempt {job.attempts} of {job.max_attempts}, now {job.state})"
        level = logging.WARNING if outcome.state == "failed" else logging.INFO
        LOG.log(level, "%s: %s: %s%s", unit.words(), outcome.state, outcome.reason, attempts, extra=about)
