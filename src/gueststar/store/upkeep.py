"""Care of the databases: are they sound, tidied up, and is there a copy to go back to.

Back-ups of SQLite files are made with its online back-up interface, so nobody has to stop; each copy is checked before
it gets its name. A PostgreSQL server is tidied up in place, and dumped with its own `pg_dump` where that is installed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from sqlalchemy import inspect, text

from gueststar.core.errors import TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.product_paths import digest_of
from gueststar.store.sql import REGISTRY_SCHEMA, SCHEMA, told_as_transient

BACKUPS = "backups"
"""Folder of a repository for copies of its databases, where no archive is set."""

CHECKSUMS = "SHA256SUMS"
"""File beside the copies that ``sha256sum -c`` reads."""

_PLACES = ("*.sqlite3", "*.sqlite", "alerts/*.sqlite", "filters/*.sqlite", "other_surveys/*/*.sqlite")
_HEAD = b"SQLite format 3\x00"
_WAIT_S = 5.0
_SLACK = 0.2
"""A file is written anew when more of it than this is empty pages."""
_DUMP_LIMIT_S = 6 * 3600.0


@dataclass(frozen=True)
class DatabaseCare:
    """What was found and done about one database."""

    name: str
    problem: str = ""
    """What its own check says is wrong; empty: sound."""
    bytes_before: int = 0
    bytes_after: int = 0
    busy: str = ""
    """Why it could not be tidied up now."""


def sqlite_files(root: Path) -> list[Path]:
    """Return the SQLite databases of a repository."""
    found = {path for pattern in _PLACES for path in root.glob(pattern) if path.is_file() and _is_sqlite(path)}
    return sorted(found)


def check_file(path: Path) -> str:
    """Return what SQLite's own check finds wrong with a database; empty for a sound one."""
    try:
        with _opened(path) as connection:
            lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as problem:
        return str(problem)
    return "" if lines == ["ok"] else "; ".join(lines)


def tidy_file(path: Path, *, name: str = "") -> DatabaseCare:
    """Check a SQLite database, renew what its planner knows, and write it anew where much of it is empty.

    A damaged one is left as it is: a person decides between mending it and the back-up.
    """
    name, before = name or path.name, path.stat().st_size
    if problem := check_file(path):
        return DatabaseCare(name, problem, before, before)
    busy = ""
    try:
        with _opened(path) as connection:
            connection.execute("ANALYZE")
            pages, empty = (
                connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count")
            )
            if empty > _SLACK * pages:
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as problem:  # another process reads or writes
        busy = str(problem)
    return DatabaseCare(name, "", before, path.stat().st_size, busy)


def back_up_file(path: Path, target: Path) -> str:
    """Copy a SQLite database while others may use it, and return the copy's SHA-256.

    The copy is one file, checked before it gets its name, readable by its owner only. Raises TransientError where it
    could not be made; what was there under the name stays.
    """
    try:
        with appearing_whole(target) as temporary:
            temporary.touch(mode=0o600)
            with _opened(path) as source, closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            if problem := check_file(temporary):
                raise TransientError(f"the copy of {path} is not sound: {problem}")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
    except (sqlite3.Error, OSError) as problem:
        raise TransientError(f"{path} was not copied to {target}: {problem}") from problem
    return digest_of(target)


def write_checksums(folder: Path, digests: dict[str, str]) -> None:
    """Write digests of files of a folder as ``sha256sum -c`` reads them."""
    with appearing_whole(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def prune_backups(folder: Path, *, keep: int) -> list[Path]:
    """Remove back-ups (one folder a date, YYYYMMDD) but for the newest ones; return what was removed."""
    dated = sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit() and (path / CHECKSUMS).exists())
    old = dated[: max(0, len(dated) - keep)]
    for path in old:
        shutil.rmtree(path)
    return old


# PostgreSQL


def tidy_server(url: str) -> list[DatabaseCare]:
    """Vacuum and analyse all tables of the survey on its server; tell of pages whose checksum was wrong."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    done = []
    with told_as_transient(), closing(_Disposed(engine)), engine.connect() as connection:
        wrong = connection.scalar(
            text("SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()")
        )
        for schema in (SCHEMA, REGISTRY_SCHEMA):
            size = text("SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n "
                        "ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind = 'r'")  # fmt: skip
            before = int(connection.scalar(size, {"schema": schema}) or 0)
            for table in inspect(connection).get_table_names(schema=schema):
                connection.exec_driver_sql(f'VACUUM (ANALYZE) "{schema}"."{table}"')
            after = int(connection.scalar(size, {"schema": schema}) or 0)
            problem = f"{wrong} pages with a wrong checksum" if wrong else ""
            done.append(DatabaseCare(f"postgresql schema {schema}", problem, before, after))
    return done


def dump_command(url: str, target: Path) -> list[str]:
    """Return the command that dumps the survey's schemas of a PostgreSQL database into a file."""
    plain = sqlalchemy.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    schemas = [f"--schema={schema}" for schema in (SCHEMA, REGISTRY_SCHEMA)]
    return ["pg_dump", "--format=custom", *schemas, f"--file={target}", plain]


def dump_server(url: str, target: Path) -> str:
    """Dump the survey's schemas into a file and return its SHA-256; TransientError where `pg_dump` did not do it."""
    program = shutil.which("pg_dump")
    hint = " ".join(dump_command(url, target))
    if program is None:
        raise TransientError(f"pg_dump is not installed here; where it is: {hint}")
    with appearing_whole(target) as temporary:
        temporary.touch(mode=0o600)
        command = [program, *dump_command(url, temporary)[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DUMP_LIMIT_S, check=False)
        if done.returncode != 0:
            raise TransientError(f"pg_dump failed: {' '.join(done.stderr.split())[:300]}; by hand: {hint}")
    return digest_of(target)


class _Disposed:
    """An engine that closes all its connections."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(len(_HEAD))
    return head == _HEAD


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as connection:
        yield connection
