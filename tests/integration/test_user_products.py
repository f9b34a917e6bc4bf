"""A user's own calibrated images are worked on as the pipeline's own are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from gueststar.cameras.load import load_camera
from gueststar.cli import ingest as ingest_command
from gueststar.cli import products as products_command
from gueststar.model.columns import REFCAT
from gueststar.model.wcs import Wcs
from gueststar.operations.report.night_report import as_json, make_report
from gueststar.pipelines.ingest_products import EntryOptions, ingest_products
from gueststar.pipelines.night.process import process_nights
from gueststar.store.ledger_rows import ExposureState, JobState
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

FWHM = 2.6
SKY = 250.0
ZERO_POINT = 27.5


def _stars(rng):
    x, y = rng.uniform(20, 1004, (2, 300))
    magnitude = rng.uniform(15.0, 19.0, 300)
    return x, y, magnitude


def _write_image(path, x, y, magnitude, **changes):
    rng = np.random.default_rng(5)
    image = np.full((1024, 1024), SKY)
    offset = np.arange(-12, 13)
    sigma = FWHM / 2.3548
    for one_x, one_y, one_mag in zip(x, y, magnitude, strict=True):
        x0, y0 = round(one_x), round(one_y)
        stamp = np.exp(-0.5 * ((offset + x0 - one_x)[None, :] ** 2 + (offset + y0 - one_y)[:, None] ** 2) / sigma**2)
        flux = 10.0 ** (0.4 * (ZERO_POINT - one_mag))
        rows, columns = y0 + offset, x0 + offset
        inside = np.ix_((rows >= 0) & (rows < 1024), (columns >= 0) & (columns < 1024))
        where = np.ix_(rows[(rows >= 0) & (rows < 1024)], columns[(columns >= 0) & (columns < 1024)])
        image[where] += (flux * stamp / (2.0 * np.pi * sigma**2))[inside]
    image = rng.poisson(image).astype(np.float32)
    header = fits.Header()
    cards = {
        "INSTRUME": "simcam", "IMAGETYP": "OBJECT", "DATE-OBS": "2023-02-25T06:30:00.00", "EXPTIME": 30.0,
        "FILTER": "g", "RA": "10:00:00", "DEC": "-20:00:00", "PROGRMID": 1,
        "MAGZP": ZERO_POINT, "MAGZPUNC": 0.01, "BUNIT": "electron",
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": -20.0, "CRPIX1": 512.5, "CRPIX2": 512.5,
        "CD1_1": -1 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1 / 3600,
    }  # fmt: skip
    for key, value in {**cards, **changes}.items():
        if value is not None:
            header[key] = value
    fits.PrimaryHDU(image, header).writeto(path)


@pytest.fixture(scope="module")
def entered(tmp_path_factory):
    """A repository that a user's image with known stars has entered by the command line."""
    folder = tmp_path_factory.mktemp("user")
    SurveyRepo.create(folder / "survey", load_camera("simcam")).close()
    truth = _stars(np.random.default_rng(1))
    _write_image(folder / "mine.fits", *truth)
    arguments = [str(folder / "survey"), str(folder / "mine.fits"), "--as", "science_image", "--detector", "2"]
    result = CliRunner().invoke(ingest_command.command, arguments)
    assert result.exit_code == 0, result.output
    process_nights(folder / "survey", n_workers=1, until="reference")
    return folder / "survey", truth


def test_its_stars_are_measured_with_the_users_zero_point(entered):
    root, (x, y, magnitude) = entered
    with SurveyRepo.open(root) as repo:
        (ref,) = repo.find("source")
        catalog = repo.read(ref)
        (image,) = (repo.read(one) for one in repo.find("science_image"))
    assert image.psf.central_fwhm == pytest.approx(FWHM, rel=0.05)
    assert image.metadata["metrics"]["zero_point"] == ZERO_POINT
    distance = np.hypot(catalog["x"][:, None] - x, catalog["y"][:, None] - y)
    nearest = distance.argmin(axis=0)
    is_found = distance.min(axis=0) < 0.7
    assert is_found.mean() > 0.9
    difference = catalog["mag"][nearest[is_found]] - magnitude[is_found]
    assert abs(np.median(difference)) < 0.01
    assert catalog["ra"][nearest[is_found]][0] == pytest.approx(
        150.0 - (x[is_found][0] - 511.5) / 3600 / np.cos(np.radians(20)), abs=2e-4
    )


def test_the_night_counts_it_as_processed_and_has_no_more_to_do_on_it(entered):
    root, _ = entered
    with SurveyRepo.open(root) as repo:
        (row,) = repo.ledger.exposures()
        assert row.state is ExposureState.PROCESSED
        (job,) = repo.ledger.jobs(kind="science")
        assert job.state is JobState.DONE
        assert job.metrics["limiting_mag"] > 20.0
        assert job.inputs["origin"].endswith("mine.fits")
        assert job.metrics["entered"]["measured"] == ["background", "psf"]
        night = row.info.day_obs
    process_nights(root, nights=(night,), n_workers=1, until="reference")
    with SurveyRepo.open(root) as repo:
        (job,) = repo.ledger.jobs(kind="science")
        assert (job.state, job.attempts) == (JobState.DONE, 1)
        assert repo.ledger.balance(night).is_balanced
    listed = CliRunner().invoke(products_command.command, [str(root), "science_image", "--night", str(night), "--json"])
    assert json.loads(listed.output)[0]["detector"] == 2


def _catalog_of(x, y, magnitude):
    wcs = Wcs.tangent(ra=150.0, dec=-20.0, x=511.5, y=511.5, scale_arcsec=1.0)
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    columns = {column.name: np.zeros(x.size, column.dtype) for column in REFCAT.columns}
    columns |= {
        "ref_id": np.arange(x.size), "ra": ra, "dec": dec, "ra_err": np.full(x.size, 10.0),
        "dec_err": np.full(x.size, 10.0), "epoch": np.full(x.size, 2023.0),
    }  # fmt: skip
    columns |= {f"mag_{band}": magnitude for band in "griz"}
    columns |= {f"mag_{band}_err": np.full(x.size, 0.01) for band in "griz"}
    return REFCAT.catalog(columns)


def _jobs_after(folder, *files, with_catalog=True):
    """Ingest images of known stars, process them, and return the science jobs by the file's name."""
    x, y, magnitude = _stars(np.random.default_rng(1))
    for minute, (name, changes) in enumerate(files):
        _write_image(folder / name, x, y, magnitude, **{"DATE-OBS": f"2023-02-25T06:{minute:02d}:00.00", **changes})
    with SurveyRepo.create(folder / "survey", load_camera("simcam")) as repo:
        if with_catalog:
            RefcatStore(repo.root / "refcats").import_catalog("truth", _catalog_of(x, y, magnitude))
        paths = [folder / name for name, _ in files]
        summary = ingest_products(repo, "science_image", paths, options=EntryOptions(detector=2))
        assert summary.refused == ()
    process_nights(folder / "survey", n_workers=1, until="science")
    with SurveyRepo.open(folder / "survey") as repo:
        (night,) = {row.info.day_obs for row in repo.ledger.exposures()}
        told = as_json(make_report(repo, night))
        assert told["received"] == told["processed"] + told["failed"] + told["held"] == len(files)
        assert told["origins"] == {"science_image": len(files)}
        return {job.inputs["origin"].rpartition("/")[2]: job for job in repo.ledger.jobs(kind="science")}


def test_a_wcs_is_compared_with_the_reference_catalog_where_there_is_one(tmp_path):
    jobs = _jobs_after(tmp_path, ("good.fits", {}), ("off.fits", {"CRPIX1": 516.5}))
    assert jobs["off.fits"].state is JobState.FAILED
    assert "4.0 pixels off the reference catalog" in jobs["off.fits"].reason
    good = jobs["good.fits"].metrics
    assert good["n_astrometric_matches"] > 100
    assert good["astrometric_rms_mas"] < 100.0
    assert good["astrometry"]["wcs_offset_pixels"] < 0.2
    assert good["photometry"]["zero_point_offset"] == pytest.approx(0.0, abs=0.01)


def test_a_wcs_and_a_zero_point_that_are_missing_are_solved(tmp_path):
    bare = {"CTYPE1": None, "CTYPE2": None, "MAGZP": None, "MAGZPUNC": None, "RA": "09:59:22.3", "DEC": "-19:51:08"}
    job = _jobs_after(tmp_path, ("bare.fits", bare))["bare.fits"]
    assert job.state is JobState.DONE, job.reason
    assert job.metrics["entered"]["measured"] == ["background", "psf", "wcs", "zero_point"]
    assert job.metrics["zero_point"] == pytest.approx(ZERO_POINT, abs=0.01)
    with SurveyRepo.open(tmp_path / "survey") as repo:
        image = repo.read(repo.find("science_image")[0])
    ra, dec = image.wcs.pixel_to_sky(x=np.array([511.5]), y=np.array([511.5]))
    assert (ra[0], dec[0]) == pytest.approx((150.0, -20.0), abs=0.1 / 3600.0)


def test_what_cannot_be_solved_without_a_catalog_is_held_until_there_is_one(tmp_path):
    job = _jobs_after(tmp_path, ("bare.fits", {"MAGZP": None}), with_catalog=False)["bare.fits"]
    assert job.state is JobState.HELD
    assert "no zero point and no reference catalog" in job.reason
    with SurveyRepo.open(tmp_path / "survey") as repo:
        RefcatStore(repo.root / "refcats").import_catalog("truth", _catalog_of(*_stars(np.random.default_rng(1))))
    process_nights(tmp_path / "survey", n_workers=1, until="science")
    with SurveyRepo.open(tmp_path / "survey") as repo:
        (job,) = repo.ledger.jobs(kind="science")
    assert job.state is JobState.DONE, job.reason
