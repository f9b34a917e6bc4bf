import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from gueststar.algorithms.astrometry.tangent import identity_tpv
from gueststar.model.wcs import Wcs


def distorted(ra: float, dec: float) -> Wcs:
    plain = Wcs.tangent(ra=ra, dec=dec, x=700.0, y=600.0, scale_arcsec=1.0, rotation_deg=10.0)
    pv = identity_tpv()
    pv[4], pv[7] = 0.003, 0.01
    return Wcs(plain.crval, plain.crpix, plain.cd, pv, pv)


def test_pixel_to_sky_agrees_with_wcslib_to_a_microarcsecond() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1400, 50), rng.uniform(0, 1300, 50)
    for ra, dec in ((179.9, 40.0), (0.001, -75.0), (359.99, 89.7)):
        wcs = distorted(ra, dec)
        header = fits.Header(list(wcs.to_header().items()))
        ours, theirs = wcs.pixel_to_sky(x=x, y=y), WCS(header).all_pix2world(x, y, 0)
        separation = np.hypot((ours[0] - theirs[0]) * np.cos(np.radians(dec)), ours[1] - theirs[1])
        assert separation.max() * 3600e6 < 1.0


def test_sky_to_pixel_inverts_pixel_to_sky() -> None:
    wcs = distorted(0.001, 12.0)
    x, y = np.array([0.0, 1399.0, 20.5]), np.array([0.0, 5.0, 1299.0])
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    back = wcs.sky_to_pixel(ra=ra, dec=dec)
    np.testing.assert_allclose(back, [x, y], atol=1e-6)


def test_header_round_trip_keeps_the_solution() -> None:
    wcs = distorted(10.0, -30.0)
    again = Wcs.from_header(wcs.to_header())
    np.testing.assert_array_equal(again.pv1, wcs.pv1)
    assert again.crpix == wcs.crpix
    assert again.parity == wcs.parity == 1
