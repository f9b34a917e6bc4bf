"""Fit the convolution kernel that takes one image to the PSF of another.

Every kernel pixel is a free parameter (the delta basis of Bramich 2008, MNRAS 386, L77) that varies over the
image as a polynomial (Alard & Lupton 1998, ApJ 503, 325; Alard 2000), held smooth by a penalty on its second
differences (Becker et al. 2012, MNRAS 425, 1341) of which the strength is chosen on stars that were not fitted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms

Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]

STRENGTHS = (1e-6, 1e-4, 1e-2)
"""Smoothness penalties that are tried, relative to the mean diagonal of the normal equations."""
_JUDGED = 0.9
"""Part of the stars that were not fitted, the best ones, that judges them."""


class MatchingKernel(NamedTuple):
    """A spatially varying kernel."""

    coefficients: Floats
    """``[n_terms, k, k]``, polynomial terms as in `polynomial_terms`."""
    order: int
    shape: tuple[int, int]
    strength: float
    """Smoothness penalty that was chosen."""
    n_stamps: int

    def stamps(self, *, x: Floats, y: Floats) -> Float32Image:
        """Return the kernels ``[n, k, k]`` at image positions."""
        terms = polynomial_terms(*normalised(x, y, self.shape), self.order).T
        return np.asarray(np.tensordot(terms, self.coefficients, axes=1), dtype=np.float32)


class _Stamps(NamedTuple):
    """Normal equations of each star: kernel pixels alone, the local background projected out."""

    matrix: Floats
    """``[n, k*k, k*k]``"""
    vector: Floats
    """``[n, k*k]``"""
    power: Floats
    """``[n]`` weighted sum of squares of the target."""
    n_pixels: Floats


def fit_kernel(
    convolved: Float32Image,
    target: Float32Image,
    variance: Float32Image,
    *,
    x: Floats,
    y: Floats,
    half: int,
    box: int,
    order: int = 2,
    stamps_per_term: int = 8,
) -> MatchingKernel | None:
    """Fit the kernel for which ``convolved`` * kernel matches ``target`` in boxes about stars at (x, y).

    ``half`` is the kernel's half-side and ``box`` that of the fitted boxes; ``variance`` is that of the
    difference. The order falls with the number of stars; None with fewer than four stars away from the edges.
    """
    shape = (target.shape[0], target.shape[1])
    x, y = _away_from_edges(x, y, shape, half + box)
    if x.size < 4:
        return None
    while order > 0 and x.size < stamps_per_term * (order + 1) * (order + 2) // 2:
        order -= 1
    stamps = _stamps(convolved, target, variance, x, y, half, box)
    u, v = normalised(np.round(x), np.round(y), shape)
    terms = polynomial_terms(u, v, order).T
    held = np.arange(x.size) % 4 == 3
    of_others = _Equations.of(stamps, terms, ~held)
    scores = [_held_out_chi2(stamps, terms, held, of_others.solved(half, s)) for s in STRENGTHS]
    strength = STRENGTHS[int(np.argmin(scores))]
    solution = _Equations.of(stamps, terms, np.ones(x.size, bool)).solved(half, strength)
    return MatchingKernel(solution, order, shape, strength, int(x.size))


def kernel_half_side(science_fwhm: float, reference_fwhm: float) -> int:
    """Return the half-side (pixels) of a kernel between two PSFs: their quadratic difference and some room."""
    return int(np.clip(round(1.2 * np.sqrt(abs(science_fwhm**2 - reference_fwhm**2)) + 3.0), 4, 10))


def _away_from_edges(x: Floats, y: Floats, shape: tuple[int, int], margin: int) -> tuple[Floats, Floats]:
    inside = (x >= margin + 1) & (y >= margin + 1) & (x < shape[1] - margin - 1) & (y < shape[0] - margin - 1)
    return x[inside], y[inside]


def _stamps(
    convolved: Float32Image, target: Float32Image, variance: Float32Image, x: Floats, y: Floats, half: int, box: int
) -> _Stamps:
    n, k2 = x.size, (2 * half + 1) ** 2
    matrix, vector, power = np.empty((n, k2, k2)), np.empty((n, k2)), np.empty(n)
    for s, (xs, ys) in enumerate(zip(np.round(x).astype(int), np.round(y).astype(int), strict=True)):
        inner = np.s_[ys - box : ys + box + 1, xs - box : xs + box + 1]
        wide = np.s_[ys - box - half : ys + box + half + 1, xs - box - half : xs + box + half + 1]
        windows = np.lib.stride_tricks.sliding_window_view(convolved[wide], (2 * half + 1, 2 * half + 1))
        design = windows[:, :, ::-1, ::-1].reshape(-1, k2).astype(np.float64)
        weight = 1.0 / np.maximum(variance[inner].ravel().astype(np.float64), 1e-20)
        weight_sum = weight.sum()
        design -= (weight @ design) / weight_sum
        data = target[inner].ravel().astype(np.float64)
        data -= (weight @ data) / weight_sum
        weighted = design * weight[:, None]
        matrix[s], vector[s], power[s] = weighted.T @ design, weighted.T @ data, weight @ data**2
    return _Stamps(matrix, vector, power, np.full(n, float((2 * box + 1) ** 2)))


class _Equations(NamedTuple):
    """Normal equations of all kernel pixels and terms, of some stars together."""

    matrix: Floats
    """``[n_terms, k*k, n_terms, k*k]``"""
    right: Floats
    """``[n_terms * k*k]``"""

    @classmethod
    def of(cls, stamps: _Stamps, terms: Floats, used: NDArray[np.bool_]) -> _Equations:
        """Add up the equations of the stars ``used``."""
        n_terms, k2 = terms.shape[1], stamps.vector.shape[1]
        t, g, d = terms[used], stamps.matrix[used], stamps.vector[used]
        matrix = np.zeros((n_terms, k2, n_terms, k2))
        for a in range(n_terms):
            for b in range(a + 1):
                matrix[a, :, b, :] = np.tensordot(t[:, a] * t[:, b], g, axes=1)
                matrix[b, :, a, :] = matrix[a, :, b, :].T
        return cls(matrix, np.einsum("sa,sk->ak", t, d).ravel())

    def solved(self, half: int, strength: float) -> Floats:
        """Return ``[n_terms, k, k]``, the smoother the greater the ``strength``."""
        k, n_terms = 2 * half + 1, self.matrix.shape[0]
        flat = self.matrix.reshape(n_terms * k * k, n_terms * k * k).copy()
        penalty = strength * np.trace(self.matrix[0, :, 0, :]) / (k * k) * _roughness(k)
        for a in range(n_terms):
            part = slice(a * k * k, (a + 1) * k * k)
            flat[part, part] += penalty
        return np.asarray(np.linalg.solve(flat, self.right).reshape(n_terms, k, k))


def _roughness(k: int) -> Floats:
    """Return the quadratic form of the squared second differences of a k x k kernel, and a trace of its values."""
    line = np.eye(k)
    second = line[:-2] - 2 * line[1:-1] + line[2:]
    form = np.kron(line, second.T @ second) + np.kron(second.T @ second, line)
    return np.asarray(form + 1e-3 * np.eye(k * k))


def _held_out_chi2(stamps: _Stamps, terms: Floats, held: NDArray[np.bool_], fitted: Floats) -> float:
    """Return the mean reduced chi-square of the held-out stars under the kernel ``fitted`` to the others.

    The bright ones decide, since of faint ones noise is left whatever the kernel; the worst are left out, as stars that
    vary are among them.
    """
    if not held.any():
        return 0.0
    kernels = terms[held] @ fitted.reshape(terms.shape[1], -1)
    fit = np.einsum("sk,skl,sl->s", kernels, stamps.matrix[held], kernels)
    chi2 = stamps.power[held] - 2 * np.einsum("sk,sk->s", kernels, stamps.vector[held]) + fit
    chi2 /= stamps.n_pixels[held]
    return float(np.sort(chi2)[: int(np.ceil(_JUDGED * chi2.size))].mean())
