"""Straight, even motion on the sky: prediction along great circles and the fit of a few positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from gueststar.algorithms.association.sky_index import sky_positions

Floats = NDArray[np.float64]

_ARCSEC = np.pi / 180.0 / 3600.0
_MINUTES = 1440.0


class Motion(NamedTuple):
    """A fitted motion."""

    mjd: float
    """Weighted mean time."""
    ra: float
    """Place at that time, degrees."""
    dec: float
    rate: float
    """arcsec per minute."""
    rate_err: float
    position_angle: float
    """Direction of motion, degrees from north over east."""
    position_angle_err: float
    chi2: float
    n_dof: int
    probability: float
    """Of a chi-square as large or larger, were the motion straight and even; 1 where two places decide it all."""


def extrapolate(first: Floats, second: Floats, fraction: Floats) -> Floats:
    """Return the points at ``fraction`` of the way from unit vectors to others along great circles.

    0 is the first point, 1 the second; the arcs must be shorter than a half circle.
    """
    angle = 2.0 * np.arcsin(np.minimum(np.linalg.norm(second - first, axis=-1) / 2.0, 1.0))
    safe = np.where(angle > 1e-12, angle, 1.0)
    a = np.where(angle > 1e-12, np.sin((1.0 - fraction) * safe) / np.sin(safe), 1.0 - fraction)
    b = np.where(angle > 1e-12, np.sin(fraction * safe) / np.sin(safe), fraction)
    return np.asarray(a[..., None] * first + b[..., None] * second)


def fit_motion(
    vectors: Floats, mjd: Floats, error_ra: Floats, error_dec: Floats, *, along_deg: float | None = None
) -> Motion:
    """Fit even motion along a great circle to two or more unit vectors at different times (errors in arcsec).

    Done in the projection about the mean place that keeps distances from it (zenithal equidistant), in
    which such a motion through the middle stays straight and even. With ``along_deg``, a position angle, the first
    errors are along that direction and the second ones across it (90 degrees less), as those of a trail are.
    """
    middle = vectors.mean(axis=0)
    middle = middle / np.linalg.norm(middle)
    east, north = _axes(middle)
    first, second = (east, north) if along_deg is None else _turned(east, north, along_deg)
    x, y = _project(vectors, middle, first, second)
    (x0, vx, vx_err, chi2_x, time_x), (y0, vy, vy_err, chi2_y, _) = (
        _fit_line(mjd, values, errors) for values, errors in ((x, error_ra), (y, error_dec))
    )
    chi2, n_dof = chi2_x + chi2_y, 2 * len(mjd) - 4
    shift = y0 + vy * (time_x - _mean_time(mjd, error_dec))
    ra, dec = sky_positions(_deproject(x0, shift, middle, first, second))
    velocity = vx * first + vy * second
    speed = float(np.hypot(vx, vy))
    along = np.hypot(vx * vx_err, vy * vy_err) / max(speed, 1e-30)
    across = np.hypot(vy * vx_err, vx * vy_err) / max(speed, 1e-30)
    return Motion(
        time_x, float(ra), float(dec), speed / _MINUTES, float(along) / _MINUTES,
        float(np.degrees(np.arctan2(velocity @ east, velocity @ north)) % 360.0),
        float(np.degrees(across / max(speed, 1e-30))), float(chi2), n_dof,
        float(chdtrc(n_dof, chi2)) if n_dof > 0 else 1.0,
    )  # fmt: skip


def _fit_line(t: Floats, values: Floats, errors: Floats) -> tuple[float, float, float, float, float]:
    """Return (value at the mean time, slope, its error, chi-square, mean time) of a weighted straight line."""
    weight = 1.0 / errors**2
    mean_t = _mean_time(t, errors)
    dt = t - mean_t
    spread = float(np.sum(weight * dt**2))
    value = float(np.sum(weight * values) / weight.sum())
    slope = float(np.sum(weight * dt * values) / spread)
    chi2 = float(np.sum(weight * (values - value - slope * dt) ** 2))
    return value, slope, spread**-0.5, chi2, mean_t


def _mean_time(t: Floats, errors: Floats) -> float:
    return float(np.sum(t / errors**2) / np.sum(1.0 / errors**2))


def _axes(middle: Floats) -> tuple[Floats, Floats]:
    """Return the directions of east and north at a place (at a pole: of RA 90 and of RA 180 or 0)."""
    flat = np.hypot(middle[0], middle[1])
    cos_a, sin_a = (middle[0] / flat, middle[1] / flat) if flat > 1e-12 else (1.0, 0.0)
    east = np.array([-sin_a, cos_a, 0.0])
    return east, np.cross(middle, east)


def _turned(east: Floats, north: Floats, along_deg: float) -> tuple[Floats, Floats]:
    """Return the direction of a position angle, and that 90 degrees less."""
    sine, cosine = np.sin(np.radians(along_deg)), np.cos(np.radians(along_deg))
    return sine * east + cosine * north, sine * north - cosine * east


def _project(vectors: Floats, middle: Floats, east: Floats, north: Floats) -> tuple[Floats, Floats]:
    """Return offsets towards two directions at right angles, arcsec."""
    x, y = vectors @ east, vectors @ north
    flat = np.hypot(x, y)
    angle = np.arctan2(flat, vectors @ middle)
    scale = np.where(flat > 1e-15, angle / np.maximum(flat, 1e-15), 1.0) / _ARCSEC
    return x * scale, y * scale


def _deproject(x: float, y: float, middle: Floats, east: Floats, north: Floats) -> Floats:
    angle = np.hypot(x, y) * _ARCSEC
    direction = (x * east + y * north) / max(np.hypot(x, y), 1e-15)
    return np.asarray(np.cos(angle) * middle + np.sin(angle) * direction)
