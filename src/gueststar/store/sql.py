"""Connections to the survey's database: SQLite in the repository, or a PostgreSQL server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from gueststar.core.errors import ConfigError, ServiceDown

SCHEMA = "gueststar"
"""PostgreSQL schema of the survey's own tables (the registry's are in ``REGISTRY_SCHEMA``)."""

REGISTRY_SCHEMA = "registry"
"""PostgreSQL schema of the dataset registry's tables."""

BUSY_TIMEOUT_S = 120
"""How long a process waits for another one's transaction on SQLite."""


CHECKPOINT_PAGES = 10_000
"""Pages (of 4 kB) in SQLite's write-ahead log at which they are brought into the file: several commits together."""


CACHE_KIB = 16_384
"""Memory in which SQLite keeps pages at most, a connection: an image's alerts are read back from it, not from disk."""


def checked_url(url: str) -> str:
    """Return a database URL in the form all parts of the system understand.

    SQLite and PostgreSQL (through psycopg2) are accepted; a password in the URL is refused, because
    the URL is stored in the repository: ~/.pgpass or PGPASSWORD hold it.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except ArgumentError:
        raise ConfigError(f"{url!r} is not a database URL such as postgresql://user@host/database") from None
    if parsed.password:
        raise ConfigError("the database URL holds a password; put it into ~/.pgpass or PGPASSWORD instead")
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return url
    if backend != "postgresql":
        raise ConfigError(f"database {backend!r} is not supported; use SQLite or PostgreSQL")
    return str(parsed.set(drivername="postgresql+psycopg2"))


def database_url(database: str | None, file: Path) -> str:
    """Return where tables of a survey lie: in its database server, else in a file that nobody but its owner reads."""
    if database:
        return database
    file.touch(mode=0o600)
    return sqlite_url(file)


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{path}"


def connect(url: str) -> Engine:
    """Return an engine whose ``begin()`` is one write transaction, safe among several processes.

    On SQLite the journal is a write-ahead log, so that readers never wait for the writer, and a write
    transaction takes its lock at the start. On PostgreSQL tables without a schema live in `SCHEMA`.
    """
    try:
        engine = sqlalchemy.create_engine(
            checked_url(url), pool_pre_ping=not url.startswith("sqlite"), json_deserializer=from_json
        )
    except ModuleNotFoundError as problem:
        raise ConfigError(f"PostgreSQL needs the package {problem.name}: pip install gueststar[postgres]") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return engine.execution_options(schema_translate_map={None: SCHEMA})


@contextmanager
def told_as_transient() -> Iterator[None]:
    """Turn the database's own troubles (server gone, disk full, lock not given) into ServiceDown.

    Serves as decorator too.
    """
    try:
        yield
    except DBAPIError as problem:
        is_away = problem.connection_invalidated or isinstance(problem, OperationalError | InterfaceError)
        if not is_away:
            raise
        line = " ".join(str(problem.orig or problem).split())
        raise ServiceDown(f"the database does not work now: {line}") from problem


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run the body of a ``with`` statement in one transaction; ServiceDown where the database does not work."""
    with told_as_transient(), engine.begin() as connection:
        yield connection


def reading(engine: Engine) -> Engine:
    """Return the same engine for transactions that only read: they take no lock, and see one moment throughout."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(is_read_only=True)
    return engine.execution_options(is_read_only=True, isolation_level="REPEATABLE READ")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.execute("PRAGMA secure_delete = FAST")  # pages of sent alerts need no zeros on them: twice the writing
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_read_only = connection.get_execution_options().get("is_read_only", False)
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")


def plain_json(value: Any) -> Any:
    """Return a value as all databases take it as JSON: numpy scalars and arrays as plain ones, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
