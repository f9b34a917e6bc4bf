"""What the ledger holds of a night, as plain rows for summaries: a few columns of many exposures, read at once.

A reader's ledger gives the rows of exposures that he may see, without what depends on others (`VisibleLedger`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, func, select

from gueststar.model.rights import Program
from gueststar.store.ledger import Ledger
from gueststar.store.tables import EXPOSURES, JOBS
from gueststar.store.visible import METRICS_SHOWN, VisibleLedger


class ExposureFact(NamedTuple):
    """One science exposure."""

    id: int
    program: int
    band: str | None
    physical_filter: str | None
    field: int | None
    ra: float | None
    """Degrees."""
    dec: float | None
    mjd_start: float
    """MJD TAI."""
    exposure_s: float
    state: str
    received: float | None
    """Unix time; None for a reader."""


class UnitFact(NamedTuple):
    """One unit of work on a detector image."""

    exposure: int
    detector: int
    state: str
    finished: float | None
    """Unix time; None for a reader."""
    cpu_s: float | None
    values: dict[str, float]
    """Metrics that it has, of those asked for."""


def science_nights(ledger: Ledger) -> list[int]:
    """Return the nights with science exposures (that the reader may see), in order."""
    query = select(EXPOSURES.c.day_obs, EXPOSURES.c.program).where(EXPOSURES.c.observation_type == "science").distinct()
    with ledger.reading() as connection:
        rows = connection.execute(query).all()
    return sorted({row.day_obs for row in rows if _may_see(ledger, row.program, row.day_obs)})


def exposure_facts(ledger: Ledger, night: int) -> list[ExposureFact]:
    """Return the science exposures of a night, by time."""
    columns = [EXPOSURES.c[name] for name in ExposureFact._fields]
    query = select(*columns).where(EXPOSURES.c.day_obs == night, EXPOSURES.c.observation_type == "science")
    with ledger.reading() as connection:
        rows = [ExposureFact(*row) for row in connection.execute(query.order_by(EXPOSURES.c.id))]
    rows = [row for row in rows if _may_see(ledger, row.program, night)]
    return [row._replace(received=None) for row in rows] if isinstance(ledger, VisibleLedger) else rows


def unit_facts(ledger: Ledger, night: int, kind: str, metrics: Sequence[str]) -> list[UnitFact]:
    """Return the units of work of a kind on a night's exposures, with some of their numeric metrics."""
    is_reader = isinstance(ledger, VisibleLedger)
    names = [name for name in metrics if not is_reader or name in METRICS_SHOWN]
    columns = [JOBS.c.exposure_id, JOBS.c.detector, JOBS.c.state, JOBS.c.finished, JOBS.c.cpu_s, EXPOSURES.c.program]
    values = [JOBS.c.metrics[name].as_float().label(f"metric_{k}") for k, name in enumerate(names)]
    query = select(*columns, *values).join(EXPOSURES, EXPOSURES.c.id == JOBS.c.exposure_id)
    with ledger.reading() as connection:
        rows = connection.execute(query.where(JOBS.c.day_obs == night, JOBS.c.kind == kind)).all()
    return [_unit(row, names, is_reader) for row in rows if _may_see(ledger, row.program, night)]


def work_counts(ledger: Ledger) -> dict[int, dict[str, int]]:
    """Return how many units of work every night has, by kind and state: it changes when a night is worked on."""
    query = select(JOBS.c.day_obs, JOBS.c.kind, JOBS.c.state, func.count()).group_by(
        JOBS.c.day_obs, JOBS.c.kind, JOBS.c.state
    )
    counts: dict[int, dict[str, int]] = {}
    with ledger.reading() as connection:
        for night, kind, state, number in connection.execute(query):
            if night is not None:
                counts.setdefault(int(night), {})[f"{kind} {state}"] = int(number)
    return counts


def _unit(row: Row[Any], names: Sequence[str], is_reader: bool) -> UnitFact:
    found = {name: float(row[6 + k]) for k, name in enumerate(names) if row[6 + k] is not None}
    detector = row.detector if row.detector is not None else -1
    finished, cpu_s = (None, None) if is_reader else (row.finished, row.cpu_s)
    return UnitFact(row.exposure_id, detector, row.state, finished, cpu_s, found)


def _may_see(ledger: Ledger, program: int, night: int) -> bool:
    return not isinstance(ledger, VisibleLedger) or ledger.sight.may_see(Program(program), day_obs=night)
