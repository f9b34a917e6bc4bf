"""Forced photometry over a survey's science or difference images, for a reader."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gueststar.core.errors import DataError
from gueststar.core.ids import object_name_parts
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import FORCED_PHOTOMETRY
from gueststar.pipelines.alerts.view import object_names_known, tiers_of_view
from gueststar.pipelines.difference.forced import DifferenceForcedConfig, ImageFacts, MeasureOnDifference
from gueststar.pipelines.science.forced import ForcedConfig, MeasureForced
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import ExposureRow
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import rights_policy


def forced_photometry(
    repo: SurveyRepo,
    places: Catalog,
    *,
    band: str | None = None,
    night: int | None = None,
    config: ForcedConfig | None = None,
) -> Catalog:
    """Return fluxes at ``places`` (place, ra, dec) on every science image that covers them and that the reader sees.

    ``band`` and ``night`` (YYYYMMDD) restrict the exposures. Rows are FORCED_PHOTOMETRY, in the order of the
    exposures. Raises DataError where no image covers any place.
    """
    measure = MeasureForced(config or ForcedConfig())
    ra, dec = (np.asarray(places[name], dtype=np.float64) for name in ("ra", "dec"))
    numbers = np.asarray(places["place"], dtype=np.int64)
    found: list[Catalog] = []
    for _, data_id in _images(repo, band=band, night=night):
        image, sources = (repo.find_one(name, data_id) for name in ("science_image", "source"))
        if image is not None and sources is not None:
            found.append(measure.run(repo.read(image), repo.read(sources), ra=ra, dec=dec, places=numbers))
    return _together(found, "science", repo)


def forced_on_differences(
    repo: SurveyRepo,
    places: Catalog,
    *,
    band: str | None = None,
    night: int | None = None,
    config: DifferenceForcedConfig | None = None,
) -> Catalog:
    """Return fluxes at ``places`` (place, ra, dec) on every difference image that covers them and that the reader sees.

    They are those of `forced_source`: what has changed since the reference was made, of either sign, with no local
    background. Restrictions, rows (their ``sky`` is 0) and errors are those of `forced_photometry`.
    """
    measure = MeasureOnDifference(config or DifferenceForcedConfig())
    ra, dec = (np.asarray(places[name], dtype=np.float64) for name in ("ra", "dec"))
    numbers, rows = np.asarray(places["place"], dtype=np.int64), np.arange(len(ra))
    found: list[Catalog] = []
    for row, data_id in _images(repo, band=band, night=night):
        stored = repo.find_one("difference_image", data_id)
        if stored is None:
            continue
        facts = ImageFacts(row.id, data_id.detector or 0, row.info.mjd_tai, 0, int(row.info.program))
        fluxes = measure.run(repo.read(stored), facts, object_ids=rows, ra=ra, dec=dec)
        which = fluxes["dia_object_id"]
        columns = {name: fluxes[name] for name in ("visit", "detector", "mjd_tai", "x", "y", "psf_flux", "psf_flux_err", "chi2", "flags")}  # fmt: skip  # noqa: E501
        columns |= {"place": numbers[which], "ra": ra[which], "dec": dec[which], "sky": np.zeros(len(which))}
        found.append(FORCED_PHOTOMETRY.catalog(columns))
    return _together(found, "difference", repo)


def place_of_object(repo: SurveyRepo, name: str) -> Catalog:
    """Return the place (place, ra, dec) of an object by its name, as the reader's streams give it.

    Raises DataError where they know no object of this name, whoever else does.
    """
    number, policy = object_name_parts(name).number, rights_policy(repo.settings)
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    known = store.object_named(number)
    store.close()
    for stream in sorted(repo.sight.streams):
        if known is not None and name in object_names_known(known, stream, policy=policy, prefix=name[:3]):
            first, *_ = tiers_of_view(known, stream, policy)
            return Catalog({"place": np.zeros(1, dtype=np.int64), "ra": first["ra"], "dec": first["dec"]})
    raise DataError(f"{repo.sight.reader.name} knows no object {name}")


def _images(repo: SurveyRepo, *, band: str | None, night: int | None) -> Iterator[tuple[ExposureRow, DataId]]:
    """Yield the detector images of the survey as its reader sees it."""
    for row in repo.ledger.exposures(observation_type="science", day_obs=night):
        if band in (None, row.info.band):
            for detector in row.detectors:
                yield row, DataId(visit=row.id, detector=detector)


def _together(found: list[Catalog], kind: str, repo: SurveyRepo) -> Catalog:
    told = [fluxes for fluxes in found if fluxes.n_rows]
    if not told:
        raise DataError(f"no {kind} image that {repo.sight.reader.name} may see covers any of the places")
    return concatenate(told)
