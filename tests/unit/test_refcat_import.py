import struct
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from click.testing import CliRunner
from scipy import ndimage

from gueststar.algorithms.photocal.gaia import sdss_from_gaia
from gueststar.algorithms.photocal.overlap import group_positions, solve_overlaps
from gueststar.cli.refcat import command
from gueststar.core.errors import ConfigError, DataError
from gueststar.core.healpix import separation_deg
from gueststar.formats.astrometry_index import read_index_stars
from gueststar.formats.named_table import NamedTable, read_named_table
from gueststar.formats.parquet import write_catalog
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.image import MaskedImage
from gueststar.model.wcs import Wcs
from gueststar.pipelines.refcat import MakeRefcatFromImages, TrustedImage
from gueststar.store.refcats import RefcatStore


def gaia_table() -> Table:
    """Three stars as the Gaia archive gives them; the last has no colour."""
    return Table({
        "source_id": np.array([11, 12, 13], dtype=np.int64), "ref_epoch": np.full(3, 2016.0) * units.yr,
        "ra": [10.0, 359.9, 20.0] * units.deg, "dec": [1.0, -2.0, 3.0] * units.deg,
        "ra_error": [0.1, 0.2, 0.3] * units.mas, "dec_error": [0.1, 0.2, 0.3] * units.mas,
        "pmra": MaskedColumn([5.0, -3.0, 0.0], mask=[False, False, True], unit="mas/yr"),
        "pmdec": MaskedColumn([1.0, 2.0, 0.0], mask=[False, False, True], unit="mas/yr"),
        "phot_g_mean_mag": [15.0, 16.0, 17.0],
        "phot_bp_mean_mag": MaskedColumn([15.4, 16.6, 0.0], mask=[False, False, True]),
        "phot_rp_mean_mag": MaskedColumn([14.5, 15.2, 0.0], mask=[False, False, True]),
        "phot_variable_flag": ["NOT_AVAILABLE", "VARIABLE", "NOT_AVAILABLE"],
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form"), [("g.vot", "votable"), ("g.fits", "fits"), ("g.ecsv", "ascii.ecsv"), ("g.csv", "csv")]
)
def test_a_gaia_table_is_understood_in_every_format(tmp_path: Path, name: str, form: str) -> None:
    gaia_table().write(tmp_path / name, format=form if form != "csv" else "ascii.csv")
    reading = refcat_from_table(read_named_table(tmp_path / name))
    catalog = reading.catalog
    assert catalog["ref_id"].tolist() == [11, 12, 13]
    assert catalog["ra"].tolist() == [10.0, 359.9, 20.0]
    assert catalog["pm_ra"].tolist() == [5.0, -3.0, 0.0]
    assert catalog["is_variable"].tolist() == [False, True, False]
    np.testing.assert_allclose(catalog["ra_err"], [0.1, 0.2, 0.3], rtol=1e-6)
    assert np.isnan(catalog["mag_r"][2])
    assert 14.5 < catalog["mag_r"][0] < 15.1 < catalog["mag_g"][0] < 15.6
    assert "Gaia to SDSS" in reading.mapping["mag_r"]


def test_the_sun_in_gaia_passbands_has_its_known_sdss_colours() -> None:
    """BP - RP = 0.82, g - r = 0.44, r - i = 0.11 (Casagrande et al. 2018; Ramirez et al. 2012)."""
    mags = {band: float(sdss_from_gaia(band, g_mag=15.0, bp_rp=0.82)[0]) for band in "gri"}
    assert mags["g"] - mags["r"] == pytest.approx(0.44, abs=0.05)
    assert mags["r"] - mags["i"] == pytest.approx(0.11, abs=0.05)
    assert np.isnan(sdss_from_gaia("i", g_mag=15.0, bp_rp=2.5)[0])


def test_other_surveys_names_units_and_marks_of_missing_values_are_known() -> None:
    n = 2
    panstarrs = NamedTable({
        "objID": np.arange(n), "raMean": np.array([1.0, 2.0]), "decMean": np.array([0.0, 0.5]),
        "raMeanErr": np.array([0.01, 0.02]), "gMeanPSFMag": np.array([18.0, -999.0]),
        "gMeanPSFMagErr": np.array([0.01, -999.0]),
    }, {})  # fmt: skip
    catalog = refcat_from_table(panstarrs, epoch=2012.5).catalog
    np.testing.assert_allclose(catalog["ra_err"], [10.0, 20.0], rtol=1e-6)
    assert np.isnan(catalog["mag_g"]).tolist() == [False, True]
    assert catalog["epoch"].tolist() == [2012.5, 2012.5]
    refcat2 = NamedTable({
        "RA_ICRS": np.array([1.0]), "DE_ICRS": np.array([2.0]), "Gmag": np.array([14.0]), "gmag": np.array([14.5]),
        "e_gmag": np.array([0.02]), "rmag": np.array([0.0]), "pmRA": np.array([3.0]), "pmDE": np.array([4.0]),
    }, {"pmRA": "mas/yr"})  # fmt: skip
    reading = refcat_from_table(refcat2)
    assert reading.mapping["mag_g"] == "gmag"
    assert reading.catalog["mag_g"][0] == pytest.approx(14.5)
    assert np.isnan(reading.catalog["mag_r"][0])
    assert reading.mapping["epoch"] == "2016.0 (assumed)"


def test_columns_can_be_told_and_mistakes_are_named() -> None:
    table = NamedTable({"alpha": np.array(["10:00:00", "00:30:00"]), "delta": np.array(["-05:30:00", "+01:00:00"]),
                        "V": np.array([10.0, 11.0])}, {})  # fmt: skip
    with pytest.raises(DataError, match="no column is known as ra and dec; the table has alpha, delta, V"):
        refcat_from_table(table)
    reading = refcat_from_table(table, columns={"ra": "alpha", "dec": "delta", "mag_r": "V"})
    np.testing.assert_allclose(reading.catalog["ra"], [150.0, 7.5])
    np.testing.assert_allclose(reading.catalog["dec"], [-5.5, 1.0])
    with pytest.raises(ConfigError, match="no column 'colour'"):
        refcat_from_table(table, columns={"colour": "V"})
    with pytest.raises(ConfigError, match="the table has no column 'W'"):
        refcat_from_table(table, columns={"ra": "W"})
    wrong = NamedTable({"ra": np.zeros(1), "dec": np.zeros(1)}, {"ra": "Jy"})
    with pytest.raises(DataError, match="column ra has the unit 'Jy'"):
        refcat_from_table(wrong)


def test_unreadable_tables_are_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("a.fits", "a.parquet", "a.vot", "a.ecsv"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(DataError, match="cannot be read as a table"):
            read_named_table(tmp_path / name)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="name must end in one of"):
        read_named_table(tmp_path / "a.txt")


def test_an_astrometry_index_file_gives_its_stars_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 50), np.degrees(np.arcsin(rng.uniform(-1, 1, 50)))
    a, d = np.radians(ra), np.radians(dec)
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    scale = 2147483647.5
    data = np.round((xyz + 1.0) * scale).astype("<u4")
    limits = struct.pack("<7d", -1, -1, -1, 1, 1, 1, scale)
    primary = fits.PrimaryHDU()
    primary.header["ENDIAN"] = "04:03:02:01"
    tables = [
        fits.BinTableHDU.from_columns([fits.Column(name, f"{width}A", array=rows)])
        for name, width, rows in (
            ("kdtree_range_stars", 8, np.frombuffer(limits, dtype="S8")),
            ("kdtree_data_stars", 12, np.frombuffer(data.tobytes(), dtype="S12")),
        )
    ]
    magnitude = rng.uniform(5, 12, 50).astype(np.float32)
    tables.append(fits.BinTableHDU.from_columns([fits.Column("MAG_VT", "E", array=magnitude)]))
    fits.HDUList([primary, *tables]).writeto(tmp_path / "index.fits")
    catalog = read_index_stars(tmp_path / "index.fits")
    for k in range(50):
        assert (
            separation_deg(ra=catalog["ra"][k : k + 1], dec=catalog["dec"][k : k + 1], ra0=ra[k], dec0=dec[k]) * 3.6e6
            < 0.5
        )
    np.testing.assert_array_equal(catalog["mag_r"], magnitude)
    gaia_table().write(tmp_path / "g.fits")
    with pytest.raises(DataError, match="is not an Astrometry.net index file"):
        read_index_stars(tmp_path / "g.fits")


def test_command_imports_merges_and_shows(tmp_path: Path) -> None:
    gaia_table().write(tmp_path / "Gaia DR3.ecsv")
    (tmp_path / "repo").mkdir()
    runner = CliRunner()
    done = runner.invoke(command, ["import", str(tmp_path / "repo"), str(tmp_path / "Gaia DR3.ecsv")])
    assert done.exit_code == 0, done.output
    assert "mag_r        <- phot_g_mean_mag" in done.output
    assert "3 stars; catalog gaia-dr3 has 3" in done.output
    ours = REFCAT.catalog({c.name: np.ones(2) * (50 + np.arange(2)) for c in REFCAT.columns})
    write_catalog(tmp_path / "refcat.parquet", ours.replace(epoch=[2016.0, 2016.0], is_extended=[False, True]))
    done = runner.invoke(
        command, ["import", str(tmp_path / "repo"), str(tmp_path / "refcat.parquet"), "--name", "gaia-dr3"]
    )
    assert "catalog gaia-dr3 has 5" in done.output
    assert RefcatStore(tmp_path / "repo").cone(ra=50.0, dec=50.0, radius_deg=2.0)["is_extended"].tolist() == [
        False,
        True,
    ]
    assert "gaia-dr3: 5 stars" in runner.invoke(command, ["show", str(tmp_path / "repo")]).output
    told = runner.invoke(command, ["show", str(tmp_path / "repo"), "gaia-dr3"]).output
    assert "square degrees" in told
    bad = runner.invoke(command, ["import", str(tmp_path), str(tmp_path / "refcat.parquet"), "--columns", "ra"])
    assert "'ra' is not of the form ours=theirs" in bad.output


def test_detections_are_grouped_one_to_one() -> None:
    first, second = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[0.4, 0.0], [0.1, 0.0], [30.0, 0.0]])
    labels = group_positions([first, np.zeros((0, 2)), second], radius=1.0)
    assert [label.tolist() for label in labels] == [[0, 1], [], [2, 0, 3]]


def test_overlapping_images_give_their_relative_zero_points_and_true_means() -> None:
    rng = np.random.default_rng(2)
    n, offsets = 300, np.array([0.0, 0.3, -1.2, 0.7])
    truth = rng.uniform(14, 20, n)
    image, star = (g.ravel() for g in np.meshgrid(np.arange(4), np.arange(n), indexing="ij"))
    keep = ~((image == 0) & (star > 150)) & ~((image == 3) & (star < 140))
    image, star = image[keep], star[keep]
    error = rng.uniform(0.02, 0.1, image.size)
    magnitude = truth[star] - offsets[image] + rng.normal(0, error)
    magnitude[rng.choice(image.size, 20)] += 2.0
    found = solve_overlaps(image, star, magnitude, error, n_images=4, n_stars=n + 1)
    np.testing.assert_allclose(found.offsets, offsets, atol=0.02)
    assert found.n_linked == 4
    assert np.median(np.abs(found.magnitudes[:n] - truth)) < 0.04
    assert np.isnan(found.magnitudes[n])


def simple_detect(pixels: MaskedImage) -> Catalog:
    """Peaks of a smoothed image above 5 sigma, moments and an aperture."""
    smooth = ndimage.gaussian_filter(pixels.image, 1.5)
    sigma = 1.4826 * np.median(np.abs(smooth))
    y, x = np.nonzero((smooth == ndimage.maximum_filter(smooth, 7)) & (smooth > 8 * sigma))
    inside = (x > 6) & (x < pixels.shape[1] - 7) & (y > 6) & (y < pixels.shape[0] - 7)
    x, y = x[inside], y[inside]
    box = np.arange(-5, 6)
    stamps = pixels.image[y[:, None, None] + box[None, :, None], x[:, None, None] + box[None, None, :]]
    weight = np.clip(stamps, 0, None) * np.exp(-(box[None, :, None] ** 2 + box[None, None, :] ** 2) / 8.0)
    total = weight.sum(axis=(1, 2))
    flux = stamps.sum(axis=(1, 2))
    return Catalog({
        "x": x + 2 * (weight * box[None, None, :]).sum(axis=(1, 2)) / total,
        "y": y + 2 * (weight * box[None, :, None]).sum(axis=(1, 2)) / total,
        "x_err": np.full(x.size, 0.05), "y_err": np.full(x.size, 0.05),
        "flux": flux, "flux_err": np.sqrt(np.clip(flux, 0, None) + 121 * pixels.variance[0, 0]),
        "flags": np.zeros(x.size, dtype=np.int32),
    })  # fmt: skip


def made_image(rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, mag: np.ndarray, *, k: int) -> TrustedImage:
    """An image of the stars, turned and shifted a little, with a transparency and a passing asteroid of its own."""
    wcs = Wcs.tangent(ra=80.0 + 0.002 * k, dec=20.0, x=150, y=150, scale_arcsec=1.0, rotation_deg=5.0 * k)
    x, y = wcs.sky_to_pixel(ra=ra, dec=dec)
    x, y, m = np.r_[x, 40.0 + 50 * k], np.r_[y, 260.0], np.r_[mag, 16.0]
    yy, xx = np.mgrid[0:300, 0:300]
    image = rng.normal(0, 3.0, (300, 300))
    for a, b, c in zip(x, y, m, strict=True):
        if -10 < a < 310 and -10 < b < 310:
            flux = 10 ** (-0.4 * (c - 26.0 + 0.2 * k))
            image += flux / (2 * np.pi * 4) * np.exp(-((xx - a) ** 2 + (yy - b) ** 2) / 8.0)
    pixels = MaskedImage(image.astype(np.float32), np.full((300, 300), 9.0, np.float32), np.zeros((300, 300), np.int32))
    return TrustedImage(f"image{k}", pixels, wcs, "r", 30.0, 2020.0)


def test_images_become_a_catalog_on_one_relative_scale_without_the_asteroid() -> None:
    rng = np.random.default_rng(3)
    ra, dec = 80.0 + rng.uniform(-0.04, 0.04, 40), 20.0 + rng.uniform(-0.04, 0.04, 40)
    mag = rng.uniform(15.0, 18.5, 40)
    images = [made_image(rng, ra, dec, mag, k=k) for k in range(3)]
    made = MakeRefcatFromImages(simple_detect).run(images)
    catalog = made.catalog
    near = [
        np.argmin(separation_deg(ra=ra, dec=dec, ra0=a, dec0=d))
        for a, d in zip(catalog["ra"], catalog["dec"], strict=True)
    ]
    distance = [
        float(separation_deg(ra=ra[[j]], dec=dec[[j]], ra0=a, dec0=d)[0]) * 3600
        for j, a, d in zip(near, catalog["ra"], catalog["dec"], strict=True)
    ]
    assert catalog.n_rows > 25
    assert np.median(distance) < 0.1
    assert max(distance) < 2.0
    difference = catalog["mag_r"] - mag[near]
    assert np.median(np.abs(difference - np.median(difference))) < 0.03
    assert made.metadata["is_calibrated"] is False
    assert made.metadata["magnitudes"].startswith("ARBITRARY in r")
    known = [
        TrustedImage(i.name, i.pixels, i.wcs, i.band, i.exposure_s, i.epoch_year, 26.0 - 0.2 * k)
        for k, i in enumerate(images)
    ]
    tied = MakeRefcatFromImages(simple_detect).run(known)
    assert tied.metadata["is_calibrated"] is True
    assert np.median(tied.catalog["mag_r"] - mag[near]) == pytest.approx(0.0, abs=0.05)
    with pytest.raises(DataError, match="no images"):
        MakeRefcatFromImages(simple_detect).run([])


def test_stars_are_graded_by_psf_and_kron_magnitudes_and_by_scores_that_a_catalog_has() -> None:
    places = {"raMean": np.arange(4.0), "decMean": np.zeros(4)}
    psf = np.array([18.0, 18.0, 18.0, 13.0])
    kron = psf - np.array([0.0, 0.4, 0.049, 0.4])
    errors = {"iMeanPSFMagErr": np.full(4, 0.01), "iMeanKronMagErr": np.full(4, 0.02)}
    graded = refcat_from_table(NamedTable(places | {"iMeanPSFMag": psf, "iMeanKronMag": kron} | errors, {})).catalog
    np.testing.assert_allclose(graded["star_score"][:3], [0.95, 0.0, 0.5], atol=0.02)
    assert np.isnan(graded["star_score"][3]), "it saturates"
    assert graded["is_extended"].tolist() == [False, True, False, False]
    scored = refcat_from_table(NamedTable(places | {"ps_score": np.array([0.9, 0.1, -999.0, 0.6])}, {})).catalog
    np.testing.assert_allclose(scored["star_score"], [0.9, 0.1, np.nan, 0.6], rtol=1e-6)
    assert scored["is_extended"].tolist() == [False, True, False, False]
