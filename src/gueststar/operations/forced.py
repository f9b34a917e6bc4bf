"""Forced photometry over a survey's science images, for a reader."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.rights import Program
from gueststar.pipelines.science.forced import ForcedConfig, MeasureForced
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import rights_policy


def forced_photometry(
    repo: SurveyRepo,
    places: Catalog,
    *,
    band: str | None = None,
    night: int | None = None,
    programs: Collection[str] = ("public",),
    config: ForcedConfig | None = None,
) -> Catalog:
    """Return fluxes at ``places`` (place, ra, dec) on every science image that covers them and the reader may see.

    ``band`` and ``night`` (YYYYMMDD) restrict the exposures. Rows are FORCED_PHOTOMETRY, in the order of the
    exposures. Raises DataError where no image covers any place.
    """
    readers = [Program[name.upper()] for name in programs]
    policy, now = rights_policy(repo.settings), times.now_mjd_tai()
    found: list[Catalog] = []
    ra, dec = (np.asarray(places[name], dtype=np.float64) for name in ("ra", "dec"))
    numbers = np.asarray(places["place"], dtype=np.int64)
    for row in repo.ledger.exposures(observation_type="science"):
        info = row.info
        seen = any(
            policy.may_appear(info.program, in_stream=reader, item_day_obs=info.day_obs, at_mjd_tai=now)
            for reader in readers
        )
        if not seen or band not in (None, info.band) or night not in (None, info.day_obs):
            continue
        for detector in row.detectors:
            data_id = DataId(visit=row.id, detector=detector)
            image, sources = (repo.find_one(name, data_id) for name in ("science_image", "source"))
            if image is None or sources is None:
                continue
            fluxes = MeasureForced(config or ForcedConfig()).run(
                repo.read(image), repo.read(sources), ra=ra, dec=dec, places=numbers
            )  # fmt: skip
            if fluxes.n_rows:
                found.append(fluxes)
    if not found:
        raise DataError(f"no science image that programs {', '.join(programs)} may see covers any of the places")
    return concatenate(found)
