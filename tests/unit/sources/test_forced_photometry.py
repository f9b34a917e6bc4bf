"""Forced photometry on science images: unbiased where nothing is detected, with neighbours, with honest errors."""

import numpy as np
import pytest

from gueststar.algorithms.psf.spline import shifted_stamps, spline_psf
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.errors import ConfigError
from gueststar.formats.places import read_places
from gueststar.model.columns import SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.forced import MeasureForced

SHAPE, FWHM, SKY = (640, 600), 2.4, 400.0
HALF, SAMPLING = 12, 2


def make_psf():
    g = np.arange(-HALF * SAMPLING, HALF * SAMPLING + 1) / SAMPLING
    stamp = np.exp(-0.5 * (g[:, None] ** 2 + g**2) / (FWHM / 2.3548) ** 2)
    return Psf((stamp / stamp.sum() * SAMPLING**2)[None].astype(np.float32), 0, SHAPE, SAMPLING)


def field(seed, *, leftover=0.0):
    """Faint stars on a grid, half of them with a bright neighbour 3.4 pixels away that the catalog knows."""
    rng = np.random.default_rng(seed)
    psf = make_psf()
    gy, gx = np.mgrid[30 : SHAPE[0] - 30 : 28, 30 : SHAPE[1] - 30 : 28]
    x, y = gx.ravel() + rng.uniform(-0.5, 0.5, gx.size), gy.ravel() + rng.uniform(-0.5, 0.5, gx.size)
    flux = rng.choice([0.0, 150.0, 400.0], gx.size)
    has_neighbour = np.arange(gx.size) % 2 == 0
    angle = rng.uniform(0, 2 * np.pi, gx.size)
    near_x, near_y = (x + 3.4 * np.cos(angle))[has_neighbour], (y + 3.4 * np.sin(angle))[has_neighbour]
    near_flux = rng.uniform(2e3, 2e4, near_x.size)
    light = np.full(SHAPE, SKY)
    everything = np.concatenate([x, near_x]), np.concatenate([y, near_y]), np.concatenate([flux, near_flux])
    spline = spline_psf(psf.coefficients, 0, SHAPE, SAMPLING)
    for u, v, f in zip(*everything, strict=True):
        i, j = round(u), round(v)
        one = np.array([u]), np.array([v])
        stamp = shifted_stamps(spline, x=one[0], y=one[1], dx=one[0] - i, dy=one[1] - j)[0]
        light[j - HALF : j + HALF + 1, i - HALF : i + HALF + 1] += f * stamp
    data = rng.poisson(light) - SKY + leftover
    mask = np.zeros(SHAPE, np.int32)
    pixels = MaskedImage(data.astype(np.float32), light.astype(np.float32), mask)
    wcs = Wcs.tangent(ra=150.0, dec=2.0, x=300.0, y=320.0, scale_arcsec=1.0, rotation_deg=10.0)
    image = CalibratedImage(pixels, wcs, psf, PhotoCal(25.0, 0.01), {"visit": 7, "detector": 1, "mjd_tai": 6e4})
    n = near_x.size
    columns = {column.name: np.zeros(n) for column in SOURCE.columns}
    njy = image.photocal.njy_per_unit
    sources = SOURCE.catalog(columns | {"x": near_x, "y": near_y, "psf_flux": near_flux * njy})
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    return image, sources, {"ra": ra, "dec": dec, "places": np.arange(x.size)}, flux * njy, has_neighbour


@pytest.mark.parametrize("leftover", [0.0, 3.0])
def test_fluxes_and_errors_are_right_below_the_detection_limit_and_beside_bright_stars(leftover):
    image, sources, places, truth, has_neighbour = field(1, leftover=leftover)
    found = MeasureForced().run(image, sources, **places)
    pull = (found["psf_flux"] - truth) / found["psf_flux_err"]
    for some in (has_neighbour, ~has_neighbour):
        assert abs(np.mean(pull[some])) < 0.25
        assert np.std(pull[some]) == pytest.approx(1.0, abs=0.15)
    is_flagged = (found["flags"] & int(SourceFlag.BLENDED)) != 0
    np.testing.assert_array_equal(is_flagged, has_neighbour)


def test_source_at_the_place_is_the_place_itself():
    image, sources, _, _, _ = field(2)
    ra, dec = image.wcs.pixel_to_sky(x=sources["x"][:20] + 0.2, y=sources["y"][:20])
    found = MeasureForced().run(image, sources, ra=ra, dec=dec, places=np.arange(20))
    ratio = found["psf_flux"] / sources["psf_flux"][:20]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_places_off_the_image_give_no_row_and_masked_ones_no_flux():
    image, sources, _, _, _ = field(3)
    image.pixels.mask[200:260, 200:260] = int(MaskPlane.BAD)
    ra, dec = image.wcs.pixel_to_sky(x=np.array([-50.0, 230.0, 400.0]), y=np.array([100.0, 230.0, 400.0]))
    found = MeasureForced().run(image, sources, ra=ra, dec=dec, places=np.array([5, 6, 9]))
    assert found["place"].tolist() == [6, 9]
    assert np.isnan(found["psf_flux"][0])
    assert found["flags"][0] & int(SourceFlag.BAD_PIXEL)
    assert np.isfinite(found["psf_flux"][1])


def test_places_are_read_from_the_command_line_or_a_table(tmp_path):
    one = read_places("150.5,-2.25")
    assert (one["place"].tolist(), one["ra"].tolist(), one["dec"].tolist()) == ([0], [150.5], [-2.25])
    table = tmp_path / "places.csv"
    table.write_text("place,ra,dec\n12,10.0,20.0\n13,11.0,21.0\n")
    assert read_places(str(table))["place"].tolist() == [12, 13]
    for bad in ("12", "a,b", "10,95", str(tmp_path / "none.csv")):
        with pytest.raises(ConfigError):
            read_places(bad)
