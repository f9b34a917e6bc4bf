"""Measured values of named metrics: the survey's history of itself, by night and by version of the software."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Row, func, select

from gueststar.core.errors import AccessDenied
from gueststar.store.ledger import Ledger
from gueststar.store.sql import plain_json
from gueststar.store.tables import METRIC_VALUES
from gueststar.store.visible import VisibleLedger


@dataclass(frozen=True)
class MetricValue:
    """One measurement of one metric."""

    name: str
    """AM1, PA1, depth..."""
    day_obs: int | None
    """The night it tells of, YYYYMMDD; None: the survey."""
    scope: str
    """What it was measured on: band=r."""
    value: float | None
    """In the metric's unit; None: it could not be measured, and ``data["why"]`` says why."""
    n: int
    """What it rests on: stars, pairs, images."""
    version: str
    """Of the software."""
    measured: float
    """Unix time."""
    data: dict[str, Any] = field(default_factory=dict)
    """``error`` (one sigma), ``why``, and what else belongs to it."""

    @property
    def error(self) -> float | None:
        """Return one sigma of the value, if known."""
        error = self.data.get("error")
        return None if error is None else float(error)


class MetricValues:
    """The values that a survey's ledger holds."""

    def __init__(self, ledger: Ledger) -> None:
        if isinstance(ledger, VisibleLedger):  # they are made of exposures of all programs
            raise AccessDenied(
                f"metrics of the survey are the operator's: {ledger.sight.reader.name} does not see them"
            )
        self._ledger = ledger

    def add(self, values: Iterable[MetricValue]) -> int:
        """Write down values; return how many."""
        rows = [{**asdict(item), "data": plain_json(item.data)} for item in values]
        if rows:
            with self._ledger.writing() as connection:
                connection.execute(METRIC_VALUES.insert(), rows)
        return len(rows)

    def history(
        self,
        name: str | None = None,
        *,
        version: str | None = None,
        day_obs: int | None = None,
        scope: str | None = None,
    ) -> list[MetricValue]:
        """Return measurements in the order in which they were made."""
        wanted = {"name": name, "version": version, "day_obs": day_obs, "scope": scope}
        conditions = [METRIC_VALUES.c[key] == value for key, value in wanted.items() if value is not None]
        with self._ledger.reading() as connection:
            rows = connection.execute(select(METRIC_VALUES).where(*conditions).order_by(METRIC_VALUES.c.id))
            return [_value_of(row) for row in rows]

    def latest(self, *, version: str | None = None, nightly: bool | None = None) -> list[MetricValue]:
        """Return the last measurement of every metric, night, scope and version.

        ``nightly``: only those of nights (True), or of the survey as a whole (False).
        """
        key = (METRIC_VALUES.c.name, METRIC_VALUES.c.day_obs, METRIC_VALUES.c.scope, METRIC_VALUES.c.version)
        last = select(func.max(METRIC_VALUES.c.id)).group_by(*key)
        if version is not None:
            last = last.where(METRIC_VALUES.c.version == version)
        if nightly is not None:
            last = last.where(METRIC_VALUES.c.day_obs.is_not(None) if nightly else METRIC_VALUES.c.day_obs.is_(None))
        query = select(METRIC_VALUES).where(METRIC_VALUES.c.id.in_(last)).order_by(METRIC_VALUES.c.id)
        with self._ledger.reading() as connection:
            return [_value_of(row) for row in connection.execute(query)]

    def versions(self) -> list[str]:
        """Return the versions of which there are values, in the order of their first one."""
        query = select(METRIC_VALUES.c.version).group_by(METRIC_VALUES.c.version).order_by(func.min(METRIC_VALUES.c.id))
        with self._ledger.reading() as connection:
            return list(connection.scalars(query))


def _value_of(row: Row[Any]) -> MetricValue:
    values = dict(row._mapping)
    values.pop("id")
    return MetricValue(**{**values, "data": values["data"] or {}})
