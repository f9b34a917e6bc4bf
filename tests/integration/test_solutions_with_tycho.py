"""A small telescope's unguided frames against Tycho-2 as Debian packs it (astrometry-data-tycho2)."""

from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits

from gueststar.cameras.load import load_camera
from gueststar.formats.astrometry_index import read_index_stars
from gueststar.model.catalog import Catalog
from gueststar.pipelines.science.astrometry import SolveAstrometry
from gueststar.store.refcats import RefcatStore

INDEX = Path("/usr/share/astrometry/index-tycho2-07.littleendian.fits")


@pytest.fixture(scope="module")
def tycho(tmp_path_factory: pytest.TempPathFactory) -> RefcatStore:
    if not INDEX.is_file():
        pytest.skip("the Debian package astrometry-data-tycho2 is not installed")
    store = RefcatStore(tmp_path_factory.mktemp("refcats"))
    catalog = read_index_stars(INDEX)
    near = (np.abs(catalog["ra"] - 31.0) < 5) & (np.abs(catalog["dec"] - 46.8) < 4)
    store.import_catalog("tycho2", catalog.select(near))
    return store


@pytest.mark.real_data
def test_a_star_of_known_place_and_brightness_is_in_the_index(tycho: RefcatStore) -> None:
    """HAT-P-32 = TYC 3281-800-1 is at 02 04 10.28 +46 41 16.2 and of V = 11.3."""
    found = tycho.cone(ra=31.04283, dec=46.68783, radius_deg=2 / 3600)
    assert found.n_rows == 1
    assert found["mag_r"][0] == pytest.approx(11.3, abs=0.3)


@pytest.mark.real_data
def test_every_microobservatory_frame_is_solved_as_the_field_drifts(shared_data: Path, tycho: RefcatStore) -> None:
    files = sorted((shared_data / "microobs_hatp32b").glob("*.FITS.gz"))[::8]
    if not files:
        pytest.skip("the MicroObservatory frames are not there")
    camera = load_camera("microobs")
    detector = camera.detectors[0]
    pointings = []
    for path in files:
        with fits.open(path) as hdus:
            header, image = hdus[0].header, hdus[0].data[8:500, 2:650].astype(np.float32)
        background = sep.Background(image, bw=32, bh=32)
        found = sep.extract(image - background.back(), 4, err=background.globalrms, minarea=4)
        sources = Catalog({name: found[name] for name in ("x", "y", "flux")})
        start = camera.nominal_wcs(detector, ra=header["RA"], dec=header["DEC"])
        solution = SolveAstrometry().run(
            sources, start=start, shape=detector.shape, epoch_year=2017.97,
            reference=tycho.cone(ra=header["RA"], dec=header["DEC"], radius_deg=1.4),
            pointing_tolerance_arcmin=camera.pointing_tolerance_arcmin,
            rotation_tolerance_deg=camera.rotation_tolerance_deg, scale_tolerance=camera.pixel_scale_tolerance,
        )  # fmt: skip
        assert solution.metrics.n_matches >= 0.85 * solution.metrics.n_reference
        assert solution.metrics.rms_ra_mas < 1000
        assert solution.wcs.pixel_scale_arcsec == pytest.approx(5.165, rel=0.001)
        pointings.append(solution.metrics.pointing_offset_arcsec)
    assert np.all(np.diff(pointings) > 0)
