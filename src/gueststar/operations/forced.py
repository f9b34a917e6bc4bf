"""Forced photometry over a survey's science or difference images, for a reader."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.core.ids import object_name_parts
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import FORCED_PHOTOMETRY
from gueststar.model.rights import Program
from gueststar.pipelines.alerts.view import object_names_known, tiers_of_view
from gueststar.pipelines.difference.forced import DifferenceForcedConfig, ImageFacts, MeasureOnDifference
from gueststar.pipelines.science.forced import ForcedConfig, MeasureForced
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import ExposureRow
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import rights_policy

PUBLIC_ONLY = ("public",)


def forced_photometry(
    repo: SurveyRepo,
    places: Catalog,
    *,
    band: str | None = None,
    night: int | None = None,
    programs: Collection[str] = PUBLIC_ONLY,
    config: ForcedConfig | None = None,
) -> Catalog:
    """Return fluxes at ``places`` (place, ra, dec) on every science image that covers them and the reader may see.

    ``band`` and ``night`` (YYYYMMDD) restrict the exposures. Rows are FORCED_PHOTOMETRY, in the order of the
    exposures. Raises DataError where no image covers any place.
    """
    measure = MeasureForced(config or ForcedConfig())
    ra, dec = (np.asarray(places[name], dtype=np.float64) for name in ("ra", "dec"))
    numbers = np.asarray(places["place"], dtype=np.int64)
    found: list[Catalog] = []
    for _, data_id in _visible_images(repo, band=band, night=night, programs=programs):
        image, sources = (repo.find_one(name, data_id) for name in ("science_image", "source"))
        if image is not None and sources is not None:
            found.append(measure.run(repo.read(image), repo.read(sources), ra=ra, dec=dec, places=numbers))
    return _together(found, "science", programs)


def forced_on_differences(
    repo: SurveyRepo,
    places: Catalog,
    *,
    band: str | None = None,
    night: int | None = None,
    programs: Collection[str] = PUBLIC_ONLY,
    config: DifferenceForcedConfig | None = None,
) -> Catalog:
    """Return fluxes at ``places`` (place, ra, dec) on every difference image that covers them and the reader may see.

    They are those of `forced_source`: what has changed since the reference was made, of either sign, with no local
    background. Restrictions, rows (their ``sky`` is 0) and errors are those of `forced_photometry`.
    """
    measure = MeasureOnDifference(config or DifferenceForcedConfig())
    ra, dec = (np.asarray(places[name], dtype=np.float64) for name in ("ra", "dec"))
    numbers, rows = np.asarray(places["place"], dtype=np.int64), np.arange(len(ra))
    found: list[Catalog] = []
    for row, data_id in _visible_images(repo, band=band, night=night, programs=programs):
        stored = repo.find_one("difference_image", data_id)
        if stored is None:
            continue
        facts = ImageFacts(row.id, data_id.detector or 0, row.info.mjd_tai, 0, int(row.info.program))
        fluxes = measure.run(repo.read(stored), facts, object_ids=rows, ra=ra, dec=dec)
        which = fluxes["dia_object_id"]
        columns = {name: fluxes[name] for name in ("visit", "detector", "mjd_tai", "x", "y", "psf_flux", "psf_flux_err", "chi2", "flags")}  # fmt: skip  # noqa: E501
        columns |= {"place": numbers[which], "ra": ra[which], "dec": dec[which], "sky": np.zeros(len(which))}
        found.append(FORCED_PHOTOMETRY.catalog(columns))
    return _together(found, "difference", programs)


def place_of_object(repo: SurveyRepo, name: str, *, programs: Collection[str] = PUBLIC_ONLY) -> Catalog:
    """Return the place (place, ra, dec) of an object by its name, as the reader's programs give it.

    Raises DataError where they know no object of this name, whoever else does.
    """
    number, policy = object_name_parts(name).number, rights_policy(repo.settings)
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    known = store.object_named(number)
    store.close()
    prefix = name[:3]
    for program in programs:
        stream = Program[program.upper()]
        if known is not None and name in object_names_known(known, stream, policy=policy, prefix=prefix):
            first, *_ = tiers_of_view(known, stream, policy)
            return Catalog({"place": np.zeros(1, dtype=np.int64), "ra": first["ra"], "dec": first["dec"]})
    raise DataError(f"programs {', '.join(programs)} know no object {name}")


def _visible_images(
    repo: SurveyRepo, *, band: str | None, night: int | None, programs: Collection[str]
) -> Iterator[tuple[ExposureRow, DataId]]:
    """Yield the detector images that a reader may see now."""
    readers = [Program[name.upper()] for name in programs]
    policy, now = rights_policy(repo.settings), times.now_mjd_tai()
    for row in repo.ledger.exposures(observation_type="science"):
        info = row.info
        seen = any(
            policy.may_appear(info.program, in_stream=reader, item_day_obs=info.day_obs, at_mjd_tai=now)
            for reader in readers
        )
        if not seen or band not in (None, info.band) or night not in (None, info.day_obs):
            continue
        for detector in row.detectors:
            yield row, DataId(visit=row.id, detector=detector)


def _together(found: list[Catalog], kind: str, programs: Collection[str]) -> Catalog:
    told = [fluxes for fluxes in found if fluxes.n_rows]
    if not told:
        raise DataError(f"no {kind} image that programs {', '.join(programs)} may see covers any of the places")
    return concatenate(told)
