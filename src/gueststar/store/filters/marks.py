"""What filters made of the alert log: which segments they looked at, what passed, and what became of it.

The tables lie in the file of the log's index, so that a look, what passed in it and the counts are one transaction: a
process that is killed looks again and finds the same. Segments are named by their content, so that an index made anew
changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    String,
    Table,
    and_,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from gueststar.store.alerts.log import ENTRIES, FOLDER, INDEX_NAME, METADATA
from gueststar.store.alerts.publication import Fate, Retraction, SentPacket
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.sql import connect, reading, sqlite_url, transaction

FATES = METADATA.tables["publication"]
"""What became of each packet on the main stream."""

RETRACTED = METADATA.tables["retraction"]
"""Packets that are taken back."""

TOPICS = METADATA.tables["stream_topic"]
"""The brokers' own numbers of topics."""

WAITING = "waiting"
CAPPED = "capped"
"""Passed, but beyond the most that the filter takes of one exposure."""

_MATCHES = Table(
    "filter_match",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True, doc="order of passing"),
    Column("topic", String, nullable=False),
    Column("candid", BigInteger, nullable=False),
    Column("version", Integer, nullable=False, doc="of the filter"),
    Column("day_obs", Integer, nullable=False),
    Column("program", Integer, nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("fate", String, nullable=False),
    Column("partition", Integer),
    Column("offset", BigInteger),
    Column("reason", String, nullable=False, server_default=""),
    Column("time", Float, nullable=False, server_default="0", doc="of the fate, Unix seconds"),
    Column("is_retracted", Integer, nullable=False, server_default="0", doc="and readers of the topic were told"),
    Index("filter_match_once", "topic", "candid", unique=True),
    Index("filter_match_by_candid", "candid"),
    Index("filter_match_by_fate", "topic", "fate"),
    Index("filter_match_by_exposure", "topic", "exposure"),
)

_COUNTS = Table(
    "filter_count",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("day_obs", Integer, primary_key=True),
    Column("n_seen", Integer, nullable=False),
    Column("n_passed", Integer, nullable=False),
    Column("n_capped", Integer, nullable=False),
    Column("n_unknown", Integer, nullable=False),
    Column("n_unreadable", Integer, nullable=False),
    Column("cpu_s", Float, nullable=False),
)

_LOOKED = Table("filter_looked", METADATA, Column("segment", String, primary_key=True))

_PLACE = Table(
    "filter_place",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("serial", Integer, nullable=False, doc="up to this one, all segments were looked at"),
    Column(
        "segment", String, nullable=False, doc="of that serial; another one there means that the index was made anew"
    ),
)
"""Where to go on, so that a look does not begin at the first alert of the survey."""


@dataclass(frozen=True)
class Match:
    """An alert that passed a filter."""

    topic: str
    version: int
    entry: AlertEntry
    exposure: int
    is_capped: bool


@dataclass(frozen=True)
class FilterCount:
    """What one version of a filter made of a night's alerts."""

    topic: str
    version: int
    day_obs: int
    n_seen: int = 0
    """Alerts that it was asked of."""
    n_passed: int = 0
    """For which it was true, the capped ones included."""
    n_capped: int = 0
    n_unknown: int = 0
    """For which it was neither true nor false."""
    n_unreadable: int = 0
    """Packets that could not be read."""
    cpu_s: float = 0.0


class FilterMarks:
    """The marks of the repository at ``root``."""

    def __init__(self, root: Path) -> None:
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        self._engine = connect(sqlite_url(root / FOLDER / INDEX_NAME))
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # Looking

    def unlooked(self, limit: int, *, must_be_sent: bool) -> list[AlertEntry]:
        """Return the entries of the next segments that no filter looked at, about ``limit``, in order of arrival.

        With ``must_be_sent``, of segments only whose packets have all left to the stream, or never will one by one: a
        filter tells nothing that the stream holds back.
        """
        settled = FATES.c.fate.in_([Fate.SENT, Fate.DEAD])
        query = (
            select(ENTRIES.c.segment, func.count())
            .outerjoin(_LOOKED, _LOOKED.c.segment == ENTRIES.c.segment)
            .where(_LOOKED.c.segment.is_(None))
            .group_by(ENTRIES.c.segment)
            .order_by(func.min(ENTRIES.c.serial))
        )
        if must_be_sent:
            query = query.outerjoin(FATES, and_(FATES.c.candid == ENTRIES.c.candid, settled))
            query = query.having(func.count() == func.count(FATES.c.candid))
        with transaction(self._reader) as connection:
            is_new = ENTRIES.c.serial > _place(connection)
            query = query.where(is_new)
            segments, n = list[str](), 0
            for segment, size in connection.execute(query.limit(limit)):
                segments, n = [*segments, segment], n + int(size)
                if n >= limit:
                    break
            wanted = select(ENTRIES).where(is_new, ENTRIES.c.segment.in_(segments)).order_by(ENTRIES.c.serial)
            return [AlertEntry(*row) for row in connection.execute(wanted)]

    def look_past(self) -> None:
        """Mark all segments that are there as looked at: filters begin with what comes."""
        with transaction(self._engine) as connection:
            names = select(ENTRIES.c.segment).distinct()
            connection.execute(insert(_LOOKED).from_select(["segment"], names.where(true())).on_conflict_do_nothing())
            _move_on(connection)

    def taken_of(self, topic: str, exposures: Collection[int]) -> dict[int, int]:
        """Return how many alerts of exposures passed a filter within its cap so far."""
        query = (
            select(_MATCHES.c.exposure, func.count())
            .where(_MATCHES.c.topic == topic, _MATCHES.c.exposure.in_(list(exposures)), _MATCHES.c.fate != CAPPED)
            .group_by(_MATCHES.c.exposure)
        )
        with transaction(self._reader) as connection:
            return {int(exposure): int(n) for exposure, n in connection.execute(query)}

    def settle(self, segments: Iterable[str], matches: Sequence[Match], counts: Iterable[FilterCount]) -> None:
        """Record a look at segments with all that came of it, in one transaction."""
        looked = [{"segment": segment} for segment in segments]
        rows = [
            {"topic": m.topic, "candid": m.entry.candid, "version": m.version, "day_obs": m.entry.day_obs,
             "program": m.entry.program, "exposure": m.exposure, "fate": CAPPED if m.is_capped else WAITING}
            for m in matches
        ]  # fmt: skip
        with transaction(self._engine) as connection:
            if looked:
                connection.execute(insert(_LOOKED).on_conflict_do_nothing(), looked)
            if rows:
                connection.execute(insert(_MATCHES).on_conflict_do_nothing(), rows)
            for count in counts:
                values = vars(count)
                keys = ("topic", "version", "day_obs")
                more = {name: _COUNTS.c[name] + value for name, value in values.items() if name not in keys}
                connection.execute(insert(_COUNTS).values(values).on_conflict_do_update(index_elements=keys, set_=more))
            _move_on(connection)

    # Sending

    def waiting(self, topic: str, limit: int) -> list[tuple[AlertEntry, int]]:
        """Return the first alerts that wait to be sent to a topic, in order, each with its filter's version."""
        query = (
            select(ENTRIES, _MATCHES.c.version)
            .join(_MATCHES, _MATCHES.c.candid == ENTRIES.c.candid)
            .where(_MATCHES.c.topic == topic, _MATCHES.c.fate == WAITING)
            .order_by(_MATCHES.c.sequence)
            .limit(limit)
        )
        with transaction(self._reader) as connection:
            return [(AlertEntry(*row[:-1]), int(row[-1])) for row in connection.execute(query)]

    def waiting_topics(self) -> list[str]:
        """Return the topics that alerts wait for."""
        query = select(_MATCHES.c.topic).where(_MATCHES.c.fate == WAITING).distinct().order_by(_MATCHES.c.topic)
        with transaction(self._reader) as connection:
            return [str(topic) for topic in connection.execute(query).scalars()]

    def sent_to(self, topic: str) -> set[int]:
        """Return the alerts that were sent to a topic."""
        query = select(_MATCHES.c.candid).where(_MATCHES.c.topic == topic, _MATCHES.c.fate == Fate.SENT)
        with transaction(self._reader) as connection:
            return {int(candid) for candid in connection.execute(query).scalars()}

    def recognise(self, topic: str, topic_id: str) -> int:
        """Take note of which topic bears a name now; return how many sent alerts were on another of that name.

        Those were deleted with it: their offsets count no more, and they are not sent again.
        """
        with transaction(self._engine) as connection:
            known = connection.execute(select(TOPICS.c.topic_id).where(TOPICS.c.topic == topic)).scalar()
            if known == topic_id:
                return 0
            row = insert(TOPICS).values(topic=topic, topic_id=topic_id)
            connection.execute(row.on_conflict_do_update(index_elements=["topic"], set_={"topic_id": topic_id}))
            mine = and_(_MATCHES.c.topic == topic, _MATCHES.c.fate == Fate.SENT)
            gone = update(_MATCHES).where(mine).values(fate=Fate.GONE, reason="the topic was deleted", offset=None)
            return connection.execute(gone).rowcount if known is not None else 0

    def last_offsets(self, topic: str) -> dict[int, int]:
        """Return the last known offset of each partition of a topic."""
        query = (
            select(_MATCHES.c.partition, func.max(_MATCHES.c.offset))
            .where(_MATCHES.c.topic == topic, _MATCHES.c.fate == Fate.SENT)
            .group_by(_MATCHES.c.partition)
        )
        with transaction(self._reader) as connection:
            return {int(partition): int(offset) for partition, offset in connection.execute(query)}

    def mark_sent(self, sent: Iterable[SentPacket], *, time: float) -> int:
        """Record that alerts are on their topics; return how many that was news of."""
        n = 0
        with transaction(self._engine) as connection:
            for one in sent:
                key = (_MATCHES.c.topic == one.topic) & (_MATCHES.c.candid == one.candid)
                news = {"fate": Fate.SENT, "partition": one.partition, "offset": one.offset, "time": time}
                change = update(_MATCHES).where(key, _MATCHES.c.fate != Fate.SENT).values(news)
                n += connection.execute(change).rowcount
        return n

    def set_aside(self, topic: str, candids: Iterable[int], reason: str, *, time: float) -> int:
        """Record that the brokers will never take alerts; return how many that was news of."""
        key = and_(_MATCHES.c.topic == topic, _MATCHES.c.candid.in_(list(candids)), _MATCHES.c.fate == WAITING)
        with transaction(self._engine) as connection:
            change = update(_MATCHES).where(key).values(fate=Fate.DEAD, reason=reason, time=time)
            return connection.execute(change).rowcount

    def waiting_retractions(self) -> list[tuple[str, Retraction]]:
        """Return the retractions of sent alerts that a topic's readers were not told of yet, oldest first."""
        query = (
            select(_MATCHES.c.topic, ENTRIES, RETRACTED.c.reason, RETRACTED.c.time)
            .join(RETRACTED, RETRACTED.c.candid == ENTRIES.c.candid)
            .join(_MATCHES, and_(_MATCHES.c.candid == ENTRIES.c.candid, _MATCHES.c.fate == Fate.SENT))
            .where(_MATCHES.c.is_retracted == 0)
            .order_by(RETRACTED.c.time, ENTRIES.c.serial, _MATCHES.c.topic)
        )
        with transaction(self._reader) as connection:
            rows = connection.execute(query).all()
        return [(str(row[0]), Retraction(AlertEntry(*row[1:-2]), row[-2], row[-1])) for row in rows]

    def mark_retracted(self, topic: str, candid: int) -> None:
        """Record that a topic's readers were told."""
        key = and_(_MATCHES.c.topic == topic, _MATCHES.c.candid == candid)
        with transaction(self._engine) as connection:
            connection.execute(update(_MATCHES).where(key).values(is_retracted=1))

    # Telling

    def counts(self, *, topic: str | None = None, day_obs: int | None = None) -> list[FilterCount]:
        """Return counts by topic, version and night."""
        query = select(_COUNTS).order_by(_COUNTS.c.topic, _COUNTS.c.day_obs, _COUNTS.c.version)
        if topic is not None:
            query = query.where(_COUNTS.c.topic == topic)
        if day_obs is not None:
            query = query.where(_COUNTS.c.day_obs == day_obs)
        with transaction(self._reader) as connection:
            return [FilterCount(*row) for row in connection.execute(query)]

    def fates(self, *, day_obs: int | None = None) -> Mapping[str, dict[str, int]]:
        """Return how many alerts that passed have which fate, by topic, of one night if given."""
        query = select(_MATCHES.c.topic, _MATCHES.c.fate, func.count()).group_by(_MATCHES.c.topic, _MATCHES.c.fate)
        if day_obs is not None:
            query = query.where(_MATCHES.c.day_obs == day_obs)
        found: dict[str, dict[str, int]] = {}
        with transaction(self._reader) as connection:
            for topic, fate, n in connection.execute(query):
                found.setdefault(str(topic), {})[str(fate)] = int(n)
        return found


def _place(connection: Connection) -> int:
    """Return the serial up to which all segments were looked at; 0 where the index was made anew."""
    there = and_(ENTRIES.c.serial == _PLACE.c.serial, ENTRIES.c.segment == _PLACE.c.segment)
    return int(connection.execute(select(_PLACE.c.serial).join(ENTRIES, there)).scalar() or 0)


def _move_on(connection: Connection) -> None:
    """Note how far all segments were looked at."""
    place = _place(connection)
    behind = select(func.min(ENTRIES.c.serial)).outerjoin(_LOOKED, _LOOKED.c.segment == ENTRIES.c.segment)
    first = connection.execute(behind.where(_LOOKED.c.segment.is_(None), ENTRIES.c.serial > place)).scalar()
    last = select(ENTRIES.c.serial, ENTRIES.c.segment).order_by(ENTRIES.c.serial.desc()).limit(1)
    row = connection.execute(last if first is None else last.where(ENTRIES.c.serial < first)).first()
    if row is not None and row.serial > place:
        news = {"serial": row.serial, "segment": row.segment}
        change = insert(_PLACE).values(id=1, **news)
        connection.execute(change.on_conflict_do_update(index_elements=["id"], set_=news))
