"""Exposures whose header tells no position, found by their stars; and the index files that this needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gueststar.algorithms.astrometry.horizon import airmass_at, altitude_deg
from gueststar.cameras.translate import Translation
from gueststar.core.errors import ConfigError, DataError
from gueststar.core.times import mjd_utc
from gueststar.formats.raw import read_detector
from gueststar.model.camera import Camera
from gueststar.model.columns import REFCAT
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.science.astrometry import brightness_of
from gueststar.pipelines.science.blind_position import FindPosition
from gueststar.store.blind_solver import BlindSolver, build_indexes
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

OWN_INDEXES = "blind_indexes"
"""Folder of a repository with the index files made of its reference catalogs."""


def solver_of(repo: SurveyRepo) -> BlindSolver:
    """Return the solver with the repository's index files and those that the camera's file names."""
    given = repo.camera.blind_solving
    if given is None:
        raise ConfigError(f"camera {repo.camera.name} allows no blind solving: put 'blind_solving: {{}}' into its file")
    return BlindSolver([repo.root / OWN_INDEXES, *given.index_folders], cpu_limit_s=given.cpu_limit_s)


def find_position(repo: SurveyRepo, translation: Translation, path: Path) -> Translation:
    """Return the translation with the position that the stars of the file's first solvable detector imply.

    Raises DataError where no detector's stars fit any place, and MissingInput where the solver or its index
    files lack.
    """
    camera, solver, reasons = repo.camera, solver_of(repo), []
    for number in translation.detector_ids:
        detector = camera.detector(number)
        try:
            found = FindPosition(solver.solve).run(
                read_detector(path, detector, translation.info), camera, detector
            )  # fmt: skip
        except DataError as problem:
            reasons.append(str(problem))
            continue
        info = replace(
            translation.info, ra=found.ra % 360.0, dec=found.dec, rotation_deg=found.rotation_deg,
            airmass=translation.info.airmass or _airmass(camera, found.ra, found.dec, translation.info),
        )  # fmt: skip
        note = (
            f"position RA {found.ra:.4f} Dec {found.dec:+.4f}, rotation {found.rotation_deg:.2f} deg found by "
            f"{found.n_matches} stars of detector {detector.name}, odds 1e{found.log_odds / np.log(10.0):.0f}"
        )
        return replace(translation, info=info, warnings=(*translation.warnings, note))
    raise DataError("no position in the header, and none found by the stars: " + "; ".join(reasons))


def _airmass(camera: Camera, ra: float, dec: float, info: ExposureInfo) -> float | None:
    site = camera.site
    altitude = altitude_deg(
        ra=ra, dec=dec, mjd_utc=mjd_utc(info.mjd_tai), latitude_deg=site.latitude_deg, longitude_deg=site.longitude_deg,
        height_m=site.height_m,
    )  # fmt: skip
    return airmass_at(altitude) if altitude > 0.0 else None


def _catalogs(repo: SurveyRepo) -> RefcatStore:
    return RefcatStore(repo.root / "refcats")


def index_refcat(repo: SurveyRepo, name: str | None = None) -> list[Path]:
    """Make index files of a stored reference catalog (the only one, if no name is given) for the camera's images."""
    names = _catalogs(repo).names()
    chosen = name or (names[0] if len(names) == 1 else None)
    if chosen is None:
        raise ConfigError(f"name the catalog to index: there are {', '.join(names) or 'none'}")
    stars = _catalogs(repo).everything(chosen)
    camera = repo.camera
    sides = [min(detector.shape) for detector in camera.detectors]
    side = float(np.median(sides)) * camera.pixel_scale_arcsec / 60.0
    band = camera.filters[0].catalog_band
    if stars.n_rows == 0:
        raise DataError(f"{REFCAT.name} {chosen} holds no stars")
    return build_indexes(
        stars, brightness_of(stars, band), repo.root / OWN_INDEXES, name=chosen, side_arcmin=side
    )  # fmt: skip
