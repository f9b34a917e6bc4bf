"""The calibration products that a repository holds for an exposure: found by the planner, read by workers."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gueststar.model.calibration import KINDS, CalibrationKind, CalibrationMaster, CalibrationProduct, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.refcat_import import FindCalibrations
from gueststar.store.product_files import read_product
from gueststar.store.products import DataId, product_named
from gueststar.store.repo import SurveyRepo

if TYPE_CHECKING:
    from gueststar.store.butler_calibrations import ValidMaster

CalibrationPaths = Mapping[CalibrationKind, Path]
"""Files of the calibration products for one exposure and detector; kinds without one are absent."""


APPLIED: tuple[CalibrationKind, ...] = tuple(name for name, kind in KINDS.items() if kind.is_applied)
"""Kinds that exposures are calibrated with."""


class CalibrationFinder:
    """Finds the products that are valid for an exposure, asking the registry once for each kind and day.

    It asks again about a kind of which this process certified a product since (`SurveyRepo.certify`). What another
    process certified it does not see: nights have one writer at a time.
    """

    def __init__(self, repo: SurveyRepo) -> None:
        self._repo = repo
        self._known: dict[tuple[CalibrationKind, int], tuple[int, dict[DataId, list[ValidMaster]]]] = {}

    def path(self, kind: CalibrationKind, detector: int, mjd_tai: float, physical_filter: str | None) -> Path | None:
        """Return the file of the product that is valid at a time, or None; the filter counts where the kind has one."""
        if KINDS[kind].is_per_filter and physical_filter is None:
            return None
        data_id = DataId(detector=detector, physical_filter=physical_filter if KINDS[kind].is_per_filter else None)
        valids = self._valid_on(kind, int(mjd_tai)).get(data_id, ())
        return next((Path(valid.ref.path) for valid in valids if valid.is_valid_at(mjd_tai)), None)

    def _valid_on(self, kind: CalibrationKind, day: int) -> Mapping[DataId, Sequence[ValidMaster]]:
        """Return the products of a kind that are valid at some time of a day (MJD TAI), by data id."""
        n_certified = self._repo.n_certified[kind]
        asked_after, known = self._known.get((kind, day), (-1, {}))
        if asked_after != n_certified:
            known = defaultdict(list)
            for valid in self._repo.calibrations_during(kind, day, day + 1):
                known[valid.ref.data_id].append(valid)
            self._known[kind, day] = n_certified, known
        return known

    def paths(
        self, detector: int, info: ExposureInfo, kinds: Iterable[CalibrationKind] = APPLIED
    ) -> dict[CalibrationKind, Path]:
        """Return the files of the products of ``kinds`` that are valid when an exposure was taken."""
        found = {kind: self.path(kind, detector, info.mjd_tai, info.physical_filter) for kind in kinds}
        return {kind: path for kind, path in found.items() if path is not None}


KEPT_BYTES = 256 * 2**20
"""Pixels of calibration products that a process keeps for the next detector images: bias and flat of 3k x 3k pixels."""


class RecentProducts:
    """Calibration products read not long ago, the oldest forgotten when they hold too many pixels."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[CalibrationKind, Path, int, int], CalibrationProduct] = OrderedDict()

    def read(self, kind: CalibrationKind, path: Path) -> CalibrationProduct:
        """Return a product, from memory where its file is the one read before; nobody may alter its arrays."""
        state = path.stat() if path.exists() else None
        if state is None:
            return self._fresh(kind, path)
        key = (kind, path, state.st_mtime_ns, state.st_size)
        product = self._kept.pop(key) if key in self._kept else self._fresh(kind, path)
        self._kept[key] = product
        while sum(map(_n_bytes, self._kept.values())) > self.max_bytes:
            self._kept.popitem(last=False)
        return product

    @staticmethod
    def _fresh(kind: CalibrationKind, path: Path) -> CalibrationProduct:
        product: CalibrationProduct = _read(kind, path)
        return product


def _n_bytes(product: CalibrationProduct) -> int:
    """Return the memory of a product's pixels; tables are small."""
    if not isinstance(product, CalibrationMaster):
        return 0
    pixels, layers = product.pixels, product.layers
    planes = pixels.image.nbytes + pixels.variance.nbytes + pixels.mask.nbytes
    return planes + (0 if layers is None else layers.nbytes)


_RECENT = RecentProducts()


def read_calibrations(paths: CalibrationPaths) -> Calibrations:
    """Return calibration products, read or kept from the last time in this process; DataError for a file that is none.

    Nobody may alter their arrays.
    """
    products: dict[str, Any] = {kind: _RECENT.read(kind, path) for kind, path in paths.items()}
    return Calibrations(**products)


def calibrations_of(repo: SurveyRepo) -> FindCalibrations:
    """Return a function that reads what a repository holds for a detector and an exposure."""
    finder, read = CalibrationFinder(repo), lru_cache(maxsize=16)(_read)

    def find(detector: Detector, info: ExposureInfo) -> Calibrations:
        paths = finder.paths(detector.id, info)
        return Calibrations(**{kind: read(kind, path) for kind, path in paths.items()})

    return find


def _read(kind: CalibrationKind, path: Path) -> Any:
    return read_product(product_named(kind), path)
