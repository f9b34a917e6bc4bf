"""Packets of other surveys into logs of their own, byte for byte; what cannot be taken is refused with a reason.

Each survey has a log ``other_surveys/<name>`` in the form of the survey's own: candids of two surveys never meet, and
nothing of it is published as ours. Refused bytes lie in ``other_surveys/refused``, so that they can be tried again.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Column, Float, Integer, String, Table, delete, select
from sqlalchemy.dialects.sqlite import insert

from gueststar.core.errors import DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.packet_families import identify, leading_schemas
from gueststar.formats.packets import packets_in, parsed_schema
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import OTHER_SURVEYS, AlertLog
from gueststar.store.alerts.schemas import keep_schema, known_schemas
from gueststar.store.alerts.segments import told_when_full
from gueststar.store.sql import connect, reading, sqlite_url, transaction

_BATCH, _BATCH_BYTES = 500, 64_000_000
_TAR = re.compile(r".*\.(tar|tar\.gz|tgz)")
_LOGS = "*/index.sqlite"
_REFUSED = "refused"
_METADATA = sqlalchemy.MetaData()
_TABLE = Table(
    "refused",
    _METADATA,
    Column("digest", String, primary_key=True, doc="of the bytes; name of the file that keeps them"),
    Column("name", String, nullable=False, doc="where they came from"),
    Column("n_bytes", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("time", Float, nullable=False, doc="Unix seconds"),
)


class Refusal(NamedTuple):
    """Bytes that were not taken."""

    name: str
    """File, and member of a tar file behind a colon."""
    n_bytes: int
    reason: str


@dataclass
class ImportReceipt:
    """What one import did."""

    n_new: dict[str, int] = field(default_factory=dict)
    """Packets that were not there yet, by survey."""
    n_known: dict[str, int] = field(default_factory=dict)
    """Packets that were there, with the same bytes."""
    refused: list[Refusal] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it in words, without the refusals."""
        surveys = sorted({*self.n_new, *self.n_known})
        told = [f"{s}: {self.n_new.get(s, 0)} new, {self.n_known.get(s, 0)} already there" for s in surveys]
        return told or ["no packets"]


class _Source(NamedTuple):
    name: str
    payload: bytes


def surveys_of(root: Path) -> list[str]:
    """Return the other surveys whose packets a repository holds."""
    return sorted(path.parent.name for path in (root / OTHER_SURVEYS).glob(_LOGS) if path.parent.name != _REFUSED)


def refusals(root: Path) -> list[Refusal]:
    """Return what was refused and has not been taken since, oldest first."""
    folder = root / OTHER_SURVEYS / _REFUSED
    if not (folder / "index.sqlite").exists():
        return []
    engine = connect(sqlite_url(folder / "index.sqlite"))
    try:
        with transaction(reading(engine)) as connection:
            rows = connection.execute(select(_TABLE).order_by(_TABLE.c.time, _TABLE.c.name))
            return [Refusal(row.name, row.n_bytes, row.reason) for row in rows]
    finally:
        engine.dispose()


class PacketImport:
    """Takes packets into the repository (or any folder) at ``root``. Doing it again changes nothing."""

    def __init__(self, root: Path, *, survey: str | None = None, schemas: Mapping[int, str] | None = None) -> None:
        """``survey`` names their log (default: their schemas' family); ``schemas`` are texts by message number."""
        self.root, self.survey, self._texts = root, survey, dict(schemas or {})
        self._logs: dict[str, AlertLog] = {}
        self._waiting: dict[str, dict[int, OutboxAlert]] = {}
        self._n_bytes = 0
        self._schemas = self._schemas_of_all()
        folder = root / OTHER_SURVEYS / _REFUSED
        with told_when_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._engine = connect(sqlite_url(folder / "index.sqlite"))
        with transaction(self._engine) as connection:
            _METADATA.create_all(connection)
            self._refused = set(connection.execute(select(_TABLE.c.digest)).scalars())
        self._folder = folder

    def __enter__(self) -> PacketImport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs.values():
            log.close()
        self._engine.dispose()

    def take(self, paths: Iterable[Path]) -> ImportReceipt:
        """Take the packets of files, tar files and folders (``*.avro`` and tar files in them).

        Raises ServiceDown where there is no room; what was taken until then stays.
        """
        receipt = ImportReceipt()
        for path in paths:
            for source in _sources(path, receipt):
                self._take_one(source, receipt)
        self._flush(receipt)
        return receipt

    def _take_one(self, source: _Source, receipt: ImportReceipt) -> None:
        try:
            packets = list(packets_in(source.payload, schemas=self._schemas, leading=leading_schemas()))
            if not packets:
                raise DataError("it holds no packets")
            told = [(identify(packet), packet.payload) for packet in packets]
            for identity, payload in told:
                survey = self.survey or identity.family.name
                alert = OutboxAlert(
                    identity.candid, identity.object_name, identity.day_obs, int(identity.program), payload
                )
                self._put(survey, alert, receipt)
            self._no_longer_refused(source)
        except DataError as problem:
            self._refuse(source, str(problem), receipt)

    def _put(self, survey: str, alert: OutboxAlert, receipt: ImportReceipt) -> None:
        log, waiting = self._log(survey), self._waiting.setdefault(survey, {})
        there = waiting.get(alert.candid)
        before = there.payload if there is not None else _payload_of(log, alert.candid)
        if before is not None:
            if before != alert.payload:
                raise DataError(f"alert {alert.candid} is in the archive of {survey} with other bytes")
            receipt.n_known[survey] = receipt.n_known.get(survey, 0) + 1
            return
        waiting[alert.candid] = alert
        self._n_bytes += len(alert.payload)
        if len(waiting) >= _BATCH or self._n_bytes >= _BATCH_BYTES:
            self._flush(receipt)

    def _flush(self, receipt: ImportReceipt) -> None:
        for survey, waiting in self._waiting.items():
            if waiting:
                n = self._log(survey).append(waiting.values())
                receipt.n_new[survey] = receipt.n_new.get(survey, 0) + n
                receipt.n_known[survey] = receipt.n_known.get(survey, 0) + len(waiting) - n
                waiting.clear()
        self._n_bytes = 0

    def _log(self, survey: str) -> AlertLog:
        if survey not in self._logs:
            self._logs[survey] = AlertLog(self.root, survey=survey)
            for number, text in self._texts.items():
                keep_schema(self._logs[survey], number, text)
        return self._logs[survey]

    def _schemas_of_all(self) -> dict[int, Any]:
        known: dict[int, Any] = known_schemas(self.root / OTHER_SURVEYS)
        for survey in surveys_of(self.root):
            if self.survey in (None, survey):
                known |= known_schemas(self.root / OTHER_SURVEYS / survey)
        return known | {number: parsed_schema(text) for number, text in self._texts.items()}

    # Refusals

    def _refuse(self, source: _Source, reason: str, receipt: ImportReceipt) -> None:
        receipt.refused.append(Refusal(source.name, len(source.payload), reason))
        digest = _digest_of(source)
        same = {"name": source.name, "reason": reason}
        row = same | {"digest": digest, "n_bytes": len(source.payload), "time": time.time()}
        with told_when_full(self._folder):
            if not (self._folder / digest).exists():
                with appearing_whole(self._folder / digest) as temporary:
                    temporary.write_bytes(source.payload)
            with transaction(self._engine) as connection:
                connection.execute(insert(_TABLE).values(row).on_conflict_do_update(["digest"], set_=same))
        self._refused.add(digest)

    def _no_longer_refused(self, source: _Source) -> None:
        if not self._refused or (digest := _digest_of(source)) not in self._refused:
            return
        with transaction(self._engine) as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.digest == digest))
        (self._folder / digest).unlink(missing_ok=True)
        self._refused.discard(digest)


def _digest_of(source: _Source) -> str:
    return hashlib.blake2b(source.payload, digest_size=16).hexdigest()


def _payload_of(log: AlertLog, candid: int) -> bytes | None:
    entry = log.find(candid, programs=tuple(Program))
    return None if entry is None else log.read(entry)


def _sources(path: Path, receipt: ImportReceipt) -> Iterator[_Source]:
    """Yield what may be packets; what cannot be read at all is refused by its name."""
    if path.is_dir():
        for inside in sorted(path.rglob("*")):
            if inside.is_file() and (inside.suffix == ".avro" or _TAR.fullmatch(inside.name)):
                yield from _sources(inside, receipt)
        return
    try:
        if _TAR.fullmatch(path.name):
            yield from _members(path)
        else:
            yield _Source(str(path), path.read_bytes())
    except (OSError, EOFError, tarfile.TarError, zlib.error) as problem:
        receipt.refused.append(Refusal(str(path), 0, f"cannot be read: {problem}"))


def _members(path: Path) -> Iterator[_Source]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                yield _Source(f"{path}:{member.name}", file.read())
