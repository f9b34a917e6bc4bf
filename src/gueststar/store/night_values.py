"""Measured values of whole nights, read without the rest of what jobs hold: for trends over many nights."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, func, select

from gueststar.store.ledger import JobState, Ledger
from gueststar.store.tables import EXPOSURES, JOBS


def science_nights(ledger: Ledger, *, until: int, most: int) -> list[int]:
    """Return the last nights with science exposures, up to one, in order."""
    mine = and_(EXPOSURES.c.day_obs <= until, EXPOSURES.c.observation_type == "science")
    query = select(EXPOSURES.c.day_obs).where(mine).distinct().order_by(EXPOSURES.c.day_obs.desc()).limit(most)
    with ledger.of_operator().reading() as connection:
        return sorted(int(night) for night in connection.execute(query).scalars())


def night_stamp(ledger: Ledger, night: int) -> str:
    """Return a word that changes whenever a job of the night ends: what was made of the old one is out of date."""
    query = select(func.count(), func.max(JOBS.c.finished)).where(
        JOBS.c.day_obs == night, JOBS.c.state == JobState.DONE
    )
    with ledger.of_operator().reading() as connection:
        n, last = connection.execute(query).one()
    return f"{n} {last}"


def night_values(
    ledger: Ledger, night: int, kind: str, names: Sequence[str]
) -> list[tuple[str | None, tuple[float | None, ...]]]:
    """Return (filter, values of metrics) of a night's done jobs on science images, a user's own products left out."""
    is_own = JOBS.c.inputs["entered"].as_string().is_(None)
    columns = [JOBS.c.metrics[name].as_float() for name in names]
    query = (
        select(EXPOSURES.c.physical_filter, *columns)
        .join(EXPOSURES, EXPOSURES.c.id == JOBS.c.exposure_id)
        .where(JOBS.c.day_obs == night, JOBS.c.kind == kind, JOBS.c.state == JobState.DONE, is_own)
    )
    with ledger.of_operator().reading() as connection:
        return [(row[0], tuple(row[1:])) for row in connection.execute(query)]
