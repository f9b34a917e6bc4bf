"""Residuals of static stars in the score: which method matches better, and how much noise the mismatch adds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls
from scipy.special import ndtri

from gueststar.algorithms.subtraction.mismatch import MismatchNoise
from gueststar.algorithms.subtraction.stars import StarFits
from gueststar.algorithms.subtraction.tiles import TransferAt, cut_window
from gueststar.algorithms.subtraction.transfer import Transfer, matched_kernels, stamp_spectrum

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]


AT_ONCE = 32
"""Cut-outs that are filtered together: of these all arrays stay near the processor."""


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
    x: Floats
    """``[n]``: pixels of the stars, the middles of the boxes."""
    y: Floats

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
    grid: int = 80,
) -> StarResiduals:
    """Apply a method's filters to cut-outs about stars at (x, y) and return their central boxes.

    Stars of which the central box does not lie on the image are left out; beyond the edges the image is mirrored.
    """
    ny, nx = science.shape
    inside = (x >= half + 1) & (y >= half + 1) & (x < nx - half - 2) & (y < ny - half - 2)
    column, row = np.round(x[inside]).astype(int), np.round(y[inside]).astype(int)
    parts = []
    for first in range(0, column.size, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        planes = [
            np.stack([
                cut_window(image, y0 - grid // 2, x0 - grid // 2, (grid, grid))
                for y0, x0 in zip(row[some], column[some], strict=True)
            ])
            for image in (science, reference, science_variance, reference_variance)
        ]  # fmt: skip
        transfer = transfer_at(column[some].astype(np.float64), row[some].astype(np.float64), (grid, grid))
        parts.append(_filtered(planes, transfer, half))
    if not parts:
        empty = np.zeros((0, 2 * half + 1, 2 * half + 1))
        return StarResiduals(empty, empty, empty, empty, empty, np.zeros(0), np.zeros(0))
    s, s_r, grad_x, grad_y, photon = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
    return StarResiduals(s, s_r, grad_x, grad_y, photon, column.astype(np.float64), row.astype(np.float64))


def fit_mismatch(
    residuals: StarResiduals,
    *,
    shift_x: float,
    shift_y: float,
    widths: tuple[float, ...],
    quantile: float = 0.8,
    min_stars: int = 8,
    assumed: float = 0.0,
    share: Floats | None = None,
) -> MismatchNoise:
    """Return the mismatch noise that explains the residuals of static stars.

    The variance of S about a star is modelled as photon noise, plus the registration noise of the rms shifts
    given (pixels), plus S_r**2 convolved with a sum of Gaussians of ``widths`` (pixels; 0: a point), whose
    weights are fitted, none negative, to the residuals' profile with distance. The profile is such that in each
    ring the ``quantile`` of the squared normalised residuals is that of normal deviates, so that the few stars
    that vary do not count; for all stars, and for the brightest third of them.
    With fewer than ``min_stars`` stars the images are taken to disagree by the part ``assumed`` of a star's light.
    Given ``share`` (``[n]``), a star's residual power is expected to be so many times the weights returned.
    """
    weights = np.zeros(len(widths))
    weights[:1] = assumed**2
    if residuals.score.shape[0] >= min_stars:
        ring = _rings(residuals.score.shape[1])
        peak2 = residuals.reference.max(axis=(1, 2))[:, None, None] ** 2
        registration = (shift_x * residuals.grad_x) ** 2 + (shift_y * residuals.grad_y) ** 2
        base, s2 = residuals.photon + registration, residuals.score**2
        expected = peak2 if share is None else peak2 * share[:, None, None]
        peaks = np.argsort(-peak2[:, 0, 0], kind="stable")
        # The brightest third too, for itself: among many faint stars what it leaves would pass unseen.
        groups = (peaks, peaks[: max(min_stars, peaks.size // 3)])
        excess = np.max([_profile(s2[g], base[g], expected[g, :, 0], ring, quantile) for g in groups], axis=0)
        source = np.median(residuals.reference**2 / peak2, axis=0)
        photon = np.median(base[groups[1]] / expected[groups[1]], axis=0)
        weights = _fit_profile(excess, source, photon, widths)
    return MismatchNoise(shift_x, shift_y, widths, tuple(float(w) for w in weights))


def _profile(s2: Floats, base: Floats, peak2: Floats, ring: NDArray[np.intp], quantile: float) -> Floats:
    """Return the excess power of each ring, as a fraction of the stars' peak power."""
    rings = range(ring.max() + 1)
    return np.array([_power_to_reach(s2[:, ring == k], base[:, ring == k], peak2, quantile) for k in rings])


def _rings(side: int) -> NDArray[np.intp]:
    """Return the distance from the middle in whole pixels; -1 beyond the inscribed circle."""
    c = side // 2
    yy, xx = np.mgrid[-c : c + 1, -c : c + 1]
    ring = np.rint(np.hypot(xx, yy)).astype(np.intp)
    return np.where(ring <= c, ring, -1)


def _power_to_reach(s2: Floats, base: Floats, peak2: Floats, quantile: float) -> float:
    """Return q >= 0 for which the quantile of s2 / (base + q * peak2) is that of a squared normal deviate."""
    goal = float(ndtri(0.5 + quantile / 2)) ** 2
    # Each value falls below the goal at a q of its own, so the quantile does at the quantile of these.
    enough = (s2 / goal - base) / peak2
    return float(np.clip(np.quantile(enough, quantile), 0.0, 1.0))


def registration_rms(ours: StarFits, theirs: StarFits, *, min_stars: int = 8) -> tuple[float, float]:
    """Return the robust rms shift (x, y) of stars between two images beyond the errors of their places, pixels."""
    if ours.x.size < min_stars:
        return 0.0, 0.0
    out = []
    for a, b, a_err, b_err in (
        (ours.x, theirs.x, ours.x_err, theirs.x_err),
        (ours.y, theirs.y, ours.y_err, theirs.y_err),
    ):
        scatter = 1.4826 * np.median(np.abs(a - b))
        out.append(float(np.sqrt(max(scatter**2 - np.median(a_err**2 + b_err**2), 0.0))))
    return out[0], out[1]


def _fit_profile(excess: Floats, source: Floats, photon: Floats, widths: tuple[float, ...]) -> Floats:
    """Return non-negative weights of blurred ``source`` images whose sum matches ``excess``, given ring by ring.

    Each ring counts by its error relative to the total variance there: the wings matter for stars much brighter
    than these, and where photon noise rules, excess that is not there does no harm.
    """
    side = source.shape[0]
    ring = _rings(side)
    inside = ring >= 0
    n = np.bincount(ring[inside])
    padded = np.pad(source, side)
    design = np.zeros((n.size, len(widths)))
    for k, width in enumerate(widths):
        image = gaussian_filter(padded, width)[side:-side, side:-side] if width > 0 else source
        design[:, k] = np.bincount(ring[inside], image[inside]) / n
    target = np.convolve(np.pad(excess, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    scale = 1.0 / (target + 0.1 * np.bincount(ring[inside], photon[inside]) / n)
    return np.asarray(nnls(design * scale[:, None], target * scale)[0])


def _filtered(planes: list[Float32Image], transfer: Transfer, half: int) -> tuple[Float32Image, ...]:
    """Return central boxes of cut-outs ``[n, side, side]`` under the filters of their places."""
    side = planes[0].shape[-1]
    grid = (side, side)
    n, r, v_n, v_r = (fft.rfft2(plane) for plane in planes)
    matched = np.conj(transfer.psf)
    s_r = fft.irfft2(matched * transfer.reference * r, s=grid)
    s = fft.irfft2(matched * transfer.science * n, s=grid) - s_r
    squares = [stamp_spectrum(kernel**2, grid) for kernel in matched_kernels(transfer)]
    photon = fft.irfft2(squares[0] * v_n + squares[1] * v_r, s=grid)
    c, wide = side // 2, half + 1
    around = s_r[:, c - wide : c + wide + 1, c - wide : c + wide + 1]
    grad_y, grad_x = (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2, (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    box = np.s_[:, c - half : c + half + 1, c - half : c + half + 1]
    return s[box], s_r[box], grad_x, grad_y, np.maximum(photon[box], 1e-20)
