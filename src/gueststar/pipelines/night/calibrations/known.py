"""The calibration products that a repository holds for an exposure: found by the planner, read by workers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gueststar.model.calibration import KINDS, CalibrationKind, CalibrationMaster, CalibrationProduct, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.refcat_import import FindCalibrations
from gueststar.store.product_files import read_product
from gueststar.store.products import product_named
from gueststar.store.repo import SurveyRepo

CalibrationPaths = Mapping[CalibrationKind, Path]
"""Files of the calibration products for one exposure and detector; kinds without one are absent."""


APPLIED: tuple[CalibrationKind, ...] = tuple(name for name, kind in KINDS.items() if kind.is_applied)
"""Kinds that exposures are calibrated with."""


class CalibrationFinder:
    """Finds the products that are valid for an exposure, asking the registry once for each kind, place and time."""

    def __init__(self, repo: SurveyRepo) -> None:
        self._find = lru_cache(maxsize=None)(repo.find_calibration)

    def paths(
        self, detector: int, info: ExposureInfo, kinds: Iterable[CalibrationKind] = APPLIED
    ) -> dict[CalibrationKind, Path]:
        """Return the files of the products of ``kinds`` that are valid when an exposure was taken."""
        found = {}
        for kind in kinds:
            glass = info.physical_filter if KINDS[kind].is_per_filter else None
            if KINDS[kind].is_per_filter and glass is None:
                continue
            if (ref := self._find(kind, detector, info.mjd_tai, glass)) is not None:
                found[kind] = Path(ref.path)
        return found


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
