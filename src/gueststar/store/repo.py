"""The survey repository: where products live, behind a handful of verbs.

This and the ``butler_*`` modules beside it are the only places that meet the middleware. A worker stages
products (files, no registry); one writer commits a batch of them in one transaction. A product's file is
named by its content and moved into place before the registry learns of it, so a process that is killed
at any moment leaves either a known product or a file that nothing refers to (`sweep` removes those).

What reads and writes pixels is imported when a product is: a command that only asks the ledger starts in half a second.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal
from uuid import uuid4

import yaml
from pydantic import ValidationError

from gueststar.core.errors import ConfigError, DataError, TransientError
from gueststar.formats.plain_yaml import read_yaml
from gueststar.model.calibration import KINDS, CalibrationKind
from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.model.readers import OPERATOR, Sight
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import Field
from gueststar.store.product_paths import digest_of, path_of_staged
from gueststar.store.products import PRODUCTS_RUN, DataId, ProductRef, StagedProduct, product_named
from gueststar.store.readers import sight_of
from gueststar.store.settings import SurveySettings, read_settings, write_settings
from gueststar.store.sql import checked_url, sqlite_url, told_as_transient

if TYPE_CHECKING:
    from gueststar.store.butler_calibrations import ValidMaster
    from gueststar.store.butler_registry import Registry

Transfer = Literal["copy", "link", "direct"]
"""Raw files are copied into the repository, hard-linked, or left where they are (symbolic links)."""


class SurveyRepo:
    """One survey of one camera, in one folder."""

    def __init__(self, root: Path, camera: Camera, settings: SurveySettings) -> None:
        self.root = root
        self.camera = camera
        self.settings = settings
        self.ledger = Ledger(settings.database or sqlite_url(root / "ledger.sqlite3"))
        self._known_fields: set[int] = set()
        self.n_certified: Counter[str] = Counter()
        """How often a product of a kind was certified here: what was asked about its times before holds no longer."""

    @classmethod
    def create(
        cls, root: Path | str, camera: Camera, db_url: str | None = None, *, settings: SurveySettings | None = None
    ) -> SurveyRepo:
        """Make a repository; ConfigError if there is one already or the database cannot be used.

        ``db_url`` names a PostgreSQL database; without it SQLite files in the folder are used.
        """
        folder = Path(root).absolute()
        if (folder / "survey.yaml").exists():
            raise ConfigError(f"{folder} is a survey repository already")
        if (folder / "butler.yaml").exists():
            raise ConfigError(f"{folder} holds a repository that was never finished; remove the folder and try again")
        database = checked_url(db_url) if db_url else None
        if database and database.startswith("sqlite"):
            raise ConfigError("leave the database URL out for SQLite: its files lie in the repository")
        is_new = not folder.exists()
        try:
            return cls._created(folder, camera, database, settings)
        except ConfigError:
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def _created(
        cls, folder: Path, camera: Camera, database: str | None, settings: SurveySettings | None
    ) -> SurveyRepo:
        from gueststar.store.butler_setup import create_registry

        for name in ("products", "staging", "refused"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        create_registry(folder, camera, database)
        chosen = (settings or SurveySettings(name=folder.name)).model_copy(update={"database": database})
        (folder / "camera.yaml").write_text(yaml.safe_dump(camera.model_dump(mode="json"), sort_keys=False))
        write_settings(folder / "survey.yaml", chosen)
        return cls(folder, camera, chosen)

    @classmethod
    def open(cls, root: Path | str) -> SurveyRepo:
        """Open a repository; ConfigError if there is none or its camera.yaml or survey.yaml is wrong."""
        folder = Path(root).absolute()
        if not (folder / "survey.yaml").exists():
            raise ConfigError(f"{folder} is not a survey repository; make one: gueststar init {root} --camera NAME")
        try:
            camera = Camera.model_validate(read_yaml((folder / "camera.yaml").read_text()))
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(str(key) for key in first["loc"])
            raise ConfigError(f"{folder / 'camera.yaml'}: {where}: {first['msg']}") from None
        return cls(folder, camera, read_settings(folder / "survey.yaml"))

    def __enter__(self) -> SurveyRepo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the databases."""
        self.ledger.close()
        registry = self.__dict__.pop("_registry", None)
        if registry is not None:
            registry.close()

    @cached_property
    def _registry(self) -> Registry:
        # Imported on first use: the middleware takes seconds, and workers that only stage need none of it.
        from gueststar.store.butler_registry import Registry

        with told_as_transient():
            return Registry(self.root, self.camera)

    @property
    def sight(self) -> Sight:
        """What whoever opened the survey may see of it now: everything, unless it was opened for a reader."""
        return sight_of(self.settings, OPERATOR)

    def parameters(self, section: str) -> dict[str, Any]:
        """Return the overrides of a section of pipeline parameters: the survey's above the camera's."""
        return {**self.camera.settings.get(section, {}), **self.settings.parameters.get(section, {})}

    @contextmanager
    def only_writer(self, what: str = "processes") -> Iterator[None]:
        """Hold the repository while nights are processed; TransientError names the other process that does.

        A second writer would take the first one's running work for that of a run that was killed. The lock is the
        system's: it ends with the process, however that ends.
        """
        with (self.root / "process.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TransientError(_who_holds(file, self.root)) from None
            file.truncate(0)
            file.write(f"{what} {os.getpid()} {socket.gethostname()}")
            file.flush()
            yield
            file.truncate(0)

    # Put

    def stage(self, product: str, data_id: DataId, value: Any) -> StagedProduct:
        """Write a product's file into the staging folder, without touching the registry."""
        from gueststar.store.staging import stage_product

        return stage_product(self.root, self.camera, product, data_id, value)

    def commit(self, staged: Sequence[StagedProduct], *, run: str = PRODUCTS_RUN) -> list[ProductRef]:
        """Make staged products known, all of them or none; return where each is now, in order.

        Committing the same again changes nothing; the same product with another content is a new version,
        which `get` and `find` then return.
        """
        from gueststar.store.butler_registry import StoredFile

        self._need_fields({item.data_id.field for item in staged if item.data_id.field is not None})
        files = []
        for item in staged:
            path = path_of_staged(item, self.camera, run=run)
            _move_into_place(item.path, self.root / "products" / path)
            files.append(StoredFile(item.product, item.data_id, item.run or run, item.sha256, path))
        return self._registry.add(files)

    def put(self, product: str, data_id: DataId, value: Any, *, run: str = PRODUCTS_RUN) -> ProductRef:
        """Store one product: stage and commit."""
        return self.commit([self.stage(product, data_id, value)], run=run)[0]

    # Get and find

    def get(self, product: str, data_id: DataId, *, run: str | None = None) -> Any:
        """Return the current version of a product; DataError if there is none."""
        found = self.find_one(product, data_id, run=run)
        if found is None:
            raise DataError(f"there is no {product} of {data_id}")
        return self.read(found)

    def read(self, ref: ProductRef) -> Any:
        """Return the value of a stored product; needs no registry."""
        product = product_named(ref.product)
        _check_there(ref.path)
        if product.holds != "raw":
            from gueststar.store.product_files import read_product

            return read_product(product, ref.path)
        exposure_id, detector_id = ref.data_id.exposure, ref.data_id.detector
        exposure = self.ledger.exposure(exposure_id) if exposure_id is not None else None
        if exposure is None or detector_id is None:
            raise DataError(f"the ledger has no exposure {exposure_id} of {ref.path}")
        from gueststar.formats.raw import read_detector

        return read_detector(ref.path, self.camera.detector(detector_id), exposure.info)

    def find(self, product: str, *, run: str | None = None, **constraints: Any) -> list[ProductRef]:
        """Return the current products that meet constraints: fields of `DataId`, and ``day_obs`` of exposures.

        Calibrations come in all versions, those of older nights first.
        """
        return self._registry.find(product_named(product), constraints, run=run)

    def find_one(self, product: str, data_id: DataId, *, run: str | None = None) -> ProductRef | None:
        """Return where the current version of a product is, or None."""
        return self._registry.find_one(product_named(product), data_id, run=run)

    def exists(self, product: str, data_id: DataId) -> bool:
        """Return whether there is such a product."""
        return self.find_one(product, data_id) is not None

    def path(self, product: str, data_id: DataId) -> Path:
        """Return the file of the current version of a product; DataError if there is none."""
        found = self.find_one(product, data_id)
        if found is None:
            raise DataError(f"there is no {product} of {data_id}")
        return found.path

    # Ingest

    def ingest_raw(
        self, path: Path | str, info: ExposureInfo, detector_ids: Iterable[int], *,
        transfer: Transfer = "copy", pixel_checksum: str = "", received: float | None = None,
    ) -> list[ProductRef]:  # fmt: skip
        """Take in a raw file that holds these detectors of an exposure; again is the same.

        The exposure is assigned to a field if its header named none. ``received`` is when the file was there, whole
        (Unix time; None: now). DataError if one of the detectors is there already with other content.
        """
        from gueststar.store.butler_registry import StoredFile

        source, detectors = Path(path).absolute(), sorted(detector_ids)
        known = self.ledger.exposure(info.exposure_id)
        info = self._with_field(info if known is None else replace(info, field=known.info.field))
        self._registry.insert_exposure(info, detectors)
        sha256 = digest_of(source)
        files: list[StoredFile] = []
        for detector in detectors:
            data_id = DataId(exposure=info.exposure_id, detector=detector)
            name = f"raw_{info.exposure_id}_{detector:02d}-{sha256[:12]}{''.join(_raw_suffixes(source))}"
            stored = f"raw/{info.day_obs}/{name}"
            # One name per detector, also for several in one file: the middleware tells files by their names.
            _bring(source, self.root / "products" / stored, transfer, first=files and files[0].path, root=self.root)
            files.append(StoredFile("raw", data_id, "raw", sha256, stored))
        refs = self._registry.add(files, is_versioned=False)
        self.ledger.add_exposure(info, detectors=dict.fromkeys(detectors, pixel_checksum), received=received)
        return refs

    def add_exposure(self, info: ExposureInfo, detector_ids: Iterable[int]) -> ExposureInfo:
        """Make an exposure known whose raw files are not here (a user's own products); return it with its field."""
        detectors = list(detector_ids)
        known = self.ledger.exposure(info.exposure_id)
        info = self._with_field(info if known is None else replace(info, field=known.info.field))
        self._registry.insert_exposure(info, detectors)
        self.ledger.add_exposure(info, detectors=detectors)
        return info

    def keep_entered(self, path: Path, info: ExposureInfo, *, transfer: Transfer = "copy") -> Path:
        """Bring a user's file into the repository's ``entered`` folder, named by its content; return where it is.

        With ``direct`` it stays where it is.
        """
        source = Path(path).absolute()
        if transfer == "direct":
            return source
        target = self.root / "entered" / str(info.day_obs) / f"{digest_of(source)[:12]}-{source.name}"
        _bring(source, target, transfer, first=None, root=self.root)
        return target

    def _with_field(self, info: ExposureInfo) -> ExposureInfo:
        if info.observation_type != "science" or info.ra is None or info.dec is None:
            return info
        tolerance = self.settings.field_tolerance_arcmin or self.camera.pointing_tolerance_arcmin
        if info.field is None:
            number = self.ledger.assign_field(ra=info.ra, dec=info.dec, tolerance_deg=tolerance / 60.0).id
        else:
            number = info.field
            if self.ledger.field(number) is None:
                self.ledger.add_field(Field(number, info.ra, info.dec))
        self._need_fields({number})
        return replace(info, field=number)

    def _need_fields(self, numbers: set[int]) -> None:
        for number in sorted(numbers - self._known_fields):
            field = self.ledger.field(number)
            if field is None:
                raise ConfigError(f"the survey has no field {number}")
            self._registry.insert_field(number, ra=field.ra, dec=field.dec)
            self._known_fields.add(number)

    # Certify

    def certify(
        self, product: str, data_id: DataId, valid_from_mjd: float, valid_to_mjd: float, *, run: str | None = None
    ) -> None:
        """Make a calibration master valid during a time (MJD TAI), except where another valid one is nearer in time.

        Without ``run`` the newest committed master of this data id is meant.
        """
        from gueststar.store import butler_calibrations

        found = self.find_one(product, data_id, run=run)
        if found is None:
            raise ConfigError(f"there is no {product} of {data_id} to certify")
        span = (valid_from_mjd, valid_to_mjd)
        try:
            butler_calibrations.certify(self._registry, product_named(product), found, span)
        finally:
            self.n_certified[product] += 1

    def find_calibration(
        self, kind: CalibrationKind, detector: int, mjd_tai: float, physical_filter: str | None = None
    ) -> ProductRef | None:
        """Return the product that is valid at a time, or None; ``physical_filter`` where the kind depends on it."""
        data_id = DataId(detector=detector, physical_filter=physical_filter if KINDS[kind].is_per_filter else None)
        for valid in self.calibrations_during(kind, mjd_tai, mjd_tai):
            if valid.ref.data_id == data_id and valid.is_valid_at(mjd_tai):
                return valid.ref
        return None

    def calibrations_during(self, kind: CalibrationKind, begin: float, end: float) -> list[ValidMaster]:
        """Return the products of a kind valid from, until or between two times (MJD TAI), in one question."""
        from gueststar.store import butler_calibrations

        return butler_calibrations.valid_during(self._registry, product_named(kind), (begin, end))

    def calibration_spans(self, kind: CalibrationKind) -> list[tuple[DataId, tuple[float, float]]]:
        """Return when the products of a kind are valid (MJD TAI), of all detectors and filters, in one question."""
        from gueststar.store import butler_calibrations

        return butler_calibrations.all_valid(self._registry, product_named(kind))

    def calibration_history(
        self, kind: CalibrationKind, detector: int, physical_filter: str | None = None
    ) -> list[ProductRef]:
        """Return all masters of a detector, newest night first."""
        constraints: dict[str, Any] = {"detector": detector}
        if KINDS[kind].is_per_filter and physical_filter is not None:
            constraints["physical_filter"] = physical_filter
        return self.find(kind, **constraints)[::-1]

    # Housekeeping

    def sweep_staging(self, *, older_than_s: float = 0.0) -> list[Path]:
        """Remove staged files that were never committed; return what was removed."""
        return _remove_old((self.root / "staging").rglob("*"), older_than_s)

    def sweep(self, *, older_than_s: float = 86400.0) -> list[Path]:
        """Remove staged files, and stored files that the registry does not know; return what was removed.

        It reads the whole registry. Files younger than ``older_than_s`` may be another process's work in hand.
        """
        known = self._registry.paths()
        stored = (path for path in (self.root / "products").rglob("*") if path not in known)
        return self.sweep_staging(older_than_s=older_than_s) + _remove_old(stored, older_than_s)


def _who_holds(lock: IO[str], root: Path) -> str:
    """Return what the lock file of a repository says of the process that holds it, as a line."""
    lock.seek(0)
    match lock.read().split():
        case [what, pid, host]:
            return f"process {pid} on {host} {what} {root}: wait for its end, or stop it"
    return f"another process is processing {root}: wait for its end"


def _check_there(path: Path) -> None:
    """Raise an error that says what to do where a product's file is gone."""
    if path.is_symlink() and not path.exists():
        raise TransientError(f"{path} lies at {os.readlink(path)}, which is away: mount that disk")
    if not path.exists():
        raise DataError(f"{path} is gone: gueststar archive restore brings it back where there is an archive")


def _remove_old(paths: Iterable[Path], older_than_s: float) -> list[Path]:
    limit = time.time() - older_than_s
    old = [path for path in paths if not path.is_dir() and path.lstat().st_ctime < limit]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def _move_into_place(staged: Path, target: Path) -> None:
    """Rename a staged file; where an earlier attempt did so (the name tells the content) there is nothing to do."""
    if target.exists():
        staged.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(staged, target)
    except FileNotFoundError:
        raise DataError(f"{staged} is gone: it was staged but neither it nor {target} exists") from None


def _raw_suffixes(path: Path) -> list[str]:
    """Return the endings that tell how a raw file is packed: .fits, .fits.fz..."""
    return [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() in _RAW_ENDINGS] or [".fits"]


_RAW_ENDINGS = frozenset({".fits", ".fit", ".fts", ".fz", ".gz", ".bz2", ".tif", ".tiff"})


def _bring(source: Path, target: Path, transfer: Transfer, *, first: Any, root: Path) -> None:
    """Put a file under its name in the repository; ``first`` is the same file under another detector's name."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    if transfer == "direct":
        temporary.symlink_to(source)
    elif first:
        os.link(root / "products" / first, temporary)
    elif transfer == "link":
        try:
            os.link(source, temporary)
        except OSError as problem:
            raise ConfigError(
                f"{source} cannot be linked ({problem.strerror}); use --transfer copy or direct"
            ) from None
    else:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
