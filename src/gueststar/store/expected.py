"""Exposures that the survey expects: the lists that schedulers and observing logs handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, and_, select

from gueststar.model.expected import ExpectedExposure, ListSource
from gueststar.model.rights import Program
from gueststar.store.ledger import Ledger
from gueststar.store.tables import EXPECTED_EXPOSURES as EXPECTED

_AT_ONCE = 500


class Expectations:
    """The expected exposures in a survey's ledger. They are the operator's: AccessDenied for a reader's."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger.of_operator()

    def take(self, rows: Sequence[ExpectedExposure], *, file: str, source: ListSource, replaces: bool = False) -> int:
        """Write down what a list says; return how many exposures nobody had told of before.

        A list of the same name and source takes the place of what it said before, for the nights that it names now.
        ``replaces``: of what any list of that source said of these nights.
        """
        nights = sorted({row.day_obs for row in rows})
        with self.ledger.writing() as connection:
            old = and_(EXPECTED.c.day_obs.in_(nights), EXPECTED.c.source == source)
            known = set(connection.execute(select(EXPECTED.c.id).where(old)).scalars())
            connection.execute(EXPECTED.delete().where(old if replaces else and_(old, EXPECTED.c.file == file)))
            left = set(connection.execute(select(EXPECTED.c.id).where(old)).scalars())
            fresh = {row.id: row for row in rows if row.id not in left}
            values = [_values(number, row) for number, row in fresh.items()]
            for start in range(0, len(values), _AT_ONCE):
                connection.execute(EXPECTED.insert(), values[start : start + _AT_ONCE])
        return len(fresh.keys() - known)

    def of_night(self, night: int, *, source: ListSource | None = None) -> list[ExpectedExposure]:
        """Return what is expected of a night, by time; entries without a time come last."""
        query = select(EXPECTED).where(EXPECTED.c.day_obs == night)
        if source is not None:
            query = query.where(EXPECTED.c.source == source)
        return self._rows(query)

    def of_exposure(self, number: int) -> list[ExpectedExposure]:
        """Return the entries of all nights that bear an exposure's number."""
        return self._rows(select(EXPECTED).where(EXPECTED.c.exposure_id == number))

    def nights(self) -> list[int]:
        """Return the nights of which anything is expected, in order."""
        with self.ledger.reading() as connection:
            found = connection.execute(select(EXPECTED.c.day_obs).distinct().order_by(EXPECTED.c.day_obs))
            return [int(night) for night in found.scalars()]

    def forget(self, night: int, *, source: ListSource | None = None) -> int:
        """Take back what lists said of a night; return how many entries that were."""
        mine = EXPECTED.c.day_obs == night
        if source is not None:
            mine = and_(mine, EXPECTED.c.source == source)
        with self.ledger.writing() as connection:
            return connection.execute(EXPECTED.delete().where(mine)).rowcount

    def _rows(self, query: Any) -> list[ExpectedExposure]:
        with self.ledger.reading() as connection:
            found = [_expected_of(row) for row in connection.execute(query.order_by(EXPECTED.c.id))]
        return sorted(found, key=lambda row: (row.mjd_start is None, row.mjd_start or 0.0))


def _values(number: int, row: ExpectedExposure) -> dict[str, Any]:
    values = asdict(row)
    del values["repeat"]
    return {**values, "id": number, "program": None if row.program is None else int(row.program)}


def _expected_of(row: Row[Any]) -> ExpectedExposure:
    values = dict(row._mapping)
    del values["id"]
    program = values.pop("program")
    return ExpectedExposure(**values, program=None if program is None else Program(program))
