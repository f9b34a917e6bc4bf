"""Evaluate a spatially varying pixel-basis PSF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.spline import shifted_stamps, spline_psf


def polynomial_terms(u: NDArray[np.float64], v: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Return ``[n_terms, n]`` products u**i v**j, by total degree, powers of u falling within a degree."""
    terms = [u ** (d - j) * v**j for d in range(order + 1) for j in range(d + 1)]
    return np.asarray(terms)


def evaluate_stamps(
    coefficients: NDArray[np.float32],
    order: int,
    shape: tuple[int, int],
    oversampling: int,
    *,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    side: int = 0,
) -> NDArray[np.float32]:
    """Return centred image-sampled stamps ``[n, side, side]`` at positions (x, y), each model-sized sum one."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    terms = polynomial_terms(*normalised(x, y, shape), order).T.astype(np.float32)
    terms /= stamp_sums(coefficients, order, shape, oversampling, x=x, y=y)[:, None]
    inner = crop_or_pad(_pixel_samples(coefficients, oversampling), side)
    return (terms @ inner.reshape(inner.shape[0], -1)).reshape(-1, *inner.shape[1:])


def evaluate_stamp(
    coefficients: NDArray[np.float32],
    order: int,
    shape: tuple[int, int],
    oversampling: int,
    *,
    x: float,
    y: float,
    dx: float = 0.0,
    dy: float = 0.0,
    side: int = 0,
) -> NDArray[np.float32]:
    """Return one stamp, its centre shifted by (dx, dy) pixels; what leaves the model's size is lost."""
    at_x, at_y = np.array([x], dtype=np.float64), np.array([y], dtype=np.float64)
    if not (dx or dy):
        return evaluate_stamps(coefficients, order, shape, oversampling, x=at_x, y=at_y, side=side)[0]
    whole_x, whole_y = round(dx), round(dy)
    psf = spline_psf(coefficients, order, shape, oversampling)
    one = shifted_stamps(psf, x=at_x, y=at_y, dx=np.array([dx - whole_x]), dy=np.array([dy - whole_y]))
    one /= stamp_sums(coefficients, order, shape, oversampling, x=at_x, y=at_y)[:, None, None]
    return crop_or_pad(_moved(one, whole_x, whole_y), side)[0]


def moved_stamps(stamps: NDArray[np.float32], shifts: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Return each stamp ``[n, k, k]`` with its centre moved by each (dx, dy) pixels, ``[n, n_shifts, k, k]``.

    Each is divided by the sum that it has unmoved; what leaves it is lost.
    """
    psf = spline_psf(stamps, 0, (1, 1))
    sums = stamps.sum(axis=(1, 2), dtype=np.float64)
    sums = np.where(sums > 0, sums, 1.0).astype(np.float32)
    whole = [(round(dx), round(dy)) for dx, dy in shifts]
    rest = np.array(shifts) - np.array(whole)
    at = np.zeros(len(shifts))
    out = np.empty((stamps.shape[0], len(shifts), *stamps.shape[1:]), np.float32)
    for k in range(stamps.shape[0]):
        own = psf._replace(coefficients=psf.coefficients[k : k + 1])
        made = shifted_stamps(own, x=at, y=at, dx=rest[:, 0], dy=rest[:, 1]) / sums[k]
        for s, (dx, dy) in enumerate(whole):
            out[k, s] = _moved(made[s : s + 1], dx, dy)[0]
    return out


def stamp_sums(
    coefficients: NDArray[np.float32],
    order: int,
    shape: tuple[int, int],
    oversampling: int,
    *,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the sums of the centred stamps before they are normalised; one where they are not positive."""
    terms = polynomial_terms(*normalised(x, y, shape), order).T
    total = terms @ _pixel_samples(coefficients, oversampling).sum(axis=(1, 2), dtype=np.float64)
    return np.where(total > 0, total, 1.0).astype(np.float32)


def normalised(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (u, v), image positions scaled to -1..1 over an image of ``shape`` (ny, nx)."""
    return 2.0 * x / max(shape[1] - 1, 1) - 1.0, 2.0 * y / max(shape[0] - 1, 1) - 1.0


def crop_or_pad(stamps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return ``[n, side, side]`` with the same centres (side 0: unchanged); side must be odd."""
    k = stamps.shape[1]
    if side in (0, k):
        return stamps
    if side < k:
        margin = (k - side) // 2
        return stamps[:, margin : margin + side, margin : margin + side]
    margin = (side - k) // 2
    return np.pad(stamps, ((0, 0), (margin, margin), (margin, margin)))


def evaluate_fwhm(
    coefficients: NDArray[np.float32],
    order: int,
    shape: tuple[int, int],
    oversampling: int,
    *,
    x: float,
    y: float,
) -> float:
    """Return the full width at half maximum at (x, y), image pixels, measured on the model's own samples."""
    terms = polynomial_terms(*normalised(np.array([x]), np.array([y]), shape), order)[:, 0]
    samples = np.tensordot(terms.astype(np.float32), coefficients, axes=1)
    return stamp_fwhm(samples) / oversampling


def stamp_fwhm(stamp: NDArray[np.float32]) -> float:
    """Return the diameter of the circle whose area is that above half of the stamp's maximum, samples.

    Cubic splines through the samples are looked at on a grid fine enough for about 0.01 samples.
    """
    psf = spline_psf(np.ascontiguousarray(stamp[None]), 0, (stamp.shape[0], stamp.shape[1]))
    steps = 9
    offset = (np.arange(steps) - steps // 2) / steps
    dy, dx = (a.ravel() for a in np.meshgrid(offset, offset, indexing="ij"))
    fine = shifted_stamps(psf, x=np.zeros(dx.size), y=np.zeros(dx.size), dx=dx, dy=dy)
    area = np.count_nonzero(fine >= 0.5 * fine.max()) / steps**2
    return float(2.0 * np.sqrt(area / np.pi))


def _pixel_samples(stamps: NDArray[np.float32], oversampling: int) -> NDArray[np.float32]:
    if oversampling == 1:
        return stamps
    middle = stamps.shape[1] // 2
    half = middle // oversampling
    index = middle + oversampling * np.arange(-half, half + 1)
    return stamps[:, index][:, :, index]


def _moved(stamps: NDArray[np.float32], dx: int, dy: int) -> NDArray[np.float32]:
    side = stamps.shape[1]
    out = np.zeros_like(stamps)
    if max(abs(dx), abs(dy)) < side:
        to_y, from_y = slice(max(dy, 0), side + min(dy, 0)), slice(max(-dy, 0), side + min(-dy, 0))
        to_x, from_x = slice(max(dx, 0), side + min(dx, 0)), slice(max(-dx, 0), side + min(-dx, 0))
        out[:, to_y, to_x] = stamps[:, from_y, from_x]
    return out
