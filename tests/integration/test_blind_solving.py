"""Exposures without a position are found by their stars, by Astrometry.net's programs where they are installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.cameras.load import load_camera
from gueststar.core.errors import DataError
from gueststar.model.camera import BlindSolving
from gueststar.model.columns import REFCAT
from gueststar.model.wcs import Wcs
from gueststar.pipelines.ingest import ingest_paths
from gueststar.store.blind_solver import BlindSolver, build_indexes
from gueststar.store.repo import SurveyRepo

TYCHO = Path("/usr/share/astrometry/index-tycho2-08.littleendian.fits")
needs_solver = pytest.mark.skipif(shutil.which("solve-field") is None, reason="astrometry.net is not installed")
needs_indexer = pytest.mark.skipif(
    shutil.which("build-astrometry-index") is None, reason="build-astrometry-index is not installed"
)


def without_position(path: Path, target: Path, **cards: object) -> Path:
    with fits.open(path) as hdus:
        for card in ("RA", "DEC"):
            del hdus[0].header[card]
        hdus[0].header.update(cards)
        hdus.writeto(target)
    return target


@needs_solver
@pytest.mark.real_data
@pytest.mark.skipif(not TYCHO.is_file(), reason="the Debian package astrometry-data-tycho2 is not installed")
def test_real_frames_without_a_pointing_are_found_as_the_field_drifts(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "microobs_hatp32b").glob("*.FITS.gz"))[::24]
    if not files:
        pytest.skip("the MicroObservatory frames are not there")
    given = [without_position(path, tmp_path / path.name.replace(".FITS.gz", ".fits")) for path in files[:-1]]
    given.append(without_position(files[-1], tmp_path / "z.fits", RA="nan", DEC=400.0))
    repo = SurveyRepo.create(tmp_path / "repo", load_camera("microobs"))
    summary = ingest_paths(repo, given)
    assert summary.ingested == len(files), summary.refused
    found = [row.info for row in repo.ledger.exposures(observation_type="science")]
    assert all(abs(info.dec - 46.77) < 0.06 for info in found)
    drift = np.array([info.ra for info in found])
    assert np.all(np.diff(drift) < -0.1)  # unguided: the field moves west
    assert drift[0] == pytest.approx(31.247, abs=0.003)


@needs_solver
@pytest.mark.real_data
def test_a_frame_without_stars_is_refused_with_the_reason(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "microobs_hatp32b").glob("*.FITS.gz"))[:1]
    if not files:
        pytest.skip("the MicroObservatory frames are not there")
    given = without_position(files[0], tmp_path / "a.fits")
    with fits.open(given, mode="update") as hdus:
        hdus[0].data = np.random.default_rng(0).normal(400, 4, hdus[0].data.shape).astype(np.int16)
    hasty = load_camera("microobs").model_copy(update={"blind_solving": BlindSolving(cpu_limit_s=2.0)})
    summary = ingest_paths(SurveyRepo.create(tmp_path / "repo", hasty), [given])
    assert summary.ingested == 0
    assert "none found by the stars" in summary.refused[0][1]


@needs_solver
@needs_indexer
def test_an_index_of_the_surveys_own_catalog_finds_a_made_field(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n, side = 12000, 20.0
    ra, dec = 100.0 + rng.uniform(-1.5, 1.5, n), 30.0 + rng.uniform(-1.3, 1.3, n)
    magnitude = 19.0 + np.log10(rng.uniform(size=n)) / 0.35
    names = {column.name: np.zeros(n) for column in REFCAT.columns}
    catalog = REFCAT.catalog(names | {"ra": ra, "dec": dec, "mag_r": magnitude, "ref_id": np.arange(n)})
    made = build_indexes(catalog, magnitude, tmp_path / "own", name="own", side_arcmin=side)
    assert len(made) >= 2
    truth = Wcs.tangent(ra=100.4, dec=29.6, x=599.5, y=599.5, scale_arcsec=1.0, rotation_deg=123.0, parity=-1)
    x, y = truth.sky_to_pixel(ra=ra, dec=dec)
    seen = (x > 0) & (x < 1199) & (y > 0) & (y < 1199) & (magnitude < 18.5) & (rng.uniform(size=n) < 0.9)
    solver = BlindSolver([tmp_path / "own"])
    stars = {
        "x": np.r_[x[seen] + rng.normal(0, 0.2, seen.sum()), rng.uniform(0, 1200, 15)],
        "y": np.r_[y[seen] + rng.normal(0, 0.2, seen.sum()), rng.uniform(0, 1200, 15)],
        "flux": 10 ** (-0.4 * np.r_[magnitude[seen], rng.uniform(15, 18, 15)]),
    }
    found = solver.solve(**stars, shape=(1200, 1200), scale_arcsec=(0.95, 1.05))
    there = truth.sky_to_pixel(**dict(zip(("ra", "dec"), found.wcs.pixel_to_sky(x=600.0, y=600.0), strict=True)))
    assert np.hypot(float(there[0]) - 600.0, float(there[1]) - 600.0) < 1.0
    assert found.log_odds > 20.0
    shuffled = {**stars, "x": rng.permutation(stars["x"])}
    with pytest.raises(DataError, match="no place in the sky fits"):
        BlindSolver([tmp_path / "own"], cpu_limit_s=2.0).solve(
            **shuffled, shape=(1200, 1200), scale_arcsec=(0.95, 1.05)
        )
