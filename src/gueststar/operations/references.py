"""The versions of the references at a place, and the flux that each of them holds there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gueststar.core.errors import DataError
from gueststar.pipelines.reference.compare import static_flux
from gueststar.store.products import ProductRef
from gueststar.store.repo import SurveyRepo


class ReferenceAt(NamedTuple):
    """One version of a reference at a place."""

    reference_id: int
    """``rfid`` of the packets."""
    field: int
    detector: int
    band: str
    version: int
    """From 1; the highest is what new exposures are compared with."""
    n_epochs: int
    mjd_first: float
    """Start of its earliest exposure, MJD TAI."""
    mjd_last: float
    flux: float
    """PSF flux of the static sky at the place, nJy; NaN where it is masked. The flux of an object is this and that
    of its difference detection, of the same ``reference_id``."""
    flux_err: float


def references_at(repo: SurveyRepo, *, ra: float, dec: float, band: str | None = None) -> list[ReferenceAt]:
    """Return all versions of all references that cover a place (degrees), by field, detector, band and version.

    Raises DataError when none covers it.
    """
    found = []
    for version, ref in _versions(repo):
        if band in (None, ref.data_id.band):
            image = repo.read(ref)
            x, y = image.wcs.sky_to_pixel(ra=np.array([ra]), dec=np.array([dec]))
            ny, nx = image.shape
            if not (0 <= float(x[0]) < nx and 0 <= float(y[0]) < ny):
                continue
            flux = static_flux(image, ra=np.array([ra]), dec=np.array([dec]))
            facts = image.metadata
            found.append(
                ReferenceAt(
                    int(facts["reference_id"]), int(facts["field"]), int(facts["detector"]), str(facts["band"]),
                    version, len(facts["epochs"]), float(facts["mjd_first"]), float(facts["mjd_last"]),
                    float(flux.flux[0]), float(flux.flux_err[0]),
                )
            )  # fmt: skip
    if not found:
        raise DataError(f"no reference covers {ra:.5f}, {dec:.5f}{f' in {band}' if band else ''}")
    return sorted(found, key=lambda item: (item.field, item.detector, item.band, item.version))


def _versions(repo: SurveyRepo) -> Iterator[tuple[int, ProductRef]]:
    """Return every version of every reference, with its number."""
    version = 1
    while refs := repo.find("reference_image", run="products" if version == 1 else f"products/v{version}"):
        for ref in refs:
            yield version, ref
        version += 1
