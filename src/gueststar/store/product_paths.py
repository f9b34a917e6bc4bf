"""Where the files of products lie: named by what they are of and by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gueststar.core import ids, times
from gueststar.model.camera import Camera
from gueststar.store.products import PRODUCTS_RUN, SUFFIXES, DataId, Product, StagedProduct, product_named


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_path(product: Product, data_id: DataId, *, sha256: str, group: str) -> str:
    """Return where a product's file lies in the products folder; it depends on the content."""
    words = [str(value).replace("/", "-") for value in data_id.values(product).values()]
    name = "_".join([product.name, *words])
    return f"{product.name}/{group}/{name}-{sha256[:12]}{SUFFIXES[product.holds]}"


def path_of_staged(staged: StagedProduct, camera: Camera, *, run: str = PRODUCTS_RUN) -> str:
    """Return where a staged product's file will lie in the products folder once it is committed to a collection."""
    product, own_run = product_named(staged.product), staged.run or run
    group = group_of(product, staged.data_id, camera, run=own_run)
    return stored_path(product, staged.data_id, sha256=staged.sha256, group=group)


def group_of(product: Product, data_id: DataId, camera: Camera, *, run: str) -> str:
    """Return the folder of a product within its kind: its night, its field, or (calibrations) its run."""
    if product.is_calibration:
        return run.split("/")[1] if "/" in run else run
    if data_id.visit is not None:
        return str(night_of_exposure(data_id.visit, camera))
    return f"field_{data_id.field:06d}"


def night_of_exposure(exposure_id: int, camera: Camera) -> int:
    """Return the survey night of an exposure, from its id alone."""
    return times.day_obs(ids.exposure_start(exposure_id), longitude_deg=camera.site.longitude_deg)
