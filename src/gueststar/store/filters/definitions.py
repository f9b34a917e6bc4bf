"""The filters of a survey's users, each version of them, and whether they run.

A version never changes: a filter that is added again under its name gets the next version and goes on where the one
before stopped. What a removed filter was stays to be read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy
from sqlalchemy import Boolean, Column, Double, Integer, String, Table, UniqueConstraint, func, insert, select, update

from gueststar.core.errors import ConfigError
from gueststar.model.rights import Program
from gueststar.store.sql import connect, database_url, reading, transaction

FILE_NAME = "filters.sqlite3"
"""Name of the SQLite file in a repository; only the operator may read it."""

_OWNER = re.compile(r"[a-z][a-z0-9._]{0,62}[a-z0-9]")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,60}[a-z0-9]")
"""No underscore: so a topic's name tells owner and filter apart."""

_TOPIC = "filter_"
RETRACTIONS = "_retractions"
"""What the name of a topic's retractions ends with."""

METADATA = sqlalchemy.MetaData()

FILTERS = Table(
    "alert_filter",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("condition", String, nullable=False),
    Column("programs", String, nullable=False, doc="numbers, separated by commas"),
    Column("cap", Integer, nullable=False, doc="most alerts of one exposure"),
    Column("order_by", String, nullable=False, doc="field by which the best are chosen"),
    Column("is_ascending", Boolean, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False, server_default=""),
    Column("first_serial", Integer, nullable=False, doc="of the log: what arrived before is not for it"),
    Column("time", Double, nullable=False, doc="when it was added, Unix seconds"),
    UniqueConstraint("owner", "name", "version"),
)


class FilterState(StrEnum):
    """Whether a filter runs."""

    ACTIVE = "active"
    PAUSED = "paused"
    """By a person, or because it took too long or failed; the reason tells."""
    REPLACED = "replaced"
    """There is a later version."""
    REMOVED = "removed"


@dataclass(frozen=True)
class FilterRequest:
    """What a user asks for."""

    owner: str
    """Name of a user; on Kafka, the one who may read the filter's topic."""
    name: str
    condition: str
    """See docs/supplement/filters.md."""
    programs: tuple[Program, ...] = (Program.PUBLIC,)
    """Programs whose alerts it is asked of, as far as its owner may see them."""
    cap: int = 500
    """Most alerts of one exposure; the best ones are kept, the others counted."""
    order_by: str = "rb"
    """Field by which the best are chosen; where it is not known, last."""
    is_ascending: bool = False
    """The smallest are the best."""

    def __post_init__(self) -> None:
        if not _OWNER.fullmatch(self.owner):
            raise ConfigError(f"{self.owner!r} cannot be an owner: a-z, 0-9, '.' and '_', a letter first")
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} cannot be a filter's name: a-z, 0-9 and '-', a letter first")
        if self.cap < 1:
            raise ConfigError(f"a filter takes at least 1 alert of an exposure, not {self.cap}")
        if not self.programs or Program.ENGINEERING in self.programs:
            raise ConfigError("a filter is asked of public, partnership or private alerts")

    @property
    def topic(self) -> str:
        """The topic that its alerts go to."""
        return f"{_TOPIC}{self.owner}_{self.name}"


@dataclass(frozen=True)
class StoredFilter:
    """One version of a filter."""

    request: FilterRequest
    version: int
    state: FilterState
    reason: str
    """Why it is paused."""
    first_serial: int
    """Place in the order of arrival from which on alerts are for it."""
    time: float
    """When it was added, Unix seconds."""

    @property
    def label(self) -> str:
        """Return owner, name and version."""
        return f"{self.request.owner}/{self.request.name} version {self.version}"


class FilterStore:
    """The filters in the database at ``url``."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    @classmethod
    def of(cls, root: Path, database: str | None) -> FilterStore:
        """Return the filters of a survey: in its database server, or a file that others cannot read."""
        return cls(database_url(database, root / FILE_NAME))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def add(self, request: FilterRequest, *, first_serial: int = 1) -> StoredFilter:
        """Store a filter, active, as the next version of its name; the version before runs no more.

        It is for alerts from ``first_serial`` of the log on, or from where the version before began if that runs.
        """
        same = (FILTERS.c.owner == request.owner) & (FILTERS.c.name == request.name)
        with transaction(self._engine) as connection:
            last = connection.execute(select(func.max(FILTERS.c.version)).where(same)).scalar() or 0
            before = select(FILTERS.c.first_serial).where(same, FILTERS.c.state == FilterState.ACTIVE)
            first_serial = connection.execute(before).scalar() or first_serial
            running = FILTERS.c.state.in_([FilterState.ACTIVE, FilterState.PAUSED])
            connection.execute(update(FILTERS).where(same, running).values(state=FilterState.REPLACED))
            row = {
                "owner": request.owner, "name": request.name, "version": last + 1, "condition": request.condition,
                "programs": ",".join(str(int(program)) for program in request.programs), "cap": request.cap,
                "order_by": request.order_by, "is_ascending": request.is_ascending, "state": FilterState.ACTIVE,
                "reason": "", "first_serial": first_serial, "time": time.time(),
            }  # fmt: skip
            connection.execute(insert(FILTERS).values(row))
        return self.versions(request.owner, request.name)[-1]

    def filters(
        self, *, states: Iterable[FilterState] = (FilterState.ACTIVE, FilterState.PAUSED), owner: str | None = None
    ) -> list[StoredFilter]:
        """Return filters in some states, of one owner if given, by owner and name."""
        query = select(FILTERS).where(FILTERS.c.state.in_(list(states)))
        if owner is not None:
            query = query.where(FILTERS.c.owner == owner)
        with transaction(self._reader) as connection:
            rows = connection.execute(query.order_by(FILTERS.c.owner, FILTERS.c.name, FILTERS.c.version)).all()
        return [_filter_of(row) for row in rows]

    def versions(self, owner: str, name: str) -> list[StoredFilter]:
        """Return all versions of a filter, oldest first; ConfigError if there is none of this name."""
        found = [stored for stored in self.filters(states=FilterState, owner=owner) if stored.request.name == name]
        if not found:
            raise ConfigError(f"{owner} has no filter {name}: gueststar filter list shows those that are")
        return found

    def set_state(
        self, owner: str, name: str, state: FilterState, *, reason: str = "", version: int | None = None,
        first_serial: int | None = None,
    ) -> StoredFilter:  # fmt: skip
        """Pause, resume or remove the last version of a filter; ConfigError if there is none that could be.

        If ``version`` is told and there is a later one, nothing is done. ``first_serial``: from where on alerts are for
        it now.
        """
        last = self.versions(owner, name)[-1]
        if version is not None and version != last.version:
            return last
        if last.state is FilterState.REMOVED:
            raise ConfigError(f"filter {last.label} was removed; add it again")
        key = (FILTERS.c.owner == owner) & (FILTERS.c.name == name) & (FILTERS.c.version == last.version)
        with transaction(self._engine) as connection:
            news = {"state": state, "reason": reason, "first_serial": first_serial or last.first_serial}
            connection.execute(update(FILTERS).where(key).values(news))
        return self.versions(owner, name)[-1]


def _filter_of(row: sqlalchemy.Row) -> StoredFilter:
    programs = tuple(Program(int(number)) for number in row.programs.split(","))
    request = FilterRequest(
        row.owner, row.name, row.condition, programs, row.cap, row.order_by, bool(row.is_ascending)
    )  # fmt: skip
    return StoredFilter(request, row.version, FilterState(row.state), row.reason, row.first_serial, row.time)


def has_filters(root: Path, database: str | None) -> bool:
    """Return whether a survey ever had a filter, without making anything."""
    if database is None and not (root / FILE_NAME).exists():
        return False
    store = FilterStore.of(root, database)
    try:
        return bool(store.filters(states=FilterState))
    finally:
        store.close()


def owner_of_topic(topic: str) -> str:
    """Return whose topic it is; that of a filter's retractions is the filter's."""
    return topic.removeprefix(_TOPIC).removesuffix(RETRACTIONS).rpartition("_")[0]
