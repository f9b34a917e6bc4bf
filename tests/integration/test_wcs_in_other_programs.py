"""Programs that share no code with us read our headers to the same sky: SExtractor (SCAMP's library), WCSTools,
Astrometry.net and WCSLIB's own tools."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.algorithms.astrometry.tangent import identity_tpv
from gueststar.formats.sip_header import to_sip_header
from gueststar.model.wcs import Wcs

SHAPE = (900, 1000)
X, Y = np.array([30.0, 500.25, 960.5, 31.0, 955.0]), np.array([25.0, 449.5, 40.0, 870.0, 866.5])


def distorted() -> Wcs:
    plain = Wcs.tangent(ra=359.95, dec=-41.0, x=480.0, y=470.0, scale_arcsec=2.3, rotation_deg=31.0)
    pv1, pv2 = identity_tpv(), identity_tpv()
    pv1[[2, 4, 5, 7, 9, 12, 17]] = 0.003, 0.01, -0.02, 0.3, 0.31, 0.2, -0.5
    pv2[[0, 2, 4, 6, 7, 9, 14, 20]] = 1e-5, -0.002, -0.01, 0.013, 0.29, 0.3, -0.3, 0.4
    return Wcs(plain.crval, plain.crpix, plain.cd, pv1, pv2)


def image(
    path: Path, cards: dict, *, x: np.ndarray = X, y: np.ndarray = Y, peak: np.ndarray | float = 5000.0
) -> Path:  # fmt: skip
    """A frame with round stars."""
    pixels = np.random.default_rng(0).normal(0, 0.5, SHAPE)
    for px, py, height in np.broadcast(x, y, peak):
        top, left = max(int(py) - 15, 0), max(int(px) - 15, 0)
        part = pixels[top : top + 31, left : left + 31]
        row, column = np.mgrid[: part.shape[0], : part.shape[1]]
        part += height * np.exp(-0.5 * ((column + left - px) ** 2 + (row + top - py) ** 2) / 2.0**2)
    fits.PrimaryHDU(pixels.astype(np.float32), fits.Header(cards)).writeto(path)
    return path


def apart_mas(ra: np.ndarray, dec: np.ndarray, expected: tuple[np.ndarray, np.ndarray]) -> float:
    d_ra = (ra - expected[0] + 180.0) % 360.0 - 180.0
    return float(np.max(np.hypot(d_ra * np.cos(np.radians(dec)), dec - expected[1]))) * 3.6e6


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def extract(folder: Path, columns: tuple[str, ...], kind: str, catalog: str) -> None:
    """Run SExtractor on i.fits."""
    program = need("source-extractor")
    (folder / "p.param").write_text("\n".join(columns) + "\n")
    (folder / "c.sex").write_text("# defaults\n")
    subprocess.run(
        [
            program, "i.fits", "-c", "c.sex", "-CATALOG_NAME", catalog, "-CATALOG_TYPE", kind, "-FILTER", "N",
            "-PARAMETERS_NAME", "p.param", "-DETECT_THRESH", "50", "-ANALYSIS_THRESH", "50",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def test_sextractor_which_shares_scamps_library_reads_our_tpv(tmp_path: Path) -> None:
    wcs = distorted()
    image(tmp_path / "i.fits", wcs.to_header())
    extract(tmp_path, ("X_IMAGE_DBL", "Y_IMAGE_DBL", "ALPHA_J2000", "DELTA_J2000"), "FITS_1.0", "o.fits")
    found = fits.getdata(tmp_path / "o.fits", 1)
    assert len(found) == X.size
    expected = wcs.pixel_to_sky(x=found["X_IMAGE_DBL"] - 1.0, y=found["Y_IMAGE_DBL"] - 1.0)
    assert apart_mas(found["ALPHA_J2000"], found["DELTA_J2000"], expected) < 1.0


@pytest.mark.parametrize("is_sip", [False, True])
def test_wcstools_reads_our_headers(tmp_path: Path, is_sip: bool) -> None:
    program, wcs = need("xy2sky"), distorted()
    image(tmp_path / "i.fits", to_sip_header(wcs, SHAPE) if is_sip else wcs.to_header())
    pairs = [f"{value:.6f}" for x, y in zip(X + 1.0, Y + 1.0, strict=True) for value in (x, y)]
    told = subprocess.run(
        [program, "-d", "-n", "8", "i.fits", *pairs], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    rows = np.array([[float(word) for word in line.split()[:2]] for line in told.stdout.splitlines()])
    assert apart_mas(rows[:, 0], rows[:, 1], wcs.pixel_to_sky(x=X, y=Y)) < 1.0


def test_astrometry_net_reads_our_sip(tmp_path: Path) -> None:
    program, wcs = need("wcs-xy2rd"), distorted()
    header = fits.Header(to_sip_header(wcs, SHAPE) | {"IMAGEW": SHAPE[1], "IMAGEH": SHAPE[0]})
    fits.PrimaryHDU(header=header).writeto(tmp_path / "w.fits")
    columns = [fits.Column("X", "D", array=X + 1.0), fits.Column("Y", "D", array=Y + 1.0)]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "xy.fits")
    subprocess.run(
        [program, "-w", "w.fits", "-i", "xy.fits", "-o", "rd.fits"], cwd=tmp_path, check=True, capture_output=True
    )
    found = fits.getdata(tmp_path / "rd.fits", 1)
    assert apart_mas(found["RA"], found["DEC"], wcs.pixel_to_sky(x=X, y=Y)) < 1.0


def test_scamp_starts_from_our_header_and_writes_one_that_is_the_same_sky(tmp_path: Path) -> None:
    """Without looking for a pattern SCAMP can only match what our header puts within arcseconds of the stars."""
    program, wcs = need("scamp"), distorted()
    rng = np.random.default_rng(3)
    x, y = (
        g.ravel() + rng.uniform(-9, 9, g.size) for g in np.meshgrid(np.linspace(20, 980, 20), np.linspace(20, 880, 18))
    )
    flux = 10 ** rng.uniform(3.5, 4.5, x.size)
    image(tmp_path / "i.fits", {**wcs.to_header(), "EXPTIME": 1.0, "EQUINOX": 2000.0}, x=x, y=y, peak=flux)
    names = (
        "NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE", "FLUX_AUTO",
        "FLUXERR_AUTO", "FLAGS", "FLUX_RADIUS", "ELONGATION",
    )  # fmt: skip
    extract(tmp_path, names, "FITS_LDAC", "cat.fits")
    _reference(tmp_path / "ref.fits", *wcs.pixel_to_sky(x=x, y=y), 25.0 - 2.5 * np.log10(flux))
    (tmp_path / "c.scamp").write_text("# defaults\n")
    subprocess.run(
        [
            program, "cat.fits", "-c", "c.scamp", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "ref.fits",
            "-MATCH", "N", "-CROSSID_RADIUS", "3", "-CHECKPLOT_TYPE", "NONE", "-WRITE_XML", "N", "-NTHREADS", "1",
            "-DISTORT_DEGREES", "4",
        ],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    lines = (tmp_path / "cat.head").read_text(encoding="latin-1").splitlines()
    cards = [line for line in lines if not line.startswith(("HISTORY", "COMMENT"))]
    solved = Wcs.from_header(fits.Header.fromstring("\n".join(cards), sep="\n"))
    assert apart_mas(*solved.pixel_to_sky(x=X, y=Y), wcs.pixel_to_sky(x=X, y=Y)) < 30.0


def _reference(path: Path, ra: np.ndarray, dec: np.ndarray, magnitude: np.ndarray) -> None:
    n = ra.size
    values = {
        "X_WORLD": ra, "Y_WORLD": dec, "ERRA_WORLD": np.full(n, 1e-7), "ERRB_WORLD": np.full(n, 1e-7),
        "ERRTHETA_WORLD": np.zeros(n), "MAG": magnitude, "MAGERR": np.full(n, 0.01), "OBSDATE": np.full(n, 2000.0),
    }  # fmt: skip
    text = fits.Header([("EQUINOX", 2000.0)]).tostring(endcard=True, padding=True)
    head = fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", f"{len(text)}A", array=np.array([text]))], name="LDAC_IMHEAD"
    )
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "1D", array=column) for name, column in values.items()], name="LDAC_OBJECTS"
    )
    fits.HDUList([fits.PrimaryHDU(), head, table]).writeto(path)
