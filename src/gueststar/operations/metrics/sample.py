"""Bright stars of the survey's catalogs, matched over exposures: what repeatability is measured on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.match import nearest
from gueststar.algorithms.association.sky_index import separation_arcsec, sky_positions, unit_vectors
from gueststar.algorithms.astrometry.proper_motion import propagate_positions
from gueststar.algorithms.verification.stars import Detections, match_detections, mean_magnitudes, mean_positions
from gueststar.core.bits import USES
from gueststar.core.errors import ConfigError
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
from gueststar.store.products import DataId, ProductRef
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo
from gueststar.store.source_tables import read_rows

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class SampleConfig:
    """Which detections count as bright stars, and of how many exposures."""

    min_snr: float = 100.0
    """Of the detection."""
    max_sharpness: float = 0.2
    """How much wider or sharper than the PSF a star may look."""
    radius_arcsec: float = 1.0
    """Detections of different exposures this near to each other are one star."""
    max_fields: int = 8
    """The fields with the most exposures are taken."""
    max_exposures: int = 60
    """Of each field: the last ones."""
    catalog_radius_arcsec: float = 1.5
    """How far a star of the reference catalog may be."""


@dataclass(frozen=True)
class FieldStars:
    """Stars of one field, in all bands: one row a detection."""

    field: int
    rows: Detections
    """``image`` numbers the exposures in all bands; the same star has the same number in all bands."""
    band: Indices
    """Number of the band of each row, in ``bands``."""
    unit: Indices
    """Number of the detector image of each row."""
    bands: tuple[str, ...]
    colour_term: Floats
    """``[unit]`` of the photometric solution: magnitudes are for colour 0."""
    epoch: float
    """Mean Julian year."""

    def of_band(self, band: str) -> tuple[Detections, Indices]:
        """Return the rows of one band with exposures renumbered, and their detector images."""
        mine = self.band == self.bands.index(band)
        rows, unit = self.rows.select(mine), self.unit[mine]
        return rows._replace(image=_renumbered(rows.image)), _renumbered(unit)


def _renumbered(numbers: Indices) -> Indices:
    return np.unique(numbers, return_inverse=True)[1].astype(np.intp)


def chosen_exposures(
    repo: SurveyRepo, night: int | None, config: SampleConfig
) -> dict[int, list[tuple[ExposureInfo, tuple[int, ...]]]]:
    """Return the science exposures to measure on, with their detectors, by field: the fields with the most of them."""
    by_field: dict[int, list[tuple[ExposureInfo, tuple[int, ...]]]] = defaultdict(list)
    for row in repo.ledger.exposures(observation_type="science", day_obs=night):
        if row.info.field is not None and row.info.band is not None:
            by_field[row.info.field].append((row.info, row.detectors))
    most = sorted(by_field, key=lambda number: (-len(by_field[number]), number))[: config.max_fields]
    return {number: _last_of_bands(by_field[number], config.max_exposures) for number in most}


def _last_of_bands(
    rows: list[tuple[ExposureInfo, tuple[int, ...]]], most: int
) -> list[tuple[ExposureInfo, tuple[int, ...]]]:
    by_band: dict[str, list[tuple[ExposureInfo, tuple[int, ...]]]] = defaultdict(list)
    for item in rows:
        by_band[str(item[0].band)].append(item)
    return sorted((item for mine in by_band.values() for item in mine[-most:]), key=lambda item: item[0].mjd_start)


def field_stars(
    repo: SurveyRepo, number: int, exposures: list[tuple[ExposureInfo, tuple[int, ...]]], config: SampleConfig
) -> FieldStars | None:
    """Return the bright stars of a field, matched over its exposures; None where there are no catalogs."""
    refs, image_of, colour_terms = _catalogs(repo, exposures)
    if not refs:
        return None
    columns = ("ra", "dec", "mag", "sharpness")
    found = read_rows([ref.path for ref in refs], columns, at_least={"snr": config.min_snr}, without_flags=~int(USES))
    is_star = np.abs(found["sharpness"]) < config.max_sharpness
    unit = found["file"][is_star]
    image = np.array(image_of, dtype=np.intp)[unit]
    order = np.argsort(image, kind="stable")
    values = [np.asarray(found[name], dtype=np.float64)[is_star][order] for name in columns[:3]]
    rows = match_detections(image[order], *values, radius_arcsec=config.radius_arcsec)
    bands = tuple(sorted({str(info.band) for info, _ in exposures}))
    band_of_image = np.array([bands.index(str(info.band)) for info, _ in exposures], dtype=np.intp)
    epoch = 2000.0 + (float(np.mean([info.mjd_tai for info, _ in exposures])) - 51544.5) / 365.25
    return FieldStars(number, rows, band_of_image[rows.image], unit[order], bands, np.array(colour_terms), epoch)


def _catalogs(
    repo: SurveyRepo, exposures: list[tuple[ExposureInfo, tuple[int, ...]]]
) -> tuple[list[ProductRef], list[int], list[float]]:
    """Return the catalogs of exposures, the number of the exposure of each, and its colour term."""
    refs, images, terms = [], [], []
    for image, (info, detectors) in enumerate(exposures):
        by_detector = {job.detector: job for job in repo.ledger.jobs(kind="science", exposure_id=info.exposure_id)}
        for detector in detectors:
            ref = repo.find_one("source", DataId(visit=info.exposure_id, detector=detector))
            if ref is not None:
                job = by_detector.get(detector)
                solved = job.metrics.get("photometry") if job is not None else None
                refs.append(ref)
                images.append(image)
                terms.append(float((solved or {}).get("colour_term") or 0.0))
    return refs, images, terms


@dataclass(frozen=True)
class CatalogStars:
    """Stars of one band and field that the reference catalog has."""

    star: Indices
    """Numbers of the field's stars."""
    offset_ra_mas: Floats
    """Mean place less the catalog's at the same epoch, on the sky."""
    offset_dec_mas: Floats
    difference_mag: Floats
    """Mean magnitude, brought to the catalog's system with the colour term, less the catalog's; NaN where unknown."""


def catalog_stars(repo: SurveyRepo, stars: FieldStars, band: str, config: SampleConfig) -> CatalogStars | None:
    """Return how the stars of a band differ from the reference catalog; None where it has none."""
    rows, _ = stars.of_band(band)
    ra, dec, n = mean_positions(rows)
    known = np.flatnonzero(n >= 2)
    if known.size == 0:
        return None
    middle, radius = _circle(ra[known], dec[known])
    try:
        catalog = RefcatStore(repo.root / "refcats").known_stars(ra=middle[0], dec=middle[1], radius_deg=radius)
    except ConfigError:  # several, of which none covers the place
        return None
    if catalog.n_rows == 0:
        return None
    at_ra, at_dec = propagate_positions(
        ra=catalog["ra"], dec=catalog["dec"], pm_ra=catalog["pm_ra"], pm_dec=catalog["pm_dec"],
        years=stars.epoch - catalog["epoch"],
    )  # fmt: skip
    index, _ = nearest(ra[known], dec[known], at_ra, at_dec, k=1, max_arcsec=config.catalog_radius_arcsec)
    has = index[:, 0] >= 0
    star, match = known[has], index[has, 0]
    east = (np.mod(ra[star] - at_ra[match] + 180.0, 360.0) - 180.0) * np.cos(np.radians(dec[star])) * 3.6e6
    mag = _standard_magnitudes(repo, stars, band)[star]
    return CatalogStars(
        star, east, (dec[star] - at_dec[match]) * 3.6e6, _differences(repo, band, catalog, match, mag)
    )  # fmt: skip


def _standard_magnitudes(repo: SurveyRepo, stars: FieldStars, band: str) -> NDArray:
    """Return ``[star, 2]``: the mean magnitude for colour 0, and the mean colour term that goes with it."""
    mine = stars.band == stars.bands.index(band)
    rows = stars.rows.select(mine)
    term = rows._replace(mag=stars.colour_term[stars.unit[mine]])
    return np.stack([mean_magnitudes(rows), mean_magnitudes(term)], axis=1)


def _differences(repo: SurveyRepo, band: str, catalog: Catalog, match: Indices, mag: NDArray) -> Floats:
    glass = next((item for item in repo.camera.filters if item.band == band), None)
    if glass is None or glass.catalog_band not in "griz":
        return np.full(match.size, np.nan)
    blue, red = glass.colour
    magnitudes = {name: np.asarray(catalog[f"mag_{name}"])[match] for name in {blue, red, glass.catalog_band}}
    colour = np.where(mag[:, 1] == 0.0, 0.0, magnitudes[blue] - magnitudes[red])  # no term: the colour is not needed
    return np.asarray(mag[:, 0] + mag[:, 1] * colour - magnitudes[glass.catalog_band])


def _circle(ra: Floats, dec: Floats) -> tuple[tuple[float, float], float]:
    vectors = unit_vectors(ra, dec)
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle)
    at = sky_positions(middle)
    return (float(at[0]), float(at[1])), float(separation_arcsec(vectors, middle).max()) / 3600.0 + 0.01
