import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from gueststar.algorithms.astrometry.tangent import N_TPV, TPV_POWERS, identity_tpv
from gueststar.formats.sip_header import to_sip_header
from gueststar.formats.wcs_header import wcs_from_header
from gueststar.model.wcs import Wcs

SHAPE = (3080, 3072)


def distorted(seed: int) -> Wcs:
    rng = np.random.default_rng(seed)
    plain = Wcs.tangent(ra=123.0, dec=-40.0, x=1500.0, y=1600.0, scale_arcsec=1.0, rotation_deg=33.0)
    pv = np.zeros((2, N_TPV))
    for m, powers in TPV_POWERS.items():
        pv[:, m] = rng.normal(0, 0.003, 2) if sum(powers) else rng.normal(0, 1e-4, 2)
    return Wcs(plain.crval, plain.crpix, plain.cd, identity_tpv() + pv[0], identity_tpv() + pv[1])


def test_astropy_reads_the_sip_form_as_our_tpv_form() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 3071, 50), rng.uniform(0, 3079, 50)
    for seed in range(3):
        wcs = distorted(seed)
        theirs = WCS(fits.Header(list(to_sip_header(wcs, SHAPE).items())))
        np.testing.assert_allclose(theirs.all_pix2world(x, y, 0), wcs.pixel_to_sky(x=x, y=y), rtol=0, atol=1e-10)
        u, v = (theirs.wcs_world2pix(np.stack(wcs.pixel_to_sky(x=x, y=y), axis=1), 0) + 1 - theirs.wcs.crpix).T
        back_x = u + np.polynomial.polynomial.polyval2d(u, v, theirs.sip.ap) + theirs.wcs.crpix[0] - 1
        back_y = v + np.polynomial.polynomial.polyval2d(u, v, theirs.sip.bp) + theirs.wcs.crpix[1] - 1
        assert np.hypot(back_x - x, back_y - y).max() < 1e-3


def test_our_own_reader_takes_the_sip_form_back() -> None:
    wcs = distorted(5)
    again = wcs_from_header(to_sip_header(wcs, SHAPE), SHAPE)
    x, y = np.array([0.0, 3071.0, 20.0]), np.array([0.0, 10.0, 3079.0])
    np.testing.assert_allclose(again.pixel_to_sky(x=x, y=y), wcs.pixel_to_sky(x=x, y=y), rtol=0, atol=1e-9)


def test_a_plain_tangent_plane_needs_no_sip() -> None:
    plain = Wcs.tangent(ra=1.0, dec=2.0, x=3.0, y=4.0, scale_arcsec=1.0)
    header = to_sip_header(plain, (10, 10))
    assert header["CTYPE1"] == "RA---TAN"
    assert "A_ORDER" not in header
