"""What became of each packet of the alert log on its way to the stream.

The log says what is to be sent, this says what was. A packet without a row waits. The table lies beside the log's
index, in the same file, but is not made from it: where it is lost, the publisher reads from the topics what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    Select,
    String,
    Table,
    and_,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from gueststar.model.flavour import Flavour
from gueststar.store.alerts.log import ENTRIES, FOLDER, INDEX_NAME, METADATA
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.sql import connect, reading, sqlite_url, transaction


class Fate(StrEnum):
    """What became of a packet."""

    SENT = "sent"
    HELD = "held"
    """Set aside with its whole image until a person decides."""
    DROPPED = "dropped"
    """Held, and a person decided that it never leaves."""
    RELEASED = "released"
    """Was held, or gone; a person let it go: it waits, behind what was sent meanwhile."""
    DEAD = "dead"
    """The brokers will never take it."""
    GONE = "gone"
    """Was sent, but its topic has been deleted since."""


BY_HAND = "released by hand"
"""Reason of packets that were sent after a person let them go: they stand behind later ones."""


def _fates_of(flavour: Flavour) -> Table:
    name = "publication" if flavour is Flavour.FULL else f"publication_{flavour}"
    return Table(
        name,
        METADATA,
        Column("candid", BigInteger, primary_key=True, autoincrement=False),
        Column("fate", String, nullable=False),
        Column("topic", String, nullable=False, server_default=""),
        Column("partition", Integer),
        Column("offset", BigInteger, doc="of the message in its partition"),
        Column("reason", String, nullable=False, server_default=""),
        Column("time", Float, nullable=False, doc="Unix seconds"),
        Index(f"{name}_by_topic", "topic", "partition", "offset"),
        Index(f"{name}_by_fate", "fate"),
    )


_TABLES = {flavour: _fates_of(flavour) for flavour in Flavour}
_FATES = _TABLES[Flavour.FULL]

_RETRACTIONS = Table(
    "retraction",
    METADATA,
    Column("candid", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", String, nullable=False),
    Column("time", Float, nullable=False, doc="Unix seconds"),
    Column("is_sent", Integer, nullable=False, server_default="0"),
)


_TOPICS = Table(
    "stream_topic",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("topic_id", String, nullable=False, doc="the brokers' own number: a topic made anew has another"),
)


@dataclass(frozen=True)
class SentPacket:
    """Where a packet is on the stream."""

    candid: int
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Retraction:
    """A packet that is taken back, and why."""

    entry: AlertEntry
    reason: str
    time: float
    """Unix seconds."""

    def message(self) -> bytes:
        """Return what readers are told, as JSON."""
        told = {
            "candid": self.entry.candid, "objectId": self.entry.object_name, "programid": self.entry.program,
            "reason": self.reason, "time_unix": self.time,
        }  # fmt: skip
        return json.dumps(told, sort_keys=True).encode()


class Publication:
    """The publication state of the repository at ``root``: what became of each packet in one of its flavours."""

    def __init__(self, root: Path, flavour: Flavour = Flavour.FULL) -> None:
        self._flavour, self._fates = flavour, _TABLES[flavour]
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        self._engine = connect(sqlite_url(root / FOLDER / INDEX_NAME))
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def waiting(self, limit: int) -> list[AlertEntry]:
        """Return the first packets of the log that are to be sent, in order of arrival.

        Other flavours than the full one follow it: what is held, dropped or dead there does not leave in them.
        """
        query = (
            select(ENTRIES)
            .outerjoin(self._fates, self._fates.c.candid == ENTRIES.c.candid)
            .where(or_(self._fates.c.candid.is_(None), self._fates.c.fate == Fate.RELEASED))
            .order_by(ENTRIES.c.serial)
            .limit(limit)
        )
        with transaction(self._reader) as connection:
            return [AlertEntry(*row) for row in connection.execute(self._behind_the_full_stream(query))]

    def _behind_the_full_stream(self, query: Select[Any]) -> Select[Any]:
        """Return a query of the log reduced, for other flavours, to what was sent in full."""
        if self._flavour is Flavour.FULL:
            return query
        return query.join(_FATES, _FATES.c.candid == ENTRIES.c.candid).where(_FATES.c.fate == Fate.SENT)

    def released(self, candids: Iterable[int]) -> set[int]:
        """Return those of some packets that a person let go."""
        mine = and_(self._fates.c.fate == Fate.RELEASED, self._fates.c.candid.in_(list(candids)))
        with transaction(self._reader) as connection:
            return {int(candid) for candid in connection.execute(select(self._fates.c.candid).where(mine)).scalars()}

    def is_kept_back(self, candid: int) -> bool:
        """Return whether a packet must not leave by any way: its image is held, or a person dropped it."""
        mine = and_(self._fates.c.candid == candid, self._fates.c.fate.in_([Fate.HELD, Fate.DROPPED]))
        with transaction(self._reader) as connection:
            return connection.execute(select(self._fates.c.candid).where(mine)).first() is not None

    def segment_size(self, segment: str) -> int:
        """Return how many packets one commit of a detector image put into the log."""
        query = select(func.count()).where(ENTRIES.c.segment == segment)
        with transaction(self._reader) as connection:
            return int(connection.execute(query).scalar_one())

    def mark_sent(self, sent: Iterable[SentPacket], *, time: float) -> int:
        """Record that packets are on the stream; return how many that was news of."""
        rows = [
            {"candid": s.candid, "fate": Fate.SENT, "topic": s.topic, "partition": s.partition, "offset": s.offset,
             "reason": "", "time": time}
            for s in sent
        ]  # fmt: skip
        return self._put(rows)

    def set_aside(self, candids: Iterable[int], fate: Fate, reason: str, *, time: float) -> int:
        """Record that packets will not be sent, or not now, and why; return how many that was news of."""
        return self._put([{"candid": c, "fate": fate, "topic": "", "reason": reason, "time": time} for c in candids])

    def _put(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Write fates of packets that wait; what has a fate keeps it. Return how many are new."""
        if not rows:
            return 0
        new = insert(self._fates)
        changed = {name: new.excluded[name] for name in ("fate", "topic", "partition", "offset", "time")}
        reason = case((new.excluded.fate == Fate.SENT, self._fates.c.reason), else_=new.excluded.reason)
        put = new.on_conflict_do_update(
            index_elements=[self._fates.c.candid],
            set_=changed | {"reason": reason},
            where=self._fates.c.fate == Fate.RELEASED,
        )
        with transaction(self._engine) as connection:
            return connection.execute(put, rows).rowcount

    def release(self, day_obs: int, *, is_dropped: bool = False, fate: Fate = Fate.HELD) -> int:
        """Let the held packets of a night (or the gone ones) go, or drop them for good; return how many they were."""
        of_night = select(ENTRIES.c.candid).where(ENTRIES.c.day_obs == day_obs)
        mine = and_(self._fates.c.fate == fate, self._fates.c.candid.in_(of_night))
        values = {"fate": Fate.DROPPED} if is_dropped else {"fate": Fate.RELEASED, "reason": BY_HAND, "topic": ""}
        with transaction(self._engine) as connection:
            return connection.execute(update(self._fates).where(mine).values(values)).rowcount

    def recognise(self, topic: str, topic_id: str) -> int:
        """Take note of which topic bears a name now; return how many sent packets were on another of that name.

        Those were deleted with it: they are `Fate.GONE` from now on, and their offsets count no more.
        """
        with transaction(self._engine) as connection:
            known = connection.execute(select(_TOPICS.c.topic_id).where(_TOPICS.c.topic == topic)).scalar()
            if known == topic_id:
                return 0
            row = insert(_TOPICS).values(topic=topic, topic_id=topic_id)
            connection.execute(row.on_conflict_do_update(index_elements=["topic"], set_={"topic_id": topic_id}))
            if known is None:
                return 0
            sent = and_(self._fates.c.topic == topic, self._fates.c.fate == Fate.SENT)
            why = {"fate": Fate.GONE, "reason": f"topic {topic} was deleted after they were sent", "topic": ""}
            return connection.execute(update(self._fates).where(sent).values(why)).rowcount

    def last_offsets(self, topic: str) -> dict[int, int]:
        """Return the last known offset of each partition of a topic."""
        query = (
            select(self._fates.c.partition, func.max(self._fates.c.offset))
            .where(self._fates.c.topic == topic, self._fates.c.fate == Fate.SENT)
            .group_by(self._fates.c.partition)
        )
        with transaction(self._reader) as connection:
            return {int(partition): int(offset) for partition, offset in connection.execute(query)}

    def counts(self, day_obs: int) -> dict[tuple[int, str], int]:
        """Return the number of a night's packets by (program, fate); ``waiting`` is the fate of those to be sent."""
        fate = case(
            (func.coalesce(self._fates.c.fate, Fate.RELEASED) == Fate.RELEASED, "waiting"), else_=self._fates.c.fate
        )
        query = (
            select(ENTRIES.c.program, fate, func.count())
            .outerjoin(self._fates, self._fates.c.candid == ENTRIES.c.candid)
            .where(ENTRIES.c.day_obs == day_obs)
            .group_by(ENTRIES.c.program, fate)
        )
        query = self._behind_the_full_stream(query)
        with transaction(self._reader) as connection:
            return {(int(program), str(what)): int(n) for program, what, n in connection.execute(query)}

    def reasons(self, day_obs: int) -> dict[tuple[str, str], int]:
        """Return the number of a night's packets that were not sent by (fate, reason)."""
        query = (
            select(self._fates.c.fate, self._fates.c.reason, func.count())
            .join(ENTRIES, self._fates.c.candid == ENTRIES.c.candid)
            .where(ENTRIES.c.day_obs == day_obs, self._fates.c.fate.notin_([Fate.SENT, Fate.RELEASED]))
            .group_by(self._fates.c.fate, self._fates.c.reason)
        )
        with transaction(self._reader) as connection:
            return {(str(fate), str(reason)): int(n) for fate, reason, n in connection.execute(query)}

    def sent_times(self, day_obs: int) -> dict[int, tuple[int, float]]:
        """Return, by detector image (``pid``) of a night, how many of its packets are sent and when the last was."""
        pid = ENTRIES.c.candid // 1_000_000
        query = (
            select(pid, func.count(), func.max(self._fates.c.time))
            .join(self._fates, self._fates.c.candid == ENTRIES.c.candid)
            .where(ENTRIES.c.day_obs == day_obs, self._fates.c.fate == Fate.SENT)
            .group_by(pid)
        )
        with transaction(self._reader) as connection:
            return {int(number): (int(n), float(last)) for number, n, last in connection.execute(query)}

    def sent_to(self, topic: str) -> set[int]:
        """Return the packets that were sent to a topic."""
        with transaction(self._reader) as connection:
            query = select(self._fates.c.candid).where(self._fates.c.topic == topic, self._fates.c.fate == Fate.SENT)
            return {int(candid) for candid in connection.execute(query).scalars()}

    def unknown_to_the_log(self) -> list[tuple[int, str]]:
        """Return candids, with their fates, that the log has not."""
        query = (
            select(self._fates.c.candid, self._fates.c.fate)
            .outerjoin(ENTRIES, ENTRIES.c.candid == self._fates.c.candid)
            .where(ENTRIES.c.candid.is_(None))
            .order_by(self._fates.c.candid)
        )
        with transaction(self._reader) as connection:
            return [(int(candid), str(fate)) for candid, fate in connection.execute(query)]

    def places_on(self, topic: str) -> list[SentPacket]:
        """Return where on a topic each packet lies that was sent to it."""
        columns = (self._fates.c.candid, self._fates.c.topic, self._fates.c.partition, self._fates.c.offset)
        with transaction(self._reader) as connection:
            mine = select(*columns).where(self._fates.c.topic == topic, self._fates.c.fate == Fate.SENT)
            return [SentPacket(*row) for row in connection.execute(mine)]

    def sent_by_hand(self, topic: str) -> set[int]:
        """Return the packets on a topic that a person let go: they stand behind later ones."""
        mine = and_(self._fates.c.topic == topic, self._fates.c.fate == Fate.SENT)
        query = select(_FATES.c.candid).where(
            _FATES.c.reason == BY_HAND, _FATES.c.candid.in_(select(self._fates.c.candid).where(mine))
        )
        with transaction(self._reader) as connection:
            return {int(candid) for candid in connection.execute(query).scalars()}

    # Retractions

    def retract(self, candid: int, reason: str, *, time: float) -> bool:
        """Ask for a packet to be taken back; False if that was asked before."""
        row = {"candid": candid, "reason": reason, "time": time, "is_sent": 0}
        with transaction(self._engine) as connection:
            return connection.execute(insert(_RETRACTIONS).values(row).on_conflict_do_nothing()).rowcount == 1

    def waiting_retractions(self) -> list[Retraction]:
        """Return the retractions of sent packets that readers were not told of yet, oldest first."""
        query = (
            select(ENTRIES, _RETRACTIONS.c.reason, _RETRACTIONS.c.time)
            .join(_RETRACTIONS, _RETRACTIONS.c.candid == ENTRIES.c.candid)
            .join(_FATES, and_(_FATES.c.candid == ENTRIES.c.candid, _FATES.c.fate == Fate.SENT))
            .where(_RETRACTIONS.c.is_sent == 0)
            .order_by(_RETRACTIONS.c.time, ENTRIES.c.serial)
        )
        with transaction(self._reader) as connection:
            return [Retraction(AlertEntry(*row[:-2]), row[-2], row[-1]) for row in connection.execute(query)]

    def retractions(self, day_obs: int) -> dict[tuple[str, bool], int]:
        """Return the number of a night's retractions by (reason, whether readers were told)."""
        query = (
            select(_RETRACTIONS.c.reason, _RETRACTIONS.c.is_sent, func.count())
            .join(ENTRIES, _RETRACTIONS.c.candid == ENTRIES.c.candid)
            .where(ENTRIES.c.day_obs == day_obs)
            .group_by(_RETRACTIONS.c.reason, _RETRACTIONS.c.is_sent)
        )
        with transaction(self._reader) as connection:
            return {(str(reason), bool(told)): int(n) for reason, told, n in connection.execute(query)}

    def mark_retracted(self, candids: Iterable[int]) -> None:
        """Record that readers were told."""
        with transaction(self._engine) as connection:
            wanted = _RETRACTIONS.c.candid.in_(list(candids))
            connection.execute(update(_RETRACTIONS).where(wanted).values(is_sent=1))
