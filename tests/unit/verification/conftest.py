"""A survey whose catalogs were never measured on pixels: their scatter is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gueststar.cameras.load import load_camera
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE, REFCAT, SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.store.products import DataId
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

NIGHTS = (20260110, 20260111)
MJD = 61050.2
MAS, MMAG, ZERO_POINT_MMAG = 6.0, 5.0, 8.0
"""Scatter of places (each coordinate), of magnitudes, and of the zero points of images."""
CATALOG_MAS, CATALOG_MMAG = 40.0, 12.0
"""By how much the reference catalog is off, in declination and in magnitude."""
CENTRE = (150.0, 20.0)


@dataclass(frozen=True)
class Known:
    """A survey and its folder."""

    root: Path
    visits: tuple[int, ...]


def exposure(camera: str, number: int, program: Program = Program.PUBLIC) -> ExposureInfo:
    """Return facts: the second half of the exposures is of the second night; the bands take turns."""
    night, band = NIGHTS[number // 8], "gr"[number % 2]
    return ExposureInfo(
        camera, "science", MJD + (number // 8) + 0.002 * number, 30.0, night, program, f"sim_{band}", band, *CENTRE,
        field=7,
    )  # fmt: skip


def filled(schema: object, n: int, **columns: object) -> Catalog:
    """Return a catalog of zeros but for what is given."""
    zeros = {column.name: np.zeros(n, dtype=column.dtype) for column in schema.columns}  # type: ignore[attr-defined]
    return schema.catalog({**zeros, **columns})  # type: ignore[attr-defined, no-any-return]


def catalog_of(rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, mag: np.ndarray) -> Catalog:
    """Return what one exposure would measure."""
    n, err = ra.size, MAS / 3.6e6
    return filled(
        SOURCE, n, ra=ra + rng.normal(0, err, n) / np.cos(np.radians(dec)), dec=dec + rng.normal(0, err, n),
        mag=(mag + rng.normal(0, MMAG / 1000, n) + rng.normal(0, ZERO_POINT_MMAG / 1000)).astype("f4"),
        snr=np.full(n, 300.0, dtype="f4"),
    )  # fmt: skip


def make_survey(root: Path, *, n: int = 16, do_private: bool = True) -> Known:
    """Make a survey of one field, two nights, two bands and two programs, work and catalogs included."""
    rng = np.random.default_rng(3)
    camera = load_camera("simcam")
    ra, dec = CENTRE[0] + rng.uniform(-0.3, 0.3, 500), CENTRE[1] + rng.uniform(-0.3, 0.3, 500)
    mag = rng.uniform(14, 17, 500)
    with SurveyRepo.create(root, camera) as repo:
        bright = filled(REFCAT, 500, ref_id=np.arange(500), ra=ra, dec=dec - CATALOG_MAS / 3.6e6,
                        epoch=np.full(500, 2026.0, "f4"), **{f"mag_{b}": (mag - CATALOG_MMAG / 1e3).astype("f4") for b in "griz"})  # fmt: skip  # noqa: E501
        RefcatStore(repo.root / "refcats").import_catalog("truth", bright)
        visits, staged = [], []
        for number in range(n):
            if number % 4 == 3 and not do_private:
                continue
            info = repo.add_exposure(
                exposure(camera.name, number, Program.PRIVATE if number % 4 == 3 else Program.PUBLIC), [0]
            )
            which = DataId(visit=info.exposure_id, detector=0)
            staged.append(repo.stage("source", which, catalog_of(rng, ra, dec, mag)))
            scores = np.array([0.9, 0.8, 0.1], dtype="f4")
            found = filled(DIA_SOURCE, 3, dia_source_id=10 * number + np.arange(3), reliability=scores)
            staged.append(repo.stage("dia_source", which, found))
            _work(repo, info, number)
            visits.append(info.exposure_id)
        repo.commit(staged)
    return Known(root, tuple(visits))


def _work(repo: SurveyRepo, info: ExposureInfo, number: int) -> None:
    metrics = {
        "science": {"limiting_mag": 20.5 + 0.01 * number, "fwhm_arcsec": 2.0, "zero_point": 26.0},
        "difference": {"n_candidates": 5, "score_sigma": 1.0}, "association": {"n_alerts": 2 + number % 2},
    }  # fmt: skip
    for kind, values in metrics.items():
        job = repo.ledger.submit(kind, {"visit": info.exposure_id}, exposure_id=info.exposure_id, detector=0,
                                 day_obs=info.day_obs)  # fmt: skip
        repo.ledger.start(job)
        repo.ledger.finish(job, values, cpu_s=1.5)
    repo.ledger.settle_exposure(info.exposure_id)


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A survey that tests only read (but for its summaries and metric values)."""
    return make_survey(tmp_path_factory.mktemp("known") / "survey")


@pytest.fixture
def survey(known: Known) -> Iterator[SurveyRepo]:
    """It, opened by the operator."""
    with SurveyRepo.open(known.root) as opened:
        yield opened
