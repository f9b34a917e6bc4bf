"""Residuals of static stars in the score: which method matches better, and how much noise the mismatch adds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gueststar.algorithms.subtraction.tiles import MismatchNoise, TransferAt

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]


class StarResiduals(NamedTuple):
    """Filtered cut-outs of static stars, central boxes ``[n, m, m]``, in the units of the filtered images."""

    score: Floats
    """S = S_n - S_r."""
    reference: Floats
    """S_r."""
    grad_x: Floats
    grad_y: Floats
    photon: Floats
    """Photon variance of S."""

    @property
    def chi2(self) -> float:
        """Median over stars of the mean of S**2 over its photon variance in the box; 1 for a perfect match."""
        if self.score.shape[0] == 0:
            return float("nan")
        return float(np.median(np.mean(self.score**2 / self.photon, axis=(1, 2))))

    @property
    def relative(self) -> float:
        """Median over stars of the rms of S in the box as a fraction of the star's peak in S_r."""
        if self.score.shape[0] == 0:
            return float("nan")
        peak = self.reference.max(axis=(1, 2))
        return float(np.median(np.sqrt(np.mean(self.score**2, axis=(1, 2))) / np.where(peak > 0, peak, np.nan)))


def measure_star_residuals(
    science: Float32Image,
    reference: Float32Image,
    science_variance: Float32Image,
    reference_variance: Float32Image,
    *,
    transfer_at: TransferAt,
    x: Floats,
    y: Floats,
    half: int,
    grid: int = 72,
) -> StarResiduals:
    """Apply a method's filters to cut-outs about stars at (x, y) and return their central boxes."""
    ny, nx = science.shape
    margin = grid // 2
    inside = (x >= margin) & (y >= margin) & (x < nx - margin) & (y < ny - margin)
    parts = []
    for xs, ys in zip(np.round(x[inside]).astype(int), np.round(y[inside]).astype(int), strict=True):
        window = np.s_[ys - margin : ys - margin + grid, xs - margin : xs - margin + grid]
        planes = [image[window] for image in (science, reference, science_variance, reference_variance)]
        parts.append(_filtered(planes, transfer_at, float(xs), float(ys), half))
    if not parts:
        empty = np.zeros((0, 2 * half + 1, 2 * half + 1))
        return StarResiduals(empty, empty, empty, empty, empty)
    return StarResiduals(*(np.asarray(column, dtype=np.float64) for column in zip(*parts, strict=True)))


def fit_mismatch(residuals: StarResiduals, *, quantile: float = 0.75, min_stars: int = 8) -> MismatchNoise:
    """Return the mismatch noise that explains the residuals of static stars.

    The flux term is such that, at the stars' centres, the ``quantile`` of the normalised |score| is that
    of a normal deviate; then the shift term is set by the pixels of steepest gradient along each axis. Being set by
    a quantile, it is not inflated by the few stars that vary. Zero with fewer than ``min_stars`` stars.
    """
    from scipy.special import ndtri

    if residuals.score.shape[0] < min_stars:
        return MismatchNoise(0.0, 0.0, 0.0)
    goal = float(ndtri(0.5 + quantile / 2)) ** 2
    c = residuals.score.shape[1] // 2
    core = np.s_[:, c - 1 : c + 2, c - 1 : c + 2]
    s2, photon, s_r2 = residuals.score[core] ** 2, residuals.photon[core], residuals.reference[core] ** 2
    flux2 = _variance_to_reach(s2, photon, s_r2, quantile, goal)
    shifts = []
    for gradient in (residuals.grad_x, residuals.grad_y):
        steepest = np.argmax(np.abs(gradient).reshape(gradient.shape[0], -1), axis=1)
        rows = np.arange(gradient.shape[0])

        def pick(plane: Floats, rows: NDArray[np.intp] = rows, at: NDArray[np.intp] = steepest) -> Floats:
            return np.asarray(plane.reshape(plane.shape[0], -1)[rows, at])

        base = pick(residuals.photon) + flux2 * pick(residuals.reference) ** 2
        shifts.append(_variance_to_reach(pick(residuals.score) ** 2, base, pick(gradient) ** 2, quantile, goal))
    return MismatchNoise(float(np.sqrt(shifts[0])), float(np.sqrt(shifts[1])), float(np.sqrt(flux2)))


def _variance_to_reach(s2: Floats, base: Floats, per_unit: Floats, quantile: float, goal: float) -> float:
    """Return q >= 0 for which the quantile of s2 / (base + q * per_unit) equals ``goal`` (bisection in log q)."""
    s2, base, per_unit = s2.ravel(), base.ravel(), per_unit.ravel()
    if np.quantile(s2 / base, quantile) <= goal:
        return 0.0
    low, high = -16.0, 2.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.quantile(s2 / (base + 10.0**middle * per_unit), quantile) > goal:
            low = middle
        else:
            high = middle
    return float(10.0**high)


def _filtered(
    planes: list[Float32Image], transfer_at: TransferAt, x: float, y: float, half: int
) -> tuple[Float32Image, ...]:
    grid = (planes[0].shape[0], planes[0].shape[1])
    transfer = transfer_at(x, y, grid)
    n, r, v_n, v_r = (fft.rfft2(plane) for plane in planes)
    matched = np.conj(transfer.psf)
    k_n, k_r = matched * transfer.science, matched * transfer.reference
    s_r = fft.irfft2(k_r * r, s=grid)
    s = fft.irfft2(k_n * n, s=grid) - s_r
    squares = [fft.rfft2(fft.irfft2(k, s=grid) ** 2) for k in (k_n, k_r)]
    photon = fft.irfft2(squares[0] * v_n + squares[1] * v_r, s=grid)
    grad_y, grad_x = np.gradient(s_r)
    c = grid[0] // 2
    box = np.s_[c - half : c + half + 1, c - half : c + half + 1]
    return s[box], s_r[box], grad_x[box], grad_y[box], np.maximum(photon[box], 1e-20)
