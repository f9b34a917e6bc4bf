"""Any celestial WCS of a FITS header as our tangent plane with TPV distortion."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import N_TPV, TPV_POWERS, tangent_project
from gueststar.core.errors import DataError
from gueststar.model.wcs import Wcs

WCS_NUMBER = re.compile(
    r"(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC|PV)[12]_\d+|PC00[12]00[12]|(A|B|AP|BP)_(ORDER|\d_\d)|LONPOLE|LATPOLE|EQUINOX"
)
"""Cards of a celestial WCS that hold numbers."""

_TOLERANCE_MAS = 1.0

Floats = NDArray[np.float64]


def has_celestial_axes(header: Mapping[str, Any]) -> bool:
    """Return whether CTYPE1 and CTYPE2 name a longitude and a latitude with a projection."""
    kinds = {str(header.get(f"CTYPE{axis}", ""))[:4].rstrip("-") for axis in (1, 2)}
    return kinds in ({"RA", "DEC"}, {"GLON", "GLAT"}, {"ELON", "ELAT"})


def wcs_from_header(header: Mapping[str, Any], shape: tuple[int, int]) -> Wcs:
    """Return the WCS of a header for an image of ``shape`` (ny, nx).

    TAN and TPV in ICRS are read as they are. Other projections, SIP, other frames and swapped axes are
    evaluated by astropy and fitted with TPV terms up to the fifth degree. Raises DataError where the header holds
    no celestial WCS or the fit is worse than 1 mas anywhere on the image.
    """
    if not has_celestial_axes(header):
        raise DataError(f"CTYPE1 {header.get('CTYPE1')!r}, CTYPE2 {header.get('CTYPE2')!r} are no celestial WCS")
    if _is_plain(header):
        return Wcs.from_header(header)
    cards = _wcs_cards(header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = WCS(fits.Header(cards))
        return _fitted(oracle.celestial, shape)
    except (ValueError, KeyError, fits.VerifyError) as error:
        raise DataError(f"WCS {header['CTYPE1']} cannot be read: {' '.join(str(error).split())}") from error


def _is_plain(header: Mapping[str, Any]) -> bool:
    """Whether `Wcs.from_header` reads these cards exactly: RA and Dec in ICRS, TAN or TPV, degrees."""
    names = [str(header.get(f"CTYPE{axis}", "")) for axis in (1, 2)]
    if names not in (["RA---TAN", "DEC--TAN"], ["RA---TPV", "DEC--TPV"]):
        return False
    has_terms = any(re.fullmatch(r"PV[12]_\d+", key) and header[key] != 0.0 for key in header)
    is_icrs = _frame(header) == "ICRS" or (_frame(header) == "" and header.get("EQUINOX") in (None, 2000.0))
    units = {str(header.get(f"CUNIT{axis}") or "deg").strip().lower() for axis in (1, 2)}
    is_upright = header.get("LONPOLE", 180.0) in (None, 180.0)
    return is_icrs and units <= {"deg", "degree"} and is_upright and not (names[0].endswith("TAN") and has_terms)


def _frame(header: Mapping[str, Any]) -> str:
    return str(header.get("RADESYS") or header.get("RADECSYS") or "").strip().upper()


def _wcs_cards(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cards that make the WCS; WCSLIB silently takes a number written as text for its default."""
    cards = {key: value for key, value in header.items() if _is_wcs_card(key) and value is not None}
    if _frame(header) == "ICRS":
        cards.pop("EQUINOX", None)
    for key, value in cards.items():
        if WCS_NUMBER.fullmatch(key) and isinstance(value, str):
            raise DataError(f"{key} is {value!r}, needs a number")
    return cards


def _is_wcs_card(key: str) -> bool:
    return bool(WCS_NUMBER.fullmatch(key)) or key in {
        "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "RADESYS", "RADECSYS", "EPOCH", "WCSAXES", "DATE-OBS", "MJD-OBS",
    }  # fmt: skip


def _fitted(oracle: WCS, shape: tuple[int, int]) -> Wcs:
    """Return the TPV WCS that agrees with ``oracle`` on a grid over the image."""
    ny, nx = shape
    x0, y0 = (nx - 1) / 2.0, (ny - 1) / 2.0
    ra0, dec0 = (float(value[0]) for value in _sky(oracle, np.array([x0]), np.array([y0])))
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-0.5, nx - 0.5, 25), np.linspace(-0.5, ny - 0.5, 25)))
    ra, dec = _sky(oracle, x, y)
    xi, eta = tangent_project(ra, dec, ra0=ra0, dec0=dec0)
    linear = np.column_stack([x - x0, y - y0])
    near = np.argsort(np.hypot(*linear.T))[:49]
    cd: Floats = np.linalg.lstsq(linear[near], np.column_stack([xi, eta])[near], rcond=None)[0].T.astype(np.float64)
    u, v = cd @ linear.T
    wcs = Wcs((ra0, dec0), (x0, y0), cd, _tpv_terms(u, v, xi), _tpv_terms(v, u, eta))
    _check_agreement(wcs, oracle, shape)
    return wcs


def _sky(oracle: WCS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    position = oracle.pixel_to_world(x, y).icrs
    return np.asarray(position.ra.deg, dtype=np.float64), np.asarray(position.dec.deg, dtype=np.float64)


def _tpv_terms(own: Floats, other: Floats, target: Floats) -> Floats:
    """Return the TPV coefficients of one axis by least squares, columns scaled to unit size."""
    scale = float(np.max(np.abs([own, other])))
    powers = list(TPV_POWERS.items())
    design = np.column_stack([(own / scale) ** i * (other / scale) ** j for _, (i, j) in powers])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    pv = np.zeros(N_TPV)
    for (m, (i, j)), value in zip(powers, solution, strict=True):
        pv[m] = value / scale ** (i + j)
    return pv


def _check_agreement(wcs: Wcs, oracle: WCS, shape: tuple[int, int]) -> None:
    ny, nx = shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-0.5, nx - 0.5, 38), np.linspace(-0.5, ny - 0.5, 38)))
    expected, found = _sky(oracle, x, y), wcs.pixel_to_sky(x=x, y=y)
    d_ra = (found[0] - expected[0] + 180.0) % 360.0 - 180.0
    worst = float(np.max(np.hypot(d_ra * np.cos(np.radians(expected[1])), found[1] - expected[1]))) * 3.6e6
    if not worst < _TOLERANCE_MAS:
        raise DataError(f"WCS {oracle.wcs.ctype[0]} does not fit TPV: it is {worst:.3g} mas off somewhere on the image")
