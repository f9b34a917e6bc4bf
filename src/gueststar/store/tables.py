"""Tables of the ledger and the steps by which their layout grows."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    func,
    select,
)
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.schema import CreateSchema

from gueststar.core.errors import ConfigError
from gueststar.store.sql import SCHEMA, reading

METADATA = sqlalchemy.MetaData()

_SERIAL = BigInteger().with_variant(Integer, "sqlite")

FILES = Table(
    "files",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("path", String, nullable=False, doc="where it was received from"),
    Column("sha256", String(64), nullable=False, doc="of the bytes; empty if it could not be read"),
    Column("pixel_checksum", String(64), doc="of the decoded pixels: the same for plain, .gz and .fz"),
    Column("status", String(16), nullable=False, doc="ingested, already or refused"),
    Column("reason", String, nullable=False, default="", doc="why it was refused, in one line"),
    Column("exposure_id", BigInteger, doc="None if the header did not tell"),
    Column("day_obs", Integer, doc="survey night, if the header told"),
    Column("received", Float, nullable=False, doc="first received, Unix time"),
    Column("last_seen", Float, nullable=False, doc="last received, Unix time"),
    Index("files_by_content", "sha256", "path", unique=True),
    Index("files_by_night", "day_obs"),
    Index("files_by_exposure", "exposure_id"),
)

FIELDS = Table(
    "fields",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("ra", Float, nullable=False, doc="centre, degrees ICRS"),
    Column("dec", Float, nullable=False),
    Column("name", String, nullable=False, default=""),
    Index("fields_by_dec", "dec"),
)

EXPOSURES = Table(
    "exposures",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("camera", String, nullable=False),
    Column("observation_type", String(16), nullable=False),
    Column("mjd_start", Float, nullable=False),
    Column("exposure_s", Float, nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("program", Integer, nullable=False, doc="programid"),
    Column("physical_filter", String),
    Column("band", String),
    Column("ra", Float),
    Column("dec", Float),
    Column("rotation_deg", Float, nullable=False, default=0.0),
    Column("field", BigInteger),
    Column("object_name", String, nullable=False, default=""),
    Column("airmass", Float),
    Column("principal_investigator", String, nullable=False, default=""),
    Column("is_target_of_opportunity", Boolean, nullable=False, default=False, server_default=sqlalchemy.false()),
    Column("state", String(16), nullable=False, doc="received, processed, failed or held"),
    Column("reason", String, nullable=False, default=""),
    Column("received", Float, nullable=False, doc="Unix time"),
    Index("exposures_by_night", "day_obs", "observation_type"),
    Index("exposures_by_field", "field", "band"),
)

EXPOSURE_DETECTORS = Table(
    "exposure_detectors",
    METADATA,
    Column("exposure_id", BigInteger, ForeignKey("exposures.id"), primary_key=True),
    Column("detector", Integer, primary_key=True),
    Column("pixel_checksum", String(64), nullable=False),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("key", JSON, nullable=False, doc="what is worked on, as submitted"),
    Column("exposure_id", BigInteger),
    Column("detector", Integer),
    Column("day_obs", Integer),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False, default=3),
    Column("reason", String, nullable=False, default=""),
    Column("error_kind", String(64), nullable=False, default=""),
    Column("traceback", String, nullable=False, default=""),
    Column("metrics", JSON),
    Column("config", JSON),
    Column("inputs", JSON),
    Column("worker", String, nullable=False, default=""),
    Column("submitted", Float, nullable=False, doc="Unix time"),
    Column("started", Float),
    Column("finished", Float),
    Column("cpu_s", Float),
    Column("peak_rss_mb", Float),
    Column("priority", Integer, nullable=False, default=50, server_default="50", doc="lower comes first"),
    Column("not_before", Float, doc="Unix time before which it is not tried (again)"),
    Index("jobs_by_night", "day_obs", "kind", "state"),
    Index("jobs_by_exposure", "exposure_id", "detector"),
    Index("jobs_by_state", "state"),
    Index("jobs_by_finish", "finished"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False, doc="Unix time"),
    Column("what", String(64), nullable=False),
    Column("subject", String, nullable=False),
    Column("text", String, nullable=False, default=""),
    Column("data", JSON),
    Index("events_by_time", "time"),
    Index("events_by_subject", "subject"),
    Index("events_by_kind", "what", "subject"),
)

ALARMS = Table(
    "alarms",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("kind", String(64), nullable=False, doc="what is wrong, a word of the playbook"),
    Column("subject", String, nullable=False, default="", doc="with what: a disk, a night, a stage"),
    Column("severity", String(16), nullable=False, doc="notice, warning or critical"),
    Column("text", String, nullable=False, doc="one line: what is wrong and what to do"),
    Column("opened", Float, nullable=False, doc="Unix time"),
    Column("last_seen", Float, nullable=False, doc="Unix time"),
    Column("n_seen", Integer, nullable=False, default=1),
    Column("sent", Float, doc="last sent to people, Unix time"),
    Column("acknowledged", String, doc="by whom; such an alarm is not sent again"),
    Column("closed", Float, doc="Unix time"),
    Index("alarms_by_kind", "kind", "subject", "closed"),
)

METRIC_VALUES = Table(
    "metric_values",
    METADATA,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, doc="AM1, PA1, depth..."),
    Column("day_obs", Integer, doc="night it tells of; None: the survey"),
    Column("scope", String, nullable=False, default="", doc="what it was measured on: band=r detector=3"),
    Column("value", Float, doc="None: it could not be measured"),
    Column("n", Integer, nullable=False, default=0, doc="what it rests on: stars, pairs, images"),
    Column("version", String, nullable=False, doc="of the software that made the products"),
    Column("measured", Float, nullable=False, doc="Unix time"),
    Column("data", JSON),
    Index("metric_values_by_name", "name", "day_obs"),
)

EXPECTED_EXPOSURES = Table(
    "expected_exposures",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False, doc="from source and content"),
    Column("day_obs", Integer, nullable=False),
    Column("source", String(16), nullable=False, doc="schedule (planned) or log (taken)"),
    Column("mjd_start", Float, doc="TAI; None: any time of the night"),
    Column("exposure_id", BigInteger, doc="the camera's own, if told"),
    Column("observation_type", String(16), nullable=False, default="science"),
    Column("field", BigInteger),
    Column("ra", Float, doc="degrees ICRS"),
    Column("dec", Float),
    Column("physical_filter", String),
    Column("exposure_s", Float),
    Column("program", Integer, doc="programid"),
    Column("file", String, nullable=False, default="", doc="the list that told"),
    Index("expected_by_night", "day_obs"),
)

VERSIONS = Table(
    "ledger_versions",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied", Float, nullable=False, doc="Unix time"),
)


def _add_targets_of_opportunity(connection: Connection) -> None:
    is_postgres = connection.dialect.name == "postgresql"
    table, default = (f"{SCHEMA}.exposures", "false") if is_postgres else ("exposures", "0")
    connection.exec_driver_sql(
        f"ALTER TABLE {table} ADD COLUMN is_target_of_opportunity BOOLEAN NOT NULL DEFAULT {default}"
    )


def _add_operation(connection: Connection) -> None:
    table = f"{SCHEMA}.jobs" if connection.dialect.name == "postgresql" else "jobs"
    number = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "FLOAT"
    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN priority INTEGER NOT NULL DEFAULT 50")
    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN not_before {number}")
    METADATA.create_all(connection, tables=[ALARMS, METRIC_VALUES, EXPECTED_EXPOSURES])
    for index in (*JOBS.indexes, *EVENTS.indexes):
        index.create(connection, checkfirst=True)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_add_targets_of_opportunity, _add_operation)
"""Step n brings an existing database from layout n + 1 to n + 2; steps are only ever added."""

LAYOUT = 1 + len(MIGRATIONS)
"""Layout of the tables above."""


def migrate(engine: Engine) -> None:
    """Bring the database to the layout of this code; several processes may try at once.

    Raises ConfigError if a newer code has been at it.
    """
    if _version_of(engine) == LAYOUT:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7291806)")
            connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        VERSIONS.create(connection, checkfirst=True)
        version = connection.scalar(select(func.max(VERSIONS.c.version))) or 0
        if version > LAYOUT:
            raise ConfigError(f"the ledger has layout {version}, this code knows {LAYOUT}: install a newer gueststar")
        if version == 0:
            METADATA.create_all(connection)
        for step in MIGRATIONS[version - 1 :] if version else ():
            step(connection)
        if version < LAYOUT:
            connection.execute(VERSIONS.insert().values(version=LAYOUT, applied=time.time()))


def _version_of(engine: Engine) -> int:
    """Return the layout of the database, 0 if it has none; takes no lock."""
    try:
        with reading(engine).begin() as connection:
            return int(connection.scalar(select(func.max(VERSIONS.c.version))) or 0)
    except (OperationalError, ProgrammingError):
        return 0
