"""World coordinates: a tangent plane with TPV distortion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.astrometry.tangent import (
    N_TPV,
    TPV_POWERS,
    identity_tpv,
    tangent_deproject,
    tangent_project,
    tpv_forward,
    tpv_inverse,
)
from gueststar.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Wcs:
    """Tangent-plane WCS (ICRS) with TPV polynomial distortion.

    ``crpix`` is the reference pixel, 0-based (x, y), pixel centres at integers; ``cd`` the 2 x 2 matrix
    in degrees per pixel; ``pv1`` and ``pv2`` the TPV coefficients (length 23, see `TPV_POWERS`).
    """

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: Floats
    pv1: Floats
    pv2: Floats

    def __post_init__(self) -> None:
        cd = np.asarray(self.cd, dtype=np.float64)
        if cd.shape != (2, 2) or not np.all(np.isfinite(cd)) or abs(np.linalg.det(cd)) < 1e-14:
            raise DataError(f"CD matrix {cd.tolist()} is singular or not 2x2")
        object.__setattr__(self, "cd", cd)
        for name in ("pv1", "pv2"):
            pv = np.asarray(getattr(self, name), dtype=np.float64)
            if pv.shape != (N_TPV,) or not np.all(np.isfinite(pv)):
                raise DataError(f"{name} must hold {N_TPV} finite TPV coefficients, got shape {pv.shape}")
            object.__setattr__(self, name, pv)

    @classmethod
    def tangent(
        cls,
        *,
        ra: float,
        dec: float,
        x: float,
        y: float,
        scale_arcsec: float,
        rotation_deg: float = 0.0,
        parity: int = 1,
    ) -> Wcs:
        """Return an undistorted WCS with (ra, dec) at pixel (x, y).

        At rotation 0 and parity 1, x falls with RA (east is left) and y rises with Dec; rotation turns
        the sky counter-clockwise on the image, east over north; parity -1 mirrors x.
        """  # fmt: skip
        s, t = scale_arcsec / 3600.0, np.radians(rotation_deg)
        cd = s * np.array([[-parity * np.cos(t), np.sin(t)], [parity * np.sin(t), np.cos(t)]])
        return cls((ra, dec), (x, y), cd, identity_tpv(), identity_tpv())

    def pixel_to_sky(self, *, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return (ra, dec) in degrees, ICRS, of 0-based pixel positions."""
        u = np.asarray(x, dtype=np.float64) - self.crpix[0]
        v = np.asarray(y, dtype=np.float64) - self.crpix[1]
        xi = self.cd[0, 0] * u + self.cd[0, 1] * v
        eta = self.cd[1, 0] * u + self.cd[1, 1] * v
        xi, eta = tpv_forward(self.pv1, self.pv2, xi, eta)
        return tangent_deproject(xi, eta, ra0=self.crval[0], dec0=self.crval[1])

    def sky_to_pixel(self, *, ra: ArrayLike, dec: ArrayLike) -> tuple[Floats, Floats]:
        """Return 0-based pixel (x, y) of sky positions; NaN where the sky point has no image."""
        xi, eta = tangent_project(
            np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64),
            ra0=self.crval[0], dec0=self.crval[1],
        )  # fmt: skip
        xi, eta = tpv_inverse(self.pv1, self.pv2, xi, eta)
        inverse = np.linalg.inv(self.cd)
        x = inverse[0, 0] * xi + inverse[0, 1] * eta + self.crpix[0]
        y = inverse[1, 0] * xi + inverse[1, 1] * eta + self.crpix[1]
        return x, y

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of the square of a pixel's area at the reference pixel, arcsec."""
        return float(np.sqrt(abs(np.linalg.det(self.cd))) * 3600.0)

    @property
    def parity(self) -> int:
        """1 where x falls with RA when y rises with Dec (as seen on the sky), -1 for a mirrored image."""
        return 1 if np.linalg.det(self.cd) < 0 else -1

    def corners(self, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """Return (ra, dec) of the outer corners of an image of ``shape`` (ny, nx), in order around it."""
        ny, nx = shape
        x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
        y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        return self.pixel_to_sky(x=x, y=y)

    def to_header(self) -> dict[str, Any]:
        """Return FITS keywords (CRPIX 1-based, TPV) that WCSLIB, DS9 and SCAMP read alike."""
        is_plain = np.array_equal(self.pv1, identity_tpv()) and np.array_equal(self.pv2, identity_tpv())
        projection = "TAN" if is_plain else "TPV"
        header: dict[str, Any] = {
            "RADESYS": "ICRS",
            "CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}",
            "CUNIT1": "deg", "CUNIT2": "deg",
            "CRVAL1": self.crval[0], "CRVAL2": self.crval[1],
            "CRPIX1": self.crpix[0] + 1.0, "CRPIX2": self.crpix[1] + 1.0,
            "CD1_1": self.cd[0, 0], "CD1_2": self.cd[0, 1], "CD2_1": self.cd[1, 0], "CD2_2": self.cd[1, 1],
        }  # fmt: skip
        if not is_plain:
            for m in TPV_POWERS:
                header[f"PV1_{m}"], header[f"PV2_{m}"] = self.pv1[m], self.pv2[m]
        return {k: float(v) if isinstance(v, np.floating) else v for k, v in header.items()}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Wcs:
        """Read a TAN or TPV WCS from FITS keywords; raises DataError naming the keyword otherwise.

        CD, or PC with CDELT, or CDELT with CROTA2 are understood. Other projections (SIP too) go through
        `gueststar.formats.wcs_header`, which fits this form to what astropy says.
        """
        projection = str(header.get("CTYPE1", ""))[5:].strip("-")
        if projection not in ("TAN", "TPV"):
            raise DataError(f"CTYPE1 {header.get('CTYPE1')!r} is neither TAN nor TPV")
        pv1, pv2 = identity_tpv(), identity_tpv()
        if projection == "TPV":
            pv1, pv2 = _tpv_axis_from(header, 1), _tpv_axis_from(header, 2)
        crval = (_number(header, "CRVAL1"), _number(header, "CRVAL2"))
        crpix = (_number(header, "CRPIX1") - 1.0, _number(header, "CRPIX2") - 1.0)
        return cls(crval, crpix, _linear_part(header), pv1, pv2)


def _number(header: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise DataError(f"{key} is {value!r}, needs a number")
    return float(value)


def _tpv_axis_from(header: Mapping[str, Any], axis: int) -> Floats:
    pv = identity_tpv()
    for key in header:
        if key.startswith(f"PV{axis}_"):
            m = int(key.split("_")[1])
            value = _number(header, key)
            if m in TPV_POWERS:
                pv[m] = value
            elif value != 0.0:
                raise DataError(f"{key} = {value} is a radial TPV term, which is not supported")
    return pv


def _linear_part(header: Mapping[str, Any]) -> Floats:
    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        return np.array([[_number(header, f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)])
    cdelt1, cdelt2 = _number(header, "CDELT1"), _number(header, "CDELT2")
    if any(f"PC{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        pc = np.array([[_number(header, f"PC{i}_{j}", float(i == j)) for j in (1, 2)] for i in (1, 2)])
        return np.diag([cdelt1, cdelt2]) @ pc
    t = np.radians(_number(header, "CROTA2", 0.0))
    return np.array([[cdelt1 * np.cos(t), -cdelt2 * np.sin(t)], [cdelt1 * np.sin(t), cdelt2 * np.cos(t)]])
