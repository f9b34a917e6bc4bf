"""Products written beside the repository by a worker, before the one writer makes them known."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from gueststar.core import times
from gueststar.model.camera import Camera
from gueststar.model.image import CalibratedImage
from gueststar.store.product_files import write_image, write_product
from gueststar.store.product_paths import digest_of
from gueststar.store.products import SUFFIXES, DataId, Product, StagedProduct, product_named


def stage_product(root: Path, camera: Camera, product: str, data_id: DataId, value: Any) -> StagedProduct:
    """Write a product's file into the staging folder; needs neither the registry nor the ledger."""
    description = product_named(product)
    path = _new_file(root, description, data_id)
    write_product(description, path, value)
    run = None
    if description.is_calibration:
        night = times.day_obs(value.mjd_tai, longitude_deg=camera.site.longitude_deg)
        run = f"calibrations/{night}"
    return StagedProduct(product, data_id, path, digest_of(path), run)


def stage_image(
    root: Path, product: str, data_id: DataId, image: CalibratedImage
) -> tuple[StagedProduct, CalibratedImage]:
    """Write an image's file into the staging folder; return what was staged, and the image as it will be read."""
    description = product_named(product)
    path = _new_file(root, description, data_id)
    restored = write_image(description, path, image)
    return StagedProduct(product, data_id, path, digest_of(path)), restored


def _new_file(root: Path, product: Product, data_id: DataId) -> Path:
    words = [str(word).replace("/", "-") for word in data_id.values(product).values()]
    return root / "staging" / f"{product.name}_{'_'.join(words)}_{uuid4().hex[:12]}{SUFFIXES[product.holds]}"
