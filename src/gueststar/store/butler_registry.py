"""The dataset registry: which products exist, and in which version, in the survey's words."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lsst.daf.butler import (
    CollectionType,
    DataCoordinate,
    DatasetRef,
    FileDataset,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.daf.butler.registry import ConflictingDefinitionError, DataIdError, OrphanedRecordError

from gueststar.core.errors import ConfigError, DataError
from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.store import butler_records
from gueststar.store.butler_setup import (
    CALIBRATIONS,
    CURRENT,
    RAW_RUN,
    SKYMAP,
    dataset_type_of,
    dimensions_of,
    open_butler,
)
from gueststar.store.products import PRODUCTS, PRODUCTS_RUN, DataId, Product, ProductRef, product_named
from gueststar.store.sql import told_as_transient

_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class StoredFile:
    """A file in place that the registry shall know."""

    product: str
    data_id: DataId
    run: str
    sha256: str
    path: str
    """Relative to the products folder."""


class Registry:
    """The middleware's Butler behind the verbs of `gueststar.store.repo.SurveyRepo`."""

    def __init__(self, root: Path, camera: Camera) -> None:
        self.camera = camera
        logging.getLogger("lsst").setLevel(logging.WARNING)
        self.butler = open_butler(root)
        self._runs: set[str] = set()
        self._registered: set[str] = set()
        self._dataset_types: dict[str, Any] = {}
        self._added: OrderedDict[tuple[str, DataId], tuple[float, ProductRef]] = OrderedDict()
        """What was added not long ago: whoever is next in the chain of work asks for it."""
        self._expanded: OrderedDict[Any, Any] = OrderedDict()
        """Data ids with the records of exposure and detector that the middleware wants beside them."""

    def close(self) -> None:
        """Close the connection to the database."""
        self.butler.close()

    # Records

    @told_as_transient()
    def insert_exposure(self, info: ExposureInfo, detector_ids: Iterable[int]) -> None:
        """Make an exposure and its visit known; again is the same."""
        butler_records.insert_exposure(self.butler, self.camera, info, detector_ids)

    @told_as_transient()
    def insert_field(self, field_id: int, *, ra: float, dec: float) -> None:
        """Make a field known; again is the same."""
        butler_records.insert_field(self.butler, self.camera, field_id, ra=ra, dec=dec)

    # Products

    @told_as_transient()
    def add(self, files: Sequence[StoredFile], *, is_versioned: bool = True) -> list[ProductRef]:
        """Make stored files known in one transaction; return where each product is now.

        What is there with the same content is left. What is there with another content gets a new version
        in a new run, which comes first in the chain of current products (DataError where versions make
        no sense: raw files).
        """
        if not files:
            return []
        placed = self._add(files, is_versioned=is_versioned)
        self._remember(placed)
        return placed

    def _add(self, files: Sequence[StoredFile], *, is_versioned: bool) -> list[ProductRef]:
        self._need_types(sorted({item.product for item in files}))
        self._need_runs(sorted({item.run for item in files}))
        try:
            kinds = {(item.product, item.run) for item in files}
            if is_versioned and (versioned := self._with_versions(kinds)):
                return self._add_versions(files, versioned)
            return self._ingest(files)
        except ConflictingDefinitionError as conflict:
            if not is_versioned:
                raise DataError(f"{files[0].data_id}: {files[0].product} is there with other content") from conflict
            return self._add_versions(files, kinds)
        except (LookupError, DataIdError) as problem:
            named = "; ".join(sorted({f"{item.product} of {item.data_id}" for item in files}))
            raise DataError(f"the repository does not know the exposure, detector or filter of {named}") from problem

    @told_as_transient()
    def find_one(self, product: Product, data_id: DataId, *, run: str | None = None) -> ProductRef | None:
        """Return the current version of one product, or None.

        What this process added within `_REMEMBERED_S` is known without asking: pipelines have one writer at a time
        (`SurveyRepo.only_writer`), so nobody else has made a newer one.
        """
        if run is None and (known := self._remembered(product, data_id)) is not None:
            return known
        if not (collections := self._collections(product, run)):
            return None
        coordinate = self.coordinate(product, data_id)
        try:
            ref = self.butler.find_dataset(self.dataset_type(product.name), coordinate, collections=collections)
        except MissingDatasetTypeError:  # the repository is older than the product
            return None
        return self.located([ref])[0] if ref is not None else None

    @told_as_transient()
    def find(self, product: Product, constraints: Mapping[str, Any], *, run: str | None = None) -> list[ProductRef]:
        """Return the current products that meet the constraints: keys of DataId, and ``day_obs`` of exposures."""
        if not (collections := self._collections(product, run)):
            return []
        key_to_dimension = {key: name for name, key in dimensions_of(product).items()}
        allowed = set(key_to_dimension) - {"skymap", "instrument"}
        allowed |= (
            {"exposure", "visit", "day_obs", "band", "physical_filter"} if allowed & {"exposure", "visit"} else set()
        )
        if foreign := sorted(set(constraints) - allowed):
            raise ConfigError(
                f"{product.name} cannot be selected by {', '.join(foreign)}, only {', '.join(sorted(allowed))}"
            )
        twin = "exposure" if "exposure" in key_to_dimension else "visit"
        where = {
            twin if key in ("exposure", "visit") else key_to_dimension.get(key, key): value
            for key, value in constraints.items()
        }
        try:
            with self.butler.query() as query:
                found = query.datasets(product.name, collections=collections, find_first=not product.is_calibration)
                refs = list(found.where({**self._governor(product), **where}))
        except (MissingDatasetTypeError, MissingCollectionError):
            return []
        return sorted(self.located(refs), key=lambda ref: (ref.run, _sortable(ref.data_id)))

    def _remember(self, placed: Iterable[ProductRef]) -> None:
        now = time.monotonic()
        for ref in placed:
            if ref.run == RAW_RUN or ref.run == PRODUCTS_RUN or ref.run.startswith(f"{PRODUCTS_RUN}/"):
                self._added[ref.product, ref.data_id] = now, ref
                self._added.move_to_end((ref.product, ref.data_id))
        while self._added and (len(self._added) > _MOST_REMEMBERED or self._oldest() < now - _REMEMBERED_S):
            self._added.popitem(last=False)

    def _oldest(self) -> float:
        return next(iter(self._added.values()))[0]

    def _remembered(self, product: Product, data_id: DataId) -> ProductRef | None:
        since, ref = self._added.get((product.name, data_id), (0.0, None))
        return ref if time.monotonic() - since < _REMEMBERED_S else None

    def located(self, refs: Sequence[Any]) -> list[ProductRef]:
        """Return the middleware's references in our words, with the files' paths."""
        located = []
        for item in self.butler.get_many_uris(refs).items() if refs else ():
            ref, uris = item
            located.append(
                ProductRef(ref.datasetType.name, self.data_id_of(ref), Path(uris.primaryURI.ospath), ref.run)
            )
        return located

    def data_id_of(self, ref: Any) -> DataId:
        """Return the data id, in our words, of the middleware's reference to a product."""
        names = dimensions_of(product_named(ref.datasetType.name))
        mapping = dict(ref.dataId.required)
        return DataId(**{key: mapping[name] for name, key in names.items() if key not in ("skymap", "instrument")})

    def dataset_type(self, name: str) -> Any:
        """Return the middleware's dataset type of a product."""
        if name not in self._dataset_types:
            self._dataset_types[name] = dataset_type_of(product_named(name), self.butler.dimensions)
        return self._dataset_types[name]

    def coordinate(self, product: Product, data_id: DataId) -> Any:
        """Return the middleware's data id of a product."""
        values = data_id.values(product)
        named = {name: values[key] for name, key in dimensions_of(product).items() if key in values}
        dimensions = self.dataset_type(product.name).dimensions
        return DataCoordinate.standardize({**self._governor(product), **named}, dimensions=dimensions)

    @told_as_transient()
    def calibration_runs(self) -> list[str]:
        """Return the runs that hold calibration masters, newest first."""
        found = self.butler.collections.query(f"{CALIBRATIONS}/*", collection_types=CollectionType.RUN)
        return sorted(found, key=lambda run: (run.split("/")[1], len(run), run), reverse=True)

    @told_as_transient()
    def paths(self) -> set[Path]:
        """Return the files of all products of all versions."""
        known: set[Path] = set()
        runs = self.butler.collections.query("*", collection_types=CollectionType.RUN)
        with self.butler.query() as query:
            for name in PRODUCTS:
                refs = list(query.datasets(name, collections=runs, find_first=False))
                known.update(Path(uris.primaryURI.ospath) for uris in self.butler.get_many_uris(refs).values())
        return known

    def _ingest(self, files: Sequence[StoredFile]) -> list[ProductRef]:
        refs = [self._dataset_ref(item) for item in files]
        unique = {ref.id: FileDataset(path=item.path, refs=[ref]) for item, ref in zip(files, refs, strict=True)}
        self.butler.ingest(*unique.values(), transfer=None, skip_existing=True)
        return self.located(refs)

    def _add_versions(self, files: Sequence[StoredFile], versioned: Collection[tuple[str, str]]) -> list[ProductRef]:
        """Add each file as the newest version of its product, unless the newest has this content already.

        Versions are in ``run``, ``run/v2``, ``run/v3``... ``versioned``: product and run of those that may be there.
        """
        newest, placed = self._newest_versions([f for f in files if (f.product, f.run) in versioned]), []
        for item in files:
            number, there = newest.get(_key(item), (0, None))
            candidate = replace(item, run=_versioned(item.run, number))
            if self._dataset_ref(candidate).id != there:
                candidate = replace(item, run=_versioned(item.run, number + 1))
                newest[_key(item)] = number + 1, self._dataset_ref(candidate).id
            placed.append(candidate)
        runs = sorted({item.run for item in placed}, key=lambda run: (len(run), run))
        self._need_runs(runs)
        try:
            return self._ingest(placed)
        except ConflictingDefinitionError:
            if not self._mend_runs(runs):
                raise
            return self._ingest(placed)

    def _newest_versions(self, files: Sequence[StoredFile]) -> dict[tuple[str, DataId, str], tuple[int, Any]]:
        """Return the newest version of these products, as number and dataset id, by product, data id and first run."""
        newest: dict[tuple[str, DataId, str], tuple[int, Any]] = {}
        for name, first_run in {(item.product, item.run) for item in files}:
            mine = [item for item in files if (item.product, item.run) == (name, first_run)]
            runs = [first_run, *self._versions_of(first_run)]
            coordinates = {self.coordinate(product_named(name), item.data_id) for item in mine}
            with self.butler.query() as query:
                joined = query.join_data_coordinates(coordinates)
                for ref in joined.datasets(self.dataset_type(name), collections=runs, find_first=False):
                    key = name, self.data_id_of(ref), first_run
                    version = runs.index(ref.run) + 1
                    newest[key] = max(newest.get(key, (0, None)), (version, ref.id), key=lambda found: found[0])
        return newest

    def _with_versions(self, kinds: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those products and runs of which some are there in later versions."""
        found: set[tuple[str, str]] = set()
        for run in {run for _, run in kinds}:
            for info in self.butler.collections.query_info(
                f"{run}/v*", collection_types=CollectionType.RUN, include_summary=True
            ):
                found.update((name, run) for name in info.dataset_types or ())
        return found & set(kinds)

    def _versions_of(self, run: str) -> list[str]:
        """Return the runs of later versions, oldest first."""
        found = self.butler.collections.query(f"{run}/v*", collection_types=CollectionType.RUN)
        return sorted(found, key=lambda name: (len(name), name))

    def _dataset_ref(self, item: StoredFile) -> Any:
        """Return a reference whose id depends on what, which, where and the content: the same again is the same."""
        product = product_named(item.product)
        words = (item.product, repr(sorted(item.data_id.values(product).items())), item.run, item.sha256)
        return DatasetRef(
            self.dataset_type(item.product),
            self._with_records(self.coordinate(product, item.data_id)),
            run=item.run,
            id=uuid5(NAMESPACE_URL, "\x1f".join(words)),
        )

    def _with_records(self, coordinate: Any) -> Any:
        """Return a data id with its records, which never change; all products of an image share one."""
        if coordinate not in self._expanded:
            self._expanded[coordinate] = self.butler.registry.expandDataId(coordinate)
            if len(self._expanded) > _MOST_REMEMBERED:
                self._expanded.popitem(last=False)
        return self._expanded[coordinate]

    def _governor(self, product: Product) -> dict[str, str]:
        return {"skymap": SKYMAP} if "field" in product.keys else {"instrument": self.camera.name}

    def _collections(self, product: Product, run: str | None) -> str | list[str]:
        return run or (self.calibration_runs() if product.is_calibration else CURRENT)

    def _need_types(self, products: Sequence[str]) -> None:
        """Register the types of products that are younger than the repository."""
        for name in products:
            if name not in self._registered:
                self.butler.registry.registerDatasetType(self.dataset_type(name))
                self._registered.add(name)

    def _need_runs(self, runs: Sequence[str]) -> None:
        """Register runs; those not of calibrations come first among the current products, the last one foremost."""
        for run in runs:
            if run in self._runs:
                continue
            self.butler.collections.register(run, CollectionType.RUN)
            if not run.startswith(f"{CALIBRATIONS}/"):
                chain = self.butler.collections.get_info(CURRENT).children
                if run not in chain:
                    self.butler.collections.prepend_chain(CURRENT, run)
            self._runs.add(run)

    def _mend_runs(self, runs: Sequence[str]) -> bool:
        """Write runs anew that hold nothing; return whether there were any.

        The middleware writes a run in two transactions; a process killed between them leaves a name that
        takes no dataset. (A run that another process fills at this moment cannot be removed, and stays.)
        """
        mended, collections = [], self.butler.collections
        for run in runs:
            if collections.get_info(run, include_summary=True).dataset_types:
                continue
            with contextlib.suppress(OrphanedRecordError):
                collections.remove_from_chain(CURRENT, run)
                collections.x_remove(run)
                mended.append(run)
            self._runs.discard(run)
        self._need_runs(runs)
        return bool(mended)


def _key(item: StoredFile) -> tuple[str, DataId, str]:
    return item.product, item.data_id, item.run


def _versioned(run: str, number: int) -> str:
    return run if number <= 1 else f"{run}/v{number}"


def _sortable(data_id: DataId) -> tuple[Any, ...]:
    values = (data_id.visit, data_id.field, data_id.detector, data_id.band, data_id.physical_filter)
    return tuple((value is not None, value if value is not None else 0) for value in values)
