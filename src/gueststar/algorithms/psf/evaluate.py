"""Evaluate a spatially varying pixel-basis PSF."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    u, v = normalised(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), shape)
    terms = polynomial_terms(u, v, order)
    n_terms, k, _ = coefficients.shape
    full = (terms.T.astype(np.float32) @ coefficients.reshape(n_terms, k * k)).reshape(-1, k, k)
    if oversampling > 1:
        full = _pixel_samples(full, oversampling)
    total = full.sum(axis=(1, 2), keepdims=True)
    full = (full / np.where(total > 0, total, 1.0)).astype(np.float32)
    return crop_or_pad(full, side)


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
    """Return one stamp, shifted by (dx, dy) pixels with a Lanczos-windowed sinc when either is not zero."""
    one = evaluate_stamps(coefficients, order, shape, oversampling, x=np.array([x]), y=np.array([y]), side=0)[0]
    if dx or dy:
        one = shift_stamp(one, dx=dx, dy=dy)
    return crop_or_pad(one[None], side)[0]


def normalised(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (u, v), image positions scaled to -1..1 over an image of ``shape`` (ny, nx)."""
    return 2.0 * x / max(shape[1] - 1, 1) - 1.0, 2.0 * y / max(shape[0] - 1, 1) - 1.0


def lanczos_kernel(shift: float, taps: int = 5) -> NDArray[np.float64]:
    """Return the 2*taps+1 weights that shift a sampled function by ``shift`` pixels (unit sum)."""
    offsets = np.arange(-taps, taps + 1) - shift
    weights = np.sinc(offsets) * np.sinc(offsets / (taps + 0.5))
    weights[np.abs(offsets) >= taps + 0.5] = 0.0
    return np.asarray(weights / weights.sum())


def shift_stamp(stamp: NDArray[np.float32], *, dx: float, dy: float) -> NDArray[np.float32]:
    """Return ``stamp`` with its content moved by (dx, dy) pixels; what leaves the stamp is lost."""
    whole_x, whole_y = round(dx), round(dy)
    padded = np.pad(stamp.astype(np.float64), 6 + max(abs(whole_x), abs(whole_y)))
    padded = np.roll(padded, (whole_y, whole_x), axis=(0, 1))
    kx, ky = lanczos_kernel(dx - whole_x), lanczos_kernel(dy - whole_y)
    rows = np.apply_along_axis(np.convolve, 1, padded, kx, mode="same")
    both = np.apply_along_axis(np.convolve, 0, rows, ky, mode="same")
    margin = (both.shape[0] - stamp.shape[0]) // 2
    return np.asarray(both[margin : margin + stamp.shape[0], margin : margin + stamp.shape[1]], dtype=np.float32)


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


def stamp_fwhm(stamp: NDArray[np.float32]) -> float:
    """Return the diameter of the circle whose area is that above half of the stamp's maximum, pixels.

    The stamp is resampled five times finer (cubic), so that the result is good to about 0.02 pixels.
    """
    from scipy.ndimage import zoom

    fine = zoom(stamp.astype(np.float64), 5, order=3, grid_mode=True, mode="nearest")
    area = np.count_nonzero(fine >= 0.5 * fine.max()) / 25.0
    return float(2.0 * np.sqrt(area / np.pi))


def _pixel_samples(stamps: NDArray[np.float32], oversampling: int) -> NDArray[np.float32]:
    half = (stamps.shape[1] // 2) // oversampling
    middle = stamps.shape[1] // 2
    index = middle + oversampling * np.arange(-half, half + 1)
    return stamps[:, index][:, :, index]
