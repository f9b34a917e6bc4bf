"""Making and opening the dataset registry of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy
from lsst.daf.butler import Butler, ButlerConfig, CollectionType, Config, DatasetType
from lsst.resources import ResourcePath
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from gueststar.core.errors import ConfigError
from gueststar.model.camera import Camera
from gueststar.store.butler_instrument import instrument_of
from gueststar.store.products import PRODUCTS, Product
from gueststar.store.sql import REGISTRY_SCHEMA, connect

CURRENT = "current"
"""Chained collection: the newest version of everything but calibrations."""

CALIBRATIONS = "calibrations"
"""Calibration collection: which master is valid when."""

RAW_RUN = "raw"
"""Collection of raw files."""

PRODUCTS_FOLDER = "products"
"""Folder of the stored files, within the repository."""

SKYMAP = "fields"
"""Name of the sky map whose tracts are the survey's fields and whose patches are the detectors."""

_STORAGE = {
    "raw": ("GueststarRaw", "gueststar.formats.raw.RawFile", "RawFormatter"),
    "image": ("GueststarCalibratedImage", "gueststar.model.image.CalibratedImage", "CalibratedImageFormatter"),
    "frame": ("GueststarDetrendedFrame", "gueststar.model.image.DetrendedFrame", "DetrendedFrameFormatter"),
    "calibration": (
        "GueststarCalibrationMaster", "gueststar.model.calibration.CalibrationMaster", "CalibrationMasterFormatter",
    ),
    "calibration_table": (
        "GueststarCalibrationTable", "gueststar.model.calibration.CalibrationTable", "CalibrationTableFormatter",
    ),
    "catalog": ("GueststarCatalog", "gueststar.model.catalog.Catalog", "CatalogFormatter"),
    "cutouts": ("GueststarCutouts", "gueststar.model.cutouts.CandidateCutouts", "CutoutsFormatter"),
    "streak_cutouts": (
        "GueststarStreakCutouts", "gueststar.model.streaks.StreakCutouts", "StreakCutoutsFormatter",
    ),
    "metrics": ("GueststarMetrics", "dict", "MetricsFormatter"),
}  # fmt: skip

_DIMENSION_OF = {
    "exposure": "exposure",
    "visit": "visit",
    "physical_filter": "physical_filter",
    "band": "band",
    "field": "tract",
}


def create_registry(root: Path, camera: Camera, db_url: str | None) -> None:
    """Make the registry of a new repository: its database, dataset types, instrument and collections."""
    config = Config()
    _name_storage(config)
    config["datastore", "root"] = f"<butlerRoot>/{PRODUCTS_FOLDER}"
    if db_url is None:
        config["registry", "db"] = "sqlite:///<butlerRoot>/registry.sqlite3"
    else:
        prepare_postgresql(db_url)
        config["registry", "db"] = db_url
        config["registry", "namespace"] = REGISTRY_SCHEMA
    _make_butler(root, config)
    if db_url is None:
        _use_write_ahead_log(root / "registry.sqlite3")
    with Butler.from_config(_folder(root), writeable=True) as butler:
        for product in PRODUCTS.values():
            butler.registry.registerDatasetType(dataset_type_of(product, butler.dimensions))
        instrument_of(camera)().register(butler.registry)
        _register_skymap(butler, camera)
        butler.collections.register(RAW_RUN, CollectionType.RUN)
        butler.collections.register(CALIBRATIONS, CollectionType.CALIBRATION)
        butler.collections.register(CURRENT, CollectionType.CHAINED)
        butler.collections.prepend_chain(CURRENT, RAW_RUN)


def open_butler(root: Path) -> Butler:
    """Open the Butler of a repository, which may be older than some of the products there are now."""
    config = ButlerConfig(_folder(root))
    _name_storage(config)
    return Butler.from_config(config, writeable=True)


def _make_butler(root: Path, config: Config) -> None:
    """Make the middleware's files in ``root``, by way of a folder within: it refuses to make any in one with a dot."""
    made = root / "butler"
    Butler.makeRepo(str(made), config=config, forceConfigRoot=False)
    for path in made.iterdir():
        path.rename(root / path.name)
    made.rmdir()


def _folder(root: Path) -> ResourcePath:
    """Return the folder as the middleware names it, which takes a name with a dot for that of a file."""
    return ResourcePath(str(root), forceDirectory=True)


def _name_storage(config: Config) -> None:
    """Write into a configuration how each kind of product is stored."""
    for storage, python_type, formatter in _STORAGE.values():
        config["storageClasses", storage, "pytype"] = python_type
        config["datastore", "formatters", storage] = f"gueststar.store.butler_formatters.{formatter}"


def prepare_postgresql(url: str) -> None:
    """Make the schema and the extension that the registry needs; ConfigError says what a person must do."""
    engine = connect(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS btree_gist")
        with engine.begin() as connection:
            if connection.scalar(sqlalchemy.text(_REGISTRY_EXISTS), {"schema": REGISTRY_SCHEMA}):
                raise ConfigError(f"{url} already holds a survey; give each survey a database of its own")
            connection.execute(CreateSchema(REGISTRY_SCHEMA, if_not_exists=True))
    except SQLAlchemyError as problem:
        line = str(getattr(problem, "orig", problem)).strip().splitlines()[0]
        if isinstance(problem, OperationalError):
            raise ConfigError(
                f"{url} cannot be prepared: {line}; does the server run, and the database exist?"
            ) from None
        raise ConfigError(
            f"{url} cannot be prepared: {line}; an administrator of that database must run"
            " CREATE EXTENSION btree_gist and GRANT CREATE ON DATABASE to the user"
        ) from None
    finally:
        engine.dispose()


_REGISTRY_EXISTS = "SELECT count(*) FROM information_schema.tables WHERE table_schema = :schema"


def dataset_type_of(product: Product, universe: Any) -> Any:
    """Return the middleware's dataset type of a product."""
    return DatasetType(
        product.name,
        dimensions=sorted(dimensions_of(product)),
        storageClass=_STORAGE[product.holds][0],
        universe=universe,
        isCalibration=product.is_calibration,
    )


def dimensions_of(product: Product) -> dict[str, str]:
    """Return dimension -> key of `DataId` (or the governor's own name)."""
    if "field" in product.keys:
        return {"skymap": "skymap", "tract": "field", "patch": "detector", "band": "band"}
    return {"instrument": "instrument", "detector": "detector"} | {
        _DIMENSION_OF[key]: key for key in product.keys if key != "detector"
    }


def _use_write_ahead_log(path: Path) -> None:
    """Let readers work while somebody writes (the setting stays with the file)."""
    engine = connect(f"sqlite:///{path}")
    with engine.connect():
        pass
    engine.dispose()


def _register_skymap(butler: Any, camera: Camera) -> None:
    record = {
        "name": SKYMAP, "hash": b"gueststar-fields".ljust(40, b"0"), "tract_max": 2**31,
        "patch_nx_max": max(detector.id for detector in camera.detectors) + 1, "patch_ny_max": 1,
    }  # fmt: skip
    butler.registry.syncDimensionData("skymap", record)
