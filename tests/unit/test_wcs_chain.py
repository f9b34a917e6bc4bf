"""Chains of steps lead to the sky and back, join, and are what files hold."""

import numpy as np
import pytest
from astropy.wcs import WCS

from gueststar.algorithms.astrometry.distortion import Distortion, without_similarity
from gueststar.algorithms.astrometry.polynomial import n_terms
from gueststar.algorithms.astrometry.refraction import air_above
from gueststar.cameras.load import load_camera
from gueststar.core.errors import DataError
from gueststar.formats.sip_header import to_sip_header
from gueststar.model.wcs_chain import AirStep, WcsChain, detector_chain

CAMERA = load_camera("ztf")
AIR = air_above(
    mjd_utc=60310.3, latitude_deg=33.36, longitude_deg=-116.86, height_m=1700.0, band="r", colour=("g", "r")
)


def distortion(shape: tuple[int, int], size: float = 2.0) -> Distortion:
    rng = np.random.default_rng(0)
    coefficients = without_similarity(rng.normal(0, size, (2, n_terms(4))) / np.arange(1, n_terms(4) + 1), shape)
    return Distortion(shape, coefficients, np.zeros_like(coefficients), np.zeros_like(coefficients))


def apart_mas(a: tuple, b: tuple) -> float:
    d_ra = (a[0] - b[0] + 180.0) % 360.0 - 180.0
    return float(np.max(np.hypot(d_ra * np.cos(np.radians(b[1])), a[1] - b[1]))) * 3.6e6


@pytest.mark.parametrize(("ra", "dec"), [(0.001, 20.0), (200.0, -89.3), (120.0, 60.0)])
def test_the_whole_chain_leads_to_the_sky_and_back(ra: float, dec: float) -> None:
    rng = np.random.default_rng(1)
    for detector in (CAMERA.detectors[0], CAMERA.detectors[-1]):
        chain = detector_chain(
            CAMERA, detector, ra=ra, dec=dec, rotation_deg=37.0, distortion=distortion(detector.shape),
            air=AIR if dec > 0 else None,
        )  # fmt: skip
        x, y = rng.uniform(0, 3000, (2, 50))
        back = chain.sky_to_pixel(**dict(zip(("ra", "dec"), chain.pixel_to_sky(x=x, y=y), strict=True)))
        np.testing.assert_allclose(back, (x, y), atol=1e-6)


def test_without_rotation_the_chain_is_the_nominal_wcs_on_the_equator() -> None:
    for detector in CAMERA.detectors[:4]:
        nominal = CAMERA.nominal_wcs(detector, ra=50.0, dec=0.0)
        chain = detector_chain(CAMERA, detector, ra=50.0, dec=0.0)
        middle = {"x": (detector.shape[1] - 1) / 2, "y": (detector.shape[0] - 1) / 2}
        assert apart_mas(chain.pixel_to_sky(**middle), nominal.pixel_to_sky(**middle)) < 1.0


def test_the_file_forms_of_a_chain_are_the_chain_for_wcslib() -> None:
    """TPV and SIP, both read by astropy's WCSLIB."""
    detector = CAMERA.detectors[3]
    chain = detector_chain(
        CAMERA, detector, ra=170.0, dec=54.0, rotation_deg=-5.0, distortion=distortion(detector.shape), air=AIR
    )
    wcs = chain.to_wcs(detector.shape)
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 3071, 12), np.linspace(0, 3079, 12)))
    expected = chain.pixel_to_sky(x=x, y=y)
    assert apart_mas(wcs.pixel_to_sky(x=x, y=y), expected) < 1.0
    for header in (wcs.to_header(), to_sip_header(wcs, detector.shape)):
        assert apart_mas(WCS(header).all_pix2world(x, y, 0), expected) < 1.0


def test_what_no_file_can_hold_is_refused_with_its_size() -> None:
    detector = CAMERA.detectors[0]
    shape = detector.shape
    wild = np.zeros((2, n_terms(9)))
    wild[:, -5] = 3.0
    chain = detector_chain(CAMERA, detector, ra=10.0, dec=10.0, distortion=Distortion(shape, wild, 0 * wild, 0 * wild))
    with pytest.raises(DataError, match="does not fit TPV: .* mas off"):
        chain.to_wcs(shape)


def test_chains_join() -> None:
    detector = CAMERA.detectors[0]
    joined = detector_chain(CAMERA, detector, ra=210.0, dec=54.0) | WcsChain((AirStep(AIR),))
    whole = detector_chain(CAMERA, detector, ra=210.0, dec=54.0, air=AIR)
    np.testing.assert_array_equal(joined.pixel_to_sky(x=5.0, y=7.0), whole.pixel_to_sky(x=5.0, y=7.0))
