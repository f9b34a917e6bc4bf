"""Tables of the detection store: visits, detections, objects, forced fluxes and the outbox of alerts."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Column, Double, Engine, Index, Integer, LargeBinary, String, Table
from sqlalchemy.schema import CreateSchema

from gueststar.model.columns import DIA_OBJECT, DIA_SOURCE
from gueststar.model.detections import OBJECT_PART
from gueststar.model.visit import VISIT
from gueststar.store.detections.catalog_rows import sql_columns
from gueststar.store.sql import SCHEMA

METADATA = sqlalchemy.MetaData()

STATE = Table(
    "detection_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False, doc="1: there is one row"),
    Column("layout", Integer, nullable=False, doc="version of these tables"),
    Column("last_sequence", BigInteger, nullable=False, doc="number of the last commit"),
    Column("name_key", String, nullable=False, doc="secret from which ids and names of objects are made, hexadecimal"),
    Column("n_withdrawn", BigInteger, nullable=False, doc="images taken out again: what was read before is void"),
)
"""One row; its lock puts the commits in order."""

VISITS = Table(
    "visit",
    METADATA,
    *sql_columns(VISIT, primary_key=("visit", "detector")),
    Column("sequence", BigInteger, nullable=False, doc="number of the commit"),
    Column("healpix_29", BigInteger, nullable=False, doc="of the middle of the image"),
    Column("radius_arcsec", Double, nullable=False, doc="of the circle about the middle that holds the image"),
    Column("is_late", Boolean, nullable=False, doc="a later exposure of this place had been committed before"),
    Column("n_dia_sources", Integer, nullable=False),
    Column("n_new_objects", Integer, nullable=False),
    Column("n_alerts", Integer, nullable=False),
    Index("visit_by_place", "healpix_29"),
    Index("visit_by_radius", "radius_arcsec"),
    Index("visit_by_sequence", "sequence"),
    Index("visit_by_night", "day_obs"),
)
"""Detector images of visits that were associated."""

SOURCES = Table(
    "dia_source",
    METADATA,
    *sql_columns(DIA_SOURCE, primary_key=("dia_source_id",)),
    Column("mjd_start", Double, nullable=False, doc="start of the exposure, MJD TAI"),
    Column("day_obs", Integer, nullable=False),
    Column("reference_ra", Double, doc="nearest reference source"),
    Column("reference_dec", Double, doc="nearest reference source"),
    Column("field", Integer, nullable=False),
    Column("rcid", Integer, nullable=False),
    Column("healpix_29", BigInteger, nullable=False),
    Index("dia_source_by_place", "healpix_29"),
    Index("dia_source_by_visit", "visit", "detector"),
    Index("dia_source_by_object", "dia_object_id"),
    Index("dia_source_by_night", "day_obs"),
)
"""Detections on difference images."""

OBJECTS = Table(
    "dia_object",
    METADATA,
    *sql_columns(DIA_OBJECT, primary_key=("dia_object_id",)),
    Column("name_number", BigInteger, nullable=False, unique=True, doc="the seven letters of its name"),
    Column("healpix_29", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False, doc="number of the last commit that changed it"),
    Index("dia_object_by_place", "healpix_29", "sequence"),
)
"""Things that changed."""

PARTS = Table(
    "object_part",
    METADATA,
    *sql_columns(OBJECT_PART, primary_key=("dia_object_id", "program")),
    Index("object_part_by_first", "first_sequence"),
)
"""What the exposures of each program add to an object."""

FORCED_BLOCKS = Table(
    "forced_source_block",
    METADATA,
    Column("visit", BigInteger, primary_key=True, autoincrement=False),
    Column("detector", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False, doc="number of the commit they came with"),
    Column("day_obs", Integer, nullable=False),
    Column("version", Integer, nullable=False, doc="how often rows were taken out of it"),
    Column("n_rows", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False, doc="FORCED_SOURCE rows by dia_object_id, an Arrow IPC stream"),
)
"""Forced fluxes at the places of objects: those measured on one image at one time are one row.

A row for each flux would be written into as many places of an index as there are objects in view, and there are many
more fluxes than detections.
"""

DEPTHS = Table(
    "visit_depth",
    METADATA,
    Column("visit", BigInteger, primary_key=True, autoincrement=False),
    Column("detector", Integer, primary_key=True, autoincrement=False),
    Column("payload", LargeBinary, nullable=False, doc="map of limiting magnitudes, see formats/depth_map.py"),
)
"""How deep the difference image of a visit is, place by place."""

EXPECTED = Table(
    "expected_visit",
    METADATA,
    Column("visit", BigInteger, primary_key=True, autoincrement=False),
    Column("detector", Integer, primary_key=True, autoincrement=False),
    Column("mjd_start", Double, nullable=False, doc="start of the exposure, MJD TAI"),
    *(Column(f"{axis}_{k}", Double, nullable=False, doc="corner") for k in (1, 2, 3, 4) for axis in ("ra", "dec")),
    Index("expected_visit_by_time", "mjd_start"),
)
"""Images that are on their way: later ones over the same sky wait for them."""

OUTBOX = Table(
    "alert_outbox",
    METADATA,
    Column("candid", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False, doc="number of the commit that put it here"),
    Column("visit", BigInteger, nullable=False),
    Column("detector", Integer, nullable=False),
    Column("object_name", String, nullable=False),
    Column("day_obs", Integer, nullable=False),
    Column("program", Integer, nullable=False),
    Column("payload", LargeBinary, doc="the encoded packet; NULL once it is in the alert log"),
    Column("is_sent", Boolean, nullable=False),
    Index("outbox_by_state", "is_sent", "sequence"),
)
"""Alerts that were committed, on their way to the alert log."""

LAYOUT = 3
"""Version of these tables."""

_BEFORE_PLAIN_FLUX = 2


def create_tables(engine: Engine) -> None:
    """Create what is missing, and bring tables of layout 2 to this one; safe when several processes do it at once."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(0x67756573)))
        METADATA.create_all(connection)
        if connection.scalar(sqlalchemy.select(STATE.c.layout)) == _BEFORE_PLAIN_FLUX:
            _add_plain_flux(connection)


def _add_plain_flux(connection: sqlalchemy.Connection) -> None:
    """Add the column that detections have from layout 3 on; those that are there get none, NULL."""
    table = f"{SCHEMA}.{SOURCES.name}" if connection.dialect.name == "postgresql" else SOURCES.name
    kind = SOURCES.c["plain_flux"].type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN plain_flux {kind}")
    connection.execute(STATE.update().values(layout=LAYOUT))
