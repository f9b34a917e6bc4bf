"""Astrometry and photometry on catalogs that were not made by this project."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.core.errors import DataError
from gueststar.formats.named_table import read_named_table
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import AstrometrySolution, SolveAstrometry
from gueststar.pipelines.science.photometry import SolvePhotometry

LCO = "lco_matched_catalogs/cpt1m012-fa06-20200113-0102-matched-cat.fits.gz"


@pytest.fixture(scope="module")
def lco(shared_data: Path) -> tuple[Catalog, Catalog]:
    """Detections of a 1-m Sinistro image in random order, and ATLAS-RefCat2 in the order of the file."""
    path = shared_data / LCO
    if not path.is_file():
        pytest.skip("the LCO catalog is not there")
    table = read_named_table(path)
    reference = refcat_from_table(table, epoch=2015.5).catalog
    t = table.columns
    order = np.random.default_rng(0).permutation(table.n_rows)
    order = order[np.isfinite(t["flux"][order]) & (t["flux"][order] > 0)]
    error = np.hypot(t["fwhm"] / 2.35 * t["fluxerr"] / np.where(t["flux"] > 0, t["flux"], np.nan), 0.01)
    columns = {
        "x": t["xwin"],
        "y": t["ywin"],
        "x_err": error,
        "y_err": error,
        "flux": t["flux"],
        "flux_err": t["fluxerr"],
    }
    return Catalog({k: v[order] for k, v in columns.items()} | {"row": order}), reference


def solve(sources: Catalog, reference: Catalog, rng: np.random.Generator) -> AstrometrySolution:
    start = Wcs.tangent(
        ra=float(np.median(reference["ra"])) + rng.uniform(-0.08, 0.08),
        dec=float(np.median(reference["dec"])) + rng.uniform(-0.08, 0.08),
        x=2048, y=2048, scale_arcsec=0.389 * rng.uniform(0.95, 1.05), rotation_deg=rng.uniform(0, 360),
    )  # fmt: skip
    return SolveAstrometry().run(
        sources, start=start, shape=(4096, 4096), reference=reference, epoch_year=2020.03,
        pointing_tolerance_arcmin=10.0, rotation_tolerance_deg=180.0, scale_tolerance=0.1, is_parity_known=False,
    )  # fmt: skip


@pytest.mark.real_data
def test_a_sinistro_image_is_solved_from_any_pointing_rotation_and_scale(lco: tuple[Catalog, Catalog]) -> None:
    sources, reference = lco
    rng = np.random.default_rng(1)
    for _ in range(3):
        solution = solve(sources, reference, rng)
        matches = solution.matches
        assert np.mean(sources["row"][matches.source] == matches.reference) > 0.995
        assert len(matches.source) > 2400
        assert solution.wcs.pixel_scale_arcsec == pytest.approx(0.3897, abs=0.0002)
        assert solution.metrics.rms_bright_ra_mas < 25


@pytest.mark.real_data
def test_the_sinistro_image_is_not_found_in_a_mirrored_sky(lco: tuple[Catalog, Catalog]) -> None:
    sources, reference = lco
    middle = float(np.median(reference["dec"]))
    mirrored = reference.replace(dec=2 * middle - reference["dec"])
    wrong = mirrored.replace(ra=mirrored["ra"][np.random.default_rng(2).permutation(mirrored.n_rows)])
    with pytest.raises(DataError, match="can be believed"):
        solve(sources, wrong, np.random.default_rng(3))


@pytest.mark.real_data
def test_the_colour_terms_of_four_bands_are_one_throughput(lco: tuple[Catalog, Catalog]) -> None:
    """The frame was taken in i: against i the colour term vanishes, against others it is the colour itself."""
    sources, reference = lco
    solution = solve(sources, reference, np.random.default_rng(4))
    terms = {}
    for band, colour in (("i", ("r", "i")), ("z", ("i", "z"))):
        filter = Filter(physical_filter="ip", band="i", fid=3, catalog_band=band, colour=colour)
        found = SolvePhotometry().run(sources, solution.matches, reference, filter=filter, shape=(4096, 4096))
        terms[band] = found.photocal.colour_term
        assert found.photocal.n_calibrators > 1500
        assert found.photocal.zero_point_err < 0.01
        assert found.metrics.is_band_doubtful == (band != "i")
    assert terms["i"] == pytest.approx(0.0, abs=0.05)
    assert terms["z"] == pytest.approx(-1.0, abs=0.1)


@pytest.mark.real_data
def test_the_zero_point_does_not_depend_on_which_colour_its_term_is_of(lco: tuple[Catalog, Catalog]) -> None:
    sources, reference = lco
    solution = solve(sources, reference, np.random.default_rng(4))
    glass = Filter(physical_filter="ip", band="i", fid=3, catalog_band="i")
    found = [
        SolvePhotometry()
        .run(
            sources, solution.matches, reference, filter=glass.model_copy(update={"colour": colour}), shape=(4096, 4096)
        )
        .photocal
        for colour in (("r", "i"), ("g", "i"))
    ]
    at_sun = [cal.zero_point + cal.colour_term * colour for cal, colour in zip(found, (0.12, 0.56), strict=True)]
    assert at_sun[0] == pytest.approx(at_sun[1], abs=0.02)
    assert found[0].zero_point_err < 0.005
    assert abs(found[0].colour_term) < 0.02


@pytest.mark.real_data
def test_the_bench_exposures_are_solved_to_the_turbulence_of_the_air(shared_data: Path) -> None:
    folder = shared_data / "bench_hl"
    if not folder.is_dir():
        pytest.skip("bench_hl is not there")
    reference = refcat_from_table(read_named_table(folder / "refcat.fits.gz")).catalog
    start = Wcs.from_header(fits.getheader(folder / "sci01_raw.fits.fz", 1))
    truth = read_named_table(folder / "sci01_truth.fits").columns
    rng = np.random.default_rng(5)
    seen = (truth["flux"] > 300) & (truth["x"] > 1) & (truth["x"] < 3072) & (truth["y"] > 1) & (truth["y"] < 3080)
    error = np.maximum(15.0 / truth["flux"][seen], 0.01)
    sources = Catalog({
        "x": truth["x"][seen] - 1 + rng.normal(0, error), "y": truth["y"][seen] - 1 + rng.normal(0, error),
        "x_err": error, "y_err": error, "flux": truth["flux"][seen],
    })  # fmt: skip
    solution = SolveAstrometry().run(sources, start=start, shape=(3080, 3072), reference=reference, epoch_year=2024.0)
    assert solution.metrics.n_matches > 3000
    assert solution.metrics.rms_bright_ra_mas < 20
    assert solution.metrics.rms_bright_dec_mas < 20
