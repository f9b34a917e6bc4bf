import numpy as np
import pytest

from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.errors import DataError
from gueststar.core.ids import exposure_id, source_ids
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_apertures, calibrate_sources

SIDE = 300


@pytest.fixture
def psf(gaussian_psf):
    return gaussian_psf(1.1, (SIDE, SIDE))


def test_catalogs_hold_every_star_once_with_its_total_flux(star_field, psf) -> None:
    field = star_field(40, shape=(SIDE, SIDE), log_flux=(4.0, 5.0), min_distance=20.0)
    catalogs = MakeCatalogs().run(field.pixels, psf)
    order = np.argsort(-field.flux)
    for catalog, column in ((catalogs.psf, "flux"), (catalogs.aperture, "total_flux")):
        assert catalog.n_rows == 40
        distance = np.hypot(catalog["x"][:, None] - field.x, catalog["y"][:, None] - field.y)
        row = distance.argmin(axis=0)
        np.testing.assert_allclose(catalog[column][row], field.flux, rtol=0.05)
    np.testing.assert_allclose(catalogs.aperture["fwhm"], 2.3548 * np.sqrt(1.1**2 + 1 / 12), rtol=0.1)
    assert np.all(np.diff(catalogs.psf["flux"]) <= 0)
    np.testing.assert_allclose(catalogs.psf["x"][:3], field.x[order][:3], atol=0.1)
    assert np.median(catalogs.aperture["class_star"]) > 0.6


def test_moments_give_shape_and_angle_of_a_galaxy(star_field, psf) -> None:
    y, x = np.indices((SIDE, SIDE)) - 150.3
    t = np.radians(35.0)
    u, v = x * np.cos(t) + y * np.sin(t), -x * np.sin(t) + y * np.cos(t)
    galaxy = 2e5 * np.exp(-0.5 * (u**2 / 9.0 + v**2 / 4.0)) / (2 * np.pi * 6.0)
    data = np.random.default_rng(1).poisson(galaxy + 200.0)
    catalog = MakeCatalogs().run(MaskedImage(data - 200.0, data + 25.0, np.zeros(data.shape)), psf).aperture
    assert catalog["theta_deg"][0] == pytest.approx(35.0, abs=3.0)
    assert catalog["a_image"][0] == pytest.approx(3.0, rel=0.05)
    assert catalog["b_image"][0] == pytest.approx(2.0, rel=0.05)
    assert catalog["total_flux"][0] == pytest.approx(2e5, rel=0.03)
    assert catalog["class_star"][0] < 0.01


def test_masked_pixels_in_the_core_are_flagged_and_cost_little(star_field, psf) -> None:
    field = star_field(12, shape=(SIDE, SIDE), log_flux=(4.5, 5.0), min_distance=40.0)
    image, mask = field.pixels.image.copy(), field.pixels.mask.copy()
    spoilt = [
        (round(field.x[0]) + 1, round(field.y[0]), MaskPlane.BAD),
        (round(field.x[1]), round(field.y[1]), MaskPlane.COSMIC_RAY),
    ]
    for x, y, plane in spoilt:
        image[y, x], mask[y, x] = 1e6, int(plane)
    catalog = MakeCatalogs().run(MaskedImage(image, field.pixels.variance, mask), psf).psf
    for star, flag in ((0, SourceFlag.BAD_PIXEL), (1, SourceFlag.COSMIC_RAY)):
        row = np.argmin(np.hypot(catalog["x"] - field.x[star], catalog["y"] - field.y[star]))
        assert catalog["flags"][row] & flag
        assert catalog["flux"][row] == pytest.approx(field.flux[star], rel=0.05)


@pytest.mark.parametrize(
    ("image", "mask"),
    [(0.0, 0), (0.0, int(MaskPlane.NO_DATA)), (np.nan, int(MaskPlane.NO_DATA)), (np.nan, 0)],
)
@pytest.mark.parametrize("shape", [(64, 64), (7, 9)])
def test_images_without_sources_give_empty_catalogs(gaussian_psf, image, mask, shape) -> None:
    pixels = MaskedImage(np.full(shape, image), np.ones(shape), np.full(shape, mask))
    catalogs = MakeCatalogs().run(pixels, gaussian_psf(1.1, shape))
    assert catalogs.psf.n_rows == catalogs.aperture.n_rows == 0
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=30.0, y=30.0, scale_arcsec=1.0)
    assert calibrate_sources(catalogs.psf, wcs, PhotoCal(26.0, 0.01), visit=1, detector=1).n_rows == 0


def test_calibrated_catalogs_have_sky_positions_njy_and_unique_ids(star_field, psf) -> None:
    field = star_field(30, shape=(SIDE, SIDE), log_flux=(4.0, 5.0), min_distance=20.0)
    catalogs = MakeCatalogs().run(field.pixels, psf)
    wcs = Wcs.tangent(ra=359.99, dec=60.0, x=150.0, y=150.0, scale_arcsec=2.0, rotation_deg=30.0)
    photocal = PhotoCal(26.3, 0.01)
    visit = exposure_id(60400.2)
    sources = calibrate_sources(catalogs.psf, wcs, photocal, visit=visit, detector=3)
    apertures = calibrate_apertures(catalogs.aperture, wcs, photocal, visit=visit, detector=3)
    ra, dec = wcs.pixel_to_sky(x=catalogs.psf["x"], y=catalogs.psf["y"])
    np.testing.assert_array_equal([sources["ra"], sources["dec"]], [ra, dec])
    np.testing.assert_allclose(sources["mag"], 31.4 - 2.5 * np.log10(sources["psf_flux"]), atol=1e-5)
    np.testing.assert_allclose(
        np.hypot(sources["ra_err"], sources["dec_err"]), 2 * np.hypot(sources["x_err"], sources["y_err"]), rtol=1e-5
    )
    assert np.unique(sources["source_id"]).size == 30
    assert apertures["total_flux"][0] == pytest.approx(catalogs.aperture["total_flux"][0] * photocal.njy_per_unit)


def test_source_ids_are_positive_reproducible_and_apart_for_other_visits_and_detectors() -> None:
    blocks = [
        source_ids(v, d, 1000) for v in (exposure_id(60400.2), exposure_id(60400.20001), 2**45) for d in (0, 63, 300)
    ]
    every = np.concatenate(blocks)
    assert np.unique(every).size == every.size
    assert every.min() > 0
    np.testing.assert_array_equal(source_ids(7, 5, 10), source_ids(7, 5, 10))
    with pytest.raises(DataError, match="identifiers end"):
        source_ids(1, 1, 2**18)
