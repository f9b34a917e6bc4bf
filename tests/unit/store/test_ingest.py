"""Every received file is ingested, already there, or refused with a reason; none is lost."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner

from gueststar.cli import ingest as ingest_command
from gueststar.cli import init as init_command
from gueststar.cli import products as products_command
from gueststar.core.bits import MaskPlane
from gueststar.formats.calibrated_image import write_calibrated_image
from gueststar.formats.foreign_image import read_foreign_image
from gueststar.formats.raw import read_headers
from gueststar.pipelines.exposure_facts import exposure_of
from gueststar.pipelines.ingest import files_under, ingest_paths
from gueststar.pipelines.ingest_products import EntryOptions, ingest_products
from gueststar.store.ledger_rows import FileStatus, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


def test_a_raw_file_becomes_an_exposure_with_its_detectors(repo, write_raw):
    path = write_raw()
    summary = ingest_paths(repo, [path])
    assert (summary.ingested, summary.already, summary.refused) == (1, 0, ())
    (row,) = repo.ledger.exposures()
    assert (row.info.physical_filter, row.info.object_name, row.detectors) == ("tiny g", "field one", (0, 1))
    assert summary.exposure_ids == (row.id,)
    assert repo.ledger.field(row.info.field).ra == 150.0
    pixels = [repo.get("raw", DataId(exposure=row.id, detector=d)).amplifiers[0].data for d in (0, 1)]
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(pixels[0], hdus[1].data)
        np.testing.assert_array_equal(pixels[1], hdus[2].data)
    assert path.exists()


def test_the_files_of_one_exposure_make_one_exposure(repo, write_raw):
    paths = [write_raw(f"ccd{ccd}.fits", CCDNUM=ccd, seed=ccd) for ccd in (1, 2)]
    assert ingest_paths(repo, paths).ingested == 2
    (row,) = repo.ledger.exposures()
    assert row.detectors == (0, 1, 2, 3)
    assert len(repo.find("raw")) == 4


def test_the_same_file_again_is_already_there_however_it_is_packed(repo, write_raw, tmp_path):
    path = write_raw()
    packed = tmp_path / "packed.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    tiled = write_raw("tiled.fits.fz")
    assert ingest_paths(repo, [path]).ingested == 1
    again = ingest_paths(repo, [path, packed, tiled])
    assert (again.ingested, again.already, again.refused) == (0, 3, ())
    assert len(repo.find("raw")) == 2
    assert [row.status for row in repo.ledger.files()] == ["ingested", "already", "already"]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-3000])


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("404 not found")


@pytest.mark.parametrize("spoil", [_truncate, _empty, _text])
def test_a_spoiled_file_is_refused_and_kept(repo, write_raw, spoil):
    path = write_raw("night1/raw.fits")
    spoil(path)
    good = write_raw("night1/zgood.fits", DATE_OBS="2023-02-25T06:40:00")
    summary = ingest_paths(repo, [path.parent])
    assert summary.ingested == 1
    ((refused, reason),) = summary.refused
    assert refused == path
    assert "\n" not in reason
    assert reason
    (row,) = repo.ledger.files(status=FileStatus.REFUSED)
    assert row.reason == reason
    kept = [item for item in (repo.root / "refused").iterdir() if not item.name.endswith(".reason")]
    assert [item.read_bytes() for item in kept] == [path.read_bytes()]
    assert good.exists()


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"INSTRUME": "OtherCam"}, "INSTRUME"),
        ({"CCDNUM": 9}, "CCDNUM"),
        ({"DATE_OBS": None}, "DATE-OBS"),
        ({"DATE_OBS": "2023-13-45T99:00:00"}, "DATE-OBS"),
        ({"RA": None}, "RA"),
        ({"DEC": 123.0}, "DEC"),
        ({"FILTER": None}, "FILTER"),
        ({"FILTER": "ultraviolet"}, "ultraviolet"),
        ({"EXPTIME": None}, "EXPTIME"),
        ({"EXPTIME": -5.0}, "EXPTIME"),
        ({"EXPTIME": "30.0"}, "EXPTIME"),
        ({"IMAGETYP": "LUNCH"}, "LUNCH"),
    ],
)
def test_an_impossible_header_is_refused_naming_the_card(repo, write_raw, cards, reason):
    summary = ingest_paths(repo, [write_raw(**cards)])
    ((_, told),) = summary.refused
    assert reason in told
    assert repo.ledger.exposures() == []


def test_other_pixels_of_the_same_detector_are_refused(repo, write_raw):
    first, second = write_raw("a.fits", seed=1), write_raw("b.fits", seed=2)
    ingest_paths(repo, [first])
    ((_, reason),) = ingest_paths(repo, [second]).refused
    assert "different pixels" in reason
    assert len(repo.find("raw")) == 2


def test_a_file_that_contradicts_the_others_of_its_exposure_is_refused(repo, write_raw):
    ingest_paths(repo, [write_raw("a.fits")])
    ((_, reason),) = ingest_paths(repo, [write_raw("b.fits", CCDNUM=2, FILTER="r")]).refused
    assert "'tiny g' in its other files, 'tiny r' here" in reason


def test_a_file_refused_for_its_filter_enters_when_the_camera_knows_it(repo, write_raw, tmp_path):
    path = write_raw(FILTER="Gunn-g")
    assert len(ingest_paths(repo, [path]).refused) == 1
    text = (repo.root / "camera.yaml").read_text().replace("- g\n", "- g\n  - Gunn-g\n", 1)
    (repo.root / "camera.yaml").write_text(text)
    with SurveyRepo.open(repo.root) as again:
        assert ingest_paths(again, [path]).ingested == 1
        assert [row.status for row in again.ledger.files()] == ["ingested"]


def test_a_missing_file_and_one_that_may_not_be_read_are_refused(repo, tmp_path):
    summary = ingest_paths(repo, [tmp_path / "nowhere.fits"])
    ((_, reason),) = summary.refused
    assert "No such file" in reason
    assert len(repo.ledger.files(status=FileStatus.REFUSED)) == 1


def test_folders_are_walked_for_all_names_of_fits_and_nothing_else(tmp_path):
    names = ["a.fits", "b.FIT", "c.fts.gz", "sub/d.Fits.FZ", "sub/e.fits.bz2", "note.txt", ".half.fits", "x.fits.part"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.name for path in files_under([tmp_path, tmp_path / "a.fits", tmp_path / "note.txt"])]
    assert sorted(found) == ["a.fits", "b.FIT", "c.fts.gz", "d.Fits.FZ", "e.fits.bz2", "note.txt"]


def test_files_are_linked_or_left_in_place_if_so_wished(repo, write_raw):
    linked, left = write_raw("a.fits"), write_raw("b.fits", DATE_OBS="2023-02-25T06:40:00")
    ingest_paths(repo, [linked], transfer="link")
    ingest_paths(repo, [left], transfer="direct")
    first, second = (repo.find("raw", exposure=row.id)[0].path for row in repo.ledger.exposures())
    assert os.path.samefile(first, linked)
    assert not first.is_symlink()
    assert second.is_symlink()
    assert second.resolve() == left


def test_bias_and_flat_frames_enter_without_position(repo, write_raw):
    bias = write_raw("bias.fits", IMAGETYP="ZERO", EXPTIME=0.0, RA=None, DEC=None, FILTER=None)
    flat = write_raw("flat.fits", IMAGETYP="DOMEFLAT", RA=None, DEC=None, DATE_OBS="2023-02-25T01:00:00")
    assert ingest_paths(repo, [bias, flat]).ingested == 2
    assert [(row.info.observation_type, row.info.physical_filter) for row in repo.ledger.exposures()] == [
        ("flat", "tiny g"), ("bias", None),
    ]  # fmt: skip
    assert len(repo.find("raw")) == 4


def test_an_interrupted_ingest_is_completed_by_the_next(repo, write_raw):
    path = write_raw()
    ingest_paths(repo, [path])
    (row,) = repo.ledger.files()
    with repo.ledger._engine.begin() as connection:  # what a kill before the last line leaves
        connection.exec_driver_sql("DELETE FROM files")
    again = ingest_paths(repo, [path])
    assert (again.ingested, again.already) == (1, 0)
    assert repo.ledger.files()[0].sha256 == row.sha256
    assert len(repo.find("raw")) == 2


# A user's own products


def _user_image(path, *, sky=0.0, seed=0, **cards):
    rng = np.random.default_rng(seed)
    header = fits.Header()
    values = {
        "INSTRUME": "TinyCam", "IMAGETYP": "OBJECT", "DATE-OBS": "2023-02-25T06:30:00.00", "EXPTIME": 30.0,
        "FILTER": "g", "RA": 150.0, "DEC": 20.0, "CCDNUM": 1, "MAGZP": 25.5, "MAGZPUNC": 0.01, "GAIN": 2.0,
        "BUNIT": "DN", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0,
        "CRPIX1": 32.0, "CRPIX2": 24.0, "CD1_1": -1 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1 / 3600,
    }  # fmt: skip
    for key, value in (values | {k.replace("_OBS", "-OBS"): v for k, v in cards.items()}).items():
        if value is not None:
            header[key] = value
    pixels = rng.normal(sky, 5.0, (48, 64)).astype(np.float32)
    pixels[10, 10] = np.nan
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


def test_a_users_calibrated_image_waits_as_the_input_of_the_science_job(repo, tmp_path):
    path = _user_image(tmp_path / "mine.fits")
    summary = ingest_products(repo, "science_image", [path], options=EntryOptions(detector=1))
    assert (summary.ingested, summary.refused) == (1, ())
    (row,) = repo.ledger.exposures()
    assert row.detectors == (1,)
    (job,) = repo.ledger.jobs()
    assert (job.kind, job.state, job.inputs["entered"]) == ("science", JobState.PENDING, "science_image")
    assert (repo.root / job.inputs["file"]).read_bytes() == path.read_bytes()
    assert any("PSF will be measured" in note for _, note in summary.notes)
    again = ingest_products(repo, "science_image", [path], options=EntryOptions(detector=1))
    assert again.already == 1
    assert len(repo.ledger.jobs()) == 1


@pytest.mark.parametrize(
    ("product", "cards", "detector", "reason"),
    [
        ("difference_image", {"MAGZP": None, "FWHM": 2.5}, 1, "no zero point"),
        ("difference_image", {"CTYPE1": None, "FWHM": 2.5}, 1, "no WCS"),
        ("difference_image", {}, 1, "no PSF"),
        ("difference_image", {"FWHM": 250.0}, 1, "impossible"),
        ("science_image", {"DATE_OBS": None}, 1, "DATE-OBS"),
        ("science_image", {"RA": None, "CTYPE1": None}, 1, "only one is there"),
        ("science_image", {"FILTER": None}, 1, "filter"),
        ("science_image", {}, None, "does not tell which of 2 detectors"),
        ("science_image", {"FILTER": "ultraviolet"}, 1, "ultraviolet"),
    ],
)
def test_a_users_image_that_lacks_something_is_refused_naming_it(repo, tmp_path, product, cards, detector, reason):
    path = _user_image(tmp_path / "mine.fits", **cards)
    ((_, told),) = ingest_products(repo, product, [path], options=EntryOptions(detector=detector)).refused
    assert reason in told
    assert "\n" not in told
    assert repo.ledger.exposures() == []
    assert repo.ledger.files(status=FileStatus.REFUSED)[0].reason == told


def test_what_a_file_lacks_may_be_told_beside_it(repo, tmp_path):
    path = _user_image(tmp_path / "mine.fits", FILTER=None, MAGZP=None, INSTRUME=None, IMAGETYP=None)
    options = EntryOptions(detector=1, cards={"FILTER": "g", "MAGZP": 25.5, "FWHM": 2.5})
    summary = ingest_products(repo, "difference_image", [path], options=options)
    assert summary.refused == ()
    assert repo.ledger.exposures()[0].info.band == "g"


def test_an_image_without_a_pointing_points_where_its_wcs_does(repo, tmp_path):
    path = _user_image(tmp_path / "mine.fits", RA=None, DEC=None)
    assert ingest_products(repo, "science_image", [path], options=EntryOptions(detector=1)).refused == ()
    info = repo.ledger.exposures()[0].info
    assert info.ra == pytest.approx(150.0, abs=2 / 3600)
    assert info.dec == pytest.approx(20.0, abs=2 / 3600)


def test_another_image_of_the_same_exposure_and_detector_is_refused(repo, tmp_path):
    first, second = _user_image(tmp_path / "a.fits"), _user_image(tmp_path / "b.fits", seed=1)
    options = EntryOptions(detector=1)
    summary = ingest_products(repo, "science_image", [first, second], options=options)
    assert summary.ingested == 1
    ((path, told),) = summary.refused
    assert path.name == "b.fits"
    assert "has a science image already" in told
    assert "a.fits" in told


def test_a_raw_file_does_not_contradict_a_users_image_but_goes_with_a_difference(repo, tmp_path, write_raw):
    mine = _user_image(tmp_path / "mine.fits", FWHM=2.5)
    assert ingest_products(repo, "difference_image", [mine], options=EntryOptions(detector=1)).refused == ()
    assert ingest_paths(repo, [write_raw()]).ingested == 1
    assert ingest_paths(repo, [write_raw("again.fits")]).already == 1
    assert len(repo.find("raw")) == 2
    other = _user_image(tmp_path / "other.fits", DATE_OBS="2023-02-25T07:00:00.00")
    assert ingest_products(repo, "science_image", [other], options=EntryOptions(detector=1)).refused == ()
    ((_, told),) = ingest_paths(repo, [write_raw("late.fits", DATE_OBS="2023-02-25T07:00:00.00")]).refused
    assert "is there as science_image from" in told
    ((_, told),) = ingest_products(
        repo, "science_image", [_user_image(tmp_path / "third.fits", seed=3)], options=EntryOptions(detector=0)
    ).refused
    assert "is there as a raw file" in told


def test_a_users_difference_takes_the_place_of_one_that_is_held_but_not_of_one_that_is_made(repo, tmp_path):
    path = _user_image(tmp_path / "mine.fits", FWHM=2.5)
    info = exposure_of(repo.camera, read_headers(path), detector=1)[0]
    key = {"visit": info.exposure_id, "detector": 1}
    held = repo.ledger.submit("difference", key, exposure_id=info.exposure_id, detector=1, day_obs=info.day_obs)
    repo.ledger.hold(held, "no reference yet")
    assert ingest_products(repo, "difference_image", [path], options=EntryOptions(detector=1)).refused == ()
    job = repo.ledger.job(held)
    assert (job.state, job.reason, job.inputs["origin"]) == (JobState.PENDING, "", str(path))
    repo.ledger.start(held)
    repo.ledger.finish(held)
    other = _user_image(tmp_path / "other.fits", FWHM=2.5, seed=1)
    ((_, told),) = ingest_products(repo, "difference_image", [other], options=EntryOptions(detector=1)).refused
    assert "has a difference already" in told


def test_several_images_of_one_name_are_refused(repo, tmp_path):
    path = _user_image(tmp_path / "mine.fits")
    with fits.open(path) as hdus:
        twice = [fits.ImageHDU(hdus[0].data, hdus[0].header, name="SCI", ver=k) for k in (1, 2)]
        fits.HDUList([fits.PrimaryHDU(header=hdus[0].header), *twice]).writeto(tmp_path / "two.fits")
    ((_, told),) = ingest_products(
        repo, "science_image", [tmp_path / "two.fits"], options=EntryOptions(detector=1)
    ).refused
    assert "2 images named SCI" in told


def test_planes_are_found_in_extensions_and_in_companion_files(tmp_path):
    rng = np.random.default_rng(3)
    planes = {name: rng.normal(value, 1.0, (48, 64)).astype(np.float32)
              for name, value in (("DIFF", 0.0), ("SCIENCE", 90.0), ("REF", 80.0))}  # fmt: skip
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in planes.items())]
    fits.HDUList(hdus).writeto(tmp_path / "d.fits")
    fits.PrimaryHDU(np.full((48, 64), 0.25, np.float32)).writeto(tmp_path / "w.fits")
    bad = np.zeros((48, 64), np.int16)
    bad[3, 4] = 1
    fits.PrimaryHDU(bad).writeto(tmp_path / "m.fits")
    found = read_foreign_image(
        tmp_path / "d.fits", exposure_s=30.0, role="difference", cards={"GAIN": 2.0},
        companions={"weight": tmp_path / "w.fits", "mask": tmp_path / "m.fits"},
    )  # fmt: skip
    np.testing.assert_allclose(found.pixels.image, 2.0 * planes["DIFF"])
    assert np.median(found.pixels.variance) == pytest.approx(4.0 * 4.0)
    assert found.pixels.mask[3, 4] == int(MaskPlane.BAD)
    assert np.median(found.beside["science"].image) == pytest.approx(180.0, abs=1.0)
    assert np.median(found.beside["reference"].image) == pytest.approx(160.0, abs=1.0)
    assert found.wcs is None
    assert found.photocal is None


def test_our_own_image_of_another_repository_enters_by_its_metadata(repo, tmp_path, exposure, make_image):
    path = tmp_path / "own.fits"
    write_calibrated_image(path, make_image(1, exposure=exposure().to_dict(), detector=3))
    assert ingest_products(repo, "difference_image", [path]).ingested == 1
    (job,) = repo.ledger.jobs(kind="difference")
    assert (job.exposure_id, job.detector) == (exposure().exposure_id, 3)
    assert repo.ledger.exposure(job.exposure_id).info.ra == 150.0


def test_a_users_catalog_enters_with_fluxes_from_its_magnitudes(repo, tmp_path):
    columns = {
        "X_IMAGE": [5.0, 6.0], "Y_IMAGE": [7.0, 8.0], "ALPHA_J2000": [150.0, 150.01], "DELTA_J2000": [20.0, 20.01],
        "MAG_PSF": [16.4, 20.0], "MAGERR_PSF": [0.01, 0.1],
    }  # fmt: skip
    table = fits.table_to_hdu(Table(columns))
    header = {"INSTRUME": "TinyCam", "IMAGETYP": "OBJECT", "DATE-OBS": "2023-02-25T06:30:00", "EXPTIME": 30.0,
              "FILTER": "g", "RA": 150.0, "DEC": 20.0, "CCDNUM": 1}  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(header)), table]).writeto(tmp_path / "cat.fits")
    summary = ingest_products(repo, "source", [tmp_path / "cat.fits"], options=EntryOptions(detector=0))
    assert summary.refused == ()
    catalog = repo.read(repo.find("source")[0])
    assert catalog["psf_flux"] == pytest.approx([1e6, 10.0 ** (0.4 * 11.4)], rel=1e-5)
    assert catalog["snr"] == pytest.approx([108.57, 10.857], rel=1e-3)
    assert list(catalog["x"]) == [4.0, 5.0]
    assert np.isnan(catalog["chi2"]).all()
    assert len(set(catalog["source_id"])) == 2


ROWS = {
    "RAdeg": [150.0, 150.01, 150.0], "DEdeg": [20.0, 20.01, 20.0], "flux": [500.0, -800.0, 700.0], "err": [50.0] * 3,
    "MJD": [60000.2, 60000.2, 60000.3], "band": ["g", "g", "r"], "ccd": [0, 0, 0],
}  # fmt: skip
COLUMNS = {
    "ra": "RAdeg",
    "dec": "DEdeg",
    "psf_flux": "flux",
    "psf_flux_err": "err",
    "mjd_utc": "MJD",
    "detector": "ccd",
}


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.vot", "rows.ecsv", "rows.fits"])
def test_detections_of_a_table_enter_by_exposure_in_every_format(repo, tmp_path, name):
    table = Table(ROWS)
    if name.endswith("parquet"):
        table.to_pandas().to_parquet(tmp_path / name)
    else:
        table.write(tmp_path / name, **({"format": "votable"} if name.endswith("vot") else {}))
    options = EntryOptions(columns=COLUMNS, cards={"EXPTIME": 30.0, "RELIABILITY": 0.9, "RA": 150.0, "DEC": 20.0})
    summary = ingest_products(repo, "dia_source", [tmp_path / name], options=options)
    assert summary.refused == ()
    assert len(summary.exposure_ids) == 2
    first, second = repo.ledger.exposures()
    assert (first.info.band, second.info.band) == ("g", "r")
    assert first.info.mjd_start == pytest.approx(60000.2 + 37.0 / 86400.0, abs=1e-7)
    rows = repo.get("dia_source", DataId(visit=first.id, detector=0))
    assert list(rows["is_positive"]) == [True, False]
    assert list(rows["snr"]) == pytest.approx([10.0, -16.0])
    assert rows["mjd_tai"] == pytest.approx(first.info.mjd_tai, abs=1e-9)
    assert len(set(rows["dia_source_id"])) == 2
    (job,) = repo.ledger.jobs(kind="difference", exposure_id=first.id)
    assert job.metrics["difference_limiting_mag"] == pytest.approx(31.4 - 2.5 * np.log10(250.0))


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("RAdeg", "--columns ra=NAME"), ("flux", "neither fluxes"), ("MJD", "--columns mjd_utc=NAME"),
        ("band", "tells the filter"), ("ccd", "does not tell its detector"), ("err", "limiting magnitude"),
    ],
)  # fmt: skip
def test_a_table_that_lacks_something_is_refused_naming_it(repo, tmp_path, lacking, reason):
    table = Table({name: values for name, values in ROWS.items() if name != lacking})
    table.write(tmp_path / "rows.csv")
    columns = {ours: theirs for ours, theirs in COLUMNS.items() if theirs != lacking}
    options = EntryOptions(columns=columns, cards={"EXPTIME": 30.0})
    ((_, told),) = ingest_products(repo, "dia_source", [tmp_path / "rows.csv"], options=options).refused
    assert reason in told
    assert repo.ledger.exposures() == []


# The command line


def test_the_commands_make_fill_and_list_a_repository(tmp_path, camera, write_raw):
    yaml_file = tmp_path / "camera.yaml"
    yaml_file.write_text(camera.model_dump_json())
    run = CliRunner().invoke
    root = str(tmp_path / "survey")
    made = run(init_command.command, [root, "--camera", str(yaml_file)])
    assert made.exit_code == 0, made.output
    assert "4 detectors" in made.output
    good, bad = write_raw("in/good.fits"), write_raw("in/bad.fits", FILTER="ultraviolet")
    taken = run(ingest_command.command, [root, str(good.parent)])
    assert taken.exit_code == 1
    assert "1 ingested (1 exposures), 0 already there, 1 refused" in taken.output
    assert f"refused {bad}" in taken.output
    assert run(ingest_command.command, [root, str(good)]).exit_code == 0
    listed = run(products_command.command, [root, "raw", "--detector", "1", "--json"])
    (row,) = json.loads(listed.output)
    assert row["detector"] == 1
    assert row["path"].endswith(".fits")
    assert "calibrated single epoch" in run(products_command.command, [root]).output


def test_the_commands_tell_a_persons_mistake_with_status_two(tmp_path):
    run = CliRunner().invoke
    assert run(init_command.command, [str(tmp_path / "s"), "--camera", "no_such_camera"]).exit_code == 2
    assert run(ingest_command.command, [str(tmp_path / "none"), "x.fits"]).exit_code == 2
    assert run(products_command.command, [str(tmp_path / "none"), "raw"]).exit_code == 2
