"""A WCS as TAN-SIP header cards."""

from __future__ import annotations

from typing import Any

from gueststar.algorithms.astrometry.sip import sip_from_tpv
from gueststar.model.wcs import Wcs

_ORDER = 5


def to_sip_header(wcs: Wcs, shape: tuple[int, int]) -> dict[str, Any]:
    """Return TAN-SIP cards (CRPIX 1-based) of a WCS for an image of ``shape`` (ny, nx), equal to its TPV form.

    A WCS without distortion gives plain TAN cards.
    """
    terms = sip_from_tpv(crpix=wcs.crpix, cd=wcs.cd, pv1=wcs.pv1, pv2=wcs.pv2, shape=shape)
    suffix = "-SIP" if terms.forward else ""
    header: dict[str, Any] = {
        "RADESYS": "ICRS",
        "CTYPE1": f"RA---TAN{suffix}", "CTYPE2": f"DEC--TAN{suffix}",
        "CUNIT1": "deg", "CUNIT2": "deg",
        "CRVAL1": wcs.crval[0], "CRVAL2": wcs.crval[1],
        "CRPIX1": terms.crpix[0] + 1.0, "CRPIX2": terms.crpix[1] + 1.0,
        "CD1_1": float(terms.cd[0, 0]), "CD1_2": float(terms.cd[0, 1]),
        "CD2_1": float(terms.cd[1, 0]), "CD2_2": float(terms.cd[1, 1]),
    }  # fmt: skip
    if not terms.forward:
        return header
    header |= {"A_ORDER": _ORDER, "B_ORDER": _ORDER, "AP_ORDER": _ORDER, "BP_ORDER": _ORDER}
    for names, table in ((("A", "B"), terms.forward), (("AP", "BP"), terms.inverse)):
        for (p, q), values in table.items():
            for name, value in zip(names, values, strict=True):
                header[f"{name}_{p}_{q}"] = value
    return header
