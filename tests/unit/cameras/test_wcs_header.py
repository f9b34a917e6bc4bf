import warnings
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

from gueststar.core.errors import DataError
from gueststar.formats.wcs_header import has_celestial_axes, wcs_from_header
from gueststar.model.wcs import Wcs

SHAPE = (900, 1100)


def cards_of(wcs: WCS, **more: Any) -> dict[str, Any]:
    return {**dict(wcs.to_header(relax=True)), **more}


def plain(ra: float = 120.0, dec: float = 35.0, *, scale: float = 1.0, projection: str = "TAN") -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [500.5, 480.25]
    t = np.radians(20.0)
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(t), np.sin(t)], [np.sin(t), np.cos(t)]])
    wcs.wcs.radesys = "ICRS"
    return wcs


def worst_mas(found: Wcs, cards: dict[str, Any]) -> float:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, SHAPE[1] - 1, 300), rng.uniform(0, SHAPE[0] - 1, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(fits.Header(cards)).pixel_to_world(x, y).icrs
    ra, dec = found.pixel_to_sky(x=x, y=y)
    d_ra = (ra - expected.ra.deg + 180) % 360 - 180
    return float(np.hypot(d_ra * np.cos(expected.dec.rad), dec - expected.dec.deg).max()) * 3.6e6


def with_sip(strength: float) -> WCS:
    wcs = plain(projection="TAN-SIP")
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[3, 0], b[0, 2], b[0, 3], b[1, 2] = strength * np.array([1e-6, 2e-6, 3e-9, -2e-6, 2e-9, 1e-9])
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


@pytest.mark.parametrize("dec", [35.0, -89.6, 0.0])
@pytest.mark.parametrize("ra", [0.05, 120.0, 359.95])
def test_plain_tangent_plane_is_read_exactly(ra: float, dec: float) -> None:
    cards = cards_of(plain(ra, dec))
    assert worst_mas(wcs_from_header(cards, SHAPE), cards) < 0.001


@pytest.mark.parametrize("strength", [1.0, 10.0])
def test_sip_distortion_is_fitted_to_a_milliarcsecond(strength: float) -> None:
    cards = cards_of(with_sip(strength))
    found = wcs_from_header(cards, SHAPE)
    assert worst_mas(found, cards) < 1.0
    assert abs(found.pv1[4]) > 0


@pytest.mark.parametrize("projection", ["ZEA", "ARC", "STG", "SIN", "ZPN", "CAR", "AIT"])
def test_other_projections_are_fitted_to_a_milliarcsecond(projection: str) -> None:
    wcs = plain(projection=projection, dec=5.0 if projection in ("CAR", "AIT") else 35.0)
    if projection == "ZPN":
        wcs.wcs.set_pv([(2, 1, 1.0), (2, 3, 40.0)])
    if projection in ("CAR", "AIT"):
        wcs.wcs.crval = [120.0, 0.0]
    cards = cards_of(wcs)
    assert worst_mas(wcs_from_header(cards, SHAPE), cards) < 1.0


def test_galactic_old_equinox_and_swapped_axes_come_out_in_icrs() -> None:
    galactic = plain()
    galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    old = plain()
    old.wcs.radesys, old.wcs.equinox = "FK5", 1975.0
    swapped = plain()
    swapped.wcs.ctype, swapped.wcs.crval = ["DEC--TAN", "RA---TAN"], [35.0, 120.0]
    for wcs in (galactic, old, swapped):
        cards = cards_of(wcs)
        assert worst_mas(wcs_from_header(cards, SHAPE), cards) < 1.0


def test_cdelt_with_rotation_and_pc_are_read() -> None:
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 300.0,
        "CRPIX2": 200.0, "CDELT1": -3e-4, "CDELT2": 3e-4, "CROTA2": 12.0,
    }  # fmt: skip
    assert worst_mas(wcs_from_header(cards, SHAPE), {**cards, "RADESYS": "ICRS"}) < 0.001
    cards |= {"PC1_1": 0.9, "PC1_2": 0.1, "PC2_1": -0.1, "PC2_2": 0.9}
    del cards["CROTA2"]
    assert worst_mas(wcs_from_header(cards, SHAPE), {**cards, "RADESYS": "ICRS"}) < 0.001


def test_what_no_polynomial_can_follow_is_refused_with_the_residual() -> None:
    cards = cards_of(with_sip(1.0))
    cards |= {"A_ORDER": 8, "A_8_0": 3e-23, "A_0_8": -5e-23}
    with pytest.raises(DataError, match="mas off"):
        wcs_from_header(cards, SHAPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"CTYPE1": "Linear Unbinned ADC Pixels"},
        {"CTYPE1": None, "CTYPE2": None},
        {"CTYPE1": "WAVE", "CTYPE2": "DEC--TAN"},
        {"PC1_1": 0.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 0.0},
        {"CRVAL1": "12.3"},
        {"RADESYS": "FK5", "CRPIX1": "500"},
    ],
)
def test_header_without_a_usable_celestial_wcs_is_a_data_error(changes: dict[str, Any]) -> None:
    cards = {**cards_of(plain()), **changes}
    with pytest.raises(DataError):
        wcs_from_header(cards, SHAPE)


def test_celestial_axes_are_told_from_others() -> None:
    assert has_celestial_axes(cards_of(plain()))
    assert not has_celestial_axes({"CTYPE1": "Linear Unbinned ADC Pixels", "CTYPE2": "Linear"})
    assert not has_celestial_axes({})
