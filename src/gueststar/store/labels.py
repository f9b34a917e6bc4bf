"""What people said that detections are: every label with who gave it and when; none is ever overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    String,
    Table,
    insert,
    select,
    update,
)

from gueststar.model.labels import DetectionKind
from gueststar.store.sql import connect, reading, sqlite_url, transaction

METADATA = sqlalchemy.MetaData()

LABELS = Table(
    "detection_label",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True, doc="in the order of giving"),
    Column("dia_source_id", BigInteger, nullable=False),
    Column("visit", BigInteger, nullable=False),
    Column("detector", Integer, nullable=False),
    Column("kind", Integer, nullable=False, doc="DetectionKind"),
    Column("person", String, nullable=False),
    Column("mjd_tai", Double, nullable=False, doc="when it was given"),
    Column("reliability", Double, doc="score at that time"),
    Column("model_version", String, nullable=False, doc="model of that score; empty if not known"),
    Column("is_retracted", Boolean, nullable=False, doc="taken back by the one who gave it"),
    Index("detection_label_by_source", "dia_source_id"),
    Index("detection_label_by_visit", "visit"),
)
"""Labels of detections, by people."""


@dataclass(frozen=True)
class DetectionLabel:
    """One person's judgement of one detection."""

    dia_source_id: int
    visit: int
    detector: int
    kind: DetectionKind
    person: str
    mjd_tai: float
    reliability: float | None = None
    model_version: str = ""


class LabelStore:
    """The labels in the database at ``url``."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = connect(url)
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    @classmethod
    def of(cls, root: Path, database: str | None) -> LabelStore:
        """Return the store of a survey: in its database server, or a file in the repository."""
        return cls(database or sqlite_url(root / "labels.sqlite3"))

    def add(self, label: DetectionLabel) -> None:
        """Store a label; it takes the place of earlier ones of that detection, which stay on record."""
        values = {name: getattr(label, name) for name in DetectionLabel.__dataclass_fields__} | {
            "kind": int(label.kind)
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(LABELS).values(**values, is_retracted=False))

    def retract_last(self, person: str) -> DetectionLabel | None:
        """Take back the last label of a person that was not yet; None if there is none."""
        newest = select(LABELS).where(LABELS.c.person == person, ~LABELS.c.is_retracted)
        with transaction(self._engine) as connection:
            row = connection.execute(newest.order_by(LABELS.c.id.desc()).limit(1)).first()
            if row is None:
                return None
            connection.execute(update(LABELS).where(LABELS.c.id == row.id).values(is_retracted=True))
        return _label_of(row)

    def current(self, *, visits: Sequence[int] | None = None) -> dict[int, DetectionLabel]:
        """Return the label that holds, by dia_source_id: the last one that was not retracted (of these exposures)."""
        query = select(LABELS).where(~LABELS.c.is_retracted).order_by(LABELS.c.id)
        parts = [query] if visits is None else [query.where(LABELS.c.visit.in_(part)) for part in batched(visits)]
        with transaction(self._reader) as connection:
            rows = [row for part in parts for row in connection.execute(part)]
        return {int(row.dia_source_id): _label_of(row) for row in rows}

    def history(self, dia_source_id: int) -> Sequence[tuple[DetectionLabel, bool]]:
        """Return every label that a detection was given, in order, and whether it was retracted."""
        query = select(LABELS).where(LABELS.c.dia_source_id == dia_source_id).order_by(LABELS.c.id)
        with transaction(self._reader) as connection:
            return [(_label_of(row), bool(row.is_retracted)) for row in connection.execute(query)]


def batched(numbers: Sequence[int], *, size: int = 500) -> list[Sequence[int]]:
    """Return numbers in parts that a database takes in one question."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _label_of(row: sqlalchemy.Row[tuple[object, ...]]) -> DetectionLabel:
    return DetectionLabel(
        int(row.dia_source_id), int(row.visit), int(row.detector), DetectionKind(row.kind), str(row.person),
        float(row.mjd_tai), None if row.reliability is None else float(row.reliability), str(row.model_version),
    )  # fmt: skip
