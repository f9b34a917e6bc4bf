"""What a warm worker keeps between units of work: camera, catalogs, recently read images."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.cameras.load import load_camera
from gueststar.formats.calibrated_image import read_around, read_calibrated_image
from gueststar.formats.detrended_frame import read_detrended_frame
from gueststar.formats.parquet import read_catalog
from gueststar.model.camera import Camera
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, DetrendedFrame
from gueststar.pipelines.engine.allocation import keep_freed_memory
from gueststar.store.product_paths import path_of_staged
from gueststar.store.products import DataId, StagedProduct
from gueststar.store.refcats import RefcatStore
from gueststar.store.reliability_models import ReliabilityModels
from gueststar.store.staging import stage_image, stage_product

Floats = NDArray[np.float64]

KEPT_IMAGES = 2
"""Images that a worker keeps of those that it read: a science image, and the reference that the next may need again."""


class WorkerContext:
    """A worker's door to one repository: reads files, writes to staging, never opens the registry."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.camera: Camera = load_camera(str(root / "camera.yaml"))
        self.refcats = RefcatStore(root / "refcats")
        self._images: OrderedDict[Path, CalibratedImage] = OrderedDict()
        self._made: dict[Path, CalibratedImage] = {}
        self._frame = lru_cache(maxsize=2)(read_detrended_frame)
        self._catalog = lru_cache(maxsize=1)(read_catalog)
        self._models = ReliabilityModels(root)

    @staticmethod
    @lru_cache(maxsize=4)
    def of(root: Path) -> WorkerContext:
        """Return this process's context of a repository."""
        keep_freed_memory()
        return WorkerContext(root)

    def stage(self, product: str, data_id: DataId, value: Any) -> StagedProduct:
        """Write a product to the repository's staging folder, to be committed by the one writer."""
        return stage_product(self.root, self.camera, product, data_id, value)

    def stage_image(
        self, product: str, data_id: DataId, image: CalibratedImage
    ) -> tuple[StagedProduct, CalibratedImage]:
        """Write an image as `stage` does; return what was staged, and the image as it will be read."""
        return stage_image(self.root, product, data_id, image)

    def keep(self, staged: StagedProduct, image: CalibratedImage) -> None:
        """Keep an image, until the next one comes, as what `image` returns of the file, once that is committed."""
        self._made = {self.stored_path(staged): image}

    def drop_made(self) -> None:
        """Let go of the image that was kept: the next one is about to be made, and room is dear."""
        self._made = {}

    def stored_path(self, staged: StagedProduct) -> Path:
        """Return where a staged product will lie once it is committed."""
        return self.root / "products" / path_of_staged(staged, self.camera)

    def image(self, path: Path) -> CalibratedImage:
        """Return an image, kept in memory for the next units that need it."""
        if (made := self._made.get(path)) is not None:
            return made
        if (kept := self._images.get(path)) is None:
            return self._kept(path, read_calibrated_image(path))
        self._images.move_to_end(path)
        return kept

    def image_around(self, path: Path, *, ra: Floats, dec: Floats) -> CalibratedImage:
        """Return an image of which the pixels around some places (degrees) are needed only.

        It is whole where it is kept in memory anyway; else it is read in part and not kept.
        """
        kept = self._made.get(path) or self._images.get(path)
        return read_around(path, ra=ra, dec=dec) if kept is None else kept

    def _kept(self, path: Path, image: CalibratedImage) -> CalibratedImage:
        self._images[path] = image
        if len(self._images) > KEPT_IMAGES:
            self._images.popitem(last=False)
        return image

    def reliability_model(self) -> ReliabilityModel | None:
        """Return the reliability model in use in the survey; None: the one that ships."""
        return self._models.in_use()

    def frame(self, path: Path) -> DetrendedFrame:
        """Return detrended pixels, or other planes of that form, kept in memory for the next units."""
        return self._frame(path)

    def catalog(self, path: Path) -> Catalog:
        """Return a catalog, kept in memory for the next unit that needs it: the reference's."""
        return self._catalog(path)
